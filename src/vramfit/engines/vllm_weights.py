"""Weights as vLLM holds them: what the checkpoint has, and what it adds beside or pads.

"Model loading took" is torch's allocated bytes, so whole blocks of the caching allocator count.
Source: vllm-project/vllm@v0.19.0:vllm/utils/mem_utils.py, DeviceMemoryProfiler.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter as Tally
from collections.abc import Iterable, Iterator
from dataclasses import replace
from math import prod

from vramfit.engine import EngineProfile
from vramfit.engines.vllm_facts import facts_of
from vramfit.formats import FP16, Role
from vramfit.layer_kind import Experts, GroupedQuery, Latent
from vramfit.memory.weights import weights as checkpoint_weights
from vramfit.request import Inference
from vramfit.result import ALWAYS, Basis, Item
from vramfit.shard import Shard
from vramfit.spec import Cut, Layer, ModelSpec, Scheme, Tensor
from vramfit.units import MIB, ceil_div, round_up

VOCABULARY_MULTIPLE = 64
"""Rows of embedding and output projection are padded to it.
Source: vllm-project/vllm@v0.19.0:vllm/model_executor/layers/vocab_parallel_embedding.py, DEFAULT_VOCAB_PADDING_SIZE."""
OWN_SEGMENT_BYTES, SEGMENT_STEP_BYTES, SHARED_SEGMENT_BYTES, UNSPLIT_BYTES = 10 * MIB, 2 * MIB, 20 * MIB, MIB
"""From 10 MiB a tensor has a segment of its own, in steps of 2 MiB; a rest of up to 1 MiB is not split off and counts
as allocated. Source: pytorch/pytorch@v2.8.0:c10/cuda/CUDACachingAllocator.cpp, should_split and get_allocation_size."""
KEPT_BY_RECIPES = {"nvfp4": ("linear_attn",), "w8a8-int8": ("linear_attn",)}
"""Names that the published recipes of a format leave in 16 bit.
Source: vllm-project/llm-compressor:examples/quantization_w4a4_fp4/qwen3_next_example.py, ignore."""
SPEAKING = frozenset({"talker", "talker code predictor", "token2wav", "code2wav", "vocoder"})
"""Parts that speak, which vLLM leaves on disk: it runs the thinker of Qwen's omni models.
Source: vllm-project/vllm@v0.19.0:vllm/model_executor/models/registry.py, Qwen2_5OmniThinkerForConditionalGeneration."""
PADDED = frozenset({"gpt_oss"})
"""Families whose experts go through the kernels that pad."""
_SOURCE = "vllm-project/vllm:vllm/model_executor/models"


def weights(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield the weights of one rank as vLLM's log counts them. [B]

    tensors of the checkpoint, towers in 16 bit beside a quantised model
    + rotary tables + padding + copies for latent attention + ends of the allocator's blocks
    """
    model = loaded(shard.model, workload)
    towers = replace(
        model, embeddings=(), layers=(), head=(), scheme=Scheme(quantised=model.scheme.plain, plain=model.scheme.plain)
    )
    for part in (replace(model, parts=()), *((_towers(model, towers),) if model.parts else ())):
        yield from checkpoint_weights(replace(shard, model=part), workload, engine)
    facts = facts_of(engine, workload)
    added = (
        ("rotary_tables", rotary_bytes(model), "rows x rotated width x 2 B, one table per kind of layer"),
        ("vocabulary_padding", _vocabulary_padding(model) if not shard.num_peers else 0, "rows up to a multiple of 64"),
        (
            "latent_projections",
            latent_bytes(model, absorbed=facts.absorbs_latent),
            "kv_b_proj once more, split per head" + (" and multiplied out" if facts.absorbs_latent else ""),
        ),
        ("expert_padding", expert_padding(model, facts.expert_rest_bytes), "MXFP4 experts padded for their kernel"),
        (
            "draft_inputs",
            draft_inputs(shard, workload),
            "all residual streams of the largest pass, kept for a draft head",
        ),
        ("block_ends", block_ends(model), "rests of up to 1 MiB that the allocator does not split off"),
    )
    for name, size, formula in added:
        if size:
            yield _item(name, size, formula)


def loaded(model: ModelSpec, workload: Inference) -> ModelSpec:
    """Return the model in the formats that vLLM loads it in: fp32 files become 16 bit unless asked otherwise."""
    if any(part.name in SPEAKING for part in model.parts):
        model = replace(model, parts=tuple(part for part in model.parts if part.name not in SPEAKING))
    scheme, gguf = model.scheme, model.scheme.quantised.name.startswith("gguf")
    if scheme.plain.name == "fp32" and workload.weight_format != "fp32" and not gguf:
        scheme = replace(scheme, plain=FP16, quantised=FP16 if scheme.quantised.is_plain else scheme.quantised)
    kept = () if scheme.by_tensor else KEPT_BY_RECIPES.get(scheme.quantised.name, ())
    if kept:
        model = replace(model, layers=_kept_plain(model.layers, kept))
    return model if scheme == model.scheme else replace(model, scheme=scheme)


def _kept_plain(layers: tuple[Layer, ...], kept: tuple[str, ...]) -> tuple[Layer, ...]:
    """Return the layers with the matrices of those names counted as state, which no recipe quantises."""
    found = {
        id(layer): replace(
            layer,
            tensors=tuple(replace(t, role=Role.STATE) if any(k in t.name for k in kept) else t for t in layer.tensors),
        )
        for layer in layers
    }
    return tuple(found[id(layer)] for layer in layers)


def _towers(model: ModelSpec, empty: ModelSpec) -> ModelSpec:
    """Return the parts beside the language model: as the checkpoint says, else in the plain format."""
    said = model.scheme.by_tensor or model.scheme.quantised.name.startswith("gguf")
    return replace(empty, scheme=model.scheme) if said else empty


def _item(name: str, size: int, formula: str) -> Item:
    return Item(
        name=f"weights/{name}",
        bytes=size,
        low_bytes=size // 2 if name == "block_ends" else size,
        high_bytes=size,
        phases=ALWAYS,
        basis=Basis.DERIVED,
        formula=formula,
        source=_SOURCE,
    )


def rotary_bytes(model: ModelSpec) -> int:
    """Bytes of the tables of rotary angles, which all layers of a kind share. [B]

        rows * rotated width * 2     (cosine and sine of half the width each, 16 bit)

    Llama 3.1: 131,072 rows of 128, hence 32 MiB.
    Source: vllm-project/vllm@v0.19.0:vllm/model_executor/layers/rotary_embedding/base.py, _compute_cos_sin_cache.
    """
    mixers = [m for layer, _ in model.groups for m in layer.mixers]
    widths = [m.head_dim for m in mixers if isinstance(m, GroupedQuery)]
    widths += [m.qk_rope_head_dim for m in mixers if isinstance(m, Latent)]
    width = int(max(widths, default=0) * model.rotary_ratio)
    return sum(rows * width * 2 for rows in model.rotary_positions)


def latent_bytes(model: ModelSpec, *, absorbed: bool) -> int:
    """Bytes of the projections that latent attention keeps beside the checkpoint's. [B]

        heads * (qk_nope_head_dim + v_head_dim) * kv_lora_rank * 2       W_UK and W_UV, 16 bit
        absorbed (0.7), fp8: heads * (query rank * (kv_lora_rank + rope) + kv_lora_rank * hidden_size)

    Source: vllm-project/vllm@v0.19.0:vllm/model_executor/layers/attention/mla_attention.py and
    @v0.7.3:vllm/attention/backends/mla/utils.py, process_weights_after_loading.
    """
    total = 0
    for layer, times in model.groups:
        for a in layer.mixers:
            if not isinstance(a, Latent):
                continue
            split = a.num_attention_heads * (a.qk_nope_head_dim + a.v_head_dim) * a.kv_lora_rank * 2
            query = (a.q_lora_rank or model.hidden_size) * (a.kv_lora_rank + a.qk_rope_head_dim)
            width = 1 if "fp8" in model.scheme.quantised.name else 2
            product = a.num_attention_heads * (query + a.kv_lora_rank * model.hidden_size) * width
            total += times * (product if absorbed else split)
    return total


def expert_padding(model: ModelSpec, rest_bytes: int) -> int:
    """Bytes that MXFP4 experts take beyond the checkpoint's. [B]

        width in steps of 64; the inputs of every matrix in steps of 256; 17 bytes for 32 elements; + rest each

    gpt-oss-20b: 2,880 inputs become 3,072: 0.63 GiB, 13.47 in all as the log of 0.11 says.
    Source: vllm-project/vllm@v0.19.0:vllm/model_executor/layers/fused_moe/oracle/mxfp4.py,
    mxfp4_round_up_hidden_size_and_intermediate_size; the second step is that of triton_kernels' layout on Hopper.
    """
    scheme, total, hidden = model.scheme, 0, model.hidden_size
    if model.family not in PADDED:
        return 0
    for layer, times in model.groups:
        facts = layer.feed_forward
        if not isinstance(facts, Experts) or not any(
            t.experts and scheme.format_of(t).name == "mxfp4" for t in layer.tensors
        ):
            continue
        width, into = facts.moe_intermediate_size, 2 if facts.gated else 1
        wider = round_up(width, 64)
        held = into * wider * round_up(hidden, 256) + hidden * round_up(width, 256)
        each = ceil_div((held - (into + 1) * width * hidden) * 17, 32) + rest_bytes
        total += times * facts.num_experts * each
    return total


def draft_inputs(shard: Shard, workload: Inference) -> int:
    """Bytes of the buffer that hands the residual streams to a draft head, whether there is one or not. [B]

        max_num_batched_tokens * streams * hidden_size * 2     on the last stage of models with several streams

    Source: vllm-project/vllm@v0.22.1:vllm/models/deepseek_v4/nvidia/model.py, _mtp_hidden_buffer.
    """
    streams = shard.model.residual_streams
    if streams == 1 or not shard.last:
        return 0
    return (workload.max_num_batched_tokens or 0) * streams * shard.model.hidden_size * 2


def _vocabulary_padding(model: ModelSpec) -> int:
    tensors = [t for t in (*model.embeddings, *model.head) if t.cut is Cut.VOCABULARY]
    return sum(
        (round_up(t.shape[0], VOCABULARY_MULTIPLE) - t.shape[0]) * model.scheme.plain.tensor_size(t.shape[1:])
        for t in tensors
    )


def block_ends(model: ModelSpec) -> int:
    """Bytes that torch counts as allocated behind the ends of tensors. [B]

    Tensors of more than 1 MiB, in the order in which they are made, each from the smallest free block that holds it;
    else from a new segment: of 20 MiB, or from 10 MiB on of its size in steps of 2 MiB. What is left of a block is
    split off when it is more than 1 MiB, else it counts.

    Query, key and value are one tensor in vLLM, gate and up another, and so are all experts of a layer.
    Qwen2.5-72B over two ranks: down_proj is 231 MiB, held as 232: 80 MiB in 80 layers.
    """
    free: list[int] = []
    total = 0
    for size in _allocations(model):
        if size <= UNSPLIT_BYTES:
            continue
        place = bisect_left(free, size)
        block = free.pop(place) if place < len(free) else _segment(size)
        if block - size > UNSPLIT_BYTES:
            insort(free, block - size)
        else:
            total += block - size
    return total


def _segment(size: int) -> int:
    return SHARED_SEGMENT_BYTES if size < OWN_SEGMENT_BYTES else round_up(size, SEGMENT_STEP_BYTES)


def _allocations(model: ModelSpec) -> Iterator[int]:
    """Yield the sizes of the tensors that vLLM allocates, in order. [B]"""
    known: dict[int, tuple[int, ...]] = {}
    yield from (_blocks(tensor, model.scheme) for tensor in model.embeddings)
    for layer in model.layers:
        if id(layer) not in known:
            fused: Tally[str] = Tally()
            for tensor in layer.tensors:
                fused[_holder(tensor, layer)] += _blocks(tensor, model.scheme)
            known[id(layer)] = tuple(fused.values())
        yield from known[id(layer)]
    yield from (_blocks(tensor, model.scheme) for tensor in model.head)


def _holder(tensor: Tensor, layer: Layer) -> str:
    """Name the tensor of vLLM that one of the checkpoint becomes a part of."""
    if tensor.experts:
        return "experts.w2" if tensor.cut in {Cut.INPUTS, Cut.SECOND} else "experts.w13"
    stem, _, last = tensor.name.removesuffix(".weight").rpartition(".")
    if last in {"q_proj", "k_proj", "v_proj"} and not isinstance(layer.attention, Latent):
        return f"{stem}.qkv_proj"
    if last in {"gate_proj", "up_proj"} and tensor.role is Role.LINEAR:
        return f"{stem}.gate_up_proj"
    return tensor.name


def _blocks(tensor: Tensor, scheme: Scheme) -> int:
    """Bytes of a tensor and its copies without scales, which are tensors of their own. [B]"""
    return scheme.format_of(tensor).bytes_for(tensor.copies * prod(tensor.shape))

"""What transformers holds beside what every engine holds: tables, buffers and copies of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import prod

from vramfit.engine import Component, EngineProfile
from vramfit.layer_kind import GroupedQuery
from vramfit.memory.kv_cache import kv_cache
from vramfit.memory.weights import largest_quantised
from vramfit.request import Inference
from vramfit.result import ALWAYS, Basis, Item, Phase, exactly
from vramfit.shard import Shard
from vramfit.units import MIB, count_of, larger

RUNNING = (Phase.PREFILL, Phase.SAMPLE, Phase.DECODE)

TABLE_FAMILIES = frozenset({
    "falcon", "gpt_neox", "gpt_neox_japanese", "mixtral", "persimmon", "phi", "qwen2", "qwen2_moe", "stablelm",
    "starcoder2",
})  # fmt: skip
"""Families that keep rotary tables in every layer at 4.44.2.
Source: huggingface/transformers@v4.44.2:src/transformers/models/*/modeling_*.py, cos_cached."""

ID_BYTES = 5 * 8
"""Per token: input ids, attention mask, its running sum, position ids and cache positions, int64 each.
Source: huggingface/transformers:src/transformers/generation/utils.py, prepare_inputs_for_generation."""

SEPARATE_HEADS = {"fp8": ("qwen3",), "fp8-block": ("qwen3",), "awq-int4": ("qwen2", "qwen3")}
"""Families whose published files of that format hold an output projection although the configuration ties it.
Source: QwenLM/Qwen3:docs/source/getting_started/speed_benchmark.md and QwenLM/Qwen2.5:docs/source/benchmark/
speed_benchmark.rst, whose peaks lie one projection above the tied weights."""

KEEPS_HEAD_FROM = "4.50"
"""First profile that keeps it; before, it is dropped when the load is done (peaks of 4.46.0 and 4.51.3)."""


LT_WORKSPACE_BYTES = 32 * MIB
"""Largest workspace of cublasLt. Source: pytorch/pytorch:aten/src/ATen/cuda/CUDABlas.cpp, _getWorkspaceSize."""


KERNEL_WORKSPACE_BYTES = 8 * MIB
"""See ``kernel_workspaces``."""
TUPLE_CACHES = frozenset({"qwen"})
"""Families whose own code grows a tuple of tensors instead of a cache of transformers."""

WARM_UP_BYTES = 3 * 4 * 4096**2
"""AutoAWQ's own benchmark multiplies an fp32 matrix of 4,096 with itself before the parts are collected: the matrix,
the product, and at most as much for what cuBLAS adds up.
Source: casper-hansen/AutoAWQ:examples/benchmark.py, warmup."""


def cache(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield the cache: grown with the text, or AutoAWQ's, which is as long as the new tokens and rolls. [B]

    Source: casper-hansen/AutoAWQ@v0.1.6:awq/modules/fused/cache.py, WindowedCache, and awq/models/llama.py.
    """
    if engine.weight_format is None:
        yield from kv_cache(shard, workload, engine)
        return
    rolling = replace(workload, context_tokens=larger(workload.new_tokens, 1))
    yield from (replace(item, phases=ALWAYS) for item in kv_cache(shard, rolling, engine))


def previous_cache(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield the cache of the step before, which models with their own tuple cache hold until the step is done. [B]

        the whole cache once more

    High: twice more, as Qwen-1.8B's printed 2.91 GiB would need; low: not at all.
    Source: Qwen/Qwen-14B-Chat:modeling_qwen.py, QWenAttention.forward: torch.cat on ``layer_past``, all layers' results
    in ``presents`` while the caller has ``past_key_values``. 72B: 144.7 GiB printed, 139.7 without it.
    """
    if shard.model.family in TUPLE_CACHES:
        size = sum(i.bytes for i in kv_cache(shard, workload, engine) if Phase.DECODE in i.phases)
        yield Item(
            name="kv_cache/of_the_step_before",
            bytes=size,
            low_bytes=0 * size,
            high_bytes=2 * size,
            phases=(Phase.DECODE,),
            basis=Basis.DERIVED,
            formula="all layers' keys and values once more",
            source="Qwen/Qwen-14B-Chat:modeling_qwen.py, QWenAttention.forward",
        )


def kernel_workspaces(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield what kernels take beside their results: 8 MiB, at most cublasLt's workspace and two matrices. [B]

    Peaks of one-token prompts on A100 (QwenLM speed benchmark, 4.46.0, bf16) lie 5 to 120 MiB above all that is named
    elsewhere, the smallest models' 5 to 12.
    """
    del workload, engine
    matrices = [t.shape for layer, _ in shard.model.groups for t in layer.tensors if len(t.shape) > 1]
    largest = 2 * 2 * max((prod(shape[-2:]) for shape in matrices), default=0)
    yield Item(
        name="runtime/kernel_workspaces",
        bytes=KERNEL_WORKSPACE_BYTES,
        low_bytes=0,
        high_bytes=LT_WORKSPACE_BYTES + largest,
        phases=RUNNING,
        basis=Basis.MEASURED,
        formula="8 MiB; up to 32 MiB of cublasLt and two matrices in 16 bit",
        source="pytorch/pytorch:aten/src/ATen/cuda/CUDABlas.cpp, _getWorkspaceSize",
    )


def rotary_tables(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield the cosines and sines that some families kept in every layer before 4.45. [B]

    layers * max_position_embeddings * head_dim * 2 tables * bytes per element
    """
    del workload
    model = shard.model
    heads = [(m, n) for layer, n in model.groups for m in layer.mixers if isinstance(m, GroupedQuery)]
    if engine.version != "4.38" or model.family not in TABLE_FAMILIES or model.max_position_embeddings is None:
        return
    size = sum(n * model.max_position_embeddings * m.head_dim * 2 * _element(shard) for m, n in heads)
    yield exactly(
        "runtime/rotary_tables",
        size,
        ALWAYS,
        f"{count_of(sum(n for _, n in heads), 'layer')} x 2 tables of {model.max_position_embeddings:,} positions",
        "huggingface/transformers@v4.44.2:src/transformers/models/qwen2/modeling_qwen2.py, _set_cos_sin_cache",
        Basis.DERIVED,
    )


def positions(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield what one pass knows of its tokens: ids, masks, and the cosines and sines of their positions. [B]

    tokens * (2 * head_dim * bytes per element + 40)
    """
    del engine
    widths = [m.head_dim for layer, _ in shard.model.groups for m in layer.mixers if isinstance(m, GroupedQuery)]
    tokens = workload.batch * workload.prompt_tokens
    each = 2 * max(widths, default=0) * _element(shard) + ID_BYTES
    yield Item(
        name="activations/positions",
        bytes=tokens * each,
        low_bytes=0 * tokens,
        high_bytes=tokens * each,
        phases=(Phase.PREFILL, Phase.SAMPLE),
        basis=Basis.DERIVED,
        formula=f"{count_of(tokens, 'token')} x {each} B",
        source="huggingface/transformers:src/transformers/models/llama/modeling_llama.py, LlamaRotaryEmbedding",
    )


def unpacking_buffer(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield the buffer in which GPTQ kernels unpack a matrix, kept from load on. [B]

        largest matrix in fp16

    High: once more, for what kernels without the buffer (8 bit) make of scales and zeros.
    Source: AutoGPTQ/AutoGPTQ:auto_gptq/modeling/_utils.py, autogptq_post_init, temp_dq.
    """
    del workload, engine
    largest = largest_quantised(shard)
    if largest is None or not shard.model.scheme.quantised.name.startswith("gptq-"):
        return
    size = 2 * prod(largest.shape[-2:])
    yield Item(
        name="runtime/unpacking_buffer",
        bytes=size,
        low_bytes=0,
        high_bytes=2 * size,
        phases=ALWAYS,
        basis=Basis.DERIVED,
        formula=f"largest matrix {' x '.join(map(str, largest.shape))} in fp16",
        source="AutoGPTQ/AutoGPTQ:auto_gptq/modeling/_utils.py, autogptq_post_init, temp_dq",
    )


def separate_head(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield the output projection that quantised files of tied models hold as well. [B]

    vocab_size * hidden_size * bytes per element

    AutoAWQ saves it for every model (Falcon-7B: 0.55 GiB of the 0.68 by which its peak exceeds the tied weights).
    """
    del workload
    model = shard.model
    families = SEPARATE_HEADS.get(model.scheme.quantised.name, ())
    named = model.family in families or engine.weight_format is not None
    if not (model.tied and shard.last and named and model.vocab_size):
        return
    size = model.vocab_size * model.hidden_size * _element(shard)
    kept = _at_least(engine.version, KEEPS_HEAD_FROM)
    yield Item(
        name="weights/untied_head" if kept else "load/untied_head",
        bytes=size,
        low_bytes=0,
        high_bytes=size,
        phases=ALWAYS if kept else (Phase.LOAD,),
        basis=Basis.MEASURED,
        formula=f"{model.vocab_size:,} x {model.hidden_size:,} x {_element(shard)} B, in the file beside the embedding",
        source="peaks in QwenLM's speed benchmarks, see engines/transformers_items.py, SEPARATE_HEADS",
    )


def fused_projections(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield the query, key and value matrices that AutoAWQ joins into one while it still has the parts. [B]

    Source: casper-hansen/AutoAWQ@v0.1.6:awq/models/llama.py, LlamaFuser, and awq/utils/fused_utils.py, fuse_qkv.
    """
    del workload
    if engine.weight_format is None:
        return
    model = shard.model
    parts = [(t, n) for layer, n in model.groups for t in layer.tensors if t.name.split(".")[-2][:1] in "qkv"]
    size = sum(n * model.scheme.format_of(t).tensor_size(t.shape) for t, n in parts if t.name.endswith("_proj.weight"))
    yield Item(
        name="load/fused_projections",
        bytes=size,
        low_bytes=size,
        high_bytes=size + WARM_UP_BYTES,
        phases=(Phase.LOAD,),
        basis=Basis.DERIVED,
        formula="queries, keys and values of all layers, joined and apart",
        source="casper-hansen/AutoAWQ@v0.1.6:awq/utils/fused_utils.py, fuse_qkv; examples/benchmark.py, warmup",
    )


def returned_logits(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield the logits that a model spread over devices sends back to the device its inputs came from. [B]

        sequences * prompt * vocab_size * 4

    Source: huggingface/accelerate:src/accelerate/big_modeling.py, dispatch_model, io_same_device.
    """
    if shard.last or not shard.first or not shard.model.generates:
        return
    rows = workload.batch * (workload.prompt_tokens if engine.prompt_logits else 1)
    yield exactly(
        "logits/returned",
        rows * shard.model.vocab_size * 4,
        (Phase.SAMPLE,),
        f"{count_of(rows, 'row')} x {shard.model.vocab_size:,} entries x 4 B",
        "huggingface/accelerate:src/accelerate/big_modeling.py, dispatch_model, io_same_device",
        Basis.DERIVED,
    )


def _element(shard: Shard) -> int:
    return 4 if shard.model.scheme.plain.name == "fp32" else 2


def _at_least(version: str, first: str) -> bool:
    """Compare versions of profiles."""
    wanted, found = ([int(part) for part in text.split(".")] for text in (first, version))
    return found >= wanted


ITEMS: tuple[Component, ...] = (
    previous_cache,
    kernel_workspaces,
    rotary_tables,
    positions,
    unpacking_buffer,
    separate_head,
    fused_projections,
    returned_logits,
)
"""In the order of a report."""

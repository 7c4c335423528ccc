"""The profiling pass: vLLM runs the largest batch through the model and the sampler once, and keeps that much free.

Source: vllm-project/vllm@v0.19.0:vllm/v1/worker/gpu_model_runner.py, profile_run, _dummy_run, _dummy_sampler_run.
"""

from __future__ import annotations

from dataclasses import dataclass

from vramfit.device import Device
from vramfit.engines.vllm_facts import VllmFacts
from vramfit.formats import Role
from vramfit.layer_kind import Compressed, Dense, Experts, GroupedQuery, Latent, Recurrent
from vramfit.memory.activations import mixer_width
from vramfit.memory.kv_cache import INDEX_SCALE_BYTES
from vramfit.request import Inference
from vramfit.result import Total
from vramfit.shard import Shard
from vramfit.spec import ImageInput, Layer, ModelSpec
from vramfit.units import MIB, round_up

WORKSPACE_BYTES = 32 * MIB
"""cuBLAS workspace from Hopper on; 8 MiB and 128 KiB before.
Source: pytorch/pytorch@v2.8.0:aten/src/ATen/cuda/CublasHandlePool.cpp, parseChosenWorkspaceSize."""
OLDER_WORKSPACE_BYTES = 8_519_680
MULTIPROCESSORS = 132
"""Of a card that is not named: those of an H100."""
LAYER_BYTES = 45 * MIB
"""Beside the tensors of the widest layer and the workspace, presumably cublasLt's own workspace of 32 MiB and inputs;
in the logs of 0.19 that the forward pass decides: CodeLlama 7B 49 MiB, Granite 3 8B 46 MiB, Mistral Small w8a8 42 MiB,
each give or take 5 (llm-d-planner)."""
SPARSE_BYTES_PER_TOKEN = 600_000
"""Of models whose attention is sparse by an index, at least: 0.55 MB in GLM-5.3-Flash, 0.6 MB in DeepSeek-V4-Flash, per
token of the largest pass (public logs of 0.22 and later)."""
PADDED_HEADS = 64
"""Query heads of compressed attention come in multiples of it, whatever tp leaves of them.
Source: vllm-project/vllm@v0.22.1:vllm/models/deepseek_v4/attention.py, padded_heads."""
GATHERED_KEYS, GATHERED_LATENTS = 40, 5
"""Times the context that keys of the index and latent vectors are gathered for. Source:
vllm-project/vllm@v0.19.0:vllm/v1/attention/backends/mla/indexer.py, get_max_prefill_buffer_size; flashmla_sparse.py."""
SECOND_RUNNER_MIXTURES = frozenset({"deepseek_v2", "granitemoe", "qwen2_moe", "longcat_flash_ngram"})
"""Source: vllm-project/vllm@v0.26.0:vllm/config/vllm.py, DEFAULT_V2_MODEL_RUNNER_ARCHITECTURES."""
OWN_WORKSPACE = frozenset({"gpt_oss"})
"""Families whose experts do not pass the workspace manager."""
CHUNK_TOKENS = 32768
"""Tokens that go through grouped expert kernels at a time.
Source: vllm-project/vllm@v0.7.3:vllm/envs.py, VLLM_FUSED_MOE_CHUNK_SIZE."""
LATENT_WIDTH = 576
CONTEXT_WORKSPACE_TOKENS = 65536
"""Tokens of earlier chunks that latent attention expands at a time, at most.
Source: vllm-project/vllm@v0.19.0:vllm/model_executor/layers/attention/mla_attention.py,
determine_chunked_prefill_workspace_size and the profiling branch of its forward."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """The parts of the profiling pass that can be its widest moment, and what stays through it. [B]"""

    held: int
    """Workspace of matrix products, images and what the encoder made of them, kept workspaces of experts."""
    forward: int
    """The widest layer."""
    sampler: int
    """Logits and their copies; 0 where this rank has no output projection."""
    encoder: int
    """The vision tower at work."""
    loose: bool
    """True: the widest layer is known loosely (V0, which may cut prompts or not, and sparse attention)."""
    least_sampler: int
    """The same as ``sampler`` at its least, where the version does not tell."""

    @property
    def total(self) -> Total:
        """Low, expected and high of the peak: the text's passes are exact when the sampler decides."""
        exact = self.held + self.sampler
        wide = max(self.held + self.forward, self.encoder)
        expected = max(exact, wide)
        doubt = max(24 * MIB, expected // 100)
        low, high = expected - doubt, expected + doubt
        low = min(low, max(self.held + self.least_sampler, wide) - doubt)
        if wide > exact:
            low, high = max(exact - doubt, wide * 9 // 10), wide * 11 // 10
        if wide > exact and self.loose:
            low, high = exact - doubt, wide * 8 // 5
        return Total(low_bytes=low, expected_bytes=expected, high_bytes=high)


def profiling_pass(shard: Shard, workload: Inference, facts: VllmFacts, device: Device | None) -> Pass:
    """Return what the profiling pass holds.

    held:    workspace + pixels and outputs of the images of one batch + kept expert workspace
    forward: the widest layer of max_num_batched_tokens tokens; a stage holds the two tensors that it receives, the
             first the three that it hands on (Llama 3.1 8B in three stages: 1.10, 1.05, 2.01 GiB)
    sampler: hidden states of all tokens + twice the last of every sequence + logits x bytes each (+ masks' buffer)
    """
    assert workload.max_num_batched_tokens is not None
    assert workload.max_num_seqs is not None
    model, tokens = shard.model, workload.max_num_batched_tokens
    sequences = min(workload.max_num_seqs, tokens)
    element = 4 if workload.weight_format == "fp32" else 2
    workspace = max((expert_workspace(model, layer, tokens) for layer, _ in model.groups), default=0)
    images, encoder = _images(shard, workload)
    kept = workspace if facts.keeps_workspace else 0
    forward = tokens * element * max(layer_width(model, layer) for layer, _ in model.groups) + LAYER_BYTES
    if _index_widths(model):
        forward = max(forward, tokens * SPARSE_BYTES_PER_TOKEN)
    forward += workspace - kept + _context_workspace(model, workload)
    kept += _index_workspace(model, workload)
    handed = tokens * model.hidden_size * element
    forward += 3 * handed if shard.first and not shard.last else 0
    received = 0 if shard.first else 2 * handed
    sampler = least = 0
    if shard.last and model.generates:
        hidden = (tokens + 2 * sequences) * model.hidden_size * element
        each, logits = sampler_bytes(model, facts), sequences * vocabulary(shard)
        hidden += _mask_rows(shard, sequences, facts, device)
        least = hidden + logits * ((facts.least_sampler_bytes or each) + element - 2)
        sampler = hidden + logits * (each + element - 2)
    return Pass(
        held=_workspace(device) + images + kept + received,
        forward=forward,
        sampler=sampler,
        encoder=encoder,
        loose=facts.first_engine or bool(_index_widths(model)),
        least_sampler=least,
    )


def vocabulary(shard: Shard) -> int:
    """Return the entries of the whole vocabulary: every rank samples from all of them."""
    return shard.vocab_size or shard.model.vocab_size or 0


def sampler_bytes(model: ModelSpec, facts: VllmFacts) -> int:
    """Bytes per logit at the sampler's widest moment, which depends on the runner that a model gets. [B]

    The second runner takes Qwen3 with plain weights in 0.22, and in 0.26 what is neither a mixture nor keeps a state.
    """
    mixture = any(isinstance(layer.feed_forward, Experts) for layer, _ in model.groups)
    recurrent = any(isinstance(m, Recurrent) for layer, _ in model.groups for m in layer.mixers)
    taken = {
        "qwen3": model.family == "qwen3" and model.scheme.quantised.is_plain,
        "dense": (not mixture and not recurrent) or model.family in SECOND_RUNNER_MIXTURES,
    }
    return facts.second_runner_bytes if taken.get(facts.second_runner, False) else facts.sampler_bytes


def layer_width(model: ModelSpec, layer: Layer) -> int:
    """Elements of 16 bit per token that live together at the widest moment of a compiled layer. [elements/token]

        dense:     3 * intermediate + 3 * hidden    gate, up and their product; residual before and after, their norm
        8-bit activations: + (intermediate + hidden) / 2       both inputs of matrix products once more
        attention: 3 * hidden + 2 * (query + key + value)
        experts:   6 * hidden + 3 * width of the shared expert, beside their workspace
        streams:   + 8 * hidden of every residual stream: as they were and will be, and both in fp32

    CodeLlama 7B: 3 x 11,008 + 3 x 4,096 elements, 8,192 tokens: 0.69 GiB of the 0.77 that its log says.
    """
    h, widths = model.hidden_size, [0]
    for mixer in layer.mixers:
        if isinstance(mixer, GroupedQuery):
            widths.append(3 * h + 2 * mixer.head_dim * (mixer.num_attention_heads + 2 * mixer.num_key_value_heads))
        elif isinstance(mixer, Compressed):
            heads = round_up(mixer.num_attention_heads, PADDED_HEADS)
            widths.append(mixer_width(h, mixer).expected + 4 * heads * mixer.head_dim)
        else:
            widths.append(mixer_width(h, mixer).expected)
    match layer.feed_forward:
        case Dense() as facts:
            inner = facts.intermediate_size
            eight = any(n in model.scheme.quantised.name for n in ("fp8", "w8a8"))
            widths.append((3 if facts.gated else 2) * inner + 3 * h + ((inner + h) // 2 if eight else 0))
        case Experts() as facts:
            widths.append(6 * h + 3 * facts.shared_intermediate_size)
        case None:
            pass
    streams = model.residual_streams
    return max(widths) + (8 * streams * h if streams > 1 else 0)


def expert_workspace(model: ModelSpec, layer: Layer, tokens: int) -> int:
    """Bytes of the two workspaces of grouped expert kernels. [B]

        2 * tokens * experts per token * (max(width, inputs) + max(2 * width, inputs))

    Mixtral over two ranks, 8,192 tokens: 2 x 8,192 x 2 x (7,168 + 14,336) B = 0.66 GiB. The experts of gpt-oss run in
    kernels that take their own memory and give it back (0.19: the 20B model peaks without any).
    Source: vllm-project/vllm@v0.19.0:vllm/model_executor/layers/fused_moe/fused_moe.py, TritonExperts.workspace_shapes.
    """
    facts = layer.feed_forward
    if not isinstance(facts, Experts) or model.family in OWN_WORKSPACE:
        return 0
    inputs, width = facts.latent_size or model.hidden_size, facts.moe_intermediate_size
    gate = 2 if facts.gated else 1
    return 2 * min(tokens, CHUNK_TOKENS) * facts.num_experts_per_tok * (max(width, inputs) + max(gate * width, inputs))


def _context_workspace(model: ModelSpec, workload: Inference) -> int:
    """Bytes of earlier tokens expanded for latent attention, one layer. [B]"""
    mixers = [m for layer, _ in model.groups for m in layer.mixers if isinstance(m, Latent)]
    assert workload.max_num_seqs is not None
    tokens = min(8 * _largest(workload.context_tokens), CONTEXT_WORKSPACE_TOKENS)
    tokens = max(tokens, workload.max_num_seqs * (workload.block_tokens or 16))
    return max((m.num_attention_heads * (m.qk_nope_head_dim + m.v_head_dim) * tokens * 2 for m in mixers), default=0)


def _index_widths(model: ModelSpec) -> list[int]:
    """Return the widths of all keys of sparse indices; empty where attention is not sparse. [elements]"""
    mixers = [m for layer, _ in model.groups for m in layer.mixers if isinstance(m, Latent | Compressed)]
    return [m.index_head_dim for m in mixers if m.index_head_dim]


def _index_workspace(model: ModelSpec, workload: Inference) -> int:
    """Bytes of the buffers that a sparse index gathers into, kept from the profiling pass on. [B]

    context * (40 * (index width + 4) + 5 * 576 * 2)
    """
    widths = _index_widths(model)
    if not widths:
        return 0
    each = GATHERED_KEYS * (max(widths) + INDEX_SCALE_BYTES) + GATHERED_LATENTS * LATENT_WIDTH * 2
    return _largest(workload.context_tokens) * each


def _largest(size: object) -> int:
    """Return a size, or the largest of an array of them."""
    return int(size.max()) if hasattr(size, "max") else int(size)  # type: ignore[call-overload]


def _workspace(device: Device | None) -> int:
    if device is not None and device.compute_capability and int(device.compute_capability.split(".")[0]) < 9:
        return OLDER_WORKSPACE_BYTES
    return WORKSPACE_BYTES


def _mask_rows(shard: Shard, sequences: int, facts: VllmFacts, device: Device | None) -> int:
    """Bytes of the rows that the kernel of top-k and top-p keeps, one per program. [B]

    min(multiprocessors, sequences) * vocabulary * 4

    Source: vllm-project/vllm@v0.19.0:vllm/v1/sample/ops/topk_topp_triton.py, _TRITON_BUFFER_CACHE.
    """
    if not facts.masks_in_place:
        return 0
    programs = device.multiprocessors if device is not None and device.multiprocessors else MULTIPROCESSORS
    return min(programs, sequences) * vocabulary(shard) * 4


def _images(shard: Shard, workload: Inference) -> tuple[int, int]:
    """Bytes of the images in one batch with their embeddings, and of the tower that makes them. [B]

        images = max(max_num_batched_tokens, tokens of one) // tokens of one
        pixels * 2 + tokens * hidden_size * 2 each; the tower: patches * (2 to 3 * intermediate + 3 * hidden) * 2

    Source: vllm-project/vllm@v0.19.0:vllm/v1/worker/gpu_model_runner.py, profile_run (encoder_cache and
    batched_dummy_mm_inputs live to its end); vllm/multimodal/encoder_budget.py.
    """
    image: ImageInput | None = shard.model.image
    assert workload.max_num_batched_tokens is not None
    towers = [layer for part in shard.model.parts for layer in part.layers]
    if image is None or not shard.first or not towers:
        return 0, 0
    number = max(1, min(workload.max_num_seqs or 1, workload.max_num_batched_tokens // image.tokens))
    held = number * 2 * (image.elements + image.tokens * shard.model.hidden_size)
    inner = [
        (3 if layer.feed_forward.gated else 2) * layer.feed_forward.intermediate_size
        for layer in towers
        if isinstance(layer.feed_forward, Dense)
    ]
    outer = [t.shape[-1] for layer in towers for t in layer.tensors if t.role is Role.NORM]
    return held, held + number * image.patches * 2 * (max(inner, default=0) + 3 * max(outer, default=0))

"""Pages of vLLM's cache: how large, which layers share them, and how many tokens and requests they hold.

Source: vllm-project/vllm@v0.19.0:vllm/v1/core/kv_cache_utils.py, _get_kv_cache_groups_uniform_page_size,
get_kv_cache_config_from_groups, get_max_concurrency_for_kv_cache_config, _report_kv_cache_config.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vramfit.engines.vllm_facts import VllmFacts
from vramfit.formats import kv_format
from vramfit.layer_kind import Attention, Compressed, GroupedQuery, Latent, Recurrence, Recurrent, ShortConvolution
from vramfit.memory.kv_cache import token_bytes
from vramfit.memory.recurrent_state import convolution_channels, state_elements
from vramfit.request import Inference
from vramfit.spec import ModelSpec
from vramfit.units import Size, ceil_div, round_up, smaller

BLOCK_TOKENS = 16
"""Tokens of a page unless asked otherwise, and what enlarged pages are multiples of.
Source: vllm-project/vllm@v0.19.0:vllm/model_executor/models/config.py, HybridAttentionMambaModelConfig."""
PADDING_RATIO = 1.5
"""Groups have as many layers as the most common kind when that is less than this many times the rarest kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Layers that cache alike."""

    num_layers: int
    token_bytes: int
    """Per token and layer; 0 = keeps a state instead. [B/token]"""
    state_bytes: int = 0
    """Per sequence and layer. [B]"""
    window_tokens: int | None = None
    chunked: bool = False
    """True: the window begins anew with every chunk (Llama 4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    """How the pool is cut."""

    kinds: tuple[Kind, ...]
    block_tokens: int
    block_bytes: int
    """One block of every table that lies in the same tensors: page * layers of a group. [B]"""
    group_layers: int
    """Layers of a group; 0 = all layers share one table, whatever their widths."""
    states_per_request: int

    @property
    def num_groups(self) -> int:
        """Tables of blocks that one request has."""
        return sum(ceil_div(kind.num_layers, self.group_layers) for kind in self.kinds) if self.group_layers else 1

    def blocks(self, pool_bytes: int) -> int:
        """Return how many blocks a pool has."""
        return max(0, pool_bytes // self.block_bytes) if self.block_bytes else 0

    def blocks_of_request(self, context_tokens: Size, batched_tokens: int) -> Size:
        """Return the blocks that one request of the longest context takes, all groups together.

        full:    ceil(context / block)
        window:  ceil(min(window - 1 + batched tokens, context) / block) + 1     the window may begin inside a block
        chunks:  ceil(min(chunk + batched tokens, context) / block)
        state:   1, or 2 where prefixes are cached
        """
        if not self.group_layers:
            return ceil_div(context_tokens, self.block_tokens)
        total: Size = 0
        for kind in self.kinds:
            if kind.state_bytes:
                each: Size = self.states_per_request
            elif kind.window_tokens is None:
                each = ceil_div(context_tokens, self.block_tokens)
            elif kind.chunked:
                each = ceil_div(smaller(kind.window_tokens + batched_tokens, context_tokens), self.block_tokens)
            else:
                kept = smaller(kind.window_tokens - 1 + batched_tokens, context_tokens)
                each = ceil_div(kept, self.block_tokens) + 1
            total = total + each * ceil_div(kind.num_layers, self.group_layers)
        return total


def pages(model: ModelSpec, workload: Inference, facts: VllmFacts) -> Pages | None:
    """Return how the cache of one rank is cut into pages; None when nothing is cached.

        block: 16 tokens; with recurrent layers the next multiple of 16 whose page holds a state
        layers of a group: those of the rarest kind, or of the most common if that is < 1.5 times as many

    Qwen3-Next over two ranks: a state is 548,864 B, a token 1,024 B, hence blocks of 544 tokens.
    """
    kinds = tuple(_kinds(model, workload, facts))
    if not kinds:
        return None
    block = workload.block_tokens or BLOCK_TOKENS
    states = [k for k in kinds if k.state_bytes]
    cached = [k for k in kinds if k.token_bytes]
    per_token = max((k.token_bytes for k in cached), default=0)
    if states and cached:
        needed = max(k.state_bytes for k in states)
        block = max(block, round_up(ceil_div(needed, per_token), BLOCK_TOKENS))
    several = len({(k.window_tokens, bool(k.state_bytes)) for k in kinds}) > 1
    if not (facts.groups_layers and several):
        size = sum(k.num_layers * (k.token_bytes * block + k.state_bytes) for k in kinds)
        return Pages(kinds=kinds, block_tokens=block, block_bytes=size, group_layers=0, states_per_request=1)
    counts = [k.num_layers for k in kinds]
    layers = max(counts) if max(counts) < PADDING_RATIO * min(counts) else min(counts)
    page = max(per_token * block, max((k.state_bytes for k in states), default=0))
    return Pages(
        kinds=kinds,
        block_tokens=block,
        block_bytes=page * layers,
        group_layers=layers,
        states_per_request=2 if workload.prefix_caching else 1,
    )


def _kinds(model: ModelSpec, workload: Inference, facts: VllmFacts) -> Iterable[Kind]:
    """Yield the kinds of layers that keep anything, equal ones together."""
    found: dict[Kind, int] = {}
    chunked = model.family.startswith("llama4")
    for layer, times in model.groups:
        for mixer in layer.mixers:
            kind = _kind(mixer, model, workload, facts, chunked=chunked)
            if kind is not None:
                found[kind] = found.get(kind, 0) + times
    for kind, times in found.items():
        yield Kind(
            num_layers=times,
            token_bytes=kind.token_bytes,
            state_bytes=kind.state_bytes,
            window_tokens=kind.window_tokens,
            chunked=kind.chunked,
        )


def _kind(mixer: Attention, model: ModelSpec, workload: Inference, facts: VllmFacts, *, chunked: bool) -> Kind | None:
    if isinstance(mixer, Recurrent):
        return Kind(num_layers=1, token_bytes=0, state_bytes=state_bytes(mixer, model))
    size = token_bytes(mixer, workload)
    if isinstance(mixer, Latent) and facts.latent_multiple > 1:
        width = round_up(mixer.kv_lora_rank + mixer.qk_rope_head_dim, facts.latent_multiple)
        size = kv_format(workload.kv_format_k or "bf16").bytes_for(width)
    if isinstance(mixer, Compressed):
        size = ceil_div(size, mixer.block_tokens)
    window = mixer.window_tokens if isinstance(mixer, GroupedQuery) else None
    if not size:
        return None
    return Kind(num_layers=1, token_bytes=size, window_tokens=window, chunked=chunked and window is not None)


def state_bytes(mixer: Recurrent, model: ModelSpec) -> int:
    """Bytes of one layer's state of one sequence. [B]

        channels * (conv_kernel - 1) * 2   inputs of the convolution, in the model's format
        state elements * bytes of the format that the model names, else of its own

    Source: vllm-project/vllm@v0.19.0:vllm/model_executor/layers/mamba/mamba_utils.py, MambaStateShapeCalculator and
    MambaStateDtypeCalculator.
    """
    plain = model.scheme.plain
    if isinstance(mixer, Recurrence):
        return plain.bytes_for(mixer.previous_elements) + (mixer.state_format or plain).bytes_for(mixer.state_elements)
    inputs = convolution_channels(mixer) * max(0, mixer.conv_kernel - 1)
    if isinstance(mixer, ShortConvolution):
        return plain.bytes_for(inputs)
    return plain.bytes_for(inputs) + (mixer.state_format or plain).bytes_for(state_elements(mixer))


def refusal(pool_bytes: int, cut: Pages, workload: Inference) -> str | None:
    """Return what vLLM says when the pool does not hold one request of the longest context; None when it does.

    Source: vllm-project/vllm@v0.19.0:vllm/v1/core/kv_cache_utils.py, _check_enough_kv_cache_memory.
    """
    context, batched = int(workload.context_tokens), workload.max_num_batched_tokens or 0
    needed = cut.blocks_of_request(context, batched) * cut.block_bytes
    if pool_bytes <= 0:
        return "No available memory for the cache blocks. Try increasing `gpu_memory_utilization`"
    if needed <= pool_bytes:
        return None
    longest = longest_context(pool_bytes, cut, workload)
    hint = f"Based on the available memory, the estimated maximum model length is {longest}. " if longest else ""
    return (
        f"To serve at least one request with the models's max seq len ({context}), ({needed / 2**30:.2f} GiB KV cache "
        f"is needed, which is larger than the available KV cache memory ({pool_bytes / 2**30:.2f} GiB). {hint}"
        "Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when initializing the engine."
    )


def longest_context(pool_bytes: int, cut: Pages, workload: Inference) -> int:
    """Return the most tokens of one request that the pool holds, 0 when not even one."""
    low, high, batched = 0, int(workload.context_tokens), workload.max_num_batched_tokens or 0
    while low < high:
        middle = (low + high + 1) // 2
        if cut.blocks_of_request(middle, batched) * cut.block_bytes <= pool_bytes:
            low = middle
        else:
            high = middle - 1
    return low

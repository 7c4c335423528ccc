"""How llama.cpp lays a model over device and host: layers, cells of the cache, states, graphs.

Layers go to devices from the last one down (``-ngl``); with one more the output projection goes too. The token
embedding stays on the host always, and is copied to the device when it is the output projection as well.
Source: ggml-org/llama.cpp:src/llama-model.cpp, load_tensors (get_layer_buft_list, dev_input, dev_output).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

from vramfit.engine import EngineProfile
from vramfit.engines.ggml_graph import Reserved, reserve
from vramfit.engines.llama_cpp_version import FACTS, LlamaFacts
from vramfit.engines.llama_graph import largest_graph
from vramfit.engines.llama_nodes import Job, Rules
from vramfit.engines.span import Span
from vramfit.formats import FP32, kv_format
from vramfit.layer_kind import Attention, GroupedQuery, Latent, Recurrence, Recurrent
from vramfit.memory.kv_cache import token_bytes
from vramfit.memory.recurrent_state import convolution_channels, state_elements
from vramfit.memory.weights import tensor_bytes, weight_bytes
from vramfit.request import Inference
from vramfit.shard import Shard
from vramfit.spec import Layer, Scheme
from vramfit.units import MIB, round_up

CELL_PAD = 256
"""The context is rounded up to so many cells. Source: src/llama-context.cpp, pull request 17046; before it the
padding of flash attention."""
ROW_ELEMENTS = 512
"""Rows of quantised tensors are read in pieces of so many elements; the last tensor row has room for a whole piece."""
REPEATS = 6
"""Layers followed at either end of a deep model: what lies between repeats them and finds the same holes. Six, because
Gemma 3 has one layer without a window in six."""
BATCHES_IN_FLIGHT = 4
"""Copies of every input when layers are split over devices (``GGML_SCHED_MAX_COPIES``)."""


def layers_on_device(num_layers: int, workload: Inference, facts: LlamaFacts) -> tuple[int, bool]:
    """Return how many layers ``-ngl`` puts on devices, and whether the output projection goes too.

    >>> from vramfit.engines.llama_cpp_version import FACTS
    >>> layers_on_device(32, Inference(gpu_layers=10), FACTS["7700"])
    (9, True)
    >>> layers_on_device(32, Inference(gpu_layers=10), FACTS["2400"])
    (10, False)
    """
    asked = num_layers + 1 if workload.gpu_layers is None else workload.gpu_layers
    if facts.output_is_layer:
        return max(0, min(asked - 1, num_layers)), asked > 0
    return min(asked, num_layers), asked > num_layers


def _stays(shard: Shard, workload: Inference, facts: LlamaFacts) -> tuple[int, bool]:
    """Return how many of this rank's layers stay on the host, and whether the output projection is on the device.

    With several devices the layers left over stay with the first.
    """
    there, output = layers_on_device(len(shard.model.layers), workload, facts)
    whole = workload.gpu_layers is None or workload.gpu_layers > len(shard.model.layers) or shard.num_peers
    return (0, True) if whole else (len(shard.model.layers) - there, output)


def on_device(shard: Shard, workload: Inference, facts: LlamaFacts) -> Shard:
    """Return what of a rank lies on its device: no token embedding, unless it is the output projection too."""
    model = shard.model
    stay, output = _stays(shard, workload, facts)
    head = model.head if output else ()
    tied = shard.first and shard.last and model.tied and output
    if tied:
        head = (model.embeddings[0], *head)
    layers = model.layers[stay:]
    return replace(shard, model=replace(model, layers=layers, embeddings=(), head=head, parts=(), tied=False))


def host_model_bytes(shard: Shard, workload: Inference, facts: LlamaFacts) -> int:
    """Bytes of the weights that stay on the host. [B]"""
    model = shard.model
    stay, output = _stays(shard, workload, facts)
    head = () if output else model.head
    left = replace(model, layers=model.layers[:stay], head=head, parts=(), embeddings=model.embeddings)
    if stay:
        return weight_bytes(left)
    return sum(tensor_bytes(t, model.scheme) for t in (*model.embeddings, *head))


def context_cells(workload: Inference) -> int:
    """Cells of the whole cache, all slots together, rounded up; ollama's num_ctx is that of one slot. [cells]"""
    assert isinstance(workload.context_tokens, int)
    assert isinstance(workload.batch, int)
    each = workload.slots if workload.engine == "ollama" else workload.batch
    return round_up(workload.context_tokens * (each or 1), CELL_PAD)


def micro_batch(workload: Inference) -> int:
    """Tokens of one pass: no more than -ub, -b and the context. [tokens]"""
    sizes = (workload.ubatch_tokens, workload.batch_tokens, context_cells(workload))
    return min(size for size in sizes if size is not None)


def cells_of(mixer: Attention, workload: Inference, facts: LlamaFacts, *, unified: bool = True) -> int:
    """Cells that a layer's cache has, all slots together. [cells]

        full attention:  the whole context
        sliding window:  min(context, PAD(window * slots + micro-batch, 256)) with one cache for all slots,
                         slots * min(context / slots, PAD(window + micro-batch, 256)) with one each

    Source: ggml-org/llama.cpp:src/llama-kv-cache-iswa.cpp. gpt-oss with one slot and a micro-batch of 512:

    >>> from vramfit.engines.llama_cpp_version import FACTS
    >>> window = GroupedQuery(num_attention_heads=64, num_key_value_heads=8, head_dim=64, window_tokens=128)
    >>> job = Inference(context_tokens=131072, slots=1, ubatch_tokens=512, batch_tokens=2048)
    >>> cells_of(window, job, FACTS["7700"])
    768
    """
    whole, slots = context_cells(workload), workload.slots or 1
    window = mixer.window_tokens if isinstance(mixer, GroupedQuery) else None
    if window is None or workload.swa_full or not facts.window_cells:
        return whole
    if unified:
        return min(whole, round_up(window * slots + micro_batch(workload), facts.window_pad))
    each = round_up(-(-whole // slots), CELL_PAD)
    return slots * min(each, round_up(window + micro_batch(workload), facts.window_pad))


def cache_bytes(shard: Shard, workload: Inference, facts: LlamaFacts) -> Iterable[tuple[Attention, Span, int]]:
    """Yield each cached mixer with the bytes of its cache and its cells; high: every slot with a cache of its own."""
    for layer in shard.model.layers:
        for mixer in layer.mixers:
            per_token = token_bytes(mixer, workload, latent=facts.latent)
            if not per_token:
                continue
            per_token = _with_fp16_index(mixer, per_token)
            cells = cells_of(mixer, workload, facts)
            apart = cells_of(mixer, workload, facts, unified=False)
            sizes = sorted((per_token * cells, per_token * apart))
            yield mixer, Span(low=sizes[0], expected=per_token * cells, high=sizes[1]), cells


def _with_fp16_index(mixer: Attention, per_token: int) -> int:
    """Count the key of a sparse index in 16 bit: llama.cpp has no 8-bit cache with one scale per key."""
    index = mixer.index_head_dim if isinstance(mixer, Latent) else 0
    return per_token + (2 * index - index - 4 if index else 0)


def state_bytes(mixer: Recurrent) -> int:
    """State of one sequence in one layer, all of it in fp32. [B]

    4 * (state elements + (kernel - 1) * channels of the convolution)

    Source: ggml-org/llama.cpp:src/llama-memory-recurrent.cpp with n_embd_r and n_embd_s. 48 layers of Mamba 1.4B:

    >>> from vramfit.layer_kind import StateSpace
    >>> layer = StateSpace(num_heads=4096, head_dim=1, state_size=16, conv_kernel=4, num_groups=0)
    >>> 48 * state_bytes(layer)
    14942208
    """
    return FP32.bytes_for(state_elements(mixer) + _carried(mixer))


def _carried(mixer: Recurrent) -> int:
    """Inputs of earlier tokens: one less than the convolution is long."""
    if isinstance(mixer, Recurrence):
        return mixer.previous_elements
    return convolution_channels(mixer) * max(0, mixer.conv_kernel - 1)


def compute(shard: Shard, workload: Inference, facts: LlamaFacts, *, named: bool) -> Span:
    """Return the compute buffer: the largest graph by this build's rules, and by its neighbours' for the bounds. [B]

    Without a build the largest of all rules is expected, with logits for a whole micro-batch, as every program
    but the newest server has them. High: also tensors that find no hole of their size, two more of the stream.
    The last norm is taken where it costs more: logs of equal builds show one and the other.
    """
    job = _Reservations(shard=shard, workload=workload, facts=facts)
    whole = {each: job.device_bytes(each, micro_batch(workload)) for each in _rules(facts, named=named)}
    server = job.device_bytes(facts.rules, job.few) if facts.few_outputs else whole[facts.rules]
    expected = server if named else max(whole.values())
    stream = 4 * shard.model.hidden_size * micro_batch(workload) + MIB
    return Span(low=min(server, *whole.values()), expected=expected, high=max(server, *whole.values()) + 2 * stream)


def host_compute(shard: Shard, workload: Inference, facts: LlamaFacts, *, named: bool) -> Span:
    """Return the buffer of the graph's inputs on the host; without a build the oldest rules' are expected. [B]"""
    job = _Reservations(shard=shard, workload=workload, facts=facts)
    whole = {each: job.reserved(each, job.few).host_bytes for each in _rules(facts, named=named)}
    expected = whole[facts.rules] if named else next(iter(whole.values()))
    stream = 4 * shard.model.hidden_size * micro_batch(workload) + MIB
    return Span(low=min(whole.values()), expected=expected, high=max(whole.values()) + stream)


def _rules(facts: LlamaFacts, *, named: bool) -> list[Rules]:
    """Return the rules that may hold: all, or this build's and its neighbours' (break points are rough)."""
    known = list(dict.fromkeys(each.rules for each in FACTS.values()))
    at = known.index(facts.rules)
    return known[max(0, at - 1) : at + 2] if named else known


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reservations:
    """One rank's graphs under different rules."""

    shard: Shard
    workload: Inference
    facts: LlamaFacts

    @property
    def few(self) -> int:
        """Outputs of a server: one per slot."""
        return min(micro_batch(self.workload), self.workload.slots or 1)

    def device_bytes(self, rules: Rules, outputs: int) -> int:
        """Return the larger device buffer of both places that the last norm can have. [B]"""
        apart = replace(rules, last_norm_apart=True)
        return max(self.reserved(each, outputs).device_bytes for each in (rules, apart))

    def reserved(self, rules: Rules, outputs: int) -> Reserved:
        """Follow the allocator over one graph."""
        return _followed(self.job(rules, outputs), BATCHES_IN_FLIGHT if self.shard.num_peers else 1)

    def job(self, rules: Rules, outputs: int) -> Job:
        """Describe one graph."""
        model, workload = self.shard.model, self.workload
        stay, output = _stays(self.shard, workload, self.facts)
        key, value = kv_format(workload.kv_format_k or "fp16"), kv_format(workload.kv_format_v or "fp16")
        head = max((tensor_bytes(t, model.scheme) for t in (*model.head, *model.embeddings)), default=0)
        layers = list(enumerate(model.layers))
        if len(layers) > 2 * REPEATS:
            layers = layers[:REPEATS] + layers[-REPEATS:]
        return Job(
            hidden_size=model.hidden_size,
            vocab_size=model.vocab_size or 0,
            family=model.family,
            tokens=micro_batch(workload),
            outputs=outputs,
            cells=_Cells(workload=workload, facts=self.facts),
            flash=bool(workload.flash_attention),
            layers=tuple((_bare(layer) if number >= stay else layer, number >= stay) for number, layer in layers),
            first=self.shard.first,
            last=self.shard.last,
            head_bytes=None if output else head,
            weight_bytes=_LargestWeight(scheme=model.scheme),
            key_bytes=key.bytes_for,
            value_bytes=value.bytes_for,
            rules=rules,
            quantised_keys=key.block_elements > 1,
            quantised_values=value.block_elements > 1,
            latent=self.facts.latent,
        )


@lru_cache(maxsize=1024)
def _bare(layer: Layer) -> Layer:
    """Return a layer without its storage formats: weights on the device are in no graph's buffer."""
    return replace(layer, tensors=tuple(replace(t, stored=None, held=None) for t in layer.tensors))


@lru_cache(maxsize=4096)
def _followed(job: Job, copies: int) -> Reserved:
    """Follow the allocator over one graph, once: ranks and the plans of a search share most of theirs."""
    return reserve(largest_graph(job), copies)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cells:
    """``cells_of`` for one workload; equal workloads count equally."""

    workload: Inference
    facts: LlamaFacts

    def __call__(self, mixer: Attention) -> int:
        return cells_of(mixer, self.workload, self.facts)


@dataclass(frozen=True, slots=True, kw_only=True)
class _LargestWeight:
    """Bytes of the largest weight of a layer with a word in its name; experts together. [B]"""

    scheme: Scheme

    def __call__(self, layer: Layer, word: str) -> int:
        named = [t for t in layer.tensors if any(part in t.name for part in word.split("|"))]
        return max((tensor_bytes(t, self.scheme) for t in named), default=0)


def is_named(workload: Inference, engine: EngineProfile) -> bool:
    """Say whether a build was asked for; without one the workload carries the profile's own."""
    return workload.engine_version != engine.version


def row_padding(shard: Shard) -> int:
    """Bytes behind quantised tensors whose rows are no whole number of 512 elements. [B]

    Source: ggml-org/llama.cpp:ggml/src/ggml-cuda/ggml-cuda.cu, MATRIX_ROW_PADDING.
    """
    model, padded = shard.model, 0
    counted = [(t, 1) for t in model.head] + [(t, n) for layer, n in model.groups for t in layer.tensors]
    for tensor, times in counted:
        fmt = model.scheme.format_of(tensor)
        left = -tensor.shape[-1] % ROW_ELEMENTS if tensor.shape else 0
        padded += times * fmt.bytes_for(left) if left and not fmt.is_plain and len(tensor.shape) > 1 else 0
    return padded

"""Activations: the tensors of one forward pass that live together at its widest moment.

Without gradients a layer's tensors die as soon as they are used, so the peak is one layer's,
not the sum. It lies either in the feed-forward network or in the attention of the widest layer.
Counted are the variables that an eager PyTorch implementation keeps alive, per token.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

from vramfit.engine import EngineProfile
from vramfit.layer_kind import (
    Attention,
    Compressed,
    CrossAttention,
    Dense,
    Experts,
    GroupedQuery,
    Latent,
    LinearAttention,
    Recurrence,
    Recurrent,
    ShortConvolution,
    StateSpace,
)
from vramfit.memory.weights import largest_quantised
from vramfit.request import Inference
from vramfit.result import Basis, Item, Phase, exactly
from vramfit.shard import Shard
from vramfit.spec import Layer, layer_groups
from vramfit.units import Size, ceil_div, count_of, larger, smaller

_SOURCE = (
    "variables alive in huggingface/transformers:src/transformers/models/llama/modeling_llama.py; agrees with the "
    "published peaks of Qwen2.5-0.5B to 32B at 30,720 tokens within 1 % (QwenLM speed benchmark, transformers 4.46)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Width:
    """Elements per token that live together in one place of a layer."""

    place: str
    low: int
    expected: int
    high: int


def dense_width(hidden_size: int, facts: Dense) -> Width:
    """Elements per token at the widest moment of a dense feed-forward network. [elements/token]

        gated:   4 * hidden_size + 3 * intermediate_size
        plain:   4 * hidden_size + 2 to 4 * intermediate_size

    4: embeddings, the layer's input, the residual after attention, its norm. 3: activated gate, up
    projection and their product. Plain networks hold input and output of the activation function (2);
    one written out in Python, such as GPT-2's GELU, up to 4.

    >>> dense_width(896, Dense(intermediate_size=4864)).expected
    18176
    """
    h, f = hidden_size, facts.intermediate_size
    if facts.gated:
        return Width(place="feed-forward", low=3 * h + 2 * f, expected=4 * h + 3 * f, high=4 * h + 4 * f)
    return Width(place="feed-forward", low=3 * h + 2 * f, expected=4 * h + 4 * f, high=4 * h + 4 * f)


def experts_width(hidden_size: int, facts: Experts, *, at_once: bool) -> Width:
    """Elements per token at the widest moment of a mixture of experts. [elements/token]

        at once:          5 * hidden_size + k * max(inputs + 3 * width, 4 * inputs)
        expert by expert: 5 * hidden_size + share * (2 * inputs + 3 * width)

    inputs: the hidden size, or the narrower latent size experts work at. k: experts per token; every
    token is copied once per expert it goes to. ``share``: part of all tokens
    that the busiest expert gets: k / experts when balanced (low), all in the worst case (high); expected is
    twice the balanced share. The shared expert's 3 * width is counted when it is the wider of the two.
    Source: huggingface/transformers:src/transformers/integrations/moe.py, 5.23.0, grouped_mm_experts_forward.
    """
    h, f, k = hidden_size, facts.moe_intermediate_size, facts.num_experts_per_tok
    gate = 3 if facts.gated else 2
    shared, inputs = gate * facts.shared_intermediate_size, facts.latent_size or h
    if at_once:
        routed = k * max(inputs + gate * f, 4 * inputs)
        low = k * max(inputs, gate * f)
        return Width(
            place="experts",
            low=4 * h + max(low, shared),
            expected=5 * h + max(routed, shared),
            high=6 * h + routed + shared,
        )
    one = 2 * inputs + gate * f
    balanced = ceil_div(k * one, facts.num_experts)
    return Width(
        place="experts",
        low=4 * h + max(balanced, shared),
        expected=5 * h + max(min(2 * balanced, one), shared),
        high=6 * h + max(one, shared),
    )


def mixer_width(hidden_size: int, mixer: Attention) -> Width:
    """Elements per token at the widest moment of a layer's attention, without score matrices. [elements/token]

        grouped query:     3 * hidden + 4 * heads * head_dim + 2 * KV heads * head_dim
        latent:            3 * hidden + heads * (3 * (nope + rope) + (nope + v) + v)
        compressed:        3 * hidden + 8 * (head_dim + index_head_dim) * (2 if blocks overlap)
        state space:       3 * hidden + 3 * inner + 2 * (inner + 2 * groups * state), inner = heads * head_dim
        linear attention:  3 * hidden + 2 * (2 * keys + values) + 3 * values
        short convolution: 3 * hidden + 3 * width + 2 * width: its three inputs, their product, its output
        recurrence:        3 * hidden + 6 * width: five mixed inputs or gates and the output

    3: embeddings, layer input, its norm. Rotary embedding holds the query, its two products and the
    rotated copy (4). Blocks are compressed in fp32 (2 elements): values and scores, and their weighted copies (8); the
    query is the window's beside them. Recurrent layers are bounded loosely (high is twice expected): their scans
    depend on the kernel in use.
    """
    h = hidden_size
    match mixer:
        case GroupedQuery() | CrossAttention() as a:
            q, kv = a.num_attention_heads * a.head_dim, a.num_key_value_heads * a.head_dim
            return Width(
                place="attention",
                low=3 * h + 2 * q + 2 * kv,
                expected=3 * h + 4 * q + 2 * kv,
                high=4 * h + 5 * q + 4 * kv,
            )
        case Latent() as a:
            query = a.num_attention_heads * (a.qk_nope_head_dim + a.qk_rope_head_dim)
            value = a.num_attention_heads * a.v_head_dim
            up = a.num_attention_heads * (a.qk_nope_head_dim + a.v_head_dim)
            low, expected = 3 * h + 2 * query + value, 3 * h + 3 * query + up + value
            return Width(place="attention", low=low, expected=expected, high=expected + 2 * query)
        case Compressed() as a:
            one = 2 * (2 if a.overlaps else 1) * (a.head_dim + a.index_head_dim)
            return Width(
                place="compressed attention", low=3 * h + 2 * one, expected=3 * h + 4 * one, high=3 * h + 6 * one
            )
        case _:
            return _recurrent_width(h, mixer)


def _recurrent_width(h: int, mixer: Recurrent) -> Width:
    """Elements per token of a layer that keeps a state; see ``mixer_width``."""
    match mixer:
        case StateSpace() as a:
            inner = a.num_heads * a.head_dim
            mixed = inner + 2 * a.num_groups * a.state_size
            expected = 3 * h + 3 * inner + 2 * mixed
            return Width(place="state space", low=3 * h + inner + mixed, expected=expected, high=2 * expected)
        case LinearAttention() as a:
            values = a.num_value_heads * a.value_head_dim
            mixed = 2 * a.num_key_heads * a.key_head_dim + values
            expected = 3 * h + 2 * mixed + 3 * values
            return Width(place="linear attention", low=3 * h + mixed + values, expected=expected, high=2 * expected)
        case ShortConvolution() as a:
            expected = 3 * h + 5 * a.width
            return Width(place="short convolution", low=3 * h + 3 * a.width, expected=expected, high=2 * expected)
        case Recurrence() as a:
            expected = 3 * h + 6 * a.width
            return Width(place="recurrence", low=3 * h + 3 * a.width, expected=expected, high=2 * expected)


def widest(layers: Iterable[Layer], hidden_size: int, engine: EngineProfile, streams: int = 1) -> Width:
    """Return the widest place of some layers. [elements/token]

    + (streams - 1) * hidden_size   where the hidden state runs in several streams: the residual holds them all,
                                    with the expanded embeddings twice, with their fp32 copy four times
    """
    h = hidden_size
    widths: list[Width] = []
    for layer in layers:
        widths.extend(mixer_width(h, mixer) for mixer in layer.mixers)
        if isinstance(layer.feed_forward, Dense):
            widths.append(dense_width(h, layer.feed_forward))
        if isinstance(layer.feed_forward, Experts):
            widths.append(experts_width(h, layer.feed_forward, at_once=engine.experts_at_once))
    top, more = max(widths, key=lambda w: w.expected), (streams - 1) * h
    return Width(
        place=top.place,
        low=max(w.low for w in widths) + more,
        expected=top.expected + 2 * more,
        high=max(w.high for w in widths) + 4 * more,
    )


def score_bytes(layers: Iterable[Layer], rows: Size, queries: Size, keys: Size, each: int = 6) -> Size:
    """Bytes of the attention matrix that eager attention writes out, one layer. [B]

        heads * sequences * queries * keys * 6   (6: the masked scores in 16 bit, their softmax in fp32)

    ``each``: another implementation's bytes per score.

    Flash and memory-efficient attention never hold it. Source: eager_attention_forward in
    huggingface/transformers:src/transformers/models/llama/modeling_llama.py.
    """
    mixers = (mixer for layer in layers for mixer in layer.mixers)
    heads = max((m.num_attention_heads for m in mixers if isinstance(m, GroupedQuery | Latent)), default=0)
    return heads * rows * queries * keys * each


def activations(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield the peak of a prefill pass and of a decode step. [B]

        tokens in the pass * widest place of a layer * bytes per element

    Tokens in the pass: all prompts, or one chunk of them where the engine chunks (an encoder's text
    cannot be cut); one per sequence in decode. Eager attention adds its score matrix; weight-only
    quantised formats may hold one matrix in 16 bit instead of the product of the gate. Where an encoder reads
    the prompt, its layers are the widest in prefill; a rank without it starts the answer, one token a sequence.
    Layers of which nothing but the tensors is known (stages of convolutions) yield nothing; the model says so.
    """
    element = 4 if shard.model.scheme.plain.name == "fp32" else 2
    size, smallest = _unpacked_matrix(shard, engine)
    for phase, layers, hidden_size, count, per_sequence, keys in _passes(shard, workload, engine):
        if not any(layer.mixers or layer.feed_forward for layer in layers):
            continue
        width = widest(layers, hidden_size, engine, shard.model.residual_streams)
        scores = 0
        matrix = size * smaller(count // smallest, 1)
        if workload.attention == "eager":
            scores = score_bytes(layers, ceil_div(count, per_sequence), per_sequence, keys, engine.score_bytes)
        low, expected, high = (count * w * element + scores for w in (width.low, width.expected, width.high))
        yield Item(
            name=f"activations/{phase.value}",
            bytes=reduce(larger, (expected, low + matrix)),
            low_bytes=0 * low if engine.prompts_may_be_cut and phase is Phase.PREFILL else low,
            high_bytes=high + matrix,
            phases=(phase,),
            basis=Basis.DERIVED,
            formula=f"{count_of(count, 'token')} x {width.expected:,} elements alive in the widest layer's"
            f" {width.place} x {element} B"
            + (" + scores of eager attention" if workload.attention == "eager" else "")
            + (
                f"; or one matrix unpacked to 16 bit ({size:,} B) from {count_of(smallest, 'token')} on" if size else ""
            ),
            source=_SOURCE,
        )


def _passes(
    shard: Shard, workload: Inference, engine: EngineProfile
) -> Iterable[tuple[Phase, tuple[Layer, ...], int, Size, Size, Size]]:
    """Yield the passes of a rank: phase, distinct layers, hidden size, tokens, queries per sequence, keys."""
    model, batch, queries = shard.model, workload.batch, workload.prompt_tokens
    own = tuple(layer for layer, _ in model.groups)
    tokens = batch * queries
    encoder = next((part for part in model.parts if part.encodes), None)
    if encoder is not None:
        layers = tuple(layer for layer, _ in layer_groups(encoder.layers))
        yield Phase.PREFILL, layers, encoder.hidden_size or model.hidden_size, tokens, queries, queries
    elif model.encodes_prompt:
        yield Phase.PREFILL, own, model.hidden_size, batch, 1, queries
    else:
        if engine.prefill_chunk_tokens is not None and model.generates:
            tokens = smaller(tokens, engine.prefill_chunk_tokens)
            queries = smaller(queries, engine.prefill_chunk_tokens)
        yield Phase.PREFILL, own, model.hidden_size, tokens, queries, workload.prompt_tokens
    if model.generates:
        yield Phase.DECODE, own, model.hidden_size, batch, 1, workload.context_tokens


def towers(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield what a tower beside the text needs beyond the text's own pass, one input for each sequence. [B]

        max(0, tokens of an input * widest place of the tower - prompt tokens * widest place of the layers)
        * sequences * bytes per element

    The towers of CLIP run one after the other; the wider pass is the peak.
    """
    model, batch = shard.model, workload.batch
    element = 4 if model.scheme.plain.name == "fp32" else 2
    for part in model.parts:
        if part.input_tokens is None:
            continue
        text = widest((layer for layer, _ in model.groups), model.hidden_size, engine, model.residual_streams)
        layers = tuple(layer for layer, _ in layer_groups(part.layers))
        tower = widest(layers, part.hidden_size or model.hidden_size, engine)
        pairs = ((tower.low, text.low), (tower.expected, text.expected), (tower.high, text.high))
        needs = (batch * (part.input_tokens * image - workload.prompt_tokens * own) * element for image, own in pairs)
        low, expected, high = (larger(need, 0 * need) for need in needs)
        yield Item(
            name=f"activations/{part.name.replace(' ', '_')}",
            bytes=expected,
            low_bytes=low,
            high_bytes=high,
            phases=(Phase.PREFILL,),
            basis=Basis.DERIVED,
            formula=f"{count_of(batch, 'input')} x ({part.input_tokens:,} tokens x {tower.expected:,} - "
            f"{count_of(workload.prompt_tokens, 'token')} x {text.expected:,} of the text, if more) x {element} B",
            source=_SOURCE,
        )


def encoded_prompt(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield what the encoder made of the prompt, which is kept while the answer is written. [B]

        prompt tokens * sequences * hidden size of the encoder * bytes per element

    Source: huggingface/transformers:src/transformers/generation/utils.py, encoder_outputs in model_kwargs.
    """
    del engine
    model = shard.model
    encoder = next((part for part in model.parts if part.encodes), None)
    if encoder is None or not model.generates:
        return
    hidden_size, tokens = encoder.hidden_size or model.hidden_size, workload.batch * workload.prompt_tokens
    element = 4 if model.scheme.plain.name == "fp32" else 2
    yield exactly(
        "activations/encoded_prompt",
        tokens * hidden_size * element,
        (Phase.SAMPLE, Phase.DECODE),
        f"{count_of(tokens, 'token')} x {hidden_size:,} x {element} B",
        "huggingface/transformers:src/transformers/generation/utils.py",
        Basis.DERIVED,
    )


def _unpacked_matrix(shard: Shard, engine: EngineProfile) -> tuple[int, int]:
    """Return the largest quantised matrix in the plain format, and from how many tokens on it is unpacked to it.

    Kernels without fusion do so. [B, tokens]
    """
    scheme = shard.model.scheme
    smallest = dict(engine.unpacked_for).get(scheme.quantised.name)
    largest = largest_quantised(shard)
    if smallest is None or largest is None:
        return 0, 1
    return scheme.plain.tensor_size(largest.shape[-2:]), smallest

"""From a GGUF header to a ``ModelSpec``: weights from the tensors themselves, the rest from the metadata.

Nothing is inferred from a label: every tensor has its own type. Which layers attend, keep a state or
route to experts follows from the tensors they have (``gguf_mixers``); what llama.cpp has in its code and not in the
file is in ``gguf_architectures``. An architecture that is not there is refused by name.
Source: ggml-org/llama.cpp:src/llama-model.cpp and src/models/*.cpp (load_arch_hparams), gguf-py/gguf/constants.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from math import prod

from vramfit.errors import UnsupportedModelError, quote
from vramfit.formats import FP32, GGUF_TYPES, Role, StorageFormat
from vramfit.layer_kind import Attention, Dense, Experts, FeedForward, GroupedQuery
from vramfit.names import nearest
from vramfit.readers.gguf import GgufHeader
from vramfit.readers.gguf_architectures import ENCODERS, READ, UNREAD
from vramfit.readers.gguf_metadata import Metadata
from vramfit.readers.gguf_mixers import ignored_window, mixers_of
from vramfit.readers.safetensors import Checkpoint, StoredTensor
from vramfit.spec import Cut, Layer, ModelSpec, Part, Scheme, Tensor

_BLOCK = re.compile(r"^(?P<stack>(?:enc\.|dec\.)?blk\.)(?P<number>[0-9]{1,5})\.(?P<rest>.+)$")
_TOWER = re.compile(r"^(?P<stack>(?:v|a|v\.sam|a\.proj)[._]blk\.)(?P<number>[0-9]{1,5})\.(?P<rest>.+)$")
Stacks = dict[str, dict[int, list[StoredTensor]]]
_CUTS = (
    (re.compile(r"attn_q(_b)?\.(weight|bias)$"), Cut.OUTPUTS),
    (re.compile(r"attn_[kv]\.(weight|bias)$"), Cut.KEY_VALUE_HEADS),
    (re.compile(r"attn_qkv\.(weight|bias)$"), Cut.QUERY_KEY_VALUE),
    (re.compile(r"(attn_output|attn_o|attn_out|ffn_down|ffn_down_shexp|ssm_out)\.weight$"), Cut.INPUTS),
    (re.compile(r"ffn_(gate|up)(_shexp)?\.(weight|bias)$"), Cut.OUTPUTS),
    (re.compile(r"ffn_(gate|up|gate_up)_exps\.(weight|bias)$"), Cut.SECOND),
    (re.compile(r"ffn_down_exps\.weight$"), Cut.INPUTS),
    (re.compile(r"attn_(kv|k|v)_b\.weight$"), Cut.OUTPUTS),
)


def read_gguf(header: GgufHeader, checkpoint: Checkpoint) -> ModelSpec:
    """Return the model that a header describes.

    Raises:
        UnsupportedModelError: an architecture that is not read, keys that are missing, or layers whose state is not
            understood.
    """
    metadata = Metadata(header, _architecture(header, checkpoint.where), checkpoint.where)
    stacks, outside = _stacked(checkpoint.tensors, _BLOCK)
    main = next((stacks[name] for name in ("blk.", "dec.blk.", "enc.blk.") if name in stacks), None)
    if main is None:
        raise UnsupportedModelError(
            f"{checkpoint.where}: no tensor of a block (blk.0...): expected a language model or an encoder; "
            "adapters and vocabularies alone are not read"
        )
    return _spec(metadata, stacks, main, outside, checkpoint)


def _architecture(header: GgufHeader, where: str) -> str:
    """Return the name of an architecture that is read; refuse every other one by name."""
    name = header.metadata.get("general.architecture")
    if not isinstance(name, str):
        raise UnsupportedModelError(
            f"{where}: general.architecture: {quote(name)}: expected a name such as 'llama'; "
            "is this a model, and not an adapter or a vocabulary?"
        )
    if name not in READ:
        close = nearest(name, READ)
        hint = UNREAD.get(name) or f"expected one that is read{'; nearest: ' + ', '.join(close) if close else ''}"
        raise UnsupportedModelError(
            f"{where}: general.architecture: {quote(name)}: {hint}; which layers slide, share a cache or keep a state "
            "is in llama.cpp's code and not in the file, so no number is given"
        )
    return name


def _stacked(tensors: Iterable[StoredTensor], pattern: re.Pattern[str]) -> tuple[Stacks, list[StoredTensor]]:
    """Return the tensors of numbered blocks, by their names below the block, and those of none."""
    stacks: Stacks = {}
    outside = []
    for tensor in tensors:
        match = pattern.match(tensor.name)
        if match is None:
            outside.append(tensor)
        else:
            block = stacks.setdefault(match["stack"], {}).setdefault(int(match["number"]), [])
            block.append(replace(tensor, name=match["rest"]))
    return stacks, outside


def _spec(
    metadata: Metadata,
    stacks: Stacks,
    main: dict[int, list[StoredTensor]],
    outside: list[StoredTensor],
    checkpoint: Checkpoint,
) -> ModelSpec:
    predicting = metadata.optional("nextn_predict_layers") or 0
    prefix = next(name for name, blocks in stacks.items() if blocks is main)
    layers = {n: _layer(metadata, n, main[n]) for n in sorted(main)}
    kept = [n for n in layers if n < len(layers) - predicting]
    table = next((t for t in outside if t.name == "token_embd.weight"), None)
    name = metadata.header.metadata.get("general.name")
    return ModelSpec(
        name=name if isinstance(name, str) and name else checkpoint.where,
        family=metadata.architecture,
        hidden_size=metadata.integer("embedding_length"),
        vocab_size=table.shape[0] if table is not None else None,
        max_position_embeddings=metadata.optional("context_length") or None,
        embeddings=tuple(_tensor(t) for t in outside if _is_embedding(t.name)),
        layers=_shared(tuple(layers[n] for n in kept)),
        head=tuple(_tensor(t) for t in outside if not _is_embedding(t.name)),
        tied=not any(t.name == "output.weight" for t in outside),
        layer_prefix=f"{prefix}{{layer}}.",
        scheme=Scheme(quantised=_most_used(checkpoint), plain=FP32, roles=frozenset()),
        parts=(*_prediction(tuple(layers[n] for n in layers if n not in kept), len(kept)), *_encoder(metadata, stacks)),
        generates=metadata.architecture not in ENCODERS,
        assumptions=ignored_window(metadata),
        evidence=f"{len(checkpoint.tensors):,} tensors of {checkpoint.where}",
    )


def _most_used(checkpoint: Checkpoint) -> StorageFormat:
    """Return the type that holds most bytes, which names the file; each tensor has its own."""
    held: dict[str, int] = {}
    for tensor in checkpoint.tensors:
        held[tensor.dtype] = held.get(tensor.dtype, 0) + tensor.num_bytes
    return GGUF_TYPES[max(held, key=lambda dtype: held[dtype])]


def _shared(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """Return the layers with equal ones as one object, which makes counting fast."""
    known: dict[Layer, Layer] = {}
    return tuple(known.setdefault(layer, layer) for layer in layers)


def _prediction(layers: tuple[Layer, ...], first: int) -> tuple[Part, ...]:
    """Return the multi-token-prediction blocks, which a plain load leaves on disk."""
    if not layers:
        return ()
    return (Part(name="mtp", layers=layers, layer_prefix="blk.{layer}.", first_layer=first, resident=False),)


def _encoder(metadata: Metadata, stacks: Stacks) -> tuple[Part, ...]:
    """Return the encoder of a model that has a decoder too (T5): it attends both ways and keeps nothing."""
    if "enc.blk." not in stacks or "dec.blk." not in stacks:
        return ()
    layers = (_layer(metadata, n, stored) for n, stored in sorted(stacks["enc.blk."].items()))
    return (_tower("encoder", "enc.blk.", _shared(tuple(_both_ways(layer) for layer in layers))),)


def _tower(name: str, stack: str, layers: tuple[Layer, ...], tensors: tuple[Tensor, ...] = ()) -> Part:
    return Part(name=name, layers=layers, layer_prefix=f"{stack}{{layer}}.", tensors=tensors, resident=True)


def _both_ways(layer: Layer) -> Layer:
    """Return a layer whose attention is not causal."""
    facts = layer.attention
    return replace(layer, attention=replace(facts, causal=False)) if isinstance(facts, GroupedQuery) else layer


def with_projector(spec: ModelSpec, header: GgufHeader, checkpoint: Checkpoint) -> ModelSpec:
    """Return a model with the towers of its ``mmproj`` file beside it: images, sound, and what projects them.

    Raises:
        UnsupportedModelError: the file is no projector.
    """
    if header.metadata.get("general.architecture") != "clip":
        raise UnsupportedModelError(
            f"{checkpoint.where}: general.architecture: {quote(header.metadata.get('general.architecture'))}: "
            "expected 'clip', a multimodal projector; give the file whose name starts with mmproj"
        )
    stacks, outside = _stacked(checkpoint.tensors, _TOWER)
    parts = []
    for stack, blocks in stacks.items():
        kind = "audio" if stack.startswith("a") else "vision"
        facts = _tower_attention(header, kind) if stack in {"v.blk.", "a.blk."} else None
        layers = tuple(_tower_layer(stored, facts) for _, stored in sorted(blocks.items()))
        name = {"v.blk.": "vision_tower", "a.blk.": "audio_tower"}.get(stack, stack.removesuffix("blk.").rstrip("._"))
        parts.append(_tower(name, stack, _shared(layers)))
    parts.append(_tower("projector", "mm.blk.", (), tuple(_tensor(t) for t in outside)))
    evidence = f"{spec.evidence}, {len(checkpoint.tensors):,} of {checkpoint.where}"
    return replace(spec, parts=(*spec.parts, *parts), evidence=evidence)


def _tower_attention(header: GgufHeader, kind: str) -> GroupedQuery | None:
    """Return the attention of a tower, as ``clip.vision.*`` and ``clip.audio.*`` tell."""
    heads = header.metadata.get(f"clip.{kind}.attention.head_count")
    width = header.metadata.get(f"clip.{kind}.embedding_length")
    if type(heads) is not int or type(width) is not int or heads < 1 or width % heads:
        return None
    return GroupedQuery(num_attention_heads=heads, num_key_value_heads=heads, head_dim=width // heads, causal=False)


def _tower_layer(stored: list[StoredTensor], facts: Attention | None) -> Layer:
    down = {t.name: t.shape for t in stored}.get("ffn_down.weight")
    gated = any(t.name == "ffn_gate.weight" for t in stored)
    network = None if down is None else Dense(intermediate_size=max(down), gated=gated)
    return Layer(attention=facts, feed_forward=network, tensors=tuple(_tensor(t) for t in stored))


def _is_embedding(name: str) -> bool:
    return name.startswith(("token_embd", "position_embd", "token_types", "per_layer_token_embd"))


def _is_expert(name: str) -> bool:
    """Say whether a tensor holds one matrix per expert, or per chunk of experts (GroveMoE)."""
    return "_exps." in name or "_chexps." in name


def _tensor(stored: StoredTensor) -> Tensor:
    """Return a tensor with its role, its own format and how tensor parallelism would cut it."""
    cut = next((cut for pattern, cut in _CUTS if pattern.search(stored.name)), Cut.WHOLE)
    role = _role(stored)
    if role in {Role.EMBEDDING, Role.HEAD} and stored.name.startswith(("token_embd.weight", "output.weight")):
        cut = Cut.VOCABULARY
    experts = stored.shape[0] if _is_expert(stored.name) else 0
    return Tensor(
        name=stored.name, shape=stored.shape, role=role, cut=cut, experts=experts, stored=GGUF_TYPES[stored.dtype]
    )


def _role(stored: StoredTensor) -> Role:
    name = stored.name
    known = (
        (_is_embedding(name), Role.EMBEDDING),
        (name == "output.weight", Role.HEAD),
        (name.endswith(".bias"), Role.BIAS),
        (_is_expert(name), Role.EXPERT),
        ("ffn_gate_inp" in name, Role.ROUTER),
        ("conv1d" in name or "shortconv.conv" in name, Role.CONVOLUTION),
        (name.startswith(("ssm_a", "ssm_d")) and len(stored.shape) < 3 and min(stored.shape) < 512, Role.STATE),
        (len(stored.shape) < 2, Role.NORM),
    )
    return next((role for matches, role in known if matches), Role.LINEAR)


def _layer(metadata: Metadata, number: int, stored: list[StoredTensor]) -> Layer:
    shapes = {t.name: t.shape for t in stored}
    first, second = mixers_of(metadata, number, shapes)
    return Layer(
        attention=first,
        beside=second,
        feed_forward=_feed_forward(metadata, shapes),
        tensors=tuple(_tensor(t) for t in stored),
    )


def _feed_forward(metadata: Metadata, shapes: dict[str, tuple[int, ...]]) -> FeedForward | None:
    """Return the facts of a block's network, whose widths the tensors themselves have."""
    routed, down = shapes.get("ffn_down_exps.weight"), shapes.get("ffn_down.weight")
    if routed is not None:
        shared = shapes.get("ffn_down_shexp.weight", down)  # Arctic has a dense network beside the experts
        return Experts(
            num_experts=routed[0],
            num_experts_per_tok=min(routed[0], metadata.integer("expert_used_count")),
            moe_intermediate_size=routed[-1],
            shared_intermediate_size=shared[-1] if shared else 0,
            gated="ffn_gate_exps.weight" in shapes or "ffn_gate_up_exps.weight" in shapes,
        )
    if down is None:
        mixed = shapes.get("channel_mix_value.weight")
        return None if mixed is None else Dense(intermediate_size=mixed[-1], gated=False)
    up = shapes.get("ffn_up.weight", down)
    return Dense(intermediate_size=down[-1], gated="ffn_gate.weight" in shapes or prod(up) == 2 * prod(down))

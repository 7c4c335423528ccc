"""From a GGUF header to a ``ModelSpec``: weights from the tensors themselves, the rest from the metadata.

Nothing is inferred from a label: every tensor has its own type. Which layers attend, keep a state or
route to experts follows from the tensors they have; how far they look back, from the metadata and, where
llama.cpp has it in its code, from ``WINDOWS``.
Source: ggml-org/llama.cpp:src/llama-model.cpp and src/models/*.cpp (load_arch_hparams), gguf-py/gguf/constants.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from math import prod

from vramfit.errors import UnsupportedModelError, quote
from vramfit.formats import FP32, GGUF_TYPES, Role, StorageFormat
from vramfit.readers.gguf import GgufHeader
from vramfit.readers.safetensors import Checkpoint, StoredTensor
from vramfit.spec import (
    Attention,
    Cut,
    Dense,
    Experts,
    FeedForward,
    GroupedQuery,
    Latent,
    Layer,
    LinearAttention,
    ModelSpec,
    Part,
    Scheme,
    StateSpace,
    Tensor,
)

WINDOWS = {
    "gemma2": (2, False), "gemma3": (6, False), "gemma-embedding": (6, False), "gemma3n": (5, False),
    "gpt-oss": (2, False), "cohere2": (4, False), "olmo2": (4, False), "exaone4": (4, False), "exaone-moe": (4, False),
    "llama4": (4, False), "afmoe": (4, False), "plamo3": (8, False),
    "smallthinker": (4, True), "modern-bert": (3, True),
}  # fmt: skip
"""Architecture -> (period, whether the full layer is the first of each period); ``set_swa_pattern`` of each.
An architecture that is not here and has no pattern in its metadata attends to everything, as in llama.cpp."""

SHARES_FROM = {"gemma3n": 20}
"""First layer that reads earlier layers' caches (``n_layer_kv_from_start``), where the metadata does not say."""

LINEAR = frozenset({"qwen3next", "qwen35", "qwen35moe"})
"""Architectures whose ``ssm`` keys describe gated delta networks."""

ENCODERS = frozenset(
    {"bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3", "eurobert",
     "gemma-embedding", "t5encoder", "clip"}
)  # fmt: skip
"""Architectures that choose no tokens."""

OTHER_STATES = ("time_mix", "shortconv", "ssm_f_a", "ssm_beta_", "kda")
"""Parts of tensor names that belong to recurrences this reader does not know yet (RWKV, LFM2, Kimi Linear)."""

_BLOCK = re.compile(r"^blk\.(?P<number>[0-9]{1,5})\.(?P<rest>.+)$")
_CUTS = (
    (re.compile(r"attn_q(_b)?\.(weight|bias)$"), Cut.OUTPUTS),
    (re.compile(r"attn_[kv]\.(weight|bias)$"), Cut.KEY_VALUE_HEADS),
    (re.compile(r"attn_qkv\.(weight|bias)$"), Cut.QUERY_KEY_VALUE),
    (re.compile(r"(attn_output|ffn_down|ffn_down_shexp|ssm_out)\.weight$"), Cut.INPUTS),
    (re.compile(r"ffn_(gate|up)(_shexp)?\.(weight|bias)$"), Cut.OUTPUTS),
    (re.compile(r"ffn_(gate|up|gate_up)_exps\.(weight|bias)$"), Cut.SECOND),
    (re.compile(r"ffn_down_exps\.weight$"), Cut.INPUTS),
    (re.compile(r"attn_(kv|k|v)_b\.weight$"), Cut.OUTPUTS),
)


@dataclass(frozen=True, slots=True)
class _Metadata:
    """Typed access to the keys of one architecture."""

    header: GgufHeader
    architecture: str
    where: str

    def integer(self, name: str, default: int | None = None) -> int:
        value = self.optional(name)
        if value is not None:
            return value
        if default is None:
            raise self.missing(name, "an integer")
        return default

    def optional(self, name: str) -> int | None:
        value = self.header.metadata.get(f"{self.architecture}.{name}")
        if value is None:
            return None
        if type(value) is not int or not 0 <= value <= 2**32:
            raise UnsupportedModelError(
                f"{self.where}: {self.architecture}.{name}: {quote(value)}: expected an integer from 0; "
                "convert the model anew"
            )
        return value

    def per_layer(self, name: str, layer: int, default: int | None = None) -> int:
        """Read a key that is one number for all layers, or an array with one per layer."""
        value = self.header.metadata.get(f"{self.architecture}.{name}")
        if not isinstance(value, tuple):
            return self.integer(name, default)
        if layer >= len(value) or type(value[layer]) not in {int, bool}:
            raise self.missing(name, f"an integer for layer {layer}")
        return int(value[layer])

    def missing(self, name: str, expected: str) -> UnsupportedModelError:
        seen = self.header.metadata.get(f"{self.architecture}.{name}")
        return UnsupportedModelError(
            f"{self.where}: {self.architecture}.{name}: {quote(seen)}: expected {expected}; convert the model anew"
        )


def read_gguf(header: GgufHeader, checkpoint: Checkpoint) -> ModelSpec:
    """Return the model that a header describes.

    Raises:
        UnsupportedModelError: keys that are missing, or layers whose state is not understood.
    """
    architecture = header.metadata.get("general.architecture")
    if not isinstance(architecture, str):
        raise UnsupportedModelError(
            f"{checkpoint.where}: general.architecture: {quote(architecture)}: expected a name such as 'llama'; "
            "is this a model, and not an adapter or a vocabulary?"
        )
    metadata = _Metadata(header, architecture, checkpoint.where)
    blocks: dict[int, list[StoredTensor]] = {}
    outside: list[StoredTensor] = []
    for tensor in checkpoint.tensors:
        match = _BLOCK.match(tensor.name)
        if match is None:
            outside.append(tensor)
        else:
            blocks.setdefault(int(match["number"]), []).append(replace(tensor, name=match["rest"]))
    if not blocks:
        raise UnsupportedModelError(
            f"{checkpoint.where}: no tensor of a block (blk.0...): expected a language model or an encoder; "
            "projectors, adapters and vocabularies alone are not read"
        )
    return _spec(metadata, blocks, outside, checkpoint)


def _spec(
    metadata: _Metadata, blocks: dict[int, list[StoredTensor]], outside: list[StoredTensor], checkpoint: Checkpoint
) -> ModelSpec:
    predicting = metadata.optional("nextn_predict_layers") or 0
    numbers = sorted(blocks)
    kept = [n for n in numbers if n < len(numbers) - predicting]
    layers = {n: _layer(metadata, n, blocks[n]) for n in numbers}
    table = next((t for t in outside if t.name == "token_embd.weight"), None)
    name = metadata.header.metadata.get("general.name")
    embeddings = tuple(_tensor(t) for t in outside if _is_embedding(t.name))
    return ModelSpec(
        name=name if isinstance(name, str) and name else checkpoint.where,
        family=metadata.architecture,
        hidden_size=metadata.integer("embedding_length"),
        vocab_size=table.shape[0] if table is not None else None,
        max_position_embeddings=metadata.optional("context_length") or None,
        embeddings=embeddings,
        layers=_shared(tuple(layers[n] for n in kept)),
        head=tuple(_tensor(t) for t in outside if not _is_embedding(t.name)),
        tied=not any(t.name == "output.weight" for t in outside),
        layer_prefix="blk.{layer}.",
        scheme=Scheme(quantised=_most_used(checkpoint), plain=FP32, roles=frozenset()),
        parts=_prediction(tuple(layers[n] for n in numbers if n not in kept), len(kept)),
        generates=metadata.architecture not in ENCODERS,
        assumptions=_ignored_window(metadata),
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


def _is_embedding(name: str) -> bool:
    return name.startswith(("token_embd", "position_embd", "token_types", "per_layer_token_embd"))


def _tensor(stored: StoredTensor) -> Tensor:
    """Return a tensor with its role, its own format and how tensor parallelism would cut it."""
    cut = next((cut for pattern, cut in _CUTS if pattern.search(stored.name)), Cut.WHOLE)
    role = _role(stored)
    if role in {Role.EMBEDDING, Role.HEAD} and stored.name.startswith(("token_embd.weight", "output.weight")):
        cut = Cut.VOCABULARY
    experts = stored.shape[0] if "_exps." in stored.name else 0
    return Tensor(
        name=stored.name, shape=stored.shape, role=role, cut=cut, experts=experts, stored=GGUF_TYPES[stored.dtype]
    )


def _role(stored: StoredTensor) -> Role:
    name = stored.name
    known = (
        (_is_embedding(name), Role.EMBEDDING),
        (name == "output.weight", Role.HEAD),
        (name.endswith(".bias"), Role.BIAS),
        ("_exps." in name, Role.EXPERT),
        ("ffn_gate_inp" in name, Role.ROUTER),
        ("conv1d" in name, Role.CONVOLUTION),
        (name.startswith(("ssm_a", "ssm_d")) and len(stored.shape) < 3 and min(stored.shape) < 512, Role.STATE),
        (len(stored.shape) < 2, Role.NORM),
    )
    return next((role for matches, role in known if matches), Role.LINEAR)


def _layer(metadata: _Metadata, number: int, stored: list[StoredTensor]) -> Layer:
    shapes = {t.name: t.shape for t in stored}
    recurrent, attention = _state(metadata, number, shapes), _attention(metadata, number, shapes)
    first, second = (attention, recurrent) if attention is not None else (recurrent, None)
    return Layer(
        attention=first,
        beside=second,
        feed_forward=_feed_forward(metadata, shapes),
        tensors=tuple(_tensor(t) for t in stored),
    )


def _attention(metadata: _Metadata, number: int, shapes: dict[str, tuple[int, ...]]) -> Attention | None:
    """Return the facts of a block's attention; None = it has no such tensors."""
    if "attn_kv_a_mqa.weight" in shapes:
        return _latent(metadata, number)
    if not {"attn_q.weight", "attn_qkv.weight"} & set(shapes) or (
        "ssm_conv1d.weight" in shapes and _is_delta(metadata)
    ):
        return None
    heads = metadata.per_layer("attention.head_count", number)
    kv = metadata.per_layer("attention.head_count_kv", number, heads)
    width = metadata.integer("embedding_length") // max(1, heads)
    window = _window(metadata, number)
    swa = "_swa" if window is not None and metadata.optional("attention.key_length_swa") else ""
    key = metadata.integer(f"attention.key_length{swa}", width)
    value = metadata.integer(f"attention.value_length{swa}", key)
    return GroupedQuery(
        num_attention_heads=heads,
        num_key_value_heads=kv,
        head_dim=key,
        v_head_dim=None if value == key else value,
        window_tokens=window,
        causal=metadata.architecture not in ENCODERS,
        shares_cache=_shares(metadata, number),
    )


def _latent(metadata: _Metadata, number: int) -> Latent:
    rope = metadata.integer("rope.dimension_count")
    key = metadata.optional("attention.key_length_mla") or metadata.integer("attention.key_length")
    return Latent(
        num_attention_heads=metadata.per_layer("attention.head_count", number),
        kv_lora_rank=metadata.integer("attention.kv_lora_rank"),
        qk_rope_head_dim=rope,
        qk_nope_head_dim=key - rope,
        v_head_dim=metadata.optional("attention.value_length_mla") or metadata.integer("attention.value_length"),
        q_lora_rank=metadata.optional("attention.q_lora_rank") or None,
        index_head_dim=metadata.optional("attention.indexer.key_length") or 0,
    )


def _window(metadata: _Metadata, number: int) -> int | None:
    """Return the window of a layer, from the pattern in the metadata or the one in llama.cpp's code."""
    window = metadata.optional("attention.sliding_window") or metadata.optional("attention.chunk_size")
    if not window:
        return None
    pattern = metadata.header.metadata.get(f"{metadata.architecture}.attention.sliding_window_pattern")
    if isinstance(pattern, tuple):
        return window if pattern[number % len(pattern)] else None
    known = WINDOWS.get(metadata.architecture)
    if known is None:
        return None
    period, full_first = (pattern, known[1]) if type(pattern) is int and pattern else known
    slides = number % period != 0 if full_first else number % period < period - 1
    return window if slides else None


def _ignored_window(metadata: _Metadata) -> tuple[str, ...]:
    window = metadata.optional("attention.sliding_window")
    pattern = metadata.header.metadata.get(f"{metadata.architecture}.attention.sliding_window_pattern")
    if not window or metadata.architecture in WINDOWS or isinstance(pattern, tuple):
        return ()
    return (
        f"attention.sliding_window = {window:,} has no effect: llama.cpp has no pattern for {metadata.architecture}",
    )


def _shares(metadata: _Metadata, number: int) -> bool:
    """Say whether a layer reads an earlier layer's cache."""
    shared = metadata.optional("attention.shared_kv_layers")
    if shared is not None:
        return number >= metadata.integer("block_count") - shared
    return number >= SHARES_FROM.get(metadata.architecture, number + 1)


def _is_delta(metadata: _Metadata) -> bool:
    return metadata.architecture in LINEAR


def _state(metadata: _Metadata, number: int, shapes: dict[str, tuple[int, ...]]) -> Attention | None:
    """Return the facts of a block's recurrence; None = it has no such tensors."""
    unknown = next((name for name in shapes for part in OTHER_STATES if part in name), None)
    if unknown is not None:
        raise UnsupportedModelError(
            f"{metadata.where}: blk.{number}.{unknown}: a recurrence of {metadata.architecture} that is not "
            "understood in this version, so no number is given"
        )
    if "ssm_conv1d.weight" not in shapes:
        return None
    inner, state = metadata.integer("ssm.inner_size"), metadata.integer("ssm.state_size")
    kernel, steps = metadata.integer("ssm.conv_kernel"), metadata.integer("ssm.time_step_rank")
    groups = metadata.optional("ssm.group_count") or 0
    if _is_delta(metadata):
        return LinearAttention(
            num_key_heads=groups,
            num_value_heads=steps,
            key_head_dim=state,
            value_head_dim=inner // max(1, steps),
            conv_kernel=kernel,
        )
    if groups:  # Mamba 2: one step size per head
        return StateSpace(
            num_heads=steps, head_dim=inner // max(1, steps), state_size=state, conv_kernel=kernel, num_groups=groups
        )
    return StateSpace(num_heads=inner, head_dim=1, state_size=state, conv_kernel=kernel, num_groups=0)


def _feed_forward(metadata: _Metadata, shapes: dict[str, tuple[int, ...]]) -> FeedForward | None:
    """Return the facts of a block's network, whose widths the tensors themselves have."""
    routed = shapes.get("ffn_down_exps.weight")
    if routed is not None:
        shared = shapes.get("ffn_down_shexp.weight")
        return Experts(
            num_experts=routed[0],
            num_experts_per_tok=min(routed[0], metadata.integer("expert_used_count")),
            moe_intermediate_size=routed[-1],
            shared_intermediate_size=shared[-1] if shared else 0,
            gated="ffn_gate_exps.weight" in shapes or "ffn_gate_up_exps.weight" in shapes,
        )
    down = shapes.get("ffn_down.weight")
    if down is None:
        return None
    up = shapes.get("ffn_up.weight", down)
    return Dense(intermediate_size=down[-1], gated="ffn_gate.weight" in shapes or prod(up) == 2 * prod(down))

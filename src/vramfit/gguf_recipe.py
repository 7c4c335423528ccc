"""What llama.cpp's quantiser makes of a model under a file label such as ``Q4_K_M``: a type for every tensor.

A label is not a type: it names a mixture in which the output projection, some of the value projections
and some of the down projections get more bits than the rest. The rules here are those of
ggml-org/llama.cpp:src/llama-quant.cpp (llama_tensor_get_type_impl, tensor_type_fallback), read at 007dbbf.
Labels whose mixture is chosen model by model (Unsloth's ``UD-...``) cannot be derived: read the file itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

from vramfit.errors import InvalidValueError
from vramfit.formats import FP32, GGUF_TYPES, Role, StorageFormat
from vramfit.layer_kind import Experts, GroupedQuery
from vramfit.spec import Layer, ModelSpec, Part, Scheme, Tensor

PREFIX = "gguf:"
DYNAMIC = "UD-"
"""Beginning of Unsloth's labels."""

BASE_TYPES = {
    "F32": "F32", "F16": "F16", "BF16": "BF16", "Q4_0": "Q4_0", "Q4_1": "Q4_1", "Q5_0": "Q5_0", "Q5_1": "Q5_1",
    "Q8_0": "Q8_0", "Q2_K": "Q2_K", "Q2_K_S": "Q2_K", "Q3_K_S": "Q3_K", "Q3_K_M": "Q3_K", "Q3_K_L": "Q3_K",
    "Q4_K_S": "Q4_K", "Q4_K_M": "Q4_K", "Q5_K_S": "Q5_K", "Q5_K_M": "Q5_K", "Q6_K": "Q6_K",
    "IQ1_S": "IQ1_S", "IQ1_M": "IQ1_M", "IQ2_XXS": "IQ2_XXS", "IQ2_XS": "IQ2_XS", "IQ2_S": "IQ2_XS", "IQ2_M": "IQ2_S",
    "IQ3_XXS": "IQ3_XXS", "IQ3_XS": "IQ3_S", "IQ3_S": "IQ3_S", "IQ3_M": "IQ3_S", "IQ4_NL": "IQ4_NL", "IQ4_XS": "IQ4_XS",
    "TQ1_0": "TQ1_0", "TQ2_0": "TQ2_0", "MXFP4_MOE": "MXFP4",
}  # fmt: skip
"""File label -> the type that most tensors get (``llama_ftype_get_default_type``)."""

LARGE = {"Q2_K_L": "Q2_K", "Q3_K_XL": "Q3_K_L", "Q4_K_L": "Q4_K_M", "Q5_K_L": "Q5_K_M", "Q6_K_L": "Q6_K"}
"""Labels of bartowski's files -> the mixture that they have apart from embedding and output, which are Q8_0."""

UNQUANTISED = frozenset({"F32", "F16", "BF16"})
VERY_LOW = frozenset({"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M"})
MIXTRAL_EXPERTS = 8
"""Number of experts for which the quantiser has rules of their own."""
LAYERS_OF_70B = 80
"""Llama and Qwen2 models of so many layers with grouped heads count as ``LLM_TYPE_70B``."""
LIKE_70B = frozenset({"llama", "qwen2"})


class Place(StrEnum):
    """Where a tensor stands; the quantiser's categories."""

    EMBEDDING = "token_embd"
    OUTPUT = "output"
    VALUE = "attn_v"  # and fused query, key, value
    KEY = "attn_k"
    QUERY = "attn_q"
    ATTENTION_OUTPUT = "attn_output"
    UP = "ffn_up"
    GATE = "ffn_gate"
    DOWN = "ffn_down"
    OTHER = "other"


_PLACES = (
    (re.compile(r"(?:^|\.)(?:qkv_proj|c_attn|query_key_value|Wqkv|in_proj_qkv|kv_b_proj)\.weight$"), Place.VALUE),
    (re.compile(r"attn.*\.v_proj\.weight$|attention\.(?:self\.)?value\.weight$"), Place.VALUE),
    (re.compile(r"attn.*\.k_proj\.weight$|attention\.(?:self\.)?key\.weight$"), Place.KEY),
    (re.compile(r"attn.*\.q_proj\.weight$|attention\.(?:self\.)?query\.weight$"), Place.QUERY),
    (re.compile(r"attn.*\.(?:o_proj|out_proj|c_proj|dense)\.weight$|attention\.output"), Place.ATTENTION_OUTPUT),
    (re.compile(r"(?:down_proj|\.w2|mlp\.c_proj|fc2|dense_4h_to_h|ffn_down.*)(?:\.weight)?$"), Place.DOWN),
    (re.compile(r"(?:gate_proj|\.w1)(?:\.weight)?$"), Place.GATE),
    (re.compile(r"(?:up_proj|\.w3|c_fc|fc1|dense_h_to_4h)(?:\.weight)?$"), Place.UP),
)
"""Parts of names in checkpoints; conversion to GGUF renames them to the categories' own names."""

_BY_PLACE: dict[Place, dict[str, str]] = {
    Place.ATTENTION_OUTPUT: {
        "Q2_K": "Q3_K", "IQ3_XXS": "IQ3_S", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K", "IQ3_M": "Q4_K", "IQ1_S": "IQ2_XXS",
        "IQ1_M": "IQ2_XXS", "IQ2_S": "IQ3_S", "IQ2_M": "IQ3_S",
    },
    Place.KEY: {"IQ3_XS": "IQ3_XXS", "IQ3_XXS": "IQ2_S"},
    Place.QUERY: {"IQ3_XS": "IQ3_XXS", "IQ3_XXS": "IQ2_S"},
    Place.EMBEDDING: {
        "IQ2_XXS": "Q2_K", "IQ2_XS": "Q2_K", "IQ1_S": "Q2_K", "IQ1_M": "Q2_K", "IQ2_S": "IQ3_S", "IQ2_M": "IQ3_S",
        "IQ3_XXS": "IQ3_S", "TQ1_0": "Q4_K", "TQ2_0": "Q4_K",
    },
}  # fmt: skip
"""Place -> label -> type, where that is all the rule says."""

_Q5_WITH_EIGHT_EXPERTS = frozenset(
    {"Q2_K", "IQ3_XS", "IQ3_XXS", "Q3_K_S", "Q3_K_M", "IQ4_NL", "Q4_K_S", "Q4_K_M", "IQ3_S", "IQ3_M", "IQ4_XS"}
)
_VALUE_WITH_GROUPS = {
    "Q2_K": "Q4_K", "Q2_K_S": "Q4_K", "IQ3_XXS": "Q4_K", "IQ3_XS": "Q4_K", "IQ3_S": "Q4_K", "IQ4_NL": "Q5_K",
    "IQ4_XS": "Q5_K",
}  # fmt: skip
"""Types of value projections when four or more query heads share one."""


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the rules ask of a model."""

    label: str
    num_layers: int
    num_values: int
    """Tensors of the place ``VALUE``."""
    groups: int
    """Query heads per KV head."""
    num_experts: int
    is_70b: bool
    is_falcon: bool
    tied: bool
    large: bool
    """Embedding and output are Q8_0."""


def is_label(weight_format: str) -> bool:
    """Say whether a weight format names a file label.

    >>> is_label("gguf:Q4_K_M"), is_label("gguf:q4_k_m"), is_label("bf16")
    (True, True, False)
    """
    return weight_format.upper().startswith(PREFIX.upper()) and _label(weight_format) in {*BASE_TYPES, *LARGE}


def is_dynamic(weight_format: str) -> bool:
    """Say whether a weight format names a mixture that is chosen model by model.

    >>> is_dynamic("gguf:UD-Q4_K_XL"), is_dynamic("gguf:Q4_K_M")
    (True, False)
    """
    return weight_format.upper().startswith(f"{PREFIX.upper()}{DYNAMIC}")


def _label(weight_format: str) -> str:
    label = weight_format[len(PREFIX) :].upper()
    return label if label.startswith(DYNAMIC) else label.replace("-", "_")


@lru_cache(maxsize=16)
def as_gguf(model: ModelSpec, weight_format: str) -> ModelSpec:
    """Return the model with every tensor in the type that the quantiser gives it under a label.

    Towers beside the language model go to a file of their own, in F16. ``IQ`` labels are taken with an
    importance matrix, as they are made in practice, all others without.

    Raises:
        InvalidValueError: no such label, or one whose mixture is chosen model by model.
    """
    if is_dynamic(weight_format):
        raise InvalidValueError(
            "workload.weight_format",
            weight_format,
            "a label that llama.cpp's quantiser knows",
            "Unsloth chooses these mixtures tensor by tensor and model by model, so only the file says what it holds: "
            f"name it, such as org/name:{_label(weight_format)}",
        )
    if not is_label(weight_format):
        known_labels = ", ".join((*BASE_TYPES, *LARGE))
        raise InvalidValueError("workload.weight_format", weight_format, f"gguf: and one of {known_labels}")
    label = _label(weight_format)
    facts = _facts(model, LARGE.get(label, label), large=label in LARGE)
    known: dict[tuple[int, tuple[str, ...]], Layer] = {}
    layers, values = [], 0
    for number, layer in enumerate(model.layers):
        types = []
        for tensor in layer.tensors:
            place = place_of(tensor)
            types.append(_type(tensor, place, facts, number, values))
            values += place is Place.VALUE
        key = (id(layer), tuple(types))
        if key not in known:
            tensors = tuple(_stored(t, kind) for t, kind in zip(layer.tensors, types, strict=True))
            known[key] = replace(layer, tensors=tensors)
        layers.append(known[key])
    return replace(
        model,
        layers=tuple(layers),
        embeddings=tuple(_stored(t, _type(t, _outside(t), facts, 0, 0)) for t in model.embeddings),
        head=tuple(_stored(t, _type(t, _outside(t), facts, 0, 0)) for t in model.head),
        parts=tuple(_half(part) for part in model.parts),
        scheme=Scheme(quantised=GGUF_TYPES[BASE_TYPES[facts.label]], plain=FP32, roles=frozenset()),
    )


def _facts(model: ModelSpec, label: str, *, large: bool) -> _Facts:
    mixers = [mixer for layer in model.layers for mixer in layer.mixers if isinstance(mixer, GroupedQuery)]
    groups = mixers[0].num_attention_heads // max(1, mixers[0].num_key_value_heads) if mixers else 1
    experts = max((x.feed_forward.num_experts for x in model.layers if isinstance(x.feed_forward, Experts)), default=0)
    return _Facts(
        label=label,
        num_layers=len(model.layers),
        num_values=sum(place_of(t) is Place.VALUE for layer in model.layers for t in layer.tensors),
        groups=groups,
        num_experts=experts,
        is_70b=model.family in LIKE_70B and len(model.layers) == LAYERS_OF_70B and groups > 1,
        is_falcon=model.family == "falcon",
        tied=model.tied,
        large=large,
    )


def place_of(tensor: Tensor) -> Place:
    """Return where a tensor of a block stands, by its name in the checkpoint."""
    return _place(tensor.name)


@lru_cache(maxsize=1024)
def _place(name: str) -> Place:
    return next((place for pattern, place in _PLACES if pattern.search(name)), Place.OTHER)


def _outside(tensor: Tensor) -> Place:
    known = {Role.EMBEDDING: Place.EMBEDDING, Role.HEAD: Place.OUTPUT}
    return known.get(tensor.role, Place.OTHER)


def _stored(tensor: Tensor, kind: str) -> Tensor:
    return replace(tensor, stored=GGUF_TYPES[kind])


def _half(part: Part) -> Part:
    """Return a part in F16, its vectors in F32, as projectors are converted."""

    def stored(tensor: Tensor) -> Tensor:
        return _stored(tensor, "F16" if len(tensor.shape) > 1 else "F32")

    known: dict[int, Layer] = {}
    for layer in part.layers:
        if id(layer) not in known:
            known[id(layer)] = replace(layer, tensors=tuple(map(stored, layer.tensors)))
    layers = tuple(known[id(layer)] for layer in part.layers)
    return replace(part, layers=layers, tensors=tuple(map(stored, part.tensors)))


def _type(tensor: Tensor, place: Place, facts: _Facts, layer: int, values: int) -> str:  # noqa: C901 - a rule per place
    """Return the type of one tensor; ``values``: how many value projections stand before it."""
    kept = {Role.NORM, Role.BIAS, Role.ROUTER, Role.CONVOLUTION, Role.STATE}
    position = tensor.role is Role.EMBEDDING and "position" in tensor.name
    if tensor.role in kept or len(tensor.shape) < 2 or position or "token_type" in tensor.name:
        return "F32"
    base = BASE_TYPES[facts.label]
    if facts.label in UNQUANTISED:
        return base
    if facts.label == "MXFP4_MOE":
        return base if tensor.experts else "Q8_0"
    columns = tensor.shape[-1]
    if facts.large and place in {Place.OUTPUT, Place.EMBEDDING}:
        return _fallback("Q8_0", columns)
    if place is Place.OUTPUT or (place is Place.EMBEDDING and facts.tied):
        chosen = _output(base, facts, columns)
    elif place is Place.VALUE:
        chosen = _value(base, facts, values)
    elif place is Place.DOWN:
        chosen = _down(base, facts, layer)
    elif facts.num_experts == MIXTRAL_EXPERTS and place in {Place.KEY, Place.ATTENTION_OUTPUT}:
        chosen = _of_eight_experts(base, facts, place)
    elif place in {Place.GATE, Place.UP} and facts.label == "IQ3_XS":
        inner = facts.num_layers // 8 <= layer < 7 * facts.num_layers // 8
        chosen = "IQ3_XXS" if inner else base
    elif place is Place.ATTENTION_OUTPUT and facts.is_falcon:
        chosen = "Q4_K" if facts.label == "Q3_K_L" else base
    else:
        chosen = _BY_PLACE.get(place, {}).get(facts.label, base)
    return _fallback(chosen, columns)


def _output(base: str, facts: _Facts, columns: int) -> str:
    if facts.is_falcon or columns % GGUF_TYPES[base].block_elements:
        return "Q8_0"
    if facts.label in VERY_LOW or facts.label == "IQ3_XXS":
        return "Q5_K"
    return base if base == "Q8_0" else "Q6_K"


def _more_bits(number: int, count: int) -> bool:
    """Say whether a tensor is one of the first or last eighth, or every third between."""
    return number < count // 8 or number >= 7 * count // 8 or (number - count // 8) % 3 == 2


def _value(base: str, facts: _Facts, number: int) -> str:
    """Return the type of a value projection, or of a fused query, key and value."""
    label, grouped = facts.label, facts.groups >= 4
    if label in VERY_LOW:
        low = "IQ3_S" if label in {"IQ2_S", "IQ2_M"} else "Q2_K"
        return "Q4_K" if grouped or facts.num_experts >= 4 else low
    chosen = base
    if grouped and label in _VALUE_WITH_GROUPS:
        chosen = _VALUE_WITH_GROUPS[label]
    elif label == "Q2_K":
        chosen = "Q3_K"
    elif label == "IQ3_M":
        chosen = "Q4_K"
    elif label == "Q3_K_M":
        chosen = "Q5_K" if number < 2 else "Q4_K"
    elif label == "Q3_K_L" or (label == "Q4_K_S" and number < 4):
        chosen = "Q5_K"
    elif label in {"Q4_K_M", "Q5_K_M"} and _more_bits(number, facts.num_values):
        chosen = "Q6_K"
    if facts.is_70b and chosen in {"Q3_K", "Q4_K"}:
        chosen = "Q5_K"
    return "Q8_0" if facts.num_experts == MIXTRAL_EXPERTS else chosen


def _of_eight_experts(base: str, facts: _Facts, place: Place) -> str:
    if place is Place.KEY:
        return "Q4_K" if facts.label in VERY_LOW else "Q8_0"
    return "Q5_K" if facts.label in VERY_LOW or facts.label in _Q5_WITH_EIGHT_EXPERTS else base


def _down(base: str, facts: _Facts, layer: int) -> str:  # noqa: C901, PLR0911 - one rule per label
    """Return the type of a down projection."""
    count, early = facts.num_layers, layer < facts.num_layers // 8
    more = _more_bits(layer, count)
    match facts.label:
        case "IQ2_S" | "IQ2_M":
            return "IQ3_S" if early else base
        case label if label in VERY_LOW:
            return "Q2_K" if early else base
        case "Q2_K":
            return "Q3_K"
        case "Q2_K_S":
            return "Q4_K" if early else base
        case "Q3_K_M":
            later = "Q4_K" if not facts.is_falcon or more else "Q3_K"
            return "Q5_K" if layer < count // 16 else later
        case "IQ3_M":
            return "Q4_K" if early or (facts.num_experts == MIXTRAL_EXPERTS and more) else base
        case "Q3_K_L":
            return "Q4_K" if facts.is_falcon else "Q5_K"
        case "Q4_K_M" if facts.is_falcon:
            later = "Q5_K" if more else "Q4_K"
            return "Q6_K" if layer < count // 16 else later
        case "Q4_K_M" | "Q5_K_M":
            return "Q6_K" if more else base
        case "Q4_K_S" if not facts.is_falcon:
            return "Q5_K" if early else base
        case _:
            return base


def _fallback(kind: str, columns: int) -> str:
    """Return the type for rows that are no whole number of blocks."""
    chosen: StorageFormat = GGUF_TYPES[kind]
    while columns % chosen.block_elements:
        name = (chosen.fallback or f"{PREFIX}F16").removeprefix(PREFIX)
        chosen = GGUF_TYPES[name]
    return chosen.name.removeprefix(PREFIX)

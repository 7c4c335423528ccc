"""compressed-tensors (LLM Compressor): groups of targets, each with its own widths, strategy and layout.

Sources: vllm-project/compressed-tensors:src/compressed_tensors/quantization/lifecycle/initialize.py,
initialize_qparams (shapes of scales and zero points); compressors/ (what each layout holds).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from vramfit.errors import InvalidValueError, UnsupportedModelError
from vramfit.formats import ALL_MATRICES, FP32, Role, StorageFormat
from vramfit.readers.fields import Fields
from vramfit.readers.quantizers.names import compressed_names, listed
from vramfit.readers.quantizers.recipe import Recipe, Rule, Scale

CLASSES = frozenset({"Linear", "LinearBase", "torch.nn.Linear", "ColumnParallelLinear", "RowParallelLinear"})
"""Targets that are classes of modules, not names."""
PACKED, NVFP4, MXFP4, MARLIN_24 = "pack-quantized", "nvfp4-pack-quantized", "mxfp4-pack-quantized", "marlin-24"
LAYOUTS = ("int-quantized", "float-quantized", "naive-quantized", "mxfp8-quantized", PACKED, NVFP4, MXFP4, MARLIN_24)
MIXED = ("mixed-precision", "mixed", None)
SPARSE = "sparse-24-bitmask"
SHAPE_BYTES = 2 * 8
"""``weight_shape``: two int64."""
WORD_BITS = 32
_SOURCE = "vllm-project/compressed-tensors:src/compressed_tensors/compressors"


def read(section: Fields, plain: StorageFormat) -> Recipe:
    """Read the groups in the order in which the library looks: names, then patterns, then classes."""
    ignored = listed(section, "ignore") or ()
    named, by_pattern, by_class = [], [], []
    sparse = _sparse(section)
    for group in _groups(section):
        held = _held(group, section.text("format"), plain, sparse=sparse)
        targets = listed(group, "targets") or ("Linear",)
        path = group.at("targets")
        patterns = [t for t in targets if t.startswith("re:")]
        names = [t for t in targets if not t.startswith("re:") and t not in CLASSES]
        if patterns:
            by_pattern.append(Rule(names=compressed_names(patterns, path), held=held))
        if names:
            named.append(Rule(names=compressed_names(names, path), held=held))
        if len(patterns) + len(names) < len(targets):
            by_class.append(held)
    skip = (Rule(names=compressed_names(ignored, section.at("ignore")), held=None),) if ignored else ()
    kv_format, scales = _cache(section, plain)
    return Recipe(
        default=by_class[0] if by_class else None,
        rules=(*skip, *named, *by_pattern),
        roles=ALL_MATRICES - {Role.EMBEDDING} if by_class else ALL_MATRICES,
        kv_format=kv_format,
        kv_scales=scales,
    )


def _groups(section: Fields) -> Iterator[Fields]:
    groups = section.section("config_groups") if section.has("config_groups") else None
    if groups is None or not groups.values:
        raise InvalidValueError(section.at("config_groups"), section.values.get("config_groups"), "at least one group")
    for name, value in groups.values.items():
        if not isinstance(value, Mapping):
            raise InvalidValueError(groups.at(name), value, "an object with targets and weights")
        yield Fields(value, groups.at(name), section.assumed)


def _held(group: Fields, overall: str | None, plain: StorageFormat, *, sparse: bool) -> StorageFormat | None:
    """Return the format of one group's weights; None when only activations or caches are quantised."""
    if not group.has("weights"):
        return None
    weights = group.section("weights")
    layout = group.text("format") or (None if overall in MIXED else overall)
    if layout is not None and layout not in LAYOUTS:
        raise UnsupportedModelError(
            f"{group.at('format')}: {layout!r:.100}: expected one of {', '.join(LAYOUTS)}; others are not read: give "
            "weight_format for an estimate and leave quantization_config out"
        )
    bits, kind = weights.integer("num_bits", 8, largest=16), weights.text("type") or "int"
    if kind not in {"int", "float"}:
        raise InvalidValueError(weights.at("type"), kind, "int or float")
    layout = layout or _layout(weights, bits, kind)
    held = _with_inputs(_codes(weights, layout, bits, kind, plain), group, layout, plain)
    return _halved(held) if sparse else held


def _layout(weights: Fields, bits: int, kind: str) -> str:
    """Return the layout that the library takes for a group that names none."""
    if kind == "float" and bits == 4:
        return MXFP4 if weights.values.get("group_size") == 32 else NVFP4
    return PACKED if kind == "int" and bits < 8 else "naive-quantized"


def _codes(weights: Fields, layout: str, bits: int, kind: str, plain: StorageFormat) -> StorageFormat:
    """Return codes, scales and zero points of a layout."""
    if kind == "float" and bits == 4:
        size, one = (32, 0) if layout == MXFP4 else (16, 4)
        return StorageFormat(
            name="mxfp4" if layout == MXFP4 else "nvfp4", block_elements=2, block_bytes=1, group_elements=size,
            group_bytes=1, tensor_bytes=one, source=f"{_SOURCE}/nvfp4/base.py, mxfp4/base.py",
        )  # fmt: skip
    if bits != 8 and layout not in {PACKED, MARLIN_24}:
        raise InvalidValueError(weights.at("num_bits"), bits, f"8 in the layout {layout}")
    if not 1 <= bits <= 8:
        raise InvalidValueError(weights.at("num_bits"), bits, "an integer from 1 to 8")
    scale = 1 if layout == "mxfp8-quantized" else plain.block_bytes
    name = {8: "fp8" if kind == "float" else "int8"}.get(bits, f"int{bits}")
    base = StorageFormat(name=name, block_bytes=1, source=f"{_SOURCE}/naive_quantized/base.py")
    zero = not weights.flag("symmetric", default=True)
    if layout == PACKED:
        base = _words(base, bits, weights)
    elif layout == MARLIN_24:
        base = replace(base, block_elements=8, block_bytes=bits // 2 + 1, source=f"{_SOURCE} (marlin-24)")
    return _scaled(base, weights, scale, bits if layout == PACKED else 8, zero=zero)


def _words(base: StorageFormat, bits: int, weights: Fields) -> StorageFormat:
    """Return codes in 32-bit words along each row, with the shape and, for reordered groups, their index."""
    elements, words = (WORD_BITS // bits, 1) if WORD_BITS % bits == 0 else (WORD_BITS, bits)
    return replace(
        base,
        block_elements=elements,
        block_bytes=4 * words,
        tensor_bytes=SHAPE_BYTES,
        column_bytes=4 if weights.text("actorder") == "group" else 0,
        source=f"{_SOURCE}/pack_quantized/base.py",
    )


def _scaled(base: StorageFormat, weights: Fields, scale: int, zero_bits: int, *, zero: bool) -> StorageFormat:
    """Return the format with scales (and zero points) per tensor, row, group or tile, as ``strategy`` says."""
    one = scale + (zero_bits // 8 if zero_bits == 8 else 0) * zero
    match _strategy(weights):
        case "tensor":
            return replace(base, tensor_bytes=base.tensor_bytes + one)
        case "channel" if zero and zero_bits < 8:
            return replace(base, group_elements=-1, group_bytes=scale, zero_bits=zero_bits)
        case "channel":
            return replace(base, name=f"{base.name}-channel" if base.block_bytes == 1 else base.name, row_bytes=one)
        case "group" | "tensor_group":
            group = weights.integer("group_size", smallest=-1, largest=2**20)
            return replace(base, group_elements=group or -1, group_bytes=scale, zero_bits=zero_bits if zero else 0)
        case "block":
            return replace(base, name=f"{base.name}-block", tile_elements=_side(weights), tile_bytes=one)
        case other:
            raise UnsupportedModelError(
                f"{weights.at('strategy')}: {other!r:.100}: expected tensor, channel, group, tensor_group or block"
            )


def _strategy(weights: Fields) -> str:
    """Return the strategy; files from before it was written say it by the group size."""
    named = weights.text("strategy")
    if named is not None:
        return named
    group = weights.values.get("group_size")
    if group is None:
        return "tensor"
    return "channel" if group == -1 else "group"


def _side(weights: Fields) -> int:
    tile = weights.values.get("block_structure")
    if isinstance(tile, str):
        tile = [int(side) if side.isdecimal() and len(side) < 6 else 0 for side in tile.split("x")]
    if not isinstance(tile, list) or len(tile) != 2 or not isinstance(tile[0], int) or not 0 < tile[0] <= 65536:
        raise InvalidValueError(weights.at("block_structure"), tile, "two integers, such as [128, 128]")
    if tile[0] != tile[1]:
        raise UnsupportedModelError(
            f"{weights.at('block_structure')}: {tile!r:.100}: expected a square; others not read"
        )
    return tile[0]


def _with_inputs(held: StorageFormat, group: Fields, layout: str, plain: StorageFormat) -> StorageFormat:
    """Return the format with the activations' scale where it is stored: static, or the global one of NVFP4."""
    if not group.has("input_activations"):
        return held
    inputs = group.section("input_activations")
    dynamic = inputs.values.get("dynamic", False)
    if dynamic is True:
        return held
    if layout == NVFP4 or dynamic == "local":
        return replace(held, tensor_bytes=held.tensor_bytes + FP32.block_bytes)
    size = plain.block_bytes + (0 if inputs.flag("symmetric", default=True) else 1)
    return replace(held, tensor_bytes=held.tensor_bytes + size)


def _sparse(section: Fields) -> bool:
    """Say whether two of four weights are left out; refuse sparsity whose size depends on the data."""
    if not section.has("sparsity_config"):
        return False
    sparsity = section.section("sparsity_config")
    layout = sparsity.text("format")
    if layout not in {None, "dense", SPARSE}:
        raise UnsupportedModelError(
            f"{sparsity.at('format')}: {layout!r:.100}: its size depends on the weights: expected dense or {SPARSE}; "
            "read the folder or the repository with its file headers"
        )
    return layout == SPARSE


def _halved(held: StorageFormat) -> StorageFormat:
    """Return the format with half the codes and a bit mask: of eight elements four codes and one byte."""
    return replace(
        held,
        name=f"{held.name}-sparse24",
        block_elements=8 * held.block_elements,
        block_bytes=4 * held.block_bytes + held.block_elements,
        tensor_bytes=held.tensor_bytes + SHAPE_BYTES,
    )


def _cache(section: Fields, plain: StorageFormat) -> tuple[str | None, tuple[Scale, ...]]:
    """Return the cache's declared format and the scales that the file holds for it."""
    if not section.has("kv_cache_scheme"):
        return None, ()
    scheme = section.section("kv_cache_scheme")
    kind, bits = scheme.text("type") or "float", scheme.integer("num_bits", 8, largest=16)
    if bits != 8:
        raise UnsupportedModelError(f"{scheme.at('num_bits')}: {bits}: expected 8; other caches are not read")
    static = scheme.values.get("dynamic") is not True and _strategy(scheme) == "tensor"
    scales = tuple(Scale(name=f"self_attn.{n}_scale", shape=(1,), held=plain) for n in "kv") if static else ()
    return "fp8" if kind == "float" else "int8", scales

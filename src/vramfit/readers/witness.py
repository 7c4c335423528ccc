"""Two ways to know the weights, compared name for name and shape for shape: a file's header and a spec's inventory.

A quantised file splits one matrix into several tensors (codes, scales, zeros); they are put together
again by their stem and compared by their bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod

from vramfit.errors import UnsupportedModelError
from vramfit.formats import BF16, FP16, FP32, StorageFormat
from vramfit.readers.safetensors import Checkpoint, StoredTensor
from vramfit.spec import Layer, ModelSpec, Part, Tensor, inventory, layer_groups

PLAIN = {"F32": FP32, "F16": FP16, "BF16": BF16}
COMPANIONS = dict.fromkeys(
    (
        ".qweight", ".qzeros", ".scales", ".g_idx", ".weight_scale_inv", ".weight_scale", ".input_scale",
        ".weight.absmax", ".weight.quant_map", ".weight.nested_absmax", ".weight.nested_quant_map", ".SCB",
        ".weight_format", ".weight_packed", ".weight_zero_point", ".weight_shape", ".weight_g_idx",
        ".weight_global_scale", ".input_global_scale", ".input_zero_point", ".weight_scale_2", ".pre_quant_scale",
        ".input_scale_ub", ".activation_scale", ".weight.compressed", ".weight.bitmask", ".weight.shape",
        ".weight_scales", ".trellis", ".suh", ".svh", ".mcg", ".mul1", ".codes", ".codebooks",
        ".q_weight", ".q_scale", ".q_scale_max", ".q_groups", ".q_group_map", ".q_invperm", ".q_perm",
    ),
    ".weight",
) | {"_blocks": "", "_scales": "", "_scale_inv": ""}  # fmt: skip
"""Ending of a stored tensor -> ending of the tensor that it is a part of, for every layout that is read."""
CACHE_SCALES = (".k_scale", ".v_scale", ".output_scale", ".k_zero_point", ".v_zero_point")
"""Scales of the cache: some exporters leave out those that are 1, so their absence is no disagreement."""
BITSANDBYTES_STATE = ".weight.quant_state."

RENAMINGS: tuple[tuple[tuple[str, str], ...], ...] = (
    (),
    (("transformer.", ""),),
    (("backbone.", "model."),),
    (("", "model."),),
    (("bert.", ""),),
    (("text_model.", ""),),
    (("vision_model.", ""),),
    (
        ("language_model.model.", "model.language_model."),
        ("language_model.lm_head.", "lm_head."),
        ("vision_tower.", "model.vision_tower."),
        ("multi_modal_projector.", "model.multi_modal_projector."),
    ),
)
"""Our beginning of a name -> another one that published files have; the first set that fits most names is taken."""

NOT_LOADED = (
    "rotary_emb.inv_freq",
    ".attn.bias",
    ".attn.masked_bias",
    "embeddings.position_ids",
    "embedding.position_ids",
)
"""Endings of buffers that old files hold and a load leaves out."""
COPIES = (
    "encoder.embed_tokens.weight",
    "decoder.embed_tokens.weight",
    "EncDecAttention.relative_attention_bias.weight",
)
"""Endings of what files of encoder-decoders hold once more: the shared table of tokens, unread distances."""
SHOWN = 3
MOST_TENSORS = 1_000_000
"""Tensors of one model that are written out by name; Kimi K2 has about 140,000 with its scales."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What a header and an inventory disagree about; all empty = they are the same list."""

    missing: tuple[str, ...]
    """Implied, not in the file."""
    unexpected: tuple[str, ...]
    """In the file, not implied."""
    reshaped: tuple[str, ...]
    """In both with another shape, or with codes of another number of bytes when quantised."""
    left_on_disk: tuple[str, ...]
    """In the file and understood, but not loaded: prediction heads, old buffers, a copy of the tied embedding."""
    formats: Mapping[str, StorageFormat]
    """Format in which the file holds a tensor, by our name, where the scheme says another, or other companions."""

    @property
    def agrees(self) -> bool:
        """True when every implied tensor is there as implied, and nothing else is."""
        return not (self.missing or self.unexpected or self.reshaped)


def compare(spec: ModelSpec, checkpoint: Checkpoint) -> Comparison:
    """Compare the implied tensors with those of a file, name for name and shape for shape."""
    _refuse_endless(spec)
    implied = {t.name: t for t in inventory(spec)}
    optional = {t.name for t in inventory(replace(spec, embeddings=(), layers=(), head=(), parts=_not_resident(spec)))}
    stored = _by_stem(checkpoint)
    names = _named_as_in_file(implied, stored)
    missing, reshaped, formats = [], [], {}
    for name, tensor in implied.items():
        found = stored.pop(names[name], None)
        if found is None:
            missing.append(name)
        elif not _same(tensor, found, spec):
            reshaped.append(name)
        else:
            stored_as = _stored_as(tensor, found, spec)
            if stored_as != spec.scheme.format_of(tensor):
                formats[name] = stored_as
    copies = (*COPIES,) if spec.encodes_prompt or not spec.generates else ()
    ignored = (*NOT_LOADED, *CACHE_SCALES, *copies, *(("lm_head.weight",) if spec.tied else ()))
    spare = {name for name in stored if name.endswith(ignored)}
    missing = [name for name in missing if not name.endswith(CACHE_SCALES)]
    there = [name for name in optional if name not in missing]
    return Comparison(
        missing=tuple(name for name in missing if name not in optional),
        unexpected=tuple(name for name in stored if name not in spare),
        reshaped=tuple(reshaped),
        left_on_disk=(*sorted(spare), *sorted(there)),
        formats=formats,
    )


def _refuse_endless(spec: ModelSpec) -> None:
    """Refuse to write out an inventory that no file could hold, such as 4,096 layers of 65,536 experts."""
    stacks = (spec.layers, *(part.layers for part in spec.parts))
    count = sum(n * sum(t.copies for t in layer.tensors) for layers in stacks for layer, n in layer_groups(layers))
    if count > MOST_TENSORS:
        raise UnsupportedModelError(
            f"{spec.name}: the configuration implies {count:,} tensors: expected at most {MOST_TENSORS:,}; "
            "check num_hidden_layers and the number of experts"
        )


def _not_resident(spec: ModelSpec) -> tuple[Part, ...]:
    return tuple(part for part in spec.parts if not part.resident)


def _by_stem(checkpoint: Checkpoint) -> dict[str, list[StoredTensor]]:
    """Group stored tensors by the tensor that they are parts of."""
    found: dict[str, list[StoredTensor]] = {}
    for tensor in checkpoint.tensors:
        found.setdefault(stem(tensor.name), []).append(tensor)
    return found


def stem(name: str) -> str:
    """Return the name of the tensor that a stored one is a part of; its own when it is whole.

    >>> stem("model.layers.0.mlp.up_proj.qzeros"), stem("mlp.experts.down_proj_blocks")
    ('model.layers.0.mlp.up_proj.weight', 'mlp.experts.down_proj')
    """
    before, state, _ = name.partition(BITSANDBYTES_STATE)
    if state:
        return f"{before}.weight"
    for ending, whole in COMPANIONS.items():
        if name.endswith(ending):
            return name.removesuffix(ending) + whole
    return name


def _named_as_in_file(implied: Iterable[str], stored: Mapping[str, object]) -> dict[str, str]:
    """Return our name -> the file's, by the set of renamings that finds most."""
    candidates = [{name: _renamed(name, renaming) for name in implied} for renaming in RENAMINGS]
    return max(candidates, key=lambda names: sum(other in stored for other in names.values()))


def _renamed(name: str, renaming: tuple[tuple[str, str], ...]) -> str:
    for ours, theirs in renaming:
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def _same(tensor: Tensor, found: list[StoredTensor], spec: ModelSpec) -> bool:
    """Say whether the stored parts are the implied tensor: same shape, or same bytes when it is split or packed."""
    fmt = spec.scheme.format_of(tensor)
    if len(found) == 1 and (fmt.is_plain or found[0].dtype in PLAIN):
        return found[0].shape == tensor.shape
    whole = [part for part in found if part.shape == tensor.shape]
    exact, codes = fmt.tensor_size(tensor.shape), fmt.code_bytes(tensor.shape)
    beside = fmt.tensor_bytes + 4 * sum(prod(part.shape) <= 1 for part in found)
    near = abs(_num_bytes(found) - exact) <= max(beside, exact // 500)
    return (bool(whole) or len(found) > 1) and (near or max(part.num_bytes for part in found) == codes)


def _num_bytes(found: list[StoredTensor]) -> int:
    """Bytes of the parts that a load keeps: bitsandbytes' description of its state is read and dropped. [B]"""
    return sum(part.num_bytes for part in found if BITSANDBYTES_STATE not in part.name)


def _stored_as(tensor: Tensor, found: list[StoredTensor], spec: ModelSpec) -> StorageFormat:
    """Return the format with exactly the bytes that the file holds for the tensor."""
    fmt = spec.scheme.format_of(tensor)
    if len(found) == 1 and found[0].dtype in PLAIN:
        return PLAIN[found[0].dtype]
    if fmt.is_plain:
        return fmt
    differs = _num_bytes(found) - fmt.tensor_size(tensor.shape)
    matrices = prod(tensor.shape[:-2])
    return replace(fmt, tensor_bytes=fmt.tensor_bytes + differs // matrices) if differs else fmt


def attach(spec: ModelSpec, checkpoint: Checkpoint) -> ModelSpec:
    """Return the spec with what the header proves: exact when both lists agree, with the differences named when not."""
    found = compare(spec, checkpoint)
    notes = list(spec.assumptions)
    if found.left_on_disk:
        notes.append(f"{checkpoint.where} also holds {_listed(found.left_on_disk)}: not loaded")
    for what, names in (
        ("lacks", found.missing),
        ("also holds", found.unexpected),
        ("has other shapes for", found.reshaped),
    ):
        if names:
            notes.append(
                f"{checkpoint.where} {what} {_listed(names)}: weights are derived from the configuration instead"
            )
    if not found.agrees:
        return replace(spec, assumptions=tuple(notes))
    evidence = f"{len(checkpoint.tensors):,} tensors of {checkpoint.where}"
    return replace(_with_formats(spec, found.formats), evidence=evidence, assumptions=tuple(notes))


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"[:300]


def _with_formats(spec: ModelSpec, formats: Mapping[str, StorageFormat]) -> ModelSpec:
    """Return the spec whose tensors are stored as the file has them; equal layers stay one object."""
    if not formats:
        return spec

    def outside(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(_as_stored(t, formats[t.name]) if t.name in formats else t for t in tensors)

    kinds: dict[tuple[object, ...], Layer] = {}

    def stack(layers: tuple[Layer, ...], prefix: str, first: int) -> tuple[Layer, ...]:
        kept = []
        for number, layer in enumerate(layers, start=first):
            before = prefix.replace("{layer}", str(number))
            stored = tuple(formats.get(before + t.name.replace("{expert}", "0")) for t in layer.tensors)
            key = (id(layer), stored)
            if key not in kinds:
                kinds[key] = replace(layer, tensors=_stored(layer.tensors, stored))
            kept.append(kinds[key])
        return tuple(kept)

    return replace(
        spec,
        embeddings=outside(spec.embeddings),
        layers=stack(spec.layers, spec.layer_prefix, 0),
        head=outside(spec.head),
        parts=tuple(
            replace(p, tensors=outside(p.tensors), layers=stack(p.layers, p.layer_prefix, p.first_layer))
            for p in spec.parts
        ),
    )


def _stored(tensors: tuple[Tensor, ...], formats: tuple[StorageFormat | None, ...]) -> tuple[Tensor, ...]:
    return tuple(t if f is None else _as_stored(t, f) for t, f in zip(tensors, formats, strict=True))


def _as_stored(tensor: Tensor, fmt: StorageFormat) -> Tensor:
    return replace(tensor, stored=fmt, held=None) if fmt.is_plain else replace(tensor, held=fmt)

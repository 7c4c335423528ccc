"""Weights: every tensor in the format it is stored in, whole blocks and scales included.

Which tensors stay in 16 bit is decided per role by the storage scheme: matrices inside the
blocks are quantised; embeddings, output projection, norms, routers and convolutions are not,
unless the format says otherwise (GGUF stores all matrices in blocks).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vramfit.engine import EngineProfile
from vramfit.formats import Role
from vramfit.request import Inference
from vramfit.result import ALWAYS, Basis, Item, Phase, exactly
from vramfit.shard import Shard
from vramfit.spec import ModelSpec, Scheme, Tensor, layer_groups
from vramfit.units import format_count

SHORT = 3
"""Axes of the short convolutions of state-space blocks; those of images have more."""
GROUPS = {
    Role.EMBEDDING: "embeddings",
    Role.LINEAR: "linear_layers",
    Role.BIAS: "norms_and_biases",
    Role.NORM: "norms_and_biases",
    Role.EXPERT: "experts",
    Role.ROUTER: "routers",
    Role.HEAD: "output_projection",
    Role.CONVOLUTION: "state_space",
    Role.STATE: "state_space",
    Role.ADAPTER: "adapters",
}
"""What tensors are listed under."""


def tensor_bytes(tensor: Tensor, scheme: Scheme) -> int:
    """Bytes of a tensor and its copies, as stored. [B]

        copies * format.tensor_size(shape)

    The format is the scheme's for the tensor's role; see ``formats`` for blocks and scales.
    """
    return tensor.copies * scheme.format_of(tensor).tensor_size(tensor.shape)


def weight_bytes(model: ModelSpec) -> int:
    """Bytes of all weights that a plain load brings to the device. [B]

        sum over tensors of tensor_bytes; equal layers are counted once and multiplied

    Source: the checkpoint's own tensor list; proven against file headers where one was read.
    """
    return sum(size for _, _, size in _sizes(model))


def weights(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield the weights of one rank by what they are for (of a pipeline: by component), alive from load to the end. [B]

    One item per role and storage format: parameters x bytes per element, whole blocks, scales
    included. ``EXACT`` when every tensor was compared with the file's header.
    """
    del workload, engine
    totals: dict[tuple[str, str], list[int]] = {}
    for key, parameters, size in _sizes(shard.model):
        entry = totals.setdefault(key, [0, 0])
        entry[0] += parameters
        entry[1] += size
    basis = Basis.DERIVED if shard.model.evidence == "config" else Basis.EXACT
    for (group, fmt), (parameters, size) in totals.items():
        yield exactly(
            f"weights/{group}",
            size,
            ALWAYS,
            f"{format_count(parameters)} parameters in {fmt}"
            + (f": {8 * size / parameters:.4g} bits each" if parameters else ""),
            f"tensor list of {shard.model.family}; {shard.model.evidence}",
            basis,
        )


def staging(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield the 16-bit copy of one matrix that on-the-fly quantisation needs while loading. [B]

        largest quantised matrix in the plain format

    bitsandbytes quantises on the device, one matrix after the other; files that are stored
    quantised are copied as they are and need none.
    Source: bitsandbytes-foundation/bitsandbytes:bitsandbytes/nn/modules.py, Params4bit and Int8Params.
    """
    del engine
    scheme = shard.model.scheme
    if workload.weight_format == "auto" or scheme.quantised.name not in {"nf4", "nf4-dq", "int8"}:
        return
    largest = largest_quantised(shard)
    if largest is not None:
        yield exactly(
            "load/quantisation_staging",
            scheme.plain.tensor_size(largest.shape),
            (Phase.LOAD,),
            f"largest matrix {' x '.join(map(str, largest.shape))} in {scheme.plain.name} before it is quantised",
            "bitsandbytes-foundation/bitsandbytes:bitsandbytes/nn/modules.py",
            Basis.DERIVED,
        )


def largest_quantised(shard: Shard) -> Tensor | None:
    """Return the quantised matrix with the most elements; None when nothing is quantised."""
    scheme = shard.model.scheme
    if scheme.quantised.is_plain:
        return None
    stacks = ((p.tensors, p.layers) for p in shard.model.parts if p.component)
    inside = (t for outer, layers in stacks for t in (*outer, *(t for g, _ in layer_groups(layers) for t in g.tensors)))
    blocks = (t for layer, _ in shard.model.groups for t in layer.tensors)
    found = [t for t in (*blocks, *inside) if not scheme.format_of(t).is_plain]
    return max(found, key=lambda t: t.num_parameters // t.copies, default=None)


def _sizes(model: ModelSpec) -> Iterator[tuple[tuple[str, str], int, int]]:
    """Yield ((group, format), parameters, bytes) of every distinct tensor times how often it occurs."""
    scheme = model.scheme
    counted: list[tuple[Tensor, int, str]] = [(t, 1, "") for t in (*model.embeddings, *model.head)]
    for layer, times in model.groups:
        counted.extend((t, times, "") for t in layer.tensors)
    for part in model.parts:
        if part.resident:
            counted.extend((t, 1, part.component) for t in part.tensors)
            stack = ((layer, times) for layer, times in layer_groups(part.layers))
            counted.extend((t, times, part.component) for layer, times in stack for t in layer.tensors)
    for tensor, times, component in counted:
        fmt = scheme.format_of(tensor)
        size = tensor.copies * fmt.tensor_size(tensor.shape)
        yield (component or _group(tensor), fmt.name), times * tensor.num_parameters, times * size


def _group(tensor: Tensor) -> str:
    """Name what a tensor is listed under."""
    wide = tensor.role is Role.CONVOLUTION and len(tensor.shape) > SHORT
    return "convolutions" if wide else GROUPS[tensor.role]

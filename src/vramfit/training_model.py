"""The model as a method trains it: which weights are frozen, what is added beside them, and the format of each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from fnmatch import fnmatchcase

from vramfit.errors import InvalidValueError
from vramfit.formats import Role, StorageFormat, weight_format
from vramfit.readers.adapter_targets import ALL_LINEAR, INPUTS_FIRST
from vramfit.spec import Cut, Layer, ModelSpec, Part, Scheme, Tensor
from vramfit.training import AdapterAsked, Training
from vramfit.training_choices import LOW_RANK, ON_FROZEN

LINEAR_ROLES = frozenset({Role.LINEAR, Role.ROUTER, Role.EXPERT})
"""What ``all-linear`` means: every linear layer but the output projection."""
QUANTISED_ROLES = frozenset({Role.LINEAR, Role.EXPERT})
BOTTLENECK = 64
"""Width of a bottleneck adapter when no rank is given: Houlsby et al. 2019, arXiv:1902.00751, sec. 3.4."""
PROMPT_TOKENS = 20
"""Virtual tokens when no rank is given. Source: huggingface/peft:docs/source/task_guides/prompt_based_methods.md."""
SHOWN = 12
INSIDE = {
    **dict.fromkeys(
        ("q_proj", "k_proj", "v_proj"),
        ("query_key_value", "qkv_proj", "Wqkv", "W_pack", "c_attn", "wqkv", "qkv", "attn_qkv"),
    ),
    **dict.fromkeys(("gate_proj", "up_proj"), ("gate_up_proj", "dense_h_to_4h", "w1_w3")),
    "o_proj": ("dense", "out_proj", "c_proj", "wo"),
    "down_proj": ("dense_4h_to_h", "fc2", "w2"),
}
"""Modules of other families that hold what a usual name means, for targets that a model has under no such name."""

Change = Callable[[Tensor, str], Iterator[Tensor]]
"""What stands in a tensor's place: itself, frozen or not, and what is trained beside it."""


def as_trained(model: ModelSpec, training: Training, *, wide_base: bool = False, packs_head: bool = False) -> ModelSpec:
    """Return the model with frozen weights marked, adapters among its tensors, and every tensor's format named.

    Args:
        model: as it was read.
        training: with every open field decided.
        wide_base: whether what is not quantised of a quantised base is held in fp32.
        packs_head: whether the output projection of a quantised base is quantised too.

    Raises:
        InvalidValueError: targets or patterns that match nothing; the message lists the names that exist.
    """
    plain = weight_format(str(training.parameter_format), path="workload.parameter_format")
    changed = replace(model, scheme=Scheme(quantised=plain, plain=plain, by_tensor=True))
    frozen_patterns = training.freeze or ()
    matched: set[str] = set()
    whole = training.method not in ON_FROZEN
    asked = training.adapter
    saved = asked.modules_to_save if asked else ()
    base = _base_format(training)
    packed = QUANTISED_ROLES | {Role.HEAD} if packs_head else QUANTISED_ROLES
    beside = _adapter_of(model, training, matched) if asked and training.method in LOW_RANK else None

    def change(tensor: Tensor, prefix: str) -> Iterator[Tensor]:
        name = prefix + tensor.name
        frozen = not whole
        for pattern in frozen_patterns:
            if _names(pattern, name):
                matched.add(pattern)
                frozen = True
        packs = frozen and tensor.role in packed
        held = _held(tensor, plain, base if packs else None, wide=wide_base and base is not None)
        yield replace(tensor, frozen=frozen or tensor.buffer, held=held)
        module = name.removesuffix(".weight")
        if any(f".{s}." in f".{module}." for s in saved) and not tensor.buffer:
            matched.update(s for s in saved if f".{s}." in f".{module}.")
            yield replace(tensor, name=f"{tensor.name}.modules_to_save", role=Role.ADAPTER, held=plain, stored=None)
        elif beside is not None:
            yield from beside(tensor, name)

    changed = _changed(changed, change, by_number=any(re.search(r"\d", p) for p in frozen_patterns))
    _check_matched(model, frozen_patterns, "workload.freeze", matched)
    if asked is not None:
        _check_matched(model, asked.modules_to_save, "workload.adapter.modules_to_save", matched)
        if training.method in LOW_RANK:
            _check_matched(model, asked.targets or (), "workload.adapter.targets", matched, any_of=True)
    if training.method == "adapter":
        return _with_bottlenecks(changed, asked, plain)
    return _with_prompt(changed, asked, plain) if training.method == "prompt-tuning" else changed


def with_prediction(model: ModelSpec) -> ModelSpec:
    """Return the model with its multi-token-prediction layers on the device, as Megatron trains them.

    Embedding and output projection are the model's own
    (NVIDIA/Megatron-LM:megatron/core/transformer/multi_token_prediction.py).
    """

    def own(part: Part) -> Part:
        shared = {t.name for t in part.tensors if t.role is Role.EMBEDDING or t.cut is Cut.VOCABULARY}
        return replace(part, resident=True, tensors=tuple(t for t in part.tensors if t.name not in shared))

    return replace(model, parts=tuple(own(part) if part.predicts else part for part in model.parts))


def _base_format(training: Training) -> StorageFormat | None:
    """Return the format of a quantised frozen base; None = it is stored as the weights are."""
    if training.base_format is None or training.base_format == training.parameter_format:
        return None
    return weight_format(training.base_format, path="workload.base_format")


def _held(tensor: Tensor, plain: StorageFormat, base: StorageFormat | None, *, wide: bool) -> StorageFormat:
    if tensor.buffer:
        return tensor.stored or plain
    if base is not None and len(tensor.shape) > 1:
        return base
    return weight_format("fp32") if wide else plain


def _names(pattern: str, name: str) -> bool:
    """Say whether a pattern means a tensor: with ``*`` as in a shell, else as whole words of its path in a row.

    >>> _names("embed_tokens", "model.embed_tokens.weight"), _names("layers.1", "model.layers.11.mlp.weight")
    (True, False)
    """
    if any(sign in pattern for sign in "*?["):
        return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*") or fnmatchcase(name, f"*.{pattern}.*")
    return f".{pattern}." in f".{name}."


def _adapter_of(model: ModelSpec, training: Training, matched: set[str]) -> Change:
    """Return what low-rank adaptation puts beside a target.

    A [rank, inputs] and B [outputs, rank], for DoRA a magnitude for each output; they are cut as the target is: the
    axis that tensor parallelism divides there is divided here. Source: Hu et al. 2021, arXiv:2106.09685, sec. 4.1;
    Liu et al. 2024, arXiv:2402.09353; huggingface/peft:src/peft/tuners/lora/layer.py.
    """
    asked = training.adapter
    assert asked is not None
    assert asked.rank is not None
    rank, targets = asked.rank, asked.targets or ()
    leaves = _leaves(model)
    meant = {
        target: (target,) if target in leaves or "." in target else INSIDE.get(target, (target,)) for target in targets
    }
    fmt = weight_format(str(asked.format), path="workload.adapter.format")
    inputs_first = model.family in INPUTS_FIRST

    def beside(tensor: Tensor, name: str) -> Iterator[Tensor]:
        if len(tensor.shape) < 2 or tensor.buffer or not name.endswith((".weight", "_proj")):
            return
        module = name.removesuffix(".weight")
        if name == module:  # a parameter and no module: peft takes it by its path alone (target_parameters)
            found = [t for t in targets if "." in t and _is_target(t, module, tensor.role)]
        else:
            found = [t for t in targets if any(_is_target(name, module, tensor.role) for name in meant[t])]
        if not found:
            return
        matched.update(found)
        inner = tensor.name.removesuffix(".weight")
        outputs, inputs = tensor.shape[-2:]
        if inputs_first or tensor.role is Role.EMBEDDING:
            outputs, inputs = inputs, outputs
        first, second = _cuts(tensor.cut, turned=inputs_first or tensor.role is Role.EMBEDDING)
        outer = tensor.shape[:-2]
        shared = {"role": Role.ADAPTER, "copies": tensor.copies, "experts": tensor.experts, "held": fmt}
        yield Tensor(name=f"{inner}.lora_A.weight", shape=(*outer, rank, inputs), cut=first, **shared)  # type: ignore[arg-type]
        yield Tensor(name=f"{inner}.lora_B.weight", shape=(*outer, outputs, rank), cut=second, **shared)  # type: ignore[arg-type]
        if training.method == "dora":
            yield Tensor(name=f"{inner}.lora_magnitude", shape=(*outer, outputs), cut=second, **shared)  # type: ignore[arg-type]

    return beside


def _leaves(model: ModelSpec) -> set[str]:
    """Return the last names of all matrices of a model."""
    tensors = (*model.embeddings, *(t for layer, _ in model.groups for t in layer.tensors), *model.head)
    return {t.name.removesuffix(".weight").rpartition(".")[2] for t in tensors if len(t.shape) > 1}


def _cuts(cut: Cut, *, turned: bool) -> tuple[Cut, Cut]:
    """Return how A and B are divided where their target is divided so."""
    if cut is Cut.WHOLE:
        return Cut.WHOLE, Cut.WHOLE
    by_inputs = cut in {Cut.INPUTS, Cut.SECOND}
    if by_inputs is not turned:
        return Cut.INPUTS, Cut.WHOLE
    return Cut.WHOLE, Cut.OUTPUTS if turned or cut is Cut.INPUTS else cut


def _is_target(target: str, module: str, role: Role) -> bool:
    if target == ALL_LINEAR:
        return role in LINEAR_ROLES
    return module == target or module.endswith(f".{target}")


def _changed(model: ModelSpec, change: Change, *, by_number: bool) -> ModelSpec:
    """Put every tensor through a change, equal layers once unless the change looks at their numbers."""
    layers: list[Layer] = []
    known: dict[object, Layer] = {}
    for number, layer in enumerate(model.layers):
        prefix = model.layer_prefix.replace("{layer}", str(number))
        key: object = id(layer)
        if by_number or key not in known:
            tensors = tuple(new for t in layer.tensors for new in change(t, prefix))
            shared = tuple(new for t in layer.shared for new in change(t, prefix))
            made = replace(layer, tensors=tensors, shared=shared)
            key = (id(layer), made) if by_number else key
            known.setdefault(key, made)
        layers.append(known[key])
    parts = tuple(
        replace(
            part,
            tensors=tuple(new for t in part.tensors for new in change(t, "")),
            layers=tuple(
                replace(x, tensors=tuple(new for t in x.tensors for new in change(t, part.layer_prefix)))
                for x in part.layers
            ),
        )
        for part in model.parts
        if part.resident
    )
    return replace(
        model,
        layers=tuple(layers),
        embeddings=tuple(new for t in model.embeddings for new in change(t, "")),
        head=tuple(new for t in model.head for new in change(t, "")),
        parts=parts,
    )


def _with_bottlenecks(model: ModelSpec, asked: AdapterAsked | None, plain: StorageFormat) -> ModelSpec:
    """Add two bottlenecks to every layer: down, up and their biases, after attention and after the feed-forward."""
    width = (asked.rank if asked else None) or BOTTLENECK
    hidden = model.hidden_size
    shapes = {"down": (width, hidden), "down_bias": (width,), "up": (hidden, width), "up_bias": (hidden,)}
    added = tuple(
        Tensor(name=f"{place}.adapter_{name}", shape=shape, role=Role.ADAPTER, held=plain)
        for place in ("attention", "feed_forward")
        for name, shape in shapes.items()
    )
    known = {id(layer): replace(layer, tensors=(*layer.tensors, *added)) for layer in model.layers}
    return replace(model, layers=tuple(known[id(layer)] for layer in model.layers))


def _with_prompt(model: ModelSpec, asked: AdapterAsked | None, plain: StorageFormat) -> ModelSpec:
    """Add the vectors of virtual tokens to the embeddings."""
    tokens = (asked.rank if asked else None) or PROMPT_TOKENS
    prompt = Tensor(name="prompt_embeddings", shape=(tokens, model.hidden_size), role=Role.ADAPTER, held=plain)
    return replace(model, embeddings=(*model.embeddings, prompt))


def _check_matched(
    model: ModelSpec, wanted: tuple[str, ...], path: str, matched: set[str], *, any_of: bool = False
) -> None:
    """Refuse names that nothing has.

    Raises:
        InvalidValueError: the first of them, and the names that exist.
    """
    missing = [name for name in wanted if name not in matched]
    if not missing or (any_of and len(missing) < len(wanted)):
        return
    names = sorted(_leaves(model))
    shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    raise InvalidValueError(path, missing[0], f"a module of {model.name}, which has {shown}")

"""Reads an ``adapter_config.json`` (peft) on a base model: trainable parameters to the unit, the file's tensors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from vramfit.errors import InvalidValueError, UnsupportedModelError
from vramfit.formats import FP32, Role
from vramfit.readers.adapter_kinds import KINDS, LARGEST_RANK, fused_experts, rank_of
from vramfit.readers.adapter_prompts import PROMPTS
from vramfit.readers.adapter_targets import ALL_LINEAR, Module, all_tensors, modules, targets, texts
from vramfit.readers.fields import Fields
from vramfit.spec import Adapter, ModelSpec, Tensor

RANKS = {"LORA": "r", "VERA": "r", "LOHA": "r", "LOKR": "r", "ADALORA": "init_r"}
WITH_HEADS = ("score", "classifier", "qa_outputs")
"""Heads of other tasks that peft adds to ``modules_to_save``; a language model has none of them."""
SAVED_EMBEDDINGS = ("embed_tokens", "lm_head")
"""Targets with which peft saves the whole embeddings, too: peft/utils/constants.py, EMBEDDING_LAYER_NAMES."""
PREFIX = "base_model.model."


def read_adapter(config: Mapping[str, object], base: ModelSpec, name: str = "adapter") -> Adapter:
    """Return the adapter that a configuration describes on a base model.

    Args:
        config: content of an ``adapter_config.json``.
        base: the model of ``base_model_name_or_path``.
        name: what to call the adapter in reports.

    Raises:
        UnsupportedModelError: a ``peft_type`` or a field that is not understood.
        InvalidValueError: a value that cannot be, or targets that no module of the base has.
    """
    fields = Fields(config)
    kind = (fields.text("peft_type") or "").upper()
    if kind in PROMPTS:
        tensors, trained = PROMPTS[kind](fields, base)
    elif kind in KINDS:
        tensors = (*_on_modules(fields, kind, base), *_on_parameters(fields, base), *_whole(fields, base))
        trained = ()
    else:
        known = ", ".join(sorted((*KINDS, *PROMPTS)))
        raise UnsupportedModelError(
            f"peft_type: {kind!r:.100}: expected one of {known}; others are not read in this version: name the base "
            "model alone and add the adapter's file size"
        )
    fields.assume("dtype", "float32", "peft trains and saves adapters in it unless autocast_adapter_dtype was false")
    rank = fields.integer(RANKS[kind], 8, largest=65536) if kind in RANKS else None
    return Adapter(
        name=name,
        kind=kind.lower(),
        rank=rank,
        tensors=tensors,
        trained=trained,
        plain=FP32,
        assumptions=tuple(dict.fromkeys(fields.assumed)),
    )


def with_adapter(base: ModelSpec, adapter: Adapter) -> ModelSpec:
    """Return the model with an adapter loaded beside it."""
    notes = (f"{adapter.name}: {note}" for note in adapter.assumptions)
    return replace(base, adapters=(*base.adapters, adapter), assumptions=(*base.assumptions, *notes))


def _on_modules(config: Fields, kind: str, base: ModelSpec) -> Iterator[Tensor]:
    """Yield what is added to each target, biases that are trained with it, and embeddings that are saved with it."""
    found = modules(base)
    chosen = targets(config, found)
    for module in chosen:
        for name, shape in KINDS[kind](config, module):
            yield Tensor(name=f"{PREFIX}{module.name}.{name}", shape=shape, role=module.role, copies=module.copies)
    if _is_all_linear(config):
        yield from _all_experts(config, base)
    if kind == "VERA" and chosen:
        yield from _shared(config, chosen)
    yield from _biases(config, kind, base, {module.name for module in chosen})
    yield from _saved_embeddings(config, base)


def _is_all_linear(config: Fields) -> bool:
    return str(config.values.get("target_modules")).lower() == ALL_LINEAR


def _all_experts(config: Fields, base: ModelSpec) -> Iterator[Tensor]:
    """Yield LoRA on routed experts for ``all-linear``: as transformers 5 fuses them, the rank once per fused matrix.

    Source: huggingface/peft:src/peft/utils/transformers_weight_conversion.py, _convert_peft_config_moe.
    """
    rank = config.integer("r", 8, largest=LARGEST_RANK)
    for name, (experts, inputs, outputs) in _fused(base):
        config.assume("target_modules", ALL_LINEAR, "experts in one parameter, as in transformers 5")
        times = 2 if name.endswith("gate_up_proj") else 1
        yield from fused_experts(config, PREFIX + name, times * rank * experts, (inputs, outputs))


def _shared(config: Fields, chosen: tuple[Module, ...]) -> Iterator[Tensor]:
    """Yield VeRA's random matrices, which the file holds unless ``save_projection`` is false."""
    rank = config.integer("r", 256, largest=65536)
    if config.flag("save_projection", default=True):
        inputs, outputs = max(m.inputs for m in chosen), max(m.outputs for m in chosen)
        yield Tensor(name="base_model.vera_A", shape=(rank, inputs), role=Role.LINEAR, buffer=True)
        yield Tensor(name="base_model.vera_B", shape=(outputs, rank), role=Role.LINEAR, buffer=True)


def _biases(config: Fields, kind: str, base: ModelSpec, chosen: set[str]) -> Iterator[Tensor]:
    """Yield the base's biases that are trained too: ``bias`` is none, all, or those of the targets (lora_only)."""
    which = config.text("bias") or "none"
    if which not in {"none", "all", f"{kind.lower()}_only"}:
        raise InvalidValueError(config.at("bias"), which, f"none, all or {kind.lower()}_only")
    if which == "none":
        return
    for t in all_tensors(base):
        if t.name.endswith("bias") and not t.buffer and (which == "all" or t.name.removesuffix(".bias") in chosen):
            stored = base.scheme.plain
            yield Tensor(name=PREFIX + t.name, shape=t.shape, role=Role.BIAS, copies=t.copies, stored=stored)


def _saved_embeddings(config: Fields, base: ModelSpec) -> Iterator[Tensor]:
    """Yield the whole embeddings, which peft saves when one of them is a target."""
    wanted = texts(config, "target_modules")
    if isinstance(config.values.get("target_modules"), str) or not set(wanted) & set(SAVED_EMBEDDINGS):
        return
    for t in (*base.embeddings, *base.head):
        if t.name.removesuffix(".weight").endswith(wanted) and t.role in {Role.EMBEDDING, Role.HEAD}:
            name = f"{PREFIX}{t.name.removesuffix('.weight')}.base_layer.weight"
            yield Tensor(name=name, shape=t.shape, role=t.role, stored=base.scheme.plain, buffer=True)


def _on_parameters(config: Fields, base: ModelSpec) -> Iterator[Tensor]:
    """Yield LoRA on parameters by name, which is how fused experts are trained."""
    wanted = texts(config, "target_parameters")
    if not wanted:
        return
    found = dict(_parameters(base))
    chosen = {name: facts for name, facts in found.items() if name.endswith(tuple(f".{w}" for w in wanted))}
    if not chosen:
        known = sorted({re.sub(r".*\.[0-9]+\.", "", name) for name in found})
        raise InvalidValueError(
            config.at("target_parameters"), list(wanted), f"parameters of the base model, which has {', '.join(known)}"
        )
    for name, (experts, inputs, outputs) in chosen.items():
        rank = rank_of(config, Module(name=name, inputs=inputs, outputs=outputs, role=Role.EXPERT))
        yield from fused_experts(config, PREFIX + name, rank * experts, (inputs, outputs))


def _parameters(base: ModelSpec) -> Iterator[tuple[str, tuple[int, int, int]]]:
    """Yield (name, (experts, inputs, outputs)) of matrices as parameters; experts as transformers fuses them."""
    for t in all_tensors(base):
        if len(t.shape) == 3 and t.experts:
            yield t.name, (t.experts, t.shape[1], t.shape[2])
        elif len(t.shape) == 2 and t.role in {Role.LINEAR, Role.ROUTER}:
            yield t.name, (1, t.shape[1], t.shape[0])
    yield from _fused(base)


def _fused(base: ModelSpec) -> Iterator[tuple[str, tuple[int, int, int]]]:
    """Yield the experts of files that hold them one by one, as the parameters that transformers 5 makes of them."""
    groups: dict[str, list[Tensor]] = {}
    for t in all_tensors(base):
        if t.copies > 1 and t.role is Role.EXPERT:
            before = t.name.partition(".{expert}.")[0].replace("block_sparse_moe", "mlp")
            groups.setdefault(before, []).append(t)
    for before, (*into, back) in groups.items():
        width, hidden = into[0].shape
        name = "gate_up_proj" if len(into) == 2 else "up_proj"
        yield f"{before}.{name}", (back.copies, hidden, len(into) * width)
        yield f"{before}.down_proj", (back.copies, back.shape[1], back.shape[0])


def _whole(config: Fields, base: ModelSpec) -> Iterator[Tensor]:
    """Yield copies of whole modules (``modules_to_save``) and rows of the embedding (``trainable_token_indices``)."""
    wanted = texts(config, "modules_to_save")
    tensors = list(all_tensors(base))
    if base.tied and base.generates:
        table = next(t for t in tensors if t.role is Role.EMBEDDING)
        tensors.append(Tensor(name="lm_head.weight", shape=table.shape, role=Role.HEAD))
    for target in wanted:
        matched = [t for t in tensors if f"{target}." in t.name and _ends_module(t.name, target)]
        if not matched and target not in WITH_HEADS:
            known = sorted({t.name.rpartition(".")[0].rpartition(".")[2] for t in tensors})[:12]
            raise InvalidValueError(
                config.at("modules_to_save"), target, f"modules of the base, such as {', '.join(known)}"
            )
        if not matched:
            config.assume("modules_to_save", target, "a head of another task, which this model has not: not counted")
        for t in matched:
            yield Tensor(
                name=PREFIX + t.name, shape=t.shape, role=t.role, copies=t.copies, stored=base.scheme.plain,
                buffer=t.buffer,
            )  # fmt: skip
    yield from _token_rows(config, base)


def _ends_module(name: str, target: str) -> bool:
    """Say whether a module whose name ends with the target holds the tensor."""
    parts = name.split(".")
    return any(".".join(parts[:n]).endswith(target) for n in range(1, len(parts)))


def _token_rows(config: Fields, base: ModelSpec) -> Iterator[Tensor]:
    rows = config.values.get("trainable_token_indices")
    if rows is None:
        return
    table = {"embed_tokens": rows} if isinstance(rows, list) else rows
    if not isinstance(table, Mapping) or not all(isinstance(r, list) for r in table.values()):
        raise InvalidValueError(config.at("trainable_token_indices"), rows, "a list of token numbers")
    for name, numbers in table.items():
        yield Tensor(
            name=f"{PREFIX}{name}.trainable_tokens_delta", shape=(len(numbers), base.hidden_size), role=Role.EMBEDDING
        )

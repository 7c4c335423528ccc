"""Fills in what a training request leaves open, and says for every field what was taken and why."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from vramfit.errors import InvalidValueError
from vramfit.formats import WEIGHT_FORMATS
from vramfit.framework import NO_MASTER, Framework, Recipe, Sharding
from vramfit.frameworks.profile import find_framework
from vramfit.names import nearest
from vramfit.request import Plan
from vramfit.result import Choice
from vramfit.spec import ModelSpec
from vramfit.training import OWN_LOSSES, AdapterAsked, BucketsAsked, OffloadAsked, Training
from vramfit.training_plan import sharding_of

LONGEST_DEFAULT_TOKENS = 4096
"""Sequence taken when none is given, where the model allows it: a stated assumption, no knowledge."""
LOW_RANK = frozenset({"lora", "rslora", "dora", "qlora", "gptq-lora"})
"""Methods that train pairs of small matrices beside frozen ones."""
ON_FROZEN = LOW_RANK | {"adapter", "prompt-tuning"}
"""Methods that leave the model as it is."""
GPTQ_BASE = "gptq-int4"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A training request without open fields."""

    training: Training
    framework: Framework
    recipe: Recipe
    """Formats, the request's own in them."""
    choices: tuple[Choice, ...]
    assumptions: tuple[str, ...]


def decide(model: ModelSpec, training: Training, plan: Plan) -> Decided:
    """Decide every open field of a training workload.

    Args:
        model: its positions bound the default length.
        training: as asked.
        plan: how states are divided decides which of a framework's recipes a precision word means.

    Raises:
        VramfitError: an unknown framework, a precision it has no recipe for, or parts that contradict one another.
    """
    framework, why = find_framework(training.framework, training.framework_version)
    framework = with_buckets(framework, training.buckets, model.hidden_size)
    choices: list[Choice] = []
    if training.framework_version is None:
        choices.append(Choice(field="framework_version", value=framework.version, why=why))
    elif training.framework_version != framework.version:
        choices.append(Choice(field="framework_profile", value=framework.version, why=why))
    _contradictions(training)
    sharding = sharding_of(framework, plan)
    recipe = _recipe(training, framework, sharding)
    defaults = {**_from_framework(training, framework, recipe, plan), **_of_model(model, framework)}
    filled, opened = _fill(training, defaults)
    choices.extend(opened)
    filled, opened = _follow(filled, sharding)
    choices.extend(opened)
    if filled.method in LOW_RANK:
        filled, opened = _adapter(filled, framework, recipe, model.family)
        choices.extend(opened)
    recipe = replace(
        recipe,
        parameter_format=str(filled.parameter_format),
        gradient_format=str(filled.gradient_format),
        master_format=str(filled.master_format),
        optimizer_state_format=str(filled.optimizer_state_format),
        reduce_format=str(filled.reduce_format),
    )
    return Decided(
        training=filled,
        framework=framework,
        recipe=recipe,
        choices=tuple(choices),
        assumptions=_assumptions(model, filled),
    )


def with_buckets(framework: Framework, asked: BucketsAsked | None, hidden_size: int) -> Framework:
    """Return a framework whose buffers for other ranks are of the sizes asked for.

        by the hidden size h: h^2 reduced together, 0.9 h^2 gathered ahead, weights up to 10 h whole   elements

    Source: huggingface/transformers:src/transformers/integrations/deepspeed.py, trainer_config_finalize.

    >>> from vramfit.frameworks.profile import find_framework
    >>> with_buckets(find_framework("deepspeed")[0], BucketsAsked(by_hidden_size=True), 4096).buckets.reduce
    16777216
    """
    if asked is None:
        return framework
    square = hidden_size**2
    follows = {"reduce": square, "prefetch": 9 * square // 10, "persistence": 10 * hidden_size}
    sizes: dict[str, Any] = dict(follows) if asked.by_hidden_size else {}
    for name in ("reduce", "prefetch", "persistence", "max_live", "overlap"):
        if getattr(asked, name) is not None:
            sizes[name] = getattr(asked, name)
    return replace(framework, buckets=replace(framework.buckets, **sizes))


def _recipe(training: Training, framework: Framework, sharding: Sharding) -> Recipe:
    """Return the formats of the precision word, the request's own format of the weights carried through."""
    word = training.precision or framework.precision
    found = framework.recipe(word)
    if found is None:
        known = tuple(r.precision for r in framework.recipes)
        raise InvalidValueError("workload.precision", word, f"a recipe of {framework.name}: one of {', '.join(known)}")
    found = _under(found, sharding)
    own = training.parameter_format
    if own is None:
        if training.method in ON_FROZEN and found.parameter_format != found.compute_format:
            return replace(found, parameter_format=found.compute_format, autocast=found.autocast)
        return found
    _known_format("parameter_format", own)
    if own == found.parameter_format:
        return found
    if found.master_format != NO_MASTER:
        return replace(found, parameter_format=own)
    follows = found.parameter_format
    return replace(
        found,
        parameter_format=own,
        gradient_format=own if found.gradient_format == follows else found.gradient_format,
        optimizer_state_format=own if found.optimizer_state_format == follows else found.optimizer_state_format,
    )


def _under(recipe: Recipe, sharding: Sharding) -> Recipe:
    """Return what a recipe of autocast becomes where ranks divide weights, and one of FSDP where they do not.

    FSDP casts weights as it gathers them, so autocast has nothing to cast and caches nothing; gradients travel in the
    same format unless a policy says otherwise (pytorch/pytorch:torch/distributed/fsdp/_fully_shard/_fsdp_api.py,
    MixedPrecisionPolicy.reduce_dtype; huggingface/accelerate:src/accelerate/utils/dataclasses.py). DeepSpeed turns the
    model into 16 bit and keeps its own fp32 copy (deepspeedai/DeepSpeed:deepspeed/runtime/bf16_optimizer.py).
    """
    whole = sharding in {Sharding.NONE, Sharding.DDP}
    if not recipe.autocast:
        casts = recipe.master_format == NO_MASTER and recipe.parameter_format != recipe.compute_format
        return replace(recipe, autocast=True) if whole and casts else recipe
    if sharding in {Sharding.FSDP1, Sharding.FSDP2}:
        return replace(recipe, autocast=False, reduce_format=recipe.compute_format)
    if sharding is not Sharding.ZERO:
        return recipe
    word = recipe.compute_format
    return replace(
        recipe, autocast=False, parameter_format=word, gradient_format=word, reduce_format=word, master_format="fp32"
    )


def _accumulation(training: Training, framework: Framework, plan: Plan) -> tuple[int, str]:
    """Return micro-batches of one step: what a framework's own size of a step comes to, where it has one."""
    if framework.global_batch is None or training.optimizer_in_backward:
        return 1, "every micro-batch is a step"
    each = training.micro_batch * plan.dp_shard * plan.dp_replicate
    return max(1, framework.global_batch // each), f"{framework.name} steps on {framework.global_batch} sequences"


def _from_framework(training: Training, framework: Framework, recipe: Recipe, plan: Plan) -> dict[str, tuple[Any, str]]:
    """Return what the framework takes for every field that it decides."""
    name = f"{framework.name}'s default"
    by_recipe = f"{framework.name}'s recipe for {training.precision or framework.precision}"
    defaults: dict[str, tuple[Any, str]] = {
        "precision": (recipe.precision, name),
        "parameter_format": (recipe.parameter_format, by_recipe),
        "gradient_format": (recipe.gradient_format, by_recipe),
        "master_format": (recipe.master_format, by_recipe),
        "optimizer_state_format": (recipe.optimizer_state_format, by_recipe),
        "reduce_format": (recipe.reduce_format, by_recipe),
        "gradient_accumulation_steps": _accumulation(training, framework, plan),
        "optimizer": (framework.optimizer, name),
        "optimizer_implementation": (framework.optimizer_implementation, name),
        "optimizer_in_backward": (False, name),
        "recompute": (framework.recompute, name),
        "attention": (framework.attention, name),
        "loss": (framework.loss, name),
        "compile": (framework.compile, name),
        "offload": (OffloadAsked(), "nothing waits on the host unless asked"),
    }
    if training.method == "qlora":
        defaults["base_format"] = (framework.base_format, name)
    if training.method == "gptq-lora":
        defaults["base_format"] = (GPTQ_BASE, "what gptq-lora means")
    return defaults


def _of_model(model: ModelSpec, framework: Framework) -> dict[str, tuple[Any, str]]:
    """Return what the model decides: how long its sequences are, and its loss where its own code takes it."""
    own: dict[str, tuple[Any, str]] = {"loss": ("plain", f"{model.family}'s own code takes it of 16-bit logits")}
    recipes = dict(framework.loss_of_families)
    if model.family in recipes:
        own = {"loss": (recipes[model.family], f"{framework.name}'s recipes for {model.family}")}
    return {**_sizes(model), **(own if model.family in {*OWN_LOSSES, *recipes} else {})}


def _sizes(model: ModelSpec) -> dict[str, tuple[Any, str]]:
    longest = model.max_position_embeddings
    if longest is None or longest > LONGEST_DEFAULT_TOKENS:
        return {"sequence_tokens": (LONGEST_DEFAULT_TOKENS, "no length given: a usual one")}
    return {"sequence_tokens": (longest, "no length given: the positions that the model was made for")}


def _fill(training: Training, defaults: dict[str, tuple[Any, str]]) -> tuple[Training, list[Choice]]:
    opened = {name: pair for name, pair in defaults.items() if getattr(training, name) is None}
    choices = [Choice(field=name, value=value, why=why) for name, (value, why) in opened.items()]
    return replace(training, **{name: value for name, (value, _) in opened.items()}), choices


def _follow(training: Training, sharding: Sharding) -> tuple[Training, list[Choice]]:
    """Let gradients and optimizer states follow weights to the host with FSDP, gradients the states with DeepSpeed.

    Source: pytorch/pytorch:torch/distributed/fsdp/_fully_shard/_fsdp_api.py, CPUOffloadPolicy;
    deepspeedai/DeepSpeed:deepspeed/runtime/zero/stage_1_and_2.py (cpu_offload), stage3.py (offload_optimizer).
    """
    offload = training.offload or OffloadAsked()
    fsdp = sharding in {Sharding.FSDP1, Sharding.FSDP2}
    place = offload.parameters if fsdp else offload.optimizer
    if place is None or not (fsdp or sharding is Sharding.ZERO):
        return training, []
    names = [n for n in ("gradients", "optimizer") if getattr(offload, n) is None]
    why = "with FSDP they follow the weights" if fsdp else "with DeepSpeed they follow the states"
    choices = [Choice(field=f"offload.{n}", value=place, why=why) for n in names]
    return replace(training, offload=replace(offload, **dict.fromkeys(names, place))), choices


def _adapter(training: Training, framework: Framework, recipe: Recipe, family: str) -> tuple[Training, list[Choice]]:
    """Fill in the adapter's own fields."""
    asked, own = training.adapter or AdapterAsked(), framework.adapter
    fmt = recipe.parameter_format if own.format == "parameters" else own.format
    values: dict[str, Any] = {
        "rank": own.rank, "alpha": own.alpha, "targets": own.targets_of(family), "format": fmt, "dropout": own.dropout,
    }  # fmt: skip
    opened = {name: value for name, value in values.items() if getattr(asked, name) is None}
    choices = [Choice(field=f"adapter.{n}", value=v, why=f"{framework.name}'s default") for n, v in opened.items()]
    return replace(training, adapter=replace(asked, **opened)), choices


def _contradictions(training: Training) -> None:
    """Refuse parts that cannot go together.

    Raises:
        InvalidValueError: the field, and what it contradicts.
    """
    if training.adapter is not None and training.method not in ON_FROZEN:
        raise InvalidValueError(
            "workload.adapter", training.method, "a method that trains one", f"one of {', '.join(sorted(LOW_RANK))}"
        )
    if training.base_format is not None and training.method not in ON_FROZEN:
        raise InvalidValueError(
            "workload.base_format", training.base_format, f"none with method {training.method}",
            "only a frozen base may be stored otherwise: take method qlora",
        )  # fmt: skip
    if training.recompute_modules and training.recompute not in {None, "selective"}:
        raise InvalidValueError(
            "workload.recompute_modules", training.recompute, "recompute selective beside it", "name no modules"
        )
    if training.loss_chunk_tokens is not None and training.loss not in {None, "chunked"}:
        raise InvalidValueError("workload.loss_chunk_tokens", training.loss, "loss chunked beside it")
    if training.optimizer_in_backward and (training.gradient_accumulation_steps or 1) > 1:
        raise InvalidValueError(
            "workload.optimizer_in_backward", True, "gradient_accumulation_steps 1",
            "the step of a weight uses its gradient up as soon as it is made",
        )  # fmt: skip
    for name in ("parameter_format", "gradient_format", "optimizer_state_format", "reduce_format", "base_format"):
        if getattr(training, name) is not None:
            _known_format(name, getattr(training, name))
    if training.master_format not in {None, NO_MASTER}:
        _known_format("master_format", str(training.master_format))


def _known_format(name: str, value: str) -> None:
    if value not in WEIGHT_FORMATS:
        close = nearest(value, WEIGHT_FORMATS)
        raise InvalidValueError(f"workload.{name}", value, "a storage format", f"nearest: {', '.join(close)}")


def _assumptions(model: ModelSpec, training: Training) -> tuple[str, ...]:
    notes = list(model.assumptions)
    longest = model.max_position_embeddings
    if longest is not None and training.sequence_tokens is not None and training.sequence_tokens > longest:
        notes.append(
            f"sequence_tokens {training.sequence_tokens:,} is longer than the {longest:,} positions that the model was "
            "made for: memory is counted as asked"
        )
    if training.compile:
        notes.append("compile: counted as the eager program with fused elementwise operators")
    return tuple(notes)

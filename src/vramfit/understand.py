"""Fills in what a request leaves open, and says for every field what was taken and why."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vramfit.device import Device
from vramfit.engine import EngineProfile
from vramfit.engines.profile import check_knobs, find_engine, find_profile
from vramfit.errors import InvalidValueError
from vramfit.formats import FP16, FP32, StorageFormat, kv_format, weight_format
from vramfit.request import Inference
from vramfit.result import Choice
from vramfit.spec import ModelSpec, Scheme
from vramfit.units import Size, is_array, smaller

ASSUMED_CONTEXT_TOKENS = 8192
"""Context taken when none is given: a stated assumption, not a measurement."""

HALF_BESIDE = frozenset({"int8", "nf4", "nf4-dq", "gptq-int4", "gptq-int8", "awq-int4"})
"""Formats whose kernels compute in fp16, to which a checkpoint in fp32 is cast beside them.
Source: huggingface/transformers:src/transformers/quantizers/quantizer_bnb_4bit.py and _gptq.py, update_torch_dtype."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Understood:
    """A workload with nothing left open, the model in the format it will have, and the engine's profile."""

    model: ModelSpec
    workload: Inference
    engine: EngineProfile
    choices: tuple[Choice, ...]
    assumptions: tuple[str, ...]


def understand(model: ModelSpec, workload: Inference, device: Device | None = None) -> Understood:
    """Return the workload with every open field decided; some defaults of servers depend on the device.

    Raises:
        VramfitError: an unknown engine or format, or lengths that contradict one another.
    """
    if model.components:
        _refuse_lengths(workload)
    engine, why = find_profile(workload.engine, workload.engine_version, workload.weight_format)
    if workload.weight_format != "auto":
        model = _without_scales(model)
    check_knobs(workload)
    choices = [Choice(field="engine_version", value=engine.version, why=f"{why}; checked against {engine.checked}")]
    mixed = _as_mixture(model, workload.weight_format)
    model = mixed or model
    scheme = model.scheme if mixed else _scheme(model, workload)
    if workload.weight_format == "auto":
        shown = scheme.quantised.name
        choices.append(Choice(field="weight_format", value=shown, why="what the checkpoint says"))
    if model.components:
        return _pipeline(model, workload, engine, scheme, choices, device)
    key, value = _cache_formats(workload, scheme, choices)
    workload = _own_context(workload, engine, device, choices)
    context, prompt, new = _lengths(workload, model, choices)
    if workload.attention is None:
        choices.append(Choice(field="attention", value=engine.attention, why=f"default of {engine.name}"))
    filled = replace(
        workload,
        engine_version=workload.engine_version or engine.version,
        kv_format=value,
        kv_format_k=key,
        kv_format_v=value,
        context_tokens=context,
        prompt_tokens=prompt,
        new_tokens=new,
        attention=workload.attention or engine.attention,
    )
    model = model if scheme is model.scheme else replace(model, scheme=scheme)
    filled, knobs = find_engine(workload.engine).defaults(model, filled, engine, device)
    choices.extend(knobs)
    return Understood(
        model=model,
        workload=filled,
        engine=engine,
        choices=tuple(choices),
        assumptions=(*model.assumptions, *_beyond_limit(model, filled)),
    )


def _refuse_lengths(workload: Inference) -> None:
    """Refuse what a diffusion pipeline does not have: it keeps no cache and writes no tokens."""
    for name in ("context_tokens", "prompt_tokens", "new_tokens", "kv_format_k", "kv_format_v"):
        if getattr(workload, name) is not None:
            raise InvalidValueError(
                f"workload.{name}",
                getattr(workload, name),
                "it to be left out: a diffusion pipeline has no context and no cache",
                "what images take is listed as not counted in this version",
            )


def _pipeline(
    model: ModelSpec,
    workload: Inference,
    engine: EngineProfile,
    scheme: Scheme,
    choices: list[Choice],
    device: Device | None,
) -> Understood:
    """Return a diffusion pipeline's request: it has no lengths, its sizes are the engine's to decide."""
    model = model if scheme is model.scheme else replace(model, scheme=scheme)
    filled = replace(workload, engine_version=workload.engine_version or engine.version)
    runtime = find_engine(workload.engine)
    knobs: tuple[Choice, ...] = ()
    if runtime.pipelines:
        filled, knobs = runtime.defaults(model, filled, engine, device)
    return Understood(
        model=model,
        workload=filled,
        engine=engine,
        choices=(*choices, *knobs),
        assumptions=model.assumptions,
    )


def _without_scales(model: ModelSpec) -> ModelSpec:
    """Return the model without the scales that only its own quantised checkpoint has beside the weights."""
    if not model.scheme.by_tensor:
        return model
    kinds = {id(layer): layer for layer in model.layers}
    kept = {
        key: replace(layer, tensors=tuple(t for t in layer.tensors if not (t.buffer and t.name.endswith("_scale"))))
        for key, layer in kinds.items()
    }
    return replace(model, layers=tuple(kept[id(layer)] for layer in model.layers))


def _as_mixture(model: ModelSpec, weight_format: str) -> ModelSpec | None:
    """Return the model as a GGUF file of that label holds it; None when the format is no such label."""
    if not weight_format.upper().startswith("GGUF:"):
        return None
    from vramfit.gguf_recipe import as_gguf, is_dynamic, is_label  # noqa: PLC0415 - only its labels pay for it

    return as_gguf(model, weight_format) if is_label(weight_format) or is_dynamic(weight_format) else None


def _scheme(model: ModelSpec, workload: Inference) -> Scheme:
    """Return how the weights will be stored: as the checkpoint has them, or as asked.

    Asking for the format that the checkpoint has keeps its exceptions and its blocks.
    """
    if workload.weight_format == "auto":
        if workload.group_size is not None:
            raise InvalidValueError(
                "workload.group_size",
                workload.group_size,
                "a weight_format with groups beside it",
                "name one, e.g. int4",
            )
        return model.scheme
    fmt = weight_format(_format_name(workload.weight_format, model.name), workload.group_size)
    if workload.group_size is None and model.scheme.quantised.name in {fmt.name, f"{fmt.name}-block"}:
        return model.scheme
    return Scheme(quantised=fmt, plain=_plain(fmt, model.scheme.plain))


def _format_name(asked: str, model: str) -> str:
    """Return GPTQ's 8-bit layout for ``int8`` where the checkpoint's name says so, else what was asked.

    It says GPTQ, or ends in Int8: files of 8 bits under a name of their own are GPTQ's (Qwen/Qwen-14B-Chat-Int8).
    """
    words = model.lower().split("/")[-1].split("-")
    return "gptq-int8" if asked == "int8" and ("gptq" in words or words[-1] == "int8") else asked


def _plain(fmt: StorageFormat, checkpoint: StorageFormat) -> StorageFormat:
    """Return the format of what is not quantised: norms of GGUF files are fp32, else the checkpoint's."""
    if fmt.is_plain:
        return fmt
    if checkpoint is FP32 and fmt.name in HALF_BESIDE:
        return FP16
    return FP32 if fmt.name.startswith("gguf:") else checkpoint


def _cache_formats(workload: Inference, scheme: Scheme, choices: list[Choice]) -> tuple[str, str]:
    """Decide the formats of the cached keys and of the cached values."""
    default = workload.kv_format
    if default == "auto":
        default = "fp16" if scheme.quantised.name.startswith("gguf:") else scheme.plain.name
        if workload.kv_format_k is None or workload.kv_format_v is None:
            choices.append(Choice(field="kv_format", value=default, why="the format activations are computed in"))
    key, value = workload.kv_format_k or default, workload.kv_format_v or default
    kv_format(key, "workload.kv_format_k" if workload.kv_format_k else "workload.kv_format")
    kv_format(value, "workload.kv_format_v" if workload.kv_format_v else "workload.kv_format")
    return key, value


def _own_context(workload: Inference, engine: EngineProfile, device: Device | None, choices: list[Choice]) -> Inference:
    """Fill in the context that the engine takes when none is given, where it has one."""
    own = find_engine(workload.engine).context
    found = own(engine, device) if own and workload.context_tokens is None and workload.prompt_tokens is None else None
    if found is None:
        return workload
    choices.append(Choice(field="context_tokens", value=found[0], why=found[1]))
    return replace(workload, context_tokens=found[0])


def _lengths(workload: Inference, model: ModelSpec, choices: list[Choice]) -> tuple[Size, Size, Size]:
    """Decide context, prompt and new tokens; each two give the third."""
    context, prompt, new = workload.context_tokens, workload.prompt_tokens, workload.new_tokens
    if context is None and prompt is not None:
        context = prompt + (0 if new is None else new)
        choices.append(Choice(field="context_tokens", value=context, why="prompt_tokens + new_tokens"))
    if context is None:
        limit = model.max_position_embeddings or ASSUMED_CONTEXT_TOKENS
        context = smaller(ASSUMED_CONTEXT_TOKENS, limit)
        choices.append(Choice(field="context_tokens", value=context, why="assumed: none was given (--context)"))
    if prompt is None:
        prompt = context if new is None else context - new
        why = "the longest prompt that the context holds" if new is None else "context_tokens - new_tokens"
        choices.append(Choice(field="prompt_tokens", value=prompt, why=why))
    if new is None:
        new = context - prompt
    _check_lengths(context, prompt, new)
    return context, prompt, new


def _check_lengths(context: Size, prompt: Size, new: Size) -> None:
    """Refuse lengths that contradict one another."""
    wrong = (prompt + new > context) | (prompt < 1) | (new < 0)
    if wrong.any() if is_array(wrong) else wrong:
        raise InvalidValueError(
            "workload.context_tokens",
            context,
            f"at least prompt_tokens ({prompt}) + new_tokens ({new}), prompt at least 1",
        )


def _beyond_limit(model: ModelSpec, workload: Inference) -> tuple[str, ...]:
    """Say when the context is longer than the model was made for."""
    limit, context = model.max_position_embeddings, workload.context_tokens
    if limit is None or context is None or is_array(context) or context <= limit:
        return ()
    return (f"context of {context:,} tokens is longer than the model was made for (max_position_embeddings {limit:,})",)

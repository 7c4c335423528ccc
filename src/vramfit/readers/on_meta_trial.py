"""What transformers builds of a configuration, in a process of its own with bounded time and memory.

    python -P -m vramfit.readers.on_meta_trial < config.json > seen.json

The only module that imports torch and transformers to read a model. No memory is allocated for weights, no code of a
model repository runs, nothing is fetched. What a layer caches is measured: a few tokens are run on the meta device,
and the shapes that come to lie in the cache are read off. What that cannot tell is refused.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from vramfit.errors import UnsupportedModelError
from vramfit.layer_kind import Attention, CrossAttention, GroupedQuery, Latent, LinearAttention, StateSpace

TRIAL_TOKENS = 6
"""Tokens run without memory to see what is cached; any window is longer."""
MOST_CPU_SECONDS = 60
MOST_MEMORY_BYTES = 4 * 2**30
"""Bounds of this process: torch and transformers take about 5 s and 1 GiB, the largest published models 10 s."""
NOT_FIELDS = {"model_type", "architectures", "transformers_version", "auto_map", "quantization_config", "torch_dtype",
              "dtype", "_name_or_path"}  # fmt: skip
PLAIN_CACHES = {"DynamicLayer", "DynamicSlidingWindowLayer", "LinearAttentionLayer",
                "LinearAttentionAndFullAttentionLayer"}  # fmt: skip
"""Classes of transformers' cache whose content is keys and values, a state, or both, and nothing else."""


def main() -> None:
    """Answer one configuration: what was seen, or why it was refused."""
    _limit()
    try:
        answer: dict[str, object] = {"seen": observe(json.load(sys.stdin))}
    except UnsupportedModelError as error:
        answer = {"refused": str(error)}
    json.dump(answer, sys.stdout)


def _limit() -> None:
    """Bound time and memory of this process, where the system can."""
    try:
        import resource  # noqa: PLC0415 - not on every system
    except ImportError:
        return
    for what, most in ((resource.RLIMIT_CPU, MOST_CPU_SECONDS), (resource.RLIMIT_DATA, MOST_MEMORY_BYTES)):
        _, hard = resource.getrlimit(what)
        resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def observe(config: Mapping[str, object]) -> dict[str, object]:
    """Return tensors, caches and numbers of the model that transformers builds.

    Raises:
        UnsupportedModelError: it cannot build the model, or a layer keeps something that is neither keys and values
            nor a state we have a formula for.
    """
    import torch  # noqa: PLC0415 - seconds to import, and only wanted here
    import transformers  # noqa: PLC0415

    transformers.logging.set_verbosity_error()
    kind = str(config.get("model_type"))
    try:
        model = _build(transformers, torch, config, kind)
        seen = _facts(model)
    except Exception as error:  # noqa: BLE001 - foreign code may fail in any way; it is told, never passed on
        raise UnsupportedModelError(
            f"model_type: {kind!r:.100}: transformers {transformers.__version__} cannot build it ({_told(error)}); "
            "expected a kind that vramfit or this version of transformers knows; code of model repositories is "
            "never run"
        ) from None
    cached = _trial(model, torch, model.config.get_text_config(decoder=True)) if seen["generates"] else []
    return {"version": transformers.__version__, "cached": cached, **seen}


def _facts(model: Any) -> dict[str, object]:  # noqa: ANN401 - foreign
    """Return what is to be seen of a model without running it."""
    text = model.config.get_text_config(decoder=True)
    state = {name: tensor for name, tensor in model.state_dict().items() if name not in model.all_tied_weights_keys}
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    plan = getattr(text, "base_model_tp_plan", None) or {}
    return {
        "shapes": {name: list(tensor.shape) for name, tensor in state.items()},
        "buffers": [name for name in state if name not in parameters],
        "numbers": _numbers(text),
        "plan": {str(key): str(how) for key, how in plan.items()},
        "generates": bool(model.can_generate()),
        "tied": _is_tied(model),
    }


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _build(transformers: Any, torch: Any, config: Mapping[str, object], kind: str) -> Any:  # noqa: ANN401 - foreign
    """Build the model without memory: the class that ``architectures`` names, else the one its kind has for text."""
    values = {key: value for key, value in config.items() if key not in NOT_FIELDS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        built = transformers.AutoConfig.for_model(kind, **values, attn_implementation="eager")  # looks at no values
        named = config.get("architectures")
        cls: Any = getattr(transformers, str(named[0]), None) if isinstance(named, list) and named else None
        with torch.device("meta"):
            if _is_model(cls, transformers.PreTrainedModel):
                model = cls._from_config(built, dtype=torch.bfloat16)
            else:
                double = getattr(built, "is_encoder_decoder", False)
                auto = transformers.AutoModelForSeq2SeqLM if double else transformers.AutoModelForCausalLM
                model = auto.from_config(built, dtype=torch.bfloat16, trust_remote_code=False)
    return model.eval()


def _is_model(cls: object, root: type) -> bool:
    return isinstance(cls, type) and issubclass(cls, root)


def _numbers(text: Any) -> dict[str, int]:  # noqa: ANN401 - foreign
    """Return every positive integer that the configuration has after transformers filled in its defaults."""
    names = {*vars(text), *getattr(text, "attribute_map", {})}
    values = {name: getattr(text, name, None) for name in names}
    return {name: value for name, value in values.items() if type(value) is int and value > 0}


def _is_tied(model: Any) -> bool:  # noqa: ANN401 - foreign
    """Say whether the output projection is the token embedding itself."""
    output = model.get_output_embeddings()
    return output is not None and output.weight is getattr(model.get_input_embeddings(), "weight", None)


def _trial(model: Any, torch: Any, text: Any) -> list[list[dict[str, object]]]:  # noqa: ANN401 - foreign
    """Run a few tokens without memory and return what each layer of the decoder kept: its own, and beside it."""
    inputs = _inputs(model, torch)
    out, error = _run(model, torch, inputs)
    if out is None:  # some look at a mask that they make, some at one that is given
        mask = torch.ones((1, TRIAL_TOKENS), dtype=torch.long, device="meta")
        out, _ = _run(model, torch, {**inputs, "attention_mask": mask})
    if out is None:
        raise UnsupportedModelError(
            f"transformers builds it, but a trial without memory failed ({error}), so nothing tells what is cached; "
            "expected a model that runs on the meta device"
        )
    cache = getattr(out, "past_key_values", None) or getattr(out, "cache_params", None)
    own: Any = getattr(cache, "self_attention_cache", cache)
    cross = getattr(cache, "cross_attention_cache", None)
    if not getattr(own, "layers", None):
        raise UnsupportedModelError("expected a cache of keys, values or states; transformers returned none")
    try:
        kept = [_kept(layer, text) for layer in own.layers]
        if cross is not None:
            kept = [[*mine, _crossed(other, text)] for mine, other in zip(kept, cross.layers, strict=True)]
    except (AttributeError, IndexError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UnsupportedModelError(
            f"expected keys, values or states of usual shapes in the cache; saw others ({_told(error)})"
        ) from None
    if not any(kept):
        raise UnsupportedModelError("expected keys, values or states in the cache; every layer left it empty")
    return [[_as_json(facts) for facts in layer] for layer in kept]


def _run(model: Any, torch: Any, inputs: dict[str, Any]) -> tuple[Any, str]:  # noqa: ANN401 - foreign
    """Return what a model answers, or None and why it failed."""
    try:
        with torch.device("meta"), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return model(**inputs, use_cache=True, return_dict=True), ""
    except Exception as error:  # noqa: BLE001 - foreign code may fail in any way
        return None, _told(error)


def _inputs(model: Any, torch: Any) -> dict[str, Any]:  # noqa: ANN401 - foreign
    """Return the inputs of a trial: tokens, and frames of sound where a model listens (Whisper and its kin)."""
    tokens = torch.zeros((1, TRIAL_TOKENS), dtype=torch.long, device="meta")
    more = {"decoder_input_ids": tokens} if getattr(model.config, "is_encoder_decoder", False) else {}
    bins = getattr(model.config, "num_mel_bins", None)
    if model.main_input_name == "input_ids" or bins is None:
        return {"input_ids": tokens, **more}
    shape = (1, bins, 2 * model.config.max_source_positions)
    return {model.main_input_name: torch.zeros(shape, dtype=torch.bfloat16, device="meta"), **more}


def _as_json(facts: Attention) -> dict[str, object]:
    return {"kind": type(facts).__name__, **asdict(facts)}


def _kept(layer: Any, text: Any) -> list[Attention]:  # noqa: ANN401 - foreign
    """Return what one layer of a cache holds, as facts of attention."""
    what = type(layer).__name__
    if what not in PLAIN_CACHES:
        raise UnsupportedModelError(f"expected a cache of keys and values or a state; saw transformers' {what}")
    keys, values = getattr(layer, "keys", None), getattr(layer, "values", None)
    states = getattr(layer, "recurrent_states", None) or {}
    convolved = getattr(layer, "conv_states", None) or {}
    if len(states) > 1 or set(states) != set(convolved):
        raise UnsupportedModelError(f"expected one recurrent state per layer; saw {len(states)} in {what}")
    found: list[Attention] = []
    if keys is not None and values is not None and keys.dim() == 4:
        found.append(_attention(tuple(keys.shape), tuple(values.shape), text, getattr(layer, "sliding_window", None)))
    found += [_state(tuple(states[i].shape), tuple(convolved[i].shape), text) for i in states]
    return found


def _number(text: Any, *names: str) -> int | None:  # noqa: ANN401 - foreign
    found = (getattr(text, name, None) for name in names)
    return next((value for value in found if type(value) is int and value > 0), None)


def _attention(keys: tuple[int, ...], values: tuple[int, ...], text: Any, window: int | None) -> Attention:  # noqa: ANN401
    """Return the facts of softmax attention from the shapes of its cache, ``[sequence, heads, tokens, width]``."""
    heads = _number(text, "num_attention_heads", "n_head", "n_heads") or keys[1]
    rank, rope = _number(text, "kv_lora_rank"), _number(text, "qk_rope_head_dim")
    if rank is not None and rope is not None and keys[1] == 1 and keys[3] + values[3] == rank + rope:
        return Latent(
            num_attention_heads=heads,
            kv_lora_rank=rank,
            qk_rope_head_dim=rope,
            qk_nope_head_dim=_number(text, "qk_nope_head_dim") or rope,
            v_head_dim=_number(text, "v_head_dim") or rank // heads,
            q_lora_rank=_number(text, "q_lora_rank"),
        )
    return GroupedQuery(
        num_attention_heads=heads if heads % keys[1] == 0 else keys[1],
        num_key_value_heads=keys[1],
        head_dim=keys[3],
        v_head_dim=None if values[3] == keys[3] else values[3],
        window_tokens=window if isinstance(window, int) else None,
    )


def _crossed(layer: Any, text: Any) -> CrossAttention:  # noqa: ANN401 - foreign
    heads, tokens, width = (int(side) for side in layer.keys.shape[1:])
    fixed = _number(text, "max_source_positions") if tokens != TRIAL_TOKENS else None
    return CrossAttention(num_attention_heads=heads, num_key_value_heads=heads, head_dim=width, source_tokens=fixed)


def _state(state: tuple[int, ...], conv: tuple[int, ...], text: Any) -> Attention:  # noqa: ANN401 - foreign
    """Return the facts of a recurrence from the shapes of its state and of the inputs its convolution keeps."""
    channels, kernel = conv[1], conv[2]
    keys = _number(text, "linear_num_key_heads")
    if keys is not None and len(state) == 4:
        return LinearAttention(
            num_key_heads=keys,
            num_value_heads=state[1],
            key_head_dim=(channels - state[1] * state[3]) // (2 * keys),
            value_head_dim=state[3],
            conv_kernel=kernel,
        )
    heads, width, size = (state[1], 1, state[2]) if len(state) == 3 else (state[1], state[2], state[3])
    spare = channels - heads * width
    if spare < 0 or spare % (2 * size):
        raise UnsupportedModelError(
            f"expected a convolution over x, B and C; saw a state of {state[1:]} beside {channels} channels"
        )
    return StateSpace(
        num_heads=heads, head_dim=width, state_size=size, conv_kernel=kernel, num_groups=spare // (2 * size)
    )


if __name__ == "__main__":
    main()

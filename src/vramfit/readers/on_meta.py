"""Architectures that no file of ours reads, through transformers' own code on the meta device (needs ``vramfit[hf]``).

No memory is allocated, no code of a model repository runs, nothing is fetched. Names and shapes of tensors are those
that transformers would save. What a layer caches is measured: a few tokens are run without memory, and the shapes that
come to lie in the cache are read off.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vramfit.errors import InvalidValueError, UnsupportedModelError
from vramfit.formats import Role
from vramfit.readers.fields import LARGEST_CONTEXT, LARGEST_EXPERTS, Fields
from vramfit.readers.on_meta_layers import Layers, integer_of, main_stack, numbered_below, other_stacks
from vramfit.readers.quantization import read_scheme
from vramfit.spec import (
    Attention,
    CrossAttention,
    GroupedQuery,
    Latent,
    LinearAttention,
    ModelSpec,
    StateSpace,
)

MOST_LAYERS = 512
MOST_WORDS = 100_000
"""Bounds of what is handed to transformers, which builds one Python object per module: published models have fewer."""
TRIAL_TOKENS = 6
"""Tokens run without memory to see what is cached; any window is longer."""
NOT_FIELDS = {"model_type", "architectures", "transformers_version", "auto_map", "quantization_config", "torch_dtype",
              "dtype", "_name_or_path"}  # fmt: skip
COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cached:
    """What one layer kept of the tokens of a trial, as shapes."""

    own: Attention | None
    beside: Attention | None = None


def read_on_meta(config: Mapping[str, object], name: str) -> ModelSpec:
    """Return the model of a configuration as transformers builds it.

    Raises:
        UnsupportedModelError: transformers is not installed or does not know the architecture, or a layer keeps
            something that is neither keys and values nor a state we have a formula for.
        InvalidValueError: a size that no published model has.
    """
    transformers, torch = _packages(name)
    fields = Fields(config)
    _check_sizes(config)
    kind = fields.text("model_type") or ""
    try:
        model = _build(transformers, torch, config, kind)
    except Exception as error:  # noqa: BLE001 - foreign code may fail in any way; it is told, never passed on
        raise UnsupportedModelError(
            f"{name}: model_type: {kind!r:.100}: transformers {transformers.__version__} cannot build it "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]}); expected a kind that vramfit or this "
            "version of transformers knows; code of model repositories is never run"
        ) from None
    text = model.config.get_text_config(decoder=True)
    shapes, buffers = _saved(model)
    generates = bool(model.can_generate())
    cached = _trial(model, torch, name) if generates else ()
    prefix, count = main_stack(shapes, len(cached), getattr(text, "num_hidden_layers", None))
    reader = Layers(text, buffers)
    kept = cached or (Cached(own=None),) * count
    layers = tuple(reader.layer(shapes, prefix, i, kept[i].own, kept[i].beside) for i in range(count))
    outside = {n: s for n, s in shapes.items() if not numbered_below(n, prefix, count)}
    parts, single = other_stacks(outside, reader)
    tensors = tuple(reader.tensor(n, s) for n, s in single.items())
    head = tuple(t for t in tensors if t.role is not Role.EMBEDDING)
    hidden = integer_of(text, "hidden_size", "d_model", "n_embd") or 1
    vocab = integer_of(text, "vocab_size") or 1
    how = f"transformers {transformers.__version__} on the meta device, with its class defaults"
    return ModelSpec(
        name=name,
        family=kind,
        hidden_size=hidden,
        vocab_size=vocab,
        max_position_embeddings=integer_of(text, "max_position_embeddings", "n_positions"),
        embeddings=tuple(t for t in tensors if t.role is Role.EMBEDDING),
        layers=layers,
        head=head,
        tied=bool(model.all_tied_weights_keys),
        layer_prefix=f"{prefix}{{layer}}.",
        scheme=read_scheme(fields),
        parts=parts,
        generates=generates,
        assumptions=(f"{kind} is not among the architectures vramfit reads itself: read through {how}",),
    )


def _packages(name: str) -> tuple[Any, Any]:
    try:
        import torch  # noqa: PLC0415 - seconds to import, and only wanted here
        import transformers  # noqa: PLC0415
    except ImportError:
        raise UnsupportedModelError(
            f"{name}: expected transformers to read it with; install it: pip install 'vramfit[hf]'"
        ) from None
    return transformers, torch


def _check_sizes(config: Mapping[str, object]) -> None:
    """Refuse what would keep transformers busy for minutes: too many layers or experts, endless lists."""
    for path, value in _walk(config, ""):
        field = path.rpartition(".")[2]
        if isinstance(value, list) and len(value) > MOST_WORDS:
            raise InvalidValueError(path, f"{len(value):,} entries", f"at most {MOST_WORDS:,}")
        if isinstance(value, bool) or not isinstance(value, int):
            continue
        largest = LARGEST_CONTEXT
        if field in {"num_hidden_layers", "n_layer", "n_layers", "num_layers", "depth"} or field.endswith("_layers"):
            largest = MOST_LAYERS
        elif field in COUNTS:
            largest = LARGEST_EXPERTS
        if abs(value) > largest:
            raise InvalidValueError(path, value, f"an integer up to {largest:,}")


def _walk(value: object, path: str, depth: int = 0) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping) and depth < 8:
        for key, inner in value.items():
            yield from _walk(inner, f"{path}.{key}" if path else str(key), depth + 1)
    else:
        yield path, value


def _build(transformers: Any, torch: Any, config: Mapping[str, object], kind: str) -> Any:  # noqa: ANN401 - foreign
    """Build the model without memory: the class that ``architectures`` names, else the one for causal models."""
    values = {key: value for key, value in config.items() if key not in NOT_FIELDS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        built = transformers.AutoConfig.for_model(kind, **values)
        named = config.get("architectures")
        cls = getattr(transformers, named[0], None) if isinstance(named, list) and named else None
        known = isinstance(cls, type) and issubclass(cls, transformers.PreTrainedModel)
        with torch.device("meta"):
            if known and cls is not None:
                model = cls._from_config(built, dtype=torch.bfloat16)
            else:
                model = transformers.AutoModelForCausalLM.from_config(
                    built, dtype=torch.bfloat16, trust_remote_code=False
                )
    return model.eval()


def _saved(model: Any) -> tuple[dict[str, tuple[int, ...]], frozenset[str]]:  # noqa: ANN401 - foreign
    """Return name and shape of every tensor that ``save_pretrained`` writes, and which of them are no parameters."""
    state = dict(model.state_dict())
    for name in model.all_tied_weights_keys:
        state.pop(name, None)
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    buffers = frozenset(name for name in state if name not in parameters)
    return {name: tuple(tensor.shape) for name, tensor in state.items()}, buffers


def _trial(model: Any, torch: Any, name: str) -> tuple[Cached, ...]:  # noqa: ANN401 - foreign
    """Run a few tokens without memory and return what each layer of the decoder kept."""
    text = model.config.get_text_config(decoder=True)
    double = bool(getattr(model.config, "is_encoder_decoder", False))
    try:
        with torch.device("meta"), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tokens = torch.zeros((1, TRIAL_TOKENS), dtype=torch.long)
            more = {"decoder_input_ids": tokens} if double else {}
            main = model.main_input_name
            shape = _audio_shape(model.config) if main != "input_ids" else ()
            inputs = torch.zeros(shape, dtype=torch.bfloat16) if shape else tokens
            out = model(**{main: inputs}, **more, use_cache=True)
    except Exception as error:  # noqa: BLE001 - foreign code may fail in any way
        return _declared(text, name, error)
    cache = getattr(out, "past_key_values", None) or getattr(out, "cache_params", None)
    if cache is None:
        raise UnsupportedModelError(f"{name}: expected a cache of keys, values or states; transformers returned none")
    own = getattr(cache, "self_attention_cache", cache)
    cross = getattr(cache, "cross_attention_cache", None)
    layers = [_kept(layer, text, name) for layer in own.layers]
    if cross is not None:
        layers = [
            Cached(own=layer.own, beside=_crossed(other, text))
            for layer, other in zip(layers, cross.layers, strict=True)
        ]
    shared = max(0, (integer_of(text, "num_hidden_layers") or len(layers)) - len(layers))
    return (*layers, *[Cached(own=_sharing(layers[-1].own))] * shared)


def _sharing(last: Attention | None) -> Attention | None:
    """Return the facts of a layer that reads an earlier one's cache."""
    if not isinstance(last, GroupedQuery):
        return last
    return GroupedQuery(
        num_attention_heads=last.num_attention_heads,
        num_key_value_heads=last.num_key_value_heads,
        head_dim=last.head_dim,
        shares_cache=True,
    )


def _audio_shape(config: Any) -> tuple[int, ...]:  # noqa: ANN401 - foreign
    """Return the shape of the input of a model that listens (Whisper and its kin)."""
    return (1, config.num_mel_bins, 2 * config.max_source_positions)


def _kept(layer: Any, text: Any, name: str) -> Cached:  # noqa: ANN401 - foreign
    """Return what one layer of a cache holds, as facts of attention."""
    known = {
        "DynamicLayer",
        "DynamicSlidingWindowLayer",
        "LinearAttentionLayer",
        "LinearAttentionAndFullAttentionLayer",
    }
    what = type(layer).__name__
    if what not in known:
        raise UnsupportedModelError(f"{name}: expected a cache of keys and values or a state; saw transformers' {what}")
    keys, values = getattr(layer, "keys", None), getattr(layer, "values", None)
    attention = None
    if keys is not None and values is not None and keys.dim() == 4:
        attention = _attention(tuple(keys.shape), tuple(values.shape), text, getattr(layer, "sliding_window", None))
    states = getattr(layer, "recurrent_states", None) or {}
    convolved = getattr(layer, "conv_states", None) or {}
    mixers = [_state(tuple(states[i].shape), tuple(convolved[i].shape), text, name) for i in states if i in convolved]
    if len(mixers) > 1 or len(states) != len(convolved):
        raise UnsupportedModelError(f"{name}: expected one recurrent state per layer; saw {len(states)} in {what}")
    found = [m for m in (attention, *mixers) if m is not None]
    return Cached(own=found[0] if found else None, beside=found[1] if len(found) > 1 else None)


def _attention(keys: tuple[int, ...], values: tuple[int, ...], text: Any, window: int | None) -> Attention:  # noqa: ANN401
    """Return the facts of softmax attention from the shapes of its cache, ``[sequence, heads, tokens, width]``."""
    heads = integer_of(text, "num_attention_heads", "n_head", "n_heads") or keys[1]
    rank, rope = integer_of(text, "kv_lora_rank"), integer_of(text, "qk_rope_head_dim")
    if rank is not None and rope is not None and keys[1] == 1 and keys[3] + values[3] == rank + rope:
        return Latent(
            num_attention_heads=heads,
            kv_lora_rank=rank,
            qk_rope_head_dim=rope,
            qk_nope_head_dim=integer_of(text, "qk_nope_head_dim") or rope,
            v_head_dim=integer_of(text, "v_head_dim") or rank // heads,
            q_lora_rank=integer_of(text, "q_lora_rank"),
        )
    return GroupedQuery(
        num_attention_heads=heads if heads % keys[1] == 0 else keys[1],
        num_key_value_heads=keys[1],
        head_dim=keys[3],
        v_head_dim=None if values[3] == keys[3] else values[3],
        window_tokens=window if isinstance(window, int) else None,
    )


def _crossed(layer: Any, text: Any) -> CrossAttention:  # noqa: ANN401 - foreign
    heads, width = int(layer.keys.shape[1]), int(layer.keys.shape[3])
    fixed = integer_of(text, "max_source_positions") if int(layer.keys.shape[2]) != TRIAL_TOKENS else None
    return CrossAttention(num_attention_heads=heads, num_key_value_heads=heads, head_dim=width, source_tokens=fixed)


def _state(state: tuple[int, ...], conv: tuple[int, ...], text: Any, name: str) -> Attention:  # noqa: ANN401 - foreign
    """Return the facts of a recurrence from the shapes of its state and of the inputs its convolution keeps."""
    channels, kernel = conv[1], conv[2]
    keys = integer_of(text, "linear_num_key_heads")
    if keys is not None and len(state) == 4:
        width = (channels - state[1] * state[3]) // (2 * keys)
        return LinearAttention(
            num_key_heads=keys,
            num_value_heads=state[1],
            key_head_dim=width,
            value_head_dim=state[3],
            conv_kernel=kernel,
        )
    heads, width, size = (state[1], 1, state[2]) if len(state) == 3 else (state[1], state[2], state[3])
    spare = channels - heads * width
    if spare < 0 or spare % (2 * size):
        raise UnsupportedModelError(
            f"{name}: expected a convolution over x, B and C; saw a state of {state[1:]} beside {channels} channels"
        )
    return StateSpace(
        num_heads=heads, head_dim=width, state_size=size, conv_kernel=kernel, num_groups=spare // (2 * size)
    )


def _declared(text: Any, name: str, error: Exception) -> tuple[Cached, ...]:  # noqa: ANN401 - foreign
    """Return what the configuration declares where the trial failed; refuse what it does not declare."""
    heads, hidden = (
        integer_of(text, "num_attention_heads", "n_head"),
        integer_of(text, "hidden_size", "d_model", "n_embd"),
    )
    count = integer_of(text, "num_hidden_layers", "n_layer")
    types = getattr(text, "layer_types", None) or ["full_attention"] * (count or 0)
    simple = set(types) <= {"full_attention", "sliding_attention"}
    if heads is None or hidden is None or count is None or not simple or integer_of(text, "kv_lora_rank") is not None:
        raise UnsupportedModelError(
            f"{name}: transformers builds it, but a trial without memory failed ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:150]}), and the configuration does not say what is cached; "
            "expected full or sliding attention in every layer"
        ) from None
    width = integer_of(text, "head_dim") or hidden // heads
    kv = integer_of(text, "num_key_value_heads") or heads
    window = integer_of(text, "sliding_window")
    return tuple(
        Cached(
            own=_attention((1, kv, 0, width), (1, kv, 0, width), text, window if kind.startswith("sliding") else None)
        )
        for kind in types
    )

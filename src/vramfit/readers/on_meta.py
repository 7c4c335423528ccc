"""Architectures that no file of ours reads, through transformers' own code on the meta device (needs ``vramfit[hf]``).

Sizes that no published model has are refused first; then a process of its own (``on_meta_trial``), bounded in time and
memory, builds the model without weights and says what it saw; here that becomes a ``ModelSpec``.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from vramfit.errors import InvalidValueError, UnsupportedModelError
from vramfit.formats import Role
from vramfit.layer_kind import Attention, CrossAttention, GroupedQuery, Latent, LinearAttention, StateSpace
from vramfit.readers.fields import LARGEST_CONTEXT, LARGEST_EXPERTS, Fields
from vramfit.readers.on_meta_layers import Layers, main_stack, number_of, numbered_below, other_stacks
from vramfit.readers.quantization import read_plain, read_recipe
from vramfit.readers.quantizers.recipe import applied, scheme
from vramfit.spec import Layer, ModelSpec

MOST_LAYERS = 512
MOST_WORDS = 100_000
"""Bounds of what is handed to transformers, which builds one Python object per module: published models have fewer."""
MOST_SECONDS = 120
"""Time for the other process, most of which is the import of torch and transformers."""
DEEPEST = 8
LAYER_COUNTS = {"num_hidden_layers", "n_layer", "n_layers", "num_layers", "depth"}
EXPERT_COUNTS = {"num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"}
MIXING = re.compile(r"attn|attention|[qkv]_proj|qkv|conv1d|A_log")
"""Parts of the names of tensors that only attention and recurrences have."""
KINDS: Mapping[str, type[Any]] = {
    kind.__name__: kind for kind in (GroupedQuery, CrossAttention, Latent, StateSpace, LinearAttention)
}


def read_on_meta(config: Mapping[str, object], name: str) -> ModelSpec:
    """Return the model of a configuration as transformers builds it.

    Raises:
        UnsupportedModelError: transformers is not installed, does not know the architecture or needs too much for it,
            or a layer keeps something that is neither keys and values nor a state we have a formula for.
        InvalidValueError: a size that no published model has.
    """
    check_sizes(config)
    if find_spec("torch") is None or find_spec("transformers") is None:
        raise UnsupportedModelError(
            f"{name}: expected transformers to read it with; install it: pip install 'vramfit[hf]'"
        )
    answer = _observed_apart(config, name)
    if "refused" in answer:
        raise UnsupportedModelError(f"{name}: {answer['refused']}")
    return spec_of(answer["seen"], config, name)


def check_sizes(config: Mapping[str, object]) -> None:
    """Refuse what would keep transformers busy for minutes: too many layers or experts, endless lists.

    Raises:
        InvalidValueError: with the path of the field.
    """
    for path, value in _walk(config, ""):
        field = path.rpartition(".")[2]
        if isinstance(value, list) and len(value) > MOST_WORDS:
            raise InvalidValueError(path, f"{len(value):,} entries", f"at most {MOST_WORDS:,}")
        if isinstance(value, bool) or not isinstance(value, int):
            continue
        largest = LARGEST_CONTEXT
        if field in LAYER_COUNTS or field.endswith("_layers"):
            largest = MOST_LAYERS
        elif field in EXPERT_COUNTS:
            largest = LARGEST_EXPERTS
        if abs(value) > largest:
            raise InvalidValueError(path, value, f"an integer up to {largest:,}")


def _walk(value: object, path: str, depth: int = 0) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping) and depth < DEEPEST:
        for key, inner in value.items():
            yield from _walk(inner, f"{path}.{key}" if path else str(key), depth + 1)
    else:
        yield path, value


def _observed_apart(config: Mapping[str, object], name: str) -> dict[str, Any]:
    """Ask a process of its own, which may fail, hang or run out of memory without harm."""
    command = [sys.executable, "-P", "-m", "vramfit.readers.on_meta_trial"]  # -P: nothing of this folder is imported
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    try:
        done = subprocess.run(  # noqa: S603 - our own module
            command,
            input=json.dumps(config).encode(),
            capture_output=True,
            env={**os.environ, **offline},
            timeout=MOST_SECONDS,
            check=True,
        )
        answer: dict[str, Any] = json.loads(done.stdout)
    except (subprocess.SubprocessError, ValueError) as error:
        last = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip().rpartition("\n")[2]
        raise UnsupportedModelError(
            f"{name}: transformers did not come to an end with it ({type(error).__name__}; {last[:150]}); expected a "
            "model it builds within a minute and 4 GiB; check the sizes in the configuration"
        ) from None
    return answer


def spec_of(seen: Mapping[str, Any], config: Mapping[str, object], name: str) -> ModelSpec:
    """Return the model that was seen, as ``on_meta_trial.observe`` describes it."""
    numbers: dict[str, int] = seen["numbers"]
    shapes = {tensor: tuple(shape) for tensor, shape in seen["shapes"].items()}
    fields = Fields(config)
    kind = fields.text("model_type") or ""
    plain = read_plain(fields)
    recipe = read_recipe(fields, plain)
    cached = [tuple(_attention(facts) for facts in layer) for layer in seen["cached"]]
    prefix, count = main_stack(shapes, len(cached), numbers.get("num_hidden_layers"))
    reader = Layers(numbers, seen["plan"], frozenset(seen["buffers"]))
    kept = cached + [_sharing(cached[-1])] * (count - len(cached)) if cached else [_reading(numbers)] * count
    layers = tuple(reader.layer(shapes, prefix, i, *kept[i][:2]) for i in range(count))
    for number, layer in enumerate(layers):
        _refuse_forgetful(layer, f"{name}: {prefix}{number}")
    outside = {n: s for n, s in shapes.items() if not numbered_below(n, prefix, count)}
    parts, single = other_stacks(outside, reader)
    tensors = tuple(reader.tensor(n, s) for n, s in single.items())
    hidden = number_of(numbers, "hidden_size", "d_model", "n_embd")
    if hidden is None:
        raise UnsupportedModelError(f"{name}: hidden_size: missing in transformers' configuration too; expected one")
    how = f"transformers {seen['version']} on the meta device, with its class defaults"
    spec = ModelSpec(
        name=name,
        family=kind,
        hidden_size=hidden,
        vocab_size=numbers.get("vocab_size", 0),
        max_position_embeddings=number_of(numbers, "max_position_embeddings", "n_positions"),
        embeddings=tuple(t for t in tensors if t.role is Role.EMBEDDING),
        layers=layers,
        head=tuple(t for t in tensors if t.role is not Role.EMBEDDING),
        tied=seen["tied"],
        layer_prefix=f"{prefix}{{layer}}.",
        scheme=scheme(recipe, plain),
        parts=parts,
        generates=seen["generates"],
        assumptions=(f"{kind} is not among the architectures vramfit reads itself: read through {how}",),
    )
    return applied(recipe, spec)


def _attention(facts: dict[str, Any]) -> Attention:
    """Return the facts that the other process wrote down."""
    attention: Attention = KINDS[facts.pop("kind")](**facts)
    return attention


def _sharing(last: tuple[Attention, ...]) -> tuple[Attention, ...]:
    """Return the facts of a layer beyond the cache's end: it reads an earlier one's."""
    return tuple(
        GroupedQuery(
            num_attention_heads=facts.num_attention_heads,
            num_key_value_heads=facts.num_key_value_heads,
            head_dim=facts.head_dim,
            v_head_dim=facts.v_head_dim,
            shares_cache=True,
        )
        for facts in last
        if isinstance(facts, GroupedQuery)
    )


def _reading(numbers: Mapping[str, int]) -> tuple[Attention, ...]:
    """Return the attention of a model that generates nothing, and keeps nothing: heads as declared."""
    heads, hidden = number_of(numbers, "num_attention_heads", "n_heads"), number_of(numbers, "hidden_size", "d_model")
    if heads is None or hidden is None or hidden % heads:
        return ()
    width = numbers.get("head_dim", hidden // heads)
    kv = numbers.get("num_key_value_heads", heads)
    return (GroupedQuery(num_attention_heads=heads, num_key_value_heads=kv, head_dim=width, causal=False),)


def _refuse_forgetful(layer: Layer, where: str) -> None:
    """Refuse a layer that kept nothing in the trial although it has what attention or a recurrence needs."""
    if layer.attention is not None:
        return
    seen = next((t.name for t in layer.tensors if MIXING.search(t.name)), None)
    if seen is not None:
        raise UnsupportedModelError(
            f"{where}.{seen}: a layer that mixes tokens, but kept nothing of them in a trial on the meta device; "
            "expected keys and values or a state, so no number is given"
        )

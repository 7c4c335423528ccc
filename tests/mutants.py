"""Damaged and hostile inputs, made from good ones: configurations, safetensors headers, GGUF headers.

Each mutant is made from a seed alone, so a case that fails can be made again: ``python tests/mutants.py config 4711``.
Used by ``benchmarks/fuzz.py`` (100,000 cases) and by the tests (a few thousand).
"""

from __future__ import annotations

import json
import random
import struct
import sys
from collections.abc import Callable
from copy import deepcopy
from typing import Any
from unittest.mock import patch

from tiny import ALL
from vramfit.catalogue.model import all_models
from vramfit.errors import VramfitError
from vramfit.estimate import estimate
from vramfit.readers.diffusion import component
from vramfit.readers.gguf import read_header
from vramfit.readers.gguf_model import read_gguf
from vramfit.readers.hf_config import read_config
from vramfit.readers.json_text import parse_json_object
from vramfit.readers.safetensors import Checkpoint, parse_header, parse_header_length
from vramfit.request import Inference
from vramfit.source import read_any

ODD: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 3, 7, 2**31, 2**53, 2**63, 2**64, -(2**63), 10**30, 0.5, -0.0, 1e308, "", "0",
    "auto", "x" * 3000, "\ud800", "../../etc/passwd", [], [None], [0] * 5000, [[]], {}, {"": {}},
    ["full_attention"] * 3, {"model_type": "llama"}, [1, 2], "full_attention", "sliding_attention",
)  # fmt: skip
"""Values that stand where another is expected."""
NAMES = (
    "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_size", "vocab_size",
    "intermediate_size", "sliding_window", "layer_types", "quantization_config", "text_config", "vision_config",
    "num_experts", "num_local_experts", "num_experts_per_tok", "tie_word_embeddings", "torch_dtype", "architectures",
    "kv_lora_rank", "max_position_embeddings", "n_routed_experts", "first_k_dense_replace", "rope_scaling",
)  # fmt: skip
"""Fields that decide sizes; put in where they were not."""
NOISE = (b"\x00", b"\xff" * 8, b"[" * 500, b'{"a":' * 200, b"9" * 5000, b"NaN", b'"')
"""Bytes put in between."""
RARELY = 0.015
"""How often a choice is odd: several stand in one input, and most inputs should get past the first check."""


def _configs() -> tuple[dict[str, Any], ...]:
    return (*(dict(row.config) for row in all_models()), *(dict(case.config) for case in ALL))


def _places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of everything inside a JSON value."""
    found = [path] if path else []
    if isinstance(value, dict):
        for key, inner in value.items():
            found += _places(inner, (*path, key))
    elif isinstance(value, list) and len(value) < 50:
        for number, inner in enumerate(value):
            found += _places(inner, (*path, number))
    return found


def _change(config: dict[str, Any], rng: random.Random, configs: tuple[dict[str, Any], ...]) -> None:
    """Change one thing in place: drop, replace, scale, lengthen, or take over from another configuration."""
    places = _places(config)
    if not places:
        return
    path = rng.choice(places)
    holder: Any = config
    for step in path[:-1]:
        holder = holder[step]
    key, value = path[-1], holder[path[-1]]
    match rng.randrange(8):
        case 0:
            del holder[key]
        case 1 | 2:
            holder[key] = deepcopy(rng.choice(ODD))
        case 3 if isinstance(value, int):
            holder[key] = value * rng.choice([-1, 2, 3, 10, 1000, 10**6, 10**12]) + rng.choice([-1, 0, 1])
        case 4 if isinstance(value, list):
            holder[key] = value * rng.choice([0, 2, 1000])
        case 5:
            config[rng.choice(NAMES)] = deepcopy(rng.choice(ODD))
        case 6:
            other = rng.choice(configs)
            name = rng.choice(sorted(other))
            config[name] = json.loads(json.dumps(other[name]))
        case _:
            config["model_type"] = rng.choice(configs).get("model_type", "model_index")


def mutant_config(seed: int) -> bytes:
    """Return the text of a damaged ``config.json``."""
    rng, configs = random.Random(seed), _CONFIGS  # noqa: S311 - chance, not secrets
    config = json.loads(json.dumps(rng.choice(configs)))
    for _ in range(rng.randrange(1, 5)):
        _change(config, rng, configs)
    text = json.dumps(config).encode()
    return _scratch(text, rng) if rng.random() < 0.1 else text


def _scratch(data: bytes, rng: random.Random) -> bytes:
    """Cut, flip, repeat or insert bytes."""
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(5):
            case 0:
                del changed[at:]
            case 1 if at < len(changed):
                changed[at] ^= 1 << rng.randrange(8)
            case 2:
                changed[at:at] = rng.choice(
                    [b"\x00", b"\xff" * 8, b"[" * 500, b'{"a":' * 200, b"9" * 5000, b"NaN", b'"']
                )
            case 3:
                changed[at:at] = struct.pack("<Q", rng.choice([0, 1, 2**31, 2**40, 2**63 - 1, 2**64 - 1]))
            case _:
                changed[at:at] = changed[max(0, at - 40) : at]
    return bytes(changed)


def _odd(rng: random.Random, usual: Any, *odd: Any) -> Any:
    """Return the usual value, or rarely one of the odd ones."""
    return rng.choice(odd) if rng.random() < RARELY else usual


def mutant_safetensors(seed: int) -> bytes:
    """Return the start of a damaged safetensors file: length, header, no data."""
    rng = random.Random(seed)  # noqa: S311 - chance, not secrets
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for number in range(rng.randrange(12)):
        shape = [_odd(rng, rng.choice([1, 7, 64, 4096]), 0, 2**40, -1) for _ in range(rng.randrange(4))]
        dtype, size = _odd(rng, rng.choice(["BF16", "F16", "I16"]), "F4", "Z9", None), 2
        for side in shape:
            size *= side
        end = _odd(rng, at + size, at, at - 1, 2**64)
        entries[f"model.layers.{number}.mlp.up_proj.weight"] = {
            "dtype": dtype,
            "shape": shape,
            "data_offsets": [at, end],
        }
        at += size
    for _ in range(_odd(rng, 0, 1, 2)):
        _change(entries, rng, ({"model_type": "x", "shape": [2**62] * 3, "dtype": "F32", "data_offsets": [5, 1]},))
    text = json.dumps(entries).encode()
    data = struct.pack("<Q", _odd(rng, len(text), 0, 1, 2**20, 2**40, 2**64 - 1)) + text
    return _scratch(data, rng) if rng.random() < 3 * RARELY else data


def mutant_gguf(seed: int) -> bytes:
    """Return a damaged GGUF header."""
    rng = random.Random(seed)  # noqa: S311 - chance, not secrets
    arch = _odd(
        rng, rng.choice(["llama", "qwen2", "gemma3", "mamba", "deepseek2", "qwen35", "gpt-oss"]), "clip", "nobody"
    )
    sizes = {
        "block_count": 2, "embedding_length": 64, "feed_forward_length": 128, "attention.head_count": 4,
        "attention.head_count_kv": 2, "context_length": 4096, "vocab_size": 96, "expert_count": 8,
        "expert_used_count": 2, "ssm.state_size": 16, "ssm.inner_size": 128, "ssm.conv_kernel": 4,
        "ssm.time_step_rank": 8, "attention.key_length": 16, "attention.value_length": 16,
        "attention.sliding_window": 512, "attention.kv_lora_rank": 32, "attention.q_lora_rank": 32,
        "rope.dimension_count": 8,
    }  # fmt: skip
    keys = [_key("general.architecture", 8, _text(arch))]
    for name, usual in sizes.items():
        if rng.random() > RARELY:
            value = _odd(rng, usual, 0, 1, 3, 2**31, 2**32 - 1)
            keys.append(_key(f"{arch}.{name}", 4, struct.pack("<I", value)))
    count = _odd(rng, 3, 0, 100, 2**20, 2**40)
    keys.append(_key("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, count) + _text("a") * min(count, 100)))
    tensors, at = [], 0
    for name, usual_shape in _gguf_tensors(rng):
        shape = [_odd(rng, side, 0, 1, 2**40) for side in usual_shape]
        shape = _odd(rng, shape, [], shape[:1], [*shape, 2, 2, 2])
        entry = _text(_odd(rng, name, "odd", "", "blk.999999.attn_q.weight"))
        entry += struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        tensors.append(entry + struct.pack("<IQ", _odd(rng, 1, 0, 2, 12, 39, 4, 44, 2**31), _odd(rng, at, 7, 2**60)))
        size = 2
        for side in shape:
            size *= side
        at += -(-size // 32) * 32 % 2**50
    num_tensors, num_keys = _odd(rng, len(tensors), 0, 2**40, 2**64 - 1), _odd(rng, len(keys), 0, 2**63)
    data = b"GGUF" + struct.pack("<IQQ", _odd(rng, 3, 1, 2, 4, 2**24), num_tensors, num_keys)
    data += b"".join(keys) + b"".join(tensors)
    return _scratch(data, rng) if rng.random() < 3 * RARELY else data


def _gguf_tensors(rng: random.Random) -> list[tuple[str, list[int]]]:
    """Return names and shapes, innermost first, of two blocks of several kinds."""
    found = [("token_embd.weight", [64, 96]), ("output_norm.weight", [64])]
    block = [
        ("attn_norm.weight", [64]), ("attn_q.weight", [64, 64]), ("attn_k.weight", [64, 32]),
        ("attn_v.weight", [64, 32]),
        ("attn_output.weight", [64, 64]), ("ffn_up.weight", [64, 128]), ("ffn_gate.weight", [64, 128]),
        ("ffn_down.weight", [128, 64]), ("ffn_up_exps.weight", [64, 24, 8]), ("ffn_gate_inp.weight", [64, 8]),
        ("ssm_conv1d.weight", [4, 128]), ("ssm_in.weight", [64, 256]), ("ssm_a", [16, 128]),
        ("ssm_out.weight", [128, 64]),
        ("attn_kv_a_mqa.weight", [64, 40]), ("attn_kv_b.weight", [32, 128]),
    ]  # fmt: skip
    for number in range(2):
        chosen = block[:8] if rng.random() < 0.5 else rng.sample(block, rng.randrange(len(block)))
        found += [(f"blk.{number}.{name}", shape) for name, shape in chosen]
    return found


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def _key(name: str, kind: int, value: bytes) -> bytes:
    return _text(name) + struct.pack("<I", kind) + value


def read_mutant_config(data: bytes) -> None:
    """Read a configuration and, when it is understood, count what it needs."""
    config = parse_json_object(data, "mutant", 16 * 2**20)
    if "_class_name" in config and "model_type" not in config:
        with patch.object(component, "has_diffusers", return_value=False):  # our own readers, not another program's
            estimate(read_any(config, "mutant"), Inference())
        return
    spec = read_config(config, "mutant")
    estimate(spec, Inference(context_tokens=min(64, spec.max_position_embeddings or 64), batch=2))


def read_mutant_safetensors(data: bytes) -> None:
    """Read a header as a local file's would be."""
    length = parse_header_length(data[:8], "mutant", None)
    parse_header(data[8 : 8 + length], "mutant", None)


def read_mutant_gguf(data: bytes) -> None:
    """Read a header and make a model of it."""
    found = read_header(lambda size: data[:size], "mutant", None)
    read_gguf(found, Checkpoint(tensors=found.tensors, where="mutant"))


KINDS: dict[str, tuple[Callable[[int], bytes], Callable[[bytes], None]]] = {
    "config": (mutant_config, read_mutant_config),
    "safetensors": (mutant_safetensors, read_mutant_safetensors),
    "gguf": (mutant_gguf, read_mutant_gguf),
}
"""Kind of input -> what makes a mutant of a seed, and what reads it."""
_CONFIGS = _configs()


def outcome(kind: str, data: bytes) -> str:
    """Read one mutant: ``"value"`` or the name of our exception; any other exception passes through."""
    try:
        KINDS[kind][1](data)
    except VramfitError as error:
        return type(error).__name__ if str(error).strip() else "an error without words"
    return "value"


if __name__ == "__main__":
    mutant = KINDS[sys.argv[1]][0](int(sys.argv[2]))
    print(mutant[:2000])  # noqa: T201 - shows one case
    print(outcome(sys.argv[1], mutant))  # noqa: T201

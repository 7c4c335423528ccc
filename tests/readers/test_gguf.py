"""GGUF headers: what the reference package writes is read back; what is damaged or hostile is refused at once."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vramfit.errors import UnreadableFileError, UnsupportedModelError, VramfitError
from vramfit.estimate import estimate
from vramfit.gguf_recipe import as_gguf
from vramfit.layer_kind import GroupedQuery, LinearAttention, StateSpace
from vramfit.memory.weights import weight_bytes
from vramfit.readers.gguf import (
    GgufHeader,
    IncompleteHeaderError,
    Length,
    load_gguf,
    parse_gguf,
    read_header,
    split_names,
)
from vramfit.readers.gguf_model import read_gguf
from vramfit.request import Inference
from vramfit.source import read_model
from vramfit.spec import inventory

gguf = pytest.importorskip("gguf")
pytestmark = pytest.mark.witness


Tensors: TypeAlias = Mapping[str, tuple[tuple[int, ...], str]]
"""Name -> shape as ``[outputs, inputs]``, type."""


def text(value: str) -> bytes:
    """Return a text as GGUF writes it."""
    return struct.pack("<Q", len(value.encode())) + value.encode()


def header(keys: bytes = b"", num_keys: int = 0, tensors: bytes = b"", num_tensors: int = 0, version: int = 3) -> bytes:
    """Return a header of hand-made parts."""
    return b"GGUF" + struct.pack("<IQQ", version, num_tensors, num_keys) + keys + tensors


def tensor(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    """Return a tensor's entry; the shape as GGUF has it, innermost first."""
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def write(path: Path, arch: str, metadata: Mapping[str, Any], tensors: Tensors) -> Path:
    """Write a header with the reference package, and make the file as large as its tensors without writing them."""
    import numpy as np

    writer = gguf.GGUFWriter(path, arch)
    for key, value in metadata.items():
        name = key if key.startswith(("general.", "tokenizer.")) else f"{arch}.{key}"
        if isinstance(value, bool):
            writer.add_bool(name, value)
        elif isinstance(value, int):
            writer.add_uint32(name, value)
        elif isinstance(value, str):
            writer.add_string(name, value)
        else:
            writer.add_array(name, value)
    total = 0
    for name, (shape, label) in tensors.items():
        kind = gguf.GGMLQuantizationType[label]
        block, size = gguf.GGML_QUANT_SIZES[kind]
        num_bytes = size
        for side in shape:
            num_bytes *= side
        num_bytes //= block
        stored = (*shape[:-1], shape[-1] // block * size) if label not in {"F32", "F16"} else shape
        kinds = {"F32": "float32", "F16": "float16"}
        dtype = np.dtype(kinds.get(label, "uint8"))
        writer.add_tensor_info(name, stored, dtype, num_bytes, None if label in kinds else kind)
        total += -(-num_bytes // 32) * 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    start = -(-path.stat().st_size // 32) * 32
    os.truncate(path, start + total)
    return path


LLAMA = {
    "block_count": 2, "context_length": 4096, "embedding_length": 512, "feed_forward_length": 1024,
    "attention.head_count": 8, "attention.head_count_kv": 2, "rope.dimension_count": 64,
    "tokenizer.ggml.tokens": ["<a>", "<b>"] * 8, "general.name": "tiny",
}  # fmt: skip


def llama_tensors(label: str = "Q4_K") -> dict[str, tuple[tuple[int, ...], str]]:
    """Return the tensors of a small Llama."""
    found: dict[str, tuple[tuple[int, ...], str]] = {"token_embd.weight": ((16, 512), "F16")}
    for i in range(2):
        found |= {
            f"blk.{i}.attn_norm.weight": ((512,), "F32"),
            f"blk.{i}.attn_q.weight": ((512, 512), label),
            f"blk.{i}.attn_k.weight": ((128, 512), label),
            f"blk.{i}.attn_v.weight": ((128, 512), "Q6_K"),
            f"blk.{i}.attn_output.weight": ((512, 512), label),
            f"blk.{i}.ffn_norm.weight": ((512,), "F32"),
            f"blk.{i}.ffn_gate.weight": ((1024, 512), label),
            f"blk.{i}.ffn_up.weight": ((1024, 512), label),
            f"blk.{i}.ffn_down.weight": ((512, 1024), label),
        }
    return found | {"output_norm.weight": ((512,), "F32"), "output.weight": ((16, 512), "Q8_0")}


def test_what_the_reference_writes_is_read_back(tmp_path: Path) -> None:
    """Every tensor's type, shape and bytes; metadata; a vocabulary as its length."""
    path = write(tmp_path / "tiny.gguf", "llama", LLAMA, llama_tensors())
    first, checkpoint = load_gguf(path)
    theirs = gguf.GGUFReader(path)
    assert [(t.name, tuple(int(n) for n in t.shape)[::-1], int(t.n_bytes)) for t in theirs.tensors] == [
        (t.name, t.shape, t.num_bytes) for t in checkpoint.tensors
    ]
    assert first.metadata["llama.block_count"] == 2
    assert first.metadata["tokenizer.ggml.tokens"] == Length(16)


def test_a_llama_from_its_tensors(tmp_path: Path) -> None:
    """Heads, widths and formats; 2 x 2 heads x 64 x 2 B per token and layer; bytes to the last."""
    path = write(tmp_path / "tiny.gguf", "llama", LLAMA, llama_tensors())
    spec = read_model(path)
    assert (spec.name, spec.family, spec.hidden_size, spec.vocab_size) == ("tiny", "llama", 512, 16)
    facts = spec.layers[0].attention
    assert facts == GroupedQuery(num_attention_heads=8, num_key_value_heads=2, head_dim=64)
    need = estimate(spec, Inference(context_tokens=100, batch=3))
    assert need.kv_bytes_per_token == 2 * 2 * 2 * 64 * 2
    assert need.weights_bytes == sum(t.num_bytes for t in load_gguf(path)[1].tensors)
    assert need.worst.items[0].basis.value == "exact"


def test_split_files_are_put_together(tmp_path: Path) -> None:
    """Two files of one model; a missing one is named."""
    tensors = list(llama_tensors().items())
    names = split_names("tiny-00001-of-00002.gguf")
    write(tmp_path / names[0], "llama", {**LLAMA, "general.x": 1}, dict(tensors[:9]))
    write(tmp_path / names[1], "llama", {}, dict(tensors[9:]))
    spec = read_model(tmp_path / names[1])
    assert len(list(inventory(spec))) == len(tensors)
    (tmp_path / names[0]).unlink()
    with pytest.raises(UnreadableFileError, match="tiny-00001-of-00002"):
        read_model(tmp_path / names[1])


@pytest.mark.parametrize(
    ("arch", "pattern", "expected"),
    [
        ("gemma3", None, [128] * 5 + [None] + [128] * 2),
        ("gpt-oss", None, [128, None] * 4),
        ("smallthinker", None, [None, 4096, 4096, 4096] * 2),
        ("mimo2", [1, 1, 0, 1, 1, 1, 0, 1], [128, 128, None, 128, 128, 128, None, 128]),
        ("llama", None, [None] * 8),
    ],
)
def test_windows_follow_metadata_or_the_code(
    tmp_path: Path, arch: str, pattern: list[int] | None, expected: list[int | None]
) -> None:
    """A pattern in the file wins; else llama.cpp's own; an architecture without one attends to everything."""
    metadata = {**LLAMA, "block_count": 8, "attention.sliding_window": 128}
    if pattern is not None:
        metadata["attention.sliding_window_pattern"] = pattern
    tensors: dict[str, tuple[tuple[int, ...], str]] = {"token_embd.weight": ((16, 512), "F16")}
    for i in range(8):
        tensors |= {f"blk.{i}.attn_q.weight": ((512, 512), "F16"), f"blk.{i}.ffn_down.weight": ((512, 1024), "F16")}
    spec = read_model(write(tmp_path / "m.gguf", arch, metadata, tensors))
    assert [x.attention.window_tokens for x in spec.layers if isinstance(x.attention, GroupedQuery)] == expected
    assert bool(spec.assumptions) == (arch == "llama")


def test_recurrent_layers_have_their_state(tmp_path: Path) -> None:
    """Mamba 2 has a step size per head; gated delta networks share the keys' names, not their meaning."""
    ssm = {
        "ssm.conv_kernel": 4, "ssm.inner_size": 1024, "ssm.state_size": 128, "ssm.time_step_rank": 16,
        "ssm.group_count": 8,
    }  # fmt: skip
    tensors = {"token_embd.weight": ((16, 512), "F16"), "blk.0.ssm_conv1d.weight": ((2048, 4), "F32")}
    found = {}
    for arch in ("mamba2", "qwen3next"):
        spec = read_model(write(tmp_path / f"{arch}.gguf", arch, {**LLAMA, **ssm, "block_count": 1}, tensors))
        found[arch] = spec.layers[0].attention
    assert found["mamba2"] == StateSpace(num_heads=16, head_dim=64, state_size=128, conv_kernel=4, num_groups=8)
    assert found["qwen3next"] == LinearAttention(
        num_key_heads=8, num_value_heads=16, key_head_dim=128, value_head_dim=64, conv_kernel=4
    )


def test_a_recurrence_that_is_not_understood_is_refused(tmp_path: Path) -> None:
    """A block with a decay but no convolution keeps a state that no formula here describes."""
    tensors = {"token_embd.weight": ((16, 512), "F16"), "blk.0.ssm_a": ((64, 512), "F32")}
    path = write(tmp_path / "m.gguf", "mamba", {**LLAMA, "block_count": 1}, tensors)
    with pytest.raises(UnsupportedModelError, match=r"ssm_a: a recurrence of mamba"):
        read_model(path)


@pytest.mark.parametrize("label", ["Q4_K_M", "Q3_K_L", "IQ4_XS", "F16"])
def test_a_file_and_a_label_agree(tmp_path: Path, label: str) -> None:
    """A file with the types that the recipe chooses for Llama 3.2 1B reads as the recipe does, byte for byte."""
    spec = as_gguf(read_model("meta-llama/Llama-3.2-1B-Instruct"), f"gguf:{label}")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 16)
    tensors = {
        str(names.get_name(t.name, try_suffixes=(".weight",))): (t.shape, t.stored.name.removeprefix("gguf:"))
        for t in inventory(spec)
        if t.stored is not None
    }
    metadata = {
        **LLAMA, "block_count": 16, "embedding_length": 2048, "attention.head_count": 32, "attention.head_count_kv": 8,
    }  # fmt: skip
    read = read_model(write(tmp_path / "m.gguf", "llama", metadata, tensors))
    assert weight_bytes(spec) == weight_bytes(read)
    assert spec.num_parameters == read.num_parameters
    assert spec.tied
    assert read.tied


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK\x03\x04" + bytes(60), "zip or PyTorch archive"),
        (header(version=1), "version 1: expected 2 or 3"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(64), "big-endian"),
        (header(num_tensors=2**60), "1,152,921,504,606,846,976 tensors"),
        (header(num_keys=2**63), "keys"),
        (header(struct.pack("<Q", 2**63) + bytes(64), 1), "bytes of a key"),
        (header(text("a") + struct.pack("<IQ", 8, 2**40), 1), "bytes of a text"),
        (header(text("a") + struct.pack("<I", 77), 1), "77 as a value's type"),
        (header((text("a") + struct.pack("<II", 4, 1)) * 2, 2), "key 'a' twice"),
        (header(text("a") + struct.pack("<IIQ", 9, 4, 2**60), 1), "entries of an array"),
        (header(text("a") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 9, 1), "arrays 5 deep"),
        (header(text("a") + struct.pack("<IIQQ", 9, 8, 1, 2**62), 1), "a text that ends at byte"),
        (header(text("general.alignment") + struct.pack("<II", 4, 7), 1), "general.alignment 7"),
        (header(tensors=tensor("t", (32,), 99, 0), num_tensors=1), "of type 99"),
        (header(tensors=tensor("t", (32,), 4, 0), num_tensors=1), "of type 4"),
        (header(tensors=tensor("t", (33,), 8, 0), num_tensors=1), "rows of 33 in Q8_0"),
        (header(tensors=tensor("t", (0,), 0, 0), num_tensors=1), r"shape \[0\]"),
        (header(tensors=tensor("t", (2**40, 2**40), 0, 0), num_tensors=1), "sizes from 1"),
        (header(tensors=tensor("t", (32,), 0, 64), num_tensors=1), "at 64: expected 0"),
        (header(tensors=tensor("t", (8,), 0, 0) + tensor("t", (8,), 0, 32), num_tensors=2), "once more"),
        (header(tensors=text("t") + struct.pack("<I", 9), num_tensors=1), "9 axes"),
        (header(struct.pack("<Q", 2) + b"\xff\xfe", 1), "no UTF-8"),
    ],
)
def test_damaged_and_hostile_headers_are_refused(data: bytes, message: str) -> None:
    """One error that says what stands where, without making anything of the size that it claims."""
    with pytest.raises(UnreadableFileError, match=message):
        read_header(lambda size: (data + bytes(256))[:size], "model.gguf")


def test_a_file_that_ends_early_is_refused(tmp_path: Path) -> None:
    """Within its header, or before its last tensor."""
    path = write(tmp_path / "tiny.gguf", "llama", LLAMA, llama_tensors())
    size = path.stat().st_size
    os.truncate(path, size - 100_000)
    with pytest.raises(UnreadableFileError, match="is the download complete"):
        load_gguf(path)
    os.truncate(path, 300)
    with pytest.raises(UnreadableFileError, match="ends after 300 bytes"):
        load_gguf(path)


GOOD = header(
    text("general.architecture") + struct.pack("<I", 8) + text("llama")
    + text("llama.block_count") + struct.pack("<II", 4, 1)
    + text("llama.attention.head_count") + struct.pack("<IIQ", 9, 5, 1) + struct.pack("<i", 8)
    + text("tokens") + struct.pack("<IIQ", 9, 8, 2) + text("x") + text("y"),
    4,
    tensor("blk.0.attn_q.weight", (64, 64), 1, 0) + tensor("blk.0.ffn_down.weight", (64, 64), 8, 8192),
    2,
)  # fmt: skip


def test_the_seed_of_the_mutations_is_a_model() -> None:
    """Otherwise the next test would only see one error."""
    found = parse_gguf(GOOD, "m.gguf")
    assert isinstance(found, GgufHeader)
    assert len(found.tensors) == 2


@settings(max_examples=300)
@given(st.data())
def test_mutations_end_in_a_value_or_our_error(data: st.DataObject) -> None:
    """Any bytes changed, cut or put in: a header, or one of our errors."""
    mutated = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(4, len(mutated) - 1))
        mutated[place : place + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=6))
    try:
        found = read_header(lambda size: bytes(mutated[:size]), "m.gguf")
        from vramfit.readers.safetensors import Checkpoint

        read_gguf(found, Checkpoint(where="m.gguf", tensors=found.tensors))
    except VramfitError:
        return


def test_incomplete_headers_say_how_much_is_needed() -> None:
    """Each prefix asks for more than it has."""
    for length in range(8, len(GOOD)):
        with pytest.raises(IncompleteHeaderError) as short:
            parse_gguf(GOOD[:length], "m.gguf")
        assert length < short.value.needed <= len(GOOD)

"""Headers of safetensors files, written by the real package and by nobody good."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vramfit.errors import UnreadableFileError
from vramfit.readers.safetensors import (
    Checkpoint,
    StoredTensor,
    element_bits,
    load_checkpoint,
    parse_header,
    parse_header_length,
)


def entry(dtype: object = "F32", shape: object = (2, 3), offsets: object = (0, 24)) -> dict[str, object]:
    """Return a header's entry for one tensor, 2 x 3 x 4 bytes unless told otherwise."""
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def file_of(header: Mapping[str, object], num_bytes: int) -> bytes:
    """Return a whole file with that header and as many zero bytes."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(num_bytes)


def refusal(header: object, data_bytes: int | None = None) -> str:
    """Return the message with which a header is refused."""
    with pytest.raises(UnreadableFileError) as caught:
        parse_header(json.dumps(header).encode(), "model.safetensors", data_bytes)
    return str(caught.value)


def test_a_header_of_two_tensors_is_read_in_the_order_of_their_bytes() -> None:
    """BF16 4 x 8 is 64 bytes, a scalar F64 8, the free text is not a tensor."""
    header = {
        "b": entry("F64", [], [64, 72]),
        "__metadata__": {"format": "pt"},
        "a": entry("BF16", [4, 8], [0, 64]),
    }
    expected = (
        StoredTensor(name="a", dtype="BF16", shape=(4, 8), num_bytes=64),
        StoredTensor(name="b", dtype="F64", shape=(), num_bytes=8),
    )
    assert expected == parse_header(json.dumps(header).encode() + b"   ", "model.safetensors", 72)
    assert 72 == Checkpoint(where="x", tensors=expected).total_bytes


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"w": entry("F16")}, "'w': data_offsets [0, 24], 24 bytes: expected 12 bytes for F16 [2, 3]"),
        ({"w": entry("F33")}, "'w': dtype 'F33': expected one of BOOL"),
        ({"w": entry(7)}, "'w': dtype 7"),
        ({"w": entry(["F32"])}, "'w': dtype ['F32']"),
        ({"w": entry(shape=[2, -3])}, "'w': shape [2, -3]"),
        ({"w": entry(shape=[2, 3.0])}, "'w': shape [2, 3.0]"),
        ({"w": entry(shape=[True, 6])}, "'w': shape [True, 6]"),
        ({"w": entry(shape="23")}, "'w': shape '23'"),
        ({"w": entry(shape=None)}, "'w': shape None"),
        ({"w": entry(shape=65 * [1])}, "at most 64 sizes"),
        ({"w": entry(shape=[2**62, 2**62])}, "at most 2**62 elements"),
        ({"w": entry(shape=[2**60], offsets=[0, 24])}, "expected 4,611,686,018,427,387,904 bytes"),
        ({"w": entry("F4", [3], [0, 2])}, "whole bytes"),
        ({"w": entry(offsets=[0, 24, 48])}, "data_offsets [0, 24, 48]"),
        ({"w": entry(offsets=[24, 0])}, "-24 bytes"),
        ({"w": entry(offsets=[-24, 0])}, "data_offsets [-24, 0]"),
        ({"w": entry(offsets=[8, 32])}, "expected 0 first"),
        ({"v": entry(), "w": entry()}, "'w': data_offsets [0, 24]: expected 24 first"),
        ({"v": entry(), "w": entry(offsets=[20, 44])}, "'w': data_offsets [20, 44]: expected 24 first"),
        ({"w": 5}, "tensor 'w': 5: expected"),
        ({"w": {}}, "tensor 'w': dtype None"),
        ([entry()], "a JSON array"),
    ],
)
def test_an_impossible_entry_is_refused_by_the_tensors_name(header: object, words: str) -> None:
    """Types, shapes and offsets must make sense, each alone and together."""
    assert words in refusal(header)


@pytest.mark.parametrize("data_bytes", [0, 23, 25])
def test_a_file_that_ends_elsewhere_than_its_last_tensor_is_refused(data_bytes: int) -> None:
    """24 bytes are announced: a shorter file is a broken download, a longer one has unclaimed bytes."""
    assert "expected 24, the end of the last tensor" in refusal({"w": entry()}, data_bytes)


@pytest.mark.parametrize(
    ("start", "file_bytes", "words"),
    [
        (b"", 0, "0 bytes"),
        (b"1234567", 7, "7 bytes"),
        (struct.pack("<Q", 2**63), 10**6, "9,223,372,036,854,775,808 bytes"),
        (struct.pack("<Q", 2**64 - 1), None, "18,446,744,073,709,551,615 bytes"),
        (struct.pack("<Q", 100_000_001), 10**12, "2 to 100,000,000"),
        (struct.pack("<Q", 1), 100, "a header of 1 bytes"),
        (struct.pack("<Q", 93), 100, "in a file of 100"),
        (b"version https://git-lfs.github.com/spec/v1", 130, "git lfs pull"),
        (b"PK\x03\x04" + bytes(20), 100, "PyTorch archive"),
    ],
)
def test_an_impossible_length_is_refused_unread(start: bytes, file_bytes: int | None, words: str) -> None:
    """The first eight bytes never make us allocate what they claim."""
    with pytest.raises(UnreadableFileError) as caught:
        parse_header_length(start, "model.safetensors", file_bytes)
    assert words in str(caught.value)


def test_the_largest_possible_length_is_accepted() -> None:
    """A header may fill the file, and have a hundred million bytes."""
    assert 92 == parse_header_length(struct.pack("<Q", 92), "f", 100)
    assert 10**8 == parse_header_length(struct.pack("<Q", 10**8), "f")


@pytest.mark.witness
def test_files_of_the_real_package_are_read_alike(tmp_path: Path) -> None:
    """Names, shapes, types and total agree with safetensors and torch, for each type torch can write."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    dtypes = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16]
    dtypes += [torch.int8, torch.uint8, torch.bool, torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu]
    dtypes += [torch.uint16, torch.uint32, torch.uint64, torch.complex64, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz]
    tensors = {f"layer.{i}": torch.zeros((i + 1, 3)).to(dtype) for i, dtype in enumerate(dtypes)}
    tensors |= {"scalar": torch.tensor(1.0), "empty": torch.zeros((0, 5))}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})

    checkpoint = load_checkpoint(tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", "pt") as theirs:
        expected = {
            name: (tuple(theirs.get_slice(name).get_shape()), theirs.get_slice(name).get_dtype())
            for name in theirs.keys()  # noqa: SIM118 - not a mapping
        }
    assert expected == {t.name: (t.shape, t.dtype) for t in checkpoint.tensors}
    assert sum(t.numel() * t.element_size() for t in tensors.values()) == checkpoint.total_bytes
    assert {n: t.numel() * t.element_size() for n, t in tensors.items()} == {
        t.name: t.num_bytes for t in checkpoint.tensors
    }


@pytest.mark.witness
def test_types_smaller_than_a_byte_are_read_as_the_real_package_reads_them() -> None:
    """The package accepts a header of ours for each of its 22 types, and sees the same shape."""
    from safetensors import deserialize

    names = ["BOOL", "F4", "F6_E2M3", "F6_E3M2", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ"]
    names += ["F8_E5M2FNUZ", "I16", "U16", "F16", "BF16", "I32", "U32", "F32", "C64", "F64", "I64", "U64"]
    for dtype in names:
        num_bytes = 8 * element_bits(dtype) // 8
        data = file_of({"w": entry(dtype, [2, 4], [0, num_bytes])}, num_bytes)
        ((name, theirs),) = deserialize(data)  # type: ignore[no-untyped-call]
        (ours,) = parse_header(data[8:-num_bytes], "f", num_bytes)
        assert (name, tuple(theirs["shape"]), theirs["dtype"]) == (ours.name, ours.shape, ours.dtype)


@pytest.mark.witness
@settings(deadline=None)
@given(st.data())
def test_what_we_accept_the_real_package_accepts_too(data: st.DataObject) -> None:
    """For small headers with random offsets, our verdict and the package's are the same."""
    from safetensors import SafetensorError, deserialize

    sizes = st.integers(0, 3)
    header = {
        name: entry(
            data.draw(st.sampled_from(["U8", "F16", "F4", "F7"])),
            data.draw(st.lists(sizes, max_size=2)),
            data.draw(st.sampled_from([[0, 0], [0, 2], [2, 4], [0, 1], [1, 3], [0, 9]])),
        )
        for name in data.draw(st.sets(st.sampled_from("abc")))
    }
    num_bytes = data.draw(st.integers(0, 4))
    blob = file_of(header, num_bytes)
    try:
        theirs = {name: tuple(facts["shape"]) for name, facts in deserialize(blob)}  # type: ignore[no-untyped-call]
    except SafetensorError:
        with pytest.raises(UnreadableFileError):
            parse_header(blob[8 : len(blob) - num_bytes], "f", num_bytes)
    else:
        ours = parse_header(blob[8 : len(blob) - num_bytes], "f", num_bytes)
        assert theirs == {t.name: t.shape for t in ours}


HEADER = json.dumps({"a": entry("BF16", [4, 8], [0, 64]), "b": entry("F32", [2], [64, 72])}).encode()


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.integers(0, len(HEADER) - 1), st.integers(0, 255)), max_size=4),
    st.integers(0, len(HEADER)),
    st.binary(max_size=30),
)
def test_a_mutated_header_gives_a_value_or_our_error(changes: list[tuple[int, int]], cut: int, put: bytes) -> None:
    """Whatever a byte is changed to, cut out or put in, nothing else is raised."""
    text = bytearray(HEADER)
    for position, byte in changes:
        text[position] = byte
    for mutated in (bytes(text), bytes(text[:cut]) + put + bytes(text[cut:]), bytes(text[:cut])):
        try:
            parse_header(mutated, "model.safetensors", 72)
        except UnreadableFileError as error:
            said = str(error)
        else:
            continue
        assert said.startswith("model.safetensors")


def write_shards(folder: Path) -> Path:
    """Write two shards of one tensor each, and their index; return its path."""
    (folder / "model-1.safetensors").write_bytes(file_of({"a": entry()}, 24))
    (folder / "model-2.safetensors").write_bytes(file_of({"b": entry("F16", [4], [0, 8])}, 8))
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}))
    return index


def test_an_index_is_read_with_all_its_shards(tmp_path: Path) -> None:
    """24 bytes in the first shard, 8 in the second."""
    checkpoint = load_checkpoint(write_shards(tmp_path))
    assert ["a", "b"] == [t.name for t in checkpoint.tensors]
    assert 24 + 8 == checkpoint.total_bytes
    assert str(tmp_path / "model.safetensors.index.json") == checkpoint.where


def test_an_index_without_its_shards_says_so(tmp_path: Path) -> None:
    """One of two is missing, and is named, with what to do."""
    index = write_shards(tmp_path)
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(UnreadableFileError, match="2 shards, of which 1 are not beside it, such as 'model-2") as caught:
        load_checkpoint(index)
    assert "config.json alone" in str(caught.value)


@pytest.mark.parametrize(
    "shard",
    [
        "../model-1.safetensors",
        "/etc/passwd",
        "/srv/model-1.safetensors",
        "a/../../b.safetensors",
        "C:\\model.safetensors",
        "..\\b.safetensors",
        "a\0.safetensors",
        "model.bin",
        "",
        "x" * 300 + ".safetensors",
        5,
        None,
    ],
)
def test_a_shard_that_leads_out_of_the_directory_is_refused(tmp_path: Path, shard: object) -> None:
    """Nothing outside the directory is opened because an index says so."""
    index = write_shards(tmp_path)
    index.write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(UnreadableFileError, match=r"weight_map\['a'\]"):
        load_checkpoint(index)


@pytest.mark.parametrize("weight_map", [None, [], {}, "model.safetensors"])
def test_an_index_without_a_weight_map_is_refused(tmp_path: Path, weight_map: object) -> None:
    """Any JSON object may be called an index."""
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(UnreadableFileError, match="is this the index"):
        load_checkpoint(index)


def test_an_index_that_disagrees_with_its_shards_is_refused(tmp_path: Path) -> None:
    """A tensor that the index puts elsewhere, or that stands in two shards, is named."""
    index = write_shards(tmp_path)
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "c": "model-2.safetensors"}}))
    with pytest.raises(UnreadableFileError, match=r"'c': in no shard: expected it in model-2"):
        load_checkpoint(index)
    (tmp_path / "model-2.safetensors").write_bytes(file_of({"a": entry()}, 24))
    with pytest.raises(UnreadableFileError, match=r"'a': in model-1.safetensors and in model-2"):
        load_checkpoint(index)


def test_too_many_shards_are_refused_unread(tmp_path: Path) -> None:
    """2,049 shards are one more than any checkpoint may have."""
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {str(i): f"{i}.safetensors" for i in range(2049)}}))
    with pytest.raises(UnreadableFileError, match="2,049 shards"):
        load_checkpoint(index)


def test_a_cut_off_file_is_refused(tmp_path: Path) -> None:
    """Every proper beginning of a file is refused, wherever the download broke."""
    whole = file_of({"a": entry()}, 24)
    path = tmp_path / "model.safetensors"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(UnreadableFileError):
            load_checkpoint(path)

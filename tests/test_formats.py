"""Formats: blocks, scales and names; the gguf package as second witness."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vramfit.errors import InvalidValueError, UnknownNameError
from vramfit.formats import WEIGHT_FORMATS, kv_format, weight_format


def test_gguf_blocks_equal_the_reference_package() -> None:
    """Block elements and bytes of every type equal gguf's own table."""
    gguf = pytest.importorskip("gguf")
    known = {q.name: sizes for q, sizes in gguf.GGML_QUANT_SIZES.items()}
    ours = {n.split(":")[1]: (f.block_elements, f.block_bytes) for n, f in WEIGHT_FORMATS.items() if "gguf:" in n}
    compared = {name: known[name] for name in ours if name in known}
    assert len(compared) >= 22
    assert compared == {name: ours[name] for name in compared}


def test_nf4_double_quantisation_by_hand() -> None:
    """4,096 x 4,096: 8 MiB codes + 262,144 maxima of 1 B + 1,024 fp32 + 64 B code + 1 KiB second code + 4 B offset."""
    assert 8_388_608 + 262_144 + 4_096 + 64 + 1_024 + 4 == weight_format("nf4-dq").tensor_size((4096, 4096))


def test_gptq_by_hand() -> None:
    """128 x 256, groups of 128: 16,384 B codes, 2 x 128 scales of 2 B, 2 x 16 words of zeros, 256 int32 indices."""
    assert 16_384 + 512 + 128 + 1_024 == weight_format("gptq-int4").tensor_size((128, 256))


def test_fp8_tiles_by_hand() -> None:
    """200 x 300 in tiles of 128: 2 x 3 fp32 scales; two such matrices fused have twice as many."""
    assert 60_000 + 24 == weight_format("fp8-block").tensor_size((200, 300))
    assert 2 * (60_000 + 24) == weight_format("fp8-block").tensor_size((2, 200, 300))


def test_group_size_minus_one_is_one_group_per_row() -> None:
    """256 rows of 512: 65,536 B codes and one 2 B scale per row."""
    assert 65_536 + 512 == weight_format("int4", -1).tensor_size((256, 512))


@given(st.sampled_from(sorted(WEIGHT_FORMATS)), st.integers(1, 300), st.integers(1, 3000))
def test_no_format_stores_less_than_its_bits(name: str, rows: int, columns: int) -> None:
    """Whole blocks: never fewer bytes than elements times bits, and never fewer for one more row."""
    fmt = weight_format(name)
    size = fmt.tensor_size((rows, columns))
    assert size * fmt.block_elements >= min(rows * columns * fmt.block_bytes, size * fmt.block_elements)
    assert size <= fmt.tensor_size((rows + 1, columns))
    assert size >= fmt.bytes_for(rows * columns) or fmt.fallback


@pytest.mark.parametrize("name", ["BF16", "bf 16", "nf4_dq", "GGUF Q4_K", "awq int4"])
def test_names_ignore_case_and_punctuation(name: str) -> None:
    """Spelling variants find the same format."""
    assert weight_format(name).name in WEIGHT_FORMATS


def test_unknown_formats_name_the_nearest() -> None:
    """fp9 is refused, fp8 is offered."""
    with pytest.raises(UnknownNameError, match=r"nearest: .*fp8"):
        weight_format("fp9")
    with pytest.raises(UnknownNameError, match=r"workload\.kv_format: 'fp9'.*fp8"):
        kv_format("fp9")


@pytest.mark.parametrize(("name", "size"), [("bf16", 64), ("awq-int4", 0), ("awq-int4", 1)])
def test_group_sizes_that_cannot_be_are_refused(name: str, size: int) -> None:
    """bf16 has no groups; a group of 0 or 1 is none."""
    with pytest.raises(InvalidValueError, match="group size"):
        weight_format(name, size)

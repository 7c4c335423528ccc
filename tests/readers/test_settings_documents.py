"""Settings that nobody vouches for: the right parser by content, bounds before work, one error with its place."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vramfit.errors import UnreadableFileError, VramfitError
from vramfit.readers.document import load_document, parse_document
from vramfit.readers.yaml_text import parse_yaml_object

LIMIT = 2**20


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1}', {"a": 1}),
        ("a: 1\nb: [x, y]", {"a": 1, "b": ["x", "y"]}),
        ("# note\n\na: true", {"a": True}),
        ("---\na: null", {"a": None}),
        ('# note\n[training]\nseq_len = 8192\nname = "x"', {"training": {"seq_len": 8192, "name": "x"}}),
        ("a: 2024-01-01", {"a": "2024-01-01"}),
        ("base: &x {r: 8}\nother: *x", {"base": {"r": 8}, "other": {"r": 8}}),
        ("1: x", {"1": "x"}),
    ],
)
def test_the_content_decides(text: str, expected: dict[str, object]) -> None:
    """JSON, YAML and TOML are told apart by what stands there; values are plain."""
    assert expected == parse_document(text.encode(), "x")


@pytest.mark.parametrize(
    "text",
    [
        "#!/bin/bash\nls",
        "--bf16 --seq-length 4096",
        "MODEL=x\ntorchrun a.py",
        "torchrun a.py --x",
        "# run\nswift sft --model x",
    ],
)
def test_scripts_stay_text(text: str) -> None:
    """A command line is not YAML, although a parser of YAML would take some for one."""
    assert text == parse_document(text.encode(), "x")


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9)
)
"""Ten lines of aliases that stand for 3.5 billion values."""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "aliases that stand for more than"),
        ("a: &a [*a]", "nested deeper|more than"),
        ("a: " + "[" * 500 + "]" * 500, "nested deeper than 100"),
        ("\n".join("  " * n + "a:" for n in range(150)), "nested deeper than 100"),
        ("a: !!python/object/apply:os.system ['echo']", "line 1, column 4: could not determine a constructor"),
        ("a: [1, 2", "x, line 1"),
        ("a: b: c", "line 1, column 5"),
        ("- 1\n- 2", "expected a mapping"),
        ("just words", "expected a mapping"),
        ("", "empty; expected settings"),
        ("a: 1\n" * 300_000, "more than 1,048,576 bytes"),
        ("- " * 250_000, "too many values"),
        ("<html>", "web page"),
        ('{"a": ' + "[" * 200 + "]" * 200 + "}", "nested deeper than 100"),
        ("[a]\nb = ", "expected TOML"),
        ("a: &x 1\n" + "b: *x\n" * 1_500, "more than 1,000 aliases"),
    ],
    ids=range(16),
)
def test_hostile_texts_are_one_error(text: str, message: str) -> None:
    """Deep, large, aliased, of another kind or broken: refused by name, nothing built."""
    with pytest.raises(UnreadableFileError, match=message):
        parse_document(text.encode(), "x")


def test_bytes_that_are_no_text_are_refused() -> None:
    """Another encoding is named."""
    with pytest.raises(UnreadableFileError, match="byte 0xff that is not UTF-8"):
        parse_yaml_object(b"a: \xff", "x", LIMIT)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The path, and what to check."""
    with pytest.raises(UnreadableFileError, match="no such file"):
        load_document(tmp_path / "none.yml")
    with pytest.raises(UnreadableFileError, match="a directory"):
        load_document(tmp_path)


@given(st.text(max_size=120) | st.text(alphabet="a:-[]{}&*!|> \n'\"", max_size=60))
def test_any_text_ends_in_a_document_or_our_error(text: str) -> None:
    """Nothing but VramfitError leaves the readers."""
    try:
        parse_document(text.encode("utf-8", "surrogatepass"), "x")
    except VramfitError:
        return

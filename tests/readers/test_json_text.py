"""Reading JSON that nobody vouches for."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vramfit.errors import UnreadableFileError
from vramfit.readers import json_text
from vramfit.readers.json_text import load_json_object, parse_json_object

LIMIT = 10_000_000
LEAVES = st.none() | st.booleans() | st.integers(-(2**64), 2**64) | st.floats(allow_nan=False, allow_infinity=False)


def refusal(text: bytes, limit_bytes: int = LIMIT) -> str:
    """Return the message with which a text is refused."""
    with pytest.raises(UnreadableFileError) as caught:
        parse_json_object(text, "config.json", limit_bytes)
    return str(caught.value)


@given(
    st.dictionaries(
        st.text(max_size=9),
        st.recursive(
            LEAVES | st.text(max_size=9),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
            max_leaves=8,
        ),
        max_size=4,
    )
)
def test_every_json_object_is_read_as_the_standard_parser_reads_it(value: dict[str, object]) -> None:
    """What is JSON comes back as the same object, whatever it holds."""
    assert value == parse_json_object(json.dumps(value, ensure_ascii=False).encode(), "config.json", LIMIT)


@given(st.binary(max_size=300) | st.text(alphabet='[]{}",:\\ntue0-9.eE \n', max_size=300).map(str.encode))
def test_any_bytes_give_an_object_or_one_kind_of_error(text: bytes) -> None:
    """Hostile bytes raise nothing but our own error."""
    try:
        parsed = parse_json_object(text, "config.json", LIMIT)
    except UnreadableFileError as error:
        said = str(error)
    else:
        said = f"config.json {dict(parsed)}"
    assert said.startswith("config.json")


@pytest.mark.parametrize(
    ("text", "place", "seen"),
    [
        (b'{"a": 1,\n "b": }', "line 2, column 7", "Expecting value"),
        (b"", "line 1, column 1", "empty"),
        (b'{"a": NaN}', "line 1, column 7", "NaN"),
        (b'{"a": [1,\n-Infinity]}', "line 2, column 1", "-Infinity"),
        (b'{"a": 1e400}', "line 1, column 7", "1e400"),
        (b'{"a": 1' + 40 * b"0" + b"}", "line 1, column 7", "41 digits"),
        (b'{"a": ' + 5000 * b"9" + b"}", "line 1, column 7", "5,000 digits"),
        (b"[1, 2]", "line 1, column 1", "array"),
        (b"7", "line 1, column 1", "number"),
        (b'{\n"\xff": 1}', "line 2, column 2", "0xff"),
        (b'{"a": "\\ud800"}', "line 1, column 8", "surrogate"),
        (b'{"a":1,"b":{"a":2},\n"a; b":3,"a; b":4}', "line 2, column 10", "'a; b' for the second time"),
    ],
)
def test_a_refusal_names_file_line_column_and_what_was_seen(text: bytes, place: str, seen: str) -> None:
    """Each mistake is found where it stands, counted by hand."""
    message = refusal(text)
    assert message.startswith(f"config.json, {place}: ")
    assert seen in message
    assert "expected" in message


def test_the_largest_integer_of_a_size_is_read_and_one_of_forty_digits_too() -> None:
    """The limit on digits is beyond every real number."""
    assert {"a": 2**64, "b": -(10**38)} == parse_json_object(f'{{"a":{2**64},"b":-{10**38}}}'.encode(), "f", LIMIT)


def test_one_byte_more_than_the_limit_is_refused() -> None:
    """The limit itself is allowed."""
    assert {} == parse_json_object(b"{}", "f", 2)
    assert "more than 1 bytes" in refusal(b"{}", 1)


@pytest.mark.parametrize("levels", [101, 1_000, 1_000_000])
def test_absurd_nesting_is_refused_before_parsing(levels: int) -> None:
    """Depth 100 is read, any more is refused, closed or not."""
    parse_json_object(b'{"a":' + 99 * b"[" + 99 * b"]" + b"}", "f", LIMIT)
    assert "nested deeper than 100" in refusal(levels * b"[")
    assert "nested deeper than 100" in refusal(levels * b'{"a":' + b"1" + levels * b"}")


def test_brackets_in_strings_are_not_nesting() -> None:
    """A name may hold as many brackets as it likes, behind escaped quotes too."""
    value = {'"[{' * 500: "\\" + "[" * 500, "[" * 500: [1]}
    assert value == parse_json_object(json.dumps(value).encode(), "f", LIMIT)


def test_a_text_that_would_make_millions_of_objects_is_refused_unparsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two marks per pair of brackets: 51 pairs are more than 100 marks."""
    monkeypatch.setattr(json_text, "MOST_MARKS", 100)
    assert "marks" not in refusal(b"[" + b",".join(49 * [b"{}"]) + b"]")
    assert "expected at most 100" in refusal(b"[" + b",".join(51 * [b"{}"]) + b"]")


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        (b"<!doctype html><title>401</title>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"GGUF\x03\x00\x00\x00", "GGUF"),
        (b"PK\x03\x04", "PyTorch archive"),
    ],
)
def test_a_file_of_another_kind_is_recognised(text: bytes, advice: str) -> None:
    """The message says what was probably downloaded instead."""
    assert advice in refusal(text)


def test_a_file_is_read_and_its_path_is_in_the_message(tmp_path: Path) -> None:
    """A good file is read; a bad one is named."""
    path = tmp_path / "config.json"
    path.write_text('{"a": 1}')
    assert {"a": 1} == load_json_object(path, 8)
    with pytest.raises(UnreadableFileError, match="more than 7 bytes"):
        load_json_object(path, 7)


def test_what_cannot_be_opened_is_said_in_words(tmp_path: Path) -> None:
    """Missing files, directories, pipes and impossible names each have their message."""
    os.mkfifo(tmp_path / "pipe")
    cases = {
        tmp_path / "none.json": "no such file",
        tmp_path: "a directory",
        tmp_path / "pipe": "a device, pipe or socket",
        tmp_path / "pipe" / "below": "Not a directory",
        tmp_path / ("x" * 300): "File name too long",
        Path("a\0b"): "null",
    }
    for path, words in cases.items():
        with pytest.raises(UnreadableFileError, match=words):
            load_json_object(path, 100)


def test_a_file_without_permission_is_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operating system's refusal becomes ours (root reads everything, so it is made up)."""
    path = tmp_path / "config.json"
    path.write_text("{}")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UnreadableFileError, match="not allowed to read"):
        load_json_object(path, 100)

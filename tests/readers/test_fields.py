"""Typed access to a configuration: bounds, null against absent, paths in errors, recorded defaults."""

from __future__ import annotations

from typing import Any

import pytest

from vramfit.errors import InvalidValueError, UnsupportedModelError
from vramfit.readers.fields import LARGEST_LAYERS, LARGEST_WIDTH, Fields


@pytest.mark.parametrize("value", [0, -1, 2**24 + 1, 4096.0, True, "4096", [4096], {}, float("nan"), float("inf")])
def test_an_integer_out_of_bounds_or_of_another_type_is_refused_with_its_path(value: Any) -> None:
    """Zero, negative, absurd, float, boolean, text and lists are no widths."""
    with pytest.raises(InvalidValueError) as caught:
        Fields({"hidden_size": value}, "text_config").integer("hidden_size")
    assert "text_config.hidden_size" == caught.value.path
    assert "expected an integer from 1 to 16,777,216" in str(caught.value)


def test_bounds_are_inclusive() -> None:
    """1 and 2**24 are widths; 4096 layers are the most."""
    assert 1 == Fields({"x": 1}).integer("x")
    assert 2**24 == Fields({"x": 2**24}).integer("x") == LARGEST_WIDTH
    assert 4096 == Fields({"num_hidden_layers": 4096}).num_layers == LARGEST_LAYERS
    with pytest.raises(InvalidValueError):
        _ = Fields({"num_hidden_layers": 4097}).num_layers


def test_a_required_field_that_is_missing_is_named() -> None:
    """The message says what was expected and what to do next."""
    with pytest.raises(
        UnsupportedModelError, match=r"^vocab_size: missing: expected an integer.*complete config\.json$"
    ):
        Fields({}).integer("vocab_size")


def test_a_default_that_was_taken_is_recorded_with_its_path_and_one_that_was_not_is_not() -> None:
    """A section shares the record of the whole."""
    whole = Fields({"text_config": {"there": 3}})
    section = whole.section("text_config")
    assert 3 == section.integer("there", 7)
    assert [] == whole.assumed
    assert 7 == section.integer("absent", 7)
    assert ["text_config.absent = 7 (class default in transformers; the configuration has none)"] == whole.assumed


def test_null_and_absent_differ_where_it_matters() -> None:
    """``optional`` and ``has`` treat both alike, ``absent`` does not."""
    fields = Fields({"null": None})
    assert fields.optional("null") is None
    assert fields.optional("gone") is None
    assert not fields.has("null")
    assert not fields.absent("null")
    assert fields.absent("gone")


@pytest.mark.parametrize("value", [0, 1, "true", []])
def test_a_flag_is_true_or_false(value: Any) -> None:
    """Numbers and texts are no booleans."""
    with pytest.raises(InvalidValueError, match="expected true or false"):
        Fields({"f": value}).flag("f", default=False)


def test_a_flag_records_its_default_only_when_asked() -> None:
    """Whole matrices may depend on it, or nothing worth a line."""
    fields = Fields({})
    assert fields.flag("silent", default=True)
    assert not fields.flag("loud", default=False, recorded=True)
    assert ["loud = False (class default in transformers; the configuration has none)"] == fields.assumed


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("full", "t"),
        (["full"], "t"),
        (["full", "full", "full"], "t"),
        (["full", "half"], "t[1]"),
        ([["full"], 1], "t[0]"),
    ],
)
def test_words_are_known_and_one_per_layer(value: Any, path: str) -> None:
    """The error names the entry that is wrong."""
    with pytest.raises(InvalidValueError) as caught:
        Fields({"t": value}).words("t", ("full", "sliding"), 2)
    assert path == caught.value.path


@pytest.mark.parametrize(
    ("value", "path"), [([-1], "n[0]"), ([0, 4], "n[1]"), ([True], "n[0]"), ([1.0], "n[0]"), (3, "n")]
)
def test_integers_are_small_and_not_negative(value: Any, path: str) -> None:
    """Numbers of layers run from 0."""
    with pytest.raises(InvalidValueError) as caught:
        Fields({"n": value}).integers("n", 4)
    assert path == caught.value.path
    assert frozenset({0, 3}) == Fields({"n": [3, 0, 3]}).integers("n", 4)
    assert frozenset() == Fields({}).integers("n", 4)


def test_a_section_is_an_object() -> None:
    """A list or null is none."""
    values: tuple[Any, ...] = ([], None, 3)
    for value in values:
        with pytest.raises(InvalidValueError, match="expected an object"):
            Fields({"text_config": value}).section("text_config")


def test_refusing_leaves_null_and_false_alone() -> None:
    """Only a field that switches something on is refused, by name and reason."""
    for value in (None, False):
        Fields({"f": value}).refuse("f", "changes shapes")
    with pytest.raises(UnsupportedModelError, match="f: 8: changes shapes; not understood"):
        Fields({"f": 8}).refuse("f", "changes shapes")


def test_defaults_fill_what_is_absent_or_null_and_are_recorded() -> None:
    """A value that is there stays; null is filled where a default is given for it, and kept where none is."""
    filled = Fields({"a": 1, "b": None, "c": None}, "vision_config").filled(a=2, b=3, d=4)
    assert {"a": 1, "b": 3, "c": None, "d": 4} == dict(filled.values)
    assert ["vision_config.b = 3", "vision_config.d = 4"] == [line.partition(" (")[0] for line in filled.assumed]


@pytest.mark.parametrize("value", [[], [1, 2, 3, 4], [0], [9], [True], ["1"], [1.0], 1, "1"], ids=repr)
def test_a_row_of_integers_is_bounded(value: Any) -> None:
    """One to three integers from 1 to 8, in their order; nothing else."""
    assert (8, 1) == Fields({"x": [8, 1]}).row("x", (2,), largest=8, most=3)
    assert (2,) == Fields({}).row("x", (2,), largest=8)
    with pytest.raises(InvalidValueError, match=r"^x"):
        Fields({"x": value}).row("x", (2,), largest=8, most=3)


def test_a_flag_that_no_published_model_has_is_refused() -> None:
    """Absent and as published pass, the other value does not."""
    Fields({}).insist("x", on=True, why="so")
    Fields({"x": False}).insist("x", on=False, why="so")
    with pytest.raises(UnsupportedModelError, match=r"^part\.x: False: so; not understood"):
        Fields({"x": False}, "part").insist("x", on=True, why="so")

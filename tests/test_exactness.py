"""The catalogue's rows against what is recorded of other programs and real files, and the page made of both."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vramfit.catalogue.model import all_models, find_model
from vramfit.errors import UnknownNameError
from vramfit.source import read_model
from vramfit.spec import inventory

sys.path.append(str(Path(__file__).resolve().parent.parent / "scripts"))
import exactness
import model_names

ROWS = {row.name: row for row in all_models()}
COUNTS, HEADERS = exactness.recorded(exactness.COUNTS), exactness.recorded(exactness.HEADERS)
FILES = [(name, number) for name, files in HEADERS.items() for number in range(len(files))]


@pytest.mark.slow
def test_the_page_is_fresh() -> None:
    """docs/exactness.md is what scripts/exactness.py writes of the catalogue and the records of today; names agree."""
    page = exactness.page(all_models())
    assert page == exactness.PAGE.read_text("utf-8"), "run scripts/exactness.py"
    assert "names differ" not in page


def test_every_row_was_asked_for_and_no_other() -> None:
    """counts.json has an entry for each row, a count or why there is none; headers.json has rows' names only."""
    assert set(ROWS) == set(COUNTS)
    assert set(ROWS) >= set(HEADERS)
    assert 250 <= sum("parameters" in found for found in COUNTS.values())


def test_counts_are_theirs_or_the_difference_is_named() -> None:
    """To the unit; where transformers counts otherwise the record says why."""
    for name, found in COUNTS.items():
        if "parameters" in found and "why" not in found:
            assert read_model(ROWS[name].config, name=name).num_parameters == found["parameters"], name


def test_published_counts_are_ours() -> None:
    """A row that names a published count has it to the unit."""
    for row in ROWS.values():
        if row.parameters is not None:
            assert read_model(row.config, name=row.name).num_parameters == row.parameters, row.name


@pytest.mark.parametrize(("name", "number"), FILES)
def test_real_files_are_ours_or_the_difference_is_named(name: str, number: int) -> None:
    """Names and bytes of a real checkpoint, from its index or the size of its one file."""
    row, found = ROWS[name], HEADERS[name][number]
    spec = read_model({**row.config, **found.get("with", {})}, name=name)
    if "file" in found:
        same = exactness.file_size(spec, found.get("folder", "")) == found["file"]
    else:
        names = exactness.names_digest(tensor.name for tensor in inventory(spec))
        same = (names, exactness.file_bytes(spec)) == (found["digest"], found["bytes"])
    assert same != ("why" in found)


def test_the_list_of_names_is_fresh() -> None:
    """model_names.json has every id and alias of the rows, under its organisation."""
    assert model_names.text() == model_names.NAMES.read_text("utf-8"), "run scripts/model_names.py"


def test_a_name_means_one_row() -> None:
    """No id or alias, case aside, stands in two rows."""
    names = [n.casefold() for row in ROWS.values() for n in (row.name, *row.aliases)]
    assert sorted(set(names)) == sorted(names)


def test_punctuation_decides_where_it_must() -> None:
    """OPT 1.3B and 13B differ by a full stop; written without a clue, neither is taken."""
    assert ["facebook/opt-1.3b", "facebook/opt-13b"] == [find_model(n).name for n in ("opt-1.3b", "OPT-13B")]
    with pytest.raises(UnknownNameError, match=r"opt-1\.3b, opt-13b"):
        find_model("opt 13b")

"""Pages cannot go stale: their Python is run, their commands are run, the generated ones are compared."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

import accuracy_page
import component_pages
from doc_console import COMMAND, ROOT, blocks, pages, updated

PAGES = [pytest.param(page, id=str(page.relative_to(ROOT))) for page in pages()]


@pytest.mark.parametrize("page", PAGES)
def test_python_on_the_page_prints_what_it_shows(page: Path) -> None:
    """Every ``>>>`` of a page gives the shown result; the blocks of a page are one session."""
    session: dict[str, object] = {}
    runner = doctest.DocTestRunner(verbose=False)
    text = page.read_text("utf-8")
    for block in blocks(text, "python"):
        line = text[: block.start()].count("\n") + 1
        test = doctest.DocTestParser().get_doctest(block["body"], session, f"{page.name}:{line}", str(page), line)
        report: list[str] = []
        runner.run(test, out=report.append, clear_globs=False)
        session = test.globs
        assert not report, "".join(report)


@pytest.mark.parametrize("page", PAGES)
def test_commands_on_the_page_print_what_it_shows(page: Path) -> None:
    """Every ``$ vramfit`` of a page prints the shown text; ``scripts/docs --update`` renews it."""
    shown = page.read_text("utf-8")
    if "$ vramfit " not in shown:
        return
    assert COMMAND.exists(), "the command is not installed: run scripts/test"
    assert shown == updated(shown)


@pytest.mark.parametrize("page", PAGES)
def test_no_block_escapes(page: Path) -> None:
    """Every fence starts its line, so no example is passed over because it is indented or misspelt."""
    text = page.read_text("utf-8")
    fences = [line for line in text.splitlines() if line.lstrip().startswith(("```python", "```console"))]
    assert len(fences) == len(blocks(text, "python")) + len(blocks(text, "console"))


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of a page names a file that is there."""
    targets = [part.split(")")[0].split("#")[0] for part in page.read_text("utf-8").split("](")[1:]]
    local = [target for target in targets if target and "://" not in target]
    assert [] == [target for target in local if not (page.parent / target).exists()]


def test_component_pages_are_fresh() -> None:
    """The pages in docs/components are what the docstrings say today."""
    assert [] == component_pages.stale(component_pages.pages())


@pytest.mark.slow
def test_accuracy_page_is_fresh() -> None:
    """Every measured run as it is predicted today; ``scripts/docs --update`` writes the page."""
    assert 0 == accuracy_page.main(["--check"])

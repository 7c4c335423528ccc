"""Write docs/components: one page per thing that occupies memory, made from the docstrings that stand beside the code.

The sources are parsed, not imported, so this needs nothing but Python. With ``--check`` it writes
nothing and fails when a page differs from what it would write.
"""

from __future__ import annotations

import ast
import doctest
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "src" / "vramfit" / "memory"
PAGES = ROOT / "docs" / "components"
TITLES = {"kv_cache": "KV cache"}
"""Titles that are not simply the module's name with a capital."""


def pages() -> dict[Path, str]:
    """Return every page as it should be, by its path."""
    sources = sorted(path for path in SOURCES.glob("*.py") if path.stem != "__init__")
    made = {PAGES / f"{path.stem}.md": component_page(path) for path in sources}
    made[PAGES / "README.md"] = index_page(sources)
    return made


def index_page(sources: list[Path]) -> str:
    """List the components, one line each."""
    lines = [f"- [{title(path)}]({path.stem}.md): {summary(path)}" for path in sources]
    opening = (
        "Everything that occupies GPU memory has one file in `src/vramfit/memory`;",
        "the pages here are its docstrings, written anew by `scripts/docs`.",
    )
    return "\n".join(["# Components", "", *opening, "", *lines, ""])


def component_page(path: Path) -> str:
    """Make one page: the module's docstring, its constants, its functions in the order of the file."""
    source = path.read_text("utf-8")
    module = ast.parse(source)
    parts = [
        f"<!-- Written by scripts/docs from src/vramfit/memory/{path.name}: edit there. -->",
        f"# {title(path)}",
        as_markdown(ast.get_docstring(module) or ""),
        *imports_for_examples(path, module),
        *constants(module, source),
    ]
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            parts += [f"## `{node.name}`", signature(node), as_markdown(ast.get_docstring(node) or "")]
    return "\n\n".join(part for part in parts if part) + "\n"


def title(path: Path) -> str:
    """Name a component for people."""
    return TITLES.get(path.stem, path.stem.replace("_", " ").capitalize())


def summary(path: Path) -> str:
    """First line of the module's docstring, less the component's own name."""
    first = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").split("\n", 1)[0]
    return first.partition(": ")[2] or first


def signature(node: ast.FunctionDef | ast.ClassDef) -> str:
    """Show how a function is called; a class shows its fields."""
    if isinstance(node, ast.FunctionDef):
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        return f"```python\n{node.name}({ast.unparse(node.args)}){returns}\n```"
    fields = [ast.unparse(field) for field in node.body if isinstance(field, ast.AnnAssign)]
    return "```python\n" + "\n".join([f"class {node.name}:", *(f"    {field}" for field in fields)]) + "\n```"


def constants(module: ast.Module, source: str) -> Iterator[str]:
    """Yield each documented public constant as it is written, and its docstring."""
    for node, after in zip(module.body, module.body[1:], strict=False):
        name = ast.unparse(node.targets[0]) if isinstance(node, ast.Assign) else ""
        documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if name.isupper() and not name.startswith("_") and documented:
            yield f"```python\n{ast.get_source_segment(source, node)}\n```"
            yield as_markdown(inspect.cleandoc(str(after.value.value)))  # type: ignore[attr-defined]


def as_markdown(docstring: str) -> str:
    """Fence the doctests of a docstring; its formulas are indented, which Markdown shows as code already."""
    parser, parts = doctest.DocTestParser(), []
    for paragraph in docstring.split("\n\n"):
        example = paragraph.lstrip().startswith(">>>") and parser.get_examples(paragraph)
        parts.append(f"```python\n{inspect.cleandoc(paragraph)}\n```" if example else paragraph)
    return "\n\n".join(parts)


def imports_for_examples(path: Path, module: ast.Module) -> Iterator[str]:
    """Yield the imports that a reader needs to repeat the page's examples: the doctests see the module's own names."""
    used = set()
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            for example in doctest.DocTestParser().get_examples(ast.get_docstring(node) or ""):
                used |= {n.id for n in ast.walk(ast.parse(example.source)) if isinstance(n, ast.Name)}
    origins: dict[str, set[str]] = {}
    for node in module.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            origins.setdefault(node.module, set()).update(alias.name for alias in node.names)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            origins.setdefault(f"vramfit.memory.{path.stem}", set()).add(node.name)
    lines = [
        f">>> from {origin} import {', '.join(sorted(names & used))}"
        for origin, names in sorted(origins.items())
        if names & used
    ]
    if lines:
        yield "Names in the examples:"
        yield "\n".join(["```python", *lines, "```"])


def stale(made: dict[Path, str]) -> list[Path]:
    """Return the pages that differ, are missing, or belong to no component any more."""
    there = set(PAGES.glob("*.md"))
    differ = {path for path, text in made.items() if path not in there or path.read_text("utf-8") != text}
    return sorted(differ | (there - set(made)))


def main() -> int:
    """Write the pages, or compare them with ``--check``."""
    made = pages()
    wrong = stale(made)
    if "--check" in sys.argv[1:]:
        for path in wrong:
            print(f"{path.relative_to(ROOT)}: stale; run scripts/docs", file=sys.stderr)
        return 1 if wrong else 0
    for path in wrong:
        if path in made:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(made[path], "utf-8")
        else:
            path.unlink()
        print(f"{path.relative_to(ROOT)}: {'written' if path in made else 'removed'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

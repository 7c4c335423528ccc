"""The shape of the package: which way imports point, what is public, what a file looks like.

``scripts/test -k structure --update-goldens`` writes the frozen surfaces anew; review the difference.
"""

from __future__ import annotations

import ast
import graphlib
import importlib.util
import io
import json
import re
import socket
import subprocess
import sys
import tokenize
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

PACKAGE = Path(str(importlib.util.find_spec("vramfit").origin)).parent  # type: ignore[union-attr] # it is installed
REPOSITORY = Path(__file__).resolve().parent.parent
FILES = sorted(PACKAGE.rglob("*.py"))
EACH_FILE = pytest.mark.parametrize("path", [pytest.param(f, id=str(f.relative_to(PACKAGE))) for f in FILES])

LEVELS = (
    {"units", "errors", "names", "formats", "version"},  # words
    {
        "spec",
        "layer_kind",
        "pipeline",
        "device",
        "engine",
        "request",
        "shard",
        "result",
        "rule",
        "measured",
        "log_facts",
        "comparison",
        "capacity",
        "training",
        "training_result",
        "step",
        "block_style",
        "framework",
        "timeline",
        "mesh",
        "trace_report",
        "workload",
    },  # nouns
    {"parallel", "memory", "engines", "frameworks", "readers", "catalogue", "report", "commands", "logs"}
    | {"training_files", "trace"},  # rooms
    {
        *("understand", "source", "estimate", "fit", "search", "answer", "rule_of_thumb", "components", "accuracy"),
        *("gguf_recipe", "hub_source", "own_context", "compare", "serving"),
        *(
            "train",
            "traced",
            "training_answer",
            "train_search",
            "train_changes",
            "train_devices",
            "meshes",
            "mesh_axes",
            "mesh_count",
            "mesh_parts",
            "mesh_proxy",
            "training_choices",
            "training_model",
            "training_objective",
            "training_reading",
            "training_plan",
            "training_walk",
            "training_process",
        ),
    },  # decide
    {"wire", "answer_wire", "training_wire", "trace_wire", "measured_wire", "cli", "__main__", "__init__"},  # doors
)
"""First names below ``vramfit``; imports point to the same level or down, rooms only down."""
ROOMS = LEVELS[2]
BETWEEN_ROOMS = {
    ("engines", "memory"),
    ("frameworks", "memory"),
    ("trace", "catalogue"),
    ("trace", "memory"),
    ("training_files", "commands"),
}
TORCH_FREE = (
    *("__init__", "allocator", "recording", "replay", "snapshot", "timeline"),
    *("ending", "measure_door", "measuring", "models", "workload_table"),
)

"""Files of the tracer that run without torch begin with one of these."""
LONGEST_FILE = 400
BANNED = re.compile(r"(?<![a-z])(overhead|misc|miscellaneous|extra|extras)(?![a-z])")
"""Words that hide whose memory it is."""


def place(path: Path) -> str:
    """Return the first name below ``vramfit`` of a file."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def module_name(path: Path) -> str:
    """Return the dotted name of a file."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    """Return the modules a file imports anywhere, in functions too; ``from p import m`` is ``p.m`` if that is one."""
    found: set[str] = set()
    known = {module_name(f) for f in FILES}
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; expected the full name"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (names & known) or {str(node.module)}
    return found


def own_imports(path: Path) -> set[str]:
    """Return the modules of this package that a file imports."""
    return {name for name in imports(path) if name.split(".")[0] == "vramfit"}


def level(name: str) -> int:
    """Return how high a first name stands."""
    found = [number for number, names in enumerate(LEVELS) if name in names]
    assert found, f"{name}: a new module or room; give it its level in LEVELS"
    return found[0]


@EACH_FILE
def test_imports_point_down(path: Path) -> None:
    """A file imports from its own level or below; rooms do not import one another, save engines from memory."""
    here = place(path)
    for name in own_imports(path):
        there = [*name.split("."), "__init__"][1]
        assert level(there) <= level(here), f"{here} imports {name}, which stands above it"
        if here in ROOMS and there in ROOMS and here != there:
            assert (here, there) in BETWEEN_ROOMS, f"{here} imports {name}: rooms do not know one another"


@EACH_FILE
def test_nobody_inside_imports_the_root(path: Path) -> None:
    """The package root is for users; inside, each name is imported from where it lives."""
    assert "vramfit" not in imports(path)


def test_imports_make_no_circle() -> None:
    """Modules can be put in an order in which each needs earlier ones only."""
    graph = {module_name(path): own_imports(path) - {module_name(path)} for path in FILES}
    assert len(FILES) <= len(list(graphlib.TopologicalSorter(graph).static_order()))


@EACH_FILE
def test_core_imports_the_standard_library_only(path: Path) -> None:
    """Below the doors and the readers of foreign files, no third-party module is imported, not even late."""
    if place(path) in LEVELS[4] | {"readers", "report"}:
        return
    if place(path) == "trace" and not path.stem.startswith(TORCH_FREE):
        return
    foreign = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names) - {"vramfit"}
    assert set() == foreign


def test_importing_the_package_loads_no_third_party_module() -> None:
    """A fresh interpreter holds after ``import vramfit`` what it held before, the standard library and ours."""
    code = "import sys; before = set(sys.modules); import vramfit; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert set() == loaded - set(sys.stdlib_module_names) - {"vramfit"}


@EACH_FILE
def test_file_says_what_it_is(path: Path) -> None:
    """Every file opens with a docstring and reads annotations late, so that they cost nothing."""
    text = path.read_text("utf-8")
    assert ast.get_docstring(ast.parse(text)), f"{path}: no docstring"
    assert "from __future__ import annotations" in text or not own_imports(path)


@EACH_FILE
def test_file_is_short_and_plain(path: Path) -> None:
    """No file is longer than 400 lines or holds a character outside ASCII."""
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= LONGEST_FILE, "split it: one file, one thing"
    assert text.isascii()


@EACH_FILE
def test_no_banned_word(path: Path) -> None:
    """No name and no text says overhead, misc or extra: say whose. Comments may explain why."""
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline)
    said = [
        f"{path.name}:{token.start[0] + token.string[: match.start()].count(chr(10))}: {match[0]}"
        for token in tokens
        if token.type != tokenize.COMMENT
        for match in BANNED.finditer(token.string.lower())
    ]
    assert [] == said


@EACH_FILE
def test_module_is_not_named_after_nothing(path: Path) -> None:
    """A module is named after its subject."""
    assert not set(path.relative_to(PACKAGE).with_suffix("").parts) & {"utils", "helpers", "manager", "base", "common"}


def test_wheel_holds_every_file() -> None:
    """Whatever lies in src/vramfit is installed, data too."""
    source = REPOSITORY / "src" / "vramfit"
    wanted = {p.relative_to(source) for p in source.rglob("*") if p.is_file() and p.suffix != ".pyc"}
    assert set() == {str(p) for p in wanted if not (PACKAGE / p).exists()}


def test_public_names_are_frozen(golden: Callable[[str, str], None]) -> None:
    """``vramfit.__all__`` is what was reviewed, and every name in it is there."""
    import vramfit

    assert all(hasattr(vramfit, name) for name in vramfit.__all__)
    golden("public_names.json", json.dumps(sorted(vramfit.__all__), indent=1) + "\n")


def test_command_line_is_frozen(golden: Callable[[str, str], None]) -> None:
    """Commands, arguments, options, choices and defaults are what was reviewed."""
    from vramfit.cli import build

    golden("cli_options.json", json.dumps(command_tree(build()), indent=1, sort_keys=True) + "\n")


def command_tree(command: click.Command | None) -> dict[str, Any]:
    """Describe a command and those below it, as far as a caller may rely on it."""
    assert command is not None
    tree: dict[str, Any] = {"parameters": {p.name: parameter(p) for p in command.params}}
    if isinstance(command, click.Group):
        context = click.Context(command)
        names = command.list_commands(context)
        tree["commands"] = {name: command_tree(command.get_command(context, name)) for name in names}
    return tree


def parameter(p: click.Parameter) -> dict[str, Any]:
    """Describe one argument or option."""
    choices = p.type.choices if isinstance(p.type, click.Choice) else None
    default = p.default if isinstance(p.default, str | int | float | tuple) else None
    return {
        "spelt": [*p.opts, *p.secondary_opts],
        "type": p.type.name,
        "choices": None if choices is None else [str(c) for c in choices],
        "required": p.required,
        "multiple": p.multiple if isinstance(p, click.Option) else p.nargs == -1,
        "default": default,
    }


@pytest.mark.parametrize("script", sorted((REPOSITORY / "scripts").glob("[!.]*")), ids=lambda p: p.name)
def test_scripts_run_anywhere(script: Path) -> None:
    """Scripts name no folder of somebody's machine; those without a suffix are bash that stops at the first failure."""
    if script.is_dir():
        return
    text = script.read_text("utf-8")
    assert not re.search(r"/(home|root|Users|opt|work)/", text)
    if not script.suffix:
        assert text.startswith("#!/usr/bin/env bash\n")
        assert "set -euo pipefail" in text


TEST_FILES = sorted((REPOSITORY / "tests").rglob("test_*.py"))


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda p: p.stem)
def test_every_test_says_what_is_true(path: Path) -> None:
    """Each test has a docstring: one sentence that holds."""
    functions = [n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.FunctionDef)]
    silent = [n.name for n in functions if n.name.startswith("test_") and not ast.get_docstring(n)]
    assert [] == silent


def test_tests_do_not_leave_the_machine() -> None:
    """A connection to anywhere but the loopback is refused before it is made."""
    with socket.socket() as there, pytest.raises(AssertionError, match="tried to reach"):
        there.connect(("192.0.2.1", 80))

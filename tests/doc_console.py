"""Run the commands that README.md and docs/ show, and put what they print where the page shows it.

In a fenced ``console`` block, each line from ``$ vramfit`` to the next ``$`` is a command and its
output. The tests compare; ``scripts/docs --update`` runs this file, which rewrites the pages.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMAND = Path(sys.executable).with_name("vramfit")
"""The command as installed beside the Python that runs this."""

FENCE = re.compile(r"^```(?P<language>\w+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_ENTRY = re.compile(r"^\$ (?P<command>(?:.*\\\n)*.*)\n(?P<output>(?:(?!\$ ).*\n)*)", re.MULTILINE)


def pages() -> list[Path]:
    """Return every page whose examples are run."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(text: str, language: str) -> list[re.Match[str]]:
    """Return the fenced blocks of one language, in order."""
    return [match for match in FENCE.finditer(text) if match["language"] == language]


def run(command: str) -> str:
    """Return what ``vramfit ...`` prints, both streams together, on a plain terminal of 100 columns without network."""
    _, *arguments = shlex.split(command.replace("\\\n", " "))
    with tempfile.TemporaryDirectory() as cache:
        terminal = {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "HF_HOME": cache, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            [COMMAND, *arguments],
            cwd=ROOT,
            env={**os.environ, **terminal},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    return "".join(f"{line.rstrip()}\n" for line in done.stdout.rstrip().splitlines())


def updated(text: str) -> str:
    """Return a page with the output of each shown ``vramfit`` command replaced by what it prints now."""

    def renew(entry: re.Match[str]) -> str:
        if not entry["command"].startswith("vramfit "):
            return entry[0]
        return f"$ {entry['command']}\n{run(entry['command'])}"

    def block(fence: re.Match[str]) -> str:
        if fence["language"] != "console":
            return fence[0]
        return f"```console\n{_ENTRY.sub(renew, fence['body'])}```"

    return FENCE.sub(block, text)


if __name__ == "__main__":
    for page in pages():
        before = page.read_text("utf-8")
        after = updated(before)
        if after != before:
            page.write_text(after, "utf-8")
            print(f"{page.relative_to(ROOT)}: outputs renewed")  # noqa: T201 - a command, not a test

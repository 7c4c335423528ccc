"""Opens a file of settings: JSON, YAML, TOML or a shell script, by its content and not by its name."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from vramfit.errors import UnreadableFileError
from vramfit.readers.json_text import load_bytes, mistaken_for, parse_json_object
from vramfit.readers.yaml_text import parse_yaml_object

LIMIT_BYTES = 2**20
"""Larger files are refused: published configurations have a few kilobytes."""
_SCRIPT = re.compile(
    r"^[ \t]*(?:(?:export|declare|set|source|cd)\s|[A-Za-z_]\w*\+?=|--?[A-Za-z][\w.\-]*(?:[ =]|\\?$)"
    r"|(?:torchrun|python3?|deepspeed|accelerate|swift|llamafactory-cli|trl|srun|bash|sh)\s"
    r"|\S+\.py\s)",
    re.MULTILINE,
)
"""Beginnings of lines that a shell understands."""
_KEY = re.compile(r"^[ \t]*(?:- )?[\w.\-\"']+:(?:\s|$)", re.MULTILINE)
"""Beginnings of lines that YAML understands."""
_TOML = re.compile(r"^\s*\[{1,2}[\w.\-]+\]{1,2}\s*(#.*)?$", re.MULTILINE)


def load_document(path: Path) -> dict[str, object] | str:
    """Return the mapping that a file holds, or its text when it is a script or a command line.

    Raises:
        UnreadableFileError: missing, too large, or damaged.
    """
    return parse_document(load_bytes(path, LIMIT_BYTES), str(path))


def parse_document(raw: bytes, where: str) -> dict[str, object] | str:
    r"""Return the mapping that a text holds, or the text itself when it is a script or a command line.

    >>> parse_document(b'{"bf16": {"enabled": true}}', "ds.json")
    {'bf16': {'enabled': True}}
    >>> parse_document(b"[training]\nseq_len = 8192", "a.toml")
    {'training': {'seq_len': 8192}}
    >>> parse_document(b"--bf16 --seq-length 4096", "flags")
    '--bf16 --seq-length 4096'
    """
    if len(raw) > LIMIT_BYTES:
        raise UnreadableFileError(
            f"{where}: more than {LIMIT_BYTES:,} bytes; expected settings; is this the right file?"
        )
    if not raw.strip():
        raise UnreadableFileError(f"{where}: empty; expected settings in JSON, YAML or TOML, or a command line")
    mistaken = mistaken_for(raw)
    if mistaken is not None:
        raise UnreadableFileError(f"{where}: expected settings in JSON, YAML or TOML, or a command line; {mistaken}")
    if raw.lstrip().startswith(b"{"):
        return parse_json_object(raw, where, LIMIT_BYTES)
    text = raw.decode("utf-8", "replace")
    if _TOML.search(text) and not text.lstrip().startswith(("---", "- ")):
        return _toml(raw, where)
    if text.startswith("#!") or len(_SCRIPT.findall(text)) > len(_KEY.findall(text)):
        return text
    return parse_yaml_object(raw, where, LIMIT_BYTES)


def _toml(raw: bytes, where: str) -> dict[str, object]:
    """Return what TOML says, bounded in depth."""
    try:
        return tomllib.loads(raw.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValueError) as error:
        raise UnreadableFileError(f"{where}: {error}; expected TOML; correct the text") from None
    except RecursionError:
        raise UnreadableFileError(f"{where}: nested too deep; expected TOML of settings") from None

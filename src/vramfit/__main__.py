"""``python -m vramfit``: the same as the command."""

from __future__ import annotations

from vramfit.cli import main

if __name__ == "__main__":
    main()

"""Measures the table of workloads on the GPU of this machine with torch and the standard library alone.

    python scripts/measure.py [--out measured.jsonl] [--minutes 15] [--only PREFIX] [--again] [--dry-run] [--list]

The same as ``vramfit measure``, for a plain PyTorch image in which nothing can be installed; models of transformers,
peft, timm and diffusers are measured where those are there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

from vramfit.catalogue.device import find_card  # noqa: E402 - the path comes first
from vramfit.errors import VramfitError  # noqa: E402
from vramfit.trace.measure_door import Asked, measured  # noqa: E402


def main() -> int:
    """Measure; 2 = there is no GPU, or the input was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", type=Path, default=ROOT / "validation" / "workloads.toml")
    parser.add_argument("--out", type=Path, default=Path("measured.jsonl"))
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--list", dest="listed", action="store_true")
    given = vars(parser.parse_args())
    try:
        return measured(Asked(**{**given, "only": tuple(given["only"])}), _name, lambda text: print(text, flush=True))
    except VramfitError as error:
        print(f"measure: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("measure: stopped; the same command goes on from here", file=sys.stderr)
        return 130


def _name(product: str, total_bytes: int) -> str | None:
    """Return how the catalogue calls a card; None = it is not there."""
    found = find_card(product, total_bytes)
    return None if found is None else found.name


if __name__ == "__main__":
    sys.exit(main())

"""Write src/vramfit/catalogue/model_names.json: the names of every row, so that a look-up reads one file of rows.

python scripts/model_names.py            writes it
python scripts/model_names.py --check    fails when it is stale
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

CATALOGUE = Path(__file__).resolve().parent.parent / "src" / "vramfit" / "catalogue"
NAMES = CATALOGUE / "model_names.json"


def text() -> str:
    """Return the file as it should be, one line per organisation."""
    lines = []
    for path in sorted((CATALOGUE / "models").glob("*.json")):
        rows = [[row["name"], *row["aliases"]] for row in json.loads(path.read_bytes())]
        lines.append(f"{json.dumps(path.stem)}: {json.dumps(rows)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main(arguments: list[str]) -> int:
    """Write or compare."""
    if "--check" in arguments:
        fresh = NAMES.exists() and NAMES.read_text("utf-8") == text()
        print("" if fresh else f"{NAMES.name}: stale; run scripts/model_names.py", file=sys.stderr, end="\n")
        return 0 if fresh else 1
    NAMES.write_text(text(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

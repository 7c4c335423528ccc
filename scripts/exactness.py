"""Write docs/exactness.md: every model of the catalogue, counted by us, by transformers or diffusers, by real files.

    python scripts/exactness.py                     writes the page from what is recorded and what we count today
    python scripts/exactness.py --check             fails when the page is stale
    python scripts/exactness.py --measure           asks transformers about every row that is not recorded yet
    python scripts/exactness.py --measure ORG/NAME  asks about this one again

What the others say stands in tests/witness/counts.json (transformers, on the meta device) and in
tests/witness/headers.json (indexes of real files), so the page is made in seconds and without either library.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vramfit.catalogue.model import ModelRow, all_models
from vramfit.memory.weights import tensor_bytes
from vramfit.source import read_model
from vramfit.spec import ModelSpec, Tensor, inventory
from vramfit.units import ceil_div, format_count

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))
from witness_models import as_saved, build, build_components, resident, saved, saved_components  # noqa: E402 - see above

PAGE = ROOT / "docs" / "exactness.md"
COUNTS = ROOT / "tests" / "witness" / "counts.json"
HEADERS = ROOT / "tests" / "witness" / "headers.json"
TYPES = {"bf16": "BF16", "fp16": "F16", "fp32": "F32"}
"""Our name of a plain format -> its name in a header."""
OPENING = """<!-- Written by scripts/exactness.py from the catalogue and tests/witness: edit there. -->
# How exact the counts are

One row per model of the catalogue. **Ours** is what vramfit counts from the configuration.
**Theirs** is the number of parameters of the model that transformers (or diffusers) itself builds from the same
configuration, without memory; where both lists of tensors are the same, names and shapes, the row says so.
**File** is a real checkpoint's own index: its bytes, and its names, beside those that our specification implies; or the
size of its one file, which is ours to the byte only if all names and shapes are. A copy or a fine-tune of the same
shapes counts; "with" names the fields in which its configuration is another.

"""


def digest(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Return a fingerprint of names and shapes, whatever their order."""
    lines = sorted(f"{name} {'x'.join(map(str, shape))}\n" for name, shape in shapes.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def names_digest(names: Iterable[str]) -> str:
    """Return a fingerprint of names, whatever their order."""
    return digest(dict.fromkeys(names, ()))


def file_bytes(spec: ModelSpec) -> int:
    """Return the bytes of every tensor of the checkpoint, those that a plain load leaves on disk included."""
    return sum(tensor_bytes(tensor, spec.scheme) for tensor in inventory(spec))


def file_size(spec: ModelSpec, folder: str = "") -> int:
    """Return the bytes of the one safetensors file that holds a model, or a pipeline's folder, not quantised. [B]

        8 + the header in JSON, filled up to a multiple of 8 + the tensors, widest type first, then by name

    Equal to a real file's only if all names and shapes are, so the size that an LFS pointer states is a witness.
    Source: huggingface/safetensors:safetensors/src/tensor.rs, serialize.
    """
    inside = (tensor for tensor in inventory(spec) if tensor.name.startswith(folder))
    tensors = sorted(inside, key=lambda t: (-_element_bytes(t, spec), t.name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        start, end = end, end + tensor_bytes(tensor, spec.scheme)
        dtype = TYPES[spec.scheme.format_of(tensor).name]
        header[tensor.name.removeprefix(folder)] = {
            "dtype": dtype,
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":"))
    return 8 + 8 * ceil_div(len(text), 8) + end


def _element_bytes(tensor: Tensor, spec: ModelSpec) -> int:
    return spec.scheme.format_of(tensor).tensor_size((1,))


def recorded(path: Path) -> dict[str, Any]:
    """Return what is recorded, by the catalogue's names."""
    return dict(json.loads(path.read_text("utf-8"))) if path.exists() else {}


def write_record(path: Path, rows: Mapping[str, Any]) -> None:
    """Write one line per model, sorted, so that a change is one line of a difference."""
    lines = (f"{json.dumps(name)}: {json.dumps(rows[name])}" for name in sorted(rows, key=str.lower))
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")


def page(rows: Iterable[ModelRow]) -> str:
    """Return the page as it should be."""
    counts, headers = recorded(COUNTS), recorded(HEADERS)
    lines, differing = [], []
    for row in rows:
        spec = read_model(row.config, name=row.name)
        theirs, difference = _theirs(row, spec, counts.get(row.name, {}))
        if difference not in {"0", ""}:
            differing.append(row.name)
        cells = (
            row.name, str(row.config.get("model_type", spec.family)), f"{spec.num_parameters:,}",
            format_count(spec.num_active_parameters) if spec.num_active_parameters != spec.num_parameters else "all",
            theirs, difference, _published(row, spec), _files(row, headers.get(row.name, ())),
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    asked = sum("parameters" in counts.get(row.name, {}) for row in rows)
    summary = (
        f"{len(lines)} models; {asked} of them built by transformers or diffusers as well, {len(differing)} with "
        f"another count; {sum(row.name in headers for row in rows)} beside the index of a real file.\n\n"
    )
    head = (
        "| Model | Kind | Ours | Active | Theirs | Difference | Published | File |\n"
        "|---|---|--:|--:|---|--:|---|---|\n"
    )  # fmt: skip
    return OPENING + summary + head + "\n".join(lines) + "\n"


def _theirs(row: ModelRow, spec: ModelSpec, found: Mapping[str, Any]) -> tuple[str, str]:
    """Return what the library counted, and by how much ours is more."""
    if "parameters" not in found:
        return str(found.get("none", "not asked")), ""
    more = spec.num_parameters - int(found["parameters"])
    plain = {name: value for name, value in row.config.items() if name != "quantization_config"}
    saved_as = as_saved(resident(read_model(plain, name=row.name)), spec.family)
    same = found["digest"] == digest(saved_as)
    names = f"same {found['tensors']:,} names and shapes" if same else found.get("why", "names differ")
    return f"{found['parameters']:,} ({found['class']}; {names})", f"{more:+,}" if more else "0"


def _published(row: ModelRow, spec: ModelSpec) -> str:
    if row.parameters is None:
        return ""
    more = spec.num_parameters - row.parameters
    return f"{row.parameters:,}" + (f" ({more:+,})" if more else "")


def _files(row: ModelRow, files: Iterable[Mapping[str, Any]]) -> str:
    return "; ".join(_file(row, found) for found in files)


def _file(row: ModelRow, found: Mapping[str, Any]) -> str:
    """Return the bytes of a real file, by how much ours are more, and whether the names are the same."""
    spec = read_model({**row.config, **found.get("with", {})}, name=row.name)
    if "file" in found:
        folder = str(found.get("folder", ""))
        theirs, ours, names = int(found["file"]), file_size(spec, folder), f"{folder} header included".lstrip()
    else:
        theirs, ours, names = int(found["bytes"]), file_bytes(spec), f"same {found['tensors']:,} names"
        if names_digest(tensor.name for tensor in inventory(spec)) != found["digest"]:
            names = "other names"
    difference = f"{ours - theirs:+,}" if ours != theirs else "difference 0"
    changed = f"; with its {', '.join(found['with'])}" if "with" in found else ""
    why = f"; {found['why']}" if "why" in found else ""
    return f"{theirs:,} B ({difference}; {names}{changed}{why}; {found['source']})"


def measure(row: ModelRow) -> dict[str, Any]:
    """Return what transformers says of a row: class, parameters, how many tensors it would save, their fingerprint."""
    import transformers  # noqa: PLC0415 - only --measure needs it

    if "components" in row.config:
        import diffusers  # noqa: PLC0415 - so

        models = build_components(row.config)
        shapes = saved_components(models)
        return {
            "program": f"diffusers {diffusers.__version__}, transformers {transformers.__version__}",
            "class": str(row.config["_class_name"]),
            "parameters": sum(p.numel() for model in models.values() for p in model.parameters()),
            "tensors": len(shapes),
            "digest": digest(shapes),
        }
    try:
        model = build(dict(row.config))
    except (ValueError, KeyError, ImportError) as error:
        return {"none": f"not in transformers {transformers.__version__}: {str(error).splitlines()[0][:80]}"}
    except (AttributeError, TypeError) as error:
        return {"none": f"fails in transformers {transformers.__version__}: {str(error).splitlines()[0][:80]}"}
    shapes = saved(model, str(row.config["model_type"]))
    return {
        "program": f"transformers {transformers.__version__}",
        "class": type(model).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "tensors": len(shapes),
        "digest": digest(shapes),
    }


def main(arguments: list[str]) -> int:
    """Write, compare or measure."""
    rows = all_models()
    if "--measure" in arguments:
        wanted, known = [a for a in arguments if not a.startswith("-")], recorded(COUNTS)
        for row in rows:
            if row.name in wanted or (not wanted and row.name not in known):
                known[row.name] = measure(row)
                print(row.name, known[row.name])
                write_record(COUNTS, known)
    text = page(rows)
    if "--check" in arguments:
        fresh = PAGE.exists() and PAGE.read_text("utf-8") == text
        print("" if fresh else f"{PAGE.relative_to(ROOT)}: stale; run scripts/exactness.py", file=sys.stderr, end="\n")
        return 0 if fresh else 1
    PAGE.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The GGUF models of one repository side by side: how large each is, which fit, and how to ask for another."""

from __future__ import annotations

from vramfit.readers.gguf_files import GgufChoice
from vramfit.report.rows import Row, Section, Tone
from vramfit.result import Answer, Verdict
from vramfit.units import ceil_div, format_gib


def section(choices: tuple[GgufChoice, ...], answered: Answer, named: str) -> Section:
    """Return a row per model, and the largest that fits; without a device sizes only."""
    judged = answered.fit.verdict is not Verdict.UNKNOWN
    models = [choice for choice in choices if not choice.projector]
    margins = {choice: margin_bytes(choice, answered) for choice in models} if judged else {}
    rows = [_row(choice, margins.get(choice)) for choice in models]
    rows += [
        Row(c.files[0], format_gib(c.num_bytes), "projector, beside the model", Tone.QUIET)
        for c in choices
        if c.projector
    ]
    fitting = [choice for choice in models if margins.get(choice, -1) >= 0]
    if fitting:
        best = max(fitting, key=lambda choice: choice.num_bytes)
        rows.append(Row(f"The largest that fits: vramfit infer {_named(best, named)}", tone=Tone.GOOD))
    elif judged:
        rows.append(Row("None of them fits with this context and batch", tone=Tone.BAD))
    return Section("GGUF models there, GiB of the file", tuple(rows))


def margin_bytes(choice: GgufChoice, answered: Answer) -> int:
    """Return what is left on the fullest device with another file: the answer's margin, weights exchanged. [B]

        margin - (file - weights) / ranks

    The file's header and vocabulary, about 10 MB, are counted as if they were weights.
    """
    ranks = sum(breakdown.num_ranks for breakdown in answered.estimate.breakdowns)
    heavier = choice.num_bytes - answered.estimate.weights_bytes
    return answered.fit.margin_bytes - ceil_div(heavier, ranks)


def _row(choice: GgufChoice, margin: int | None) -> Row:
    split = f"{len(choice.files)} files; " if len(choice.files) > 1 else ""
    if margin is None:
        return Row(choice.name, format_gib(choice.num_bytes), f"{split}{choice.files[0]}")
    fits = f"fits, {format_gib(margin)} GiB left" if margin >= 0 else f"{format_gib(-margin)} GiB short"
    return Row(choice.name, format_gib(choice.num_bytes), f"{split}{fits}", Tone.GOOD if margin >= 0 else Tone.BAD)


def _named(choice: GgufChoice, named: str) -> str:
    return f"{named}:{choice.label}" if choice.label else f"{named}/{choice.files[0]}"

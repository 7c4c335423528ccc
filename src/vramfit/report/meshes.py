"""Ranked meshes for people: the first one and why, the others in a table, what was refused and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vramfit.mesh import FORMULA, MeshAnswer, Ranked, Refusal
from vramfit.report.answer import TONES
from vramfit.report.rows import Row, Section, Tone
from vramfit.request import Plan
from vramfit.result import Verdict
from vramfit.units import count_of, format_bytes, format_gib

DEGREES = ("dp_replicate", "dp_shard", "tp", "pp", "cp", "ep", "etp")


def sections(answer: MeshAnswer) -> Iterator[Section]:
    """Yield the whole report."""
    yield _headline(answer)
    if answer.ranked:
        what = "Candidates" if answer.every else "Meshes"
        yield Section(f"{what} that fit, by the proxy (1 = nothing but the model's matrices)", tuple(_table(answer)))
    elif answer.nearest is not None:
        near = answer.nearest
        yield Section("The candidate that lacks least", (*_row(1, near), *_reason(near)))
    if answer.refusals:
        yield Section("Refused, candidates", tuple(_refusal(each) for each in answer.refusals))
    yield Section("The proxy", tuple(_proxy(answer)))
    if answer.assumptions:
        yield Section("Assumed", tuple(Row(f"- {text}", tone=Tone.WARN) for text in answer.assumptions))


def _headline(answer: MeshAnswer) -> Section:
    many = f"{answer.num_devices} x {answer.device}"
    asked = (
        f"{answer.model}, {answer.framework}: {count_of(answer.global_batch, 'sequence')} of "
        f"{answer.sequence_tokens:,} tokens in a step"
    )
    counted = (
        f"{count_of(answer.num_candidates, 'candidate')}: {answer.num_fitting:,} fit, {answer.num_tight:,} are tight"
    )
    if not answer.ranked:
        return Section(
            "", (Row(f"No mesh fits on {many}", tone=Tone.BAD), Row(asked), Row(counted), Row(answer.because))
        )
    first = answer.ranked[0]
    tone = TONES[first.verdict]
    best = f"{'Fits' if first.verdict is Verdict.FITS else 'Tight'} on {many}: {written(first)}"
    return Section("", (Row(best, tone=tone), Row(answer.because), Row(asked), Row(counted)))


def written(ranked: Ranked) -> str:
    """Write a candidate in one line."""
    candidate = ranked.candidate
    each = f"micro-batch {candidate.micro_batch} x {candidate.accumulation}, recompute {candidate.recompute}"
    return f"{degrees(candidate.plan)}; {each}"


def degrees(plan: Plan) -> str:
    """Write a plan: its degrees above 1, its schedule, how states are divided."""
    found = [f"{name} {getattr(plan, name)}" for name in DEGREES if (getattr(plan, name) or 1) > 1]
    if plan.pp > 1:
        pieces = f" x {plan.virtual_stages}" if (plan.virtual_stages or 1) > 1 else ""
        found.append(f"{plan.pp_schedule}{pieces}")
    if plan.zero_stage is not None:
        found.append(f"ZeRO {plan.zero_stage}")
    elif plan.distributed_optimizer:
        found.append("distributed optimizer")
    elif plan.reshard_after_forward is not None and plan.dp_shard * plan.cp > 1:
        found.append("FSDP" if plan.reshard_after_forward else "FSDP without resharding")
    return ", ".join(found) or "one device"


def _table(answer: MeshAnswer) -> Iterable[Row]:
    for number, ranked in enumerate(answer.ranked, start=1):
        yield from _row(number, ranked)
    rest = answer.num_fitting + answer.num_tight - len(answer.ranked)
    if rest > 0:
        how = "more of them: --top" if answer.every else "other candidates of these meshes: --all; more meshes: --top"
        yield Row(f"{rest:,} more", "", how, Tone.QUIET)


def _row(number: int, ranked: Ranked) -> Iterator[Row]:
    side = "left" if ranked.margin_bytes >= 0 else "short"
    memory = (
        f"{format_gib(ranked.peak_bytes)} GiB, {format_gib(ranked.high_bytes)} at most, "
        f"{format_gib(abs(ranked.margin_bytes))} {side}"
    )
    tone = Tone.STRONG if number == 1 else Tone.WARN if ranked.verdict is Verdict.TIGHT else Tone.PLAIN
    tight = "; tight" if ranked.verdict is Verdict.TIGHT else ""
    yield Row(f"{number}.", f"{ranked.proxy.cost:.3f}", f"{written(ranked)}: {memory}{tight}", tone)


def _reason(ranked: Ranked) -> Iterator[Row]:
    yield Row("heaviest", "", ranked.heaviest_rank)


def _refusal(refusal: Refusal) -> Row:
    text = f"such as {refusal.example}" if refusal.example else ""
    return Row(refusal.reason, f"{refusal.num_candidates:,}", text)


def _proxy(answer: MeshAnswer) -> Iterator[Row]:
    formula, *words = FORMULA
    yield Row(formula, tone=Tone.STRONG)
    yield from (Row(word, tone=Tone.QUIET) for word in words)
    links = answer.links
    inside, between = format_bytes(links.inside_bytes_per_second), format_bytes(links.between_bytes_per_second)
    rate = f"{links.matrix_operations_per_second / 10**12:,.0f} T operations/s"
    yield Row(f"nodes of {links.node_devices}, {inside}/s inside, {between}/s between, {rate}: {links.source}",
              tone=Tone.QUIET)  # fmt: skip
    if answer.ranked:
        cost = answer.ranked[0].proxy
        sent = f"{format_bytes(cost.inside_bytes)} inside its node and {format_bytes(cost.between_bytes)} to others"
        yield Row(f"the first sends {sent} in a step, on its busiest rank", tone=Tone.QUIET)

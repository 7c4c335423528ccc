"""The smallest change that makes a training run fit: one knob at a time, then the cheapest combination."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from vramfit.framework import Sharding
from vramfit.frameworks.abilities import ABILITIES
from vramfit.frameworks.profile import find_framework
from vramfit.request import Plan, field_names
from vramfit.result import Change, Fit, Limit, Verdict
from vramfit.train_search import TrainingQuestion, attempt, recomputes_of, sequence_step
from vramfit.training import AdapterAsked, OffloadAsked, Training
from vramfit.training_choices import ON_FROZEN
from vramfit.training_plan import cutting, sharding_of
from vramfit.units import ceil_div

FREE, FASTER, SLOWER, HOST, QUALITY, METHOD, DEVICES = range(7)
"""What a change costs, cheapest first: nothing; nothing but another kernel; time; host memory and time; quality;
another method; more devices."""
ONE_DEVICE = Plan()
MOST_MORE_DEVICES = 8
"""Changes offer up to so many times the devices; more than that is a question for ``vramfit plan``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One change of a workload or a plan that may be put together with others."""

    knob: str
    """What it turns: of one knob only one change is taken."""
    flags: str
    price: int
    note: str
    workload: dict[str, object]
    plan: dict[str, object]

    def on(self, workload: Training, plan: Plan) -> tuple[Training, Plan]:
        """Return workload and plan with the change made."""
        return replace(workload, **self.workload), replace(plan, **self.plan)  # type: ignore[arg-type]


def _step(
    knob: str, flags: str, price: int, note: str, plan: dict[str, object] | None = None, **fields: object
) -> Step:
    return Step(knob=knob, flags=flags, price=price, note=note, workload=fields, plan=plan or {})


def smallest_change(question: TrainingQuestion, micro_batch: Limit, sequence: Limit) -> tuple[Change, ...]:
    """Return changes that make it fit, the one that frees least first; then those that help but do not suffice.

    Where none suffices alone, the cheapest combination that does stands first.
    """
    before = question.fit()
    found: list[tuple[Step, Change]] = []
    for step in steps(question, micro_batch, sequence):
        change = _change(question, before, step)
        if change is not None:
            found.append((step, change))
    singles = sorted((change for _, change in found if change.saves_bytes > 0), key=_place)
    if any(change.verdict is Verdict.FITS for change in singles):
        return tuple(singles)
    both = cheapest_combination(question, before, [step for step, _ in found])
    return tuple(singles) if both is None else (both, *singles)


def _place(change: Change) -> tuple[bool, int]:
    """Sort sufficient changes first by least saved, insufficient ones by most."""
    enough = change.verdict is Verdict.FITS
    return not enough, change.saves_bytes if enough else -change.saves_bytes


def _change(question: TrainingQuestion, before: Fit, *steps: Step) -> Change | None:
    """Return what some steps together bring; None = they contradict something else that was asked."""
    workload, plan = question.workload, question.plan
    for step in steps:
        workload, plan = step.on(workload, plan)
    after = attempt(question, workload, plan)
    if after is None:
        return None
    return Change(
        flags=" ".join(step.flags for step in steps),
        saves_bytes=after.margin_bytes - before.margin_bytes,
        verdict=after.verdict,
        margin_bytes=after.margin_bytes,
        note="; ".join(step.note for step in steps),
    )


def cheapest_combination(question: TrainingQuestion, before: Fit, possible: list[Step]) -> Change | None:
    """Return a combination that fits and of which no part can be left out; None = all together do not suffice.

    Steps are added from the cheapest price on, of one knob the cheapest that helps, a dearer one in its place where
    that is not enough, and again from the cheapest on, because one that lowers the peak of another phase helps only
    once that phase is the peak. Then every step that is not needed is taken out again, the dearest first.
    """
    taken: dict[str, Step] = {}
    saved, grew = 0, True
    while grew:
        grew = False
        for step in sorted(possible, key=lambda each: each.price):
            tried = {**taken, step.knob: step}
            change = _change(question, before, *tried.values())
            if change is None or change.saves_bytes <= saved:
                continue
            taken, saved, grew = tried, change.saves_bytes, True
            if change.verdict is Verdict.FITS:
                return _without_idle(question, before, taken)
    return None


def _without_idle(question: TrainingQuestion, before: Fit, taken: dict[str, Step]) -> Change | None:
    """Take out every step without which it fits too, the dearest first."""
    kept = dict(taken)
    for step in sorted(taken.values(), key=lambda each: -each.price):
        rest = {knob: each for knob, each in kept.items() if knob != step.knob}
        change = _change(question, before, *rest.values()) if rest else None
        if change is not None and change.verdict is Verdict.FITS:
            kept = rest
    return _change(question, before, *kept.values())


def steps(question: TrainingQuestion, micro_batch: Limit, sequence: Limit) -> Iterator[Step]:
    """Yield every single change that could help, whatever it costs."""
    yield from _kernels(question)
    yield from _recomputation(question)
    yield from _optimizer(question)
    yield from _methods(question)
    yield from _sizes(question, micro_batch, sequence)
    yield from _devices(question)


def _kernels(question: TrainingQuestion) -> Iterator[Step]:
    now = question.understood
    if now.attention == "eager":
        note = "the same result without a matrix of scores; faster"
        yield _step("attention", "--attention flash", FREE, note, attention="flash")
    if now.loss in {"plain", "fp32"}:
        note = "the same result without fp32 copies of all logits"
        yield _step("loss", "--loss chunked", FREE, note, loss="chunked")
    if now.loss != "fused-linear":
        note = "logits are never held (Liger, cut cross-entropy); about as fast"
        yield _step("loss", "--loss fused-linear", FASTER, note, loss="fused-linear", loss_chunk_tokens=None)


def _recomputation(question: TrainingQuestion) -> Iterator[Step]:
    known = recomputes_of(question.workload)
    now = question.understood.recompute or "none"
    costs = {
        "selective": "part of the forward pass runs twice; a few percent slower",
        "offload": "block inputs wait in host memory and blocks run twice; about a third more arithmetic",
        "full": "every block runs forward twice; about a third more arithmetic",
    }
    places = {"none": 0, "selective": 1, "full": 2, "offload": 3}
    for name, note in costs.items():
        if name in known and places[name] > places[now]:
            price = HOST if name == "offload" else SLOWER
            yield _step("recompute", f"--recompute {name}", price, note, recompute=name, recompute_modules=None)


def _optimizer(question: TrainingQuestion) -> Iterator[Step]:
    now = question.understood
    adam = now.optimizer in {"adamw", "adam"}
    if now.optimizer_implementation == "foreach":
        note = "the same result without temporary copies; faster"
        yield _step("implementation", "--optimizer-impl fused", FREE, note, optimizer_implementation="fused")
    if not now.optimizer_in_backward and now.optimizer_implementation != "fused":
        note = "one tensor after the other; slower steps"
        yield _step("implementation", "--optimizer-impl for-loop", SLOWER, note, optimizer_implementation="for-loop")
    if not now.optimizer_in_backward:
        note = "no accumulation and no clipping by the norm of all gradients"
        yield _step("in backward", "--optimizer-in-backward", SLOWER, note, optimizer_in_backward=True)
    if adam:
        for name, price, note in (
            ("adamw-8bit", QUALITY, "moments in one byte (bitsandbytes); small loss"),
            ("paged-adamw", HOST, "moments in managed memory, on the host when the device is full; slower steps then"),
            ("paged-adamw-8bit", QUALITY, "moments in one byte and in managed memory; small loss, slower steps"),
        ):
            yield _step("optimizer", f"--optimizer {name}", price, note, optimizer=name)
    offload = now.offload or OffloadAsked()
    if offload.optimizer is None:
        note = "states and the step on the host; much slower steps"
        yield _step("offload", "--offload optimizer", HOST, note, offload=replace(offload, optimizer="cpu"))
    if offload.parameters is None:
        note = "weights and states on the host, weights travel for every use; much slower"
        both = replace(offload, parameters="cpu", optimizer="cpu")
        yield _step("offload", "--offload parameters,optimizer", HOST, note, offload=both)


def _methods(question: TrainingQuestion) -> Iterator[Step]:
    now = question.understood
    if now.method not in ON_FROZEN:
        note = "trains small matrices beside frozen weights; another result"
        yield _step("method", "--method lora", METHOD, note, method="lora", freeze=None)
    if now.method != "qlora":
        note = "the frozen base in 4 bits, small matrices beside it; another result, slower"
        adapter: AdapterAsked | None = question.workload.adapter
        yield _step("method", "--method qlora", METHOD, note, method="qlora", adapter=adapter, freeze=None)


def _sizes(question: TrainingQuestion, micro_batch: Limit, sequence: Limit) -> Iterator[Step]:
    now = question.understood
    smaller = micro_batch.value or 1
    if smaller < now.micro_batch:
        accumulated = ceil_div((now.gradient_accumulation_steps or 1) * now.micro_batch, smaller)
        note = f"the same batch in {accumulated} passes; slower where passes are small"
        yield _step(
            "micro-batch", f"--batch {smaller} --accumulate {accumulated}", SLOWER, note,
            micro_batch=smaller, gradient_accumulation_steps=accumulated,
        )  # fmt: skip
    shorter = sequence.value or sequence_step(question.plan)
    asked = now.sequence_tokens or 0
    if sequence.value and shorter < asked:
        yield _step("sequence", f"--sequence {shorter}", QUALITY, "shorter sequences", sequence_tokens=shorter)


def _devices(question: TrainingQuestion) -> Iterator[Step]:
    """Yield states divided further over the same ranks, then over more of them."""
    plan = question.plan
    framework, _ = find_framework(question.workload.framework, question.workload.framework_version)
    degrees = ABILITIES[framework.name].degrees
    sharding = sharding_of(framework, plan)
    stage = cutting(framework, plan, 1).zero_stage
    if sharding is Sharding.ZERO and plan.dp_shard > 1:
        for more, note in enumerate(("states", "gradients too", "weights too, which travel for every use"), start=1):
            if more > stage:
                yield _planned(plan, "states", SLOWER, f"ZeRO {more}: divides {note}", zero_stage=more)
    if sharding is Sharding.MEGATRON and stage == 0 and plan.dp_replicate * plan.cp > 1:
        note = "states divided over data-parallel ranks; about as fast"
        yield _planned(plan, "states", FASTER, note, distributed_optimizer=True)
    if sharding is Sharding.DDP and "dp_shard" in degrees:
        note = "weights and states divided instead of copied; weights travel for every use"
        yield _planned(plan, "states", SLOWER, note, dp_shard=plan.dp_replicate, dp_replicate=1)
    for times in (2, 4, MOST_MORE_DEVICES):
        devices = f"{plan.num_devices * times} devices"
        if "dp_shard" in degrees:
            note = f"states divided further: {devices}"
            yield _planned(plan, "devices", DEVICES, note, dp_shard=plan.dp_shard * times)
        if "tp" in degrees:
            note = f"matrices divided further: {devices}"
            yield _planned(plan, "devices", DEVICES, note, tp=plan.tp * times)


def _planned(plan: Plan, knob: str, price: int, note: str, **fields: object) -> Step:
    """Return a change of the plan; its flags say the whole plan."""
    changed = replace(plan, **fields)  # type: ignore[arg-type]
    return _step(knob, f"--plan {plan_text(changed)}", price, note, fields)


def plan_text(plan: Plan) -> str:
    """Write a plan as ``--plan`` takes it: what differs from one device.

    >>> plan_text(Plan(dp_shard=8, tp=2, reshard_after_forward=False))
    'dp_shard=8,tp=2,reshard_after_forward=false'
    """
    found = []
    for name in field_names(Plan):
        value = getattr(plan, name)
        if value != getattr(ONE_DEVICE, name):
            text = str(value).lower() if isinstance(value, bool) else str(value)
            found.append(f"{name}={'/'.join(map(str, value)) if isinstance(value, tuple) else text}")
    return ",".join(found)

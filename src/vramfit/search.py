"""The inverses: fewest devices, longest context, largest batch, smallest change.

All of them ask the forward functions again; there is no second formula. A value counts as
fitting when even the high figure does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import product

from vramfit.device import Device
from vramfit.engines.profile import find_engine
from vramfit.errors import ImpossiblePlanError
from vramfit.estimate import Counted, breakdowns, count
from vramfit.fit import fit
from vramfit.memory.weights import weight_bytes
from vramfit.request import Inference, Plan
from vramfit.result import Change, DeviceOption, Fit, Limit, Verdict
from vramfit.spec import ModelSpec
from vramfit.understand import ASSUMED_CONTEXT_TOKENS, Understood, understand
from vramfit.units import ceil_div

MOST_DEVICES = 512
MOST_TENSOR_RANKS = 8
"""Tensor parallelism is searched within one server of eight devices; beyond that stages are added."""
COUNTS = (*range(1, 9), *range(16, MOST_DEVICES + 1, 8))
"""How many of the named kind: every count to 8, then whole servers of 8."""
RENTED = (1, 2, 4, 8, *range(16, MOST_DEVICES + 1, 8))
"""How many of another kind are offered: what servers are rented with."""
MOST_OTHERS = 16
"""Other kinds are offered up to this many, or twice as many as of the named kind."""
MOST_BATCH = 2**20
MOST_POWER = 9
"""Smaller passes are searched from 2 ** 9 sequences, and as many tokens, down."""
FEWEST_TOKENS = 256
SHARES = 100
"""Shares of a card are searched in hundredths."""
MOST_CONTEXT = 2**27


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A model, a workload, and the devices it is to run on."""

    model: ModelSpec
    workload: Inference
    plan: Plan
    device: Device
    headroom_bytes: int = 0

    def fit(self) -> Fit:
        """Judge the question as it stands."""
        counted = count(understand(self.model, self.workload, self.device), self.plan)
        return fit(breakdowns(counted, self.device), self.device, self.headroom_bytes)


@dataclass(frozen=True, slots=True)
class Plans:
    """Counts one workload under many plans, each plan once for all devices with the same defaults."""

    model: ModelSpec
    workload: Inference
    weights_bytes: int
    _understood: dict[str, Understood] = field(default_factory=dict)
    _known: dict[tuple[Inference, Plan], Counted | None] = field(default_factory=dict)

    def fit(self, plan: Plan, device: Device, headroom_bytes: int) -> Fit | None:
        """Judge a plan on a device; None when the model cannot be cut so."""
        if device.name not in self._understood:
            self._understood[device.name] = understand(self.model, self.workload, device)
        understood = self._understood[device.name]
        key = (understood.workload, plan)
        if key not in self._known:
            try:
                self._known[key] = count(understood, plan)
            except ImpossiblePlanError:
                self._known[key] = None
        counted = self._known[key]
        return None if counted is None else fit(breakdowns(counted, device), device, headroom_bytes)

    def best(self, num_devices: int, device: Device, headroom_bytes: int) -> tuple[Plan, Fit] | None:
        """Return the plan over exactly that many devices that fits with the fewest stages; None when there is none.

        Stages wait for one another and matrices do not, so engines advise tensor parallelism within a server.
        When nothing fits, the plan with the largest margin shows how much is missing.
        """
        found = []
        for tp in (t for t in range(1, MOST_TENSOR_RANKS + 1) if num_devices % t == 0):
            plan = Plan(tp=tp, pp=num_devices // tp)
            deepest = max(1, len(self.model.layers))
            judged = self.fit(plan, device, headroom_bytes) if plan.pp <= deepest else None
            if judged is not None:
                found.append((plan, judged))
        fitting = [pair for pair in found if pair[1].verdict is Verdict.FITS]
        if fitting:
            return min(fitting, key=lambda pair: pair[0].pp)
        return max(found, key=lambda pair: pair[1].margin_bytes, default=None)

    def fewest(self, device: Device, headroom_bytes: int, counts: Iterable[int]) -> DeviceOption:
        """Return the fewest devices of one kind that hold the job, of those counts."""
        room = max(1, device.capacity_bytes - headroom_bytes)
        least = max(1, ceil_div(self.weights_bytes, room))
        plan, verdict, margin = Plan(), Verdict.DOES_NOT_FIT, 0
        for num in counts:
            best = self.best(num, device, headroom_bytes) if num >= least else None
            if best is None:
                continue
            plan, verdict, margin = best[0], best[1].verdict, best[1].margin_bytes
            if verdict is Verdict.FITS:
                price = None if device.price is None else device.price.times(num)
                return DeviceOption(
                    device=device.name, count=num, plan=plan, verdict=verdict, margin_bytes=margin, price=price
                )
        return DeviceOption(device=device.name, count=0, plan=plan, verdict=verdict, margin_bytes=margin)


def plans_for(model: ModelSpec, workload: Inference) -> Plans:
    """Return what counts a workload under many plans."""
    understood = understand(model, workload)
    return Plans(model, workload, weight_bytes(understood.model))


def device_options(question: Question, others: Iterable[Device]) -> tuple[DeviceOption, ...]:
    """Return the fewest devices of the named kind, then of every other kind offered, fewest and smallest first."""
    plans = plans_for(question.model, question.workload)
    own = plans.fewest(question.device, question.headroom_bytes, COUNTS)
    wanted = [n for n in RENTED if n <= max(MOST_OTHERS, 2 * own.count)]
    found = [
        (plans.fewest(d, question.headroom_bytes, wanted), d)
        for d in others
        if d.offered and d.name != question.device.name
    ]
    usable = sorted((o.count, d.capacity_bytes, d.name, o) for o, d in found if o.count)
    return (own, *(entry[-1] for entry in usable))


def largest_fitting(room: Callable[[int], int], most: int, start: int) -> int:
    """Return the largest n from 1 to ``most`` with ``room(n) >= 0``, 0 if none; ``room`` never grows.

    Memory is nearly linear in n, so the next n is where the line through the last two would cross zero;
    every third step halves the bracket instead, which bounds the number of steps.

    >>> largest_fitting(lambda n: 50 - n * n, 100, 3)
    7
    """
    low, high, n = 0, most + 1, min(start, most)
    seen: list[tuple[int, int]] = []
    while high - low > 1:
        left = room(n)
        low, high = (n, high) if left >= 0 else (low, n)
        seen.append((n, left))
        n = (low + high) // 2 if len(seen) % 3 == 0 else _crossing(seen, low)
        n = max(low + 1, min(high - 1, n))
    return low


def _crossing(seen: list[tuple[int, int]], low: int) -> int:
    """Return where the line through the last two points crosses zero; from one point, its double or its half."""
    (n, left), *before = seen[::-1]
    if not before:
        return 2 * n if left >= 0 else n // 2
    m, other = before[0]
    slope = (other - left) // (n - m) if n != m else 0
    return n + left // slope if slope > 0 else 2 * low


def longest_context(question: Question) -> Limit:
    """Return the longest context that fits, all else as asked; at most what the model was made for. [tokens]"""
    made_for = question.model.max_position_embeddings
    asked = question.workload.context_tokens or ASSUMED_CONTEXT_TOKENS
    value = largest_fitting(lambda n: _room(_with_context(question, n)), made_for or MOST_CONTEXT, asked)
    return Limit(value=value, bounded_by="max_position_embeddings" if value == made_for else "memory")


def largest_batch(question: Question) -> Limit:
    """Return the largest batch that fits, all else as asked. [sequences]"""
    value = largest_fitting(lambda n: _room(_with_batch(question, n)), MOST_BATCH, question.workload.batch)
    return Limit(value=value, bounded_by="memory" if value < MOST_BATCH else "the search")


def _room(question: Question) -> int:
    """Bytes left on the fullest rank even by the high figure; negative when that does not fit. [B]"""
    return question.fit().high_margin_bytes


def _with_context(question: Question, context: int) -> Question:
    """Ask for another context; a prompt that was given stays, as long as it fits in."""
    prompt = question.workload.prompt_tokens
    prompt = None if prompt is None else min(prompt, context)
    return replace(
        question, workload=replace(question.workload, context_tokens=context, prompt_tokens=prompt, new_tokens=None)
    )


def _with_batch(question: Question, batch: int) -> Question:
    return replace(question, workload=replace(question.workload, batch=batch))


_WEIGHTS = (
    ("fp8", "one byte per weight; small loss; needs compute capability 8.9 to be fast"),
    ("int8", "one byte per weight (LLM.int8()); small loss, slower"),
    ("int4", "half a byte and a scale per 128; some loss; needs a quantised checkpoint (AWQ, GPTQ)"),
    ("nf4-dq", "half a byte, quantised while loading (bitsandbytes); some loss, slower"),
)
_FP8 = (("fp8", "half the cache; small loss"),)
_Q8 = (("q8_0", "about half the cache; small loss; needs flash attention"),)
_CACHES = {"llama.cpp": _Q8, "ollama": _Q8}
"""Engines that know other formats of the cache than fp8."""


def smallest_change(
    question: Question, context: Limit | None, batch: Limit | None, fewest: DeviceOption
) -> tuple[Change, ...]:
    """Return changes that make it fit, the one that frees least first; then those that help but do not suffice.

    Without limits (None: a diffusion pipeline) only weight formats and devices are tried.
    Tried one at a time: cache format, weight format, context, batch, devices; pairs of cache and
    weight format when neither suffices alone.
    """
    before = question.fit()
    singles = [_change(before, *c) for c in _candidates(question, context, batch)]
    enough = {c.flags for c in singles if c.verdict is Verdict.FITS}
    if context is not None:
        singles += [_change(before, *c) for c in _pairs(question, enough)]
    if fewest.count:
        singles.append(_more_devices(before, fewest))
    helpful = [c for c in singles if c.saves_bytes > 0]
    return tuple(sorted(helpful, key=lambda c: (c.verdict is not Verdict.FITS, _sign(c) * c.saves_bytes)))


def _sign(change: Change) -> int:
    """Sort sufficient changes by least saved, insufficient ones by most."""
    return 1 if change.verdict is Verdict.FITS else -1


def _candidates(question: Question, context: Limit | None, batch: Limit | None) -> Iterable[tuple[str, Question, str]]:
    workload = question.workload
    if context is not None and context.value and context.bounded_by == "memory":
        yield f"--context {context.value}", _with_context(question, context.value), "shorter sequences"
    if batch is not None and 0 < batch.value < workload.batch:
        yield f"--batch {batch.value}", _with_batch(question, batch.value), "fewer sequences at once"
    if "memory_fraction" in find_engine(workload.engine).knobs:
        shares = tuple(_fractions(question))
        yield from shares
        yield from _smaller_passes(question, alone=bool(shares))
    for name, note in _caches(question) if context is not None else ():
        yield f"--kv-format {name}", _with(question, kv=name), note
    if "gpu_layers" in find_engine(workload.engine).knobs:
        yield from _layers(question)
    for name, note in _WEIGHTS:
        yield f"--weights {name}", _with(question, weights=name), note


def _caches(question: Question) -> tuple[tuple[str, str], ...]:
    return _CACHES.get(question.workload.engine, _FP8)


def _fractions(question: Question) -> Iterable[tuple[str, Question, str]]:
    """Yield the smallest share of the card, in hundredths, with which a server starts; nothing when none is enough."""
    low, high = 0, SHARES + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _room(_with_share(question, middle)) >= 0 else (middle, high)
    if high <= SHARES:
        yield f"--fraction {high / SHARES:g}", _with_share(question, high), "less is left for everything else"


def _smaller_passes(question: Question, *, alone: bool) -> Iterable[tuple[str, Question, str]]:
    """Yield the most sequences, and the most tokens of a pass, in powers of two, with which a server starts.

    Where neither is enough, nor a share alone: as few sequences as were asked for, and the smallest share that then is.
    """
    found = []
    for name, flag in (("max_num_seqs", "--max-num-seqs"), ("max_num_batched_tokens", "--max-batched-tokens")):
        least = max(question.workload.batch, 1) if name == "max_num_seqs" else FEWEST_TOKENS
        for value in (2**n for n in range(MOST_POWER, -1, -1) if 2**n >= least):
            smaller = replace(question, workload=replace(question.workload, **{name: value}))
            if _room(smaller) >= 0:
                found.append((f"{flag} {value}", smaller, "smaller passes: a smaller peak"))
                break
    yield from found
    if not found and not alone:
        few = replace(question, workload=replace(question.workload, max_num_seqs=question.workload.batch))
        for flags, changed, note in _fractions(few):
            yield f"--max-num-seqs {question.workload.batch} {flags}", changed, f"smaller passes; {note}"


def _with_share(question: Question, hundredths: int) -> Question:
    return replace(question, workload=replace(question.workload, memory_fraction=hundredths / SHARES))


def _layers(question: Question) -> Iterable[tuple[str, Question, str]]:
    """Yield the most layers that fit on the device."""

    def with_layers(n: int) -> Question:
        return replace(question, workload=replace(question.workload, gpu_layers=n))

    most = len(question.model.layers)
    found = largest_fitting(lambda n: _room(with_layers(n)), most, most)
    if 0 < found < most:
        yield f"--gpu-layers {found}", with_layers(found), "the other layers on the host; slower"


def _pairs(question: Question, enough: set[str]) -> Iterable[tuple[str, Question, str]]:
    """Yield pairs of cache and weight format of which neither is enough alone."""
    for (kv, kv_note), (weights, note) in product(_caches(question), _WEIGHTS):
        flags = (f"--kv-format {kv}", f"--weights {weights}")
        if enough.isdisjoint(flags):
            yield " ".join(flags), _with(question, weights=weights, kv=kv), f"{note}; cache: {kv_note}"


def _with(question: Question, weights: str | None = None, kv: str | None = None) -> Question:
    workload = question.workload
    if weights is not None:
        workload = replace(workload, weight_format=weights, group_size=None)
    if kv is not None:
        workload = replace(workload, kv_format=kv, kv_format_k=None, kv_format_v=None)
    return replace(question, workload=workload)


def _change(before: Fit, flags: str, changed: Question, note: str) -> Change:
    after = changed.fit()
    return Change(
        flags=flags,
        saves_bytes=after.margin_bytes - before.margin_bytes,
        verdict=after.verdict,
        margin_bytes=after.margin_bytes,
        note=note,
    )


def _more_devices(before: Fit, fewest: DeviceOption) -> Change:
    degrees = [f"--{name} {value}" for name, value in (("tp", fewest.plan.tp), ("pp", fewest.plan.pp)) if value > 1]
    return Change(
        flags=" ".join([f"--gpus {fewest.count}", *degrees]),
        saves_bytes=fewest.margin_bytes - before.margin_bytes,
        verdict=fewest.verdict,
        margin_bytes=fewest.margin_bytes,
        note="more devices of the same kind",
    )

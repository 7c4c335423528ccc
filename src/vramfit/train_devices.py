"""The fewest devices of each kind that hold a training run: a rank is counted once and set on every kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from vramfit.device import Device
from vramfit.errors import VramfitError
from vramfit.fit import fit
from vramfit.framework import Framework, Sharding
from vramfit.frameworks.abilities import ABILITIES
from vramfit.frameworks.profile import find_framework
from vramfit.memory.model_states import Setting
from vramfit.request import Plan
from vramfit.result import Breakdown, DeviceOption, Fit, Item, Verdict
from vramfit.spec import ModelSpec
from vramfit.train import count_rank, on_device, settings_of
from vramfit.train_search import TrainingQuestion
from vramfit.training import Training
from vramfit.training_objective import GENERATING

COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""How many devices are tried first."""
BETWEEN = (3, 5, 6, 7, 24, 40, 48, 56)
"""How many of the named kind are tried next, where they lie between one that does not do and one that does."""
MOST_TENSOR_RANKS = 8
MOST_OTHERS = 16
"""Other kinds are offered up to this many, or twice as many as of the named kind."""


@dataclass(frozen=True, slots=True)
class Counted:
    """The ranks of one plan, and what torch allocates on the fullest of them."""

    ranks: tuple[tuple[Setting, tuple[Item, ...]], ...]
    allocated_bytes: int

    def fit(self, device: Device, headroom_bytes: int) -> Fit:
        """Judge them on a device."""
        return fit(tuple(on_device(items, setting, device) for setting, items in self.ranks), device, headroom_bytes)


@dataclass(frozen=True, slots=True)
class TrainingPlans:
    """One training run over many plans, each counted once for all devices."""

    model: ModelSpec
    workload: Training
    asked: Plan
    framework: Framework
    _known: dict[Plan, Counted | None] = field(default_factory=dict)

    def counted(self, plan: Plan, device: Device) -> Counted | None:
        """Return what the ranks of a plan allocate; None = it cannot be carried out."""
        if plan not in self._known:
            try:
                settings = settings_of(self.model, self.workload, plan)[3]
                ranks = tuple((setting, count_rank(setting, device)[0]) for setting in settings)
                peaks = (Breakdown(rank="", num_ranks=1, items=items).peak() for _, items in ranks)
                self._known[plan] = Counted(ranks, max(peak.expected_bytes for peak in peaks))
            except VramfitError:
                self._known[plan] = None
        return self._known[plan]

    def plans(self, num_devices: int) -> Iterator[Plan]:
        """Yield plans over exactly so many devices: data-parallel ranks that divide states, then tp, then pp.

        Everything else that was asked of the plan stays; a framework that cannot divide so is not asked to.
        """
        able = ABILITIES[self.framework.name].degrees
        data = "dp_shard" if "dp_shard" in able else "dp_replicate"
        if num_devices > 1 and data not in able:
            return
        stages = [n for n in (1, 2, 4, 8, 16) if n == 1 or ("pp" in able and n <= len(self.model.layers))]
        matrices = [n for n in (1, 2, 4, 8) if n == 1 or "tp" in able]
        for pp in stages:
            for tp in matrices:
                if num_devices % (pp * tp) == 0:
                    plan = self._over(num_devices // (pp * tp), tp, pp, shards=data == "dp_shard")
                    yield from self._divided(plan)

    def _over(self, data: int, tp: int, pp: int, *, shards: bool) -> Plan:
        """Return what was asked of the plan with other degrees; what only a pipeline has goes with it."""
        plan = replace(
            self.asked, dp_shard=data if shards else 1, dp_replicate=1 if shards else data, tp=tp, pp=pp,
            cp=1, ep=1, etp=None, layers_per_stage=None,
        )  # fmt: skip
        return plan if pp > 1 else replace(plan, pp_schedule=None, virtual_stages=None, micro_batches=None)

    def _divided(self, plan: Plan) -> Iterator[Plan]:
        """Yield a plan as asked, and with states divided as far as the framework can where that was left open."""
        yield plan
        if self.framework.sharding is Sharding.MEGATRON and plan.distributed_optimizer is None:
            yield replace(plan, distributed_optimizer=True)
        if self.framework.sharding is Sharding.ZERO and plan.zero_stage is None and plan.tp * plan.pp == 1:
            yield replace(plan, zero_stage=3)

    def best(self, num_devices: int, device: Device, headroom_bytes: int) -> tuple[Plan, Fit] | None:
        """Return the first plan that fits; where none does the one that lacks least; None = none can be made.

        A plan whose tensors alone are more than the device has is not looked at further.
        """
        room = device.capacity_bytes - headroom_bytes
        closest: tuple[int, Plan, Counted] | None = None
        for plan in self.plans(num_devices):
            counted = self.counted(plan, device)
            if counted is None:
                continue
            if counted.allocated_bytes <= room:
                judged = counted.fit(device, headroom_bytes)
                if judged.verdict is Verdict.FITS:
                    return plan, judged
            if closest is None or counted.allocated_bytes < closest[0]:
                closest = counted.allocated_bytes, plan, counted
        return None if closest is None else (closest[1], closest[2].fit(device, headroom_bytes))

    def fewest(self, device: Device, headroom_bytes: int, most: int, between: tuple[int, ...] = ()) -> DeviceOption:
        """Return the fewest devices of one kind that hold the run, up to ``most``.

        Args:
            device: the kind.
            headroom_bytes: what is left free on each.
            most: no more are tried.
            between: further numbers to try, where they are fewer than the first of ``COUNTS`` that does.
        """
        below, found = 0, None
        nearest: tuple[Plan, Fit] | None = None
        for num in (n for n in COUNTS if n <= most):
            best = self.best(num, device, headroom_bytes)
            if best is not None and best[1].verdict is Verdict.FITS:
                found = num, best
                break
            nearest, below = best or nearest, num
        if found is None:
            plan, margin, verdict = Plan(), 0, Verdict.DOES_NOT_FIT
            if nearest is not None:
                plan, margin, verdict = nearest[0], nearest[1].margin_bytes, nearest[1].verdict
            return DeviceOption(device=device.name, count=0, plan=plan, verdict=verdict, margin_bytes=margin)
        for num in (n for n in between if below < n < found[0]):
            best = self.best(num, device, headroom_bytes)
            if best is not None and best[1].verdict is Verdict.FITS:
                found = num, best
                break
        num, (plan, judged) = found
        return DeviceOption(
            device=device.name,
            count=num,
            plan=plan,
            verdict=judged.verdict,
            margin_bytes=judged.margin_bytes,
            price=None if device.price is None else device.price.times(num),
        )


def device_options(question: TrainingQuestion, others: Iterable[Device]) -> tuple[DeviceOption, ...]:
    """Return the fewest devices of the named kind, then of other kinds that have a dated price, fewest first.

    Where sequences are generated by an engine beside the training, its share is the device's: no others are offered.
    """
    framework, _ = find_framework(question.workload.framework, question.workload.framework_version)
    plans = TrainingPlans(question.model, question.workload, question.plan, framework)
    own = plans.fewest(question.device, question.headroom_bytes, COUNTS[-1], BETWEEN)
    if question.workload.objective in GENERATING:
        return (own,)
    most = max(MOST_OTHERS, 2 * own.count)
    found = [
        (plans.fewest(device, question.headroom_bytes, most), device)
        for device in others
        if device.price is not None and device.name != question.device.name
    ]
    usable = sorted((o.count, d.capacity_bytes, d.name, o) for o, d in found if o.count)
    return (own, *(entry[-1] for entry in usable))

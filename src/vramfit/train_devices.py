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
from vramfit.result import DeviceOption, Fit, Item, Verdict
from vramfit.spec import ModelSpec
from vramfit.train import count_rank, on_device, settings_of
from vramfit.train_search import TrainingQuestion
from vramfit.training import Training
from vramfit.training_objective import GENERATING

COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""How many devices are tried first; what lies between the last that does not hold it and the first that does is next."""
SERVER = 8
MOST_TENSOR_RANKS = 8
MOST_OTHERS = 16
"""Other kinds are offered up to this many, or twice as many as of the named kind."""

Rank = tuple[Setting, tuple[Item, ...]]


@dataclass(frozen=True, slots=True)
class TrainingPlans:
    """One training run over many plans, each counted once for all devices."""

    model: ModelSpec
    workload: Training
    asked: Plan
    framework: Framework
    _known: dict[Plan, tuple[Rank, ...] | None] = field(default_factory=dict)

    def fit(self, plan: Plan, device: Device, headroom_bytes: int) -> Fit | None:
        """Judge a plan on a device; None = it cannot be carried out."""
        if plan not in self._known:
            try:
                settings = settings_of(self.model, self.workload, plan)[3]
                self._known[plan] = tuple((setting, count_rank(setting, device)[0]) for setting in settings)
            except VramfitError:
                self._known[plan] = None
        ranks = self._known[plan]
        if ranks is None:
            return None
        return fit(tuple(on_device(items, setting, device) for setting, items in ranks), device, headroom_bytes)

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
                    fields = {"dp_shard": 1, "dp_replicate": 1, data: num_devices // (pp * tp), "tp": tp, "pp": pp}
                    yield from self._divided(replace(self.asked, **fields, cp=1, ep=1, etp=None, layers_per_stage=None))

    def _divided(self, plan: Plan) -> Iterator[Plan]:
        """Yield a plan as asked, and with states divided as far as the framework can where that was left open."""
        yield plan
        if self.framework.sharding is Sharding.MEGATRON and plan.distributed_optimizer is None:
            yield replace(plan, distributed_optimizer=True)
        if self.framework.sharding is Sharding.ZERO and plan.zero_stage is None and plan.tp * plan.pp == 1:
            yield replace(plan, zero_stage=3)

    def best(self, num_devices: int, device: Device, headroom_bytes: int) -> tuple[Plan, Fit] | None:
        """Return the first plan that fits; where none does the one that lacks least; None = none can be made."""
        closest: tuple[Plan, Fit] | None = None
        for plan in self.plans(num_devices):
            judged = self.fit(plan, device, headroom_bytes)
            if judged is None:
                continue
            if judged.verdict is Verdict.FITS:
                return plan, judged
            if closest is None or judged.margin_bytes > closest[1].margin_bytes:
                closest = plan, judged
        return closest

    def fewest(self, device: Device, headroom_bytes: int, most: int) -> DeviceOption:
        """Return the fewest devices of one kind that hold the run, up to ``most``."""
        below, found = 0, None
        nearest: tuple[Plan, Fit] | None = None
        for num in (n for n in COUNTS if n <= most):
            best = self.best(num, device, headroom_bytes)
            if best is not None and best[1].verdict is Verdict.FITS:
                found = num, best
                break
            nearest = best or nearest
            below = num
        if found is None:
            plan, judged = nearest or (Plan(), None)
            margin = 0 if judged is None else judged.margin_bytes
            verdict = Verdict.DOES_NOT_FIT if judged is None else judged.verdict
            return DeviceOption(device=device.name, count=0, plan=plan, verdict=verdict, margin_bytes=margin)
        for num in range(below + 1, found[0]):
            if num > SERVER and num % SERVER:
                continue
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
    own = plans.fewest(question.device, question.headroom_bytes, COUNTS[-1])
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

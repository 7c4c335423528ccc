"""The inverses of training: largest micro-batch, longest sequence, cheapest recomputation, fewest devices.

All of them ask ``estimate_training`` again, or its parts through ``meshes``; there is no second formula. A value counts
as fitting when even the high figure does.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import lcm

from vramfit.device import Device
from vramfit.errors import VramfitError
from vramfit.fit import fit
from vramfit.frameworks.abilities import ABILITIES
from vramfit.frameworks.profile import find_framework
from vramfit.request import Plan
from vramfit.result import Fit, Limit, Verdict
from vramfit.search import largest_fitting
from vramfit.spec import ModelSpec
from vramfit.train import estimate_training
from vramfit.training import Training
from vramfit.training_choices import decide

MOST_MICRO_BATCH = 2**16
MOST_SEQUENCE = 2**27
CHEAPEST_FIRST = ("none", "selective", "offload", "full")
"""Recomputation by what it costs: nothing, part of a forward pass, traffic to the host, a whole forward pass."""


@dataclass(frozen=True, slots=True)
class TrainingQuestion:
    """A model, how it is trained, how it is cut, and the device of every rank."""

    model: ModelSpec
    workload: Training
    plan: Plan
    device: Device
    headroom_bytes: int = 0
    _known: dict[tuple[Training, Plan], Fit] = field(default_factory=dict, compare=False)

    def fit(self, workload: Training | None = None, plan: Plan | None = None) -> Fit:
        """Judge the question as it stands, or with another workload or plan; each is counted once.

        Raises:
            VramfitError: a workload or plan that is impossible for this model.
        """
        key = (workload or self.workload, plan or self.plan)
        if key not in self._known:
            found = estimate_training(self.model, *key, self.device)
            self._known[key] = fit(found.breakdowns, self.device, self.headroom_bytes)
        return self._known[key]

    def room(self, workload: Training) -> int:
        """Bytes left on the fullest rank even by the high figure; negative when that does not fit. [B]"""
        return self.fit(workload).high_margin_bytes

    @property
    def understood(self) -> Training:
        """The workload with every open field decided."""
        return decide(self.model, self.workload, self.plan).training


def largest_micro_batch(question: TrainingQuestion) -> Limit:
    """Return the largest micro-batch that fits, all else as asked. [sequences]"""
    workload = question.workload
    value = largest_fitting(
        lambda n: question.room(replace(workload, micro_batch=n)), MOST_MICRO_BATCH, workload.micro_batch
    )
    return Limit(value=value, bounded_by="memory" if value < MOST_MICRO_BATCH else "the search")


def longest_sequence(question: TrainingQuestion) -> Limit:
    """Return the longest sequence that fits, all else as asked; at most what the model was made for. [tokens]

    Ranks that divide a sequence divide it evenly: its length is a multiple of them (twice ``cp``, so that causal
    attention is balanced: pytorch/pytorch:torch/distributed/tensor/experimental/_attention.py).
    """
    workload, step = question.understood, sequence_step(question.plan)
    made_for = question.model.max_position_embeddings
    most = (made_for or MOST_SEQUENCE) // step
    asked = max(1, (workload.sequence_tokens or step) // step)
    value = step * largest_fitting(
        lambda n: question.room(replace(question.workload, sequence_tokens=n * step)), max(1, most), asked
    )
    stops = made_for is not None and value + step > made_for
    return Limit(value=value, bounded_by="max_position_embeddings" if stops else "memory")


def sequence_step(plan: Plan) -> int:
    """Return what the length of a sequence must be a multiple of.

    >>> sequence_step(Plan(cp=2, tp=8))
    16
    """
    return lcm(2 * plan.cp if plan.cp > 1 else 1, plan.tp * plan.cp)


def recomputes_of(workload: Training) -> tuple[str, ...]:
    """Return the recomputations of a framework, cheapest first."""
    framework, _ = find_framework(workload.framework, workload.framework_version)
    return tuple(name for name in CHEAPEST_FIRST if name in ABILITIES[framework.name].recomputes)


def cheapest_recompute(question: TrainingQuestion) -> str | None:
    """Return the cheapest recomputation with which it fits, all else as asked; None = with none."""
    for name in recomputes_of(question.workload):
        modules = question.workload.recompute_modules if name == "selective" else None
        judged = attempt(question, replace(question.workload, recompute=name, recompute_modules=modules))
        if judged is not None and judged.verdict is Verdict.FITS:
            return name
    return None


def attempt(question: TrainingQuestion, workload: Training, plan: Plan | None = None) -> Fit | None:
    """Judge a changed question; None = the change contradicts something else that was asked."""
    try:
        return question.fit(workload, plan)
    except VramfitError:
        return None

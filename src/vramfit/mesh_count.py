"""Counts many candidates of one training run: each part that ``train`` is made of is asked once, and put together here.

The bytes of a moment are those of activations, which tokens decide, and those of states, which weights decide. Both
are kept for every piece of the model, so that a candidate costs a few sums. That the sums are those of
``estimate_training``, byte for byte, is tested; what is shown is counted by ``estimate_training`` itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

from vramfit.device import Device
from vramfit.framework import Framework, Sharding
from vramfit.memory.model_states import Setting
from vramfit.mesh_parts import (
    Met,
    Standing,
    States,
    Step,
    Weights,
    meet,
    process_in,
    standing_in,
    step_in,
    weights_in,
)
from vramfit.request import Plan
from vramfit.result import Total
from vramfit.shard import Shard
from vramfit.spec import ModelSpec
from vramfit.train import fragmented, setting_of
from vramfit.training import Training
from vramfit.training_choices import Decided, decide
from vramfit.training_model import as_trained, with_prediction
from vramfit.training_plan import Cutting, Stage, cutting, in_flight, shard_of, sharding_of, stages_of

PEERS = ("num_peers", "num_groups")
"""What a shard says of its process."""
FACTS = tuple(
    f.name
    for f in fields(Shard)
    if f.name not in {"label", "num_ranks", "model", "first", "last", "in_flight", "pieces", "sequence_ranks", *PEERS}
)
"""What a shard says of states beside the piece of the model that it holds."""


@dataclass(frozen=True, slots=True)
class Need:
    """What the heaviest rank of a candidate needs. [B]"""

    expected_bytes: int
    high_bytes: int
    stage: int
    """Number of its first pipeline stage like this."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Equal stages of a pipeline."""

    number: int
    """Tells it from all other pieces of a search."""
    stage: Stage
    alike: tuple[int, ...]
    """Numbers of the stages that hold the same."""


@dataclass(frozen=True, slots=True)
class Place:
    """A plan without its micro-batches, ready to be counted."""

    cut: Cutting
    decided: Decided
    pieces: tuple[Piece, ...]
    key: tuple[object, ...]
    """Equal for plans that divide states alike."""
    process: tuple[object, ...]
    """Equal for plans whose processes take the same."""


@dataclass(frozen=True, slots=True)
class MeshCount:
    """One model, workload and device; everything that several candidates share is kept."""

    model: ModelSpec
    workload: Training
    device: Device
    framework: Framework
    by_sharding: dict[Sharding, tuple[Decided, ModelSpec]] = field(default_factory=dict)
    pieces: dict[object, tuple[Piece, ...]] = field(default_factory=dict)
    numbers: dict[object, int] = field(default_factory=dict)
    """What a stage holds and how it is divided -> its number: equal stages of different pipelines are one."""
    flights: dict[object, tuple[int, ...]] = field(default_factory=dict)
    """Schedule and micro-batches -> the forward passes that each stage of a pipeline holds at worst."""
    trainings: dict[object, Training] = field(default_factory=dict)
    settings: dict[object, Setting] = field(default_factory=dict)
    steps: dict[tuple[int, int, int, str], Step] = field(default_factory=dict)
    standing: dict[object, Standing] = field(default_factory=dict)
    weights: dict[object, Weights] = field(default_factory=dict)
    processes: dict[object, Standing] = field(default_factory=dict)
    states: dict[object, States] = field(default_factory=dict)
    met: dict[tuple[int, int], Met] = field(default_factory=dict)

    def place(self, plan: Plan) -> Place:
        """Cut the model by a plan whose micro-batches are open.

        Raises:
            VramfitError: the plan cannot be carried out.
        """
        cut = cutting(self.framework, plan, 1)
        decided, marked = self.decided(plan)
        plan = cut.plan
        key = (cut.sharding, plan.tp, plan.etp, plan.ep, plan.pp, plan.virtual_stages, plan.pp_schedule, plan.vocab_tp)
        if key not in self.pieces:
            self.pieces[key] = self._pieces(marked, plan)
        pieces = self.pieces[key]
        shard = self._shard(pieces[0], cut, flight=1)
        facts = tuple(getattr(shard, name) for name in FACTS)
        process = tuple(getattr(shard, name) for name in PEERS)
        return Place(cut, decided, pieces, (cut.sharding, plan.reshard_after_forward, *facts), process)

    def decided(self, plan: Plan) -> tuple[Decided, ModelSpec]:
        """Return the workload without open fields, and the model as it trains, under a plan."""
        sharding = sharding_of(self.framework, plan)
        if sharding not in self.by_sharding:
            found = decide(self.model, self.workload, plan)
            model = with_prediction(self.model) if found.framework.trains_prediction else self.model
            marked = as_trained(
                model, found.training, wide_base=found.framework.wide_base, packs_head=found.framework.packs_head
            )
            self.by_sharding[sharding] = found, marked
        return self.by_sharding[sharding]

    def _pieces(self, marked: ModelSpec, plan: Plan) -> tuple[Piece, ...]:
        alike: dict[object, list[Stage]] = {}
        for stage in stages_of(marked, plan):
            alike.setdefault((stage.content, stage.first, stage.last), []).append(stage)
        divided = id(marked), plan.tp, plan.etp, plan.ep
        return tuple(
            Piece(
                self.numbers.setdefault((divided, content), len(self.numbers)),
                stages[0],
                tuple(stage.number for stage in stages),
            )
            for content, stages in alike.items()
        )

    def need(self, place: Place, micro_batch: int, accumulation: int, recompute: str) -> Need:
        """Return what the heaviest rank needs: of equal stages the one that holds most at once."""
        expected, high, number = -1, -1, 0
        plan, band = place.cut.plan, self.framework.fragmented_by(place.cut.sharding)
        held = self._flights(plan, accumulation)
        for piece in place.pieces:
            flight = max(held[stage] for stage in piece.alike)
            step = self._step(place, piece, micro_batch, recompute)
            states = self._states(place, piece, step, min(accumulation, 2), min(flight, 2))
            tokens = step.tokens(states)
            pair = id(tokens), id(states)
            met = self.met.get(pair)
            if met is None:
                met = self.met[pair] = meet(tokens, states)
            inside, inside_high, here, here_high = met.peaks(flight, plan.virtual_stages or 1)
            lost = fragmented(Total(low_bytes=0, expected_bytes=inside, high_bytes=inside_high), states.steady, band)
            here += lost.expected_bytes
            if here > expected:
                expected, number = here, piece.stage.number
            here_high += lost.high_bytes
            high = max(high, here_high)
        return Need(expected, high, number)

    def _flights(self, plan: Plan, accumulation: int) -> tuple[int, ...]:
        """Return the forward passes that each stage holds at worst."""
        key = plan.pp, plan.pp_schedule, plan.virtual_stages, accumulation
        found = self.flights.get(key)
        if found is None:
            plan = replace(plan, micro_batches=accumulation) if plan.pp > 1 else plan
            found = self.flights[key] = tuple(in_flight(plan, stage) for stage in range(plan.pp))
        return found

    def _step(self, place: Place, piece: Piece, micro_batch: int, recompute: str) -> Step:
        key = piece.number, place.cut.plan.cp, micro_batch, recompute
        found = self.steps.get(key)
        if found is None:
            asked = id(place.decided), micro_batch, recompute
            training = self.trainings.get(asked)
            if training is None:
                training = self.trainings[asked] = varied(place.decided.training, micro_batch, 1, recompute)
            setting = self.settings.get(key[:2])
            if setting is None:
                setting = self.settings[key[:2]] = self._setting(place, piece, training, flight=1)
            found = self.steps[key] = step_in(replace(setting, training=training))
        return found

    def _states(self, place: Place, piece: Piece, step: Step, passes: int, flight: int) -> States:
        """Return what weights decide, with one forward pass of a step and one in flight, or several of them."""
        key = piece.number, place.key, passes, flight, step.structure, place.process
        found = self.states.get(key)
        if found is None:
            setting = self._weighed(place, piece, passes, flight)
            process = self.processes.get(place.process)
            if process is None:
                process = self.processes[place.process] = process_in(setting, self.device)
            weights = self.weights.get(key[:5])
            if weights is None:
                weights = self.weights[key[:5]] = self._weights(place, piece, step, setting)
            found = self.states[key] = weights.beside(process, self.framework.fragmented_by(place.cut.sharding).without)
        return found

    def _weights(self, place: Place, piece: Piece, step: Step, setting: Setting) -> Weights:
        key = piece.number, place.key
        standing = self.standing.get(key)
        if standing is None:
            standing = self.standing[key] = standing_in(setting)
        return weights_in(setting, step, standing)

    def _weighed(self, place: Place, piece: Piece, passes: int, flight: int) -> Setting:
        training = replace(place.decided.training, gradient_accumulation_steps=passes)
        return self._setting(place, piece, training, flight)

    def _setting(self, place: Place, piece: Piece, training: Training, flight: int) -> Setting:
        shard = self._shard(piece, place.cut, flight)
        return setting_of(shard, replace(place.decided, training=training), place.cut)

    def _shard(self, piece: Piece, cut: Cutting, flight: int) -> Shard:
        vocabulary = self.model.vocab_size or 0
        return shard_of(piece.stage, cut, vocab_size=vocabulary, flight=flight, label="", num_ranks=1)


def varied(training: Training, micro_batch: int, accumulation: int, recompute: str) -> Training:
    """Return the workload of a candidate; modules are named for selective recomputation only."""
    return replace(
        training,
        micro_batch=micro_batch,
        gradient_accumulation_steps=accumulation,
        recompute=recompute,
        recompute_modules=training.recompute_modules if recompute == "selective" else None,
    )

"""Weights, a wider copy of them, gradients and optimizer states: what training holds of the model itself.

Bytes per parameter follow from the formats: 16-bit weights and gradients with Adam in fp32 and a master copy are 16,
everything in fp32 is 16 too, Megatron's fp32 gradients make it 18.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

from vramfit.formats import Role, weight_format
from vramfit.framework import NO_MASTER, Framework, Recipe, Sharding
from vramfit.memory.held import FLAT, Held, held_tensors, local_elements, local_shape, stored_bytes
from vramfit.memory.optimizer_state import OPTIMIZERS, SMALLEST_PAGED, Optimizer, Parts, state_of
from vramfit.memory.weights import GROUPS
from vramfit.result import WHILE_TRAINING, Basis, Item, Phase, exactly
from vramfit.shard import Shard
from vramfit.training import OffloadAsked, Training
from vramfit.units import format_count, round_up

BLOCK_BYTES = 512
"""The caching allocator's smallest block: pytorch/pytorch:c10/core/CachingDeviceAllocator.h, kMinBlockSize."""
AFTER_STEP = tuple(phase for phase in WHILE_TRAINING if phase is not Phase.LOAD)
"""States are made inside the first step and stay; the peak is that of later steps."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One rank and everything decided about how it trains. No slots: its tensors are listed once and kept."""

    shard: Shard
    training: Training
    framework: Framework
    recipe: Recipe
    sharding: Sharding
    reshards: bool = True
    """Whether FSDP gives a unit's gathered weights back after its forward."""

    @cached_property
    def held(self) -> tuple[Held, ...]:
        """Tensors of this rank."""
        return held_tensors(self.shard)

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer's rules."""
        return OPTIMIZERS[str(self.training.optimizer)]

    @property
    def offload(self) -> OffloadAsked:
        """What waits on the host."""
        return self.training.offload or OffloadAsked()


FP32_BYTES = 4


def weight_ranks(setting: Setting, held: Held) -> int:
    """Return the ranks over which a weight itself is divided."""
    if setting.shard.zero_stage < 3:
        return 1
    if setting.sharding is Sharding.ZERO and prod(held.tensor.shape) <= setting.framework.buckets.persistence:
        return 1
    return _ranks(setting, held)


def padding_ranks(setting: Setting, held: Held) -> int:
    """Return how often a weight travels whole where FSDP2 pads what it cannot divide: every rank sends all of it."""
    shared = setting.framework.stacks_shared_experts and setting.sharding is Sharding.FSDP2
    return held.ranks if shared and held.tensor.role is Role.LINEAR and "shared_expert" in held.tensor.name else 1


def _ranks(setting: Setting, held: Held) -> int:
    return 1 if padding_ranks(setting, held) > 1 else held.ranks


def gradient_ranks(setting: Setting, held: Held) -> int:
    """Return the ranks over which a gradient is divided once it is reduced."""
    return _ranks(setting, held) if setting.shard.zero_stage >= 2 else 1


def state_ranks(setting: Setting, held: Held) -> int:
    """Return the ranks over which optimizer states are divided."""
    return _ranks(setting, held) if setting.shard.zero_stage >= 1 else 1


def weights(setting: Setting) -> Iterable[Item]:
    """Yield the weights of one rank as they are kept between steps, from load to the end. [B]"""
    if setting.offload.parameters:
        return
    totals: dict[tuple[str, str, bool], list[int]] = {}
    for held in setting.held:
        entry = totals.setdefault((GROUPS[held.tensor.role], held.format.name, held.trained), [0, 0])
        entry[0] += held.parameters
        entry[1] += stored_bytes(held, weight_ranks(setting, held), setting.sharding)
    shared = setting.shard.zero_stage >= 3 and setting.shard.state_ranks > 1
    for (group, fmt, trained), (parameters, size) in totals.items():
        yield exactly(
            f"weights/{group}" if trained or group == "adapters" else f"weights/frozen/{group}",
            size,
            WHILE_TRAINING,
            f"{format_count(parameters)} parameters in {fmt}"
            + (f", divided over {setting.shard.state_ranks} ranks" if shared else ""),
            f"tensor list of {setting.shard.model.family}; formats of {setting.framework.name}",
            Basis.DERIVED,
        )


def trained_bytes(held: Held, setting: Setting, fmt: str, ranks: int) -> int:
    """Bytes of a kind of trained tensor in a format, as one of ``ranks`` holds it. [B]"""
    if not held.trained:
        return 0
    return local_elements(held, ranks, setting.sharding) * weight_format(fmt).block_bytes


def state_format(held: Held, setting: Setting) -> str:
    """Return the format of states of a tensor: the recipe's, or for weights with formats of their own, theirs."""
    asked = setting.recipe.optimizer_state_format
    return held.format.name if _has_own(held, setting) else asked


def gradient_format(held: Held, setting: Setting) -> str:
    """Return the format in which the gradient of a tensor is kept."""
    return held.format.name if _has_own(held, setting) else setting.recipe.gradient_format


def adds_beside(setting: Setting) -> bool:
    """Whether DeepSpeed adds bf16 gradients to an fp32 buffer: both are whole and stay, and none is cast for the step.

    Source: deepspeedai/DeepSpeed:deepspeed/runtime/bf16_optimizer.py (fp32_groups_gradients_flat; update_hp_grads
    leaves the 16-bit ones), which engine.py takes for bf16 with fp32 gradients and ZeRO 0 or 1.
    """
    recipe = setting.recipe
    wider = recipe.parameter_format == "bf16" and recipe.gradient_format == "fp32" and recipe.master_format != NO_MASTER
    return setting.sharding is Sharding.ZERO and setting.shard.zero_stage <= 1 and wider


def kept_gradient(held: Held, setting: Setting) -> int:
    """Bytes of the gradients of a kind of tensor as they are kept until the step. [B]"""
    kept = trained_bytes(held, setting, gradient_format(held, setting), gradient_ranks(setting, held))
    return kept + (trained_bytes(held, setting, setting.recipe.parameter_format, 1) if adds_beside(setting) else 0)


def _has_own(held: Held, setting: Setting) -> bool:
    """Whether a weight is in another format than the model's: an fp32 adapter on a 16-bit base."""
    plain = setting.recipe.master_format == NO_MASTER
    return plain and held.format.name != setting.recipe.parameter_format


def gradient_bytes(setting: Setting) -> int:
    """Bytes of all gradients of a rank as they are kept until the step. [B]"""
    return sum(kept_gradient(held, setting) for held in setting.held)


def master_weights(setting: Setting) -> Iterable[Item]:
    """Yield the wider copy of trained weights that the optimizer moves. [B]"""
    fmt = setting.recipe.master_format
    if fmt == NO_MASTER or setting.offload.optimizer:
        return
    what = f"trained parameters in {fmt}"
    if _precision_aware(setting) and setting.recipe.parameter_format == "bf16" and fmt == "fp32":
        fmt, what = "bf16", "what fp32 has beyond the bf16 weights, in 16 bit,"
    size = sum(trained_bytes(h, setting, fmt, state_ranks(setting, h)) for h in setting.held)
    if size:
        yield exactly(
            "optimizer/master_weights", size, WHILE_TRAINING,
            what + _over(setting), f"{setting.framework.name}'s recipe", Basis.DERIVED,
        )  # fmt: skip


def _precision_aware(setting: Setting) -> bool:
    """Whether Megatron's optimizer keeps moments in 16 bit, and with them its fp32 weights as a remainder.

    Source: NVIDIA/Megatron-LM:megatron/core/optimizer/optimizer_config.py (use_precision_aware_optimizer,
    store_param_remainders, on by default); NVIDIA/TransformerEngine:transformer_engine/pytorch/optimizers/
    fused_adam.py.
    """
    narrow = weight_format(setting.recipe.optimizer_state_format).block_bytes < FP32_BYTES
    return setting.sharding is Sharding.MEGATRON and setting.recipe.master_format != NO_MASTER and narrow


def _over(setting: Setting) -> str:
    ranks = setting.shard.state_ranks if setting.shard.zero_stage else 1
    return f", divided over {ranks} ranks" if ranks > 1 else ""


def optimizer_states(setting: Setting) -> Iterable[Item]:
    """Yield what the optimizer keeps between steps, made in the first one. [B]"""
    if setting.offload.optimizer:
        return
    totals: dict[str, int] = {}
    for name, size, _ in _states(setting):
        totals[name] = totals.get(name, 0) + size
    what = setting.training.optimizer
    for name, size in totals.items():
        yield exactly(
            f"optimizer/{name}", size, AFTER_STEP,
            f"{what}: {name} in {setting.recipe.optimizer_state_format}" + _over(setting),
            setting.optimizer.source, Basis.DERIVED,
        )  # fmt: skip


def _states(setting: Setting) -> Iterator[tuple[str, int, bool]]:
    """Yield (name, bytes on the device, paged) of every state of every kind of tensor."""
    optimizer = setting.optimizer
    for held in setting.held:
        if not held.trained:
            continue
        for name, size in local_state(held, setting):
            paged = optimizer.paged and name != "absmax" and prod(held.tensor.shape) >= SMALLEST_PAGED
            if not paged:
                yield name, size, False
    if optimizer.step_tensor and setting.training.optimizer_implementation == "fused" and setting.sharding not in FLAT:
        count = sum(held.count for held in setting.held if held.trained)
        yield "step", count * 4, False


def local_state(held: Held, setting: Setting) -> Parts:
    """Return what the optimizer keeps of a kind of tensor on this rank, all of them together."""
    ranks, size = state_ranks(setting, held), weight_format(state_format(held, setting)).block_bytes
    shape = local_shape(held.tensor, ranks, setting.sharding)
    if ranks > 1 and len(shape) != len(held.tensor.shape):  # of a flat buffer: the whole tensor's states, divided
        whole = state_of(setting.optimizer, held.tensor.shape, held.tensor.role, size)
        return tuple((name, held.count * -(-each // ranks)) for name, each in whole)
    if ranks > 1 and held.tensor.copies > 1:
        whole = state_of(setting.optimizer, held.tensor.shape, held.tensor.role, size)
        return tuple((name, -(-held.count * each // ranks)) for name, each in whole)
    return tuple((n, held.count * each) for n, each in state_of(setting.optimizer, shape, held.tensor.role, size))


def step_temporaries(setting: Setting) -> Iterable[Item]:
    """Yield what the optimizer's step makes and drops again. [B]

    ``foreach`` works on all tensors at once and so makes one more copy of a state; tensor by tensor only the largest
    counts; ``fused`` kernels make nothing.
    """
    if setting.offload.optimizer:
        return
    size, formula = step_bytes(setting)
    if size:
        item = exactly(
            "optimizer/step_temporaries", size, (Phase.OPTIMIZER,), formula, setting.optimizer.source, Basis.DERIVED
        )
        yield replace(item, low_bytes=0) if setting.sharding is Sharding.MEGATRON else item


def step_bytes(setting: Setting) -> tuple[int, str]:
    """Return the most that one step makes for a while, and why. [B]"""
    optimizer, how = setting.optimizer, setting.training.optimizer_implementation
    trained = [h for h in setting.held if h.trained]
    if not trained:
        return 0, "nothing is trained"
    cast = _cast_gradients(setting, trained)
    if cast[0]:
        return cast
    if setting.sharding is Sharding.MEGATRON and setting.recipe.master_format != NO_MASTER:
        return _megatron_step(setting, trained)
    if how == "fused" and optimizer.has_fused:
        return 0, "fused kernels work in place"
    if how == "foreach" and optimizer.has_foreach and not setting.training.optimizer_in_backward:
        size = optimizer.at_once_elements * sum(
            trained_bytes(h, setting, state_format(h, setting), state_ranks(setting, h)) for h in trained
        )
        return size, "foreach: one more copy of a state of every trained parameter"
    return _loop_bytes(setting, trained)


def _megatron_step(setting: Setting, trained: list[Held]) -> tuple[int, str]:
    """Return what Megatron's step makes: fp32 copies of 16-bit moments, or of 16-bit gradients. [B]

        moments in 16 bit: 2 * 4 for each element of the larger group, common weights or experts, which step in turn
        gradients in 16 bit: 4 for each element

    Source: NVIDIA/TransformerEngine:transformer_engine/pytorch/optimizers/fused_adam.py, get_unscaled_state and step;
    NVIDIA/Megatron-LM:megatron/core/optimizer/distrib_optimizer.py, _copy_model_grads_to_main_grads.
    """
    groups = {True: 0, False: 0}
    for held in trained:
        groups[held.tensor.role is Role.EXPERT] += trained_bytes(held, setting, "fp32", state_ranks(setting, held))
    if _precision_aware(setting):
        return 2 * max(groups.values()), "fp32 copies of both moments, of common weights or of experts"
    if weight_format(setting.recipe.gradient_format).block_bytes < FP32_BYTES:
        return sum(groups.values()), "fp32 copy of this rank's share of the gradients"
    return 0, "fused kernels work in place"


def _loop_bytes(setting: Setting, trained: list[Held]) -> tuple[int, str]:
    """Return the most that a step tensor by tensor makes: for one of them, and what is left of the one before. [B]"""
    optimizer, found, before = setting.optimizer, (0, ""), 0
    for held in trained:
        elements = prod(local_shape(held.tensor, state_ranks(setting, held), setting.sharding))
        size = weight_format(state_format(held, setting)).block_bytes
        per = optimizer.loop_bytes + optimizer.loop_elements * size + _widened(setting, held)
        left = elements * max(size, optimizer.loop_bytes // 2) if optimizer.loop_keeps else 0
        made = elements * per + (left if held.tensor.copies > 1 else before)
        said = f"{per} B for each of the {format_count(elements)} elements of {held.tensor.name}, and the one before"
        found = max(found, (made, said))
        before = left
    return found


def _widened(setting: Setting, held: Held) -> int:
    """Bytes per element of the fp32 copies of weight and gradient that some optimizers make of 16-bit ones."""
    widens = setting.training.optimizer in {"adafactor", "came"} and held.format.block_bytes < 4
    return {"adafactor": 8, "came": 4}[str(setting.training.optimizer)] if widens else 0


def _cast_gradients(setting: Setting, trained: list[Held]) -> tuple[int, str]:
    """Return DeepSpeed's fp32 copy of its share of the gradients, made for the step. [B]

    Source: deepspeedai/DeepSpeed:deepspeed/runtime/zero/stage_1_and_2.py, step (single_grad_partition);
    stage3.py, _prepare_sub_group, one group of 1e9 elements at a time.
    """
    if setting.sharding is not Sharding.ZERO or setting.recipe.master_format == NO_MASTER or adds_beside(setting):
        return 0, ""
    share = sum(trained_bytes(h, setting, "fp32", h.ranks) for h in trained)
    if setting.shard.zero_stage >= 3:
        share = min(share, 4 * SUB_GROUP)
    return share, "fp32 copy of this rank's share of the gradients"


SUB_GROUP = 1_000_000_000
"""DeepSpeed's ``sub_group_size``: elements that ZeRO-3 updates at once."""


def rounding(setting: Setting) -> Iterable[Item]:
    """Yield the ends of 512-byte blocks in which weights, gradients and states lie as tensors of their own. [B]"""
    if setting.sharding in FLAT:
        return
    lost = 0
    for held in setting.held:
        size = stored_bytes(held, weight_ranks(setting, held), setting.sharding) // max(held.count, 1)
        tensors = held.count * (2 if held.trained else 1)
        lost += tensors * (round_up(size, BLOCK_BYTES) - size)
        if held.trained:
            for _, each in local_state(held, setting):
                one = each // max(held.count, 1)
                lost += held.count * (round_up(one, BLOCK_BYTES) - one)
            if setting.optimizer.step_tensor and setting.training.optimizer_implementation == "fused":
                lost += held.count * (BLOCK_BYTES - 4)
    if lost:
        yield exactly(
            "rounding/tensor_ends", lost, AFTER_STEP, "every tensor ends with its last block of 512 B",
            "pytorch/pytorch:c10/cuda/CUDACachingAllocator.cpp", Basis.DERIVED,
        )  # fmt: skip


DISK = "nvme"


def on_host(setting: Setting) -> Iterator[Item]:
    """Yield what of the model states lies outside the device: ``host/`` in memory, ``disk/`` on a drive. [B]"""
    offload, optimizer = setting.offload, setting.optimizer
    trained = [h for h in setting.held if h.trained]
    source = f"{setting.framework.name}'s recipe"
    if offload.parameters:
        size = sum(stored_bytes(h, weight_ranks(setting, h), setting.sharding) for h in setting.held)
        place = _place(offload.parameters)
        yield exactly(f"{place}/weights", size, WHILE_TRAINING, "weights between uses", source, Basis.DERIVED)
    if offload.optimizer:
        place = _place(offload.optimizer)
        if setting.recipe.master_format != NO_MASTER:
            fmt = setting.recipe.master_format
            size = sum(trained_bytes(h, setting, fmt, state_ranks(setting, h)) for h in trained)
            yield exactly(f"{place}/master_weights", size, WHILE_TRAINING, "fp32 copy", source, Basis.DERIVED)
        size = sum(each for h in trained for _, each in local_state(h, setting))
        yield exactly(
            f"{place}/optimizer_states", size, AFTER_STEP, "optimizer states", optimizer.source, Basis.DERIVED
        )
        size = sum(trained_bytes(h, setting, "fp32", state_ranks(setting, h)) for h in trained)
        yield exactly("host/gradients", size, AFTER_STEP, "fp32 gradients for the step", source, Basis.DERIVED)
    elif optimizer.paged:
        paged = (h for h in trained if prod(h.tensor.shape) >= SMALLEST_PAGED)
        size = sum(each for h in paged for name, each in local_state(h, setting) if name != "absmax")
        yield exactly(
            "host/paged_states", size, AFTER_STEP, "managed memory: on the device only where there is room",
            optimizer.source, Basis.DERIVED,
        )  # fmt: skip


def _place(offload: str) -> str:
    return "disk" if offload == DISK else "host"

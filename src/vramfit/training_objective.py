"""What objectives beyond the next token add: pairs of sequences, models beside the trained one, generated sequences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from vramfit.device import Device
from vramfit.formats import Role, weight_format
from vramfit.memory.held import held_tensors, local_elements
from vramfit.memory.kv_cache import model_bytes_per_token
from vramfit.memory.model_states import (
    Setting,
    gradient_bytes,
    master_weights,
    optimizer_states,
    weight_ranks,
    weights,
)
from vramfit.request import Inference
from vramfit.result import WHILE_TRAINING, Basis, Item, Phase, exactly
from vramfit.spec import Cut, ModelSpec, Tensor
from vramfit.training import Training
from vramfit.training_choices import ON_FROZEN
from vramfit.training_walk import Walk

PAIRED = frozenset({"dpo", "orpo", "reward"})
"""Every sample is two sequences in one pass: the better and the worse.
Source: huggingface/trl:trl/trainer/dpo_trainer.py, orpo_trainer.py, reward_trainer.py (concatenated)."""
GENERATING = frozenset({"ppo", "grpo"})
"""Sequences are generated before they are learnt from."""
REFERENCED = frozenset({"dpo", "ppo"})
"""A frozen copy of the model at the start gives the log-probabilities to stay close to; of adapters it is the base.
GRPO has none: huggingface/trl:trl/trainer/grpo_config.py, beta 0.0."""
ENGINE_RATIO = 0.3
"""Share of the card that the engine of the rollouts takes: huggingface/trl:trl/trainer/grpo_config.py,
vllm_gpu_memory_utilization 0.3 where it shares the cards (vllm_mode colocate)."""
TRL = "huggingface/trl:trl/trainer"
EVERY = (*WHILE_TRAINING, Phase.ROLLOUT)


def per_pass(training: Training) -> Training:
    """Return the workload as one forward pass sees it: pairs are two sequences."""
    return replace(training, micro_batch=2 * training.micro_batch) if training.objective in PAIRED else training


def as_scored(model: ModelSpec, objective: str) -> ModelSpec:
    """Return the model with a head of one number in place of the vocabulary, where it learns rewards."""
    if objective != "reward":
        return model
    norms = tuple(t for t in model.head if t.role is Role.NORM)
    score = Tensor(name="score.weight", shape=(1, model.hidden_size), role=Role.HEAD, cut=Cut.WHOLE)
    return replace(model, head=(*norms, score), tied=False, vocab_size=1)


def objective_items(walk: Walk, device: Device | None) -> Iterator[Item]:
    """Yield the models beside the trained one, and what generating takes. [B]"""
    setting = walk.setting
    objective, method = setting.training.objective, setting.training.method
    copy = _copy_bytes(setting)
    if objective in REFERENCED and method not in ON_FROZEN:
        yield exactly(
            "models/reference", copy, EVERY, f"frozen copy in {setting.recipe.compute_format}",
            f"{TRL}/dpo_trainer.py, create_reference_model", Basis.DERIVED,
        )  # fmt: skip
    if objective == "ppo":
        yield exactly(
            "models/reward", copy, EVERY, "a reward model taken to be as large as the trained one",
            f"{TRL}/ppo_trainer.py", Basis.ASSUMED,
        )  # fmt: skip
        yield from _value_model(walk)
    if objective in GENERATING:
        yield _generated(setting, copy, device)


def _copy_bytes(setting: Setting) -> int:
    """Bytes of one more copy of the weights as a forward pass reads them, divided as the weights are. [B]"""
    size = weight_format(setting.recipe.compute_format).block_bytes
    every = (h for h in held_tensors(setting.shard) if h.tensor.role is not Role.ADAPTER)
    return sum(local_elements(h, weight_ranks(setting, h), setting.sharding) * size for h in every)


def _value_model(walk: Walk) -> Iterator[Item]:
    """Yield the value model of PPO, which is trained too: weights, gradients and states again, and its activations."""
    setting = walk.setting
    trained = sum(h.parameters for h in setting.held if h.trained)
    every = max(sum(h.parameters for h in setting.held), 1)
    made = (*weights(setting), *master_weights(setting), *optimizer_states(setting))
    size = sum(item.bytes for item in made) + gradient_bytes(setting)
    yield exactly(
        "models/value", size, EVERY, f"weights, gradients and states again; {100 * trained // every} % trained",
        f"{TRL}/ppo_trainer.py, PolicyAndValueWrapper", Basis.ASSUMED,
    )  # fmt: skip
    yield exactly(
        "activations/value_model", walk.kept_by_all, (Phase.LOSS, Phase.BACKWARD),
        "kept by the value model, whose pass comes before the common backward", f"{TRL}/ppo_trainer.py", Basis.ASSUMED,
    )  # fmt: skip


def _generated(setting: Setting, copy: int, device: Device | None) -> Item:
    """Return the cache of generated sequences, or the engine that shares the card with the training."""
    training, model = setting.training, setting.shard.model
    tokens = training.micro_batch * (training.sequence_tokens or 0)
    fmt = setting.recipe.compute_format
    cached = Inference(context_tokens=training.sequence_tokens, kv_format_k=fmt, kv_format_v=fmt)
    cache = tokens * model_bytes_per_token(model, cached)
    if training.objective == "ppo" or device is None:
        name, phases = (
            ("rollout/kv_cache", (Phase.ROLLOUT,)) if training.objective == "ppo" else ("rollout/engine", EVERY)
        )
        size = cache if training.objective == "ppo" else cache + copy
        return exactly(
            name, size, phases, f"cache of {tokens:,} tokens" + ("" if size == cache else " and a copy of the weights"),
            TRL, Basis.DERIVED,
        )  # fmt: skip
    need, taken = cache + copy, int(device.capacity_bytes * ENGINE_RATIO)
    return Item(
        name="rollout/engine", bytes=max(need, taken), low_bytes=need, high_bytes=max(need, taken), phases=EVERY,
        basis=Basis.ASSUMED, formula=f"{100 * ENGINE_RATIO:.0f} % of the card, and no less than weights and cache need",
        source=f"{TRL}/grpo_config.py, vllm_gpu_memory_utilization",
    )  # fmt: skip


def while_generating(items: tuple[Item, ...], objective: str) -> tuple[Item, ...]:
    """Return what stands in every phase as standing while sequences are generated too."""
    if objective not in GENERATING:
        return items
    return tuple(
        replace(item, phases=(*item.phases, Phase.ROLLOUT))
        if Phase.EVALUATION in item.phases and Phase.ROLLOUT not in item.phases and Phase.SAVE in item.phases
        else item
        for item in items
    )

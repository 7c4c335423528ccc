"""Multi-token-prediction layers: trained by Megatron alone, on the last stage, with a loss of their own."""

from __future__ import annotations

from vramfit.request import Plan
from vramfit.source import read_model
from vramfit.train import estimate_training
from vramfit.training import Training
from vramfit.training_result import TrainingEstimate

HIDDEN = 7168
MODEL = "deepseek-ai/DeepSeek-V3"


def answer(framework: str, plan: Plan) -> TrainingEstimate:
    """Answer for DeepSeek V3."""
    asked = Training(framework=framework, sequence_tokens=4096, loss="fused", recompute="full")
    return estimate_training(read_model(MODEL), asked, plan)


def test_megatron_trains_them() -> None:
    """A layer, three norms, and a matrix over two hidden states; embedding and projection are the model's own."""
    spec = read_model(MODEL)
    (part,) = (part for part in spec.parts if part.predicts)
    own = 2 * HIDDEN + 2 * HIDDEN * HIDDEN + HIDDEN
    plan = Plan(dp_replicate=64, ep=64)
    with_them, without = answer("megatron-lm", plan), answer("torchtitan", Plan(dp_shard=64, ep=64))
    trained = sum(t.num_parameters for t in part.layers[0].tensors if not t.buffer)
    assert own + trained == with_them.trained_parameters - without.trained_parameters
    assert 1 == part.depth


def test_they_stand_on_the_last_stage() -> None:
    """Fp32 logits of their loss wait there for the backward pass; nothing of it is on another stage."""
    found = answer("megatron-lm", Plan(dp_replicate=8, ep=8, pp=8))
    named = [{i.name for i in rank.items if i.name.startswith("activations/prediction")} for rank in found.breakdowns]
    assert [set()] * (len(named) - 1) + [{"activations/prediction"}] == named
    loss = {i.bytes for i in found.breakdowns[-1].items if i.name == "activations/loss"}
    assert {4 * 4096 * 129_280 + 4 * 4 * 4096} == loss

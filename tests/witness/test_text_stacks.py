"""Language models that transformers has as a stack only, inside a model that sees: the same number of parameters."""

from __future__ import annotations

from typing import Any

import pytest

from tiny.case import BASE
from vramfit.readers.hf_config import read_config

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.witness

STEP: dict[str, Any] = {
    **BASE, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "share_expert_dim": 40,
    "head_dim": 12, "num_hidden_layers": 5, "sliding_window": 8, "tie_word_embeddings": False,
}  # fmt: skip
TYPES = ["full_attention", *["sliding_attention"] * 3, "full_attention"]
CASES = [
    STEP,
    {**STEP, "layer_types": TYPES, "num_sliding_attention_heads": 12},
    {**STEP, "layer_types": [*TYPES, "sliding_attention"], "num_nextn_predict_layers": 1, "moe_layers_enum": "1,3",
     "attention_other_setting": {"num_attention_heads": 6}},
]  # fmt: skip


@pytest.mark.parametrize("values", CASES)
def test_stack_of_step(values: dict[str, Any]) -> None:
    """All but the output projection, which stands outside the stack, with the tensors of equal names as large."""
    theirs = transformers.AutoConfig.for_model("step3p5", **values)
    with torch.device("meta"):
        model = transformers.models.step3p7.modeling_step3p7.Step3p7TextModel(theirs)
    spec = read_config({"model_type": "step3p5", **values}, "step")
    assert sum(p.numel() for p in model.parameters()) == spec.num_parameters - 101 * 64
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    for i, layer in enumerate(spec.layers):
        for tensor in layer.tensors:
            name = f"layers.{i}.{tensor.name}".replace("share_expert", "mlp.shared_experts")
            if ".moe." not in name:
                assert shapes[name] == tensor.shape

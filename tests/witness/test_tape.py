"""What the tape says a block keeps is what the real model keeps, byte for byte."""

from __future__ import annotations

from typing import Any

import pytest

from vramfit.block_style import BlockStyle
from vramfit.memory.tape.cost import step_cost
from vramfit.parallel import shards
from vramfit.readers.hf_config import read_config
from vramfit.request import Plan
from vramfit.step import BlockStep, StepCost
from vramfit.training import Training

pytestmark = pytest.mark.witness
BATCH, TOKENS, LAYERS = 2, 128, 4
FEW = 4096
"""Bytes of counters and single numbers that no operator of ours has."""


def small(**fields: Any) -> dict[str, Any]:
    """Return fields of a small decoder."""
    return {
        "hidden_size": 256,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "intermediate_size": 704,
        "head_dim": 32,
        "vocab_size": 1000,
        "num_hidden_layers": LAYERS,
        "tie_word_embeddings": False,
        "use_cache": False,
        **fields,
    }


def without(*names: str, **fields: Any) -> dict[str, Any]:
    """Return fields of a small decoder less some."""
    return {name: value for name, value in small(**fields).items() if name not in names}


LATENT = {
    "num_key_value_heads": 8, "first_k_dense_replace": 1, "n_routed_experts": 8, "num_experts_per_tok": 2,
    "n_group": 2, "topk_group": 1, "moe_intermediate_size": 128, "q_lora_rank": 64, "kv_lora_rank": 48,
    "qk_rope_head_dim": 16, "qk_nope_head_dim": 32, "v_head_dim": 32,
}  # fmt: skip
MODELS: dict[str, tuple[str, dict[str, Any], float]] = {
    "llama": ("LlamaConfig", small(), 0),
    "llama, as many KV heads": ("LlamaConfig", small(num_key_value_heads=8), 0),
    "qwen2": ("Qwen2Config", small(), 0),
    "qwen3": ("Qwen3Config", small(), 0),
    "mistral": ("MistralConfig", small(sliding_window=None), 0),
    "phi3": ("Phi3Config", small(pad_token_id=0, eos_token_id=0), 0),
    "gemma": ("GemmaConfig", small(), 0),
    "starcoder2": ("Starcoder2Config", without("head_dim", eos_token_id=0, bos_token_id=0), 0.003),
    "nemotron": ("NemotronConfig", small(), 0.01),
    "gpt_neox": ("GPTNeoXConfig", without("head_dim", "num_key_value_heads"), 0.01),
    "cohere": ("CohereConfig", without("head_dim", eos_token_id=0, bos_token_id=0, pad_token_id=0), 0),
    "olmo2": ("Olmo2Config", without("head_dim", eos_token_id=0), 0.06),
    "qwen3_moe": (
        "Qwen3MoeConfig",
        small(num_experts=8, num_experts_per_tok=2, moe_intermediate_size=128),
        0.015,
    ),
    "mixtral": ("MixtralConfig", small(num_local_experts=4), 0.01),
    "deepseek_v3": ("DeepseekV3Config", without("head_dim", **LATENT), 0.04),
}
"""Configuration class, its fields, and how far peaks may be off: 0 = a few counters, else a ratio."""


def predicted(config: Any, **workload: Any) -> StepCost:
    """Return what the tape says."""
    (shard,) = shards(read_config(config.to_dict(), "witness"), Plan())
    return step_cost(shard, Training(micro_batch=BATCH, sequence_tokens=TOKENS, **workload), BlockStyle())


def in_order(cost: StepCost) -> list[BlockStep]:
    """Return embedding, every block and head."""
    assert cost.embedding is not None
    assert cost.head is not None
    return [cost.embedding, *(block for block, count in cost.blocks for _ in range(count)), cost.head]


def stack(model: Any) -> Any:
    """Return the list of a model's blocks."""
    import torch

    return next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == LAYERS)


@pytest.mark.parametrize("recompute", ["none", "full"])
@pytest.mark.parametrize("name", MODELS)
def test_peaks_are_those_of_the_real_model(name: str, recompute: str) -> None:
    """Both peaks of every block equal what is alive in transformers' own code, kernel scratch aside."""
    import torch
    import transformers

    from liveness import watch

    kind, fields, ratio = MODELS[name]
    config = getattr(transformers, kind)(**fields, attn_implementation="sdpa")
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config).to(torch.bfloat16).train()
    if recompute == "full":
        model.activation_checkpointing_enable()
    ids = torch.zeros(BATCH, TOKENS, dtype=torch.long, device="meta")
    seen = watch(model, stack(model), lambda: model(input_ids=ids.clone(), labels=ids.clone()))
    cost = predicted(config, precision="bf16", recompute=recompute)
    steps = in_order(cost)
    kept = [step.kept_bytes for step in steps]
    held_input = steps[0].output_bytes  # the model's forward holds the embedding's output until it returns
    for number, step in enumerate(steps[1:-1]):
        before = sum(kept[: number + 1])
        own = held_input if number and "output" not in dict(steps[0].kept) else 0
        assert seen.forward[number] == pytest.approx(before + step.forward_bytes + own, abs=FEW, rel=ratio), (
            f"forward {number}"
        )
    assert seen.loss == pytest.approx(sum(kept[:-1]) + steps[-1].forward_bytes, abs=FEW, rel=ratio)
    gradients, backward = 0, []
    for number in reversed(range(1, len(steps))):
        held = cost.held_bytes if number < len(steps) - 1 else 0
        backward.append(sum(kept[:number]) + held + gradients + steps[number].backward_bytes)
        gradients += steps[number].gradient_bytes
    assert backward == [pytest.approx(most, abs=FEW, rel=ratio) for most in seen.backward[: len(backward)]]

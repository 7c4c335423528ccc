"""Megatron-LM with Transformer Engine: 16-bit weights, fp32 main gradients, states over data parallelism."""

from __future__ import annotations

from dataclasses import replace

from vramfit.block_style import BlockStyle
from vramfit.framework import Band, Framework, Recipe, Sharding
from vramfit.frameworks.pytorch import FP32
from vramfit.result import Quantity


def main_gradients(precision: str, word: str, gradients: str) -> Recipe:
    """Return the recipe of 16-bit weights with main gradients of that format, fp32 masters and fp32 moments."""
    return Recipe(
        precision=precision,
        parameter_format=word,
        compute_format=word,
        gradient_format=gradients,
        master_format="fp32",
        optimizer_state_format="fp32",
        reduce_format=gradients,
    )


FRAGMENTATION = Band(
    low_ratio=0.0,
    expected_ratio=0.06,
    high_ratio=0.25,
    source="reserved over allocated 1.03 to 1.09 in 19 runs (MooreThreads/SimuMax), 1.02 to 1.08 in four and 1.21 in "
    "one of NVIDIA-NeMo/Megatron-Bridge, of totals of which a fifth is loaded first",
)

STYLE = BlockStyle(
    fused_norm=True,
    fused_activation=True,
    fused_rotary=True,
    fused_query_key_value=True,
    lays_out_heads=True,
    fused_softmax=True,
    fused_gate_up=True,
    gathers_again=True,
    fused_weight_gradients=True,
    holds_logits=False,
    loss_in_place=True,
    dropout=True,
    weighs_activations=True,
)
"""NVIDIA/Megatron-LM:megatron/core/models/gpt/gpt_layer_specs.py (TELayerNormColumnParallelLinear, linear_qkv,
linear_fc1), core/transformer/transformer_config.py (hidden_dropout and attention_dropout 0.1), core/transformer/moe/
experts.py (probabilities enter with the activation); a matrix keeps its rank's share of the tokens and gathers again
(NVIDIA/TransformerEngine:transformer_engine/pytorch/module/layernorm_linear.py)."""

PROFILES = (
    Framework(
        name="megatron-lm",
        version="0.1",
        checked="megatron-core 0.16.1, transformer-engine 2.8.0",
        recipes=(
            FP32,
            main_gradients("bf16-mixed", "bf16", "fp32"),
            main_gradients("fp16-mixed", "fp16", "fp16"),
            main_gradients("fp8-mixed", "bf16", "fp32"),
            replace(main_gradients("bf16-mixed", "bf16", "fp32"), precision="bf16"),
        ),
        precision="bf16-mixed",
        optimizer="adam",
        optimizer_implementation="fused",
        loss="fp32",
        attention="flash",
        style=STYLE,
        sharding=Sharding.MEGATRON,
        deepspeed=True,
        zero_stage=1,
        distributed_optimizer=False,
        sequence_parallel=False,
        trains_prediction=True,
        clips_gradients=True,
        set_to_none=False,
        fragmentation=FRAGMENTATION,
        counts=Quantity.ALLOCATED_PEAK,
    ),
)
"""NVIDIA/Megatron-LM:megatron/training/arguments.py: --bf16 sets accumulate_allreduce_grads_in_fp32; gradients live in
one buffer for as long as the model does (core/distributed/param_and_grad_buffer.py)."""

"""How a framework writes a transformer block in operators: facts that decide what autograd keeps."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockStyle:
    """The operators of one framework's blocks; defaults are transformers' eager modelling code on CUDA."""

    fused_norm: bool = False
    """True: one kernel that keeps its input and a statistic; False: the steps of RMSNorm one by one, in fp32."""
    fused_activation: bool = False
    """True: gate, activation and product in one kernel that keeps its inputs only; False: one by one."""
    fused_rotary: bool = False
    """True: one kernel; False: rotate-half with products and sums."""
    repeats_key_values: bool = False
    """True: keys and values are repeated for every query head before attention; False: the kernel groups them."""
    autocast: bool = False
    """True: matrices run in 16 bit over fp32 weights, with cast copies of both."""
    fp32_residual: bool = False
    """True: the hidden state between blocks is fp32."""

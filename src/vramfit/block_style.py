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
    fused_query_key_value: bool | None = None
    """True: queries, keys and values come of one matrix, whatever the checkpoint holds; None = as the checkpoint."""
    lays_out_heads: bool = False
    """True: queries, keys and values are copied out of their one projection, which is let go (Transformer Engine)."""
    fused_softmax: bool = False
    """True: scale, mask and softmax of attention step by step are one kernel that keeps its 16-bit output."""
    fused_gate_up: bool | None = None
    """True: gate and up projections are one matrix; None = as the checkpoint."""
    gathers_again: bool = False
    """Under sequence parallelism, True: matrices keep their rank's share of the input and gather it again in the
    backward pass (Megatron, Transformer Engine); False: they keep the gathered input (DTensor)."""
    fused_weight_gradients: bool = False
    """True: the kernel adds a matrix gradient to a buffer that is there all along (Megatron's fused accumulation)."""
    separate_casts: bool = True
    """Under autocast, True: each matrix casts the input that they share for itself; False: one copy serves all."""
    reentrant: bool = False
    """True: full recomputation by the old checkpoint, which runs the whole block again; False: it stops with the last
    tensor that is needed."""
    holds_logits: bool = True
    """True: the caller holds the output with its logits until after the backward pass (transformers)."""
    returns_fp32: bool = False
    """True: the model casts its logits to fp32 before it returns them (transformers to 4.44, torchtune to 0.2)."""
    shifts_logits: bool = False
    """True: logits are copied without their last position before the loss (transformers before 4.45)."""
    loss_in_place: bool = False
    """True: cross entropy of any kind works in place on an fp32 copy of the logits (Megatron)."""
    fused_loss_overwrites: bool = False
    """True: the fused loss needs no copy: its gradient overwrites the logits (Transformer Engine)."""
    divided_loss: bool = False
    """True: under tensor parallelism the loss runs on divided logits by DTensor's handlers (torchtitan)."""
    compiles_loss: bool = False
    """True: a compiled model's loss, and a fused one, is one compiled kernel each way (torchtitan)."""
    casts_chunks: bool = True
    """True: a loss in chunks casts each of them to fp32 (torchtune); False: it stays as it is (LitGPT)."""
    default_loss: str = "fp32"
    """Loss head where the request names none."""
    default_attention: str = "sdpa"
    """Attention implementation where the request names none."""
    fused_adapter: bool = False
    """True: the adapter's product is scaled and added in one kernel each way (Unsloth); False: as peft writes it."""
    pads_adapters: bool = False
    """True: adapters of a part of queries, keys and values are padded to the width of all (LitGPT)."""
    packed_keeps_input: bool = False
    """True: a 4-bit layer keeps its input for the backward pass (bitsandbytes up to 0.42); False: later releases."""
    unpacks_twice: bool = False
    """True: a 4-bit matrix was packed as fp16, so that it is unpacked in fp16 and cast (Lightning's bitsandbytes)."""
    dropout: bool | None = None
    """Whether blocks drop a share of their outputs and attention probabilities; None = as the family's own code.
    Models with experts do not, whatever a framework's default is: no published recipe trains them so."""
    fp32_router: bool = False
    """True: the router multiplies in fp32, with a copy of its input (DeepSeek's own code)."""
    weighs_activations: bool = False
    """True: the router's weights are multiplied in with the experts' activation (Megatron); False: with outputs."""
    weighs_wide: bool = False
    """True: the router is in 16 bit, and its weights are multiplied in fp32: with inputs of experts in Llama 4, with
    their outputs in other families (torchtitan)."""
    pads_groups: bool = False
    """True: tokens are laid out once more before and after the experts, so that each of these has whole tiles of them
    (torchtitan)."""
    checkpoint_needs_gradient: bool = True
    """True: under recomputation the first block's input wants a gradient although nothing below it is trained (peft's
    enable_input_require_grads)."""
    selects_operators: bool = False
    """Selective recomputation without named modules, True: all but the outputs of attention kernels and of every second
    matrix product (torchtitan); False: attention's scores only (Megatron's core_attn)."""
    wide_norm: bool = False
    """True: RMSNorm multiplies by an fp32 copy of its weight before it casts back, in every family (LitGPT)."""
    joins_queries: bool = False
    """True: queries are put together of a turned and an unturned part in every family, so that what the kernel returns
    is laid out anew (LitGPT)."""
    graph_outlives: bool = False
    """True: the loop's variable holds the loss, and with it the graph, until the next one is there; what operators keep
    as plain attributes is there twice (LitGPT with bitsandbytes up to 0.42)."""

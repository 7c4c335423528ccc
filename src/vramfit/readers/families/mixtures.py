"""Mixtures of experts that differ from Qwen3's in names, norms, biases and shared experts only: one row of facts each.

Source: huggingface/transformers:src/transformers/models/<model_type>/, 5.23.0, class defaults as there.
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.readers.families.decoder import Named
from vramfit.readers.families.qwen3 import is_sparse
from vramfit.readers.families.style import Mixture, Style, read_style
from vramfit.readers.fields import LARGEST_LAYERS, Fields
from vramfit.spec import ModelSpec


def _by_interval(fields: Fields, layer: int) -> bool:
    """Say whether a layer of ERNIE 4.5 has experts: every so-manieth one between two."""
    start = fields.integer("moe_layer_start_index", 1, largest=LARGEST_LAYERS, smallest=0)
    end = fields.integer("moe_layer_end_index", -1, largest=LARGEST_LAYERS, smallest=-1)
    every = fields.integer("moe_layer_interval", 1, largest=LARGEST_LAYERS)
    return (layer + 1) % every == 0 and layer >= start and (end == -1 or layer <= end)


_BIAS = ("attention_bias", False)
_MIXTRAL = Mixture(
    block="block_sparse_moe", experts="num_local_experts", width="intermediate_size", names=("w1", "w3", "w2")
)
_GLM = Mixture(
    experts="n_routed_experts", correction="gate.e_score_correction_bias", shared=("n_shared_experts", 1),
    first_dense=("first_k_dense_replace", 1),
)  # fmt: skip
_GRANITE = Mixture(
    block="block_sparse_moe", router="router.layer", experts="num_local_experts", width="intermediate_size", fused=True
)

STYLES: dict[str, Style] = {
    "afmoe": Style(
        norms=("input_layernorm", "post_attention_layernorm", "pre_mlp_layernorm", "post_mlp_layernorm"),
        qk_norm="head", gate="gate_proj", head_dim=128, slides=True, window=1024, period=4,
        period_field="global_attn_every_n_layers", qkv_bias=_BIAS, output_bias=_BIAS,
        mixture=Mixture(router="router.gate", correction="expert_bias", learned=True,
                        shared=("num_shared_experts", 2), first_dense=("num_dense_layers", 1)),
    ),
    "dots1": Style(
        qk_norm="head", qkv_bias=_BIAS, output_bias=_BIAS,
        refused=(("sliding_window", "windows above max_window_layers"),),
        mixture=replace(_GLM, shared=("n_shared_experts", None), first_dense=("first_k_dense_replace", 0)),
    ),
    "ernie4_5_moe": Style(
        qkv_bias=("use_bias", False), output_bias=("use_bias", False), mlp_bias=("use_bias", False), tied=True,
        head_bias=("use_bias", False),
        kv_heads=4,
        mixture=Mixture(experts="moe_num_experts", chosen="moe_k", correction="moe_statics.e_score_correction_bias",
                        learned=True, correction_rows=1, shared=("moe_num_shared_experts", 2),
                        sparse=_by_interval),
    ),
    "exaone_moe": Style(
        qk_norm="head", kv_heads=32, slides=True, window=4096, period=4,
        mixture=replace(_GLM, experts="num_experts", correction="e_score_correction_bias",
                        shared=("num_shared_experts", 1)),
    ),
    "flex_olmo": Style(
        norms=("post_attention_layernorm", "post_feedforward_layernorm"), qk_norm="all heads", qkv_bias=_BIAS,
        output_bias=_BIAS, mixture=Mixture(width="intermediate_size"),
    ),
    "glm4_moe": Style(
        qkv_bias=_BIAS, qk_norm="head", qk_norm_asked=True, kv_heads=8, mixture=replace(_GLM, predicts=True)
    ),
    "granitemoe": Style(qkv_bias=_BIAS, output_bias=_BIAS, mixture=_GRANITE),
    "granitemoeshared": Style(
        qkv_bias=_BIAS, output_bias=_BIAS,
        mixture=replace(_GRANITE, shared_width=("shared_intermediate_size", 0), shared_name="shared_mlp"),
    ),
    "hunyuan_v1_moe": Style(
        qk_norm="head", qk_names=("query_layernorm", "key_layernorm"), qkv_bias=_BIAS, output_bias=_BIAS,
        mixture=Mixture(router="gate.wg", chosen="moe_topk", width="intermediate_size", shared=1,
                        shared_name="shared_mlp"),
    ),
    "hy_v3": Style(
        qk_norm="head", head_dim=128, kv_heads=8, qkv_bias=_BIAS, output_bias=_BIAS, mlp_bias=("mlp_bias", False),
        mixture=Mixture(router="router.gate", correction="expert_bias", shared=("num_shared_experts", 1),
                        shared_name="shared_mlp", sparse=lambda _, layer: layer > 0),
    ),
    "minimax_m2": Style(
        qk_norm="all heads", head_dim=128, kv_heads=8,
        mixture=replace(_MIXTRAL, correction="e_score_correction_bias"),
    ),
    "olmoe": Style(qk_norm="all heads", qkv_bias=_BIAS, output_bias=_BIAS, kv_heads=16,
                   mixture=Mixture(width="intermediate_size")),
    "phimoe": Style(
        norm_biases=True, qkv_bias=_BIAS, output_bias=_BIAS, head_bias=("lm_head_bias", False), kv_heads=8, slides=True,
        mixture=_MIXTRAL,
    ),
    "qwen2_moe": Style(
        qkv_bias=("qkv_bias", True), kv_heads=16,
        refused=(("use_sliding_window", "every second layer slides"),),
        mixture=Mixture(shared_width=("shared_expert_intermediate_size", 5632), shared_name="shared_expert",
                        shared_gate="shared_expert_gate", sparse=is_sparse),
    ),
    "solar_open": Style(
        head_dim=128, kv_heads=8, qkv_bias=_BIAS, output_bias=_BIAS, mixture=replace(_GLM, first_dense=None),
    ),
}  # fmt: skip
"""``model_type`` -> its facts."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a configuration of one of the families in ``STYLES``."""
    return read_style(fields, named, STYLES[fields.text("model_type") or ""])

"""Dense decoders that differ from Llama in names, norms, biases and windows only: one row of facts each.

Source: huggingface/transformers:src/transformers/models/<model_type>/, 5.23.0, class defaults as there.
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.readers.families.decoder import Named
from vramfit.readers.families.style import Style, read_style
from vramfit.readers.fields import Fields
from vramfit.spec import ModelSpec

_NEMOTRON = Style(
    norm_biases=True, gated=False, qkv_bias=("attention_bias", False), output_bias=("attention_bias", False),
    mlp_bias=("mlp_bias", False),
)  # fmt: skip
_COHERE = Style(
    norms=("input_layernorm",),
    qkv_bias=("attention_bias", False),
    output_bias=("attention_bias", False),
    tied=True,
    qk_norm="each head",
    qk_norm_asked=True,
)
_GRANITE = Style(
    qkv_bias=("attention_bias", False), output_bias=("attention_bias", False), mlp_bias=("mlp_bias", False)
)
_GLM = Style(qkv_bias=("attention_bias", True), fused_gate=True, head_dim=128, kv_heads=2)
_OLMO = Style(qkv_bias=("attention_bias", False), output_bias=("attention_bias", False))
_OLMO2 = replace(_OLMO, norms=("post_attention_layernorm", "post_feedforward_layernorm"), qk_norm="all heads")

STYLES: dict[str, Style] = {
    "apertus": Style(
        norms=("attention_layernorm", "feedforward_layernorm"), qk_norm="head", gated=False,
        qkv_bias=("attention_bias", False), output_bias=("attention_bias", False),
        mlp_scalars=("act_fn.alpha_p", "act_fn.alpha_n"), mlp_constants=("act_fn.beta", "act_fn.eps"),
        refused=(("mlp_bias", "biases that transformers does not build"),),
    ),
    "arcee": replace(_NEMOTRON, norm_biases=False),
    "cohere": _COHERE,
    "cohere2": replace(_COHERE, slides=True, window=4096, period=4),
    "ernie4_5": Style(qkv_bias=("use_bias", False), output_bias=("use_bias", False), mlp_bias=("use_bias", False),
                      tied=True, head_dim=128),
    "exaone4": Style(
        norms=("post_attention_layernorm", "post_feedforward_layernorm"), qk_norm="head", kv_heads=32, slides=True,
        window=4096, period=4,
    ),
    "gemma": Style(qkv_bias=("attention_bias", False), output_bias=("attention_bias", False), tied=True, head_dim=256,
                   kv_heads=16),
    "glm": _GLM,
    "glm4": replace(
        _GLM, norms=("input_layernorm", "post_attention_layernorm", "post_self_attn_layernorm", "post_mlp_layernorm")
    ),
    "granite": _GRANITE,
    "hunyuan_v1_dense": Style(
        qk_norm="head", qk_names=("query_layernorm", "key_layernorm"), qkv_bias=("attention_bias", False),
        output_bias=("attention_bias", False), mlp_bias=("mlp_bias", False),
    ),
    "ministral": Style(kv_heads=8, slides=True, window=4096),
    "ministral3": Style(kv_heads=8, head_dim=128, slides=True),
    "nemotron": _NEMOTRON,
    "olmo": replace(_OLMO, norm_weights=False),
    "olmo2": _OLMO2,
    "olmo3": replace(_OLMO2, slides=True, window=4096, period=4),
    "phi": Style(
        norms=("input_layernorm",), norm_biases=True, final_norm="final_layernorm", output="dense", qkv_bias=True,
        output_bias=True, gated=False, into="fc1", down="fc2", mlp_bias=True, head_bias=True,
        refused=(("qk_layernorm", "norms on queries and keys that no published Phi has"),),
    ),
    "seed_oss": Style(qkv_bias=("attention_bias", True), output_bias=("attention_out_bias", False),
                      mlp_bias=("mlp_bias", False), head_dim=128, kv_heads=8),
    "smollm3": replace(_GRANITE, tied=True, kv_heads=4),
    "stablelm": Style(
        norm_biases=True, qkv_bias=("use_qkv_bias", False), kv_heads=32,
        refused=(("qk_layernorm", "a norm for every head"), ("use_parallel_residual", "blocks with one norm")),
    ),
    "starcoder2": Style(
        norm_biases=True, qkv_bias=("use_bias", True), output_bias=("use_bias", True), gated=False, into="c_fc",
        down="c_proj", mlp_bias=("use_bias", True), tied=True, kv_heads=2, slides=True,
    ),
}  # fmt: skip
"""``model_type`` -> its style."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a configuration of one of the families in ``STYLES``."""
    return read_style(fields, named, STYLES[fields.text("model_type") or ""])

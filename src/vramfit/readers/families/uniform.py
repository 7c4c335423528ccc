"""Dense decoders that differ from Llama in names, norms, biases and windows only: one row of facts each.

Source: huggingface/transformers:src/transformers/models/<model_type>/, 5.23.0, class defaults as there. Those in
``OWN_CODE`` have it beside the weights, class defaults as in their configuration_<model_type>.py; which of them are
Llama's: vllm-project/vllm:vllm/model_executor/models/registry.py (``aquila``, ``internlm``, ``xverse``; see also
orion.py and minicpm.py there) and NVIDIA/TensorRT-LLM:tensorrt_llm/models/__init__.py (``skywork``).
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.readers.families.decoder import Named
from vramfit.readers.families.style import Style, read_style
from vramfit.readers.fields import PUBLISHED_CODE, Fields
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

_LLAMA = replace(_GRANITE, head_dim=128)
_NO_BIAS = "biases that no published file has"

STYLES: dict[str, Style] = {
    "apertus": Style(
        norms=("attention_layernorm", "feedforward_layernorm"), qk_norm="head", gated=False,
        qkv_bias=("attention_bias", False), output_bias=("attention_bias", False),
        mlp_scalars=("act_fn.alpha_p", "act_fn.alpha_n"), mlp_constants=("act_fn.beta", "act_fn.eps"),
        refused=(("mlp_bias", "biases that transformers does not build"),),
    ),
    "aquila": Style(),
    "arcee": replace(_NEMOTRON, norm_biases=False),
    "bitnet": replace(_OLMO, kv_heads=5, attention_vectors=(("attn_sub_norm.weight", "hidden"),),
                      network_norm="ffn_sub_norm"),
    "cohere": _COHERE,
    "cohere2": replace(_COHERE, slides=True, window=4096, period=4),
    "cwm": Style(mlp_bias=("mlp_bias", False), head_dim=128, kv_heads=8, slides=True, window=8192, period=4,
                 full_first=True),
    "diffllama": replace(
        _OLMO, attention_vectors=tuple((name, "head") for name in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"))
    ),
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
    "granite_swa": replace(_GRANITE, tied=True, kv_heads=4, slides=True, window=128, period=4, full_first=True,
                           attention_vectors=(("sinks", "heads"),)),
    "helium": replace(_GRANITE, output_bias=False, head_dim=128, kv_heads=20),
    "hunyuan_v1_dense": Style(
        qk_norm="head", qk_names=("query_layernorm", "key_layernorm"), qkv_bias=("attention_bias", False),
        output_bias=("attention_bias", False), mlp_bias=("mlp_bias", False),
    ),
    "hyperclovax": replace(
        _GRANITE, norms=("input_layernorm", "post_attention_layernorm", "post_norm1", "post_norm2"),
        fewer_norms=("use_post_norm", False, 2),
    ),
    "internlm": Style(qkv_bias=("bias", True), output_bias=("bias", True)),
    "internlm3": replace(
        _LLAMA, kv_heads=2,
        refused=(("qkv_bias", "biases that transformers does not build"), ("bias", "biases transformers has not")),
    ),
    "iquestcoder": replace(_LLAMA, kv_heads=8),
    "jais2": replace(_NEMOTRON, qkv_bias=("attention_bias", True), output_bias=("attention_bias", True),
                     mlp_bias=("mlp_bias", True)),
    "minicpm": Style(
        tied=True, qkv_bias=("attention_bias", False), output_bias=("attention_bias", False),
        refused=(("num_experts", "experts, as in MiniCPM-MoE"),),
    ),
    "ministral": Style(kv_heads=8, slides=True, window=4096),
    "ministral3": Style(kv_heads=8, head_dim=128, slides=True),
    "nanochat": replace(_OLMO, norm_weights=False, gated=False, into="fc1", down="fc2"),
    "nemotron": _NEMOTRON,
    "olmo": replace(_OLMO, norm_weights=False),
    "olmo2": _OLMO2,
    "olmo3": replace(_OLMO2, slides=True, window=4096, period=4),
    "orion": Style(norm_biases=True, refused=(("attention_bias", _NO_BIAS),)),
    "phi": Style(
        norms=("input_layernorm",), norm_biases=True, final_norm="final_layernorm", output="dense", qkv_bias=True,
        output_bias=True, gated=False, into="fc1", down="fc2", mlp_bias=True, head_bias=True, qk_norm="head",
        qk_norm_asked=True, qk_norm_field="qk_layernorm", qk_norm_biases=True,
        qk_names=("q_layernorm", "k_layernorm"),
    ),
    "seed_oss": Style(qkv_bias=("attention_bias", True), output_bias=("attention_out_bias", False),
                      mlp_bias=("mlp_bias", False), head_dim=128, kv_heads=8),
    "skywork": Style(),
    "smollm3": replace(_GRANITE, tied=True, kv_heads=4),
    "stablelm": Style(
        norm_biases=True, qkv_bias=("use_qkv_bias", False), kv_heads=32, fewer_norms=("use_parallel_residual", True, 1),
        qk_norm="heads apart", qk_norm_asked=True, qk_norm_field="qk_layernorm",
        qk_names=("q_layernorm", "k_layernorm"),
    ),
    "starcoder2": Style(
        norm_biases=True, qkv_bias=("use_bias", True), output_bias=("use_bias", True), gated=False, into="c_fc",
        down="c_proj", mlp_bias=("use_bias", True), tied=True, kv_heads=2, slides=True,
    ),
    "vaultgemma": replace(
        _OLMO, norms=("input_layernorm", "pre_feedforward_layernorm"), tied=True, head_dim=256, kv_heads=4, slides=True,
        window=4096, period=2,
    ),
    "xverse": Style(),
}  # fmt: skip
"""``model_type`` -> its style."""
OWN_CODE = frozenset({"aquila", "internlm", "minicpm", "orion", "skywork", "xverse"})
"""Families that transformers cannot build without code from the model's repository."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a configuration of one of the families in ``STYLES``."""
    kind = fields.text("model_type") or ""
    if kind in OWN_CODE:
        fields = replace(fields, code=PUBLISHED_CODE)
    return read_style(fields, named, STYLES[kind])

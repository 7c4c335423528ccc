"""Decoders whose code is published beside their weights, with names of their own: one row of facts each.

Sources: the modelling code in each model's own repository, as engines load it:
vllm-project/vllm:vllm/model_executor/models/ baichuan.py, chatglm.py, exaone.py, internlm2.py, qwen.py, telechat2.py;
ModelCloud/GPTQModel:gptqmodel/models/definitions/. Class defaults as in the published configuration_<model_type>.py.
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.errors import InvalidValueError
from vramfit.formats import Role
from vramfit.readers.families.decoder import Named
from vramfit.readers.families.form import Form, read_form, shared_heads
from vramfit.readers.fields import PUBLISHED_CODE, Fields
from vramfit.spec import ModelSpec, Tensor


def _groups(fields: Fields, heads: int) -> int:
    if not fields.flag("multi_query_attention", default=False):
        return heads
    count = fields.integer("multi_query_group_num", largest=heads)
    if heads % count:
        raise InvalidValueError(fields.at("multi_query_group_num"), count, f"a divisor of {heads} heads")
    return count


def _half(fields: Fields, _: int) -> int:
    """Qwen 1: the file counts both matrices that lead into the network."""
    width = fields.integer("intermediate_size")
    if width % 2:
        raise InvalidValueError(fields.at("intermediate_size"), width, "an even number: gate and up together")
    return width // 2


_RMS = Form(
    norm_biases=False, width_ratio=None, projections=(("self_attn.W_pack", "qkv"),), qkv_bias=False,
    output="self_attn.o_proj", output_bias=False, into=("mlp.gate_proj", "mlp.up_proj"), down="mlp.down_proj",
    mlp_bias=False, prefix="model.", blocks="layers", table="embed_tokens", final_norm="norm",
    norms=("input_layernorm", "post_attention_layernorm"), kv_heads=shared_heads("num_key_value_heads"),
)  # fmt: skip
_GLM = replace(
    _RMS, prefix="transformer.", blocks="encoder.layers", table="embedding.word_embeddings",
    final_norm="encoder.final_layernorm", head="transformer.output_layer", layers=("num_hidden_layers", "num_layers"),
    width=("ffn_hidden_size",), vocab="padded_vocab_size", length=("seq_length",), kv_heads=_groups,
    head_dim="kv_channels", projections=(("self_attention.query_key_value", "qkv"),),
    qkv_bias=("add_qkv_bias", False), output="self_attention.dense", output_bias=("add_bias_linear", False),
    into=("mlp.dense_h_to_4h",), fused_gate=True, down="mlp.dense_4h_to_h", mlp_bias=("add_bias_linear", False),
)  # fmt: skip
_GLM_1 = Form(
    layers=("num_hidden_layers", "num_layers"), width=("inner_hidden_size",), length=("max_sequence_length",),
    blocks="layers", table="word_embeddings", norms=("input_layernorm", "post_attention_layernorm"),
    projections=(("attention.query_key_value", "qkv"),), output="attention.dense", into=("mlp.dense_h_to_4h",),
    down="mlp.dense_4h_to_h", final_norm="final_layernorm", tied=True,
)  # fmt: skip
_EMBEDDED = (("embed_layernorm", "a norm behind the embedding that no published file has"),)

FORMS: dict[str, Form] = {
    "baichuan": _RMS,
    "chatglm": _GLM,
    "exaone": replace(
        _RMS, prefix="transformer.", blocks="h", table="wte", final_norm="ln_f", norms=("ln_1", "ln_2"),
        layers=("num_hidden_layers", "num_layers"), projections=tuple((f"attn.attention.{k}_proj", k) for k in "qkv"),
        output="attn.attention.out_proj", into=("mlp.c_fc_0", "mlp.c_fc_1"), down="mlp.c_proj", tied=True,
    ),
    "internlm2": replace(
        _RMS, table="tok_embeddings", head="output", norms=("attention_norm", "ffn_norm"),
        projections=(("attention.wqkv", "qkv"),), qkv_bias=("bias", True), output="attention.wo",
        output_bias=("bias", True), into=("feed_forward.w1", "feed_forward.w3"), down="feed_forward.w2",
    ),
    "qwen": replace(
        _RMS, prefix="transformer.", blocks="h", table="wte", final_norm="ln_f", norms=("ln_1", "ln_2"),
        head_dim="kv_channels", kv_heads=lambda _, heads: heads, width_of=_half, projections=(("attn.c_attn", "qkv"),),
        qkv_bias=True, output="attn.c_proj", into=("mlp.w1", "mlp.w2"), down="mlp.c_proj",
        length=("max_position_embeddings", "seq_length"),
    ),
    "telechat": replace(
        _RMS, prefix="transformer.", blocks="h", table="word_embeddings", final_norm="ln_f",
        layers=("num_hidden_layers", "n_layer"), heads=("num_attention_heads", "n_head"), width=("ffn_hidden_size",),
        projections=(("self_attention.query", "q"), ("self_attention.key_value", "kv")),
        output="self_attention.dense", output_bias=True, into=("mlp.gate_proj", "mlp.up_proj"), refused=_EMBEDDED,
    ),
}  # fmt: skip
"""``model_type`` -> its form."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a configuration of one of the families in ``FORMS``."""
    fields = replace(fields, code=PUBLISHED_CODE)
    kind = fields.text("model_type") or ""
    if kind == "chatglm":
        return _glm(fields, named)
    if kind == "qwen" and not fields.flag("no_bias", default=True):
        raise InvalidValueError(fields.at("no_bias"), False, "true, as in all published Qwen models")
    spec = read_form(fields, named, FORMS[kind])
    return _telechat(spec) if kind == "telechat" else spec


def _glm(fields: Fields, named: Named) -> ModelSpec:
    """ChatGLM-6B (1) has a network without a gate; 2, 3 and GLM-4 a fused one, and their rotation in the file."""
    if fields.has("inner_hidden_size"):
        return read_form(fields, named, _GLM_1)
    for name in ("rmsnorm", "post_layer_norm"):
        if not fields.flag(name, default=True):
            raise InvalidValueError(fields.at(name), False, "true, as in all published GLM models")
    fields.refuse("pre_seq_len", "a prefix encoder")
    spec = read_form(fields, named, _GLM)
    turns = Tensor(
        name="transformer.rotary_pos_emb.inv_freq",
        shape=(fields.integer("kv_channels") // 4,),
        role=Role.NORM,
        buffer=True,
    )
    return replace(spec, embeddings=(*spec.embeddings, turns))


def _telechat(spec: ModelSpec) -> ModelSpec:
    """Of the network's matrices the one that leads out alone has a bias."""
    bias = Tensor(name="mlp.down_proj.bias", shape=(spec.hidden_size,), role=Role.BIAS)
    layer = replace(spec.layers[0], tensors=(*spec.layers[0].tensors, bias))
    return replace(spec, layers=(layer,) * len(spec.layers))

"""Mixtures of experts whose layers slide by a rule of their own: one row of facts each.

Source: huggingface/transformers:src/transformers/models/<model_type>/, 5.23.0, class defaults as there, names as in
published files where transformers renames them. Step: what its files call ``num_attention_groups``,
``moe_num_experts``, ``moe_top_k`` and ``attention_other_setting`` is read too
(vllm-project/vllm:vllm/model_executor/models/step3p5.py).
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.errors import InvalidValueError
from vramfit.readers.families.decoder import Named
from vramfit.readers.families.qwen3 import is_sparse
from vramfit.readers.families.style import Mixture, Style, read_style
from vramfit.readers.fields import LARGEST_LAYERS, Fields
from vramfit.spec import ModelSpec

_KINDS = ("full_attention", "sliding_attention")
_STEP = "step3p5"
_STEP_FIELDS = {
    "num_attention_groups": "num_key_value_heads",
    "moe_num_experts": "num_experts",
    "n_routed_experts": "num_experts",
    "moe_top_k": "num_experts_per_tok",
    "share_expert_dims": "share_expert_dim",
    "max_seq_len": "max_position_embeddings",
}
"""Step's own names -> those of the row."""


def _not_every_fourth(_: Fields, layer: int) -> bool:
    """Say whether a layer of Granite slides: all but every fourth, the first among these."""
    return layer % 4 != 0


def _flint_slides(fields: Fields, layer: int) -> bool:
    """Say whether a layer of Flint slides: not the first two, nor every fourth after them, nor the last."""
    return layer > 1 and layer % 4 != 1 and layer != fields.num_layers - 1


def _flint_sparse(fields: Fields, layer: int) -> bool:
    """Say whether a layer of Flint has experts: all but the first two, where no field names the others."""
    return is_sparse(fields, layer) and (fields.has("mlp_only_layers") or layer > 1)


def _command_slides(fields: Fields, layer: int) -> bool:
    """Say whether a layer of Cohere's mixture slides: one period for the dense layers at the bottom, one above."""
    first = fields.integer("first_k_dense_replace", 0, largest=LARGEST_LAYERS, smallest=0)
    below = fields.integer("prefix_dense_sliding_window_pattern", 1, largest=LARGEST_LAYERS)
    above = fields.integer("sliding_window_pattern", 4, largest=LARGEST_LAYERS)
    return (layer + 1) % below != 0 if layer < first else (layer - first + 1) % above != 0


def _heads_by_layer(fields: Fields) -> tuple[int, ...]:
    """Return the heads of each layer of Laguna: ``num_attention_heads_per_layer``, else all the same."""
    name, num = "num_attention_heads_per_layer", fields.num_layers
    heads, kv = fields.integer("num_attention_heads"), fields.integer("num_key_value_heads", 8)
    value = fields.values.get(name) or [heads] * num
    if not isinstance(value, list) or len(value) != num or any(type(v) is not int or v < kv or v % kv for v in value):
        raise InvalidValueError(fields.at(name), value, f"a list of {num} multiples of num_key_value_heads ({kv})")
    return tuple(value)


def _step_heads(fields: Fields) -> tuple[int, ...]:
    """Return the heads of each layer of Step: layers that slide have a count of their own."""
    heads, num = fields.integer("num_attention_heads"), fields.num_layers
    kinds = fields.words("layer_types", _KINDS, num) or ("full_attention",) * num
    if "sliding_attention" not in kinds:
        return (heads,) * num
    own = fields.integer("num_sliding_attention_heads", heads)
    kv = fields.integer("num_key_value_heads", 8)
    if own % kv:
        raise InvalidValueError(
            fields.at("num_sliding_attention_heads"), own, f"a multiple of num_key_value_heads ({kv})"
        )
    return tuple(own if kind == "sliding_attention" else heads for kind in kinds)


def _step_sparse(fields: Fields, layer: int) -> bool:
    """Say whether a layer of Step has experts: those that ``moe_layers_enum`` names, else all from the fourth on."""
    value = fields.values.get("moe_layers_enum")
    if value is None:
        return layer >= fields.integer("first_k_dense_replace", 3, largest=LARGEST_LAYERS, smallest=0)
    entries = value.split(",") if isinstance(value, str) else value
    if not isinstance(entries, list) or any(not str(v).strip().isdigit() for v in entries):
        raise InvalidValueError(fields.at("moe_layers_enum"), value, 'numbers of layers, such as "3,4,5"')
    return layer in {int(v) for v in entries}


_BIAS = ("attention_bias", False)
_QWEN = Style(qk_norm="head", head_dim=128, qkv_bias=_BIAS, output_bias=_BIAS, slides=True, period=1)
_LAGUNA = Mixture(
    shared_width=("shared_expert_intermediate_size", 512), shared_name="shared_expert", correction_at="mlp.experts",
    correction="e_score_correction_bias", learned=True, first_dense=("first_k_dense_replace", 1),
)  # fmt: skip

STYLES: dict[str, Style] = {
    "cohere2_moe": Style(
        norms=("input_layernorm",), tied=True, head_dim=128, slides=True, window=4096, slides_at=_command_slides,
        qkv_bias=_BIAS, output_bias=_BIAS,
        mixture=Mixture(width="intermediate_size", dense_width="prefix_dense_intermediate_size",
                        shared=("num_shared_experts", 0), first_dense=("first_k_dense_replace", 0)),
    ),
    "flint": replace(
        _QWEN, kv_heads=4, window=513, period=None, slides_at=_flint_slides, sinks="softmax_offset",
        mixture=Mixture(shared_width=("shared_expert_intermediate_size", 1024), shared_name="shared_expert",
                        sparse=_flint_sparse),
    ),
    "granitemoe_swa": Style(
        qkv_bias=_BIAS, output_bias=_BIAS, slides=True, window=128, slides_at=_not_every_fourth, sinks="sinks",
        mixture=Mixture(block="block_sparse_moe", router="router", experts="num_local_experts",
                        width="intermediate_size", fused=("experts.gate_up_proj", "experts.down_proj"),
                        shared_width=("shared_intermediate_size", 0), shared_name="shared_mlp", shared_beside=True),
    ),
    "kolibri1": replace(
        _QWEN, kv_heads=4, window=513, period=5, qkv_bias=False, output_bias=False,
        norms=("input_layernorm", "post_attn_norm", "post_attention_layernorm", "post_ffn_norm"),
        mixture=Mixture(shared_width=("shared_expert_intermediate_size", 512), correction_at="moe.router",
                        correction="expert_bias"),
    ),
    "laguna": replace(_QWEN, kv_heads=8, window=512, heads=_heads_by_layer, head_gate="g_proj", mixture=_LAGUNA),
    "mellum": replace(_QWEN, kv_heads=4, window=1024, mixture=Mixture()),
    _STEP: replace(
        _QWEN, kv_heads=8, heads=_step_heads, head_gate="g_proj",
        mixture=Mixture(block="moe", correction="router_bias", stacked=True, shared_width=("share_expert_dim", 1280),
                        shared_name="share_expert", shared_beside=True, sparse=_step_sparse),
    ),
}  # fmt: skip
"""``model_type`` -> its facts."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a configuration of one of the families in ``STYLES``."""
    kind = fields.text("model_type") or ""
    if kind in {_STEP, "step3p7"}:
        return read_style(_step(fields), named, STYLES[_STEP])
    return read_style(fields, named, STYLES[kind])


def _step(fields: Fields) -> Fields:
    """Return Step's fields under the row's names, without the words for prediction layers at the end of its lists."""
    values = dict(fields.values)
    for own, name in _STEP_FIELDS.items():
        if values.get(name) is None and values.get(own) is not None:
            values[name] = values[own]
    if fields.has("attention_other_setting"):
        other = fields.section("attention_other_setting")
        for own, name in (("num_attention_groups", "num_key_value_heads"), ("head_dim", "head_dim")):
            if other.has(own) and other.values[own] != values.get(name):
                raise InvalidValueError(other.at(own), other.values[own], f"{values.get(name)}, as in full layers")
        values["num_sliding_attention_heads"] = other.optional("num_attention_heads")
    for name in ("layer_types", "mlp_layer_types"):
        words = values.get(name)
        if isinstance(words, list):
            values[name] = words[: fields.num_layers]
    return Fields(values, fields.path, fields.assumed)

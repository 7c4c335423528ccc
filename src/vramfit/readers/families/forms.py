"""The first generation of open decoders, and those with their names: one row of facts each.

Source: huggingface/transformers:src/transformers/models/<model_type>/, 5.23.0, class defaults as there. ``RefinedWeb``
and ``RefinedWebModel`` are Falcon 40B and 7B as first published, with their own code and the same names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from vramfit.errors import InvalidValueError
from vramfit.formats import Role
from vramfit.readers.families.decoder import Named, linear
from vramfit.readers.families.form import Form, read_form, shared_heads
from vramfit.readers.fields import LARGEST_CONTEXT, LARGEST_LAYERS, Fields
from vramfit.spec import Cut, ModelSpec, Tensor

LOCAL_WINDOW = 256
"""Class default of GPT-Neo's ``window_size`` [tokens]."""
_CROSS = (("add_cross_attention", "adds a second attention to every block"),)
_GPT2 = Form(
    hidden=("hidden_size", "n_embd"), heads=("num_attention_heads", "n_head"), layers=("num_hidden_layers", "n_layer"),
    width=("n_inner",), length=("max_position_embeddings", "n_positions"), projections=(("attn.c_attn", "qkv"),),
    output="attn.c_proj", into=("mlp.c_fc",), down="mlp.c_proj", positions="wpe", tied=True, refused=_CROSS,
)  # fmt: skip
_GPTJ = replace(
    _GPT2, projections=(("attn.k_proj", "k"), ("attn.v_proj", "v"), ("attn.q_proj", "q")), qkv_bias=False,
    output="attn.out_proj", output_bias=False, into=("mlp.fc_in",), down="mlp.fc_out", norms=("ln_1",), positions="",
    head_bias=True, tied=False, refused=(),
)  # fmt: skip
_NEOX = Form(
    width_ratio=None, prefix="gpt_neox.", blocks="layers", table="embed_in",
    norms=("input_layernorm", "post_attention_layernorm"), projections=(("attention.query_key_value", "qkv"),),
    qkv_bias=("attention_bias", True), output="attention.dense", output_bias=("attention_bias", True),
    into=("mlp.dense_h_to_4h",), down="mlp.dense_4h_to_h", final_norm="final_layer_norm", head="embed_out",
)  # fmt: skip
_BLOOM = Form(
    hidden=("n_embed", "hidden_size"), heads=("num_attention_heads", "n_head"), layers=("num_hidden_layers", "n_layer"),
    width=(), length=("seq_length",), table="word_embeddings", table_norm="word_embeddings_layernorm",
    norms=("input_layernorm", "post_attention_layernorm"), projections=(("self_attention.query_key_value", "qkv"),),
    output="self_attention.dense", into=("mlp.dense_h_to_4h",), down="mlp.dense_4h_to_h", tied=True,
)  # fmt: skip
_FAIRSEQ = Form(
    projections=(("self_attn.k_proj", "k"), ("self_attn.v_proj", "v"), ("self_attn.q_proj", "q")),
    output="self_attn.out_proj", norms=("self_attn_layer_norm", "final_layer_norm"), into=("fc1",), down="fc2",
    blocks="layers", table="embed_tokens", final_norm="layer_norm", tied=True, width_ratio=None,
)  # fmt: skip


def _multi_query(fields: Fields, heads: int) -> int:
    return 1 if fields.flag("multi_query", default=True, recorded=True) else heads


def _local(fields: Fields, layers: int) -> tuple[int | None, ...]:
    """GPT-Neo: ``attention_types`` says [[kinds, how often], ...]; local layers slide."""
    kinds = fields.values.get("attention_layers")
    if not isinstance(kinds, list):
        kinds = _repeated(fields, fields.values.get("attention_types", [[["global", "local"], layers // 2]]))
    if len(kinds) != layers or any(kind not in {"global", "local"} for kind in kinds):
        raise InvalidValueError(fields.at("attention_types"), kinds, f"{layers} words global or local, one per layer")
    window = fields.integer("window_size", LOCAL_WINDOW, largest=LARGEST_CONTEXT)
    return tuple(window if kind == "local" else None for kind in kinds)


def _repeated(fields: Fields, groups: object) -> list[object]:
    path, kinds = fields.at("attention_types"), list[object]()
    for group in groups if isinstance(groups, list) else [groups]:
        if not isinstance(group, list) or len(group) != 2 or not isinstance(group[0], list):
            raise InvalidValueError(path, groups, "a list of [kinds, how often]")
        times = Fields({"attention_types": group[1]}, fields.path).integer("attention_types", largest=LARGEST_LAYERS)
        if len(group[0]) * times > LARGEST_LAYERS:
            raise InvalidValueError(path, groups, f"at most {LARGEST_LAYERS} layers")
        kinds += group[0] * times
    return kinds


def _falcon_heads(fields: Fields, heads: int) -> int:
    if fields.flag("new_decoder_architecture", default=False):
        return shared_heads("num_kv_heads")(fields, heads)
    return _multi_query(fields, heads)


def _multiple(fields: Fields, hidden: int) -> int:
    return hidden * fields.integer("intermediate_multiple_size", 4, largest=64)


_FALCON = replace(
    _BLOOM, hidden=("n_embed", "hidden_size"), width=("ffn_hidden_size",), length=("max_position_embeddings",),
    table_norm="", kv_heads=_falcon_heads, qkv_bias=("bias", False), output_bias=("bias", False),
    mlp_bias=("bias", False),
)  # fmt: skip

FORMS: dict[str, Form] = {
    "RefinedWeb": replace(_FALCON, norms=("ln_attn", "ln_mlp"), kv_heads=shared_heads("n_head_kv")),
    "RefinedWebModel": _FALCON,
    "biogpt": replace(
        _FAIRSEQ, prefix="biogpt.", positions="embed_positions", position_offset=2, width=("intermediate_size",),
        head="output_projection",
    ),
    "bloom": _BLOOM,
    "codegen": replace(_GPTJ, projections=(("attn.qkv_proj", "qkv"),)),
    "ctrl": replace(
        _GPT2, width=("dff",), width_ratio=None, table="w", positions="", norms=("layernorm1", "layernorm2"),
        projections=tuple((f"multi_head_attention.W{kind}", kind) for kind in "qkv"),
        output="multi_head_attention.dense", into=("ffn.0",), down="ffn.2", final_norm="layernorm", head_bias=True,
        refused=(),
    ),
    "falcon": _FALCON,
    "gpt_bigcode": replace(_GPT2, kv_heads=_multi_query),
    "gpt_neo": replace(
        _GPT2, hidden=("hidden_size",), heads=("num_attention_heads", "num_heads"),
        layers=("num_hidden_layers", "num_layers"), width=("intermediate_size",), length=("max_position_embeddings",),
        projections=tuple((f"attn.attention.{kind}_proj", kind) for kind in "kvq"), qkv_bias=False,
        output="attn.attention.out_proj", windows=_local, refused=(),
    ),
    "gpt_neox": _NEOX,
    "gpt_neox_japanese": replace(
        _NEOX, prefix="gpt_neox_japanese.", width_of=_multiple, qkv_bias=False, output_bias=False, mlp_bias=False,
        tied=True,
    ),
    "gptj": _GPTJ,
    "mpt": replace(
        _GPTJ, hidden=("hidden_size", "d_model"), heads=("num_attention_heads", "n_heads"),
        layers=("num_hidden_layers", "n_layers"), length=("max_seq_len",), blocks="blocks", norms=("norm_1", "norm_2"),
        norm_biases=False, projections=(("attn.Wqkv", "qkv"),), into=("ffn.up_proj",),
        down="ffn.down_proj", mlp_bias=False, final_norm="norm_f", head_bias=False, tied=True,
    ),
    "openai-gpt": replace(
        _GPT2, table="tokens_embed", positions="positions_embed", turned=True, final_norm="", width=(), refused=(),
    ),
    "opt": replace(
        _FAIRSEQ, prefix="model.decoder.", positions="embed_positions", position_offset=2, width=("ffn_dim",),
        final_norm="final_layer_norm",
    ),
    "persimmon": replace(
        _NEOX, prefix="model.", table="embed_tokens", projections=(("self_attn.query_key_value", "qkv"),),
        qkv_bias=True, output="self_attn.dense", output_bias=True, final_norm="final_layernorm", head="lm_head",
        head_norms=("self_attn.q_layernorm", "self_attn.k_layernorm"),
    ),
    "xglm": replace(
        _FAIRSEQ, prefix="model.", hidden=("hidden_size", "d_model"), heads=("num_attention_heads", "attention_heads"),
        layers=("num_hidden_layers", "num_layers"), width=("ffn_dim",), refused=_CROSS,
    ),
}  # fmt: skip
"""``model_type`` -> its form."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a configuration of one of the families in ``FORMS``."""
    kind = fields.text("model_type") or ""
    form = FORMS[kind]
    if kind in ADAPTED:
        form = ADAPTED[kind](fields, form)
    spec = read_form(fields, named, form)
    if kind == "gpt_neox_japanese":
        return _last_biased(spec)
    return _projected(fields, spec) if kind == "opt" else spec


def _falcon(fields: Fields, form: Form) -> Form:
    """Norms: one for both halves of a parallel block, one each (Falcon 40B), or one before each half (Falcon RW)."""
    new = fields.flag("new_decoder_architecture", default=False)
    parallel = fields.flag("parallel_attn", default=True)
    norms: tuple[str, ...] = ("input_layernorm",)
    if new and (fields.optional("num_ln_in_parallel_attn", largest=2) or 2) == 2:
        norms = ("ln_attn", "ln_mlp")
    if not parallel:
        norms = (*norms, "post_attention_layernorm")
    return replace(form, norms=norms)


def _mpt(fields: Fields, form: Form) -> Form:
    """Refuse what transformers builds differently from the code published with MPT."""
    if not fields.flag("no_bias", default=True):
        raise InvalidValueError(fields.at("no_bias"), False, "true: transformers builds no biases")
    if fields.integer("expansion_ratio", 4) != 4:
        raise InvalidValueError(fields.at("expansion_ratio"), fields.values["expansion_ratio"], "4, as transformers")
    if fields.has("attn_config"):
        inner = fields.section("attn_config")
        inner.refuse("qk_ln", "norms on queries and keys that transformers does not build")
        if not inner.flag("alibi", default=True):
            raise InvalidValueError(inner.at("alibi"), False, "true: transformers builds no learned positions")
        if inner.text("attn_type") not in {None, "multihead_attention"}:
            raise InvalidValueError(
                inner.at("attn_type"), inner.values["attn_type"], "multihead_attention, all that transformers builds"
            )
    return form


def _opt(fields: Fields, form: Form) -> Form:
    """A model with norms behind the halves of a block has no final norm (OPT-350M)."""
    for name in ("enable_bias", "layer_norm_elementwise_affine"):
        if not fields.flag(name, default=True):
            raise InvalidValueError(fields.at(name), False, "true, as in all published OPT models")
    before = fields.flag("do_layer_norm_before", default=True)
    return (
        form if before and not fields.flag("_remove_final_layer_norm", default=False) else replace(form, final_norm="")
    )


def _persimmon(fields: Fields, form: Form) -> Form:
    return form if fields.flag("qk_layernorm", default=True) else replace(form, head_norms=())


ADAPTED: dict[str, Callable[[Fields, Form], Form]] = {
    "RefinedWebModel": _falcon, "falcon": _falcon, "mpt": _mpt, "opt": _opt, "persimmon": _persimmon,
}  # fmt: skip
"""Families whose configuration changes the form itself."""


def _last_biased(spec: ModelSpec) -> ModelSpec:
    """Japanese GPT-NeoX: only the last block's attention has a bias."""
    last = spec.layers[-1]
    bias = Tensor(name="attention.dense_bias", shape=(spec.hidden_size,), role=Role.BIAS)
    return replace(spec, layers=(*spec.layers[:-1], replace(last, tensors=(*last.tensors, bias))))


def _projected(fields: Fields, spec: ModelSpec) -> ModelSpec:
    """OPT-350M: tokens are looked up at another width and projected into the blocks' and back."""
    inner = fields.optional("word_embed_proj_dim") or spec.hidden_size
    if inner == spec.hidden_size:
        return spec
    at = FORMS["opt"].prefix
    table, *others = spec.embeddings
    return replace(
        spec,
        embeddings=(
            replace(table, shape=(table.shape[0], inner)),
            *others,
            *linear(f"{at}project_in", spec.hidden_size, inner, Cut.WHOLE),
        ),
        head=(
            *(replace(t, shape=(table.shape[0], inner)) if t.role is Role.HEAD else t for t in spec.head),
            *linear(f"{at}project_out", inner, spec.hidden_size, Cut.WHOLE),
        ),
    )

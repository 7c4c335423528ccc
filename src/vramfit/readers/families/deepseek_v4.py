"""DeepSeek V4: a window and compressed blocks beside it, four streams of the hidden state, experts chosen by a table.

Source: deepseek-ai/DeepSeek-V4-Pro:inference/model.py (names, shapes, what is fp32) and
huggingface/transformers:src/transformers/models/deepseek_v4/, 5.23.0 (class defaults, both forms of the configuration).
sgl-project's files with all matrices in fp8 call it ``deepseek_ref``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from vramfit.errors import InvalidValueError
from vramfit.formats import FP8_BLOCK, FP32, MXFP4, Role, StorageFormat
from vramfit.layer_kind import Compressed, Experts, FeedForward, GroupedQuery
from vramfit.readers.families.decoder import (
    Named,
    Tensors,
    block_norms,
    causal_model,
    is_tied,
    linear,
    norm,
    routed_experts,
    router,
)
from vramfit.readers.fields import LARGEST_CONTEXT, LARGEST_EXPERTS, LARGEST_LAYERS, LARGEST_VOCABULARY, Fields
from vramfit.readers.quantizers.names import Names
from vramfit.readers.quantizers.recipe import Recipe, Rule
from vramfit.spec import Cut, Layer, ModelSpec, Part, Tensor

RATIOS = {"sliding_attention": 0, "compressed_sparse_attention": 4, "heavily_compressed_attention": 128}
"""``layer_types`` -> tokens that become one entry; 0 = the layer has a window only."""
INDEXED = 4
"""Tokens of a block in layers that pick blocks by an index; their blocks overlap."""
TABLE = StorageFormat(name="int64", block_bytes=8, source="torch.long, one number each")
KEPT = (".compressor.", ".indexer.weights_proj.")
"""Matrices that published files keep in 16 bit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sizes:
    """What all layers share."""

    hidden: int
    heads: int
    head_dim: int
    streams: int
    index_heads: int
    index_dim: int


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a DeepSeek V4 configuration, as published or as transformers writes it."""
    for name in ("attention_bias", "mlp_bias"):
        fields.refuse(name, "adds biases that the published code does not have")
    sizes = _Sizes(
        hidden=fields.integer("hidden_size"),
        heads=fields.integer("num_attention_heads"),
        head_dim=fields.integer("head_dim", 512),
        streams=fields.integer("hc_mult", 4, largest=64),
        index_heads=fields.integer("index_n_heads", 64),
        index_dim=fields.integer("index_head_dim", 128),
    )
    per_layer = tuple(zip(_ratios(fields), _hashed(fields), strict=True))
    kinds = {key: _layer(fields, sizes, *key) for key in dict.fromkeys(per_layer)}
    spec = causal_model(
        fields, named, tuple(kinds[key] for key in per_layer),
        hidden_size=sizes.hidden, tied=is_tied(fields), prefix="", head_name="head", embedding="embed",
        parts=_prediction(fields, sizes),
    )  # fmt: skip
    return replace(spec, head=(*spec.head, *_join("hc_head", sizes)), residual_streams=sizes.streams)


def stored(fields: Fields, recipe: Recipe | None) -> Recipe | None:
    """Return how published files hold it: experts in fp4, compressors in 16 bit, scales of tiles in one byte."""
    kind = fields.text("expert_dtype")
    if kind not in {None, "fp4", "fp8"}:
        raise InvalidValueError(fields.at("expert_dtype"), kind, "fp4 or fp8")
    if recipe is None or recipe.default is None or recipe.default.name != FP8_BLOCK.name:
        return recipe
    fp4 = (Rule(names=Names(parts=(".experts.",)), held=MXFP4),) if kind == "fp4" else ()
    kept = Rule(names=Names(parts=KEPT), held=None)
    return replace(recipe, default=replace(recipe.default, tile_bytes=1), rules=(kept, *fp4, *recipe.rules))


def _ratios(fields: Fields) -> tuple[int, ...]:
    """Return how many tokens become one entry in each layer, from ``layer_types`` or ``compress_ratios``."""
    num = fields.num_layers
    words = fields.words("layer_types", tuple(RATIOS), num)
    if words is not None:
        return tuple(_rates(fields)[word] for word in words)
    value = fields.values.get("compress_ratios")
    if value is None:
        fields.assume("compress_ratios", "128 for two layers, then 128 and 4 in turn")
        return tuple(128 if i < 2 or i % 2 == 0 else 4 for i in range(num))
    known = tuple(RATIOS.values())
    if not isinstance(value, list) or not num <= len(value) <= LARGEST_LAYERS or any(v not in known for v in value):
        raise InvalidValueError(fields.at("compress_ratios"), value, f"a list of {num} or more of 0, 4 and 128")
    return tuple(value[:num])


def _rates(fields: Fields) -> dict[str, int]:
    """Return the tokens per entry of each kind of layer; other rates than the published ones are refused."""
    if fields.has("compress_rates"):
        rates = fields.section("compress_rates")
        for name in rates.values:
            if RATIOS.get(name) != rates.integer(name):
                raise InvalidValueError(rates.at(name), rates.values[name], f"{RATIOS.get(name)}")
    return RATIOS


def _hashed(fields: Fields) -> tuple[bool, ...]:
    """Say of each layer whether a table, and not scores, picks the experts of a token."""
    num = fields.num_layers
    told = fields.layers_with("hash_moe", "moe", "mlp_layer_types")
    if told is not None:
        return told
    first = fields.integer("num_hash_layers", 3, largest=LARGEST_LAYERS, smallest=0)
    return tuple(i < first for i in range(num))


def _layer(fields: Fields, sizes: _Sizes, ratio: int, hashed: bool) -> Layer:
    heads, width = sizes.heads, sizes.head_dim
    window = fields.integer("sliding_window", 128, largest=LARGEST_CONTEXT)
    indexed = ratio == INDEXED
    blocks = Compressed(
        num_attention_heads=heads, head_dim=width, block_tokens=ratio, overlaps=indexed,
        index_head_dim=sizes.index_dim if indexed else 0,
    ) if ratio else None  # fmt: skip
    feed_forward, network = _experts(fields, sizes, hashed=hashed)
    return Layer(
        attention=GroupedQuery(
            num_attention_heads=heads, num_key_value_heads=1, head_dim=width, window_tokens=window, v_head_dim=0
        ),
        beside=blocks,
        feed_forward=feed_forward,
        tensors=(
            *block_norms(sizes.hidden, ("attn_norm", "ffn_norm")),
            *_streams("hc_attn", sizes),
            *_streams("hc_ffn", sizes),
            *_attention(fields, sizes),
            *(() if blocks is None else _compressor("attn.compressor", sizes.hidden, width, blocks)),
            *(() if blocks is None or not indexed else _index(fields, sizes, blocks)),
            *network,
        ),
    )


def _attention(fields: Fields, sizes: _Sizes) -> Tensors:
    """Return the projections; one vector serves as key and value of all heads, and outputs are joined by groups."""
    rank, groups = fields.integer("q_lora_rank", 1024), fields.integer("o_groups", 8)
    wide, joined = sizes.heads * sizes.head_dim, groups * fields.integer("o_lora_rank", 1024)
    if wide % groups:
        raise InvalidValueError(fields.at("o_groups"), groups, f"a divisor of heads x head_dim ({wide})")
    return (
        *linear("attn.wq_a", rank, sizes.hidden, Cut.WHOLE),
        *norm("attn.q_norm", rank),
        *linear("attn.wq_b", wide, rank, Cut.OUTPUTS),
        *linear("attn.wkv", sizes.head_dim, sizes.hidden, Cut.WHOLE),
        *norm("attn.kv_norm", sizes.head_dim),
        *linear("attn.wo_a", joined, wide // groups, Cut.OUTPUTS),
        *linear("attn.wo_b", sizes.hidden, joined, Cut.INPUTS),
        Tensor(name="attn.attn_sink", shape=(sizes.heads,), role=Role.BIAS, cut=Cut.OUTPUTS, stored=FP32),
    )


def _compressor(name: str, hidden: int, width: int, blocks: Compressed) -> Tensors:
    """Return what turns a block of tokens into one vector: values, scores, and a score for each place in the block."""
    wide = (2 if blocks.overlaps else 1) * width
    return (
        *linear(f"{name}.wkv", wide, hidden, Cut.WHOLE),
        *linear(f"{name}.wgate", wide, hidden, Cut.WHOLE),
        Tensor(name=f"{name}.ape", shape=(blocks.block_tokens, wide), role=Role.BIAS, stored=FP32),
        *norm(f"{name}.norm", width),
    )


def _index(fields: Fields, sizes: _Sizes, blocks: Compressed) -> Tensors:
    """Return the index that picks blocks, whole on every device, with a narrow compressor of its own."""
    rank = fields.integer("q_lora_rank", 1024)
    return (
        *linear("attn.indexer.wq_b", sizes.index_heads * sizes.index_dim, rank, Cut.WHOLE),
        *linear("attn.indexer.weights_proj", sizes.index_heads, sizes.hidden, Cut.WHOLE),
        *_compressor("attn.indexer.compressor", sizes.hidden, sizes.index_dim, blocks),
    )


def _streams(name: str, sizes: _Sizes) -> Tensors:
    """Return what mixes the streams before and after a sublayer: in, out, and each with each."""
    mixes = (2 + sizes.streams) * sizes.streams
    return _mixing(name, mixes, sizes.streams * sizes.hidden, 3)


def _join(name: str, sizes: _Sizes) -> Tensors:
    """Return what joins the streams before the final norm."""
    return _mixing(name, sizes.streams, sizes.streams * sizes.hidden, 1)


def _mixing(name: str, outputs: int, inputs: int, scales: int) -> Tensors:
    return (
        Tensor(name=f"{name}_fn", shape=(outputs, inputs), role=Role.ROUTER, stored=FP32),
        Tensor(name=f"{name}_base", shape=(outputs,), role=Role.BIAS, stored=FP32),
        Tensor(name=f"{name}_scale", shape=(scales,), role=Role.BIAS, stored=FP32),
    )


def _experts(fields: Fields, sizes: _Sizes, *, hashed: bool) -> tuple[FeedForward, Tensors]:
    count = fields.integer("n_routed_experts", largest=LARGEST_EXPERTS)
    width, chosen = fields.integer("moe_intermediate_size"), fields.integer("num_experts_per_tok", largest=count)
    shared = width * fields.integer("n_shared_experts", 1, largest=1)
    vocab = fields.integer("vocab_size", largest=LARGEST_VOCABULARY)
    choice = (
        Tensor(name="ffn.gate.tid2eid", shape=(vocab, chosen), role=Role.BIAS, stored=TABLE, buffer=True)
        if hashed
        else Tensor(name="ffn.gate.bias", shape=(count,), role=Role.BIAS, stored=FP32, buffer=True)
    )
    facts = Experts(
        num_experts=count,
        num_experts_per_tok=chosen,
        moe_intermediate_size=width,
        shared_intermediate_size=shared,
    )
    return facts, (
        router("ffn.gate", count, sizes.hidden),
        choice,
        *routed_experts(count, sizes.hidden, width, prefix="ffn", names=("w1", "w3", "w2")),
        *linear("ffn.shared_experts.w1", shared, sizes.hidden, Cut.OUTPUTS),
        *linear("ffn.shared_experts.w3", shared, sizes.hidden, Cut.OUTPUTS),
        *linear("ffn.shared_experts.w2", sizes.hidden, shared, Cut.INPUTS),
    )


def _prediction(fields: Fields, sizes: _Sizes) -> tuple[Part, ...]:
    """Return the multi-token-prediction blocks, with a window only; they share embedding and head with the model."""
    count = fields.optional("num_nextn_predict_layers", smallest=0, largest=LARGEST_LAYERS) or 0
    if not count:
        return ()
    h = sizes.hidden
    tensors = tuple(
        t
        for i in range(count)
        for t in (
            *linear(f"mtp.{i}.e_proj", h, h, Cut.WHOLE),
            *linear(f"mtp.{i}.h_proj", h, h, Cut.WHOLE),
            *block_norms(h, (f"mtp.{i}.enorm", f"mtp.{i}.hnorm", f"mtp.{i}.norm")),
            *_join(f"mtp.{i}.hc_head", sizes),
        )
    )
    layer = _layer(fields, sizes, 0, hashed=False)
    return (Part(name="mtp", layers=(layer,) * count, layer_prefix="mtp.{layer}.", tensors=tensors, resident=False),)

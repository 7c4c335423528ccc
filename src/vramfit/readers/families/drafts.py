"""Draft heads as models of their own: EAGLE, EAGLE-3, Medusa, and DeepSeek's prediction layer as a file.

They sit beside the model they draft for: its embedding, or its output projection, is theirs too and is not counted
again. What ``architectures`` names decides, since ``model_type`` is that of the model they were made from.
Sources: SafeAILab/EAGLE@2174a79:eagle/model/cnets1.py (EAGLE), SafeAILab/EAGLE@148042c:eagle/model/cnets.py (EAGLE-3),
vllm-project/vllm@01dbb08:vllm/model_executor/models/medusa.py (Medusa),
sgl-project/sglang:scripts/export_deepseek_nextn.py (the prediction layer, exported whole as layer 0).
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.formats import Role, StorageFormat
from vramfit.layer_kind import Dense
from vramfit.readers.families import deepseek
from vramfit.readers.families.decoder import (
    Named,
    Tensors,
    attention_tensors,
    block_norms,
    gated_mlp,
    grouped_query,
    linear,
    norm,
)
from vramfit.readers.fields import LARGEST_CONTEXT, LARGEST_LAYERS, LARGEST_VOCABULARY, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Tensor

EAGLE = ("LlamaForCausalLMEagle", "EagleLlamaForCausalLM")
EAGLE_3 = ("LlamaForCausalLMEagle3", "Eagle3LlamaForCausalLM")
MEDUSA = ("MedusaModel", "MedusaForCausalLM")
NEXT_N = ("DeepseekV3ForCausalLMNextN",)
TAPS = 3
"""Layers of the model whose hidden states EAGLE-3 joins."""
LARGEST_HEADS = 64
ID = StorageFormat(name="int64", block_bytes=8, source="torch.long, one number each")
FLAG = StorageFormat(name="bool", block_bytes=1, source="torch.bool, one byte each")


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read the configuration of a draft head."""
    architectures = fields.values.get("architectures")
    name = architectures[0] if isinstance(architectures, list) and architectures else MEDUSA[0]
    if name in EAGLE:
        return _eagle(fields, named)
    if name in EAGLE_3:
        return _eagle_3(fields, named)
    return _next_n(fields, named) if name in NEXT_N else _medusa(fields, named)


def _spec(fields: Fields, named: Named, layers: tuple[Layer, ...], prefix: str, head: Tensors) -> ModelSpec:
    """Return a head without an embedding of its own; ``head`` is all that stands outside its layers."""
    return ModelSpec(
        name=named.name,
        family=fields.text("model_type") or "",
        hidden_size=fields.integer("hidden_size"),
        vocab_size=fields.integer("vocab_size", largest=LARGEST_VOCABULARY),
        max_position_embeddings=fields.optional("max_position_embeddings", largest=LARGEST_CONTEXT),
        embeddings=(),
        layers=layers,
        head=head,
        tied=False,
        layer_prefix=prefix,
        scheme=named.scheme,
    )


def _eagle(fields: Fields, named: Named) -> ModelSpec:
    """Return EAGLE's head: embedding and hidden state joined, and blocks, the first without its first norm."""
    hidden = fields.integer("hidden_size")
    later = _block(fields, hidden, hidden, ("input_layernorm", "post_attention_layernorm"))
    first = replace(later, tensors=tuple(t for t in later.tensors if not t.name.startswith("input_layernorm.")))
    bias = fields.flag("bias", default=True, recorded=True)
    fields.assume("embed_tokens, lm_head", "shared", "a draft head takes them from the model it drafts for")
    layers = (first, *(later,) * (fields.num_layers - 1))
    return _spec(fields, named, layers, "layers.{layer}.", linear("fc", hidden, 2 * hidden, Cut.WHOLE, bias=bias))


def _eagle_3(fields: Fields, named: Named) -> ModelSpec:
    """Return EAGLE-3's head: hidden states of three layers joined, one wide block, a vocabulary of its own."""
    hidden = fields.integer("hidden_size")
    vocab = fields.integer("vocab_size", largest=LARGEST_VOCABULARY)
    drafted = fields.optional("draft_vocab_size", largest=vocab) or vocab
    tapped = fields.optional("target_hidden_size") or hidden
    wide = _block(fields, hidden, 2 * hidden, ("hidden_norm", "input_layernorm", "post_attention_layernorm"))
    later = _block(fields, hidden, hidden, ("hidden_norm", "input_layernorm", "post_attention_layernorm"))
    count = fields.num_layers
    fields.assume("embed_tokens", "shared", "a draft head takes it from the model it drafts for")
    head = (
        *linear("fc", hidden, TAPS * tapped, Cut.WHOLE),
        *norm("norm", hidden),
        Tensor(name="lm_head.weight", shape=(drafted, hidden), role=Role.HEAD, cut=Cut.VOCABULARY),
        Tensor(name="d2t", shape=(drafted,), role=Role.BIAS, stored=ID, buffer=True),
        Tensor(name="t2d", shape=(vocab,), role=Role.BIAS, stored=FLAG, buffer=True),
    )
    prefix = "midlayer." if count == 1 else "layers.{layer}."
    spec = _spec(fields, named, (wide, *(later,) * (count - 1)), prefix, head)
    return replace(spec, vocab_size=drafted)


def _block(fields: Fields, hidden: int, inputs: int, norms: tuple[str, ...]) -> Layer:
    """Return one Llama block whose queries, keys and values read ``inputs`` elements."""
    facts, width = grouped_query(fields, hidden), fields.integer("intermediate_size")
    bias = fields.flag("attention_bias", default=False)
    attention = attention_tensors(facts, hidden, qkv_bias=bias, output_bias=bias)
    read = tuple(
        replace(t, shape=(t.shape[0], inputs)) if len(t.shape) > 1 and "o_proj" not in t.name else t for t in attention
    )
    return Layer(
        attention=facts,
        feed_forward=Dense(intermediate_size=width),
        tensors=(*block_norms(hidden, norms), *read, *gated_mlp(hidden, width)),
    )


def _medusa(fields: Fields, named: Named) -> ModelSpec:
    """Return Medusa's heads: each a stack of residual matrices and an output projection, without attention or cache."""
    hidden, original = fields.integer("hidden_size"), fields.has("medusa_num_heads")
    heads = fields.integer("medusa_num_heads" if original else "num_heads", largest=LARGEST_HEADS)
    depth = fields.integer("medusa_num_layers" if original else "num_hidden_layers", 1, largest=LARGEST_LAYERS)
    vocab = fields.integer("vocab_size", largest=LARGEST_VOCABULARY)
    drafted = fields.optional("truncated_vocab_size", largest=vocab) or vocab
    bias = True if original else fields.flag("medusa_fc_bias", default=False)
    inner = "{layer}.%d.linear" if original else "blocks.{layer}.layers.%d"
    shared = not original and fields.flag("original_lm_head", default=False)
    last = f"{{layer}}.{depth}" if original else "lm_heads.{layer}"
    tensors: list[Tensor] = []
    for number in range(heads):
        for i in range(depth):
            name = (inner % i).replace("{layer}", str(number))
            tensors.extend(linear(name, hidden, hidden, Cut.WHOLE, bias=bias))
        if not shared or number == 0:
            name = last.replace("{layer}", str(number))
            tensors.append(Tensor(name=f"{name}.weight", shape=(drafted, hidden), role=Role.HEAD, cut=Cut.VOCABULARY))
    block = Layer(attention=None, feed_forward=Dense(intermediate_size=hidden, gated=False), tensors=())
    return replace(_spec(fields, named, (block,), "", tuple(tensors)), vocab_size=drafted)


def _next_n(fields: Fields, named: Named) -> ModelSpec:
    """Return DeepSeek V3's prediction layer, exported whole as layer 0, with copies of embedding and projection."""
    values = {**fields.values, "num_hidden_layers": 1, "first_k_dense_replace": 0, "num_nextn_predict_layers": 1}
    spec = deepseek.read(Fields(values, fields.path, fields.assumed), named)
    part = spec.parts[0]
    outside = tuple(replace(t, name=t.name.replace("model.layers.1.", "model.layers.0.", 1)) for t in part.tensors)
    table = tuple(t for t in outside if t.role is Role.EMBEDDING)
    head = tuple(t for t in outside if t.role is not Role.EMBEDDING)
    return replace(spec, embeddings=table, layers=part.layers, head=head, parts=())

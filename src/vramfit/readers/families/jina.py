"""Files that call themselves BERT or XLM-RoBERTa and bring Jina's code: versions 2 and 3 of its embedding models.

Version 2 has no table of positions (ALiBi) and gated networks; version 3 has rotary positions and adapters of low rank
for each task beside every matrix. All other files are BERT's and RoBERTa's own. Source: Guenther et al. 2023,
arXiv:2310.19923, sec. 3.1; Sturua et al. 2024, arXiv:2409.10173, sec. 4.1; transformers 5.23.0 builds version 3 without
its adapters (models/jina_embeddings_v3/).
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.errors import InvalidValueError
from vramfit.formats import Role
from vramfit.readers.families import bert, flash_encoder
from vramfit.readers.families.bert import BERT_MASKED, POOLED_CLASSES
from vramfit.readers.families.decoder import Named, Tensors, linear
from vramfit.readers.families.encoder import (
    Sizes,
    Top,
    bidirectional,
    chosen_class,
    class_names,
    divided_heads,
    encoder_model,
    linears,
    norms,
    num_labels,
    table,
)
from vramfit.readers.fields import LARGEST_CONTEXT, LARGEST_VOCABULARY, Fields
from vramfit.spec import Cut, ModelSpec, Tensor

TOPS = {
    "Model": Top(pooled=True),
    "ForMaskedLM": Top(tensors=BERT_MASKED, vocabulary=True),
    "ForSequenceClassification": POOLED_CLASSES,
}
CLASSES = {
    "bert": (*bert.CLASSES["bert"], *class_names("JinaBert", TOPS)),
    "xlm-roberta": bert.CLASSES["xlm-roberta"],
}
LARGEST_RANK, LARGEST_TASKS = 4096, 256


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a BERT or XLM-RoBERTa configuration, Jina's among them."""
    positions = fields.text("position_embedding_type")
    classes = fields.values.get("architectures")
    jina = isinstance(classes, list) and str(classes[:1]).startswith("['JinaBert")
    if fields.text("model_type") == "bert" and (jina or positions == "alibi"):
        return _second(fields, named)
    if fields.text("model_type") == "xlm-roberta" and positions == "rotary":
        return _third(fields, named)
    return bert.read(fields, named)


def _second(fields: Fields, named: Named) -> ModelSpec:
    """Version 2: BERT's attention, gated networks, no positions."""
    code = fields.values.get("auto_map")
    if isinstance(code, dict) and any("post-norm" in str(v) for v in code.values()):
        fields.refuse("auto_map", "the variant with norms on queries and keys")
    if fields.text("feed_forward_type") not in {"geglu", "reglu"}:
        fields.refuse("feed_forward_type", "networks without a gate")
    end, top = chosen_class(fields, "JinaBert", TOPS)
    sizes = Sizes(
        hidden=fields.integer("hidden_size"),
        width=fields.integer("intermediate_size"),
        heads=fields.integer("num_attention_heads"),
        vocab=fields.integer("vocab_size", largest=LARGEST_VOCABULARY),
        labels=num_labels(fields) if top.labelled else 0,
    )
    hidden, at = divided_heads(fields, sizes).hidden, "embeddings."
    return encoder_model(
        fields,
        named,
        sizes,
        "" if end == "Model" else "bert.",
        positions=fields.integer("max_position_embeddings", largest=LARGEST_CONTEXT),
        embeddings=(
            table(f"{at}word_embeddings", sizes.vocab, hidden, Cut.VOCABULARY),
            table(f"{at}token_type_embeddings", fields.integer("type_vocab_size", 2), hidden),
            *norms(f"{at}LayerNorm", hidden),
        ),
        layers=(bidirectional(sizes, _block(sizes), gated=True),) * fields.num_layers,
        layer_prefix="encoder.layer.{layer}.",
        behind=linear("pooler.dense", hidden, hidden, Cut.WHOLE, bias=True) if top.pooled else (),
        top=top.tensors(sizes),
        tied=top.vocabulary,
    )


def _block(sizes: Sizes) -> Tensors:
    at, hidden, width = "attention.self.", sizes.hidden, sizes.width
    return (
        *linears(f"{at}query {at}key {at}value", hidden, hidden, Cut.OUTPUTS),
        *linear("attention.output.dense", hidden, hidden, Cut.INPUTS, bias=True),
        *linear("mlp.gated_layers", 2 * width, hidden, Cut.OUTPUTS),
        *linear("mlp.wo", hidden, width, Cut.INPUTS, bias=True),
        *norms("attention.output.LayerNorm mlp.layernorm", hidden),
    )


def _third(fields: Fields, named: Named) -> ModelSpec:
    """Version 3: as transformers builds it, each matrix with its adapters where ``lora_adaptations`` names tasks."""
    tasks = fields.values.get("lora_adaptations")
    if tasks is not None and not (isinstance(tasks, list) and 0 < len(tasks) <= LARGEST_TASKS):
        raise InvalidValueError(fields.at("lora_adaptations"), tasks, f"a list of 1 to {LARGEST_TASKS} tasks, or null")
    values = {**fields.values, "model_type": "jina_embeddings_v3", "architectures": ["JinaEmbeddingsV3Model"]}
    spec = flash_encoder.read(Fields(values, fields.path, fields.assumed), named)
    if tasks is None:
        return spec
    rank = fields.integer("lora_rank", 4, largest=LARGEST_RANK)
    layer = spec.layers[0]
    adapted = replace(layer, tensors=_adapted(layer.tensors, len(tasks), rank))
    return replace(
        spec,
        embeddings=tuple(_named(t) for t in _adapted(spec.embeddings, len(tasks), rank)),
        layers=(adapted,) * len(spec.layers),
        head=tuple(_named(t) for t in _adapted(spec.head, len(tasks), rank)),
        layer_prefix=f"roberta.{spec.layer_prefix}",
    )


def _named(tensor: Tensor) -> Tensor:
    return replace(tensor, name=f"roberta.{tensor.name}")


def _adapted(tensors: Tensors, tasks: int, rank: int) -> Tensors:
    """Return the tensors, every matrix with two small ones beside it for each task."""
    found: list[Tensor] = []
    for tensor in tensors:
        if len(tensor.shape) < 2:
            found.append(tensor)
            continue
        outputs, inputs = tensor.shape
        looked_up = tensor.role is Role.EMBEDDING
        into, back = ((outputs, rank), (rank, inputs)) if looked_up else ((rank, inputs), (outputs, rank))
        at = f"{tensor.name.removesuffix('.weight')}.parametrizations.weight."
        found.append(replace(tensor, name=f"{at}original"))
        found.append(Tensor(name=f"{at}0.lora_A", shape=(tasks, *into), role=Role.NORM))
        found.append(Tensor(name=f"{at}0.lora_B", shape=(tasks, *back), role=Role.NORM))
    return tuple(found)

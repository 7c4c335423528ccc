"""Decoders without their output projection: bare ones that embed texts, and those that score or label them.

What stands on top follows ``architectures``. Nothing is generated and no cache is kept: one pass over the text.
Source: huggingface/transformers:src/transformers/modeling_layers.py, 5.23.0, Generic classes.
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.errors import UnsupportedModelError
from vramfit.formats import Role
from vramfit.readers.families.decoder import Tensors, linear
from vramfit.readers.fields import Fields
from vramfit.spec import Cut, ModelSpec, Tensor

GENERATING = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
"""Ends of the names of classes that have an output projection over the vocabulary."""
BARE, SCORING, LABELLING = "Model", "ForSequenceClassification", "ForTokenClassification"
KEPT = "keys and values of all layers, which transformers' bare decoders return unless use_cache is false"


def generates(name: str) -> bool:
    """Say whether a class writes text."""
    return name.endswith(GENERATING)


def understood(name: str) -> bool:
    """Say whether a decoder's class is read."""
    return name.endswith((*GENERATING, BARE, SCORING, LABELLING))


def without_projection(fields: Fields, spec: ModelSpec, name: str) -> ModelSpec:
    """Return the decoder as a class holds it that does not write text."""
    prefix = spec.layer_prefix.split(".")[0] + "."
    others = [part.name for part in spec.parts if part.resident]
    if name.endswith(LABELLING) and prefix != "model.":
        others = ["a head for each token"]
    if others or not any(t.name.startswith(prefix) for t in spec.embeddings):
        raise UnsupportedModelError(
            f"architectures[0]: {name!r:.100}: expected a class that generates text: {', '.join(others) or 'this kind'}"
            " is not read without that yet; leave architectures out to count it as one"
        )
    head = tuple(t for t in spec.head if t.name.startswith(prefix))
    if name.endswith(BARE):
        spec = replace(
            spec,
            embeddings=tuple(_bared(t, prefix) for t in spec.embeddings),
            layer_prefix=spec.layer_prefix.removeprefix(prefix),
            parts=tuple(replace(p, layer_prefix=p.layer_prefix.removeprefix(prefix)) for p in spec.parts),
        )
        head = tuple(_bared(t, prefix) for t in head)
    else:
        head = (*head, *_score(fields, spec.hidden_size, bias=name.endswith(LABELLING)))
    return replace(spec, head=head, tied=False, generates=False, not_counted=(*spec.not_counted, KEPT))


def _bared(tensor: Tensor, prefix: str) -> Tensor:
    return replace(tensor, name=tensor.name.removeprefix(prefix))


def _score(fields: Fields, hidden_size: int, *, bias: bool) -> Tensors:
    """Return the matrix with a row per label."""
    from vramfit.readers.families.encoder import num_labels  # noqa: PLC0415 - only classifiers pay for it

    tensors = linear("score", num_labels(fields), hidden_size, Cut.WHOLE, bias=bias)
    return tuple(replace(t, role=Role.HEAD) if t.role is Role.LINEAR else t for t in tensors)

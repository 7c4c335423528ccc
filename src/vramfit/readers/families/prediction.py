"""Multi-token-prediction layers of DeepSeek V3 and those that took them over: behind the last layer, left on disk.

Names: deepseek-ai/DeepSeek-V3:README_WEIGHTS.md. GLM-4.5 has the same: they make up the difference between
transformers' count of GLM-4.5-Air and the Hub's, 3,616,573,568 of 110,468,824,832.
"""

from __future__ import annotations

from vramfit.formats import Role
from vramfit.readers.families.decoder import Tensors, norm
from vramfit.readers.fields import LARGEST_LAYERS, LARGEST_VOCABULARY, Fields
from vramfit.spec import Cut, Layer, Part, Tensor


def prediction(fields: Fields, hidden: int, layer: Layer | None) -> tuple[Part, ...]:
    """Return the multi-token-prediction layers, which a plain load leaves on disk."""
    name = "num_nextn_predict_layers" if fields.has("num_nextn_predict_layers") else "num_mtp_layers"
    count = fields.optional(name, smallest=0, largest=LARGEST_LAYERS) or 0
    if not count or layer is None:
        return ()
    first, vocab = fields.num_layers, fields.integer("vocab_size", largest=LARGEST_VOCABULARY)
    tensors = tuple(t for i in range(count) for t in _prediction_tensors(f"model.layers.{first + i}.", hidden, vocab))
    return (
        Part(
            name="mtp",
            layers=(layer,) * count,
            layer_prefix="model.layers.{layer}.",
            first_layer=first,
            tensors=tensors,
            resident=False,
        ),
    )


def _prediction_tensors(prefix: str, hidden: int, vocab: int) -> Tensors:
    """Return what a prediction layer has beside its block; published files keep all of it in 16 bit."""
    return (
        Tensor(name=f"{prefix}embed_tokens.weight", shape=(vocab, hidden), role=Role.EMBEDDING, cut=Cut.VOCABULARY),
        *norm(f"{prefix}enorm", hidden),
        *norm(f"{prefix}hnorm", hidden),
        Tensor(name=f"{prefix}eh_proj.weight", shape=(hidden, 2 * hidden), role=Role.HEAD),
        *norm(f"{prefix}shared_head.norm", hidden),
        Tensor(name=f"{prefix}shared_head.head.weight", shape=(vocab, hidden), role=Role.HEAD, cut=Cut.VOCABULARY),
    )

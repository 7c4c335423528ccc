"""Every family against transformers' own small models: count, names, shapes and windows, layer by layer."""

from __future__ import annotations

from typing import Any

import pytest

from tiny import ALL
from tiny.case import Tiny
from vramfit.layer_kind import GroupedQuery
from vramfit.readers.hf_config import read_config
from witness_models import as_saved, resident, saved

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.witness


WINDOWS = {
    "sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size", "full_attention": "none at all",
    "hybrid": "none at all",
    "minimax_m3_sparse": "none at all", "compressed_sparse_attention": "sliding_window",
    "heavily_compressed_attention": "sliding_window",
    "local": "window_size", "global": "none at all",
}  # fmt: skip
"""Kind of a layer -> field with its window."""


def build(case: Tiny) -> Any:
    """Return transformers' model, on a device without memory."""
    theirs = transformers.AutoConfig.for_model(case.kind, **case.values)
    with torch.device("meta"):
        if case.cls is not None:
            return getattr(transformers, case.cls)(theirs)
        return transformers.AutoModelForCausalLM.from_config(theirs)


@pytest.mark.parametrize("case", [pytest.param(case, id=f"{i}-{case.kind}") for i, case in enumerate(ALL)])
def test_a_small_model_is_the_same(case: Tiny) -> None:
    """Same number of parameters, same names, same shapes, same windows."""
    model, spec = build(case), read_config(case.config, case.kind)
    assert saved(model, case.kind) == as_saved(resident(spec), case.kind)
    assert sum(p.numel() for p in model.parameters()) == spec.num_parameters
    theirs = model.config.get_text_config()
    types = getattr(theirs, "layer_types", None) or getattr(theirs, "attention_layers", None)
    for i, layer in enumerate(spec.layers):
        if isinstance(layer.attention, GroupedQuery) and layer.attention.causal:
            kind = "sliding_attention" if types is None else types[i]
            assert (getattr(theirs, WINDOWS[kind], None)) == layer.attention.window_tokens, i

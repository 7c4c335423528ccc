"""MiMo-7B: Qwen2 and layers that predict further tokens, which a plain load leaves on disk.

Names: vllm-project/vllm:vllm/model_executor/models/mimo_mtp.py and
jj8127/mimo_kor@3280a423c62c3e845b831a7d9db6aa793b9c5502:model.safetensors.index.json, a copy of the published index.
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.readers.families import qwen2
from vramfit.readers.families.decoder import Named, Tensors, linear, norm
from vramfit.readers.fields import LARGEST_LAYERS, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Part


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a MiMo configuration."""
    spec = qwen2.read(fields, named)
    count = fields.optional("num_nextn_predict_layers", smallest=0, largest=LARGEST_LAYERS) or 0
    if not count:
        return spec
    last = spec.layers[-1]
    layer = Layer(
        attention=last.attention,
        feed_forward=last.feed_forward,
        tensors=(*last.tensors, *_joint(spec.hidden_size)),
    )
    part = Part(name="mtp", layers=(layer,) * count, layer_prefix="model.mtp_layers.{layer}.", resident=False)
    return replace(spec, parts=(part,))


def _joint(hidden: int) -> Tensors:
    """Return what joins the last hidden state and the next token's embedding."""
    return (
        *norm("token_layernorm", hidden),
        *norm("hidden_layernorm", hidden),
        *linear("input_proj", hidden, 2 * hidden, Cut.WHOLE),
        *norm("final_layernorm", hidden),
    )

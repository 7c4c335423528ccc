"""The state of recurrent layers against what transformers keeps after a small model has read ten tokens."""

from __future__ import annotations

from typing import Any

import pytest

from tiny import hybrids
from tiny.case import Tiny
from vramfit.layer_kind import LinearAttention, Recurrent, ShortConvolution
from vramfit.memory.recurrent_state import carried_elements, state_elements
from vramfit.readers.hf_config import read_config

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.witness

SEQUENCES = 2
TOKENS = 10
CASES = tuple(case for case in hybrids.CASES if not case.kind.startswith("qwen3_5"))

State = tuple[list[Any], list[Any]]
"""Tensors of the recurrent state, tensors of earlier inputs."""


def run(case: Tiny) -> tuple[Any, Any]:
    """Return transformers' model and its answer to a prompt, in bf16 and on a device without memory."""
    theirs = transformers.AutoConfig.for_model(case.kind, **case.values)
    with torch.device("meta"), torch.no_grad():
        model = transformers.AutoModelForCausalLM.from_config(theirs, dtype=torch.bfloat16).eval()
        ids = torch.zeros(SEQUENCES, TOKENS, dtype=torch.long)
        return model, model(input_ids=ids, use_cache=True)


def kept(kind: str, model: Any, answer: Any, layer: int) -> State:
    """Return the tensors that one layer keeps."""
    match kind:
        case "rwkv":
            return [t[..., layer] for t in answer.state[2:]], [t[..., layer] for t in answer.state[:2]]
        case "xlstm":
            return list(answer.cache_params.rnn_state[layer]), []
        case "minimax":
            return [answer.past_key_values.linear_cache[layer]], []
        case "recurrent_gemma":
            block = model.model.layers[layer].temporal_block
            return [block.rg_lru.recurrent_states], [block.conv1d_state]
        case _:
            cache = getattr(answer, "past_key_values", None) or answer.cache_params
            states, inputs = cache.layers[layer].recurrent_states, cache.layers[layer].conv_states
            return [t for t in states.values() if t is not None], [t for t in inputs.values() if t is not None]


@pytest.mark.parametrize("case", [pytest.param(case, id=f"{i}-{case.kind}") for i, case in enumerate(CASES)])
def test_a_small_model_keeps_as_much(case: Tiny) -> None:
    """Same elements of state in the same format, same earlier inputs; RecurrentGemma keeps one input less."""
    model, answer = run(case)
    spec = read_config(case.config, case.kind)
    recurrent = [(i, m) for i, layer in enumerate(spec.layers) for m in layer.mixers if isinstance(m, Recurrent)]
    assert recurrent or case.values.get("layer_types") == ["attention"] * 3
    for i, mixer in recurrent:
        states, inputs = kept(case.kind, model, answer, i)
        assert sum(t.numel() for t in states) == SEQUENCES * state_elements(mixer), i
        carried = carried_elements(mixer)
        if case.kind == "recurrent_gemma":
            carried = carried // mixer.conv_kernel * (mixer.conv_kernel - 1)  # type: ignore[union-attr]
        assert sum(t.numel() for t in inputs) == SEQUENCES * carried, i
        formats = {t.dtype for t in states}
        if isinstance(mixer, ShortConvolution):
            assert not formats, i
        else:
            assert formats == {torch.float32 if mixer.state_format is None else torch.bfloat16}, i
        assert {t.dtype for t in inputs} <= {torch.bfloat16}, i
        if isinstance(mixer, LinearAttention):
            heads, keys, values = mixer.num_value_heads, mixer.key_head_dim, mixer.value_head_dim
            assert tuple(states[0].shape) == (SEQUENCES, heads, keys, values), i

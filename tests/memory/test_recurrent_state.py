"""Recurrent state: what hybrid models keep per sequence, against runtimes' own logs and by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hybrid_configs import NEMOTRON_NANO_9B_V2
from recurrent_configs import MAMBA_1_4B, RECURRENT_GEMMA_2B
from vramfit.estimate import estimate
from vramfit.layer_kind import LinearAttention, Recurrence, Recurrent, ShortConvolution, StateSpace
from vramfit.memory.recurrent_state import carried_elements, convolution_channels, state_elements
from vramfit.parallel import shards
from vramfit.readers.hf_config import read_config
from vramfit.request import Inference, Plan
from vramfit.result import Item
from vramfit.spec import ModelSpec

QWEN3_5_4B: dict[str, Any] = {
    "model_type": "qwen3_5_text", "hidden_size": 2560, "num_hidden_layers": 32, "intermediate_size": 9216,
    "num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 256, "full_attention_interval": 4,
    "linear_num_key_heads": 16, "linear_num_value_heads": 32, "linear_key_head_dim": 128, "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4, "vocab_size": 248320, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
    "mamba_ssm_dtype": "float32",
}  # fmt: skip
QWEN3_5_9B: dict[str, Any] = {**QWEN3_5_4B, "hidden_size": 4096, "intermediate_size": 12288}


def llama_cpp_bytes(spec: ModelSpec) -> int:
    """Recurrent state of one sequence as llama.cpp lays it out. [B]

        ((conv_kernel - 1) * channels + state) * 4   for each recurrent layer, all in fp32

    Source: ggml-org/llama.cpp:src/llama-hparams.cpp, n_embd_r and n_embd_s; src/llama-model.cpp keeps both as F32.
    """
    mixers = [m for layer in spec.layers for m in layer.mixers if isinstance(m, StateSpace | LinearAttention)]
    return sum(4 * ((m.conv_kernel - 1) * convolution_channels(m) + state_elements(m)) for m in mixers)


@pytest.mark.parametrize(
    ("config", "sequences", "printed"),
    [
        (MAMBA_1_4B, 1, 14_942_208),  # 14.25 MiB: GeniePod/genie-claw#410; 48 layers x 4,096 x (16 + 3) x 4 B
        (QWEN3_5_4B, 1, 52_690_944),  # 50.25 MiB: a log of Qwen3.5-4B; 24 layers x (524,288 + 3 x 8,192) x 4 B
        (QWEN3_5_4B, 4, 210_763_776),  # 201 MiB: the same log with four slots
        (QWEN3_5_9B, 2, 105_381_888),  # 100.5 MiB: a log of Qwen3.5-9B, b8571, two slots; at 32,768 and at 262,144
    ],
)
def test_llama_cpp_prints_as_much(config: dict[str, Any], sequences: int, printed: int) -> None:
    """Our facts in llama.cpp's layout are what its log says, to 0.01 MiB."""
    resolution = 10_486
    assert abs(printed - sequences * llama_cpp_bytes(read_config(config, "model"))) < resolution


def _items(config: dict[str, Any], sequences: int = 1) -> dict[str, Item]:
    need = estimate(read_config(config, "model"), Inference(context_tokens=100, batch=sequences))
    return {i.name: i for i in need.breakdowns[0].items if i.name.startswith("recurrent_state/")}


def test_a_state_that_the_configuration_wants_in_fp32_is_never_counted_in_16_bit() -> None:
    """24 layers x (524,288 x 4 B + 8,192 x 4 x 2 B) = 51,904,512 B at least, at most and expected."""
    state = _items(QWEN3_5_4B)["recurrent_state/linear_attention"]
    assert {24 * (524_288 * 4 + 8_192 * 4 * 2)} == {state.low_bytes, state.bytes, state.high_bytes}


def test_a_state_of_which_nothing_is_said_may_be_in_16_bit() -> None:
    """Nemotron Nano 9B v2 has 27 layers of 128 x 80 x 128 elements and (10,240 + 2 x 8 x 128) x 4 inputs."""
    state = _items(NEMOTRON_NANO_9B_V2)["recurrent_state/state_space"]
    assert 27 * (128 * 80 * 128 * 4 + 12_288 * 4 * 2) == state.bytes
    assert 27 * (128 * 80 * 128 * 2 + 12_288 * 4 * 2) == state.low_bytes
    asked = {**NEMOTRON_NANO_9B_V2, "mamba_ssm_cache_dtype": "float32"}
    assert state.bytes == _items(asked)["recurrent_state/state_space"].low_bytes


def test_inputs_are_kept_in_the_format_of_the_model() -> None:
    """Mamba 1.4B in fp32: 48 layers x (4,096 x 16 x 4 B + 4,096 x 4 x 4 B), for three sequences."""
    state = _items(MAMBA_1_4B, 3)["recurrent_state/state_space"]
    assert 3 * 48 * (4_096 * 16 * 4 + 4_096 * 4 * 4) == state.bytes


def test_rg_lru_keeps_one_element_per_channel() -> None:
    """RecurrentGemma 2B has 18 recurrent blocks of 2,560 channels: 2,560 x 4 B of state, 4 inputs x 2,560 x 2 B."""
    state = _items(RECURRENT_GEMMA_2B)["recurrent_state/state_space"]
    assert 18 * (2_560 * 4 + 4 * 2_560 * 2) == state.bytes


@pytest.mark.parametrize(
    ("mixer", "state", "carried"),
    [
        (ShortConvolution(width=2_048, conv_kernel=3), 0, 6_144),
        (Recurrence(num_heads=32, width=2_048, state_elements=131_072, previous_elements=4_096), 131_072, 4_096),
        (
            LinearAttention(num_key_heads=64, num_value_heads=64, key_head_dim=128, value_head_dim=128, conv_kernel=0),
            1_048_576,
            0,
        ),
    ],
)
def test_elements_by_kind(mixer: Recurrent, state: int, carried: int) -> None:
    """LFM2: no state and three inputs; RWKV 7: 32 squares of 64; MiniMax: 64 squares of 128 and no convolution."""
    assert (state, carried) == (state_elements(mixer), carried_elements(mixer))


def test_tensor_parallelism_divides_states_by_heads() -> None:
    """Half the heads keep half the state; what RWKV keeps of the token before is whole on every rank."""
    config = {"model_type": "rwkv7", "hidden_size": 768, "num_hidden_layers": 2, "vocab_size": 100, "head_dim": 64,
              "intermediate_size": 3072, "tie_word_embeddings": False}  # fmt: skip
    spec = read_config(config, "model")
    whole = spec.layers[0].attention
    half = shards(spec, Plan(tp=2))[0].model.layers[0].attention
    assert isinstance(whole, Recurrence)
    assert half == replace(whole, num_heads=6, width=384, state_elements=12 * 64 * 64 // 2)
    assert 2 * 768 == half.previous_elements
    lfm = read_config(
        {"model_type": "lfm2", "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4,
         "num_key_value_heads": 2, "vocab_size": 100, "full_attn_idxs": []}, "model",
    )  # fmt: skip
    assert ShortConvolution(width=32, conv_kernel=3) == shards(lfm, Plan(tp=2))[0].model.layers[0].attention

"""From a ``config.json`` to a specification: published totals, refusals with their path, and no other way out."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from published_configs import (
    BERT_BASE,
    GEMMA_3_4B,
    GPT2,
    LLAMA_3_1_8B,
    LLAMA_3_1_405B,
    PUBLISHED,
    QWEN3_30B_A3B,
    QWEN3_235B_A22B,
)
from vramfit.errors import InvalidValueError, UnsupportedModelError, VramfitError
from vramfit.readers.families import FAMILIES
from vramfit.readers.hf_config import read_config
from vramfit.spec import ModelSpec


def without(config: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return a configuration that lacks some fields."""
    return {k: v for k, v in config.items() if k not in names}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts_are_met_to_the_unit(name: str) -> None:
    """A file's header and its configuration imply the same number of parameters."""
    config, published = PUBLISHED[name]
    assert published == read_config(config, name).num_parameters


def test_llama_3_1_8b_by_hand() -> None:
    """2 vocabularies of 128256 x 4096, 32 blocks, 1 norm.

    A block: q and o 4096 x 4096, k and v 1024 x 4096, three matrices of 14336 x 4096, two norms.
    """
    block = 2 * 4096 * 4096 + 2 * 1024 * 4096 + 3 * 14336 * 4096 + 2 * 4096
    spec = read_config(LLAMA_3_1_8B, "Llama 3.1 8B")
    assert 218_112_000 == block == spec.layers[0].num_parameters
    assert 2 * 128256 * 4096 + 32 * block + 4096 == spec.num_parameters == spec.num_active_parameters
    assert ("llama", 4096, 128256, 32, False, True) == (
        spec.family, spec.hidden_size, spec.vocab_size, len(spec.layers), spec.tied, spec.generates,
    )  # fmt: skip


def test_active_parameters_of_a_mixture_leave_out_the_experts_not_chosen() -> None:
    """Qwen3-30B-A3B: 120 of 128 experts of 3 x 2048 x 768 in each of 48 layers stay idle."""
    spec = read_config(QWEN3_30B_A3B, "Qwen3-30B-A3B")
    assert 30_532_122_624 - 48 * 120 * 3 * 2048 * 768 == 3_353_032_704 == spec.num_active_parameters


def test_equal_layers_are_one_object() -> None:
    """126 layers of a kind are built once, so that grouping them is cheap."""
    assert 1 == len({id(layer) for layer in read_config(LLAMA_3_1_405B, "405B").layers})
    assert 1 == len({id(layer) for layer in read_config(QWEN3_235B_A22B, "235B").layers})
    assert 2 == len({id(layer) for layer in read_config(GEMMA_3_4B, "4B").layers})


def test_a_complete_configuration_assumes_nothing() -> None:
    """Nothing is recorded where nothing was taken."""
    assert () == read_config(LLAMA_3_1_8B, "8B").assumptions


def test_class_defaults_are_recorded_once_each() -> None:
    """Gemma 3 4B says neither heads nor vocabulary nor whether it is tied."""
    taken = [text.split(" (")[0] for text in read_config(GEMMA_3_4B, "4B").assumptions]
    assert len(set(taken)) == len(taken)
    assert {
        "text_config.num_attention_heads = 8",
        "text_config.num_key_value_heads = 4",
        "text_config.head_dim = 256",
        "text_config.vocab_size = 262208",
        "text_config.tie_word_embeddings = True",
    } <= set(taken)


def test_old_files_without_a_dtype_are_float32() -> None:
    """BERT's and GPT-2's files name none."""
    spec = read_config(BERT_BASE, "BERT")
    assert "fp32" == spec.scheme.plain.name
    assert any("torch_dtype = float32" in text for text in spec.assumptions)


@pytest.mark.parametrize("kind", ["qwen9_vl", "llama9", "Qwen3", "", "x" * 100_000])
def test_an_unknown_model_type_is_named_with_what_we_would_need(kind: str) -> None:
    """The message is short, however long the name, and lists the fields."""
    with pytest.raises(UnsupportedModelError) as caught:
        read_config({**LLAMA_3_1_8B, "model_type": kind}, "mine")
    text = str(caught.value)
    assert text.startswith(f"mine: model_type: '{kind[:90]}")
    assert "num_key_value_heads" in text
    assert len(text) < 700


def test_the_nearest_model_types_are_offered() -> None:
    """A typo finds its way."""
    with pytest.raises(UnsupportedModelError, match="nearest that are: qwen3"):
        read_config({**LLAMA_3_1_8B, "model_type": "qwen_3"}, "mine")


def test_a_missing_model_type_lists_all() -> None:
    """Nothing is guessed from the other fields."""
    with pytest.raises(UnsupportedModelError, match=r"model_type: missing: expected one of \d+ names"):
        read_config(without(LLAMA_3_1_8B, "model_type"), "mine")


@pytest.mark.parametrize("section", ["vision_config", "audio_config", "speech_config"])
@pytest.mark.parametrize("base", [LLAMA_3_1_8B, GPT2, QWEN3_30B_A3B])
def test_other_inputs_than_text_are_refused_by_name(base: dict[str, Any], section: str) -> None:
    """A tower that is not read would be a silent hole in the answer."""
    with pytest.raises(UnsupportedModelError, match=f"{section}: .*inputs other than text"):
        read_config({**base, section: {"hidden_size": 8}}, "mine")


def test_audio_is_refused_for_gemma_3_too() -> None:
    """Its vision tower is read, nothing else is."""
    with pytest.raises(UnsupportedModelError, match="audio_config"):
        read_config({**GEMMA_3_4B, "audio_config": {}}, "mine")


def test_a_nested_text_section_of_a_flat_family_is_refused() -> None:
    """Which of the two would hold is not for us to guess."""
    with pytest.raises(InvalidValueError, match="text_config"):
        read_config({**LLAMA_3_1_8B, "text_config": {}}, "mine")


@pytest.mark.parametrize("named", ["LlamaForSequenceClassification", "LlamaModel", "LlamaForTokenClassification"])
def test_other_heads_than_the_vocabulary_are_refused(named: str) -> None:
    """A classifier or a bare stack has other tensors than the generating model."""
    with pytest.raises(UnsupportedModelError, match=rf"architectures\[0\]: '{named}'"):
        read_config({**LLAMA_3_1_8B, "architectures": [named]}, "mine")


@pytest.mark.parametrize("named", [None, [], ["LlamaForCausalLM"]])
def test_generating_classes_or_none_are_read(named: object) -> None:
    """Saying nothing means the model that generates."""
    assert 8_030_261_248 == read_config({**LLAMA_3_1_8B, "architectures": named}, "mine").num_parameters


@pytest.mark.parametrize(
    "name", ["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"]
)
@pytest.mark.parametrize("value", [0, -8, 1.5, "8", True, [8], 2**40])
def test_every_size_is_checked(name: str, value: object) -> None:
    """The error carries the path of the field."""
    with pytest.raises(InvalidValueError) as caught:
        read_config({**LLAMA_3_1_8B, name: value}, "mine")
    assert name == caught.value.path


def test_a_nested_error_carries_the_whole_path() -> None:
    """Both sections of Gemma 3 have a hidden size."""
    for section in ("text_config", "vision_config"):
        broken = {**GEMMA_3_4B, section: {**GEMMA_3_4B[section], "hidden_size": 0}}
        with pytest.raises(InvalidValueError) as caught:
            read_config(broken, "mine")
        assert f"{section}.hidden_size" == caught.value.path


LONGEST_MESSAGE = 1500
"""A hostile value is shortened before it is shown."""
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.integers(-2, 12)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        ["sliding_attention", "full_attention", "linear_attention", "fp8", "gptq", "awq", "bitsandbytes"]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)
EVERY_FIELD = sorted(
    {name for config, _ in PUBLISHED.values() for name in config}
    | {
        "quantization_config", "layer_types", "attention_bias", "mlp_bias", "n_inner", "use_sliding_window", "id2label",
        "num_labels", "dtype", "is_decoder", "use_bidirectional_attention", "sliding_window_pattern",
        "max_window_layers", "head_dim",
    }
)  # fmt: skip
QUANTISATION = st.fixed_dictionaries(
    {"quant_method": st.sampled_from(["fp8", "mxfp4", "gptq", "awq", "bitsandbytes"]) | JSON},
    optional={
        "bits": JSON,
        "group_size": JSON,
        "weight_block_size": JSON,
        "load_in_4bit": st.booleans() | JSON,
        "load_in_8bit": JSON,
        "bnb_4bit_quant_type": JSON,
        "modules_to_not_convert": st.lists(
            st.sampled_from(["lm_head", "model.layers.0.mlp", "model.layers.*.mlp"]) | JSON
        ),
        "config_groups": JSON,
    },
)


@settings(max_examples=600)
@given(data=st.data())
def test_whatever_stands_in_a_configuration_it_is_read_or_refused(data: st.DataObject) -> None:
    """No mutation of a published configuration ends in anything but a specification or our own error."""
    config = copy.deepcopy(data.draw(st.sampled_from([config for config, _ in PUBLISHED.values()])))
    target = data.draw(st.sampled_from([config, *(v for v in config.values() if isinstance(v, dict))]))
    for name in data.draw(st.lists(st.sampled_from(sorted({*target, *EVERY_FIELD})), max_size=3, unique=True)):
        if data.draw(st.booleans()):
            target[name] = data.draw(QUANTISATION if name == "quantization_config" else JSON)
        else:
            target.pop(name, None)
    if data.draw(st.integers(0, 9)) == 0:
        config["model_type"] = data.draw(st.sampled_from(sorted(FAMILIES)))
    try:
        spec = read_config(config, "mutated")
    except VramfitError as error:
        refusal = str(error)
        assert 0 < len(refusal) < LONGEST_MESSAGE
    else:
        assert isinstance(spec, ModelSpec)
        assert 0 < spec.num_active_parameters <= spec.num_parameters
        assert hash(spec) == hash(copy.deepcopy(spec))


@pytest.mark.parametrize("named", ["LlamaForCausalLM", 0, [7], {}])
def test_architectures_is_a_list_of_names(named: object) -> None:
    """A bare text or a number is no list."""
    with pytest.raises(InvalidValueError, match=r"architectures: .*a list of class names"):
        read_config({**LLAMA_3_1_8B, "architectures": named}, "mine")

"""Adapters of peft: counts by hand, files of prompts, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from published_configs import LLAMA_3_1_8B, QWEN3_30B_A3B
from vramfit.errors import InvalidValueError, UnsupportedModelError
from vramfit.readers.adapter import read_adapter, with_adapter
from vramfit.readers.hf_config import read_config
from vramfit.spec import Adapter

LORA = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "r": 16,
    "lora_alpha": 32,
    "target_modules": ["q_proj", "v_proj"],
}


def read(base: Any = LLAMA_3_1_8B, **changes: Any) -> Adapter:
    """Return a LoRA adapter with some fields changed."""
    return read_adapter({**LORA, **changes}, read_config(base, "base"))


def test_lora_on_two_projections_of_llama_8b() -> None:
    """32 layers x 16 x (4096 + 4096 and 4096 + 1024) = 6,815,744 numbers, 4 B each: the count everyone prints."""
    adapter = read()
    assert 32 * 16 * (4096 + 4096 + 4096 + 1024) == 6_815_744 == adapter.num_parameters
    assert 27_262_976 == adapter.num_bytes
    assert ("lora", 16) == (adapter.kind, adapter.rank)
    assert "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight" == adapter.tensors[0].name
    assert any("float32" in note for note in adapter.assumptions)


def test_lora_on_experts_counts_every_expert() -> None:
    """48 layers x 128 experts x 3 matrices of 2048 + 768, as files of transformers 4 have them."""
    adapter = read(QWEN3_30B_A3B, target_modules=["up_proj", "gate_proj", "down_proj"])
    assert 48 * 128 * 3 * 16 * (2048 + 768) == adapter.num_parameters


@pytest.mark.parametrize(
    ("config", "trained", "stored"),
    [
        ({"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 20}, 20 * 4096, 20 * 4096),
        ({"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 20, "task_type": "SEQ_2_SEQ_LM"}, 40 * 4096, 40 * 4096),
        ({"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 20}, 20 * 32 * 2 * 1024, 20 * 32 * 2 * 1024),
        (
            {"peft_type": "P_TUNING", "num_virtual_tokens": 20, "encoder_hidden_size": 128},
            20 * 4096 + 128 * 4096 + 128 + 128 * 128 + 128 + 4096 * 128 + 4096,
            20 * 4096,
        ),
    ],
)
def test_the_file_of_a_prompt_holds_what_was_made(config: dict[str, Any], trained: int, stored: int) -> None:
    """P-tuning trains a network and saves its result only."""
    adapter = read_adapter(config, read_config(LLAMA_3_1_8B, "base"))
    assert (trained, 4 * stored, None) == (adapter.num_parameters, adapter.num_bytes, adapter.rank)


def test_boft_has_a_rotation_per_block_and_stage() -> None:
    """4096 inputs in blocks of 4 are 1,024 blocks of 16 numbers, two stages, and a factor per output."""
    config = {"peft_type": "BOFT", "boft_block_size": 4, "boft_block_num": 0, "boft_n_butterfly_factor": 2}
    adapter = read_adapter({**config, "target_modules": ["q_proj"]}, read_config(LLAMA_3_1_8B, "base"))
    assert 32 * (2 * 1024 * 16 + 4096) == adapter.num_parameters


def test_targets_that_match_nothing_name_what_there_is() -> None:
    """The names of another architecture are the usual mistake."""
    with pytest.raises(InvalidValueError, match=r"target_modules.*query_key_value.*down_proj.*k_proj.*q_proj"):
        read(target_modules=["query_key_value"])
    with pytest.raises(InvalidValueError, match=r"target_parameters.*self_attn\.q_proj\.weight"):
        read(target_modules=[], target_parameters=["mlp.experts.gate_up_proj"])
    with pytest.raises(InvalidValueError, match=r"modules_to_save.*wte"):
        read(modules_to_save=["wte"])


def test_the_patterns_that_trainers_write_are_read() -> None:
    """One as a popular trainer writes it for every language model: words in order, or whole names."""
    words = r"(?:.*?(?:language|text).*?(?:self_attn|attention|attn).*?(?:q_proj|v_proj).*?)"
    names = r"(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|attention|attn)\.(?:(?:q_proj|v_proj)))"
    assert 6_815_744 == read(target_modules=f"{words}|{names}").num_parameters


def test_heads_of_other_tasks_are_left_out_and_said_so() -> None:
    """Peft lists ``score`` and ``classifier`` for classifiers; a language model has neither."""
    adapter = read(modules_to_save=["score", "classifier"])
    assert 6_815_744 == adapter.num_parameters
    assert 2 == sum("not counted" in note for note in adapter.assumptions)


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"r": 0}, "r"),
        ({"r": True}, "r"),
        ({"r": 10**9}, "r"),
        ({"rank_pattern": {"q_proj": 0}}, "rank_pattern"),
        ({"rank_pattern": {"(a+)+": 3}}, "rank_pattern"),
        ({"target_modules": "(.*)*x"}, "target_modules"),
        ({"target_modules": "["}, "target_modules"),
        ({"target_modules": None}, "target_modules"),
        ({"target_modules": [1]}, "target_modules"),
        ({"bias": "some"}, "bias"),
        ({"layers_to_transform": [-1]}, "layers_to_transform[0]"),
        ({"use_dora": 1}, "use_dora"),
        ({"trainable_token_indices": 3}, "trainable_token_indices"),
        ({"peft_type": "LOKR", "decompose_factor": 0}, "decompose_factor"),
        ({"peft_type": "OFT", "r": 3, "oft_block_size": 4}, "r"),
        ({"peft_type": "BOFT", "boft_block_size": 5}, "boft_block_size"),
    ],
)
def test_values_that_cannot_be_are_refused_with_their_path(changes: dict[str, Any], path: str) -> None:
    """Every one of them decides shapes."""
    with pytest.raises(InvalidValueError) as caught:
        read(**changes)
    assert path == caught.value.path


@pytest.mark.parametrize("kind", ["XLORA", "POLY", "", None])
def test_an_unknown_kind_is_refused_by_name(kind: str | None) -> None:
    """And the message lists those that are read."""
    with pytest.raises(UnsupportedModelError, match=r"peft_type: .*expected one of ADALORA, BOFT, IA3"):
        read(peft_type=kind)


def test_an_adapter_stands_beside_the_model() -> None:
    """The base keeps its own count; the adapter's assumptions are told with its name."""
    base = read_config(LLAMA_3_1_8B, "base")
    both = with_adapter(base, read())
    assert base.num_parameters == both.num_parameters
    assert (1, 0) == (len(both.adapters), len(base.adapters))
    assert any(note.startswith("adapter: dtype") for note in both.assumptions)

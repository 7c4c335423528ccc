"""transformers on the meta device as second witness: counts to the unit, names and shapes as it saves them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from published_remote import BY_HAND, PUBLISHED
from tiny import ALL
from vramfit.catalogue.model import all_models
from vramfit.readers.families import FAMILIES
from vramfit.readers.hf_config import read_config
from vramfit.spec import inventory

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.witness

NOT_OURS = {"quantization_config", "architectures", "transformers_version", "auto_map"}
STAND_INS = {"kimi_k2": "deepseek_v3"}
"""Types that transformers does not have, and the class whose shapes they share."""


def on_meta(config: Mapping[str, Any]) -> Any:
    """Build transformers' own model without memory."""
    kind = str(config["model_type"])
    values = {k: v for k, v in config.items() if k not in NOT_OURS | {"model_type"}}
    built = transformers.AutoConfig.for_model(STAND_INS.get(kind, kind), **values)
    named = config.get("architectures")
    known = getattr(transformers, named[0], None) if named else None
    with torch.device("meta"):
        if known is not None:
            return known(built)
        return transformers.AutoModelForCausalLM.from_config(built)


TINY: dict[str, dict[str, Any]] = {
    "llama": {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 1, "vocab_size": 97},
    "mistral": {"sliding_window": 16},
    "mixtral": {"num_local_experts": 3},
    "qwen2": {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1, "tie_word_embeddings": True},
    "qwen3": {"head_dim": 24, "attention_bias": True},
    "qwen3_moe": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "mlp_only_layers": [0],
        "decoder_sparse_step": 1,
    },
    "gemma2": {"head_dim": 24},
    "gemma3_text": {"head_dim": 24, "sliding_window_pattern": 2},
    "phi3": {"pad_token_id": 0},
    "deepseek_v2": {
        "q_lora_rank": None,
        "n_routed_experts": 4,
        "moe_intermediate_size": 32,
        "first_k_dense_replace": 1,
        "num_experts_per_tok": 2,
        "kv_lora_rank": 32,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 16,
        "v_head_dim": 16,
        "n_shared_experts": 2,
        "num_key_value_heads": 4,
    },
    "deepseek_v3": {
        "q_lora_rank": 48,
        "n_routed_experts": 8,
        "n_group": 2,
        "topk_group": 1,
        "moe_intermediate_size": 32,
        "first_k_dense_replace": 1,
        "num_experts_per_tok": 2,
        "kv_lora_rank": 32,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 16,
        "v_head_dim": 16,
        "n_shared_experts": 1,
        "num_key_value_heads": 4,
    },
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16},
    "qwen3_next": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 48,
        "head_dim": 16,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 8,
    },
    "nemotron_h": {
        "hybrid_override_pattern": "M*-E",
        "mamba_num_heads": 8,
        "mamba_head_dim": 16,
        "ssm_state_size": 16,
        "n_groups": 2,
        "head_dim": 16,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "moe_shared_expert_intermediate_size": 48,
    },
    "jamba": {"num_experts": 4, "mamba_dt_rank": 8, "attn_layer_period": 2, "attn_layer_offset": 1},
}
COMMON = {
    "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 128,
    "torch_dtype": "float32", "max_position_embeddings": 128,
}  # fmt: skip
OWN_WORDS: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 64, "n_head": 4, "n_layer": 2, "vocab_size": 97, "n_positions": 32, "n_inner": 80},
    "bert": {**COMMON, "architectures": ["BertForMaskedLM"]},
}


OTHER_CODE = {
    "arctic", "bailing_moe", "bailing_moe_linear", "bailing_moe_v2", "gte", "hunyuan", "hymba", "kimi_k3",
    "llama_bidirec", "medusa", "new", "phi4flash", "plamo2", "rwkv6", "rwkv7",
}  # fmt: skip
"""Families whose code transformers does not have: their own tests name a second source."""


def tiny(kind: str) -> dict[str, Any]:
    """Return a small configuration with unusual values."""
    return {"model_type": kind, **OWN_WORDS.get(kind, {**COMMON, **TINY.get(kind, {})})}


@pytest.mark.parametrize("kind", sorted((set(TINY) | set(OWN_WORDS)) & set(FAMILIES)))
def test_names_and_shapes_are_those_of_a_saved_file(kind: str, tmp_path: Any) -> None:
    """A small model is saved by transformers; its file holds exactly the implied tensors."""
    from vramfit.readers.safetensors import load_checkpoint
    from vramfit.readers.witness import compare

    config = tiny(kind)
    values = {k: v for k, v in config.items() if k not in NOT_OURS | {"model_type"}}
    built = transformers.AutoConfig.for_model(kind, **values)
    auto = transformers.BertForMaskedLM if kind == "bert" else transformers.AutoModelForCausalLM.from_config
    model = auto(built)
    model.save_pretrained(tmp_path)
    spec = read_config(config, kind)
    assert sum(p.numel() for p in model.parameters()) == spec.num_parameters
    found = compare(spec, load_checkpoint(tmp_path / "model.safetensors"))
    assert found.agrees, found


NOT_BUILT = {"internvl_chat", "kimi_vl", "minicpmv", "molmo", "phi3_v"}
"""Code beside the weights: published counts instead, in tests/readers/families/test_multimodal.py."""


def test_every_family_is_compared() -> None:
    """No family escapes the comparison of names, save those that share theirs with one that is compared.

    What transformers cannot build, here or at all, is compared with what its publisher says.
    """
    shared = {"deepseek_ref", "kimi_k2", "gemma3", "minimax_m1", "minimax_text_01", "qwen3_vl_moe_text"}
    headless = {"step3p5", "step3p7", "minimax_m3"}  # a stack there, see test_text_stacks; or the same fields
    published = {*BY_HAND, *(str(model.config["model_type"]) for model in PUBLISHED)}
    compared = set(TINY) | set(OWN_WORDS) | {case.kind for case in ALL}
    assert shared | headless | OTHER_CODE | NOT_BUILT == set(FAMILIES) - compared - published


def test_gemma_3_with_its_vision_tower() -> None:
    """The multimodal file: tower, projector and language model, name for name."""
    row = next(r for r in all_models() if r.name == "google/gemma-3-4b-it")
    model = on_meta(row.config)
    ours = sum(t.num_parameters for t in inventory(read_config(row.config, row.name)))
    assert sum(p.numel() for p in model.parameters()) == ours

"""Adapters against peft itself: trainable parameters, and every tensor of the file, on small models without memory."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from vramfit.readers.adapter import read_adapter  # noqa: E402 - after the libraries are known to be there
from vramfit.readers.hf_config import read_config  # noqa: E402
from vramfit.spec import Adapter  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
"""peft and torch warn about what they will change one day."""
SMALL = {"vocab_size": 101, "hidden_size": 48, "num_hidden_layers": 3, "torch_dtype": "float32"}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12, "intermediate_size": 72}
BASES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **SMALL, **HEADS, "tie_word_embeddings": False, "attention_bias": True},
    "tied": {"model_type": "llama", **SMALL, **HEADS, "tie_word_embeddings": True},
    "qwen2": {"model_type": "qwen2", **SMALL, **HEADS, "tie_word_embeddings": False},
    "gemma": {"model_type": "gemma", **SMALL, **HEADS, "tie_word_embeddings": True},
    "gpt2": {
        "model_type": "gpt2", "vocab_size": 101, "n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": 32,
        "torch_dtype": "float32", "n_inner": 80,
    },
    "mixtral": {
        "model_type": "mixtral", **SMALL, **HEADS, "num_local_experts": 4, "num_experts_per_tok": 2,
        "tie_word_embeddings": False,
    },
    "qwen3_moe": {
        "model_type": "qwen3_moe", **SMALL, **HEADS, "num_experts": 4, "num_experts_per_tok": 2,
        "moe_intermediate_size": 20, "tie_word_embeddings": False, "decoder_sparse_step": 1, "mlp_only_layers": [],
    },
}  # fmt: skip
LORA = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 5, "lora_alpha": 3}
QV = {**LORA, "target_modules": ["q_proj", "v_proj"]}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("llama", QV),
    ("llama", {**QV, "rank_pattern": {"layers.1.self_attn.q_proj": 7, ".*v_proj": 2}}),
    ("llama", {**LORA, "target_modules": "all-linear"}),
    ("llama", {**LORA, "target_modules": r"model\.layers\.[02]\..*(up|down)_proj"}),
    ("llama", {**QV, "layers_to_transform": [0, 2]}),
    ("llama", {**QV, "layers_to_transform": 1, "layers_pattern": "layers"}),
    ("llama", {**QV, "exclude_modules": ["layers.1.self_attn.q_proj"]}),
    ("llama", {**QV, "bias": "all"}),
    ("llama", {**QV, "bias": "lora_only"}),
    ("llama", {**QV, "use_dora": True}),
    ("llama", {**QV, "use_rslora": True, "lora_bias": True}),
    ("llama", {**QV, "modules_to_save": ["lm_head"]}),
    ("llama", {**QV, "modules_to_save": ["embed_tokens", "norm"]}),
    ("llama", {**LORA, "target_modules": ["embed_tokens", "q_proj"]}),
    ("llama", {**LORA, "target_modules": ["lm_head", "k_proj"]}),
    ("llama", {**LORA, "target_modules": ["embed_tokens"], "use_dora": True}),
    ("llama", {**QV, "trainable_token_indices": [3, 5, 8]}),
    ("tied", {**LORA, "target_modules": ["o_proj"], "modules_to_save": ["norm"]}),
    ("qwen2", {**LORA, "target_modules": "all-linear", "bias": "lora_only"}),
    ("qwen2", {**QV, "bias": "all"}),
    ("gemma", {**LORA, "target_modules": ["gate_proj", "up_proj"]}),
    ("gpt2", {**LORA, "target_modules": ["c_attn"]}),
    ("gpt2", {**LORA, "target_modules": "all-linear", "use_dora": True}),
    ("gpt2", {**LORA, "target_modules": ["mlp.c_proj", "wte"], "bias": "all"}),
    ("mixtral", QV),
    ("mixtral", {**LORA, "target_modules": "all-linear"}),
    ("qwen3_moe", {**LORA, "target_modules": "all-linear"}),
    ("mixtral", {**QV, "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]}),
    ("qwen3_moe", {**LORA, "target_modules": [], "target_parameters": ["mlp.experts.down_proj"]}),
    ("llama", {"peft_type": "VERA", "r": 6, "target_modules": ["q_proj", "down_proj"]}),
    ("llama", {"peft_type": "VERA", "r": 6, "target_modules": ["q_proj"], "save_projection": False}),
    ("llama", {"peft_type": "IA3", "target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]}),
    ("gpt2", {"peft_type": "IA3", "target_modules": ["c_attn", "mlp.c_proj"], "feedforward_modules": ["mlp.c_proj"]}),
    ("llama", {"peft_type": "ADALORA", "init_r": 9, "total_step": 10, "target_modules": ["q_proj", "up_proj"]}),
    ("llama", {"peft_type": "LOHA", "r": 4, "target_modules": ["q_proj", "up_proj"]}),
    ("llama", {"peft_type": "LOKR", "r": 2, "target_modules": ["q_proj", "up_proj"]}),
    ("qwen2", {"peft_type": "LOKR", "r": 2, "decompose_both": True, "decompose_factor": 8, "target_modules": ".*k_.*"}),
    ("llama", {"peft_type": "OFT", "r": 0, "oft_block_size": 16, "target_modules": ["q_proj", "down_proj"]}),
    ("llama", {"peft_type": "OFT", "r": 5, "oft_block_size": 0, "block_share": True, "target_modules": ["q_proj"]}),
    ("llama", {"peft_type": "PROMPT_TUNING", "task_type": "CAUSAL_LM", "num_virtual_tokens": 9}),
    ("llama", {"peft_type": "PREFIX_TUNING", "task_type": "CAUSAL_LM", "num_virtual_tokens": 9}),
    (
        "gpt2",
        {
            "peft_type": "PREFIX_TUNING", "task_type": "CAUSAL_LM", "num_virtual_tokens": 9,
            "prefix_projection": True, "encoder_hidden_size": 20,
        },
    ),
    (
        "llama",
        {"peft_type": "P_TUNING", "task_type": "CAUSAL_LM", "num_virtual_tokens": 9, "encoder_hidden_size": 20},
    ),
]  # fmt: skip


def theirs(base: str, config: dict[str, Any]) -> Any:
    """Return peft's own model without memory."""
    facts = {k: v for k, v in BASES[base].items() if k not in {"model_type", "torch_dtype"}}
    architecture = transformers.AutoConfig.for_model(BASES[base]["model_type"], **facts)
    wanted = dict(config)
    kind = peft.PEFT_TYPE_TO_CONFIG_MAPPING[wanted.pop("peft_type")]
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(architecture)
        return peft.get_peft_model(model, kind(**wanted))


def ours(base: str, config: dict[str, Any]) -> Adapter:
    """Return our reading of the same."""
    return read_adapter(config, read_config(BASES[base], base))


EACH = pytest.mark.parametrize(
    ("base", "config"), CASES, ids=[f"{b}-{c['peft_type']}-{i}" for i, (b, c) in enumerate(CASES)]
)
IN_FILES = [(b, c) for b, c in CASES if "num_virtual_tokens" not in c]
"""Prompts are copied when they are saved, which needs memory: their files are in ``tests/readers/test_adapter.py``."""


@EACH
def test_trainable_parameters_are_pefts_own(base: str, config: dict[str, Any]) -> None:
    """To the unit, for every kind and every way to name targets."""
    trainable, _ = theirs(base, config).get_nb_trainable_parameters()
    assert trainable == ours(base, config).num_parameters


@EACH
def test_a_configuration_that_peft_has_completed_says_the_same(base: str, config: dict[str, Any]) -> None:
    """What peft writes beside the weights: full lists of targets, and experts as parameters."""
    model = theirs(base, config)
    written = model.peft_config["default"].to_dict()
    plain = {k: sorted(v) if isinstance(v, set) else getattr(v, "value", v) for k, v in written.items()}
    assert model.get_nb_trainable_parameters()[0] == ours(base, plain).num_parameters


@pytest.mark.parametrize(
    ("base", "config"), IN_FILES, ids=[f"{b}-{c['peft_type']}-{i}" for i, (b, c) in enumerate(IN_FILES)]
)
def test_the_file_holds_tensors_of_the_same_shapes(base: str, config: dict[str, Any]) -> None:
    """Shape for shape and byte for byte."""
    model = theirs(base, config)
    state = peft.get_peft_model_state_dict(model, save_embedding_layers="auto")
    adapter = ours(base, config)
    found = Counter(tuple(t.shape) for t in state.values())
    expected = Counter[tuple[int, ...]]()
    for t in adapter.tensors:
        expected[t.shape] += t.copies
    assert found == expected
    assert sum(t.numel() * t.element_size() for t in state.values()) == adapter.num_bytes

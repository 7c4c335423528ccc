"""Two ways to the same number: the formulas' peak of a training step and the traced one, on small models.

The traced side runs transformers' own code and PyTorch's own optimizer; the derived side reads a configuration.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vramfit.readers.hf_config import read_config
from vramfit.trace import VirtualGPU
from vramfit.train import estimate_training
from vramfit.training import AdapterAsked, Training

pytestmark = [pytest.mark.witness, pytest.mark.slow, pytest.mark.filterwarnings("ignore::FutureWarning")]
BATCH, TOKENS = 2, 128
WITHIN = 0.01
"""How far apart the two peaks may be."""


def small(*without: str, **fields: Any) -> dict[str, Any]:
    """Return fields of a small decoder, less some."""
    usual = {
        "hidden_size": 512, "num_attention_heads": 8, "num_key_value_heads": 2, "intermediate_size": 1408,
        "head_dim": 64, "vocab_size": 4000, "num_hidden_layers": 2, "tie_word_embeddings": False, "use_cache": False,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    return {name: value for name, value in {**usual, **fields}.items() if name not in without}


MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", small()),
    "llama, tied, as many KV heads": ("LlamaConfig", small(num_key_value_heads=8, tie_word_embeddings=True)),
    "qwen2": ("Qwen2Config", small()),
    "qwen3": ("Qwen3Config", small()),
    "mistral": ("MistralConfig", small(sliding_window=None)),
    "phi3": ("Phi3Config", small()),
    "gemma": ("GemmaConfig", small()),
    "starcoder2": ("Starcoder2Config", small("head_dim")),
    "nemotron": ("NemotronConfig", small()),
    "gpt_neox": ("GPTNeoXConfig", small("head_dim", "num_key_value_heads")),
    "stablelm": ("StableLmConfig", small("head_dim")),
    "smollm3": ("SmolLM3Config", small()),
    "olmo2": ("Olmo2Config", small("head_dim")),
    "granite": ("GraniteConfig", small("head_dim")),
}


def traced_peak(config: Any, method: str, recompute: str) -> int:
    """Return the peak of two steps on a virtual GPU. [B]"""
    import peft
    import transformers

    with VirtualGPU("a100-sxm-80gb", workspaces=False) as gpu:
        torch.set_default_dtype(torch.bfloat16)
        try:
            with torch.device("cuda"):
                model = transformers.AutoModelForCausalLM.from_config(config).train()
        finally:
            torch.set_default_dtype(torch.float32)
        if method == "lora":
            adapter = peft.LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM")
            model = peft.get_peft_model(model, adapter)
            if recompute == "full":
                model.enable_input_require_grads()
        if recompute == "full":
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
        for _ in range(2):
            ids = torch.randint(0, 100, (BATCH, TOKENS), device="cuda")
            loss = model(input_ids=ids, labels=ids).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return gpu.report().requested_peak_bytes


@pytest.mark.parametrize("recompute", ["none", "full"])
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("name", MODELS)
def test_derived_is_traced(name: str, method: str, recompute: str) -> None:
    """The peak by formulas and the peak of the traced program are within one percent."""
    import transformers

    kind, fields = MODELS[name]
    config = getattr(transformers, kind)(**fields)
    training = Training(
        framework="transformers",
        method=method,
        micro_batch=BATCH,
        sequence_tokens=TOKENS,
        precision="bf16",
        optimizer="adamw",
        optimizer_implementation="foreach",
        recompute=recompute,
        attention="sdpa",
        adapter=AdapterAsked(rank=8, targets=("all-linear",)) if method == "lora" else None,
    )
    derived = estimate_training(read_config(config.to_dict(), "witness"), training).worst_timeline.peak
    traced = traced_peak(config, method, recompute)
    assert abs(derived.total_bytes - traced) <= WITHIN * traced, (derived, traced)

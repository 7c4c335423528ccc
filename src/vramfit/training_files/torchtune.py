"""A torchtune configuration in YAML.

Source of names and meanings: meta-pytorch/torchtune:recipes/*.py, recipes/configs/**/*.yaml, 0.6.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from vramfit.training_files.key import (
    Found,
    NotModelled,
    Reader,
    beside,
    count,
    is_open,
    named,
    names,
    ratio,
    switch,
    text,
    to,
    truth,
    when,
    word,
)
from vramfit.training_files.table import Dialect, understand
from vramfit.training_files.trainer import ALL_OFFLOADED, IMPLEMENTATION, OPTIMIZER, formatted
from vramfit.training_files.training_file import REST, Document, TrainingFile

DIALECT = Dialect(kind="torchtune YAML", framework="torchtune", table="torchtune")
BUILDER = re.compile(r"torchtune\.models\.\w+\.(?:(q?lora|q?dora)_)?(\w+)")
MODELS: Mapping[str, str] = {
    "llama2_7b": "meta-llama/Llama-2-7b-hf", "llama2_13b": "meta-llama/Llama-2-13b-hf",
    "llama2_70b": "meta-llama/Llama-2-70b-hf", "code_llama2_7b": "codellama/CodeLlama-7b-hf",
    "llama3_8b": "meta-llama/Meta-Llama-3-8B", "llama3_70b": "meta-llama/Meta-Llama-3-70B",
    "llama3_1_8b": "meta-llama/Llama-3.1-8B", "llama3_1_70b": "meta-llama/Llama-3.1-70B",
    "llama3_1_405b": "meta-llama/Llama-3.1-405B", "llama3_2_1b": "meta-llama/Llama-3.2-1B",
    "llama3_2_3b": "meta-llama/Llama-3.2-3B", "llama3_3_70b": "meta-llama/Llama-3.3-70B-Instruct",
    "qwen2_0_5b": "Qwen/Qwen2-0.5B", "qwen2_1_5b": "Qwen/Qwen2-1.5B", "qwen2_7b": "Qwen/Qwen2-7B",
    "qwen2_5_0_5b": "Qwen/Qwen2.5-0.5B", "qwen2_5_3b": "Qwen/Qwen2.5-3B",
    "qwen2_5_1_5b_instruct": "Qwen/Qwen2.5-1.5B", "qwen2_5_1_5b_base": "Qwen/Qwen2.5-1.5B",
    "qwen2_5_7b_instruct": "Qwen/Qwen2.5-7B", "qwen2_5_7b_base": "Qwen/Qwen2.5-7B",
    "qwen2_5_14b_instruct": "Qwen/Qwen2.5-14B", "qwen2_5_14b_base": "Qwen/Qwen2.5-14B",
    "qwen2_5_32b_instruct": "Qwen/Qwen2.5-32B", "qwen2_5_32b_base": "Qwen/Qwen2.5-32B",
    "qwen2_5_72b_instruct": "Qwen/Qwen2.5-72B", "qwen2_5_72b_base": "Qwen/Qwen2.5-72B",
    "gemma_2b": "google/gemma-2b", "gemma_7b": "google/gemma-7b", "gemma2_2b": "google/gemma-2-2b",
    "gemma2_9b": "google/gemma-2-9b", "gemma2_27b": "google/gemma-2-27b",
    "phi3_mini": "microsoft/Phi-3-mini-4k-instruct", "mistral_7b": "mistralai/Mistral-7B-v0.1",
    "phi4_14b": "microsoft/phi-4",
}  # fmt: skip
"""Builder -> the model it builds. Source: meta-pytorch/torchtune:torchtune/models/*/_model_builders.py."""
OPTIMIZERS: Mapping[str, object] = {
    "torch.optim.AdamW": "adamw", "torch.optim.Adam": "adam", "torch.optim.SGD": "sgd",
    "torch.optim.Adafactor": "adafactor", "bitsandbytes.optim.PagedAdamW": "paged-adamw",
    "bitsandbytes.optim.PagedAdamW8bit": "paged-adamw-8bit", "bitsandbytes.optim.AdamW8bit": "adamw-8bit",
    "torchao.prototype.low_bit_optim.AdamW8bit": "adamw-8bit", "torchao.optim.AdamW8bit": "adamw-8bit",
    "bitsandbytes.optim.Lion": "lion",
}  # fmt: skip
LOSSES: Mapping[str, Iterable[tuple[str, object]]] = {
    **dict.fromkeys(
        (
            "torchtune.modules.loss.CEWithChunkedOutputLoss", "torchtune.modules.loss.LinearCrossEntropyLoss",
        ),
        (("workload.loss", "chunked"),),
    ),
    "torch.nn.CrossEntropyLoss": (("workload.loss", "plain"),),
    "torchtune.rlhf.loss.DPOLoss": (("workload.objective", "dpo"),),
    "torchtune.rlhf.loss.RSOLoss": (("workload.objective", "dpo"),),
    "torchtune.rlhf.loss.PPOLoss": (("workload.objective", "ppo"),),
}  # fmt: skip
ATTENTION = {"q_proj": "q_proj", "k_proj": "k_proj", "v_proj": "v_proj", "output_proj": "o_proj"}
"""torchtune's names of the matrices of attention -> those of Hugging Face."""
MLP = ("gate_proj", "up_proj", "down_proj")


def _model(name: str, value: object, given: Mapping[str, Any]) -> Found:
    said = text(name, value) or ""
    match = BUILDER.fullmatch(said)
    if match is None or match[2] not in MODELS:
        return NotModelled(why=f"{said[:60]}: no builder that is known here", path="model", expected="a known builder")
    method = {None: "full", "lora": "lora", "qlora": "qlora", "dora": "dora", "qdora": "qlora"}[match[1]]
    dora = truth(name, given.get("model.use_dora")) and method == "lora"
    return (("model", MODELS[match[2]]), ("workload.method", "dora" if dora else method))


def _targets(name: str, value: object, given: Mapping[str, Any]) -> Found:
    found = [ATTENTION.get(each, each) for each in names(name, value) or ()]
    if truth(name, given.get("model.apply_lora_to_mlp")):
        found += MLP
    if truth(name, given.get("model.apply_lora_to_output")):
        found.append("lm_head")
    return (("workload.adapter.targets", tuple(found)),) if found else ()


def _compiled(name: str, value: object, _: Mapping[str, Any]) -> Found:
    found = truth(name, value)
    return () if found is None else (("workload.compile", found),)


def _sharded(name: str, value: object, _: Mapping[str, Any]) -> Found:
    return () if is_open(value) else (("plan.dp_shard", count(name, value)),)


TAKEN: dict[str, Reader] = {
    "model._component_": _model,
    "model.lora_attn_modules": _targets,
    "model.lora_rank": to("workload.adapter.rank"),
    "model.lora_alpha": to("workload.adapter.alpha", ratio),
    "model.lora_dropout": to("workload.adapter.dropout", ratio),
    "model.apply_lora_to_mlp": beside,
    "model.apply_lora_to_output": beside,
    "model.use_dora": beside,
    "tokenizer.max_seq_len": to("workload.sequence_tokens"),
    "batch_size": to("workload.micro_batch"),
    "gradient_accumulation_steps": to("workload.gradient_accumulation_steps"),
    "optimizer._component_": named(OPTIMIZER, OPTIMIZERS),
    "optimizer.fused": when(((IMPLEMENTATION, "fused"),)),
    "optimizer.foreach": when(((IMPLEMENTATION, "foreach"),)),
    "optimizer_in_bwd": switch("workload.optimizer_in_backward"),
    "loss._component_": word(LOSSES, "workload.loss"),
    "compile": _compiled,
    "compile.model": _compiled,
    "dtype": formatted("workload.precision"),
    "enable_activation_checkpointing": switch("workload.recompute", "full", "none"),
    "enable_activation_offloading": when((("workload.offload.activations", "cpu"),)),
    "fsdp_cpu_offload": when(ALL_OFFLOADED),
    "fsdp_reshard_after_forward": when((), (("plan.reshard_after_forward", False),)),
    "fsdp.cpu_offload": when(ALL_OFFLOADED),
    "tensor_parallel_dim": to("plan.tp"),
    "context_parallel_dim": to("plan.cp"),
    "data_parallel_replicate_dim": to("plan.dp_replicate"),
    "data_parallel_shard_dim": _sharded,
    "ac_mode": named("workload.recompute", {"full": "full", "selective": "selective"}),
}


def read(document: Document, values: Mapping[str, Any]) -> TrainingFile:
    """Return what such a file says; how many devices there are stands on the command line that runs it."""
    taken = dict(TAKEN)
    if "ac_mode" in values and values.get("enable_activation_checkpointing") is True:
        taken.pop("enable_activation_checkpointing")  # how is what the mode says
    implied = (REST, "dp_shard", "the distributed recipes use FSDP2")
    return understand(DIALECT, document.where, values, taken, implied=(implied,))

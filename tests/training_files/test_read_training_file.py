"""Users' files: whose each is, what each key stands for, and that nothing is dropped in silence."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vramfit.commands.command_line import Effect
from vramfit.errors import InvalidValueError, VramfitError
from vramfit.readers.document import parse_document
from vramfit.training_files.recognise import read
from vramfit.training_files.table import keys
from vramfit.training_files.training_file import Document, TrainingFile

DEEPSPEED = """{"train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": "auto", "bf16": {"enabled": true},
 "optimizer": {"type": "AdamW", "params": {"lr": 1e-5}}, "gradient_clipping": 1.0,
 "zero_optimization": {"stage": 3, "reduce_bucket_size": 5e8, "offload_optimizer": {"device": "cpu"},
  "offload_param": {"device": "none"}, "zero_quantized_weights": true}}"""
ACCELERATE = """
compute_environment: LOCAL_MACHINE
distributed_type: FSDP
mixed_precision: bf16
num_processes: 8
fsdp_config:
  fsdp_sharding_strategy: SHARD_GRAD_OP
  fsdp_offload_params: true
  fsdp_activation_checkpointing: true
  fsdp_min_num_params: 1000000
"""
TRAINER = """{"model_name_or_path": "org/model", "per_device_train_batch_size": 4, "bf16": true, "fp16": false,
 "optim": "paged_adamw_8bit", "gradient_checkpointing": true, "max_length": 1024, "use_peft": true, "lora_r": 64,
 "lora_target_modules": ["q_proj", "v_proj"], "load_in_4bit": true, "use_bnb_nested_quant": true, "seed": 1,
 "attn_implementation": "flash_attention_2", "per_device_eval_batch_size": 8, "learning_rat": 1e-4}"""
AXOLOTL = """
base_model: org/model
adapter: lora
load_in_8bit: true
lora_r: 16
lora_target_linear: true
lora_target_modules: [q_proj]
sequence_len: 2048
micro_batch_size: 1
bf16: auto
gradient_checkpointing: offload
flash_attention: true
optimizer: adamw_bnb_8bit
liger_fused_linear_cross_entropy: true
lora_mlp_kernel: true
datasets:
  - path: x
    type: alpaca
"""
LLAMA_FACTORY = """
model_name_or_path: org/model
stage: dpo
finetuning_type: lora
quantization_bit: 4
lora_rank: 8
lora_target: all
cutoff_len: 4096
pref_loss: sigmoid
per_device_train_batch_size: 1
flash_attn: fa2
pure_bf16: true
bf16: true
deepspeed: ds.json
"""
TORCHTUNE = """
model:
  _component_: torchtune.models.llama3_1.lora_llama3_1_8b
  lora_attn_modules: [q_proj, output_proj]
  apply_lora_to_mlp: true
  lora_rank: 8
tokenizer: {_component_: torchtune.models.llama3.llama3_tokenizer, max_seq_len: 8192}
batch_size: 2
optimizer: {_component_: bitsandbytes.optim.PagedAdamW8bit, lr: 2.0e-5}
optimizer_in_bwd: true
loss: {_component_: torchtune.modules.loss.LinearCrossEntropyLoss}
dtype: bf16
compile: false
enable_activation_checkpointing: true
"""
LITGPT = """
checkpoint_dir: checkpoints/org/model
precision: bf16-true
quantize: bnb.nf4-dq
devices: 2
num_nodes: 2
lora_r: 4
lora_query: true
lora_value: true
lora_mlp: true
train: {global_batch_size: 16, micro_batch_size: 2, max_seq_length: 256}
"""
TORCHTITAN = """
[model]
name = "llama3"
flavor = "8B"
[optimizer]
name = "AdamW"
[training]
local_batch_size = 1
seq_len = 8192
[parallelism]
data_parallel_shard_degree = -1
tensor_parallel_degree = 2
[activation_checkpoint]
mode = "selective"
selective_ac_option = "op"
[compile]
enable = true
components = ["loss"]
"""
MEGATRON = """#!/bin/bash
# a comment with --tensor-model-parallel-size 64
GPUS=8
TP=${1:-2}
ARGS=(
    --num-layers 32
    --hidden-size 4096 --num-attention-heads 32 --group-query-attention --num-query-groups 8
    --ffn-hidden-size 14336 --swiglu --normalization RMSNorm --vocab-size 128256
    --untie-embeddings-and-output-weights
)
PARALLEL="--tensor-model-parallel-size $TP --sequence-parallel --use-distributed-optimizer"
torchrun --nproc_per_node $GPUS --nnodes 2 pretrain_gpt.py ${ARGS[@]} \\
    $PARALLEL --bf16 --seq-length 8192 --micro-batch-size 1 --global-batch-size 64 \\
    --recompute-granularity selective --recompute-modules core_attn mlp --no-load-optim --lr 1e-4
"""
SWIFT = """NPROC=1
CUDA_VISIBLE_DEVICES=0 swift sft --model org/model --train_type lora --torch_dtype bfloat16 \\
  --per_device_train_batch_size 1 --max_length 2048 --lora_rank 8 --target_modules all-linear --deepspeed zero2
"""


def understood(text: str, where: str = "file") -> TrainingFile:
    """Return what a text is understood as."""
    found = parse_document(text.encode(), where)
    return read(Document(where=where, text=found) if isinstance(found, str) else Document(where=where, values=found))


def fields(file: TrainingFile) -> dict[str, Any]:
    """Return the values of a file by their paths, without those that only other files make something of."""
    return {g.path: g.value for g in file.given if g.path != "plan.divided_by"}


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        (
            DEEPSPEED,
            "DeepSpeed JSON",
            {
                "workload.micro_batch": 2, "workload.precision": "bf16-mixed", "workload.optimizer": "adamw",
                "plan.zero_stage": 3, "plan.rest": "dp_shard", "workload.offload.optimizer": "cpu",
                "workload.buckets.reduce": 500_000_000,
            },
        ),
        (
            ACCELERATE,
            "accelerate YAML",
            {
                "plan.rest": "dp_shard", "workload.precision": "bf16-mixed", "device_count": 8,
                "plan.reshard_after_forward": False, "workload.offload.parameters": "cpu",
                "workload.offload.gradients": "cpu", "workload.offload.optimizer": "cpu", "workload.recompute": "full",
            },
        ),
        (
            TRAINER,
            "arguments of TRL",
            {
                "plan.rest": "dp_replicate", "model": "org/model", "workload.micro_batch": 4,
                "workload.precision": "bf16-mixed", "workload.optimizer": "paged-adamw-8bit",
                "workload.recompute": "full", "workload.sequence_tokens": 1024, "workload.method": "qlora",
                "workload.adapter.rank": 64, "workload.adapter.targets": ("q_proj", "v_proj"),
                "workload.base_format": "nf4-dq", "workload.attention": "flash",
            },
        ),
        (
            AXOLOTL,
            "Axolotl YAML",
            {
                "plan.rest": "dp_replicate", "model": "org/model", "workload.method": "qlora",
                "workload.base_format": "int8", "workload.adapter.rank": 16,
                "workload.adapter.targets": ("all-linear",), "workload.sequence_tokens": 2048,
                "workload.micro_batch": 1, "workload.precision": "bf16", "workload.recompute": "offload",
                "workload.attention": "flash", "workload.optimizer": "adamw-8bit", "workload.loss": "fused-linear",
            },
        ),
        (
            LLAMA_FACTORY,
            "LLaMA-Factory YAML",
            {
                "plan.rest": "dp_replicate", "model": "org/model", "workload.objective": "dpo",
                "workload.method": "qlora", "workload.base_format": "nf4-dq", "workload.adapter.rank": 8,
                "workload.adapter.targets": ("all-linear",), "workload.sequence_tokens": 4096,
                "workload.micro_batch": 1, "workload.attention": "flash", "workload.precision": "bf16",
            },
        ),
        (
            TORCHTUNE,
            "torchtune YAML",
            {
                "plan.rest": "dp_shard", "model": "meta-llama/Llama-3.1-8B", "workload.method": "lora",
                "workload.adapter.targets": ("q_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
                "workload.adapter.rank": 8, "workload.sequence_tokens": 8192, "workload.micro_batch": 2,
                "workload.optimizer": "paged-adamw-8bit", "workload.optimizer_in_backward": True,
                "workload.loss": "chunked", "workload.precision": "bf16", "workload.compile": False,
                "workload.recompute": "full",
            },
        ),
        (
            LITGPT,
            "litgpt YAML",
            {
                "workload.method": "qlora", "plan.rest": "dp_shard", "model": "org/model",
                "workload.precision": "bf16", "workload.base_format": "nf4-dq", "device_count.per_node": 2,
                "device_count.nodes": 2, "workload.adapter.rank": 4,
                "workload.adapter.targets": ("q_proj", "v_proj", "gate_proj", "up_proj", "down_proj"),
                "workload.global_batch": 16, "workload.micro_batch": 2, "workload.sequence_tokens": 256,
            },
        ),
        (
            TORCHTITAN,
            "torchtitan settings",
            {
                "model": "meta-llama/Llama-3.1-8B", "workload.optimizer": "adamw", "workload.micro_batch": 1,
                "workload.sequence_tokens": 8192, "plan.rest": "dp_shard", "plan.tp": 2,
                "workload.recompute": "selective", "workload.compile": False,
            },
        ),
        (
            MEGATRON,
            "Megatron-LM arguments",
            {
                "device_count.per_node": 8, "device_count.nodes": 2, "plan.rest": "dp_replicate", "plan.tp": 2,
                "plan.sequence_parallel": True, "plan.distributed_optimizer": True, "workload.precision": "bf16-mixed",
                "workload.sequence_tokens": 8192, "workload.micro_batch": 1, "workload.global_batch": 64,
                "workload.recompute": "selective", "workload.recompute_modules": ("core_attn", "mlp"),
            },
        ),
        (
            SWIFT,
            "ms-swift arguments",
            {
                "plan.rest": "dp_shard", "model": "org/model", "workload.method": "lora", "workload.precision": "bf16",
                "workload.micro_batch": 1, "workload.sequence_tokens": 2048, "workload.adapter.rank": 8,
                "workload.adapter.targets": ("all-linear",), "plan.zero_stage": 2, "device_count.per_node": 1,
            },
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 40 else "",
)  # fmt: skip
def test_each_programs_keys_become_fields(text: str, kind: str, expected: Mapping[str, Any]) -> None:
    """A file in each program's own syntax, and the fields that its documentation says it stands for."""
    file = understood(text)
    assert kind == file.kind
    assert expected == fields(file)


FSDP_WORDS = '{"output_dir": "x", "fsdp": "%s"}'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("base_model: m\nadapter: qlora\nload_in_8bit: true", {"workload.base_format": "int8"}),
        ("base_model: m\nadapter: lora\npeft_use_dora: true", {"workload.method": "dora"}),
        ("base_model: m\nadapter: lora\ngptq: true", {"workload.method": "gptq-lora"}),
        ("base_model: m", {"workload.method": "full"}),
        ("base_model: m\nrl: simpo\nlora_r: 8", {"workload.objective": "orpo"}),
        ("base_model: m\nplugins: [axolotl.integrations.cut_cross_entropy.X]", {"workload.loss": "fused-linear"}),
        (FSDP_WORDS % "shard_grad_op auto_wrap", {"plan.reshard_after_forward": False}),
        (FSDP_WORDS % "full_shard offload", {"workload.offload.parameters": "cpu"}),
        ('{"output_dir": "x", "fsdp": true, "fsdp_config": {"reshard_after_forward": false}}',
         {"plan.reshard_after_forward": False}),
        ("finetuning_type: full\nbf16: true\nlora_rank: 8", {"workload.precision": "bf16-mixed"}),
        ("finetuning_type: lora\nstage: dpo\npref_loss: orpo", {"workload.objective": "orpo"}),
        ("finetuning_type: lora\nuse_unsloth: true", {"workload.framework": "unsloth"}),
        ("finetuning_type: lora\ndisable_gradient_checkpointing: true", {"workload.recompute": "none"}),
        ("checkpoint_dir: checkpoints/a/b\ntrain: {micro_batch_size: 1}\nquantize:", {"workload.method": "adapter"}),
        ("checkpoint_dir: checkpoints/a/b\ntrain: {micro_batch_size: 1}", {"workload.method": "full", "model": "a/b"}),
        ('[training]\ntensor_parallel_degree = 4\n[job]\ndump_folder = "x"', {"plan.tp": 4}),
        ('[model]\nname = "qwen3"\nflavor = "0.6B"\n[parallelism]\npipeline_parallel_schedule = "Interleaved1F1B"',
         {"model": "Qwen/Qwen3-0.6B", "plan.pp_schedule": "interleaved-1f1b"}),
        ("swift pt --model m --deepspeed zero3_offload",
         {"workload.method": "full", "plan.zero_stage": 3, "workload.offload.parameters": "cpu"}),
        ("pretrain_gpt.py --seq-length 8 --num-layers 8 --num-layers-per-virtual-pipeline-stage 2",
         {"plan.virtual_stages": 4, "plan.pp_schedule": "interleaved-1f1b"}),
        ("pretrain_gpt.py --seq-length 8 --bf16 --fp8-format hybrid --use-torch-fsdp2",
         {"workload.precision": "fp8-mixed", "plan.rest": "dp_shard"}),
        ("pretrain_gpt.py --seq-length 8 --zero-stage 0", {"plan.zero_stage": 0, "plan.rest": "dp_shard"}),
        ("pretrain_gpt.py --seq-length 8", {"workload.precision": "fp32", "plan.distributed_optimizer": False}),
    ],
    ids=range(22),
)  # fmt: skip
def test_particular_values_mean_what_their_program_does(text: str, expected: Mapping[str, Any]) -> None:
    """Combinations of keys, switches with names, and values of other versions."""
    found = fields(understood(text))
    assert expected == {path: found.get(path) for path in expected}


def test_adapters_of_a_full_run_are_not_taken() -> None:
    """Ranks in a file that trains everything say nothing."""
    assert not any(path.startswith("workload.adapter") for path in fields(understood("base_model: m\nlora_r: 8")))


@pytest.mark.parametrize("text", [DEEPSPEED, ACCELERATE, TRAINER, AXOLOTL, LLAMA_FACTORY, TORCHTUNE, LITGPT, MEGATRON])
def test_every_key_has_a_place(text: str) -> None:
    """Taken, without effect, touching memory uncounted or unknown: each key is one word with one of the four."""
    file = understood(text)
    assert all(word.why for word in file.words if word.effect in {Effect.UNKNOWN, Effect.NOT_COUNTED})
    assert all(bool(word.given) == (word.effect is Effect.COUNTED) for word in file.words)


@pytest.mark.parametrize(
    ("text", "key", "why"),
    [
        (TRAINER, "learning_rat", "no key of .*nearest: learning_rate"),
        (DEEPSPEED.replace("gradient_clipping", "gradient_cliping"), "gradient_cliping", "nearest: gradient_clipping"),
        (AXOLOTL + "lora_rr: 3\n", "lora_rr", "nearest: lora_r"),
    ],
)
def test_a_key_that_no_version_has_is_named(text: str, key: str, why: str) -> None:
    """A slip of the pen is not taken for a key without effect."""
    (word,) = [word for word in understood(text).having(Effect.UNKNOWN) if word.flag == key]
    assert re.search(why, word.why)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (TRAINER, "per_device_eval_batch_size"),
        (DEEPSPEED, "zero_optimization.zero_quantized_weights"),
        (ACCELERATE, "fsdp_config.fsdp_min_num_params"),
        (AXOLOTL, "lora_mlp_kernel"),
        (LLAMA_FACTORY, "deepspeed"),
        (ACCELERATE + "  fsdp_version: 1\n", "fsdp_config.fsdp_version"),
        (AXOLOTL + "fsdp_version: 1\n", "fsdp_version"),
    ],
)
def test_what_touches_memory_and_is_not_counted_is_said(text: str, key: str) -> None:
    """Such a key stands with its reason."""
    assert key in {word.flag for word in understood(text).having(Effect.NOT_COUNTED)}


def test_sizes_that_the_program_takes_anyway_change_nothing() -> None:
    """DeepSpeed's own size, written out, is not a warning; another one is, where it is not counted."""
    name = "zero_optimization.sub_group_size"
    written = DEEPSPEED.replace('"stage": 3', '"stage": 3, "sub_group_size": 1e9')
    assert name not in {word.flag for word in understood(written).words}
    other = understood(written.replace("1e9", "2e9"))
    assert name in {word.flag for word in other.having(Effect.NOT_COUNTED)}


def test_deepspeeds_buckets_are_taken() -> None:
    """Sizes in elements; auto follows the hidden size; a threshold may be zero."""
    text = """{"zero_optimization": {"stage": 3, "reduce_bucket_size": "auto", "overlap_comm": true,
      "stage3_prefetch_bucket_size": 2e7, "stage3_param_persistence_threshold": 0}}"""
    found = {path: value for path, value in fields(understood(text)).items() if path.startswith("workload.buckets")}
    assert {
        "workload.buckets.by_hidden_size": True, "workload.buckets.overlap": True,
        "workload.buckets.prefetch": 20_000_000, "workload.buckets.persistence": 0,
    } == found  # fmt: skip


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        (TRAINER.replace("paged_adamw_8bit", "schedule_free_adamw"), "workload.optimizer", "schedule_free_adamw"),
        (AXOLOTL.replace("adapter: lora", "adapter: mora"), "workload.method", "mora"),
        (LLAMA_FACTORY.replace("lora\n", "oft\n", 1), "workload.method", "oft"),
        (TORCHTUNE.replace("lora_llama3_1_8b", "t5_base"), "model", "t5_base"),
        (AXOLOTL + "fp8: true\n", "workload.precision", "True"),
        (ACCELERATE.replace("bf16", "fp8"), "workload.precision", "fp8"),
    ],
)
def test_what_would_be_another_question_is_refused(text: str, path: str, value: str) -> None:
    """An optimizer, a method or a model that is not modelled cannot be passed over; the user may give another."""
    (refused,) = understood(text).refused
    assert path == refused.path
    assert value in str(refused.error)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"output_dir": "x", "per_device_train_batch_size": "four"}', "per_device_train_batch_size: 'four'.*positive"),
        ('{"output_dir": "x", "bf16": "perhaps"}', "bf16: 'perhaps': expected true or false"),
        ('{"output_dir": "x", "per_device_train_batch_size": [1]}', r"per_device_train_batch_size: \[1\]"),
        ("base_model: 7\nlora_r: -4\nadapter: lora", "lora_r: -4"),
        ("base_model: [a]", "base_model"),
        ("base_model: x\nlora_target_modules: 3\nadapter: lora", "lora_target_modules: 3: expected a list"),
        ('{"nobody": 1}', "nobody.*expected keys of one of: DeepSpeed JSON"),
        ("#!/bin/bash\nls -la", "expected a command of Megatron-LM"),
        ("pretrain_gpt.py --seq-length 8 --fp8-format hybrid e4m3", "fp8-format: .*expected hybrid or e4m3"),
        ("torchrun pretrain_gpt.py --seq-length $LENGTH --num-attention-heads 8", r"seq-length: '\$LENGTH'"),
    ],
)
def test_wrong_values_are_one_clear_error(text: str, message: str) -> None:
    """The file, the key, what was seen and what was expected."""
    with pytest.raises(InvalidValueError, match=message):
        understood(text)


def test_megatron_describes_its_model() -> None:
    """Sizes of the flags become a configuration; the vocabulary is rounded up to 128 times the tensor ranks."""
    config = understood(MEGATRON).config
    assert config is not None
    assert ("llama", 4096, 14336, 8) == (
        config["model_type"], config["hidden_size"], config["intermediate_size"], config["num_key_value_heads"],
    )  # fmt: skip
    assert (128256, False) == (config["vocab_size"], config["tie_word_embeddings"])  # 501 x 256
    assert understood(MEGATRON.replace("128256", "128257")).config["vocab_size"] == 502 * 256  # type: ignore[index]


def test_megatron_without_a_vocabulary_names_no_model() -> None:
    """A vocabulary in a tokenizer's file is not guessed."""
    assert understood(MEGATRON.replace("--vocab-size 128256", "--tokenizer-model x")).config is None


@pytest.mark.parametrize(
    "name",
    ["trainer", "accelerate", "deepspeed", "axolotl", "llama_factory", "torchtune", "litgpt", "torchtitan", "megatron",
     "ms_swift"],
)  # fmt: skip
def test_tables_of_keys_have_sources(name: str) -> None:
    """Each says where its names were read and of which version; a key is known or uncounted, with a reason."""
    table = keys(name)
    assert ":" in table.source
    assert table.version
    assert all(table.uncounted.values())


def test_many_unknown_keys_do_not_take_long() -> None:
    """Near keys are looked up for the first of them only: 20,000 keys take as long as 20, each with its line."""
    many = {f"lora_rr{n}": 1 for n in range(20_000)}
    unknown = understood(json.dumps({"base_model": "m", **many})).having(Effect.UNKNOWN)
    assert (20_000, 20) == (len(unknown), sum("nearest" in word.why for word in unknown))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [
        "zero_optimization", "train_batch_size", "base_model", "adapter", "finetuning_type", "stage", "model", "train",
        "checkpoint_dir", "fsdp", "fsdp_config", "bf16", "optim", "output_dir", "lora_r", "lora_alpha", "parallelism",
        "lora_target_modules", "quantization_bit", "distributed_type", "num_processes", "deepspeed", "plugins",
        "gradient_checkpointing", "sequence_len", "micro_batch_size", "activation_checkpoint", "torch_dtype",
    ]
)  # fmt: skip


@given(st.dictionaries(NAMES, JSON, min_size=1, max_size=6))
def test_any_values_end_in_a_file_or_our_error(values: dict[str, Any]) -> None:
    """Nothing but VramfitError leaves the readers, whatever stands behind their keys."""
    try:
        understood(json.dumps(values))
    except VramfitError:
        return

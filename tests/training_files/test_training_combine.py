"""Several files make one request: what contradicts is refused, what follows is worked out, our own options win."""

from __future__ import annotations

from typing import Any

import pytest

from vramfit.errors import InvalidValueError
from vramfit.request import Given
from vramfit.training import AdapterAsked
from vramfit.training_files.combine import Combined, combine
from vramfit.training_files.recognise import read
from vramfit.training_files.training_file import Document

ARGUMENTS = {"model_name_or_path": "m", "per_device_train_batch_size": 2, "output_dir": "x"}
ZERO = {"zero_optimization": {"stage": 2}, "train_micro_batch_size_per_gpu": "auto"}
FSDP = {"distributed_type": "FSDP", "num_processes": 8}


def together(*files: dict[str, Any] | str, own: dict[str, Any] | None = None) -> Combined:
    """Return what files and our own options make up."""
    read_files = [
        read(
            Document(where=f"file{n}", text=each) if isinstance(each, str) else Document(where=f"file{n}", values=each)
        )
        for n, each in enumerate(files)
    ]
    said = [Given(path=path, value=value, said=f"--{path}") for path, value in (own or {}).items()]
    return combine(read_files, said)


def test_three_files_are_one_run() -> None:
    """Arguments say the batch, DeepSpeed the stage, accelerate the devices; the Trainer runs it."""
    found = together(ARGUMENTS, ZERO, {"distributed_type": "DEEPSPEED", "num_processes": 4}).request
    assert ("transformers", 2, 4, 2, 4) == (
        found.workload.framework, found.workload.micro_batch, found.plan.dp_shard, found.plan.zero_stage,
        found.device_count,
    )  # fmt: skip


def test_the_launchers_own_flags_are_read() -> None:
    """``accelerate launch --use_deepspeed --zero_stage 3`` says what its YAML would."""
    command = (
        "accelerate launch --num_processes 4 --use_deepspeed --zero_stage 3 --offload_optimizer_device cpu "
        "train.py --model_name_or_path m --per_device_train_batch_size 1"
    )
    found = together(command).request
    assert (4, 3, "cpu") == (found.plan.dp_shard, found.plan.zero_stage, found.workload.offload.optimizer)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("verb", "method", "targets"),
    [
        ("finetune_lora", "lora", ("q_proj", "v_proj")),
        ("finetune", "lora", ("q_proj", "v_proj")),
        ("finetune_full", "full", None),
        ("finetune_adapter", "adapter", None),
    ],
)
def test_litgpts_command_says_its_recipe(verb: str, method: str, targets: tuple[str, ...] | None) -> None:
    """The model stands first; flags are the keys of the YAML; each recipe has its own defaults."""
    command = f"litgpt {verb} meta-llama/Llama-3.2-3B --train.micro_batch_size 4 --devices 2 --precision bf16-true"
    found = together(command).request
    assert ("meta-llama/Llama-3.2-3B", method, 4, 2) == (
        found.model, found.workload.method, found.workload.micro_batch, found.plan.dp_shard,
    )  # fmt: skip
    assert targets == (None if found.workload.adapter is None else found.workload.adapter.targets)


def test_a_registered_configuration_names_its_model() -> None:
    """Torchtitan 0.3 names a configuration; its own settings are not read, and that is said."""
    command = "NGPU=8 ./run_train.sh --module qwen3 --config qwen3_0_6b --training.seq_len 4096"
    found = together(command).request
    assert ("Qwen/Qwen3-0.6B", 8, 4096) == (found.model, found.plan.dp_shard, found.workload.sequence_tokens)
    file = read(Document(where="x", text=command))
    assert any("registered configuration" in word.why for word in file.words)


@pytest.mark.parametrize(
    ("files", "precision"),
    [
        (({**ARGUMENTS, "bf16": True},), "bf16-mixed"),
        ((ARGUMENTS,), "fp32"),
        (({**ARGUMENTS, "torch_dtype": "bfloat16"},), "bf16"),
        ((ARGUMENTS, {"zero_optimization": {"stage": 2}, "bf16": {"enabled": True}}), "bf16-mixed"),
        ((ARGUMENTS, {**FSDP, "mixed_precision": "fp16"}), "fp16-mixed"),
        (({**ARGUMENTS, "max_length": 8},), None),
    ],
)
def test_a_trainer_without_autocast_has_none(files: tuple[dict[str, Any], ...], precision: str | None) -> None:
    """Neither bf16 nor fp16 means weights as they are loaded, unless another file says a precision; TRL has bf16 on."""
    assert precision == together(*files).request.workload.precision


def test_deepspeed_alone_is_deepspeed() -> None:
    """Without another file, its own engine runs the model."""
    assert "deepspeed" == together(ZERO).request.workload.framework


@pytest.mark.parametrize(
    ("file", "framework", "objective"),
    [
        ("train.py --model_name_or_path m --per_device_train_batch_size 1", "transformers", "next-token"),
        ("trl sft --model_name_or_path m", "trl", "next-token"),
        ("accelerate launch dpo.py --model_name_or_path m --max_length 64", "trl", "dpo"),
        ({**ARGUMENTS, "max_length": 64}, "trl", "next-token"),
        ({**ARGUMENTS, "num_generations": 8}, "trl", "grpo"),
    ],
)
def test_trl_is_known_by_its_keys(file: dict[str, Any] | str, framework: str, objective: str) -> None:
    """Its own command, its scripts, or keys that the Trainer itself has not."""
    workload = together(file).request.workload
    assert (framework, objective) == (workload.framework, workload.objective)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ((ARGUMENTS, {**ZERO, "train_micro_batch_size_per_gpu": 4}), "micro_batch.*file0.*2 and file1.*4.*contradict"),
        ((ARGUMENTS, ZERO, FSDP), "divided_by.*zero_optimization.*FSDP.*contradict"),
        (({"base_model": "m"}, {"finetuning_type": "lora"}), "framework.*Axolotl.*LLaMA-Factory"),
        (({**FSDP, "num_processes": 8}, {**FSDP, "num_processes": 4}), "device_count.*8 and.*4"),
    ],
)
def test_contradictions_are_one_error(files: tuple[dict[str, Any], ...], message: str) -> None:
    """Both sides are named, with their files."""
    with pytest.raises(InvalidValueError, match=message):
        together(*files)


def test_our_own_options_win() -> None:
    """A batch on our command line takes the place of the file's; so does the number of devices."""
    found = together(ARGUMENTS, FSDP, own={"workload.micro_batch": 16, "device_count": 2}).request
    assert (16, 2) == (found.workload.micro_batch, found.plan.dp_shard)


def test_an_own_option_takes_the_place_of_what_is_not_modelled() -> None:
    """The refusal says which field to give; given, the file is answered."""
    odd = {**ARGUMENTS, "optim": "schedule_free_adamw"}
    with pytest.raises(InvalidValueError, match=r"optim: 'schedule_free_adamw'.*give optimizer"):
        together(odd)
    assert "adamw" == together(odd, own={"workload.optimizer": "adamw"}).request.workload.optimizer


def test_devices_that_no_axis_takes_are_data_parallel() -> None:
    """16 devices over tp 2 leave 8: copies in Megatron, shards in torchtitan, copies in a plain Trainer."""
    megatron = "torchrun --nproc_per_node 8 --nnodes 2 pretrain_gpt.py --tensor-model-parallel-size 2 --seq-length 8"
    titan = {"parallelism": {"tensor_parallel_degree": 2}, "training": {}}
    assert 8 == together(megatron).request.plan.dp_replicate
    assert 8 == together(titan, own={"device_count": 16}).request.plan.dp_shard
    assert 4 == together(ARGUMENTS, own={"device_count": 4}).request.plan.dp_replicate


def test_devices_that_do_not_divide_are_refused() -> None:
    """Nine devices do not divide by tp 2."""
    titan = {"parallelism": {"tensor_parallel_degree": 2}, "training": {}}
    with pytest.raises(InvalidValueError, match="device_count: 9: expected a multiple of 2"):
        together(titan, own={"device_count": 9})


@pytest.mark.parametrize(
    ("flags", "accumulation", "micro_batches"),
    [("", 8, None), (" --pipeline-model-parallel-size 2", None, 16), (" --micro-batch-size 2", 4, None)],
)
def test_the_accumulation_follows_from_the_global_batch(
    flags: str, accumulation: int | None, micro_batches: int | None
) -> None:
    """64 sequences of a step over 8 ranks: 8 micro-batches of one; in a pipeline of two, 16 go through it."""
    command = f"torchrun --nproc_per_node 8 pretrain_gpt.py --seq-length 8 --global-batch-size 64{flags}"
    found = together(command).request
    assert (accumulation, micro_batches) == (found.workload.gradient_accumulation_steps, found.plan.micro_batches)


def test_a_global_batch_waits_for_the_devices() -> None:
    """Without their number nothing is worked out, and a note says so."""
    found = together("pretrain_gpt.py --seq-length 8 --global-batch-size 64")
    assert found.request.workload.gradient_accumulation_steps is None
    assert any("--gpus" in note for note in found.notes)


def test_a_model_by_its_sizes_gives_way_to_a_named_one() -> None:
    """Megatron's sizes are a configuration unless MODEL is given."""
    command = "pretrain_gpt.py --num-layers 2 --hidden-size 64 --num-attention-heads 4 --vocab-size 100 --seq-length 8"
    assert "gpt2" == together(command).request.config["model_type"]  # type: ignore[index]
    assert together(command, own={"model": "m"}).request.config is None


def test_adapters_of_files_fall_silent_when_everything_trains() -> None:
    """A file's ranks stay behind when our own option says full; our own rank does not."""
    lora = {**ARGUMENTS, "use_peft": True, "lora_r": 8}
    assert together(lora, own={"workload.method": "full"}).request.workload.adapter is None
    assert AdapterAsked(rank=4) == together(ARGUMENTS, own={"workload.adapter.rank": 4}).request.workload.adapter

"""``vramfit train`` as a person types it: options, plans, files, errors, JSON."""

from __future__ import annotations

import io
import json
from pathlib import Path

import jsonschema
import pytest

from command_run import run, run_json
from vramfit.cli import here
from vramfit.cli.plan_option import NAMES, parse_plan
from vramfit.errors import InvalidValueError
from vramfit.training_wire import training_answer_schema

MODEL = "meta-llama/Llama-3.1-8B"


def test_a_fine_tuning_run_is_answered(capsys: pytest.CaptureFixture[str]) -> None:
    """LoRA of an 8B model at 2 x 4,096 tokens without recomputation exceeds a 24 GB card: its weights alone are 15."""
    code, out, _ = run(
        capsys, "train", MODEL, "--method", "lora", "--rank", "16", "--sequence", "4096", "--batch", "2",
        "--gpu", "rtx-4090-24gb",
    )  # fmt: skip
    assert 0 == code
    assert out.startswith("Does not fit on rtx-4090-24gb: needs ")
    assert "lora training" in out
    assert "adapters" in out


def test_gpu_here_takes_what_the_driver_says(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same door as for serving: the card's product, and the memory that it reports."""
    card = here.Card(product="NVIDIA GeForce RTX 4090", total_bytes=25_757_220_864, free_bytes=20_000_000_000)
    monkeypatch.setattr(here, "cards", lambda: (card,))
    code, out, _ = run(capsys, "train", MODEL, "--method", "lora", "--sequence", "128", "--gpu", "here", "--brief")
    assert 0 == code
    assert out.startswith("this machine: 1 x NVIDIA GeForce RTX 4090, 20,000,000,000 of 25,757,220,864 bytes free")
    assert "on rtx-4090-24gb: needs" in out


def test_every_option_reaches_the_request(capsys: pytest.CaptureFixture[str]) -> None:
    """What is written comes back in the request as understood."""
    found = run_json(
        capsys, "train", MODEL, "--framework", "torchtitan", "--sequence", "1024", "--batch", "2", "--accumulate", "2",
        "--optimizer", "adamw", "--optimizer-impl", "fused", "--recompute", "full", "--attention", "sdpa",
        "--loss", "plain", "--no-compile", "--plan", "dp_shard=4,tp=2", "--gpu", "h100-sxm-80gb", "--gpus", "8",
        "--headroom", "1GiB",
    )  # fmt: skip
    jsonschema.validate(found, training_answer_schema())
    workload, plan = found["request"]["workload"], found["request"]["plan"]
    assert (1024, 2, 2, "adamw", "fused", "full", "sdpa", "plain") == (
        workload["sequence_tokens"], workload["micro_batch"], workload["gradient_accumulation_steps"],
        workload["optimizer"], workload["optimizer_implementation"], workload["recompute"], workload["attention"],
        workload["loss"],
    )  # fmt: skip
    assert (4, 2, False) == (plan["dp_shard"], plan["tp"], workload["compile"])
    assert 2**30 == found["verdict"]["headroom_bytes"]


def test_offload_is_read_part_by_part(capsys: pytest.CaptureFixture[str]) -> None:
    """Optimizer states wait on the host: 8 B a parameter there, none on the device."""
    found = run_json(
        capsys, "train", MODEL, "--sequence", "128", "--precision", "bf16-mixed", "--offload", "optimizer=cpu",
        "--recompute", "full",
    )  # fmt: skip
    assert {"optimizer": "cpu"} == found["request"]["workload"]["offload"]
    assert found["host_bytes"] >= 8 * 8_030_261_248


@pytest.mark.parametrize(
    ("framework", "plan", "expected"),
    [("torchtitan", "tp=2", {"dp_shard": 4, "tp": 2}), ("megatron-lm", "tp=2,pp=2", {"dp_replicate": 2, "pp": 2})],
)
def test_devices_left_over_are_data_parallel(
    capsys: pytest.CaptureFixture[str], framework: str, plan: str, expected: dict[str, int]
) -> None:
    """Eight devices and two of tensor parallelism: four shards in torchtitan, copies in Megatron."""
    args = ("--framework", framework, "--plan", plan, "--gpus", "8", "--sequence", "128", "--recompute", "full")
    found = run_json(capsys, "train", MODEL, *args)["request"]["plan"]
    assert expected == {name: found[name] for name in expected}


def test_buckets_are_of_the_size_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """DeepSpeed's bucket of 2e8 elements takes 0.4 GB in 16 bit; two of them when they overlap; h^2 by hidden size."""
    asked = ("train", MODEL, "--framework", "deepspeed", "--sequence", "128", "--plan", "dp_shard=8,zero_stage=2")

    def bucket(*args: str) -> int:
        items = run_json(capsys, *asked, *args)["breakdowns"][0]["items"]
        return int(next(item["bytes"] for item in items if item["name"] == "buffers/reduce_bucket"))

    assert 400_000_000 == bucket("--buckets", "reduce=2e8,overlap=no")
    assert 800_000_000 == bucket("--buckets", "reduce=2e8,overlap=yes")
    assert 2 * 4096**2 == bucket("--buckets", "by_hidden_size=true,overlap=false")


def test_check_sets_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    """One when it does not fit, none when it does."""
    tiny = ("train", MODEL, "--method", "lora", "--sequence", "128", "--brief", "--check")
    assert 1 == run(capsys, *tiny, "--gpu", "t4-16gb")[0]
    assert 0 == run(capsys, *tiny, "--gpu", "h100-sxm-80gb")[0]


def test_a_request_in_json_is_answered_too(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The same words through the other door give the same peak."""
    request = {
        "model": MODEL,
        "workload": {"kind": "train", "method": "lora", "sequence_tokens": 128, "adapter": {"rank": 8}},
    }
    path = tmp_path / "request.json"
    path.write_text(json.dumps(request), "utf-8")
    by_file = run_json(capsys, "estimate", "--request", str(path))
    by_options = run_json(capsys, "train", MODEL, "--method", "lora", "--sequence", "128", "--rank", "8")
    assert by_options["peak_bytes"] == by_file["peak_bytes"]


def test_the_examples_are_answered(capsys: pytest.CaptureFixture[str]) -> None:
    """The request and the file that ship beside the pages: 64 ranks of a 70B model, and a run of Axolotl."""
    examples = Path(__file__).resolve().parent.parent.parent / "examples"
    found = run_json(capsys, "estimate", "--request", str(examples / "training.json"))
    assert 64 == sum(rank["num_ranks"] for rank in found["breakdowns"])
    found = run_json(capsys, "train", "--from", str(examples / "qlora-axolotl.yml"))
    assert ("qlora", "paged-adamw-8bit") == (
        found["request"]["workload"]["method"], found["request"]["workload"]["optimizer"],
    )  # fmt: skip


def test_files_and_options_together(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The file says the recipe, our own options the model and the card; what became of each key is printed."""
    path = tmp_path / "axolotl.yml"
    path.write_text(
        "base_model: nobody/nothing\nadapter: qlora\nload_in_4bit: true\nlora_r: 8\nlora_target_linear: true\n"
        "sequence_len: 512\nmicro_batch_size: 1\nbf16: auto\ngradient_checkpointing: true\neval_batch_size: 4\n"
        "datasets: []\nlora_rr: 1\n",
        "utf-8",
    )
    code, out, _ = run(capsys, "train", MODEL, "--from", str(path), "--gpu", "rtx-4090-24gb")
    assert 0 == code
    assert out.startswith("Fits on rtx-4090-24gb")
    for words in ("Taken from axolotl.yml (Axolotl YAML)", "not understood: no key of", "not counted: evaluation"):
        assert words in out
    found = run_json(capsys, "train", MODEL, "--from", str(path))
    keys = {key["key"]: key["effect"] for key in found["files"]["files"][0]["keys"]}
    assert ("counted", "does not touch memory", "not understood") == (
        keys["lora_r"], keys["datasets"], keys["lora_rr"],
    )  # fmt: skip


def test_a_command_line_may_stand_there_itself(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In quotes, or on standard input."""
    command = f"swift sft --model {MODEL} --lora_rank 4 --max_length 128 --torch_dtype bfloat16"
    command += f" --output_dir {'x' * 500}"  # longer than a file's name may be
    found = run_json(capsys, "train", "--from", command)
    assert ("ms-swift", 4) == (
        found["request"]["workload"]["framework"], found["request"]["workload"]["adapter"]["rank"],
    )  # fmt: skip
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(command.encode())))
    assert found["peak_bytes"] == run_json(capsys, "train", "--from", "-")["peak_bytes"]


def test_a_file_without_a_model_asks_for_one(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A DeepSpeed file names none."""
    path = tmp_path / "ds.json"
    path.write_text('{"zero_optimization": {"stage": 1}}', "utf-8")
    code, _, err = run(capsys, "train", "--from", str(path))
    assert 2 == code
    assert "expected a model in it; or name it in front" in err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "missing MODEL"),
        ((MODEL, "--plan", "dp=8"), "--plan: 'dp=8': expected names and values such as dp_shard=8"),
        ((MODEL, "--method", "lorra"), "workload.method: 'lorra': expected one of full, lora"),
        ((MODEL, "--optimizer", "adan"), "workload.optimizer: 'adan'"),
        ((MODEL, "--offload", "weights"), "--offload: 'weights': expected parts of parameters"),
        ((MODEL, "--from", "none.yml"), "no such file"),
        ((MODEL, "--buckets", "reduse=1"), "--buckets: 'reduse=1': expected sizes and switches"),
        ((MODEL, "--buckets", "reduce=many"), "--buckets reduce: 'many'"),
        ((MODEL, "--config", "none.json"), "--config: none.json: no such file"),
        ((MODEL, "--batch", "0"), "workload.micro_batch: 0"),
        ((MODEL, "--framework", "torchtn"), "workload.framework: 'torchtn' is not known; nearest: torchtune"),
        ((MODEL, "--plan", "tp=3", "--sequence", "128"), "tp"),
        ((MODEL, "--plan", "tp=2", "--gpus", "3", "--sequence", "128"), "device"),
        ((MODEL, "--method", "lora", "--targets", "qq_proj", "--sequence", "128"), "q_proj"),
        ((MODEL, "--method", "full", "--rank", "8", "--sequence", "128"), "adapter"),
        ((MODEL, "--method", "full", "--base-format", "nf4-dq", "--sequence", "128"), "base_format"),
    ],
)
def test_wrong_options_are_one_clear_line(
    capsys: pytest.CaptureFixture[str], args: tuple[str, ...], message: str
) -> None:
    """Exit code 2, nothing on the output, the reason on one line."""
    code, out, err = run(capsys, "train", *args)
    assert (2, "") == (code, out)
    assert message in err
    assert "Traceback" not in err


def test_a_long_sequence_is_an_assumption(capsys: pytest.CaptureFixture[str]) -> None:
    """More tokens than the model has positions for are answered, and said."""
    _, out, _ = run(capsys, "train", "meta-llama/Llama-2-7b-hf", "--sequence", "8192", "--recompute", "full")
    assert "assumed" in out
    assert "4,096" in out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dp=8", "dp_replicate, dp_shard"),
        ("tpp=2", "nearest: tp"),
        ("tp", "'tp': expected names"),
        ("tp=2,tp=4", "tp once"),
        ("tp=two", "--plan tp: 'two': expected a whole number"),
        ("sequence_parallel=maybe", "true or false"),
        ("pp_schedule=1f2b", "one of gpipe"),
        ("layers_per_stage=3+4", "15/17"),
        ("tp=", "--plan tp: ''"),
    ],
)
def test_a_wrong_plan_lists_the_names(text: str, message: str) -> None:
    """One error, with every name."""
    with pytest.raises(InvalidValueError, match=message.replace("+", r"\+")):
        parse_plan(text)


def test_every_field_of_a_plan_can_be_written() -> None:
    """Numbers, switches, schedules and lists."""
    values = dict.fromkeys(NAMES, "2") | {
        "sequence_parallel": "no", "distributed_optimizer": "true", "reshard_after_forward": "1", "vocab_tp": "false",
        "pp_schedule": "zb-v", "layers_per_stage": "1/2",
    }  # fmt: skip
    found = parse_plan(",".join(f"{name}={value}" for name, value in values.items()))
    assert set(NAMES) == set(found)
    assert (False, True, "zb-v", (1, 2), 2) == (
        found["sequence_parallel"], found["distributed_optimizer"], found["pp_schedule"], found["layers_per_stage"],
        found["zero_stage"],
    )  # fmt: skip

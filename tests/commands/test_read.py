"""Command lines of engines, read: what each flag stands for, what touches memory, what is not understood."""

from __future__ import annotations

import pytest

from vramfit.commands.command_line import CommandLine, Effect
from vramfit.commands.program import Takes, spelling, table
from vramfit.commands.read import PROGRAMS, as_of, read_command
from vramfit.errors import InvalidValueError
from vramfit.request import request_of


def fields(line: CommandLine) -> dict[str, object]:
    """Return the fields that a command line gives."""
    return {each.path: each.value for each in line.given}


VLLM = (
    "vllm serve Qwen/Qwen3-8B --tensor-parallel-size 2 --max-model-len 32768 --gpu-memory-utilization=0.9 "
    "--kv_cache_dtype fp8 --enforce-eager --no-enable-prefix-caching --max-num-seqs 64 --max-num-batched-tokens 4k"
)


def test_vllm_serve_gives_the_fields_of_a_request() -> None:
    """Each flag becomes the field it stands for; 4k is 4,000, hyphens and underscores are one."""
    assert {
        "model": "Qwen/Qwen3-8B", "workload.engine": "vllm", "plan.tp": 2, "workload.context_tokens": 32768,
        "workload.memory_fraction": 0.9, "workload.kv_format": "fp8", "workload.eager": True,
        "workload.prefix_caching": False, "workload.max_num_seqs": 64, "workload.max_num_batched_tokens": 4000,
    } == fields(read_command(VLLM))  # fmt: skip
    asked = request_of(read_command(VLLM).given)
    assert (2, 32768, "vllm") == (asked.plan.tp, asked.workload.context_tokens, asked.workload.engine)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            ("CUDA_VISIBLE_DEVICES=0 VLLM_ATTENTION_BACKEND=FLASHINFER python -m vllm.entrypoints.openai.api_server"
            " --model meta-llama/Llama-3.1-8B \\\n  --dtype half"),
            {"model": "meta-llama/Llama-3.1-8B", "workload.engine": "vllm", "workload.attention": "flashinfer"},
        ),
        (
            "docker run --gpus all -e HF_TOKEN=x -p 8000:8000 vllm/vllm-openai:v0.10.2 --model a/b --max-num-seqs 64",
            {"model": "a/b", "workload.engine": "vllm", "workload.engine_version": "0.10.2",
             "workload.max_num_seqs": 64},
        ),
        (
            "llama-server -hf ggml-org/gemma-3-1b-it-GGUF:Q4_K_M -c 32768 -ngl 99 -fa on -ctk q8_0 -ctv q8_0 -np 2",
            {"model": "ggml-org/gemma-3-1b-it-GGUF:Q4_K_M", "workload.engine": "llama.cpp",
             "workload.context_tokens": 32768, "workload.gpu_layers": 99, "workload.flash_attention": True,
             "workload.kv_format_k": "q8_0", "workload.kv_format_v": "q8_0", "workload.slots": 2},
        ),
        (
            "./build/bin/llama-server -m x.gguf -fa -c 0 -ngl all",
            {"model": "x.gguf", "workload.engine": "llama.cpp", "workload.flash_attention": True},
        ),
        (
            "python3 -m sglang.launch_server --model-path Qwen/Qwen3-8B --tp 2 --mem-fraction-static 0.8",
            {"model": "Qwen/Qwen3-8B", "workload.engine": "sglang", "plan.tp": 2, "workload.memory_fraction": 0.8},
        ),
        (
            "trtllm-serve Qwen/Qwen3-8B --max_seq_len 8192 --tp_size 2 --kv_cache_free_gpu_memory_fraction 0.8",
            {"model": "Qwen/Qwen3-8B", "workload.engine": "tensorrt-llm", "workload.context_tokens": 8192,
             "plan.tp": 2, "workload.memory_fraction": 0.8},
        ),
        (
            "text-generation-launcher --model-id a/b --max-total-tokens 4096 --max-input-length 3000 --num-shard 2",
            {"model": "a/b", "workload.engine": "tgi", "workload.context_tokens": 4096,
             "workload.prompt_tokens": 3000, "plan.tp": 2},
        ),
        (
            "lmdeploy serve api_server a/b --session-len 32768 --cache-max-entry-count 0.5 --quant-policy 8",
            {"model": "a/b", "workload.engine": "lmdeploy", "workload.context_tokens": 32768,
             "workload.memory_fraction": 0.5, "workload.kv_format": "int8"},
        ),
        (
            "OLLAMA_NUM_PARALLEL=4 OLLAMA_KV_CACHE_TYPE=q8_0 ollama run llama3.1:8b",
            {"model": "llama3.1:8b", "workload.engine": "ollama", "workload.slots": 4, "workload.kv_format": "q8_0",
             "workload.weight_format": "gguf:Q4_K_M"},
        ),
        (
            "$ vllm serve a/b --speculative-config '{\"model\": \"c/d\", \"num_speculative_tokens\": 3}' | tee log",
            {"model": "a/b", "workload.engine": "vllm", "workload.draft_model": "c/d",
             "workload.speculative_tokens": 3},
        ),
        ("vllm serve --enforce-eager a/b", {"model": "a/b", "workload.engine": "vllm", "workload.eager": True}),
    ],
)  # fmt: skip
def test_every_program_is_read(text: str, expected: dict[str, object]) -> None:
    """Variables in front, containers, modules, paths, continued lines, pipes, values of every kind."""
    assert expected == fields(read_command(text))


def test_flags_are_sorted_by_what_they_do() -> None:
    """Counted, without effect, touching memory uncounted, and not understood are told apart, each with a reason."""
    line = read_command(
        "vllm serve a/b --max-model-len 8192 --port 8000 --served-model-name x y --swap-space 4 "
        "--compilation-config '{\"level\": 3}' --frobnicate 3 --max-modle-len 9"
    )
    assert ["--max-model-len"] == [w.flag for w in line.flags(Effect.COUNTED)]
    assert ["--port", "--served-model-name", "--swap-space"] == [w.flag for w in line.flags(Effect.NONE)]
    assert ["--compilation-config"] == [w.flag for w in line.flags(Effect.NOT_COUNTED)]
    unknown = line.flags(Effect.UNKNOWN)
    assert ["--frobnicate", "--max-modle-len"] == [w.flag for w in unknown]
    assert "nearest: --max-model-len" in unknown[1].why


def test_a_context_left_to_fit_is_named() -> None:
    """--max-model-len auto asks for the longest that fits, which is not what is judged."""
    line = read_command("vllm serve a/b --max-model-len auto")
    assert ["--max-model-len"] == [w.flag for w in line.flags(Effect.NOT_COUNTED)]
    assert "workload.context_tokens" not in fields(line)


def test_flags_of_another_version_are_not_understood() -> None:
    """--kv-cache-memory-bytes came after 0.8.5, --num-scheduler-steps had gone by 0.33.0."""
    line = read_command("vllm serve a/b --kv-cache-memory-bytes 1000 --num-scheduler-steps 8")
    old, new = as_of(line, "0.8.5"), as_of(line, "0.33.0")
    assert ["--kv-cache-memory-bytes"] == [w.flag for w in old.flags(Effect.UNKNOWN)]
    assert ["--num-scheduler-steps"] == [w.flag for w in new.flags(Effect.UNKNOWN)]
    between = as_of(line, "0.9.2")  # no version between 0.8.5 and 0.10.2 was read: both may be right
    assert () == between.flags(Effect.UNKNOWN)
    assert "--num-scheduler-steps" in [w.flag for w in as_of(line, "0.10.2").flags(Effect.UNKNOWN)]
    assert line == as_of(line, None)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("rm -rf /", ("--command", "vllm serve", "llama-server")),
        ("vllm serve a/b --max-model-len many", ("--max-model-len", "'many'", "32768")),
        ("vllm serve a/b --max-model-len", ("--max-model-len", "a value behind it")),
        ("vllm serve $MODEL", ("model", "$MODEL", "shell variables")),
        ("vllm serve a/b --dtype 'half", ("--command", "quotes")),
        ("vllm serve a/b --kv-cache-dtype fp9", ("--kv-cache-dtype", "'fp9'", "fp8")),
        ("vllm serve a/b --gpu-memory-utilization 1.5", ("--gpu-memory-utilization", "'1.5'", "at most 1")),
        ("vllm serve a/b --speculative-config nonsense", ("--speculative-config", "JSON")),
        ("vllm serve " + "x" * 70_000, ("--command", "at most")),
        ("llama-server -m x -ts a,b", ("-ts", "'a,b'", "shares")),
    ],
)
def test_a_wrong_command_line_is_one_clear_error(text: str, parts: tuple[str, ...]) -> None:
    """The error shows the flag, what was seen and what was expected."""
    with pytest.raises(InvalidValueError) as error:
        read_command(text)
    for part in parts:
        assert part in str(error.value)


def test_flags_that_contradict_one_another_are_refused() -> None:
    """With and without graphs at once, or two lengths, is no request."""
    for flags in ("--enforce-eager --no-enforce-eager", "--max-model-len 1024 --max-model-len 2048"):
        with pytest.raises(InvalidValueError, match="they contradict"):
            request_of(read_command(f"vllm serve a/b {flags}").given)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.engine)
def test_our_words_for_flags_are_the_programs_own(program: object) -> None:
    """Every flag that we count is in the list of its parser, and takes what we think it takes."""
    known = table(program.table)  # type: ignore[attr-defined]
    for flag in program.flags:  # type: ignore[attr-defined]
        listed = [known.takes[spelling(name)] for name in flag.names if spelling(name) in known.takes]
        negative = any(name.startswith("--no-") for name in flag.names)
        spoken = any(name in {"--enable_lora", "--kv_cache_dtype"} for name in flag.names)
        assert listed or negative or spoken, f"{flag.names}: not in {known.source}"
        if type(flag).__name__ == "Switch":
            assert set(listed) <= {Takes.NOTHING}, flag.names


def test_tables_are_whole_parsers() -> None:
    """The tables hold the whole parser of the newest version read: hundreds of flags of the large servers."""
    assert 344 <= len(table("vllm").takes)
    assert 551 <= len(table("sglang").takes)
    assert "--gpu-memory-utilization" in table("vllm").takes
    assert Takes.MANY is table("vllm").takes["--served-model-name"]

"""The tape against real programs of other recipes: adapters, autocast, attention step by step, an encoder."""

from __future__ import annotations

from typing import Any

import pytest

from vramfit.block_style import BlockStyle
from vramfit.memory.tape.cost import step_cost
from vramfit.parallel import shards
from vramfit.readers.hf_config import read_config
from vramfit.request import Plan
from vramfit.step import StepCost
from vramfit.training import AdapterAsked, Training
from vramfit.training_choices import decide
from vramfit.training_model import as_trained

pytestmark = [pytest.mark.witness, pytest.mark.slow]
BATCH, LAYERS, SLACK = 2, 4, 0.03
"""SLACK: the caching allocator hands out whole blocks where tensors are asked for."""
SMALL: dict[str, Any] = {
    "hidden_size": 256,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 704,
    "head_dim": 32,
    "vocab_size": 1000,
    "num_hidden_layers": LAYERS,
    "tie_word_embeddings": False,
    "use_cache": False,
}
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def peaks(cost: StepCost) -> tuple[int, list[int]]:
    """Return the peak of the loss, and of every backward, last block first."""
    assert cost.embedding is not None
    assert cost.head is not None
    steps = [cost.embedding, *(block for block, count in cost.blocks for _ in range(count)), cost.head]
    kept, cached = [step.kept_bytes for step in steps], sum(step.cached_bytes for step in steps[:-1])
    gradients, backward = 0, []
    for number in reversed(range(1, len(steps))):
        held = cost.held_bytes if number < len(steps) - 1 else 0
        backward.append(sum(kept[:number]) + held + gradients + steps[number].backward_bytes)
        gradients += steps[number].gradient_bytes
    return sum(kept[:-1]) + cached + cost.head.forward_bytes, backward


def stack(model: Any) -> Any:
    """Return the list of a model's blocks."""
    import torch

    return next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == LAYERS)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")  # peft's, not ours
@pytest.mark.parametrize("recompute", ["none", "full"])
@pytest.mark.parametrize(
    ("targets", "fmt", "dropout", "method"),
    [
        (("q_proj", "v_proj"), "fp32", 0.0, "lora"),
        (("q_proj", "v_proj"), "bf16", 0.0, "lora"),
        (ALL, "fp32", 0.0, "lora"),
        (ALL, "fp32", 0.1, "lora"),
        (ALL, "fp32", 0.0, "dora"),
    ],
    ids=["two targets", "two targets in 16 bit", "all", "all with dropout", "all with magnitudes"],
)
def test_adapters_are_those_of_peft(
    targets: tuple[str, ...], fmt: str, dropout: float, method: str, recompute: str
) -> None:
    """What low-rank adapters on a frozen base keep is alive in peft's own code too; the first block keeps less."""
    import peft
    import torch
    import transformers

    from liveness import watch

    tokens = 128
    config = transformers.LlamaConfig(**SMALL)
    with torch.device("meta"):
        base = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").to(torch.bfloat16)
        lora = peft.LoraConfig(
            r=8, target_modules=list(targets), lora_dropout=dropout, use_dora=method == "dora", task_type="CAUSAL_LM"
        )
        model = peft.get_peft_model(base, lora).train()
    for name, parameter in model.named_parameters():
        if "lora" in name:
            parameter.data = parameter.data.to(torch.float32 if fmt == "fp32" else torch.bfloat16)
    if recompute == "full":
        model.enable_input_require_grads()
        base.activation_checkpointing_enable()
    ids = torch.zeros(BATCH, tokens, dtype=torch.long, device="meta")
    seen = watch(model, stack(model), lambda: model(input_ids=ids.clone(), labels=ids.clone()))
    asked = Training(
        framework="peft",
        method=method,
        micro_batch=BATCH,
        sequence_tokens=tokens,
        precision="bf16",
        recompute=recompute,
        attention="sdpa",
        loss="fp32",
        adapter=AdapterAsked(rank=8, targets=targets, format=fmt, dropout=dropout),
    )
    spec = read_config(config.to_dict(), "witness")
    training = decide(spec, asked, Plan()).training
    (shard,) = shards(as_trained(spec, training), Plan())
    loss, backward = peaks(step_cost(shard, training, BlockStyle()))
    assert seen.loss == pytest.approx(loss, rel=0.002)
    assert backward == [pytest.approx(most, rel=0.002) for most in seen.backward[: len(backward)]]


RECIPES: dict[str, tuple[str, bool, dict[str, Any]]] = {
    "autocast": ("llama", True, {"precision": "bf16-mixed"}),
    "autocast, recomputed": ("llama", True, {"precision": "bf16-mixed", "recompute": "full"}),
    "scores written out": ("llama", False, {"precision": "bf16", "attention": "eager"}),
    "fp32, scores written out": ("llama", False, {"precision": "fp32", "attention": "eager"}),
    "encoder": ("bert", False, {"precision": "bf16"}),
    "encoder, scores written out": ("bert", False, {"precision": "fp32", "attention": "eager"}),
}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_those_of_the_traced_program(name: str) -> None:
    """Loss and backward peaks are those of the program on a GPU that is not there, kernel scratch aside."""
    import torch
    import transformers

    from vramfit.trace.virtual_gpu import VirtualGPU

    kind, autocast, workload = RECIPES[name]
    tokens, implementation = 512, workload.get("attention", "sdpa")
    if kind == "llama":
        config, model_class = transformers.LlamaConfig(**SMALL), transformers.LlamaForCausalLM
    else:
        fields = {k: SMALL[k] for k in ("hidden_size", "intermediate_size", "num_attention_heads", "vocab_size")}
        config = transformers.BertConfig(**fields, num_hidden_layers=LAYERS, architectures=["BertForMaskedLM"])
        model_class = transformers.BertForMaskedLM
    backward: list[int] = []
    with VirtualGPU("a100-sxm-80gb", workspaces=False):
        with torch.device("cuda"):
            model = model_class._from_config(config, attn_implementation=implementation)
        model = model.to(torch.bfloat16 if workload["precision"] == "bf16" else torch.float32).train()
        if workload.get("recompute") == "full":
            model.activation_checkpointing_enable()
        weights = torch.cuda.memory_allocated()

        def taken() -> int:
            most = torch.cuda.max_memory_allocated() - weights
            torch.cuda.reset_peak_memory_stats()
            return int(most)

        def end(_module: Any, _inputs: Any, output: Any) -> None:
            taken()
            hidden = output if isinstance(output, torch.Tensor) else output[0]
            hidden.register_hook(lambda _: backward.append(taken()))

        for block in stack(model):
            block.register_forward_hook(end)
        ids = torch.zeros(BATCH, tokens, dtype=torch.long, device="cuda")
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=autocast):
            output = model(input_ids=ids, labels=ids.clone())
        loss = taken()
        output.loss.backward()
        backward.append(taken())
    (shard,) = shards(read_config(config.to_dict(), "witness"), Plan())
    asked = Training(micro_batch=BATCH, sequence_tokens=tokens, loss="fp32", **workload)
    expected, by_block = peaks(step_cost(shard, asked, BlockStyle(autocast=autocast)))
    assert loss == pytest.approx(expected, rel=2 * SLACK)
    assert backward[: len(by_block)] == [pytest.approx(most, rel=SLACK) for most in by_block]

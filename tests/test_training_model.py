"""What a method trains: adapters by hand, frozen parts by name, whole modules copied, a quantised base."""

from __future__ import annotations

import pytest

from vramfit.errors import InvalidValueError
from vramfit.formats import Role
from vramfit.request import Plan
from vramfit.source import read_model
from vramfit.spec import ModelSpec
from vramfit.train import estimate_training
from vramfit.training import AdapterAsked, Training
from vramfit.training_choices import decide
from vramfit.training_model import as_trained

LLAMA = "meta-llama/Llama-3.1-8B"


def trained(name: str, training: Training) -> ModelSpec:
    """Return a model as it trains."""
    model = read_model(name)
    return as_trained(model, decide(model, training, Plan()).training)


def moved(model: ModelSpec) -> int:
    """Parameters that train."""
    outside = sum(t.num_parameters for t in (*model.embeddings, *model.head) if not t.frozen)
    return outside + sum(n * t.num_parameters for layer, n in model.groups for t in layer.tensors if not t.frozen)


def test_all_linear() -> None:
    """Rank 16 on all seven matrices of 32 layers of Llama 3.1 8B: 41,943,040, as peft prints."""
    asked = Training(framework="peft", method="lora", adapter=AdapterAsked(rank=16, targets=("all-linear",)))
    assert 41_943_040 == moved(trained(LLAMA, asked))


def test_dora_has_a_magnitude_for_each_output() -> None:
    """Beside rank 8 on queries and values there are 4,096 + 1,024 magnitudes in each of 32 layers."""
    pair = Training(framework="peft", method="lora")
    dora = Training(framework="peft", method="dora")
    assert 32 * (4096 + 1024) == moved(trained(LLAMA, dora)) - moved(trained(LLAMA, pair))


@pytest.mark.parametrize(
    ("pattern", "left"),
    [("embed_tokens", 128_256 * 4096), ("model.layers.0", 218_112_000), ("model.layers.*.mlp", 32 * 3 * 4096 * 14336)],
)
def test_frozen_parts(pattern: str, left: int) -> None:
    """A name freezes itself, a path one layer, a pattern all that it matches."""
    model = read_model(LLAMA)
    assert model.num_parameters - left == moved(trained(LLAMA, Training(freeze=(pattern,))))


def test_whole_modules_are_copied() -> None:
    """``modules_to_save`` trains a copy of the head beside the frozen one."""
    asked = Training(framework="peft", method="lora", adapter=AdapterAsked(modules_to_save=("lm_head",)))
    plain = Training(framework="peft", method="lora")
    assert 128_256 * 4096 == moved(trained(LLAMA, asked)) - moved(trained(LLAMA, plain))


def test_a_quantised_base() -> None:
    """QLoRA stores the matrices of blocks in NF4, embeddings and the head as the model computes, adapters in fp32."""
    model = trained(LLAMA, Training(framework="peft", method="qlora", precision="bf16"))
    formats = {(t.role, model.scheme.format_of(t).name) for layer in model.layers for t in layer.tensors}
    assert (Role.LINEAR, "nf4-dq") in formats
    assert (Role.ADAPTER, "fp32") in formats
    assert {"bf16"} == {model.scheme.format_of(t).name for t in model.embeddings}


def test_targets_inside_fused_matrices() -> None:
    """Falcon holds queries, keys and values in one matrix of 4,544 x 4,672: rank 8 on it in each of 32 layers."""
    asked = Training(framework="peft", method="lora", adapter=AdapterAsked(rank=8, targets=("q_proj", "v_proj")))
    assert 32 * 8 * (4544 + 4672) == moved(trained("tiiuae/falcon-7b", asked))


def test_adapters_are_cut_as_their_targets() -> None:
    """On two tensor ranks B of queries is halved and A is whole; the answer is one rank's share."""
    asked = Training(framework="peft", method="lora", adapter=AdapterAsked(rank=16, targets=("q_proj",)))
    (rank,) = estimate_training(read_model(LLAMA), asked, Plan(tp=2)).breakdowns
    (size,) = (i.bytes for i in rank.items if i.name == "weights/adapters")
    assert 32 * 16 * (4096 + 4096 // 2) * 4 == size


def test_adapters_of_turned_matrices_are_cut_as_their_targets() -> None:
    """GPT-2 holds [inputs, outputs]; of two tensor ranks each has half of the 2,304 outputs in B."""
    asked = Training(
        framework="peft", method="lora", adapter=AdapterAsked(rank=8, targets=("c_attn",)), sequence_tokens=64
    )
    (rank,) = estimate_training(read_model("openai-community/gpt2"), asked, Plan(tp=2)).breakdowns
    (size,) = (i.bytes for i in rank.items if i.name == "weights/adapters")
    assert 12 * 8 * (768 + 2304 // 2) * 4 == size


def test_names_that_exist_are_listed() -> None:
    """Targets that match nothing are refused with the names of the model's modules."""
    asked = Training(framework="peft", method="lora", adapter=AdapterAsked(targets=("attn.qqq",)))
    with pytest.raises(InvalidValueError, match="down_proj, embed_tokens, gate_proj"):
        trained(LLAMA, asked)


@pytest.mark.parametrize(("targets", "adapted"), [(("q_proj", "down_proj"), False), (("experts.down_proj",), True)])
def test_experts_in_one_parameter_are_named_by_their_path(targets: tuple[str, ...], *, adapted: bool) -> None:
    """Peft matches modules; what is a bare parameter (gpt-oss) is no target unless its path is given."""
    asked = Training(framework="peft", method="lora", adapter=AdapterAsked(rank=8, targets=targets))
    model = trained("openai/gpt-oss-20b", asked)
    named = {t.name for layer, _ in model.groups for t in layer.tensors if t.role is Role.ADAPTER}
    assert any("experts" in name for name in named) is adapted

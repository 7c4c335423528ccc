"""Cutting a model: identity, sums, and plans that cannot be."""

from __future__ import annotations

import pytest

from vramfit.errors import ImpossiblePlanError
from vramfit.memory.weights import weight_bytes
from vramfit.parallel import heads_per_rank, shards, stage_bounds
from vramfit.request import Plan
from vramfit.source import read_model
from vramfit.spec import Cut, ModelSpec, layer_groups

NAMES = (
    "meta-llama/Llama-3.1-8B",
    "Qwen/Qwen3-30B-A3B",
    "deepseek-ai/DeepSeek-V3",
    "google/gemma-2-27b-it",
    "openai/gpt-oss-120b",
)


def repeated_parameters(model: ModelSpec) -> int:
    """Parameters that every tensor rank holds whole."""
    layers = sum(n * t.num_parameters for x, n in layer_groups(model.layers) for t in x.tensors if t.cut is Cut.WHOLE)
    return layers + sum(t.num_parameters for t in (*model.embeddings, *model.head) if t.cut is Cut.WHOLE)


@pytest.mark.parametrize("name", NAMES)
def test_one_device_is_the_identity(name: str) -> None:
    """Tp = 1 and pp = 1 change nothing but leave out what a plain load leaves on disk."""
    model = read_model(name)
    (only,) = shards(model, Plan())
    assert model.layers == only.model.layers
    assert model.num_parameters == only.model.num_parameters


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tp", [2, 4])
def test_tensor_ranks_add_up_to_the_whole(name: str, tp: int) -> None:
    """All ranks together hold the model plus tp - 1 more copies of what is not divided."""
    model = read_model(name)
    (rank,) = shards(model, Plan(tp=tp))
    assert tp == rank.num_ranks
    assert model.num_parameters + (tp - 1) * repeated_parameters(model) == tp * rank.model.num_parameters


@pytest.mark.parametrize("pp", [2, 3, 7])
def test_stages_add_up_to_the_whole(pp: int) -> None:
    """Layers, embeddings and head each live on exactly one stage of an untied model."""
    model = read_model("meta-llama/Llama-3.1-8B")
    assert weight_bytes(model) == sum(s.num_ranks * weight_bytes(s.model) for s in shards(model, Plan(pp=pp)))


def test_tied_embeddings_are_held_by_both_end_stages() -> None:
    """The last stage needs the embedding as its output projection: one more matrix of 128,256 x 3,072."""
    model = read_model("meta-llama/Llama-3.2-3B")
    held = sum(s.num_ranks * s.model.num_parameters for s in shards(model, Plan(pp=2)))
    assert 128_256 * 3072 == held - model.num_parameters


def test_middle_stages_that_are_alike_are_one_shard() -> None:
    """32 layers over 4 stages: first, two alike in the middle, last."""
    ranks = shards(read_model("meta-llama/Llama-3.1-8B"), Plan(pp=4, tp=2))
    assert [2, 4, 2] == [s.num_ranks for s in ranks]
    assert ["stage 0", "stage 1, 2", "stage 3"] == [s.label for s in ranks]


def test_uneven_stages_spare_the_ends() -> None:
    """61 layers over 8 stages: five stages of 8 before the last, none of them first or last unless needed."""
    sizes = [end - start for start, end in stage_bounds(61, 8)]
    assert [7, 7, 8, 8, 8, 8, 8, 7] == sizes


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (Plan(tp=3), r"plan\.tp: 3 does not divide num_attention_heads \(32\).*try 2"),
        (Plan(pp=33), r"plan\.pp: 33: expected at most 32"),
        (Plan(tp=64), r"plan\.tp: 64 does not divide"),
    ],
)
def test_impossible_plans_are_refused(plan: Plan, message: str) -> None:
    """One error names the degree, the fact it breaks on and what would work."""
    with pytest.raises(ImpossiblePlanError, match=message):
        shards(read_model("meta-llama/Llama-3.1-8B"), plan)


def test_kv_heads_that_do_not_divide_are_refused() -> None:
    """Six ranks and four heads: neither divides the other."""
    with pytest.raises(ImpossiblePlanError, match=r"num_key_value_heads \(4\)"):
        heads_per_rank(4, 6)


def test_vocabulary_is_padded_up() -> None:
    """50,257 entries over 4 ranks: 12,565 each."""
    (rank,) = shards(read_model("openai-community/gpt2"), Plan(tp=4))
    assert 12_565 == rank.model.vocab_size == rank.model.embeddings[0].shape[0]


def test_layers_that_look_at_images_are_divided_too() -> None:
    """Keys and values of cross attention go by heads as those of self attention do: half of them on each of two."""
    model = read_model("meta-llama/Llama-3.2-11B-Vision-Instruct")
    (rank,) = shards(model, Plan(tp=2))
    halves = {
        (t.shape[0], whole.shape[0])
        for layer, cut in zip(model.layers, rank.model.layers, strict=True)
        for whole, t in zip(layer.tensors, cut.tensors, strict=True)
        if whole.cut is Cut.KEY_VALUE_HEADS
    }
    assert {(512, 1024)} == halves

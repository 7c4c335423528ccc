"""transformers' own models, built without memory, as the second witness of every family's count, names and windows."""

from __future__ import annotations

from math import prod
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from published_configs import GEMMA_3_4B, PUBLISHED, SIGLIP, Config
from vramfit.layer_kind import GroupedQuery
from vramfit.readers.hf_config import read_config
from vramfit.spec import ModelSpec, inventory

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.witness

CLASSES = {"gemma3": "Gemma3ForConditionalGeneration"}
"""Families whose class is not the one for causal language models."""
TOWER = ("vision_tower.", "vision_tower.vision_model.")
"""Version 5 has SigLIP's stack one level higher, and writes the old level only for models read from a file."""
NO_FIELDS = ("model_type", "architectures", "torch_dtype", "quantization_config")


def build(config: Config) -> Any:
    """Return transformers' model of a configuration, on a device without memory."""
    kind = config["model_type"]
    fields = {name: value for name, value in config.items() if name not in NO_FIELDS}
    theirs = transformers.AutoConfig.for_model(kind, **fields)
    named = config["architectures"][0] if kind == "bert" else CLASSES.get(kind)
    with torch.device("meta"):
        if named is not None:
            return getattr(transformers, named)(theirs)
        return transformers.AutoModelForCausalLM.from_config(theirs)


def saved(model: Any) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor that ``save_pretrained`` writes; a tied one is written once."""
    from transformers.core_model_loading import revert_weight_conversion

    state = dict(model.state_dict())
    for name in model.all_tied_weights_keys:
        state.pop(name, None)
    written = {name: tuple(tensor.shape) for name, tensor in revert_weight_conversion(model, state).items()}
    return {name.replace(*TOWER): shape for name, shape in written.items()}


def implied(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor that our specification implies."""
    return {t.name: t.shape for t in inventory(spec)}


def windows(model: Any) -> list[int | None]:
    """Return the window of each layer: its attention's own, or the configuration's where all layers share one."""
    text = model.config.get_text_config()
    stack = model.model.language_model if hasattr(model.model, "language_model") else model.model
    shared = getattr(text, "sliding_window", None)
    return [getattr(layer.self_attn, "sliding_window", shared) for layer in stack.layers]


def our_windows(spec: ModelSpec) -> list[int | None]:
    """Return the window of each layer of ours."""
    found = [layer.attention for layer in spec.layers]
    assert all(isinstance(a, GroupedQuery) for a in found)
    return [a.window_tokens for a in found if isinstance(a, GroupedQuery)]


@pytest.mark.parametrize("name", PUBLISHED)
def test_count_of_a_published_model_is_transformers_count(name: str) -> None:
    """The full-size model has as many parameters in transformers as in our specification, to the unit."""
    config, _ = PUBLISHED[name]
    model = build(config)
    assert sum(p.numel() for p in model.parameters()) == read_config(config, name).num_parameters


@pytest.mark.parametrize(
    "name", [n for n, (c, _) in PUBLISHED.items() if c["model_type"] != "qwen3_moe" and "405B" not in n]
)
def test_names_and_shapes_of_a_published_model_are_those_saved(name: str) -> None:
    """Every tensor that transformers would write is implied under that name and shape, and no other."""
    config, _ = PUBLISHED[name]
    assert saved(build(config)) == implied(read_config(config, name))


@st.composite
def tiny(draw: st.DrawFn, kind: str) -> Config:
    """Draw a small configuration with odd values: one KV head, odd widths, biases, tied or not."""
    kv = draw(st.sampled_from([1, 2, 3]))
    heads = kv * draw(st.sampled_from([1, 2, 4]))
    config = {
        "model_type": kind,
        "hidden_size": heads * 2 * draw(st.integers(1, 5)),
        "num_hidden_layers": draw(st.integers(1, 5)),
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "intermediate_size": draw(st.integers(1, 37)),
        "vocab_size": draw(st.integers(3, 101)),
        "tie_word_embeddings": draw(st.booleans()),
        "torch_dtype": "bfloat16",
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if draw(st.booleans()):
        config["head_dim"] = 2 * draw(st.integers(1, 9))
    return {**config, **draw(FIELDS[kind])}


WINDOW = st.one_of(st.none(), st.integers(1, 64))
FIELDS: dict[str, st.SearchStrategy[Config]] = {
    "llama": st.fixed_dictionaries({"attention_bias": st.booleans(), "mlp_bias": st.booleans()}),
    "mistral": st.fixed_dictionaries({}, optional={"sliding_window": WINDOW}),
    "mixtral": st.fixed_dictionaries(
        {"num_local_experts": st.integers(2, 5), "num_experts_per_tok": st.integers(1, 2)},
        optional={"sliding_window": WINDOW},
    ),
    "qwen2": st.fixed_dictionaries(
        {},
        optional={
            "use_sliding_window": st.booleans(),
            "sliding_window": WINDOW,
            "max_window_layers": st.integers(0, 6),
        },
    ),
    "qwen3": st.fixed_dictionaries(
        {"attention_bias": st.booleans()},
        optional={
            "use_sliding_window": st.booleans(),
            "sliding_window": WINDOW,
            "max_window_layers": st.integers(0, 6),
        },
    ),
    "qwen3_moe": st.fixed_dictionaries(
        {
            "attention_bias": st.booleans(),
            "num_experts": st.integers(2, 5),
            "num_experts_per_tok": st.integers(1, 2),
            "moe_intermediate_size": st.integers(1, 9),
        },
        optional={
            "use_sliding_window": st.booleans(),
            "sliding_window": WINDOW,
            "decoder_sparse_step": st.integers(1, 3),
            "mlp_only_layers": st.lists(st.integers(0, 4), unique=True),
        },
    ),
    "gemma2": st.fixed_dictionaries({"attention_bias": st.booleans()}, optional={"sliding_window": st.integers(1, 64)}),
    "gemma3_text": st.fixed_dictionaries(
        {"attention_bias": st.booleans()},
        optional={"sliding_window": st.integers(1, 64), "sliding_window_pattern": st.integers(1, 4)},
    ),
    "phi3": st.fixed_dictionaries({}, optional={"sliding_window": WINDOW}),
}


@pytest.mark.parametrize("kind", FIELDS)
@settings(max_examples=12)
@given(data=st.data())
def test_odd_small_models_are_read_as_transformers_builds_them(kind: str, data: st.DataObject) -> None:
    """Count, names, shapes and windows agree for any small configuration of the family."""
    config = data.draw(tiny(kind))
    if kind == "phi3":
        config.pop("head_dim", None)  # transformers checks the rotary width against hidden size over heads
    model, spec = build(config), read_config(config, "tiny")
    assert sum(p.numel() for p in model.parameters()) == spec.num_parameters
    assert saved(model) == implied(spec)
    assert windows(model) == our_windows(spec)


@pytest.mark.parametrize("vision_use_head", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_a_small_gemma_3_with_its_vision_tower(vision_use_head: bool, tied: bool) -> None:
    """Tower, pooling head, projector and language model agree with transformers, name for name."""
    config = {
        **GEMMA_3_4B,
        "tie_word_embeddings": tied,
        "mm_tokens_per_image": 4,
        "text_config": {
            "hidden_size": 24, "intermediate_size": 7, "num_hidden_layers": 7, "num_attention_heads": 4,
            "num_key_value_heads": 1, "head_dim": 10, "vocab_size": 101, "sliding_window": 5,
            "tie_word_embeddings": tied, "pad_token_id": 0,
        },
        "vision_config": {
            **SIGLIP, "hidden_size": 12, "intermediate_size": 5, "num_attention_heads": 3, "num_hidden_layers": 2,
            "image_size": 30, "patch_size": 7, "vision_use_head": vision_use_head,
        },
    }  # fmt: skip
    model, spec = build(config), read_config(config, "tiny")
    assert sum(p.numel() for p in model.parameters()) == spec.num_parameters
    assert saved(model) == implied(spec)
    assert windows(model) == our_windows(spec) == [5, 5, 5, 5, 5, None, 5]


@settings(max_examples=12)
@given(
    heads=st.integers(1, 4),
    dim=st.integers(1, 5),
    layers=st.integers(1, 3),
    inner=st.one_of(st.none(), st.integers(1, 40)),
    tied=st.booleans(),
)
def test_small_gpt2(heads: int, dim: int, layers: int, inner: int | None, tied: bool) -> None:
    """GPT-2's matrices lie [inputs, outputs], four times as wide inside unless n_inner says another."""
    config = {
        "model_type": "gpt2", "n_embd": heads * dim, "n_head": heads, "n_layer": layers, "n_positions": 11,
        "vocab_size": 51, "n_inner": inner, "tie_word_embeddings": tied, "torch_dtype": "float32",
    }  # fmt: skip
    model, spec = build(config), read_config(config, "tiny")
    assert sum(p.numel() for p in model.parameters()) == spec.num_parameters
    assert saved(model) == implied(spec)


@pytest.mark.parametrize("named", ["BertModel", "BertForMaskedLM", "BertForSequenceClassification"])
@pytest.mark.parametrize("labels", [None, 5])
def test_small_bert(named: str, labels: int | None) -> None:
    """What stands on the encoder follows ``architectures``; a classifier has as many rows as labels."""
    config = {
        "model_type": "bert", "architectures": [named], "hidden_size": 12, "num_hidden_layers": 2,
        "num_attention_heads": 3, "intermediate_size": 7, "vocab_size": 31, "max_position_embeddings": 9,
        "type_vocab_size": 1,
    }  # fmt: skip
    if labels is not None:
        config["id2label"] = {str(i): f"label {i}" for i in range(labels)}
    model, spec = build(config), read_config(config, "tiny")
    assert sum(p.numel() for p in model.parameters()) == spec.num_parameters
    assert saved(model) == implied(spec)


def test_experts_of_the_large_mixture_are_saved_one_by_one() -> None:
    """Three matrices for each of 128 experts in each of Qwen3-235B's 94 layers, under the names of the file."""
    spec = read_config(PUBLISHED["Qwen3 235B A22B"][0], "Qwen3 235B A22B")
    experts = {name: shape for name, shape in implied(spec).items() if ".experts." in name}
    assert 94 * 128 * 3 == len(experts)
    assert (1536, 4096) == experts["model.layers.93.mlp.experts.127.gate_proj.weight"]
    assert sum(map(prod, implied(spec).values())) == spec.num_parameters

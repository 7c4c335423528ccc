"""Every architecture that llama.cpp names: read by the keys of its metadata, or refused by name."""

from __future__ import annotations

import re
from math import prod
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vramfit.errors import UnsupportedModelError, VramfitError
from vramfit.estimate import estimate
from vramfit.formats import GGUF_TYPES
from vramfit.layer_kind import (
    Attention,
    CrossAttention,
    Experts,
    GroupedQuery,
    Latent,
    LinearAttention,
    Recurrence,
    ShortConvolution,
    StateSpace,
)
from vramfit.memory.recurrent_state import carried_elements, state_elements
from vramfit.readers.gguf import TYPES, GgufHeader
from vramfit.readers.gguf_architectures import CACHELESS, ENCODERS, READ, UNREAD
from vramfit.readers.gguf_model import read_gguf, with_projector
from vramfit.readers.safetensors import Checkpoint, StoredTensor
from vramfit.request import Inference
from vramfit.spec import ModelSpec, inventory

gguf = pytest.importorskip("gguf")
pytestmark = pytest.mark.witness

HIDDEN, HEADS, KV, DIM = 64, 4, 2, 24
KEYS: dict[str, Any] = {
    "block_count": 2, "context_length": 4096, "embedding_length": HIDDEN, "attention.head_count": HEADS,
    "attention.head_count_kv": KV, "attention.key_length": DIM, "attention.value_length": 20, "rope.dimension_count": 8,
    "attention.kv_lora_rank": 40, "expert_used_count": 2, "ssm.inner_size": 128, "ssm.state_size": 12,
    "ssm.conv_kernel": 4, "ssm.time_step_rank": 8, "ssm.group_count": 2, "wkv.head_size": 16, "kda.head_dim": 24,
    "shortconv.l_cache": 3,
}  # fmt: skip
"""Keys of every architecture at once: each takes those that it knows."""
OTHER_KEYS = (
    "attention.key_length_mla", "attention.value_length_mla", "attention.sliding_window", "attention.chunk_size",
    "attention.sliding_window_pattern", "attention.shared_kv_layers", "attention.key_length_swa", "attention.causal",
    "attention.q_lora_rank", "attention.indexer.key_length", "nextn_predict_layers", "token_shift_count",
)  # fmt: skip
"""Keys that mean something to some of them."""
RECURRENT = re.compile(r"^(ssm_|shortconv|time_mix)")
RECURRENT_ONLY = {"rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7", "mamba", "mamba2"}
ATTENTION = re.compile(r"^(attn_(q|k|v|qkv|kv|output))")


def shape_of(name: str) -> tuple[int, ...]:
    """Return a shape for a tensor of this name, as ``[outputs, inputs]``."""
    known = {
        r"token_embd$|^output$": (101, HIDDEN),
        r"_exps$|_chexps$": (6, HIDDEN, 32) if "down" in name else (6, 32, HIDDEN),
        r"ffn_down|channel_mix_value": (HIDDEN, 96),
        r"ffn_(up|gate)|channel_mix_key": (96, HIDDEN),
        r"norm": (HIDDEN,),
        r"cross_attn_k$": (HEADS * DIM, HIDDEN),
    }
    return next((shape for pattern, shape in known.items() if re.search(pattern, name)), (HIDDEN, HIDDEN))


def stored(name: str, shape: tuple[int, ...]) -> StoredTensor:
    """Return a tensor in F16."""
    return StoredTensor(name=name, dtype="F16", shape=shape, num_bytes=2 * prod(shape))


def tensors_of(arch: str) -> list[StoredTensor]:
    """Return the tensors that the reference package lists; the first block recurrent, the second attending."""
    number = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == arch)
    names = [gguf.TENSOR_NAMES[key] for key in gguf.MODEL_TENSORS[number]]
    states = any(RECURRENT.match(name.rpartition(".{bid}.")[2]) for name in names)
    found: dict[str, StoredTensor] = {}
    for pattern in names:
        for i in range(2 if "{bid}" in pattern else 1):
            rest = pattern.rpartition(".{bid}.")[2]
            only = arch not in {"falcon-h1", "kimi-linear"} and states
            if only and ((i == 1 and RECURRENT.match(rest)) or (i == 0 and ATTENTION.match(rest))):
                continue
            if arch == "kimi-linear" and ((i == 1 and RECURRENT.match(rest)) or (i == 0 and "_kv_" in rest)):
                continue
            full = f"{pattern.replace('{bid}', str(i))}.weight"
            found[full] = stored(full, shape_of(pattern))
    return list(found.values())


def read(arch: str, keys: dict[str, Any], tensors: list[StoredTensor]) -> ModelSpec:
    """Read a model of hand-made metadata and tensors."""
    metadata = {"general.architecture": arch, **{f"{arch}.{key}": value for key, value in keys.items()}}
    header = GgufHeader(metadata=metadata, tensors=tuple(tensors))
    return read_gguf(header, Checkpoint(where="m.gguf", tensors=header.tensors))


def test_every_architecture_of_the_reference_is_known() -> None:
    """Those that are read and those that are refused are together the 126 that gguf 0.19.0 names."""
    assert set(gguf.MODEL_ARCH_NAMES.values()) == READ | set(UNREAD)


def test_every_tensor_type_of_the_reference_is_known() -> None:
    """Number, name, elements of a block and bytes of a block.

    Q8_1, which no file holds, has 36 bytes in ggml-org/llama.cpp:ggml/src/ggml-common.h (two halves and 32 codes); the
    package still has the 40 of two floats.
    """
    theirs = {int(kind): kind.name for kind in gguf.GGMLQuantizationType}
    assert theirs == TYPES
    for kind, (elements, size) in gguf.GGML_QUANT_SIZES.items():
        ours = GGUF_TYPES[kind.name]
        if kind.name == "Q8_1":
            continue
        assert (elements, size) == (ours.block_elements, ours.block_bytes)


@pytest.mark.parametrize("arch", sorted(READ))
def test_every_architecture_is_read_by_its_keys(arch: str) -> None:
    """Attention with the widths of the metadata, a recurrence where its tensors are, and not one parameter lost."""
    tensors = tensors_of(arch)
    spec = read(arch, KEYS, tensors)
    assert sum(prod(t.shape) for t in tensors) == sum(t.num_parameters for t in inventory(spec))
    assert (arch not in ENCODERS) == spec.generates
    assert 2 == len(spec.layers)
    last = spec.layers[1].attention
    if arch in RECURRENT_ONLY:
        assert isinstance(spec.layers[0].attention, StateSpace | Recurrence)
        return
    assert isinstance(last, GroupedQuery)
    expected = (HEADS, KV, DIM, 20, arch not in ENCODERS | CACHELESS)
    assert expected == (
        last.num_attention_heads, last.num_key_value_heads, last.head_dim, last.v_head_dim, last.causal
    )  # fmt: skip
    if any("_exps" in t.name for t in tensors):
        assert isinstance(spec.layers[1].feed_forward, Experts)
        assert spec.num_active_parameters < spec.num_parameters


@pytest.mark.parametrize("arch", [*UNREAD, "qwen9", "deepseek9"])
def test_every_other_architecture_is_refused_by_name(arch: str) -> None:
    """Its windows and states would be a guess."""
    with pytest.raises(UnsupportedModelError, match=f"general.architecture: '{arch}'"):
        read(arch, KEYS, [stored("blk.0.attn_q.weight", (HIDDEN, HIDDEN))])


def mixer(arch: str, keys: dict[str, Any], *names: str, layer: int = 0) -> Attention | None:
    """Return the mixer of one block with tensors of these names."""
    blocks = [stored(f"blk.{layer}.{name}", (HIDDEN, HIDDEN)) for name in names]
    before = [stored(f"blk.{i}.attn_norm.weight", (HIDDEN,)) for i in range(layer)]
    return read(arch, {**KEYS, **keys}, [*before, *blocks]).layers[layer].attention


def test_latent_attention_keeps_whole_keys_in_files_of_before_its_own_keys() -> None:
    """With key_length_mla 512 + 64 elements; without, as llama.cpp does, every head's key and value."""
    sizes = {"attention.head_count": 16, "attention.head_count_kv": 16, "attention.key_length": 192,
             "attention.value_length": 128, "attention.kv_lora_rank": 512, "rope.dimension_count": 64}  # fmt: skip
    names = ("attn_q.weight", "attn_kv_a_mqa.weight", "attn_kv_b.weight")
    old = mixer("deepseek2", sizes, *names)
    assert GroupedQuery(num_attention_heads=16, num_key_value_heads=16, head_dim=192, v_head_dim=128) == old
    new = mixer("deepseek2", {**sizes, "attention.key_length_mla": 192, "attention.value_length_mla": 128}, *names)
    assert isinstance(new, Latent)
    assert (512, 64, 128) == (new.kv_lora_rank, new.qk_rope_head_dim, new.qk_nope_head_dim)


def test_kimi_delta_attention_keeps_a_matrix_per_head() -> None:
    """Kimi Linear 48B: 32 heads of 128 x 128 = 524,288 elements, and 3 x 4,096 channels through its convolutions."""
    keys = {"attention.head_count": 32, "kda.head_dim": 128}
    facts = mixer("kimi-linear", keys, "attn_q.weight", "ssm_f_a.weight", "ssm_conv1d_q.weight")
    assert isinstance(facts, LinearAttention)
    assert 524_288 == state_elements(facts)
    assert 3 * 4096 * 4 == carried_elements(facts)


def test_rwkv_keeps_a_matrix_per_head_and_two_earlier_inputs() -> None:
    """RWKV-7 2.9B: 2,560 x 64 elements of state; 2 x 2,560 of the token before, one in hybrids that say so."""
    keys = {"embedding_length": 2560, "wkv.head_size": 64}
    facts = mixer("rwkv7", keys, "time_mix_key.weight")
    assert isinstance(facts, Recurrence)
    assert (2560 * 64, 2 * 2560) == (state_elements(facts), carried_elements(facts))
    facts = mixer("arwkv7", {**keys, "token_shift_count": 1}, "time_mix_key.weight")
    assert isinstance(facts, Recurrence)
    assert 2560 == carried_elements(facts)


def test_short_convolutions_keep_their_inputs_only() -> None:
    """LFM2 1.2B: 3 inputs of 2,048 channels, no other state."""
    facts = mixer("lfm2", {"embedding_length": 2048}, "shortconv.conv.weight", "shortconv.in_proj.weight")
    assert isinstance(facts, ShortConvolution)
    assert (0, 3 * 2048) == (state_elements(facts), carried_elements(facts))


@pytest.mark.parametrize(
    ("arch", "keys", "expected"),
    [
        ("gemma2", {}, [4096, None]),
        ("llama4", {}, [8192, 8192]),
        ("llama4", {"attention.sliding_window": 0}, [None, None]),
        ("exaone-moe", {}, [128, 128]),
        ("exaone4", {}, [None, None]),
        ("gemma3", {"attention.sliding_window": 512, "attention.sliding_window_pattern": 2}, [512, None]),
        ("olmo2", {"attention.sliding_window": 512, "attention.sliding_window_pattern": 0}, [512, 512]),
        ("gemma4", {"attention.sliding_window": 64, "attention.sliding_window_pattern": (False, True)}, [None, 64]),
        ("qwen2", {"attention.sliding_window": 64}, [None, None]),
    ],
)
def test_windows_that_only_the_code_knows(arch: str, keys: dict[str, Any], expected: list[int | None]) -> None:
    """Defaults of llama.cpp where the metadata are silent; a period of 0 slides everywhere."""
    assert expected == [
        facts.window_tokens
        for layer in (0, 1)
        if isinstance(facts := mixer(arch, keys, "attn_q.weight", layer=layer), GroupedQuery)
    ]


def test_sliding_layers_may_have_heads_of_another_width() -> None:
    """Gemma 4: 256 in sliding layers, 512 in full ones; the last layers read earlier caches."""
    keys = {"attention.sliding_window": 64, "attention.sliding_window_pattern": (True, False),
            "attention.key_length": 512, "attention.value_length": 512, "attention.key_length_swa": 256,
            "attention.value_length_swa": 256, "attention.shared_kv_layers": 1,
            "attention.head_count_kv": (4, 2)}  # fmt: skip
    first, last = (mixer("gemma4", keys, "attn_q.weight", layer=layer) for layer in (0, 1))
    assert GroupedQuery(num_attention_heads=4, num_key_value_heads=4, head_dim=256, window_tokens=64) == first
    assert GroupedQuery(num_attention_heads=4, num_key_value_heads=2, head_dim=512, shares_cache=True) == last


def test_an_encoder_beside_its_decoder() -> None:
    """T5: the decoder's blocks attend to the encoder's output; the encoder is a part that keeps nothing."""
    spec = read("t5", KEYS, tensors_of("t5"))
    assert CrossAttention(num_attention_heads=HEADS, num_key_value_heads=HEADS, head_dim=DIM) == spec.layers[0].beside
    (encoder,) = spec.parts
    assert encoder.layers[0].attention == GroupedQuery(
        num_attention_heads=HEADS, num_key_value_heads=KV, head_dim=DIM, v_head_dim=20, causal=False
    )


def test_a_projector_stands_beside_the_model() -> None:
    """Its towers become parts with their own attention; every parameter is counted once, and none cached."""
    spec = read("llama", KEYS, tensors_of("llama"))
    tensors = [
        *(stored(f"v.blk.{i}.{n}.weight", shape_of(n)) for i in (0, 1) for n in ("attn_q", "ffn_up", "ffn_down")),
        stored("a.blk.0.attn_q.weight", (48, 48)),
        stored("mm.0.weight", (HIDDEN, 48)),
        stored("v.patch_embd.weight", (48, 3, 14, 14)),
    ]
    metadata: dict[str, Any] = {
        "general.architecture": "clip",
        "clip.vision.attention.head_count": 6,
        "clip.vision.embedding_length": 48,
    }
    header = GgufHeader(metadata=metadata, tensors=tuple(tensors))
    seen = with_projector(spec, header, Checkpoint(where="mmproj.gguf", tensors=header.tensors))
    assert ["vision_tower", "audio_tower", "projector"] == [part.name for part in seen.parts]
    assert seen.num_parameters == spec.num_parameters + sum(prod(t.shape) for t in tensors)
    facts = seen.parts[0].layers[0].attention
    assert GroupedQuery(num_attention_heads=6, num_key_value_heads=6, head_dim=8, causal=False) == facts
    with pytest.raises(UnsupportedModelError, match="expected 'clip'"):
        with_projector(
            spec, GgufHeader(metadata={"general.architecture": "llama"}, tensors=()), Checkpoint(where="x", tensors=())
        )


VALUES: tuple[Any, ...] = (
    None,
    0,
    1,
    3,
    7,
    -1,
    2**33,
    True,
    False,
    1.5,
    "x",
    (),
    (0,),
    (1, 0),
    (2, 3, 4),
    (True, False),
)
KEY_NAMES = sorted({*KEYS, *OTHER_KEYS})


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_mutated_metadata_end_in_a_value_or_our_error(data: st.DataObject) -> None:
    """Any keys, any shapes, any architecture: a model that can be estimated, or one of our errors."""
    arch = data.draw(st.sampled_from(sorted(READ)))
    keys = {**KEYS, **data.draw(st.dictionaries(st.sampled_from(KEY_NAMES), st.sampled_from(VALUES), max_size=4))}
    tensors = tensors_of(arch)
    for _ in range(data.draw(st.integers(0, 3))):
        i = data.draw(st.integers(0, len(tensors) - 1))
        shape = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
        tensors[i] = stored(tensors[i].name, tuple(shape))
    try:
        spec = read(arch, {key: value for key, value in keys.items() if value is not None}, tensors)
        estimate(spec, Inference(context_tokens=64))
    except VramfitError:
        return

"""T5, NLLB and BART: what is counted, what the prompt costs, and where the answer's cache begins."""

from __future__ import annotations

from typing import Any

from vramfit.estimate import estimate
from vramfit.parallel import shards
from vramfit.readers.hf_config import read_config
from vramfit.request import Inference, Plan
from vramfit.result import Estimate

FLAN_BASE = {
    "model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "d_model": 768, "d_kv": 64, "d_ff": 2048,
    "num_layers": 12, "num_decoder_layers": 12, "num_heads": 12, "vocab_size": 32_128, "n_positions": 512,
    "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
XXL = {**FLAN_BASE, "d_model": 4096, "d_ff": 10_240, "num_layers": 24, "num_decoder_layers": 24, "num_heads": 64}


def item(need: Estimate, name: str) -> int:
    """Return the bytes of all items of one name."""
    found = [i.bytes for i in need.breakdowns[0].items if i.name == name]
    return sum(int(b) for b in found)


def test_flan_t5_base_has_247_million_parameters() -> None:
    """Tables of 32,128 x 768 for tokens and for logits, 12 x 7,079,424 read, 12 x 9,439,488 write, distances, norms.

    A block that reads: 4 x 768 x 768 + 3 x 768 x 2,048 and two norms; one that writes 4 x 768 x 768 and a norm more.
    """
    read, write = 7_077_888 + 2 * 768, 9_437_184 + 3 * 768
    assert 2 * 32_128 * 768 + 12 * (read + write) + 2 * (32 * 12 + 768) == 247_577_856
    assert 247_577_856 == read_config(FLAN_BASE, "Flan-T5 base").num_parameters


def test_the_encoder_of_t5_xxl_alone() -> None:
    """4,762,310,656 parameters: the text encoder of SD 3 and FLUX.1; nothing is generated, nothing cached."""
    spec = read_config({**XXL, "architectures": ["T5EncoderModel"]}, "T5 XXL")
    assert 4_762_310_656 == spec.num_parameters
    assert (spec.generates, spec.parts) == (False, ())


def test_the_prompt_is_cached_by_cross_attention_only() -> None:
    """500 tokens read, 100 written by 24 layers of 64 heads of 64 in bf16: 16,384 B a token and layer.

    Self attention keeps the 100 and the token that starts them; what the encoder made of the prompt is kept too.
    """
    need = estimate(read_config(XXL, "T5 XXL"), Inference(prompt_tokens=500, new_tokens=100, batch=3))
    assert 3 * 24 * 16_384 * 101 == item(need, "kv_cache/full_attention")
    assert 3 * 24 * 16_384 * 500 == item(need, "kv_cache/cross_attention")
    assert 3 * 500 * 4096 * 2 == item(need, "activations/encoded_prompt")
    assert 3 * 1 * 4096 * 2 == item(need, "activations/last_hidden")


def test_the_widest_place_of_prefill_is_the_encoder() -> None:
    """All 1,500 prompt tokens pass the encoder: 4 x 4,096 + 3 x 10,240 elements of 2 B each."""
    need = estimate(read_config(XXL, "T5 XXL"), Inference(prompt_tokens=500, new_tokens=100, batch=3))
    assert 1500 * (4 * 4096 + 3 * 10_240) * 2 == item(need, "activations/prefill")


def test_two_ranks_hold_half_of_the_encoder() -> None:
    """All but norms, and halves of the tables: distances are cut by heads, tokens by the vocabulary."""
    spec = read_config(XXL, "T5 XXL")
    half = shards(spec, Plan(tp=2))[0].model
    norms = (24 * 2 + 24 * 3 + 2) * 4096
    assert (spec.num_parameters - norms) // 2 + norms == half.num_parameters


def test_only_the_first_stage_holds_the_encoder() -> None:
    """Two stages: the second has half of the layers that write, their norm and the logits' matrix."""
    first, second = (shard.model for shard in shards(read_config(XXL, "T5 XXL"), Plan(pp=2)))
    assert [part.name for part in first.parts] == ["encoder"]
    assert second.parts == ()
    assert second.encodes_prompt


def test_the_block_that_all_layers_share_is_on_every_stage() -> None:
    """ALBERT base in two stages: each holds the block of 7,087,872 parameters once, and runs it six times."""
    config: dict[str, Any] = {
        "model_type": "albert", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
        "intermediate_size": 3072, "vocab_size": 30_000,
    }  # fmt: skip
    for shard in shards(read_config(config, "ALBERT"), Plan(pp=2)):
        assert 6 == len(shard.model.layers)
        assert 7_087_872 == sum(layer.num_parameters for layer in shard.model.layers)

"""Every family that the catalogue knows can be walked, and the laws of recomputation hold for each."""

from __future__ import annotations

import pytest

from vramfit.block_style import BlockStyle
from vramfit.catalogue.model import all_models
from vramfit.errors import UnsupportedModelError, VramfitError
from vramfit.layer_kind import Experts
from vramfit.memory.tape.cost import step_cost
from vramfit.parallel import shards
from vramfit.readers.hf_config import read_config
from vramfit.request import Plan
from vramfit.shard import Shard
from vramfit.source import read_model
from vramfit.training import Training

TOKENS = 256


def one_of_each_family() -> dict[str, Shard]:
    """Return the first catalogued model of every family, on one device."""
    found: dict[str, Shard] = {}
    for row in all_models():
        model = read_model(row.name)
        if model.components or model.family in found:
            continue
        (found[model.family],) = shards(model, Plan())
    return found


FAMILIES = one_of_each_family()


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "resnet"])
def test_recomputation_never_keeps_more(family: str) -> None:
    """With full recomputation blocks keep at most what they keep without, and nothing runs backward for less."""
    shard = FAMILIES[family]
    none, full = (
        step_cost(
            shard,
            Training(sequence_tokens=TOKENS, precision="bf16", recompute=recompute, attention="sdpa", loss="fp32"),
            BlockStyle(),
        )
        for recompute in ("none", "full")
    )
    kept = [sum(count * block.kept_bytes for block, count in cost.blocks) for cost in (none, full)]
    hidden = TOKENS * shard.model.hidden_size * 2
    assert kept[1] <= kept[0] + hidden * len(shard.model.layers)
    assert all(block.backward_bytes >= block.output_bytes for block, _ in none.blocks)


def test_a_model_without_tokens_is_refused() -> None:
    """Stages of convolutions are no blocks over tokens: the error names what does run them."""
    with pytest.raises(UnsupportedModelError, match="vramfit trace"):
        step_cost(FAMILIES["resnet"], Training(sequence_tokens=TOKENS), BlockStyle())
    assert issubclass(UnsupportedModelError, VramfitError)


def kept(family: str, recompute: str, style: BlockStyle) -> int:
    """Bytes that all blocks of a family's first model keep."""
    training = Training(sequence_tokens=TOKENS, precision="bf16", recompute=recompute, loss="fp32")
    return sum(count * block.kept_bytes for block, count in step_cost(FAMILIES[family], training, style).blocks)


def test_outputs_of_experts_weighed_in_fp32_are_kept_twice_as_wide() -> None:
    """An fp32 copy of each output in place of the 16-bit one; Llama 4 weighs inputs and keeps theirs beside them."""
    model = FAMILIES["deepseek_v3"].model
    routed = [layer.feed_forward for layer in model.layers if isinstance(layer.feed_forward, Experts)]
    rows = TOKENS * sum(one.num_experts_per_tok for one in routed)
    found = [kept("deepseek_v3", "none", BlockStyle(weighs_wide=wide, fp32_router=True)) for wide in (True, False)]
    assert found[0] - found[1] == 2 * rows * model.hidden_size


MIXTURE = {
    "model_type": "deepseek_v3", "hidden_size": 64, "intermediate_size": 128, "moe_intermediate_size": 32,
    "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 4, "n_routed_experts": 8,
    "n_shared_experts": 2, "num_experts_per_tok": 2, "first_k_dense_replace": 1, "moe_layer_freq": 1,
    "q_lora_rank": None, "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16,
    "vocab_size": 640, "num_nextn_predict_layers": 0, "tie_word_embeddings": False,
}  # fmt: skip


def test_selective_recomputation_neither_counts_nor_keeps_routers() -> None:
    """Of query, latent down, latent up, output, gate, up and down the first, third, fifth and seventh are kept."""
    (shard,) = shards(read_config(MIXTURE, "small"), Plan())
    training = Training(sequence_tokens=TOKENS, precision="bf16", recompute="selective", loss="fp32")
    style = BlockStyle(selects_operators=True, weighs_wide=True)
    block = step_cost(shard, training, style).blocks[-1][0]
    products = 4 * (16 + 8) + 4 * (16 + 16) + 2 * 32 + 64
    kernel = 4 * (2 * 16 + 4)
    assert dict(block.kept)["attention"] + dict(block.kept)["network"] == TOKENS * (2 * products + kernel)

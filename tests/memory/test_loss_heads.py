"""What the end of a model takes by framework, in bytes per logit, derived from the sources by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from vramfit.block_style import BlockStyle
from vramfit.formats import Role
from vramfit.memory.tape.cost import step_cost
from vramfit.parallel import shards
from vramfit.readers.hf_config import read_config
from vramfit.request import Plan
from vramfit.step import BlockStep
from vramfit.training import AdapterAsked, Training
from vramfit.training_choices import decide
from vramfit.training_model import as_trained

VOCABULARY, TOKENS = 1_000_000, 64
"""A vocabulary so large that all but logits is small."""
CONFIG = {
    "model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 4,
    "intermediate_size": 128, "num_hidden_layers": 1, "vocab_size": VOCABULARY, "tie_word_embeddings": False,
}  # fmt: skip


def head(style: BlockStyle, **workload: Any) -> BlockStep:
    """Return the end of a model in bf16 whose output projection is made in place of its buffer."""
    (shard,) = shards(read_config(CONFIG, "wide"), Plan())
    found = step_cost(shard, Training(sequence_tokens=TOKENS, precision="bf16", **workload), style).head
    assert found is not None
    return found


def per_logit(size: int) -> float:
    """Bytes of each logit."""
    return size / (TOKENS * VOCABULARY)


@pytest.mark.parametrize(
    ("style", "loss", "forward", "backward"),
    [
        # logits 2, fp32 copy 4, log-probabilities 4; backward: those 4, their gradient 4, the logits' 4, logits 2
        (BlockStyle(), "fp32", 10, 14),
        (BlockStyle(holds_logits=False), "fp32", 10, 12),
        # fp32 logits held 4, log-probabilities 4, two gradients of 4
        (BlockStyle(returns_fp32=True), "fp32", 8, 16),
        # fp32 logits 4, their copy 4, log-probabilities 4
        (BlockStyle(returns_fp32=True, shifts_logits=True, holds_logits=False), "fp32", 12, 12),
        # torchtitan's compiled loss: logits 2, then their gradient 2 beside them
        (BlockStyle(compiles_loss=True, holds_logits=False), "fused", 2, 4),
        # Megatron: logits 2 and their fp32 copy, in which all is done; then its cast to 16 bit
        (BlockStyle(loss_in_place=True, holds_logits=False), "fp32", 6, 6),
        (BlockStyle(loss_in_place=True, holds_logits=False), "fused", 6, 6),
        # Transformer Engine: nothing but the logits
        (BlockStyle(loss_in_place=True, fused_loss_overwrites=True, holds_logits=False), "fused", 2, 2),
    ],
)
def test_losses_take_so_many_bytes_per_logit(style: BlockStyle, loss: str, forward: float, backward: float) -> None:
    """Peaks of the head's own passes; the gradient of its matrix goes into a buffer that is there already."""
    found = head(BlockStyle(**{**_fields(style), "fused_weight_gradients": True}), loss=loss)
    assert forward == pytest.approx(per_logit(found.forward_bytes), abs=0.01)
    assert backward == pytest.approx(per_logit(found.backward_bytes), abs=0.01)


@pytest.mark.parametrize(("casts", "kept"), [(True, 6), (False, 4)])
def test_chunks_keep_all_logits_and_their_probabilities(casts: bool, kept: float) -> None:
    """Logits 2; log-probabilities 4 where a chunk is cast first (torchtune), 2 where it is not (LitGPT)."""
    style = BlockStyle(casts_chunks=casts, fused_weight_gradients=True)
    found = head(style, loss="chunked", loss_chunk_tokens=TOKENS // 64)
    assert kept == pytest.approx(per_logit(found.forward_bytes), abs=0.15)


def test_compiled_chunks_keep_logits_only() -> None:
    """Logits 2 of all chunks, as torchtune compiles its loss."""
    found = head(BlockStyle(fused_weight_gradients=True), loss="chunked", loss_chunk_tokens=8, compile=True)
    assert pytest.approx(2, abs=0.15) == per_logit(found.forward_bytes)


def test_a_divided_loss_takes_two_more_copies_of_the_rank_s_logits() -> None:
    """Logits 2, in fp32 4, less the largest 4, probabilities 4; backward: those, zeros, powers and sums, 4 each."""
    style = BlockStyle(divided_loss=True, holds_logits=False, fused_weight_gradients=True)
    (shard,) = shards(read_config(CONFIG, "wide"), Plan())
    divided = replace(shard, tensor_ranks=2, sequence_parallel=True)
    found = step_cost(divided, Training(sequence_tokens=TOKENS, precision="bf16", loss="fp32"), style).head
    assert found is not None
    assert pytest.approx(14, abs=0.01) == per_logit(found.forward_bytes)
    assert pytest.approx(16, abs=0.01) == per_logit(found.backward_bytes)


def _fields(style: BlockStyle) -> dict[str, Any]:
    return {name: getattr(style, name) for name in style.__slots__}


def test_the_loss_of_a_family_s_own_code_is_of_a_shifted_copy_in_16_bit() -> None:
    """Qwen's first models: logits 2, their copy 2, log-probabilities 2; backward: those 2 and two gradients of 2."""
    config = {
        "model_type": "qwen", "hidden_size": 64, "num_attention_heads": 4, "kv_channels": 16, "no_bias": True,
        "intermediate_size": 256, "num_hidden_layers": 1, "vocab_size": VOCABULARY, "tie_word_embeddings": False,
    }  # fmt: skip
    training = Training(framework="transformers", sequence_tokens=TOKENS, precision="bf16")
    found = decide(read_config(config, "qwen"), training, Plan())
    assert found.training.loss == "plain"
    (shard,) = shards(read_config(config, "qwen"), Plan())
    end = step_cost(shard, found.training, BlockStyle(holds_logits=False, fused_weight_gradients=True)).head
    assert end is not None
    assert (6, 6) == (round(per_logit(end.forward_bytes)), round(per_logit(end.backward_bytes)))


@pytest.mark.parametrize(("framework", "twice"), [("litgpt", True), ("transformers", False)])
def test_litgpt_packs_the_head_and_unpacks_it_in_two_formats(framework: str, twice: bool) -> None:
    """A packed head is there twice in 16 bit, as fp16 and as bf16, while a chunk of logits is made."""
    model = read_config(CONFIG, "wide")
    adapter = AdapterAsked(rank=8, targets=("q_proj",))
    training = Training(
        framework=framework, method="qlora", base_format="nf4", sequence_tokens=1, precision="bf16", adapter=adapter
    )
    decided = decide(model, training, Plan())
    marked = as_trained(model, decided.training, packs_head=decided.framework.packs_head)
    (projection,) = (t for t in marked.head if t.role is Role.HEAD)
    assert projection.held is not None
    assert twice is not projection.held.is_plain
    (shard,) = shards(marked, Plan())
    end = step_cost(shard, decided.training, decided.framework.style).head
    assert end is not None
    copies = end.forward_bytes / (64 * VOCABULARY * 2)
    assert copies == pytest.approx(2 if twice else 0.2, abs=0.2)

"""What a training process takes beside the model."""

from __future__ import annotations

import pytest

from vramfit.catalogue.device import find_device
from vramfit.readers.hf_config import read_config
from vramfit.request import Plan
from vramfit.result import Quantity
from vramfit.train import estimate_training
from vramfit.training import Training
from vramfit.training_result import TrainingEstimate
from vramfit.units import MIB

CONFIG = {
    "model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 4,
    "intermediate_size": 128, "num_hidden_layers": 1, "vocab_size": 64, "tie_word_embeddings": False,
}  # fmt: skip


def trained(version: str, plan: Plan | None = None) -> TrainingEstimate:
    """A step of the Trainer of that version on a V100."""
    training = Training(framework="transformers", framework_version=version, sequence_tokens=64)
    device = find_device("V100-SXM-16GB")
    return estimate_training(read_config(CONFIG, "small"), training, plan=plan or Plan(), device=device)


def named(found: TrainingEstimate, name: str) -> int:
    """Bytes of one item of the first rank."""
    return sum(item.bytes for item in found.breakdowns[0].items if item.name == name)


@pytest.mark.parametrize(("version", "low", "high"), [("4.17", 1200, 1400), ("4.40", 350, 500)])
def test_torch_1_loads_all_kernels_at_once(version: str, low: int, high: int) -> None:
    """The documentation of transformers 4.17 reads 1343 MiB on a V100 before there is a model."""
    found = trained(version)
    context = named(found, "runtime/cuda_context") + named(found, "runtime/loaded_kernels")
    assert low * MIB < context < high * MIB
    readings = {one.quantity: one.value for one in found.breakdowns[0].readings}
    assert readings[Quantity.PROCESS_PEAK] - readings[Quantity.RESERVED_PEAK] >= context


def test_one_communicator_for_each_group() -> None:
    """Two axes of the mesh are two groups."""
    one, two = (trained("4.40", Plan(dp_shard=2, dp_replicate=n)) for n in (1, 2))
    assert named(one, "runtime/collectives")
    assert named(two, "runtime/collectives") in {n * named(one, "runtime/collectives") for n in (1, 2, 3)}


LLAMA = {**CONFIG, "num_hidden_layers": 4, "vocab_size": 640}


def titan(version: str, config: dict[str, object], plan: Plan, recompute: str | None = None) -> TrainingEstimate:
    """A step of torchtitan at that commit."""
    training = Training(
        framework="torchtitan", framework_version=version, micro_batch=2, sequence_tokens=256, recompute=recompute
    )
    return estimate_training(read_config(config, "small"), training, plan=plan)


def test_collectives_hold_what_they_read_and_wrote_until_torchtitan_turns_that_off() -> None:
    """Four layers of 512 tokens x 64 in bf16: four collectives of whole and half; e62573d4c is of 2024-04-10."""
    plan = Plan(dp_shard=2, tp=2, sequence_parallel=True)
    before = titan("83c879f18 2024-03-28", LLAMA, plan, recompute="full")
    assert named(before, "runtime/awaiting_collectives") == 4 * 4 * 512 * 64 * 2 * 3 // 2 // 2
    active = {one.quantity: one.value for one in before.breakdowns[0].readings}
    assert active[Quantity.ACTIVE_PEAK] > active[Quantity.ALLOCATED_PEAK]
    kept = titan("83c879f18 2024-03-28", LLAMA, plan, recompute="selective")
    assert named(kept, "runtime/awaiting_collectives") < named(before, "runtime/awaiting_collectives")
    assert not named(titan("e62573d4c 2024-04-10", LLAMA, plan, recompute="full"), "runtime/awaiting_collectives")
    assert not named(titan("83c879f18 2024-03-28", LLAMA, Plan(dp_shard=4)), "runtime/awaiting_collectives")


MIXTURE = {
    "model_type": "deepseek_v3", "hidden_size": 64, "intermediate_size": 128, "moe_intermediate_size": 32,
    "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 4, "n_routed_experts": 8,
    "n_shared_experts": 2, "num_experts_per_tok": 2, "first_k_dense_replace": 1, "moe_layer_freq": 1,
    "q_lora_rank": None, "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16,
    "vocab_size": 640, "num_nextn_predict_layers": 0, "tie_word_embeddings": False,
}  # fmt: skip


def test_a_stack_of_one_is_whole_on_every_rank() -> None:
    """Two layers with three matrices of 64 x 64: till 7354848df of 2025-08-13 each of four ranks has all of them."""
    plan = Plan(dp_shard=4)
    stacked, plain = (titan(v, MIXTURE, plan) for v in ("b109f7d71 2025-08-01", "7354848df 2025-08-13"))
    missing = 2 * 3 * 64 * 64 * 4 * 3 // 4
    for name in ("weights/linear_layers", "optimizer/exp_avg", "optimizer/exp_avg_sq"):
        assert named(stacked, name) - named(plain, name) == missing


def test_recipes_of_a_family_name_their_loss() -> None:
    """Those of deepseek_v3 in torchtitan compile the loss alone from 08b8b244f of 2025-08-20 on."""
    found = [titan(v, MIXTURE, Plan(dp_shard=4)).training.loss for v in ("x 2025-08-19", "x 2025-08-20")]
    assert found == ["fp32", "fused"]
    assert titan("x 2025-08-20", LLAMA, Plan(dp_shard=4)).training.loss == "fp32"


def test_no_more_is_reserved_than_a_card_has() -> None:
    """A step that fits takes cached blocks back before it fails; one that does not fit still says what it needs."""
    config = {**LLAMA, "hidden_size": 2048, "intermediate_size": 8192, "vocab_size": 32000}
    device = find_device("V100-SXM-16GB")
    for batch, fits in ((6, True), (16, False)):
        training = Training(framework="torchtitan", micro_batch=batch, sequence_tokens=2048, recompute="none")
        model = read_config(config, "small")
        here, anywhere = (
            {one.quantity: one.value for one in answer.breakdowns[0].readings}
            for answer in (estimate_training(model, training, device=device), estimate_training(model, training))
        )
        assert fits == (here[Quantity.ALLOCATED_PEAK] < here[Quantity.RESERVED_PEAK] < device.capacity_bytes)
        assert anywhere[Quantity.RESERVED_PEAK] > device.capacity_bytes
        assert fits or here[Quantity.RESERVED_PEAK] > 1.1 * here[Quantity.ALLOCATED_PEAK]

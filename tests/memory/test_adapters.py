"""Adapters that are loaded beside the weights."""

from __future__ import annotations

from published_configs import LLAMA_3_1_8B
from vramfit.estimate import estimate
from vramfit.readers.adapter import read_adapter, with_adapter
from vramfit.readers.hf_config import read_config
from vramfit.request import Inference, Plan
from vramfit.result import ALWAYS
from vramfit.spec import ModelSpec

LORA = {"peft_type": "LORA", "r": 16, "target_modules": ["q_proj", "v_proj"]}
LORA_BYTES = 4 * 32 * 16 * (4096 + 4096 + 4096 + 1024)


def model(times: int) -> ModelSpec:
    """Return Llama 3.1 8B with that many adapters."""
    base = read_config(LLAMA_3_1_8B, "base")
    adapter = read_adapter(LORA, base)
    for _ in range(times):
        base = with_adapter(base, adapter)
    return base


def test_an_adapter_adds_its_own_bytes_and_nothing_else() -> None:
    """27,262,976 B in fp32, alive in every phase; the weights stay."""
    with_one, without = (estimate(model(n), Inference(context_tokens=1)) for n in (1, 0))
    (item,) = (i for i in with_one.breakdowns[0].items if i.name.startswith("adapters/"))
    assert (LORA_BYTES, LORA_BYTES, LORA_BYTES, ALWAYS) == (item.bytes, item.low_bytes, item.high_bytes, item.phases)
    assert "adapters/lora" == item.name
    assert without.weights_bytes == with_one.weights_bytes
    assert not [i for i in without.breakdowns[0].items if i.name.startswith("adapters/")]


def test_adapters_add_up_and_have_names_of_their_own() -> None:
    """Three at once, as servers of many adapters hold them."""
    items = [i for i in estimate(model(3), Inference(context_tokens=1)).breakdowns[0].items if "adapters/" in i.name]
    assert ["adapters/lora", "adapters/lora_1", "adapters/lora_2"] == [i.name for i in items]
    assert 3 * LORA_BYTES == sum(int(i.bytes) for i in items)


def test_ranks_hold_an_adapter_whole_or_in_part() -> None:
    """Expected whole; at best each of four ranks has a quarter."""
    need = estimate(model(1), Inference(context_tokens=1), plan=Plan(tp=4))
    (item,) = (i for i in need.breakdowns[0].items if i.name.startswith("adapters/"))
    assert (LORA_BYTES, LORA_BYTES // 4) == (item.bytes, item.low_bytes)

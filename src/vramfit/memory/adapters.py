"""Adapters beside the weights: what LoRA and its relatives take when they are loaded and not merged.

A merged adapter takes nothing: its matrices are added to the weights, and the weights stay as large.
"""

from __future__ import annotations

from collections.abc import Iterable

from vramfit.engine import EngineProfile
from vramfit.request import Inference
from vramfit.result import ALWAYS, Basis, Item
from vramfit.shard import Shard
from vramfit.spec import Adapter
from vramfit.units import format_count


def adapter_bytes(adapter: Adapter) -> int:
    """Bytes of an adapter's tensors as they are stored. [B]

        sum over tensors of copies * format.tensor_size(shape)

    LoRA adds r * (inputs + outputs) numbers to a matrix; peft keeps them in fp32 beside 16-bit weights.
    Source: Hu et al. 2021, arXiv:2106.09685, sec. 4.1; huggingface/peft:src/peft/tuners/tuners_utils.py,
    cast_adapter_dtype.
    """
    return adapter.num_bytes


def adapters(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield every adapter of the model, alive from load to the end. [B]

    Expected whole on every rank; at best each rank holds only its share.
    """
    del workload, engine
    for number, adapter in enumerate(shard.model.adapters):
        size = adapter_bytes(adapter)
        yield Item(
            name=f"adapters/{adapter.kind}" + (f"_{number}" if number else ""),
            bytes=size,
            low_bytes=size // (shard.num_peers + 1),
            high_bytes=size,
            phases=ALWAYS,
            basis=Basis.DERIVED,
            formula=f"{format_count(adapter.num_parameters)} trained parameters of {adapter.name}, "
            f"{len(adapter.tensors):,} kinds of tensors, not merged",
            source="adapter_config.json; huggingface/peft:src/peft/tuners",
        )

"""Runs one real FSDP2 step on the CPU behind a process group that only pretends, and prints what was alive at most.

A program of its own, because a process group belongs to a process: ``python sharded.py TOKENS REDUCE``.
"""

from __future__ import annotations

import json
import sys
import weakref
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

RANKS = 4
SIZES = {
    "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6, "vocab_size": 1024,
    "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 32, "tie_word_embeddings": False,
}  # fmt: skip


class Polled(TorchDispatchMode):  # type: ignore[misc] # torch is not typed here
    """Adds up all known storages after each operator, because FSDP resizes storages without one."""

    def __init__(self) -> None:
        """Know nothing."""
        super().__init__()
        self.known: dict[int, Any] = {}
        self.most = 0

    def see(self, value: object) -> None:
        """Remember the storage of a tensor, a divided one's own part."""
        if isinstance(value, torch.Tensor):
            storage = getattr(value, "_local_tensor", value).untyped_storage()
            self.known.setdefault(storage._cdata, weakref.ref(storage))

    def live(self) -> int:
        """Add up what is alive."""
        alive = {key: storage for key, reference in self.known.items() if (storage := reference()) is not None}
        self.known = {key: self.known[key] for key in alive}
        return sum(storage.nbytes() for storage in alive.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and add up."""
        for value in tree_iter((args, kwargs or {})):
            self.see(value)
        out = func(*args, **(kwargs or {}))
        for value in tree_iter(out):
            self.see(value)
        self.most = max(self.most, self.live())
        return out


def main(tokens: int, reduce: str) -> None:
    """Make two steps and print what the second one held."""
    from transformers import LlamaConfig, LlamaForCausalLM

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=RANKS)
    mesh = init_device_mesh("cpu", (RANKS,))
    model = LlamaForCausalLM(LlamaConfig(**SIZES, attn_implementation="sdpa", use_cache=False)).float()
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=getattr(torch, reduce))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
    ids = torch.zeros((1, tokens), dtype=torch.int64)
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    polled, found, losses = Polled(), {}, []
    with polled:
        for value in tree_iter((list(model.parameters()), [dict(state) for state in optimizer.state.values()])):
            polled.see(value)
        found["standing"] = polled.live()
        for name in ("forward", "backward", "step"):
            polled.most = 0
            if name == "forward":
                losses.append(model(input_ids=ids, labels=ids).loss)
            elif name == "backward":
                losses.pop().backward()
            else:
                optimizer.step()
            found[name] = polled.most - found["standing"]
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])

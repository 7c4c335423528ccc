"""One rank of several on a virtual GPU: what is sharded, what is gathered, what is bucketed."""

from __future__ import annotations

import os

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from vramfit.errors import InvalidValueError
from vramfit.trace import VirtualGPU

WIDE = 256
NUM_BLOCKS = 4
WORLD = 8
BLOCK_PARAMETERS = 2 * 4 * WIDE * WIDE
ALL_PARAMETERS = NUM_BLOCKS * BLOCK_PARAMETERS


class Block(nn.Module):  # type: ignore[misc] # mypy does not read torch
    """A feed-forward block without biases."""

    def __init__(self) -> None:
        """Make its two layers."""
        super().__init__()
        self.up, self.down = nn.Linear(WIDE, 4 * WIDE, bias=False), nn.Linear(4 * WIDE, WIDE, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run it."""
        return x + self.down(F.gelu(self.up(x)))


def model() -> nn.Sequential:
    """Return blocks on the device."""
    with torch.device("cuda"):
        return nn.Sequential(*(Block() for _ in range(NUM_BLOCKS)))


def alive(gpu: VirtualGPU) -> dict[str, int]:
    """Return what each category holds now. [B]"""
    held: dict[str, int] = {}
    for number in gpu.recording.alive():
        kind = str(gpu.recording.category(number))
        held[kind] = held.get(kind, 0) + gpu.recording.num_bytes(number)
    return held


def train(trained: nn.Module) -> torch.optim.Optimizer:
    """Run two steps of AdamW."""
    optimizer = torch.optim.AdamW(trained.parameters())
    for _ in range(2):
        trained(torch.randn(16, WIDE, device="cuda")).float().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


def test_fully_sharded_rank_holds_its_share() -> None:
    """Parameters and moments are an eighth; gathered units are collectives in 16 bit, two of them at most."""
    with VirtualGPU("h100-sxm-80gb", world_size=WORLD, rank=3, workspaces=False) as gpu:
        dist.init_process_group("nccl")
        assert (dist.get_rank(), dist.get_world_size()) == (3, WORLD)
        mesh, sharded = init_device_mesh("cuda", (WORLD,)), model()
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        for block in sharded:
            fully_shard(block, mesh=mesh, mp_policy=policy)
        fully_shard(sharded, mesh=mesh, mp_policy=policy)
        optimizer = train(sharded)
        held = alive(gpu)
        assert optimizer.state
    assert held["parameter"] == ALL_PARAMETERS * 4 // WORLD
    assert held["optimizer_state"] == 2 * ALL_PARAMETERS * 4 // WORLD
    gathers = [a.num_bytes for a in gpu.recording.allocations() if a.category.value == "collective"]
    assert BLOCK_PARAMETERS * 2 in gathers  # an all-gather's output
    assert BLOCK_PARAMETERS * 4 in gathers  # a reduce-scatter's input in float32
    streams = {a.stream for a in gpu.recording.allocations() if a.num_bytes == BLOCK_PARAMETERS * 2}
    assert streams != {0}
    assert "NCCL" in " ".join(gpu.report().not_counted)


def test_replicated_rank_keeps_buckets() -> None:
    """DDP holds all gradients a second time, in its buckets."""
    with VirtualGPU("h100-sxm-80gb", world_size=WORLD, workspaces=False) as gpu:
        dist.init_process_group("nccl")
        train(nn.parallel.DistributedDataParallel(model(), device_ids=[0]))
    report = gpu.report()
    each = ALL_PARAMETERS * 4
    assert report.share("parameter") == report.share("gradient") == report.share("collective") == each
    assert report.share("optimizer_state") == 2 * each


def test_tensor_parallel_rank_holds_its_columns() -> None:
    """Column- and row-parallel layers keep an eighth of each weight."""
    with VirtualGPU("h100-sxm-80gb", world_size=WORLD, workspaces=False) as gpu:
        dist.init_process_group("nccl")
        mesh, cut = init_device_mesh("cuda", (WORLD,)), model()
        for block in cut:
            parallelize_module(block, mesh, {"up": ColwiseParallel(), "down": RowwiseParallel()})
        train(cut)
        assert alive(gpu)["parameter"] == ALL_PARAMETERS * 4 // WORLD


def pipelined_peak(rank: int, schedule: type[Schedule1F1B | ScheduleGPipe]) -> int:
    """Return what one of four stages holds at most over eight micro-batches. [B]"""
    with VirtualGPU("h100-sxm-80gb", world_size=4, rank=rank, workspaces=False) as gpu:
        dist.init_process_group("nccl")
        example = torch.randn(64, WIDE, device="cuda", requires_grad=True)
        stage = PipelineStage(model(), rank, 4, torch.device("cuda"), input_args=(example,), output_args=(example,))
        run = schedule(stage, n_microbatches=8, loss_fn=F.mse_loss)
        batch = torch.randn(8 * 64, WIDE, device="cuda")
        run.step(*([batch] if rank == 0 else []), **({"target": batch} if rank == 3 else {}))
    return gpu.report().requested_peak_bytes


def test_pipeline_stages_hold_what_their_schedule_keeps_in_flight() -> None:
    """1F1B keeps four micro-batches on the first of four stages and one on the last; GPipe keeps all."""
    first, last = pipelined_peak(0, Schedule1F1B), pipelined_peak(3, Schedule1F1B)
    everything = pipelined_peak(0, ScheduleGPipe)
    one = NUM_BLOCKS * 64 * (WIDE + 2 * 4 * WIDE) * 4  # input, up's output and gelu's of every block
    assert first - last > 2 * one
    # Both are fullest in the second backward pass, when gradients are there already: seven of eight are left, or four.
    assert everything - first == 3 * one


def test_the_world_ends_with_the_trace() -> None:
    """No process group and no variable of a launcher is left behind."""
    before = dict(os.environ)
    with VirtualGPU("h100-sxm-80gb", world_size=2, rank=1):
        assert os.environ["RANK"] == "1"
        dist.init_process_group("nccl")
    assert not dist.is_initialized()
    assert before == dict(os.environ)
    with pytest.raises(InvalidValueError, match="rank"):
        VirtualGPU("h100-sxm-80gb", world_size=2, rank=2)

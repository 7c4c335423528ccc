"""Programs as people write them: recomputation, offloading, data loaders, streams, values that depend on data."""

from __future__ import annotations

import copy
import io
import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

from vramfit.trace import VirtualGPU
from vramfit.trace.values import DataDependentError
from vramfit.trace_report import TraceError
from vramfit.units import MIB

WIDE = 512


def block() -> nn.Module:
    """Return layers with dropout between, whose mask recomputation must make alike."""
    return nn.Sequential(nn.Linear(WIDE, 4 * WIDE), nn.GELU(), nn.Dropout(0.1), nn.Linear(4 * WIDE, WIDE)).cuda()


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("autocast", [True, False])
def test_recomputation_goes_the_same_way_as_the_forward(reentrant: bool, autocast: bool) -> None:
    """Recomputed layers under both kinds of checkpointing keep less, and dropout's mask is of bool both times."""

    def peak(recompute: bool) -> tuple[int, set[str]]:
        with VirtualGPU("a100-sxm-80gb", workspaces=False) as gpu:
            blocks = [block() for _ in range(4)]
            x = torch.randn(4096, WIDE, device="cuda", requires_grad=True)
            with torch.autocast("cuda", dtype=torch.bfloat16, enabled=autocast):
                for each in blocks:
                    x = checkpoint(each, x, use_reentrant=reentrant) if recompute else each(x)
            x.float().sum().backward()
        assert {p.grad is not None for each in blocks for p in each.parameters()} == {True}
        return gpu.report().requested_peak_bytes, {a.operator for a in gpu.recording.allocations()}

    (with_it, operators), (without, _) = peak(recompute=True), peak(recompute=False)
    assert with_it < 0.7 * without
    assert "aten.native_dropout.default" in operators
    assert not any("bernoulli" in name for name in operators)


def test_recomputation_inside_recomputation() -> None:
    """Nested checkpoints, of both kinds, run their backward passes inside one another."""
    with VirtualGPU("a100-sxm-80gb") as gpu:
        inner = block()

        def outer(x: torch.Tensor) -> torch.Tensor:
            return checkpoint(inner, x, use_reentrant=False).tanh()

        x = torch.randn(64, WIDE, device="cuda", requires_grad=True)
        checkpoint(outer, x, use_reentrant=True).sum().backward()
        checkpoint(outer, x, use_reentrant=False).sum().backward()
    assert gpu.parts.progress.num_backwards == 2


def test_activations_can_be_kept_on_the_host() -> None:
    """``save_on_cpu`` takes them off the device, at the host's cost, not at that of real memory."""

    def forward(offload: bool) -> int:
        with VirtualGPU("a100-sxm-80gb", workspaces=False):
            layers = nn.Sequential(*(nn.Sequential(nn.Linear(WIDE, WIDE), nn.Tanh()) for _ in range(8))).cuda()
            x = torch.randn(1 << 16, WIDE, device="cuda")
            before = torch.cuda.memory_allocated()
            if offload:
                with torch.autograd.graph.save_on_cpu(pin_memory=True):
                    out = layers(x)
            else:
                out = layers(x)
            held = torch.cuda.memory_allocated() - before
            out.sum().backward()
        return int(held // x.nbytes)

    assert forward(offload=True) == 1
    assert forward(offload=False) == 8


def test_a_data_loader_runs_on_the_host() -> None:
    """Batches stay real CPU tensors until they are moved, also from worker processes and with pinned memory."""
    data = TensorDataset(torch.randn(32, 8), torch.randint(0, 3, (32,)))
    with VirtualGPU("a100-sxm-80gb"):
        for x, y in DataLoader(data, batch_size=8, shuffle=True):
            assert not x.is_cuda
            assert x.abs().sum().item() > 0
            moved = x.to("cuda", non_blocking=True), y.cuda()
            assert all(each.is_cuda for each in moved)


def test_values_of_the_host_stay_real() -> None:
    """Only what lies on the device has no data."""
    with VirtualGPU("a100-sxm-80gb"):
        assert torch.tensor([1.0, 2.0]).sum().item() == 3
        assert torch.arange(4).nonzero().shape == (3, 1)
        assert torch.tensor(7.0, device="cuda").item() == 7
        assert torch.full((), 0.0, device="cuda").item() == 0
        changed = torch.full((), 0.0, device="cuda")
        changed += 2
        assert changed.item() == 1.0, "a stated value, and the report says so"


def test_stated_values_are_told() -> None:
    """What was assumed about data stands among the report's assumptions."""
    with VirtualGPU("a100-sxm-80gb", hints={"item": 0.25}) as gpu:
        x = torch.randn(4, device="cuda")
        assert x.sum().item() == 0.25
        assert bool((x > 0).all()) is True
    assert any("True" in each for each in gpu.report().assumptions)


DEPENDENT: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "nonzero": lambda x: (x > 0).nonzero(),
    "index": lambda x: x[x > 0],
    "masked_select": lambda x: x.masked_select(x > 0),
    "unique": lambda x: x.unique(),
    "repeat_interleave": lambda x: x.repeat_interleave(x.long().clamp(0, 3), dim=0),
}


@pytest.mark.parametrize("name", DEPENDENT)
def test_shapes_that_depend_on_data_need_a_hint(name: str) -> None:
    """Without a hint the operator and the line are named; a number is a count, a share counts of what there is."""
    with VirtualGPU("a100-sxm-80gb"), pytest.raises(DataDependentError, match=rf"test_programs.py:\d+: {name}"):
        DEPENDENT[name](torch.randn(100, device="cuda"))
    with VirtualGPU("a100-sxm-80gb", hints={name: 25}):
        assert DEPENDENT[name](torch.randn(100, device="cuda")).shape[0] == 25
    if name == "nonzero":
        with VirtualGPU("a100-sxm-80gb", hints={name: 0.5}):
            assert DEPENDENT[name](torch.randn(100, device="cuda")).shape[0] == 50


def test_writing_through_a_mask_needs_none() -> None:
    """Filling where a mask is true changes no shape."""
    with VirtualGPU("a100-sxm-80gb"):
        x = torch.randn(8, device="cuda")
        x[x > 0] = 1.0
        assert torch.where(x > 0, x, 0.0).shape == (8,)


def test_operators_without_a_rule_are_refused_by_name() -> None:
    """A custom operator that has no meta kernel is named with the line that called it."""
    library = torch.library.Library("vramfit_test", "FRAGMENT")
    library.define("squared(Tensor x) -> Tensor")
    library.impl("squared", lambda x: x * x, "CPU")
    with VirtualGPU("a100-sxm-80gb"), pytest.raises(TraceError, match=r"test_programs.py:\d+: vramfit_test.squared"):
        torch.ops.vramfit_test.squared(torch.ones(2, device="cuda"))


def test_triton_kernels_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that writes through pointers is named with the line that launches it, and given back afterwards."""

    class JITFunction:
        __name__ = "fused_add"

        def run(self, *_: object) -> str:
            return "ran"

    monkeypatch.setitem(sys.modules, "triton.runtime.jit", SimpleNamespace(JITFunction=JITFunction))
    with VirtualGPU("a100-sxm-80gb"), pytest.raises(TraceError, match=r"test_programs.py:\d+: Triton kernel fused_add"):
        JITFunction().run(1)
    assert JITFunction().run() == "ran"


def test_compiling_is_left_out_and_said() -> None:
    """``torch.compile`` returns what it was given; the report says that eager code was traced."""
    with VirtualGPU("a100-sxm-80gb") as gpu:
        model = nn.Linear(8, 8).cuda()
        model.compile()
        assert torch.compile(model) is model

        def double(x: torch.Tensor) -> torch.Tensor:
            return x * 2

        assert torch.compile(mode="max-autotune")(double)(torch.ones(2, device="cuda")).is_cuda
    assert any("torch.compile" in each for each in gpu.report().assumptions)


def test_inference_is_a_phase_of_its_own() -> None:
    """A forward pass without gradients begins no step and keeps nothing for a backward pass."""
    with VirtualGPU("a100-sxm-80gb") as gpu:
        model = nn.Sequential(nn.Linear(WIDE, WIDE), nn.Tanh(), nn.Linear(WIDE, WIDE)).cuda()
        with torch.no_grad():
            model(torch.randn(64, WIDE, device="cuda"))
    report = gpu.report()
    assert [phase.name for phase in report.phases] == ["setup", "inference"]
    assert report.steps == ()
    assert report.share("activation") == 0


def test_streams_have_caches_of_their_own() -> None:
    """Memory freed on one stream is not handed out on another; a use elsewhere delays its return in the high bound."""
    with VirtualGPU("a100-sxm-80gb") as gpu:
        side = torch.cuda.Stream()
        assert isinstance(side, torch.cuda.Stream)
        first = torch.empty(64 * MIB, dtype=torch.uint8, device="cuda")
        first.record_stream(side)
        del first
        again = torch.empty(64 * MIB, dtype=torch.uint8, device="cuda")
        with torch.cuda.stream(side):
            assert torch.cuda.current_stream() == side
            other = torch.empty(64 * MIB, dtype=torch.uint8, device="cuda")
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        assert again.is_cuda
        assert other.is_cuda
    report = gpu.report()
    assert report.reserved_peak_bytes == 128 * MIB
    assert report.reserved_peak_high_bytes == 192 * MIB


def test_memory_statistics_follow_the_program() -> None:
    """Peaks can be reset, the cache emptied; the report's own peaks stay."""
    with VirtualGPU("a100-sxm-80gb") as gpu:
        big = torch.empty(256 * MIB, dtype=torch.uint8, device="cuda")
        del big
        assert torch.cuda.max_memory_allocated() == torch.cuda.memory_reserved() == 256 * MIB
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        assert torch.cuda.memory_reserved() == torch.cuda.max_memory_allocated() == 0
        assert torch.cuda.memory_stats()["num_alloc_retries"] == 0
    assert gpu.report().reserved_peak_bytes == 256 * MIB


def test_saving_and_loading_a_checkpoint() -> None:
    """A state can be written and read back to the device; deep copies take memory of their own."""
    with VirtualGPU("a100-sxm-80gb"):
        model = nn.Linear(WIDE, WIDE).cuda()
        one = torch.cuda.memory_allocated()
        copied = copy.deepcopy(model)
        assert torch.cuda.memory_allocated() == 2 * one
        file = io.BytesIO()
        torch.save(model.state_dict(), file)
        file.seek(0)
        copied.load_state_dict(torch.load(file, map_location="cuda"))
        assert copied.weight.is_cuda


def test_tensors_of_the_meta_device_are_not_counted() -> None:
    """What the program itself puts on the meta device takes nothing until it is made on the card."""
    with VirtualGPU("a100-sxm-80gb"):
        with torch.device("meta"):
            model = nn.Linear(WIDE, WIDE, bias=False)
        assert model.weight.is_meta
        assert torch.cuda.memory_allocated() == 0
        model.to_empty(device="cuda")
        assert model.weight.is_cuda
        assert torch.cuda.memory_allocated() == WIDE * WIDE * 4


def test_default_device_and_indices() -> None:
    """All ways to name the device lead to it; a second card there is none."""
    with VirtualGPU("a100-sxm-80gb"):
        torch.set_default_device("cuda")
        assert torch.ones(2).is_cuda
        torch.set_default_device(None)
        assert not torch.ones(2).is_cuda
        for device in ("cuda", "cuda:0", 0, torch.device("cuda", 0)):
            assert torch.ones(2, device=device).is_cuda
            assert torch.ones(2).to(device).is_cuda
        with pytest.raises(RuntimeError, match="invalid device ordinal"):
            torch.ones(2, device="cuda:1")
        generator = torch.Generator(device="cuda").manual_seed(0)
        assert torch.randn(3, device="cuda", generator=generator).is_cuda


def test_another_thread_cannot_reach_a_real_card() -> None:
    """A thread does not see the virtual device; what it asks of CUDA is refused, whatever this machine has."""
    seen: list[str] = []

    def run() -> None:
        try:
            torch.ones(2, device="cuda")
        except Exception as error:  # noqa: BLE001 - the type differs by build
            seen.append(str(error))

    with VirtualGPU("a100-sxm-80gb"):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert len(seen) == 1


def test_interrupted_traces_report_what_was_seen() -> None:
    """Ctrl-C leaves a report of everything up to there."""
    gpu = VirtualGPU("a100-sxm-80gb")

    def program() -> None:
        with gpu:
            torch.empty(64 * MIB, dtype=torch.uint8, device="cuda")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        program()
    assert gpu.report().interrupted
    assert gpu.report().allocated_peak_bytes == 64 * MIB


def test_phases_can_be_named() -> None:
    """A phase of the user's stands in the report beside those that are marked by themselves."""
    with VirtualGPU("a100-sxm-80gb") as gpu:
        with gpu.phase("warm-up"):
            torch.empty(64 * MIB, dtype=torch.uint8, device="cuda")
        model = nn.Linear(8, 8).cuda()
        F.mse_loss(model(torch.randn(2, 8, device="cuda")), torch.randn(2, 8, device="cuda")).backward()
    names = [phase.name for phase in gpu.report().phases]
    assert names[:2] == ["setup", "warm-up"]
    assert {"forward", "loss", "backward", "after backward"} <= set(names)
    assert gpu.report().phases[1].allocated_bytes == 64 * MIB


def test_categories_by_the_time_a_tensor_lived() -> None:
    """Inputs were there before, activations wait for the backward pass, the rest is temporary."""
    with VirtualGPU("a100-sxm-80gb", workspaces=False) as gpu:
        model = nn.Sequential(nn.Linear(WIDE, WIDE, bias=False), nn.Tanh(), nn.Linear(WIDE, WIDE, bias=False)).cuda()
        x = torch.randn(4096, WIDE, device="cuda")
        model(x).sum().backward()
    report = gpu.report()
    each = 4096 * WIDE * 4
    assert report.share("input") == each
    assert report.share("parameter") == 2 * WIDE * WIDE * 4
    kinds = {a.category for a in gpu.recording.allocations() if a.operator == "aten.tanh.default"}
    assert {str(kind) for kind in kinds} == {"activation"}
    assert report.peak_alive_bytes == sum(share.num_bytes for share in report.categories)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_remembered_shapes_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without remembering shapes, a program records the same allocations."""

    def sizes() -> list[tuple[str, int]]:
        with VirtualGPU("a100-sxm-80gb") as gpu:
            model = nn.TransformerEncoderLayer(64, 4, batch_first=True).cuda()
            make = torch.optim.SGD if name == "sgd" else torch.optim.AdamW
            optimizer = make(model.parameters(), lr=0.1)
            for _ in range(2):
                with torch.autocast("cuda", dtype=torch.bfloat16):
                    out = model(torch.randn(2, 16, 64, device="cuda"))
                out.float().mean().backward()
                optimizer.step()
        return [(a.operator, a.num_bytes) for a in gpu.recording.allocations()]

    remembered = sizes()
    monkeypatch.setattr("vramfit.trace.shapes.Shapes.run", lambda self, func, args, kwargs: func(*args, **kwargs))
    assert remembered == sizes()

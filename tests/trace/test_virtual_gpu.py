"""A whole program on a virtual GPU: what it believes, what is recorded, what is put back."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import nn

from vramfit.errors import UnknownNameError
from vramfit.trace import VirtualGPU
from vramfit.trace_report import TraceError
from vramfit.units import MIB

WIDE = 1024


def perceptron() -> nn.Module:
    """Two layers of 1024 x 1024 with biases."""
    return nn.Sequential(nn.Linear(WIDE, WIDE), nn.ReLU(), nn.Linear(WIDE, WIDE)).to("cuda")


def steps(count: int, gpu: VirtualGPU) -> None:
    """Train the perceptron on batches of 256 with AdamW."""
    model = perceptron()
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(count):
        x = torch.randn(256, WIDE, device="cuda")
        loss = F.mse_loss(model(x), x)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def test_a_step_is_counted_by_hand() -> None:
    """Parameters, gradients and both moments: four times 2 x (4 MiB + 4 KiB); AdamW's foreach copy once more."""
    with VirtualGPU("a100-sxm-80gb", workspaces=False) as gpu:
        steps(2, gpu)
    report = gpu.report()
    layer = 4 * MIB + 4 * 1024
    assert report.share("parameter") == report.share("gradient") == 2 * layer
    assert report.share("optimizer_state") == 2 * 2 * layer
    assert report.peak_phase == "optimizer step"
    alive = 4 * 2 * layer + 2 * layer  # states, and the denominators of all parameters at once
    x = 256 * WIDE * 4  # the output went with the graph; the loss keeps a storage of its input's size
    assert report.requested_peak_bytes == report.allocated_peak_bytes == alive + 2 * x


def test_first_step_differs_from_later_ones() -> None:
    """In the first forward pass there are no moments yet; from the second step on peaks repeat."""
    with VirtualGPU("a100-sxm-80gb") as gpu:
        steps(3, gpu)
    report = gpu.report()
    assert [step.name for step in report.steps] == ["0", "1", "2"]
    assert report.steps[1] == report.steps[2].__class__(
        name="1", allocated_bytes=report.steps[2].allocated_bytes, reserved_bytes=report.steps[2].reserved_bytes
    )
    assert report.warm_up_reserved_bytes == report.steps[0].reserved_bytes
    assert report.steady_allocated_bytes == report.steps[1].allocated_bytes


def test_largest_tensors_name_module_parameter_and_line() -> None:
    """The tensors alive at the peak say which parameter they belong to and which line made them."""
    with VirtualGPU("a100-sxm-80gb") as gpu:
        steps(1, gpu)
    largest = gpu.report(num_largest=4).largest
    assert {each.name for each in largest} <= {"0.weight", "2.weight", ""}
    gradient = next(each for each in gpu.report().largest if each.category == "gradient")
    assert gradient.operator == "aten.mm.default"
    assert gradient.module in {"Sequential.0", "Sequential.2"}
    assert gradient.where[0].startswith(__file__)
    assert gradient.where[0].endswith("in steps")


def test_program_believes_in_the_card() -> None:
    """Devices, availability, properties and memory answer as on the card."""
    with VirtualGPU("h100-sxm-80gb") as gpu:
        x = torch.ones(1024, 1024, device="cuda")
        assert x.is_cuda
        assert not x.is_cpu
        assert x.device == torch.device("cuda", 0)
        assert x.type() == "torch.cuda.FloatTensor"
        assert torch.cuda.is_available()
        assert torch.cuda.get_device_capability() == (9, 0)
        assert "H100" in torch.cuda.get_device_name()
        assert torch.cuda.get_device_properties(0).total_memory == gpu.parts.capacity_bytes
        assert torch.cuda.memory_allocated() == 4 * MIB
        free, total = torch.cuda.mem_get_info()
        assert (free, total) == (
            gpu.parts.capacity_bytes - gpu.parts.context_bytes - 20 * MIB,
            gpu.parts.capacity_bytes,
        )


def test_a_program_that_does_not_fit_meets_a_real_error() -> None:
    """Beyond the card's memory PyTorch's own error is raised, and says what was alive; a program may catch it."""
    with VirtualGPU("rtx-4090-24gb") as gpu:
        kept = torch.empty(20 << 30, dtype=torch.uint8, device="cuda")
        with pytest.raises(torch.OutOfMemoryError, match=r"Tried to allocate 10.00 GiB") as caught:
            torch.empty(10 << 30, dtype=torch.uint8, device="cuda")
        assert "20.00 GiB" in str(caught.value)
        small = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
        assert kept.is_cuda
        assert small.is_cuda
    assert gpu.report().out_of_memory
    assert not gpu.report().fits


def test_everything_is_put_back_after_an_error() -> None:
    """After an exception inside, PyTorch is as it was."""
    before = {name: getattr(torch.cuda, name) for name in dir(torch.cuda)}
    others = (torch.Generator, torch.compile, torch.clear_autocast_cache, torch.UntypedStorage.resize_)
    with pytest.raises(ZeroDivisionError), VirtualGPU("a100-sxm-80gb"):
        1 / 0  # noqa: B018 - it shall fail
    assert before == {name: getattr(torch.cuda, name) for name in before}
    assert others == (torch.Generator, torch.compile, torch.clear_autocast_cache, torch.UntypedStorage.resize_)
    assert torch.ones(2).device.type == "cpu"
    assert not torch.overrides._get_current_function_mode_stack()
    with VirtualGPU("a100-sxm-80gb"):
        pass


def test_two_at_a_time_are_refused() -> None:
    """A virtual GPU inside another one is refused, and so is using one twice."""
    with VirtualGPU("a100-sxm-80gb") as gpu, pytest.raises(TraceError, match="another one is active"), VirtualGPU("l4"):
        pass
    with pytest.raises(TraceError, match="used before"), gpu:
        pass


def test_cards_that_cannot_be_imagined_are_refused() -> None:
    """An unknown name lists the nearest; a card without CUDA has no kernels to choose."""
    with pytest.raises(UnknownNameError, match="a100"):
        VirtualGPU("a100-sxm-81gb")


def test_tied_weights_stay_tied() -> None:
    """Moving a module keeps the identity of its parameters, so shared ones are moved once."""
    with VirtualGPU("a100-sxm-80gb"):
        model = nn.Sequential(nn.Linear(WIDE, WIDE, bias=False), nn.Linear(WIDE, WIDE, bias=False))
        model[1].weight = model[0].weight
        held = model[0].weight
        model.to("cuda")
        assert model[0].weight is model[1].weight is held
        assert torch.cuda.memory_allocated() == 4 * MIB

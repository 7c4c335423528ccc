"""Where CUDA goes another way than the meta device would: each way leaves other memory behind."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import nn

from vramfit.trace import VirtualGPU
from vramfit.units import KIB, MIB

FEATURES = 1024
ROWS = 256


def kept(run: Callable[[], object], device: str = "a100-sxm-80gb") -> tuple[int, object]:
    """Return what a function leaves allocated while its result is held, without workspaces. [B]"""
    with VirtualGPU(device, "2.13.0", workspaces=False) as gpu:
        before = torch.cuda.memory_allocated()
        result = run()
        left = torch.cuda.memory_allocated() - before
    assert gpu.report().out_of_memory is None
    return left, result


def test_dropout_keeps_one_byte_per_element() -> None:
    """The output in float32 and a mask of bool: 4 + 1 bytes; the float mask of other devices would be 4 + 4."""

    def run() -> object:
        x = torch.randn(ROWS, FEATURES, device="cuda", requires_grad=True)
        return x, F.dropout(x, 0.1)

    assert kept(run)[0] == ROWS * FEATURES * (4 + 4 + 1)


def test_dropout_off_costs_nothing() -> None:
    """In evaluation and at rate 0 the input itself is returned."""

    def run() -> object:
        x = torch.randn(ROWS, FEATURES, device="cuda", requires_grad=True)
        return x, F.dropout(x, 0.1, training=False), F.dropout(x, 0.0)

    assert kept(run)[0] <= ROWS * FEATURES * 4 * 2


def test_rms_norm_keeps_one_number_per_row() -> None:
    """Input, output and the reciprocal deviation of each row; the decomposition keeps float32 copies as well."""

    def run() -> object:
        x = torch.randn(ROWS, FEATURES, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        weight = torch.ones(FEATURES, device="cuda", dtype=torch.bfloat16)
        return x, weight, F.rms_norm(x, (FEATURES,), weight)

    assert kept(run)[0] == 2 * ROWS * FEATURES * 2 + FEATURES * 2 + ROWS * 4


def test_rms_norm_of_old_versions_is_decomposed() -> None:
    """Before the fused kernel it is a chain of operators, and autograd keeps what lies between."""

    def run() -> object:
        x = torch.randn(ROWS, FEATURES, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        return x, F.rms_norm(x, (FEATURES,))

    with VirtualGPU("a100-sxm-80gb", "2.6.0", workspaces=False):
        held = run()
        old = torch.cuda.memory_allocated()
    new, _ = kept(run)
    assert held
    assert old > new


def test_batch_norm_goes_through_cudnn_in_training() -> None:
    """The cuDNN operator runs, for float16 input with float32 statistics too."""

    def run() -> object:
        model = nn.BatchNorm2d(64).cuda()
        x = torch.randn(8, 64, 32, 32, device="cuda", dtype=torch.float16, requires_grad=True)
        return model(x).sum().backward()

    with VirtualGPU("a100-sxm-80gb") as gpu:
        run()
    operators = {a.operator for a in gpu.recording.allocations()}
    assert "aten.cudnn_batch_norm.default" in operators
    assert "aten.cudnn_batch_norm_backward.default" in operators


def test_autocast_casts_weights_once_until_the_region_ends() -> None:
    """A leaf weight's 16-bit copy is made once and dropped with the region; activations are cast each time."""
    with VirtualGPU("a100-sxm-80gb", workspaces=False):
        layer = nn.Linear(FEATURES, FEATURES, bias=False, device="cuda")
        x = torch.randn(ROWS, FEATURES, device="cuda")
        weights = torch.cuda.memory_allocated()
        with torch.no_grad(), torch.autocast("cuda", dtype=torch.bfloat16):
            layer(x)
            layer(x)
            assert torch.cuda.memory_allocated() == weights + FEATURES * FEATURES * 2
        assert torch.cuda.memory_allocated() == weights


def test_autocast_cache_can_be_off() -> None:
    """Without the cache nothing of a weight's copy is left after the call."""
    with VirtualGPU("a100-sxm-80gb", workspaces=False):
        layer = nn.Linear(FEATURES, FEATURES, bias=False, device="cuda")
        before = torch.cuda.memory_allocated()
        with torch.no_grad(), torch.autocast("cuda", dtype=torch.bfloat16, cache_enabled=False):
            layer(torch.randn(ROWS, FEATURES, device="cuda"))
            assert torch.cuda.memory_allocated() == before


AUTOCAST = [
    ("matmul", lambda h, f: h @ f, torch.bfloat16),
    ("linear", lambda h, f: F.linear(f, f), torch.bfloat16),
    ("einsum", lambda h, f: torch.einsum("ij,jk->ik", f, f), torch.bfloat16),
    ("addmm", lambda h, f: torch.addmm(f, f, f), torch.bfloat16),
    ("softmax", lambda h, f: h.softmax(-1), torch.float32),
    ("layer_norm", lambda h, f: F.layer_norm(h, (64,)), torch.float32),
    ("exp", lambda h, f: torch.exp(h), torch.float32),
    ("pow", lambda h, f: h**2, torch.float32),
    ("sum", lambda h, f: h.sum(), torch.float32),
    ("mse_loss", F.mse_loss, torch.float32),
    ("cross_entropy", lambda h, f: F.cross_entropy(h, f.argmax(-1)), torch.float32),
    ("cat", lambda h, f: torch.cat([h, f]), torch.float32),
    ("relu", lambda h, f: F.relu(h), torch.bfloat16),
    ("add", lambda h, f: h + h, torch.bfloat16),
    ("gelu", lambda h, f: F.gelu(f), torch.float32),
    ("float64 stays", lambda h, f: f.double() @ f.double(), torch.float64),
]


@pytest.mark.parametrize(("name", "call", "expected"), AUTOCAST, ids=[case[0] for case in AUTOCAST])
def test_autocast_chooses_the_type(
    name: str, call: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], expected: torch.dtype
) -> None:
    """PyTorch's CUDA lists: lower precision, float32, widest; operators on no list keep their input's type."""
    with VirtualGPU("a100-sxm-80gb"), torch.autocast("cuda", dtype=torch.bfloat16):
        half = torch.randn(64, 64, device="cuda", dtype=torch.bfloat16)
        full = torch.randn(64, 64, device="cuda")
        assert call(half, full).dtype == expected


def test_float16_softmax_under_autocast_makes_no_float32_copy() -> None:
    """The kernel reads float16 and writes float32; bfloat16 is copied first."""

    def peak(dtype: torch.dtype) -> int:
        with VirtualGPU("a100-sxm-80gb") as gpu, torch.autocast("cuda", dtype=dtype):
            torch.softmax(torch.randn(FEATURES, FEATURES, device="cuda", dtype=dtype), -1)
        return gpu.report().requested_peak_bytes

    assert peak(torch.float16) == FEATURES * FEATURES * (2 + 4)
    assert peak(torch.bfloat16) == FEATURES * FEATURES * (2 + 4 + 4)


def test_channels_last_goes_through_a_convolution() -> None:
    """Output and both gradients keep the order in which cuDNN computes."""
    with VirtualGPU("a100-sxm-80gb") as gpu:
        model = nn.Conv2d(16, 32, 3).cuda().to(memory_format=torch.channels_last)
        x = torch.randn(4, 16, 32, 32, device="cuda").to(memory_format=torch.channels_last).requires_grad_()
        out = model(x)
        assert out.is_contiguous(memory_format=torch.channels_last)
        out.sum().backward()
        assert x.grad is not None
        assert x.grad.is_contiguous(memory_format=torch.channels_last)
    assert not [a for a in gpu.recording.allocations() if a.operator == "cudnn_convolution"]


def test_contiguous_convolutions_are_laid_out_anew_for_tensor_cores() -> None:
    """Without channels last, cuDNN's workspace holds input, weight and output once more."""
    with VirtualGPU("a100-sxm-80gb") as gpu, torch.no_grad():
        nn.Conv2d(16, 32, 3, bias=False).cuda()(torch.randn(4, 16, 34, 34, device="cuda"))
    scratch = [a.num_bytes for a in gpu.recording.allocations() if a.operator == "cudnn_convolution"]
    assert scratch == [4 * (4 * 16 * 34 * 34 + 32 * 16 * 9 + 4 * 32 * 32 * 32)]


@pytest.mark.parametrize(("layer", "gates", "reserved"), [(nn.LSTM, 4, 6), (nn.GRU, 3, 5)])
def test_recurrent_layers_go_through_cudnn(layer: type[nn.RNNBase], gates: int, reserved: int) -> None:
    """Weights lie in one buffer, and a reserve is kept for the backward pass."""
    size, steps, batch = 128, 16, 8
    with VirtualGPU("a100-sxm-80gb", workspaces=False) as gpu:
        model = layer(size, size, 2).cuda()
        weights = 2 * gates * size * (2 * size + 2) * 4
        assert torch.cuda.memory_allocated() == weights
        out, _ = model(torch.randn(steps, batch, size, device="cuda"))
        held = {a.operator: a.num_bytes for a in gpu.recording.allocations() if a.death is None}
        assert steps * batch * size * 2 * reserved * 4 in [
            a.num_bytes for a in gpu.recording.allocations() if a.operator == "aten._cudnn_rnn.default"
        ]
        out.sum().backward()
        assert model.weight_hh_l0.grad is not None
    assert held


def test_optimizers_default_to_foreach() -> None:
    """On CUDA AdamW handles all parameters at once: its denominators live together; one by one they would not."""

    def peak(**options: bool) -> int:
        with VirtualGPU("a100-sxm-80gb", workspaces=False) as gpu:
            parameters = [nn.Parameter(torch.randn(FEATURES, FEATURES, device="cuda")) for _ in range(4)]
            for each in parameters:
                each.grad = torch.randn_like(each)
            torch.optim.AdamW(parameters, **options).step()
        return gpu.report().requested_peak_bytes // (4 * MIB)

    assert peak() == peak(foreach=True) == 4 * 4 + 4
    assert peak(foreach=False) == 4 * 4 + 3  # a root, its quotient, and the last parameter's denominator
    assert peak(fused=True) == 4 * 4


def test_fused_steps_lie_on_the_device() -> None:
    """A fused optimizer keeps each parameter's step count on the device, in a block of its own."""
    with VirtualGPU("a100-sxm-80gb") as gpu:
        parameters = [nn.Parameter(torch.randn(FEATURES, device="cuda")) for _ in range(3)]
        for each in parameters:
            each.grad = torch.randn_like(each)
        torch.optim.Adam(parameters, fused=True).step()
    assert [a.num_bytes for a in gpu.recording.allocations() if a.num_bytes == 4] == [4, 4, 4]


def test_clipping_takes_all_norms_at_once() -> None:
    """``clip_grad_norm_`` uses the foreach norm, whose kernel takes a number per chunk of the largest tensor."""
    with VirtualGPU("a100-sxm-80gb") as gpu:
        parameters = [nn.Parameter(torch.randn(FEATURES, FEATURES, device="cuda")) for _ in range(2)]
        for each in parameters:
            each.grad = torch.randn_like(each)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    scratch = [a.num_bytes for a in gpu.recording.allocations() if a.operator == "foreach_norm"]
    assert scratch == [2 * math.ceil(FEATURES * FEATURES / (64 * KIB)) * 4]


def test_gradient_scaling_steps_and_updates() -> None:
    """Gradients count as finite, so that the optimizer is not skipped and makes its state."""
    with VirtualGPU("a100-sxm-80gb") as gpu:
        model = nn.Linear(FEATURES, 10).cuda()
        optimizer, scaler = torch.optim.AdamW(model.parameters()), torch.amp.GradScaler("cuda")
        for _ in range(2):
            with torch.autocast("cuda", dtype=torch.float16):
                loss = F.cross_entropy(model(torch.randn(8, FEATURES, device="cuda")), torch.arange(8, device="cuda"))
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        assert len(optimizer.state) == 2
    assert gpu.report().steps[-1].name == "1"

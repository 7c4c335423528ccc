"""What ``torch.autocast("cuda")`` does to an operator's tensors, which real autocast does not do to ours.

Source of the lists and of the rules: pytorch/pytorch:aten/src/ATen/autocast_mode.h (``AT_FORALL_LOWER_PRECISION_FP``,
``AT_FORALL_FP32``, ``AT_FORALL_FP32_SET_OPT_DTYPE``, ``AT_FORALL_PROMOTE``) and autocast_mode.cpp (``cached_cast``,
``cat``, ``stack``); they also stand in the documentation, "CUDA Ops that can autocast to float16".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch.utils._pytree import tree_map_only


class Policy(Enum):
    """Which type an operator's floating-point tensors are cast to."""

    LOWER = "lower precision"
    FLOAT32 = "float32"
    FLOAT32_RESULT = "float32 result"
    """Not the tensor is cast, but ``dtype=float32`` is asked for."""
    WIDEST = "widest"


_LOWER = (
    "_convolution conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d conv_transpose3d convolution prelu "
    "addmm addmv addr matmul einsum mm mv vecdot linear addbmm baddbmm bmm chain_matmul multi_dot lstm_cell gru_cell "
    "rnn_tanh_cell rnn_relu_cell scaled_dot_product_attention __matmul__ bilinear"
)
_FLOAT32 = (
    "acos arccos asin arcsin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan pow float_power "
    "softplus layer_norm native_layer_norm group_norm frobenius_norm nuclear_norm cosine_similarity "
    "poisson_nll_loss cosine_embedding_loss nll_loss nll_loss_nd nll_loss2d hinge_embedding_loss kl_div l1_loss "
    "smooth_l1_loss huber_loss mse_loss margin_ranking_loss multilabel_margin_loss soft_margin_loss "
    "triplet_margin_loss multi_margin_loss binary_cross_entropy_with_logits dist pdist cdist renorm logsumexp "
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d "
    "upsample_trilinear3d upsample_bicubic2d _upsample_nearest_exact1d _upsample_nearest_exact2d "
    "_upsample_nearest_exact3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa __pow__ __rpow__"
)
_FLOAT32_RESULT = "prod softmax log_softmax cumprod cumsum vector_norm matrix_norm sum norm linalg_vector_norm"
_WIDEST = "addcdiv addcmul atan2 cross dot vdot grid_sampler index_put tensordot scatter_add cat stack concat"
RMS_NORM_SINCE = (2, 8)
"""``rms_norm`` joined the float32 list after 2.7: it stands in the header of 2.13, not in that of 2.6."""


def policies(torch_version: tuple[int, int]) -> dict[Callable[..., Any], Policy]:
    """Return the policy of every function of PyTorch's Python surface that has one."""
    names = {
        Policy.LOWER: _LOWER,
        Policy.FLOAT32: _FLOAT32 + (" rms_norm" if torch_version >= RMS_NORM_SINCE else ""),
        Policy.FLOAT32_RESULT: _FLOAT32_RESULT,
        Policy.WIDEST: _WIDEST,
    }
    return {func: policy for policy, words in names.items() for name in words.split() for func in _spelt(name)}


def _spelt(name: str) -> Iterator[Callable[..., Any]]:
    """Yield the functions and methods of one name; those in Python call them, and are no place to cast at."""
    for home in (torch, torch.Tensor, torch._C._nn, torch._C._linalg, torch._C._VariableFunctions, F):
        for spelling in {name, f"linalg_{name}"}:
            func = getattr(home, spelling, None)
            if func is not None and not hasattr(func, "__code__"):
                yield func


class Autocast:
    """Casts as CUDA's autocast does, and keeps low-precision copies of leaf weights until the region ends."""

    def __init__(self, torch_version: tuple[int, int]) -> None:
        """Begin with an empty cache."""
        self.policies = policies(torch_version)
        self._cache: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def clear(self) -> None:
        """Forget the copies, as leaving the outermost region does."""
        self._cache.clear()

    def apply(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments as autocast would hand them on."""
        policy = self.policies.get(func)
        if policy is None:
            return (args, kwargs) if func is not torch._C._nn.cross_entropy_loss else (self._loss(args), kwargs)
        if policy is Policy.FLOAT32_RESULT:
            return args, self._float32_result(func, args, kwargs)
        if policy is Policy.LOWER:
            target = torch.get_autocast_dtype("cuda")
        elif policy is Policy.FLOAT32:
            target = torch.float32
        else:
            target = self._widest((args, kwargs))

        def cast(tensor: torch.Tensor) -> torch.Tensor:
            return self._cast(tensor, target)

        return tree_map_only(torch.Tensor, cast, args), tree_map_only(torch.Tensor, cast, kwargs)

    def _loss(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Cast what ``cross_entropy`` takes: the ``log_softmax`` inside it is of the float32 list."""
        return (self._cast(args[0], torch.float32), *args[1:])

    def _float32_result(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        first = args[0] if args else kwargs.get("input")
        if not isinstance(first, torch.Tensor) or not _eligible(first) or first.dtype == torch.float32:
            return kwargs
        if kwargs.get("dtype") is not None or any(isinstance(a, torch.dtype) for a in args):
            return kwargs
        return {**kwargs, "dtype": torch.float32}

    def _widest(self, values: Any) -> torch.dtype:
        widest = torch.get_autocast_dtype("cuda")

        def look(tensor: torch.Tensor) -> None:
            nonlocal widest
            if _eligible(tensor) and tensor.dtype == torch.float32:
                widest = torch.float32

        tree_map_only(torch.Tensor, look, values)
        return widest

    def _cast(self, tensor: torch.Tensor, target: torch.dtype) -> torch.Tensor:
        if not _eligible(tensor) or tensor.dtype == target:
            return tensor
        leaf = tensor.is_leaf and tensor.requires_grad and not tensor._is_view()
        if not (leaf and tensor.dtype == torch.float32 and torch.is_autocast_cache_enabled()):
            return tensor.to(target)
        if target != torch.get_autocast_dtype("cuda"):
            return tensor.to(target)
        found = self._cache.get(id(tensor))
        if found is None:
            found = self._cache[id(tensor)] = (tensor, tensor.to(target))
        return found[1]


def _eligible(tensor: torch.Tensor) -> bool:
    return tensor.is_meta and tensor.is_floating_point() and tensor.dtype != torch.float64

"""The matrices of a block as its tensors show them: which train, which have biases, adapters or a packed format."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from vramfit.formats import Role, StorageFormat
from vramfit.spec import Tensor

NAMES: dict[str, tuple[str, ...]] = {
    "query": ("q_proj", "q", "query", "wq", "q_lin", "query_proj", "to_q", "q_attn"),
    "key": ("k_proj", "k", "key", "wk", "k_lin", "key_proj", "to_k"),
    "value": ("v_proj", "v", "value", "wv", "v_lin", "value_proj", "to_v"),
    "query_key_value": ("qkv_proj", "query_key_value", "c_attn", "Wqkv", "qkv", "W_pack", "in_proj_qkv"),
    "attention output": (
        "o_proj", "out_proj", "wo", "attention.output.dense", "self_attention.dense", "attention.dense", "attn.c_proj",
        "out_lin", "attn.proj", "attn.Wo", "SelfAttention.o", "o",
    ),
    "gate": ("gate_proj", "w1", "wi_0", "linear_fc1_gate"),
    "up": (
        "up_proj", "w3", "wi_1", "fc1", "mlp.c_fc", "c_fc", "dense_h_to_4h", "intermediate.dense", "wi", "lin1",
        "fc_in", "ffn.lin1",
    ),
    "gate_up": ("gate_up_proj", "gate_and_up_proj", "Wi", "w13", "w12"),
    "down": (
        "down_proj", "w2", "fc2", "mlp.c_proj", "dense_4h_to_h", "output.dense", "DenseReluDense.wo", "lin2", "fc_out",
        "mlp.Wo",
    ),
    "query down": ("q_a_proj", "wq_a", "q_down_proj"),
    "query up": ("q_b_proj", "wq_b", "q_up_proj"),
    "latent down": ("kv_a_proj_with_mqa", "wkv_a", "kv_down_proj"),
    "latent up": ("kv_b_proj", "wkv_b", "kv_up_proj"),
    "router": ("gate", "router", "mlp.gate"),
    "in": ("in_proj", "in_proj_qkvz"),
    "out": ("out_proj",),
}  # fmt: skip
"""What checkpoints call the matrices of a block, by what they do; the first that is there is meant."""
LORA_A, LORA_B = "lora_A", "lora_B"


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """What decides how a linear layer is written, beside its size."""

    bias: bool = False
    trains: bool = True
    bias_trains: bool = True
    rank: int = 0
    """Of the adapter beside it; 0 = there is none."""
    adapter_each: int = 4
    """Bytes of an element of the adapter. [B]"""
    magnitude: bool = False
    """The adapter has a magnitude for every output (DoRA)."""
    packed: bool = False
    """Stored in a quantised format: every use unpacks it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrices:
    """The matrices of one block, by what they do."""

    tensors: tuple[Tensor, ...]
    found: dict[str, Matrix] = field(default_factory=dict, compare=False)

    def __getitem__(self, use: str) -> Matrix:
        """Return the matrix of that use; one that no name tells trains where the block's matrices do."""
        if use not in self.found:
            self.found[use] = _find(self.tensors, use)
        return self.found[use]

    def has(self, use: str) -> bool:
        """Say whether a tensor of that use is there."""
        return _named(self.tensors, use) is not None


def _named(tensors: tuple[Tensor, ...], use: str) -> str | None:
    for name in NAMES[use]:
        for tensor in tensors:
            base = tensor.name.removesuffix(".weight")
            if tensor.role is not Role.ADAPTER and (base == name or base.endswith("." + name)):
                return base
    return None


def _find(tensors: tuple[Tensor, ...], use: str) -> Matrix:
    base = _named(tensors, use)
    if base is None:
        matrices = [t for t in tensors if t.role in {Role.LINEAR, Role.EXPERT}]
        return Matrix(trains=any(not t.frozen for t in matrices), packed=any(_is_packed(t.held) for t in matrices))
    return matrix_of(tensors, base)


def projection(tensors: tuple[Tensor, ...]) -> Matrix:
    """Return the output projection among the tensors of a model's end, or the tied embedding in its place."""
    found = [t for t in tensors if t.role in {Role.HEAD, Role.EMBEDDING}]
    if not found:
        return Matrix(trains=any_trains(t for t in tensors if len(t.shape) > 1), bias=False)
    head = next((t for t in found if t.role is Role.HEAD), found[0])
    return matrix_of(tensors, head.name.removesuffix(".weight"))


def matrix_of(tensors: tuple[Tensor, ...], base: str) -> Matrix:
    """Return what decides how the layer of that name is written."""
    weight = next(t for t in tensors if t.name in {base, f"{base}.weight"})
    bias = next((t for t in tensors if t.name in {f"{base}.bias", f"{base}_bias"} and t.role is Role.BIAS), None)
    first = next((t for t in tensors if t.name.startswith(f"{base}.{LORA_A}")), None)
    whole = any(t.name.startswith(base) and t.name.endswith("modules_to_save") for t in tensors)
    return Matrix(
        bias=bias is not None,
        trains=not weight.frozen or whole,
        bias_trains=bias is not None and not bias.frozen,
        rank=first.shape[-2] if first is not None else 0,
        adapter_each=first.held.block_bytes if first is not None and first.held is not None else 4,
        magnitude=any(t.name.startswith(f"{base}.lora_magnitude") for t in tensors),
        packed=_is_packed(weight.held),
    )


def _is_packed(held: StorageFormat | None) -> bool:
    return held is not None and not held.is_plain


def any_trains(tensors: Iterable[Tensor]) -> bool:
    """Say whether any of these tensors is trained."""
    return any(not t.frozen and not t.buffer for t in tensors)

"""What each kind of adapter adds to one module of the base model: names and shapes of its tensors.

Source: huggingface/peft:src/peft/tuners/<kind>/layer.py, update_layer, unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import isqrt

from vramfit.errors import InvalidValueError, UnsupportedModelError
from vramfit.formats import Role
from vramfit.readers.adapter_targets import Module, by_pattern, texts
from vramfit.readers.fields import Fields
from vramfit.spec import Tensor

Shapes = Iterator[tuple[str, tuple[int, ...]]]
LARGEST_RANK = 65536


def rank_of(config: Fields, module: Module, field: str = "r") -> int:
    """Return the rank for a module: that of ``rank_pattern`` where it names the module.

    Raises:
        InvalidValueError: not a rank.
    """
    special = by_pattern(config, "rank_pattern", module.key)
    if special is None:
        return config.integer(field, 8, largest=LARGEST_RANK)
    if isinstance(special, bool) or not isinstance(special, int) or not 1 <= special <= LARGEST_RANK:
        raise InvalidValueError(config.at("rank_pattern"), special, f"ranks from 1 to {LARGEST_RANK}")
    return special


def lora(config: Fields, module: Module) -> Shapes:
    """Low rank: two matrices; DoRA adds a magnitude per output, ``lora_bias`` a bias."""
    rank = rank_of(config, module)
    if module.role is Role.EMBEDDING:
        yield "lora_embedding_A", (rank, module.inputs)
        yield "lora_embedding_B", (module.outputs, rank)
    else:
        yield "lora_A.weight", (rank, module.inputs)
        yield "lora_B.weight", (module.outputs, rank)
    if config.flag("lora_bias", default=False):
        yield "lora_B.bias", (module.outputs,)
    if config.flag("use_dora", default=False):
        yield "lora_magnitude_vector", (module.outputs,)


def adalora(config: Fields, module: Module) -> Shapes:
    """Low rank with singular values, at the rank before training has cut it."""
    rank = config.integer("init_r", 12, largest=LARGEST_RANK)
    yield "lora_A", (rank, module.inputs)
    yield "lora_B", (module.outputs, rank)
    yield "lora_E", (rank, 1)


def ia3(config: Fields, module: Module) -> Shapes:
    """One factor per output; per input in the modules of ``feedforward_modules``."""
    names = texts(config, "feedforward_modules")
    is_last = module.key in names or module.key.endswith(tuple(f".{name}" for name in names))
    yield "ia3_l", (1, module.inputs) if is_last else (module.outputs, 1)


def vera(config: Fields, module: Module) -> Shapes:
    """Two vectors; the random matrices are shared by all modules."""
    yield "vera_lambda_b", (module.outputs,)
    yield "vera_lambda_d", (config.integer("r", 256, largest=LARGEST_RANK),)


def loha(config: Fields, module: Module) -> Shapes:
    """Product of two low-rank products, element by element."""
    rank = rank_of(config, module)
    for number in (1, 2):
        yield f"hada_w{number}_a", (module.outputs, rank)
        yield f"hada_w{number}_b", (rank, module.inputs)


def lokr(config: Fields, module: Module) -> Shapes:
    """Kronecker product of a small matrix and a larger, low-rank one where that is smaller."""
    rank, factor = rank_of(config, module), config.values.get("decompose_factor", -1)
    if not isinstance(factor, int) or not -1 <= factor <= LARGEST_RANK or factor == 0:
        raise InvalidValueError(config.at("decompose_factor"), factor, "-1 or a positive integer")
    (out_a, out_b), (in_a, in_b) = _factors(module.outputs, factor), _factors(module.inputs, factor)
    if config.flag("decompose_both", default=False) and 2 * rank < max(out_a, in_a):
        yield "lokr_w1_a", (out_a, rank)
        yield "lokr_w1_b", (rank, in_a)
    else:
        yield "lokr_w1", (out_a, in_a)
    if 2 * rank < max(out_b, in_b):
        yield "lokr_w2_a", (out_b, rank)
        yield "lokr_w2_b", (rank, in_b)
    else:
        yield "lokr_w2", (out_b, in_b)


def _factors(size: int, factor: int) -> tuple[int, int]:
    """Return two factors of a size, the smaller first: the divisor itself, or the pair nearest to the square root.

    >>> _factors(128, -1), _factors(127, -1), _factors(128, 4)
    ((8, 16), (1, 127), (4, 32))
    """
    if factor > 0 and size % factor == 0:
        return factor, size // factor
    limit = isqrt(size) if factor == -1 else min(isqrt(size), factor)
    first = next(n for n in range(limit, 0, -1) if size % n == 0)
    return first, size // first


def oft(config: Fields, module: Module) -> Shapes:
    """Rotations of blocks of the inputs: as many numbers as a block has pairs."""
    blocks, size = _number(config, "r"), _number(config, "oft_block_size")
    if (blocks == 0) == (size == 0):
        raise InvalidValueError(config.at("r"), blocks, "r or oft_block_size, the other being 0")
    if blocks == 0:
        size = _divisor(module.inputs, size)
        blocks = module.inputs // size
    else:
        blocks = _divisor(module.inputs, blocks)
        size = module.inputs // blocks
    if config.flag("block_share", default=False):
        blocks = 1
    yield "oft_R.weight", (blocks, size * (size - 1) // 2)


def _number(config: Fields, name: str) -> int:
    return config.integer(name, smallest=0) if config.has(name) else 0


def _divisor(size: int, wanted: int) -> int:
    """Return the divisor of a size that is nearest to the wanted number, the smaller of two."""
    if wanted >= size:
        return size
    higher = next(n for n in range(wanted, size + 1) if size % n == 0)
    lower = next(n for n in range(wanted, 0, -1) if size % n == 0)
    return lower if wanted - lower <= higher - wanted else higher


def boft(config: Fields, module: Module) -> Shapes:
    """Rotations of blocks in a butterfly of several stages, and a factor per output."""
    size, blocks = _number(config, "boft_block_size"), _number(config, "boft_block_num")
    if (blocks == 0) == (size == 0) or module.inputs % (size or blocks):
        raise InvalidValueError(
            config.at("boft_block_size"), size or blocks, f"a divisor of {module.inputs}, boft_block_num being 0"
        )
    size, blocks = size or module.inputs // blocks, blocks or module.inputs // size
    stages = config.integer("boft_n_butterfly_factor", 1, largest=64)
    yield "boft_R", (stages, blocks, size, size)
    yield "boft_s", (module.outputs, 1)


KINDS: dict[str, Callable[[Fields, Module], Shapes]] = {
    "LORA": lora,
    "ADALORA": adalora,
    "IA3": ia3,
    "VERA": vera,
    "LOHA": loha,
    "LOKR": lokr,
    "OFT": oft,
    "BOFT": boft,
}


def fused_experts(config: Fields, name: str, rank: int, shape: tuple[int, int]) -> tuple[Tensor, ...]:
    """Return LoRA on a parameter that holds all experts: the rank of all experts in one pair of matrices.

    Source: huggingface/peft:src/peft/tuners/lora/layer.py, ParamWrapper.update_layer.
    """
    if config.flag("use_dora", default=False) or config.flag("lora_bias", default=False):
        raise UnsupportedModelError(
            f"{config.at('target_parameters')}: with use_dora or lora_bias: not possible in peft"
        )
    return (
        Tensor(name=f"{name}.lora_A.weight", shape=(rank, shape[0]), role=Role.LINEAR),
        Tensor(name=f"{name}.lora_B.weight", shape=(shape[1], rank), role=Role.LINEAR),
    )

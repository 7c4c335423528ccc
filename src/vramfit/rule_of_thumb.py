"""The widely quoted rules, kept honest: each step shown, what it ignores, and where pages go wrong.

They start from a parameter count and a bit width, speak GB = 10**9 bytes, and know nothing of the
model. Where a model is named, the derived answer stands beside them and wins.
"""

from __future__ import annotations

from vramfit.errors import InvalidValueError
from vramfit.rule import Rule, Step
from vramfit.units import ceil_div, check_size, gb

BITS = (4, 8, 16, 32)
OPTIMIZERS = ("adamw", "sgd", "sgd-momentum")
SERVING_SOURCE = "M = P x 4 B / (32 / Q) x 1.2, quoted by many pages on serving; 20 % for everything but weights"
TRAINING_SOURCE = "training = 4 x inference: weights, gradients and Adam's two moments, all of one width"
STATES_SOURCE = "ZeRO, arXiv:1910.02054, sec. 3.1, with one width for all states"
ADAPTER_SOURCE = "LoRA, arXiv:2106.09685; QLoRA, arXiv:2305.14314"

IGNORED_SERVING = (
    "the KV cache: it grows with context and batch, and can exceed the weights",
    "activations and logits, which do not shrink with the bit width",
    "that embeddings, output projection and norms usually stay in 16 bit, and scales of quantised formats",
    "the CUDA context, and that a card reports less than its marketing size",
)
IGNORED_TRAINING = (
    "activations: they grow with batch and sequence and are often the largest part",
    "the loss head's fp32 logits, the optimizer's temporary copies",
    "the recipe: mixed precision keeps fp32 masters beside 16-bit weights",
    "sharding over devices, which divides states but not activations",
)


def _checked(parameters: int, bits: int) -> int:
    """Return the bytes of that many parameters of that width; half a byte is rounded up at the end."""
    check_size(parameters, "parameters")
    if bits not in BITS:
        raise InvalidValueError("--bits", bits, f"one of {', '.join(map(str, BITS))}")
    return ceil_div(parameters * bits, 8)


def weights_rule(parameters: int, bits: int) -> Rule:
    """Bytes of the weights: 4, 2, 1 or 0.5 per parameter. [B]

        parameters * bits / 8

    >>> weights_rule(13_000_000_000, 8).result_bytes
    13000000000
    """
    size = _checked(parameters, bits)
    step = Step("weights", f"{parameters:,} parameters x {bits / 8:g} B", size)
    return Rule(name="weights", steps=(step,), source=f"{bits} bits = {bits / 8:g} bytes", ignores=IGNORED_SERVING)


def serving_rule(parameters: int, bits: int) -> Rule:
    """Memory to serve a model. [B]

        M = parameters * 4 B / (32 / bits) * 1.2

    >>> serving_rule(70_000_000_000, 16).result_bytes
    168000000000
    """
    size = _checked(parameters, bits)
    full = 4 * parameters
    steps = (
        Step("in fp32", f"{parameters:,} parameters x 4 B", full),
        Step(f"at {bits} bits", f"{gb(full)} / (32 / {bits})", size),
        Step("with 20 % on top", f"{gb(size)} x 1.2", _with_margin(size, 20)),
    )
    return Rule(name="serving", steps=steps, source=SERVING_SOURCE, ignores=IGNORED_SERVING)


def _with_margin(size: int, percent: int) -> int:
    return ceil_div(size * (100 + percent), 100)


def training_rule(parameters: int, bits: int) -> Rule:
    """Memory to train: four times the weights. [B]

    The factor already holds gradients (1) and Adam's two moments (2).

    >>> training_rule(7_000_000_000, 32).result_bytes
    112000000000
    """
    size = _checked(parameters, bits)
    steps = (
        Step("weights", f"{parameters:,} parameters x {bits / 8:g} B", size),
        Step("training", f"{gb(size)} x 4", 4 * size),
    )
    return Rule(name="training, 4 x inference", steps=steps, source=TRAINING_SOURCE, ignores=IGNORED_TRAINING)


def states_rule(parameters: int, bits: int, optimizer: str = "adamw") -> Rule:
    """Memory of weights, gradients and optimizer states. [B]

        weights P + gradients P + states: AdamW 2 P, SGD with momentum P, plain SGD nothing

    Pages quote "SGD: P"; that is the momentum. Plain SGD keeps no state.

    >>> states_rule(1_000_000_000, 32, "sgd").result_bytes
    8000000000
    """
    size = _checked(parameters, bits)
    copies = {"adamw": 2, "sgd-momentum": 1, "sgd": 0}
    if optimizer not in copies:
        raise InvalidValueError("--optimizer", optimizer, f"one of {', '.join(OPTIMIZERS)}")
    states = copies[optimizer] * size
    steps = (
        Step("weights", f"{parameters:,} parameters x {bits / 8:g} B", size),
        Step("gradients", "as many as parameters", size),
        Step(f"{optimizer} states", f"{copies[optimizer]} x {gb(size)}", states),
        Step("together", f"{gb(size)} + {gb(size)} + {gb(states)}", 2 * size + states),
    )
    return Rule(name=f"training states, {optimizer}", steps=steps, source=STATES_SOURCE, ignores=IGNORED_TRAINING)


def margin_rule(size: int) -> Rule:
    """Margin of 10 to 20 %, as pages advise. [B]

    >>> [step.bytes for step in margin_rule(100).steps]
    [110, 120]
    """
    steps = tuple(Step(f"{p} % more", f"{gb(size)} x 1.{p // 10}", _with_margin(size, p)) for p in (10, 20))
    ignores = ("what it is a margin for: name the part instead, or set --headroom",)
    return Rule(name="margin", steps=steps, source="advice of many pages", ignores=ignores)


def batch_rule(bytes_per_sample: int, samples: int) -> Rule:
    """Memory that grows with the batch. [B]

    >>> batch_rule(50 * 10**6, 32).result_bytes
    1600000000
    """
    check_size(bytes_per_sample, "bytes per sample")
    check_size(samples, "samples")
    step = Step("batch", f"{bytes_per_sample / 10**6:,g} MB x {samples:,} samples", bytes_per_sample * samples)
    ignores = ("what one sample costs: it depends on the sequence length, the model and the phase",)
    return Rule(name="batch", steps=(step,), source="proportion", ignores=ignores)


def lora_rule(parameters: int, bits: int, trainable: int) -> Rule:
    """Memory of LoRA: a frozen base, and 16 B of fp32 weights, gradients and Adam moments per trainable parameter. [B]

    >>> lora_rule(7_000_000_000, 16, 20_000_000).result_bytes
    14320000000
    """
    base = _checked(parameters, bits)
    check_size(trainable, "trainable")
    steps = (
        Step("frozen base", f"{parameters:,} parameters x {bits / 8:g} B", base),
        Step(
            "adapters",
            f"{trainable:,} trainable parameters x 16 B (fp32 weights, gradients, two moments)",
            16 * trainable,
        ),
        Step("together", f"{gb(base)} + {gb(16 * trainable)}", base + 16 * trainable),
    )
    ignores = ("activations, which LoRA hardly reduces: frozen layers still pass gradients", "the loss head")
    return Rule(name="LoRA" if bits > 8 else "QLoRA", steps=steps, source=ADAPTER_SOURCE, ignores=ignores)


TYPICAL_TRAINABLE_DIVISOR = 400
"""Trainable share taken when none is named, 0.25 %: rank 16 on all projections of an 8B Llama trains 0.5 %,
on query and value alone 0.1 %. Say --trainable to replace it."""


def fp8_divided_twice(parameters: int) -> Rule:
    """The mistake behind "70B in FP8 = 21 GB": one byte per weight divided by 4 once more. [B]

    >>> fp8_divided_twice(70_000_000_000).result_bytes
    21000000000
    """
    once = _checked(parameters, 8)
    twice = once // 4
    steps = (
        Step("at 8 bits", f"{parameters:,} parameters x 1 B", once),
        Step("divided again", f"{gb(once)} / (32 / 8)", twice),
        Step("with 20 % on top", f"{gb(twice)} x 1.2", _with_margin(twice, 20)),
    )
    right = serving_rule(parameters, 8).result_bytes
    mistake = (
        f"one byte per weight is already the 8-bit size; dividing by 32 / 8 starts from fp32. The rule says {gb(right)}"
    )
    return Rule(name="FP8 divided twice", steps=steps, source="seen on several pages", ignores=(), mistake=mistake)


def double_counted_training(parameters: int, bits: int) -> Rule:
    """The mistake of adding gradients and states to a factor 4 that already holds them. [B]

    >>> double_counted_training(13_000_000_000, 32).steps[-2].bytes
    364000000000
    """
    size = _checked(parameters, bits)
    total = 4 * size + size + 2 * size
    steps = (
        Step("weights", f"{parameters:,} parameters x {bits / 8:g} B", size),
        Step("training", f"{gb(size)} x 4", 4 * size),
        Step("gradients added", f"+ {gb(size)}", size),
        Step("AdamW states added", f"+ {gb(2 * size)}", 2 * size),
        Step("together", f"{gb(4 * size)} + {gb(size)} + {gb(2 * size)}", total),
        Step("with 20 % on top", f"{gb(total)} x 1.2", _with_margin(total, 20)),
    )
    mistake = (
        f"the factor 4 is weights + gradients + two moments; adding {gb(3 * size)} counts gradients and states twice. "
        f"The rule itself says {gb(4 * size)}, with 20 % {gb(_with_margin(4 * size, 20))}; activations are in neither"
    )
    return Rule(
        name="gradients and states counted twice",
        steps=steps,
        source="a worked example on many pages",
        ignores=(),
        mistake=mistake,
    )


def cards_needed(size: int, capacity_bytes: int) -> int:
    """Return how many cards a rule's figure fills.

    "2 x A100-80GB is enough for 168 GB" contradicts the rule's own measure: two cards of 80 GB hold 160 GB.
    What the driver reports is 84.99 GB a card, so two hold 169.97 GB, 1 % more than the figure.

    >>> cards_needed(168 * 10**9, 80 * 10**9), cards_needed(168 * 10**9, 84_986_665_370)
    (3, 2)
    """
    check_size(capacity_bytes, "capacity")
    return ceil_div(size, capacity_bytes)


def all_rules(
    parameters: int, bits: int, *, training: bool = False, optimizer: str = "adamw", trainable: int | None = None
) -> tuple[Rule, ...]:
    """Return the rules for serving, or for training, and the known mistakes that belong to them."""
    if not training:
        rules = [weights_rule(parameters, bits), serving_rule(parameters, bits)]
        return (*rules, fp8_divided_twice(parameters)) if bits == 8 else tuple(rules)
    some = max(1, parameters // TYPICAL_TRAINABLE_DIVISOR) if trainable is None else trainable
    return (
        training_rule(parameters, bits),
        states_rule(parameters, bits, optimizer),
        margin_rule(states_rule(parameters, bits, optimizer).result_bytes),
        lora_rule(parameters, 16, some),
        lora_rule(parameters, 4, some),
        double_counted_training(parameters, bits),
    )

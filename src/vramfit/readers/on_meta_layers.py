"""From names and shapes that transformers would save to layers, parts and roles: the second half of ``on_meta``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod

from vramfit.formats import Role
from vramfit.layer_kind import Attention, Dense, Experts, FeedForward
from vramfit.spec import Cut, Layer, Part, Tensor

NUMBERED = re.compile(r"^(.*?\.)(\d+)\.(.+)$")
EXPERT = re.compile(r"(^|\.)experts\.(\d+)\.")
WIDTHS = ("intermediate_size", "ffn_dim", "decoder_ffn_dim", "d_ff", "ffn_hidden_size", "n_inner", "encoder_ffn_dim")
CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts", "moe_top_k")


def number_of(numbers: Mapping[str, int], *names: str) -> int | None:
    """Return the first of these fields that is there."""
    return next((numbers[name] for name in names if name in numbers), None)


def main_stack(shapes: Mapping[str, tuple[int, ...]], cached: int, declared: int | None) -> tuple[str, int]:
    """Return prefix and length of the stack that decodes: the one as long as the cache, the heaviest of several."""
    sizes = _stacks(shapes)
    if not sizes:
        return "layers.", 0
    wanted = cached or declared

    def rank(prefix: str) -> tuple[bool, bool, int]:
        length, weight = sizes[prefix]
        return length == wanted, "decoder" in prefix, weight

    best = max(sizes, key=rank)
    return best, sizes[best][0]


def _stacks(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, int]]:
    """Return prefix -> (number of layers, elements) of everything that is numbered."""
    found: dict[str, tuple[set[int], int]] = {}
    for name, shape in shapes.items():
        match = NUMBERED.match(name)
        if match:
            numbers, weight = found.get(match[1], (set(), 0))
            found[match[1]] = (numbers | {int(match[2])}, weight + prod(shape))
    return {prefix: (max(numbers) + 1, weight) for prefix, (numbers, weight) in found.items()}


def numbered_below(name: str, prefix: str, count: int) -> bool:
    """Say whether a tensor belongs to one of the first ``count`` layers of a stack."""
    match = NUMBERED.match(name)
    return match is not None and match[1] == prefix and int(match[2]) < count


def other_stacks(
    shapes: Mapping[str, tuple[int, ...]], reader: Layers
) -> tuple[tuple[Part, ...], dict[str, tuple[int, ...]]]:
    """Return the other numbered stacks as parts, and what is in none."""
    parts = []
    for prefix, (count, _) in _stacks(shapes).items():
        layers = tuple(reader.layer(shapes, prefix, i) for i in range(count))
        name = prefix.removeprefix("model.").split(".")[0]
        parts.append(Part(name=name, layers=layers, layer_prefix=f"{prefix}{{layer}}.", resident=True))
    return tuple(parts), {name: shape for name, shape in shapes.items() if not NUMBERED.match(name)}


class Layers:
    """Turns names and shapes into tensors and layers; equal layers become one object."""

    def __init__(self, numbers: Mapping[str, int], plan: Mapping[str, str], buffers: frozenset[str]) -> None:
        """Keep the numbers of the configuration, its tensor-parallel plan, and the names of what is no parameter."""
        self._numbers, self._buffers = numbers, buffers
        self._kinds: dict[object, Layer] = {}
        self._plan = {re.sub(r"^.*\*\.", "", key): value for key, value in plan.items()}

    def layer(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        prefix: str,
        number: int,
        own: Attention | None = None,
        beside: Attention | None = None,
    ) -> Layer:
        """Return layer ``number`` of the stack that starts with ``prefix``."""
        before = f"{prefix}{number}."
        tensors = self._merged([self.tensor(n, s, before=before) for n, s in shapes.items() if n.startswith(before)])
        key = (own, beside, tensors)
        if key not in self._kinds:
            self._kinds[key] = Layer(
                attention=own,
                beside=beside,
                feed_forward=self._feed_forward(tensors),
                tensors=tensors,
            )
        return self._kinds[key]

    def tensor(self, full: str, shape: tuple[int, ...], *, before: str = "") -> Tensor:
        """Return one tensor, its role told by its name and shape."""
        name, experts = full.removeprefix(before), 0
        if len(shape) == 3 and "expert" in name:
            experts = shape[0]
        return Tensor(
            name=name,
            shape=shape,
            role=_role(name, shape, experts),
            cut=self._cut(name, shape),
            experts=experts,
            buffer=full in self._buffers,
        )

    def _cut(self, name: str, shape: tuple[int, ...]) -> Cut:
        """Return how transformers' own plan divides a tensor; what the plan does not name stays whole."""
        how = self._plan.get(name.removesuffix(".weight").removesuffix(".bias"), "")
        if how == "colwise":
            return Cut.OUTPUTS
        return Cut.INPUTS if how == "rowwise" and len(shape) == 2 else Cut.WHOLE

    @staticmethod
    def _merged(tensors: list[Tensor]) -> tuple[Tensor, ...]:
        """Put the numbered experts of a layer together, as copies of one tensor."""
        merged: dict[tuple[str, tuple[int, ...]], Tensor] = {}
        for t in tensors:
            match = EXPERT.search(t.name)
            name = EXPERT.sub(r"\1experts.{expert}.", t.name) if match else t.name
            held = merged.get((name, t.shape))
            copies = held.copies + 1 if held else 1
            role = Role.EXPERT if match and len(t.shape) > 1 else t.role
            merged[name, t.shape] = Tensor(
                name=name, shape=t.shape, role=role, cut=t.cut, copies=copies,
                experts=copies if match else t.experts, buffer=t.buffer,
            )  # fmt: skip
        return tuple(merged.values())

    def _feed_forward(self, tensors: tuple[Tensor, ...]) -> FeedForward | None:
        """Return the network of a layer: how wide, and how many of it one token passes."""
        hidden = number_of(self._numbers, "hidden_size", "d_model", "n_embd") or 1
        expert = next((t for t in tensors if t.experts), None)
        if expert is not None:
            count = expert.experts
            chosen = number_of(self._numbers, *CHOSEN) or count
            inner = [d for d in expert.shape[-2:] if d != hidden]
            return Experts(
                num_experts=count,
                num_experts_per_tok=min(chosen, count),
                moe_intermediate_size=min(inner) if inner else hidden,
            )
        network = [
            t for t in tensors if len(t.shape) == 2 and not re.search(r"att|mixer|ssm|conv|norm", t.name.lower())
        ]
        if not network:
            return None
        width = number_of(self._numbers, *WIDTHS) or max(max(t.shape) for t in network)
        return Dense(intermediate_size=width, gated=any(re.search(r"gate|wi_1|w3", t.name) for t in network))


ROLES = (
    (r"bias$", Role.BIAS),
    (r"(embed|wte|wpe|shared$|position)", Role.EMBEDDING),
    (r"(lm_head|embed_out|output_projection|classifier|score)", Role.HEAD),
    (r"conv", Role.CONVOLUTION),
    (r"(^|\.)(router|gate)(\.|$)", Role.ROUTER),
)
"""Part of a name -> what a matrix of that name is for; the first that is found."""


def _role(name: str, shape: tuple[int, ...], experts: int) -> Role:
    """Return what a tensor is for, by its name and its number of axes."""
    last = name.removesuffix(".weight")
    if experts:
        return Role.EXPERT
    if len(shape) < 2:
        return Role.BIAS if last.endswith("bias") else Role.NORM
    named = next((role for pattern, role in ROLES if re.search(pattern, last)), Role.LINEAR)
    return Role.CONVOLUTION if len(shape) > 2 and named is Role.LINEAR else named

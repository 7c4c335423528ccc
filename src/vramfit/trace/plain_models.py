"""Builders that need PyTorch alone: perceptrons, recurrences, encoders, experts, a U-Net."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import gcd
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from vramfit.trace.case import Case, Inputs, Order, cross_entropy, squared_error


class Blocks(nn.Module):
    """Blocks one after another, each recomputed in backward if so asked."""

    def __init__(self, blocks: list[nn.Module], *, recompute: bool) -> None:
        """Keep the blocks."""
        super().__init__()
        self.blocks, self.recompute = nn.ModuleList(blocks), recompute

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run all of them."""
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.recompute and self.training else block(x)
        return x


def _recomputes(order: Order) -> bool:
    return order.workload.recompute == "full"


def mlp(order: Order, given: Mapping[str, Any]) -> Case:
    """Make a perceptron: ``depth`` layers of ``width``, ``classes`` outputs; ``norm``, ``dropout``, ``activation``."""
    width, classes = given.get("width", 1024), given.get("classes", 10)
    activation = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}[given.get("activation", "relu")]

    def block() -> nn.Module:
        parts: list[nn.Module] = [nn.Linear(width, width), activation()]
        if given.get("norm"):
            parts.insert(1, nn.LayerNorm(width))
        if given.get("dropout"):
            parts.append(nn.Dropout(given["dropout"]))
        return nn.Sequential(*parts)

    with order.as_default():
        body = Blocks([block() for _ in range(given.get("depth", 4))], recompute=_recomputes(order))
        model = nn.Sequential(body, nn.Linear(width, classes))
    make = partial(_classified, order, (order.batch, width), (order.batch,), classes)
    return Case(model=model, make_inputs=make, loss=cross_entropy)


def _classified(order: Order, shape: tuple[int, ...], labels: tuple[int, ...], classes: int) -> Inputs:
    return {"x": order.floats(*shape), "y": torch.randint(0, classes, labels)}


def cnn(order: Order, given: Mapping[str, Any]) -> Case:
    """Make a plain convolutional classifier: ``channels`` doubled at each of ``stages``, on ``image`` pixels."""
    channels, stages, image = given.get("channels", 64), given.get("stages", 3), given.get("image", 64)
    layers: list[nn.Module] = []
    before = 3
    with order.as_default():
        for stage in range(stages):
            after = channels << stage
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
            before = after
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10)]
        model = nn.Sequential(*layers, *head)
    make = partial(_classified, order, (order.batch, 3, image, image), (order.batch,), 10)
    return Case(model=model, make_inputs=make, loss=cross_entropy)


class Recurrent(nn.Module):
    """An embedding, an LSTM or GRU, and a head over the vocabulary."""

    def __init__(self, kind: str, vocabulary: int, hidden: int, layers: int, dropout: float) -> None:
        """Make the layers."""
        super().__init__()
        recurrence = {"lstm": nn.LSTM, "gru": nn.GRU}[kind]
        self.embed = nn.Embedding(vocabulary, hidden)
        self.body = recurrence(hidden, hidden, layers, batch_first=True, dropout=dropout)
        self.head = nn.Linear(hidden, vocabulary)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the logits of every position."""
        logits: torch.Tensor = self.head(self.body(self.embed(tokens))[0])
        return logits


def recurrent(order: Order, given: Mapping[str, Any]) -> Case:
    """Make a recurrent language model: ``kind`` lstm or gru, ``vocabulary``, ``hidden``, ``layers``, ``dropout``."""
    vocabulary = given.get("vocabulary", 10_000)
    with order.as_default():
        model = Recurrent(
            given.get("kind", "lstm"), vocabulary, given.get("hidden", 512), given.get("layers", 2),
            given.get("dropout", 0.0),
        )  # fmt: skip
    return Case(model=model, make_inputs=partial(_tokens, order, vocabulary), loss=cross_entropy)


def _tokens(order: Order, vocabulary: int) -> Inputs:
    shape = (order.batch, order.tokens)
    return {"x": torch.randint(0, vocabulary, shape), "y": torch.randint(0, vocabulary, shape)}


def encoder(order: Order, given: Mapping[str, Any]) -> Case:
    """Make a stack of ``nn.TransformerEncoderLayer``: ``width``, ``heads``, ``layers``, ``dropout``."""
    width = given.get("width", 512)
    with order.as_default():
        blocks: list[nn.Module] = [
            nn.TransformerEncoderLayer(
                width, given.get("heads", 8), 4 * width, given.get("dropout", 0.1), batch_first=True
            )
            for _ in range(given.get("layers", 6))
        ]
        model = nn.Sequential(Blocks(blocks, recompute=_recomputes(order)), nn.Linear(width, 10))
    shape = (order.batch, order.tokens)
    return Case(model=model, make_inputs=partial(_classified, order, (*shape, width), shape, 10), loss=cross_entropy)


class Experts(nn.Module):
    """Experts with places for a fixed number of tokens each, so that no size depends on data (Switch Transformer).

    Source: Fedus et al. 2021, arXiv:2101.03961, sec. 2.2.
    """

    def __init__(self, width: int, inner: int, count: int, chosen: int) -> None:
        """Make the gate and the experts."""
        super().__init__()
        self.chosen, self.count = chosen, count
        self.gate = nn.Linear(width, count, bias=False)
        self.rise = nn.Parameter(torch.randn(count, width, inner) * width**-0.5)
        self.fall = nn.Parameter(torch.randn(count, inner, width) * inner**-0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Each expert takes the tokens that want it most, as many as an even share."""
        tokens = x.reshape(-1, x.shape[-1])
        places = max(1, self.chosen * tokens.shape[0] // self.count)
        weights, rows = self.gate(tokens).softmax(-1).t().topk(places, dim=-1)
        taken = tokens[rows.reshape(-1)].view(self.count, places, -1)
        made = torch.bmm(functional.silu(torch.bmm(taken, self.rise)), self.fall) * weights.unsqueeze(-1)
        out = torch.zeros_like(tokens).index_add(0, rows.reshape(-1), made.reshape(-1, x.shape[-1]).to(tokens.dtype))
        return x + out.view_as(x)


def experts(order: Order, given: Mapping[str, Any]) -> Case:
    """Make a mixture of experts over tokens: ``width``, ``inner``, ``experts``, ``chosen``, ``layers``."""
    width, vocabulary = given.get("width", 512), given.get("vocabulary", 8192)
    with order.as_default():
        blocks: list[nn.Module] = [
            Experts(width, given.get("inner", 2048), given.get("experts", 8), given.get("chosen", 2))
            for _ in range(given.get("layers", 4))
        ]
        body = Blocks(blocks, recompute=_recomputes(order))
        model = nn.Sequential(nn.Embedding(vocabulary, width), body, nn.Linear(width, vocabulary, bias=False))
    return Case(model=model, make_inputs=partial(_tokens, order, vocabulary), loss=cross_entropy)


class Residual(nn.Module):
    """Two convolutions around a skip, with the time of diffusion added between them."""

    def __init__(self, before: int, after: int, time: int) -> None:
        """Make the layers."""
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(gcd(32, before), before), nn.SiLU(), nn.Conv2d(before, after, 3, 1, 1))
        self.time = nn.Linear(time, after)
        self.second = nn.Sequential(nn.GroupNorm(gcd(32, after), after), nn.SiLU(), nn.Conv2d(after, after, 3, 1, 1))
        self.skip = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """Return what both convolutions add to the input."""
        inner = self.first(x) + self.time(functional.silu(time))[:, :, None, None]
        out: torch.Tensor = self.second(inner) + self.skip(x)
        return out


class UNet(nn.Module):
    """The U-Net of diffusion models, without attention (Ho et al. 2020, arXiv:2006.11239, app. B)."""

    def __init__(self, channels: int, levels: int) -> None:
        """Make both halves."""
        super().__init__()
        time = 4 * channels
        widths = [channels * (1 << level) for level in range(levels)]
        self.time = nn.Sequential(nn.Linear(1, time), nn.SiLU(), nn.Linear(time, time))
        self.enter = nn.Conv2d(4, channels, 3, padding=1)
        self.down = nn.ModuleList(Residual(a, b, time) for a, b in zip([channels, *widths[:-1]], widths, strict=True))
        self.up = nn.ModuleList(
            Residual(a + b, b, time) for a, b in zip([widths[-1], *widths[:0:-1]], reversed(widths), strict=True)
        )
        self.leave = nn.Conv2d(channels, 4, 3, padding=1)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Return the noise that is seen in ``x``."""
        time, x, kept = self.time(t), self.enter(x), []
        for block in self.down:
            x = block(x, time)
            kept.append(x)
            x = functional.avg_pool2d(x, 2)
        for block, other in zip(self.up, reversed(kept), strict=True):
            x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
            x = block(torch.cat([x, other], dim=1), time)
        out: torch.Tensor = self.leave(x)
        return out


def unet(order: Order, given: Mapping[str, Any]) -> Case:
    """Make a U-Net that predicts noise: ``channels``, ``levels``, on latents of ``image`` x ``image``."""
    image = given.get("image", 64)
    with order.as_default():
        model = UNet(given.get("channels", 128), given.get("levels", 3))

    def make() -> Inputs:
        shape = (order.batch, 4, image, image)
        return {"x": order.floats(*shape), "t": order.floats(order.batch, 1), "y": order.floats(*shape)}

    return Case(model=model, make_inputs=make, loss=squared_error)

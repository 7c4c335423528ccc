"""The GGUF models of a repository side by side: what fits, and which is the largest that does."""

from __future__ import annotations

from vramfit.answer import answer
from vramfit.cli.gguf_files import margin_bytes, section
from vramfit.readers.gguf_files import GgufChoice
from vramfit.report.layout import render
from vramfit.request import Inference, Plan, Request

GIB = 2**30


def choice(label: str, gib: float, *, files: int = 1, projector: bool = False) -> GgufChoice:
    """Return a model of so many GiB."""
    names = tuple(f"m-{label}-{i}.gguf" for i in range(files))
    return GgufChoice(label=label, files=names, num_bytes=int(gib * GIB), projector=projector)


CHOICES = (choice("Q4_K_M", 4.6), choice("Q8_0", 8.0), choice("F16", 15.0, files=2), choice("F32", 30.0),
           choice("F16", 0.8, projector=True))  # fmt: skip


def asked(device: str | None, plan: Plan | None = None) -> Request:
    """Return a question about Llama 3.1 8B in 4 bits."""
    workload = Inference(weight_format="gguf:Q4_K_M", context_tokens=4096)
    return Request(model="llama-3.1-8b", workload=workload, device=device, plan=plan or Plan())


def test_weights_are_exchanged_and_all_else_stays() -> None:
    """On one card the margin shrinks by what the file has more; on two by half of it."""
    one, two = answer(asked("l4")), answer(asked("l4", Plan(tp=2)))
    heavier = 8 * GIB - one.estimate.weights_bytes
    assert one.fit.margin_bytes - heavier == margin_bytes(CHOICES[1], one)
    assert two.fit.margin_bytes - (heavier + 1) // 2 == margin_bytes(CHOICES[1], two)


def test_the_largest_that_fits_is_suggested() -> None:
    """24 GiB hold the half-precision file in two parts, and not the full one."""
    shown = render((section(CHOICES, answer(asked("l4")), "org/name"),), 100)
    assert "The largest that fits: vramfit infer org/name:F16\n" in shown
    assert "2 files; fits," in shown
    assert "GiB short" in shown
    assert "projector, beside the model" in shown


def test_without_a_card_sizes_are_all_there_is() -> None:
    """No verdict, no suggestion; and none where nothing fits."""
    shown = render((section(CHOICES, answer(asked(None)), "org/name"),), 100)
    assert "fits" not in shown
    assert "m-Q8_0-0.gguf" in shown
    assert "None of them fits" in render((section(CHOICES[3:], answer(asked("l4")), "org/name"),), 100)

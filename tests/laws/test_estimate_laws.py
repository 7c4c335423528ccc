"""Laws that hold for every model: sums, monotony, arrays, phases."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vramfit.catalogue.model import ModelRow, all_models
from vramfit.errors import ImpossiblePlanError
from vramfit.estimate import estimate
from vramfit.request import Inference, Plan
from vramfit.result import Counter, Phase
from vramfit.source import read_model


def _kind(row: ModelRow) -> tuple[object, ...]:
    """Return what makes a row another case: its kind, and how it is quantised."""
    section = row.config.get("quantization_config")
    return row.config["model_type"], section.get("quant_method") if isinstance(section, Mapping) else None


ROWS = {_kind(row): row for row in all_models() if "model_type" in row.config}
MODELS = {row.name: read_model(row.config, name=row.name) for row in ROWS.values()}
NAMES = st.sampled_from(sorted(MODELS))
ENGINES = st.sampled_from(
    [("generic", None), ("transformers", "4.38.2"), ("transformers", "4.57.1"), ("transformers", None)]
)
TOKENS, BATCHES = st.integers(1, 200_000), st.integers(1, 512)


@settings(deadline=None, max_examples=60)
@given(NAMES, ENGINES, TOKENS, BATCHES, st.sampled_from(["flash", "eager"]))
def test_more_tokens_or_sequences_never_cost_less(
    name: str, engine: tuple[str, str | None], tokens: int, batch: int, attention: str
) -> None:
    """Peak bounds grow with the context and with the batch."""

    def peak(context: int, sequences: int) -> tuple[int, int, int]:
        workload = Inference(
            engine=engine[0], engine_version=engine[1], context_tokens=context, batch=sequences, attention=attention
        )
        total = estimate(MODELS[name], workload).worst.peak()
        return total.low_bytes, total.expected_bytes, total.high_bytes

    here = peak(tokens, batch)
    assert all(a <= b for a, b in zip(here, peak(tokens + 1, batch), strict=True))
    assert all(a <= b for a, b in zip(here, peak(tokens, batch + 1), strict=True))


@settings(deadline=None, max_examples=60)
@given(NAMES, ENGINES, TOKENS, BATCHES)
def test_the_peak_is_the_largest_phase_and_bounds_hold(
    name: str, engine: tuple[str, str | None], tokens: int, batch: int
) -> None:
    """Low <= expected <= high for every item; the peak is a maximum over phases; counters nest."""
    workload = Inference(engine=engine[0], engine_version=engine[1], context_tokens=tokens, batch=batch)
    for rank in estimate(MODELS[name], workload).breakdowns:
        assert all(0 <= i.low_bytes <= i.bytes <= i.high_bytes for i in rank.items)
        by_phase = [rank.total(p).expected_bytes for p in rank.phases]
        assert max(by_phase) == rank.peak().expected_bytes
        assert rank.total(rank.peak_phase).expected_bytes == max(by_phase)
        seen = [rank.peak(counter).expected_bytes for counter in Counter]
        assert sorted(seen) == seen
        weights = sum(i.bytes for i in rank.items if i.name.startswith("weights/"))
        assert weights <= rank.total(Phase.LOAD).expected_bytes


@settings(deadline=None, max_examples=60)
@given(NAMES, st.sampled_from([(2, 1), (4, 1), (8, 1), (1, 2), (2, 2)]), TOKENS)
def test_a_cut_never_makes_the_weights_of_a_rank_heavier(name: str, degrees: tuple[int, int], tokens: int) -> None:
    """Every rank of a plan holds at most the weights of the whole (tied heads of a last stage aside)."""
    model = MODELS[name]
    workload = Inference(context_tokens=tokens)
    whole = estimate(model, workload)
    try:
        cut = estimate(model, workload, Plan(tp=degrees[0], pp=degrees[1]))
    except ImpossiblePlanError:
        return
    for rank in cut.breakdowns:
        assert sum(i.bytes for i in rank.items if i.name.startswith("weights/")) <= whole.weights_bytes


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("engine", [("generic", None), ("transformers", "4.44.2"), ("transformers", None)])
def test_a_grid_equals_its_points(name: str, engine: tuple[str, str | None]) -> None:
    """An array of batches and contexts gives, element by element, what single questions give."""
    batches, contexts = np.array([[1], [3], [64]]), np.array([[1, 100, 9000, 131_072]])
    workload = Inference(engine=engine[0], engine_version=engine[1], context_tokens=contexts, batch=batches)
    grid = estimate(MODELS[name], workload).breakdowns[0]
    low, expected, high = (
        np.broadcast_to(x, (3, 4)) for x in (grid.peak().low_bytes, grid.peak().expected_bytes, grid.peak().high_bytes)
    )
    for i, batch in enumerate(batches[:, 0].tolist()):
        for j, context in enumerate(contexts[0].tolist()):
            point = Inference(engine=engine[0], engine_version=engine[1], context_tokens=context, batch=batch)
            total = estimate(MODELS[name], point).breakdowns[0].peak()
            assert (total.low_bytes, total.expected_bytes, total.high_bytes) == (low[i, j], expected[i, j], high[i, j])

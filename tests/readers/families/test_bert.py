"""BERT: no cache, no next token, and a top that follows ``architectures``."""

from __future__ import annotations

import pytest

from published_configs import BERT_BASE
from vramfit.errors import UnsupportedModelError
from vramfit.layer_kind import GroupedQuery
from vramfit.readers.hf_config import read_config
from vramfit.spec import inventory


def test_an_encoder_neither_caches_nor_generates() -> None:
    """Every token sees every other."""
    spec = read_config(BERT_BASE, "BERT")
    assert not spec.generates
    assert isinstance(spec.layers[0].attention, GroupedQuery)
    assert not spec.layers[0].attention.causal


@pytest.mark.parametrize(
    ("named", "there", "not_there"),
    [
        ("BertModel", "pooler.dense.weight", "cls.predictions.bias"),
        ("BertForMaskedLM", "cls.predictions.transform.dense.weight", "bert.pooler.dense.weight"),
        ("BertForSequenceClassification", "classifier.weight", "cls.predictions.bias"),
    ],
)
def test_the_top_follows_architectures(named: str, there: str, not_there: str) -> None:
    """Pooler, prediction head or classifier; the bare class has no prefix."""
    names = {t.name for t in inventory(read_config({**BERT_BASE, "architectures": [named]}, "BERT"))}
    assert there in names
    assert not_there not in names
    assert ("embeddings.word_embeddings.weight" in names) == (named == "BertModel")


def test_a_classifier_has_a_row_per_label() -> None:
    """Seven labels of 768 numbers and a bias each, where two were."""
    labels = {str(i): f"label {i}" for i in range(7)}
    config = {**BERT_BASE, "architectures": ["BertForSequenceClassification"]}
    seven = read_config({**config, "id2label": labels}, "BERT").num_parameters
    assert 5 * 769 == seven - read_config(config, "BERT").num_parameters


def test_no_class_named_is_the_bare_encoder_and_recorded() -> None:
    """109,482,240 parameters with the pooler."""
    spec = read_config({k: v for k, v in BERT_BASE.items() if k != "architectures"}, "BERT")
    assert 109_482_240 == spec.num_parameters
    assert any("architectures" in text for text in spec.assumptions)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("architectures", ["BertForNextSentencePrediction"]),
        ("is_decoder", True),
        ("position_embedding_type", "relative_key"),
    ],
)
def test_variants_with_other_tensors_are_refused(field: str, value: object) -> None:
    """Each would change the count."""
    with pytest.raises(UnsupportedModelError, match=field):
        read_config({**BERT_BASE, field: value}, "BERT")


def test_absolute_positions_are_the_usual_ones() -> None:
    """Published files say so."""
    assert 109_514_298 == read_config({**BERT_BASE, "position_embedding_type": "absolute"}, "BERT").num_parameters

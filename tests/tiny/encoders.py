"""Encoders of text, with every class that is read."""

from __future__ import annotations

from typing import Any

from tiny.case import Tiny
from vramfit.readers.families import albert, bert, deberta, flash_encoder, layoutlmv3, modernbert

TEXT = {
    "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 72, "vocab_size": 101,
    "max_position_embeddings": 50, "type_vocab_size": 3, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
NARROW = {"embedding_size": 20}
RELATIVE = {
    "relative_attention": True,
    "pos_att_type": "c2p|p2c",
    "position_biased_input": False,
    "type_vocab_size": 0,
    "max_relative_positions": -1,
}
SPECIAL: dict[str, dict[str, Any]] = {
    "distilbert": {"dim": 48, "n_layers": 3, "n_heads": 4, "hidden_dim": 72},
    "electra": NARROW,
    "layoutlmv3": {"coordinate_size": 8, "shape_size": 8, "input_size": 48},
    "longformer": {"attention_window": [8, 16, 8]},
    "albert": {**NARROW, "num_hidden_groups": 2, "inner_group_num": 2},
    "deberta": RELATIVE,
    "deberta-v2": {**RELATIVE, "position_buckets": 16, "norm_rel_ebd": "layer_norm", "share_att_key": True},
    "modernbert": {"num_hidden_layers": 5, "local_attention": 16},
    "eurobert": {"num_key_value_heads": 2},
    "layoutlm": {"max_2d_position_embeddings": 30},
}
"""Fields that a kind has beside the usual ones."""


def encoder(kind: str, cls: str, **more: object) -> Tiny:
    """Return a case of one class of an encoder."""
    return Tiny(kind, {**TEXT, **SPECIAL.get(kind, {}), **more}, cls=cls, own=True)


CASES = (
    *(
        encoder(kind, cls)
        for family in (albert, bert, deberta, flash_encoder, layoutlmv3, modernbert)
        for kind, classes in family.CLASSES.items()
        if kind not in {"gte", "new"}
        for cls in classes
    ),
    encoder("layoutlmv3", "LayoutLMv3ForTokenClassification", num_labels=12, coordinate_size=9, shape_size=6),
    encoder("layoutlmv3", "LayoutLMv3Model", visual_embed=False, has_spatial_attention_bias=False),
    encoder("albert", "AlbertModel", num_hidden_groups=1, inner_group_num=1, num_hidden_layers=4),
    encoder("deberta", "DebertaModel", pos_att_type="c2p"),
    encoder("deberta", "DebertaModel", relative_attention=False, position_biased_input=True, type_vocab_size=3),
    encoder("deberta-v2", "DebertaV2Model", conv_kernel_size=3, max_relative_positions=20, position_buckets=-1),
    encoder("deberta-v2", "DebertaV2Model", pos_att_type=["c2p", "p2c"], share_att_key=False),
    encoder("deberta-v2", "DebertaV2Model", relative_attention=False, position_biased_input=True, embedding_size=20),
    encoder(
        "modernbert",
        "ModernBertForMaskedLM",
        norm_bias=True,
        attention_bias=True,
        mlp_bias=True,
        classifier_bias=True,
        global_attn_every_n_layers=2,
    ),
    encoder("modernbert", "ModernBertForMaskedLM", decoder_bias=False),
    encoder("eurobert", "EuroBertForMaskedLM", tie_word_embeddings=True, attention_bias=True, mlp_bias=True),
    encoder("ernie", "ErnieModel", use_task_id=True, task_type_vocab_size=5),
    encoder("electra", "ElectraModel", embedding_size=48),
    encoder("bert", "BertForSequenceClassification", num_labels=7),
    encoder("roberta", "RobertaForTokenClassification", id2label={str(i): f"label {i}" for i in range(5)}),
    encoder("mpnet", "MPNetModel", relative_attention_num_buckets=10),
)

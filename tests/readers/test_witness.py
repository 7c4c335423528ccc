"""Header = inventory: agreement is proven, differences are named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vramfit.errors import UnsupportedModelError
from vramfit.estimate import estimate
from vramfit.formats import weight_format
from vramfit.memory.weights import weight_bytes
from vramfit.readers.hf_config import read_config
from vramfit.readers.safetensors import Checkpoint, StoredTensor, load_checkpoint
from vramfit.readers.witness import attach, compare
from vramfit.request import Inference
from vramfit.result import Basis
from vramfit.source import read_model
from vramfit.spec import ModelSpec, Scheme, inventory, layer_groups

LLAMA = {
    "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128, "vocab_size": 100, "torch_dtype": "bfloat16", "tie_word_embeddings": True,
}  # fmt: skip


MIXTRAL = {**LLAMA, "model_type": "mixtral", "tie_word_embeddings": False}


def header(spec: ModelSpec, dtype: str = "BF16", width: int = 2) -> Checkpoint:
    """A file that holds exactly what the spec implies."""
    tensors = tuple(
        StoredTensor(name=t.name, dtype=dtype, shape=t.shape, num_bytes=width * int(np.prod(t.shape)))
        for t in inventory(spec)
    )
    return Checkpoint(where="file", tensors=tensors)


def test_agreement_makes_weights_exact() -> None:
    """Same names, same shapes, same format: exact, and not one byte moves."""
    spec = read_config(LLAMA, "tiny")
    proven = attach(spec, header(spec))
    assert proven.evidence.endswith("tensors of file")
    assert header(spec).total_bytes == weight_bytes(spec) == weight_bytes(proven)
    items = estimate(proven, Inference(context_tokens=8)).breakdowns[0].items
    assert {Basis.EXACT} == {i.basis for i in items if i.name.startswith("weights/")}
    assert 1 == len(layer_groups(proven.layers))


def test_the_files_own_types_win() -> None:
    """A file in fp32 under a configuration that says bf16: bytes are the file's, equal layers stay equal."""
    spec = read_config(LLAMA, "tiny")
    checkpoint = header(spec, "F32", 4)
    proven = attach(spec, checkpoint)
    assert checkpoint.total_bytes == weight_bytes(proven) == 2 * weight_bytes(spec)
    assert 1 == len({id(layer) for layer in proven.layers})


def test_each_kind_of_difference_is_named() -> None:
    """Missing, unexpected, other shape: no exactness, one line each."""
    spec = read_config(LLAMA, "tiny")
    good = header(spec)
    first, second, *rest = good.tensors
    worse = (replace(second, shape=(1, 2)), *rest, replace(first, name="surprise.weight"))
    found = compare(spec, replace(good, tensors=worse))
    assert (first.name,) == found.missing
    assert ("surprise.weight",) == found.unexpected
    assert (second.name,) == found.reshaped
    unproven = attach(spec, replace(good, tensors=worse))
    assert "config" == unproven.evidence
    assert 3 == len(unproven.assumptions) - len(spec.assumptions)


def test_what_a_load_leaves_out_is_named_and_harmless() -> None:
    """A copy of the tied embedding, rotary tables of old files, prediction heads."""
    spec = read_config(LLAMA, "tiny")
    good = header(spec)
    more = tuple(
        StoredTensor(name=n, dtype="F32", shape=(4,), num_bytes=16)
        for n in ("lm_head.weight", "model.layers.0.self_attn.rotary_emb.inv_freq")
    )
    proven = attach(spec, replace(good, tensors=(*good.tensors, *more)))
    assert "config" != proven.evidence
    assert "lm_head.weight" in proven.assumptions[-1]


def test_prediction_heads_may_be_there_or_not() -> None:
    """DeepSeek-V3's file holds layer 61; a file without it is whole all the same."""
    full = read_model("deepseek-ai/DeepSeek-V3")
    spec = replace(
        full, layers=full.layers[:4], scheme=Scheme(quantised=weight_format("bf16"), plain=weight_format("bf16"))
    )
    with_heads = header(spec)
    assert compare(spec, with_heads).agrees
    assert any("eh_proj" in name for name in compare(spec, with_heads).left_on_disk)
    without = tuple(t for t in with_heads.tensors if not t.name.startswith("model.layers.61."))
    assert compare(spec, replace(with_heads, tensors=without)).agrees


@pytest.mark.parametrize(("ours", "theirs"), [("transformer.", ""), ("transformer.", "transformer.")])
def test_old_files_may_leave_out_the_prefix(ours: str, theirs: str) -> None:
    """GPT-2's file of 2019 has h.0.ln_1.weight where transformers now writes transformer.h.0.ln_1.weight."""
    spec = read_model("openai-community/gpt2")
    tensors = tuple(replace(t, name=theirs + t.name.removeprefix(ours)) for t in header(spec, "F32", 4).tensors)
    assert compare(spec, Checkpoint(where="file", tensors=tensors)).agrees


def test_an_endless_inventory_is_refused() -> None:
    """4,096 layers of 65,536 experts would be 805 million names: one error instead of a hang."""
    endless = read_config({**MIXTRAL, "num_hidden_layers": 4096, "num_local_experts": 65536}, "endless")
    with pytest.raises(UnsupportedModelError, match="implies 805,"):
        compare(endless, Checkpoint(where="file", tensors=()))


def split_gptq(t: StoredTensor) -> tuple[StoredTensor, ...]:
    """Store a matrix as AutoGPTQ does, groups of 128."""
    rows, columns = t.shape
    stem = t.name.removesuffix(".weight")
    groups = -(-columns // 128)
    return (
        StoredTensor(name=f"{stem}.qweight", dtype="I32", shape=(columns // 8, rows), num_bytes=columns * rows // 2),
        StoredTensor(name=f"{stem}.qzeros", dtype="I32", shape=(groups, rows // 8), num_bytes=groups * rows // 2),
        StoredTensor(name=f"{stem}.scales", dtype="F16", shape=(groups, rows), num_bytes=groups * rows * 2),
        StoredTensor(name=f"{stem}.g_idx", dtype="I32", shape=(columns,), num_bytes=4 * columns),
    )


def test_split_matrices_are_put_together_again() -> None:
    """GPTQ's four tensors a matrix are one tensor of the inventory, byte for byte."""
    config = {
        **LLAMA,
        "torch_dtype": "float16",
        "quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128},
    }
    spec = read_config(config, "tiny-gptq")
    tensors: list[StoredTensor] = []
    for t in header(spec, "F16").tensors:
        tensors.extend(split_gptq(t) if "_proj" in t.name else (t,))
    checkpoint = Checkpoint(where="file", tensors=tuple(tensors))
    assert compare(spec, checkpoint).agrees
    assert checkpoint.total_bytes == weight_bytes(attach(spec, checkpoint))


@pytest.mark.witness
def test_a_real_file_is_read_and_proven(tmp_path: Path) -> None:
    """Transformers saves a tiny model; its folder is read, compared and exact to the byte."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        **{k: v for k, v in LLAMA.items() if k not in {"model_type", "torch_dtype"}}, head_dim=16
    )
    transformers.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path)
    spec = read_model(tmp_path)
    assert "config" != spec.evidence
    assert load_checkpoint(tmp_path / "model.safetensors").total_bytes == weight_bytes(spec)


def test_copies_of_the_shared_table_are_left_on_disk() -> None:
    """Older files of T5 hold the table of tokens three times, and distances in cross attention that nothing reads."""
    sizes = {"d_model": 48, "d_kv": 12, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 100}
    spec = read_config({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], **sizes}, "tiny")
    good = header(spec)
    table = good.tensors[0]
    names = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
    more = (*good.tensors, *(replace(table, name=name) for name in names))
    found = compare(spec, replace(good, tensors=more))
    assert found.agrees
    assert set(names) == set(found.left_on_disk)


def test_a_tower_saved_one_level_higher_is_the_same() -> None:
    """Version 5 of transformers writes CLIP's text tower alone without ``text_model.``"""
    text = {"hidden_size": 48, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
    spec = read_config({"model_type": "clip_text_model", "architectures": ["CLIPTextModel"], **text}, "tiny")
    saved = tuple(replace(t, name=t.name.removeprefix("text_model.")) for t in header(spec).tensors)
    assert compare(spec, Checkpoint(where="file", tensors=saved)).agrees

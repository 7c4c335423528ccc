"""Every public layout of a repository, asked on the loopback: what is read, what is compared, what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from gguf_bytes import gguf_file
from loopback_hub import LoopbackHub, Repository, Sparse, safetensors
from vramfit.catalogue.model import find_model
from vramfit.errors import HubError, UnknownNameError, UnreadableFileError, UnsupportedModelError
from vramfit.hub_source import gguf_files, hub_name
from vramfit.layer_kind import GroupedQuery
from vramfit.memory.weights import weight_bytes
from vramfit.readers.gguf_files import gguf_choices, label_of
from vramfit.readers.hf_config import read_config
from vramfit.readers.hub_listing import fetch_listing
from vramfit.source import read_model
from vramfit.spec import inventory

pytest.importorskip("gguf")
pytestmark = pytest.mark.witness

LLAMA: dict[str, Any] = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 112, "vocab_size": 101,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
BERT: dict[str, Any] = {
    "model_type": "bert", "architectures": ["BertModel"], "hidden_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "intermediate_size": 112, "vocab_size": 101, "max_position_embeddings": 50,
    "type_vocab_size": 2,
}  # fmt: skip
PARAMS: dict[str, Any] = {"dim": 64, "n_layers": 2, "head_dim": 16, "hidden_dim": 112, "n_heads": 4, "n_kv_heads": 2,
                          "vocab_size": 101, "norm_eps": 1e-5, "rope_theta": 1e6}  # fmt: skip
LORA = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"], "bias": "none",
        "base_model_name_or_path": "org/whole", "task_type": "CAUSAL_LM"}  # fmt: skip
INDEX = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.30.0",
         "scheduler": ["diffusers", "DDIMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
         "vae": ["diffusers", "AutoencoderKL"]}  # fmt: skip
VAE = {"_class_name": "AutoencoderKL", "in_channels": 3, "out_channels": 3, "latent_channels": 4,
       "block_out_channels": [32, 64], "layers_per_block": 1, "norm_num_groups": 32, "sample_size": 32,
       "down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}  # fmt: skip
CLIP = {"model_type": "clip_text_model", "architectures": ["CLIPTextModel"], "hidden_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "intermediate_size": 112, "vocab_size": 101, "max_position_embeddings": 77,
        "projection_dim": 64}  # fmt: skip
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"},
    {"idx": 3, "name": "3", "path": "3_Normalize", "type": "sentence_transformers.models.Normalize"},
]


def text(value: object) -> bytes:
    """Return a value as JSON."""
    return json.dumps(value).encode()


def weights(config: Mapping[str, Any]) -> Sparse:
    """Return the header of a checkpoint that a configuration implies."""
    return safetensors({t.name: ("BF16", t.shape) for t in inventory(read_config(config, "m"))})


def consolidated() -> Sparse:
    """Return Mistral's own names of the same tensors."""
    outside = {"tok_embeddings.weight": (101, 64), "norm.weight": (64,), "output.weight": (101, 64)}
    block = {
        "attention.wq.weight": (64, 64), "attention.wk.weight": (32, 64), "attention.wv.weight": (32, 64),
        "attention.wo.weight": (64, 64), "attention_norm.weight": (64,), "ffn_norm.weight": (64,),
        "feed_forward.w1.weight": (112, 64), "feed_forward.w2.weight": (64, 112), "feed_forward.w3.weight": (112, 64),
    }  # fmt: skip
    layers = {f"layers.{i}.{name}": shape for i in range(2) for name, shape in block.items()}
    return safetensors({name: ("BF16", shape) for name, shape in {**outside, **layers}.items()})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LoopbackHub]:
    """Serve a repository of every layout to this process."""
    small, large = gguf_file(tmp_path, "half"), gguf_file(tmp_path, "full", label="F32")
    tower = gguf_file(tmp_path, "tower", arch="clip")
    parts = [gguf_file(tmp_path, "part", rows=64)]
    files: dict[str, Mapping[str, bytes | Sparse]] = {
        "org/gguf": {"m-Q4_K_M.gguf": small, "m-F32.gguf": large, "README.md": b"", "imatrix.gguf": b"GGUF"},
        "org/split": {"Q8_0/m-Q8_0-00001-of-00002.gguf": parts[0]},
        "org/sees": {"m-Q4_K_M.gguf": small, "mmproj-F16.gguf": tower, "mmproj-F32.gguf": tower},
        "org/two": {"a.gguf": small, "b.gguf": large},
        "org/pickles": {"config.json": text(LLAMA), "pytorch_model.bin": Sparse(start=b"PK", num_bytes=162_000)},
        "org/other-pickles": {"config.json": text(LLAMA), "pytorch_model.bin": Sparse(start=b"PK", num_bytes=9**9)},
        "org/mistral": {"params.json": text(PARAMS), "consolidated.safetensors": consolidated()},
        "org/pixtral": {"params.json": text({**PARAMS, "vision_encoder": {}}), "consolidated.safetensors": b""},
        "org/half-config": {"config.json": text({"model_type": "llama"}), "m-Q4_K_M.gguf": small},
        "org/embeds": {"config.json": text(BERT), "model.safetensors": weights(BERT), "modules.json": text(MODULES),
                       "2_Dense/config.json": text({"in_features": 64, "out_features": 32, "bias": True})},
        "org/in-folder": {"modules.json": text([{"path": "0_Transformer", "type": "a.Transformer"}]),
                          "0_Transformer/config.json": text(BERT), "0_Transformer/model.safetensors": weights(BERT)},
        "org/reads-words": {"config.json": text(BERT), "modules.json": text([{"path": "", "type": "a.BoW"}])},
        "org/adapter": {"adapter_config.json": text({"peft_type": "LORA", "base_model_name_or_path": "org/adapter"})},
        "org/homeless": {"adapter_config.json": text({"peft_type": "LORA", "base_model_name_or_path": "/home/me/m"})},
        "org/whole": {"config.json": text(LLAMA), "model.safetensors": weights(LLAMA)},
        "org/tuned": {"adapter_config.json": text(LORA)},
        "org/pipeline": {"model_index.json": text(INDEX), "vae/config.json": text(VAE),
                         "text_encoder/config.json": text(CLIP)},
        "org/half-pipeline": {"model_index.json": text(INDEX), "text_encoder/config.json": text(CLIP)},
        "org/bare": {"README.md": b"", "weights.pt": b"PK"},
    }  # fmt: skip
    repositories = {name: Repository(files=held) for name, held in files.items()}
    repositories["org/gated"] = Repository(files=files["org/gguf"], gated=True)
    with LoopbackHub(repositories) as server:
        server.use(monkeypatch, tmp_path / "home")
        yield server


def test_names_are_taken_apart() -> None:
    """Repository, revision, file and label; what is none of these stays whole, for the Hub to refuse."""
    assert ("org/name", None, None, None) == parts_of("org/name")
    assert ("org/name", "refs/pr/1", None, "Q4_K_M") == parts_of("org/name@refs/pr/1:Q4_K_M")
    assert ("org/name", "v1", "a/b.gguf", None) == parts_of("org/name@v1/a/b.gguf")
    assert ("a/b/c/d", None, None, None) == parts_of("a/b/c/d")


def parts_of(name: str) -> tuple[str, str | None, str | None, str | None]:
    """Return the parts of a name."""
    found = hub_name(name)
    return found.repo_id, found.revision, found.file, found.label


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf", "Q4_K_M"),
        ("Qwen3-30B-A3B-UD-IQ1_S.gguf", "UD-IQ1_S"),
        ("m.i1-IQ3_XXS.gguf", "IQ3_XXS"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("BF16/Kimi-K2-BF16-00001-of-00045.gguf", "BF16"),
        ("Q2_K/model-00001-of-00002.gguf", "Q2_K"),
        ("mmproj-model-f16.gguf", "F16"),
        ("Phi-3-mini-4k-instruct-q4.gguf", "Q4"),
        ("m-from-F32-Q4_K_M.gguf", "Q4_K_M"),
        ("Qwen3-8B.gguf", ""),
    ],
)
def test_labels_of_published_names(path: str, label: str) -> None:
    """As bartowski, Unsloth, mradermacher, ggml-org, Microsoft and others call their files."""
    assert label == label_of(path)


def test_split_files_are_one_model_and_an_incomplete_one_is_refused() -> None:
    """Sizes are added; a projector is no model; an importance matrix is nothing to run."""
    sizes = {"m-Q8_0-00001-of-00002.gguf": 5, "m-Q8_0-00002-of-00002.gguf": 3, "m-Q4_K_M.gguf": 4, "mmproj-F16.gguf": 1,
             "imatrix_unsloth.gguf": 2, "README.md": 7}  # fmt: skip
    found = gguf_choices(sizes)
    assert [("Q4_K_M", 4, 1), ("Q8_0", 8, 2), ("F16", 1, 1)] == [(c.label, c.num_bytes, len(c.files)) for c in found]
    assert [False, False, True] == [c.projector for c in found]
    with pytest.raises(UnreadableFileError, match="00002-of-00002"):
        gguf_choices({"m-Q8_0-00001-of-00002.gguf": 5})


def test_the_usual_file_of_a_repository_is_taken_and_said(hub: LoopbackHub) -> None:
    """Q4_K_M where nothing is named; the other by its label, by its file, and by its address."""
    spec = read_model("org/gguf")
    assert "half" == spec.name == read_model("org/half-config").name
    assert "Q4_K_M, one of 2 GGUF models in org/gguf: none was named" in spec.assumptions[0]
    for other in ("org/gguf:f32", "org/gguf/m-F32.gguf", f"{hub.endpoint}/org/gguf/resolve/main/m-F32.gguf",
                  f"{hub.endpoint}/org/gguf/blob/main/m-F32.gguf"):  # fmt: skip
        spec = read_model(other)
        assert ("full", ()) == (spec.name, spec.assumptions)
    assert weight_bytes(read_model("org/gguf:F32")) == 2 * weight_bytes(read_model("org/gguf"))


def test_a_label_that_is_not_there_is_refused_with_those_that_are(hub: LoopbackHub) -> None:
    """And several files without a label are not chosen among."""
    with pytest.raises(UnknownNameError, match=r"'Q4_K_S' is not known; nearest: Q4_K_M; it has Q4_K_M, F32"):
        read_model("org/gguf:Q4_K_S")
    with pytest.raises(UnknownNameError, match=r"nearest: a.gguf, b.gguf; 2 GGUF models: name one, org/two/FILE.gguf"):
        read_model("org/two")
    with pytest.raises(HubError, match=r"has no file 'c\.gguf'"):
        read_model("org/two/c.gguf")
    with pytest.raises(UnreadableFileError, match="00002-of-00002"):
        read_model("org/split")


def test_a_projector_is_read_with_its_model(hub: LoopbackHub) -> None:
    """In F16 where there are several; a file that is named is read alone."""
    spec = read_model("org/sees")
    assert ["vision_tower", "projector"] == [part.name for part in spec.parts]
    assert "mmproj-F16.gguf" in spec.evidence
    assert () == read_model("org/sees/m-Q4_K_M.gguf").parts
    assert ["Q4_K_M", "F16", "F32"] == [choice.label for choice in gguf_files("org/sees")]


def test_a_folder_of_gguf_files_is_read_like_a_repository(tmp_path: Path) -> None:
    """The usual one, or the one of a label; the projector beside it."""
    for name, label in (("m-Q4_K_M.gguf", "F16"), ("m-F32.gguf", "F32")):
        content = gguf_file(tmp_path, name, label=label)
        (tmp_path / "written.gguf").unlink()
        (tmp_path / name).write_bytes(content)
    assert "m-Q4_K_M.gguf" == read_model(tmp_path).name
    assert "none was named" in read_model(str(tmp_path)).assumptions[0]
    assert "m-F32.gguf" == read_model(f"{tmp_path}:F32").name
    with pytest.raises(UnknownNameError, match="it has Q4_K_M, F32"):
        read_model(f"{tmp_path}:Q8_0")


def test_sizes_of_pickles_are_compared_and_pickles_never_opened(hub: LoopbackHub) -> None:
    """The file list is enough: a size that agrees, and one that does not."""
    assert "they agree" in read_model("org/pickles").assumptions[-1]
    assert "they differ by 100.0%" in read_model("org/other-pickles").assumptions[-1]
    assert not [request for request in hub.requests if request.path.endswith(".bin")]


def test_mistrals_own_layout_is_read_exactly(hub: LoopbackHub) -> None:
    """params.json names the sizes, consolidated.safetensors every tensor; more than text is refused by name."""
    spec = read_model("org/mistral")
    assert "21 tensors of org/mistral/consolidated.safetensors" == spec.evidence
    assert read_config(LLAMA, "m").num_parameters == spec.num_parameters
    facts = spec.layers[0].attention
    assert isinstance(facts, GroupedQuery)
    assert (4, 2, 16) == (facts.num_attention_heads, facts.num_key_value_heads, facts.head_dim)
    with pytest.raises(UnsupportedModelError, match="vision_encoder: expected a plain Mistral"):
        read_model("org/pixtral")


def test_an_embedding_model_has_its_projection(hub: LoopbackHub) -> None:
    """64 x 32 weights and 32 biases behind the pooling; no next token; modules that read words are refused."""
    spec, plain = read_model("org/embeds"), read_config(BERT, "m")
    assert 64 * 32 + 32 == spec.num_parameters - plain.num_parameters
    assert not spec.generates
    assert "tensors of org/embeds/model.safetensors" in spec.evidence
    assert plain.num_parameters == read_model("org/in-folder").num_parameters
    with pytest.raises(UnsupportedModelError, match="'BoW': expected a Transformer first"):
        read_model("org/reads-words")


def test_an_adapter_that_leads_nowhere_is_refused(hub: LoopbackHub) -> None:
    """On itself, which would never end, or on a folder of somebody's machine."""
    with pytest.raises(UnsupportedModelError, match="an adapter on org/adapter: expected a model"):
        read_model("org/adapter")
    with pytest.raises(UnsupportedModelError, match="'/home/me/m': expected org/name"):
        read_model("org/homeless")


def test_a_repository_without_a_model_says_what_it_holds(hub: LoopbackHub) -> None:
    """Weights of another kind are named, and never opened."""
    with pytest.raises(HubError, match=r"has no config.json.*it holds weights.pt"):
        read_model("org/bare")


def test_offline_is_said_so(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked; a repository, a label, a file and an address each say what would help."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", value=True)
    address = f"{hub.endpoint}/org/gguf/resolve/main/m-F32.gguf"
    for name in ("org/gguf", "org/gguf:F32", "org/gguf/m-F32.gguf", address):
        with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
            read_model(name)
    assert not hub.requests


def test_gated_repositories_are_said_so(hub: LoopbackHub) -> None:
    """The list of files is behind the same gate as the files."""
    for name in ("org/gated", "org/gated:Q8_0", "org/gated/m-Q8_0.gguf"):
        with pytest.raises(HubError, match="gated by its owner"):
            read_model(name)


def test_long_lists_come_in_pages(hub: LoopbackHub) -> None:
    """The Hub sends 1,000 files at a time and names the next page."""
    hub.behaviour.page_files = 2
    assert 4 == len(fetch_listing("org/gguf").sizes)


def test_no_weight_is_fetched(hub: LoopbackHub) -> None:
    """GGUF headers come in pieces; a large file is not read beyond its first mebibyte."""
    read_model("org/gguf:F32")
    asked = [r for r in hub.requests if r.path.endswith(".gguf")]
    assert asked
    assert all(r.last is not None and r.last < 2**20 for r in asked)


@pytest.mark.parametrize(
    "address", ["https://", "http:///a.gguf", "https://ho st/a.gguf", "https://host:99999/a.gguf", "https://[::1]/a"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    """Before anything is asked."""
    with pytest.raises(HubError, match="not an address"):
        read_model(address)


def test_catalogued_names_still_need_no_network() -> None:
    """A name of the catalogue is answered from it."""
    assert find_model("Qwen/Qwen3-0.6B").name == read_model("Qwen/Qwen3-0.6B").name


def test_an_adapter_is_read_on_its_model(hub: LoopbackHub) -> None:
    """LoRA of rank 8 on the queries of two layers: 2 x 8 x (64 + 64) parameters beside the base's own."""
    pytest.importorskip("vramfit.readers.adapter")
    spec: Any = read_model("org/tuned")
    assert 2 * 8 * (64 + 64) == spec.adapters[0].num_parameters
    assert read_config(LLAMA, "m").num_parameters == spec.num_parameters
    assert "tensors of org/whole/model.safetensors" in spec.evidence


def test_a_pipeline_is_read_by_its_components(hub: LoopbackHub) -> None:
    """model_index.json names the folders; each has its own configuration and, where it is there, its own header."""
    pytest.importorskip("vramfit.readers.diffusion.pipeline")
    spec: Any = read_model("org/pipeline")
    assert ["text_encoder", "vae"] == sorted(component.name for component in spec.components)
    assert not [r for r in hub.requests if "scheduler" in r.path]
    with pytest.raises(HubError, match=r"names 'vae', which has no config.json"):
        read_model("org/half-pipeline")

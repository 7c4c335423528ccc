"""How a block is put together, as its tensors and its family tell it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vramfit.formats import Role
from vramfit.layer_kind import GroupedQuery, Latent
from vramfit.memory.tape.matrix import Matrices
from vramfit.memory.tape.writer import Norm
from vramfit.spec import Layer, Tensor


class Arrangement(StrEnum):
    """Where norms stand."""

    BEFORE = "before"  # x + f(norm(x)): Llama, GPT-2
    BOTH = "both"  # x + norm(f(norm(x))): Gemma 2
    OUTPUTS = "outputs"  # x + norm(f(x)): OLMo 2
    AFTER = "after"  # norm(x + f(x)): BERT
    PARALLEL = "parallel"  # x + attention(norm(x)) + network(norm(x)): Falcon, GPT-NeoX


class Activation(StrEnum):
    """What an activation function keeps."""

    INPUT = "input"  # SiLU, GELU: one kernel that keeps its input
    OUTPUT = "output"  # ReLU
    SQUARED = "squared"  # square of ReLU: the same tensor is output of one and input of the other
    WRITTEN_OUT = "written out"  # GELU's tanh form step by step in Python


CAPPED_LOGITS = frozenset(
    {"gemma2", "gemma3n", "gemma3n_text", "gemma4", "gemma4_text", "recurrent_gemma", "vaultgemma"}
)
"""Families whose published configurations cap the logits by a tanh (``final_logit_softcapping``)."""
GELU_WRITTEN_OUT = frozenset({"gpt2", "gpt_neo", "gptj", "codegen", "phi", "gpt_bigcode", "mpnet_new"})
"""Families whose own default is ``gelu_new``: transformers/activations.py, NewGELUActivation."""
RELU = frozenset({"opt", "t5", "mt5", "blenderbot", "m2m_100", "nllb-moe", "pegasus", "marian"})
SQUARED = frozenset({"nemotron", "nemotron_h", "arcee"})
DROPPED = frozenset({
    "albert", "bart", "bert", "biogpt", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "gpt2",
    "gpt_bigcode", "mbart", "mpnet", "mt5", "opt", "pegasus", "roberta", "roformer", "t5", "xlm-roberta",
})  # fmt: skip
"""Families whose own default drops outputs with probability 0.1."""
SCORES_DROPPED = DROPPED - {"opt", "bart", "mbart", "pegasus", "albert"}
"""Of those, the ones that drop attention probabilities too."""
PARALLEL = frozenset({"falcon", "gpt_neox", "gptj", "codegen", "phi", "cohere", "cohere2", "stablelm_parallel"})
SCALED_AFTER = frozenset({
    "gemma", "gemma2", "gemma3", "gemma3_text", "gemma3n", "gemma3n_text", "gemma4", "gemma4_text", "recurrent_gemma",
    "vaultgemma", "t5gemma", "glm4_gemma",
})  # fmt: skip
"""Families that multiply by the norm's weight in fp32, before the cast."""
WIDE_PRODUCT = frozenset({"olmo2", "olmo3", "flex_olmo", "gpt_oss"})
"""Families that multiply the fp32 norm by the weight as it is, and cast afterwards."""
MIXED_NORM = frozenset({"t5", "mt5", "umt5", "longt5", "switch_transformers"})
"""Families that scale the norm's input as it came by an fp32 scale."""
JOINED_QUERIES = frozenset({
    "codegen", "glm", "glm4", "glm4_moe", "gpt_neox", "gptj", "minimax_m2", "mimo_v2_flash", "moonshine", "nemotron",
    "phi", "phi3", "persimmon", "qwen3_5", "qwen3_5_moe", "qwen3_next", "stablelm",
})  # fmt: skip
"""Families that turn a part of each query and join the rest to it: queries lie head by head then, so does what the
kernel returns, and it is laid out anew for the output projection."""
WIDE_ROTARY = frozenset({"olmo", "olmo2", "olmo3", "flex_olmo", "cohere", "cohere2", "gpt_oss_wide"})
"""Families that turn queries and keys in fp32."""
WIDE_ROUTER = frozenset({
    "deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe", "glm4_moe_lite", "dots1", "ernie4_5_moe", "glm_moe_dsa",
    "minimax_m2",
})  # fmt: skip
"""Families whose router multiplies in fp32, with a copy of its input."""
NARROW_WEIGHTS = frozenset({
    "qwen2_moe", "qwen3_moe", "qwen3_next", "qwen3_5_moe", "qwen3_vl_moe", "olmoe", "flex_olmo", "minimax",
})  # fmt: skip
"""Families that cast the router's weights to the format of its logits."""
WEIGHS_INPUTS = frozenset({"llama4", "llama4_text"})
"""Families whose router's weights are multiplied with what goes into the experts."""
WITHOUT_ROTARY = frozenset({
    "gpt2", "opt", "bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", "albert", "mpnet", "t5",
    "mt5", "bloom", "mpt", "gpt_bigcode", "bart", "mbart", "pegasus", "marian", "whisper", "deberta", "deberta-v2",
    "gpt_neo", "biogpt", "jamba", "nemotron_h", "bamba", "vit", "clip", "siglip", "dinov2",
})  # fmt: skip
NARROW_SOFTMAX = frozenset({
    "albert", "bart", "bert", "biogpt", "camembert", "deberta", "deberta-v2", "dinov2", "distilbert", "electra",
    "gpt2", "gpt_bigcode", "gpt_neo", "gptj", "mbart", "mpnet", "mt5", "pegasus", "roberta", "t5", "whisper",
    "xlm-roberta",
})  # fmt: skip
"""Families whose attention step by step takes its softmax in the format of the scores; others take it in fp32."""
BIASED_SCORES = frozenset({"t5", "mt5", "umt5", "switch_transformers", "longt5"})
"""Families that add a bias of every head, query and key to the scores, copied in each block."""
QUERY_NORMS = ("q_norm", "q_layernorm", "query_layernorm", "q_ln", "query_norm")


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockForm:
    """What a block's tensors and family say about how it is put together."""

    matrices: Matrices
    arrangement: Arrangement = Arrangement.BEFORE
    num_norms: int = 2
    norm: Norm = Norm.NARROW
    capped_scores: bool = False
    """Attention scores pass a tanh before the softmax, where they are written out."""
    biased_scores: bool = False
    """A bias of every head, query and key is added to the scores."""
    narrow_softmax: bool = False
    """The softmax of scores that are written out is in their own format."""
    joined_queries: bool = False
    """Queries are put together of a turned and an unturned part."""
    wide_rotary: bool = False
    """Queries and keys are turned in fp32."""
    narrow_weights: bool = False
    """The router's weights are cast to the format of the tokens."""
    wide_router: bool = False
    """The router multiplies in fp32."""
    weighs_inputs: bool = False
    """The router's weights are multiplied in before the experts."""
    whole_query_norms: bool = False
    """Norms on queries and keys go over all heads together."""
    query_norms: bool = False
    """Norms on queries and keys, head by head or over all of them."""
    rotary: bool = True
    activation: Activation = Activation.INPUT
    network_dropout: bool = False
    """The network drops inside too, before its last matrix (T5)."""
    scaled_queries: bool = False
    """Queries are scaled before the kernel and not in it (OPT, BART)."""


def form_of(layer: Layer, family: str) -> BlockForm:
    """Read a block's form off the names of its tensors, and the rest off its family."""
    norms = [t for t in layer.tensors if t.role is Role.NORM and _stands_outside(t, layer)]
    names = {part for t in layer.tensors for part in t.name.split(".")}
    return BlockForm(
        matrices=Matrices(tensors=layer.tensors),
        arrangement=_arrangement(layer, family, norms),
        num_norms=len(norms),
        norm=norm_of(family, with_bias=any(t.name.endswith(".bias") and _is_norm(t) for t in layer.tensors)),
        capped_scores=family in {"gemma2", "vaultgemma", "grok-1"},
        biased_scores=family in BIASED_SCORES,
        narrow_softmax=family in NARROW_SOFTMAX,
        joined_queries=family in JOINED_QUERIES,
        wide_rotary=family in WIDE_ROTARY,
        narrow_weights=family in NARROW_WEIGHTS,
        wide_router=family in WIDE_ROUTER,
        weighs_inputs=family in WEIGHS_INPUTS,
        whole_query_norms=family in {"olmo2", "olmo3", "flex_olmo", "minimax_m2"},
        query_norms=bool(names & set(QUERY_NORMS)),
        rotary=family not in WITHOUT_ROTARY and not _is_encoder_with_positions(layer, family),
        activation=_activation(family),
        network_dropout=family in {"t5", "mt5", "umt5"},
        scaled_queries=family in {"opt", "bart", "mbart", "pegasus", "whisper", "marian"},
    )


def norm_of(family: str, *, with_bias: bool) -> Norm:
    """Return how a family writes its norms."""
    if with_bias:
        return Norm.MEAN
    if family in SCALED_AFTER:
        return Norm.COPIED
    if family in WIDE_PRODUCT:
        return Norm.WIDE
    if family in {"cohere", "cohere2"}:
        return Norm.WRITTEN_OUT
    return Norm.MIXED if family in MIXED_NORM else Norm.NARROW


def _is_norm(t: Tensor) -> bool:
    return "norm" in t.name.lower() or ".ln" in f".{t.name}"


def _stands_outside(t: Tensor, layer: Layer) -> bool:
    """Say whether a norm is one of the block's own: not on queries, keys, latents or a state."""
    inner = (*QUERY_NORMS, "k_norm", "k_layernorm", "key_layernorm", "q_a_", "kv_a_", "mixer.norm", "k_ln", "key_norm")
    return not any(part in t.name for part in inner) and not t.name.endswith("bias") and layer is not None


def _arrangement(layer: Layer, family: str, norms: list[Tensor]) -> Arrangement:
    names = " ".join(t.name for t in norms)
    if family in PARALLEL:
        return Arrangement.PARALLEL
    if len(norms) >= 4:
        return Arrangement.BOTH
    if "post_feedforward_layernorm" in names and "input_layernorm" not in names:
        return Arrangement.OUTPUTS
    if "output.LayerNorm" in names or "sa_layer_norm" in names:
        return Arrangement.AFTER
    if family in {"bart", "mbart_after"} and layer.feed_forward is not None:
        return Arrangement.AFTER
    return Arrangement.BEFORE


def _activation(family: str) -> Activation:
    if family in GELU_WRITTEN_OUT:
        return Activation.WRITTEN_OUT
    if family in RELU:
        return Activation.OUTPUT
    return Activation.SQUARED if family in SQUARED else Activation.INPUT


def _is_encoder_with_positions(layer: Layer, family: str) -> bool:
    mixer = layer.attention
    encodes = isinstance(mixer, GroupedQuery) and not mixer.causal
    return encodes and not isinstance(mixer, Latent) and family not in {"modernbert", "nomic_bert", "eurobert"}

"""Small configurations with unusual values, one or more for every family: what transformers is asked about.

Widths are odd on purpose: two that are equal by chance hide a swapped axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

BASE: dict[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 8, "num_key_value_heads": 2,
    "intermediate_size": 112, "vocab_size": 101, "max_position_embeddings": 50, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
BIASED = {"mlp_bias": True, "attention_bias": True, "head_dim": 24, "tie_word_embeddings": False}


@dataclass(frozen=True)
class Tiny:
    """One case: what is called and how it differs from the usual one."""

    kind: str
    more: dict[str, Any]
    cls: str | None = None
    """Class of transformers; None = the one for causal language models."""
    own: bool = False
    """True: ``more`` is the whole configuration."""

    @property
    def values(self) -> dict[str, Any]:
        """The configuration, without its type."""
        return dict(self.more) if self.own else {**BASE, **self.more}

    @property
    def config(self) -> dict[str, Any]:
        """What a ``config.json`` would hold."""
        return {"model_type": self.kind, **self.values, **({"architectures": [self.cls]} if self.cls else {})}


UNIFORM = (
    *(Tiny(kind, {}) for kind in (
        "apertus", "arcee", "cohere", "cohere2", "ernie4_5", "exaone4", "gemma", "glm", "glm4", "granite", "ministral3",
        "nemotron", "olmo", "olmo2", "olmo3", "phi", "seed_oss", "smollm3", "stablelm", "starcoder2",
    )),
    *(Tiny(kind, BIASED) for kind in ("arcee", "granite", "smollm3", "nemotron", "seed_oss")),
    Tiny("ministral", {"head_dim": 16}),
    Tiny("cohere", {"use_qk_norm": True}),
    Tiny("ernie4_5", {"use_bias": True}),
    Tiny("stablelm", {"use_qkv_bias": True}),
    Tiny("starcoder2", {"use_bias": False, "tie_word_embeddings": False, "sliding_window": 16}),
    Tiny("phi", {"tie_word_embeddings": True}),
    Tiny("gemma", {"tie_word_embeddings": False, "attention_bias": True}),
    Tiny("glm", {"attention_bias": False, "head_dim": 12}),
    Tiny("seed_oss", {"attention_out_bias": True}),
    Tiny("cohere2", {"num_hidden_layers": 6, "sliding_window": 16}),
    Tiny("olmo3", {"num_hidden_layers": 5, "layer_types": ["full_attention", *["sliding_attention"] * 4]}),
    Tiny("exaone4", {"num_hidden_layers": 5, "sliding_window": 16, "sliding_window_pattern": 2}),
    Tiny("ministral", {"sliding_window": 8, "head_dim": 16}),
)  # fmt: skip

EXPERTS = {"moe_intermediate_size": 24, "num_experts_per_tok": 2}
LATER = {**EXPERTS, "n_routed_experts": 4, "first_k_dense_replace": 1}
MIXTURES = (
    Tiny("afmoe", {"num_experts": 4, **EXPERTS, "num_dense_layers": 1, "num_hidden_layers": 5}),
    Tiny("dots1", {**LATER, "n_shared_experts": 2, "head_dim": 8, "sliding_window": None}),
    Tiny("dots1", {**LATER, "n_shared_experts": 1, "attention_bias": True, "sliding_window": None}),
    Tiny("ernie4_5_moe", {"moe_num_experts": 4, "moe_intermediate_size": 24, "moe_k": 2}),
    Tiny("ernie4_5_moe", {"moe_num_experts": 4, "moe_intermediate_size": 24, "moe_k": 2, "use_bias": True,
                          "num_hidden_layers": 6, "moe_layer_interval": 2, "moe_layer_end_index": 4}),
    Tiny("exaone_moe", {"num_experts": 4, **EXPERTS, "num_shared_experts": 2, "num_hidden_layers": 5}),
    Tiny("exaone_moe", {"num_experts": 4, **EXPERTS, "mlp_layer_types": ["sparse", "dense", "sparse"]}),
    Tiny("flex_olmo", {"num_experts": 4, "num_experts_per_tok": 2}),
    Tiny("glm4_moe", LATER),
    Tiny("glm4_moe", {**LATER, "use_qk_norm": True, "attention_bias": True, "head_dim": 24, "n_shared_experts": 2}),
    Tiny("granitemoe", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    Tiny("granitemoeshared", {"num_local_experts": 4, "num_experts_per_tok": 2, "shared_intermediate_size": 40}),
    Tiny("granitemoeshared", {"num_local_experts": 4, "num_experts_per_tok": 2,
         "shared_intermediate_size": 0, "attention_bias": True}),
    Tiny("hunyuan_v1_dense", {"head_dim": 8}),
    Tiny("hunyuan_v1_moe", {"head_dim": 12, "num_experts": 4, "moe_topk": 2}),
    Tiny("minimax_m2", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    Tiny("olmoe", {"num_experts": 4, "num_experts_per_tok": 2}),
    Tiny("phimoe", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    Tiny("phimoe", {"num_local_experts": 4, "num_experts_per_tok": 2, "attention_bias": True, "lm_head_bias": True,
                    "sliding_window": 8}),
    Tiny("qwen2_moe", {"num_experts": 4, **EXPERTS, "shared_expert_intermediate_size": 40}),
    Tiny("qwen2_moe", {"num_experts": 4, **EXPERTS, "decoder_sparse_step": 2, "num_hidden_layers": 5,
                       "mlp_only_layers": [3], "qkv_bias": False, "shared_expert_intermediate_size": 40}),
    Tiny("solar_open", {"n_routed_experts": 4, **EXPERTS}),
)  # fmt: skip

RANKS = {"kv_lora_rank": 32, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 20, "q_lora_rank": 48,
         "num_key_value_heads": 8, "n_group": 1, "topk_group": 1}  # fmt: skip
LATENT = (
    Tiny("deepseek_v32", {**RANKS, **LATER, "index_head_dim": 12, "index_n_heads": 5, "n_shared_experts": 2}),
    Tiny("deepseek_v32", {**RANKS, **LATER, "index_head_dim": 12, "index_n_heads": 5, "n_shared_experts": 1,
                          "attention_bias": True, "mlp_layer_types": ["sparse", "dense", "sparse"]}),
    Tiny("glm_moe_dsa", {**RANKS, **LATER, "index_head_dim": 12, "index_n_heads": 5, "n_shared_experts": 1}),
    Tiny("glm_moe_dsa", {**RANKS, **LATER, "index_head_dim": 12, "index_n_heads": 5, "n_shared_experts": 1,
                         "num_hidden_layers": 4, "indexer_types": ["full", "shared", "shared", "full"]}),
    Tiny("glm4_moe_lite", {**RANKS, **EXPERTS, "n_routed_experts": 4, "n_shared_experts": 1}),
)  # fmt: skip
OTHERS = (
    Tiny("llama4_text", {"num_local_experts": 4, "intermediate_size_mlp": 200, "head_dim": 8, "num_hidden_layers": 5}),
    Tiny("llama4_text", {"num_local_experts": 4, "intermediate_size_mlp": 200, "head_dim": 12, "num_hidden_layers": 5,
                         "interleave_moe_layer_step": 2, "attention_chunk_size": 16, "attention_bias": True}),
    Tiny("mimo_v2_flash", {"n_routed_experts": 4, **EXPERTS, "head_dim": 24, "v_head_dim": 16, "sliding_window": 8,
                           "num_hidden_layers": 7}),
)  # fmt: skip

DELTA = {"head_dim": 12, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16,
         "linear_value_head_dim": 8, "num_hidden_layers": 4}  # fmt: skip
SHARED = {"num_experts": 4, **EXPERTS, "shared_expert_intermediate_size": 40}
HYBRIDS = (
    Tiny("qwen3_5_text", DELTA),
    Tiny("qwen3_5_text", {**DELTA, "attention_bias": True, "layer_types": ["full_attention", "linear_attention"] * 2}),
    Tiny("qwen3_5_moe_text", {**DELTA, **SHARED}),
)

TEXT = {k: v for k, v in BASE.items() if not k.endswith("_token_id")}
QWEN_TOWER = {"depth": 2, "hidden_size": 48, "intermediate_size": 72, "num_heads": 4, "out_hidden_size": 64,
              "num_position_embeddings": 36}  # fmt: skip
TOWER = {"hidden_size": 48, "intermediate_size": 72, "num_hidden_layers": 2, "num_attention_heads": 4,
         "image_size": 56, "patch_size": 14}  # fmt: skip
CLIP = {"model_type": "clip_vision_model", **TOWER, "projection_dim": 32}
SIGLIP = {"model_type": "siglip_vision_model", **TOWER}
PIXTRAL = {"model_type": "pixtral", **TOWER, "head_dim": 12}


def seeing(kind: str, cls: str, text: dict[str, Any], tower: dict[str, Any], **more: object) -> Tiny:
    """Return a case of a language model with a tower."""
    values = {"text_config": {**TEXT, **text}, "vision_config": tower, "tie_word_embeddings": False, **more}
    return Tiny(kind, values, cls=f"{cls}ForConditionalGeneration", own=True)


SEEING = (
    seeing("qwen2_vl", "Qwen2VL", {"model_type": "qwen2_vl_text"},
           {"depth": 2, "embed_dim": 48, "hidden_size": 64, "num_heads": 4, "mlp_ratio": 4}),
    seeing("qwen2_5_vl", "Qwen2_5_VL", {"model_type": "qwen2_5_vl_text"},
           {k: v for k, v in QWEN_TOWER.items() if k != "num_position_embeddings"}, tie_word_embeddings=True),
    seeing("qwen3_vl", "Qwen3VL", {"model_type": "qwen3_vl_text", "head_dim": 8},
           {**QWEN_TOWER, "deepstack_visual_indexes": [0, 1]}),
    seeing("qwen3_vl", "Qwen3VL", {"model_type": "qwen3_vl_text", "head_dim": 8}, QWEN_TOWER, tie_word_embeddings=True),
    seeing("qwen3_vl_moe", "Qwen3VLMoe", {"model_type": "qwen3_vl_moe_text", "head_dim": 8, **EXPERTS,
           "num_experts": 4}, {**QWEN_TOWER, "deepstack_visual_indexes": [0]}),
    seeing("qwen3_5", "Qwen3_5", {"model_type": "qwen3_5_text", **DELTA}, {**QWEN_TOWER, "model_type": "qwen3_5"}),
    seeing("qwen3_5_moe", "Qwen3_5Moe", {"model_type": "qwen3_5_moe_text", **DELTA, **SHARED},
           {**QWEN_TOWER, "model_type": "qwen3_5_moe"}),
    seeing("llava", "Llava", {"model_type": "llama"}, CLIP),
    seeing("llava", "Llava", {"model_type": "mistral", "head_dim": 8}, PIXTRAL),
    seeing("llava_next", "LlavaNext", {"model_type": "mistral", "head_dim": 8}, CLIP, multimodal_projector_bias=False),
    seeing("mistral3", "Mistral3", {"model_type": "mistral", "head_dim": 8}, PIXTRAL),
    seeing("mistral3", "Mistral3", {"model_type": "ministral3", "head_dim": 8}, PIXTRAL, tie_word_embeddings=True),
    seeing("paligemma", "PaliGemma", {"model_type": "gemma", "head_dim": 8}, SIGLIP, projection_dim=64,
           tie_word_embeddings=True),
    seeing("paligemma", "PaliGemma", {"model_type": "gemma2", "head_dim": 8},
           {**SIGLIP, "vision_use_head": False, "projection_dim": 64}, tie_word_embeddings=True),
    seeing("idefics3", "Idefics3", {"model_type": "llama"}, {**TOWER, "model_type": "idefics3_vision"}),
    seeing("smolvlm", "SmolVLM", {"model_type": "llama"}, {**TOWER, "model_type": "smolvlm_vision"}, scale_factor=3),
    seeing("internvl", "InternVL", {"model_type": "qwen2"},
           {**TOWER, "model_type": "internvl_vision", "image_size": [56, 56], "patch_size": [14, 14]}),
    seeing("llama4", "Llama4", {"model_type": "llama4_text", "head_dim": 8, "num_local_experts": 4,
           "intermediate_size_mlp": 96}, {**TOWER, "intermediate_size": 192, "vision_output_dim": 40,
           "projector_input_dim": 44, "projector_output_dim": 40}),
)  # fmt: skip

ALL: tuple[Tiny, ...] = (*UNIFORM, *MIXTURES, *LATENT, *OTHERS, *HYBRIDS, *SEEING)

"""Configurations of models that transformers cannot build, and what their publishers say about them.

A count is that of the file, buffers and all, or of the parameters, as the comment beside it says.
"""

from __future__ import annotations

from typing import Any, NamedTuple

Config = dict[str, Any]


class Published(NamedTuple):
    """One model."""

    name: str
    config: Config
    in_file: int
    """Elements of all tensors of the file."""


def sizes(kind: str, hidden: int, layers: int, heads: int, width: int, vocab: int, **more: object) -> Config:
    """Return a configuration under Llama's names; ``more`` adds or replaces fields."""
    return {
        "model_type": kind, "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": heads, "intermediate_size": width, "vocab_size": vocab, "tie_word_embeddings": False,
        "torch_dtype": "bfloat16", **more,
    }  # fmt: skip


def glm(layers: int, vocab: int) -> Config:
    """Return a configuration of ChatGLM 2, 3 or GLM-4."""
    return {
        "model_type": "chatglm", "hidden_size": 4096, "num_layers": layers, "num_attention_heads": 32,
        "ffn_hidden_size": 13696, "padded_vocab_size": vocab, "kv_channels": 128, "multi_query_attention": True,
        "multi_query_group_num": 2, "add_qkv_bias": True, "add_bias_linear": False, "seq_length": 32768,
        "tie_word_embeddings": False, "torch_dtype": "float16",
    }  # fmt: skip


CHATGLM_6B: Config = {
    "model_type": "chatglm", "hidden_size": 4096, "num_layers": 28, "num_attention_heads": 32,
    "inner_hidden_size": 16384, "vocab_size": 130528, "max_sequence_length": 2048, "torch_dtype": "float16",
}  # fmt: skip
TELECHAT_12B: Config = {
    "model_type": "telechat", "hidden_size": 5120, "n_layer": 38, "n_head": 40, "ffn_hidden_size": 12288,
    "vocab_size": 120000, "tie_word_embeddings": False, "torch_dtype": "float16",
}  # fmt: skip
MIMO_7B = sizes(
    "mimo", 4096, 36, 32, 11008, 151680, num_key_value_heads=8, use_sliding_window=False, num_nextn_predict_layers=1
)
QWEN_7B = sizes("qwen", 4096, 32, 32, 22016, 151936, kv_channels=128, no_bias=True)
INTERNLM2_7B = sizes("internlm2", 4096, 32, 32, 14336, 92544, num_key_value_heads=8, bias=False)
EXAONE_3_5_7_8B = sizes("exaone", 4096, 32, 32, 14336, 102400, num_key_value_heads=8)
BAICHUAN_13B = sizes("baichuan", 5120, 40, 40, 13696, 64000)
MINICPM_2B = sizes("minicpm", 2304, 40, 36, 5760, 122753, tie_word_embeddings=True)

OPENELM_270M: Config = {
    "model_type": "openelm", "architectures": ["OpenELMForCausalLM"], "model_dim": 1280, "head_dim": 64,
    "num_transformer_layers": 16, "vocab_size": 32000, "share_input_output_layers": True, "torch_dtype": "float32",
    "num_query_heads": [*[12] * 5, *[16] * 7, *[20] * 4], "num_kv_heads": [*[3] * 5, *[4] * 7, *[5] * 4],
    "ffn_multipliers": [
        0.5, 0.73, 0.97, 1.2, 1.43, 1.67, 1.9, 2.13, 2.37, 2.6, 2.83, 3.07, 3.3, 3.53, 3.77, 4.0,
    ],
}  # fmt: skip
FALCON_40B: Config = {
    "model_type": "RefinedWeb", "architectures": ["RWForCausalLM"], "bias": False, "hidden_size": 8192, "n_head": 128,
    "n_head_kv": 8, "n_layer": 60, "parallel_attn": True, "alibi": False, "vocab_size": 65024,
    "torch_dtype": "bfloat16",
}  # fmt: skip

PUBLISHED = (
    # Parameters in the safetensors metadata of apple/OpenELM-270M.
    Published("OpenELM-270M", OPENELM_270M, 271_527_168),
    # Bytes of the index of a copy, in 16 bit: yangulei/internlm-20b@b8825fe3:pytorch_model.bin.index.json.
    Published("InternLM-20B", sizes("internlm", 5120, 60, 40, 13824, 103168, bias=False), 40_177_428_480 // 2),
    # Parameters in the safetensors metadata of internlm/internlm2_5-7b-chat and internlm/internlm2-1_8b.
    Published("InternLM2-7B", INTERNLM2_7B, 7_737_708_544),
    Published(
        "InternLM2-1.8B", sizes("internlm2", 2048, 24, 16, 8192, 92544, num_key_value_heads=8, bias=False),
        1_889_110_016,
    ),
    # baichuan-inc/Baichuan-13B:README.md has both counts.
    Published("Baichuan-7B", sizes("baichuan", 4096, 32, 32, 11008, 64000), 7_000_559_616),
    Published("Baichuan-13B", BAICHUAN_13B, 13_264_901_120),
    # PEFT prints it: "all params: 6173286400".
    Published("ChatGLM-6B", CHATGLM_6B, 6_173_286_400),
    # Bytes of the index of a copy, in 16 bit, emotibot-inc/Zhuzhi-6B@5ceb63f1:pytorch_model.bin.index.json: the model's
    # 6,243,584,000 parameters and the 32 frequencies of its rotation.
    Published("ChatGLM2-6B", glm(28, 65024), 12_487_168_064 // 2),
    # A load prints "9399951392 parameters, 9399951360 (100.00%) are trainable".
    Published("GLM-4-9B", glm(40, 151552), 9_399_951_392),
    # Bytes of the index of a copy, in 16 bit: stvlynn/Qwen-7B-Chat-Cantonese@948b810c:model.safetensors.index.json.
    Published("Qwen-7B", QWEN_7B, 15_442_649_088 // 2),
    # Parameters in the safetensors metadata of LGAI-EXAONE/EXAONE-3.5-7.8B-Instruct.
    Published("EXAONE-3.5-7.8B", EXAONE_3_5_7_8B, 7_818_448_896),
    # MiniCPM, arXiv:2404.06395, table 2, without the embeddings, which are tied.
    Published("MiniCPM-2B", MINICPM_2B, 2_442_057_984 + 122_753 * 2304),
    Published(
        "MiniCPM-1B",
        sizes("minicpm", 1536, 52, 24, 3840, 73440, num_key_value_heads=8, tie_word_embeddings=True),
        1_247_442_432 + 73_440 * 1536,
    ),
    # Bytes of the index of a copy, in 16 bit: jj8127/mimo_kor@3280a423:model.safetensors.index.json.
    Published("MiMo-7B", MIMO_7B, 15_666_819_072 // 2),
)  # fmt: skip
BY_HAND = (
    "RefinedWeb",
    "RefinedWebModel",
    "aquila",
    "nemotron-nas",
    "orion",
    "skywork",
    "telechat",
    "xverse",
    "gemma3n",
)
"""Families whose counts are derived in their own tests."""

"""Models that write down what they hear."""

from __future__ import annotations

from tiny.case import Tiny

STACKS = {"encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 4, "decoder_attention_heads": 6,
          "encoder_ffn_dim": 72, "decoder_ffn_dim": 80, "d_model": 48, "vocab_size": 101, "max_source_positions": 30,
          "max_target_positions": 25, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
          "decoder_start_token_id": 1}  # fmt: skip
WAVES = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 72,
         "conv_dim": [8] * 7, "vocab_size": 31, "num_conv_pos_embeddings": 6,
         "num_conv_pos_embedding_groups": 2}  # fmt: skip
SPELLING = (
    *(Tiny(kind, {**WAVES, "num_ctc_classes": 31}, cls=f"{name}ForCTC", own=True) for kind, name in (
        ("wav2vec2", "Wav2Vec2"), ("hubert", "Hubert"), ("wavlm", "WavLM"), ("unispeech", "UniSpeech"),
        ("unispeech-sat", "UniSpeechSat"),
    )),
    Tiny("hubert", {**WAVES, "architectures": ["HubertModel"]}, cls="HubertModel", own=True),
    Tiny("wav2vec2", {**WAVES, "adapter_attn_dim": 5, "do_stable_layer_norm": True, "mask_time_prob": 0.0},
         cls="Wav2Vec2ForCTC", own=True),
    Tiny("wav2vec2", {**WAVES, "do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True},
         cls="Wav2Vec2ForCTC", own=True),
    Tiny("parakeet_ctc", {"vocab_size": 31, "encoder_config": {
        "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 72,
        "subsampling_conv_channels": 16, "num_mel_bins": 17, "conv_kernel_size": 3, "subsampling_factor": 4,
        "attention_bias": False}}, cls="ParakeetForCTC", own=True),
)  # fmt: skip
CASES = (
    *SPELLING,
    Tiny("moonshine", {
        "vocab_size": 101, "hidden_size": 48, "intermediate_size": 72, "encoder_num_hidden_layers": 2,
        "decoder_num_hidden_layers": 3, "encoder_num_attention_heads": 4, "decoder_num_attention_heads": 4,
        "encoder_num_key_value_heads": 2, "decoder_num_key_value_heads": 2, "tie_word_embeddings": False,
    }, cls="MoonshineForConditionalGeneration", own=True),
    Tiny("whisper", {**STACKS, "num_mel_bins": 20}, cls="WhisperForConditionalGeneration", own=True),
    Tiny("whisper", {**STACKS, "num_mel_bins": 20, "tie_word_embeddings": False},
         cls="WhisperForConditionalGeneration", own=True),
    Tiny("speech_to_text", {**STACKS, "conv_channels": 32, "input_feat_per_channel": 20, "input_channels": 2},
         cls="Speech2TextForConditionalGeneration", own=True),
)  # fmt: skip

"""What joins a tower to a language model: projectors, resamplers, separators between rows.

Each takes all fields, the tower's section, the tower's width and the language model's width.
Source: huggingface/transformers:src/transformers/models/<model_type>/, 5.23.0.
"""

from __future__ import annotations

from collections.abc import Callable

from vramfit.errors import InvalidValueError
from vramfit.formats import Role
from vramfit.readers.families.decoder import Tensors, linear, norm
from vramfit.readers.families.vision import convolution, learned, matrices
from vramfit.readers.families.vision_sam import neck
from vramfit.readers.fields import Fields
from vramfit.spec import Cut, Tensor

Joint = Callable[[Fields, Fields, int, int], Tensors]
"""(all fields, the tower's section, the tower's width, the language model's width) -> what joins them."""


def nothing(_whole: Fields, _tower: Fields, _inside: int, _text: int) -> Tensors:
    """Join nothing: the tower itself writes at the language model's width."""
    return ()


def two(at: str, names: tuple[str, str] = ("linear_1", "linear_2"), *, bias: bool = True, by: str = "") -> Joint:
    """Return the joint of two layers with these names; ``by`` = field that says how many vectors come at once."""

    def joint(whole: Fields, _tower: Fields, inside: int, text: int) -> Tensors:
        wide = inside * (whole.integer(by, largest=64) if by else 1)
        return (
            *linear(f"{at}{names[0]}", text, wide, Cut.WHOLE, bias=bias),
            *linear(f"{at}{names[1]}", text, text, Cut.WHOLE, bias=bias),
        )

    return joint


def llava(whole: Fields, _: Fields, inside: int, text: int) -> Tensors:
    """Return LLaVA's two layers, which may see several blocks of the tower side by side."""
    bias = whole.flag("multimodal_projector_bias", default=True)
    return two("multi_modal_projector.", bias=bias)(whole, _, inside * _blocks(whole, "vision_feature_layer", 1), text)


def llava_next(whole: Fields, tower: Fields, inside: int, text: int) -> Tensors:
    """Return LLaVA-NeXT's: the same, and a vector between rows of tiles."""
    return (learned("image_newline", text), *llava(whole, tower, inside, text))


def vipllava(whole: Fields, tower: Fields, inside: int, text: int) -> Tensors:
    """Return ViP-LLaVA's: five blocks of the tower side by side, normed."""
    name = "vision_feature_layers" if whole.has("vision_feature_layers") else "vision_feature_layer"
    wide, at = inside * _blocks(whole, name, 5), "multi_modal_projector."
    return (*norm(f"{at}projector_layernorm", wide, bias=True), *two(at)(whole, tower, wide, text))


def _blocks(whole: Fields, name: str, default: int) -> int:
    """Return how many blocks of the tower are read, which the list of their numbers says."""
    value = whole.values.get(name)
    if value is None:
        if default > 1:
            whole.assume(name, f"{default} of the tower's blocks")
        return default
    return max(1, len(value)) if isinstance(value, list) else 1


def mistral3(whole: Fields, _: Fields, inside: int, text: int) -> Tensors:
    """Return Mistral 3's: a norm, neighbours merged, two layers."""
    return _merging(whole, inside, text, "multi_modal_projector.")


def lighton(whole: Fields, _: Fields, inside: int, text: int) -> Tensors:
    """Return LightOnOCR's: Mistral 3's under other names."""
    return _merging(whole, inside, text, "model.vision_projection.")


def _merging(whole: Fields, inside: int, text: int, at: str) -> Tensors:
    bias = whole.flag("multimodal_projector_bias", default=False)
    merge = whole.integer("spatial_merge_size", 2, largest=64)
    return (
        *norm(f"{at}norm", inside),
        *linear(f"{at}patch_merger.merging_layer", inside, inside * merge**2, Cut.WHOLE),
        *linear(f"{at}linear_1", text, inside, Cut.WHOLE, bias=bias),
        *linear(f"{at}linear_2", text, text, Cut.WHOLE, bias=bias),
    )


def paligemma(whole: Fields, _: Fields, inside: int, __: int) -> Tensors:
    """Return PaliGemma's single layer."""
    out = whole.integer("projection_dim", 2048)
    return linear("multi_modal_projector.linear", out, inside, Cut.WHOLE, bias=True)


def qwen2_audio(_whole: Fields, _tower: Fields, inside: int, text: int) -> Tensors:
    """Return Qwen2-Audio's single layer."""
    return linear("multi_modal_projector.linear", text, inside, Cut.WHOLE, bias=True)


def idefics3(whole: Fields, _: Fields, inside: int, text: int) -> Tensors:
    """Return Idefics 3's: neighbours side by side, one layer."""
    scale = whole.integer("scale_factor", 2, largest=64)
    return linear("model.connector.modality_projection.proj", text, inside * scale**2, Cut.WHOLE)


def idefics2(whole: Fields, _: Fields, inside: int, text: int) -> Tensors:
    """Return Idefics 2's: a gated layer, and a resampler that reads an image into 64 vectors."""
    f = whole.section("perceiver_config").filled(
        hidden_size=4096, resampler_n_latents=64, resampler_depth=3, resampler_n_heads=16, resampler_head_dim=96,
        num_key_value_heads=4,
    )  # fmt: skip
    hidden, dim = f.integer("hidden_size"), f.integer("resampler_head_dim")
    q, kv = dim * f.integer("resampler_n_heads"), dim * f.integer("num_key_value_heads")
    width = whole.section("text_config").integer("intermediate_size", 14336)
    mlp, at = "model.connector.modality_projection.", "model.connector.perceiver_resampler."
    return (
        *matrices((f"{mlp}gate_proj", f"{mlp}up_proj"), width, inside),
        *linear(f"{mlp}down_proj", text, width, Cut.WHOLE),
        learned(f"{at}latents", f.integer("resampler_n_latents"), hidden),
        *(
            t
            for i in range(f.integer("resampler_depth", largest=64))
            for t in _resampler(f"{at}layers.{i}.", hidden, q, kv)
        ),
        *norm(f"{at}norm", hidden),
    )


def _resampler(at: str, hidden: int, q: int, kv: int) -> Tensors:
    norms = ("input_latents_norm", "input_context_norm", "post_attention_layernorm")
    return (
        *(t for name in norms for t in norm(f"{at}{name}", hidden)),
        *linear(f"{at}self_attn.q_proj", q, hidden, Cut.WHOLE),
        *matrices((f"{at}self_attn.k_proj", f"{at}self_attn.v_proj"), kv, hidden),
        *linear(f"{at}self_attn.o_proj", hidden, q, Cut.WHOLE),
        *matrices((f"{at}mlp.gate_proj", f"{at}mlp.up_proj"), 4 * hidden, hidden),
        *linear(f"{at}mlp.down_proj", hidden, 4 * hidden, Cut.WHOLE),
    )


def internvl(whole: Fields, _: Fields, inside: int, text: int) -> Tensors:
    """Return InternVL's: neighbours side by side, normed, two layers."""
    ratio = whole.values.get("downsample_ratio", 0.5)
    if not isinstance(ratio, float) or not 0 < ratio <= 1:
        raise InvalidValueError(whole.at("downsample_ratio"), ratio, "a number above 0 and at most 1")
    wide, at = inside * int(1 / ratio) ** 2, "multi_modal_projector."
    return (
        *norm(f"{at}layer_norm", wide, bias=True),
        *linear(f"{at}linear_1", text, wide, Cut.WHOLE, bias=True),
        *linear(f"{at}linear_2", text, text, Cut.WHOLE, bias=True),
    )


def aya(whole: Fields, _: Fields, inside: int, text: int) -> Tensors:
    """Return Aya Vision's: neighbours side by side, normed, a gated layer between."""
    wide = inside * whole.integer("downsample_factor", 2, largest=64) ** 2
    gated = whole.integer("alignment_intermediate_size", text)
    return (
        *norm("multi_modal_projector.layernorm", wide, bias=True),
        *_gated("multi_modal_projector.", wide, gated, text),
    )


def command(whole: Fields, _: Fields, inside: int, text: int) -> Tensors:
    """Return Command A Vision's: Aya's without the norm."""
    wide = inside * whole.integer("downsample_factor", 2, largest=64) ** 2
    return _gated("model.multi_modal_projector.", wide, whole.integer("alignment_intermediate_size", 36864), text)


def _gated(at: str, wide: int, gated: int, text: int) -> Tensors:
    """Return two layers; the first one's second half gates its first."""
    return (
        *linear(f"{at}linear_1", gated, wide, Cut.WHOLE, bias=True),
        *linear(f"{at}linear_2", text, gated // 2, Cut.WHOLE, bias=True),
    )


def lfm2(whole: Fields, _: Fields, inside: int, text: int) -> Tensors:
    """Return LFM2-VL's: neighbours side by side, normed unless it says not, two layers of a width of their own."""
    factor, width = whole.integer("downsample_factor", 2, largest=64), whole.integer("projector_hidden_size", 2560)
    bias, wide, at = whole.flag("projector_bias", default=True), inside * factor**2, "model.multi_modal_projector."
    normed = whole.flag("projector_use_layernorm", default=True)
    return (
        *(norm(f"{at}layer_norm", wide, bias=True) if normed else ()),
        *linear(f"{at}linear_1", width, wide, Cut.WHOLE, bias=bias),
        *linear(f"{at}linear_2", text, width, Cut.WHOLE, bias=bias),
    )


def llama4(_whole: Fields, tower: Fields, _inside: int, text: int) -> Tensors:
    """Return Llama 4's single layer behind the tower's adapter."""
    return linear("multi_modal_projector.linear_1", text, tower.integer("vision_output_dim", 7680), Cut.WHOLE)


def got_ocr2(_whole: Fields, tower: Fields, _inside: int, text: int) -> Tensors:
    """Return GOT-OCR 2's: two convolutions that quarter a side, one layer."""
    out, at = tower.integer("output_channels", 256), "multi_modal_projector."
    return (
        *convolution(f"{at}conv_upsampler1", 2 * out, out, 3, 3, bias=False),
        *convolution(f"{at}conv_upsampler2", text, 2 * out, 3, 3, bias=False),
        *linear(f"{at}multimodal_projector", text, text, Cut.WHOLE, bias=True),
    )


def deepseek_hybrid(whole: Fields, _: Fields, inside: int, text: int) -> Tensors:
    """Return DeepSeek-VL 7B's: features of both towers at half the width each."""
    sam = whole.section("high_res_vision_config")
    hidden, out = sam.integer("hidden_size", 768), sam.integer("output_channels", 256)
    at = "model.high_res_vision_"
    return (
        learned(f"{at}alpha", 1),
        *neck(f"{at}neck.", hidden, out),
        *convolution(f"{at}proj.conv1", 2 * out, out, 3, 3, bias=False),
        *convolution(f"{at}proj.conv2", 4 * out, 2 * out, 3, 3, bias=False),
        *linear("model.aligner.vision_proj", text // 2, inside, Cut.WHOLE, bias=True),
        *linear("model.aligner.high_res_vision_proj", text // 2, 4 * out, Cut.WHOLE, bias=True),
        *linear("model.aligner.proj", text, text, Cut.WHOLE, bias=True),
    )


def ovis2(whole: Fields, tower: Fields, _inside: int, text: int) -> Tensors:
    """Return Ovis 2's table of visual words, as wide as the outer ``hidden_size``, which the text's must equal."""
    if whole.filled(hidden_size=1536).integer("hidden_size") != text:
        raise InvalidValueError(whole.at("hidden_size"), whole.values.get("hidden_size"), f"the text's ({text})")
    words = tower.integer("vocab_size", 16384)
    return (Tensor(name="model.visual_embeddings_table.weight", shape=(words, text), role=Role.EMBEDDING),)


def paddle(_whole: Fields, tower: Fields, inside: int, text: int) -> Tensors:
    """Return PaddleOCR-VL's: neighbours side by side, two layers."""
    wide = inside * tower.integer("spatial_merge_size", 2, largest=64) ** 2
    return (
        *norm("mlp_AR.pre_norm", inside, bias=True),
        *linear("mlp_AR.linear_1", wide, wide, Cut.WHOLE, bias=True),
        *linear("mlp_AR.linear_2", text, wide, Cut.WHOLE, bias=True),
    )


def voxtral(_whole: Fields, tower: Fields, _inside: int, text: int) -> Tensors:
    """Return Voxtral's: as many vectors side by side as make up the encoder's inner width."""
    return two("multi_modal_projector.", bias=False)(_whole, tower, tower.integer("intermediate_size", 5120), text)


def aria(whole: Fields, _: Fields, inside: int, text: int) -> Tensors:
    """Return Aria's: learned queries attend to the tower's vectors."""
    numbers = whole.values.get("projector_patch_to_query_dict") or {"1225": 128, "4900": 256}
    if not isinstance(numbers, dict) or not all(isinstance(n, int) and 0 < n <= inside**2 for n in numbers.values()):
        raise InvalidValueError(whole.at("projector_patch_to_query_dict"), numbers, "numbers of queries, by patches")
    at = "multi_modal_projector."
    return (
        learned(f"{at}query", max(numbers.values()), inside),
        *matrices((f"{at}cross_attn.{n}_proj" for n in "qkv"), inside, inside),
        learned(f"{at}cross_attn.multihead_attn.in_proj_weight", 3 * inside, inside),
        Tensor(name=f"{at}cross_attn.multihead_attn.in_proj_bias", shape=(3 * inside,), role=Role.BIAS),
        *matrices((f"{at}cross_attn.multihead_attn.out_proj", f"{at}cross_attn.linear"), inside, inside, bias=True),
        *norm(f"{at}cross_attn.layer_norm", inside, bias=True),
        *norm(f"{at}cross_attn.layer_norm_kv", inside, bias=True),
        *norm(f"{at}layer_norm", inside, bias=True),
        *linear(f"{at}feed_forward.linear_in", text, inside, Cut.WHOLE),
        *linear(f"{at}feed_forward.linear_out", text, text, Cut.WHOLE),
    )


def janus(whole: Fields, tower: Fields, inside: int, _: int) -> Tensors:
    """Return Janus's two aligners, for pictures seen and drawn, and the head that draws."""
    seen = tower.filled(projection_dim=2048, depth=2)
    drawn = whole.section("vq_config").filled(
        projection_dim=2048, num_hidden_layers=2, image_token_embed_dim=2048, embed_dim=8, num_embeddings=16384
    )
    words, out = drawn.integer("num_embeddings"), drawn.integer("projection_dim")
    small, at = drawn.integer("embed_dim"), "model.generation_"
    return (
        *_deep("model.aligner.", inside, seen.integer("projection_dim"), seen.integer("depth", largest=64)),
        Tensor(name=f"{at}embeddings.weight", shape=(words, small), role=Role.EMBEDDING),
        *_deep(f"{at}aligner.", small, out, drawn.integer("num_hidden_layers", largest=64)),
        *linear(f"{at}head.proj_out", out, drawn.integer("image_token_embed_dim"), Cut.WHOLE, bias=True),
        *linear(f"{at}head.vision_head", words, out, Cut.WHOLE, bias=True),
    )


def _deep(at: str, inside: int, out: int, depth: int) -> Tensors:
    """Return so many layers one behind the other."""
    names = (f"{at}hidden_layers.{i}" for i in range(depth - 1))
    return (*linear(f"{at}fc1", out, inside, Cut.WHOLE, bias=True), *matrices(names, out, out, bias=True))


def qwen3_asr(_whole: Fields, tower: Fields, inside: int, text: int) -> Tensors:
    """Return Qwen3-ASR's two layers, the second of which writes at the language model's width."""
    out, at = tower.integer("output_dim", 3584), "model.multi_modal_projector."
    if out != text:
        raise InvalidValueError(tower.at("output_dim"), out, f"the language model's hidden_size ({text})")
    return (
        *linear(f"{at}linear_1", inside, inside, Cut.WHOLE, bias=True),
        *linear(f"{at}linear_2", out, inside, Cut.WHOLE, bias=True),
    )

"""Models that see, whose code stands beside their weights: Kimi-VL, OpenGVLab's InternVL, MiniCPM-V, Phi-3 Vision.

Names and shapes: vllm-project/vllm:vllm/model_executor/models/{moonvit,kimi_vl,intern_vit,internvl,minicpmv,phi3v}.py,
which load the published files.
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.errors import InvalidValueError, UnsupportedModelError
from vramfit.formats import Role
from vramfit.readers.families import vision
from vramfit.readers.families.decoder import Named, Tensors, linear, norm
from vramfit.readers.families.vision import convolution, learned, matrices, patch_count, tower_of
from vramfit.readers.families.wrapper import Wrapper, read_wrapper
from vramfit.readers.fields import Fields
from vramfit.spec import Cut, ModelSpec, Part, Tensor


def moonvit(fields: Fields, prefix: str) -> Part:
    """Read MoonViT: a table of positions over a plane, stretched to every image; biases everywhere."""
    f = fields.filled(
        hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16, patch_size=14,
        init_pos_emb_height=64, init_pos_emb_width=64,
    )  # fmt: skip
    hidden, width, patch = f.integer("hidden_size"), f.integer("intermediate_size"), f.integer("patch_size")
    tensors = (
        *norm("norm0", hidden, bias=True),
        *norm("norm1", hidden, bias=True),
        *linear("wqkv", 3 * hidden, hidden, Cut.WHOLE, bias=True),
        *linear("wo", hidden, hidden, Cut.WHOLE, bias=True),
        *linear("mlp.fc0", width, hidden, Cut.WHOLE, bias=True),
        *linear("mlp.fc1", hidden, width, Cut.WHOLE, bias=True),
    )
    rows, columns = f.integer("init_pos_emb_height"), f.integer("init_pos_emb_width")
    around = (
        *convolution(f"{prefix}patch_embed.proj", hidden, 3, patch, patch),
        learned(f"{prefix}patch_embed.pos_emb.weight", rows, columns, hidden),
        *norm(f"{prefix}encoder.final_layernorm", hidden, bias=True),
    )
    widths = (hidden, f.integer("num_attention_heads"), width)
    return tower_of(f, widths, tensors, f"{prefix}encoder.blocks.{{layer}}.", around)


def _kimi(_whole: Fields, tower: Fields, inside: int, text: int) -> Tensors:
    """Return Kimi-VL's projector: a norm, neighbours side by side, two layers."""
    sides = tower.row("merge_kernel_size", (2, 2), largest=64, most=2)
    wide, at = inside * sides[0] * sides[-1], "multi_modal_projector."
    return (
        *norm(f"{at}pre_norm", inside, bias=True),
        *linear(f"{at}linear_1", wide, wide, Cut.WHOLE, bias=True),
        *linear(f"{at}linear_2", text, wide, Cut.WHOLE, bias=True),
    )


def internvit(fields: Fields, prefix: str) -> Part:
    """Read InternViT in OpenGVLab's layout: query, key and value in one matrix, a scale behind either half."""
    f = fields.filled(
        hidden_size=3200, intermediate_size=12800, num_hidden_layers=48, num_attention_heads=25, image_size=224,
        patch_size=14, num_channels=3, qkv_bias=False, qk_normalization=True, norm_type="rms_norm",
    )  # fmt: skip
    if f.text("norm_type") not in {"rms_norm", "layer_norm"}:
        raise InvalidValueError(f.at("norm_type"), f.values["norm_type"], "rms_norm or layer_norm")
    hidden, width, biased = (
        f.integer("hidden_size"),
        f.integer("intermediate_size"),
        f.text("norm_type") == "layer_norm",
    )
    normed = f.flag("qk_normalization", default=True)
    tensors = (
        learned("ls1", hidden),
        learned("ls2", hidden),
        *linear("attn.qkv", 3 * hidden, hidden, Cut.WHOLE, bias=f.flag("qkv_bias", default=False)),
        *linear("attn.proj", hidden, hidden, Cut.WHOLE, bias=True),
        *((*norm("attn.q_norm", hidden), *norm("attn.k_norm", hidden)) if normed else ()),
        *linear("mlp.fc1", width, hidden, Cut.WHOLE, bias=True),
        *linear("mlp.fc2", hidden, width, Cut.WHOLE, bias=True),
        *norm("norm1", hidden, bias=biased),
        *norm("norm2", hidden, bias=biased),
    )
    at, patch = f"{prefix}embeddings.", f.integer("patch_size")
    around = (
        learned(f"{at}class_embedding", 1, 1, hidden),
        *convolution(f"{at}patch_embedding", hidden, f.integer("num_channels"), patch, patch),
        learned(f"{at}position_embedding", 1, patch_count(f, image=224, patch=14) + 1, hidden),
    )
    widths = (hidden, f.integer("num_attention_heads"), width)
    return tower_of(f, widths, tensors, f"{prefix}encoder.layers.{{layer}}.", around)


def _internvl(whole: Fields, _: Fields, inside: int, text: int) -> Tensors:
    """Return InternVL's projector under OpenGVLab's names."""
    ratio = whole.values.get("downsample_ratio", 0.5)
    if not isinstance(ratio, float) or not 0 < ratio <= 1:
        raise InvalidValueError(whole.at("downsample_ratio"), ratio, "a number above 0 and at most 1")
    wide = inside * int(1 / ratio) ** 2
    return (
        *norm("mlp1.0", wide, bias=True),
        *linear("mlp1.1", text, wide, Cut.WHOLE, bias=True),
        *linear("mlp1.3", text, text, Cut.WHOLE, bias=True),
    )


def _resampled(whole: Fields, _: Fields, inside: int, text: int) -> Tensors:
    """Return MiniCPM-V's resampler: learned queries attend to the tower's vectors."""
    at = "resampler."
    return (
        learned(f"{at}query", whole.integer("query_num", 64), text),
        *(linear(f"{at}kv_proj", text, inside, Cut.WHOLE) if text != inside else ()),
        Tensor(name=f"{at}attn.in_proj_weight", shape=(3 * text, text), role=Role.LINEAR),
        Tensor(name=f"{at}attn.in_proj_bias", shape=(3 * text,), role=Role.BIAS),
        *linear(f"{at}attn.out_proj", text, text, Cut.WHOLE, bias=True),
        *(t for n in ("ln_q", "ln_kv", "ln_post") for t in norm(f"{at}{n}", text, bias=True)),
        Tensor(name=f"{at}proj", shape=(text, text), role=Role.LINEAR),
    )


CLIP_336: dict[str, object] = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
    "image_size": 336, "patch_size": 14,
}  # fmt: skip
"""openai/clip-vit-large-patch14-336, which Phi-3's code names as its only tower."""


def _phi3_tower(fields: Fields, prefix: str) -> Part:
    name = fields.text("name")
    if name not in {None, "clip_vision_model"}:
        fields.refuse("name", "a tower that phi3_v is not read with")
    return vision.clip(Fields(CLIP_336, fields.path, fields.assumed), prefix)


def _phi3(whole: Fields, _: Fields, inside: int, text: int) -> Tensors:
    """Return Phi-3 Vision's projector: four neighbours side by side, two separators, two layers."""
    at, layout = "model.vision_embed_tokens.", whole.section("embd_layer")
    if layout.text("projection_cls") not in {None, "mlp"}:
        layout.refuse("projection_cls", "another projector than two layers")
    for name in ("use_hd_transform", "with_learnable_separator"):
        layout.insist(name, on=True, why="another way to join tiles")
    return (
        learned(f"{at}glb_GN", 1, 1, 4 * inside),
        learned(f"{at}sub_GN", 1, 1, 1, 4 * inside),
        *linear(f"{at}img_projection.0", text, 4 * inside, Cut.WHOLE, bias=True),
        *matrices((f"{at}img_projection.2",), text, text, bias=True),
    )


_MINICPM = Wrapper(
    classes=("MiniCPMV",), text="qwen2", towers={"": (vision.siglip_bare, "vpm.")}, prefix="llm.model.",
    head="llm.lm_head", joint=_resampled,
)  # fmt: skip
_VERSIONS = {"2.5": "llama", "2.6": "qwen2", "4.0": "llama", "4": "llama", "4.5": "qwen3"}
"""``version`` of a MiniCPM-V -> its language model."""
WRAPPERS = {
    "internvl_chat": Wrapper(
        classes=("InternVLChatModel",), text="qwen2", text_section="llm_config",
        towers={"intern_vit_6b": (internvit, "vision_model.")}, prefix="language_model.model.",
        head="language_model.lm_head", tied_inside=True, joint=_internvl,
    ),
    "kimi_vl": Wrapper(
        classes=("KimiVLForConditionalGeneration",), text="deepseek_v3", towers={"moonvit": (moonvit, "vision_tower.")},
        prefix="language_model.model.", head="language_model.lm_head", joint=_kimi, tied_inside=True,
    ),
    "minicpmv": _MINICPM,
    "phi3_v": Wrapper(
        classes=("Phi3VForCausalLM",), text="phi3", section="img_processor", prefix="model.",
        towers={"": (_phi3_tower, "model.vision_embed_tokens.img_processor.vision_model.")}, joint=_phi3,
    ),
}  # fmt: skip
SECTIONS = {kind: wrapper.sections for kind, wrapper in WRAPPERS.items()}
CLASSES = {kind: wrapper.classes for kind, wrapper in WRAPPERS.items()}


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a configuration of one of the kinds in ``WRAPPERS``."""
    kind = fields.text("model_type") or ""
    wrapper = WRAPPERS[kind]
    if kind == "minicpmv":
        wrapper = replace(wrapper, text=_minicpm_text(fields))
        if fields.flag("drop_vision_last_layer", default=False):
            section = fields.section("vision_config")
            fewer = section.integer("num_hidden_layers") - 1
            values = {**fields.values, "vision_config": {**section.values, "num_hidden_layers": fewer}}
            fields = Fields(values, fields.path, fields.assumed)
    return read_wrapper(fields, named, wrapper)


def _minicpm_text(fields: Fields) -> str:
    version = str(fields.values.get("version"))
    if version not in _VERSIONS:
        raise UnsupportedModelError(
            f"{fields.at('version')}: {version:.20}: expected one of {', '.join(_VERSIONS)}; "
            "others have another language model or tower, so no number is given"
        )
    return _VERSIONS[version]

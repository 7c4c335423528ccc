"""Models that read images, alone or beside a text."""

from __future__ import annotations

from tiny.case import Tiny
from tiny.encoders import TEXT
from vramfit.readers.families import staged, two_towers, vit

IMAGES = {
    "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 72, "image_size": 56,
    "patch_size": 14, "mlp_ratio": 3, "num_detection_tokens": 5, "decoder_hidden_size": 32,
    "decoder_num_hidden_layers": 2, "decoder_num_attention_heads": 4, "decoder_intermediate_size": 40,
}  # fmt: skip


def image(kind: str, cls: str, **more: object) -> Tiny:
    """Return a case of a vision transformer."""
    return Tiny(kind, {**IMAGES, **more}, cls=cls, own=True)


VIT_FIELDS = ("num_hidden_layers", "num_attention_heads", "intermediate_size", "image_size", "patch_size")
TEXTS = {k: v for k, v in TEXT.items() if k != "type_vocab_size"}
TOWER = {k: v for k, v in IMAGES.items() if k in {*VIT_FIELDS}} | {"hidden_size": 36}
ALONE = {"clip": {"projection_dim": 20}, "siglip": {}, "siglip2": {"num_patches": 20}}


def towers(kind: str, cls: str) -> Tiny:
    """Return a case of both towers, or of one alone."""
    own = ALONE.get(kind.removesuffix("_text_model").removesuffix("_vision_model"), {})
    if kind.endswith("_text_model"):
        return Tiny(kind, {**TEXTS, **own}, cls=cls, own=True)
    if kind.endswith("_vision_model"):
        return Tiny(kind, {**TOWER, **own}, cls=cls, own=True)
    vision = {**TOWER, **(own if kind == "siglip2" else {})}
    return Tiny(kind, {"text_config": TEXT, "vision_config": vision, "projection_dim": 20}, cls=cls, own=True)


STAGES: dict[str, dict[str, object]] = {
    "resnet": {"embedding_size": 8, "hidden_sizes": [12, 20], "depths": [2, 1]},
    "convnext": {"hidden_sizes": [12, 20, 28], "depths": [2, 1, 2], "num_stages": 3},
    "swin": {"embed_dim": 12, "depths": [2, 1], "num_heads": [2, 4], "window_size": 3, "image_size": 56,
             "mlp_ratio": 3.0},
    "segformer": {
        "num_encoder_blocks": 2, "hidden_sizes": [12, 20], "depths": [2, 1], "num_attention_heads": [1, 2],
        "sr_ratios": [2, 1], "patch_sizes": [7, 3], "strides": [4, 2], "mlp_ratios": [4, 3], "decoder_hidden_size": 16,
    },
}  # fmt: skip


def staged_case(kind: str, cls: str, **more: object) -> Tiny:
    """Return a case of a model in stages."""
    return Tiny(kind, {**STAGES[kind.removesuffix("v2")], **more}, cls=cls, own=True)


CASES = (
    *(staged_case(kind, cls) for kind, classes in staged.CLASSES.items() for cls in classes),
    staged_case("resnet", "ResNetModel", layer_type="basic", downsample_in_first_stage=True),
    staged_case("resnet", "ResNetModel", embedding_size=12, layer_type="basic"),
    staged_case("convnext", "ConvNextModel", layer_scale_init_value=0.0),
    staged_case("swin", "SwinModel", use_absolute_embeddings=True, qkv_bias=False),
    *(towers(kind, cls) for kind, classes in two_towers.CLASSES.items() for cls in classes),
    *(
        image(kind, cls, **({"image_size": [56, 84]} if kind == "yolos" else {}))
        for kind, classes in vit.CLASSES.items()
        for cls in classes
    ),
    image("vit", "ViTForImageClassification", image_size=[56, 84], qkv_bias=False, num_channels=1, num_labels=7),
    image("vit", "ViTModel", pooler_output_size=20),
    image("dinov2", "Dinov2Model", use_swiglu_ffn=True),
    image("dinov2", "Dinov2Model", use_mask_token=False),
    image("dinov2_with_registers", "Dinov2WithRegistersModel", num_register_tokens=3),
    image("dinov3_vit", "DINOv3ViTModel", use_gated_mlp=True, num_register_tokens=4, key_bias=True, query_bias=False),
    image("beit", "BeitModel", use_relative_position_bias=True, use_absolute_position_embeddings=True),
    image("beit", "BeitForImageClassification", use_shared_relative_position_bias=True, layer_scale_init_value=0.0,
          use_mask_token=True),
    image("beit", "BeitModel", use_mean_pooling=False),
    image("beit", "BeitForImageClassification", use_mean_pooling=False),
    image("yolos", "YolosForObjectDetection", image_size=[56, 84], use_mid_position_embeddings=False),
)  # fmt: skip

"""Kimi K2.5 to K2.7: Kimi K2 with a tower that sees frames of its own size (MoonViT), and what merges four patches.

Source: huggingface/transformers:src/transformers/models/kimi_k25/, 5.23.0; names as in moonshotai/Kimi-K2.5, whose
fields begin with ``vt_`` and ``init_``.
"""

from __future__ import annotations

from dataclasses import replace

from vramfit.errors import InvalidValueError
from vramfit.formats import Role
from vramfit.layer_kind import Dense, GroupedQuery
from vramfit.readers.families import deepseek
from vramfit.readers.families.decoder import Named, Tensors, linear, norm
from vramfit.readers.fields import LARGEST_LAYERS, Fields
from vramfit.spec import Cut, Layer, ModelSpec, Part, Tensor

SECTIONS = {"kimi_k25": ("text_config", "vision_config")}
TEXTS = ("deepseek_v3", "kimi_k2")
TOWER = "vision_tower."
LATER = "patchmergerv2"
"""Kimi K3's joint: no biases, and its norm comes last."""
MERGED = 4
"""Patches that become one token, unless ``merge_kernel_size`` says otherwise."""


def read(fields: Fields, named: Named) -> ModelSpec:
    """Read a Kimi K2.5 configuration."""
    text = fields.section("text_config")
    if (text.text("model_type") or TEXTS[0]) not in TEXTS:
        text.refuse("model_type", "a language model that is not read in this place")
    values = {"model_type": TEXTS[0], "tie_word_embeddings": False, **text.values}
    return with_tower(fields, deepseek.read(Fields(values, text.path, fields.assumed), named))


def with_tower(fields: Fields, spec: ModelSpec) -> ModelSpec:
    """Return the whole model: the language model under its name in the file, and the tower."""
    tower = _tower(fields, fields.section("vision_config"), spec.hidden_size)
    return replace(
        spec,
        embeddings=tuple(_moved(t) for t in spec.embeddings),
        head=tuple(_moved(t) for t in spec.head),
        layer_prefix=f"language_model.{spec.layer_prefix}",
        parts=(*(_moved_part(part) for part in spec.parts), tower),
    )


def _moved(tensor: Tensor) -> Tensor:
    return replace(tensor, name=f"language_model.{tensor.name}")


def _moved_part(part: Part) -> Part:
    prefix = f"language_model.{part.layer_prefix}"
    return replace(part, layer_prefix=prefix, tensors=tuple(_moved(t) for t in part.tensors))


def _either(section: Fields, published: str, other: str, default: int) -> int:
    """Return a number under its published name, or under transformers'."""
    return section.integer(published) if section.has(published) else section.integer(other, default)


def _tower(fields: Fields, section: Fields, text: int) -> Part:
    """Return the tower and what joins it to the language model, whole on every device."""
    hidden = _either(section, "vt_hidden_size", "hidden_size", 1152)
    width = _either(section, "vt_intermediate_size", "intermediate_size", 4304)
    heads = _either(section, "vt_num_attention_heads", "num_attention_heads", 16)
    count = section.integer(
        "vt_num_hidden_layers" if section.has("vt_num_hidden_layers") else "num_hidden_layers", 27,
        largest=LARGEST_LAYERS,
    )  # fmt: skip
    wide = section.integer("qkv_hidden_size") if section.has("qkv_hidden_size") else hidden
    if wide % heads:
        raise InvalidValueError(section.at("qkv_hidden_size"), wide, f"a multiple of the heads ({heads})")
    facts = GroupedQuery(num_attention_heads=heads, num_key_value_heads=heads, head_dim=wide // heads, causal=False)
    normed, bias = _norm_biases(section), section.flag("attn_bias", default=True)
    mlp_bias = section.flag("linear_bias", default=True)
    block = Layer(
        attention=facts,
        feed_forward=Dense(intermediate_size=width, gated=False),
        tensors=(
            *norm("norm0", hidden, bias=normed),
            *norm("norm1", hidden, bias=normed),
            *linear("wqkv", 3 * wide, hidden, Cut.WHOLE, bias=bias),
            *linear("wo", hidden, wide, Cut.WHOLE, bias=bias),
            *linear("mlp.fc0", width, hidden, Cut.WHOLE, bias=mlp_bias),
            *linear("mlp.fc1", hidden, width, Cut.WHOLE, bias=mlp_bias),
        ),
    )
    return Part(
        name="vision",
        layers=(block,) * count,
        layer_prefix=f"{TOWER}encoder.blocks.{{layer}}.",
        tensors=(*_around(section, hidden), *_joint(fields, section, hidden, text)),
        resident=True,
    )


def _around(section: Fields, hidden: int) -> Tensors:
    patch = section.integer("patch_size", 14, largest=1024)
    rows = _either(section, "init_pos_emb_height", "pos_emb_height", 64)
    columns = _either(section, "init_pos_emb_width", "pos_emb_width", 64)
    bias = Tensor(name=f"{TOWER}patch_embed.proj.bias", shape=(hidden,), role=Role.BIAS)
    return (
        Tensor(name=f"{TOWER}patch_embed.proj.weight", shape=(hidden, 3, patch, patch), role=Role.CONVOLUTION),
        *((bias,) if section.flag("patch_embed_proj_bias", default=True) else ()),
        Tensor(name=f"{TOWER}patch_embed.pos_emb.weight", shape=(rows, columns, hidden), role=Role.EMBEDDING),
        *norm(f"{TOWER}encoder.final_layernorm", hidden, bias=_norm_biases(section)),
    )


def _norm_biases(section: Fields) -> bool:
    """Say whether norms have biases: those of Kimi K3 do not."""
    kind = section.text("norm_type") or "layernorm"
    if kind not in {"layernorm", "rmsnorm"}:
        raise InvalidValueError(section.at("norm_type"), kind, "layernorm or rmsnorm")
    return kind == "layernorm"


def _joint(fields: Fields, section: Fields, hidden: int, text: int) -> Tensors:
    """Return the norm and the two matrices that turn merged patches into tokens."""
    kernel, merged = section.values.get("merge_kernel_size"), MERGED
    if kernel is not None:
        if (
            not isinstance(kernel, list)
            or len(kernel) != 2
            or any(type(k) is not int or not 0 < k < 64 for k in kernel)
        ):
            raise InvalidValueError(section.at("merge_kernel_size"), kernel, "two integers, such as [2, 2]")
        merged = kernel[0] * kernel[1]
    wide = merged * hidden
    if section.text("mm_projector_type") == LATER:
        return (
            *linear("mm_projector.proj.0", wide, wide, Cut.WHOLE),
            *linear("mm_projector.proj.2", text, wide, Cut.WHOLE),
            *norm("mm_projector.post_norm", text),
        )
    normed = _either(section, "mm_hidden_size", "hidden_size", fields.integer("projection_hidden_size", hidden))
    return (
        *norm("mm_projector.pre_norm", normed, bias=True),
        *linear("mm_projector.proj.0", wide, wide, Cut.WHOLE, bias=True),
        *linear("mm_projector.proj.2", text, wide, Cut.WHOLE, bias=True),
    )

"""Quantisers with few files of their own: HQQ, EXL2, EXL3, TorchAO, EETQ, quanto, AQLM, BitNet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

from vramfit.errors import InvalidValueError, UnsupportedModelError
from vramfit.formats import ALL_MATRICES, BLOCK_MATRICES, Role, StorageFormat
from vramfit.readers.fields import Fields
from vramfit.readers.quantizers.floats import skipped
from vramfit.readers.quantizers.names import Names, transformers_names
from vramfit.readers.quantizers.recipe import Recipe, Rule

FINEST_AVERAGE = 1000
"""Bits per weight are taken to a thousandth."""
HQQ_BITS = {8: (1, 1), 4: (2, 1), 3: (10, 4), 2: (4, 1), 1: (8, 1)}
"""Width -> elements in how many bytes; three bits lie ten to a 32-bit word.

Source: mobiusml/hqq:hqq/core/bitpack.py.
"""
INT8_ROW = StorageFormat(name="int8-channel", block_bytes=1, row_bytes=2, source="")


def read_hqq(section: Fields, plain: StorageFormat) -> Recipe:
    """Read HQQ: codes, and a scale and a zero in the compute type per group, kept beside a few numbers per module.

    Source: mobiusml/hqq:hqq/core/quantize.py, Quantizer.quantize and HQQLinear.state_dict.
    """
    config = section.section("quant_config") if section.has("quant_config") else section
    by_module = {} if config.has("weight_quant_params") else config.values
    rules = [
        Rule(names=Names(endings=(name,), texts=(name,)), held=_hqq(config.section(name), plain)) for name in by_module
    ]
    default = None if by_module else _hqq(config, plain)
    return Recipe(default=default, rules=(*skipped(section, "skip_modules"), *rules), towers=False)


def _hqq(config: Fields, plain: StorageFormat) -> StorageFormat:
    weights = config.section("weight_quant_params") if config.has("weight_quant_params") else config
    bits = weights.integer("nbits", largest=16)
    if bits not in HQQ_BITS:
        raise InvalidValueError(weights.at("nbits"), bits, "8, 4, 3, 2 or 1")
    config.refuse("scale_quant_params", "quantised scales")
    config.refuse("zero_quant_params", "quantised zeros")
    elements, size = HQQ_BITS[bits]
    group = weights.optional("group_size", largest=2**20)
    if group is None:
        raise InvalidValueError(
            weights.at("group_size"), None, "a group size: without one each row is a group, not read"
        )
    return StorageFormat(
        name=f"hqq-int{bits}", block_elements=elements * group, block_bytes=size * group, over_rows=False,
        group_elements=group, group_bytes=2 * plain.block_bytes, source="mobiusml/hqq:hqq/core/quantize.py",
    )  # fmt: skip


def read_exl2(section: Fields, plain: StorageFormat) -> Recipe:
    """Read EXL2: the average that its converter reached, the scales of groups included, and the head's own width."""
    return _average(section, plain, "exl2", head=6, beside=0)


def read_exl3(section: Fields, plain: StorageFormat) -> Recipe:
    """Read EXL3: codes of that many bits and one 16-bit sign scale per input and per output.

    Source: turboderp-org/exllamav3:exllamav3/modules/quant/exl3.py, trellis, suh and svh.
    """
    return _average(section, plain, "exl3", head=6, beside=2)


def _average(section: Fields, plain: StorageFormat, method: str, *, head: int, beside: int) -> Recipe:
    del plain
    held = _with_average(section, "bits", method, beside)
    if not section.has("head_bits"):
        section.assume("head_bits", head, f"the default of {method}'s converter")
    last = (
        _with_average(section, "head_bits", method, beside) if section.has("head_bits") else _bits(method, head, beside)
    )
    if held.block_elements > 8:
        section.assume("bits", section.values["bits"], "an average over the layers: each has its own, header decides")
    rule = Rule(names=Names(endings=("lm_head",)), held=last)
    return Recipe(default=held, rules=(rule,), roles=ALL_MATRICES - {Role.EMBEDDING}, towers=False)


def _with_average(section: Fields, name: str, method: str, beside: int) -> StorageFormat:
    value = section.values.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= 16:
        raise InvalidValueError(section.at(name), value, "bits per weight from 1 to 16")
    return _bits(method, value, beside)


def _bits(method: str, bits: float, beside: int) -> StorageFormat:
    """Return a format of that many bits per element, in the smallest whole number of bytes."""
    size = Fraction(bits).limit_denominator(FINEST_AVERAGE) / 8
    return StorageFormat(
        name=f"{method}-{bits:g}bpw", block_elements=size.denominator, block_bytes=size.numerator, over_rows=False,
        row_bytes=beside, column_bytes=beside, source=f"quantization_config.bits of {method}",
    )  # fmt: skip


def read_torchao(section: Fields, plain: StorageFormat) -> Recipe:
    """Read TorchAO: one configuration for all modules, or one per module.

    Source: pytorch/ao:torchao/quantization/quant_api.py.
    """
    value = section.values.get("quant_type")
    if isinstance(value, str):
        kwargs = section.values.get("quant_type_kwargs")
        default: StorageFormat | None = _torchao(value, kwargs if isinstance(kwargs, Mapping) else {}, section, plain)
        return Recipe(default=default, rules=skipped(section, "modules_to_not_convert"))
    config = section.section("quant_type")
    config = config.section("default") if config.has("default") else config
    data = config.values.get("_data")
    data = data if isinstance(data, Mapping) else {}
    kind = config.text("_type") or ""
    if kind not in {"ModuleFqnToConfig", "FqnToConfig"}:
        default = _torchao(kind, data, section, plain, _version(config.values))
        return Recipe(default=default, rules=skipped(section, "modules_to_not_convert"))
    table = next((v for k, v in data.items() if k.endswith("_to_config")), None)
    if not isinstance(table, Mapping):
        raise InvalidValueError(config.at("_data"), data, "module_fqn_to_config")
    default, rules = None, list(skipped(section, "modules_to_not_convert"))
    for name, inner in table.items():
        facts = inner if isinstance(inner, Mapping) else {}
        inside = facts.get("_data")
        held = None
        if facts:
            data_inside = inside if isinstance(inside, Mapping) else {}
            held = _torchao(str(facts.get("_type")), data_inside, section, plain, _version(facts))
        if name == "_default":
            default = held
        else:
            pattern = [name.removeprefix("re:")]
            rules.append(Rule(names=transformers_names(pattern, config.at("_data")), held=held))
    named = any("embed" in name for name in table)
    roles = ALL_MATRICES if named else ALL_MATRICES - {Role.EMBEDDING}
    return Recipe(default=default, rules=tuple(rules), roles=roles)


def _version(config: Mapping[str, object]) -> int:
    found = config.get("_version", 1)
    return found if isinstance(found, int) else 1


SCALES_IN_FP32 = 2
"""Version of a configuration from which its int8 tensors are TorchAO's ``Int8Tensor``."""
TORCHAO = {
    "int4_weight_only": "int4", "Int4WeightOnlyConfig": "int4",
    "int8_weight_only": "int8", "Int8WeightOnlyConfig": "int8",
    "int8_dynamic_activation_int8_weight": "int8", "Int8DynamicActivationInt8WeightConfig": "int8",
    "float8_weight_only": "float8", "Float8WeightOnlyConfig": "float8",
    "float8_dynamic_activation_float8_weight": "float8-dynamic",
    "Float8DynamicActivationFloat8WeightConfig": "float8-dynamic",
}  # fmt: skip
"""Names of TorchAO's configurations, old and new -> what they store."""


def _torchao(
    kind: str, data: Mapping[str, object], section: Fields, plain: StorageFormat, version: int = 1
) -> StorageFormat:
    """Return what a configuration stores; from version 2 on int8 has an fp32 scale and an int8 zero per output."""
    stored = TORCHAO.get(kind)
    source = "pytorch/ao:torchao/quantization/quant_api.py"
    match stored:
        case "int4":
            group = Fields(data, section.at("quant_type")).integer("group_size", 128, largest=2**20)
            return StorageFormat(
                name="int4-tile", block_elements=2, block_bytes=1, group_elements=group,
                group_bytes=2 * plain.block_bytes, source=source,
            )  # fmt: skip
        case "int8":
            new = version >= SCALES_IN_FP32
            return replace(INT8_ROW, row_bytes=4 + 1 if new else plain.block_bytes + 8, source=source)
        case "float8":
            return StorageFormat(name="fp8-channel", block_bytes=1, row_bytes=4, source=source)
        case "float8-dynamic":
            if "PerRow" in str(data)[:10_000]:
                return StorageFormat(name="fp8-channel", block_bytes=1, row_bytes=4, source=source)
            return StorageFormat(name="fp8", block_bytes=1, tensor_bytes=4, source=source)
        case _:
            raise UnsupportedModelError(
                f"{section.at('quant_type')}: {kind!r:.100}: expected one of {', '.join(TORCHAO)}; others are not read"
            )


def read_eetq(section: Fields, plain: StorageFormat) -> Recipe:
    """Read EETQ: int8 and one fp16 scale per output.

    Source: huggingface/transformers:src/transformers/integrations/eetq.py, EetqLinear.
    """
    del plain
    held = replace(INT8_ROW, source="huggingface/transformers:src/transformers/integrations/eetq.py")
    return Recipe(default=held, rules=skipped(section, "modules_to_not_convert"))


QUANTO = {
    "int8": StorageFormat(name="int8-channel", block_bytes=1, row_bytes=2, source=""),
    "float8": StorageFormat(name="fp8-channel", block_bytes=1, row_bytes=2, source=""),
    "int4": StorageFormat(name="int4", block_elements=2, block_bytes=1, group_elements=128, group_bytes=4, source=""),
    "int2": StorageFormat(name="int2", block_elements=4, block_bytes=1, group_elements=128, group_bytes=4, source=""),
}


def read_quanto(section: Fields, plain: StorageFormat) -> Recipe:
    """Read quanto: a scale per output, or scale and shift per group of 128; a scale of inputs and one of outputs.

    Source: huggingface/optimum-quanto:optimum/quanto/nn/qmodule.py, QModuleMixin (group_size).
    """
    kind = section.text("weights") or "int8"
    if kind not in QUANTO:
        raise InvalidValueError(section.at("weights"), kind, f"one of {', '.join(QUANTO)}")
    held, source = QUANTO[kind], "huggingface/optimum-quanto:optimum/quanto/nn/qmodule.py"
    held = replace(
        held,
        row_bytes=plain.block_bytes if held.row_bytes else 0,
        group_bytes=2 * plain.block_bytes if held.group_bytes else 0,
        tensor_bytes=2 * plain.block_bytes,
        source=source,
    )
    return Recipe(default=held, rules=skipped(section, "modules_to_not_convert"))


def read_aqlm(section: Fields, plain: StorageFormat) -> Recipe:
    """Read AQLM: codes into codebooks per group of inputs, a 16-bit scale per output, the codebooks per matrix.

    Source: Vahe1994/AQLM:inference_lib/src/aqlm/inference.py, QuantizedLinear.
    """
    del plain
    inputs, outputs = section.integer("in_group_size", 8, largest=64), section.integer("out_group_size", 1, largest=64)
    bits, books = section.integer("nbits_per_codebook", 16, largest=16), section.integer("num_codebooks", 1, largest=64)
    if outputs != 1:
        raise UnsupportedModelError(f"{section.at('out_group_size')}: {outputs}: expected 1; others are not read")
    held = StorageFormat(
        name=f"aqlm-{books}x{bits}", block_elements=inputs, block_bytes=books * (1 if bits <= 8 else 2), row_bytes=2,
        tensor_bytes=books * 2**bits * inputs * 2, source="Vahe1994/AQLM:inference_lib/src/aqlm/inference.py",
    )  # fmt: skip
    return Recipe(default=held, rules=skipped(section, "linear_weights_not_to_quantize"), towers=False)


def read_bitnet(section: Fields, plain: StorageFormat) -> Recipe:
    """Read BitNet: four ternary weights a byte, one scale per matrix.

    Source: huggingface/transformers:src/transformers/integrations/bitnet.py, BitLinear.
    """
    held = StorageFormat(
        name="bitnet", block_elements=4, block_bytes=1, over_rows=False, tensor_bytes=plain.block_bytes,
        source="huggingface/transformers:src/transformers/integrations/bitnet.py",
    )  # fmt: skip
    return Recipe(default=held, rules=skipped(section, "modules_to_not_convert"), roles=BLOCK_MATRICES)

"""Classes that are not in our tables, read through an installed diffusers or transformers on the meta device.

Public classes of the two libraries only, never code from a repository; no weight is allocated.
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from typing import Any

from vramfit.errors import InvalidValueError, UnsupportedModelError
from vramfit.formats import Role
from vramfit.readers.diffusion.block import Anatomy
from vramfit.readers.fields import Fields
from vramfit.spec import Tensor

MOST_LAYERS = 256
LARGEST_SIZE = 2**20


def has_diffusers() -> bool:
    """Say whether torch and diffusers can be imported."""
    return find_spec("diffusers") is not None and find_spec("torch") is not None


def on_meta(fields: Fields, chosen: str) -> tuple[Anatomy, str]:
    """Return the tensors of a public class built from a configuration, and which library built it.

    Raises:
        UnsupportedModelError: no such model class, or one that refuses the configuration.
    """
    import diffusers  # noqa: PLC0415 - heavy, and only here when nothing lighter knows the class
    import torch  # noqa: PLC0415

    known: Any = getattr(diffusers, chosen, None) if chosen.isidentifier() else None
    is_model = isinstance(known, type) and issubclass(known, diffusers.ModelMixin)
    if not is_model:
        raise UnsupportedModelError(
            f"{fields.at('_class_name')}: {chosen!r:.100}: expected a model class of diffusers "
            f"{diffusers.__version__}; a newer diffusers may have it"
        )
    values = {name: value for name, value in fields.values.items() if not name.startswith("_")}
    for name, value in values.items():
        _refuse_endless(fields, name, value)
    values.pop("quantization_config", None)
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is deprecated in diffusers is no concern of who asks for a size
            model: Any = known.from_config(values)
    except Exception as error:  # whatever a foreign constructor raises about an untrusted configuration
        raise UnsupportedModelError(
            f"{fields.at('_class_name')}: {chosen} of diffusers {diffusers.__version__} refuses the configuration: "
            f"{type(error).__name__}: {str(error)[:200]}; expected a configuration that it can build"
        ) from error
    return Anatomy(tensors=_tensors(torch, model)), f"diffusers {diffusers.__version__}"


def _refuse_endless(fields: Fields, name: str, value: object) -> None:
    """Refuse sizes that no published component has: diffusers builds one object per layer, however many are asked for.

    Raises:
        InvalidValueError: a width or a number of layers out of bounds, or an endless list.
    """
    entries = value if isinstance(value, list) else [value]
    largest = MOST_LAYERS if "layers" in name or "blocks" in name or "mult" in name else LARGEST_SIZE
    if len(entries) > MOST_LAYERS:
        raise InvalidValueError(fields.at(name), f"{len(entries):,} entries", f"at most {MOST_LAYERS}")
    for entry in entries:
        if isinstance(entry, list):
            _refuse_endless(fields, name, entry)
        elif isinstance(entry, int | float) and not -largest <= entry <= largest:
            raise InvalidValueError(fields.at(name), entry, f"a number up to {largest:,}")


def _tensors(torch: Any, model: Any) -> tuple[Tensor, ...]:  # noqa: ANN401 - foreign modules
    """Return what ``save_pretrained`` would write; matrices of linear layers are those that recipes quantise."""
    parameters = {name for name, _ in model.named_parameters()}
    linear = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    found = []
    for name, tensor in model.state_dict().items():
        role = Role.LINEAR if name in linear else Role.BIAS if name.endswith(".bias") else Role.NORM
        if role is Role.NORM and tensor.dim() > 1:
            role = Role.CONVOLUTION
        found.append(Tensor(name=name, shape=tuple(tensor.shape), role=role, buffer=name not in parameters))
    return tuple(found)

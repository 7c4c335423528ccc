"""Lets ``from_pretrained`` of transformers and diffusers build models from their configuration: no weights are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import Any
from unittest import mock

import torch

KEPT = ("attn_implementation",)
"""What a call may say that decides the architecture."""
PLACES = ("subfolder", "revision", "cache_dir", "token")
"""What a call may say about where the configuration lies."""
FORMATS = ("dtype", "torch_dtype")


@contextmanager
def without_weights(changes: list[str]) -> Iterator[None]:
    """Replace ``from_pretrained`` for a time; notes in ``changes`` which models were built so."""
    with ExitStack() as stack:
        if find_spec("transformers") is not None:
            from transformers import PreTrainedModel  # noqa: PLC0415 - where it is installed
            from transformers.models.auto.auto_factory import _BaseAutoModelClass  # noqa: PLC0415

            stack.enter_context(_replaced(_BaseAutoModelClass, _automatic, changes))
            stack.enter_context(_replaced(PreTrainedModel, _transformers, changes))
        if find_spec("diffusers") is not None:
            from diffusers import ModelMixin  # noqa: PLC0415 - so

            stack.enter_context(_replaced(ModelMixin, _diffusers, changes))
        yield


def _replaced(owner: Any, build: Callable[..., Any], changes: list[str]) -> Any:
    def from_pretrained(cls: Any, name: Any = None, *args: Any, **kwargs: Any) -> Any:
        text = f"{cls.__name__}.from_pretrained({str(name)!r}): built from its configuration, no weights read"
        if text not in changes:
            changes.append(text)
        return build(cls, name, *args, **kwargs)

    return mock.patch.object(owner, "from_pretrained", classmethod(from_pretrained))


def _configured(cls: Any, name: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the configuration that a call means, with the fields that it changes."""
    from transformers import AutoConfig  # noqa: PLC0415 - beside its use

    config = kwargs.pop("config", None)
    if config is None:
        source = getattr(cls, "config_class", None) or AutoConfig
        config = source.from_pretrained(name, **{k: kwargs.pop(k) for k in PLACES if kwargs.get(k) is not None})
    for key in list(kwargs):
        if hasattr(config, key) and key not in {*FORMATS, *KEPT}:
            setattr(config, key, kwargs.pop(key))
    how = {key: kwargs[key] for key in KEPT if key in kwargs}
    dtype = next((kwargs[key] for key in FORMATS if kwargs.get(key) is not None), None)
    if isinstance(dtype, str):
        dtype = config.dtype if dtype == "auto" else getattr(torch, dtype)
    how["dtype"] = dtype or torch.float32
    return config, how


def _placed(model: Any, kwargs: dict[str, Any]) -> Any:
    place = kwargs.get("device_map")
    if place is not None:
        model = model.to("cuda" if isinstance(place, str | dict) else place)
    return model.eval()


def _automatic(cls: Any, name: Any, *_: Any, **kwargs: Any) -> Any:
    config, how = _configured(cls, name, kwargs)
    return _placed(cls.from_config(config, **how), kwargs)


def _transformers(cls: Any, name: Any, *_: Any, **kwargs: Any) -> Any:
    config, how = _configured(cls, name, kwargs)
    return _placed(cls._from_config(config, **how), kwargs)


def _diffusers(cls: Any, name: Any, *_: Any, **kwargs: Any) -> Any:
    values = cls.load_config(name, **{k: kwargs[k] for k in PLACES if kwargs.get(k) is not None})
    model = cls.from_config(values)
    return model.to(kwargs["torch_dtype"]) if kwargs.get("torch_dtype") is not None else model

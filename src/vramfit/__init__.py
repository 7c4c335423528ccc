"""How much GPU memory a model needs, on which and how many GPUs, and what is the smallest change that makes it fit.

>>> import vramfit
>>> model = vramfit.read_model("meta-llama/Llama-3.1-8B-Instruct")
>>> need = vramfit.estimate(model, vramfit.Inference(context_tokens=8192, batch=4))
>>> need.kv_bytes_per_token
131072
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from vramfit.answer import answer
from vramfit.catalogue.device import find_device
from vramfit.device import Device
from vramfit.errors import VramfitError
from vramfit.estimate import estimate
from vramfit.fit import fit
from vramfit.request import Inference, Plan, Request
from vramfit.result import Answer, Breakdown, Estimate, Fit, Item, Verdict
from vramfit.source import read_model
from vramfit.spec import ModelSpec
from vramfit.version import VERSION

if TYPE_CHECKING:
    from vramfit.train import estimate_training
    from vramfit.training import AdapterAsked, OffloadAsked, Training, TrainingRequest
    from vramfit.training_answer import answer_training
    from vramfit.training_result import TrainingAnswer, TrainingEstimate

__version__ = VERSION

__all__ = [
    "AdapterAsked",
    "Answer",
    "Breakdown",
    "Device",
    "Estimate",
    "Fit",
    "Inference",
    "Item",
    "ModelSpec",
    "OffloadAsked",
    "Plan",
    "Request",
    "Training",
    "TrainingAnswer",
    "TrainingEstimate",
    "TrainingRequest",
    "Verdict",
    "VramfitError",
    "answer",
    "answer_training",
    "estimate",
    "estimate_training",
    "find_device",
    "fit",
    "read_model",
]

_LATE = {
    "AdapterAsked": "training",
    "OffloadAsked": "training",
    "Training": "training",
    "TrainingAnswer": "training_result",
    "TrainingEstimate": "training_result",
    "TrainingRequest": "training",
    "answer_training": "training_answer",
    "estimate_training": "train",
}
"""Names of training -> where they live; imported when they are asked for, so that serving does not wait for them."""


def __getattr__(name: str) -> object:
    """Import a name of training.

    Raises:
        AttributeError: there is no such name.
    """
    if name not in _LATE:
        raise AttributeError(f"module 'vramfit' has no attribute {name!r}")
    return getattr(import_module(f"vramfit.{_LATE[name]}"), name)

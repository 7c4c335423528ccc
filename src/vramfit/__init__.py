"""How much GPU memory a model needs, on which and how many GPUs, and what is the smallest change that makes it fit.

>>> import vramfit
>>> model = vramfit.read_model("meta-llama/Llama-3.1-8B-Instruct")
>>> need = vramfit.estimate(model, vramfit.Inference(context_tokens=8192, batch=4))
>>> need.kv_bytes_per_token
131072
"""

from __future__ import annotations

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

__version__ = VERSION

__all__ = [
    "Answer",
    "Breakdown",
    "Device",
    "Estimate",
    "Fit",
    "Inference",
    "Item",
    "ModelSpec",
    "Plan",
    "Request",
    "Verdict",
    "VramfitError",
    "answer",
    "estimate",
    "find_device",
    "fit",
    "read_model",
]

"""What a virtual GPU is made of."""

from __future__ import annotations

from dataclasses import dataclass

from vramfit.trace.card import Card
from vramfit.trace.cuda_answers import CudaAnswers
from vramfit.trace.machine import Machine
from vramfit.trace.progress import Progress
from vramfit.trace.ranks import Ranks
from vramfit.trace.recorder import Recorder
from vramfit.trace.recording import Recording
from vramfit.trace.values import Values
from vramfit.trace.view import View
from vramfit.trace.workspaces import Workspaces


@dataclass(slots=True, kw_only=True)
class Parts:
    """The parts of one virtual GPU, for those who install it and those who report on it."""

    machine: Machine
    context_bytes: int
    capacity_bytes: int
    recording: Recording
    card: Card
    recorder: Recorder
    values: Values
    view: View
    progress: Progress
    answers: CudaAnswers
    workspaces: Workspaces
    ranks: Ranks
    interrupted: bool = False

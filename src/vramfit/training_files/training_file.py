"""One file as understood: which program's it is, and what became of each of its keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vramfit.commands.command_line import Effect, Word
from vramfit.errors import InvalidValueError
from vramfit.request import Given

REST = "plan.rest"
"""Not a field of the plan: which of its axes takes the devices that no other axis takes."""
DIVIDED_BY = "plan.divided_by"
"""Not a field of the plan: what divides states between ranks, which only one thing can."""
GLOBAL_BATCH = "workload.global_batch"
"""Not a field of the workload: sequences of one optimizer step over all ranks, which gives the accumulation."""
UNLESS = "workload.precision_unless"
"""Not a field of the workload: its precision where no file says one."""
NODES = "device_count.nodes"
"""Not a field of the request: machines, each with as many devices as ``device_count.per_node`` says."""
PER_NODE = "device_count.per_node"


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """The decoded content of one file, before anybody knows what it means."""

    where: str
    """Its name, for messages."""
    values: Mapping[str, object] | None = None
    """Of JSON, YAML and TOML; None = it is text."""
    text: str = ""
    """Of a script or a command line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A value that stands for something not modelled here, where going on would answer another question."""

    path: str
    """Field that has to be given in its place."""
    error: InvalidValueError


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFile:
    """One file."""

    kind: str
    """What people call it: ``DeepSpeed JSON``."""
    where: str
    framework: str | None
    """As requests name it; None = any framework may read such a file."""
    words: tuple[Word, ...]
    refused: tuple[Refused, ...] = ()
    config: Mapping[str, object] | None = None
    """A model that it describes by its sizes, as a ``config.json``; None = it names one or none."""

    @property
    def given(self) -> tuple[Given, ...]:
        """Fields of the request, in the order in which they stand."""
        return tuple(given for word in self.words for given in word.given)

    def having(self, effect: Effect) -> tuple[Word, ...]:
        """Return the keys that have that effect."""
        return tuple(word for word in self.words if word.effect is effect)

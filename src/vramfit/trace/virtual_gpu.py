"""A GPU that is not there: run PyTorch code on it, then ask what it took.

    with VirtualGPU("a100-sxm-80gb") as gpu:
        loss = model(batch).loss
        loss.backward()
        optimizer.step()
    print(gpu.report())

Plain meta tensors, one function mode (what the program sees), one dispatch mode (what is allocated); nothing of it
touches a real GPU, also where there is one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Self

from vramfit.device import Device
from vramfit.memory.runtime import KERNEL_BYTES, context_bytes
from vramfit.trace.allocator_config import config_from_environment, parse_config
from vramfit.trace.attribution import categorise
from vramfit.trace.card import Card
from vramfit.trace.cuda_answers import CudaAnswers
from vramfit.trace.machine import imagine
from vramfit.trace.parts import Parts
from vramfit.trace.progress import Progress
from vramfit.trace.ranks import Ranks
from vramfit.trace.recorder import Recorder
from vramfit.trace.recording import Recording
from vramfit.trace.replacements import Replacements
from vramfit.trace.reporting import report
from vramfit.trace.surroundings import Surroundings
from vramfit.trace.values import Hint, Values
from vramfit.trace.view import View
from vramfit.trace.workspaces import Workspaces, chosen
from vramfit.trace_report import TraceError, TraceReport

OnOperator = Callable[[int], None]


class VirtualGPU:
    """One imagined card, for the time of a ``with`` block."""

    _active: VirtualGPU | None = None

    def __init__(  # noqa: PLR0913 - four positions, the rest by keyword
        self,
        device: str | Device,
        torch_version: str | None = None,
        alloc_conf: str | None = None,
        hints: Mapping[str, Hint] | None = None,
        *,
        title: str = "",
        capacity_bytes: int | None = None,
        enforce: bool = True,
        workspaces: frozenset[str] | bool = True,
        world_size: int = 1,
        rank: int = 0,
        on_operator: OnOperator | None = None,
    ) -> None:
        """Imagine a card of the catalogue.

        ``torch_version``: whose CUDA build is meant; None = the one installed. ``alloc_conf``: as in
        ``PYTORCH_CUDA_ALLOC_CONF``; None = what the environment says. ``hints``: values that depend on data, by
        operator or by ``file.py:line``. ``capacity_bytes``: other than the card's. ``enforce``: False = nothing
        is refused, to find out how much a program needs that does not fit; it is still told the card's size.
        ``workspaces``: names of the rules to apply, or all or none. ``on_operator``: told how many operators have run.

        ``world_size``, ``rank``: trace one rank of several; the others are not there.

        Raises:
            VramfitError: the card, the version or the configuration is not known.
        """
        machine = imagine(device, torch_version)
        version = machine.torch_version
        read = parse_config(alloc_conf, version) if alloc_conf is not None else None
        config = read or config_from_environment(os.environ, version)
        context = context_bytes(machine.device) + KERNEL_BYTES
        capacity = capacity_bytes or machine.device.capacity_bytes
        recording = Recording(title)
        card = Card(recording, config, capacity, context, enforce=enforce)
        recorder = Recorder(recording, card)
        recorder.on_operator = on_operator
        values = Values(recorder, hints)
        self.parts = Parts(
            machine=machine,
            context_bytes=context,
            capacity_bytes=capacity,
            recording=recording,
            card=card,
            recorder=recorder,
            values=values,
            view=View(machine, recorder),
            progress=Progress(recorder),
            answers=CudaAnswers(machine, card, recorder),
            workspaces=Workspaces(machine, recorder, chosen(workspaces)),
            ranks=Ranks(recorder, values, world_size, rank),
        )
        self._surroundings = Surroundings(self.parts)
        self._chosen = workspaces
        self._entered: ExitStack | None = None
        self._used = False

    @property
    def recording(self) -> Recording:
        """Every allocation, in order of time."""
        return self.parts.recording

    def __enter__(self) -> Self:
        """Let Python believe in the card from here on.

        Raises:
            TraceError: another one is active, or this one was used before.
        """
        if VirtualGPU._active is not None:
            raise TraceError("VirtualGPU: another one is active; expected one at a time; leave the outer `with` first")
        if self._used:
            raise TraceError("VirtualGPU: it was used before; expected a new one for each trace; make another")
        VirtualGPU._active, self._used = self, True
        with ExitStack() as stack:
            stack.callback(self._leave)
            replacements = Replacements()
            stack.callback(replacements.undo)
            self._surroundings.install(replacements, stack)
            stack.enter_context(self.parts.recorder)
            stack.enter_context(self.parts.view)
            self._entered = stack.pop_all()
        return self

    @staticmethod
    def _leave() -> None:
        VirtualGPU._active = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put everything back, and close the recording."""
        assert self._entered is not None
        self.parts.interrupted = isinstance(error, KeyboardInterrupt)
        entered, self._entered = self._entered, None
        self.parts.ranks.end()
        entered.close()
        self.parts.recorder.closed = True
        categorise(self.recording)
        self.recording.finish()

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Name what runs inside: it becomes a phase of the report."""
        return self.parts.progress.user_phase(name)

    def report(self, num_largest: int = 20) -> TraceReport:
        """Return what was found; inside the block, what was found so far."""
        return report(self.parts, num_largest)

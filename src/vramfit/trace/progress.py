"""Where a program is: phases, steps, and whose memory is whose, noted while it runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from vramfit.trace.phase import AFTER_BACKWARD, BACKWARD, BETWEEN, FORWARD, INFERENCE, LOSS, OPTIMIZER, SETUP
from vramfit.trace.recorder import Recorder
from vramfit.trace.recording import Category, Mark


class Progress:
    """Marks phases and steps of one program, and remembers which allocation is a parameter, gradient or state."""

    def __init__(self, recorder: Recorder) -> None:
        """Begin in the set-up phase."""
        self.recorder = recorder
        self.owners: dict[int, str] = {}
        """Allocation -> name of the parameter or buffer it belongs to."""
        self.names: dict[int, str] = {}
        """``id`` of a parameter -> its name."""
        self.step = -1
        self.num_backwards = 0
        self._parameters: dict[int, torch.nn.Parameter] = {}
        self._roots: set[int] = set()
        self._stepped = True
        self._phase = ""
        self._user: list[str] = []
        self.set_phase(SETUP)

    def set_phase(self, name: str) -> None:
        """Begin a phase, unless the user named one that goes on."""
        if not self._user and name != self._phase:
            self._begin(name)

    @contextmanager
    def user_phase(self, name: str) -> Iterator[None]:
        """Name what runs inside."""
        before = self._phase
        self._user.append(name)
        self._begin(name)
        try:
            yield
        finally:
            self._user.pop()
            self._begin(before)

    def _begin(self, name: str) -> None:
        self._phase = name
        self.recorder.recording.mark(Mark.PHASE, name)

    # Modules

    def module_begins(self, module: torch.nn.Module, inputs: object) -> None:
        """Hook: a module's forward is about to run."""
        recorder = self.recorder
        if not recorder.sites.depth and not recorder.backward_depth:
            self._root_begins(module)
        recorder.sites.enter(module)

    def module_ends(self, module: torch.nn.Module, inputs: object, output: object) -> None:
        """Hook: a module's forward has run, or was broken off."""
        recorder = self.recorder
        recorder.sites.leave()
        if not recorder.sites.depth and not recorder.backward_depth and torch.is_grad_enabled():
            self.set_phase(LOSS)

    def _root_begins(self, module: torch.nn.Module) -> None:
        if self._stepped and torch.is_grad_enabled():
            self._stepped = False
            self.step += 1
            self.recorder.recording.mark(Mark.STEP, value=self.step)
        if id(module) not in self._roots:
            self._roots.add(id(module))
            with torch._C.DisableTorchFunction():
                self.learn(module)
        self.set_phase(FORWARD if torch.is_grad_enabled() else INFERENCE)

    def learn(self, root: torch.nn.Module) -> None:
        """Note the names of a module's parameters and buffers."""
        for name, parameter in root.named_parameters():
            self._own(parameter, Category.PARAMETER, self.names.setdefault(id(parameter), name))
            self._parameters[id(parameter)] = parameter
        for name, buffer in root.named_buffers():
            self._own(buffer, Category.BUFFER, name)

    def _own(self, value: Any, category: Category, name: str) -> None:
        for tensor in plain(value):
            number = self.recorder.number_of(tensor)
            if number >= 0:
                self.owners[number] = name
                self.recorder.recording.set_category(number, category)

    # Backward and optimizer

    @contextmanager
    def backward(self) -> Iterator[None]:
        """Be in a backward pass; one inside another is part of it."""
        recorder = self.recorder
        recorder.backward_depth += 1
        if recorder.backward_depth == 1:
            self.num_backwards += 1
            self.set_phase(BACKWARD)
        try:
            yield
        finally:
            recorder.backward_depth -= 1
            if not recorder.backward_depth:
                with torch._C.DisableTorchFunction():
                    self._gradients(self._parameters.values())
                self.set_phase(AFTER_BACKWARD)

    def _gradients(self, parameters: Iterable[torch.Tensor]) -> None:
        for parameter in parameters:
            if parameter.grad is not None:
                self._own(parameter.grad, Category.GRADIENT, self.names.get(id(parameter), ""))

    def optimizer_begins(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        """Hook: an optimizer is about to step."""
        self.set_phase(OPTIMIZER)
        with torch._C.DisableTorchFunction():
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if id(parameter) not in self._parameters:
                        self._parameters[id(parameter)] = parameter
                        self._own(parameter, Category.PARAMETER, "")
                self._gradients(group["params"])

    def optimizer_ends(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        """Hook: an optimizer has stepped."""
        with torch._C.DisableTorchFunction():
            for parameter, state in optimizer.state.items():
                name = self.names.get(id(parameter), "")
                for value in state.values() if isinstance(state, dict) else ():
                    self._own(value, Category.OPTIMIZER_STATE, name)
        self._stepped = True
        self.recorder.forward_sites.clear()
        self.set_phase(BETWEEN)


def plain(value: Any) -> Iterator[torch.Tensor]:
    """Yield the plain tensors that a tensor, or a subclass such as a DTensor, is made of."""
    if type(value) in (torch.Tensor, torch.nn.Parameter):
        yield value
    elif isinstance(value, torch.Tensor):
        parts = value.__tensor_flatten__()[0] if hasattr(value, "__tensor_flatten__") else ()
        for name in parts:
            yield from plain(getattr(value, name))
        if not parts:
            yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from plain(each)

"""When a traced program has shown enough: after some optimizer steps, or some time."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from vramfit.trace.ending import Stop

MOST_STEPS_APART = 10
"""How much more often one optimizer may step than another that is waited for."""


class Stopped(BaseException):
    """Ends a program from within."""

    def __init__(self, stop: Stop) -> None:
        """Say why."""
        self.stop = stop
        super().__init__(stop.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long a program is followed."""

    steps: int | None = None
    """Optimizer steps; None = all of them."""
    seconds: float | None = None
    """None = as long as it takes."""


@dataclass(slots=True)
class Counted:
    """Optimizer steps so far, each optimizer by itself: programs such as GANs have several."""

    steps: WeakKeyDictionary[Optimizer, int] = field(default_factory=WeakKeyDictionary)

    num_steps: int = 0
    """Steps of the optimizer that took most."""

    def enough(self, steps: int) -> bool:
        """Whether every optimizer that is alive took so many; one that is used now and then is not waited for."""
        return min(self.steps.values()) >= steps or self.num_steps >= MOST_STEPS_APART * steps


@contextmanager
def limited(limits: Limits) -> Iterator[Counted]:
    """Stop what runs inside when a limit is reached; yields what was counted."""
    counted = Counted()

    def stepped(optimizer: Optimizer, *_: Any) -> None:
        counted.steps[optimizer] = counted.steps.get(optimizer, 0) + 1
        counted.num_steps = max(counted.num_steps, counted.steps[optimizer])
        if limits.steps is not None and counted.enough(limits.steps):
            raise Stopped(Stop.STEPS)

    hook = register_optimizer_step_post_hook(stepped)
    try:
        with _alarm(limits.seconds):
            yield counted
    finally:
        hook.remove()


@contextmanager
def _alarm(seconds: float | None) -> Iterator[None]:
    """Stop after some time, where the system can interrupt a program."""
    if seconds is None or not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(*_: object) -> None:
        raise Stopped(Stop.TIME)

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

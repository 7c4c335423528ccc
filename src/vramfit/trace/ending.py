"""How a traced program came to its end. No torch is needed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

CRASHED = 1
INTERRUPTED = 130


class Stop(StrEnum):
    """Why a program ended."""

    END = "end"  # it ran through
    EXIT = "exit"  # it called sys.exit
    STEPS = "steps"  # it took as many optimizer steps as were asked for
    TIME = "time"  # it ran for as long as was allowed
    INTERRUPT = "interrupt"  # Ctrl-C
    MEMORY = "memory"  # the card was full, and the program did not catch the error
    CRASH = "crash"  # it raised something else


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How it ended, and what was changed so that it could run."""

    stop: Stop
    exit_code: int = 0
    """What the process of the program would have returned."""
    num_steps: int = 0
    """Optimizer steps that were taken."""
    seconds: float = 0.0
    traceback: str = ""
    """The program's own traceback; our frames and those of the virtual GPU are left out."""
    changes: tuple[str, ...] = ()
    """What runs otherwise than on a machine of its own, such as workers that load data."""

    @property
    def complete(self) -> bool:
        """Whether the program ran as far as it was meant to."""
        return self.stop in {Stop.END, Stop.STEPS} or (self.stop is Stop.EXIT and not self.exit_code)

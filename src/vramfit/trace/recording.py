"""What a traced program did with device memory, in one order of time: appended to while it runs, replayed afterwards.

The virtual GPU writes it, the allocator's simulator replays it, attribution reads it; nothing here needs torch.
Everything lies in typed columns and interned texts: an allocation takes 36 bytes and an event 5, whatever its names.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import NamedTuple

DEFAULT_STREAM = 0
ALL_STREAMS = -1
_ALIVE = -1


class Category(StrEnum):
    """Whose memory an allocation is."""

    PARAMETER = "parameter"
    BUFFER = "buffer"
    """State of a module that is not trained, such as running statistics."""
    GRADIENT = "gradient"
    OPTIMIZER_STATE = "optimizer_state"
    ACTIVATION = "activation"
    """Kept by autograd for the backward pass."""
    INPUT = "input"
    TEMPORARY = "temporary"
    WORKSPACE = "workspace"
    """Scratch that a kernel's library takes, not any tensor of the program."""
    COLLECTIVE = "collective"
    """Buffers of communication between ranks."""
    UNKNOWN = "unknown"
    """Nobody said; so it is in the snapshots that PyTorch writes."""


CATEGORIES = tuple(Category)
_CODES = {category: code for code, category in enumerate(CATEGORIES)}


class Mark(StrEnum):
    """Something that is no allocation but that memory depends on, or that time is told by."""

    PHASE = "phase"
    """``text``: its name, such as ``forward``; holds until the next one."""
    STEP = "step"
    """``value``: its number from 0; holds until the next one."""
    EMPTY_CACHE = "empty_cache"
    SYNCHRONIZE = "synchronize"
    """``value``: the stream the host waited for, or ``ALL_STREAMS``."""
    RESET_PEAK = "reset_peak"
    MEMORY_FRACTION = "memory_fraction"
    """``text``: the share of the device that the process may take from here on."""
    CAPTURE_BEGIN = "capture_begin"
    """``value``: the private pool of the graph that is captured from here on."""
    CAPTURE_END = "capture_end"
    POOL_BEGIN = "pool_begin"
    """``value``: the private pool that serves from here on, without a capture."""
    POOL_END = "pool_end"
    POOL_RELEASE = "pool_release"
    """``value``: the private pool that one graph or user fewer holds."""


class Kind(IntEnum):
    """What an event is; the numbers stand in the column of events."""

    NOTHING = 0
    """An allocation that was taken back: it never was."""
    ALLOCATE = 1
    FREE = 2
    USE = 3
    """An allocation was used by a stream other than its own (``record_stream``)."""
    MARK = 4


class Frame(NamedTuple):
    """One line of the user's code, as a traceback names it."""

    file: str
    line: int
    function: str


@dataclass(frozen=True, slots=True)
class MarkedEvent:
    """A mark, and when it was set."""

    event: int
    mark: Mark
    text: str
    value: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """One allocation, as it was recorded."""

    number: int
    num_bytes: int
    """Bytes requested, before any rounding. [B]"""
    stream: int
    birth: int
    """Index of the event that made it."""
    death: int | None
    """Index of the event that freed it; None = alive at the end."""
    operator: str
    module: str
    """Path of the module that ran, such as ``layers.0.mlp``; empty = none did."""
    phase: str
    step: int | None
    """None = before the first step."""
    category: Category
    frames: tuple[Frame, ...]
    """Lines of the user's code, innermost first."""


class RecordingClosedError(AssertionError):
    """A finished recording was written to: a mistake of the program, not of its user."""


@dataclass(slots=True)
class _Names:
    """Values that come again and again, each kept once."""

    values: list[object] = field(default_factory=list)
    codes: dict[object, int] = field(default_factory=dict)

    def code(self, value: object) -> int:
        found = self.codes.get(value)
        if found is None:
            found = self.codes[value] = len(self.values)
            self.values.append(value)
        return found


class Recording:
    """Allocations, uses by other streams and marks of one device, in order of time; closed by ``finish``."""

    __slots__ = (
        "_births", "_categories", "_closed", "_deaths", "_frames", "_kinds", "_marks", "_modules", "_num_bytes",
        "_operators", "_phases", "_stacks", "_steps", "_streams", "_subjects", "_texts", "_uses", "title",
    )  # fmt: skip

    def __init__(self, title: str = "") -> None:
        """Begin an empty recording; ``title`` says what is traced."""
        self.title = title
        self._kinds, self._subjects = bytearray(), array("i")
        self._num_bytes, self._births, self._deaths = array("q"), array("i"), array("i")
        self._streams, self._categories = array("i"), bytearray()
        self._operators, self._modules, self._stacks = array("i"), array("i"), array("i")
        self._texts, self._frames = _Names(), _Names()
        self._uses: list[tuple[int, int]] = []
        self._marks: list[MarkedEvent] = []
        self._phases: list[MarkedEvent] = []
        self._steps: list[MarkedEvent] = []
        self._closed = False

    # Writing

    def allocate(
        self,
        num_bytes: int,
        *,
        stream: int = DEFAULT_STREAM,
        operator: str = "",
        module: str = "",
        category: Category = Category.TEMPORARY,
        frames: tuple[Frame, ...] = (),
    ) -> int:
        """Record that ``num_bytes`` (above 0) were requested; return the allocation's number."""
        assert num_bytes > 0, "a request of nothing reaches no allocator"
        number = len(self._num_bytes)
        self._births.append(self._event(Kind.ALLOCATE, number))
        self._num_bytes.append(num_bytes)
        self._deaths.append(_ALIVE)
        self._streams.append(stream)
        self._categories.append(_CODES[category])
        self._operators.append(self._texts.code(operator))
        self._modules.append(self._texts.code(module))
        self._stacks.append(self._frames.code(frames))
        return number

    def free(self, number: int) -> None:
        """Record that an allocation's last owner let go of it."""
        assert self._deaths[number] == _ALIVE, f"allocation {number} was freed before"
        never_was = self._kinds[self._births[number]] == Kind.NOTHING
        self._deaths[number] = self._event(Kind.NOTHING if never_was else Kind.FREE, number)

    def use(self, number: int, stream: int) -> None:
        """Record that another stream works with an allocation (``Tensor.record_stream``)."""
        assert self._deaths[number] == _ALIVE, f"allocation {number} is used after it was freed"
        self._event(Kind.USE, len(self._uses))
        self._uses.append((number, stream))

    def mark(self, mark: Mark, text: str = "", value: int = 0) -> None:
        """Record a boundary of a phase or step, or a call that changes what the allocator does."""
        marked = MarkedEvent(self._event(Kind.MARK, len(self._marks)), mark, text, value)
        self._marks.append(marked)
        if mark is Mark.PHASE:
            self._phases.append(marked)
        elif mark is Mark.STEP:
            self._steps.append(marked)

    def set_category(self, number: int, category: Category) -> None:
        """Say whose memory an allocation is, once that is known."""
        self._open()
        self._categories[number] = _CODES[category]

    def take_back(self, number: int) -> None:
        """Remove an allocation that a real device would not have made, and its death if it has one."""
        self._open()
        self._kinds[self._births[number]] = Kind.NOTHING
        if self._deaths[number] != _ALIVE:
            self._kinds[self._deaths[number]] = Kind.NOTHING

    def finish(self) -> None:
        """Close the recording: from here on it is only read."""
        self._closed = True

    def _event(self, kind: Kind, subject: int) -> int:
        self._open()
        self._kinds.append(kind)
        self._subjects.append(subject)
        return len(self._kinds) - 1

    def _open(self) -> None:
        if self._closed:
            raise RecordingClosedError("this recording is finished; it can only be read")

    # Reading

    def __len__(self) -> int:
        """Return how many events there are."""
        return len(self._kinds)

    @property
    def num_allocations(self) -> int:
        """How many allocations were recorded, those taken back among them."""
        return len(self._num_bytes)

    @property
    def marks(self) -> tuple[MarkedEvent, ...]:
        """All marks in order of time."""
        return tuple(self._marks)

    def events(self, start: int = 0) -> Iterator[tuple[int, int, int]]:
        """Yield ``(kind, subject, value)`` of each event from ``start`` on.

        ALLOCATE: the allocation's number and its stream; FREE: its number and 0; USE: its number and the other stream;
        MARK: the index in ``marks`` and 0; what was taken back yields NOTHING, so that positions stay.
        """
        for i in range(start, len(self._kinds)):
            kind, subject = self._kinds[i], self._subjects[i]
            if kind == Kind.ALLOCATE:
                yield kind, subject, self._streams[subject]
            elif kind == Kind.USE:
                number, stream = self._uses[subject]
                taken_back = self._kinds[self._births[number]] == Kind.NOTHING
                yield Kind.NOTHING if taken_back else kind, number, stream
            else:
                yield kind, subject, 0

    def mark_at(self, index: int) -> MarkedEvent:
        """Return the mark that a MARK event names."""
        return self._marks[index]

    def num_bytes(self, number: int) -> int:
        """Return the bytes that an allocation requested. [B]"""
        return self._num_bytes[number]

    def category(self, number: int) -> Category:
        """Return whose memory an allocation is, as far as is known."""
        return CATEGORIES[self._categories[number]]

    def module(self, number: int) -> str:
        """Return the path of the module in which an allocation was made."""
        return str(self._texts.values[self._modules[number]])

    def operator(self, number: int) -> str:
        """Return the operator that made an allocation."""
        return str(self._texts.values[self._operators[number]])

    def frames(self, number: int) -> tuple[Frame, ...]:
        """Return the user's lines that led to an allocation, innermost first."""
        found = self._frames.values[self._stacks[number]]
        assert isinstance(found, tuple)
        return found

    def phase_at(self, event: int) -> str:
        """Return the phase in which an event lies; empty = before the first."""
        found = _last(self._phases, event)
        return "" if found is None else found.text

    def step_at(self, event: int) -> int | None:
        """Return the step in which an event lies; None = before the first."""
        found = _last(self._steps, event)
        return None if found is None else found.value

    def allocation(self, number: int) -> Allocation:
        """Return everything about one allocation."""
        birth, death = self._births[number], self._deaths[number]
        return Allocation(
            number=number,
            num_bytes=self._num_bytes[number],
            stream=self._streams[number],
            birth=birth,
            death=None if death == _ALIVE else death,
            operator=self.operator(number),
            module=self.module(number),
            phase=self.phase_at(birth),
            step=self.step_at(birth),
            category=self.category(number),
            frames=self.frames(number),
        )

    def allocations(self) -> Iterator[Allocation]:
        """Yield every allocation that was not taken back, in order of birth."""
        return map(self.allocation, self._numbers())

    def alive(self, event: int | None = None) -> Iterator[int]:
        """Yield the numbers of the allocations alive after an event; None = at the end."""
        moment = len(self._kinds) if event is None else event
        for number in self._numbers():
            if self._births[number] > moment:
                return
            if self._deaths[number] == _ALIVE or self._deaths[number] > moment:
                yield number

    def _numbers(self) -> Iterable[int]:
        return (n for n in range(len(self._num_bytes)) if self._kinds[self._births[n]] != Kind.NOTHING)


def _last(marks: list[MarkedEvent], event: int) -> MarkedEvent | None:
    """Return the last mark set at or before an event."""
    place = bisect_right(marks, event, key=_when)
    return marks[place - 1] if place else None


def _when(mark: MarkedEvent) -> int:
    return mark.event

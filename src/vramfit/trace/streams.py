"""Streams and events of a device that is not there: numbers, so that allocations know theirs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch

from vramfit.trace.recorder import Recorder
from vramfit.trace.recording import DEFAULT_STREAM, Mark

_MOST_POOLED = 32
"""PyTorch hands out 32 streams of each priority in turn. Source: c10/cuda/CUDAStream.cpp, kStreamsPerPool."""


class Stream:
    """A queue of work; ``number`` 0 is the default one."""

    def __init__(self, number: int, recorder: Recorder, priority: int = 0) -> None:
        """Be the stream of that number."""
        self.number, self.priority, self.device_index, self.device_type = number, priority, 0, 1
        self._recorder = recorder

    @property
    def stream_id(self) -> int:
        """Number of the stream."""
        return self.number

    @property
    def cuda_stream(self) -> int:
        """Handle of the stream; it points nowhere."""
        return self.number

    @property
    def device(self) -> Any:
        """The one device."""
        return torch.device("cuda", 0)

    def synchronize(self) -> None:
        """Wait for the stream's work."""
        self._recorder.recording.mark(Mark.SYNCHRONIZE, value=self.number)

    def wait_stream(self, stream: Stream) -> None:
        """Let this stream's later work wait; the host does not."""

    def wait_event(self, event: Event) -> None:
        """Let this stream's later work wait; the host does not."""

    def record_event(self, event: Event | None = None) -> Event:
        """Return an event of this stream."""
        return event or Event()

    def query(self) -> bool:
        """Say that all work is done."""
        return True

    def is_capturing(self) -> bool:
        """Say that no graph is captured."""
        return False

    def __eq__(self, other: object) -> bool:
        """Streams of one number are one."""
        return isinstance(other, Stream) and other.number == self.number

    def __hash__(self) -> int:
        """Hash by number."""
        return hash(self.number)

    def __enter__(self) -> Self:
        """Make it current, as ``with stream`` does."""
        self._before = self._recorder.stream
        self._recorder.stream = self.number
        return self

    def __exit__(self, *_: object) -> None:
        """Make the one before current again."""
        self._recorder.stream = self._before


class Event:
    """A point in a stream's work; all of it is done."""

    def __init__(self, *_: object, **__: object) -> None:
        """Take what a real event takes."""

    def record(self, stream: Stream | None = None) -> None:
        """Be recorded."""

    def wait(self, stream: Stream | None = None) -> None:
        """Let a stream wait."""

    def synchronize(self) -> None:
        """Wait for it."""

    def query(self) -> bool:
        """Say that it happened."""
        return True

    def elapsed_time(self, end: Event) -> float:
        """Return a stated time. [ms]"""
        return 1.0


class Streams:
    """The streams of one device."""

    def __init__(self, recorder: Recorder) -> None:
        """Begin with the default stream."""
        self._recorder = recorder
        self.default = Stream(DEFAULT_STREAM, recorder)
        self._known = {DEFAULT_STREAM: self.default}
        self._made = 0

    @property
    def current(self) -> Stream:
        """The stream that work goes to now."""
        return self._known[self._recorder.stream]

    def new(self, device: Any = None, priority: int = 0, **_: object) -> Stream:
        """Return the next stream of the pool."""
        number = 1 + self._made % _MOST_POOLED
        self._made += 1
        return self._known.setdefault(number, Stream(number, self._recorder, priority))

    def new_class(self) -> type:
        """Return what stands in for ``torch.cuda.Stream``: calling it makes a stream, ``isinstance`` knows one."""
        make = self.new

        class Made(Stream):
            def __new__(cls, device: Any = None, priority: int = 0, **named: object) -> Any:
                return make(device, priority, **named)

        class Kind(type):
            def __instancecheck__(cls, instance: object) -> bool:
                return isinstance(instance, Stream)

        return Kind("Stream", (Made,), {})

    def set(self, stream: Stream) -> None:
        """Make a stream current."""
        if stream is not None:
            self._recorder.stream = stream.number

    @contextmanager
    def using(self, stream: Stream | None) -> Iterator[None]:
        """Make a stream current for a while; None changes nothing."""
        before = self._recorder.stream
        self.set(stream)  # type: ignore[arg-type] # None is allowed
        try:
            yield
        finally:
            self._recorder.stream = before

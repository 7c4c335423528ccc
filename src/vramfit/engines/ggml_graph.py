"""ggml's graph allocator, step by step: which tensors of a graph share memory, and how much that takes.

llama.cpp reserves its compute buffers for the largest graph before the first token. How large they are
follows from the order of the nodes, from who reads what, and from three rules that are repeated here:
a node may take its parent's place, a freed block goes to the smallest hole that holds the next tensor,
and inputs from another backend are copied when a piece of the graph starts.
Source: ggml-org/llama.cpp:ggml/src/ggml-alloc.c (ggml_gallocr_alloc_graph_impl, ggml_dyn_tallocr_alloc) and
ggml/src/ggml-backend.cpp (ggml_backend_sched_split_graph), the same in 7841fc7 (March 2025) and 63d93d1 (2026).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from math import prod

from vramfit.units import round_up

ALIGNMENT_BYTES = 128
"""Source: ggml-org/llama.cpp:ggml/src/ggml-cuda/ggml-cuda.cu, ggml_backend_cuda_buffer_type_get_alignment."""
ENDLESS_BYTES = 1 << 62

IN_PLACE = frozenset({"scale", "add", "mul", "div", "unary", "rope", "rms_norm", "soft_max", "clamp"})
"""Operations whose result may overwrite an operand. Source: ggml-alloc.c, ggml_op_can_inplace."""


class Place(StrEnum):
    """On which backend a tensor lies."""

    DEVICE = "device"
    HOST = "host"


@dataclass(slots=True, eq=False, kw_only=True)
class Node:
    """A tensor of the graph; two are the same only when they are the same object."""

    op: str
    """``"leaf"`` = nothing computes it; ``"view"`` = another look at ``whole``."""
    shape: tuple[int, ...]
    element_bytes: int = 4
    sources: list[Node] = field(default_factory=list)
    whole: Node | None = None
    """Tensor that this one is a view of; None = it has memory of its own."""
    place: Place = Place.DEVICE
    stored: int | None = None
    """Bytes of a weight or cache, which lies in a buffer of its own; None = the graph allocates it. [B]"""
    given: bool = False
    """True: an input, which is allocated first."""
    kept: bool = False
    """True: never freed."""

    @property
    def bytes(self) -> int:
        """Memory that it takes. [B]"""
        return self.element_bytes * prod(self.shape) if self.stored is None else self.stored


@dataclass(slots=True)
class Graph:
    """Nodes in the order in which they are computed."""

    nodes: list[Node] = field(default_factory=list)
    leaves: list[Node] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)

    def expand(self, *wanted: Node) -> None:
        """Add nodes, and whatever they need before them (``ggml_build_forward_expand``)."""
        for node in wanted:
            if id(node) not in self.seen:
                self.seen.add(id(node))
                self.expand(*node.sources)
                (self.leaves if node.op == "leaf" else self.nodes).append(node)


class Buffer:
    """Free blocks of one buffer that grows as needed: best fit, the last block is endless."""

    def __init__(self) -> None:
        """Start empty."""
        self.free: list[list[int]] = [[0, ENDLESS_BYTES]]
        self.peak_bytes = 0

    def take(self, size: int) -> int:
        """Return the offset of a block of that size."""
        size = round_up(size, ALIGNMENT_BYTES)
        holes = [i for i, (_, room) in enumerate(self.free[:-1]) if room >= size]
        best = min(reversed(holes), key=lambda i: self.free[i][1]) if holes else len(self.free) - 1
        block = self.free[best]
        offset = block[0]
        block[0], block[1] = offset + size, block[1] - size
        if not block[1]:
            del self.free[best]
        self.peak_bytes = max(self.peak_bytes, offset + size)
        return offset

    def give_back(self, offset: int, size: int) -> None:
        """Free a block and join it with its neighbours."""
        end = offset + round_up(size, ALIGNMENT_BYTES)
        after = next(i for i, block in enumerate(self.free) if block[0] >= end)
        if self.free[after][0] == end:
            self.free[after] = [offset, self.free[after][0] + self.free[after][1] - offset]
        else:
            self.free.insert(after, [offset, end - offset])
        if after and sum(self.free[after - 1]) == offset:
            self.free[after - 1][1] += self.free[after][1]
            del self.free[after]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserved:
    """What a graph takes. [B]"""

    device_bytes: int
    host_bytes: int


def reserve(graph: Graph, copies: int = 1) -> Reserved:
    """Return what the graph takes on device and host; ``copies`` of every input where batches overlap.

    >>> x = Node(op="leaf", shape=(1024,), place=Place.DEVICE)
    >>> y = Node(op="mul", shape=(1024,), sources=[x])
    >>> z = Node(op="mul_mat", shape=(256,), sources=[y])
    >>> graph = Graph()
    >>> graph.expand(z)
    >>> reserve(graph).device_bytes
    5120
    """
    allocator = _Allocator()
    order = list(_with_copies(graph, copies, allocator))
    allocator.count(order)
    for leaf in graph.leaves:
        allocator.allocate(leaf)
        for _ in range(copies - 1):
            allocator.pin(leaf)
    for node in order:
        allocator.compute(node)
    return Reserved(
        device_bytes=allocator.buffers[Place.DEVICE].peak_bytes, host_bytes=allocator.buffers[Place.HOST].peak_bytes
    )


def _with_copies(graph: Graph, copies: int, allocator: _Allocator) -> Iterable[Node]:
    """Yield the nodes piece by piece, each piece after the copies of what it reads from another backend."""
    known: dict[tuple[int, Place], Node] = {}
    for piece in _pieces(graph.nodes):
        here, incoming = piece[0].place, []
        for node in piece:
            for i, source in enumerate(node.sources):
                if node.op == "view" or _home(source) is here:
                    continue
                key = (id(source), here)
                if key not in known:
                    known[key] = _copy(source, here, kept=copies > 1 and source.stored is None)
                    incoming.append((source, known[key]))
                node.sources[i] = known[key]
        for source, copy in incoming:
            yield Node(op="until_copied", shape=(), sources=[source], whole=source, place=source.place)
            yield copy
            if copy.kept:
                allocator.pinned.extend([copy] * (copies - 1))
        yield from piece


def _copy(source: Node, here: Place, *, kept: bool) -> Node:
    size = source.bytes
    return Node(op="leaf", shape=(size,), element_bytes=1, place=here, kept=kept)


def _home(node: Node) -> Place:
    return node.place if node.whole is None else _home(node.whole)


def _pieces(nodes: Iterable[Node]) -> Iterable[list[Node]]:
    """Cut where the backend changes, and before a weight of the other backend once anything was copied."""
    piece: list[Node] = []
    copied = False
    for node in nodes:
        if node.op == "view":
            piece.append(node)
            continue
        foreign = [s for s in node.sources if _home(s) is not node.place]
        weight = any(s.stored is not None and s.op == "leaf" for s in foreign)
        here = next((n.place for n in piece if n.op != "view"), node.place)
        if here is not node.place or (copied and weight):
            yield _led(piece)
            piece, copied = [], False
        piece.append(node)
        copied = copied or bool(foreign)
    if piece:
        yield _led(piece)


def _led(piece: list[Node]) -> list[Node]:
    """Put a node that computes something first, for its place."""
    first = next((i for i, node in enumerate(piece) if node.op != "view"), 0)
    for node in piece[:first]:
        node.place = piece[first].place
    return piece


class _Allocator:
    """Reference counts and offsets of one walk through a graph."""

    def __init__(self) -> None:
        self.buffers = {place: Buffer() for place in Place}
        self.children: defaultdict[int, int] = defaultdict(int)
        self.views: defaultdict[int, int] = defaultdict(int)
        self.offsets: dict[int, int] = {}
        self.owned: set[int] = set()
        self.pinned: list[Node] = []

    def count(self, order: list[Node]) -> None:
        """Count who reads what, and allocate inputs first."""
        for node in self.pinned:
            self.pin(node)
        for node in order:
            if node.whole is not None and node.op != "until_copied":
                self.views[id(root(node))] += 1
            for source in node.sources:
                self.children[id(source)] += 1
                if source.given:
                    self.allocate(source)

    def pin(self, node: Node) -> None:
        """Take memory that is never given back: the copies of an input for batches in flight."""
        if node.stored is None and (node.given or node.kept):
            self.buffers[node.place].take(node.bytes)

    def compute(self, node: Node) -> None:
        """Allocate a node and free whatever it was the last to read."""
        for each in (*node.sources, node):
            self.allocate(each)
        for source in node.sources:
            self.children[id(source)] -= 1
            if self.children[id(source)] == 0 and self.views[id(source)] == 0:
                self._done(source)

    def allocate(self, node: Node) -> None:
        """Give a node its parent's memory where it may overwrite it, else a block of its own."""
        if id(node) in self.owned or node.whole is not None or node.stored is not None:
            return
        parent = next(filter(lambda p: self._replaces(node, p), node.sources), None) if node.op in IN_PLACE else None
        if parent is None:
            self.offsets[id(node)] = self.buffers[node.place].take(node.bytes)
        else:
            self.offsets[id(node)] = self.offsets[id(parent)]
            self.owned.remove(id(parent))
        self.owned.add(id(node))

    def _replaces(self, node: Node, parent: Node) -> bool:
        """Say whether a node may overwrite a parent: its own memory, its size, and nobody else reads it."""
        alone = self.children[id(parent)] == 1 and self.views[id(parent)] == 0
        alike = parent.shape == node.shape and parent.element_bytes == node.element_bytes
        return id(parent) in self.owned and alone and alike and not parent.kept

    def _done(self, source: Node) -> None:
        whole = root(source)
        if source.whole is not None:
            self.views[id(whole)] -= 1
            if self.views[id(whole)] or self.children[id(whole)]:
                return
        if id(whole) in self.owned and not whole.kept:
            self.owned.remove(id(whole))
            self.buffers[whole.place].give_back(self.offsets[id(whole)], whole.bytes)


def root(node: Node) -> Node:
    """Return the tensor whose memory a view shows."""
    while node.whole is not None:
        node = node.whole
    return node

"""ggml's allocator, against layouts worked out by hand from ggml-alloc.c."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vramfit.engines.ggml_graph import Buffer, Graph, Node, Place, reserve


def _leaf(size: int, place: Place = Place.DEVICE, *, given_: bool = False) -> Node:
    return Node(op="leaf", shape=(size,), element_bytes=1, place=place, given=given_)


def _node(op: str, size: int, *sources: Node) -> Node:
    return Node(op=op, shape=(size,), element_bytes=1, sources=list(sources))


def _of(*wanted: Node) -> Graph:
    graph = Graph()
    graph.expand(*wanted)
    return graph


def test_a_node_takes_the_place_of_a_parent_nobody_else_reads() -> None:
    """Scale after product: one block of 1,024 B and the input's, not two."""
    product = _node("mul_mat", 1024, _leaf(256))
    assert reserve(_of(_node("scale", 1024, product))).device_bytes == 256 + 1024


def test_a_node_that_others_read_keeps_its_place() -> None:
    """The sum of a product and its scaled copy needs both at once: 256 + 2 x 1,024 B."""
    product = _node("mul_mat", 1024, _leaf(256))
    total = _node("add", 1024, _node("scale", 1024, product), product)
    assert reserve(_of(total)).device_bytes == 256 + 2 * 1024


def test_a_view_is_never_overwritten() -> None:
    """Rotary embedding of a reshaped projection gets a block of its own (ggml_gallocr_is_own of a view is false)."""
    product = _node("mul_mat", 1024, _leaf(256))
    shown = Node(op="view", shape=(1024,), element_bytes=1, sources=[product], whole=product)
    assert reserve(_of(_node("rope", 1024, shown))).device_bytes == 256 + 2 * 1024


def test_an_input_of_the_host_is_copied_when_its_piece_starts() -> None:
    """The device holds a copy and the result, the host the input alone."""
    found = reserve(_of(_node("mul_mat", 512, _leaf(1024, Place.HOST, given_=True))))
    assert (found.device_bytes, found.host_bytes) == (1024 + 512, 1024)


def test_batches_in_flight_keep_four_copies_of_every_input() -> None:
    """With four copies: four inputs on each side, and the result."""
    found = reserve(_of(_node("mul_mat", 512, _leaf(1024, Place.HOST, given_=True))), copies=4)
    assert (found.device_bytes, found.host_bytes) == (4 * 1024 + 512, 4 * 1024)


def test_the_smallest_hole_that_holds_it_is_taken() -> None:
    """Of holes of 512 and 256 B, 200 B go to the second; 128-byte steps."""
    buffer = Buffer()
    offsets = [buffer.take(size) for size in (512, 128, 256, 128)]
    buffer.give_back(offsets[0], 512)
    buffer.give_back(offsets[2], 256)
    assert buffer.take(200) == 640
    assert buffer.peak_bytes == 1024


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=30))
def test_what_is_given_back_is_free_again(sizes: list[int]) -> None:
    """When everything is given back, in any order, one endless block is left."""
    buffer = Buffer()
    taken = [(buffer.take(size), size) for size in sizes]
    for offset, size in sorted(taken, key=lambda pair: pair[1]):
        buffer.give_back(offset, size)
    assert len(buffer.free) == 1
    assert buffer.free[0][0] == 0

"""llama.cpp's largest graph, as it builds it before the first token: a full micro-batch over a full cache.

Only what decides memory is built: shapes, order, who reads what.
Source: ggml-org/llama.cpp:src/llama-context.cpp (graph_reserve) and src/llama-graph.cpp (build_inp_embd) at 63d93d1.
"""

from __future__ import annotations

from vramfit.engines.ggml_graph import Graph, Node, Place
from vramfit.engines.llama_block import Block
from vramfit.engines.llama_nodes import Job, Nodes


def largest_graph(job: Job) -> Graph:
    """Build the graph whose buffers llama.cpp reserves."""
    nodes = Nodes(job=job)
    stream = _embedded(nodes) if job.first else nodes.given("stream", (job.hidden_size, job.tokens))
    for number, (layer, there) in enumerate(job.layers):
        stream = Block(nodes, layer, there).build(stream, ends=job.last and number == len(job.layers) - 1)
    if job.last:
        rows = nodes.norm(stream, apart=job.rules.last_norm_apart)
        stream = nodes.times(rows, job.vocab_size, job.head_bytes)
    nodes.graph.expand(stream)
    return nodes.graph


def _embedded(nodes: Nodes) -> Node:
    """Look the tokens up, on the host."""
    shape = (nodes.job.hidden_size, nodes.job.tokens)
    tokens = nodes.given("tokens", (nodes.job.tokens,))
    table = Node(op="leaf", shape=(), stored=0, place=Place.HOST)
    found = Node(op="get_rows", shape=shape, sources=[table, tokens], place=Place.HOST)
    if nodes.job.rules.two_embeddings:
        nodes.graph.expand(nodes.given("embeddings", shape))
    nodes.graph.expand(found)
    return found

"""One layer of llama.cpp's graph: attention, or what stands for it, and the feed-forward network.

Which projections, norms and biases a layer has is read from the names of its tensors. Recurrent and latent
layers are built by their widest tensors only.
Source: ggml-org/llama.cpp:src/llama-graph.cpp (build_attn_mha, build_ffn, build_moe_ffn) at 63d93d1; before 2025
src/llama.cpp (llm_build_kv, llm_build_ffn).
"""

from __future__ import annotations

import re

from vramfit.engines.ggml_graph import Node, Place, root
from vramfit.engines.llama_nodes import Nodes, plus, view, weight
from vramfit.layer_kind import (
    Attention,
    Compressed,
    CrossAttention,
    Dense,
    Experts,
    GroupedQuery,
    Latent,
    LinearAttention,
    StateSpace,
)
from vramfit.spec import Layer

PARALLEL = frozenset({"cohere", "cohere2", "gpt_neox", "gptj", "phi", "falcon", "codegen", "persimmon"})
"""Families whose feed-forward network reads what attention reads, not its result."""
OWN_NORM = frozenset({"gpt_neox"})
"""Of those: the feed-forward network has a norm of its own."""
FUSED = re.compile(r"qkv_proj|c_attn|query_key_value|Wqkv|qkv\.weight")
FUSED_GATE = re.compile(r"gate_up_proj")
ROTATED_VALUES = 64
"""Width of the rotation of values, and what a head must be a multiple of to be rotated at all.
Source: src/llama-kv-cache.cpp, build_input_v_rot."""
AFTER = re.compile(r"post_feedforward|post_mlp")
"""A norm after the feed-forward network; such layers have one after attention too (GLM-4, Gemma 2 and 3, OLMo 2)."""


class Block:
    """One layer's part of the graph."""

    def __init__(self, nodes: Nodes, layer: Layer, there: bool) -> None:
        """Remember the graph so far, the layer, and whether its weights are on the device."""
        self.b, self.layer, self.there = nodes, layer, there
        self.job = nodes.job
        self.names = tuple(t.name for t in layer.tensors)

    def host(self, word: str) -> int | None:
        """Bytes of a weight that stayed on the host; None on the device. [B]"""
        return None if self.there else self.job.weight_bytes(self.layer, word)

    def has(self, pattern: str | re.Pattern[str]) -> bool:
        """Say whether a tensor of that name belongs to the layer."""
        return any(re.search(pattern, name) for name in self.names)

    def build(self, stream: Node, *, ends: bool) -> Node:
        """Mix tokens, transform them, add both to the stream."""
        parallel = self.job.family in PARALLEL and self.layer.attention is not None
        read = self.b.norm(stream)
        mixed = self.mixed(read)
        if ends:
            mixed = None if mixed is None else self.rows(mixed)
            stream = self.rows(stream)
            read = self.rows(read) if parallel and self.job.family not in OWN_NORM else read
        if mixed is not None and self.has(AFTER):
            mixed = self.b.norm(mixed)
        if parallel and mixed is not None:
            return self.beside(stream, read, mixed)
        if mixed is not None:
            stream = plus(mixed, stream)
        if self.layer.feed_forward is None:
            return stream
        out = self.transformed(self.b.norm(stream))
        if self.has(AFTER):
            out = self.b.norm(out)
        return plus(out, stream)

    def beside(self, stream: Node, read: Node, mixed: Node) -> Node:
        """Add attention and feed-forward network, which read the same."""
        if self.job.family in OWN_NORM:
            out = self.transformed(self.b.norm(stream))
            return plus(plus(out, stream), mixed)
        out = self.transformed(read)
        return plus(plus(out, stream), mixed)

    def rows(self, x: Node) -> Node:
        """Keep the tokens that get logits."""
        wanted = self.b.given("outputs", (self.job.outputs,))
        return Node(op="get_rows", shape=(x.shape[0], self.job.outputs), sources=[x, wanted])

    def mixed(self, read: Node) -> Node | None:
        """Return what the mixers make of the normalised stream; None where there is none."""
        found: Node | None = None
        for mixer in self.layer.mixers:
            out = self.attended(read, mixer)
            found = out if found is None else plus(found, out)
        return found

    def attended(self, read: Node, mixer: Attention) -> Node:
        """Dispatch on the kind of mixer."""
        match mixer:
            case GroupedQuery() as a:
                return self.grouped(read, a)
            case Latent() as a:
                return self.latent(read, a) if self.job.latent else self.expanded(read, a)
            case Compressed() | CrossAttention() as a:
                heads = 1 if isinstance(a, Compressed) else a.num_key_value_heads
                like = GroupedQuery(
                    num_attention_heads=a.num_attention_heads, num_key_value_heads=heads, head_dim=a.head_dim
                )
                return self.grouped(read, like)
            case LinearAttention() as a:
                keys, values = a.num_key_heads * a.key_head_dim, a.num_value_heads * a.value_head_dim
                return self.recurrent(read, 2 * keys + values, values)
            case StateSpace() as a:
                inner = a.num_heads * a.head_dim
                return self.recurrent(read, inner + 2 * a.num_groups * a.state_size, inner)
            case _:
                return self.recurrent(read, 3 * self.job.hidden_size, self.job.hidden_size)

    def recurrent(self, read: Node, mixed: int, inner: int) -> Node:
        """Project, convolve over the kept inputs, scan, gate, project back."""
        b, tokens = self.b, self.job.tokens
        gate = b.times(read, inner, self.host("in_proj"))
        into = Node(op="concat", shape=(mixed, tokens + 3), sources=[b.times(read, mixed, self.host("in_proj"))])
        turned = Node(op="ssm_conv", shape=(mixed, tokens), sources=[into])
        active = Node(op="unary", shape=(mixed, tokens), sources=[turned])
        scanned = Node(op="scan", shape=(inner, tokens), sources=[active])
        gated = Node(op="mul", shape=(inner, tokens), sources=[scanned, gate])
        return b.times(gated, self.job.hidden_size, self.host("out_proj"))

    def latent(self, read: Node, a: Latent) -> Node:
        """Attend to the compressed cache: the query is multiplied into its space, the result out of it."""
        b, tokens, heads = self.b, self.job.tokens, a.num_attention_heads
        low = b.times(read, a.q_lora_rank) if a.q_lora_rank else read
        head = a.qk_nope_head_dim + a.qk_rope_head_dim
        query = b.times(low, heads * head)
        turned = Node(op="rope", shape=(a.qk_rope_head_dim, heads, tokens), sources=[view(query, ()), self.positions()])
        width = a.kv_lora_rank + a.qk_rope_head_dim
        absorbed = Node(op="mul_mat", shape=(a.kv_lora_rank, tokens, heads), sources=[weight(), view(query, ())])
        query = Node(op="concat", shape=(width, heads, tokens), sources=[turned, view(absorbed, ())])
        key = b.norm(b.times(read, width))
        self.b.graph.expand(query, key)
        one = GroupedQuery(num_attention_heads=heads, num_key_value_heads=1, head_dim=width, v_head_dim=a.kv_lora_rank)
        found = self.scores(query, key, None, one, self.job.cells(a))
        out = Node(op="mul_mat", shape=(a.v_head_dim, tokens, heads), sources=[weight(), view(found, ())])
        flat = Node(op="cont", shape=(heads * a.v_head_dim, tokens), sources=[view(out, ())])
        return b.times(flat, self.job.hidden_size)

    def expanded(self, read: Node, a: Latent) -> Node:
        """Attend with keys and values of every head made from the compressed vector."""
        b, tokens, heads = self.b, self.job.tokens, a.num_attention_heads
        head = a.qk_nope_head_dim + a.qk_rope_head_dim
        low = b.norm(b.times(read, a.q_lora_rank)) if a.q_lora_rank else read
        query = Node(op="concat", shape=(head, heads, tokens), sources=[b.times(low, heads * head)])
        small = b.norm(b.times(read, a.kv_lora_rank + a.qk_rope_head_dim))
        both = b.times(small, heads * (a.qk_nope_head_dim + a.v_head_dim))
        value = Node(op="cont", shape=(heads * a.v_head_dim, tokens), sources=[view(both, ())])
        key = Node(op="concat", shape=(head, heads, tokens), sources=[view(both, ())])
        b.graph.expand(query, key, value)
        all_heads = GroupedQuery(
            num_attention_heads=heads, num_key_value_heads=heads, head_dim=head, v_head_dim=a.v_head_dim
        )
        found = self.scores(query, key, value, all_heads, self.job.cells(a))
        return b.times(found, self.job.hidden_size)

    def positions(self) -> Node:
        """Return the input of the tokens' positions."""
        return self.b.given("positions", (self.job.tokens,))

    def grouped(self, read: Node, a: GroupedQuery) -> Node:
        """Project to queries, keys and values; store the latter; attend; project back."""
        query, key, value, gate = self.projected(read, a)
        if self.has(r"q_norm|q_layernorm"):
            query, key = self.b.norm(query), self.b.norm(key)
        query, key = self.turned(query), self.turned(key)
        if self.job.rules.rotates and self.job.quantised_keys:
            query, key = self.rotated(query, a.head_dim, "keys"), self.rotated(key, a.head_dim, "keys")
        if self.job.rules.rotates and self.job.quantised_values:
            value = self.rotated(value, a.v_head_dim or a.head_dim, "values")
        if self.job.rules.copied_projections:
            self.b.graph.expand(query, key, value)
        else:
            self.b.graph.expand(query, value, key)
        found = self.scores(query, key, value, a, self.job.cells(a))
        if gate is not None:
            found = Node(
                op="mul", shape=found.shape, sources=[found, Node(op="unary", shape=gate.shape, sources=[gate])]
            )
        out = self.b.times(found, self.job.hidden_size, self.host("o_proj"))
        return plus(out, weight()) if self.has(r"(?:o_proj|dense|out_proj|c_proj)\.bias") else out

    def projected(self, read: Node, a: GroupedQuery) -> tuple[Node, Node, Node, Node | None]:
        """Return queries, keys and values by head, and the gate of the output that some queries bring along."""
        tokens, gate = self.job.tokens, None
        widths = (a.head_dim, a.head_dim, a.v_head_dim or a.head_dim)
        heads = (a.num_attention_heads, a.num_key_value_heads, a.num_key_value_heads)
        sizes = tuple(w * h for w, h in zip(widths, heads, strict=True))
        biased = self.has(r"(?:q_proj|qkv_proj|query_key_value|c_attn|Wqkv)\.bias")
        if any(FUSED.search(name) for name in self.names):
            whole = self.b.times(read, sum(sizes), self.host("qkv|query_key_value|c_attn"))
            whole = plus(whole, weight()) if biased else whole
            parts = [view(whole, (n, tokens)) for n in sizes]
            if self.job.rules.copied_projections:
                parts = [Node(op="cont", shape=p.shape, sources=[p]) for p in parts]
        else:
            doubled = any(t.name.endswith("q_proj.weight") and t.shape[0] == 2 * sizes[0] for t in self.layer.tensors)
            outputs = (2 * sizes[0] if doubled else sizes[0], *sizes[1:])
            words = ("q_proj", "k_proj", "v_proj")
            parts = [self.b.times(read, n, self.host(w)) for n, w in zip(outputs, words, strict=True)]
            parts = [plus(p, weight()) for p in parts] if biased else parts
            if doubled:
                gate = Node(op="cont", shape=(sizes[0], tokens), sources=[view(parts[0], (sizes[0], tokens))])
        q, k, v = (view(p, (w, h, tokens)) for p, w, h in zip(parts, widths, heads, strict=True))
        return q, k, v, gate

    def turned(self, x: Node) -> Node:
        """Rotate by position."""
        return Node(op="rope", shape=x.shape, sources=[x, self.positions()])

    def scores(self, query: Node, key: Node, value: Node | None, a: GroupedQuery, cells: int) -> Node:
        """Store key and value, then attend: with flash attention, or with all scores written out."""
        job, tokens, heads = self.job, self.job.tokens, a.num_attention_heads
        values = a.v_head_dim or a.head_dim
        k, v = self.stored(key, value, a, cells)
        turned = view(query, (a.head_dim, tokens, heads))
        if job.flash:
            size = 4 * values * heads * tokens + self.copies(a, cells)
            sources = [turned, k, v, self.b.mask(cells)]
            found = Node(op="flash", shape=(size,), element_bytes=1, sources=sources)
            flat = Node(op="view", shape=(values * heads, tokens), sources=[found], whole=found)
            if job.rules.rotates and job.quantised_values and value is not None:
                flat = self.rotated(flat, values, "values")
        else:
            raw = Node(op="mul_mat", shape=(cells, tokens, heads), sources=[k, turned])
            soft = Node(op="soft_max", shape=raw.shape, sources=[raw, self.b.mask(cells)])
            found = Node(op="mul_mat", shape=(values, tokens, heads), sources=[v, soft])
            flat = Node(op="cont", shape=(values * heads, tokens), sources=[view(found, (values, heads, tokens))])
        self.b.graph.expand(flat)
        return flat

    def copies(self, a: GroupedQuery, cells: int) -> int:
        """Bytes of the 16-bit copies of keys and values that flash attention makes of a quantised cache. [B]"""
        job, heads = self.job, a.num_key_value_heads
        if not job.rules.flash_copies:
            return 0
        keys = 2 * cells * heads * a.head_dim if job.quantised_keys else 0
        return keys + (2 * cells * heads * (a.v_head_dim or a.head_dim) if job.quantised_values else 0)

    def rotated(self, x: Node, head_dim: int, which: str) -> Node:
        """Multiply by a Hadamard matrix as wide as the largest power of two in the head, for keys; 64 for values."""
        size = head_dim & -head_dim if which == "keys" else ROTATED_VALUES
        if head_dim % ROTATED_VALUES:
            return x
        matrix = self.b.given(f"rotation of {which} by {size}", (size, size))
        return Node(op="mul_mat", shape=x.shape, sources=[matrix, x])

    def stored(self, key: Node, value: Node | None, a: GroupedQuery, cells: int) -> tuple[Node, Node]:
        """Write to the cache and return views of all its cells."""
        job, found = self.job, []
        place = Place.DEVICE if self.there else Place.HOST
        counts = {"keys": job.tokens, "values": job.tokens * (1 if job.flash else a.num_key_value_heads * a.head_dim)}
        for x, (name, count) in zip((key, value), counts.items(), strict=True):
            width = a.num_key_value_heads * (a.head_dim if name == "keys" else a.v_head_dim or a.head_dim)
            size = (job.key_bytes if name == "keys" else job.value_bytes)(width) * cells
            cache = Node(op="leaf", shape=(), stored=0, place=place)
            if x is not None and not a.shares_cache:
                where = [self.b.given(f"{name} {cells}", (count,), 8)] if job.rules.indices else []
                flat = view(x, (width, job.tokens))
                if name == "values" and not job.flash and job.rules.indices and root(x).bytes != x.bytes:
                    flat = Node(op="cont", shape=flat.shape, sources=[flat])
                self.b.graph.expand(Node(op="set_rows", shape=(), sources=[flat, *where], whole=cache, place=place))
            found.append(Node(op="view", shape=(size,), element_bytes=1, sources=[cache], whole=cache, place=place))
        return found[0], found[1]

    def transformed(self, read: Node) -> Node:
        """Return what the feed-forward network makes of its input."""
        match self.layer.feed_forward:
            case Dense() as facts:
                return self.dense(read, facts.intermediate_size, gated=facts.gated)
            case Experts() as facts:
                return self.experts(read, facts)
            case _:
                return read

    def dense(self, read: Node, width: int, *, gated: bool) -> Node:
        """Project up, gate, project down."""
        b, biased = self.b, self.has(r"(?:up_proj|fc1|c_fc|dense_h_to_4h)\.bias")
        shape = (width, read.shape[1])
        if not gated:
            up = b.times(read, width, self.host("up_proj|fc1|c_fc|h_to_4h"))
            active = Node(op="unary", shape=shape, sources=[plus(up, weight()) if biased else up])
        else:
            active = self.gated(read, shape)
        out = b.times(active, self.job.hidden_size, self.host("down_proj|fc2|4h_to_h"))
        return plus(out, weight()) if biased else out

    def gated(self, read: Node, shape: tuple[int, ...]) -> Node:
        """Multiply the activated gate with the projection up."""
        b, fused = self.b, any(FUSED_GATE.search(name) for name in self.names)
        if fused:
            both = b.times(read, 2 * shape[0], self.host("gate_up"))
            halves = [view(both, shape), view(both, shape)]
            if not self.job.rules.fused_gate:
                halves = [Node(op="cont", shape=shape, sources=[half]) for half in halves]
        else:
            up = b.times(read, shape[0], self.host("up_proj"))
            halves = [b.times(read, shape[0], self.host("gate_proj")), up]
        if self.job.rules.fused_gate:
            return Node(op="glu", shape=shape, sources=halves)
        active = Node(op="unary", shape=shape, sources=[halves[0]])
        return Node(op="mul", shape=shape, sources=[active, halves[1]])

    def experts(self, read: Node, facts: Experts) -> Node:
        """Route, run the chosen experts side by side, weight and add them; then the shared one."""
        b, used = self.b, facts.num_experts_per_tok
        count, hidden = read.shape[1], self.job.hidden_size
        probable = Node(op="soft_max", shape=(facts.num_experts, count), sources=[b.times(read, facts.num_experts)])
        sorted_ = Node(op="argsort", shape=probable.shape, sources=[probable])
        chosen = view(sorted_, (used, count))
        weights = Node(op="get_rows", shape=(1, used, count), sources=[view(probable, probable.shape), chosen])
        b.graph.expand(weights)
        shape = (facts.moe_intermediate_size, used, count)
        flat = view(read, (hidden, 1, count))
        up = Node(op="mul_mat_id", shape=shape, sources=[weight(self.host("up")), flat, chosen])
        active = up
        if facts.gated:
            gate = Node(op="mul_mat_id", shape=shape, sources=[weight(self.host("gate")), flat, chosen])
            active = Node(op="glu", shape=shape, sources=[gate, up])
        down = Node(op="mul_mat_id", shape=(hidden, used, count), sources=[weight(self.host("down")), active, chosen])
        weighted = Node(op="mul", shape=down.shape, sources=[down, weights])
        b.graph.expand(weighted)
        each = [view(weighted, (hidden, count)) for _ in range(used)]
        b.graph.expand(*each)
        total = each[0]
        for one in each[1:]:
            total = plus(total, one)
            b.graph.expand(total)
        if not facts.shared_intermediate_size:
            return total
        return plus(total, self.dense(read, facts.shared_intermediate_size, gated=facts.gated))

"""Multi-head latent attention written in operators."""

from __future__ import annotations

from vramfit.layer_kind import Latent
from vramfit.memory.tape import operator as op
from vramfit.memory.tape.attention import Heads, kernel, rotary
from vramfit.memory.tape.engine import Value
from vramfit.memory.tape.form import BlockForm
from vramfit.memory.tape.writer import Writer


def latent(w: Writer, x: Value, hidden: int, facts: Latent, form: BlockForm) -> Value:
    """Write latent attention: compressed queries, keys and values are normed and expanded for every head.

    Source: huggingface/transformers:src/transformers/models/deepseek_v3/modeling_deepseek_v3.py;
    NVIDIA/Megatron-LM:megatron/core/transformer/multi_latent_attention.py.
    """
    t, tokens, count = w.t, w.flow.tokens, facts.num_attention_heads
    rope, nope, values, rank = facts.qk_rope_head_dim, facts.qk_nope_head_dim, facts.v_head_dim, facts.kv_lora_rank
    q = _queries(w, x, hidden, facts, form)
    passed, turned = op.split(t, q, (tokens * count * nope, tokens * count * rope))
    del q
    (down,) = w.gathered(x, hidden, (rank + rope,), (form.matrices["latent down"],))
    compressed, shared = op.split(t, down, (tokens * rank, tokens * rope))
    del down
    compressed = w.norm(compressed, rank, form.norm)
    turned, shared = rotary(w, turned, shared, w.flow.sequence_tokens * rope)
    q = op.join(t, (passed, turned))
    del passed, turned
    expanded = w.linear(compressed, rank, count * (nope + values), form.matrices["latent up"])
    key, v = op.split(t, expanded, (tokens * count * nope, tokens * count * values))
    del expanded
    k = op.spread(t, key, shared, tokens * count * (nope + rope))
    del key, shared
    heads = Heads(queries=count, keys=count, width=nope + rope, values=values, key_tokens=w.flow.key_tokens)
    if w.flow.again("mla_up_proj"):
        for value in (q, k, v):
            t.forget(value)
    attended = kernel(w, q, k, v, heads)
    del q, k, v, x
    return w.scattered(attended, count * values, hidden, form.matrices["attention output"])


def _queries(w: Writer, x: Value, hidden: int, facts: Latent, form: BlockForm) -> Value:
    width = facts.num_attention_heads * (facts.qk_nope_head_dim + facts.qk_rope_head_dim)
    if facts.q_lora_rank is None:
        return op.laid_out(w.t, w.gathered(x, hidden, (width,), (form.matrices["query"],))[0])
    (down,) = w.gathered(x, hidden, (facts.q_lora_rank,), (form.matrices["query down"],))
    normed = w.norm(down, facts.q_lora_rank, form.norm)
    del down
    return op.laid_out(w.t, w.linear(normed, facts.q_lora_rank, width, form.matrices["query up"]))

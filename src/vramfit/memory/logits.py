"""Logits: one score per vocabulary entry, and the copies that choosing a token makes of them."""

from __future__ import annotations

from collections.abc import Iterable

from vramfit.engine import EngineProfile
from vramfit.request import Inference
from vramfit.result import Basis, Item, Phase
from vramfit.shard import Shard
from vramfit.units import count_of, larger, smaller

COPY_BYTES = 2 + 4
"""Per logit: as the model computes it and an fp32 copy. Greedy choice needs no more.
Source: huggingface/transformers:src/transformers/generation/utils.py, _sample."""

SAMPLING_BYTES = COPY_BYTES + 4 + 4
"""Per logit: both, the fp32 probabilities and the noise they are compared with.
Source: vllm-project/vllm:vllm/v1/sample/ops/topk_topp_sampler.py; 14.2 B per logit fitted to measured
profiling peaks of vLLM 0.19 (llm-d-incubation/llm-d-planner)."""

SORTING_BYTES = SAMPLING_BYTES + 4 + 8
"""Per logit: those, and sorted values with 64-bit indices when top-k or top-p is set (torch.sort)."""


def logits(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield the logits after prefill and of a decode step, on the rank that has the output projection. [B]

        rows * vocab_size * 6 (greedy) to 26 (sorted sampling); expected 14
        rows: one per sequence, or every prompt token where the engine computes them all (6 B each); behind an
        encoder always one, since the prompt never enters the layers that write

    Alive when the layers are done, so prefill's are a phase of their own and never add to the layers' peak.
    """
    model = shard.model
    vocabulary, batch = model.vocab_size, workload.batch
    if not (shard.last and model.generates) or vocabulary is None:
        return
    sample, shown = batch * vocabulary, count_of(batch, "sequence")
    for phase in (Phase.SAMPLE, Phase.DECODE):
        expected, low, high = (sample * size for size in (SAMPLING_BYTES, COPY_BYTES, SORTING_BYTES))
        formula = f"{shown} x {vocabulary:,} entries x {SAMPLING_BYTES} B"
        if phase is Phase.SAMPLE and engine.prompt_logits and not model.encodes_prompt:
            prompt = sample * workload.prompt_tokens * COPY_BYTES
            expected, low, high = (larger(prompt, x) for x in (expected, low, high))
            every = count_of(workload.prompt_tokens, "prompt token")
            formula = f"{shown} x {every} x {vocabulary:,} entries x {COPY_BYTES} B"
        yield Item(
            name=f"logits/{phase.value}",
            bytes=expected,
            low_bytes=low,
            high_bytes=high,
            phases=(phase,),
            basis=Basis.DERIVED,
            formula=formula,
            source="vllm-project/vllm:vllm/v1/sample/ops/topk_topp_sampler.py; "
            "huggingface/transformers:src/transformers/generation/utils.py",
        )


def last_hidden(shard: Shard, workload: Inference, engine: EngineProfile) -> Iterable[Item]:
    """Yield the hidden states that are still alive when logits are computed. [B]

    tokens of the last pass * hidden_size * bytes per element

    The final norm's output only: the layers' function has returned and its variables are gone.
    Behind an encoder the pass has one token of each sequence, the one that starts the answer.
    """
    model = shard.model
    if not model.generates:
        return
    element = 4 if model.scheme.plain.name == "fp32" else 2
    tokens = workload.batch * (1 if model.encodes_prompt else workload.prompt_tokens)
    if engine.prefill_chunk_tokens is not None:
        tokens = smaller(tokens, engine.prefill_chunk_tokens)
    size = tokens * model.hidden_size * element
    yield Item(
        name="activations/last_hidden",
        bytes=size,
        low_bytes=0 * size if engine.prompts_may_be_cut else size,
        high_bytes=3 * size,
        phases=(Phase.SAMPLE,),
        basis=Basis.DERIVED,
        formula=f"{count_of(tokens, 'token')} x {model.hidden_size:,} x {element} B",
        source="variables alive in huggingface/transformers:src/transformers/models/llama/modeling_llama.py",
    )

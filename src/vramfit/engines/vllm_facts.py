"""vLLM by version: what changed, as far as memory is concerned, and where it was read."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vramfit.device import Device
from vramfit.engine import EngineProfile
from vramfit.request import Inference
from vramfit.units import GIB

SORTED_BYTES = 2 + 4 + 4 + 8 + 8 + 12
"""Per logit, where top-k and top-p sort: the model's 16-bit logits, their fp32 copy, sorted values, 64-bit indices,
and inside the sort 64-bit reverse indices and the radix sort's second buffer of keys (4) and indices (8).
Source: vllm-project/vllm@v0.11.0:vllm/v1/sample/ops/topk_topp_sampler.py, apply_top_k_top_p;
pytorch/pytorch@v2.8.0:aten/src/ATen/native/cuda/Sort.cu, segmented_sort_pairs (128 rows and more)."""
NOISE_BYTES = 2 + 4 + 4 + 4
"""Per logit, where a Triton kernel masks in place: 16-bit logits, fp32 copy, probabilities, exponential noise.
Source: vllm-project/vllm@v0.17.0:vllm/v1/sample/ops/topk_topp_sampler.py, forward_native and random_sample."""
FLASHINFER_BYTES = 2 + 4 + 4 + 4
"""Per logit, since FlashInfer samples by default: 16-bit logits, fp32 copy, masked logits, probabilities.
Source: vllm-project/vllm@v0.22.1:vllm/envs.py, VLLM_USE_FLASHINFER_SAMPLER; flashinfer-ai/flashinfer:
flashinfer/sampling.py, top_k_top_p_sampling_from_logits."""
COPIED_BYTES, BARE_BYTES = 2 + 4, 2
"""Per logit, in the profiling pass of the second model runner, which masks nothing: 16-bit logits, and in 0.22 an fp32
copy; the noise lives in registers. Source: vllm-project/vllm@v0.22.1 and @v0.26.0:vllm/v1/worker/gpu/sample/sampler.py,
apply_sampling_params, and gpu/model_runner.py, _dummy_sampler_run."""

EXPERT_REST_BYTES = 240_000
"""Measured, its origin not found: gpt-oss-20b holds 176 MiB more in 0.19 than its padded experts on one rank and on
two alike (768 experts); in 0.11 it does not (llm-d-planner)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmFacts:
    """What changed between versions."""

    fraction: float = 0.9
    """Default of ``gpu_memory_utilization``, a share of the card's total."""
    first_engine: bool = False
    """True: V0, which profiles whole prompts (``max_num_batched_tokens`` = the context) and 256 sequences."""
    sampler_bytes: int
    """Bytes per logit alive at the sampler's widest moment."""
    second_runner: str = ""
    """Which models the second model runner runs while it masks nothing when profiled: ``"qwen3"`` (plain weights
    only), ``"dense"`` (and a few mixtures), or none. Source: vllm/config/vllm.py, use_v2_model_runner."""
    second_runner_bytes: int = 0
    """Bytes per logit there."""
    least_sampler_bytes: int | None = None
    """What the sampler's share may be as little as; None = it is exact."""
    masks_in_place: bool = False
    """True: top-k and top-p run in a Triton kernel that keeps one row of fp32 per multiprocessor."""
    keeps_workspace: bool = False
    """True: workspaces of grouped expert kernels stay allocated once they were needed (WorkspaceManager)."""
    counts_context: bool = False
    """True: whatever the process holds outside torch counts, the CUDA context too."""
    counts_graphs: bool = False
    """True: an estimate of the CUDA graphs is taken from the pool."""
    profiles_graphs: bool = False
    """True: graphs are captured for a trial inside the profiling pass, which leaves driver memory behind."""
    tokens_by_concurrency: bool = False
    """True: "GPU KV cache size" = concurrency x max_model_len; False: blocks // groups x block."""
    groups_layers: bool = True
    """True: sliding-window and recurrent layers have tables of their own; False: they cache like full attention."""
    latent_multiple: int = 1
    """Elements to which a latent vector is padded in the cache."""
    absorbs_latent: bool = False
    """True: the projections of latent attention are multiplied out and kept beside the originals (0.7)."""
    spares_a100: bool = True
    """True: an A100 gets the smaller batches although it has 80 GB."""
    large_tier: bool = False
    """True: cards of 160 GiB and more batch 16,384 tokens in a server."""
    expert_rest_bytes: int = 0
    """Bytes per MXFP4 expert and rank, whatever tp, that 0.19 holds and 0.11 does not; see ``EXPERT_REST_BYTES``."""


def _profile(version: str, checked: str, *, windowed: bool = True) -> EngineProfile:
    return EngineProfile(
        name="vllm",
        version=version,
        checked=checked,
        attention="flash",
        prefill_chunk_tokens=8192,
        windowed_cache=windowed,
        not_counted=(
            "vLLM: weights offloaded to the host (--cpu-offload-gb), KV connectors, dual-batch overlap",
            "vLLM: CUDA graphs of vision encoders",
            "vLLM: speculative decoding (draft weights and their cache)",
        ),
    )


_V0 = VllmFacts(first_engine=True, sampler_bytes=SORTED_BYTES, groups_layers=False)
_FROM_0_10 = VllmFacts(sampler_bytes=SORTED_BYTES)
_FROM_0_13 = replace(_FROM_0_10, keeps_workspace=True)
_FROM_0_17 = replace(_FROM_0_13, sampler_bytes=NOISE_BYTES, masks_in_place=True)
_FROM_0_18 = replace(_FROM_0_17, profiles_graphs=True, expert_rest_bytes=EXPERT_REST_BYTES)
_FROM_0_20 = replace(_FROM_0_18, fraction=0.92, counts_graphs=True)
_FROM_0_21 = replace(
    _FROM_0_20,
    sampler_bytes=FLASHINFER_BYTES,
    masks_in_place=False,
    second_runner="qwen3",
    second_runner_bytes=COPIED_BYTES,
    tokens_by_concurrency=True,
)
_FROM_0_26 = replace(_FROM_0_21, second_runner="dense", second_runner_bytes=BARE_BYTES)
_FROM_0_33 = replace(
    _FROM_0_26, second_runner="", second_runner_bytes=0, least_sampler_bytes=COPIED_BYTES, large_tier=True
)
_ROWS: tuple[tuple[EngineProfile, VllmFacts], ...] = (
    (_profile("0.2", "0.6.6, and the figures of vllm#2031", windowed=False), replace(_V0, counts_context=True)),
    (_profile("0.5.4", "0.6.6", windowed=False), _V0),
    (_profile("0.7", "0.7.3", windowed=False), replace(_V0, latent_multiple=128, absorbs_latent=True)),
    (
        _profile("0.8", "0.8.5", windowed=False),
        replace(_FROM_0_10, groups_layers=False, counts_context=True, spares_a100=False),
    ),
    (_profile("0.10", "0.10.2 and 0.11.0"), _FROM_0_10),
    (_profile("0.13", "0.15.0"), _FROM_0_13),
    (_profile("0.17", "0.17.0"), _FROM_0_17),
    (_profile("0.18", "0.19.0"), _FROM_0_18),
    (_profile("0.20", "0.20.0"), _FROM_0_20),
    (_profile("0.21", "0.22.1"), _FROM_0_21),
    (_profile("0.26", "0.26.0"), _FROM_0_26),
    (_profile("0.33", "0.33.0"), _FROM_0_33),
)
PROFILES = tuple(profile for profile, _ in _ROWS)
"""Oldest first."""
_FACTS = {profile.version: facts for profile, facts in _ROWS}
_FALLBACK = replace(_V0, latent_multiple=128)
_FALLS_BACK = ("0.8",)
OLDEST_CAPABILITY = 8
"""Compute capability from which V1 ran in 0.8 and 0.9."""


def facts_of(engine: EngineProfile, workload: Inference, device: Device | None = None) -> VllmFacts:
    """Return what holds from a profile's version on, for this workload.

    0.8 and 0.9 fall back to the first engine for GGUF files and for cards before Ampere
    (vllm-project/vllm@v0.8.5:vllm/engine/arg_utils.py, _is_v1_supported_oracle).

    >>> facts_of(PROFILES[0], Inference()).sampler_bytes, facts_of(PROFILES[-1], Inference()).sampler_bytes
    (38, 14)
    """
    if engine.version in _FALLS_BACK:
        capability = device.compute_capability if device is not None else None
        older = capability is not None and int(capability.split(".")[0]) < OLDEST_CAPABILITY
        if older or workload.weight_format.startswith("gguf"):
            return _FALLBACK
    return _FACTS[engine.version]


LARGE_BYTES = 70 * GIB
"""Cards from this size on get larger batches."""
LARGEST_BYTES = 160 * GIB

"""The context that a server takes when its command line or its log names none: all that the model was made for."""

from __future__ import annotations

from vramfit.request import Given, request_of
from vramfit.source import read_model

WHOLE = {
    "vllm": "vllm-project/vllm:vllm/config/model.py, get_and_verify_max_len",
    "sglang": "sgl-project/sglang:python/sglang/srt/configs/model_config.py, context_len",
    "tensorrt-llm": "NVIDIA/TensorRT-LLM:tensorrt_llm/commands/serve.py, max_seq_len",
    "lmdeploy": "InternLM/lmdeploy:lmdeploy/messages.py, session_len",
    "llama.cpp": "ggml-org/llama.cpp:common/arg.cpp, --ctx-size 0",
}
"""Engine -> where its default stands."""


def with_own_context(given: tuple[Given, ...], *, hub: bool = False) -> tuple[Given, ...]:
    """Return the fields with the engine's own context when none is among them.

    Raises:
        VramfitError: the model cannot be read.
    """
    asked = request_of(given)
    workload = asked.workload
    if workload.engine not in WHOLE or workload.context_tokens is not None or asked.model is None:
        return given
    made_for = read_model(asked.model, hub=hub).max_position_embeddings
    if made_for is None:
        return given
    said = f"default of {workload.engine}: as long as the model was made for"
    return (*given, Given(path="workload.context_tokens", value=made_for, said=said))

"""``lmdeploy serve api_server``.

Source of names and meanings: InternLM/lmdeploy:lmdeploy/cli/utils.py and serve.py, 0.6.4 and 0.10.0.
"""

from __future__ import annotations

from vramfit.commands.flag import SHARE, Flag, Nested, Switch, chosen
from vramfit.commands.program import Program

FLAGS: tuple[Flag | Switch | Nested, ...] = (
    Flag(names=("--session-len",), path="workload.context_tokens"),
    Flag(names=("--cache-max-entry-count",), path="workload.memory_fraction", kind=SHARE),
    Flag(names=("--max-batch-size",), path="workload.max_num_seqs"),
    Flag(names=("--max-prefill-token-num",), path="workload.max_num_batched_tokens"),
    Flag(names=("--cache-block-seq-len",), path="workload.block_tokens"),
    Flag(names=("--tp",), path="plan.tp"),
    Flag(names=("--dp",), path="plan.dp_replicate"),
    Flag(names=("--quant-policy",), path="workload.kv_format", kind=chosen({"0": None, "4": "int4", "8": "int8"})),
    Flag(
        names=("--dtype",),
        path="workload.weight_format",
        kind=chosen({"auto": None, "float16": None, "bfloat16": None}),
    ),
    Switch(names=("--enable-prefix-caching",), path="workload.prefix_caching", value=True),
    Switch(names=("--eager-mode",), path="workload.eager", value=True),
)

PROGRAM = Program(
    engine="lmdeploy",
    starts=(("lmdeploy", "serve", "api_server"), ("lmdeploy", "serve", "gradio"), ("lmdeploy", "chat")),
    images=(),
    table="lmdeploy",
    positional_model=True,
    flags=FLAGS,
)

"""Names of the phases that a trace marks by itself; a program may name others."""

from __future__ import annotations

SETUP = "setup"
"""Before the first module runs: building, moving, loading."""
FORWARD = "forward"
INFERENCE = "inference"
"""A module runs without gradients: evaluation, generation."""
LOSS = "loss"
"""From the outermost module's return until the backward pass begins."""
BACKWARD = "backward"
AFTER_BACKWARD = "after backward"
"""Such as clipping of gradients."""
OPTIMIZER = "optimizer step"
BETWEEN = "between steps"

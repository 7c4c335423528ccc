"""The version of this package, also read by the build."""

from __future__ import annotations

VERSION = "0.1.0"

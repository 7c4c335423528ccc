"""What every test gets: the installed wheel, no network but the loopback, empty caches, the same examples each time."""

from __future__ import annotations

import importlib.util
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest

_SCRATCH = tempfile.TemporaryDirectory(prefix="vramfit-tests-")
os.environ.update(
    {
        "COLUMNS": "100",
        "NO_COLOR": "1",
        "HF_HOME": _SCRATCH.name,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
)
for _name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "FORCE_COLOR"):
    os.environ.pop(_name, None)

hypothesis.settings.register_profile("vramfit", derandomize=True, deadline=None, database=None, max_examples=60)
hypothesis.settings.load_profile("vramfit")

GOLDEN = Path(__file__).with_name("golden")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the one option of this suite."""
    parser.addoption("--update-goldens", action="store_true", help="write tests/golden/* anew; review the difference")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to test the source tree by accident: what users get is the wheel."""
    del config
    found = importlib.util.find_spec("vramfit")
    place = Path(found.origin or "") if found else Path("vramfit")
    if "site-packages" not in place.parts and os.environ.get("VRAMFIT_TEST_SOURCE") != "1":
        pytest.exit(f"{place} is not an installed wheel: run scripts/test, or set VRAMFIT_TEST_SOURCE=1", returncode=4)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with the reviewed one of that name in tests/golden; ``--update-goldens`` writes it."""

    def compare(name: str, seen: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-goldens"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(seen, "utf-8")
        assert path.exists(), f"{path} is missing: run pytest --update-goldens and review it"
        assert path.read_text("utf-8") == seen

    return compare


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection that would leave this machine."""
    connect = socket.socket.connect

    def checked(self: socket.socket, address: Any) -> None:
        if self.family != getattr(socket, "AF_UNIX", None) and address[0] not in {"127.0.0.1", "::1", "localhost"}:
            raise AssertionError(f"a test tried to reach {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", checked)

"""Asking the Hub, on the loopback: what is fetched, what is not, and what is said when it refuses."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loopback_hub import EXPIRED_TOKEN, GOOD_TOKEN, LoopbackHub, Repository, Sparse, commit_of, safetensors, sharded
from vramfit.errors import HubError, UnreadableFileError
from vramfit.readers import hub as hub_reader
from vramfit.readers import hub_request
from vramfit.readers.hub import fetch_checkpoint, fetch_config
from vramfit.readers.hub_refusal import Refusal, refusal

CONFIG = b'{"model_type": "llama", "hidden_size": 4096}'
TENSORS = {f"model.layers.{i}.mlp.up_proj.weight": ("BF16", (14336, 4096)) for i in range(32)}
BYTES = 32 * 14336 * 4096 * 2
"""Bytes of all these weights, 3.5 GiB: more than any test may fetch."""

REPOSITORIES = {
    "org/single": Repository(
        files={"config.json": CONFIG, "model.safetensors": safetensors(TENSORS), "modeling.py": b"raise SystemExit"},
        revisions=("main", "v1.0", "refs/pr/1"),
    ),
    "org/sharded": Repository(files={"config.json": CONFIG, **sharded(TENSORS, 20)}),
    "org/elsewhere": Repository(files={"config.json": CONFIG, **sharded(TENSORS, 2)}, stored_elsewhere=True),
    "org/old-name": Repository(files={}, renamed_to="org/single"),
    "org/gated": Repository(files={"config.json": CONFIG, "model.safetensors": safetensors(TENSORS)}, gated=True),
    "org/bare": Repository(files={"README.md": b"# nothing"}),
    "org/config-only": Repository(files={"config.json": CONFIG, "pytorch_model.bin": b"PK"}),
    "org/no-shards": Repository(
        files={"config.json": CONFIG, "model.safetensors.index.json": b'{"weight_map": {"a": "model-1.safetensors"}}'}
    ),
    "org/bad-config": Repository(files={"config.json": b'{"a": NaN}'}),
    "org/huge-config": Repository(files={"config.json": Sparse(start=b'{"a": 1}', num_bytes=2**40)}),
    "org/bad-header": Repository(files={"model.safetensors": Sparse(start=b"\xff" * 8, num_bytes=2**40)}),
    "org/empty": Repository(files={"model.safetensors": b""}),
    "org/cut-off": Repository(files={"model.safetensors": Sparse(start=safetensors(TENSORS).start, num_bytes=2**20)}),
    "org/escape": Repository(
        files={"model.safetensors.index.json": b'{"weight_map": {"a": "../../other/repo/x.safetensors"}}'}
    ),
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LoopbackHub]:
    """Serve the repositories above to this process."""
    with LoopbackHub(REPOSITORIES) as server:
        server.use(monkeypatch, tmp_path / "home")
        yield server


def refusal_of(repo_id: str, revision: str | None = None) -> str:
    """Return the message with which a configuration is refused."""
    with pytest.raises(HubError) as caught:
        fetch_config(repo_id, revision)
    return str(caught.value)


def test_a_configuration_is_fetched_in_one_request(hub: LoopbackHub) -> None:
    """One GET, no telemetry, no list of installed packages in the user agent."""
    assert {"model_type": "llama", "hidden_size": 4096} == fetch_config("org/single")
    (request,) = hub.requests
    assert ("GET", "/org/single/resolve/main/config.json") == (request.method, request.path)
    assert "vramfit" == request.user_agent
    assert request.authorization is None


@pytest.mark.parametrize(("repo_id", "num_shards"), [("org/single", 1), ("org/sharded", 20), ("org/elsewhere", 2)])
def test_headers_are_fetched_and_no_weight_is(hub: LoopbackHub, repo_id: str, num_shards: int) -> None:
    """Every range lies inside a header; the weights of 3.5 GiB stay where they are."""
    checkpoint = fetch_checkpoint(repo_id)
    assert checkpoint is not None
    assert BYTES == checkpoint.total_bytes
    assert TENSORS == {t.name: (t.dtype, t.shape) for t in checkpoint.tensors}
    assert checkpoint.where.startswith(repo_id + "/")
    header_ends = {
        name: len(file.start) for name, file in REPOSITORIES[repo_id].files.items() if isinstance(file, Sparse)
    }
    asked = [r for r in hub.requests if r.path.endswith(".safetensors") and r.status in {200, 206}]
    assert 2 * num_shards == len(asked)
    for request in asked:
        assert request.last is not None
        assert request.last < header_ends[request.path.rpartition("/")[2]]
    fetched = {r.path.rpartition("/")[2] for r in hub.requests}
    assert fetched <= {"model.safetensors.index.json", "model.safetensors", *header_ends}


def test_shards_are_read_at_the_commit_of_their_index(hub: LoopbackHub) -> None:
    """A push between two requests cannot mix two versions."""
    fetch_checkpoint("org/sharded")
    shards = [r.path for r in hub.requests if "-of-00020" in r.path]
    assert {commit_of("org/sharded", "main")} == {path.split("/")[4] for path in shards}


@pytest.mark.parametrize("revision", ["v1.0", "refs/pr/1", commit_of("org/single", "main")])
def test_a_revision_is_asked_for(hub: LoopbackHub, revision: str) -> None:
    """Tags, pull requests and commits are revisions."""
    assert 4096 == fetch_config("org/single", revision)["hidden_size"]
    assert f"/org/single/resolve/{revision}/config.json" == hub.requests[0].path
    checkpoint = fetch_checkpoint("org/single", revision)
    assert checkpoint is not None
    assert f"org/single@{revision}/model.safetensors" == checkpoint.where


def test_a_renamed_repository_is_followed(hub: LoopbackHub) -> None:
    """The Hub answers with a relative redirect to the new name."""
    assert 4096 == fetch_config("org/old-name")["hidden_size"]
    assert [307, 200] == [r.status for r in hub.requests]


def test_a_server_that_ignores_ranges_is_read_no_further_than_needed(hub: LoopbackHub) -> None:
    """It offers 3.5 GiB at each request; we take the header and hang up."""
    hub.behaviour.ignores_ranges = True
    checkpoint = fetch_checkpoint("org/single")
    assert checkpoint is not None
    assert BYTES == checkpoint.total_bytes


def test_a_repository_without_safetensors_has_no_checkpoint(hub: LoopbackHub) -> None:
    """Both names are asked for, then it is known."""
    assert fetch_checkpoint("org/config-only") is None
    assert [404, 404] == [r.status for r in hub.requests]


def test_a_gated_repository_says_what_to_do(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without token, with another account's, and with the right one."""
    message = refusal_of("org/gated")
    for words in (
        "org/gated: gated by its owner (HTTP 401)",
        f"accept it at {hub.endpoint}/org/gated",
        "HF_TOKEN",
        "--config",
    ):
        assert words in message
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    assert "an account that was let in" in refusal_of("org/gated")
    monkeypatch.setenv("HF_TOKEN", GOOD_TOKEN)
    assert 4096 == fetch_config("org/gated")["hidden_size"]
    assert f"Bearer {GOOD_TOKEN}" == hub.requests[-1].authorization


def test_a_token_is_not_sent_when_the_user_forbids_it(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """``HF_HUB_DISABLE_IMPLICIT_TOKEN`` is honoured."""
    from huggingface_hub import constants

    monkeypatch.setenv("HF_TOKEN", GOOD_TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", value=True)
    fetch_config("org/single")
    assert hub.requests[-1].authorization is None


def test_a_token_that_is_none_is_said_without_showing_it(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expired or garbled: the message names HF_TOKEN and never its value."""
    monkeypatch.setenv("HF_TOKEN", EXPIRED_TOKEN)
    assert "does not accept this token" in refusal_of("org/single")
    for garbled in ("hf_s\u00e9cret", "hf_se\x01cret", "hf_se\x7fcret"):
        monkeypatch.setenv("HF_TOKEN", garbled)
        message = refusal_of("org/single")
        assert "characters that no token has" in message
        assert "cret" not in message


@pytest.mark.parametrize(
    ("repo_id", "revision", "words"),
    [
        ("org/none", None, "no such repository"),
        ("org/single", "v9", "no revision 'v9'"),
        ("org/bare", None, "has no config.json"),
    ],
)
def test_what_the_hub_does_not_have_is_said(hub: LoopbackHub, repo_id: str, revision: str | None, words: str) -> None:
    """Repository, revision or file: each has its own message and next step."""
    assert words in refusal_of(repo_id, revision)


def test_a_mirror_that_names_no_errors_is_understood_by_its_status(hub: LoopbackHub) -> None:
    """A bare 404 means no such file, so that the index is asked for next."""
    hub.behaviour.names_errors = False
    assert fetch_checkpoint("org/sharded") is not None
    assert "has no config.json (or does not exist)" in refusal_of("org/bare")


@pytest.mark.parametrize(("status", "words"), [(403, "read access"), (429, "wait a few minutes"), (503, "HTTP 503")])
def test_other_refusals_are_said_by_their_status(hub: LoopbackHub, status: int, words: str) -> None:
    """What the Hub answers under load or for a weak token."""
    hub.behaviour.status = status
    assert words in refusal_of("org/single")


@pytest.mark.parametrize(
    "repo_id",
    ["../x", "org/../x", "org/name/file", "a b", "org/na me", "", "/", "org/", "x" * 97, "org//name", "a--b", "a..b",
     "x.git", "http://h/x", "org/n\u00e4me", "org/name\n", "-x", ".x", "org/name?x=1", "org/%2e%2e"],
)  # fmt: skip
def test_a_malformed_name_is_refused_without_a_request(hub: LoopbackHub, repo_id: str) -> None:
    """Such a name never becomes part of an address."""
    assert "expected org/name" in refusal_of(repo_id)
    with pytest.raises(HubError, match="expected org/name"):
        fetch_checkpoint(repo_id)
    assert [] == hub.requests


@pytest.mark.parametrize("revision", ["../../../etc/passwd", "/etc/passwd", "a b", "", "a//b", "-x", "a\n", "x" * 300])
def test_a_malformed_revision_is_refused_without_a_request(hub: LoopbackHub, revision: str) -> None:
    """A revision becomes part of a path in the cache: it may not lead out of it."""
    assert "expected a branch, tag or commit" in refusal_of("org/single", revision)
    assert [] == hub.requests


def test_damaged_files_are_the_files_fault(hub: LoopbackHub) -> None:
    """NaN, a terabyte of configuration, a header of 2**64 bytes, no bytes at all, an index that leads elsewhere."""
    for repo_id, words in (("org/bad-config", "org/bad-config/config.json, line 1"), ("org/huge-config", "more than")):
        with pytest.raises(UnreadableFileError, match=words):
            fetch_config(repo_id)
    for repo_id, words in (
        ("org/bad-header", "18,446,744,073,709,551,615 bytes"),
        ("org/empty", "too short"),
        ("org/cut-off", "is the file complete"),
        ("org/escape", r"weight_map\['a'\]"),
    ):
        with pytest.raises(UnreadableFileError, match=words):
            fetch_checkpoint(repo_id)
    assert all("other/repo" not in r.path for r in hub.requests)


def test_a_shard_that_the_repository_lacks_is_named(hub: LoopbackHub) -> None:
    """The index promises one file that is not there."""
    with pytest.raises(HubError, match=r"names 'model-1.safetensors', which the repository does not have"):
        fetch_checkpoint("org/no-shards")


def test_headers_are_bounded_all_together(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty headers have more than 2,000 bytes together."""
    monkeypatch.setattr(hub_reader, "ALL_HEADERS_LIMIT_BYTES", 2000)
    with pytest.raises(UnreadableFileError, match="more than 2,000 bytes together"):
        fetch_checkpoint("org/sharded")


def test_a_silent_server_is_given_up(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence longer than ``HF_HUB_DOWNLOAD_TIMEOUT`` is no connection."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    hub.behaviour.silent_seconds = 0.5
    assert f"{hub.endpoint} does not answer (ReadTimeout" in refusal_of("org/single")


def test_a_trickling_server_is_given_up(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then is never silence; the whole answer has its own limit."""
    monkeypatch.setattr(hub_request, "LONGEST_REQUEST_SECONDS", 0.1)
    hub.behaviour.seconds_per_byte = 0.02
    assert "does not answer (TimeoutError" in refusal_of("org/single")


def test_a_dropped_connection_is_said(hub: LoopbackHub) -> None:
    """The server hangs up in the middle of the file."""
    hub.behaviour.drop_after_bytes = 5
    assert "does not answer" in refusal_of("org/single")
    with pytest.raises(HubError, match="does not answer"):
        fetch_checkpoint("org/single")


def test_no_network_is_said_with_the_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody listens at that port any more."""
    with LoopbackHub({}) as server:
        server.use(monkeypatch, tmp_path)
    message = refusal_of("org/single")
    for words in ("does not answer", "HF_ENDPOINT", "--config FILE"):
        assert words in message
    with pytest.raises(HubError, match="does not answer"):
        fetch_checkpoint("org/single")


def test_an_address_that_is_none_is_said(monkeypatch: pytest.MonkeyPatch, hub: LoopbackHub) -> None:
    """``HF_ENDPOINT`` may be anything."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "nonsense")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "nonsense/{repo_id}/resolve/{revision}/{filename}")
    assert "check the network and HF_ENDPOINT" in refusal_of("org/single")


def fill_cache(home: Path, repo_id: str, files: dict[str, bytes]) -> None:
    """Lay files into the local cache as huggingface_hub does, at the commit of ``main``."""
    folder = home / "hub" / f"models--{repo_id.replace('/', '--')}"
    commit = commit_of(repo_id, "main")
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    for name, content in files.items():
        path = folder / "snapshots" / commit / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def small_files(num_shards: int) -> dict[str, bytes]:
    """Return the files of a checkpoint of eight bytes a tensor."""
    files = sharded({"a": ("F32", (2,)), "b": ("F32", (2,))}, num_shards)
    return {n: f if isinstance(f, bytes) else f.start.ljust(f.num_bytes, b"\0") for n, f in files.items()}


def test_offline_the_cache_answers_and_nothing_is_asked(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Configuration and headers come from the snapshot; the Hub sees no request."""
    from huggingface_hub import constants

    fill_cache(tmp_path / "home", "org/cached", {"config.json": b'{"a": 1}', **small_files(2)})
    fill_cache(tmp_path / "home", "org/half", {"config.json": b'{"a": 2}', **small_files(2)})
    fill_cache(tmp_path / "home", "org/one", {"model.safetensors": small_files(1)["model-00001-of-00001.safetensors"]})
    half = tmp_path / "home/hub/models--org--half/snapshots" / commit_of("org/half", "main")
    (half / "model-00002-of-00002.safetensors").unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", value=True)

    assert {"a": 1} == fetch_config("org/cached")
    assert {"a": 1} == fetch_config("org/cached", commit_of("org/cached", "main"))
    assert [16, 16] == [getattr(fetch_checkpoint(name), "total_bytes", None) for name in ("org/cached", "org/one")]
    assert {"a": 2} == fetch_config("org/half")
    assert fetch_checkpoint("org/half") is None
    assert fetch_checkpoint("org/single") is None
    assert "unset HF_HUB_OFFLINE" in refusal_of("org/single")
    assert [] == hub.requests


def test_without_network_the_cache_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cached model needs no Hub, even when nobody said so."""
    with LoopbackHub({}) as server:
        server.use(monkeypatch, tmp_path)
    fill_cache(tmp_path, "org/cached", {"config.json": b'{"a": 1}', **small_files(2)})
    assert {"a": 1} == fetch_config("org/cached")
    assert 16 == getattr(fetch_checkpoint("org/cached"), "total_bytes", None)


@pytest.mark.witness
def test_what_the_library_downloads_is_found_in_its_cache(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """huggingface_hub fills the cache from the same Hub; offline we read what it laid there."""
    from huggingface_hub import constants, hf_hub_download

    hf_hub_download("org/single", "config.json")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", value=True)
    asked = len(hub.requests)
    assert {"model_type": "llama", "hidden_size": 4096} == fetch_config("org/single")
    assert asked == len(hub.requests)


@pytest.mark.witness
def test_the_library_reads_the_same_headers(hub: LoopbackHub) -> None:
    """``get_safetensors_metadata`` of huggingface_hub sees the same names, types and shapes."""
    from huggingface_hub import HfApi

    theirs = HfApi(endpoint=hub.endpoint).get_safetensors_metadata("org/sharded")
    ours = fetch_checkpoint("org/sharded")
    assert ours is not None
    seen = {n: (t.dtype, tuple(t.shape)) for file in theirs.files_metadata.values() for n, t in file.tensors.items()}
    assert seen == {t.name: (t.dtype, t.shape) for t in ours.tensors}


def test_the_environment_of_the_process_is_honoured(hub: LoopbackHub, tmp_path: Path) -> None:
    """A fresh process with HF_ENDPOINT and HF_TOKEN asks that Hub with that token, and writes nothing at home."""
    home = tmp_path / "fresh"
    shutil.rmtree(home, ignore_errors=True)
    code = "from vramfit.readers.hub import fetch_config; print(fetch_config('org/gated')['hidden_size'])"
    environment = {**os.environ, **hub.environment(home), "HF_TOKEN": GOOD_TOKEN}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert ("4096\n", "") == (done.stdout, done.stderr)
    assert [f"Bearer {GOOD_TOKEN}"] == [r.authorization for r in hub.requests]
    assert not [path for path in home.rglob("*") if path.is_file()]


def test_a_token_is_not_shown_to_the_store_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The Hub redirects large files to another address; the token stays behind, the commit is still known."""
    files = {"config.json": CONFIG, **sharded(TENSORS, 2)}
    with LoopbackHub({"org/name": Repository(files=files)}) as store:
        front = Repository(files=files, stored_elsewhere=True, store=store.endpoint)
        with LoopbackHub({"org/name": front}) as hub:
            hub.use(monkeypatch, tmp_path)
            monkeypatch.setenv("HF_TOKEN", GOOD_TOKEN)
            checkpoint = fetch_checkpoint("org/name")
    assert checkpoint is not None
    assert BYTES == checkpoint.total_bytes
    assert {f"Bearer {GOOD_TOKEN}"} == {r.authorization for r in hub.requests}
    assert {None} == {r.authorization for r in store.requests}
    assert {commit_of("org/name", "main")} == {r.path.split("/")[5] for r in store.requests if "-of-" in r.path}


@pytest.mark.parametrize("status", [400, 404, 410, 418, 451, 500, 502])
def test_every_refusal_says_what_to_do(status: int) -> None:
    """Whatever the status: what was seen, what was expected, and the way out."""
    message = refusal(Refusal(status=status, code=None, endpoint="https://hub", repo_id="org/name"))
    assert str(status) in message
    assert "expected" in message
    assert "--config FILE" in message


def test_the_loopback_hub_is_reached_by_its_number() -> None:
    """The server listens on the loopback only."""
    with LoopbackHub({}) as server:
        port = int(server.endpoint.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as there:
            assert "127.0.0.1" == there.getpeername()[0]

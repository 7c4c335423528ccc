"""A Hub on the loopback: the addresses that huggingface_hub asks, and a record of what was asked.

    with LoopbackHub({"org/name": Repository(files={"config.json": b"{}"})}) as hub:
        subprocess.run([...], env={**os.environ, **hub.environment(tmp_path)})
        assert all(request.num_bytes < 1000 for request in hub.requests)

Weights need no memory: a ``Sparse`` file has a beginning and then only zeros.
"""

from __future__ import annotations

import hashlib
import json
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest

GOOD_TOKEN = "hf_good"
"""Token of an account that was let in everywhere; any other token is of one that was not."""
EXPIRED_TOKEN = "hf_expired"
"""Token that the Hub does not know any more."""

BITS = {"F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "I8": 8, "U8": 8, "I32": 32, "I64": 64, "F4": 4}
CHUNK_BYTES = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Sparse:
    """A file that begins with ``start`` and goes on with zeros up to ``num_bytes``."""

    start: bytes
    num_bytes: int

    def part(self, first: int, last: int) -> Iterator[bytes]:
        """Yield the bytes from ``first`` to ``last``, both included, in chunks."""
        for begin in range(first, last + 1, CHUNK_BYTES):
            end = min(begin + CHUNK_BYTES, last + 1)
            yield self.start[begin:end].ljust(end - begin, b"\0")


def safetensors(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> Sparse:
    """Return a safetensors file of zeros: ``{name: (dtype, shape)}``."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        begin, end = end, end + prod(shape) * BITS[dtype] // 8
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    return Sparse(start=struct.pack("<Q", len(text)) + text, num_bytes=8 + len(text) + end)


def sharded(tensors: Mapping[str, tuple[str, tuple[int, ...]]], num_shards: int) -> dict[str, bytes | Sparse]:
    """Return an index and its shards, the tensors dealt out like cards."""
    hands: list[dict[str, tuple[str, tuple[int, ...]]]] = [{} for _ in range(num_shards)]
    for number, (name, facts) in enumerate(tensors.items()):
        hands[number % num_shards][name] = facts
    names = [f"model-{i + 1:05}-of-{num_shards:05}.safetensors" for i in range(num_shards)]
    weight_map = {name: shard for shard, hand in zip(names, hands, strict=True) for name in hand}
    files: dict[str, bytes | Sparse] = {shard: safetensors(hand) for shard, hand in zip(names, hands, strict=True)}
    return {"model.safetensors.index.json": json.dumps({"weight_map": weight_map}).encode(), **files}


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """What the Hub has under one name."""

    files: Mapping[str, bytes | Sparse]
    revisions: tuple[str, ...] = ("main",)
    gated: bool = False
    """Only ``GOOD_TOKEN`` may read it."""
    renamed_to: str = ""
    """Every request is answered by a relative redirect to that name; empty = none is."""
    stored_elsewhere: bool = False
    """Files are answered by a redirect to another address, as large ones are."""
    store: str = ""
    """Endpoint of another loopback Hub where they are stored; empty = this one."""

    def file(self, name: str) -> Sparse | None:
        """Return a file; None = there is none of that name."""
        found = self.files.get(name)
        return Sparse(start=found, num_bytes=len(found)) if isinstance(found, bytes) else found


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request, as it came in, and what it was answered with."""

    method: str
    path: str
    first: int | None
    """First byte asked for; None = no range was."""
    last: int | None
    """Last byte asked for, included; None = no range was."""
    status: int
    num_bytes: int
    """Length of the body that was sent or at least begun."""
    authorization: str | None
    user_agent: str


@dataclass(kw_only=True)
class Behaviour:
    """How the server misbehaves; a test changes it while the server runs."""

    ignores_ranges: bool = False
    status: int = 0
    """Answer everything with this status and no code; 0 = do not."""
    silent_seconds: float = 0
    """Wait before the answer."""
    seconds_per_byte: float = 0
    """Send the body one byte at a time."""
    drop_after_bytes: int | None = None
    """Close the connection after so many bytes of the body; None = do not."""
    page_files: int = 0
    """Send the list of files in pages of so many, as the Hub does from 1,000 on; 0 = all at once."""
    names_errors: bool = True
    """Send ``X-Error-Code``, as the Hub does and mirrors may not."""


@dataclass
class LoopbackHub:
    """The server; a context manager."""

    repositories: Mapping[str, Repository]
    behaviour: Behaviour = field(default_factory=Behaviour)
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def endpoint(self) -> str:
        """Address to give as ``HF_ENDPOINT``."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def environment(self, home: Path) -> dict[str, str]:
        """Return what a process needs so that it asks this Hub, and nothing else, with an empty cache in ``home``."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def use(self, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
        """Make ``huggingface_hub``, which reads its environment once, ask this Hub in this process."""
        from huggingface_hub import constants, file_download

        for name, value in self.environment(home).items():
            monkeypatch.setenv(name, value)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(constants, "ENDPOINT", self.endpoint)
        template = self.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)  # before 1.0
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", value=True)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", value=True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", value=False)


def commit_of(repo_id: str, revision: str) -> str:
    """Return the commit that a revision stands for; a commit stands for itself."""
    return revision if len(revision) == 40 else hashlib.sha1(f"{repo_id}@{revision}".encode()).hexdigest()  # noqa: S324


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: LoopbackHub) -> None:
        self.hub = hub
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing when a client hangs up."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the library's
        """Keep the terminal clean: requests are recorded."""

    def do_GET(self) -> None:
        """Answer with a body."""
        self._answer()

    def do_HEAD(self) -> None:
        """Answer without one."""
        self._answer()

    def do_POST(self) -> None:
        """Answer ``paths-info``, the one question that comes as a form."""
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self._answer()

    def _answer(self) -> None:
        behaviour = self.server.hub.behaviour
        time.sleep(behaviour.silent_seconds)
        path = urlsplit(self.path).path.strip("/")
        if behaviour.status:
            self._refuse(behaviour.status, None)
        elif self.headers.get("authorization") == f"Bearer {EXPIRED_TOKEN}":
            self._refuse(401, None, "Invalid credentials in Authorization header")
        elif path.startswith("api/models/"):
            self._api(unquote(path.removeprefix("api/models/")))
        else:
            self._resolve(path)

    def _repository(self, repo_id: str) -> Repository | None:
        """Return a repository that may be read; otherwise refuse as the Hub does."""
        found = self.server.hub.repositories.get(repo_id)
        token = self.headers.get("authorization")
        if found is None:
            self._refuse(404 if token else 401, "RepoNotFound", "Repository not found")
        elif found.gated and token != f"Bearer {GOOD_TOKEN}":
            self._refuse(403 if token else 401, "GatedRepo", "Access to this repository is restricted")
        elif found.renamed_to:
            self._redirect(307, self.path.replace(repo_id, found.renamed_to, 1))
        else:
            return found
        return None

    def _resolve(self, path: str) -> None:
        """Answer ``/{repo}/resolve/{revision}/{file}``, and ``/stored/...`` for what lies elsewhere."""
        stored = path.startswith("stored/")
        repo_id, _, rest = path.removeprefix("stored/").partition("/resolve/")  # still quoted: a revision may have "/"
        repository = self._repository(repo_id) if not stored else self.server.hub.repositories[repo_id]
        if repository is None:
            return
        revision, name = (unquote(part) for part in rest.partition("/")[::2])
        if revision not in {*repository.revisions, *(commit_of(repo_id, r) for r in repository.revisions)}:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        found, commit = repository.file(name), commit_of(repo_id, revision)
        if found is None:
            self._refuse(404, "EntryNotFound", "Entry not found", commit)
        elif repository.stored_elsewhere and not stored and self.command != "HEAD":
            self._redirect(302, f"{repository.store}/stored/{path}", commit)
        else:
            self._send_file(found, None if stored else commit)

    def _api(self, path: str) -> None:
        """Answer with facts about a repository, or with the list of its files."""
        for question in ("tree", "paths-info", "revision"):
            repo_id, asked, revision = path.partition(f"/{question}/")
            if asked:
                break
        else:
            repo_id, asked, revision = path, "", "main"
        repository = self._repository(repo_id)
        if repository is None:
            return
        names = list(repository.files)
        files = [{"type": "file", "path": n, "size": repository.file(n).num_bytes, "oid": "0"} for n in names]  # type: ignore[union-attr]
        about = {
            "id": repo_id,
            "modelId": repo_id,
            "sha": commit_of(repo_id, revision),
            "private": False,
            "gated": "manual" if repository.gated else False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "config": {},
            "siblings": [{"rfilename": name} for name in names],
        }
        headers = {"content-type": "application/json"}
        size = self.server.hub.behaviour.page_files
        if asked == "/tree/" and size:
            at = int(dict(parse_qsl(urlsplit(self.path).query)).get("cursor", "0"))
            if at + size < len(files):
                address = f"{self.server.hub.endpoint}{urlsplit(self.path).path}?recursive=true&cursor={at + size}"
                headers["link"] = f'<{address}>; rel="next"'
            files = files[at : at + size]
        body = json.dumps(files if asked in {"/tree/", "/paths-info/"} else about).encode()
        self._send(200, headers, Sparse(start=body, num_bytes=len(body)))

    def _send_file(self, file: Sparse, commit: str | None) -> None:
        """Send a file or the range of it that was asked for."""
        etag = hashlib.sha256(file.start + str(file.num_bytes).encode()).hexdigest()
        headers = {"etag": f'"{etag}"', "accept-ranges": "bytes", "content-type": "application/octet-stream"}
        if commit is not None:
            headers["x-repo-commit"] = commit
        first, last = self._range()
        if first is None or self.server.hub.behaviour.ignores_ranges:
            self._send(200, headers, file)
        elif first >= file.num_bytes:
            self._send(416, {**headers, "content-range": f"bytes */{file.num_bytes}"}, Sparse(start=b"", num_bytes=0))
        else:
            last = min(file.num_bytes - 1, file.num_bytes if last is None else last)
            headers["content-range"] = f"bytes {first}-{last}/{file.num_bytes}"
            self._send(206, headers, file, first, last)

    def _range(self) -> tuple[int | None, int | None]:
        """Read ``Range: bytes=first-last``."""
        asked = self.headers.get("range", "")
        if not asked.startswith("bytes="):
            return None, None
        first, _, last = asked.removeprefix("bytes=").partition("-")
        return int(first), int(last) if last else None

    def _redirect(self, status: int, location: str, commit: str | None = None) -> None:
        headers = {"location": location} | ({} if commit is None else {"x-repo-commit": commit})
        self._send(status, headers, Sparse(start=b"", num_bytes=0))

    def _refuse(self, status: int, code: str | None, message: str = "", commit: str | None = None) -> None:
        headers = {"content-type": "text/plain"}
        if self.server.hub.behaviour.names_errors:
            headers |= {} if code is None else {"x-error-code": code}
            headers |= {"x-error-message": message} if message else {}
        if commit is not None:
            headers["x-repo-commit"] = commit
        body = message.encode()
        self._send(status, headers, Sparse(start=body, num_bytes=len(body)))

    def _send(
        self, status: int, headers: Mapping[str, str], body: Sparse, first: int = 0, last: int | None = None
    ) -> None:
        """Record the request, then send."""
        last = body.num_bytes - 1 if last is None else last
        length = last - first + 1
        self._record(status, 0 if self.command == "HEAD" else length)
        self.send_response(status)
        for name, value in {**headers, "content-length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self._send_body(body, first, last)

    def _send_body(self, body: Sparse, first: int, last: int) -> None:
        behaviour = self.server.hub.behaviour
        if behaviour.drop_after_bytes is not None and behaviour.drop_after_bytes < last - first + 1:
            last = first + behaviour.drop_after_bytes - 1
            self.close_connection = True
        for chunk in body.part(first, last):
            if behaviour.seconds_per_byte:
                for byte in chunk:
                    self.wfile.write(bytes([byte]))
                    time.sleep(behaviour.seconds_per_byte)
            else:
                self.wfile.write(chunk)

    def _record(self, status: int, num_bytes: int) -> None:
        first, last = self._range()
        self.server.hub.requests.append(
            Request(
                method=self.command,
                path=unquote(self.path),
                first=first,
                last=last,
                status=status,
                num_bytes=num_bytes,
                authorization=self.headers.get("authorization"),
                user_agent=self.headers.get("user-agent", ""),
            )
        )

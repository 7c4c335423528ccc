"""Asks the Hugging Face Hub for a model's configuration and file headers; the only module that uses the network.

Nothing but ``config.json``, the index of the shards and the headers of safetensors files is ever
requested: no weights, no code. ``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HUB_OFFLINE`` and the local cache
are honoured as ``huggingface_hub`` does. Everything that arrives is bounded and parsed as hostile.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from vramfit.errors import HubError, UnreadableFileError, quote
from vramfit.readers.hub_refusal import OR_CONFIG, Refusal, refusal
from vramfit.readers.json_text import load_json_object, parse_json_object
from vramfit.readers.safetensors import (
    HEADER_LIMIT_BYTES,
    INDEX_LIMIT_BYTES,
    LENGTH_BYTES,
    Checkpoint,
    StoredTensor,
    load_checkpoint,
    merge,
    parse_header,
    parse_header_length,
    parse_weight_map,
    shards_of,
)

CONFIG_LIMIT_BYTES = 16 * 2**20
"""Largest ``config.json`` that is fetched; published ones are below 1 MiB."""

ALL_HEADERS_LIMIT_BYTES = 256 * 2**20
"""Largest sum of all headers of one model; DeepSeek-V3, with 91,991 tensors, has 11 MB."""

LONGEST_REQUEST_SECONDS = 120
"""Time for one whole answer, however slowly it trickles in; silence is bounded by ``HF_HUB_DOWNLOAD_TIMEOUT``."""

PARALLEL_REQUESTS = 8

CONFIG = "config.json"
SINGLE_FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"

_REPO_ID = re.compile(r"(?=.{1,96}$)(?!.*(?:--|\.\.|\.git$))\w[\w.-]*(?:/\w[\w.-]*)?", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,250}")
_COMMIT = re.compile(r"[0-9a-f]{40}")

_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Repository:
    """A repository at a revision."""

    repo_id: str
    revision: str | None
    """Branch, tag or commit; None = the default branch."""

    def __str__(self) -> str:
        return self.repo_id if self.revision is None else f"{self.repo_id}@{self.revision}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """What one request brought."""

    content: bytes
    file_bytes: int | None
    """Size of the whole file; None = the server did not say. [B]"""
    commit: str | None
    """Commit that the revision stands for; None = the server did not say."""


class _UnreachableError(HubError):
    """Nobody answered, as opposed to a refusal: the cache may still help."""


def fetch_config(repo_id: str, revision: str | None = None) -> dict[str, object]:
    """Fetch a repository's ``config.json``; without network, from the local cache.

    Args:
        repo_id: ``"org/name"``.
        revision: branch, tag or commit; None = the default branch.

    Raises:
        HubError: a malformed name, no such repository, revision or file, no access, or no connection.
        UnreadableFileError: the file is not a JSON object, or too large.
    """
    repository = _repository(repo_id, revision)
    where = f"{repository}/{CONFIG}"
    try:
        found = None if _is_offline() else _fetch(repository, CONFIG, CONFIG_LIMIT_BYTES + 1)
    except _UnreachableError:
        if _cached(repository, CONFIG) is None:
            raise
        found = None
    if found is not None:
        return parse_json_object(found.content, where, CONFIG_LIMIT_BYTES)
    cached = _cached(repository, CONFIG)
    if cached is not None:
        return load_json_object(cached, CONFIG_LIMIT_BYTES)
    raise HubError(_no_config(repository))


def _no_config(repository: _Repository) -> str:
    if _is_offline():
        return (
            f"{repository}: not in the local cache, and HF_HUB_OFFLINE is set; expected {CONFIG}; "
            f"unset HF_HUB_OFFLINE, {OR_CONFIG}"
        )
    return (
        f"{repository}: has no {CONFIG} (or does not exist); expected a transformers model; "
        f"name the repository of the original weights, {OR_CONFIG}"
    )


def fetch_checkpoint(repo_id: str, revision: str | None = None) -> Checkpoint | None:
    """Fetch the headers of a repository's safetensors files; None = it has none, or they are not in reach.

    Args:
        repo_id: ``"org/name"``.
        revision: branch, tag or commit; None = the default branch.

    Raises:
        HubError: a malformed name, no such repository, revision or file, no access, or no connection.
        UnreadableFileError: a header or index that is damaged or hostile.
    """
    repository = _repository(repo_id, revision)
    if _is_offline():
        return _load_cached_checkpoint(repository)
    try:
        return _fetch_single(repository) or _fetch_shards(repository)
    except _UnreachableError:
        if _cached(repository, CONFIG) is None:
            raise
        return _load_cached_checkpoint(repository)


def _fetch_single(repository: _Repository) -> Checkpoint | None:
    """Fetch the header of ``model.safetensors``."""
    length = _fetch_length(repository, SINGLE_FILE)
    if length is None:
        return None
    return Checkpoint(where=f"{repository}/{SINGLE_FILE}", tensors=_fetch_header(repository, SINGLE_FILE, length))


def _fetch_shards(repository: _Repository) -> Checkpoint | None:
    """Fetch the index, then the header of each shard at the index's own commit."""
    found = _fetch(repository, INDEX, INDEX_LIMIT_BYTES + 1)
    if found is None:
        return None
    where = f"{repository}/{INDEX}"
    weight_map = parse_weight_map(parse_json_object(found.content, where, INDEX_LIMIT_BYTES), where)
    pinned = repository if found.commit is None else replace(repository, revision=found.commit)
    shards = shards_of(weight_map)
    lengths = dict(zip(shards, _at_once(lambda shard: _fetch_shard_length(pinned, shard), shards), strict=True))
    if sum(length.header for length in lengths.values()) > ALL_HEADERS_LIMIT_BYTES:
        raise UnreadableFileError(
            f"{where}: headers of more than {ALL_HEADERS_LIMIT_BYTES:,} bytes together; expected at most that; "
            "is this the right repository?"
        )
    headers = _at_once(lambda shard: _fetch_header(pinned, shard, lengths[shard]), shards)
    return merge(weight_map, dict(zip(shards, headers, strict=True)), where)


def _at_once(fetch: Callable[[_T], _R], these: tuple[_T, ...]) -> tuple[_R, ...]:
    """Fetch several things in parallel; the first failure ends it."""
    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        try:
            return tuple(pool.map(fetch, these))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


@dataclass(frozen=True, slots=True, kw_only=True)
class _Length:
    """Sizes that the start of a file told."""

    header: int
    file_bytes: int | None


def _fetch_shard_length(repository: _Repository, shard: str) -> _Length:
    length = _fetch_length(repository, shard)
    if length is None:
        raise HubError(
            f"{repository}: {INDEX} names {quote(shard)}, which the repository does not have; expected all shards; "
            f"name another revision, {OR_CONFIG}"
        )
    return length


def _fetch_length(repository: _Repository, filename: str) -> _Length | None:
    """Fetch the first eight bytes of a file; None = there is no such file."""
    found = _fetch(repository, filename, LENGTH_BYTES, first=0)
    if found is None:
        return None
    header = parse_header_length(found.content, f"{repository}/{filename}", found.file_bytes)
    return _Length(header=header, file_bytes=found.file_bytes)


def _fetch_header(repository: _Repository, filename: str, length: _Length) -> tuple[StoredTensor, ...]:
    """Fetch exactly the header of a file."""
    where = f"{repository}/{filename}"
    assert length.header <= HEADER_LIMIT_BYTES
    found = _fetch(repository, filename, length.header, first=LENGTH_BYTES)
    if found is None or len(found.content) != length.header:
        seen = "nothing" if found is None else f"{len(found.content):,} bytes"
        raise HubError(f"{where}: {seen}; expected a header of {length.header:,} bytes; try again")
    data = None if length.file_bytes is None else length.file_bytes - LENGTH_BYTES - length.header
    return parse_header(found.content, where, data)


def _repository(repo_id: str, revision: str | None) -> _Repository:
    """Check the names, by the Hub's rules, before they become part of an address or of a path in the cache."""
    if not _REPO_ID.fullmatch(repo_id):
        raise HubError(
            f"{quote(repo_id)}: not the name of a repository; expected org/name, letters, digits, '-', '_' and '.', "
            f"at most 96 characters; check the spelling, {OR_CONFIG}"
        )
    if revision is not None and (not _REVISION.fullmatch(revision) or ".." in revision or "//" in revision):
        raise HubError(
            f"{repo_id}: revision {quote(revision)}: not the name of a revision; expected a branch, tag or commit; "
            "leave it out for the default branch"
        )
    return _Repository(repo_id=repo_id, revision=revision)


def _is_offline() -> bool:
    from huggingface_hub import constants  # noqa: PLC0415

    return bool(constants.HF_HUB_OFFLINE)


def _cached(repository: _Repository, filename: str) -> Path | None:
    """Return where the local cache has a file; None = it has not."""
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415

    found = try_to_load_from_cache(repository.repo_id, filename, revision=repository.revision)
    return Path(found) if isinstance(found, str) else None


def _load_cached_checkpoint(repository: _Repository) -> Checkpoint | None:
    """Read the headers of a snapshot in the local cache, when all of its files are there."""
    single, index = _cached(repository, SINGLE_FILE), _cached(repository, INDEX)
    if single is not None:
        return load_checkpoint(single)
    if index is None:
        return None
    weight_map = parse_weight_map(load_json_object(index, INDEX_LIMIT_BYTES), str(index))
    if any(_cached(repository, shard) is None for shard in shards_of(weight_map)):
        return None
    return load_checkpoint(index)


def _fetch(repository: _Repository, filename: str, limit_bytes: int, first: int | None = None) -> _Answer | None:
    """Fetch at most ``limit_bytes`` of a file; None = the repository has no such file.

    Args:
        repository: whose file.
        filename: path in the repository.
        limit_bytes: where to stop reading. [B]
        first: position of the first byte wanted; None = ask for the whole file. [B]

    Raises:
        HubError: refused, or nobody answers.
    """
    from huggingface_hub import constants, hf_hub_url  # noqa: PLC0415

    url = hf_hub_url(repository.repo_id, filename, revision=repository.revision)
    wanted = {} if first is None else {"range": f"bytes={first}-{first + limit_bytes - 1}"}
    token = _token()
    try:
        with _request(url, {**_headers(token), **wanted}) as response:
            if not _has_file(response, repository, filename, token):
                return None
            before = first if first and response.status_code == 200 else 0  # a server may ignore ranges
            content = _read(response, before + limit_bytes)[before:]
            return _Answer(content=content, file_bytes=_file_bytes(response), commit=_commit(response))
    except _transport_errors() as error:
        said = str(error) if token is None else str(error).replace(token, "***")
        raise _UnreachableError(
            f"{repository}: {constants.ENDPOINT} does not answer ({type(error).__name__}: {said[:200]}); "
            f"expected a connection to the Hub; check the network and HF_ENDPOINT, {OR_CONFIG}"
        ) from None


def _token() -> str | None:
    """Return the user's token, as ``huggingface_hub`` finds it; None = there is none, or it is not to be sent."""
    from huggingface_hub import constants, get_token  # noqa: PLC0415

    token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
    if token is not None and not (token.isascii() and token.isprintable()):
        raise HubError("HF_TOKEN: holds characters that no token has; expected hf_...; copy it again")
    return token


def _headers(token: str | None) -> dict[str, str]:
    """Say who asks; no list of installed packages, and no request to find out more."""
    named = {"user-agent": "vramfit", "accept-encoding": "identity"}
    return named if token is None else {**named, "authorization": f"Bearer {token}"}


def _request(url: str, headers: dict[str, str]) -> AbstractContextManager[Any]:
    """Start a request with the library's own session, so that proxies and certificates are the user's."""
    from huggingface_hub import constants, get_session  # noqa: PLC0415

    session: Any = get_session()
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    if callable(getattr(session, "stream", None)):  # httpx: huggingface_hub 1 and later
        started: AbstractContextManager[Any] = session.stream("GET", url, headers=headers, timeout=timeout)
    else:  # requests: before
        started = session.get(url, headers=headers, timeout=timeout, stream=True)
    return started


def _transport_errors() -> tuple[type[BaseException], ...]:
    """Return what the HTTP client raises when nobody answers.

    The client differs with the version of huggingface_hub (requests, httpx, httpx2); the first base
    of the library's own error is the root of the client's.
    """
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

    return (OSError, HfHubHTTPError.__bases__[0])


def _read(response: Any, limit_bytes: int) -> bytes:  # noqa: ANN401 - of three client libraries
    """Read the body up to a limit, in bounded time."""
    chunks, num_bytes = [], 0
    until = time.monotonic() + LONGEST_REQUEST_SECONDS
    for chunk in _chunks(response):
        chunks.append(chunk)
        num_bytes += len(chunk)
        if num_bytes >= limit_bytes:
            break
        if time.monotonic() > until:
            raise TimeoutError(f"{num_bytes:,} bytes in {LONGEST_REQUEST_SECONDS} s")
    return b"".join(chunks)[:limit_bytes]


def _chunks(response: Any) -> Iterator[bytes]:  # noqa: ANN401
    chunks: Iterator[bytes] = response.iter_bytes() if hasattr(response, "iter_bytes") else response.iter_content(2**16)
    return chunks


def _file_bytes(response: Any) -> int | None:  # noqa: ANN401
    """Return the size of the whole file from ``Content-Range: bytes 0-7/1234`` or the length; None = not said."""
    if response.status_code == 206:
        said = response.headers.get("content-range", "").rpartition("/")[2]
    else:
        said = response.headers.get("content-length", "")
    return int(said) if said.isascii() and said.isdigit() and len(said) < 20 else None


def _commit(response: Any) -> str | None:  # noqa: ANN401
    """Return the commit that the Hub, not the store it redirects to, names."""
    for answer in (*response.history, response):
        named = answer.headers.get("x-repo-commit", "")
        if _COMMIT.fullmatch(named):
            return str(named)
    return None


def _has_file(response: Any, repository: _Repository, filename: str, token: str | None) -> bool:  # noqa: ANN401
    """Say whether the file is there; anything but a plain yes or no is an error with its next step."""
    status, code = response.status_code, response.headers.get("x-error-code")
    if status in {200, 206}:
        return True
    if status == 404 and code in {"EntryNotFound", None}:
        return False
    if status == 416:
        raise UnreadableFileError(f"{repository}/{filename}: too short for a header; expected a safetensors file")
    raise HubError(f"{repository}: {_refused(response, repository, token)}")


def _refused(response: Any, repository: _Repository, token: str | None) -> str:  # noqa: ANN401
    from huggingface_hub import constants  # noqa: PLC0415

    return refusal(
        Refusal(
            status=response.status_code,
            code=response.headers.get("x-error-code"),
            message=response.headers.get("x-error-message", ""),
            endpoint=constants.ENDPOINT,
            repo_id=repository.repo_id,
            revision=repository.revision,
            with_token=token is not None,
        )
    )

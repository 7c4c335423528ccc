"""Requests to the Hugging Face Hub and to other web addresses: bounded, by the user's own settings, told in words.

``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HUB_OFFLINE`` and the local cache are honoured as ``huggingface_hub`` does. Only the
``hub`` modules of this folder use the network. Everything that arrives is bounded.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from vramfit.errors import HubError, UnreadableFileError, quote
from vramfit.readers.hub_refusal import OR_CONFIG, Refusal, refusal

LONGEST_REQUEST_SECONDS = 120
"""Time for one whole answer, however slowly it trickles in; silence is bounded by ``HF_HUB_DOWNLOAD_TIMEOUT``."""
PARALLEL_REQUESTS = 8
_REPO_ID = re.compile(r"(?=.{1,96}$)(?!.*(?:--|\.\.|\.git$))\w[\w.-]*(?:/\w[\w.-]*)?", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,250}")
_ADDRESS = re.compile(r"https?://[A-Za-z0-9][A-Za-z0-9.-]{0,252}(?::[0-9]{1,4}|:[1-5][0-9]{4})?/[!-~]{1,2000}")
_COMMIT = re.compile(r"[0-9a-f]{40}")

_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A repository at a revision."""

    repo_id: str
    revision: str | None
    """Branch, tag or commit; None = the default branch."""

    def __str__(self) -> str:
        return self.repo_id if self.revision is None else f"{self.repo_id}@{self.revision}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one request brought."""

    content: bytes
    file_bytes: int | None
    """Size of the whole file; None = the server did not say. [B]"""
    commit: str | None
    """Commit that the revision stands for; None = the server did not say."""
    more: str | None = None
    """What leads to the next page of a list; None = this is all."""


class UnreachableError(HubError):
    """Nobody answered, as opposed to a refusal: the cache may still help."""


def at_once(fetch: Callable[[_T], _R], these: tuple[_T, ...]) -> tuple[_R, ...]:
    """Fetch several things in parallel; the first failure ends it."""
    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        try:
            return tuple(pool.map(fetch, these))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def repository_of(repo_id: str, revision: str | None) -> Repository:
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
    return Repository(repo_id=repo_id, revision=revision)


def is_offline() -> bool:
    """Say whether the user wants the local cache only."""
    from huggingface_hub import constants  # noqa: PLC0415

    return bool(constants.HF_HUB_OFFLINE)


def cached_file(repository: Repository, filename: str) -> Path | None:
    """Return where the local cache has a file; None = it has not."""
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415

    found = try_to_load_from_cache(repository.repo_id, filename, revision=repository.revision)
    return Path(found) if isinstance(found, str) else None


def fetch_file(repository: Repository, filename: str, limit_bytes: int, first: int | None = None) -> Answer | None:
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
    token = _token()
    wanted = {} if first is None else {"range": f"bytes={first}-{first + limit_bytes - 1}"}
    try:
        with _request(url, {**_headers(token), **wanted}) as response:
            if not _has_file(response, repository, filename, token):
                return None
            return _answer(response, limit_bytes, first)
    except _transport_errors() as error:
        raise _unreachable(str(repository), constants.ENDPOINT, error, token) from None


def fetch_page(repository: Repository, path: str, limit_bytes: int) -> Answer:
    """Fetch an answer of the Hub's interface about a repository, such as the list of its files.

    Raises:
        HubError: refused, or nobody answers.
    """
    from huggingface_hub import constants  # noqa: PLC0415

    if is_offline():
        raise UnreachableError(f"{repository}: HF_HUB_OFFLINE is set; expected a connection; unset it, {OR_CONFIG}")
    token = _token()
    try:
        with _request(f"{constants.ENDPOINT}/api/models/{repository.repo_id}/{path}", _headers(token)) as response:
            if response.status_code != 200:
                raise HubError(f"{repository}: {_refused(response, repository, token)}")
            return _answer(response, limit_bytes, None)
    except _transport_errors() as error:
        raise _unreachable(str(repository), constants.ENDPOINT, error, token) from None


def fetch_url(url: str, limit_bytes: int, first: int = 0) -> Answer:
    """Fetch a range of what lies at an address; the user's token goes to the Hub only.

    Raises:
        HubError: not an address, refused, or nobody answers.
    """
    from huggingface_hub import constants  # noqa: PLC0415

    if not _ADDRESS.fullmatch(url):
        raise HubError(f"{quote(url)}: not an address; expected https://host/path/to/model.gguf; check the spelling")
    parts = urlsplit(url)
    if is_offline():
        raise HubError(f"{quote(url)}: HF_HUB_OFFLINE is set; expected a connection; unset it, or give a local file")
    token = _token() if urlsplit(constants.ENDPOINT).netloc == parts.netloc else None
    wanted = {"range": f"bytes={first}-{first + limit_bytes - 1}"}
    try:
        with _request(url, {**_headers(token), **wanted}) as response:
            if response.status_code not in {200, 206}:
                raise HubError(
                    f"{quote(url)}: answered HTTP {response.status_code}; expected a file; check the address"
                )
            return _answer(response, limit_bytes, first)
    except _transport_errors() as error:
        raise _unreachable(quote(url), parts.netloc, error, token) from None


def _answer(response: Any, limit_bytes: int, first: int | None) -> Answer:  # noqa: ANN401 - of three client libraries
    """Read what was asked for; a server may ignore ranges."""
    before = first if first and response.status_code == 200 else 0
    content = _read(response, before + limit_bytes)[before:]
    return Answer(content=content, file_bytes=_file_bytes(response), commit=_commit(response), more=_more(response))


def _more(response: Any) -> str | None:  # noqa: ANN401
    """Return what leads to the next page of a list: the ``cursor`` of the address in ``Link``; None = this is all."""
    match = re.search(r"[?&]cursor=([\w%.~+/=-]{1,2000})[^>]*>;\s*rel=.next", response.headers.get("link", ""))
    return match[1] if match else None


def _unreachable(what: str, endpoint: str, error: BaseException, token: str | None) -> UnreachableError:
    said = str(error) if token is None else str(error).replace(token, "***")
    return UnreachableError(
        f"{what}: {endpoint} does not answer ({type(error).__name__}: {said[:200]}); "
        f"expected a connection to the Hub; check the network and HF_ENDPOINT, {OR_CONFIG}"
    )


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


def _has_file(response: Any, repository: Repository, filename: str, token: str | None) -> bool:  # noqa: ANN401
    """Say whether the file is there; anything but a plain yes or no is an error with its next step."""
    status, code = response.status_code, response.headers.get("x-error-code")
    if status in {200, 206}:
        return True
    if status == 404 and code in {"EntryNotFound", None}:
        return False
    if status == 416:
        raise UnreadableFileError(f"{repository}/{filename}: too short for a header; expected a whole file")
    raise HubError(f"{repository}: {_refused(response, repository, token)}")


def _refused(response: Any, repository: Repository, token: str | None) -> str:  # noqa: ANN401
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

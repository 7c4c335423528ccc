"""Fetches headers of GGUF files, from the Hub or any address, by ranges: metadata and lists of tensors, no weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from urllib.parse import urlsplit, urlunsplit

from vramfit.errors import HubError
from vramfit.readers.gguf import FIRST_READ_BYTES, GgufHeader, join, load_gguf, read_header, split_names
from vramfit.readers.hub_refusal import OR_CONFIG
from vramfit.readers.hub_request import (
    Answer,
    Repository,
    UnreachableError,
    at_once,
    cached_file,
    fetch_file,
    fetch_url,
    is_offline,
    repository_of,
)
from vramfit.readers.safetensors import Checkpoint

Found = tuple[GgufHeader, Checkpoint]


def fetch_gguf(repo_id: str, filename: str, revision: str | None = None) -> Found:
    """Fetch the header of a GGUF file, and of its siblings when it is one of several; offline, from the local cache.

    Raises:
        HubError: no such repository, revision or file, no access, or no connection.
        UnreadableFileError: a header that is damaged or hostile.
    """
    repository = repository_of(repo_id, revision)
    cached = cached_file(repository, filename)
    if is_offline():
        if cached is None:
            raise HubError(
                f"{repository}/{filename}: not in the local cache, and HF_HUB_OFFLINE is set; unset it, {OR_CONFIG}"
            )
        return load_gguf(cached)
    try:
        return _fetch_all(repository, filename)
    except UnreachableError:
        if cached is None:
            raise
        return load_gguf(cached)


def _fetch_all(repository: Repository, filename: str) -> Found:
    """Fetch the headers of all files of one model, at one commit."""
    folder, _, name = filename.rpartition("/")
    paths = [f"{folder}/{part}" if folder else part for part in split_names(name)]
    first = _file(repository, paths[0], 0, FIRST_READ_BYTES)
    pinned = repository if first.commit is None else replace(repository, revision=first.commit)

    def header(path: str) -> GgufHeader:
        begun = first if path == paths[0] else _file(pinned, path, 0, FIRST_READ_BYTES)
        return _header(lambda start, size: _file(pinned, path, start, size), begun, f"{repository}/{path}")

    return join(list(at_once(header, tuple(paths))), f"{repository}/{filename}")


def _file(repository: Repository, path: str, start: int, size: int) -> Answer:
    found = fetch_file(repository, path, size, first=start)
    if found is None:
        raise HubError(f"{repository}: has no file {path!r:.200}; expected a .gguf file of it; check the spelling")
    return found


def fetch_gguf_url(url: str) -> Found:
    """Fetch the header of a GGUF file at an address, and of its siblings when it is one of several.

    Raises:
        HubError: not an address, refused, or nobody answers.
        UnreadableFileError: a header that is damaged or hostile.
    """
    parts = urlsplit(url)
    folder, _, name = parts.path.rpartition("/")
    addresses = [urlunsplit(parts._replace(path=f"{folder}/{part}")) for part in split_names(name)]

    def header(address: str) -> GgufHeader:
        begun = fetch_url(address, FIRST_READ_BYTES)
        return _header(lambda start, size: fetch_url(address, size, start), begun, address)

    return join(list(at_once(header, tuple(addresses))), url)


def _header(fetch: Callable[[int, int], Answer], begun: Answer, where: str) -> GgufHeader:
    """Read a header piece by piece: each byte is fetched once."""
    held = begun.content

    def read(size: int) -> bytes:
        nonlocal held
        ends = begun.file_bytes if begun.file_bytes is not None else size
        if len(held) < min(size, ends):
            held += fetch(len(held), size - len(held)).content
        return held[:size]

    return read_header(read, where, begun.file_bytes)

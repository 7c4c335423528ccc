"""Asks the Hugging Face Hub for a model's configuration and file headers; the only module that uses the network.

Nothing but ``config.json``, the index of the shards and the headers of safetensors files is ever
requested: no weights, no code. ``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HUB_OFFLINE`` and the local cache
are honoured as ``huggingface_hub`` does. Everything that arrives is bounded and parsed as hostile.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from vramfit.errors import HubError, UnreadableFileError, quote
from vramfit.readers.hub_refusal import OR_CONFIG
from vramfit.readers.hub_request import (
    Repository,
    UnreachableError,
    at_once,
    cached_file,
    fetch_file,
    is_offline,
    repository_of,
)
from vramfit.readers.json_text import load_bytes, load_json_object, parse_json_object
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

CONFIG = "config.json"
STEM = "model"
"""How the names of a model's weights begin."""
SINGLE_FILE = ".safetensors"
INDEX = ".safetensors.index.json"
"""How they end: one file, or the index of several."""


def fetch_config(repo_id: str, revision: str | None = None) -> dict[str, object]:
    """Fetch a repository's ``config.json``; without network, from the local cache.

    Args:
        repo_id: ``"org/name"``.
        revision: branch, tag or commit; None = the default branch.

    Raises:
        HubError: a malformed name, no such repository, revision or file, no access, or no connection.
        UnreadableFileError: the file is not a JSON object, or too large.
    """
    found = fetch_json(repo_id, CONFIG, revision)
    if found is None:
        raise HubError(no_config(repo_id, revision))
    return found


def fetch_json(repo_id: str, filename: str, revision: str | None = None) -> dict[str, object] | None:
    """Fetch a small JSON file of a repository; without network, from the local cache; None = there is none.

    Raises:
        HubError: a malformed name, no such repository or revision, no access, or no connection.
        UnreadableFileError: the file is not a JSON object, or too large.
    """
    text = _fetch_text(repo_id, filename, revision)
    return None if text is None else parse_json_object(text[0], text[1], CONFIG_LIMIT_BYTES)


def fetch_array(repo_id: str, filename: str, revision: str | None = None) -> object | None:
    """Fetch a small JSON file that holds an array, such as ``modules.json``; None = there is none.

    Raises:
        HubError: a malformed name, no such repository or revision, no access, or no connection.
        UnreadableFileError: the file is not JSON, or too large.
    """
    text = _fetch_text(repo_id, filename, revision)
    if text is None:
        return None
    return parse_json_object(b'{"array":' + text[0] + b"}", text[1], CONFIG_LIMIT_BYTES)["array"]


def _fetch_text(repo_id: str, filename: str, revision: str | None) -> tuple[bytes, str] | None:
    """Fetch a small file and say where it lies; without network, from the local cache."""
    repository = repository_of(repo_id, revision)
    try:
        found = None if is_offline() else fetch_file(repository, filename, CONFIG_LIMIT_BYTES + 1)
    except UnreachableError:
        if cached_file(repository, filename) is None:
            raise
        found = None
    if found is not None:
        return found.content, f"{repository}/{filename}"
    cached = cached_file(repository, filename)
    return None if cached is None else (load_bytes(cached, CONFIG_LIMIT_BYTES), str(cached))


def no_config(repo_id: str, revision: str | None) -> str:
    """Say that a repository has no configuration, and what would do instead."""
    repository = repository_of(repo_id, revision)
    if is_offline():
        return (
            f"{repository}: not in the local cache, and HF_HUB_OFFLINE is set; expected {CONFIG}; "
            f"unset HF_HUB_OFFLINE, {OR_CONFIG}"
        )
    return (
        f"{repository}: has no {CONFIG} (or does not exist); expected a transformers model; "
        f"name the repository of the original weights, {OR_CONFIG}"
    )


def fetch_checkpoint(repo_id: str, revision: str | None = None, stem: str = STEM) -> Checkpoint | None:
    """Fetch the headers of a repository's safetensors files; None = it has none, or they are not in reach.

    Args:
        repo_id: ``"org/name"``.
        revision: branch, tag or commit; None = the default branch.
        stem: how their names begin, with the folder: ``"vae/diffusion_pytorch_model"``.

    Raises:
        HubError: a malformed name, no such repository, revision or file, no access, or no connection.
        UnreadableFileError: a header or index that is damaged or hostile.
    """
    repository = repository_of(repo_id, revision)
    if is_offline():
        return _load_cached_checkpoint(repository, stem)
    try:
        return _fetch_single(repository, f"{stem}{SINGLE_FILE}") or _fetch_shards(repository, f"{stem}{INDEX}")
    except UnreachableError:
        if cached_file(repository, CONFIG) is None:
            raise
        return _load_cached_checkpoint(repository, stem)


def _fetch_single(repository: Repository, name: str) -> Checkpoint | None:
    """Fetch the header of the only file."""
    length = _fetch_length(repository, name)
    if length is None:
        return None
    return Checkpoint(where=f"{repository}/{name}", tensors=_fetch_header(repository, name, length))


def _fetch_shards(repository: Repository, name: str) -> Checkpoint | None:
    """Fetch the index, then the header of each shard at the index's own commit."""
    found = fetch_file(repository, name, INDEX_LIMIT_BYTES + 1)
    if found is None:
        return None
    where = f"{repository}/{name}"
    weight_map = parse_weight_map(parse_json_object(found.content, where, INDEX_LIMIT_BYTES), where)
    pinned = repository if found.commit is None else replace(repository, revision=found.commit)
    shards, folder = shards_of(weight_map), name.rpartition("/")[0]
    paths = {shard: f"{folder}/{shard}" if folder else shard for shard in shards}
    found_lengths = at_once(lambda shard: _fetch_shard_length(pinned, paths[shard], name), shards)
    lengths = dict(zip(shards, found_lengths, strict=True))
    if sum(length.header for length in lengths.values()) > ALL_HEADERS_LIMIT_BYTES:
        raise UnreadableFileError(
            f"{where}: headers of more than {ALL_HEADERS_LIMIT_BYTES:,} bytes together; expected at most that; "
            "is this the right repository?"
        )
    headers = at_once(lambda shard: _fetch_header(pinned, paths[shard], lengths[shard]), shards)
    return merge(weight_map, dict(zip(shards, headers, strict=True)), where)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Length:
    """Sizes that the start of a file told."""

    header: int
    file_bytes: int | None


def _fetch_shard_length(repository: Repository, shard: str, index: str) -> _Length:
    length = _fetch_length(repository, shard)
    if length is None:
        raise HubError(
            f"{repository}: {index} names {quote(shard)}, which the repository does not have; expected all shards; "
            f"name another revision, {OR_CONFIG}"
        )
    return length


def _fetch_length(repository: Repository, filename: str) -> _Length | None:
    """Fetch the first eight bytes of a file; None = there is no such file."""
    found = fetch_file(repository, filename, LENGTH_BYTES, first=0)
    if found is None:
        return None
    header = parse_header_length(found.content, f"{repository}/{filename}", found.file_bytes)
    return _Length(header=header, file_bytes=found.file_bytes)


def _fetch_header(repository: Repository, filename: str, length: _Length) -> tuple[StoredTensor, ...]:
    """Fetch exactly the header of a file."""
    where = f"{repository}/{filename}"
    assert length.header <= HEADER_LIMIT_BYTES
    found = fetch_file(repository, filename, length.header, first=LENGTH_BYTES)
    if found is None or len(found.content) != length.header:
        seen = "nothing" if found is None else f"{len(found.content):,} bytes"
        raise HubError(f"{where}: {seen}; expected a header of {length.header:,} bytes; try again")
    data = None if length.file_bytes is None else length.file_bytes - LENGTH_BYTES - length.header
    return parse_header(found.content, where, data)


def _load_cached_checkpoint(repository: Repository, stem: str) -> Checkpoint | None:
    """Read the headers of a snapshot in the local cache, when all of its files are there."""
    single, index = (cached_file(repository, stem + ending) for ending in (SINGLE_FILE, INDEX))
    if single is not None:
        return load_checkpoint(single)
    if index is None:
        return None
    weight_map = parse_weight_map(load_json_object(index, INDEX_LIMIT_BYTES), str(index))
    folder = stem.rpartition("/")[0]
    paths = [f"{folder}/{shard}" if folder else shard for shard in shards_of(weight_map)]
    if any(cached_file(repository, path) is None for path in paths):
        return None
    return load_checkpoint(index)

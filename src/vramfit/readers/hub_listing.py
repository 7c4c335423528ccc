"""The list of a repository's files with their sizes, as the Hub tells it."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote as quote_url

from vramfit.errors import UnreadableFileError, quote
from vramfit.readers.hub_request import fetch_page, repository_of
from vramfit.readers.json_text import parse_json_object

PAGE_LIMIT_BYTES = 16 * 2**20
MOST_PAGES = 20
"""Pages of 1,000 files; repositories of models have a few hundred files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a repository holds at a revision."""

    where: str
    sizes: dict[str, int]
    """Path in the repository -> size. [B]"""

    def ending(self, *endings: str) -> dict[str, int]:
        """Return the files whose paths end so."""
        return {path: size for path, size in self.sizes.items() if path.endswith(endings)}


def fetch_listing(repo_id: str, revision: str | None = None) -> Listing:
    """Fetch paths and sizes of all files of a repository.

    Raises:
        HubError: no such repository or revision, no access, or no connection.
        UnreadableFileError: an answer that is no such list, or an endless one.
    """
    repository = repository_of(repo_id, revision)
    sizes: dict[str, int] = {}
    cursor = ""
    for _ in range(MOST_PAGES):
        page = fetch_page(
            repository, f"tree/{quote_url(revision or 'main', safe='')}?recursive=true{cursor}", PAGE_LIMIT_BYTES
        )
        sizes |= _sizes(page.content, str(repository))
        if page.more is None:
            return Listing(where=str(repository), sizes=sizes)
        cursor = f"&cursor={page.more}"
    raise UnreadableFileError(
        f"{repository}: more than {len(sizes):,} files; expected a repository of one model; name a file of it"
    )


def _sizes(content: bytes, where: str) -> dict[str, int]:
    """Return path -> size of one page, a JSON array of objects."""
    entries = parse_json_object(b'{"files":' + content + b"}", f"{where}, list of files", PAGE_LIMIT_BYTES)["files"]
    if not isinstance(entries, list):
        raise UnreadableFileError(f"{where}, list of files: {quote(entries)}: expected an array; is this the Hub?")
    found = {}
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
            raise UnreadableFileError(f"{where}, list of files: {quote(entry)}: expected a path and a size")
        size = entry.get("size")
        if entry.get("type") == "file" and isinstance(size, int) and size >= 0:
            found[str(entry["path"])] = size
    return found

"""What the Hub means when it refuses, in words and with a next step.

Source of the codes: huggingface/huggingface_hub, src/huggingface_hub/utils/_http.py, hf_raise_for_status.
"""

from __future__ import annotations

from dataclasses import dataclass

from vramfit.errors import quote

OR_CONFIG = "or pass --config FILE"
"""The way out when the Hub does not help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An answer that is not the file, and what was asked for."""

    status: int
    """HTTP status, 400 or above."""
    code: str | None
    """``X-Error-Code``; None = a server that does not send it."""
    message: str = ""
    """``X-Error-Message``; empty = a server that does not send it."""
    endpoint: str
    repo_id: str
    revision: str | None = None
    """Branch, tag or commit; None = the default branch."""
    with_token: bool = False
    """True when a token was sent along."""


def refusal(said: Refusal) -> str:
    """Say what was refused, what was expected and what to do.

    >>> refusal(Refusal(status=429, code=None, endpoint="https://huggingface.co", repo_id="org/name"))
    'too many requests (HTTP 429); expected fewer; wait a few minutes, set HF_TOKEN, or pass --config FILE'
    """
    page = f"{said.endpoint}/{said.repo_id}"
    match said:
        case Refusal(code="GatedRepo"):
            whose = "the token of an account that was let in" if said.with_token else "that account's token"
            return (
                f"gated by its owner (HTTP {said.status}); expected an account that accepted the licence; "
                f"accept it at {page}, set HF_TOKEN to {whose}, {OR_CONFIG}"
            )
        case Refusal(code="RevisionNotFound"):
            return f"no revision {quote(said.revision)}; expected a branch, tag or commit; see {page}/branches"
        case Refusal(status=401) if said.message.startswith("Invalid credentials"):
            return (
                "the Hub does not accept this token (HTTP 401); expected a valid HF_TOKEN; "
                f"make a new one at {said.endpoint}/settings/tokens, or unset HF_TOKEN for public models"
            )
    return _by_status(said, page)


def _by_status(said: Refusal, page: str) -> str:
    """Say what a status means when no code says more."""
    if said.code == "RepoNotFound" or said.status in {401, 404}:
        return (
            f"no such repository at {said.endpoint}, or a private one (HTTP {said.status}); expected org/name; "
            f"check the spelling, set HF_TOKEN if it is private, {OR_CONFIG}"
        )
    if said.status == 403:
        return f"access refused (HTTP 403); expected a token with read access; see {page}, {OR_CONFIG}"
    if said.status == 429:
        return f"too many requests (HTTP 429); expected fewer; wait a few minutes, set HF_TOKEN, {OR_CONFIG}"
    return f"the Hub answered HTTP {said.status}; expected the file; try again later, {OR_CONFIG}"

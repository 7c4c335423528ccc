"""Everything that vramfit raises on purpose.

    VramfitError
    |-- InvalidValueError       a value that cannot be: its path, what was seen, what was expected
    |-- UnknownNameError        a model, device, format, engine ... nobody here knows; lists the nearest
    |-- UnsupportedModelError   an architecture or a field of one that is not understood
    |   `-- UnknownKindError    a whole kind of model that no reader of ours knows; another program might
    |-- UnreadableFileError     a file that is missing, damaged, hostile or of another kind
    |-- HubError                the Hub said no, or was not reachable
    `-- ImpossiblePlanError     degrees that do not divide the model, or do not make up the devices

Every message has three parts: what was seen and where, what was expected, what to do next.
"""

from __future__ import annotations

_LONGEST_QUOTE = 200


class VramfitError(Exception):
    """Root of all errors that are the input's fault; the message is meant for people."""


def quote(value: object) -> str:
    """Show a value of the input, shortened, so that a hostile one cannot flood the screen."""
    long = isinstance(value, str | bytes | list | tuple)  # a list of millions takes seconds to write out
    text = repr(value[:_LONGEST_QUOTE] if long else value)  # type: ignore[index] # these are sequences
    return text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + "..."


class InvalidValueError(VramfitError):
    """A value that cannot be, with its path in the input."""

    def __init__(self, path: str, seen: object, expected: str, next_step: str = "") -> None:
        """Keep the parts; ``seen`` is quoted and shortened."""
        self.path, self.seen, self.expected = path, seen, expected
        super().__init__(f"{path}: {quote(seen)}: expected {expected}" + (f"; {next_step}" if next_step else ""))


class UnknownNameError(VramfitError):
    """A name that no catalogue, format table or engine list holds."""

    def __init__(self, path: str, seen: str, nearest: tuple[str, ...], next_step: str) -> None:
        """Keep the nearest known names, best first."""
        self.path, self.seen, self.nearest = path, seen, nearest
        hint = f"; nearest: {', '.join(nearest)}" if nearest else ""
        super().__init__(f"{path}: {quote(seen)} is not known{hint}; {next_step}")


class UnsupportedModelError(VramfitError):
    """An architecture, or a field of one, that is not understood: refused rather than guessed."""


class UnknownKindError(UnsupportedModelError):
    """A ``model_type``, or a class of one, that no reader of ours knows."""


class UnreadableFileError(VramfitError):
    """A file or header that is missing, damaged, hostile or not of the expected kind."""


class HubError(VramfitError):
    """The Hub refused, has no such repository or file, or could not be reached."""


class ImpossiblePlanError(VramfitError):
    """A plan that cannot be carried out: degrees that do not divide, or do not multiply to the devices."""

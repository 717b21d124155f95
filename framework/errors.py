"""The one error type that a user sees.

Every failure that a user can mend names what was wrong, where, and the remedy. Anything else that
escapes is a defect of the framework and keeps its traceback.
"""

from __future__ import annotations


class KilonodeError(Exception):
    """Something that the user can mend.

    ``what`` is one sentence without a full stop, ``where`` the option, file or process it is about,
    ``remedy`` what to do next.
    """

    def __init__(self, what: str, *, remedy: str, where: str = "") -> None:
        self.what = what
        self.where = where
        self.remedy = remedy
        place = f" ({where})" if where else ""
        super().__init__(f"{what}{place}. Remedy: {remedy}")


class BadInputError(KilonodeError):
    """A value that the user gave is refused; nothing was created."""


class MissingRequirementError(KilonodeError):
    """This machine lacks a privilege, tool or resource; under pytest a skip (a failure with --strict-env)."""


class LeftOutError(MissingRequirementError):
    """What the user's own options leave out; always a skip, and with --strict-env too: nothing is lacking."""


class TimeLimitError(KilonodeError):
    """Something did not happen within its named time limit; carries the last state that was seen."""

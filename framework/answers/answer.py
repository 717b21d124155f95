"""What every answer begins with."""

from __future__ import annotations

from framework.outcome import Record


class Answer(Record, frozen=True, kw_only=True):
    """An answer that is written as a file: the version of its format, when it was made, and how."""

    format: int
    made_utc: str
    command: str

"""Progress as typed events, so that this package knows nothing of terminals.

For each request: ``Queued``, then any number of ``Waiting``, ``Downloading``, ``FellBack`` and ``Building``,
then ``Done`` or ``Failed``. Events of different requests come from different threads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from framework.binaries.model import Binary, Request


@dataclass(frozen=True)
class Queued:
    request: Request


@dataclass(frozen=True)
class Waiting:
    """Another process or thread holds the lock that ``reason`` names."""

    request: Request
    reason: str


@dataclass(frozen=True)
class Downloading:
    """``bytes_total`` is None where the server did not say."""

    request: Request
    url: str
    bytes_done: int
    bytes_total: int | None


@dataclass(frozen=True)
class FellBack:
    """The download is not possible; the Go build is tried next."""

    request: Request
    reason: str


@dataclass(frozen=True)
class Building:
    """``packages`` were compiled so far; those that Go had in its cache are not counted."""

    request: Request
    packages: int
    last_line: str
    elapsed_s: float


@dataclass(frozen=True)
class Done:
    request: Request
    binary: Binary
    elapsed_s: float


@dataclass(frozen=True)
class Failed:
    request: Request
    error: BaseException


Event: TypeAlias = Queued | Waiting | Downloading | FellBack | Building | Done | Failed
Progress: TypeAlias = Callable[[Event], None]


def silent(event: Event) -> None:
    """A ``Progress`` that drops every event."""

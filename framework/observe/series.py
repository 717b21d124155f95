"""A series of samples that never grows beyond a bound and always spans all of its time."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class BoundedSeries(Generic[T]):
    """Keeps every sample at first; each time that ``samples_max`` are kept, every other one is dropped, and
    from then on half as many are taken. Not safe for threads by itself.
    """

    def __init__(self, samples_max: int) -> None:
        self._samples_max = samples_max
        self._kept: list[T] = []
        self._offered = 0
        self._keep_each = 1

    def add(self, sample: T) -> None:
        """Keep ``sample``, unless the series was thinned out too far for it."""
        if self._offered % self._keep_each == 0:
            self._kept.append(sample)
        self._offered += 1
        if len(self._kept) >= self._samples_max:
            self._kept = self._kept[::2]
            self._keep_each *= 2

    @property
    def samples(self) -> tuple[T, ...]:
        """What is kept, in the order in which it came."""
        return tuple(self._kept)

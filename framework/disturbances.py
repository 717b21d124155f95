"""What may happen to the cluster and the machine under a measurement, noticed while it lasts.

A component of the control plane that was killed, or stands still, makes another cluster than the one that was
asked for; a wall clock that is set tears the times of kube-proxy's log from all others. Neither need show in
any figure, so both are looked for: whoever follows a measurement calls ``look`` again and again. What was
noticed is in the evidence, in its order, and nothing follows from a measurement that has any of it.
"""

from __future__ import annotations

import time
from typing import Final

from framework.capture import Clock
from framework.cluster import Cluster
from framework.outcome import Disturbance

CLUSTER_LOOK_INTERVAL_S: Final = 2.0
CLOCK_STEP_S_MIN: Final = 0.5
"""Between two looks a clock that is slewed (adjtimex(2): 500 ppm) moves by milliseconds."""


class Disturbances:
    """What was noticed since this was made."""

    def __init__(self, cluster: Cluster, clock: Clock) -> None:
        self._cluster = cluster
        self._clock = clock
        self._noticed: list[Disturbance] = []
        self._pids = cluster.component_pids()
        self._paused: frozenset[str] = frozenset()
        self._wall_offset_s = _wall_offset_s()
        self._cluster_looked_s = clock.now_s()

    def look(self) -> bool:
        """Notice what is new of the clock and, every other second, of the cluster.

        Gives whether it looked at the cluster.
        """
        self._look_at_the_clock()
        if self._clock.now_s() - self._cluster_looked_s <= CLUSTER_LOOK_INTERVAL_S:
            return False
        self._look_at_the_cluster()
        return True

    @property
    def any(self) -> bool:
        """Whether there was any so far: following on is in vain then."""
        return bool(self._noticed)

    def noticed(self) -> tuple[Disturbance, ...]:
        """All of it until now, those first that came first."""
        self._look_at_the_clock()
        self._look_at_the_cluster()
        return tuple(self._noticed)

    def _look_at_the_clock(self) -> None:
        offset_s = _wall_offset_s()
        step_s = offset_s - self._wall_offset_s
        self._wall_offset_s = offset_s
        if abs(step_s) >= CLOCK_STEP_S_MIN:
            self._note(
                f"the machine's clock was set {abs(step_s):.1f} s {'forward' if step_s > 0 else 'back'}: the "
                "times of kube-proxy's log fit no others"
            )

    def _look_at_the_cluster(self) -> None:
        self._cluster_looked_s = self._clock.now_s()
        pids = self._cluster.component_pids()
        for component, before in self._pids.items():
            now = pids.get(component, ())
            if before and not now:
                self._note(f"{component} of the control plane ended")
            elif before and set(before).isdisjoint(now):
                self._note(f"{component} of the control plane ended and was started again")
        self._pids = pids
        paused = self._cluster.paused_components()
        for component in sorted(paused - self._paused):
            self._note(f"{component} of the control plane was stopped by a signal and stands still")
        self._paused = paused

    def _note(self, text: str) -> None:
        self._noticed.append(Disturbance(at_s=self._clock.now_s(), text=text))


def _wall_offset_s() -> float:
    return time.clock_gettime(time.CLOCK_REALTIME) - time.clock_gettime(time.CLOCK_BOOTTIME)

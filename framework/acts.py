"""What is done to a node, by the name of its phase: for commands that are told the phase as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from framework.errors import BadInputError
from framework.measurement import DEFAULT_WATCH, Measurement, RealNode, Watch
from framework.outcome import Phase
from framework.workload import DaemonSetService, Workload

STARTING_PHASES: Final[frozenset[Phase]] = frozenset({"first_programming", "cold_start"})
"""They begin with a node that knows nothing of the Service; all others need it programmed before."""
_DEFAULT_PACE: Final = {"per_s": 100, "for_s": 5}
_ACTS: Final[Mapping[Phase, Callable[[RealNode, Workload, Watch], Measurement]]] = {
    "first_programming": RealNode.program,
    "cold_start": RealNode.cold_start,
    "kube_proxy_restart": RealNode.restart_kube_proxy,
    "full_resync": RealNode.resync,
    "service_deleted": RealNode.delete,
}


def perform(
    node: RealNode,
    service: Workload,
    phase: Phase,
    *,
    watch: Watch = DEFAULT_WATCH,
    parameters: Mapping[str, int] | None = None,
) -> Measurement:
    """Do to ``node`` what ``phase`` says, and follow it.

    ``parameters`` are those that a result has of such a phase: ``endpoints_changed`` (default 1), ``per_s``
    and ``for_s``. Raises BadInputError where endpoints can't be moved: they are many Services'.
    """
    given = {"endpoints_changed": 1, **_DEFAULT_PACE, **(parameters or {})}
    if phase == "endpoints_changed":
        return node.change_endpoints(_movable(service), given["endpoints_changed"], watch)
    if phase == "rolling_replacement":
        return node.roll_endpoints(_movable(service), per_s=given["per_s"], for_s=given["for_s"], watch=watch)
    return _ACTS[phase](node, service, watch)


def _movable(service: Workload) -> DaemonSetService:
    if isinstance(service, DaemonSetService):
        return service
    raise BadInputError(
        "endpoints of many Services can't be moved",
        where="phase",
        remedy="give one DaemonSet Service, or another phase",
    )

"""A resolved scenario done again: the same node, workload and phases, from what a result says was asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from framework.acts import perform
from framework.errors import BadInputError
from framework.lab import Lab
from framework.measurement import Measurement, RealNode, Watch
from framework.outcome import Asked, PhaseAsked
from framework.spec import ManyServicesSpec, RealNodeSpec, ServiceSpec
from framework.workload import Workload


@dataclass(frozen=True)
class Again:
    """A node that is still alive, and the measurement of what was asked. Where the node captures them,
    ``transactions_before`` came before the last phase."""

    node: RealNode
    measurement: Measurement
    transactions_before: int


@contextmanager
def measured_again(
    lab: Lab, asked: Asked, node_spec: RealNodeSpec, *, test_id: str, repro: str
) -> Iterator[Again]:
    """Measure ``asked``'s last phase after its earlier ones, on ``node_spec``, which may be another node.

    Nothing is asserted. Raises what ``RealNode.start`` and the phases raise.
    """
    service = workload(lab, asked)
    node = RealNode.start(lab, node_spec, test_id=test_id, repro=repro)
    try:
        if asked.zone != node.zone:
            node.move_to_zone(asked.zone)
        for act in asked.earlier:
            perform(node, service, act.phase, watch=_watch(act), parameters=act.parameters)
        before = len(node.transactions)
        measurement = perform(
            node, service, asked.act.phase, watch=_watch(asked.act), parameters=asked.act.parameters
        )
        yield Again(node, measurement, before)
    finally:
        node.stop()
        lab.release(service)


def _watch(act: PhaseAsked) -> Watch:
    return Watch(**msgspec.structs.asdict(act.watch))


def workload(lab: Lab, asked: Asked) -> Workload:
    """The Services that were asked for, not applied yet."""
    if asked.service is not None:
        return lab.service(**_but_name(asked.service))
    if asked.many_services is not None:
        return lab.many_services(**_but_name(asked.many_services))
    raise BadInputError(
        "the result does not say which Services were measured",
        where="asked",
        remedy="measure again with this kilonode",
    )


def _but_name(spec: ServiceSpec | ManyServicesSpec) -> dict[str, Any]:
    """What a lab is asked with: it gives Services the same name each time."""
    return {name: value for name, value in msgspec.structs.asdict(spec).items() if name != "name"}

"""The node as the control plane sees it, from the JSON of its Node and Lease."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from framework.observe.node_status import status_sample

NOW = datetime(2026, 2, 3, 4, 5, 30, tzinfo=UTC)


def a_node(*conditions: dict[str, Any], **status: Any) -> bytes:
    return msgspec.json.encode({"kind": "Node", "status": {"conditions": conditions, **status}})


def a_lease(**spec: Any) -> bytes:
    return msgspec.json.encode({"kind": "Lease", "spec": spec})


RENEWED = a_lease(renewTime="2026-02-03T04:05:06.500000Z", leaseDurationSeconds=40, holderIdentity="real-1")


@pytest.mark.parametrize(
    ("status", "reason"),
    [("True", "KubeletReady"), ("False", "KubeletNotReady"), ("Unknown", "NodeStatusUnknown")],
)
def test_condition_and_lease(status: str, reason: str) -> None:
    node = a_node(
        {"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": status, "reason": reason}
    )
    sample = status_sample(7.5, NOW, node, RENEWED)
    assert (sample.at_s, sample.ready, sample.reason) == (7.5, status, reason)
    assert (sample.lease_age_s, sample.lease_duration_s) == (23.5, 40)


def test_a_node_that_is_not_there() -> None:
    sample = status_sample(1.0, NOW, None, None)
    assert (sample.ready, sample.reason) == ("absent", "")
    assert (sample.lease_age_s, sample.lease_duration_s) == (None, None)


def test_a_node_whose_kubelet_has_said_nothing_yet() -> None:
    for node in (a_node(), a_node({"type": "DiskPressure", "status": "False"}), b'{"status": {}}'):
        assert status_sample(1.0, NOW, node, RENEWED).ready == "absent"


def test_a_lease_that_was_never_renewed_has_a_duration_but_no_age() -> None:
    sample = status_sample(1.0, NOW, a_node(), a_lease(leaseDurationSeconds=40))
    assert (sample.lease_age_s, sample.lease_duration_s) == (None, 40)


def test_a_status_that_kubernetes_does_not_know_is_no_guess() -> None:
    with pytest.raises(msgspec.ValidationError):
        status_sample(1.0, NOW, a_node({"type": "Ready", "status": "Maybe"}), None)

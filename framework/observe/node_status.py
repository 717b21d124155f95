"""The node as the control plane sees it: its Ready condition and the age of its lease, once a second.

The lease tells at once that a kubelet stopped; the Ready condition tells only after the node controller's
grace period. Both are read over one kept-alive connection, so that watching a node costs next to nothing.
"""

from __future__ import annotations

import http.client
import time
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec

from framework.cluster import ApiEndpoint
from framework.outcome import NodeStatusSample
from framework.run_objects import LEASES_PATH
from framework.ticker import Ticker, Ticking

STATUS_INTERVAL_S: Final = 1.0
REQUEST_TIMEOUT_S: Final = 4.0


class _Condition(msgspec.Struct, rename="camel"):
    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str = ""
    last_transition_time: datetime | None = None


class _Status(msgspec.Struct):
    conditions: list[_Condition] = []


class _Node(msgspec.Struct):
    status: _Status


class _LeaseSpec(msgspec.Struct, rename="camel"):
    renew_time: datetime | None = None
    lease_duration_seconds: int | None = None


class _Lease(msgspec.Struct):
    spec: _LeaseSpec


class NodeStatusWatcher(Ticking):
    """Reads one node's status while it is entered. A request that fails leaves a gap, never a guess."""

    def __init__(self, endpoint: ApiEndpoint, node: str, zero_s: float) -> None:
        self._node = node
        self._zero_s = zero_s
        self._endpoint = endpoint
        self._host = urlsplit(endpoint.url)
        self._ssl = endpoint.ssl_context()
        self._connection: http.client.HTTPSConnection | None = None
        self._samples: list[NodeStatusSample] = []
        self._ticker = Ticker("kilonode-node-status", STATUS_INTERVAL_S, self._tick)

    @property
    def samples(self) -> tuple[NodeStatusSample, ...]:
        return tuple(self._samples)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._disconnect()

    def _tick(self) -> None:
        try:
            node = self._get(f"/api/v1/nodes/{self._node}")
            lease = self._get(f"{LEASES_PATH}/{self._node}")
        except (OSError, http.client.HTTPException):
            self._disconnect()
            return
        at_s = time.clock_gettime(time.CLOCK_BOOTTIME) - self._zero_s
        self._samples.append(status_sample(at_s, datetime.now(UTC), node, lease))

    def _get(self, path: str) -> bytes | None:
        if self._connection is None:
            self._connection = http.client.HTTPSConnection(
                self._host.hostname or "", self._host.port, timeout=REQUEST_TIMEOUT_S, context=self._ssl
            )
        self._connection.request("GET", self._endpoint.prefix + path, headers=self._endpoint.headers())
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status == http.client.NOT_FOUND:
            return None
        if answer.status != http.client.OK:
            raise http.client.HTTPException(f"{answer.status} for {path}")
        return body

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def status_sample(at_s: float, now: datetime, node: bytes | None, lease: bytes | None) -> NodeStatusSample:
    """One sample from the JSON of the Node and of its Lease; None where the API server has none."""
    ready: Literal["True", "False", "Unknown", "absent"] = "absent"
    reason, since = "", None
    if node is not None:
        for condition in msgspec.json.decode(node, type=_Node).status.conditions:
            if condition.type == "Ready":
                ready, reason, since = condition.status, condition.reason, condition.last_transition_time
    spec = msgspec.json.decode(lease, type=_Lease).spec if lease is not None else _LeaseSpec()
    renewed = spec.renew_time
    return NodeStatusSample(
        at_s=at_s,
        ready=ready,
        reason=reason,
        lease_age_s=(now - renewed).total_seconds() if renewed is not None else None,
        lease_duration_s=spec.lease_duration_seconds,
        ready_since_s=at_s - (now - since).total_seconds() if since is not None else None,
    )

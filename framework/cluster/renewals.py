"""What one lease renewal costs this machine, measured before anybody else uses the API server.

A few leases of the framework's own are renewed as fast as possible, and the CPU time of etcd and
kube-apiserver is divided by the number of renewals. CPU time, not the pace: a machine that is busy with
something else makes renewals slower, not dearer. The median over batches leaves out a batch in which one of
the two collected garbage or compacted.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from framework.cluster.api import Bulk, Call

LEASES: Final = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
LEASE_COUNT: Final = 64
BATCHES: Final = 5
ROUNDS: Final = 4
"""Of all leases in a batch: half a second at 500 a second, long against the kernel's 10 ms of CPU
accounting."""
_PREFIX: Final = "kilonode-measured-"


class _Meta(msgspec.Struct, rename="camel"):
    name: str
    resource_version: str


class _Lease(msgspec.Struct):
    metadata: _Meta


async def measure_renewal_cpu_s(bulk: Bulk, cpu_s: Callable[[], float]) -> float:
    """CPU seconds for one renewal; ``cpu_s`` gives what etcd and kube-apiserver used so far."""
    names = [f"{_PREFIX}{index:03d}" for index in range(LEASE_COUNT)]
    versions: dict[str, str] = {}

    def note(answer: bytes) -> None:
        meta = msgspec.json.decode(answer, type=_Lease).metadata
        versions[meta.name] = meta.resource_version

    await bulk.each([Call("POST", LEASES, _body(name)) for name in names])
    await bulk.each([Call("GET", f"{LEASES}/{name}") for name in names], on_answer=note)
    costs_s = []
    for _ in range(BATCHES):
        before_s = cpu_s()
        for _ in range(ROUNDS):
            renewals = [Call("PUT", f"{LEASES}/{name}", _body(name, versions[name])) for name in names]
            await bulk.each(renewals, on_answer=note)
        costs_s.append((cpu_s() - before_s) / (ROUNDS * LEASE_COUNT))
    await bulk.each([Call("DELETE", f"{LEASES}/{name}") for name in names])
    return statistics.median(costs_s)


def _body(name: str, version: str | None = None) -> bytes:
    metadata: dict[str, Any] = {"name": name, "namespace": "kube-system"}
    if version is not None:
        metadata["resourceVersion"] = version
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return msgspec.json.encode(
        {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {"holderIdentity": "kilonode", "leaseDurationSeconds": 40, "renewTime": now},
        }
    )

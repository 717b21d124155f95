"""What a run would create in a cluster, before it creates anything: for ``--dry-run``."""

from __future__ import annotations

from dataclasses import dataclass

from framework.cluster.existing.manifests import (
    KWOK_IMAGE,
    Sharding,
    base_objects,
    kwok_requests,
    shard_name,
)
from framework.cluster.home import Home
from framework.cluster.lease_budget import production_budget
from framework.run_objects import RUN_LABEL


@dataclass(frozen=True)
class Plan:
    """Lines of kind, count and names; ``str`` of it is for people."""

    heading: str
    lines: tuple[tuple[str, int, str], ...]
    remarks: tuple[str, ...]

    def __str__(self) -> str:
        rows = [f"  {count:>9,}  {kind:<20} {names}".rstrip() for kind, count, names in self.lines]
        return "\n".join((self.heading, *rows, *self.remarks))


def plan(home: Home, sharding: Sharding, *, nodes: int, context: str, server: str, kwok_version: str) -> Plan:
    """What a fleet of ``nodes`` and the workloads on it come to."""
    budget = production_budget(nodes)
    shards = sharding.shards(nodes)
    last = nodes - 1
    base = [(body["kind"], 1, body["metadata"]["name"]) for _, body in base_objects(home, budget)]
    kwoks = shard_name(0) if shards == 1 else f"{shard_name(0)} to {shard_name(shards - 1)}"
    requests = kwok_requests(sharding.nodes_per_shard)
    labels = ",".join(f"{key}={value}" for key, value in home.labels.items())
    lines = (
        *base,
        ("Deployment", shards, f"{kwoks}: {KWOK_IMAGE.format(version=kwok_version)}"),
        ("Node", nodes, f"fake-000000 to fake-{last:06d}, tainted NoSchedule"),
        ("Lease", nodes, "of the same names, in kube-node-lease"),
        ("DaemonSet", 1, f"at most, in {home.namespace}, with a pod on each fake that a scenario asks for"),
        ("Service", 1, f"or as many as a scenario asks for, in {home.namespace}, with EndpointSlices"),
    )
    remarks = (
        f"kwok asks for {requests['cpu']} CPU and {requests['memory']} of memory for each Deployment.",
        f"The API server gets {budget.renewals_per_s:,.0f} renewals/s: {budget}.",
        f"All of it has the label {labels or RUN_LABEL} and is removed at the end. Nothing was created.",
    )
    return Plan(f"Would be created in {context} ({server}), at most:", lines, remarks)

"""A control plane with a fleet from nothing: restored from its snapshot, or registered and saved.

Both ways end alike: etcd holds the fleet and nothing else, kube-apiserver is started afresh on it, and only
then come the controllers and kwok. So a figure does not depend on whether the fleet was registered in this
run or in another one.

Registering is done with an API server of its own, tuned for it, and with neither controllers nor kwok, which
would take the CPUs that it needs. etcd writes into the snapshot's draft, so an interrupted registration is
gone on with by the next run.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from datetime import UTC, datetime

from framework.binaries import Binary
from framework.cluster import LOADING, MEASURING, ControlPlane
from framework.fleet.fleet import Fleet
from framework.fleet.nodes import lease_body, node_body
from framework.fleet.snapshots import Snapshot, SnapshotKey, SnapshotRefusedError, Snapshots


def snapshot_key(cluster: ControlPlane, nodes: int) -> SnapshotKey:
    """The key of a fleet of ``nodes`` on this control plane's executables."""
    then = datetime(2000, 1, 1, tzinfo=UTC)
    shape = hashlib.sha256(
        node_body(0, fleet=nodes, version=cluster.version, now=then) + lease_body(0, now=then)
    )
    return SnapshotKey(
        nodes=nodes,
        etcd=_exact(cluster.binaries["etcd"]),
        kube_apiserver=_exact(cluster.binaries["kube-apiserver"]),
        shape=shape.hexdigest()[:16],
    )


def restore(cluster: ControlPlane, snapshot: Snapshot, snapshots: Snapshots) -> Fleet | None:
    """The fleet of a snapshot, read back and compared; None when it was refused, and nothing runs then.

    Raises TimeLimitError when the API server finds something else in it than its manifest says.
    """
    _make_room(cluster)
    try:
        snapshot.restore(cluster.replaceable_data())
    except SnapshotRefusedError as refusal:
        snapshots.refuse(snapshot.folder, refusal)
        return None
    return _served(cluster, snapshot.manifest.key.nodes)


def register(
    cluster: ControlPlane, nodes: int, snapshots: Snapshots, on_done: Callable[[int], object] = int
) -> Fleet:
    """Register a fleet through the API and save it; ``on_done`` hears how many nodes there are so far."""
    key = snapshot_key(cluster, nodes)
    with snapshots.draft(key) as draft:
        begin_s = time.monotonic()
        _make_room(cluster)
        cluster.replaceable_data().symlink_to(draft.data)
        try:
            cluster.serve(LOADING)
            fleet = Fleet(cluster.endpoint, kubelet_version=cluster.version)
            fleet.load(nodes, on_done)
            fleet.verify(held=False)
        finally:
            cluster.stop()
        registered_s = time.monotonic() - begin_s
        snapshot = snapshots.save(draft, registered_s=registered_s)
    _make_room(cluster)
    snapshot.restore(cluster.replaceable_data())
    return _served(cluster, nodes)


def _make_room(cluster: ControlPlane) -> None:
    """End everything, and have no data where etcd's is to be put."""
    cluster.stop()
    cluster.forget_everything()
    cluster.replaceable_data().parent.mkdir(parents=True, exist_ok=True)


def _served(cluster: ControlPlane, nodes: int) -> Fleet:
    cluster.serve(MEASURING)
    fleet = Fleet(cluster.endpoint, kubelet_version=cluster.version, size=nodes)
    fleet.verify(held=False)
    return fleet


def _exact(binary: Binary) -> str:
    return f"{binary.version} ({binary.sha256[:16]})"

"""The embedded control plane: up in seconds, private, and no master of nodes that aren't its own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import kubernetes
import msgspec
import pytest

from framework import network
from framework.binaries import Binaries
from framework.cluster import Call, EmbeddedCluster, run_bulk
from framework.fleet import node_name
from framework.fleet.nodes import lease_body, node_body
from framework.ledger import Ledger
from framework.process import inside, run
from framework.run_objects import LEASE_NAMESPACE, LEASES_PATH
from framework.wait import wait_until

START_S_MAX = 20.0
LISTENING_S_MAX = 20.0
"""The API server is ready before the controllers listen for their own metrics."""
LOOPBACK_ONLY = {"etcd", "kube-controller", "kube-scheduler", "kwok-controller"}
FAR_INDEX = 999_000
_SOCKET = re.compile(r"(?P<address>\S+):\d+\s+\S+\s+users:\(\((?P<users>.*)\)\)")
_USER = re.compile(r'"(?P<comm>[^"]+)",pid=(?P<pid>\d+)')


@dataclass(frozen=True)
class Listener:
    comm: str
    pid: int
    address: str


def listeners(netns: str | None = None) -> set[Listener]:
    found = set()
    for line in run(inside(["ss", "-Hltnp"], netns=netns)).text.splitlines():
        if (socket := _SOCKET.search(line)) is not None:
            for user in _USER.finditer(socket["users"]):
                found.add(Listener(user["comm"], int(user["pid"]), socket["address"]))
    return found


def ready(cluster: EmbeddedCluster, name: str) -> str | None:
    with cluster.endpoint.client() as client:
        node = kubernetes.client.CoreV1Api(client).read_node(name)
    return next((c.status for c in node.status.conditions or () if c.type == "Ready"), None)


def lease_holders(cluster: EmbeddedCluster) -> dict[str, str | None]:
    with cluster.endpoint.client() as client:
        leases = kubernetes.client.CoordinationV1Api(client).list_namespaced_lease(LEASE_NAMESPACE).items
    return {lease.metadata.name: lease.spec.holder_identity for lease in leases}


def readable_by_others(path: Path) -> bool:
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    return run([*as_nobody, "cat", path], check=False).exit_code == 0


def test_is_ready_in_seconds(started: tuple[EmbeddedCluster, float], request: pytest.FixtureRequest) -> None:
    plane, start_s = started
    request.node.user_properties.append(("start_s", round(start_s, 1)))
    assert start_s < START_S_MAX
    with plane.endpoint.client() as client:
        version = kubernetes.client.VersionApi(client).get_code()
    assert version.git_version == f"v{plane.version}"


def test_only_the_api_server_listens_beyond_loopback(cluster: EmbeddedCluster) -> None:
    everyone = {*LOOPBACK_ONLY, "kube-apiserver"}
    wait_until(
        lambda: everyone <= {listener.comm for listener in listeners(cluster.netns)} or None,
        what="every component listening",
        timeout_s=LISTENING_S_MAX,
    )
    found = listeners(cluster.netns)
    assert {listener.comm for listener in found} == everyone
    assert {listener.address for listener in found if listener.comm in LOOPBACK_ONLY} == {"127.0.0.1"}


def test_nothing_of_it_lives_in_the_hosts_network(cluster: EmbeddedCluster) -> None:
    pids = set(cluster.cgroup.pids())
    own = Path(network.NETNS_ROOT, cluster.netns).stat().st_ino
    assert len(pids) == 5
    assert {Path(f"/proc/{pid}/ns/net").stat().st_ino for pid in pids} == {own}
    assert not pids & {listener.pid for listener in listeners()}


def test_its_network_has_the_bridge_and_no_way_out_but_to_the_host(cluster: EmbeddedCluster) -> None:
    links = json.loads(run(inside(["ip", "-json", "link"], netns=cluster.netns)).stdout)
    of_nodes = {link["ifname"] for link in links if link["ifname"].startswith("real-")}
    assert {link["ifname"] for link in links} - of_nodes == {"lo", network.BRIDGE, "host0"}
    routes = json.loads(run(inside(["ip", "-json", "route"], netns=cluster.netns)).stdout)
    assert [route["dst"] for route in routes] == [str(cluster.subnet)]


def test_keys_and_credentials_are_closed_to_others(cluster: EmbeddedCluster, live_state: Path) -> None:
    open_file = live_state / "open"
    open_file.write_text("anybody")
    open_file.chmod(0o644)
    assert readable_by_others(open_file)
    secrets = [*cluster.folder.rglob("*.key"), *cluster.folder.rglob("*kubeconfig*")]
    assert {secret.suffix for secret in secrets} >= {".key", ".yaml", ""}
    assert [secret for secret in secrets if readable_by_others(secret)] == []


@pytest.fixture
def strangers(cluster: EmbeddedCluster) -> Iterator[tuple[str, str]]:
    """A Node without the fakes' label, and after it a fake one, neither of them Ready."""
    name = "stranger"
    fake = msgspec.json.decode(node_body(FAR_INDEX, fleet=1, version=cluster.version, now=datetime.now(UTC)))
    fake["status"]["conditions"] = []
    lease = lease_body(FAR_INDEX, now=datetime.now(UTC))
    stranger = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
    calls = [
        Call("POST", "/api/v1/nodes", msgspec.json.encode(stranger)),
        Call("POST", LEASES_PATH, lease),
        Call("POST", "/api/v1/nodes", msgspec.json.encode(fake)),
    ]
    run_bulk(lambda bulk: bulk.each(calls), cluster.endpoint, parallelism=1)
    yield name, node_name(FAR_INDEX)
    gone = [Call("DELETE", f"/api/v1/nodes/{node}") for node in (name, node_name(FAR_INDEX))]
    gone.append(Call("DELETE", f"{LEASES_PATH}/{node_name(FAR_INDEX)}"))
    run_bulk(lambda bulk: bulk.each(gone), cluster.endpoint)


def test_kwok_leaves_nodes_alone_that_are_not_its_own(
    cluster: EmbeddedCluster, strangers: tuple[str, str]
) -> None:
    stranger, fake = strangers
    wait_until(
        lambda: (ready(cluster, fake) == "True" and lease_holders(cluster).get(fake) is not None) or None,
        what="the fake node Ready, its lease held",
        timeout_s=30,
    )
    assert ready(cluster, stranger) != "True"
    assert stranger not in lease_holders(cluster)


def test_the_budget_reaches_kwok_and_the_node_controller(cluster: EmbeddedCluster) -> None:
    lines = [Path(f"/proc/{pid}/cmdline").read_text().split("\0") for pid in cluster.cgroup.pids()]
    commands = {Path(line[0]).name: line for line in lines}
    assert "--node-monitor-grace-period=50s" in commands["kube-controller-manager"]
    assert "--node-lease-duration-seconds=40" in commands["kwok-controller"]
    assert "--manage-all-nodes=false" in commands["kwok-controller"]


def test_a_component_that_starts_again_keeps_the_log_of_before(cluster: EmbeddedCluster) -> None:
    log = cluster.logs / "kube-controller-manager.log"
    first_line = log.read_text().splitlines()[0]
    with cluster.loading_pods():
        pass
    aside = [path.read_text() for path in cluster.logs.glob("kube-controller-manager.*.log")]
    assert [text.splitlines()[0] for text in aside].count(first_line) == 1
    assert first_line not in log.read_text()


def test_two_clusters_live_side_by_side(
    cluster: EmbeddedCluster, live_state: Path, binaries: Binaries
) -> None:
    ledger = Ledger.begin(live_state)
    try:
        second = EmbeddedCluster.start(ledger, binaries)
        assert not second.subnet.overlaps(cluster.subnet)
        for here, there in ((cluster, second), (second, cluster)):
            name = f"only-in-{here.run_id}"
            with here.endpoint.client() as client:
                kubernetes.client.CoreV1Api(client).create_namespace({"metadata": {"name": name}})
            with there.endpoint.client() as client:
                names = {n.metadata.name for n in kubernetes.client.CoreV1Api(client).list_namespace().items}
            assert "default" in names
            assert name not in names
    finally:
        assert ledger.finish() == ()
    assert second.netns not in network.list_netns()
    assert second.cgroup.pids() == ()
    assert not ledger.folder.exists()
    assert cluster.netns in network.list_netns()

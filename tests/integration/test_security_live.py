"""What a run shows to others: where it listens, what of its files they may read, and no secret."""

from __future__ import annotations

import base64
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING

import kubernetes
import pytest

from framework.bundle import unpack
from framework.cgroup import memory_cgroup
from framework.cluster import ApiEndpoint, EmbeddedCluster
from framework.fleet import ENDPOINTS_V6, FAKE_RANGE
from framework.ledger import STATE_ENV, Ledger
from framework.network import has_ipv6
from framework.process import inside, run
from framework.realnode import HostNode
from framework.realnode.config import KUBE_PROXY_HEALTHZ_PORT, KUBE_PROXY_METRICS_PORT
from framework.spec import RealNodeSpec
from framework.traffic import Backends, Client
from framework.units import MIB
from framework.wait import wait_until

if TYPE_CHECKING:
    from tests.integration.conftest import Story

PORT = 80
LISTENING_S_MAX = 30.0
API_PORT = 6443
LOOPBACK = {"127.0.0.1", "::1"}
EVERYWHERE = {"*", "0.0.0.0", "::"}  # noqa: S104
LINK_LOCAL = ip_network("fe80::/10")
MEASURES = """
from framework import Expectation

def test_story(fleet, real_node, daemonset_service):
    fleet.grow_to(30)
    service = daemonset_service(endpoints=30, mode="native")
    node = real_node(memory="1GiB", kube_proxy="1.37.2")
    node.program(service).expect(Expectation(programming="programmed"))
"""
KILONODE = (sys.executable, "-c", "from framework.cli import main; main()")
_USER = re.compile(r'"(?P<comm>[^"]+)",pid=(?P<pid>\d+)')
KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+(?P<body>[A-Za-z0-9+/=\s]{64,})-----END")
TOKEN = re.compile(rb"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+")
"""A JSON Web Token, as service accounts have."""
INLINE = re.compile(rb"(?:client-key-data|token|password): *[\"']?[A-Za-z0-9+/=._-]{8,}")
"""As kubeconfigs hold them."""


@dataclass(frozen=True)
class Listener:
    """A socket that takes connections or datagrams from anybody who reaches its ``address``.

    ``pid`` is None where the kernel itself listens.
    """

    protocol: str
    address: str
    port: int
    program: str
    pid: int | None

    @property
    def is_private(self) -> bool:
        return self.address in LOOPBACK


def listening(netns: str | None = None) -> set[Listener]:
    """All that listens in a network namespace, of the host where None, over TCP and UDP, IPv4 and IPv6."""
    found = set()
    for line in run(inside(["ss", "-Hlntup"], netns=netns)).text.splitlines():
        protocol, _, _, _, place, *_ = line.split()
        address, _, port = place.rpartition(":")
        bare = address.partition("%")[0].strip("[]")
        users = [(user["comm"], int(user["pid"])) for user in _USER.finditer(line)]
        if not users:
            found.add(Listener(protocol, bare, int(port), "", None))
        found |= {Listener(protocol, bare, int(port), program, pid) for program, pid in users}
    return found


def addresses(netns: str) -> set[str]:
    """Of a network namespace; those that the kernel gave to a link by itself are left out."""
    links = json.loads(run(inside(["ip", "-json", "address"], netns=netns)).stdout)
    found = {each["local"] for link in links for each in link["addr_info"]}
    return {address for address in found if ip_address(address) not in LINK_LOCAL}


def wait_for(netns: str, *programs: str) -> set[Listener]:
    wait_until(
        lambda: set(programs) <= {each.program for each in listening(netns)} or None,
        what=f"{', '.join(programs)} listening",
        timeout_s=LISTENING_S_MAX,
    )
    return listening(netns)


@pytest.fixture(scope="module")
def host_before(live_state: Path) -> set[Listener]:
    """What listens on the host before anything of this module is started."""
    return listening()


@pytest.fixture(scope="module")
def node(
    host_before: set[Listener], serving: Callable[[RealNodeSpec, str], AbstractContextManager[HostNode]]
) -> Iterator[HostNode]:
    spec = RealNodeSpec(memory_bytes=900 * MIB, kube_proxy="1.37.2")
    with serving(spec, "real-closed") as made:
        yield made


@pytest.fixture(scope="module")
def backends(cluster: EmbeddedCluster, ledger: Ledger, node: HostNode) -> Iterator[Backends]:
    made = Backends(cluster, ledger)
    made.serve((PORT,))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def client(node: HostNode, backends: Backends, ledger: Ledger) -> Iterator[Client]:
    made = Client(backends, ledger, node_netns=node.netns, node_address=node.address)
    made.ask("10.96.0.1", 443)
    yield made
    made.stop()


class TestListening:
    def test_in_the_clusters_namespace_the_api_server_alone_is_reached_by_others(
        self, cluster: EmbeddedCluster
    ) -> None:
        everybody = ("etcd", "kube-apiserver", "kube-controller", "kube-scheduler", "kwok-controller")
        found = wait_for(cluster.netns, *everybody)
        assert {each.protocol for each in found} == {"tcp"}
        assert {each.program for each in found} == set(everybody)
        open_to_others = {(each.program, each.port) for each in found if not each.is_private}
        assert open_to_others == {("kube-apiserver", API_PORT)}
        assert addresses(cluster.netns) - LOOPBACK == {cluster.address}

    @pytest.mark.usefixtures("client")
    def test_in_a_nodes_namespace_kube_proxy_alone_is_reached_by_others(self, node: HostNode) -> None:
        found = wait_for(node.netns, "containerd", "kubelet", "kube-proxy")
        assert {each.protocol for each in found} == {"tcp"}
        assert {each.program for each in found} == {"containerd", "kubelet", "kube-proxy"}
        open_to_others = {(each.program, each.address, each.port) for each in found if not each.is_private}
        assert open_to_others == {
            ("kube-proxy", node.address, port) for port in (KUBE_PROXY_METRICS_PORT, KUBE_PROXY_HEALTHZ_PORT)
        }

    def test_those_two_and_kubelet_tell_a_stranger_nothing(
        self, cluster: EmbeddedCluster, node: HostNode
    ) -> None:
        stranger = replace(cluster.endpoint, cert_file=None, key_file=None)
        assert stranger.get("/version")[0] == 200
        assert [stranger.get(path)[0] for path in ("/api/v1/nodes", "/api/v1/secrets")] == [403, 403]
        kubelet = replace(stranger, url="https://127.0.0.1:10250", netns=node.netns, is_verified=False)
        assert kubelet.get("/pods")[0] == 401
        assert not is_secret(node.kube_proxy_metrics().encode())

    def test_in_the_endpoints_namespace_what_answers_for_the_fakes(self, backends: Backends) -> None:
        found = listening(backends.netns)
        (pid,) = {each.pid for each in found}
        assert pid in backends.cgroup.pids()
        assert {each.port for each in found} == {PORT}
        assert {each.protocol for each in found} == {"tcp", "udp"}
        assert {each.address for each in found} <= EVERYWHERE
        assert addresses(backends.netns) - LOOPBACK == {backends.address}
        for family, owned in (("-4", FAKE_RANGE), ("-6", ENDPOINTS_V6)):
            routes = run(inside(["ip", family, "route", "show", "table", "local"], netns=backends.netns))
            assert str(owned) in routes.text or (family == "-6" and not has_ipv6())

    def test_in_a_clients_namespace_nothing(self, client: Client) -> None:
        assert listening(client.netns) == set()

    @pytest.mark.usefixtures("backends", "client")
    def test_on_the_host_nothing(self, cluster: EmbeddedCluster, host_before: set[Listener]) -> None:
        ours = {os.getpid(), *memory_cgroup(cluster.name).pids()}
        assert len(ours) > 8
        now = listening()
        assert {each for each in now if each.pid in ours} == set()
        assert {each for each in now - host_before if each.pid is None} == set()

    def test_the_hosts_own_address_of_a_cluster_is_the_only_way_to_it(self, cluster: EmbeddedCluster) -> None:
        links = json.loads(run(["ip", "-json", "address"]).stdout)
        of_run = [link for link in links if link["ifname"] == cluster.link("")]
        assert len(of_run) == 1
        given = {each["local"] for each in of_run[0]["addr_info"] if each["family"] == "inet"}
        assert given == {str(cluster.subnet[2])}
        routes = json.loads(run(["ip", "-json", "route"]).stdout)
        assert [route["dst"] for route in routes if route.get("dev") == cluster.link("")] == [
            str(cluster.subnet)
        ]


def files_below(folder: Path) -> Iterator[Path]:
    """Whole files, without executables: what Go has in them for its own tests is nobody's secret."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if file.read(4) != b"\x7fELF":
                    yield path


def is_secret(content: bytes) -> bool:
    return any(pattern.search(content) for pattern in (KEY, TOKEN, INLINE))


def is_closed(path: Path, root: Path) -> bool:
    """Whether a folder between ``root`` and ``path`` lets only its owner in."""
    between = [folder for folder in path.parents if folder.is_relative_to(root) and folder != root]
    return any(stat.S_IMODE(folder.stat().st_mode) == 0o700 for folder in between)


@pytest.mark.usefixtures("backends", "client")
class TestFiles:
    def test_a_cluster_has_no_secret_of_its_own(self, cluster: EmbeddedCluster) -> None:
        status, body = cluster.endpoint.get("/api/v1/secrets")
        assert (status, json.loads(body)["items"]) == (200, [])

    def test_whatever_holds_a_secret_is_its_owners(
        self, cluster: EmbeddedCluster, node: HostNode, ledger: Ledger, live_state: Path
    ) -> None:
        holding = [path for path in files_below(ledger.folder) if is_secret(path.read_bytes())]
        assert {path.name for path in holding} >= {"admin.key", "ca.key", "kubelet.key"}
        kubeconfigs = [path for path in files_below(ledger.folder) if "kubeconfig" in path.name]
        assert cluster.kubeconfig in kubeconfigs
        modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (*holding, *kubeconfigs)}
        assert {path.name: oct(mode) for path, mode in modes.items() if mode != 0o600} == {}
        assert [path for path in modes if not is_closed(path, live_state)] == []

    def test_nobody_else_reaches_a_unix_socket(self, live_state: Path, ledger: Ledger) -> None:
        sockets = [path for path in ledger.folder.rglob("*") if path.is_socket()]
        assert {path.name for path in sockets} >= {"c.sock", "kubelet.sock"}
        assert [path for path in sockets if not is_closed(path, live_state)] == []


def needles(state: Path) -> Iterator[bytes]:
    """The secrets of a run that lives, in pieces as they would be told: lines of keys, and their base64."""
    for path in files_below(state):
        content = path.read_bytes()
        for key in KEY.finditer(content):
            yield from (line for line in key["body"].split() if len(line) > 20)
            yield base64.b64encode(key[0])[64:160]
        yield from TOKEN.findall(content)


def a_token(kubeconfig: Path) -> bytes:
    """A token of a service account, as a pod of the run would get it."""
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    with ApiEndpoint.from_kubeconfig(kubeconfig).client() as client:
        core = kubernetes.client.CoreV1Api(client)
        made = core.create_namespaced_service_account_token("default", "default", request)
    return str(made.status.token).encode()


def told(folder: Path, secrets: Iterable[bytes]) -> list[str]:
    """The files below ``folder`` that have one of these secrets in them, or something of their form."""
    found = []
    for path in files_below(folder):
        content = path.read_bytes()
        if is_secret(content) or any(secret in content for secret in secrets):
            found.append(str(path.relative_to(folder)))
    return found


def test_no_secret_of_a_run_is_in_what_it_leaves(
    tell: Callable[..., Story], live_state: Path, tmp_path: Path, runs_now: Callable[[], frozenset[str]]
) -> None:
    before = runs_now()
    story = tell(MEASURES, "--max-nodes=100")
    story.wait_until_measuring()
    (run_id,) = runs_now() - before
    state = live_state / "runs" / run_id
    kubeconfig = state / "cluster" / "kubeconfig"
    token = a_token(kubeconfig)
    assert TOKEN.fullmatch(token)
    secrets = {token, token.rpartition(b".")[2], *needles(state)}
    assert len(secrets) > 60
    assert {"admin.key", "ca.key"} <= {Path(path).name for path in told(state, secrets)}
    assert story.end() == pytest.ExitCode.OK, story.output
    assert not state.exists()

    measurement = next(story.latest.glob("*/result.json")).parent
    assert {"kubelet.log", "kube-proxy.log", "kube-proxy.yaml"} <= {
        path.name for path in (measurement / "logs").iterdir()
    }
    assert list(story.latest.glob("control-plane/kube-apiserver.log"))
    assert told(story.folder, secrets) == []

    environment = {**os.environ, STATE_ENV: str(live_state), "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(
        [*KILONODE, "bundle", "--no-twin", "--output", "b.tar.gz"],
        cwd=story.folder,
        env=environment,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    bundle = unpack(story.folder / "b.tar.gz", tmp_path / "unpacked")
    assert (bundle / "logs" / "kubelet.log").stat().st_size
    assert told(bundle, secrets) == []

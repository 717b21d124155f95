"""A cluster that was there before, tried on one of kind's: what comes, what is seen, and that it all goes."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes
import msgspec
import pytest
import yaml
from rich.console import Console

from framework import ledger as ledgers
from framework.analysis import Expectation, judge
from framework.binaries import Binaries
from framework.cluster import (
    ApiEndpoint,
    ExistingCluster,
    ExistingSettings,
    KindCluster,
    KindSettings,
    LeaseBudget,
    Sharding,
    production_budget,
)
from framework.containers import Engine
from framework.errors import KilonodeError
from framework.fleet import Belonging, Fleet, judge_renewals, watch_renewals
from framework.lab import Lab, LabSettings
from framework.ledger import STATE_ENV, Ledger
from framework.measurement import Measurement, RealNode, Watch
from framework.realnode import NODE_LABELS, existing_node
from framework.report import PhaseDisplay, RunFolder
from framework.run_objects import LEASES_PATH
from framework.spec import EndpointMode, RealNodeSpec, ServiceSpec
from framework.units import GIB, MIB
from framework.wait import wait_until
from framework.workload import DaemonSetService

FAKES = 50
MANY = 30_000
"""So many that their nft lives for long enough to be met by somebody who looks now and then."""
NFT_BYTES_MANY = 60 * MIB
"""More than nft needs for so many with any kube-proxy that has maps: 46 MiB."""
MEMORY_BYTES = GIB
WATCH_S = 25.0
JOINED_TIMEOUT_S = 120.0
KWOK_VERSION = Binaries().request("kwok").version
KINDS = (
    "/api/v1/nodes",
    "/api/v1/namespaces",
    "/api/v1/services",
    "/api/v1/serviceaccounts",
    "/api/v1/configmaps",
    "/apis/apps/v1/deployments",
    "/apis/apps/v1/daemonsets",
    "/apis/coordination.k8s.io/v1/leases",
    "/apis/discovery.k8s.io/v1/endpointslices",
    "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
)


@pytest.fixture(scope="module")
def theirs(kind_engine: Engine, live_state: Path, binaries: Binaries) -> Iterator[KindCluster]:
    """Somebody's cluster: kube-proxy on every node, a worker with 1 GiB, and no kwok."""
    ledger = Ledger.begin(live_state)
    try:
        cluster = KindCluster.start(ledger, binaries, KindSettings(workers=1), labels=NODE_LABELS)
        _make_theirs(cluster, kind_engine)
        yield cluster
    finally:
        assert ledger.finish() == ()


def _make_theirs(cluster: KindCluster, kind_engine: Engine) -> None:
    cluster.stop("kwok")
    worker = cluster.take_worker()
    kind_engine.start(worker, memory_bytes=MEMORY_BYTES)
    with cluster.endpoint.client() as client:
        core, apps = kubernetes.client.CoreV1Api(client), kubernetes.client.AppsV1Api(client)
        wait_until(
            lambda: any(n.metadata.name == worker for n in core.list_node().items) or None,
            what="the worker's Node",
            timeout_s=JOINED_TIMEOUT_S,
        )
        (container,) = apps.read_namespaced_daemon_set(
            "kube-proxy", "kube-system"
        ).spec.template.spec.containers
        spec = {
            "nodeSelector": {"kilonode.dev/kube-proxy": None},
            "containers": [{"name": container.name, "command": [*container.command, "-v=2"]}],
        }
        apps.patch_namespaced_daemon_set("kube-proxy", "kube-system", {"spec": {"template": {"spec": spec}}})
        # Pods on a worker of kind's can't reach the API server here: kwok goes to the control plane.
        core.patch_node(worker, {"spec": {"unschedulable": True}})
        wait_until(
            lambda: _ready(apps.read_namespaced_daemon_set("kube-proxy", "kube-system").status),
            what="kube-proxy on both nodes",
            timeout_s=JOINED_TIMEOUT_S,
        )
        wait_until(
            lambda: _is_ready(core.read_node(worker)) or None,
            what="the worker Ready",
            timeout_s=JOINED_TIMEOUT_S,
        )
    # Kubelet makes its lease apart from the Node: one that comes later would look like a run's.
    wait_until(
        lambda: cluster.endpoint.get(f"{LEASES_PATH}/{worker}")[0] == 200 or None,
        what="the worker's lease",
        timeout_s=JOINED_TIMEOUT_S,
    )


def _ready(status: Any) -> bool | None:
    return (status.updated_number_scheduled == 2 and status.number_ready == 2) or None


def _is_ready(node: Any) -> bool:
    return any(c.type == "Ready" and c.status == "True" for c in node.status.conditions)


@pytest.fixture
def settings(theirs: KindCluster) -> ExistingSettings:
    return ExistingSettings(
        kubeconfig=str(theirs.kubeconfig),
        context=f"kind-{theirs.name}",
        real_nodes=(theirs.workers[0],),
    )


def objects(endpoint: ApiEndpoint) -> dict[str, set[str]]:
    """The names of everything that a run could touch."""
    found = {}
    for path in KINDS:
        status, body = endpoint.get(path)
        assert status == 200
        items = json.loads(body)["items"]
        found[path] = {f"{i['metadata'].get('namespace', '')}/{i['metadata']['name']}" for i in items}
    return found


def test_a_kube_proxy_that_starts_on_rules_of_before_keeps_them(
    theirs: KindCluster, kind_engine: Engine
) -> None:
    """It did when it was patched; the cluster's own Service is there."""
    plane = f"{theirs.name}-control-plane"
    listed = kind_engine.execute(plane, ["nft", "list", "map", "ip", "kube-proxy", "service-ips"])
    assert "10.96.0.1 . tcp . 443 : goto" in listed, listed


def test_a_dry_run_creates_nothing(theirs: KindCluster, settings: ExistingSettings) -> None:
    before = objects(theirs.endpoint)
    text = str(ExistingCluster.dry_run(settings, 10_000, kwok_version=KWOK_VERSION))
    assert "10,000  Node" in text
    assert "2  Deployment           kwok-0 to kwok-1" in text
    assert objects(theirs.endpoint) == before


def test_two_shards_renew_and_all_of_it_goes(
    theirs: KindCluster, settings: ExistingSettings, live_state: Path
) -> None:
    before = objects(theirs.endpoint)
    run = Ledger.begin(live_state)
    try:
        cluster = ExistingCluster.join(
            run, settings, kwok_version=KWOK_VERSION, sharding=Sharding(nodes_per_shard=FAKES // 2)
        )
        cluster.serve_fleet(FAKES)
        fleet = Fleet(
            cluster.endpoint,
            kubelet_version=cluster.version,
            belonging=Belonging(
                node_labels=cluster.labels_of, lease_labels=cluster.home.labels, is_guest=True
            ),
        )
        fleet.grow_to(FAKES)
        assert len(_holders(cluster.endpoint)) == 2
        service = DaemonSetService(
            ServiceSpec(name="everywhere", endpoints=FAKES, mode="native"),
            cluster.endpoint,
            loading_pods=None,
            home=cluster.home,
        )
        service.prepare()
        service.apply()
        assert service.wait_for_endpoints().distinct_addresses == FAKES
        assert _late_s(cluster.endpoint, production_budget(FAKES)) < 5
        service.close()
        with pytest.raises(KilonodeError, match=f"{FAKES} kwok nodes .* and a kwok controller"):
            ExistingCluster.dry_run(settings, FAKES, kwok_version=KWOK_VERSION)
    finally:
        assert run.finish() == ()
    assert objects(theirs.endpoint) == before


def _holders(endpoint: ApiEndpoint) -> set[str]:
    """Who renews the fakes' leases."""
    _, body = endpoint.get(LEASES_PATH)
    leases = json.loads(body)["items"]
    return {each["spec"]["holderIdentity"] for each in leases if each["metadata"]["name"].startswith("fake-")}


def _late_s(endpoint: ApiEndpoint, budget: LeaseBudget) -> float:
    begin_s = time.time()
    renewals = watch_renewals(endpoint, WATCH_S)
    report = judge_renewals(renewals, budget, begin_s=begin_s, end_s=time.time())
    assert report.unrenewed == 0
    return report.late_s_max


def test_missing_rights_are_named_before_anything_is_created(
    theirs: KindCluster, settings: ExistingSettings, tmp_path: Path
) -> None:
    with theirs.endpoint.client() as client:
        core = kubernetes.client.CoreV1Api(client)
        core.create_namespaced_service_account("default", {"metadata": {"name": "nobody"}})
        token = core.create_namespaced_service_account_token("nobody", "default", {"spec": {}}).status.token
    try:
        document = yaml.safe_load(theirs.kubeconfig.read_text())
        document["users"][0]["user"] = {"token": token}
        restricted = tmp_path / "kubeconfig"
        restricted.write_text(yaml.safe_dump(document))
        before = objects(theirs.endpoint)
        weak = ExistingSettings(kubeconfig=str(restricted), context=settings.context)
        with pytest.raises(KilonodeError) as refused:
            ExistingCluster.dry_run(weak, FAKES, kwok_version=KWOK_VERSION)
        for right in (
            "create nodes (cluster-wide)",
            "create deployments.apps in kilonode-RUN",
            "deletecollection leases.coordination.k8s.io in kube-node-lease",
        ):
            assert right in refused.value.what
        assert objects(theirs.endpoint) == before
    finally:
        with theirs.endpoint.client() as client:
            kubernetes.client.CoreV1Api(client).delete_namespaced_service_account("nobody", "default")


def test_a_cluster_that_does_not_answer_is_told(settings: ExistingSettings, tmp_path: Path) -> None:
    document = yaml.safe_load(Path(settings.kubeconfig).read_text())
    document["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(document))
    nowhere = ExistingSettings(kubeconfig=str(tmp_path / "kubeconfig"), context=settings.context)
    with pytest.raises(KilonodeError, match=r"does not answer at https://127\.0\.0\.1:1"):
        ExistingCluster.dry_run(nowhere, FAKES, kwok_version=KWOK_VERSION)


KILLED = """\
import sys, time
from framework.binaries import Binaries
from framework.cluster import ExistingCluster, ExistingSettings
from framework.ledger import Ledger

settings = ExistingSettings(kubeconfig=sys.argv[1], context=sys.argv[2])
cluster = ExistingCluster.join(Ledger.begin(), settings, kwok_version=Binaries().request("kwok").version)
print("joined", flush=True)
time.sleep(600)
"""


def test_what_a_killed_run_left_goes_when_the_cluster_answers(
    theirs: KindCluster, settings: ExistingSettings, live_state: Path, tmp_path: Path
) -> None:
    before = objects(theirs.endpoint)
    mine = tmp_path / "kubeconfig"
    mine.write_text(Path(settings.kubeconfig).read_text())
    argv = [sys.executable, "-c", KILLED, str(mine), settings.context]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, env={**os.environ, STATE_ENV: str(live_state)}
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"joined\n"
        run.send_signal(signal.SIGKILL)
    assert objects(theirs.endpoint) != before
    kept = mine.read_text()
    mine.write_text(kept.replace("https://", "https://127.0.0.1:1/"))
    removed, failures = ledgers.clean(live_state, include_kept=False)
    assert removed == ()
    assert any("does not answer" in failure for failure in failures)
    mine.write_text(kept)
    removed, failures = ledgers.clean(live_state, include_kept=False)
    assert (len(removed), failures) == (1, ())
    assert objects(theirs.endpoint) == before


@pytest.fixture
def measured(settings: ExistingSettings, binaries: Binaries, tmp_path: Path) -> Callable[..., Measurement]:
    """``measured(memory_bytes, node_command)`` on the real node, with 50 fakes; all is removed after it."""

    def measure(
        memory_bytes: int, node_command: str = "", *, endpoints: int = FAKES, mode: EndpointMode = "native"
    ) -> Measurement:
        lab = Lab(
            LabSettings(
                max_nodes=FAKES,
                cluster="existing",
                existing=msgspec.structs.replace(settings, node_command=node_command),
                mode="auto",
                keep=False,
            ),
            binaries=binaries,
            run_folder=RunFolder.create(tmp_path / "runs", command=["pytest"]),
            reporter=PhaseDisplay(Console(file=io.StringIO())),
        )
        try:
            lab.grow_fleet(FAKES)
            service = lab.service(endpoints=endpoints, mode=mode)
            version = lab.cluster.version
            spec = RealNodeSpec(memory_bytes=memory_bytes, kube_proxy=version)
            node = RealNode.start(lab, spec, test_id="existing", repro="")
            try:
                return node.program(service, Watch(timeout_s=60))
            finally:
                node.stop()
        finally:
            assert lab.close() == ()

    return measure


PROGRAMMED = Expectation(programming="programmed", ready_throughout=True)


def test_a_node_of_this_host_is_seen_whole(measured: Callable[..., Measurement]) -> None:
    measurement = measured(MEMORY_BYTES)
    measurement.expect(Expectation(programming="programmed", nft_bytes_below=20 * MIB, ready_throughout=True))
    evidence = measurement.result.evidence
    assert evidence is not None
    assert evidence.unseen == ()
    assert {daemon.name for daemon in evidence.daemons} == {"containerd", "kubelet", "kube-proxy"}
    assert evidence.measured_by == "exit_record"


def test_a_command_shows_ruleset_counters_and_the_least_of_nfts_peak(
    measured: Callable[..., Measurement], elsewhere: None
) -> None:
    seen = measured(MEMORY_BYTES, "docker exec {node}", endpoints=MANY, mode="endpointslices")
    seen.expect(PROGRAMMED)
    assert judge(seen.outcome, Expectation(nft_bytes_below=NFT_BYTES_MANY)).result == "unknown"
    outcome = seen.outcome
    assert outcome.ruleset is not None
    assert outcome.ruleset.endpoints == MANY
    assert outcome.charged_bytes_peak is not None
    assert outcome.nft_bytes_peak is not None
    assert (outcome.nft_bytes_peak.source, outcome.nft_bytes_peak.bound) == ("poll", "lower")
    assert MIB < outcome.nft_bytes_peak.value < NFT_BYTES_MANY
    evidence = seen.result.evidence
    assert evidence is not None
    assert evidence.measured_by == "poll"
    assert {each.what: "container" in each.why for each in evidence.unseen} == {
        "kills": True,
        "daemons": False,
    }


def test_without_one_all_but_the_api_is_unknown(
    measured: Callable[..., Measurement], elsewhere: None, theirs: KindCluster
) -> None:
    with theirs.endpoint.client() as client:
        node = kubernetes.client.CoreV1Api(client).read_node(theirs.workers[0])
    measurement = measured(int(node.status.capacity["memory"].removesuffix("Ki")) * 1024)
    assert measurement.outcome.ready_throughout
    assert measurement.outcome.charged_bytes_peak is None
    assert measurement.outcome.ruleset is None
    with pytest.raises(AssertionError, match="no --node-command was given"):
        measurement.expect(PROGRAMMED)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As if this host had booted at another time than the node's."""
    (tmp_path / "boot_id").write_text("another\n")
    monkeypatch.setattr(existing_node, "BOOT_ID", tmp_path / "boot_id")

"""The answers as a user asks for them: each command in a process and a folder of its own, on real nodes."""

from __future__ import annotations

import base64
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kubernetes
import pytest
import yaml

from framework.answers import load_forecast, load_limit, read_counts
from framework.answers.live import LiveWarning
from framework.answers.replay import ReplayResult
from framework.bundle import load_manifest, unpack
from framework.cli import EXIT_UNKNOWN
from framework.cluster import EmbeddedCluster, ExistingSettings
from framework.ledger import STATE_ENV
from framework.report import load_run
from framework.spec import ServiceSpec
from framework.units import MIB
from framework.versioned_file import load_versioned
from framework.workload import DaemonSetService

if TYPE_CHECKING:
    from tests.integration.conftest import Story

KILONODE = (sys.executable, "-c", "from framework.cli import main; main()")
TIMEOUT_S = 600.0
ENDPOINTS = 1000
LIVE_ENDPOINTS = 700
MEASURES = f"""
from framework import Expectation

def test_story(real_node, daemonset_service):
    service = daemonset_service(endpoints={ENDPOINTS}, mode="endpointslices")
    node = real_node(memory="1GiB", kube_proxy="1.35.0", ballast="20MiB")
    node.program(service).expect(Expectation(programming="programmed", ready_throughout=True))
    node.change_endpoints(service, 5).expect(Expectation(programming="programmed"))
"""


def environment(live_state: Path) -> dict[str, str]:
    return {**os.environ, STATE_ENV: str(live_state), "PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.fixture
def kilonode(tmp_path: Path, live_state: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``kilonode(*words)`` runs a command in an empty folder; a traceback is a failure."""

    def run(*words: str | Path, folder: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*KILONODE, *words],
            check=False,
            cwd=folder,
            env=environment(live_state),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


Kilonode = Callable[..., "subprocess.CompletedProcess[str]"]


def interrupted_after_a_trial(folder: Path, live_state: Path, *options: str) -> str:
    """Standard output of a search for the limit that is sent SIGINT once a node has survived."""
    with subprocess.Popen(
        [*KILONODE, "limit", *options],
        cwd=folder,
        env=environment(live_state),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as search:
        assert search.stderr is not None
        assert any(": survived, " in line for line in search.stderr)
        search.send_signal(signal.SIGINT)
        out, _ = search.communicate(timeout=TIMEOUT_S)
    return out


def test_the_limit_of_a_small_node_by_a_search_that_is_interrupted(
    kilonode: Kilonode, tmp_path: Path, live_state: Path
) -> None:
    options = ("--endpoints", "500", "--highest", "192MiB", "--resolution", "64MiB", "--repeats", "1")
    before = interrupted_after_a_trial(tmp_path, live_state, *options)
    assert "The search was interrupted" in before
    (run,) = re.findall(r"^Go on with: kilonode limit --resume (\S+)$", before, re.MULTILINE)
    first = load_limit(tmp_path / run)
    done = kilonode("limit", "--resume", run, "--fits", "64MiB", "--json", "limit.json")
    answer = load_limit(tmp_path / "limit.json")
    found = answer.edge
    assert answer.complete
    assert answer.asked.kube_proxy == "1.35.0"
    assert found.surviving_bytes is not None
    if found.killing_bytes is not None:
        assert found.surviving_bytes - found.killing_bytes == 64 * MIB
    assert done.returncode == (4 if found.surviving_bytes > 64 * MIB else 0), done.stderr
    assert f"Smallest limit that survived: {found.surviving_bytes // MIB}" in done.stdout
    folders = {path.parent.name for path in tmp_path.glob("runs/latest/*/result.json")}
    folders |= {path.parent.name for path in tmp_path.glob(f"{run}/*/result.json")}
    assert {trial.folder for trial in answer.trials if trial.folder} <= folders
    assert answer.trials[: len(first.trials)] == first.trials
    assert answer.asked == first.asked


def test_a_forecast_and_the_same_from_its_file(kilonode: Kilonode, tmp_path: Path) -> None:
    options = ("--up-to", "2k", "--kube-proxy", "1.35.0", "--endpoints", "4k", "--check")
    done = kilonode("forecast", *options, "--json", "forecast.json")
    assert done.returncode in {0, EXIT_UNKNOWN}, done.stderr
    answer = load_forecast(tmp_path / "forecast.json")
    (model,) = answer.models
    assert model.kube_proxy == "1.35.0"
    assert {sample.load.service_ports for sample in model.samples} == {1, 2, 100}
    checks = {check.what: check for check in answer.checks}
    assert abs(checks["nft"].off) < 0.05
    assert checks["nft"].covered
    again = kilonode("forecast", "--model", "forecast.json", "--endpoints", "4k")
    assert again.stdout == done.stdout
    assert again.returncode == done.returncode


@pytest.fixture
def told(tell: Callable[..., Story]) -> Path:
    """The run folder of a story, beside which there is nothing else."""
    story = tell(MEASURES)
    assert story.end() == pytest.ExitCode.OK, story.output
    run = story.latest.resolve()
    assert f"Report: runs/{run.name}/report.html" in story.output
    assert (run / "report.html").is_file()
    return run


def test_a_bundle_is_run_again_in_another_folder(kilonode: Kilonode, told: Path, tmp_path: Path) -> None:
    secret = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJub2JvZHkifQ." + "c2lnbmF0dXJl"
    before = load_run(told)
    for log in told.glob("*/logs/kubelet.log"):
        log.write_text(f"{log.read_text()}\nAuthorization: Bearer {secret}\n")
    packed = kilonode("bundle", told, "--measurement", told_folder(told, "-2"), "--output", "a.tar.gz")
    assert packed.returncode == 0, packed.stderr

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move(tmp_path / "a.tar.gz", elsewhere / "a.tar.gz")
    shutil.rmtree(told)
    folder = unpack(elsewhere / "a.tar.gz", elsewhere)
    texts = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    hidden = (secret.encode(), base64.b64encode(secret.encode()), str(tmp_path).encode())
    assert not [text for text in texts if any(word in text for word in hidden)]
    manifest = load_manifest(folder)
    measured = manifest.nft_bytes_peak
    assert before[1].outcome is not None
    assert measured == before[1].outcome.nft_bytes_peak
    assert manifest.twin is not None

    alone = subprocess.run(
        ["sh", folder / "reproducer" / "reproduce.sh"],
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert alone.returncode == 0, alone.stderr
    printed = re.search(r"nft peak: (\d+) KiB", alone.stdout)
    assert printed is not None
    assert measured is not None
    assert int(printed[1]) * 1024 == pytest.approx(measured.value, rel=0.05)

    done = kilonode("replay", "a.tar.gz", "--json", "replay.json", folder=elsewhere)
    answer = load_versioned(
        elsewhere / "replay.json", ReplayResult, formats=(1,), made_by="`kilonode replay`"
    )
    assert answer.reproduced, done.stdout
    assert done.returncode == 0
    rows = {row.what: row for row in answer.rows}
    assert rows["nft alone, as measured"].alike
    assert rows["nft peak"].alike
    assert "REPRODUCED" in done.stdout


def told_folder(run: Path, end: str) -> str:
    (found,) = [path.parent.name for path in run.glob("*/result.json") if path.parent.name.endswith(end)]
    return found


def test_runs_alike_are_no_worse(kilonode: Kilonode, tell: Callable[..., Story], tmp_path: Path) -> None:
    runs = []
    for _ in range(2):
        story = tell(MEASURES)
        assert story.end() == pytest.ExitCode.OK, story.output
        runs.append(story.latest.resolve())
    done = kilonode("compare", *runs, "--json", "comparison.json")
    assert done.returncode == 0, done.stdout
    against = kilonode("compare", "--baseline", runs[0].parent, runs[1])
    assert against.returncode == 0, against.stdout
    assert (tmp_path / "comparison.json").is_file()


@pytest.fixture
def reader(cluster: EmbeddedCluster, tmp_path: Path) -> Iterator[Path]:
    """A kubeconfig of somebody who may only read what a warning is made of."""
    rules = [
        {"apiGroups": [""], "resources": ["services", "nodes"], "verbs": ["get", "list"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list"]},
    ]
    with cluster.endpoint.client() as client:
        core, rbac = kubernetes.client.CoreV1Api(client), kubernetes.client.RbacAuthorizationV1Api(client)
        core.create_namespaced_service_account("default", {"metadata": {"name": "reader"}})
        rbac.create_cluster_role({"metadata": {"name": "reader"}, "rules": rules})
        subject = {"kind": "ServiceAccount", "name": "reader", "namespace": "default"}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader"}
        rbac.create_cluster_role_binding(
            {"metadata": {"name": "reader"}, "roleRef": role, "subjects": [subject]}
        )
        request: Any = {"spec": {"audiences": [], "expirationSeconds": 600}}
        token = core.create_namespaced_service_account_token("reader", "default", request).status.token
        document = yaml.safe_load(cluster.endpoint.kubeconfig.read_text())
        document["users"] = [{"name": "reader", "user": {"token": token}}]
        document["contexts"][0]["context"]["user"] = "reader"
        document["contexts"][0]["name"] = "mine"
        document["current-context"] = ""
        kubeconfig = tmp_path / "reader.yaml"
        kubeconfig.write_text(yaml.safe_dump(document))
        try:
            yield kubeconfig
        finally:
            core.delete_namespaced_service_account("reader", "default")
            rbac.delete_cluster_role_binding("reader")
            rbac.delete_cluster_role("reader")


def test_a_running_cluster_is_warned_of_by_who_may_only_read(
    cluster: EmbeddedCluster, reader: Path, kilonode: Kilonode, tmp_path: Path
) -> None:
    service = DaemonSetService(
        ServiceSpec(name="everywhere", endpoints=LIVE_ENDPOINTS, mode="endpointslices", ports=(80, 443)),
        cluster.endpoint,
        loading_pods=cluster.loading_pods,
        home=cluster.home,
    )
    settings = ExistingSettings(kubeconfig=str(reader), context="mine")
    before = read_counts(settings)
    service.apply()
    try:
        time.sleep(1.0)
        options = ("--live", "--kubeconfig", reader, "--context", "mine", "--json", "warning.json")
        done = kilonode("forecast", *options, "--kube-proxy", "1.35.0")
        unread = kilonode("forecast", *options)
    finally:
        service.withdraw()
    warning = load_versioned(tmp_path / "warning.json", LiveWarning, formats=(1,), made_by="kilonode")
    assert warning.counts.endpoints - before.endpoints == 2 * LIVE_ENDPOINTS
    assert warning.counts.service_ports - before.service_ports == 2
    assert warning.counts.largest_service_endpoints == 2 * LIVE_ENDPOINTS
    assert done.returncode in {0, EXIT_UNKNOWN}, done.stdout + done.stderr
    assert unread.returncode == EXIT_UNKNOWN
    assert "give --kube-proxy" in unread.stdout

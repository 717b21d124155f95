"""Registration against the API server's own ceiling, and against `kwokctl scale node`.

The ceiling is what vegeta, a load generator written in Go, gets through with the same bodies, as many
requests under way, and nothing else running. Each side has a fresh control plane in each round.
"""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.model import Bench, Benchmark, Figure, timed
from framework import process
from framework.cluster import LOAD_PARALLELISM, LOADING, ApiEndpoint, Call, EmbeddedCluster, lease_budget
from framework.fleet import Fleet
from framework.fleet.fleet import NODES_PATH
from framework.fleet.nodes import lease_body, node_body
from framework.run_objects import LEASES_PATH

NODES = 10_000
KWOKCTL_NODES = 5_000
ATTACK_TIMEOUT_S = 600.0
SCALE_TIMEOUT_S = 900.0


def ceiling(bench: Bench) -> Benchmark:
    """Nodes with leases registered a second: the framework's share of what vegeta reaches."""
    ours, native = [], []
    for number in range(bench.rounds):
        bench.say(f"registration, round {number + 1}: {NODES:,} nodes and leases by the framework")
        ours.append(_per_s(bench, NODES))
        bench.say(f"registration, round {number + 1}: the same by vegeta")
        with bench.place() as cluster:
            cluster.serve(LOADING)
            native.append(NODES / _vegeta_s(bench, cluster))
    figures = (
        Figure(what="framework", unit="nodes with leases/s", rounds=tuple(ours)),
        Figure(what="vegeta", unit="nodes with leases/s", rounds=tuple(native)),
    )
    return Benchmark(
        name="registration",
        question=f"How much of the API server's ceiling does registering {NODES:,} nodes and leases reach?",
        figures=figures,
        ratio=figures[0].median / figures[1].median,
        ratio_of="framework / vegeta",
        aim="0.90 or more",
    )


def kwokctl(bench: Bench) -> Benchmark:
    """Nodes a second against ``kwokctl scale node``, API server and flags being the same."""
    ours, theirs, theirs_alone = [], [], []
    for number in range(bench.rounds):
        bench.say(f"kwokctl, round {number + 1}: {KWOKCTL_NODES:,} nodes and leases by the framework")
        ours.append(_per_s(bench, KWOKCTL_NODES))
        with bench.place() as cluster:
            cluster.serve(LOADING)
            bench.say(f"kwokctl, round {number + 1}: the same nodes, without leases, by kwokctl scale node")
            theirs_alone.append(KWOKCTL_NODES / timed(lambda: _scale(cluster)))
        with bench.place() as cluster:
            cluster.serve(LOADING)
            cluster.control(lease_budget(KWOKCTL_NODES, cluster.renewal_cost))
            bench.say(f"kwokctl, round {number + 1}: and beside controllers and kwok, as it is used")
            theirs.append(KWOKCTL_NODES / timed(lambda: _scale(cluster)))
    figures = (
        Figure(what="framework, with leases", unit="nodes/s", rounds=tuple(ours)),
        Figure(what="kwokctl scale node, API server alone", unit="nodes/s", rounds=tuple(theirs_alone)),
        Figure(what="kwokctl scale node, beside controllers and kwok", unit="nodes/s", rounds=tuple(theirs)),
    )
    return Benchmark(
        name="kwokctl",
        question=f"How much faster than kwokctl scale node are {KWOKCTL_NODES:,} nodes registered?",
        figures=figures,
        ratio=figures[0].median / figures[1].median,
        ratio_of="framework / kwokctl, API server alone",
        aim="10 or more",
    )


def _per_s(bench: Bench, nodes: int) -> float:
    """Nodes with leases that the framework registers a second."""
    with bench.place() as cluster:
        cluster.serve(LOADING)
        return nodes / Fleet(cluster.endpoint, kubelet_version=cluster.version).load(nodes).elapsed_s


def _scale(cluster: EmbeddedCluster) -> None:
    replicas = ("--name", cluster.name, "--replicas", str(KWOKCTL_NODES))
    cluster.kwokctl("scale", "node", *replicas, timeout_s=SCALE_TIMEOUT_S)


def _vegeta_s(bench: Bench, cluster: EmbeddedCluster) -> float:
    now = datetime.now(UTC)
    bodies = (node_body(i, fleet=NODES, version=cluster.version, now=now) for i in range(NODES))
    leases = (Call("POST", LEASES_PATH, lease_body(i, now=now)) for i in range(NODES))
    nodes = (Call("POST", NODES_PATH, body) for body in bodies)
    return sum(_attack_s(bench, cluster.endpoint, calls) for calls in (leases, nodes))


def _attack_s(bench: Bench, endpoint: ApiEndpoint, calls: Iterable[Call]) -> float:
    vegeta = bench.binaries.get("vegeta").path
    with tempfile.TemporaryDirectory(prefix="kn-") as folder:
        targets, results = Path(folder, "targets"), Path(folder, "results")
        with targets.open("w") as file:
            for call in calls:
                file.write(json.dumps(_target(endpoint, call)) + "\n")
        attack: list[str | Path] = [
            vegeta,
            "attack",
            "-format=json",
            "-lazy",
            f"-targets={targets}",
            f"-output={results}",
        ]
        attack += ["-rate=0", f"-max-workers={LOAD_PARALLELISM}", f"-workers={LOAD_PARALLELISM}"]
        attack += [f"-connections={LOAD_PARALLELISM}", "-http2=false", "-timeout=60s"]
        attack += [
            f"-root-certs={endpoint.ca_file}",
            f"-cert={endpoint.cert_file}",
            f"-key={endpoint.key_file}",
        ]
        elapsed_s = process.run(attack, timeout_s=ATTACK_TIMEOUT_S).elapsed_s
        report = json.loads(process.run([vegeta, "report", "-type=json", results]).stdout)
    codes = report["status_codes"]
    if codes.get("201") != NODES:
        raise RuntimeError(f"vegeta created {codes} instead of {NODES} objects: {report['errors'][:3]}")
    return elapsed_s


def _target(endpoint: ApiEndpoint, call: Call) -> dict[str, object]:
    return {
        "method": call.method,
        "url": endpoint.url + call.path,
        "header": {"Content-Type": ["application/json"]},
        "body": base64.b64encode(call.body or b"").decode(),
    }

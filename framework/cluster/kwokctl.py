"""What kwokctl is told: the documents of ``kwok/``, completed for one cluster, as a pure function.

kwokctl fetches every executable for which it has no path, and multiplies times that it isn't told, so
binaries, versions and the lease budget are all written out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

import kwok
from framework.binaries import Binary
from framework.cluster.lease_budget import NODE_MONITOR_PERIOD_S, POD_PARALLELISM, LeaseBudget

_BINARY_OPTIONS: Final = {
    "etcd": "etcdBinary",
    "kube-apiserver": "kubeApiserverBinary",
    "kube-controller-manager": "kubeControllerManagerBinary",
    "kube-scheduler": "kubeSchedulerBinary",
    "kwok": "kwokControllerBinary",
    "kubectl": "kubectlBinary",
}
_COMPONENT_NAMES: Final = {"kwok": "kwok-controller"}


def component_name(program: str) -> str:
    """What kwokctl calls ``program``, and names its copy of it."""
    return _COMPONENT_NAMES.get(program, program)


def configuration(
    *,
    binaries: Mapping[str, Binary],
    components: Sequence[str],
    budget: LeaseBudget | None,
    envs: Mapping[str, Mapping[str, str]],
    address: str,
    cache: Path,
    pki: Path,
) -> str:
    """The YAML documents for ``kwokctl create cluster --config``: kwokctl's own, kwok's, and the Stages.

    ``binaries`` are by program name, ``components`` the programs that shall run, ``envs`` environment
    variables by program name; ``address`` is where real nodes reach kube-apiserver, ``pki`` where kwokctl
    puts its certificates. There is no ``budget`` as long as neither kwok nor the controllers run.
    """
    document: dict[str, Any] = yaml.safe_load(kwok.read("kwokctl.yaml"))
    document["options"] |= {option: str(binaries[name].path) for name, option in _BINARY_OPTIONS.items()}
    document["options"] |= {
        "kubeVersion": f"v{binaries['kube-apiserver'].version}",
        "etcdVersion": binaries["etcd"].version,
        "kwokVersion": f"v{binaries['kwok'].version}",
        "kubeApiserverCertSANs": [address],
        "components": [component_name(program) for program in components],
        "kubeControllerManagerNodeMonitorPeriodMilliseconds": NODE_MONITOR_PERIOD_S * 1000,
        "cacheDir": str(cache),
    }
    if budget is not None:
        document["options"] |= {
            "nodeLeaseDurationSeconds": budget.lease_s,
            "kubeControllerManagerNodeMonitorGracePeriodMilliseconds": budget.grace_s * 1000,
        }
    _patch(document, "kube-apiserver")["extraArgs"].append({"key": "advertise-address", "value": address})
    _patch(document, "kube-controller-manager")["extraArgs"] += [
        {"key": "tls-cert-file", "value": str(pki / "admin.crt")},
        {"key": "tls-private-key-file", "value": str(pki / "admin.key")},
    ]
    for program, variables in envs.items():
        _patch(document, program)["extraEnvs"] = [
            {"name": name, "value": value} for name, value in variables.items()
        ]
    return yaml.safe_dump_all([document, *kwok_documents(budget)], sort_keys=False)


def kwok_documents(budget: LeaseBudget | None) -> list[dict[str, Any]]:
    """kwok's own configuration, whoever starts it, and the Stages."""
    document: dict[str, Any] = yaml.safe_load(kwok.read("kwok.yaml"))
    document["options"]["podPlayStageParallelism"] = POD_PARALLELISM
    if budget is not None:
        document["options"]["nodeLeaseParallelism"] = budget.parallelism
    return [document, *(yaml.safe_load(kwok.read(stage)) for stage in kwok.STAGES)]


def _patch(document: dict[str, Any], program: str) -> dict[str, Any]:
    """The patch of one component, added when the document has none."""
    name = component_name(program)
    patches: list[dict[str, Any]] = document["componentsPatches"]
    for patch in patches:
        if patch["name"] == name:
            return patch
    patches.append({"name": name, "extraArgs": []})
    return patches[-1]

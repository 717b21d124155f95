"""What kind, its static pods and its workers are told: pure functions, on what kubeadm really writes."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from framework.cluster import KindSettings, lease_budget
from framework.cluster.kind.config import (
    KindSpec,
    NodeFolders,
    changed_manifest,
    cni_configuration,
    flags_of,
    image_of,
    kind_configuration,
)
from framework.cluster.lease_budget import RenewalCost
from framework.containers import qualified
from framework.errors import BadInputError
from framework.realnode.kind_worker import kube_proxy_pod, unit_drop_in
from framework.realnode.pods import systemd_pod_cgroup

BUDGET = lease_budget(100_000, RenewalCost(cpu_s=0.002, cpus=2))
MANIFEST = """\
apiVersion: v1
kind: Pod
metadata:
  labels: {component: kube-controller-manager, tier: control-plane}
  name: kube-controller-manager
  namespace: kube-system
spec:
  containers:
  - command:
    - kube-controller-manager
    - --allocate-node-cidrs=true
    - --bind-address=127.0.0.1
    - --leader-elect=true
    image: registry.k8s.io/kube-controller-manager:v1.37.2
    name: kube-controller-manager
  hostNetwork: true
"""


def folders(name: str) -> NodeFolders:
    return NodeFolders(cni=f"/state/{name}/cni", programs=f"/state/{name}/programs")


def configured(workers: int = 2, lowest: int = 0) -> dict[str, Any]:
    spec = KindSpec(
        image="kilonode/node:v1.37.2-0123456789ab",
        control_plane=folders("control-plane"),
        workers=tuple(folders(f"worker-{number}") for number in range(workers)),
        labels={"kilonode.dev/role": "real"},
        lowest_oom_score=lowest,
    )
    document: dict[str, Any] = yaml.safe_load(kind_configuration(spec))
    return document


def patches(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {patch["kind"]: patch for patch in map(yaml.safe_load, document["kubeadmConfigPatches"])}


class TestKind:
    def test_one_control_plane_and_the_workers_with_their_folders(self) -> None:
        nodes = configured(3)["nodes"]
        assert [node["role"] for node in nodes] == ["control-plane", "worker", "worker", "worker"]
        assert "labels" not in nodes[0]
        assert nodes[1]["labels"] == {"kilonode.dev/role": "real"}
        mounts = {mount["containerPath"]: mount["hostPath"] for mount in nodes[2]["extraMounts"]}
        assert mounts == {
            "/etc/cni/net.d": "/state/worker-1/cni",
            "/kilonode": "/state/worker-1/programs",
        }

    def test_kube_proxy_is_in_nftables_mode_and_no_pod_would_go_to_a_fake(self) -> None:
        document = configured()
        assert document["networking"]["kubeProxyMode"] == "nftables"
        assert document["networking"]["disableDefaultCNI"] is True
        assert patches(document)["InitConfiguration"]["skipPhases"] == ["preflight", "addon/coredns"]

    @pytest.mark.parametrize(("lowest", "score"), [(0, 0), (100, 100), (-1000, -999)])
    def test_scores_are_productions_where_the_machine_permits_them(self, lowest: int, score: int) -> None:
        found = patches(configured(lowest=lowest))
        assert found["KubeletConfiguration"]["oomScoreAdj"] == score
        assert found["KubeProxyConfiguration"]["oomScoreAdj"] == score

    def test_nodes_have_pod_ranges_of_their_own(self) -> None:
        ranges = [
            yaml.safe_load(cni_configuration(number))["plugins"][0]["ipam"]["ranges"][0][0]["subnet"]
            for number in range(3)
        ]
        assert ranges == ["10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24"]

    @pytest.mark.parametrize("workers", [0, -1, 65])
    def test_a_number_of_workers_that_makes_no_sense(self, workers: int) -> None:
        with pytest.raises(BadInputError, match=f"{workers} workers can't be real nodes"):
            KindSettings(workers=workers)


class TestStaticPods:
    def test_a_flag_takes_the_place_of_kubeadms(self) -> None:
        text = changed_manifest(MANIFEST, {"leader-elect": "false", "v": "2"}, {"GOGC": "75"})
        (container,) = yaml.safe_load(text)["spec"]["containers"]
        assert container["command"] == [
            "kube-controller-manager",
            "--allocate-node-cidrs=true",
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
            "--v=2",
        ]
        assert container["env"] == [{"name": "GOGC", "value": "75"}]

    def test_and_a_second_time_of_its_own(self) -> None:
        once = changed_manifest(MANIFEST, {"leader-elect": "false"}, {"GOGC": "75"})
        assert changed_manifest(once, {"leader-elect": "false"}, {"GOGC": "75"}) == once
        again = changed_manifest(once, {"leader-elect": "true"}, {"GOGC": "200"})
        (container,) = yaml.safe_load(again)["spec"]["containers"]
        assert container["command"][-1] == "--leader-elect=true"
        assert container["env"] == [{"name": "GOGC", "value": "200"}]

    def test_the_grace_period_is_the_budgets(self) -> None:
        flags = flags_of("kube-controller-manager", BUDGET)
        assert flags["node-monitor-grace-period"] == f"{BUDGET.grace_s}s"
        assert "node-monitor-grace-period" not in flags_of("kube-controller-manager", None)

    def test_what_the_embedded_one_patches_holds_here_but_not_where_it_listens(self) -> None:
        flags = flags_of("kube-apiserver", None)
        assert flags["disable-admission-plugins"] == "TaintNodesByCondition"
        assert flags["max-requests-inflight"] == "0"
        assert "bind-address" not in flags
        assert flags_of("etcd", None) == {"quota-backend-bytes": str(8 << 30)}

    def test_its_version_is_its_images(self) -> None:
        assert image_of(MANIFEST) == "registry.k8s.io/kube-controller-manager:v1.37.2"


TEMPLATE = yaml.safe_load("""\
metadata: {labels: {k8s-app: kube-proxy}}
spec:
  containers:
  - command:
    - /usr/local/bin/kube-proxy
    - --config=/var/lib/kube-proxy/config.conf
    - --hostname-override=$(NODE_NAME)
    image: registry.k8s.io/kube-proxy:v1.37.2
    name: kube-proxy
    securityContext: {privileged: true}
    volumeMounts:
    - {mountPath: /var/lib/kube-proxy, name: kube-proxy}
    - {mountPath: /lib/modules, name: lib-modules, readOnly: true}
  hostNetwork: true
  nodeSelector: {kilonode.dev/kube-proxy: daemonset}
  priorityClassName: system-node-critical
  restartPolicy: Always
  serviceAccountName: kube-proxy
  volumes:
  - {configMap: {defaultMode: 420, name: kube-proxy}, name: kube-proxy}
  - {hostPath: {path: /lib/modules}, name: lib-modules}
""")


class TestKubeProxy:
    def pod(self, program: str | None = None, *, restarts: bool = False) -> dict[str, Any]:
        return kube_proxy_pod(TEMPLATE, "kube-proxy-w", node="w", program=program, restarts=restarts)

    def test_it_is_kubeadms_on_one_node_and_no_daemonset_takes_it_over(self) -> None:
        pod = self.pod()
        assert pod["metadata"]["labels"].keys().isdisjoint({"k8s-app"})
        assert pod["spec"]["nodeName"] == "w"
        assert "nodeSelector" not in pod["spec"]
        (container,) = pod["spec"]["containers"]
        assert container["image"] == "registry.k8s.io/kube-proxy:v1.37.2"
        assert container["command"][0] == "/usr/local/bin/kube-proxy"
        assert container["command"][-1] == "-v=2"

    def test_its_configuration_is_its_own(self) -> None:
        volumes = {volume["name"]: volume for volume in self.pod()["spec"]["volumes"]}
        assert volumes["kube-proxy"]["configMap"] == {"defaultMode": 420, "name": "kube-proxy-w"}
        assert TEMPLATE["spec"]["volumes"][0]["configMap"]["name"] == "kube-proxy"

    def test_another_version_is_another_executable_in_the_same_image(self) -> None:
        pod = self.pod("/kilonode/kube-proxy")
        (container,) = pod["spec"]["containers"]
        assert container["command"][0] == "/kilonode/kube-proxy"
        assert {"name": "programs", "mountPath": "/kilonode", "readOnly": True} in container["volumeMounts"]
        assert pod["spec"]["volumes"][-1] == {
            "name": "programs",
            "hostPath": {"path": "/kilonode", "type": "Directory"},
        }

    def test_the_restart_policy_is_the_nodes(self) -> None:
        assert self.pod()["spec"]["restartPolicy"] == "Never"
        assert self.pod(restarts=True)["spec"]["restartPolicy"] == "Always"


def test_systemd_is_told_scores_and_restarts() -> None:
    assert unit_drop_in("kubelet", oom_score_adj=-999, restarts=True) == (
        "[Unit]\nStartLimitIntervalSec=0\n[Service]\nOOMScoreAdjust=-999\nRestart=always\nRestartSec=10\n"
    )
    assert "Restart=no" in unit_drop_in("containerd", oom_score_adj=0, restarts=False)


def test_a_pods_cgroup_is_where_kubelets_systemd_driver_puts_it() -> None:
    uid = "0f1e-2d"
    assert systemd_pod_cgroup("Guaranteed", uid) == (
        "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod0f1e_2d.slice"
    )
    assert systemd_pod_cgroup("BestEffort", uid) == (
        "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/"
        "kubelet-kubepods-besteffort-pod0f1e_2d.slice"
    )


@pytest.mark.parametrize(
    ("image", "whole"),
    [
        ("kindest/node:v1.37.0", "docker.io/kindest/node:v1.37.0"),
        ("node:dev", "docker.io/library/node:dev"),
        ("localhost/kilonode/node:v1", "localhost/kilonode/node:v1"),
        ("registry.k8s.io/node@sha256:0", "registry.k8s.io/node@sha256:0"),
        ("mine:5000/node", "mine:5000/node"),
    ],
)
def test_images_have_their_registry_in_their_name(image: str, whole: str) -> None:
    assert qualified(image) == whole

"""Ballast pods: memory held by real pods of a real node, in cgroups and with OOM scores that kubelet gives.

They are pods of the API server, bound to their node: its kubelet runs them through its containerd, with runc,
in the cgroups of their QoS classes below the node's own. So they are charged to the node, the kernel can
choose them as victims, and kubelet starts them again. They use the node's network: there is no CNI for pods.

kubelet computes the oom_score_adj of a Burstable pod from its request and the machine's memory, and it takes
this machine for its own. So the request is scaled: it is the same share of this machine as what was asked
is of the node, and the score is what a machine of the node's size would give.

Where containerd may not lower oom_score_adj, a Guaranteed pod's process has containerd's own instead of -997.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from framework import process
from framework.binaries import Binaries
from framework.binaries.pins import architecture
from framework.cgroup import MemoryCgroup
from framework.cluster import ApiEndpoint
from framework.errors import KilonodeError
from framework.guard import memory_total_bytes
from framework.lazy import LazyModule
from framework.ledger import Cgroup, Folder, Ledger, Thing
from framework.outcome import PODS_CGROUP, PodRecord
from framework.realnode.image import IMAGE, PAUSE, ballast_command, image_archive, image_files
from framework.spec import Ballast, QosClass, RealNodeSpec
from framework.units import MIB
from framework.wait import wait_until

if TYPE_CHECKING:
    import kubernetes
else:
    kubernetes = LazyModule("kubernetes")

NAMESPACE: Final = "default"
HELD_TIMEOUT_S: Final = 60.0
HELD_TIMEOUT_S_PER_GIB: Final = 20.0
GUARANTEED_OVERHEAD_BYTES: Final = 32 * MIB
"""runc's own start (some 20 MiB, in the container's cgroup) and the page tables; on top of what is held."""
IMPORT_TIMEOUT_S: Final = 30.0
_CACHED_SHARE: Final = 0.9
"""How much of a file counts as cached: the kernel takes some pages away whenever it likes."""
_CPU: Final = "100m"
_QOS_CGROUPS: Final[dict[QosClass, str]] = {
    "Guaranteed": PODS_CGROUP,
    "Burstable": f"{PODS_CGROUP}/burstable",
    "BestEffort": f"{PODS_CGROUP}/besteffort",
}
_HTTP_FORBIDDEN: Final = 403
_HTTP_NOT_FOUND: Final = 404
_CAPABILITIES: Final = (
    *(
        "CAP_AUDIT_WRITE",
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_FSETID",
        "CAP_KILL",
        "CAP_MKNOD",
    ),
    *("CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID"),
    "CAP_SYS_CHROOT",
)
"""What containerd gives a container (defaultUnixCaps in its oci/spec.go)."""


def obstacle(binaries: Binaries, ledger: Ledger) -> str | None:
    """Why real pods can't run on this machine; None when they can.

    Found out by running one container of the image with runc, with what containerd would give it.
    """
    try:
        binaries.system("ctr")
        _run_one_container(binaries.system("runc").path, ledger)
    except (KilonodeError, OSError) as error:
        return str(error)
    return None


def _run_one_container(runc: Path, ledger: Ledger) -> None:
    name = f"kilonode-{ledger.run_id}-probe"
    folder = ledger.folder / "pod-probe"
    with _recorded(ledger, Folder(str(folder)), Cgroup(name)):
        for path, data in image_files().items():
            file = folder / "rootfs" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
            file.chmod(0o755)
        (folder / "config.json").write_bytes(msgspec.json.encode(_probe_spec(name)))
        process.run(
            [runc, "--root", folder / "state", "run", "--bundle", folder, name],
            remedy="see why runc can't start a container",
        )


@contextlib.contextmanager
def _recorded(ledger: Ledger, *things: Thing) -> Iterator[None]:
    for thing in things:
        ledger.record(thing)
    try:
        yield
    finally:
        ledger.undo(things)


def _probe_spec(cgroup: str) -> dict[str, Any]:
    """An OCI runtime specification of a container that ends at once."""
    capabilities = dict.fromkeys(("bounding", "effective", "permitted"), _CAPABILITIES)
    return {
        "ociVersion": "1.0.2",
        "process": {
            "args": [f"/bin/{PAUSE}", "0"],
            "cwd": "/",
            "user": {"uid": 0, "gid": 0},
            "capabilities": capabilities,
            "oomScoreAdj": 1000,
        },
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
        ],
        "linux": {
            "cgroupsPath": f"/{cgroup}",
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")],
            "resources": {
                "devices": [{"allow": False, "access": "rwm"}],
                "memory": {"limit": GUARANTEED_OVERHEAD_BYTES},
            },
        },
    }


@dataclass
class Pods:
    """The ballast pods of a node: ``import_image`` to its containerd, ``start``, ``records``, ``remove``."""

    node: str
    cgroup: MemoryCgroup
    spec: RealNodeSpec
    endpoint: ApiEndpoint
    binaries: Binaries
    place: Callable[[QosClass, str], str]
    """The cgroup of a pod below the node's, by its class and uid, as kubelet's cgroup driver names it."""
    _uids: dict[str, str] = field(default_factory=dict)

    def import_image(self, socket: Path, folder: Path, *, snapshotter: str) -> None:
        """Give the node's containerd the image; kubelet and containerd find it as any other."""
        archive = folder / "ballast-image.tar"
        archive.write_bytes(image_archive(image_files(), self.spec.pods, architecture()))
        process.run(
            [
                *(self.binaries.system("ctr").path, "--address", socket, "--namespace", "k8s.io"),
                *("images", "import", "--snapshotter", snapshotter, archive),
            ],
            timeout_s=IMPORT_TIMEOUT_S,
            remedy="read containerd's log",
        )
        archive.unlink()

    def start(self) -> None:
        """Create the pods and wait until each holds its memory.

        Raises TimeLimitError that says how far each came.
        """
        for pod in self.spec.pods:
            wait_until(
                lambda pod=pod: self._create(pod),  # type: ignore[misc]
                what=f"the creation of pod {pod.name}",
                timeout_s=HELD_TIMEOUT_S,
                describe=lambda: f"no service account in namespace {NAMESPACE} yet",
            )
        size_gib = sum(pod.memory_bytes for pod in self.spec.pods) / (1024 * MIB)
        for pod in self.spec.pods:
            wait_until(
                lambda pod=pod: self._holds(pod) or None,  # type: ignore[misc]
                what=f"pod {pod.name} of {self.node} holding its memory",
                timeout_s=HELD_TIMEOUT_S + HELD_TIMEOUT_S_PER_GIB * size_gib,
                describe=lambda pod=pod: self._describe(pod),  # type: ignore[misc]
                remedy="read kubelet's and containerd's logs",
            )

    def records(self) -> tuple[PodRecord, ...]:
        """The pods as the API server and the kernel know them now."""
        return tuple(self._record(pod) for pod in self.spec.pods if pod.name in self._uids)

    def remove(self) -> None:
        """Take the pods from the API server, without waiting for a kubelet that may be gone."""
        with self.endpoint.client() as client:
            core = kubernetes.client.CoreV1Api(client)
            for name in self._uids:
                try:
                    core.delete_namespaced_pod(
                        self.object_name(name),
                        NAMESPACE,
                        grace_period_seconds=0,
                        propagation_policy="Background",
                    )
                except kubernetes.client.ApiException as error:
                    if error.status != _HTTP_NOT_FOUND:
                        raise
        self._uids.clear()

    def object_name(self, pod: str) -> str:
        """The name of its Pod object: pods of several nodes share a namespace."""
        return f"{self.node}-{pod}"

    def cgroup_of(self, pod: Ballast) -> MemoryCgroup:
        """Where kubelet puts a pod that was started."""
        below = self.cgroup.path / self.place(pod.qos, self._uids[pod.name])
        return MemoryCgroup(below, self.cgroup.mode, self.cgroup.tree)

    def _create(self, pod: Ballast) -> bool | None:
        """True when it was; None while the controllers have not made the namespace's service account."""
        manifest = pod_manifest(pod, self.object_name(pod.name), self.node, self.spec.memory_bytes)
        with self.endpoint.client() as client:
            try:
                made = kubernetes.client.CoreV1Api(client).create_namespaced_pod(NAMESPACE, manifest)
            except kubernetes.client.ApiException as error:
                if error.status == _HTTP_FORBIDDEN and "serviceaccount" in str(error.body):
                    return None
                raise
        self._uids[pod.name] = str(made.metadata.uid)
        return True

    def _holds(self, pod: Ballast) -> bool:
        cgroup = self.cgroup_of(pod)
        if not cgroup.path.exists():
            return False
        reading = cgroup.read()
        if pod.content == "anonymous":
            return reading.anonymous_bytes >= pod.memory_bytes
        return reading.file_bytes >= _CACHED_SHARE * pod.memory_bytes

    def _describe(self, pod: Ballast) -> str:
        cgroup = self.cgroup_of(pod)
        held = f"{cgroup.read().charged_bytes:,} bytes charged" if cgroup.path.exists() else "no cgroup"
        return f"{held} in {cgroup.kernel_path}; {self._record(pod)}"

    def _record(self, pod: Ballast) -> PodRecord:
        with self.endpoint.client() as client:
            read = kubernetes.client.CoreV1Api(client).read_namespaced_pod
            status = read(self.object_name(pod.name), NAMESPACE).status
        containers = status.container_statuses or ()
        pids = [pid for pid in self.cgroup_of(pod).pids() if _comm(pid) not in (PAUSE, None)]
        return PodRecord(
            name=pod.name,
            qos=status.qos_class or pod.qos,
            phase=status.phase,
            state=_state(containers[0].state) if containers else status.reason or "not started",
            last_end=_state(containers[0].last_state) if containers else None,
            restarts=containers[0].restart_count if containers else 0,
            oom_score_adj=process.oom_score_adj_of(pids[0]) if pids else None,
        )


def plain_pod_cgroup(qos: QosClass, uid: str) -> str:
    """As kubelet's cgroupfs driver has it."""
    return f"{_QOS_CGROUPS[qos]}/pod{uid}"


def systemd_pod_cgroup(qos: QosClass, uid: str) -> str:
    """As kubelet's systemd driver has it, below kind's ``cgroupRoot``: a slice's name has its parents'."""
    slices = ["kubelet", PODS_CGROUP, *([] if qos == "Guaranteed" else [qos.lower()])]
    slices.append(f"pod{uid.replace('-', '_')}")
    return "/".join("-".join(slices[: depth + 1]) + ".slice" for depth in range(len(slices)))


def pod_manifest(pod: Ballast, name: str, node: str, capacity_bytes: int) -> dict[str, Any]:
    """The Pod of a node with ``capacity_bytes``, on the machine that this is."""
    return {
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"kilonode.dev/ballast": pod.name}},
        "spec": {
            "nodeName": node,
            "hostNetwork": True,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{"operator": "Exists"}],
            "containers": [
                {
                    "name": "ballast",
                    "image": IMAGE,
                    "imagePullPolicy": "Never",
                    "command": ballast_command(pod),
                    "resources": _resources(pod, capacity_bytes, memory_total_bytes()),
                }
            ],
        },
    }


def _resources(pod: Ballast, capacity_bytes: int, machine_bytes: int) -> dict[str, Any]:
    if pod.qos == "BestEffort":
        return {}
    if pod.qos == "Guaranteed":
        all_of_it = {"cpu": _CPU, "memory": str(pod.memory_bytes + GUARANTEED_OVERHEAD_BYTES)}
        return {"requests": all_of_it, "limits": all_of_it}
    return {"requests": {"memory": str(-(-pod.requested_bytes * machine_bytes // capacity_bytes))}}


def _comm(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")
    except (FileNotFoundError, ProcessLookupError):
        return None


def _state(state: Any) -> str | None:
    """A container's state in a word: its reason where it has one."""
    if state is None:
        return None
    for name in ("waiting", "terminated"):
        part = getattr(state, name)
        if part is not None:
            return str(part.reason or name)
    return "Running" if state.running is not None else None

"""The control plane in a container of kind's, with workers that become real nodes.

kind and kubeadm make the cluster, of an image that has everything. From then on the framework reaches into
the containers from the host, without a process inside that a node would pay for: their files are those of
layers and volumes, their processes are found in their cgroup, and their network namespaces get names.

* Static pods' manifests decide what of the control plane runs, and with which flags. One is moved away before
  its component is ended, or kubelet would start it again, and put back to start it.
* kwok runs on the host, in a memory cgroup of its own.
* Each run has a network of its own, whose bridge the ledger knows by name; workers are stopped until they are
  asked for.

etcd holds what kubeadm wrote for this very cluster, its PKI and its nodes, so another cluster's data can't
take its place: fleets are registered, not restored.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import yaml

from framework import network, process
from framework.binaries import Binaries, Binary
from framework.cgroup import MemoryCgroup, cgroup_of, memory_cgroup
from framework.cluster.control_plane import (
    CONTROLLERS,
    KUBELET_SYSCTLS,
    MEASURING,
    NO_FAKES,
    STORAGE,
    ControlPlane,
)
from framework.cluster.kind.config import (
    KUBE_PROXY_LABEL,
    MANIFESTS,
    KindSpec,
    NodeFolders,
    changed_manifest,
    cni_configuration,
    flags_of,
    image_of,
    kind_configuration,
    kwok_command,
)
from framework.cluster.kind.image import find_node_image, image_components
from framework.cluster.kwokctl import kwok_documents
from framework.cluster.lease_budget import lease_budget
from framework.containers import CLUSTER_LABEL, Container, Engine, find_engine, qualified
from framework.errors import BadInputError, KilonodeError, MissingRequirementError, TimeLimitError
from framework.lazy import LazyModule
from framework.ledger import (
    Cgroup,
    Containers,
    Folder,
    Ledger,
    Link,
    MountPoint,
    Netns,
    machine_lock,
    private_socket,
)
from framework.oom_scores import lowest_score
from framework.outcome import Component
from framework.process import Daemon
from framework.spec import Spec
from framework.wait import wait_until

if TYPE_CHECKING:
    import kubernetes
else:
    kubernetes = LazyModule("kubernetes")

CREATE_TIMEOUT_S: Final = 600.0
STATIC_POD_TIMEOUT_S: Final = 120.0
"""kubelet looks again for a static pod whose predecessor was not gone yet after ten seconds and more."""
KUBELET_NOTICES_S: Final = 5.0
"""After this kubelet knows that a manifest is gone, and starts nothing again that is killed."""
FIRST_FREE_HOST: Final = 200
"""The engine gives containers addresses of the network's first half."""
STATIC_PODS: Final = (*STORAGE, "kube-controller-manager", "kube-scheduler")
NETWORK_ENV: Final = {
    "docker": "KIND_EXPERIMENTAL_DOCKER_NETWORK",
    "podman": "KIND_EXPERIMENTAL_PODMAN_NETWORK",
}
PORT: Final = 6443
HOST_PROGRAMS: Final = ("kind", "kwok")
"""Executables that run on the host; the others are in the image."""
NODE_SYSCTLS: Final = (
    *KUBELET_SYSCTLS,
    *("fs/file-max", "fs/nr_open"),
    *(f"fs/protected_{what}" for what in ("fifos", "hardlinks", "regular", "symlinks")),
    "kernel/pid_max",
)
"""Of the host, what a privileged node sets: its kubelet; systemd, which raises limits of files; what Debian
has in /usr/lib/sysctl.d."""
LIMITS_LEAST: Final = {"fs/inotify/max_user_instances": 512, "fs/inotify/max_user_watches": 524_288}
"""What kind's documentation advises ("Pod errors due to too many open files"): the limits are those of one
user, and all nodes are root's. Of 128 instances three clusters leave none to a kube-proxy."""
MODULES: Final = Path("/lib/modules")
"""kind mounts it in its nodes, and an engine makes what it is to mount."""
WORKERS: Final = 3
"""As many real nodes as a scenario has at once."""
WORKERS_MAX: Final = 64
DEFAULT_IMAGE: Final = (
    "kindest/node:v1.37.0@sha256:a1ed56cfb0e7b93589bdf97c8cd566405a265939e3620fc4f5de89adff580ae5"
)
"""What the pinned kind has as its default (pkg/apis/config/defaults/image.go)."""
_PROVISIONER: Final = ("local-path-provisioner", "local-path-storage")
"""kind's deployment of volumes, which would run on a worker, or on a fake node."""


class KindSettings(Spec, frozen=True, kw_only=True):
    """What is asked of a kind cluster; an empty ``image`` is the local one, else kind's own default."""

    image: str = ""
    workers: int = WORKERS

    def __post_init__(self) -> None:
        if not 1 <= self.workers <= WORKERS_MAX:
            raise BadInputError(
                f"{self.workers} workers can't be real nodes",
                where="--kind-workers",
                remedy=f"give a number from 1 to {WORKERS_MAX}",
            )

    def resolved(self, engine: Engine, binaries: Binaries) -> KindSettings:
        """With the image that it means."""
        image = self.image or find_node_image(engine, binaries) or DEFAULT_IMAGE
        return msgspec.structs.replace(self, image=qualified(image))


class KindCluster(ControlPlane):
    """Made by ``start``; what it created is in the ledger."""

    kind = "kind"

    def __init__(
        self,
        ledger: Ledger,
        binaries: dict[str, Binary],
        subnet: IPv4Network,
        *,
        engine: Engine,
        settings: KindSettings,
    ) -> None:
        super().__init__(ledger, binaries, subnet, first_node_host=FIRST_FREE_HOST)
        self.engine = engine
        self.image = settings.image
        self.bridge = self.link("k")
        numbers = ("", *map(str, range(2, settings.workers + 1)))
        self.workers = tuple(f"{self.name}-worker{number}" for number in numbers)
        self._free = list(self.workers)
        self._container: Container
        self._kwok: Daemon | None = None
        self._kwok_cgroup = memory_cgroup(f"{self.name}/kwok")

    @classmethod
    def start(
        cls, ledger: Ledger, binaries: Binaries, settings: KindSettings, *, labels: Mapping[str, str]
    ) -> KindCluster:
        """Create a cluster with stopped workers and no fake nodes, Ready when this returns.

        ``labels`` are the workers'.

        Raises MissingRequirementError without an engine and without the image, KilonodeError with kind's own
        words when it fails.
        """
        engine = find_engine(private_socket())
        settings = settings.resolved(engine, binaries)
        require_image(engine, settings.image)
        found = {name: binaries.get(name) for name in HOST_PROGRAMS}
        with machine_lock("network"):
            cluster = cls(ledger, found, network.free_subnet(), engine=engine, settings=settings)
            cluster._place(ledger)
        cluster._create(labels)
        cluster._settle()
        cluster.stop()
        cluster.serve(MEASURING)
        cluster.control(lease_budget(NO_FAKES, cluster.renewal_cost))
        return cluster

    def _place(self, ledger: Ledger) -> None:
        ledger.record(Folder(str(self.folder)))
        ledger.record(Link(self.bridge))
        ledger.record(
            Containers(
                program=self.engine.program,
                host=self.engine.host,
                label=f"{CLUSTER_LABEL}={self.name}",
                network=self.name,
            )
        )
        ledger.record(Netns(self.netns))
        ledger.record(Cgroup(self.name))
        for key in NODE_SYSCTLS:
            ledger.record_sysctl(key)
        for key, least in LIMITS_LEAST.items():
            ledger.raise_sysctl(key, least)
        if not MODULES.exists():
            ledger.record(MountPoint(str(MODULES)))
            MODULES.mkdir(parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o700)
        self.logs.mkdir()
        self._kwok_cgroup.create()
        self.bridge = self.engine.add_network(self.name, self.subnet, link=self.bridge)

    def _create(self, labels: Mapping[str, str]) -> None:
        spec = KindSpec(
            image=self.image,
            control_plane=self._folders(f"{self.name}-control-plane", 0),
            workers=tuple(self._folders(name, number) for number, name in enumerate(self.workers, 1)),
            labels=labels,
            lowest_oom_score=lowest_score(),
        )
        config = self.folder / "kind.yaml"
        config.write_text(kind_configuration(spec))
        raw = self.folder / "kind-kubeconfig"
        process.run(
            [
                *(self.binaries["kind"].path, "create", "cluster", "--name", self.name),
                *("--config", config, "--kubeconfig", raw, "--wait", "0s"),
            ],
            env={**self.engine.env, NETWORK_ENV[self.engine.program]: self.name},
            timeout_s=CREATE_TIMEOUT_S,
            remedy="mend what kind says; `kind create cluster --retain` by hand keeps a node to look into",
        )
        self._container = self.engine.inspect(f"{self.name}-control-plane")
        network.name_netns(self.netns, self._container.pid)
        document = yaml.safe_load(raw.read_text())
        document["clusters"][0]["cluster"]["server"] = f"https://{self._container.address}:{PORT}"
        raw.unlink()
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(yaml.safe_dump(document))

    def _folders(self, node: str, number: int) -> NodeFolders:
        """What a node sees of the host."""
        folder = self.folder / "nodes" / node
        for name in ("cni", "programs"):
            (folder / name).mkdir(parents=True)
        (folder / "cni" / "10-kilonode.conflist").write_text(cni_configuration(number))
        return NodeFolders(cni=str(folder / "cni"), programs=str(folder / "programs"))

    def programs_of(self, worker: str) -> Path:
        """Where to put executables that a worker is to see below ``config.PROGRAMS_FOLDER``."""
        return self.folder / "nodes" / worker / "programs"

    def _settle(self) -> None:
        """Keep the cluster's own pods off all nodes, and stop the workers until they are asked for."""
        with self.endpoint.client() as client:
            apps, core = kubernetes.client.AppsV1Api(client), kubernetes.client.CoreV1Api(client)
            selector = {"spec": {"template": {"spec": {"nodeSelector": {KUBE_PROXY_LABEL: "daemonset"}}}}}
            apps.patch_namespaced_daemon_set("kube-proxy", "kube-system", selector)
            try:
                apps.delete_namespaced_deployment(*_PROVISIONER)
            except kubernetes.client.ApiException as error:
                if error.status != 404:
                    raise
            for worker in self.workers:
                self.engine.kill(worker)
                core.delete_node(worker)

    def take_worker(self) -> str:
        """The name of a worker that is nobody's; its container is stopped, and it has no Node.

        Raises MissingRequirementError when all are taken.
        """
        if not self._free:
            raise MissingRequirementError(
                f"all {len(self.workers)} workers of the kind cluster are real nodes already",
                remedy=f"give --kind-workers {len(self.workers) + 1}",
            )
        return self._free.pop(0)

    def give_back(self, worker: str) -> None:
        """A worker that was taken is free again."""
        self._free.append(worker)

    @property
    def cgroup(self) -> MemoryCgroup:
        return container_cgroup(self._container)

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @cached_property
    def _server(self) -> Any:
        with self.endpoint.client() as client:
            return kubernetes.client.VersionApi(client).get_code()

    @property
    def version(self) -> str:
        return str(self._server.git_version).removeprefix("v")

    def components(self) -> tuple[Component, ...]:
        """The control plane's, as the image's label tells them, or as they run; and kwok, on the host."""
        labelled = [part for part in self.image_components() if part.name in STATIC_PODS]
        inside = labelled or [self._running_component(name) for name in STATIC_PODS]
        return (*inside, self.binaries["kwok"].component())

    def image_components(self) -> tuple[Component, ...]:
        """What the image's label says is in it; nothing for an image of others."""
        return tuple(
            msgspec.structs.replace(part, source=f"{part.source}, in {self.image}") for part in self._labelled
        )

    @cached_property
    def _labelled(self) -> tuple[Component, ...]:
        return image_components(self.engine, self.image)

    def _running_component(self, name: str) -> Component:
        version = image_of(self._manifest(name).read_text()).rpartition(":")[2].removeprefix("v")
        return Component(name=name, version=version, source=f"image {self.image}", toolchain="", sha256="")

    def attach(self, netns: str, *, link: str, address: str) -> None:
        network.connect_node(
            None, netns, link=link, address=address, gateway=self.address, bridge=self.bridge
        )

    def detach(self, link: str) -> None:
        network.delete_link(link)

    def save_logs(self) -> None:
        """Put what the static pods wrote beside kwok's log."""
        for folder in self._container.files:
            for log in folder.glob("log/pods/kube-system_*/*/*.log"):
                pod = log.parent.parent.name.split("_")[1]
                shutil.copy2(log, self.logs / f"{pod.removesuffix(f'-{self.name}-control-plane')}.{log.name}")

    def _pids(self, component: str) -> tuple[int, ...]:
        if component == "kwok":
            return (self._kwok.pid,) if self._kwok is not None and self._kwok.exit_code is None else ()
        if not Path(f"/proc/{self._container.pid}").exists():
            return ()
        return tuple(pid for pid in self.cgroup.pids() if process.executable_name(pid) == component)

    def _start(self, *components: str) -> None:
        wanted = {*STORAGE, *components, *self._running}
        starting = [name for name in (*STORAGE, *CONTROLLERS) if name in wanted and name not in self._running]
        for component in starting:
            if component == "kwok":
                continue
            self._put_manifest(component)
            wait_until(
                lambda component=component: self._pids(component) or None,  # type: ignore[misc]
                what=f"{component} started by kubelet",
                timeout_s=STATIC_POD_TIMEOUT_S,
                remedy=f"read kubelet's journal: {self.engine.program} exec {self._container.name} "
                "journalctl -u kubelet",
            )
            if component == "kube-apiserver":
                self._wait_ready()
        if "kwok" in starting:
            self._start_kwok()
        self._running = tuple(name for name in (*STORAGE, *CONTROLLERS) if name in wanted)

    def _stop(self, component: str) -> None:
        if component == "kwok":
            if self._kwok is not None:
                self.signal("kwok", signal.SIGCONT)
                self._kwok.stop()
            return
        manifest = self._manifest(component)
        if manifest.exists():
            manifest.replace(_aside(manifest))
            with suppress(TimeLimitError):
                wait_until(
                    lambda: not self._pids(component) or None,
                    what=f"the end of {component}",
                    timeout_s=KUBELET_NOTICES_S,
                )
        self._end_processes(component)

    def _manifest(self, component: str) -> Path:
        """A static pod's manifest, by way of the container's first process."""
        return Path(f"/proc/{self._container.pid}/root", *MANIFESTS.parts[1:], f"{component}.yaml")

    def _put_manifest(self, component: str) -> None:
        """Have a static pod run again, with today's flags."""
        manifest = self._manifest(component)
        aside = _aside(manifest)
        aside.write_text(
            changed_manifest(
                aside.read_text(), flags_of(component, self._budget), self._tuning.envs.get(component, {})
            )
        )
        aside.replace(manifest)

    def _start_kwok(self) -> None:
        budget = self.budget
        config = self.folder / "kwok.yaml"
        config.write_text(yaml.safe_dump_all(kwok_documents(budget), sort_keys=False))
        command = kwok_command(
            self.binaries["kwok"], kubeconfig=str(self.kubeconfig), config=str(config), budget=budget
        )
        self._kwok = Daemon.start(
            "kwok",
            command,
            log_path=self.logs / "kwok-controller.log",
            cgroup_procs=self._kwok_cgroup.procs_path,
        )


def _aside(manifest: Path) -> Path:
    """Where a manifest is while its component is not to run."""
    return manifest.parent.parent / manifest.name


def require_image(engine: Engine, image: str) -> None:
    """Have ``image`` here, pulled if need be. Raises MissingRequirementError where it can't be."""
    if engine.has_image(image):
        return
    try:
        engine.run("pull", image, timeout_s=CREATE_TIMEOUT_S)
    except KilonodeError as error:
        raise MissingRequirementError(
            f"the image {image} is not here and can't be pulled: {error.what}",
            where="--kind-image",
            remedy="build one that needs no registry with `kilonode kind-image`, or load it with "
            f"`{engine.program} load`",
        ) from error


def container_cgroup(container: Container) -> MemoryCgroup:
    """The memory cgroup of a running container, with all that is in it.

    Its own name has the container's id; what systemd inside makes of it is below.
    """
    path = cgroup_of(container.pid)
    if path is None:
        raise KilonodeError(
            f"the container {container.name} has ended",
            where=container.name,
            remedy="look at its engine's log",
        )
    parts = [part for part in path.split("/") if part]
    named = [index for index, part in enumerate(parts) if container.id in part]
    if not named:
        raise KilonodeError(
            f"{container.name} is in the cgroup {path}, which is not its own",
            where=container.name,
            remedy="use an engine that runs as root on this machine",
        )
    return memory_cgroup("/".join(parts[: named[0] + 1]))

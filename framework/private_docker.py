"""A docker engine of kilonode's own, for ``--cluster kind`` on a machine where none runs.

It changes nothing on the host that is not written down and removed:

* **network**: no iptables, no forwarding, no ``docker0``. Containers reach each other on the bridge of their
  network, and the host through it; published ports are docker-proxy's, a process. The internet is out of
  their reach.
* **mounts**: dockerd runs in a mount namespace of its own, which ends with the last process in it. There it
  finds folders of its state in the place of those that docker and containerd's shims have built in.
* **processes**: dockerd, containerd, shims, proxies and containers are below one memory cgroup, which the
  ledger removes with all that is in it. The command that starts the engine ends, and dockerd is nobody's
  child.
* **files**: state, sockets and logs are in the state folder; images in the cache folder, where they outlive
  the engine. What else is there is removed at the engine's end, or before the next start.

The engine is a run of its own that is kept: other runs leave it alone, ``kilonode clean`` removes it. Its
socket lies where ``containers.find_engine`` is told to look, so nothing has to be exported.

Where CAP_SYS_RESOURCE is missing, ``oci_runtime`` stands in for runc.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from framework import docker_data, ledger, oci_runtime
from framework.binaries.store import default_root
from framework.cgroup import MemoryCgroup, memory_cgroup
from framework.containers import DOCKER_HOST_ENV, Engine
from framework.errors import KilonodeError, MissingRequirementError
from framework.ledger import (
    Cgroup,
    EngineData,
    File,
    Ledger,
    MountPoint,
    machine_lock,
    private_socket,
)
from framework.process import CAP_SYS_RESOURCE, Daemon, end_of, has_capability
from framework.wait import wait_until

START_TIMEOUT_S: Final = 60.0
PROGRAMS: Final = {"dockerd": "docker.io", "docker": "docker-cli", "runc": "runc", "iptables": "iptables"}
"""Debian package by program. Before Debian 13 docker.io has the command line too."""
SYSCTLS: Final = ("kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes")
"""Host-wide ones that dockerd raises where they are lower than it wants (modifyRootKeyLimit)."""
SETTINGS: Final = "settings"
BUILT_IN_FOLDERS: Final = {
    "shims": Path("/run/containerd"),
    "plugins": Path("/run/docker"),
    SETTINGS: Path("/etc/docker"),
}
"""Folders of the host that are used whatever dockerd is told, by the folder of its state that it gets."""
RUNTIME: Final = "kilonode"
LOG_TAIL_CHARS: Final = 1500
_LOCK: Final = "docker"


def data_folder() -> Path:
    """Where images are, below $KILONODE_CACHE_DIR."""
    return default_root() / "docker"


def start_private_docker(root: Path | None = None, data_root: Path | None = None) -> Engine:
    """Start the engine, seen to answer when this returns.

    ``root`` is the state folder and ``data_root`` the folder of images; both have their usual place. Raises
    MissingRequirementError for what this machine lacks, KilonodeError with the end of dockerd's log when it
    does not come up; nothing is left then.
    """
    require_programs()
    data = data_root or data_folder()
    socket = private_socket(root)
    with machine_lock(_LOCK, root):
        _remove_predecessor(socket)
        if docker_data.in_use(data):
            raise KilonodeError(
                "another private docker engine uses the same images",
                where=str(data),
                remedy=f"end it: `kilonode clean` with the {ledger.STATE_ENV} that it was started with",
            )
        docker_data.discard_containers(data)
        begun = Ledger.begin(root)
        try:
            engine = _start(begun, socket, data)
        except BaseException:
            begun.finish()
            raise
        begun.keep()
    return engine


def require_programs() -> None:
    """Raises MissingRequirementError without root and without a program, with the remedy."""
    if os.geteuid() != 0:
        raise MissingRequirementError(
            "a private docker engine needs root", remedy="run `kilonode docker` as root (sudo -E)"
        )
    missing = {program: package for program, package in PROGRAMS.items() if shutil.which(program) is None}
    if missing:
        raise MissingRequirementError(
            f"programs of a docker engine are missing: {', '.join(missing)}",
            where="PATH",
            remedy=f"apt-get install {' '.join(missing.values())}",
        )


def missing_packages() -> Iterator[tuple[str, ...]]:
    """Debian packages to install, one installation after the other.

    Whether docker.io has the command line too is seen once it is installed.
    """
    daemons = (name for name in PROGRAMS if name != "docker" and shutil.which(name) is None)
    packages = tuple(PROGRAMS[name] for name in daemons)
    if packages:
        yield packages
    if shutil.which("docker") is None:
        yield (PROGRAMS["docker"],)


def configuration(
    *, socket: Path, data_root: Path, folder: Path, cgroup_parent: str, runtime: Path | None
) -> dict[str, Any]:
    """What dockerd is told, as its daemon.json has it; ``runtime`` stands in for runc."""
    told: dict[str, Any] = {
        "hosts": [f"unix://{socket}"],
        "group": "root",
        "data-root": str(data_root),
        "exec-root": str(folder / "exec"),
        "pidfile": str(folder / "dockerd.pid"),
        "storage-driver": docker_data.STORAGE_DRIVER,
        # Docker 29 would put images elsewhere; older releases don't know the feature and pass it over.
        "features": {"containerd-snapshotter": False},
        "iptables": False,
        "ip6tables": False,
        "ip-forward": False,
        "ip-masq": False,
        "bridge": "none",
        "userland-proxy": True,
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "cgroup-parent": cgroup_parent,
    }
    if runtime is not None:
        told |= {"runtimes": {RUNTIME: {"path": str(runtime)}}, "default-runtime": RUNTIME}
    return told


def runtime_script(runc: str) -> str:
    """The program that dockerd starts in runc's place."""
    words = [sys.executable, "-I", "-S", str(Path(oci_runtime.__file__).resolve()), runc]
    return f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n'


def usage(engine: Engine) -> str:
    """How to use a private engine, for its user."""
    return (
        "`--cluster kind` and `kilonode kind-image` find it by themselves; for the docker command:\n"
        f"  export {DOCKER_HOST_ENV}={engine.host}\n"
        "It runs until `kilonode clean`; its images stay for the next one."
    )


def _remove_predecessor(socket: Path) -> None:
    """Remove the engine of this socket, which does not answer any more."""
    runs = ledger.all_runs(socket.parent / "runs")
    for run in (run for run in runs if run.state != "alive" and File(str(socket)) in run.things()):
        left = ledger.end_run(run)
        if left:
            raise KilonodeError(
                f"the engine before left something behind: {'; '.join(left)}",
                where=str(run.folder),
                remedy="run `kilonode clean`",
            )


def _start(begun: Ledger, socket: Path, data: Path) -> Engine:
    folder = begun.folder
    name = f"kilonode-{begun.run_id}"
    begun.record(EngineData(str(data)))
    begun.record(File(str(socket)))
    for key in SYSCTLS:
        begun.record_sysctl(key)
    for path in BUILT_IN_FOLDERS.values():
        if not path.exists():
            begun.record(MountPoint(str(path)))
    begun.record(Cgroup(name))
    cgroup = memory_cgroup(name)
    cgroup.create()
    daemons = cgroup.delegate()
    runtime = None if has_capability(CAP_SYS_RESOURCE) else _write_runtime(folder)
    settings = configuration(
        socket=socket,
        data_root=data,
        folder=folder,
        cgroup_parent=f"/{name}/containers",
        runtime=runtime,
    )
    _copy_settings(folder / SETTINGS)
    (folder / "daemon.json").write_bytes(msgspec.json.format(msgspec.json.encode(settings)))
    Daemon.start(
        "dockerd",
        [
            *("flock", "--nonblock", "--no-fork", str(docker_data.lock_path(data))),
            *("setsid", "--fork", "dockerd", "--config-file", str(folder / "daemon.json")),
        ],
        log_path=folder / "dockerd.log",
        cgroup_procs=daemons.procs_path,
        binds={folder / name: path for name, path in BUILT_IN_FOLDERS.items()},
    ).popen.wait(START_TIMEOUT_S)
    engine = Engine("docker", f"unix://{socket}")
    _wait_until_it_answers(engine, cgroup, folder / "dockerd.log")
    socket.chmod(0o600)
    return engine


def _write_runtime(folder: Path) -> Path:
    path = folder / "runc"
    path.write_text(runtime_script(shutil.which("runc") or "runc"))
    path.chmod(0o700)
    return path


def _copy_settings(settings: Path, source: Path = BUILT_IN_FOLDERS[SETTINGS]) -> None:
    """What the host's engine is told about registries holds here too, the rest of it does not."""
    settings.mkdir()
    if (source / "certs.d").is_dir():
        shutil.copytree(source / "certs.d", settings / "certs.d")


def _wait_until_it_answers(engine: Engine, cgroup: MemoryCgroup, log_path: Path) -> None:
    def log_tail() -> str:
        return " ".join(end_of(log_path, LOG_TAIL_CHARS).decode(errors="replace").split())

    def answered() -> bool | None:
        if not cgroup.pids():
            raise KilonodeError(
                f"dockerd ended: {log_tail()}",
                where="dockerd",
                remedy="mend what it says, or use an engine that runs already",
            )
        try:
            return bool(engine.version())
        except KilonodeError:
            return None

    wait_until(
        answered,
        what="an answer of the private docker engine",
        timeout_s=START_TIMEOUT_S,
        describe=log_tail,
        remedy="mend what dockerd says, or use an engine that runs already",
    )

"""Docker or podman, spoken to by their command line, as kind does.

kind makes a cluster of containers and leaves the rest to their engine: the memory limit of a worker, its stop
and start, its process and cgroup. Both engines have the same commands for these, so one face serves both.

An engine is looked for where kind looks: the one that KIND_EXPERIMENTAL_PROVIDER names, else docker, else
podman. Docker may be a private one (``kilonode docker``), whose socket is in the state folder.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final, Literal, cast, get_args

import msgspec

from framework import process
from framework.errors import BadInputError, KilonodeError, MissingRequirementError

Program = Literal["docker", "podman"]

PROVIDER_ENV: Final = "KIND_EXPERIMENTAL_PROVIDER"
"""By which kind lets its users choose."""
DOCKER_HOST_ENV: Final = "DOCKER_HOST"
CLUSTER_LABEL: Final = "io.x-k8s.kind.cluster"
"""With which kind labels the containers of a cluster."""
ENGINE_TIMEOUT_S: Final = 60.0
ANSWER_TIMEOUT_S: Final = 15.0
"""An engine that is there answers in milliseconds, unless it starts."""
_NO_FILE: Final = re.compile("could not (find|be found)|no such file", re.IGNORECASE)
"""How docker and podman say of a container's file that it has none."""


class _State(msgspec.Struct, rename="pascal"):
    running: bool = False
    pid: int = 0


class _Config(msgspec.Struct, rename="pascal"):
    image: str = ""


class _Attached(msgspec.Struct):
    address: str = msgspec.field(name="IPAddress", default="")


class _NetworkSettings(msgspec.Struct, rename="pascal"):
    networks: dict[str, _Attached] = {}


class _Driver(msgspec.Struct, rename="pascal"):
    data: dict[str, str] | None = None


class _Mount(msgspec.Struct, rename="pascal"):
    source: str = ""
    destination: str = ""


class _PodmanNetwork(msgspec.Struct):
    network_interface: str


class _Inspected(msgspec.Struct, rename="pascal"):
    id: str
    name: str
    state: _State
    config: _Config
    network_settings: _NetworkSettings
    graph_driver: _Driver = msgspec.field(default_factory=_Driver)
    mounts: list[_Mount] = []


@dataclass(frozen=True)
class Container:
    """A container at this moment. ``pid`` is its first process's on the host, 0 when it does not run.

    ``files`` are the folders of the host that hold what it wrote: its layer and its volumes.
    """

    id: str
    name: str
    image: str
    pid: int
    address: str
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Engine:
    """A container engine that answered. ``host`` is docker's DOCKER_HOST, empty for its default."""

    program: Program
    host: str = ""

    @property
    def env(self) -> dict[str, str]:
        """What makes another program, kind, use this engine too."""
        chosen: dict[str, str] = {PROVIDER_ENV: self.program}
        return {**chosen, DOCKER_HOST_ENV: self.host} if self.host else chosen

    def run(
        self, *arguments: str | Path, timeout_s: float = ENGINE_TIMEOUT_S, stdin: bytes | None = None
    ) -> str:
        """What a command of the engine printed. Raises CommandError or TimeLimitError."""
        done = process.run(
            [self.program, *arguments],
            env=self.env,
            timeout_s=timeout_s,
            stdin=stdin,
            remedy=f"see what `{self.program} ps -a` and its engine's log say",
        )
        return done.text.strip()

    def version(self) -> str:
        """The engine's own version, such as ``20.10.24``."""
        if self.program == "podman":
            return self.run("version", "--format", "{{.Client.Version}}")
        return self.run("version", "--format", "{{.Server.Version}}")

    def has_image(self, image: str) -> bool:
        return bool(self.run("images", "--quiet", image))

    def image_bytes(self, image: str) -> int:
        return int(self.run("image", "inspect", "--format", "{{.Size}}", image))

    def labelled(self, label: str) -> tuple[str, ...]:
        """The names of all containers with a label (``key=value``), stopped ones too."""
        return tuple(self.run("ps", "--all", "--filter", f"label={label}", "--format", "{{.Names}}").split())

    def inspect(self, name: str) -> Container:
        """Raises CommandError when there is no such container."""
        (found,) = msgspec.json.decode(
            self.run("inspect", "--type", "container", name), type=list[_Inspected]
        )
        networks = found.network_settings.networks.values()
        layer = (found.graph_driver.data or {}).get("UpperDir", "")
        volumes = [mount.source for mount in found.mounts if mount.destination == "/var"]
        return Container(
            id=found.id,
            name=found.name.removeprefix("/"),
            image=found.config.image,
            pid=found.state.pid if found.state.running else 0,
            address=next((network.address for network in networks if network.address), ""),
            files=tuple(Path(folder) for folder in (layer, *volumes) if folder),
        )

    def start(self, name: str, *, memory_bytes: int) -> Container:
        """Start a container that was stopped, with this limit of memory and no swap on top.

        Podman limits only what runs: there the first moments of the container are without a limit.
        """
        limit = ("update", "--memory", str(memory_bytes), "--memory-swap", str(memory_bytes), name)
        steps = (limit, ("start", name))
        for step in steps if self.program == "docker" else reversed(steps):
            self.run(*step)
        return self.inspect(name)

    def kill(self, name: str) -> None:
        """End a container at once; one that doesn't run, or is gone, is fine."""
        if self.has(name) and self.inspect(name).pid:
            self.run("kill", name)
            self.run("wait", name)

    def has(self, name: str) -> bool:
        """Whether there is such a container, running or not."""
        return name in self.names()

    def names(self) -> tuple[str, ...]:
        """Of all containers, running or not."""
        return tuple(self.run("ps", "--all", "--format", "{{.Names}}").split())

    def copy_out(self, name: str, path: str, target: Path) -> bool:
        """Copy a file out of a container, running or not; false where it has none."""
        follow = ("--follow-link",) if self.program == "docker" else ()
        try:
            self.run("cp", *follow, f"{name}:{path}", target)
        except process.CommandError as error:
            if not _NO_FILE.search(error.what):
                raise
            return False
        return True

    def copy_in(self, source: Path, name: str, path: str) -> None:
        """Copy a file into a container, running or not; the folder must be there."""
        self.run("cp", source, f"{name}:{path}")

    def put(self, name: str, files: Mapping[str, str]) -> None:
        """Write files of a container, running or not, by their absolute paths; folders are made."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for path in dict.fromkeys(str(Path(path).parent) for path in files):
                folder = tarfile.TarInfo(path.lstrip("/"))
                folder.type, folder.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(folder)
            for path, text in files.items():
                entry = tarfile.TarInfo(path.lstrip("/"))
                entry.size, entry.mode = len(text.encode()), 0o644
                tar.addfile(entry, io.BytesIO(text.encode()))
        self.run("cp", "-", f"{name}:/", stdin=archive.getvalue())

    def execute(
        self,
        name: str,
        argv: Sequence[str],
        *,
        stdin: bytes | None = None,
        timeout_s: float = ENGINE_TIMEOUT_S,
    ) -> str:
        """What a command inside a container printed; its memory is charged to the container."""
        return self.run("exec", "--interactive", name, *argv, stdin=stdin, timeout_s=timeout_s)

    def add_network(self, name: str, subnet: IPv4Network, *, link: str) -> str:
        """A bridge of the host with the first address of ``subnet``; gives its name.

        That is ``link``, except with a podman before 4.5, which chooses one itself. Containers have addresses
        of the subnet's first half.
        """
        addresses = (
            *("--subnet", str(subnet), "--gateway", str(subnet[1])),
            *("--ip-range", str(next(subnet.subnets()))),
        )
        if self.program == "docker":
            self.run("network", "create", *addresses, "--opt", f"com.docker.network.bridge.name={link}", name)
            return link
        try:
            self.run("network", "create", *addresses, "--interface-name", link, name)
        except process.CommandError as error:
            if "unknown flag" not in error.what:
                raise
            self.run("network", "create", *addresses, name)
        (made,) = msgspec.json.decode(self.run("network", "inspect", name), type=list[_PodmanNetwork])
        return made.network_interface


def qualified(image: str) -> str:
    """An image's name with its registry, which docker and kind add by themselves and podman does not.

    Docker Hub's rule: the first part is a registry where it has a dot or a colon, or is ``localhost``.
    """
    first, slash, _ = image.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return image
    return f"docker.io/{image}" if slash else f"docker.io/library/{image}"


def remove_labelled(engine: Engine, label: str) -> None:
    """Remove the containers with a label, and their volumes."""
    names = engine.labelled(label)
    if names:
        engine.run("rm", "--force", "--volumes", *names)


def remove_network(engine: Engine, name: str) -> None:
    """Remove a network; one that is gone is fine."""
    if name in engine.run("network", "ls", "--format", "{{.Name}}").split():
        engine.run("network", "rm", name)


def find_engine(private_socket: Path, environment: Mapping[str, str] = os.environ) -> Engine:
    """The engine that kind would use, seen to answer.

    ``private_socket`` is that of a private docker engine, which is taken where docker's default one is not
    there. Raises MissingRequirementError that says for each engine why it can't be used, BadInputError for
    one that is none.
    """
    asked = environment.get(PROVIDER_ENV, "")
    if asked and asked not in get_args(Program):
        raise BadInputError(
            f"{asked!r} is no container engine that a worker's memory can be limited with",
            where=PROVIDER_ENV,
            remedy=f"set it to {' or '.join(get_args(Program))}, or unset it",
        )
    programs = (cast(Program, asked),) if asked else get_args(Program)
    refusals: list[KilonodeError] = []
    for program in programs:
        for host in _hosts(program, private_socket, environment):
            engine = Engine(program, host)
            refusal = _refusal(engine)
            if refusal is None:
                return engine
            refusals.append(refusal)
    raise MissingRequirementError(
        f"there is no container engine for kind: {'; '.join(refusal.what for refusal in refusals)}",
        remedy=refusals[0].remedy,
    )


def _hosts(program: Program, private_socket: Path, environment: Mapping[str, str]) -> tuple[str, ...]:
    if program == "podman":
        return ("",)
    if environment.get(DOCKER_HOST_ENV):
        return (environment[DOCKER_HOST_ENV],)
    return ("", f"unix://{private_socket}") if private_socket.exists() else ("",)


def _refusal(engine: Engine) -> KilonodeError | None:
    """Why an engine can't be used; None when it answers."""
    program = engine.program
    if shutil.which(program) is None:
        return MissingRequirementError(
            f"there is no {program}",
            remedy="install docker or podman, or start a private docker engine: `kilonode docker`",
        )
    try:
        engine_answer = process.run(
            [program, "info", "--format", "json" if program == "podman" else "{{.ServerVersion}}"],
            env=engine.env,
            timeout_s=ANSWER_TIMEOUT_S,
            check=False,
        )
    except KilonodeError as error:
        return error
    said = " ".join((engine_answer.stderr or engine_answer.stdout).decode(errors="replace").split())
    if engine_answer.exit_code == 0 and "Cannot connect" not in said:
        return None
    if "permission denied" in said.lower():
        return MissingRequirementError(
            f"{program} may not be used: {said}", remedy=f"run as root, or as a member of the group {program}"
        )
    return MissingRequirementError(
        f"{program}'s engine does not answer: {said}",
        remedy="start it (systemctl start docker), or start a private one: `kilonode docker`",
    )

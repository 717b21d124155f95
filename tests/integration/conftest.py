"""One real control plane and fleet for all live tests, in a state folder of its own.

Runs that tests start as processes of their own share that folder: what cleans up after them meets a live run
there, and must leave it alone.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path

import filelock
import platformdirs
import pytest

from framework.binaries import Binaries
from framework.binaries.store import CACHE_VARIABLE, default_root
from framework.cluster import HOST_PROGRAMS, EmbeddedCluster
from framework.cluster.kind import node_image
from framework.containers import DOCKER_HOST_ENV, Engine, find_engine
from framework.doctor import require_machine
from framework.errors import MissingRequirementError
from framework.fleet import Fleet
from framework.ledger import STATE_ENV, Ledger, clean, private_socket
from framework.private_docker import start_private_docker
from framework.process import run
from framework.realnode import CopyPool, HostNode
from framework.signals import ended_as_by_ctrl_c
from framework.spec import RealNodeSpec
from framework.wait import wait_until

STORY_TIMEOUT_S = 120.0
STATE_PREFIX = "kn-"
SESSION_LOCK = "kilonode-session.lock"
"""Says that a folder is a session's, and while it is held, that the session lives."""


@pytest.fixture(autouse=True, scope="session")
def machine() -> None:
    """Live tests are skipped with the remedy where this machine lacks something."""
    require_machine(Path.cwd())


@pytest.fixture(autouse=True, scope="session")
def interruptible() -> Iterator[None]:
    """What a shell starts in the background ignores Ctrl-C, and so would every story that is told."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def live_state() -> Iterator[Path]:
    """A state folder whose path is short enough for unix sockets; everybody may look inside.

    What sessions that were killed left in theirs is removed first.
    """
    for lock in Path(tempfile.gettempdir()).glob(f"{STATE_PREFIX}*/{SESSION_LOCK}"):
        if lock.parent.lstat().st_uid != os.geteuid():
            continue
        with suppress(filelock.Timeout), filelock.FileLock(lock, timeout=0):
            assert clean(lock.parent, include_kept=True)[1] == ()
            shutil.rmtree(lock.parent)
    with tempfile.TemporaryDirectory(prefix=STATE_PREFIX) as folder, pytest.MonkeyPatch.context() as patch:
        Path(folder).chmod(0o755)
        patch.setenv(STATE_ENV, folder)
        with filelock.FileLock(Path(folder) / SESSION_LOCK, timeout=0):
            yield Path(folder)
            assert clean(Path(folder), include_kept=True)[1] == ()


@pytest.fixture(scope="session")
def binaries() -> Binaries:
    return Binaries()


@pytest.fixture(scope="session")
def kind_engine(live_state: Path, binaries: Binaries) -> Iterator[Engine]:
    """A container engine with a node image: the machine's own, its user's private one, or one for the tests.

    What tests start uses it too.
    """
    with pytest.MonkeyPatch.context() as patch, ended_as_by_ctrl_c():
        try:
            engine = find_engine(private_socket(platformdirs.user_state_path("kilonode")))
        except MissingRequirementError:
            engine = start_private_docker(live_state)
        if engine.host:
            patch.setenv(DOCKER_HOST_ENV, engine.host)
        binaries.ensure_all([binaries.request(name) for name in HOST_PROGRAMS])
        node_image(engine, binaries, lambda step: None)
        yield engine
        assert clean(live_state, include_kept=True)[1] == ()


@pytest.fixture(scope="session")
def ledger(live_state: Path) -> Iterator[Ledger]:
    """Everything shared stands in it; a test session that is ended with SIGTERM removes it too."""
    with ended_as_by_ctrl_c():
        begun = Ledger.begin(live_state)
        yield begun
        assert begun.finish() == ()


@pytest.fixture(scope="session")
def started(ledger: Ledger, binaries: Binaries) -> tuple[EmbeddedCluster, float]:
    """A control plane, and the seconds that its start took."""
    binaries.ensure_all(list(binaries.defaults()))
    begin_s = time.monotonic()
    plane = EmbeddedCluster.start(ledger, binaries)
    return plane, time.monotonic() - begin_s


@pytest.fixture(scope="session")
def cluster(started: tuple[EmbeddedCluster, float]) -> EmbeddedCluster:
    return started[0]


@pytest.fixture(scope="session")
def fakes(cluster: EmbeddedCluster) -> Fleet:
    """The shared cluster's fake nodes; a test grows it to what it needs and finds it at any size."""
    return Fleet(cluster.endpoint, kubelet_version=cluster.version)


@pytest.fixture(scope="session")
def copies(ledger: Ledger) -> CopyPool:
    return CopyPool(ledger.folder / "copies")


@pytest.fixture(scope="session")
def serving(
    cluster: EmbeddedCluster, binaries: Binaries, ledger: Ledger, copies: CopyPool
) -> Callable[[RealNodeSpec, str], AbstractContextManager[HostNode]]:
    """``serving(spec, name)`` surrounds its body with a real node that runs kube-proxy."""

    @contextmanager
    def node(spec: RealNodeSpec, name: str) -> Iterator[HostNode]:
        made = HostNode.prepare(spec, name, cluster=cluster, binaries=binaries, ledger=ledger, pool=copies)
        try:
            made.boot()
            made.start_kube_proxy()
            yield made
        finally:
            made.stop()

    return node


VOLATILE_SYSCTLS = re.compile(
    r"kernel/(random|ns_last_pid|pty/nr|sched_domain)|fs/(\w+-(state|nr)|aio-nr|quota)|net/netfilter/nf_conntrack"
    r"|vm/(drop_caches|compact_memory|stat_refresh)"
)
SYSTEM_FOLDERS = ("/run", "/var/lib", "/var/log", "/etc", "/opt", "/dev/shm")  # noqa: S108
VOLATILE_FILES = re.compile(r"/run/(udev|systemd|user|netns)/|/var/(log/journal|lib/(apt|systemd))/")
COUNTERS = re.compile(r"packets \d+ bytes \d+")
STORY_ENV = "KILONODE_STORY"


@dataclass(frozen=True)
class Machine:
    """What runs may leave on a machine, counted; two that are equal differ in nothing of it."""

    processes: frozenset[tuple[int, str]]
    netns: frozenset[str]
    links: frozenset[str]
    routes: frozenset[str]
    cgroups: frozenset[str]
    mounts: frozenset[str]
    sysctls: frozenset[tuple[str, str]]
    rules: str
    files: frozenset[str]

    @classmethod
    def now(cls, stories: Path, live_state: Path) -> Machine:
        """``stories`` is the folder of stories, whose processes are known by it.

        Their homes and folders for temporary files stay empty.
        """
        netns = Path("/run/netns")
        cgroups = Path("/sys/fs/cgroup").glob("**/kilonode-*")
        states = (path.relative_to(live_state).as_posix() for path in live_state.glob("**/*"))
        own = [path for name in ("home", "tmp") for path in stories.glob(f"*/{name}/**/*")]
        walks = (walk for root in SYSTEM_FOLDERS for walk in os.walk(root))
        system = (Path(top, name) for top, _, names in walks for name in names)
        return cls(
            processes=frozenset(_processes_of(stories)),
            netns=frozenset(path.name for path in netns.iterdir()) if netns.is_dir() else frozenset(),
            links=frozenset(path.name for path in Path("/sys/class/net").iterdir()),
            routes=frozenset(run(["ip", "route", "list", "table", "all"]).text.splitlines()),
            cgroups=frozenset(map(str, cgroups)),
            mounts=frozenset(line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()),
            sysctls=frozenset(_sysctls()),
            rules=COUNTERS.sub("", run(["nft", "list", "ruleset"]).text),
            files=frozenset(str(path) for path in (*own, *system) if not VOLATILE_FILES.match(str(path)))
            | frozenset(f"state: {path}" for path in states if path.count("/") < 2),
        )

    def beyond(self, before: Machine) -> dict[str, object]:
        """What is here and was not ``before``, or is otherwise; empty where nothing is."""
        found: dict[str, object] = {}
        for each in fields(self):
            then, now = getattr(before, each.name), getattr(self, each.name)
            if then != now:
                found[each.name] = now ^ then if isinstance(now, frozenset) else now
        return found


def _processes_of(stories: Path) -> Iterator[tuple[int, str]]:
    """Those that stories started, known by the environment that children inherit."""
    told = f"{STORY_ENV}={stories}/".encode()
    for proc in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if told in (proc / "environ").read_bytes():
                yield int(proc.name), (proc / "cmdline").read_bytes().replace(b"\0", b" ").decode()


def _sysctls() -> Iterator[tuple[str, str]]:
    root = Path("/proc/sys")
    for path in root.glob("**/*"):
        key = path.relative_to(root).as_posix()
        if path.is_file() and not VOLATILE_SYSCTLS.match(key):
            with suppress(OSError, UnicodeDecodeError):
                yield key, path.read_text()


@dataclass(frozen=True)
class Story:
    """pytest, run on a file of its own as a user would, in a process of its own."""

    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def latest(self) -> Path:
        return self.folder / "runs" / "latest"

    @property
    def output(self) -> str:
        return (self.folder / "output.txt").read_text(errors="replace")

    def end(self, timeout_s: float = STORY_TIMEOUT_S) -> int:
        """Its exit status."""
        return self.process.wait(timeout_s)

    def wait_until_measuring(self) -> None:
        """Return in the middle of a measurement, two seconds or more before its end."""

        def begun() -> bool | None:
            assert self.process.poll() is None, self.output
            return any(self.latest.glob("*/result.json")) or None

        wait_until(
            begun,
            what="a measurement",
            timeout_s=STORY_TIMEOUT_S,
            interval_s=0.05,
            describe=lambda: self.output,
        )


@pytest.fixture
def tell(tmp_path: Path, live_state: Path) -> Iterator[Callable[..., Story]]:
    """``tell(source, *options)`` starts pytest on a test file with that source.

    Stories that are told at once need names of their own.
    """
    with ExitStack() as stack:

        def start(source: str, *options: str, name: str = "story") -> Story:
            folder = tmp_path / name
            for each in (folder, folder / "home", folder / "tmp"):
                each.mkdir(exist_ok=True)
            (folder / "test_story.py").write_text(source)
            (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
            output = stack.enter_context((folder / "output.txt").open("wb"))
            process = subprocess.Popen(
                [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options],
                cwd=folder,
                env={
                    **os.environ,
                    STATE_ENV: str(live_state),
                    STORY_ENV: str(folder),
                    CACHE_VARIABLE: str(default_root()),
                    "HOME": str(folder / "home"),
                    "TMPDIR": str(folder / "tmp"),
                    "MPLCONFIGDIR": str(folder / "matplotlib"),
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            stack.callback(_put_down, process)
            return Story(folder, process)

        yield start


def _put_down(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


@pytest.fixture
def runs_now(live_state: Path) -> Callable[[], frozenset[str]]:
    """``runs_now()``: the ids of all runs in the tests' state folder, that of a kept engine among them."""
    return lambda: frozenset(folder.name for folder in (live_state / "runs").glob("*"))


@pytest.fixture
def machine_now(tmp_path: Path, live_state: Path) -> Callable[[], Machine]:
    """``machine_now()``: what is on the machine, by the processes of this test's stories and by name."""
    return lambda: Machine.now(tmp_path, live_state)

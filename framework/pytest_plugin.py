"""The pytest face: options, fixtures, skips with a remedy, and the table at the end. Thin on purpose.

``lab`` lives for the session; ``fleet``, ``real_node`` and ``daemonset_service`` are what scenarios use. A
requirement that this machine lacks is a skip that names the remedy, and a failure with --strict-env. A
measurement that no test checked fails its test: measuring and asserting nothing is a defect.
"""

from __future__ import annotations

import io
import os
import shlex
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from traceback import extract_tb
from typing import Any, Final, TextIO, get_args

import msgspec
import pytest
from rich.console import Console

from framework.binaries import Binaries
from framework.capture import Clock
from framework.cluster import HOST_PROGRAMS, ExistingCluster, ExistingSettings, KindSettings
from framework.command_lab import open_lab
from framework.errors import BadInputError, KilonodeError, LeftOutError, MissingRequirementError
from framework.lab import ClusterKind, Lab, LabSettings
from framework.measurement import RealNode
from framework.outcome import RunResult
from framework.page import write_report
from framework.profiles import PROFILES, parse_ballast
from framework.report import PhaseDisplay, ResultsTable, Row, reason_lines
from framework.spec import AskedMode, Ballast, RealNodeSpec, require_count, require_version
from framework.units import parse_bytes, parse_count
from framework.versioned_file import nearest_there
from framework.workload import DaemonSetService, ManyServices

DEFAULT_MAX_NODES: Final = "10k"
DEFAULT_MODE: Final[AskedMode] = "auto"
CI_COLUMNS: Final = 80


@dataclass
class _State:
    """What the plugin collects over a session."""

    settings: LabSettings
    kube_proxies: tuple[str, ...]
    chosen: bool
    runs: Path
    strict: bool
    lab: Lab | None = None
    results: list[RunResult] = field(default_factory=list)
    skipped: list[Row] = field(default_factory=list)


_STATE: Final = pytest.StashKey[_State]()
_TERMINAL: Final = pytest.StashKey[TextIO]()


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, Any, Any]:
    """Keep a way to the real standard output, before pytest starts to capture it.

    There is none where pytest runs inside a program that replaced sys.stdout.
    """
    with suppress(io.UnsupportedOperation):
        early_config.stash[_TERMINAL] = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    return (yield)


def pytest_unconfigure(config: pytest.Config) -> None:
    terminal = config.stash.get(_TERMINAL, None)
    if terminal is not None:
        terminal.close()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("kilonode", "kilonode: real Kubernetes nodes at scale")
    group.addoption(
        "--max-nodes",
        default=DEFAULT_MAX_NODES,
        metavar="N",
        help="largest fleet of fake nodes, such as 1k or 10_000; larger scenarios are skipped (default 10k)",
    )
    group.addoption(
        "--cluster",
        default="embedded",
        choices=get_args(ClusterKind),
        help="control plane: embedded starts one with kwokctl's binary runtime (default); kind makes one of "
        "containers, whose workers are the real nodes; existing is the one that --kubeconfig and --context "
        "name",
    )
    group.addoption(
        "--kubeconfig", default="", metavar="FILE", help="kubeconfig of --cluster existing; required there"
    )
    group.addoption(
        "--context",
        default="",
        metavar="NAME",
        help="context of --cluster existing; required there, the current one is never taken",
    )
    group.addoption(
        "--real-node",
        action="append",
        metavar="NAME",
        help="node of --cluster existing that scenarios may look at, may be given again; nothing of it is "
        "changed",
    )
    group.addoption(
        "--node-command",
        default="",
        metavar="PREFIX",
        help='how to run a program on a real node of --cluster existing, such as "docker exec {node}" or '
        '"ssh root@{node}" (default: not at all, what would be read so is unknown)',
    )
    group.addoption(
        "--dry-run",
        action="store_true",
        help="print what would be created in --cluster existing for a fleet of --max-nodes, and create "
        "nothing",
    )
    group.addoption(
        "--kind-image",
        default="",
        metavar="IMAGE",
        help="node image of --cluster kind (default: the one of `kilonode kind-image` if it is here, else "
        "kind's own)",
    )
    group.addoption(
        "--kind-workers",
        default=str(KindSettings().workers),
        metavar="N",
        help="workers of --cluster kind, which are as many real nodes at once "
        f"(default {KindSettings().workers})",
    )
    group.addoption(
        "--kube-proxy",
        action="append",
        metavar="VERSION",
        help="exact kube-proxy version to measure, may be given again (default: the pinned ones)",
    )
    group.addoption(
        "--endpoint-mode",
        default=DEFAULT_MODE,
        choices=get_args(AskedMode),
        help="native: the real DaemonSet controller makes pods; adopted: pods made in bulk and adopted by "
        "it; endpointslices: slices written directly, no pods; auto (default): native up to 1,000 endpoints, "
        "adopted up to 10,000",
    )
    group.addoption(
        "--all-cells",
        action="store_true",
        help="also measure what a default run leaves out: whole matrices, and every pinned kube-proxy",
    )
    group.addoption(
        "--keep",
        action="store_true",
        help="leave the cluster in place for a look; `kilonode clean` removes it",
    )
    group.addoption(
        "--runs-dir", default="runs", metavar="DIR", help="where run folders are written (default runs)"
    )
    group.addoption(
        "--strict-env",
        action="store_true",
        help="fail instead of skip where this machine lacks something; for nightly jobs",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "all_cells: measured only with --all-cells")
    config.addinivalue_line(
        "markers", "all_versions: kube_proxy is every pinned version, not only the default ones"
    )
    try:
        config.stash[_STATE] = _read_options(config)
    except BadInputError as error:
        raise pytest.UsageError(str(error)) from error


def _read_options(config: pytest.Config) -> _State:
    max_nodes = parse_count(config.getoption("--max-nodes"), where="--max-nodes")
    versions = config.getoption("--kube-proxy")
    binaries = Binaries()
    chosen = tuple(
        dict.fromkeys(require_version(version, where="--kube-proxy") for version in versions or ())
    )
    for version in chosen if config.getoption("--cluster") != "existing" else ():
        binaries.check_skew(version)
    return _State(
        settings=LabSettings(
            max_nodes=require_count(max_nodes, where="--max-nodes"),
            cluster=config.getoption("--cluster"),
            mode=config.getoption("--endpoint-mode"),
            keep=config.getoption("--keep"),
            existing=_existing(config),
            kind=KindSettings(
                image=config.getoption("--kind-image"),
                workers=parse_count(config.getoption("--kind-workers"), where="--kind-workers"),
            ),
        ),
        chosen=bool(chosen),
        kube_proxies=chosen or binaries.default_kube_proxies(),
        runs=_runs(Path(config.getoption("--runs-dir"))),
        strict=config.getoption("--strict-env"),
    )


def _runs(folder: Path) -> Path:
    there = nearest_there(folder)
    if not there.is_dir():
        raise BadInputError(f"{there} is no folder", where="--runs-dir", remedy="give another one")
    return folder


_FOR_EXISTING: Final = ("--kubeconfig", "--context", "--real-node", "--node-command", "--dry-run")


def _existing(config: pytest.Config) -> ExistingSettings | None:
    if config.getoption("--cluster") != "existing":
        given = [option for option in _FOR_EXISTING if config.getoption(option)]
        if given:
            raise BadInputError(
                f"{', '.join(given)} are about a cluster that was there before",
                where="--cluster",
                remedy="give --cluster existing too",
            )
        return None
    return ExistingSettings(
        kubeconfig=config.getoption("--kubeconfig"),
        context=config.getoption("--context"),
        real_nodes=tuple(config.getoption("--real-node") or ()),
        node_command=config.getoption("--node-command"),
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """With --dry-run nothing is measured: what would be created is printed instead."""
    state = session.config.stash[_STATE]
    if state.settings.existing is None or not session.config.getoption("--dry-run"):
        return None
    try:
        plan = ExistingCluster.dry_run(
            state.settings.existing,
            state.settings.max_nodes,
            kwok_version=Binaries().request("kwok").version,
        )
    except KilonodeError as error:
        raise pytest.UsageError(str(error)) from error
    _console(session.config).print(str(plan), highlight=False, soft_wrap=True)
    return True


@pytest.hookimpl(trylast=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``kube_proxy`` is every asked version, after the test's own parameters, unless it is one of them."""
    own = {name for mark in metafunc.definition.iter_markers("parametrize") for name in _names(mark)}
    if "kube_proxy" not in metafunc.fixturenames or "kube_proxy" in own:
        return
    state = metafunc.config.stash[_STATE]
    versions = state.kube_proxies
    if not state.chosen and metafunc.definition.get_closest_marker("all_versions"):
        versions = Binaries().pinned_kube_proxies()
    cells = [
        pytest.param(
            version,
            id=f"kube_proxy-{version}",
            marks=() if version in state.kube_proxies else pytest.mark.all_cells,
        )
        for version in versions
    ]
    metafunc.parametrize("kube_proxy", cells)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--all-cells"):
        return
    left_out = pytest.mark.skip(reason="a default run leaves it out. Remedy: give --all-cells")
    for item in items:
        if item.get_closest_marker("all_cells"):
            item.add_marker(left_out)


def _names(mark: pytest.Mark) -> list[str]:
    names = mark.args[0] if mark.args else mark.kwargs["argnames"]
    return [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    return (yield from _skipping(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    return (yield from _skipping(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    return (yield from _skipping(item))


def _skipping(item: pytest.Item) -> Generator[None, Any, Any]:
    state = item.config.stash[_STATE]
    try:
        return (yield)
    except MissingRequirementError as error:
        if state.strict and not isinstance(error, LeftOutError):
            pytest.fail(f"--strict-env: {error}", pytrace=False)
        _note_skip(item, state, str(error))
        pytest.skip(str(error))
    except Exception as error:
        lost = state.lab.lost_cluster() if state.lab is not None else None
        told = lost or (error if isinstance(error, KilonodeError) else None)
        if told is None:
            raise
        failure = f"{_place_in(item, error)}{told}"
    pytest.fail(failure, pytrace=False)


def _place_in(item: pytest.Item, error: BaseException) -> str:
    """Where in the test's own file an error came from; empty where it came from elsewhere."""
    lines = [frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename == str(item.path)]
    return f"{item.path.name}:{lines[-1]}: " if lines else ""


def _note_skip(item: pytest.Item, state: _State, reason: str) -> None:
    callspec = getattr(item, "callspec", None)
    params = callspec.params if callspec is not None else {}
    state.skipped.append(
        Row(
            name=item.name,
            endpoints=params.get("endpoints") if "kube_proxy" in params else None,
            kube_proxy=params.get("kube_proxy", ""),
            limit_bytes=None,
            verdict="skipped",
            reasons=(reason,),
        )
    )


@pytest.fixture(scope="session")
def lab(pytestconfig: pytest.Config) -> Iterator[Lab]:
    """The session's shared control plane and fleet; removed at its end."""
    if hasattr(pytestconfig, "workerinput"):
        pytest.fail("kilonode doesn't measure under xdist: workers would share the machine", pytrace=False)
    state = pytestconfig.stash[_STATE]
    console = _console(pytestconfig)
    binaries = Binaries()
    wanted = [*binaries.defaults(), *(binaries.request("kube-proxy", v) for v in state.kube_proxies)]
    if state.settings.existing is not None:
        wanted = []
    if state.settings.cluster == "kind":
        wanted += [binaries.request(name) for name in HOST_PROGRAMS]
    with open_lab(
        state.settings,
        wanted,
        binaries=binaries,
        runs=state.runs,
        command=["pytest", *map(str, pytestconfig.invocation_params.args)],
        console=console,
        reporter=PhaseDisplay(console),
    ) as state.lab:
        yield state.lab


@dataclass(frozen=True)
class FleetFixture:
    """The session's fake nodes, as scenarios see them."""

    lab: Lab

    @property
    def size(self) -> int:
        return self.lab.fleet.size

    def grow_to(self, nodes: int) -> None:
        """Have at least ``nodes`` fake nodes, Ready, with leases."""
        self.lab.grow_fleet(nodes)

    def require(self, nodes: int) -> None:
        """Skip, with the remedy, where --max-nodes allows fewer: for a story of which this is one half."""
        self.lab.require_allowed(nodes)

    def set_to(self, nodes: int) -> None:
        """Have exactly ``nodes`` fake nodes, which may be 0; before real nodes and Services are made."""
        self.lab.set_fleet(nodes)


@pytest.fixture
def fleet(lab: Lab, _live_view: None) -> FleetFixture:
    """Fake nodes; they stay for the session."""
    return FleetFixture(lab)


@pytest.fixture
def daemonset_service(lab: Lab, _live_view: None) -> Iterator[Callable[..., DaemonSetService]]:
    """``daemonset_service(endpoints=N, mode=None, ports=(80,), ...)``: a Service with an endpoint on N nodes.

    Whatever else a ``ServiceSpec`` has can be given: ``protocol``, ``session_affinity``, ``dual_stack``,
    ``services``, ``internal_traffic_policy``, ``traffic_distribution``, ``headless``. Its pods are Ready when
    it is returned. ``node.program(service)`` creates the Service itself; after the test it is withdrawn and
    the pods stay for the next test.
    """
    made: list[DaemonSetService] = []

    def make(**wanted: Any) -> DaemonSetService:
        made.append(lab.service(**wanted))
        return made[-1]

    yield make
    for service in made:
        lab.release(service)


@pytest.fixture
def many_services(lab: Lab, _live_view: None) -> Iterator[Callable[..., ManyServices]]:
    """``many_services(count=N, endpoints_each=2, ports=(80,))``: N Services with endpoints of their own.

    ``node.program(services)`` creates them; after the test they are withdrawn.
    """
    made: list[ManyServices] = []

    def make(*, count: int, endpoints_each: int, ports: tuple[int, ...] = (80,)) -> ManyServices:
        made.append(lab.many_services(count=count, endpoints_each=endpoints_each, ports=ports))
        return made[-1]

    yield make
    for services in made:
        lab.release(services)


@pytest.fixture
def real_node(
    request: pytest.FixtureRequest, lab: Lab, _live_view: None
) -> Iterator[Callable[..., RealNode]]:
    """``real_node(memory="2GiB", kube_proxy="1.35.0")``: a fresh node, removed after the test.

    Ready through its own kubelet, kube-proxy in sync with an idle cluster. ``ballast`` is what else runs on
    it: a size (``"300MiB"``, of a system daemon), a profile (``"ordinary"``), or Ballast objects.
    ``oom_policy``, ``restart``, ``text``, ``proxy_mode`` and ``kube_proxy_config`` are those of RealNodeSpec.
    The nodes of one test tell their times on one clock.
    """
    state = request.config.stash[_STATE]
    nodes: list[RealNode] = []
    repro = f"pytest {shlex.quote(request.node.nodeid)} {_asked_again(request.config)}"
    clock = Clock.start()

    def make(
        *, memory: str, kube_proxy: str, ballast: str | Sequence[Ballast] = (), **options: Any
    ) -> RealNode:
        spec = _node_spec(
            memory_bytes=parse_bytes(memory),
            kube_proxy=require_version(kube_proxy, where="kube_proxy"),
            ballast=_ballast(ballast),
            ballast_profile=ballast if isinstance(ballast, str) and ballast in PROFILES else "",
            **options,
        )
        nodes.append(RealNode.start(lab, spec, test_id=request.node.nodeid, repro=repro, clock=clock))
        return nodes[-1]

    yield make
    _finish(nodes, state, request.node)


def _asked_again(config: pytest.Config) -> str:
    """The options of this session that decide what is measured, as one would type them again."""
    state = config.stash[_STATE]
    words = ["--max-nodes", str(state.settings.max_nodes)]
    for version in state.kube_proxies if state.chosen else ():
        words += ["--kube-proxy", version]
    if state.settings.mode != DEFAULT_MODE:
        words += ["--endpoint-mode", state.settings.mode]
    if state.settings.cluster != "embedded":
        words += ["--cluster", state.settings.cluster]
    if state.settings.existing is not None:
        existing = state.settings.existing
        words += [
            "--kubeconfig",
            shlex.quote(existing.kubeconfig),
            "--context",
            shlex.quote(existing.context),
        ]
        for name in existing.real_nodes:
            words += ["--real-node", name]
        if existing.node_command:
            words += ["--node-command", shlex.quote(existing.node_command)]
    if state.settings.kind.image:
        words += ["--kind-image", state.settings.kind.image]
    if config.getoption("--all-cells"):
        words.append("--all-cells")
    return " ".join(words)


def _node_spec(**asked: Any) -> RealNodeSpec:
    try:
        return msgspec.convert(asked, RealNodeSpec)
    except msgspec.ValidationError as error:
        raise BadInputError(
            f"no such node: {error}",
            where="real_node",
            remedy=f"it has {', '.join(RealNodeSpec.__struct_fields__)}",
        ) from error


def _ballast(asked: str | Sequence[Ballast]) -> Sequence[Ballast]:
    if not isinstance(asked, str):
        return asked
    return parse_ballast(asked) if asked else ()


def _finish(nodes: list[RealNode], state: _State, item: pytest.Item) -> None:
    measurements = [measurement for node in nodes for measurement in node.measurements]
    for node in nodes:
        node.stop()
    for measurement in measurements:
        state.results.append(measurement.result)
        item.user_properties += _properties(measurement.result)
    state.results += [result for node in nodes for result in node.broken]
    if any(not measurement.checked for measurement in measurements):
        pytest.fail("measured, but nothing was asserted: call measurement.expect(...)", pytrace=False)


def _properties(result: RunResult) -> list[tuple[str, object]]:
    outcome = result.outcome
    if outcome is None:
        return []
    peak, charged = outcome.nft_bytes_peak, outcome.charged_bytes_peak
    return [
        ("outcome", outcome.programming),
        ("verdict", result.verdict.result if result.verdict else "unchecked"),
        ("nft_bytes_peak", peak.value if peak else None),
        ("charged_bytes_peak", charged.value if charged else None),
        ("sync_s", outcome.sync_s),
    ]


@pytest.fixture
def _live_view(lab: Lab, pytestconfig: pytest.Config) -> Iterator[None]:
    with PhaseDisplay(_console(pytestconfig)) as display:
        lab.reporter = display
        yield


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    state = config.stash[_STATE]
    if not (state.results or state.skipped):
        return
    terminal = _console(config)
    text = io.StringIO()
    console = Console(
        file=text,
        width=terminal.width,
        force_terminal=terminal.is_terminal,
        color_system=terminal.color_system if terminal.is_terminal else None,  # type: ignore[arg-type]
    )
    if state.lab is None:
        console.print(*reason_lines(state.skipped), sep="\n")
        terminalreporter.section("not measured")
    else:
        folder = state.lab.run_folder
        page, refusal = _report(state)
        console.print(ResultsTable(state.results, folder.path, state.skipped, page))
        if refusal:
            console.print(refusal, highlight=False)
        terminalreporter.section("endpoints x kube-proxy")
    terminalreporter.write(text.getvalue())


def _report(state: _State) -> tuple[Path | None, str]:
    """The page of a run that measured something; why there is none, as on a disk that is full."""
    assert state.lab is not None  # noqa: S101 - only then there is a run folder
    if not state.results:
        return None, ""
    folder = state.lab.run_folder
    try:
        return write_report(folder.path, state.results, folder.session), ""
    except KilonodeError as error:
        return None, f"No report: {error}"


def _console(config: pytest.Config) -> Console:
    """The real terminal, which pytest's capture does not swallow."""
    file = config.stash.get(_TERMINAL, sys.stderr)
    return Console(file=file, width=None if file.isatty() else CI_COLUMNS)

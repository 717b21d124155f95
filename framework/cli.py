"""The few commands that are not a test run: what is here, get it, look at results, clean up.

A measurement is a pytest run (``pytest -k scenario``). An error that the user can mend is one line with its
remedy and an exit status that a script can tell apart: 2 for a refused value, 3 for what this machine lacks,
1 for anything else.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from framework import ledger, preflight, private_docker
from framework.binaries import Binaries, Binary, ExplicitPathError, Request, show_progress
from framework.claims import ClaimsTable, judge_claims, load_claims
from framework.cluster import HOST_PROGRAMS, kind
from framework.containers import Engine, find_engine
from framework.errors import BadInputError, KilonodeError, MissingRequirementError
from framework.fleet import Snapshots
from framework.report import ResultsTable, SideBySide, StepDisplay, load_run
from framework.signals import ended_as_by_ctrl_c
from framework.spec import require_version
from framework.stages import StagesRun, StagesTable, load_stages, write_stages
from framework.twin import profile_files, profile_twins
from framework.units import mib, parse_count

EXIT_FAILED: Final = 1
EXIT_BAD_INPUT: Final = 2
EXIT_MISSING: Final = 3
RUNS: Final = Path("runs")
DIGEST_CHARS: Final = 12
NOT_HERE: Final = "not here yet"
PLAIN_COLUMNS: Final = 100

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    add_completion=False,
)


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """One executable as ``kilonode binaries`` lists it. ``problem`` says why it is not ``present``."""

    name: str
    version: str
    default: bool
    present: bool
    source: str = ""
    toolchain: str = ""
    sha256: str = ""
    path: str = ""
    problem: str = ""


def main() -> None:
    """The console script ``kilonode``."""
    try:
        app()
    except KilonodeError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(exit_status(error))


def exit_status(error: KilonodeError) -> int:
    """2 for a value that was refused, 3 for what this machine lacks, else 1."""
    match error:
        case BadInputError():
            return EXIT_BAD_INPUT
        case MissingRequirementError():
            return EXIT_MISSING
        case _:
            return EXIT_FAILED


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"kilonode {version('kilonode')}")
        raise typer.Exit


@app.callback()
def kilonode(
    show_version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Show the version.")
    ] = False,
) -> None:
    """What a Kubernetes node pays when its cluster grows to 100,000 nodes.

    Measuring is a pytest run: `pytest -k scenario --max-nodes 1k`. The commands here get a machine ready,
    show what was measured and remove what a run left.
    """


@app.command()
def setup(
    profiler: Annotated[
        bool, typer.Option("--profiler", help="Install valgrind too, which `kilonode stages` needs.")
    ] = False,
    with_kind: Annotated[
        bool,
        typer.Option(
            "--kind", help="Get what `--cluster kind` needs too: docker where none is, kind, kubeadm."
        ),
    ] = False,
) -> None:
    """Get this machine ready: Debian packages, then every executable of a default run.

    Start it as often as you like; where nothing is missing it ends at once. Packages are installed only as
    root. Executables are downloaded, or built with Go where there is no internet, into
    $KILONODE_CACHE_DIR (by default ~/.cache/kilonode).
    """
    console = _console()
    _install(preflight.missing_packages(profiler=profiler), console)
    preflight.require_programs()
    binaries = Binaries()
    wanted = list(binaries.defaults())
    if with_kind:
        if _answering_engine() is None:
            for packages in private_docker.missing_packages():
                _install(packages, console)
        _install(kind.missing_packages(), console)
        wanted += [*map(binaries.request, HOST_PROGRAMS), *kind.node_image_requests(binaries)]
    with show_progress(console) as progress:
        found = binaries.ensure_all(list(dict.fromkeys(wanted)), progress=progress)
    console.print(f"ready: {len(found)} executables in {binaries.root}", highlight=False, soft_wrap=True)


def _install(packages: Sequence[str], console: Console) -> None:
    """Install Debian packages, if any and if this process may."""
    if packages and preflight.can_install():
        console.print(f"installing {', '.join(packages)} with apt-get", highlight=False)
        preflight.install_packages(packages)


@app.command("binaries")
def list_binaries(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME@VERSION", help="Only these, such as kube-proxy@1.36.1."),
    ] = None,
    fetch: Annotated[
        bool,
        typer.Option("--fetch", help="Get what is not here: those named, else what a default run needs."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, with full digests and paths.")] = False,
) -> None:
    """List every executable: pinned, installed, and the distribution's own programs.

    Results depend on exact versions and even on the Go release that built a binary, so each is listed with
    its source, toolchain and digest. `kilonode binaries --fetch kube-proxy@1.36.1` gets one more version;
    KILONODE_KUBE_PROXY_1_36_1=/path takes your own.
    """
    binaries = Binaries()
    requests = [_request(binaries, name) for name in names or ()]
    if fetch:
        with show_progress(Console(stderr=True)) as progress:
            binaries.ensure_all(requests or binaries.defaults(), progress=progress)
    rows = [_row(binaries, request) for request in requests or _known(binaries)]
    if not requests:
        rows += [_system_row(binaries, name) for name in binaries.pins.system]
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(rows)).decode())
    else:
        _console().print(_table(rows))


@app.command()
def show(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="Runs' folders, or their names in runs/.")
    ] = None,
) -> None:
    """Show the results of a run again, as the table that ended it; those of several side by side.

    Runs on several kinds of cluster (`--cluster`) are compared cell by cell: nft's peak has to be the same.
    """
    folders = [_run_folder(run) for run in runs or ["latest"]]
    if len(folders) == 1:
        _console().print(ResultsTable(load_run(folders[0]), folders[0].resolve()))
    else:
        _console().print(SideBySide([result for folder in folders for result in load_run(folder)]))


@app.command("claims")
def list_claims(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="Runs' folders, or their names in runs/.")
    ] = None,
    stages: Annotated[
        list[Path] | None,
        typer.Option(
            "--stages", metavar="FILE", help="What `kilonode stages --json` wrote; may be repeated."
        ),
    ] = None,
) -> None:
    """Judge what others have stated by what was measured: confirmed, refuted, or not measured.

    The statements are those of an article about nftables at 100,000 nodes, with the conditions under which
    each is judged. All of them take `pytest -k scenario --max-nodes 100k` and `kilonode stages`; without RUN
    the last run is read.
    """
    profiled = [run for path in stages or [] for run in load_stages(path).runs]
    results = [result for run in runs or ["latest"] for result in load_run(_run_folder(run))]
    claims = load_claims()
    _console().print(ClaimsTable(claims, judge_claims(claims, results, profiled)))


@app.command("stages")
def profile_stages(
    kube_proxies: Annotated[
        list[str] | None,
        typer.Option("--kube-proxy", metavar="VERSION", help="Exact version; may be repeated."),
    ] = None,
    endpoints: Annotated[
        list[str] | None,
        typer.Option("--endpoints", metavar="N", help="Such as 1k; may be repeated (default 1k)."),
    ] = None,
    transactions: Annotated[
        list[Path] | None,
        typer.Option(
            "--transaction",
            metavar="FILE",
            help="Profile a transaction that you have; if repeated, the last one, loaded after the others.",
        ),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the figures to FILE too.")
    ] = None,
) -> None:
    """Profile where nft's memory is when it loads a Service: parsed tree, objects, netlink buffer.

    A real kube-proxy programs a Service on a twin node, whose nft keeps what it is given; the real nft loads
    that again under massif (`kilonode setup --profiler`), and once more without it. 100,000 endpoints of
    kube-proxy 1.35 take two minutes and 4 GiB.
    """
    console = _console()
    found: tuple[StagesRun, ...]
    if transactions and (kube_proxies or endpoints):
        raise BadInputError(
            "a transaction from a file has no twin",
            where="--transaction",
            remedy="give it without --kube-proxy and --endpoints",
        )
    if transactions:
        found = (profile_files(transactions),)
    else:
        binaries = Binaries()
        versions = [require_version(version, where="--kube-proxy") for version in kube_proxies or ()]
        sizes = [parse_count(size, where="--endpoints") for size in endpoints or ["1k"]]
        found = profile_twins(
            binaries,
            versions or binaries.default_kube_proxies(),
            sizes,
            runs=RUNS,
            console=Console(stderr=True),
        )
    if json_file is not None:
        write_stages(json_file, found)
    console.print(StagesTable(found))


def _run_folder(run: str) -> Path:
    return Path(run) if Path(run).is_dir() else RUNS / run


@app.command("snapshots")
def list_snapshots(
    clear: Annotated[bool, typer.Option("--clear", help="Remove them all, unfinished ones too.")] = False,
) -> None:
    """List the fleets that are kept on disk, or remove them.

    A fleet of 2,000 nodes or more is registered once, saved, and restored by later runs. Together they stay
    below $KILONODE_SNAPSHOTS_MAX (4GiB by default); what was used longest ago goes first. They lie in
    $KILONODE_CACHE_DIR (by default ~/.cache/kilonode).
    """
    snapshots = Snapshots.below(Binaries().root)
    if clear:
        print(f"removed {mib(snapshots.clear())} MiB")
        return
    table = Table(
        box=box.SIMPLE_HEAD, caption=f"limit {mib(snapshots.limit_bytes)} MiB", caption_justify="left"
    )
    table.add_column("nodes", justify="right")
    table.add_column("MiB", justify="right")
    for header in ("made", "used", "kube-apiserver, etcd"):
        table.add_column(header)
    for snapshot in snapshots.all():
        manifest = snapshot.manifest
        table.add_row(
            f"{manifest.key.nodes:,}",
            mib(manifest.size_bytes),
            f"{manifest.made_utc[:16]} in {manifest.registered_s:.0f} s",
            snapshot.used_utc.isoformat(timespec="minutes")[:16],
            f"{manifest.key.kube_apiserver}, {manifest.key.etcd}",
        )
    _console().print(table)


@app.command("docker")
def start_docker() -> None:
    """Start a docker engine of its own for `--cluster kind`, where none runs.

    It changes nothing on the host: no firewall rules, no forwarding, no mounts. As root, missing Debian
    packages are installed. It runs until `kilonode clean`; its images are kept in $KILONODE_CACHE_DIR.
    """
    console = _console()
    engine = _answering_engine()
    if engine is None:
        for packages in private_docker.missing_packages():
            _install(packages, console)
        engine = _answering_engine()
    if engine is not None:
        place = f" at {engine.host}" if engine.host else ""
        console.print(
            f"{engine.program} {engine.version()} answers already{place}; nothing was started",
            highlight=False,
            soft_wrap=True,
        )
        return
    with ended_as_by_ctrl_c(), console.status("starting dockerd"):
        engine = private_docker.start_private_docker()
    console.print(f"docker {engine.version()} runs", highlight=False)
    console.print(private_docker.usage(engine), highlight=False, soft_wrap=True)


def _answering_engine() -> Engine | None:
    try:
        return find_engine(ledger.private_socket())
    except MissingRequirementError:
        return None


@app.command("kind-image")
def build_kind_image() -> None:
    """Build a node image for `--cluster kind` where no image registry can be reached.

    It is made of Debian packages, kind's Go module and the executables that are here, and loaded into docker
    or podman. Where the engine has it already, this ends at once. With internet access it is not needed.
    """
    console = _console()
    engine = find_engine(ledger.private_socket())
    binaries = Binaries()
    _install(kind.missing_packages(), console)
    with show_progress(console) as progress:
        binaries.ensure_all(kind.node_image_requests(binaries), progress=progress)
    with ended_as_by_ctrl_c(), StepDisplay(console) as on_step:
        image = kind.node_image(engine, binaries, on_step)
    console.print(f"ready: {image} ({mib(engine.image_bytes(image))} MiB)", highlight=False, soft_wrap=True)


@app.command()
def clean() -> None:
    """Remove what earlier runs left on this machine, kept clusters too.

    Processes, cgroups, network namespaces and files are known from the ledger that each run keeps. A run
    that still lives is left alone.
    """
    alive = [run.run_id for run in ledger.all_runs(ledger.state_root() / "runs") if run.state == "alive"]
    removed, failures = ledger.clean(include_kept=True)
    for run_id in removed:
        print(f"removed what run {run_id} left")
    for run_id in alive:
        print(f"left run {run_id} alone: it still lives")
    if not removed and not failures:
        print("nothing to remove")
    if failures:
        raise KilonodeError(
            f"could not remove {'; '.join(failures)}",
            where=str(ledger.state_root()),
            remedy="run `kilonode clean` as the user that measured (root), or remove it by hand",
        )


def _console() -> Console:
    """Standard output; as wide as its terminal, and wide enough for the tables in a pipe."""
    console = Console()
    return console if console.is_terminal else Console(width=PLAIN_COLUMNS)


def _request(binaries: Binaries, text: str) -> Request:
    name, _, version_text = text.partition("@")
    return binaries.request(name, version_text or None)


def _known(binaries: Binaries) -> list[Request]:
    """What is pinned, in the order of the pins, then what else is in the cache."""
    pinned = [
        Request(name, pinned) for name, pin in binaries.pins.binaries.items() for pinned in pin.versions
    ]
    installed = [Request(binary.name, binary.version) for binary in binaries.installed()]
    return list(dict.fromkeys([*pinned, *installed]))


def _row(binaries: Binaries, request: Request) -> Row:
    default = request in binaries.defaults()
    try:
        binary = binaries.find(request.name, request.version)
    except ExplicitPathError as error:
        return Row(request.name, request.version, default, present=False, problem=str(error))
    if binary is None:
        return Row(request.name, request.version, default, present=False, problem=NOT_HERE)
    return _present(binary, default)


def _system_row(binaries: Binaries, name: str) -> Row:
    try:
        return _present(binaries.system(name), default=True)
    except KilonodeError as error:
        return Row(name, "-", default=True, present=False, problem=str(error))


def _present(binary: Binary, default: bool) -> Row:
    return Row(
        binary.name,
        binary.version,
        default,
        present=True,
        source=binary.source,
        toolchain=binary.toolchain,
        sha256=binary.sha256,
        path=str(binary.path),
    )


def _table(rows: list[Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, caption="* what a default run needs", caption_justify="left")
    for header in ("", "name", "version", "source", "toolchain", "sha256"):
        table.add_column(header, no_wrap=header != "source")
    for row in rows:
        table.add_row(
            "*" if row.default else "",
            row.name,
            row.version,
            row.source or row.problem,
            row.toolchain or "-",
            row.sha256[:DIGEST_CHARS] or "-",
            style=None if row.present else "dim",
        )
    return table

"""Commands that get a machine ready, show what is on it, and remove what a run left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from framework import ledger, preflight, private_docker
from framework.binaries import Binaries, Binary, ExplicitPathError, Request, show_progress
from framework.cli.app import app, complete_requests, known_requests, plain_console
from framework.cluster import HOST_PROGRAMS, kind
from framework.containers import Engine, find_engine
from framework.errors import KilonodeError, MissingRequirementError
from framework.fleet import Snapshots
from framework.report import StepDisplay
from framework.signals import ended_as_by_ctrl_c
from framework.units import mib

DIGEST_CHARS: Final = 12
NOT_HERE: Final = "not here yet"


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


@app.command()
def setup(
    profiler: Annotated[
        bool, typer.Option("--profiler", help="Install valgrind too, which `kilonode stages` needs.")
    ] = False,
    browser: Annotated[
        bool, typer.Option("--browser", help="Install chromium too, in which tests open reports.")
    ] = False,
    with_kind: Annotated[
        bool,
        typer.Option(
            "--kind", help="Get what `--cluster kind` needs too: docker where none is, kind, kubeadm."
        ),
    ] = False,
) -> None:
    """Get this machine ready for measuring.

    Use it before the first run, and as often as you like: where nothing is missing it ends at once. Debian
    packages come first, which are installed only as root, then every executable of a default run. They are
    downloaded, or built with Go where there is no internet, into $KILONODE_CACHE_DIR (by default
    ~/.cache/kilonode).

    \b
    Examples:
      kilonode setup
      kilonode setup --profiler --kind
    """
    console = plain_console()
    _install(preflight.missing_packages(profiler=profiler, browser=browser), console)
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
        typer.Argument(
            metavar="[NAME@VERSION]...",
            help="Only these, such as kube-proxy@1.36.1.",
            autocompletion=complete_requests,
        ),
    ] = None,
    fetch: Annotated[
        bool,
        typer.Option("--fetch", help="Get what is not here: those named, else what a default run needs."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, with full digests and paths.")] = False,
) -> None:
    """List every executable with its version, source and digest.

    Use it where two machines disagree, or to get one more version. Results depend on exact versions and even
    on the Go release that built a binary, so all that is pinned, all that is installed and the distribution's
    own programs are listed. KILONODE_KUBE_PROXY_1_36_1=/path takes a binary of your own.

    \b
    Examples:
      kilonode binaries
      kilonode binaries --fetch kube-proxy@1.36.1
    """
    binaries = Binaries()
    requests = [_request(binaries, name) for name in names or ()]
    if fetch:
        with show_progress(Console(stderr=True)) as progress:
            binaries.ensure_all(requests or binaries.defaults(), progress=progress)
    rows = [_row(binaries, request) for request in requests or known_requests(binaries)]
    if not requests:
        rows += [_system_row(binaries, name) for name in binaries.pins.system]
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(rows)).decode())
    else:
        plain_console().print(_table(rows))


@app.command("snapshots")
def list_snapshots(
    clear: Annotated[bool, typer.Option("--clear", help="Remove them all, unfinished ones too.")] = False,
) -> None:
    """List the fleets that are kept on disk, or remove them.

    A fleet of 2,000 nodes or more is registered once, saved, and restored by later runs. Together they stay
    below $KILONODE_SNAPSHOTS_MAX (4GiB by default); what was used longest ago goes first. They lie in
    $KILONODE_CACHE_DIR (by default ~/.cache/kilonode). Use it to see what they take of the disk.

    \b
    Examples:
      kilonode snapshots
      kilonode snapshots --clear
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
    plain_console().print(table)


@app.command("docker")
def start_docker() -> None:
    """Start a docker engine for `--cluster kind` where none runs.

    It changes nothing on the host: no firewall rules, no forwarding, no mounts. As root, missing Debian
    packages are installed. It runs until `kilonode clean`; its images are kept in $KILONODE_CACHE_DIR.

    \b
    Example:
      kilonode docker
      pytest -k scenario --cluster kind --max-nodes 1k
    """
    console = plain_console()
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
    """Build a node image for `--cluster kind` without a registry.

    Use it where no image registry can be reached; with internet access it is not needed. It is made of Debian
    packages, kind's Go module and the executables that are here, and loaded into docker or podman. Where the
    engine has it already, this ends at once.

    \b
    Example:
      kilonode kind-image
      pytest -k scenario --cluster kind --max-nodes 1k
    """
    console = plain_console()
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
    """Remove what earlier runs left on this machine.

    Use it after a run that was killed, and for a cluster that `--keep` left. Processes, cgroups, network
    namespaces and files are known from the ledger that each run keeps. A run that still lives is left alone;
    results and what is in the cache stay.

    \b
    Example:
      kilonode clean
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


def _request(binaries: Binaries, text: str) -> Request:
    name, _, version_text = text.partition("@")
    return binaries.request(name, version_text or None)


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

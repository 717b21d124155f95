"""The transaction by which a real kube-proxy programs a Service, from a twin node.

A twin runs the same kube-proxy under the same Service as a node that is measured, with far more memory than
it needs, and captures what kube-proxy hands to nft. Endpoints come while kube-proxy works, so it programs the
Service in several transactions, each of which holds all endpoints that it knew by then. The load is the
biggest one, which holds them all; those before it are kept too, because it is written for the ruleset that
they left.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console

from framework.analysis import Expectation
from framework.binaries import Binaries, Binary
from framework.command_lab import command_lab
from framework.doctor import require_machine
from framework.errors import BadInputError, KilonodeError
from framework.lab import Lab, LabSettings
from framework.ledger import Ledger, state_root
from framework.measurement import RealNode
from framework.outcome import Measure, Ruleset
from framework.signals import ended_as_by_ctrl_c
from framework.spec import RealNodeSpec
from framework.stages import (
    Load,
    StagesRun,
    Transaction,
    count_transaction,
    profile_load,
    profiled_versions,
    require_profiler,
)
from framework.units import GIB
from framework.versioned_file import now_utc, read_file, this_command

TWIN_MEMORY_BYTES: Final = 8 * GIB
"""A node of kube-proxy 1.35 with 100,000 endpoints needs 2 GiB, and the transactions' pages are its own."""
TWIN_LAB: Final = LabSettings(max_nodes=1, cluster="embedded", mode="endpointslices", keep=False)
"""A twin needs a Service and no fleet."""


@dataclass(frozen=True)
class TwinLoad:
    """The biggest transaction that holds all endpoints, the peak of the nft that loaded it, the ruleset."""

    load: Load
    counted: Transaction
    captured: int
    nft_peak: Measure | None
    ruleset: Ruleset | None


def twin_load(lab: Lab, kube_proxy: str, endpoints: int) -> TwinLoad:
    """What ``kube_proxy`` hands to nft for a Service with ``endpoints`` endpoints; kept in the run folder.

    Raises KilonodeError where no transaction holds them all.
    """
    service = lab.service(endpoints=endpoints)
    spec = RealNodeSpec(
        memory_bytes=TWIN_MEMORY_BYTES, kube_proxy=kube_proxy, client=False, capture_transactions=True
    )
    name = f"twin-{kube_proxy}-{endpoints}"
    repro = f"kilonode stages --kube-proxy {kube_proxy} --endpoints {endpoints}"
    node = RealNode.start(lab, spec, test_id=name, repro=repro)
    try:
        measurement = node.program(service)
        measurement.expect(Expectation(programming="programmed"))
        kept = _keep(node.transactions, measurement.folder.path / "transactions")
    finally:
        node.stop()
        lab.release(service)
    load, counted = _load(kept, endpoints)
    outcome = measurement.outcome
    return TwinLoad(load, counted, len(kept), outcome.nft_bytes_peak, outcome.ruleset)


def _keep(transactions: Sequence[Path], folder: Path) -> tuple[Path, ...]:
    folder.mkdir()
    return tuple(Path(shutil.copy2(path, folder)) for path in transactions)


def _load(transactions: Sequence[Path], endpoints: int) -> tuple[Load, Transaction]:
    counted = [(count_transaction(path.read_bytes()), index) for index, path in enumerate(transactions)]
    whole = [(each.size_bytes, index, each) for each, index in counted if each.endpoints == endpoints]
    if not whole:
        most = max((each.endpoints for each, _ in counted), default=0)
        raise KilonodeError(
            f"the biggest of {len(transactions)} transactions holds {most:,} of {endpoints:,} endpoints",
            where="twin",
            remedy="read kube-proxy's log in the run folder",
        )
    _, index, transaction = max(whole)
    return Load(transactions[index], tuple(transactions[:index])), transaction


def profile_twins(
    binaries: Binaries, kube_proxies: Sequence[str], sizes: Sequence[int], *, runs: Path, console: Console
) -> tuple[StagesRun, ...]:
    """The loads of each kube-proxy at each number of endpoints, profiled.

    Raises what ``twin_load`` and ``profile_load`` raise.
    """
    require_profiler()
    found = []
    with command_lab(binaries, kube_proxies, TWIN_LAB, runs=runs, console=console) as lab:
        for kube_proxy, endpoints in product(kube_proxies, sizes):
            twin = twin_load(lab, kube_proxy, endpoints)
            with lab.phase("profile", f"{twin.counted.size_bytes:,} bytes for nft"):
                run = _profile(twin.load, twin.counted, ledger=lab.ledger, nft=binaries.system("nft"))
            obtained = f"the biggest of {twin.captured} transactions of kube-proxy's on a twin node"
            found.append(
                msgspec.structs.replace(
                    run,
                    obtained=obtained,
                    kube_proxy=kube_proxy,
                    endpoints_asked=endpoints,
                    rss_peak_in_node=twin.nft_peak,
                    ruleset=twin.ruleset,
                )
            )
    return tuple(found)


def profile_files(transactions: Sequence[Path]) -> StagesRun:
    """The last of ``transactions``, profiled on the ruleset that the others make.

    Raises BadInputError for a file that can't be read, and what ``profile_load`` raises.
    """
    *earlier, last = transactions
    try:
        texts = [read_file(path) for path in transactions]
    except OSError as error:
        raise BadInputError(
            f"a transaction can't be read: {error}", where="--transaction", remedy="give files"
        ) from error
    state_root()
    require_machine(Path.cwd())
    require_profiler()
    with ended_as_by_ctrl_c():
        ledger = Ledger.begin()
        try:
            load = Load(last, tuple(earlier))
            found = _profile(load, count_transaction(texts[-1]), ledger=ledger, nft=Binaries().system("nft"))
        finally:
            left = ledger.finish()
    if left:
        raise KilonodeError(f"left behind: {'; '.join(left)}", remedy="run `kilonode clean`")
    return found


def _profile(load: Load, counted: Transaction, *, ledger: Ledger, nft: Binary) -> StagesRun:
    profile = profile_load(load, nft=nft.path, ledger=ledger)
    return StagesRun(
        made_utc=now_utc(),
        command=this_command(),
        obtained=f"the file {load.transaction.name}",
        kube_proxy=None,
        endpoints_asked=None,
        versions=profiled_versions(nft),
        transaction=counted,
        earlier=len(load.earlier),
        heap=profile.heap,
        rss_peak=profile.rss_peak,
        rss_idle=profile.rss_idle,
        rss_peak_in_node=None,
        kernel=profile.kernel,
        ruleset=None,
    )

"""The twin of a measurement that was made: what its kube-proxy handed to nft, for a bundle.

A node whose nft is wrapped is not the node that was measured, so the ruleset of a bundle is never the
measured one itself. The twin goes through the same phases with the same kube-proxy and Services and memory
enough. Endpoints come to kube-proxy in batches that chance decides on, and with kube-proxy 1.37 nft's peak
follows the batches: so a twin whose peak is not the measured one's is made again, a few times, and the
closest is kept.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from framework.answers.again import Again, measured_again
from framework.bundle import Twin
from framework.errors import BadInputError, KilonodeError
from framework.lab import Lab
from framework.outcome import Asked, Measure, RunResult
from framework.process import inside, run
from framework.spec import RealNodeSpec
from framework.stages import KUBELETS_TABLES
from framework.twin import TWIN_MEMORY_BYTES

TWIN_CLOSE: Final = 0.01
"""As a share of the measured peak: half of what a reproducer may differ by."""
TWIN_ATTEMPTS_MAX: Final = 4
LISTING_TIMEOUT_S: Final = 300.0


@dataclass(frozen=True)
class _Attempt:
    twin: Twin
    distance: float


def twin_of(lab: Lab, result: RunResult, folder: Path) -> Twin:
    """A twin of what ``result`` measured; its files are below ``folder``.

    Raises BadInputError for a result that does not say what was asked, or of no nftables mode, and
    KilonodeError where the twin handed nothing to nft.
    """
    asked = asked_of_twin(result)
    wanted = result.outcome.nft_bytes_peak if result.outcome is not None else None
    best: _Attempt | None = None
    for number in range(1, TWIN_ATTEMPTS_MAX + 1):
        attempt = _attempt(lab, asked, wanted, folder / f"twin-{number}", number)
        if best is None or attempt.distance < best.distance:
            best = attempt
        if best.distance <= TWIN_CLOSE:
            break
    assert best is not None  # noqa: S101 - there is one attempt at least
    return replace(best.twin, attempts=number)


def asked_of_twin(result: RunResult) -> Asked:
    """What a twin of ``result`` is asked. Raises BadInputError as ``twin_of`` does, which needs a lab."""
    asked = result.asked
    if asked is None:
        raise BadInputError(
            "the result does not say all that was asked: an older kilonode wrote it",
            where=result.test_id,
            remedy="measure again, or give --no-twin",
        )
    if asked.node.proxy_mode != "nftables":
        raise BadInputError(
            f"kube-proxy hands nothing to nft in {asked.node.proxy_mode} mode",
            where=result.test_id,
            remedy="give --no-twin",
        )
    return asked


def _attempt(lab: Lab, asked: Asked, wanted: Measure | None, folder: Path, number: int) -> _Attempt:
    node = RealNodeSpec(
        memory_bytes=TWIN_MEMORY_BYTES,
        kube_proxy=asked.node.kube_proxy,
        kube_proxy_config=asked.node.kube_proxy_config,
        client=False,
        capture_transactions=True,
    )
    test_id = f"twin-{number}-{asked.node.kube_proxy}"
    with measured_again(lab, asked, node, test_id=test_id, repro="kilonode bundle") as again:
        twin = _kept(again, folder)
    peak = twin.nft_bytes_peak
    if wanted is None or wanted.bound == "lower" or peak is None:
        return _Attempt(twin, 0.0)
    return _Attempt(twin, abs(peak.value / wanted.value - 1))


def _kept(again: Again, folder: Path) -> Twin:
    """The files of a twin that is still alive."""
    folder.mkdir(parents=True)
    transactions = [Path(shutil.copy2(path, folder)) for path in again.node.transactions]
    acted = transactions[again.transactions_before :]
    if not acted:
        raise KilonodeError(
            "the twin's kube-proxy handed nothing to nft in this phase",
            where=again.measurement.folder.path.name,
            remedy="read its log, or give --no-twin",
        )
    load = max(acted, key=lambda path: path.stat().st_size)
    listing = folder / "ruleset.txt"
    listed = run(inside(["nft", "list", "ruleset"], netns=again.node.netns), timeout_s=LISTING_TIMEOUT_S)
    listing.write_bytes(listed.stdout)
    return Twin(
        load=load,
        earlier=tuple(transactions[: transactions.index(load)]),
        listing=listing,
        tables=KUBELETS_TABLES,
        nft_bytes_peak=again.measurement.outcome.nft_bytes_peak,
        attempts=1,
    )

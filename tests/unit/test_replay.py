"""A bundle run again: what counts as alike, what can't be told, and the twin that its ruleset comes from."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from rich.console import Console
from test_analysis_outcomes import a_killed_evidence, a_measure, an_evidence
from test_bundle import a_manifest, an_asked, of_evidence
from test_comparison import elsewhere
from test_report_run_folder import a_result

from framework.answers import (
    ReplayResult,
    ReplayTable,
    bundling,
    peaks_agree,
    replay,
    replay_measurement,
    replay_reproducer,
    replay_result,
    twin_of,
)
from framework.answers.replay import MeasuredAgain, ReplayRow
from framework.bundle import EARLIER, LOAD, MANIFEST, REPRODUCER, Manifest, TwinFacts
from framework.errors import BadInputError, KilonodeError
from framework.lab import Lab
from framework.ledger import Ledger
from framework.outcome import Asked, Measure, RunResult
from framework.report import MeasurementFolder
from framework.spec import RealNodeSpec, ServiceSpec
from framework.stages import Load
from framework.twin import TWIN_MEMORY_BYTES

LEDGER = cast(Ledger, None)


def at_least(mib: float) -> Measure:
    return a_measure(mib, "lower")


class TestPeaks:
    @pytest.mark.parametrize(
        ("expected", "found", "agree"),
        [
            (None, a_measure(100), None),
            (a_measure(100), None, None),
            (a_measure(100), a_measure(102), True),
            (a_measure(100), a_measure(98), True),
            (a_measure(100), a_measure(102.1), False),
            (a_measure(100), a_measure(97.9), False),
            (at_least(100), a_measure(300), True),
            (at_least(100), a_measure(98), True),
            (at_least(100), a_measure(97.9), False),
            (at_least(100), at_least(300), True),
            (at_least(100), at_least(97.9), None),
            (a_measure(100), at_least(102.1), False),
            (a_measure(100), at_least(102), None),
            (a_measure(100), at_least(50), None),
        ],
    )
    def test_agree_to_two_percent_as_far_as_they_are_known(
        self, expected: Measure | None, found: Measure | None, agree: bool | None
    ) -> None:
        assert peaks_agree(expected, found) is agree


def twin_facts(peak: Measure | None) -> TwinFacts:
    return TwinFacts(nft_bytes_peak=peak, earlier=2, attempts=1)


def a_folder(place: Path, **manifest: Any) -> Path:
    """An unpacked bundle as far as its manifest and its transactions go."""
    (place / REPRODUCER / EARLIER).mkdir(parents=True)
    for name in (LOAD, f"{EARLIER}/0002.nft", f"{EARLIER}/0001.nft"):
        (place / REPRODUCER / name).touch()
    (place / MANIFEST).write_bytes(a_manifest({}, **manifest))
    return place


class TestReproducer:
    @pytest.fixture
    def loads(self, monkeypatch: pytest.MonkeyPatch) -> list[Load]:
        """What nft was given; its peak is 101 MiB each time."""
        given: list[Load] = []

        def resident_peak(load: Load, *, nft: Path, ledger: Ledger) -> Measure:
            given.append(load)
            return a_measure(101)

        found = SimpleNamespace(system=lambda name: SimpleNamespace(path=Path("/usr/sbin") / name))
        monkeypatch.setattr(replay, "Binaries", lambda: found)
        monkeypatch.setattr(replay, "resident_peak", resident_peak)
        return given

    def test_loads_what_came_before_in_its_order(self, loads: list[Load], tmp_path: Path) -> None:
        replay_reproducer(a_folder(tmp_path, twin=twin_facts(None)), LEDGER)
        (load,) = loads
        assert load.transaction == tmp_path / REPRODUCER / LOAD
        assert [path.name for path in load.earlier] == ["0001.nft", "0002.nft"]

    @pytest.mark.usefixtures("loads")
    def test_is_compared_with_the_measured_node_and_with_the_twin(self, tmp_path: Path) -> None:
        folder = a_folder(tmp_path, nft_bytes_peak=at_least(200), twin=twin_facts(a_measure(100)))
        assert replay_reproducer(folder, LEDGER) == (
            ReplayRow(
                what="nft alone, as measured",
                expected=">=200 MiB (cgroup counter)",
                found="101 MiB",
                alike=False,
            ),
            ReplayRow(
                what="nft alone, as on the twin",
                expected="100 MiB (cgroup counter)",
                found="101 MiB (+1.0%)",
                alike=True,
            ),
        )

    def test_of_a_bundle_without_a_twin_is_not_run(self, loads: list[Load], tmp_path: Path) -> None:
        assert replay_reproducer(a_folder(tmp_path), LEDGER) == ()
        assert loads == []

    def test_of_a_bundle_without_its_load_is_refused(self, loads: list[Load], tmp_path: Path) -> None:
        folder = a_folder(tmp_path, twin=twin_facts(None))
        (folder / REPRODUCER / LOAD).unlink()
        with pytest.raises(BadInputError, match=r"holds no reproducer/load\.nft"):
            replay_reproducer(folder, LEDGER)
        assert loads == []


@dataclass
class FakeLab:
    """A lab in which each measurement finds what it is told to, on a node that keeps transactions."""

    found: Sequence[RunResult] = ()
    transactions: Sequence[Path] = ()
    transactions_before: int = 0
    asked: list[tuple[Asked, RealNodeSpec]] = field(default_factory=list)
    fleets: list[int] = field(default_factory=list)

    @contextmanager
    def measured_again(
        self, lab: Any, asked: Asked, node: RealNodeSpec, *, test_id: str, repro: str
    ) -> Iterator[Any]:
        result = self.found[len(self.asked)]
        self.asked.append((asked, node))
        yield SimpleNamespace(
            node=SimpleNamespace(transactions=self.transactions, netns="twin"),
            measurement=SimpleNamespace(
                result=result, outcome=result.outcome, folder=SimpleNamespace(path=Path("runs/x/twin"))
            ),
            transactions_before=self.transactions_before,
        )

    def grow_fleet(self, nodes: int) -> None:
        self.fleets.append(nodes)

    @property
    def lab(self) -> Lab:
        return cast(Lab, self)


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> FakeLab:
    made = FakeLab()
    monkeypatch.setattr(replay, "measured_again", made.measured_again)
    monkeypatch.setattr(bundling, "measured_again", made.measured_again)
    return made


def with_outcome(result: RunResult, **changes: Any) -> RunResult:
    assert result.outcome is not None
    return msgspec.structs.replace(result, outcome=msgspec.structs.replace(result.outcome, **changes))


def again(lab: FakeLab, place: Path, before: RunResult, after: RunResult) -> MeasuredAgain:
    MeasurementFolder(place).write(before)
    lab.found = [after]
    return replay_measurement(lab.lab, place)


def alike(found: MeasuredAgain) -> dict[str, bool | None]:
    return {row.what: row.alike for row in found.rows}


class TestMeasurement:
    def test_that_finds_the_same_is_alike_in_all_that_is_judged(self, lab: FakeLab, tmp_path: Path) -> None:
        result = of_evidence(an_evidence())
        found = again(lab, tmp_path, result, result)
        assert alike(found) == {
            "outcome": True,
            "killed, in order": None,
            "served": True,
            "nft peak": True,
            "node peak": True,
            "unreclaimable peak": None,
            "sync": True,
        }
        assert found.notes == ()
        assert found.comparison.finding == "same"
        assert lab.asked == [(an_asked(), an_asked().node)]

    def test_tells_both_outcomes(self, lab: FakeLab, tmp_path: Path) -> None:
        before, after = of_evidence(an_evidence()), of_evidence(a_killed_evidence())
        found = again(lab, tmp_path, before, after)
        rows = {row.what: (row.expected, row.found, row.alike) for row in found.rows}
        assert rows["outcome"] == ("programmed, Ready", "nft killed, Ready", False)
        assert rows["killed, in order"] == ("nobody", "nft x2", None)
        assert rows["served"] == ("fully", "not", False)
        assert rows["nft peak"] == ("111 MiB (exit record)", ">=1,063 MiB (exit record)", False)
        assert rows["sync"] == ("4.40 s", "-", None)
        assert found.comparison.finding == "worse"

    def test_judges_nothing_that_is_not_known(self, lab: FakeLab, tmp_path: Path) -> None:
        before = of_evidence(an_evidence())
        after = with_outcome(before, nft_bytes_peak=None, served=None, sync_s=None)
        found = alike(again(lab, tmp_path, before, after))
        assert (found["nft peak"], found["served"], found["sync"]) == (None, None, None)

    def test_on_another_cluster_is_the_same_question(self, lab: FakeLab, tmp_path: Path) -> None:
        before = of_evidence(an_evidence())
        after = msgspec.structs.replace(before, parameters={"endpoints": 100_000, "cluster": "embedded"})
        assert again(lab, tmp_path, before, after).comparison.measurements == 1

    def test_compares_no_times_across_machines_and_says_what_differs(
        self, lab: FakeLab, tmp_path: Path
    ) -> None:
        asked = msgspec.structs.replace(an_asked(), together=3)
        before = of_evidence(an_evidence(), asked=asked, parameters={"cluster": "kind"})
        after = elsewhere(msgspec.structs.replace(before, parameters={"cluster": "embedded"}))
        found = again(lab, tmp_path, before, after)
        assert "sync" not in alike(found)
        beside, cluster, machine = found.notes
        assert beside == "it was measured beside 2 other real nodes, and alone here"
        assert cluster == "it was measured on a cluster of the kind kind, here on an embedded one"
        assert "kernel 6.18.0" in machine
        assert "; here is kernel 6.1.0-other" in machine

    @pytest.mark.parametrize(
        ("mode", "fleet_nodes", "fleets"),
        [
            ("native", 10, [500]),
            ("native", 800, [800]),
            ("endpointslices", 10, [10]),
            ("endpointslices", 0, []),
        ],
    )
    def test_has_a_fleet_that_is_large_enough(
        self, lab: FakeLab, tmp_path: Path, mode: Any, fleet_nodes: int, fleets: list[int]
    ) -> None:
        service = ServiceSpec(name="svc", endpoints=500, mode=mode)
        asked = msgspec.structs.replace(an_asked(), service=service, fleet_nodes=fleet_nodes)
        result = of_evidence(an_evidence(), asked=asked)
        again(lab, tmp_path, result, result)
        assert lab.fleets == fleets

    def test_of_an_older_kilonode_is_refused(self, lab: FakeLab, tmp_path: Path) -> None:
        MeasurementFolder(tmp_path).write(a_result())
        with pytest.raises(BadInputError, match="an older kilonode measured it") as caught:
            replay_measurement(lab.lab, tmp_path)
        assert caught.value.remedy == "give --reproducer-only"
        assert lab.asked == []


def a_row(alike: bool | None, what: str = "nft peak") -> ReplayRow:
    return ReplayRow(what=what, expected="100 MiB", found="101 MiB", alike=alike)


def an_answer(place: Path, *rows: ReplayRow, twin: TwinFacts | None = None) -> ReplayResult:
    return replay_result(a_folder(place, twin=twin), rows, None)


class TestAnswer:
    @pytest.mark.parametrize(
        ("judged", "reproduced"),
        [
            ([], None),
            ([None, None], None),
            ([True, None], True),
            ([True, False, None], False),
        ],
    )
    def test_is_as_good_as_the_worst_that_was_judged(
        self, tmp_path: Path, judged: list[bool | None], reproduced: bool | None
    ) -> None:
        assert an_answer(tmp_path, *map(a_row, judged)).reproduced is reproduced

    def test_says_what_was_not_run(self, tmp_path: Path) -> None:
        only, without = (
            an_answer(tmp_path / "1", twin=twin_facts(None)),
            an_answer(tmp_path / "2"),
        )
        assert only.notes == ("the measurement was not made again, as asked",)
        assert without.notes[1:] == ("the bundle has no reproducer: it was made without a twin node",)

    def test_joins_the_reproducer_and_the_measurement(self, lab: FakeLab, tmp_path: Path) -> None:
        result = of_evidence(an_evidence())
        measured = again(lab, tmp_path, result, result)
        answer = replay_result(a_folder(tmp_path, twin=twin_facts(None)), [a_row(True)], measured)
        assert answer.rows == (a_row(True), *measured.rows)
        assert answer.comparison == measured.comparison
        manifest = msgspec.json.decode((tmp_path / MANIFEST).read_bytes(), type=Manifest)
        assert (answer.run_id, answer.test_id) == (manifest.run_id, manifest.test_id)
        assert msgspec.json.decode(msgspec.json.encode(answer), type=ReplayResult) == answer


def drawn(answer: ReplayResult) -> str:
    text = io.StringIO()
    Console(file=text, width=80).print(ReplayTable(answer))
    assert text.getvalue().isascii()
    return text.getvalue()


class TestTable:
    @pytest.mark.parametrize(
        ("judged", "verdict", "word"),
        [
            (True, "REPRODUCED: test_x", "alike"),
            (False, "NOT REPRODUCED: test_x", "DIFFERS"),
            (None, "NOTHING COULD BE TOLD: test_x", "-"),
        ],
    )
    def test_has_the_verdict_first_and_each_row_with_its_own(
        self, tmp_path: Path, judged: bool | None, verdict: str, word: str
    ) -> None:
        lines = drawn(an_answer(tmp_path, a_row(judged))).splitlines()
        assert lines[0] == verdict
        (row,) = [line for line in lines if "nft peak" in line]
        assert [cell.strip() for cell in row.strip("|").split("|")] == [
            "nft peak",
            "100 MiB",
            "101 MiB",
            word,
        ]
        assert "nft alone is alike to 2%" in "\n".join(lines)

    def test_has_every_note(self, lab: FakeLab, tmp_path: Path) -> None:
        before = of_evidence(an_evidence())
        measured = again(lab, tmp_path, before, elsewhere(before))
        text = " ".join(drawn(replay_result(a_folder(tmp_path), (), measured)).split())
        assert "Note: it was measured on kernel 6.18.0" in text
        assert "Note: the bundle has no reproducer" in text
        assert "Note: times: the machines differ" in text

    def test_takes_a_strangers_words_as_words(self, tmp_path: Path) -> None:
        assert "[/red]x[bold]" in drawn(an_answer(tmp_path, a_row(None, what="[/red]x[bold]")))


class TestTwin:
    @pytest.fixture
    def transactions(self, lab: FakeLab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Sequence[Path]:
        """Of sizes 5, 10, 30 and 20; the first came before the phase."""
        paths = []
        for number, size in enumerate((50, 10, 30, 20)):
            path = tmp_path / f"{number}.nft"
            path.write_bytes(bytes(size))
            paths.append(path)
        lab.transactions, lab.transactions_before = paths, 1
        monkeypatch.setattr(bundling, "run", lambda *_, **__: SimpleNamespace(stdout=b"table ip kube-proxy"))
        return paths

    def wants(self, peak: Measure | None) -> RunResult:
        node = {"kube_proxy_config": {"nftables": {"syncPeriod": "1s"}}}
        return with_outcome(of_evidence(an_evidence(), asked=an_asked(**node)), nft_bytes_peak=peak)

    @pytest.mark.usefixtures("transactions")
    def test_has_the_biggest_transaction_of_its_phase_after_all_before_it(
        self, lab: FakeLab, tmp_path: Path
    ) -> None:
        lab.found = [self.wants(a_measure(100))]
        twin = twin_of(lab.lab, self.wants(a_measure(100)), tmp_path / "twins")
        assert twin.load.stat().st_size == 30
        assert [path.stat().st_size for path in twin.earlier] == [50, 10]
        assert twin.listing is not None
        assert twin.listing.read_bytes() == b"table ip kube-proxy"
        assert (twin.nft_bytes_peak, twin.attempts) == (a_measure(100), 1)

    @pytest.mark.usefixtures("transactions")
    def test_has_the_same_kube_proxy_and_memory_enough(self, lab: FakeLab, tmp_path: Path) -> None:
        result = self.wants(None)
        lab.found = [result]
        twin_of(lab.lab, result, tmp_path / "twins")
        ((asked, node),) = lab.asked
        assert asked == result.asked
        assert (node.kube_proxy, node.kube_proxy_config) == ("1.37.2", {"nftables": {"syncPeriod": "1s"}})
        assert (node.memory_bytes, node.capture_transactions) == (TWIN_MEMORY_BYTES, True)

    @pytest.mark.usefixtures("transactions")
    @pytest.mark.parametrize(
        ("wanted", "peaks", "kept"),
        [
            (a_measure(100), [104, 100.9], 100.9),
            (a_measure(100), [104, 96.5, 90, 104], 96.5),
            (at_least(100), [300], 300),
            (None, [300], 300),
        ],
    )
    def test_is_made_again_until_its_peak_is_close(
        self,
        lab: FakeLab,
        tmp_path: Path,
        wanted: Measure | None,
        peaks: Sequence[float],
        kept: float,
    ) -> None:
        lab.found = [self.wants(a_measure(peak)) for peak in peaks]
        twin = twin_of(lab.lab, self.wants(wanted), tmp_path / "twins")
        assert len(lab.asked) == twin.attempts == len(peaks)
        assert twin.nft_bytes_peak == a_measure(kept)

    def test_that_hands_nothing_to_nft_is_an_error(
        self, lab: FakeLab, transactions: Sequence[Path], tmp_path: Path
    ) -> None:
        lab.found, lab.transactions_before = [self.wants(None)], len(transactions)
        with pytest.raises(KilonodeError, match="handed nothing to nft in this phase"):
            twin_of(lab.lab, self.wants(None), tmp_path / "twins")

    @pytest.mark.parametrize(
        ("asked", "says"),
        [
            (None, "an older kilonode wrote it"),
            (an_asked(proxy_mode="iptables"), "hands nothing to nft in iptables mode"),
        ],
        ids=["of an older kilonode", "of iptables"],
    )
    def test_cannot_be_made_of_every_result(
        self, lab: FakeLab, tmp_path: Path, asked: Asked | None, says: str
    ) -> None:
        with pytest.raises(BadInputError, match=says) as caught:
            twin_of(lab.lab, of_evidence(an_evidence(), asked=asked), tmp_path / "twins")
        assert "--no-twin" in caught.value.remedy
        assert (lab.asked, list(tmp_path.iterdir())) == ([], [])

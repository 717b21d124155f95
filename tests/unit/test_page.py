"""A run as a page and as Markdown: the same tables in both, and nothing that a browser would fetch."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib.figure  # noqa: F401 - pytester forgets modules that its pytest loads; numpy can't come twice
import msgspec
import pytest
from test_analysis_outcomes import a_cgroup, a_killed_evidence, an_evidence, an_oom_kill
from test_page_timeline import a_sample, a_sampled_evidence, a_track, looks
from test_recorded_fates import evidence
from test_report_run_folder import a_checked_result, a_result

from framework.analysis import derive_outcome
from framework.analysis.comparison import Change, Comparison
from framework.claims import load_claims
from framework.errors import BadInputError
from framework.outcome import Evidence, FidelityItem, Result, RunResult, Verdict
from framework.page import (
    HTML_FILE,
    MARKDOWN_FILE,
    Cells,
    Report,
    html,
    markdown,
    markdown_of_changes,
    markdown_table,
    report,
    telling_order,
    write_report,
)
from framework.page.sections import TIMELINES_MAX
from framework.report import FORMAT, Session, load_run
from framework.units import GIB, MIB

HOSTILE = "<script>alert(1)</script><img src=https://example.com/x.png>"
SESSION = Session(
    format=FORMAT,
    run_id="20251115T101500Z-1a2b3c",
    started_utc="2025-11-15T10:15:00+00:00",
    ended_utc=None,
    command="pytest -k 'ladder & more'",
)
SVG = "{http://www.w3.org/2000/svg}"
XLINK = "{http://www.w3.org/1999/xlink}"


def shown(*results: RunResult, session: Session | None = SESSION) -> Report:
    return report(results, session, load_claims())


def of_evidence(found: Evidence, verdict: Result = "pass", *reasons: str, **parameters: Any) -> RunResult:
    asked = {
        "kube_proxy": found.kube_proxy,
        "endpoints": found.endpoints_expected,
        "oom_policy": "production",
    }
    return a_checked_result(
        evidence=found,
        outcome=derive_outcome(found),
        verdict=Verdict(result=verdict, reasons=reasons),
        parameters=asked | parameters,
    )


def recorded(name: str, verdict: Result = "pass", *reasons: str, **parameters: Any) -> RunResult:
    return of_evidence(evidence(name), verdict, *reasons, **parameters)


def of_the_first_format() -> RunResult:
    (result,) = load_run(Path(__file__).parent / "recorded" / "run-format-1")
    return result


def watched(**changes: Any) -> Evidence:
    """A node that was looked at while its nft was killed twice."""
    samples = tuple(a_sample(at_s, round(100 + (at_s % 30) * 60)) for at_s in looks(8, 50, 0.2))
    kills = (an_oom_kill(1063), an_oom_kill(1061, at_s=43.9, victim_comm=r"$\frac$<script>"))
    return a_killed_evidence(
        cgroup=a_cgroup(samples=samples, oom_kills=2),
        oom_kills=kills,
        tracks=(a_track("nft", 900, looks(11, 14)), a_track("kubelet", 70, looks(8, 50), pid=610)),
        **changes,
    )


def tables(found: Report) -> list[Cells]:
    """All of a report that has all."""
    assert found.ladder is not None
    some = (found.verdicts, found.ladder.table, found.deaths, found.traffic, found.fidelity, found.versions)
    return [*(cells for cells in some if cells is not None), *(each.table for each in found.over_time)]


def column(cells: Cells, header: str) -> list[str]:
    index = cells.headers.index(header)
    return [row[index] for row in cells.rows]


def row_of(cells: Cells, begin: str) -> dict[str, str]:
    (row,) = [row for row in cells.rows if row[0] == begin]
    return dict(zip(cells.headers, row, strict=True))


@dataclass
class Tag:
    name: str
    attributes: dict[str, str | None]


@dataclass
class Page(HTMLParser):
    """A page as a browser would read it: its tags, and its text."""

    source: str
    tags: list[Tag] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(Tag(tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def names(self) -> list[str]:
        return [tag.name for tag in self.tags]

    @property
    def urls(self) -> Iterator[str]:
        for tag in self.tags:
            for name in ("src", "srcset", "href", "action", "data", "poster", "background"):
                if name in tag.attributes:
                    yield tag.attributes[name] or ""

    @property
    def pictures(self) -> list[ElementTree.Element]:
        """Wide and narrow in turn."""
        texts = [base64.b64decode(url.partition("base64,")[2]).decode() for url in self.urls]
        return [ElementTree.fromstring(text) for text in texts]  # noqa: S314 - drawn by this very test


@pytest.fixture(scope="module")
def whole() -> Report:
    """What a run has that found everything."""
    return shown(
        recorded("100k-4gib-of-three", ballast="ordinary", ballast_profile="ordinary"),
        recorded("starved", "unknown", "expected it to starve; but | nobody looked"),
        of_evidence(watched(), "fail", HOSTILE, memory_bytes=2 * GIB),
        of_the_first_format(),
    )


@pytest.fixture(scope="module")
def page(whole: Report) -> Page:
    return Page(html(whole))


class TestVerdicts:
    def test_what_is_no_pass_comes_first_and_is_counted(self, whole: Report) -> None:
        assert column(whole.verdicts, "verdict") == ["fail", "unknown", "pass", "pass"]
        assert list(whole.results) == column(whole.verdicts, "verdict")
        assert whole.counts == {"fail": 1, "unknown": 1, "pass": 2}
        assert column(whole.verdicts, "measurement")[2:] == [
            "100k x 1.35.0, 4,096 MiB, ordinary ballast",
            "10 x 1.37.2, 2,048 MiB",
        ]

    def test_a_row_has_the_figures_with_their_bounds_and_the_reason(self, whole: Report) -> None:
        assert row_of(whole.verdicts, "unknown") == {
            "verdict": "unknown",
            "measurement": "10k x 1.35.0, 160 MiB",
            "outcome": "nft killed, NotReady",
            "nft peak MiB": ">=77.1",
            "node peak MiB": "160",
            "unreclaimable MiB": ">=153",
            "sync s": "-",
            "why": "expected it to starve; but | nobody looked",
        }

    def test_one_that_broke_off_is_unknown(self) -> None:
        found = shown(a_result())
        assert found.verdicts.rows == (
            (
                "unknown",
                "100k x 1.37.2, 2,048 MiB",
                "nothing was measured",
                "-",
                "-",
                "-",
                "-",
                "it broke off",
            ),
        )
        assert (found.ladder, found.deaths, found.traffic, found.over_time) == (None, None, None, ())

    def test_a_run_without_measurements_is_a_page_too(self) -> None:
        found = shown()
        assert (found.title, found.started) == (SESSION.run_id, SESSION.started_utc)
        assert "nothing measured" in markdown(found)
        assert "Verdicts" in Page(html(found)).text


class TestLadder:
    def test_has_a_column_for_each_version_beside_what_was_stated(self) -> None:
        ladder = shown(
            *(recorded(name) for name in ("starved", "endpoints-changed", "100k-4gib-of-three"))
        ).ladder
        assert ladder is not None
        assert ladder.table.headers == (
            "endpoints",
            "nft MiB, 1.35.0",
            "nft MiB, 1.37.2",
            "the article states",
        )
        assert ladder.table.rows == (
            ("10,000", ">=77.1", "17.7", "nft ~300-500 MB at 10,000 endpoints"),
            ("100,000", "1,105", "-", "nft 700+ MB at 100,000 endpoints"),
        )
        assert {
            version: [point.bound for point in points] for version, points in ladder.by_kube_proxy.items()
        } == {
            "1.35.0": ["lower", "exact"],
            "1.37.2": ["exact"],
        }

    def test_claims_without_an_end_have_none(self) -> None:
        ladder = shown(recorded("starved")).ladder
        assert ladder is not None
        ends = {mark.endpoints: mark.high_bytes for mark in ladder.claims if mark.endpoints >= 10_000}
        assert ends == {10_000: 500e6, 100_000: None}

    def test_an_exact_peak_is_told_rather_than_a_lower_bound(self) -> None:
        names = ("guaranteed-outlives-nft", "besteffort-dies-in-nfts-place", "kubelet-without-its-score")
        ladder = shown(*map(recorded, names)).ladder
        assert ladder is not None
        assert column(ladder.table, "nft MiB, 1.35.0") == ["225"]

    def test_is_of_first_programmings_of_plain_services_only(self) -> None:
        later = of_evidence(an_evidence(phase="endpoints_changed"))
        assert shown(recorded("affinity-30k"), later).ladder is None


class TestOverTime:
    def test_has_the_moments_that_matter_and_what_happened(self, whole: Report) -> None:
        killed, quiet = whole.over_time
        assert killed.outcome == "nft killed, Ready"
        assert killed.table.headers == ("MiB", "before (0.0 s)", "fullest (19.8 s)", "end (40.0 s)")
        rows = {row[0]: row[1:] for row in killed.table.rows}
        assert rows["limit"] == ("2,048", "2,048", "2,048")
        assert rows["all"] == ("770", "1,958", "1,370")
        assert rows["killed: nft"] == ("3.9 s", "1,063 MiB held", "")
        assert rows["syncs"] == ("3", "2 failed", "Ready")
        assert quiet.label == "10 x 1.37.2, 2,048 MiB"

    def test_only_the_most_telling_are_drawn(self) -> None:
        samples = [a_sample(9), a_sample(12)]
        passed = [of_evidence(a_sampled_evidence(samples)) for _ in range(TIMELINES_MAX)]
        failed = of_evidence(a_sampled_evidence(samples, kube_proxy="1.35.0"), "fail", "x")
        found = shown(*passed, failed)
        assert (len(found.over_time), found.not_drawn) == (TIMELINES_MAX, 1)
        assert found.over_time[0].label.startswith("100k x 1.35.0")

    def test_deaths_tell_more_than_size(self) -> None:
        names = ("100k-4gib-of-three", "starved", "100k-1gib-of-three")
        results = sorted([a_result(), *map(recorded, names)], key=telling_order)
        assert [result.outcome and result.outcome.limit_bytes for result in results] == [
            None,
            GIB,
            160 * MIB,
            4 * GIB,
        ]


class TestTables:
    def test_deaths_are_of_nodes_on_which_somebody_died(self, whole: Report) -> None:
        assert whole.deaths is not None
        assert column(whole.deaths, "node") == [
            "10k x 1.35.0, 160 MiB",
            "100k x 1.37.2, 2,048 MiB",
        ]
        assert row_of(whole.deaths, "10k x 1.35.0, 160 MiB") == {
            "node": "10k x 1.35.0, 160 MiB",
            "OOM scores": "production",
            "killed, in order": "nft",
            "survived": "containerd, kubelet, kube-proxy",
            "served": "not",
            "node status": "NotReady",
            "verdict": "unknown",
        }

    def test_traffic_is_of_measurements_with_clients(self, whole: Report) -> None:
        assert whole.traffic is not None
        (row,) = whole.traffic.rows
        found = dict(zip(whole.traffic.headers, row, strict=True))
        assert found["served after"] == "100.0%"
        assert found["attempts"] == "150"
        assert found["endpoints that answered (expected)"] == "149 (150)"
        assert found["served"] == "fully"

    def test_a_deviation_is_told_once_and_counted(self) -> None:
        other = FidelityItem(id="a-clock", what="slow", effect="times")
        twice = a_checked_result(fidelity=(*a_result().fidelity, other))
        assert shown(a_checked_result(), twice).fidelity.rows == (
            ("a-clock", "slow", "times", "1"),
            ("cgroup-v1", "v1", "differs", "2"),
        )

    def test_every_program_has_its_version_and_digest(self) -> None:
        found = shown(of_the_first_format(), of_the_first_format()).versions
        programs = of_the_first_format().environment.components
        assert column(found, "program") == sorted(part.name for part in programs)
        assert set(column(found, "sha256")) == {part.sha256 for part in programs}

    def test_of_a_program_the_older_version_comes_first(self) -> None:
        old, other = a_result().environment.components
        parts = tuple(msgspec.structs.replace(old, version=version) for version in ("1.0.10", "1.0.9"))
        environment = msgspec.structs.replace(a_result().environment, components=(other, *parts))
        found = shown(a_result(environment=environment)).versions
        assert column(found, "version") == ["v1.37.2", "1.0.9", "1.0.10"]


class TestHtml:
    def test_nothing_in_it_is_run_or_fetched(self, page: Page) -> None:
        assert not {"script", "link", "iframe", "object", "embed", "form", "base"} & set(page.names)
        assert all(url.startswith("data:image/svg+xml;base64,") for url in page.urls)
        assert not [name for tag in page.tags for name in tag.attributes if name.startswith("on")]
        assert not re.search(r"url\(|@import", page.source)
        (policy,) = [tag for tag in page.tags if "content-security-policy" in str(tag.attributes).lower()]
        assert "default-src 'none'" in (policy.attributes["content"] or "")

    def test_pictures_are_svg_that_refers_to_itself_only(self, page: Page) -> None:
        elements = [element for picture in page.pictures for element in picture.iter()]
        assert {picture.tag for picture in page.pictures} == {f"{SVG}svg"}
        assert not {f"{SVG}script", f"{SVG}image", f"{SVG}foreignObject"} & {each.tag for each in elements}
        referred = {each.attrib.get(name) for each in elements for name in ("href", f"{XLINK}href")} - {None}
        assert all(str(name).startswith("#") for name in referred)
        assert not re.search(r"https?:", "".join(text for each in elements for text in each.attrib.values()))

    def test_every_plot_is_followed_by_its_table_and_has_words(self, page: Page, whole: Report) -> None:
        order = [name for name in page.names if name in {"picture", "table"}]
        plots = [index for index, name in enumerate(order) if name == "picture"]
        assert len(plots) == 1 + len(whole.over_time)
        assert [order[index + 1] for index in plots] == ["table"] * len(plots)
        assert all(tag.attributes["alt"] for tag in page.tags if tag.name == "img")

    def test_a_lower_bound_points_up(self, page: Page) -> None:
        """Also the highest of all, which is that of the node on which nft was killed at 100,000 endpoints."""
        wide = page.pictures[1]
        curves = [
            path.attrib["d"].split()
            for group in wide.iter(f"{SVG}g")
            if group.attrib.get("id", "").startswith("patch_")
            for path in group.findall(f"{SVG}path")
            if "Q" in path.attrib["d"]
        ]
        assert len(curves) == 2
        assert all(float(curve[-1]) < float(curve[2]) for curve in curves)

    def test_victims_names_are_drawn_as_they_are(self, page: Page) -> None:
        texts = [element.text for picture in page.pictures for element in picture.iter(f"{SVG}text")]
        assert texts.count(r"$\frac$<script>") == 2

    def test_hostile_words_are_words(self, page: Page) -> None:
        assert HOSTILE in page.text
        one = Page(html(shown(a_result(test_id=f"test_x[{HOSTILE}]"), session=None)))
        assert "script" not in one.names
        assert one.text.count(HOSTILE) == 2

    def test_has_every_table_and_the_command(self, page: Page, whole: Report) -> None:
        assert all(cell in page.text for cells in tables(whole) for row in cells.rows for cell in row)
        assert SESSION.command in page.text


class TestMarkdown:
    def test_has_every_table_of_the_page(self, whole: Report) -> None:
        text = markdown(whole)
        assert text.startswith(f"## What a Kubernetes node paid: {SESSION.run_id}\n")
        assert "**1 fail, 1 unknown, 2 pass**" in text
        assert f"    {SESSION.command}\n" in text
        assert all(markdown_table(cells) in text for cells in tables(whole))
        assert text.count("\n### ") == len(tables(whole))

    def test_what_there_is_not_has_no_heading(self) -> None:
        text = markdown(shown(a_result(), session=None))
        assert [line for line in text.splitlines() if line.startswith("### ")] == [
            "### Verdicts",
            "### What differs from production",
            "### Versions",
        ]

    def test_cells_stay_cells(self) -> None:
        cells = Cells(
            headers=("what", "MiB"), rows=(("a | b\nc", "1"), ("<script>", "2")), numeric=frozenset({1})
        )
        assert markdown_table(cells).splitlines() == [
            "| what | MiB |",
            "| --- | --: |",
            r"| a \| b c | 1 |",
            r"| \<script> | 2 |",
        ]

    def test_of_changes_says_what_changed_and_what_was_not_compared(self) -> None:
        change = Change(
            label="10k x 1.35.0", what="nft peak", kind="memory", direction="worse", text="1 MiB -> 9 MiB"
        )
        found = Comparison(
            baseline_runs=1,
            same_machine=True,
            measurements=1,
            figures=9,
            changes=(change,),
            not_compared=("test_x: not measured this time",),
            versions=("nft: 1.0.6 -> 1.1.0",),
        )
        text = markdown_of_changes(found)
        assert "| worse | 10k x 1.35.0 | nft peak | 1 MiB -> 9 MiB |" in text
        assert "- not compared: test_x: not measured this time" in text
        assert "- other program: nft: 1.0.6 -> 1.1.0" in text
        nothing = msgspec.structs.replace(found, changes=(), not_compared=(), versions=())
        assert markdown_of_changes(nothing) == ""


class TestFiles:
    def test_go_into_the_runs_folder(self, tmp_path: Path) -> None:
        assert write_report(tmp_path, [a_result()], SESSION) == tmp_path / HTML_FILE
        assert SESSION.run_id in (tmp_path / HTML_FILE).read_text()
        assert (tmp_path / MARKDOWN_FILE).read_text() == markdown(shown(a_result()))

    def test_elsewhere_is_the_page_alone(self, tmp_path: Path) -> None:
        output = tmp_path / "page.html"
        assert write_report(tmp_path / "run", [a_result()], None, output=output) == output
        assert [path.name for path in tmp_path.iterdir()] == ["page.html"]

    @pytest.mark.parametrize("output", ["missing/page.html", "folder", "."])
    def test_a_place_that_cannot_be_written_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "folder").mkdir()
        with pytest.raises(BadInputError, match="the report can't be written") as caught:
            write_report(tmp_path, [a_result()], None, output=Path(output))
        assert caught.value.where == output
        assert [path.name for path in tmp_path.rglob("*")] == ["folder"]

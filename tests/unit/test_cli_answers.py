"""The commands that answer a question: their exit statuses, their files, and what they refuse in time."""

from __future__ import annotations

import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from test_analysis_outcomes import a_killed_evidence, an_evidence
from test_bundle import GOOD, a_file, a_manifest, an_archive, an_asked, an_entry, of_evidence
from test_comparison import measured
from test_history import NIGHTS
from test_history import a_run as a_night
from test_replay import a_row
from test_report_run_folder import a_checked_result, a_result

from framework import cli
from framework.analysis.comparison import Comparison, compare
from framework.answers import NightlyResult, ReplayResult
from framework.bundle import MANIFEST
from framework.claims import load_claims
from framework.outcome import RunResult, Verdict
from framework.page import markdown, report
from framework.report import RunFolder, load_run, load_session


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str


Kilonode = Callable[..., Ended]


@pytest.fixture(autouse=True)
def _nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("it began to measure")

    for module in (cli.questions, cli.reports):
        monkeypatch.setattr(module, "command_lab", refuse)
    monkeypatch.setattr(cli.reports, "run_nightly", refuse)


@pytest.fixture
def kilonode(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Kilonode:
    """``kilonode("show", "latest")`` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def start(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["kilonode", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return Ended(int(ended.value.code or 0), *capsys.readouterr())

    return start


def a_run(name: str, *results: RunResult) -> Path:
    """A run in the folder ``name``, which is its only one."""
    run = RunFolder.create(Path(name), command=["pytest", "-k", "scenario"])
    for result in results:
        run.start(result).write(result)
    run.end()
    return run.path


def there() -> set[Path]:
    return set(Path().rglob("*"))


def assert_refused(kilonode: Kilonode, *arguments: str, says: str) -> None:
    """In one line with a remedy, and before anything was created."""
    before = there()
    ended = kilonode(*arguments)
    assert (ended.status, ended.out) == (cli.EXIT_BAD_INPUT, "")
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1
    assert says in ended.err
    assert "Remedy: " in ended.err
    assert there() == before


def some_inputs() -> None:
    """What commands are given in place of what they want."""
    a_run("runs", a_checked_result())
    a_run("empty")
    a_run("iptables", of_evidence(an_evidence(), asked=an_asked(proxy_mode="iptables")))
    Path("text").write_text("hello")
    an_archive(Path("evil.tar.gz"), *GOOD, an_entry("b/link", tarfile.SYMTYPE, "/etc/passwd"))
    an_archive(Path("no-result.tar.gz"), *GOOD)
    older = msgspec.json.encode(a_result())
    listed = a_manifest({"result.json": older})
    an_archive(Path("older.tar.gz"), a_file("b/result.json", older), a_file(f"b/{MANIFEST}", listed))


REFUSED = (
    ("compare runs/latest", "1 runs were given"),
    ("compare runs/latest runs/latest runs/latest", "3 runs were given"),
    ("compare runs/latest nowhere", "there is no run here"),
    ("compare nowhere runs/latest", "there is no run here"),
    ("compare --baseline runs runs/latest runs/latest", "2 runs were given"),
    ("compare --baseline nowhere runs/latest", "no such folder of runs"),
    ("compare --baseline runs --last 0 runs/latest", "a baseline of 0 runs"),
    ("compare runs/latest runs/latest --json nowhere/x.json", "there is no folder nowhere"),
    ("report nowhere", "there is no run here"),
    ("report empty/latest", "nothing was measured in this run"),
    ("report runs/latest --output nowhere/x.html", "the report can't be written"),
    ("bundle nowhere --no-twin", "there is no measurement here"),
    ("bundle empty/latest --no-twin", "there is no measurement here"),
    ("bundle --measurement other --no-twin", "there is no measurement 'other'"),
    ("bundle --no-twin --output x.zip", "let it end with .tar.gz"),
    ("bundle --no-twin --output nowhere/x.tar.gz", "there is no folder nowhere"),
    ("bundle", "an older kilonode wrote it"),
    ("bundle iptables/latest", "hands nothing to nft in iptables mode"),
    ("replay nowhere.tar.gz", "No such file"),
    ("replay text", "it is no bundle"),
    ("replay evil.tar.gz", "no plain file in its folder"),
    ("replay no-result.tar.gz", "the file can't be read"),
    ("replay older.tar.gz", "give --reproducer-only"),
    ("nightly --size huge", "there is no plan 'huge'"),
    ("limit --endpoints many", "--endpoints"),
    ("limit --endpoints 0", "0 is outside 1 to 1,000,000"),
    ("limit --kube-proxy new", "--kube-proxy"),
    ("limit --phase sleeping", "'sleeping' is none of"),
    ("limit --phase service_deleted", "give another phase"),
    ("limit --ballast heavy", "there is no node profile 'heavy'"),
    ("limit --ballast 8GiB", "does not fit a node"),
    ("limit --resolution tiny", "--resolution"),
    ("limit --resolution 1KiB", "finer than a node repeats itself"),
    ("limit --repeats 0", "0 is outside 1 to 100"),
    ("limit --highest 10MiB", "there is no limit to search"),
    ("limit --endpoint-mode magic", "'magic' is none of"),
    ("limit --fits much", "--fits"),
    ("limit --resume nowhere", "the file can't be read"),
    ("limit --resume nowhere --endpoints 1k", "give it without --resume"),
    ("report --markdown --output page.md", "Markdown is printed"),
)


class TestErrors:
    @pytest.mark.parametrize(("arguments", "says"), REFUSED)
    def test_a_refused_value_is_one_line_and_status_2_and_nothing_is_created(
        self, kilonode: Kilonode, arguments: str, says: str
    ) -> None:
        some_inputs()
        assert_refused(kilonode, *arguments.split(), says=says)

    @pytest.mark.parametrize("command", ["compare", "report", "bundle", "replay", "nightly", "limit"])
    def test_every_command_has_help(self, kilonode: Kilonode, command: str) -> None:
        ended = kilonode(command, "--help")
        assert (ended.status, ended.err) == (0, "")
        assert f"kilonode {command}" in ended.out

    @pytest.mark.parametrize("command", ["compare", "replay"])
    def test_what_is_asked_about_has_to_be_said(self, kilonode: Kilonode, command: str) -> None:
        assert kilonode(command).status == cli.EXIT_BAD_INPUT


class TestCompare:
    @pytest.mark.parametrize(
        ("before", "after", "status", "says"),
        [
            (measured(nft_mib=100), measured(nft_mib=100), 0, "SAME: "),
            (measured(nft_mib=120), measured(nft_mib=100), 0, "BETTER: nft peak"),
            (measured(nft_mib=100), measured(nft_mib=120), cli.EXIT_BAD_NEWS, "WORSE: nft peak"),
            (
                measured(),
                msgspec.structs.replace(measured(), test_id="other"),
                cli.EXIT_UNKNOWN,
                "NOTHING COMPARED",
            ),
        ],
        ids=["same", "better", "worse", "others"],
    )
    def test_ends_with_what_it_found(
        self, kilonode: Kilonode, before: RunResult, after: RunResult, status: int, says: str
    ) -> None:
        ended = kilonode("compare", str(a_run("a", before)), str(a_run("b", after)), "--json", "x.json")
        assert (ended.status, ended.err) == (status, "")
        assert ended.out.startswith(says)
        written = msgspec.json.decode(Path("x.json").read_bytes(), type=Comparison)
        assert written == compare([[before]], [after])

    def test_takes_the_last_runs_of_a_folder_as_its_baseline(self, kilonode: Kilonode) -> None:
        for name, mib in zip(NIGHTS, (500, 100, 102), strict=True):
            a_night(Path("runs"), name, measured(nft_mib=mib))
        new = a_run("new", measured(nft_mib=110))
        ended = kilonode("compare", "--baseline", "runs", "--last", "2", str(new))
        assert ended.status == cli.EXIT_BAD_NEWS
        assert "against 2 runs" in ended.out


class TestReport:
    def test_is_a_page_in_the_runs_folder(self, kilonode: Kilonode) -> None:
        run = a_run("runs", a_result())
        ended = kilonode("report")
        assert (ended.status, ended.out) == (0, "Report: runs/latest/report.html\n")
        assert "<!DOCTYPE html>" in (run / "report.html").read_text()
        assert (run / "report.md").is_file()

    def test_goes_elsewhere_alone(self, kilonode: Kilonode) -> None:
        run = a_run("runs", a_result())
        assert kilonode("report", str(run), "--output", "page.html").out == "Report: page.html\n"
        assert "<!DOCTYPE html>" in Path("page.html").read_text()
        assert not (run / "report.html").exists()

    def test_is_printed_as_markdown_and_written_nowhere(self, kilonode: Kilonode) -> None:
        run = a_run("runs", a_checked_result())
        before = there()
        ended = kilonode("report", "--markdown")
        assert (ended.status, ended.err) == (0, "")
        assert ended.out == markdown(report(load_run(run), load_session(run), load_claims()))
        assert "### Verdicts" in ended.out
        assert there() == before


@dataclass
class FakeLab:
    """What a replay needs of a lab besides what it measures."""

    run_folder: RunFolder
    ledger: None = None

    def phase(self, name: str, what: str) -> Any:
        return nullcontext()


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch, kilonode: Kilonode) -> None:
    @contextmanager
    def command_lab(*_: Any, **__: Any) -> Iterator[FakeLab]:
        yield FakeLab(RunFolder.create(Path("runs"), command=["kilonode", "replay"]))

    monkeypatch.setattr(cli.reports, "command_lab", command_lab)


class TestBundle:
    def test_is_of_what_is_no_pass_and_says_where_it_went(self, kilonode: Kilonode) -> None:
        failed = of_evidence(a_killed_evidence(), test_id="test_b", verdict=Verdict(result="fail"))
        run = a_run("runs", of_evidence(an_evidence(), test_id="test_a"), failed)
        ended = kilonode("bundle", "--no-twin")
        assert (ended.status, ended.err) == (0, "")
        (bundle,) = Path().glob("*.tar.gz")
        assert bundle.name == f"kilonode-{failed.run_id}-100k-x-1.37.2-2-048-MiB.tar.gz"
        first, last = ended.out.splitlines()
        assert first == f"bundling {run.resolve() / 'test_b'}"
        assert last.startswith(f"{bundle.name}: ")
        assert last.endswith(" MiB")


@pytest.mark.usefixtures("lab")
class TestReplay:
    @pytest.fixture
    def bundle(self, kilonode: Kilonode) -> str:
        result = msgspec.json.encode(a_result())
        members = (
            a_file("b/result.json", result),
            a_file(f"b/{MANIFEST}", a_manifest({"result.json": result})),
        )
        return str(an_archive(Path("x.tar.gz"), *members))

    @pytest.mark.parametrize(
        ("alike", "status"), [(True, 0), (False, cli.EXIT_BAD_NEWS), (None, cli.EXIT_UNKNOWN)]
    )
    def test_ends_with_what_it_found(
        self,
        kilonode: Kilonode,
        monkeypatch: pytest.MonkeyPatch,
        bundle: str,
        alike: bool | None,
        status: int,
    ) -> None:
        monkeypatch.setattr(cli.reports, "replay_reproducer", lambda *_: (a_row(alike),))
        ended = kilonode("replay", bundle, "--reproducer-only", "--json", "x.json")
        assert (ended.status, ended.err) == (status, "")
        answer = msgspec.json.decode(Path("x.json").read_bytes(), type=ReplayResult)
        assert answer.rows == (a_row(alike),)
        assert answer.test_id in ended.out.splitlines()[0]
        assert Path("runs/latest/replay.json").read_bytes() == Path("x.json").read_bytes()

    def test_of_a_bundle_without_a_reproducer_tells_nothing_by_itself(
        self, kilonode: Kilonode, bundle: str
    ) -> None:
        ended = kilonode("replay", bundle, "--reproducer-only")
        assert ended.status == cli.EXIT_UNKNOWN
        assert "Note: the bundle has no reproducer" in ended.out


class TestNightly:
    @pytest.mark.parametrize(
        ("reason", "after_mib", "status"),
        [
            ("PASS: 1 measurements", 100, 0),
            ("FAIL: it was interrupted", 120, cli.EXIT_FAILED),
            ("WORSE: nft peak", 120, cli.EXIT_BAD_NEWS),
        ],
    )
    def test_says_its_reason_first_and_ends_with_it(
        self,
        kilonode: Kilonode,
        monkeypatch: pytest.MonkeyPatch,
        reason: str,
        after_mib: int,
        status: int,
    ) -> None:
        asked = SimpleNamespace(all={})

        def run_nightly(size: str, **options: Any) -> NightlyResult:
            asked.all = {"size": size, **options}
            return NightlyResult(
                format=1,
                made_utc="2025-11-15T10:15:00+00:00",
                command="kilonode nightly",
                size="large",
                passed=status == 0,
                reason=reason,
                pytest_exit=0,
                run="20251115T101500Z-1a2b3c",
                comparison=compare([[measured(nft_mib=100)]], [measured(nft_mib=after_mib)]),
            )

        monkeypatch.setattr(cli.reports, "run_nightly", run_nightly)
        ended = kilonode("nightly", "mine", "--size", "large", "--option=-x", "-o", "out")
        assert (ended.status, ended.out.splitlines()[0]) == (status, reason)
        assert "the run: runs/20251115T101500Z-1a2b3c" in ended.out
        assert (asked.all["size"], asked.all["scenarios"], asked.all["options"]) == (
            "large",
            ["mine"],
            ["-x"],
        )
        assert (asked.all["history"], asked.all["output"]) == (Path("history"), Path("out"))

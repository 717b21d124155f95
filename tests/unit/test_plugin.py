"""The pytest face, in a pytest of its own; where a cluster would be needed, a strict fake of the lab."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib.figure  # noqa: F401 - pytester forgets modules that its pytest loads; numpy can't come twice
import pytest
from test_report_run_folder import a_checked_result

from framework import command_lab, pytest_plugin
from framework.binaries import Binaries
from framework.capture import Clock
from framework.lab import LabSettings
from framework.measurement import Measurement
from framework.outcome import RunResult
from framework.report import Reporter, RunFolder, load_run
from framework.spec import Ballast, RealNodeSpec
from framework.units import MIB

pytest_plugins = ["pytester"]

MEASURES = """
from framework import Expectation

def test_it(real_node):
    measurement = real_node(memory="2GiB", kube_proxy="1.37.2").program()
    {}
"""
EXPECTS = 'measurement.expect(Expectation(programming="{}"))'
TAKES_VERSIONS = """
from framework import endpoints_ladder

@endpoints_ladder(10_000, 10)
def test_it(endpoints, kube_proxy):
    pass
"""
LACKS = """
import pytest
from framework import MissingRequirementError

def lack():
    raise MissingRequirementError("there is no KVM here", where="/dev/kvm", remedy="use another machine")

@pytest.fixture
def machine():
    lack()

def test_in_setup(machine):
    pass

def test_in_call():
    lack()
"""


@dataclass
class FakeLab:
    """A lab that makes nothing; ``left`` is what it says that it could not remove."""

    settings: LabSettings
    binaries: Binaries
    run_folder: RunFolder
    reporter: Reporter
    left: tuple[str, ...] = ()
    closed: bool = False

    def lost_cluster(self) -> None:
        return None

    def close(self) -> tuple[str, ...]:
        assert not self.closed
        self.closed = True
        return self.left


@dataclass
class FakeNode:
    """A node on which every measurement ends as 100,000 endpoints that were programmed."""

    lab: FakeLab
    spec: RealNodeSpec
    test_id: str
    repro: str
    measurements: list[Measurement] = field(default_factory=list)
    broken: list[RunResult] = field(default_factory=list)
    stopped: bool = False

    def program(self) -> Measurement:
        result = a_checked_result(stage="measured", verdict=None)
        self.measurements.append(Measurement(result, self.lab.run_folder.start(result), (), self.repro))
        return self.measurements[-1]

    def stop(self) -> None:
        self.stopped = True


@dataclass
class Fakes:
    """What was made in the lab's and the node's place."""

    labs: list[FakeLab] = field(default_factory=list)
    nodes: list[FakeNode] = field(default_factory=list)
    left: tuple[str, ...] = ()

    def make_lab(self, settings: LabSettings, **parts: Any) -> FakeLab:
        self.labs.append(FakeLab(settings, **parts, left=self.left))
        return self.labs[-1]

    def start(self, lab: FakeLab, spec: RealNodeSpec, *, test_id: str, repro: str, clock: Clock) -> FakeNode:
        self.nodes.append(FakeNode(lab, spec, test_id, repro))
        return self.nodes[-1]


@pytest.fixture(autouse=True)
def _apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KILONODE_STATE_DIR", "/nonexistent")


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    made = Fakes()

    def fetch_nothing(self: Binaries, wanted: Sequence[object], *, progress: object) -> None:
        assert wanted

    monkeypatch.setattr(command_lab, "Lab", made.make_lab)
    monkeypatch.setattr(pytest_plugin, "RealNode", made)
    monkeypatch.setattr(command_lab, "require_machine", lambda runs: None)
    monkeypatch.setattr(Binaries, "ensure_all", fetch_nothing)
    return made


def run_pytest(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    """In this process, which has imported the plugin already: pytest can't rewrite its assertions again."""
    already_imported = "ignore::pytest.PytestAssertRewriteWarning"
    return pytester.runpytest_inprocess(
        "-p", "no:cacheprovider", "-W", "error", "-W", already_imported, *options
    )


class TestOptions:
    @pytest.mark.parametrize(
        ("option", "message"),
        [
            (("--max-nodes", "0"), "0 is outside 1 to 1,000,000 (--max-nodes)"),
            (("--max-nodes", "2 gigs"), "'2 gigs' is no count (--max-nodes)"),
            (("--max-nodes", "2m"), "2000000 is outside 1 to 1,000,000 (--max-nodes)"),
            (("--kube-proxy", "1.35"), "'1.35' is no exact version (--kube-proxy)"),
            (("--kube-proxy", "1.99.0"), "kube-proxy 1.99.0 is newer than kube-apiserver"),
            (("--kube-proxy", "1.20.0"), "kube-proxy 1.20.0 is more than 3 minor releases older"),
        ],
    )
    def test_a_wrong_one_is_one_clear_error_and_nothing_is_made(
        self, pytester: pytest.Pytester, fakes: Fakes, option: tuple[str, str], message: str
    ) -> None:
        pytester.makepyfile("def test_never(lab): pass")
        result = run_pytest(pytester, *option)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        (line,) = [line for line in result.errlines if line.strip()]
        assert line.startswith("ERROR: ")
        assert message in line
        assert "Remedy: " in line
        assert fakes.labs == []
        assert not pytester.path.joinpath("runs").exists()

    def test_counts_are_read_as_people_write_them(self, pytester: pytest.Pytester, fakes: Fakes) -> None:
        pytester.makepyfile("def test_it(lab): assert lab.settings.max_nodes == 1500")
        run_pytest(pytester, "--max-nodes", "1.5k").assert_outcomes(passed=1)


class TestIds:
    def test_are_rung_then_version(self, pytester: pytest.Pytester) -> None:
        pytester.makepyfile(test_ids=TAKES_VERSIONS)
        result = run_pytest(
            pytester, "--collect-only", "-q", "--kube-proxy", "1.35.0", "--kube-proxy", "v1.37.2"
        )
        assert [line for line in result.outlines if "::" in line] == [
            "test_ids.py::test_it[10-kube_proxy-1.35.0]",
            "test_ids.py::test_it[10-kube_proxy-1.37.2]",
            "test_ids.py::test_it[10k-kube_proxy-1.35.0]",
            "test_ids.py::test_it[10k-kube_proxy-1.37.2]",
        ]

    def test_a_test_may_choose_its_own_versions(self, pytester: pytest.Pytester) -> None:
        pytester.makepyfile(
            test_ids="import pytest\n@pytest.mark.parametrize('x, kube_proxy', [(1, '1.34.0')])\n"
            "def test_it(x, kube_proxy): pass"
        )
        result = run_pytest(pytester, "--collect-only", "-q", "--kube-proxy", "1.35.0")
        assert [line for line in result.outlines if "::" in line] == ["test_ids.py::test_it[1-1.34.0]"]


class TestWhatThisMachineLacks:
    def test_is_a_skip_with_the_remedy(self, pytester: pytest.Pytester) -> None:
        pytester.makepyfile(LACKS)
        result = run_pytest(pytester)
        result.assert_outcomes(skipped=2)
        assert result.ret == pytest.ExitCode.OK
        text = "there is no KVM here (/dev/kvm). Remedy: use another machine"
        assert text in " ".join(" ".join(result.outlines).split())

    def test_is_told_of_a_test_that_names_no_cell(self, pytester: pytest.Pytester, fakes: Fakes) -> None:
        pytester.makepyfile(
            "from framework import MissingRequirementError\n"
            "def test_mine(lab):\n"
            "    raise MissingRequirementError('no docker answers', remedy='start it')\n"
        )
        result = run_pytest(pytester)
        result.stdout.fnmatch_lines(["skipped test_mine: no docker answers. Remedy: start it"])
        result.stdout.no_fnmatch_line("*Not measured*")

    def test_is_a_failure_where_nothing_may_lack(self, pytester: pytest.Pytester) -> None:
        pytester.makepyfile(LACKS)
        result = run_pytest(pytester, "--strict-env")
        result.assert_outcomes(failed=1, errors=1)
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        result.stdout.fnmatch_lines(["--strict-env: there is no KVM here*"])

    def test_is_a_skip_all_the_same_where_an_option_leaves_it_out(
        self, pytester: pytest.Pytester, fakes: Fakes
    ) -> None:
        pytester.makepyfile(
            "import pytest\n"
            "from framework.errors import LeftOutError\n"
            "@pytest.fixture\n"
            "def large(lab):\n"
            "    raise LeftOutError('100,000 fake nodes are needed', remedy='give --max-nodes 100000')\n"
            "def test_it(large): ...\n"
            "def test_that(lab):\n"
            "    raise LeftOutError('100,000 fake nodes are needed', remedy='give --max-nodes 100000')\n"
        )
        result = run_pytest(pytester, "--strict-env")
        result.assert_outcomes(skipped=2)
        assert result.ret == pytest.ExitCode.OK

    def test_shows_in_the_table(self, pytester: pytest.Pytester, fakes: Fakes) -> None:
        pytester.makepyfile(
            "from framework import MissingRequirementError, endpoints_ladder\n"
            "@endpoints_ladder(100_000)\n"
            "def test_it(lab, endpoints, kube_proxy):\n"
            "    raise MissingRequirementError('9 GiB are needed', remedy='use a larger machine')\n"
        )
        result = run_pytest(pytester, "--kube-proxy", "1.35.0")
        result.assert_outcomes(skipped=1)
        result.stdout.fnmatch_lines(["*endpoints x kube-proxy*", "*100k*1.35.0*skipped*", "*9 GiB*"])


class TestMeasurements:
    def test_one_that_passes_is_in_the_table(self, pytester: pytest.Pytester, fakes: Fakes) -> None:
        pytester.makepyfile(MEASURES.format(EXPECTS.format("programmed")))
        result = run_pytest(pytester)
        result.assert_outcomes(passed=1)
        result.stdout.fnmatch_lines(["*endpoints x kube-proxy*", "*100k*1.37.2*pass*"])
        (loaded,) = load_run(pytester.path / "runs" / "latest")
        assert loaded.verdict is not None
        assert (loaded.stage, loaded.verdict.result) == ("checked", "pass")

    def test_one_that_fails_says_so_in_the_failure_and_in_the_table(
        self, pytester: pytest.Pytester, fakes: Fakes
    ) -> None:
        pytester.makepyfile(MEASURES.format(EXPECTS.format("nft_killed")))
        result = run_pytest(pytester)
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(
            ["*fail: 100,000 endpoints, kube-proxy 1.37.2", "*see it again*", "*100k*1.37.2*fail*"]
        )

    def test_one_that_nobody_checked_fails(self, pytester: pytest.Pytester, fakes: Fakes) -> None:
        pytester.makepyfile(MEASURES.format(""))
        result = run_pytest(pytester)
        result.assert_outcomes(passed=1, errors=1)
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        result.stdout.fnmatch_lines(["measured, but nothing was asserted: call measurement.expect(...)"])
        assert [node.stopped for node in fakes.nodes] == [True]

    def test_a_node_is_what_was_asked_and_goes_also_when_the_test_broke(
        self, pytester: pytest.Pytester, fakes: Fakes
    ) -> None:
        pytester.makepyfile(
            test_story="def test_it(real_node):\n"
            "    config = {'a': {}}\n"
            "    real_node(memory='1400Mi', kube_proxy='v1.35.0', ballast='500M', kube_proxy_config=config)\n"
            "    1 / 0"
        )
        run_pytest(pytester, "--max-nodes", "1k").assert_outcomes(failed=1)
        (node,) = fakes.nodes
        assert node.stopped
        assert node.spec == RealNodeSpec(
            memory_bytes=1400 * MIB,
            kube_proxy="1.35.0",
            ballast=(Ballast(name="ballast", kind="system", memory_bytes=500_000_000),),
            kube_proxy_config={"a": {}},
        )
        assert node.test_id == "test_story.py::test_it"
        assert node.repro == "pytest test_story.py::test_it --max-nodes 1000"
        assert [lab.closed for lab in fakes.labs] == [True]

    def test_a_measurement_can_be_asked_for_again_as_it_was(
        self, pytester: pytest.Pytester, fakes: Fakes
    ) -> None:
        pytester.makepyfile(
            test_story="import pytest\n\n\n@pytest.mark.all_cells\ndef test_it(real_node, kube_proxy):\n"
            "    real_node(memory='1GiB', kube_proxy=kube_proxy)\n"
        )
        asked = ("--kube-proxy", "1.34.2", "--endpoint-mode", "endpointslices", "--all-cells")
        run_pytest(pytester, "--max-nodes", "20k", *asked)
        (node,) = fakes.nodes
        again = shlex.split(node.repro)
        assert again[:2] == ["pytest", "test_story.py::test_it[kube_proxy-1.34.2]"]
        run_pytest(pytester, *again[1:])
        assert [each.repro for each in fakes.nodes] == [node.repro] * 2

    def test_figures_go_to_the_junit_report(self, pytester: pytest.Pytester, fakes: Fakes) -> None:
        pytester.makepyfile(MEASURES.format(EXPECTS.format("programmed")))
        run_pytest(pytester, "--junit-xml=report.xml").assert_outcomes(passed=1)
        report = pytester.path.joinpath("report.xml").read_text()
        assert '<property name="outcome" value="programmed" />' in report
        assert '<property name="verdict" value="pass" />' in report
        assert "nft_bytes_peak" in report

    def test_what_is_left_behind_is_an_error(self, pytester: pytest.Pytester, fakes: Fakes) -> None:
        fakes.left = ("Netns(kilonode-1)",)
        pytester.makepyfile("def test_it(lab): pass")
        result = run_pytest(pytester)
        result.assert_outcomes(passed=1, errors=1)
        result.stdout.fnmatch_lines(["left behind: Netns(kilonode-1). Remedy: run `kilonode clean`"])


class Worker:
    """What pytest-xdist puts into the configuration of each worker."""

    def pytest_configure(self, config: pytest.Config) -> None:
        vars(config)["workerinput"] = {"workerid": "gw0"}


def test_measuring_is_refused_in_a_worker_of_xdist(pytester: pytest.Pytester, fakes: Fakes) -> None:
    pytester.makepyfile("def test_it(lab): pass\ndef test_other(): pass")
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:xdist", plugins=[Worker()])
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*kilonode doesn't measure under xdist*"])
    assert fakes.labs == []


def test_without_measurements_there_is_no_lab_and_no_table(pytester: pytest.Pytester, fakes: Fakes) -> None:
    pytester.makepyfile("def test_it(): pass")
    result = run_pytest(pytester)
    result.assert_outcomes(passed=1)
    assert "kube-proxy" not in result.stdout.str()
    assert not pytester.path.joinpath("runs").exists()
    assert fakes.labs == []

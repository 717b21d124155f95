"""`kilonode forecast`: the status it ends with, what it writes, and what it refuses before it measures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import test_cli_answers
from test_cli_answers import Kilonode, assert_refused, there
from test_existing import a_kubeconfig
from test_forecast import a_model, bent
from test_forecast_answers import NEW, OLD, a_check, a_forecast, counts_of

from framework import cli
from framework.answers import ClusterCounts, ForecastResult, LiveWarning, load_forecast
from framework.cluster import ExistingSettings
from framework.units import GIB, MIB
from framework.versioned_file import write_versioned

MADE: Final = "made.json"

kilonode = test_cli_answers.kilonode


@pytest.fixture(autouse=True)
def _nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("it began to measure")

    for name in ("command_lab", "make_forecast", "read_counts"):
        monkeypatch.setattr(cli.forecasts, name, refuse)


@pytest.fixture
def model(kilonode: Kilonode) -> str:
    """A file of models, with a check at 100,000 endpoints."""
    return written(a_forecast(checks=(a_check(),)))


def written(result: ForecastResult) -> str:
    write_versioned(Path(MADE), result)
    return MADE


def some_inputs() -> None:
    """What is given in place of what is wanted."""
    written(a_forecast())
    a_kubeconfig(Path())
    Path("text").write_text("hello")


REFUSED = (
    ("--live --check", "give it without --live"),
    ("--live --endpoints 5k", "the cluster and its nodes say it"),
    ("--live --up-to 5k", "nothing is measured"),
    ("--model made.json --check", "give it without --model"),
    ("--model made.json --up-to 5k", "nothing is measured"),
    ("--live --memory 2GiB", "without --live"),
    ("--up-to 1999", "1,999 is outside 2,000 to 20,000"),
    ("--up-to 20001", "20,001 is outside 2,000 to 20,000"),
    ("--up-to many", "--up-to"),
    ("--endpoints 0", "0 is outside 1 to 1,000,000"),
    ("--endpoints many", "--endpoints"),
    ("--kube-proxy new", "'new' is no exact version"),
    ("--memory much", "--memory"),
    ("--ballast heavy", "there is no node profile 'heavy'"),
    ("--kubeconfig kubeconfig", "a kubeconfig is for a running cluster"),
    ("--context staging", "give --live too"),
    ("--model nowhere.json", "the file can't be read"),
    ("--model text", "the file is damaged"),
    ("--model made.json --endpoints 2m", "2000000 is outside 1 to 1,000,000"),
    ("--model made.json --memory much", "--memory"),
    ("--model made.json --kube-proxy 1.36.1", "there is no model of kube-proxy 1.36.1"),
    ("--model made.json --json nowhere/x.json", "there is no folder nowhere"),
    ("--live", "give --kubeconfig FILE"),
    ("--live --kubeconfig nowhere --context staging", "the kubeconfig can't be read"),
    ("--live --kubeconfig kubeconfig", "give --context NAME, one of: production, staging"),
    ("--live --kubeconfig kubeconfig --context prod", "there is no context 'prod'"),
    ("--live --kubeconfig kubeconfig --context staging --model text", "the file is damaged"),
    (
        "--live --kubeconfig kubeconfig --context staging --kube-proxy 1.35.0 --kube-proxy 1.37.2",
        "judged by one kube-proxy",
    ),
)


class TestErrors:
    @pytest.mark.parametrize(("arguments", "says"), REFUSED)
    def test_a_refused_value_is_one_line_and_status_2_and_nothing_is_created(
        self, kilonode: Kilonode, arguments: str, says: str
    ) -> None:
        some_inputs()
        assert_refused(kilonode, "forecast", *arguments.split(), says=says)

    def test_it_has_help(self, kilonode: Kilonode) -> None:
        ended = kilonode("forecast", "--help")
        assert (ended.status, ended.err) == (0, "")
        assert "kilonode forecast" in ended.out


class TestModel:
    @pytest.mark.parametrize(
        ("arguments", "status"),
        [
            ("", 0),
            ("--ballast 8GiB", 0),
            ("--memory 4GiB", 0),
            ("--memory 4GiB --memory 1GiB", cli.EXIT_BAD_NEWS),
            ("--memory 4GiB --ballast 3GiB", cli.EXIT_BAD_NEWS),
            ("--memory 1GiB --kube-proxy 1.37.2", 0),
            ("--memory 1GiB --endpoints 50k", 0),
        ],
    )
    def test_is_bad_news_only_where_a_node_that_was_asked_for_dies(
        self, kilonode: Kilonode, model: str, arguments: str, status: int
    ) -> None:
        ended = kilonode("forecast", "--model", model, *arguments.split())
        assert (ended.status, ended.err) == (status, "")
        assert "node, unreclaimable" in ended.out

    @pytest.mark.parametrize("arguments", ["", "--memory 4GiB"])
    def test_that_is_not_to_be_trusted_says_so(self, kilonode: Kilonode, arguments: str) -> None:
        file = written(a_forecast(models=(a_model(nft_bytes=bent), NEW)))
        ended = kilonode("forecast", "--model", file, *arguments.split())
        assert (ended.status, ended.err) == (cli.EXIT_UNKNOWN, "")
        assert "Not to be trusted: kube-proxy 1.35.0, nft, loading" in ended.out

    def test_time_that_is_not_to_be_trusted_says_so_and_memory_is_known_all_the_same(
        self, kilonode: Kilonode
    ) -> None:
        curved = a_model(sync_s=lambda load: 0.1 + 4e-9 * load.endpoints**2)
        ended = kilonode("forecast", "--model", written(a_forecast(models=(curved,))))
        assert (ended.status, ended.err) == (0, "")
        assert "Not to be trusted: kube-proxy 1.35.0, sync" in ended.out

    def test_answers_other_questions_than_it_was_made_for(self, kilonode: Kilonode, model: str) -> None:
        asked = ("--endpoints", "50k", "--kube-proxy", "v1.37.2", "--json", "x.json")
        ended = kilonode("forecast", "--model", model, *asked)
        assert "at 50k" in ended.out
        answer = load_forecast(Path("x.json"))
        assert (answer.target, answer.models, answer.checks) == (50_000, (NEW,), ())

    @pytest.mark.parametrize(
        ("arguments", "checked"),
        [("--kube-proxy 1.35.0", True), ("--kube-proxy 1.37.2", False), ("--endpoints 50k", False)],
    )
    def test_keeps_its_checks_of_the_same_question(
        self, kilonode: Kilonode, model: str, arguments: str, checked: bool
    ) -> None:
        ended = kilonode("forecast", "--model", model, *arguments.split())
        assert ("Predicted and measured" in ended.out) is checked


Cluster = Callable[[ClusterCounts], list[str]]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, kilonode: Kilonode) -> Cluster:
    """``cluster(counts)`` is there to be counted; gives how to be asked about."""

    def begin(counts: ClusterCounts) -> list[str]:
        def read_counts(settings: ExistingSettings) -> ClusterCounts:
            assert (settings.kubeconfig, settings.context) == (str(path), "staging")
            return counts

        path = a_kubeconfig(Path())
        monkeypatch.setattr(cli.forecasts, "read_counts", read_counts)
        return ["forecast", "--live", "--kubeconfig", str(path), "--context", "staging"]

    return begin


@pytest.mark.usefixtures("model")
class TestLive:
    @pytest.mark.parametrize(
        ("counts", "arguments", "status", "says"),
        [
            (counts_of(4 * GIB), "", 0, "GREEN: 100,000 endpoints"),
            (counts_of(GIB), "--kube-proxy v1.37.2 --ballast 0", 0, "GREEN: 100,000 endpoints"),
            (counts_of(1900 * MIB), "--ballast 300MiB", cli.EXIT_AMBER, "AMBER: 100,000 endpoints"),
            (counts_of(1900 * MIB), "", cli.EXIT_BAD_NEWS, "RED: 100,000 endpoints"),
            (counts_of(4 * GIB), "--kube-proxy 1.36.1", cli.EXIT_UNKNOWN, "UNKNOWN: there is no model"),
            (counts_of(4 * GIB, mode="iptables"), "", cli.EXIT_UNKNOWN, "UNKNOWN: kube-proxy runs in"),
        ],
    )
    def test_ends_with_the_colour_of_the_cluster(
        self,
        kilonode: Kilonode,
        cluster: Cluster,
        *,
        counts: ClusterCounts,
        arguments: str,
        status: int,
        says: str,
    ) -> None:
        ended = kilonode(*cluster(counts), "--model", MADE, *arguments.split(), "--json", "x.json")
        assert (ended.status, ended.err) == (status, "")
        assert ended.out.startswith(says)
        answer = msgspec.json.decode(Path("x.json").read_bytes(), type=LiveWarning)
        assert (answer.context, answer.counts) == ("staging", counts)
        assert says.startswith(answer.colour.upper())

    def test_of_an_ordinary_node_counts_what_can_not_be_taken_back(
        self, kilonode: Kilonode, cluster: Cluster
    ) -> None:
        kilonode(*cluster(counts_of(4 * GIB)), "--model", MADE, "--json", "x.json")
        answer = msgspec.json.decode(Path("x.json").read_bytes(), type=LiveWarning)
        measured = 593 - 210  # MiB, with 1.35.0 and 10,000 endpoints: the table in README
        assert answer.ballast_bytes / MIB == pytest.approx(measured, rel=0.03)

    def test_writes_nothing_unless_it_is_to(self, kilonode: Kilonode, cluster: Cluster) -> None:
        arguments = [*cluster(counts_of(4 * GIB)), "--model", MADE]
        before = there()
        assert kilonode(*arguments).status == 0
        assert there() == before

    def test_judges_by_what_came_with_kilonode_unless_it_is_given_a_model(
        self, kilonode: Kilonode, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shipped: list[tuple[ForecastResult, ...]] = [
            (),
            (a_forecast(models=(NEW,)), a_forecast(models=(OLD,))),
        ]
        monkeypatch.setattr(cli.forecasts, "shipped_forecasts", shipped.pop)
        arguments = cluster(counts_of(4 * GIB))
        assert kilonode(*arguments).status == 0
        ended = kilonode(*arguments)
        assert ended.status == cli.EXIT_UNKNOWN
        assert "(there are none)" in " ".join(ended.out.split())

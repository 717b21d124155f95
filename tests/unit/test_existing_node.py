"""Real nodes of a cluster that was there before: what is read of them, and what is said to be unknown."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from test_analysis_outcomes import an_evidence

from framework.analysis import Expectation, derive_outcome, judge
from framework.capture import raised
from framework.errors import MissingRequirementError
from framework.observe import PolledText
from framework.outcome import Blindness, Evidence
from framework.realnode.counters import parse_counters
from framework.realnode.existing_node import blindness, command_of, refuse_others, verbosity
from framework.spec import Ballast, RealNodeSpec
from framework.units import GIB, MIB

V1 = """\
==> /sys/fs/cgroup/memory/memory.usage_in_bytes <==
111263744

==> /sys/fs/cgroup/memory/memory.max_usage_in_bytes <==
114262016

==> /sys/fs/cgroup/memory/memory.limit_in_bytes <==
1073741824

==> /sys/fs/cgroup/memory/memory.kmem.usage_in_bytes <==
5816320

==> /sys/fs/cgroup/memory/memory.stat <==
cache 7
total_cache 42258432
total_rss 63188992

==> /sys/fs/cgroup/memory/memory.oom_control <==
oom_kill_disable 0
under_oom 0
oom_kill 2
"""
V2 = """\
==> /sys/fs/cgroup/memory.current <==
200

==> /sys/fs/cgroup/memory.peak <==
300

==> /sys/fs/cgroup/memory.max <==
max

==> /sys/fs/cgroup/memory.stat <==
anon 100
file 60
kernel_stack 10
pagetables 20
slab 5

==> /sys/fs/cgroup/memory.events <==
oom 1
oom_kill 1
"""


class TestCounters:
    def test_of_version_1(self) -> None:
        found = parse_counters(V1)
        assert found is not None
        assert found.mode == "v1"
        assert (found.charged_bytes, found.charged_bytes_peak) == (111263744, 114262016)
        assert (found.anonymous_bytes, found.file_bytes, found.kernel_bytes) == (63188992, 42258432, 5816320)
        assert (found.limit_bytes, found.oom_kills, found.kernel_bytes_peak) == (GIB, 2, None)

    def test_of_version_2(self) -> None:
        found = parse_counters(V2)
        assert found is not None
        assert found.mode == "v2"
        assert (found.charged_bytes, found.charged_bytes_peak, found.kernel_bytes) == (200, 300, 35)
        assert (found.limit_bytes, found.oom_kills) == (None, 1)

    def test_no_limit_in_version_1_is_none(self) -> None:
        found = parse_counters(V1.replace("1073741824", "9223372036854771712"))
        assert found is not None
        assert found.limit_bytes is None

    @pytest.mark.parametrize("text", ["", "ssh: connect to host: timed out"])
    def test_nothing_is_unknown(self, text: str) -> None:
        assert parse_counters(text) is None

    def test_a_mark_that_nobody_set_back_is_a_windows_own_where_it_rose(self) -> None:
        assert raised(10, 12) == 12
        assert raised(10, 10) is None
        assert raised(None, 12) is None


class TestReading:
    def test_a_command_names_its_node(self) -> None:
        assert command_of("ssh -o BatchMode=yes 'root@{node}'", "w1") == (
            "ssh",
            "-o",
            "BatchMode=yes",
            "root@w1",
        )
        assert command_of("", "w1") == ()

    def test_a_log_is_asked_for_from_its_last_line_on_and_taken_once(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("framework.observe.kube_proxy.POLL_S", 0.0)
        one, two, three = (f"2026-11-27T02:00:00.{each}00000000Z {each}\n" for each in (1, 2, 3))
        answers = iter(["", one, one + two, two, three])
        asked: list[str] = []

        def read_since(stamp: str) -> str:
            asked.append(stamp)
            return next(answers)

        log = PolledText(read_since)
        assert [list(log.more()) for _ in range(5)] == [[], ["1\n"], ["2\n"], [], ["3\n"]]
        assert asked == ["", "", one.split()[0], two.split()[0], two.split()[0]]

    @pytest.mark.parametrize(
        ("words", "level"), [(["kube-proxy", "-v=2"], 2), (["--v=4"], 4), (["--config=x"], 0)]
    )
    def test_a_command_line_tells_the_logs_verbosity(self, words: list[str], level: int) -> None:
        assert verbosity(words) == level


def asked(**fields: Any) -> RealNodeSpec:
    return RealNodeSpec(**{"memory_bytes": 2 * GIB, "kube_proxy": "1.35.0", **fields})


class TestWhatIsAsked:
    def test_a_node_that_is_so_is_taken(self) -> None:
        refuse_others(asked(), "w1", memory_bytes=2 * GIB - 100 * MIB, kube_proxy="1.35.0")

    def test_another_size_and_version_are_told(self) -> None:
        with pytest.raises(MissingRequirementError) as refused:
            refuse_others(asked(), "w1", memory_bytes=16 * GIB, kube_proxy="1.37.2")
        assert "2,048 MiB were asked for, it has 16,384 MiB" in refused.value.what
        assert "kube-proxy 1.35.0 was asked for, it runs 1.37.2" in refused.value.what

    def test_an_unknown_version_is_not_the_asked_one(self) -> None:
        with pytest.raises(MissingRequirementError, match="its version is unknown"):
            refuse_others(asked(), "w1", memory_bytes=2 * GIB, kube_proxy=None)

    @pytest.mark.parametrize(
        ("fields", "word"),
        [
            ({"ballast": (Ballast(name="b", kind="system", memory_bytes=MIB),)}, "ballast"),
            ({"oom_policy": "flat"}, "OOM policy flat"),
            ({"proxy_mode": "iptables"}, "iptables mode"),
            ({"kube_proxy_config": {"a": 1}}, "configuration"),
            ({"text": "host"}, "executables"),
        ],
    )
    def test_what_would_change_it_is_refused(self, fields: dict[str, Any], word: str) -> None:
        with pytest.raises(MissingRequirementError, match=word):
            refuse_others(asked(**fields), "w1", memory_bytes=2 * GIB, kube_proxy="1.35.0")


def seen_as(**how: Any) -> dict[str, str]:
    given = {
        "is_here": False,
        "has_cgroup": False,
        "has_counters": False,
        "remotely": None,
        "why_no_syncs": "",
    }
    return {each.what: each.why for each in blindness("w1", **{**given, **how})}


class TestBlindness:
    def test_a_node_of_this_host_hides_nothing(self) -> None:
        assert seen_as(is_here=True, has_cgroup=True, has_counters=True) == {}

    def test_a_command_shows_all_but_the_daemons(self) -> None:
        assert set(seen_as(remotely={"exits": "", "kills": ""}, has_counters=True)) == {"daemons"}

    def test_what_a_command_can_not_show_is_said(self) -> None:
        unseen = seen_as(remotely={"exits": "runs no sh", "kills": "leads into a container"})
        assert set(unseen) == {"exits", "kills", "daemons", "cgroup"}
        assert unseen["exits"].endswith("unknown: runs no sh")
        assert unseen["kills"].endswith("unknown: leads into a container")
        assert "version 2 has none" in unseen["cgroup"]

    def test_without_one_the_api_is_all_there_is(self) -> None:
        unseen = seen_as(why_no_syncs="kube-proxy on w1 runs with -v=0")
        assert set(unseen) == {"exits", "kills", "daemons", "cgroup", "ruleset", "syncs"}
        assert "no --node-command was given" in unseen["ruleset"]

    def test_the_whole_machine_is_seen_as_by_a_command(self) -> None:
        unseen = seen_as(is_here=True, remotely={"exits": "", "kills": ""})
        assert set(unseen) == {"daemons", "cgroup"}

    def test_the_whole_machine_with_other_nodes_on_it_is_not(self) -> None:
        unseen = seen_as(is_here=True)
        assert set(unseen) == {"exits", "kills", "daemons", "cgroup"}
        assert "other kubelets" in unseen["cgroup"]


def of_a_stranger(**fields: Any) -> Evidence:
    blind = tuple(
        Blindness(what=what, why=f"{what} unknown: w1 is not on this host")
        for what in ("exits", "kills", "daemons", "cgroup", "ruleset")
    )
    return msgspec.structs.replace(
        an_evidence(),
        exits=(),
        daemons=(),
        cgroup=None,
        ruleset=None,
        measured_by="nothing",
        unseen=blind,
        **fields,
    )


class TestVerdicts:
    def test_what_was_not_seen_is_unknown_and_not_zero(self) -> None:
        outcome = derive_outcome(of_a_stranger())
        assert outcome.nft_bytes_peak is None
        assert outcome.charged_bytes_peak is None
        assert outcome.kernel_bytes_end is None
        assert outcome.limit_bytes is None

    @pytest.mark.parametrize(
        ("expectation", "why"),
        [
            (Expectation(programming="programmed"), "ruleset unknown"),
            (Expectation(programming="nft_killed"), "kills unknown"),
            (Expectation(oom_victims=()), "kills unknown"),
            (Expectation(nft_bytes_below=GIB), r"found \? MiB"),
            (Expectation(charged_bytes_below=GIB), r"found \? MiB"),
        ],
    )
    def test_an_assertion_about_it_is_unknown_with_the_reason(
        self, expectation: Expectation, why: str
    ) -> None:
        import re

        verdict = judge(derive_outcome(of_a_stranger()), expectation)
        assert verdict.result == "unknown"
        assert re.search(why, " ".join(verdict.reasons))

    def test_readiness_needs_the_api_alone(self) -> None:
        verdict = judge(
            derive_outcome(of_a_stranger()), Expectation(ready_throughout=True, ready_at_end=True)
        )
        assert verdict.result == "pass"

"""How a node ended: each fate needs its records, and none comes without."""

from __future__ import annotations

from typing import Any

import pytest
from test_analysis_outcomes import (
    a_failed_sync,
    a_killed_evidence,
    a_look,
    a_ruleset,
    a_sync,
    an_evidence,
    an_oom_kill,
)

from framework.analysis import derive_outcome, sync_failure_cause, timeline
from framework.outcome import Connect, DaemonRecord, Evidence, FateSeen, Restart


def fates(evidence: Evidence) -> list[str]:
    return [seen.fate for seen in derive_outcome(evidence).fates]


def the(fate: str, evidence: Evidence) -> FateSeen:
    (found,) = [seen for seen in derive_outcome(evidence).fates if seen.fate == fate]
    return found


def a_daemon(name: str = "kubelet", pid: int = 610, **changes: Any) -> DaemonRecord:
    given: dict[str, Any] = {"exit_code": None, "memory_bytes_peak": None, "oom_score_adj": 0}
    return DaemonRecord(name=name, pid=pid, **(given | changes))


def a_restart(ended_at_s: float = 12.0, **changes: Any) -> Restart:
    given: dict[str, Any] = {
        "name": "kubelet",
        "pid": 600,
        "exit_code": -9,
        "delay_s": 10.0,
        "restarted_at_s": ended_at_s + 10,
    }
    return Restart(ended_at_s=ended_at_s, **(given | changes))


def connects(begin_s: float, end_s: float, error: str | None = None) -> tuple[Connect, ...]:
    return tuple(
        Connect(
            at_s=begin_s + n / 10,
            elapsed_s=0.001,
            backend=None if error else "10.64.0.1",
            error=error,
        )
        for n in range(int((end_s - begin_s) * 10))
    )


def silent(since_s: int, until_s: int, **changes: Any) -> tuple[Any, ...]:
    """Looks at a node that renewed its lease at ``since_s`` for the last time."""
    return tuple(
        a_look(at_s, lease_age_s=float(at_s - since_s), **changes) for at_s in range(since_s, until_s)
    )


class TestProgrammed:
    def test_in_time(self) -> None:
        assert fates(an_evidence()) == ["programmed"]

    def test_late_after_a_failed_sync(self) -> None:
        evidence = an_evidence(syncs=(a_failed_sync(10.5, ended_at_s=10.9, error="weird"), a_sync()))
        assert fates(evidence) == ["sync_failed", "programmed_late", "recovered"]
        assert "1 failed syncs" in the("programmed_late", evidence).why

    def test_late_beyond_the_objective(self) -> None:
        late = a_sync(started_at_s=38.0, ended_at_s=41.0, elapsed_s=3.0)
        evidence = an_evidence(
            programmed_at_s=41.0, ended_at_s=45.0, syncs=(late,), status=tuple(map(a_look, range(8, 46)))
        )
        assert fates(evidence) == ["programmed_late"]

    def test_the_objective_counts_from_the_last_change(self) -> None:
        evidence = an_evidence(
            last_changed_at_s=25.0,
            programmed_at_s=41.0,
            ended_at_s=45.0,
            syncs=(a_sync(started_at_s=38.0, ended_at_s=41.0, elapsed_s=3.0),),
            status=tuple(map(a_look, range(8, 46))),
        )
        assert fates(evidence) == ["programmed"]
        assert "after 31.0 s, 16.0 s after the last change" in the("programmed", evidence).why


class TestSilentOutage:
    def test_nft_is_killed_and_the_node_stays_ready(self) -> None:
        evidence = a_killed_evidence()
        assert fates(evidence) == ["nft_killed", "silent_outage"]
        assert the("silent_outage", evidence).at_s == 14.0
        assert "lists 0 of 100,000 endpoints" in the("silent_outage", evidence).why

    def test_clients_are_the_better_witness(self) -> None:
        evidence = a_killed_evidence(settled_at_s=44.0, connects=connects(40, 50, "refused"))
        assert "0 of 48 connects were served" in the("silent_outage", evidence).why

    def test_rules_that_still_serve_are_no_outage(self) -> None:
        evidence = a_killed_evidence(settled_at_s=44.0, connects=connects(40, 50))
        assert fates(evidence) == ["nft_killed"]
        assert derive_outcome(evidence).served == "partly"

    def test_an_answer_from_a_stale_rule_is_one(self) -> None:
        evidence = a_killed_evidence(
            settled_at_s=44.0, connects=connects(40, 50), addresses_gone=("10.64.0.1",)
        )
        assert fates(evidence) == ["nft_killed", "silent_outage"]

    def test_a_node_that_fell_silent_is_no_silent_outage(self) -> None:
        evidence = a_killed_evidence(status=silent(8, 51))
        assert "silent_outage" not in fates(evidence)


class TestKills:
    @pytest.mark.parametrize(
        ("name", "fate"),
        [
            ("kubelet", "kubelet_killed"),
            ("kube-proxy", "kube_proxy_killed"),
            ("containerd", "containerd_killed"),
        ],
    )
    def test_a_daemon(self, name: str, fate: str) -> None:
        kill = an_oom_kill(78, victim_pid=610, victim_comm=name[:15])
        evidence = an_evidence(daemons=(a_daemon(name, exit_code=-9),), oom_kills=(kill,))
        assert fate in fates(evidence)
        assert "with 78.0 MiB" in the(fate, evidence).why
        assert derive_outcome(evidence).programming == "daemon_died"

    def test_one_of_before_a_restart_is_known_by_its_pid(self) -> None:
        kill = an_oom_kill(78, victim_pid=600, victim_comm="kubelet", at_s=12.0)
        evidence = an_evidence(daemons=(a_daemon(),), oom_kills=(kill,), restarts=(a_restart(),))
        assert fates(evidence) == ["kubelet_killed", "programmed", "recovered"]

    def test_a_workload_in_nfts_place(self) -> None:
        kill = an_oom_kill(500, victim_pid=650, victim_comm="app")
        app = a_daemon("app", 650, role="ballast", exit_code=-9)
        evidence = an_evidence(daemons=(a_daemon(), app), oom_kills=(kill,))
        outcome = derive_outcome(evidence)
        assert [seen.fate for seen in outcome.fates] == ["workload_killed", "programmed", "recovered"]
        assert (outcome.victims, outcome.survivors) == (("app",), ("kubelet",))
        assert outcome.programming == "programmed"

    def test_without_an_exit_record_nft_was_not_killed_for_certain(self) -> None:
        assert "nft_killed" not in fates(a_killed_evidence(exits=()))


class TestFailedSyncs:
    @pytest.mark.parametrize(
        ("error", "cause"),
        [
            ("signal: killed", "killed"),
            ("netlink: Error: Could not process rule: Cannot allocate memory", "no_memory"),
            ("Could not process rule: Message too long", "message_too_long"),
            ("context deadline exceeded", "timeout"),
            ("syntax error", "other"),
        ],
    )
    def test_by_their_own_words(self, error: str, cause: str) -> None:
        assert sync_failure_cause(error) == cause

    def test_one_without_a_kill(self) -> None:
        evidence = an_evidence(
            programmed_at_s=None,
            syncs=(a_failed_sync(error="Cannot allocate memory"),),
            ruleset=a_ruleset(0),
        )
        assert fates(evidence) == ["sync_failed", "silent_outage"]
        assert "no memory (ENOMEM)" in the("sync_failed", evidence).why


class TestReadiness:
    def test_a_lease_that_expires_with_everyone_alive_is_starvation(self) -> None:
        evidence = an_evidence(ended_at_s=60.0, status=silent(10, 61))
        seen = the("starved", evidence)
        assert seen.at_s == 50.0
        readiness = derive_outcome(evidence).readiness
        assert readiness is not None
        assert readiness.lease_expired_at_s == 50.0
        assert readiness.not_ready_at_s is None
        assert readiness.production_not_ready_at_s is None

    def test_a_dead_kubelet_is_none(self) -> None:
        evidence = an_evidence(ended_at_s=60.0, status=silent(10, 61), daemons=(a_daemon(exit_code=-9),))
        assert "starved" not in fates(evidence)

    def test_a_kubelet_that_was_away_is_none(self) -> None:
        evidence = an_evidence(ended_at_s=60.0, status=silent(10, 61), restarts=(a_restart(12.0),))
        assert "starved" not in fates(evidence)

    def test_productions_controller_would_have_said_so_earlier(self) -> None:
        evidence = an_evidence(ended_at_s=70.0, status=silent(10, 71))
        readiness = derive_outcome(evidence).readiness
        assert readiness is not None
        assert readiness.production_not_ready_at_s == (60.0, 70.0)

    def test_not_ready_is_the_controllers_word(self) -> None:
        unknown = a_look(65, "Unknown", 55.0)
        evidence = an_evidence(ended_at_s=70.0, status=(*silent(10, 65), unknown))
        assert the("not_ready", evidence).at_s == 65
        assert "Unknown" in the("not_ready", evidence).why

    def test_recovered_is_ready_and_served_again(self) -> None:
        looks = (a_look(12), a_look(13, "Unknown", 60.0), a_look(19, lease_age_s=1.0))
        assert fates(an_evidence(status=looks))[-1] == "recovered"
        assert "recovered" not in fates(an_evidence(status=looks[:2]))


class TestCrashLoops:
    def test_how_often_how_far_apart_and_how_long_away(self) -> None:
        evidence = an_evidence(
            ended_at_s=50.0, restarts=(a_restart(12.0), a_restart(30.0), a_restart(45.0, restarted_at_s=None))
        )
        (loop,) = derive_outcome(evidence).crash_loops
        assert (loop.name, loop.ends, loop.period_s, loop.window_s) == ("kubelet", 3, 16.5, 50.0)
        assert loop.down_s == 10 + 10 + 5

    def test_none_without_a_restart(self) -> None:
        assert derive_outcome(an_evidence()).crash_loops == ()


class TestTimeline:
    def test_tells_everything_in_order(self) -> None:
        events = timeline(
            a_killed_evidence(
                status=(*silent(8, 60), a_look(61, "Unknown", 53.0)),
                restarts=(a_restart(20.0),),
                ended_at_s=62.0,
            )
        )
        assert [event.at_s for event in events] == sorted(event.at_s for event in events)
        words = [event.what for event in events]
        assert words[0] == "Service created"
        assert sum("the kernel killed nft" in what for what in words) == 2
        assert sum("sync failed" in what for what in words) == 2
        assert "kubelet started again after 10 s" in words
        assert "the node's lease expired" in words
        assert any("Ready True -> Unknown" in what for what in words)

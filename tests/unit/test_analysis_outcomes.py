"""What evidence means: each conclusion needs its witnesses, and every gap is named."""

from __future__ import annotations

import typing
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.analysis import derive_outcome, describe_outcome
from framework.outcome import (
    CgroupEvidence,
    CgroupSample,
    DaemonRecord,
    Evidence,
    Measure,
    NodeStatusSample,
    OomCandidate,
    OomKill,
    Outcome,
    ProcessExit,
    Programmed,
    Programming,
    ProxySync,
    Ruleset,
    Topic,
)
from framework.units import MIB

LOAD = ("nft", "-f", "-")
LISTING = ("nft", "--json", "--terse", "list", "table", "ip", "kube-proxy")


def a_measure(mib: float, bound: typing.Literal["exact", "lower"] = "exact") -> Measure:
    return Measure(value=int(mib * MIB), source="cgroup_counter", bound=bound)


def an_nft(mib: float = 111, **changes: Any) -> ProcessExit:
    record = ProcessExit(
        at_s=14.0,
        pid=700,
        parent_pid=600,
        comm="nft",
        argv=LOAD,
        exit_code=0,
        signal=None,
        elapsed_s=4.0,
        cpu_user_s=3.0,
        cpu_system_s=1.0,
        memory_bytes_peak=int(mib * MIB),
        source="exit_record",
        bound="exact",
    )
    return msgspec.structs.replace(record, **changes)


def a_killed_nft(mib: float = 1063, **changes: Any) -> ProcessExit:
    return an_nft(mib, **({"exit_code": None, "signal": 9} | changes))


def a_candidate(comm: str, mib: float, pid: int, oom_score_adj: int = 0) -> OomCandidate:
    return OomCandidate(
        pid=pid,
        comm=comm,
        memory_bytes_rss=int(mib * MIB),
        page_table_bytes=0,
        swap_bytes=0,
        oom_score_adj=oom_score_adj,
    )


def an_oom_kill(mib: float = 1063, victim_pid: int = 700, **changes: Any) -> OomKill:
    kill = OomKill(
        at_s=13.9,
        victim_pid=victim_pid,
        victim_comm="nft",
        constraint="CONSTRAINT_MEMCG",
        cgroup="/kilonode/node-0",
        victim_cgroup="/kilonode/node-0",
        memory_bytes_anon=int((mib - 1) * MIB),
        memory_bytes_file=MIB,
        memory_bytes_shmem=0,
        page_table_bytes=MIB,
        oom_score_adj=0,
        candidates=(a_candidate("nft", mib, victim_pid), a_candidate("kubelet", 78, 610)),
    )
    return msgspec.structs.replace(kill, **changes)


def a_sync(**changes: Any) -> ProxySync:
    sync = ProxySync(
        started_at_s=11.0,
        ended_at_s=15.4,
        family="IPv4",
        full=True,
        services=2,
        endpoints=100_001,
        elapsed_s=4.4,
        error=None,
        retry_after_s=None,
    )
    return msgspec.structs.replace(sync, **changes)


def a_failed_sync(at_s: float = 11.0, **changes: Any) -> ProxySync:
    failed = {"started_at_s": at_s, "ended_at_s": at_s + 3, "error": "signal: killed", "retry_after_s": 30.0}
    return a_sync(**(failed | changes))


def a_look(at_s: float, ready: str = "True", lease_age_s: float | None = 3.0) -> NodeStatusSample:
    return msgspec.convert(
        {
            "at_s": at_s,
            "ready": ready,
            "reason": "KubeletReady",
            "lease_age_s": lease_age_s,
            "lease_duration_s": 40.0,
        },
        NodeStatusSample,
    )


def a_ruleset(endpoints: int = 100_000) -> Ruleset:
    return Ruleset(
        tables=2, chains=30, rules=61, elements=100_010, endpoints=endpoints, listing_bytes=9_000_000
    )


def a_cgroup(**changes: Any) -> CgroupEvidence:
    sample = CgroupSample(at_s=9.0, charged_bytes=MIB, anonymous_bytes=MIB, file_bytes=0, kernel_bytes=MIB)
    cgroup = CgroupEvidence(
        mode="v1",
        limit_bytes=2048 * MIB,
        charged_bytes_peak=a_measure(377),
        unreclaimable_bytes_peak=a_measure(310, "lower"),
        kernel_bytes_peak=a_measure(87),
        baseline=sample,
        end=msgspec.structs.replace(sample, at_s=20.0, kernel_bytes=87 * MIB),
        oom_kills=0,
        samples=(sample,),
        sample_interval_s=0.02,
    )
    return msgspec.structs.replace(cgroup, **changes)


def an_evidence(**changes: Any) -> Evidence:
    """A node on which 100,000 endpoints were programmed, Ready all the time."""
    evidence = Evidence(
        zero_utc="2025-11-15T10:15:00+00:00",
        node="real-0",
        kube_proxy="1.37.2",
        endpoints_expected=100_000,
        endpoint_mode="endpointslices",
        workload_applied_at_s=10.0,
        programmed_at_s=16.0,
        ended_at_s=20.0,
        exits=(an_nft(),),
        exit_records_lost=0,
        measured_by="exit_record",
        oom_kills=(),
        cgroup=a_cgroup(),
        syncs=(a_sync(started_at_s=1.0, ended_at_s=1.1, endpoints=1, elapsed_s=0.1), a_sync()),
        sync_failures_metric=0,
        status=tuple(a_look(at_s) for at_s in range(8, 21)),
        ruleset=a_ruleset(),
        daemons=(
            DaemonRecord(name="kubelet", pid=610, exit_code=None, memory_bytes_peak=None, oom_score_adj=0),
        ),
        harness_memory_bytes_peak=100 * MIB,
        harness_cpu_s=2.0,
    )
    return msgspec.structs.replace(evidence, **changes)


def a_killed_evidence(**changes: Any) -> Evidence:
    """A node on which nft is killed again and again, every 30 s, and which stays Ready."""
    killed: dict[str, Any] = {
        "programmed_at_s": None,
        "ended_at_s": 50.0,
        "exits": (a_killed_nft(), a_killed_nft(1061, pid=701, at_s=44.0)),
        "oom_kills": (an_oom_kill(), an_oom_kill(1061, victim_pid=701, at_s=43.9)),
        "cgroup": a_cgroup(oom_kills=2),
        "syncs": (
            a_sync(started_at_s=1.0, ended_at_s=1.1, endpoints=1),
            a_failed_sync(11),
            a_failed_sync(41),
        ),
        "status": tuple(a_look(at_s) for at_s in range(8, 51)),
        "ruleset": a_ruleset(0),
    }
    return an_evidence(**(killed | changes))


def an_outcome(evidence: Evidence | None = None, **changes: Any) -> Outcome:
    return msgspec.structs.replace(derive_outcome(evidence or an_evidence()), **changes)


def topics(outcome: Outcome) -> set[Topic]:
    return {topic for doubt in outcome.doubts for topic in doubt.about}


def only_doubt(outcome: Outcome) -> str:
    (doubt,) = outcome.doubts
    return doubt.text


class TestProgrammed:
    def test_log_listing_and_time_agree(self) -> None:
        outcome = derive_outcome(an_evidence())
        assert outcome.programming == "programmed"
        assert outcome.doubts == ()
        assert (outcome.sync_s, outcome.sync_full) == (4.4, True)
        assert outcome.programmed_after_s == 6.0
        assert outcome.nft_bytes_peak == Measure(value=111 * MIB, source="exit_record", bound="exact")
        assert outcome.kernel_bytes_end == 87 * MIB

    def test_a_sync_from_before_the_workload_does_not_count(self) -> None:
        early = a_sync(started_at_s=2.0, ended_at_s=6.0, elapsed_s=4.0)
        late = a_sync(full=False, elapsed_s=0.9)
        outcome = derive_outcome(an_evidence(syncs=(early, late)))
        assert (outcome.sync_s, outcome.sync_full) == (0.9, False)

    def test_the_first_sync_with_all_endpoints_counts(self) -> None:
        later = a_sync(started_at_s=17.0, ended_at_s=18.0, elapsed_s=1.0)
        partial = a_sync(started_at_s=10.5, ended_at_s=10.9, endpoints=60_000)
        outcome = derive_outcome(an_evidence(syncs=(later, partial, a_sync())))
        assert outcome.sync_s == 4.4

    def test_after_a_kill_and_a_retry_that_succeeded(self) -> None:
        evidence = a_killed_evidence(
            syncs=(a_failed_sync(11), a_sync(started_at_s=44.5, ended_at_s=48.0)),
            ruleset=a_ruleset(),
            programmed_at_s=48.5,
        )
        outcome = derive_outcome(evidence)
        assert outcome.programming == "programmed"
        assert outcome.nft_killed == 2
        assert outcome.retries == 1

    def test_no_listing_is_no_proof(self) -> None:
        outcome = derive_outcome(an_evidence(ruleset=None))
        assert outcome.programming == "timed_out"
        assert "no listing" in only_doubt(outcome)
        assert topics(outcome) == {"programming"}

    @pytest.mark.parametrize("listed", [99_999, 100_001])
    def test_a_listing_that_disagrees_with_the_log(self, listed: int) -> None:
        outcome = derive_outcome(an_evidence(ruleset=a_ruleset(listed)))
        assert outcome.programming == "timed_out"
        assert f"the ruleset lists {listed:,}" in only_doubt(outcome)

    def test_a_complete_listing_that_the_log_knows_nothing_of(self) -> None:
        outcome = derive_outcome(an_evidence(syncs=()))
        assert outcome.programming == "timed_out"
        assert "kube-proxy's log has no sync" in only_doubt(outcome)

    def test_agreement_that_nobody_saw_in_time(self) -> None:
        outcome = derive_outcome(an_evidence(programmed_at_s=None))
        assert outcome.programming == "timed_out"
        assert outcome.programmed_after_s is None
        assert topics(outcome) == {"programming"}

    def test_a_sync_without_its_duration(self) -> None:
        outcome = derive_outcome(an_evidence(syncs=(a_sync(elapsed_s=None),)))
        assert outcome.programming == "programmed"
        assert topics(outcome) == {"sync"}


def expected(**changes: Any) -> Programmed:
    plain = Programmed(families=("IPv4",), endpoints_logged=100_000, endpoints=100_000, service_ports=1)
    return msgspec.structs.replace(plain, **changes)


def listed(endpoints: int, service_ports: int | None = 1) -> Ruleset:
    return msgspec.structs.replace(a_ruleset(endpoints), service_ports=service_ports)


class TestWhatIsExpected:
    """What a node is to be programmed with may be less than what kube-proxy's log counts."""

    def test_a_policy_that_leaves_no_endpoint_needs_the_service_in_the_ruleset(self) -> None:
        local = an_evidence(expected=expected(endpoints=0), ruleset=listed(0))
        assert derive_outcome(local).programming == "programmed"
        absent = derive_outcome(msgspec.structs.replace(local, ruleset=listed(0, 0)))
        assert absent.programming == "timed_out"
        assert "0 of 1 ports of Services" in only_doubt(absent)
        ignored = derive_outcome(msgspec.structs.replace(local, ruleset=listed(7)))
        assert ignored.programming == "timed_out"
        assert "the ruleset lists 7" in only_doubt(ignored)

    def test_a_policy_that_leaves_no_endpoint_needs_a_sync_of_all_of_them(self) -> None:
        evidence = an_evidence(
            expected=expected(endpoints=0), ruleset=listed(0), syncs=(a_sync(endpoints=99_000),)
        )
        outcome = derive_outcome(evidence)
        assert outcome.programming == "timed_out"
        assert "no sync of 100,000 that succeeded" in only_doubt(outcome)

    def test_without_a_client_it_serves_nobody_and_that_is_no_outage(self) -> None:
        evidence = an_evidence(expected=expected(endpoints=0), ruleset=listed(0), addresses_expected=0)
        outcome = derive_outcome(evidence)
        assert (outcome.programming, outcome.served) == ("programmed", "not")
        assert [seen.fate for seen in outcome.fates] == ["programmed"]

    def test_endpoints_that_moved_and_are_still_listed_are_no_programming(self) -> None:
        stale = msgspec.structs.replace(listed(100_000), unexpected=1)
        outcome = derive_outcome(an_evidence(expected=expected(), ruleset=stale))
        assert outcome.programming == "timed_out"
        assert "lists 1 that no Service has" in only_doubt(outcome)

    def test_hints_leave_a_part(self) -> None:
        evidence = an_evidence(expected=expected(endpoints=6250), ruleset=listed(6250))
        assert derive_outcome(evidence).programming == "programmed"
        everything = derive_outcome(msgspec.structs.replace(evidence, ruleset=listed(100_000)))
        assert everything.programming == "timed_out"
        assert "100,000, those of all zones, instead of 6,250" in only_doubt(everything)
        half = derive_outcome(msgspec.structs.replace(evidence, ruleset=listed(3_000)))
        assert "lists 3,000 of the 6,250 that it should" in only_doubt(half)

    def test_a_sentinel_stands_for_a_headless_service(self) -> None:
        evidence = an_evidence(
            expected=expected(endpoints_logged=2, endpoints=2),
            ruleset=listed(2),
            syncs=(a_sync(started_at_s=1.0, ended_at_s=1.1, endpoints=1), a_sync(endpoints=3)),
        )
        assert derive_outcome(evidence).programming == "programmed"
        passed_on = msgspec.structs.replace(evidence, ruleset=listed(100_002, 2))
        assert derive_outcome(passed_on).programming == "timed_out"

    def test_older_evidence_expects_all_endpoints_of_the_family_that_carries_them(self) -> None:
        syncs = tuple(msgspec.structs.replace(sync, family="IPv6") for sync in an_evidence().syncs)
        assert derive_outcome(an_evidence(syncs=syncs)).programming == "programmed"

    def test_the_shape_is_told(self) -> None:
        assert derive_outcome(an_evidence(shape="dual-stack")).shape == "dual-stack"


class TestDualStack:
    """Both families carry the Service, and both must be programmed."""

    both = expected(families=("IPv4", "IPv6"), endpoints=200_000, service_ports=2)
    four = a_sync()
    six = a_sync(family="IPv6", started_at_s=12.0, ended_at_s=17.5, elapsed_s=5.5)

    def evidence(self, *syncs: ProxySync, **changes: Any) -> Evidence:
        dual: dict[str, Any] = {"expected": self.both, "ruleset": listed(200_000, 2), "syncs": syncs}
        return an_evidence(**(dual | changes))

    def test_the_family_that_ended_last_is_the_sync(self) -> None:
        outcome = derive_outcome(self.evidence(self.four, self.six, programmed_at_s=17.5))
        assert (outcome.programming, outcome.sync_s) == ("programmed", 5.5)
        assert outcome.programmed_after_s == 7.5

    def test_the_one_after_which_all_was_seen_counts_not_the_first(self) -> None:
        again = a_sync(started_at_s=18.0, ended_at_s=19.0, elapsed_s=1.0)
        outcome = derive_outcome(self.evidence(self.four, self.six, again, programmed_at_s=19.0))
        assert (outcome.programming, outcome.sync_s, outcome.syncs) == ("programmed", 1.0, 3)

    @pytest.mark.parametrize("alone", ["four", "six"])
    def test_one_family_is_not_enough(self, alone: str) -> None:
        outcome = derive_outcome(self.evidence(getattr(self, alone)))
        assert outcome.programming == "timed_out"
        assert outcome.sync_s is None
        assert topics(outcome) == {"programming", "sync"}

    def test_a_failure_of_one_family_is_a_failure(self) -> None:
        failed = a_failed_sync(12, family="IPv6")
        outcome = derive_outcome(
            self.evidence(self.four, failed, ruleset=listed(100_000, 1), programmed_at_s=None)
        )
        assert outcome.programming == "sync_failed"

    def test_retries_are_counted_in_each_family(self) -> None:
        failed = [a_failed_sync(at_s, family="IPv6") for at_s in (11, 41)]
        outcome = derive_outcome(self.evidence(self.four, *failed, programmed_at_s=None))
        assert (outcome.retries, outcome.retry_interval_s) == (1, 30)

    def test_a_kill_is_final_in_the_family_that_never_recovered(self) -> None:
        evidence = a_killed_evidence(
            expected=self.both,
            syncs=(
                a_failed_sync(11, family="IPv6"),
                a_sync(started_at_s=44.5, ended_at_s=48.0),
                a_failed_sync(41, family="IPv6"),
            ),
        )
        assert derive_outcome(evidence).programming == "nft_killed"


def test_a_load_that_is_still_under_way_may_need_more() -> None:
    under_way = a_sync(started_at_s=16.0, ended_at_s=None, elapsed_s=None)
    peak = derive_outcome(an_evidence(syncs=(a_sync(), under_way))).nft_bytes_peak
    assert peak == Measure(value=111 * MIB, source="exit_record", bound="lower")
    failed = msgspec.structs.replace(under_way, error="exit status 1")
    peak = derive_outcome(an_evidence(syncs=(a_sync(), failed))).nft_bytes_peak
    assert peak == Measure(value=111 * MIB, source="exit_record", bound="exact")


class TestIptablesMode:
    restore = ("iptables-restore", "-w", "5", "--noflush", "--counters")

    def test_its_loader_is_what_is_measured(self) -> None:
        evidence = an_evidence(
            loader="iptables-restore",
            exits=(
                an_nft(300),
                an_nft(46, comm="iptables-restor", argv=self.restore, pid=701),
                an_nft(80, comm="iptables-save", argv=("iptables-save", "-t", "nat"), pid=702),
                an_nft(5, comm="ip6tables-resto", argv=("ip6tables-restore", "--noflush"), pid=703),
            ),
        )
        outcome = derive_outcome(evidence)
        assert outcome.loader == "iptables-restore"
        assert outcome.nft_bytes_peak == Measure(value=46 * MIB, source="exit_record", bound="exact")
        assert outcome.nft_runs == 2

    def test_in_nftables_mode_it_is_not(self) -> None:
        cleanup = an_nft(300, comm="iptables-restor", argv=self.restore, pid=701)
        peak = derive_outcome(an_evidence(exits=(cleanup, an_nft(46)))).nft_bytes_peak
        assert peak is not None
        assert peak.value == 46 * MIB

    def test_a_killed_one(self) -> None:
        killed = [
            a_killed_nft(46, comm="iptables-restor", argv=self.restore, pid=700 + number, at_s=14.0 + number)
            for number in range(2)
        ]
        evidence = a_killed_evidence(
            loader="iptables-restore",
            exits=tuple(killed),
            oom_kills=tuple(
                an_oom_kill(46, victim_pid=record.pid, victim_comm="iptables-restor") for record in killed
            ),
        )
        outcome = derive_outcome(evidence)
        assert (outcome.programming, outcome.nft_killed) == ("nft_killed", 2)
        assert outcome.oom_victims == ("iptables-restor", "iptables-restor")
        assert describe_outcome(outcome) == "iptables-restore killed, Ready"


class TestKilled:
    def test_exit_record_and_kernel_log_agree(self) -> None:
        outcome = derive_outcome(a_killed_evidence())
        assert outcome.programming == "nft_killed"
        assert outcome.oom_victims == ("nft", "nft")
        assert outcome.sync_errors == ("signal: killed",)
        assert (outcome.retries, outcome.retry_interval_s) == (1, 30.0)
        assert outcome.ready_throughout is True
        assert outcome.doubts == ()

    def test_its_peak_is_a_lower_bound(self) -> None:
        peak = derive_outcome(a_killed_evidence()).nft_bytes_peak
        assert peak == Measure(value=1063 * MIB, source="exit_record", bound="lower")

    def test_sigkill_without_kernel_log_is_a_doubt(self) -> None:
        outcome = derive_outcome(a_killed_evidence(oom_kills=(), cgroup=a_cgroup(oom_kills=0)))
        assert outcome.programming == "sync_failed"
        assert topics(outcome) == {"programming", "victims"}
        assert "nft 700 died by SIGKILL" in outcome.doubts[0].text

    def test_kernel_log_without_exit_record_is_a_doubt(self) -> None:
        outcome = derive_outcome(a_killed_evidence(exits=()))
        assert outcome.programming == "sync_failed"
        assert outcome.nft_bytes_peak is None
        assert topics(outcome) == {"programming", "nft_peak_low"}

    def test_another_victim_with_the_same_pid_is_no_attribution(self) -> None:
        kill = an_oom_kill(victim_comm="kubelet")
        evidence = a_killed_evidence(exits=(a_killed_nft(),), oom_kills=(kill,), cgroup=a_cgroup(oom_kills=1))
        assert derive_outcome(evidence).programming == "sync_failed"

    def test_success_of_the_other_family_does_not_end_it(self) -> None:
        ipv6 = a_sync(family="IPv6", endpoints=0, started_at_s=46.0, ended_at_s=46.1)
        evidence = a_killed_evidence()
        outcome = derive_outcome(msgspec.structs.replace(evidence, syncs=(*evidence.syncs, ipv6)))
        assert outcome.programming == "nft_killed"

    def test_the_family_is_the_failing_one_where_no_endpoints_were_named(self) -> None:
        ipv6 = a_sync(family="IPv6", endpoints=0, started_at_s=46.0, ended_at_s=46.1)
        syncs = (ipv6, a_failed_sync(11, endpoints=None), a_failed_sync(41, endpoints=None))
        assert derive_outcome(a_killed_evidence(syncs=syncs)).programming == "nft_killed"

    def test_the_cgroup_counted_other_kills_than_the_log(self) -> None:
        outcome = derive_outcome(a_killed_evidence(cgroup=a_cgroup(oom_kills=3)))
        assert only_doubt(outcome) == "the cgroup counted 3 OOM kills, the kernel log has 2"
        assert "victims" in topics(outcome)

    @pytest.mark.parametrize(
        ("mode", "counted", "doubted"), [("v1", 1, False), ("v2", 1, True), ("v1", 0, True)]
    )
    def test_version_1_forgets_kills_in_containers_that_are_gone(
        self, mode: str, counted: int, doubted: bool
    ) -> None:
        pod = an_oom_kill(victim_comm="web", victim_pid=900, victim_cgroup="/kn/real-0/kubepods/podab/cd")
        kills = (an_oom_kill(), pod)
        evidence = a_killed_evidence(
            exits=(a_killed_nft(),), oom_kills=kills, cgroup=a_cgroup(mode=mode, oom_kills=counted)
        )
        texts = [doubt.text for doubt in derive_outcome(evidence).doubts]
        assert any("the cgroup counted" in text for text in texts) is doubted

    @pytest.mark.parametrize(
        ("logged_mib", "doubted"), [(1063, False), (1020, False), (1000, True), (1200, True)]
    )
    def test_peaks_of_two_witnesses(self, logged_mib: int, doubted: bool) -> None:
        evidence = a_killed_evidence(
            exits=(a_killed_nft(1063),), oom_kills=(an_oom_kill(logged_mib),), cgroup=a_cgroup(oom_kills=1)
        )
        found = topics(derive_outcome(evidence))
        assert found == ({"nft_peak_low", "nft_peak_high"} if doubted else set())

    def test_a_dead_daemon_is_graver(self) -> None:
        dead = DaemonRecord(name="kubelet", pid=610, exit_code=-9, memory_bytes_peak=None, oom_score_adj=0)
        assert derive_outcome(a_killed_evidence(daemons=(dead,))).programming == "daemon_died"


class TestNotProgrammed:
    def test_syncs_that_fail_without_a_kill(self) -> None:
        evidence = an_evidence(
            syncs=(a_failed_sync(error="exit status 1"),), ruleset=a_ruleset(0), programmed_at_s=None
        )
        outcome = derive_outcome(evidence)
        assert outcome.programming == "sync_failed"
        assert outcome.sync_s is None
        assert outcome.doubts == ()

    def test_a_failure_that_was_got_over_is_no_failure(self) -> None:
        syncs = (a_failed_sync(11, error="x"), a_sync(started_at_s=15.0, ended_at_s=16.0, endpoints=10))
        outcome = derive_outcome(an_evidence(syncs=syncs, ruleset=a_ruleset(9), programmed_at_s=None))
        assert outcome.programming == "timed_out"

    def test_a_sync_under_way_after_failures_is_still_failing(self) -> None:
        syncs = (a_failed_sync(11, error="x"), a_sync(started_at_s=19.0, ended_at_s=None, elapsed_s=None))
        outcome = derive_outcome(an_evidence(syncs=syncs, ruleset=a_ruleset(0), programmed_at_s=None))
        assert outcome.programming == "sync_failed"

    def test_nothing_at_all(self) -> None:
        evidence = an_evidence(syncs=(), exits=(), ruleset=None, programmed_at_s=None)
        outcome = derive_outcome(evidence)
        assert outcome.programming == "timed_out"
        assert outcome.nft_bytes_peak is None
        assert outcome.retry_interval_s is None


class TestNftPeak:
    def test_only_loads_count(self) -> None:
        exits = (an_nft(111), an_nft(900, argv=LISTING, pid=701), an_nft(500, comm="kubelet", pid=702))
        outcome = derive_outcome(an_evidence(exits=exits))
        assert outcome.nft_bytes_peak == Measure(value=111 * MIB, source="exit_record", bound="exact")
        assert outcome.nft_runs == 2
        assert outcome.doubts == ()

    def test_an_unknown_command_line_counts_and_is_said(self) -> None:
        outcome = derive_outcome(an_evidence(exits=(an_nft(111), an_nft(120, argv=None, pid=701))))
        assert outcome.nft_bytes_peak == Measure(value=120 * MIB, source="exit_record", bound="exact")
        assert topics(outcome) == {"nft_peak_high"}
        assert "1 of 2 nft processes" in only_doubt(outcome)

    def test_a_small_unknown_changes_nothing(self) -> None:
        outcome = derive_outcome(an_evidence(exits=(an_nft(111), an_nft(5, argv=None, pid=701))))
        assert outcome.doubts == ()

    @pytest.mark.parametrize("changes", [{"measured_by": "poll"}, {"exit_records_lost": 2}])
    def test_missed_moments_make_a_lower_bound(self, changes: dict[str, Any]) -> None:
        outcome = derive_outcome(an_evidence(**changes))
        assert outcome.nft_bytes_peak is not None
        assert outcome.nft_bytes_peak.bound == "lower"
        assert topics(outcome) == {"nft_peak_low"}


class TestReady:
    @pytest.mark.parametrize(
        ("looks", "expected"),
        [
            ([(at_s, "True") for at_s in range(8, 21)], True),
            ([(10, "True"), (15, "True"), (20, "True")], True),
            ([(10, "True"), (15.1, "True"), (20, "True")], None),
            ([(16, "True"), (20, "True")], None),
            ([(10, "True"), (14, "True")], None),
            ([(12, "Unknown")], False),
            ([(8, "False"), *((at_s, "True") for at_s in range(10, 21))], True),
            ([(at_s, "True") for at_s in range(10, 21)] + [(25, "absent")], True),
            ([], None),
        ],
    )
    def test_throughout(self, looks: list[tuple[float, str]], expected: bool | None) -> None:
        outcome = derive_outcome(an_evidence(status=tuple(a_look(*look) for look in looks)))
        assert outcome.ready_throughout is expected
        assert ("ready" in topics(outcome)) == (expected is None)

    def test_at_the_end(self) -> None:
        looks = (*(a_look(at_s) for at_s in range(8, 20)), a_look(20, "Unknown"))
        assert derive_outcome(an_evidence(status=looks)).ready_at_end is False
        assert derive_outcome(an_evidence(status=())).ready_at_end is False


seconds = st.floats(min_value=-10, max_value=1000)
sizes = st.integers(min_value=0, max_value=2**41)
pids = st.integers(min_value=1, max_value=5)
comms = st.sampled_from(["nft", "kubelet"])
exits = st.builds(
    ProcessExit,
    at_s=seconds,
    pid=pids,
    comm=comms,
    signal=st.sampled_from([None, 9, 15]),
    memory_bytes_peak=sizes,
    argv=st.sampled_from([None, LOAD, LISTING]),
)
kills = st.builds(OomKill, at_s=seconds, victim_pid=pids, victim_comm=comms, candidates=st.just(()))
syncs = st.builds(
    ProxySync,
    started_at_s=seconds,
    ended_at_s=st.none() | seconds,
    endpoints=st.sampled_from([None, 0, 9, 10, 11]),
    error=st.sampled_from([None, "signal: killed"]),
    elapsed_s=st.none() | seconds,
)
daemons = st.builds(DaemonRecord, exit_code=st.sampled_from([None, None, 1]), memory_bytes_peak=st.none())
cgroups = st.builds(a_cgroup, oom_kills=st.integers(0, 2))
evidences = st.builds(
    an_evidence,
    endpoints_expected=st.just(10),
    workload_applied_at_s=seconds,
    ended_at_s=seconds,
    programmed_at_s=st.none() | seconds,
    exits=st.lists(exits, max_size=4).map(tuple),
    exit_records_lost=st.integers(0, 2),
    measured_by=st.sampled_from(["exit_record", "poll"]),
    oom_kills=st.lists(kills, max_size=3).map(tuple),
    cgroup=cgroups,
    syncs=st.lists(syncs, max_size=5).map(tuple),
    status=st.lists(st.builds(a_look, seconds, st.sampled_from(["True", "Unknown"])), max_size=6).map(tuple),
    ruleset=st.none() | st.builds(a_ruleset, st.sampled_from([9, 10])),
    daemons=st.lists(daemons, max_size=2).map(tuple),
)


class TestAnyEvidence:
    @settings(deadline=None)
    @given(evidences)
    def test_means_something_and_is_kept_by_a_round_trip(self, evidence: Evidence) -> None:
        outcome = derive_outcome(evidence)
        assert outcome.programming in typing.get_args(Programming)
        assert msgspec.json.decode(msgspec.json.encode(outcome), type=Outcome) == outcome

    @settings(deadline=None)
    @given(evidences)
    def test_programmed_only_with_all_witnesses(self, evidence: Evidence) -> None:
        outcome = derive_outcome(evidence)
        if outcome.programming == "programmed":
            assert evidence.ruleset is not None
            assert evidence.ruleset.endpoints == evidence.endpoints_expected
            assert evidence.programmed_at_s is not None
            assert outcome.sync_full is not None

    @settings(deadline=None)
    @given(evidences)
    def test_killed_only_with_both_witnesses(self, evidence: Evidence) -> None:
        if derive_outcome(evidence).programming == "nft_killed":
            sigkilled = {found.pid for found in evidence.exits if found.comm == "nft" and found.signal == 9}
            assert sigkilled & {kill.victim_pid for kill in evidence.oom_kills if kill.victim_comm == "nft"}

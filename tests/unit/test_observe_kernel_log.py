"""OOM kills from kernel log text: a recorded one, older layouts, and anything else."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from framework.observe.kernel_log import KernelLine, OomParser, parse_record
from framework.outcome import OomKill

RECORDED = Path(__file__).parent / "recorded" / "kernel_log"
KIB = 1024
OLD_TABLE = """\
[ pid ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name
[  310]     0   310   203345    19876   425984        0          -998 kube-proxy
[ 4242]     0  4242   275000   271437  2244608        0          -998 nft
oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=node,mems_allowed=0-1,3,\
oom_memcg=/kilonode/a,task_memcg=/kilonode/a,task=nft,pid=4242,uid=0
Memory cgroup out of memory: Killed process 4242 (nft) total-vm:1100000kB, anon-rss:1085748kB, file-rss:0kB, \
shmem-rss:0kB, UID:0 pgtables:2192kB oom_score_adj:-998
"""
OLDEST = """\
[ pid ]   uid  tgid total_vm      rss nr_ptes nr_pmds swapents oom_score_adj name
[ 4242]     0  4242   275000   271437     530       5        7             0 nft
Memory cgroup out of memory: Kill process 4242 (nft) score 990 or sacrifice child
Killed process 4242 (nft) total-vm:1100000kB, anon-rss:1085748kB, file-rss:4kB, shmem-rss:0kB
"""


def recorded_lines() -> list[KernelLine]:
    text = (RECORDED / "memcg-oom-6.18.kmsg").read_text()
    lines = [parse_record(line) for line in text.splitlines()]
    return [line for line in lines if line is not None]


def kills_in(lines: list[KernelLine]) -> tuple[OomKill, ...]:
    parser = OomParser(boottime_offset_s=-1000.0)
    for line in lines:
        parser.feed(line)
    return parser.kills


def plain(text: str) -> list[KernelLine]:
    return [KernelLine(1.0, line) for line in text.splitlines()]


def test_a_recorded_kill_of_nft_in_a_child_cgroup() -> None:
    (kill,) = kills_in(recorded_lines())
    assert (kill.victim_comm, kill.victim_pid) == ("nft", 16321)
    assert kill.constraint == "CONSTRAINT_MEMCG"
    assert kill.cgroup == "/kilonode/run-1/node-1"
    assert kill.victim_cgroup == "/kilonode/run-1/node-1/pod"
    assert (kill.memory_bytes_anon, kill.memory_bytes_file) == (64768 * KIB, 2392 * KIB)
    assert (kill.page_table_bytes, kill.oom_score_adj) == (184 * KIB, 0)
    assert 1165.0 < kill.at_s < 1166.0
    sleep, nft = kill.candidates
    assert (sleep.comm, nft.comm) == ("sleep", "nft")
    assert (nft.memory_bytes_rss, nft.page_table_bytes) == (16790 * 4 * KIB, 188416)


def test_the_table_without_columns_for_kinds_of_rss_and_a_list_of_memory_nodes() -> None:
    (kill,) = kills_in(plain(OLD_TABLE))
    assert kill.cgroup == kill.victim_cgroup == "/kilonode/a"
    assert kill.memory_bytes_anon == 1085748 * KIB
    assert kill.oom_score_adj == -998
    assert [candidate.comm for candidate in kill.candidates] == ["kube-proxy", "nft"]
    assert kill.candidates[1].memory_bytes_rss == 271437 * 4 * KIB


def test_the_oldest_layout_leaves_the_cause_empty() -> None:
    (kill,) = kills_in(plain(OLDEST))
    assert (kill.constraint, kill.cgroup, kill.candidates) == ("", "", ())
    assert kill.memory_bytes_file == 4 * KIB


def test_a_global_kill() -> None:
    (kill,) = kills_in(
        plain(
            "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,"
            "task_memcg=/system.slice/kubelet.service,task=kubelet (x),pid=7,uid=0\n"
            "Out of memory: Killed process 7 (kubelet (x)) total-vm:1kB, anon-rss:2kB, file-rss:3kB, "
            "shmem-rss:4kB, UID:0 pgtables:5kB oom_score_adj:-999"
        )
    )
    assert (kill.cgroup, kill.victim_cgroup) == ("/", "/system.slice/kubelet.service")
    assert (kill.victim_comm, kill.memory_bytes_shmem) == ("kubelet (x)", 4 * KIB)


def test_a_killed_group_shares_one_cause() -> None:
    kills = kills_in(plain(OLD_TABLE + OLD_TABLE.splitlines()[-1].replace("4242", "310")))
    assert [kill.victim_pid for kill in kills] == [4242, 310]
    assert kills[1].cgroup == "/kilonode/a"


def test_two_interleaved_kills_keep_their_own_causes() -> None:
    other = OLD_TABLE.replace("4242", "5353").replace("/kilonode/a", "/kilonode/b")
    pairs = zip(plain(OLD_TABLE)[3:], plain(other)[3:], strict=True)
    tables = plain(OLD_TABLE)[:3] + plain(other)[:3]
    kills = kills_in(tables + [line for pair in pairs for line in pair])
    assert [(kill.victim_pid, kill.cgroup) for kill in kills] == [
        (4242, "/kilonode/a"),
        (5353, "/kilonode/b"),
    ]
    assert [[c.pid for c in kill.candidates] for kill in kills] == [[310, 4242], [310, 5353]]


@given(st.data())
def test_no_mixture_of_truncated_lines_is_an_error(data: st.DataObject) -> None:
    pool = recorded_lines()[-12:] + plain(OLD_TABLE) + plain(OLDEST)
    lines = data.draw(st.lists(st.sampled_from(pool), max_size=30))
    cut = [line._replace(text=line.text[: data.draw(st.integers(0, 200))]) for line in lines]
    for kill in kills_in(cut):
        assert kill.victim_pid >= 0


@given(st.text(max_size=200))
def test_no_text_is_an_error(text: str) -> None:
    line = parse_record(text) or KernelLine(0.0, text)
    kills_in([line, KernelLine(0.0, f"[  pid  ]   uid  tgid total_vm {text} name"), *plain(OLD_TABLE)])


def test_records_with_properties_and_what_is_no_record() -> None:
    assert parse_record("6,704,2165857990,-;usb: found\n SUBSYSTEM=usb\n") == KernelLine(
        2165.85799, "usb: found"
    )
    assert parse_record("6,1,12,-,caller=T9;a;b") == KernelLine(12e-6, "a;b")
    for text in ("", "no record", "6,1;x", "a,b,c,d;x", " SUBSYSTEM=usb"):
        assert parse_record(text) is None

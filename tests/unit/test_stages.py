"""nft's stages: massif's output read, bytes attributed, figures derived, and the page that shows them.

The recorded profile is of Debian's nft 1.0.6 loading 100 endpoints of kube-proxy 1.35.0: of 58 snapshots an
early one, the last one before evaluation, and the peak.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from benchmarks.stages import claims_table, figures_table, growth_table
from framework.claims import judge_claims, load_claims
from framework.errors import BadInputError, MissingRequirementError
from framework.outcome import Measure, Ruleset
from framework.realnode.transactions import capture_transactions, captured_transactions
from framework.stages import (
    HeapProfile,
    KernelMemory,
    Load,
    StageBytes,
    StagesRun,
    StagesTable,
    Transaction,
    count_transaction,
    growth,
    load_stages,
    profile_load,
    write_stages,
)
from framework.stages.attribution import by_stage, heap_profile, parsers_road, stage_of
from framework.stages.massif import Frame, Snapshot, Stack, parse_massif
from framework.stages.profile import sent_bytes
from framework.units import MIB

RECORDED = Path(__file__).parent / "recorded" / "massif"
PROFILE = (RECORDED / "nft-1.0.6.out").read_text()
TRACE = (RECORDED / "trace.log").read_text()
DOCS = Path(__file__).parents[2] / "docs"
CHAINS = b"""\
add chain ip kube-proxy endpoint-AAAAAAAA-default/all/tcp/p80__10.64.0.1/80
flush chain ip kube-proxy endpoint-AAAAAAAA-default/all/tcp/p80__10.64.0.1/80
add rule ip kube-proxy endpoint-AAAAAAAA-default/all/tcp/p80__10.64.0.1/80 ip saddr 10.64.0.1 jump mark
add rule ip kube-proxy endpoint-AAAAAAAA-default/all/tcp/p80__10.64.0.1/80 meta l4proto tcp dnat to \
10.64.0.1:80
add rule ip6 kube-proxy endpoint-BBBBBBBB-default/all/tcp/p80__fd00::1/80 meta l4proto tcp dnat to \
[fd00::1]:80
"""
MAP = b"""\
add chain ip kube-proxy service-AAAAAAAA-default/all/tcp/p80
add element ip kube-proxy service-ips { 10.99.0.1 . tcp . 80 : goto service-AAAAAAAA-default/all/tcp/p80 }
add rule ip kube-proxy service-AAAAAAAA-default/all/tcp/p80 meta l4proto tcp dnat ip addr . port to numgen \
random mod 3 map { 0 : 10.64.0.1 . 80 , 1 : 10.64.0.2 . 80 , 2 : 10.64.0.1 . 80 }
"""

NFTNL = "libnftnl.so.11.6.0"
BATCH_BYTES = (2 << 20) + 65535 + 4096
"""nft's buffers have 2 MiB, and the size of the longest message and a page beyond (src/mnl.c)."""
Tree = tuple[int, list[Any]]
"""A node: what it holds beyond its children, and they."""
TREES: st.SearchStrategy[Tree] = st.recursive(
    st.tuples(st.integers(0, 1000), st.just([])),
    lambda inner: st.tuples(st.integers(0, 1000), st.lists(inner, max_size=3)),
    max_leaves=12,
)


TOGETHER = PROFILE.replace(
    "0x48A3C1D: ??? (in /usr/lib/x86_64-linux-gnu/libnftables.so.1.1.0)", "in 2 places", 1
)


def size_of(tree: Tree) -> int:
    own, children = tree
    return own + sum(size_of(child) for child in children)


def lines_of(tree: Tree, path: tuple[int, ...] = ()) -> list[str]:
    """The tree as massif writes it; a frame's function says where in the tree it is."""
    children = tree[1]
    name = "-".join(map(str, path))
    lines = [f"{' ' * len(path)}n{len(children)}: {size_of(tree)} 0xAB: f{name} (in /lib/libx.so.1)"]
    for index, child in enumerate(children):
        lines += lines_of(child, (*path, index))
    return lines


def stacks_of(tree: Tree, path: tuple[int, ...] = ()) -> list[Stack]:
    own, children = tree
    names = [f"f{'-'.join(map(str, path[:depth]))}" for depth in range(1, len(path) + 1)]
    frames = [Frame(name, "libx.so.1", "0xAB") for name in names]
    below = [stacks_of(child, (*path, index)) for index, child in enumerate(children)]
    return [*itertools.chain(*below), *([Stack(own, tuple(frames))] if own else [])]


def massif(*trees: Sequence[str]) -> str:
    rule = "#-----------\n"
    text = "desc: --time-unit=i\ncmd: nft -f -\ntime_unit: i\n"
    for number, tree in enumerate(trees):
        text += f"{rule}snapshot={number}\n{rule}time={number * 7}\nmem_heap_B=10\nmem_heap_extra_B=3\n"
        text += "mem_stacks_B=0\nheap_tree=detailed\n" + "".join(f"{line}\n" for line in tree)
    return text


def frames(*calls: str) -> tuple[Frame, ...]:
    """``frames("nftnl_batch_alloc@libnftnl.so.11", ...)``; an address may follow as a third part."""
    return tuple(Frame(*call.split("@")) for call in calls)


def a_snapshot(*stacks: tuple[int, Sequence[str]], tree: Any = "detailed") -> Snapshot:
    """``a_snapshot((10, ["malloc's caller", "its caller", ...]))``."""
    held = tuple(Stack(size_bytes, frames(*calls)) for size_bytes, calls in stacks)
    heap_bytes = sum(stack.size_bytes for stack in held)
    return Snapshot(0, 0, heap_bytes, 0, tree, held)


def a_measure(value: int, bound: Any = "exact") -> Measure:
    return Measure(value=value, source="exit_record", bound=bound)


def a_run(**changes: Any) -> StagesRun:
    run = StagesRun(
        made_utc="2026-01-01T00:00:00+00:00",
        command="kilonode stages",
        obtained="the file load.nft",
        kube_proxy="1.35.0",
        endpoints_asked=100_000,
        versions={"nft": "1.0.6"},
        transaction=Transaction(size_bytes=50 * MIB, sha256="ab" * 32, chains=7, rules=9, endpoints=100_000),
        earlier=2,
        heap=HeapProfile(
            peak=StageBytes(
                input_bytes=64 * MIB,
                parsed_bytes=700 * MIB,
                evaluated_bytes=150 * MIB,
                structures_bytes=500,
                netlink_bytes=90 * MIB,
            ),
            admin_bytes=60 * MIB,
            most=StageBytes(parsed_bytes=850 * MIB, structures_bytes=600),
            batch_began=StageBytes(parsed_bytes=700 * MIB, evaluated_bytes=100 * MIB),
            sent_bytes=88 * MIB,
            snapshots=60,
        ),
        rss_peak=a_measure(1060 * MIB),
        rss_idle=a_measure(4 * MIB),
        rss_peak_in_node=None,
        kernel=KernelMemory(after_bytes=100 * MIB, peak=a_measure(140 * MIB)),
        ruleset=Ruleset(
            tables=2, chains=100_035, rules=200_050, elements=9, endpoints=100_000, listing_bytes=24 * MIB
        ),
    )
    return msgspec.structs.replace(run, **changes)


class TestMassif:
    def test_a_recorded_profile(self) -> None:
        snapshots = parse_massif(PROFILE)
        assert [snapshot.tree for snapshot in snapshots].count("peak") == 1
        assert len(snapshots) == PROFILE.count("snapshot=")
        assert [s.instructions for s in snapshots] == sorted(s.instructions for s in snapshots)
        for snapshot in snapshots:
            assert f"mem_heap_B={snapshot.heap_bytes}\nmem_heap_extra_B={snapshot.admin_bytes}\n" in PROFILE
            assert sum(stack.size_bytes for stack in snapshot.stacks) == snapshot.heap_bytes
        peak = max(snapshots, key=lambda snapshot: snapshot.heap_bytes)
        assert peak.tree == "peak"
        batch = max(
            (stack for stack in peak.stacks if stack.frames[1].function == "nftnl_batch_alloc"),
            key=lambda stack: stack.size_bytes,
        )
        assert batch.size_bytes == BATCH_BYTES
        assert batch.frames[0] == Frame("", NFTNL, "0x4B5E277")

    @given(st.lists(TREES, min_size=1, max_size=3))
    def test_any_tree(self, trees: list[Tree]) -> None:
        snapshots = parse_massif(massif(*map(lines_of, trees)))
        assert [list(snapshot.stacks) for snapshot in snapshots] == [stacks_of(tree) for tree in trees]

    @settings(deadline=None)
    @given(st.integers(0, PROFILE.count("\n") - 1))
    def test_what_was_cut_is_refused_or_a_beginning(self, lines: int) -> None:
        whole = parse_massif(PROFILE)
        cut = "".join(PROFILE.splitlines(keepends=True)[:lines])
        with suppress(BadInputError):
            found = parse_massif(cut)
            assert found == whole[: len(found)]

    @pytest.mark.parametrize(
        "text", ["", "hello\n", PROFILE.replace("time_unit: i", "time_unit: ms"), massif(["n1: x"]), TOGETHER]
    )
    def test_anything_else_is_refused(self, text: str) -> None:
        with pytest.raises(BadInputError, match="no whole output"):
            parse_massif(text)


NFT = ("nft_run_cmd_from_filename@libnftables.so.1.1.0@0x3", "@nft@0x2", "main@libc.so.6@0x1")
PARSE = ("@libnftables.so.1.1.0@0x50", "@libnftables.so.1.1.0@0x10", *NFT)
EVALUATE = ("@libnftables.so.1.1.0@0x50", "@libnftables.so.1.1.0@0x20", *NFT)
SEND = ("@libnftables.so.1.1.0@0x60", "@libnftables.so.1.1.0@0x30", *NFT)
BATCH = ("nftnl_batch_alloc@libnftnl.so.11.6.0", *SEND)
CACHE = ("@libnftnl.so.11.6.0", "mnl_cb_run@libmnl.so.0.2.0", *EVALUATE)
PARSER = ("0x1", "0x2", "0x3", "0x10")


class TestAttribution:
    @pytest.mark.parametrize(
        ("calls", "stage"),
        [
            (("@libnftables.so.1.1.0", *NFT), "input_bytes"),
            (PARSE, "parsed_bytes"),
            (("strdup@", *PARSE), "parsed_bytes"),
            (("@libnftables.so.1.1.0", "__gmpz_init2@libgmp.so.10.4.1", *PARSE), "parsed_bytes"),
            (EVALUATE, "evaluated_bytes"),
            (SEND, "evaluated_bytes"),
            (("@libnftables.so.1.1.0", "nft_ctx_new@libnftables.so.1.1.0", "@nft"), "other_bytes"),
            (("@libnftables.so", "nftnl_chain_list_foreach@libnftnl.so.11", *EVALUATE), "cache_bytes"),
            (("nftnl_rule_alloc@libnftnl.so.11.6.0", *SEND), "structures_bytes"),
            (CACHE, "cache_bytes"),
            (("@libnftnl.so.11.6.0", "nftnl_batch_update@libnftnl.so.11.6.0", *SEND), "netlink_bytes"),
            (("mnl_nlmsg_batch_start@libmnl.so.0.2.0", "@libnftnl.so.11.6.0", *SEND), "netlink_bytes"),
            (("mnl_socket_open@libmnl.so.0.2.0", "nft_ctx_new@libnftables.so.1.1.0"), "other_bytes"),
            (("@nft",), "other_bytes"),
            ((), "other_bytes"),
        ],
    )
    def test_the_innermost_library_and_the_road_decide(self, calls: tuple[str, ...], stage: str) -> None:
        assert stage_of(frames(*calls), list(PARSER)) == stage

    def test_the_parser_is_what_came_before_the_cache(self) -> None:
        """Though evaluation, and what it makes, is larger in the end."""
        snapshots = [
            a_snapshot((5, ("@libnftables.so", *NFT))),
            a_snapshot((5, ("@libnftables.so", *NFT)), (9, PARSE), (1, ("@libnftables.so@0x4", *NFT[1:]))),
            a_snapshot((9, PARSE), (50, EVALUATE), (2, CACHE)),
            a_snapshot((9, PARSE), (90, EVALUATE), (7, BATCH), tree="peak"),
        ]
        assert parsers_road(snapshots) == list(PARSER)
        profile = heap_profile(snapshots, 0)
        assert profile.peak == StageBytes(parsed_bytes=9, evaluated_bytes=90, netlink_bytes=7)
        assert profile.batch_began == profile.peak
        assert (profile.most.input_bytes, profile.most.cache_bytes) == (5, 2)
        assert (profile.peak.tree_bytes, profile.peak.beyond_parser_bytes) == (99, 90)

    def test_every_byte_of_a_recorded_profile_has_a_stage(self) -> None:
        snapshots = parse_massif(PROFILE)
        parser = parsers_road(snapshots)
        for snapshot in snapshots:
            assert by_stage(snapshot.stacks, parser).total_bytes == snapshot.heap_bytes

    def test_a_recorded_load(self) -> None:
        profile = heap_profile(parse_massif(PROFILE), sent_bytes(TRACE))
        assert profile.sent_bytes == 0x16158
        assert BATCH_BYTES < profile.peak.netlink_bytes < BATCH_BYTES + 200
        assert profile.peak.input_bytes == 65536
        assert profile.peak.tree_bytes >= profile.batch_began.tree_bytes > 10 * 49_540
        assert profile.peak.parsed_bytes > 3 * profile.peak.evaluated_bytes > 0
        assert profile.most.parsed_bytes > 1.1 * profile.peak.parsed_bytes
        assert profile.most.netlink_bytes == profile.peak.netlink_bytes

    @pytest.mark.parametrize("missing", [PARSE, CACHE, BATCH])
    def test_a_load_without_all_stages_is_refused(self, missing: Sequence[str]) -> None:
        """nft reads no ruleset back to add a table: nothing tells then where evaluation begins."""
        snapshots = [
            a_snapshot((9, calls), tree="peak") for calls in (PARSE, CACHE, BATCH) if calls is not missing
        ]
        with pytest.raises(BadInputError, match=r"can't be told apart.*adds rules"):
            heap_profile(snapshots, 0)


class TestTransaction:
    def test_a_chain_for_each_endpoint(self) -> None:
        counted = count_transaction(CHAINS)
        assert (counted.chains, counted.rules, counted.endpoints) == (1, 3, 2)
        assert counted.size_bytes == len(CHAINS)

    def test_a_map_of_endpoints(self) -> None:
        counted = count_transaction(MAP)
        assert (counted.chains, counted.rules, counted.endpoints) == (1, 1, 2)
        assert counted.sha256 != count_transaction(CHAINS).sha256


class TestCapture:
    """With an nft that tells how it was called."""

    @pytest.fixture
    def nft(self, tmp_path: Path) -> Path:
        real = tmp_path / "copies" / "001-nft"
        real.parent.mkdir()
        real.write_text('#!/bin/sh\necho "${0##*/} $*"; cat; exit 3\n')
        real.chmod(0o755)
        nft = tmp_path / "a bin" / "nft"
        nft.parent.mkdir()
        nft.symlink_to(real)
        capture_transactions(nft, tmp_path / "transactions")
        return nft

    def call(self, nft: Path, *arguments: str, stdin: bytes) -> tuple[bytes, int]:
        done = subprocess.run([nft, *arguments], input=stdin, capture_output=True, check=False)
        return done.stdout, done.returncode

    def test_a_load_is_kept_and_reaches_the_real_nft(self, nft: Path, tmp_path: Path) -> None:
        for text in (CHAINS, MAP):
            assert self.call(nft, "-f", "-", stdin=text) == (b"nft -f -\n" + text, 3)
        kept = captured_transactions(tmp_path / "transactions")
        assert [path.read_bytes() for path in kept] == [CHAINS, MAP]

    def test_anything_else_is_not(self, nft: Path, tmp_path: Path) -> None:
        assert self.call(nft, "--check", "-f", "-", stdin=b"x") == (b"nft --check -f -\nx", 3)
        assert self.call(nft, "list", "a b", stdin=b"") == (b"nft list a b\n", 3)
        assert captured_transactions(tmp_path / "transactions") == ()


class TestRun:
    def test_what_is_resident_is_accounted(self) -> None:
        run = a_run()
        assert run.parse_ratio == 17
        assert run.heap.peak.tree_bytes == 850 * MIB
        assert run.untouched_bytes == (64 - 50 + 90 - 88) * MIB
        assert run.accounted_bytes == (4 + 64 + 850 + 90 + 60 - 16) * MIB + 500
        assert run.unaccounted_bytes == 8 * MIB - 500

    def test_the_peak_bounds_what_no_snapshot_saw(self) -> None:
        assert a_run().structures_bytes_bound == (64 + 850 + 90 - 800) * MIB + 500

    def test_buffers_are_never_touched_less_than_not_at_all(self) -> None:
        heap = msgspec.structs.replace(
            a_run().heap, sent_bytes=200 * MIB, peak=StageBytes(netlink_bytes=MIB, input_bytes=MIB)
        )
        assert a_run(heap=heap).untouched_bytes == 0

    def test_files_come_back_as_they_were(self, tmp_path: Path) -> None:
        runs = (a_run(), a_run(kube_proxy=None, endpoints_asked=None))
        write_stages(tmp_path / "stages.json", runs)
        assert load_stages(tmp_path / "stages.json").runs == runs

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            (None, "can't be read"),
            ("{}", "is damaged"),
            ('{"format": 2, "runs": [{}]}', "is damaged"),
            ('{"format": 1, "runs": [{}]}', "format 1, this kilonode reads 2.*make it again"),
        ],
    )
    def test_other_files_are_refused(self, tmp_path: Path, text: str | None, why: str) -> None:
        path = tmp_path / "stages.json"
        if text is not None:
            path.write_text(text)
        with pytest.raises(BadInputError, match=f"{why}.*kilonode stages"):
            load_stages(path)

    def test_without_valgrind_the_package_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", os.fspath(tmp_path))
        with pytest.raises(MissingRequirementError, match=r"setup --profiler.*apt-get install valgrind"):
            profile_load(Load(tmp_path / "load.nft"), nft=Path("nft"), ledger=None)  # type: ignore[arg-type]


class TestTable:
    def shown(self, *runs: StagesRun) -> str:
        console = Console(width=100)
        with console.capture() as capture:
            console.print(StagesTable(runs))
        return capture.get()

    def test_six_loads_fit_a_hundred_columns(self) -> None:
        text = self.shown(*[a_run(rss_peak=a_measure(1060 * MIB, "lower"))] * 6)
        rows = {
            line.split("|")[1].strip(): line.split("|")[2:-1] for line in text.splitlines() if "|" in line
        }
        assert [cell.strip() for cell in rows["- that over the file"]] == [">=17.0"] * 6
        assert [cell.strip() for cell in rows["kernel's, at most"]] == ["140"] * 6
        assert [cell.strip() for cell in rows["chains listed"]] == ["100,035"] * 6
        assert [cell.strip() for cell in rows["RSS peak, unprofiled"]] == [">=1,060"] * 6
        assert rows["RSS peak in the node"][0].strip() == "-"
        assert "never written" in rows

    def test_how_it_was_obtained_is_said(self) -> None:
        text = self.shown(a_run(kube_proxy=None, endpoints_asked=None, ruleset=None))
        assert "file: the file load.nft; sha256 abababababab" in text
        assert "nft 1.0.6." in text


class TestGrowth:
    @staticmethod
    def of_size(endpoints: int, kube_proxy: str | None = "1.35.0", *, heap_bytes: int = 0) -> StagesRun:
        run = a_run(kube_proxy=kube_proxy, endpoints_asked=endpoints)
        return msgspec.structs.replace(
            run,
            transaction=msgspec.structs.replace(run.transaction, endpoints=endpoints),
            heap=msgspec.structs.replace(run.heap, peak=StageBytes(parsed_bytes=heap_bytes)),
            rss_peak=a_measure(2 * heap_bytes),
        )

    @given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(0, 10**4), st.integers(0, 10**9))
    def test_a_line_is_found_again(self, few: int, more: int, each_bytes: int, idle_bytes: int) -> None:
        (step,) = growth([self.of_size(n, heap_bytes=idle_bytes + n * each_bytes) for n in (few + more, few)])
        assert (step.endpoints_from, step.endpoints_to) == (few, few + more)
        assert (step.tree_bytes, step.heap_bytes, step.rss_bytes) == (each_bytes, each_bytes, 2 * each_bytes)

    def test_is_of_one_kube_proxy_and_of_neighbours(self) -> None:
        runs = [self.of_size(n, version) for version in ("1.35.0", "1.37.2") for n in (100, 10, 1000)]
        steps = [(step.kube_proxy, step.endpoints_from, step.endpoints_to) for step in growth(runs)]
        assert steps == [
            ("1.35.0", 10, 100),
            ("1.35.0", 100, 1000),
            ("1.37.2", 10, 100),
            ("1.37.2", 100, 1000),
        ]

    def test_the_newest_load_of_a_size_counts(self) -> None:
        newer = msgspec.structs.replace(self.of_size(10, heap_bytes=70), made_utc="2026-02-01T00:00:00+00:00")
        (step,) = growth([newer, self.of_size(10, heap_bytes=10), self.of_size(20, heap_bytes=170)])
        assert step.heap_bytes == 10

    def test_one_size_or_an_unknown_origin_grow_nowhere(self) -> None:
        assert growth([a_run(), self.of_size(10, None), self.of_size(20, None)]) == ()


class TestClaims:
    @staticmethod
    def judged(*stages: StagesRun) -> dict[tuple[str, str], tuple[str, str]]:
        wanted = {"ast", "c-structs", "netlink"}
        return {
            (verdict.claim, verdict.kube_proxy): (
                verdict.judgement,
                verdict.figure.text if verdict.figure else verdict.why,
            )
            for verdict in judge_claims(load_claims(), [], stages)
            if verdict.claim in wanted
        }

    def test_are_judged_by_the_claims_endpoints(self) -> None:
        smaller = a_run(endpoints_asked=1000)
        found = self.judged(smaller, a_run(), a_run(kube_proxy=None))
        assert found == {
            ("ast", "1.35.0"): ("refuted", ">=17.0 times: 891 MB of 52.4 MB"),
            ("c-structs", "1.35.0"): ("refuted", "157 MB beyond the parser's; 500 bytes of libnftnl's"),
            ("netlink", "1.35.0"): ("refuted", "94.4 MB, 92.3 MB of it sent"),
        }

    def test_are_confirmed_by_figures_in_their_bounds(self) -> None:
        peak = StageBytes(evaluated_bytes=200 * MIB, cache_bytes=70 * MIB, netlink_bytes=240 * MIB)
        found = self.judged(a_run(heap=msgspec.structs.replace(a_run().heap, peak=peak)))
        assert found["c-structs", "1.35.0"][0] == found["netlink", "1.35.0"][0] == "confirmed"

    def test_a_tree_that_was_larger_than_seen_confirms_nothing(self) -> None:
        heap = msgspec.structs.replace(a_run().heap, most=StageBytes(parsed_bytes=500 * MIB))
        found = self.judged(a_run(heap=heap))
        assert found["ast", "1.35.0"] == ("not measured", ">=10.0 times: 524 MB of 52.4 MB")

    def test_without_the_size_nothing_is_said(self) -> None:
        found = self.judged(a_run(endpoints_asked=1000))
        assert found["netlink", "1.35.0"] == ("not measured", "no load with 100,000 endpoints was profiled")
        assert found["ast", "1.35.0"][0] == "refuted"


class TestPages:
    """The page shows what was recorded, and nothing else."""

    recorded = load_stages(DOCS / "stages.json").runs
    page = (DOCS / "stages.md").read_text()

    def test_the_figures(self) -> None:
        assert figures_table(self.recorded) in self.page

    def test_the_growth(self) -> None:
        assert growth_table(self.recorded) in self.page

    def test_the_claims(self) -> None:
        assert claims_table(self.recorded) in self.page

    def test_both_layouts_at_every_size_with_all_endpoints(self) -> None:
        cells = {(run.kube_proxy, run.endpoints_asked) for run in self.recorded}
        assert cells == set(itertools.product(("1.35.0", "1.37.2"), (1_000, 10_000, 100_000)))
        assert all(run.transaction.endpoints == run.endpoints_asked for run in self.recorded)

    def test_the_heap_explains_the_resident_memory(self) -> None:
        for run in self.recorded:
            assert abs(run.unaccounted_bytes) < 0.07 * run.rss_peak.value

    def test_the_profiled_load_is_the_nodes(self) -> None:
        for run in self.recorded:
            assert run.rss_peak_in_node is not None
            assert abs(run.rss_peak_in_node.value - run.rss_peak.value) < 0.05 * run.rss_peak.value

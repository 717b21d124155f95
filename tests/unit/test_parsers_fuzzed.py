"""What parsers make of anything at all: no text is an error, and what is sound among noise is found.

Parsers of the kernel log, of kube-proxy's log and metrics, of rulesets and netlink datagrams have such tests
beside their own; here are those of the others. A process may call itself anything but a zero byte, a path may
hold anything but that too, and what comes from another machine can be cut off anywhere.
"""

from __future__ import annotations

import os
import string
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_bundle import a_manifest
from test_observe_exits import datagrams
from test_observe_kube_proxy import METRICS
from test_remote import DMESG, STAT

from framework.bundle import MANIFEST, load_manifest
from framework.cgroup import memory_path
from framework.cgroup_counters import oom_kills_of
from framework.cluster.kubeconfig import Kubeconfig
from framework.errors import BadInputError, KilonodeError
from framework.guard import memory_available_bytes, memory_total_bytes
from framework.ledger import mounts_below
from framework.observe.kube_proxy import ContainerText, PolledText, parse_duration_s, parse_metrics
from framework.observe.netlink import decode_exits
from framework.observe.recorder import ProcReader
from framework.observe.remote_processes import ENDED_AFTER_S, Looks, kills_in
from framework.process import cpu_s_of, start_ticks_of
from framework.profiles import parse_ballast
from framework.realnode.counters import COUNTER_FILES, parse_counters
from framework.remote import LOOK_END
from framework.report import RESULT_FILE, load_run
from framework.units import KIB, parse_bytes, parse_count
from framework.versioned_file import load_versioned, write_versioned

PID: Final = 7
ONE_LINE: Final = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=40)
"""Form feeds, line separators and the like are in it, at which Python ends lines and nobody else does."""
COMMS: Final = st.binary(min_size=1, max_size=15).filter(lambda name: b"\0" not in name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that every example writes anew."""
    return tmp_path_factory.mktemp("fuzz")


def taken(parse: Callable[[], Any]) -> Any:
    """What ``parse`` gives, or where its BadInputError is; it may raise nothing else."""
    try:
        return parse()
    except BadInputError as error:
        return error.where


class TestQuantities:
    @pytest.mark.parametrize("parse", [parse_bytes, parse_count])
    @given(text=st.text() | st.text(string.digits + "._ kKmMgGiIbB", max_size=12))
    @example(text="9" * 5000)
    @example(text="0." + "0" * 5000)
    def test_are_whole_or_refused(self, parse: Callable[..., int], text: str) -> None:
        found = taken(lambda: parse(text, where="--size"))
        assert found == "--size" or found >= 0

    @given(st.text())
    def test_of_ballast_are_sound_or_refused(self, text: str) -> None:
        found = taken(lambda: parse_ballast(text))
        assert found == "ballast" or all(each.memory_bytes > 0 for each in found)


class TestProc:
    @given(
        path=ONE_LINE.filter(lambda path: path != "/"),
        before=st.lists(ONE_LINE.filter(lambda line: ":" not in line)),
        unified=st.booleans(),
    )
    def test_the_memory_cgroup_is_found_among_lines_that_are_none(
        self, path: str, before: list[str], unified: bool
    ) -> None:
        line = f"0::{path}" if unified else f"4:cpu,memory:{path}"
        assert memory_path("\n".join([*before, "3:pids:/elsewhere", line, ""])) == path

    @given(st.text())
    def test_no_text_is_an_error(self, text: str) -> None:
        memory_path(text)
        assert oom_kills_of(text) >= 0

    @settings(deadline=None)
    @given(comm=COMMS)
    def test_a_process_may_call_itself_anything(self, folder: Path, comm: bytes) -> None:
        place = folder / str(PID)
        place.mkdir(exist_ok=True)
        name = comm.replace(b"\\", rb"\\").replace(b"\n", rb"\n")  # as the kernel does, in status alone
        (place / "status").write_bytes(b"Name:\t" + name + b"\nPPid:\t1\nVmHWM:\t    2048 kB\n")
        (place / "stat").write_bytes(b"7 (" + comm + b") S 1 2 3\n")
        (place / "comm").write_bytes(comm + b"\n")
        proc = ProcReader(folder)
        status = proc.status(PID)
        assert (status["PPid"], status["VmHWM"]) == ("1", "2048 kB")
        assert status.keys() == {"Name", "PPid", "VmHWM", ""}
        assert proc.stat(PID) == ["S", "1", "2", "3"]
        assert proc.comm(PID) == comm.decode(errors="replace").rstrip("\n")

    @settings(deadline=None)
    @given(comm=COMMS)
    @example(comm=b") Z 1 2 3 4 (\xff")
    def test_this_process_too(self, comm: bytes) -> None:
        ticks = start_ticks_of(os.getpid())
        with called(comm):
            assert start_ticks_of(os.getpid()) == ticks
            assert cpu_s_of(os.getpid()) > 0.0

    @given(
        st.lists(ONE_LINE.filter(lambda line: not line.startswith("Mem"))),
        st.integers(0, 1 << 40),
        st.integers(0, 1 << 40),
    )
    def test_the_machines_memory_is_found_wherever_it_stands(
        self, folder: Path, others: list[str], total_kib: int, available_kib: int
    ) -> None:
        path = folder / "meminfo"
        lines = [*others, f"MemTotal:  {total_kib} kB", f"MemAvailable:  {available_kib} kB", *others]
        path.write_text("\n".join(lines))
        assert memory_total_bytes(path) == total_kib * KIB
        assert memory_available_bytes(path) == available_kib * KIB
        path.write_text("\n".join([*others, "MemAvailable:", "MemAvailable: many kB"]))
        with pytest.raises(KilonodeError, match="has no MemAvailable"):
            memory_available_bytes(path)


@contextmanager
def called(comm: bytes) -> Iterator[None]:
    """With another name of this process."""
    path = Path("/proc/self/comm")
    before = path.read_bytes()
    path.write_bytes(comm)
    try:
        yield
    finally:
        path.write_bytes(before)


class TestCounters:
    FIGURES: Final = st.integers(0, 1 << 50)

    @given(
        mode=st.sampled_from(["v1", "v2"]),
        charged=FIGURES,
        anonymous=FIGURES,
        file=FIGURES,
        kernel=FIGURES,
        noise=st.lists(ONE_LINE.filter(lambda line: line[:1] not in "=aftk"), max_size=4),
    )
    def test_are_read_back_among_others(
        self, *, mode: str, charged: int, anonymous: int, file: int, kernel: int, noise: list[str]
    ) -> None:
        v1 = mode == "v1"
        stat = {"total_rss": anonymous, "total_cache": file} if v1 else {"anon": anonymous, "file": file}
        if not v1:
            stat["kernel"] = kernel
        lines = [f"{name} {value}" for name, value in stat.items()]
        files = {
            "memory.usage_in_bytes" if v1 else "memory.current": str(charged),
            "memory.stat": "\n".join([*noise, *lines, *noise]),
        } | ({"memory.kmem.usage_in_bytes": str(kernel)} if v1 else {})
        found = parse_counters(as_head_prints(files, "/sys/fs/cgroup/memory/" if v1 else "/sys/fs/cgroup/"))
        assert found is not None
        assert (found.mode, found.charged_bytes) == (mode, charged)
        assert (found.anonymous_bytes, found.file_bytes, found.kernel_bytes) == (anonymous, file, kernel)

    @given(st.text())
    def test_no_text_is_an_error(self, text: str) -> None:
        parse_counters(text)

    @given(st.lists(st.tuples(st.sampled_from(COUNTER_FILES), st.text(max_size=30)), max_size=12))
    def test_no_content_of_a_file_is_an_error(self, files: list[tuple[str, str]]) -> None:
        parse_counters(as_head_prints(dict(files), ""))


def as_head_prints(files: dict[str, str], folder: str) -> str:
    return "\n".join(f"==> {folder}{name} <==\n{text}\n" for name, text in files.items())


MOUNTED: Final = {" ": "\\040", "\t": "\\011", "\n": "\\012", "\\": "\\134"}
"""What the kernel writes in octal (seq_path in fs/d_path.c)."""
NAMES: Final = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=8
)


class TestMounts:
    @given(st.lists(NAMES, min_size=1, max_size=4, unique=True), NAMES)
    def test_below_a_folder_are_found_innermost_first_whatever_they_are_called(
        self, names: list[str], other: str
    ) -> None:
        below = ["/top", *(f"/top/{'/'.join(names[:depth])}" for depth in range(1, len(names) + 1))]
        points = [f"/top{other}", "/", *below]
        text = "".join(
            f"none {''.join(MOUNTED.get(char, char) for char in point)} tmpfs rw 0 0\n" for point in points
        )
        assert mounts_below("/top", text) == tuple(sorted(below, key=len, reverse=True))


class Answer(msgspec.Struct, frozen=True):
    format: int
    words: tuple[str, ...]
    figures: dict[str, float]


UNICODE: Final = st.characters(exclude_categories=["Cs"])
DOCUMENTS: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def as_yaml(document: object) -> bytes:
    return yaml.safe_dump(document).encode()


class TestFiles:
    @settings(deadline=None)
    @given(
        st.lists(st.text(UNICODE)).map(tuple),
        st.dictionaries(st.text(UNICODE), st.floats(allow_nan=False, allow_infinity=False)),
    )
    def test_give_what_was_written(
        self, folder: Path, words: tuple[str, ...], figures: dict[str, float]
    ) -> None:
        written = Answer(format=1, words=words, figures=figures)
        write_versioned(folder / "answer.json", written)
        assert loaded(folder / "answer.json") == written

    @settings(deadline=None)
    @given(st.binary() | DOCUMENTS.map(msgspec.json.encode))
    def test_are_sound_or_refused(self, folder: Path, content: bytes) -> None:
        path = folder / "answer.json"
        path.write_bytes(content)
        with pytest.raises(BadInputError) as caught:
            loaded(path)
        assert caught.value.where == str(path)

    @settings(deadline=None)
    @given(
        st.sampled_from(sorted(msgspec.json.decode(a_manifest({"README.md": b"hello"})))),
        DOCUMENTS | st.just({"path": "x"}),
    )
    def test_of_a_bundle_and_a_run_are_read_or_refused_whatever_a_field_holds(
        self, folder: Path, name: str, value: object
    ) -> None:
        document = msgspec.json.decode(a_manifest({"README.md": b"hello"})) | {name: value}
        (folder / MANIFEST).write_bytes(msgspec.json.encode(document))
        (folder / RESULT_FILE).write_bytes(msgspec.json.encode(document))
        for found in (taken(lambda: load_manifest(folder)), taken(lambda: load_run(folder))):
            assert not isinstance(found, str) or str(folder) in found

    @settings(deadline=None)
    @given(
        st.binary()
        | st.text(string.printable).map(str.encode)
        | st.dictionaries(st.sampled_from(["contexts", "clusters", "users"]), DOCUMENTS).map(as_yaml)
    )
    def test_that_are_no_kubeconfig_are_refused(self, folder: Path, content: bytes) -> None:
        path = folder / "kubeconfig"
        path.write_bytes(content)
        found = taken(lambda: Kubeconfig(path).contexts)
        assert found == str(path) or all(isinstance(name, str) for name in found)


class TestLogs:
    @settings(deadline=None)
    @given(st.lists(ONE_LINE, min_size=1, max_size=5), st.integers(1, 9))
    def test_of_containers_lose_nothing_of_a_line(
        self, folder: Path, lines: list[str], part_chars: int
    ) -> None:
        place = folder / "container"
        place.mkdir(exist_ok=True)
        stamped = []
        for line in lines:
            *parts, last = [line[at : at + part_chars] for at in range(0, len(line), part_chars)] or [""]
            stamped += [f"2026-11-27T02:00:00Z stderr P {part}\n" for part in parts]
            stamped.append(f"2026-11-27T02:00:00Z stderr F {last}\n")
        (place / "0.log").write_bytes("".join(stamped).encode())
        text = "".join(ContainerText(place, "*.log").more())
        assert text == "".join(f"{line}\n" for line in lines)

    @given(st.lists(ONE_LINE, min_size=1, max_size=9))
    def test_that_are_polled_lose_nothing_of_a_line(self, lines: list[str]) -> None:
        stamped = [f"2026-11-27T02:00:00.{number:09d}Z {line}\n" for number, line in enumerate(lines)]
        text = "".join(PolledText(lambda _: "".join(stamped)).more())
        assert text == "".join(f"{line}\n" for line in lines)

    @given(st.text() | st.text("0123456789.hmsnuµ", max_size=12))
    def test_of_a_duration_are_seconds_or_none(self, text: str) -> None:
        found = parse_duration_s(text)
        assert found is None or found >= 0.0

    @given(st.lists(st.floats() | st.just(sys.float_info.max), min_size=1, max_size=4))
    def test_no_figure_among_metrics_is_an_error(self, figures: list[float]) -> None:
        (name,) = {line.split("{")[0] for line in METRICS.splitlines() if "failures_total" in line}
        parse_metrics("\n".join(f"{name} {figure}" for figure in figures))

    @given(st.lists(ONE_LINE), st.lists(ONE_LINE))
    def test_of_the_kernel_tell_a_kill_among_other_lines(self, before: list[str], after: list[str]) -> None:
        text = "\n".join((*before, DMESG.strip("\n"), *after))
        assert [kill.victim_pid for kill in kills_in(text, offset_s=0.0)] == [4242]


class TestRecords:
    @given(st.lists(ONE_LINE, max_size=4), st.integers(1, 1 << 22), st.integers(1, 1 << 30))
    def test_a_process_is_seen_among_lines_that_are_no_look(
        self, noise: list[str], pid: int, kib: int
    ) -> None:
        looks = Looks(0.0)
        for line in (*noise, f"{kib} {pid} (nft) {STAT.format(start=9)}|nft -f - ", *noise):
            looks.feed(line, 1.0)
        looks.feed(f"{kib} {pid} (nft) " + " ".join(["x"] * 30) + "|nft", 1.0)
        looks.feed(LOOK_END, 1.1 + ENDED_AFTER_S)
        assert [(each.pid, each.memory_bytes_peak) for each in looks.exits] == [(pid, kib * KIB)]

    @given(st.binary(max_size=200))
    def test_of_exits_are_kept_before_what_is_malformed(self, noise: bytes) -> None:
        whole = next(datagrams("exits-6.18.bin"))
        found = list(decode_exits(whole))
        assert found
        assert list(decode_exits(whole + noise))[: len(found)] == found


def loaded(path: Path) -> Answer:
    return load_versioned(path, Answer, formats=(1,), made_by="`kilonode ask`")

"""A bundle: all that a stranger needs, none of what is nobody's business, and no trap for who unpacks it."""

from __future__ import annotations

import base64
import gzip
import io
import os
import re
import stat
import subprocess
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from test_analysis_outcomes import a_cgroup, a_failed_sync, a_measure, a_sync, an_evidence, an_nft
from test_page_timeline import a_sample, looks
from test_redact import CERTIFICATE_BODY, JWT, KEY, KEY_BODY, LINES, MACHINE, REDACTOR
from test_report_run_folder import a_checked_result, a_result

from framework.analysis import derive_outcome
from framework.bundle import MANIFEST, REPRODUCER, Manifest, Twin, load_manifest, pack, unpack
from framework.bundle.archive import FORMAT, UNPACKED_BYTES_MAX, BundledFile
from framework.errors import BadInputError
from framework.outcome import Asked, Evidence, PhaseAsked, RunResult, WatchAsked
from framework.report import MeasurementFolder, RunFolder, load_measurement, load_session
from framework.spec import RealNodeSpec, ServiceSpec
from framework.units import GIB

PLANTED: Final = (JWT, JWT.split(".")[2], KEY_BODY, CERTIFICATE_BODY, "hunter22", "AKIAIOSFODNN7EXAMPLE")
NAMED: Final = (*MACHINE.host_names, *MACHINE.users, *MACHINE.homes, *MACHINE.folders, "/home/bob")
LOG: Final = f"""\
I1115 10:15:00.123456    1234 server.go:1] "Started" host="WEB01.corp.example" config="/home/bob/config.yaml"
E1115 10:15:01.000000    1234 x.go:2] "Refused" err="Bearer {JWT}\\nalice in /srv/bench/kilonode/runs"
{KEY}
{{"ca":"{LINES}","password":"hunter22"}} AKIAIOSFODNN7EXAMPLE
I1115 10:15:02.000000    1234 proxier.go:3] "Syncing" elapsed="4.4s"
"""
COMMAND: Final = ("pytest", "/home/alice/scenarios", "--option=password=hunter22", "-k", "ladder")
REPRO: Final = "pytest '/home/alice/scenarios/test_x.py::test_y[10k]' --max-nodes 10k"
FOLLOWED: Final = WatchAsked(failures=3, timeout_s=None, until_s=0.0, until_not_ready=False)


def an_asked(**node: Any) -> Asked:
    return Asked(
        node=msgspec.structs.replace(RealNodeSpec(memory_bytes=2 * GIB, kube_proxy="1.37.2"), **node),
        service=ServiceSpec(name="svc", endpoints=100_000, mode="endpointslices"),
        many_services=None,
        fleet_nodes=0,
        zone="",
        act=PhaseAsked(phase="first_programming", parameters={}, watch=FOLLOWED),
    )


def of_evidence(evidence: Evidence, **changes: Any) -> RunResult:
    checked = {"evidence": evidence, "outcome": derive_outcome(evidence), "asked": an_asked()}
    return a_checked_result(**(checked | changes))


def a_measurement(runs: Path, result: RunResult) -> MeasurementFolder:
    """A run of this result, with logs that tell too much."""
    run = RunFolder.create(runs, command=COMMAND)
    control_plane = runs / "logs"
    control_plane.mkdir()
    (control_plane / "kube-apiserver.log").write_text(LOG)
    run.keep_logs(control_plane)
    measurement = run.start(result)
    measurement.write(result)
    for name in ("kube-proxy.log", "kube-proxy.yaml", "containerd.toml"):
        (measurement.logs / name).write_text(LOG)
    (measurement.logs / "not-utf8.log").write_bytes(b"\xff\xfe " + LOG.encode())
    (measurement.logs / "core").write_text(LOG)
    outside = runs / "shadow.log"
    outside.write_text("root:of-nobodys-business:1")
    (measurement.logs / "linked.log").symlink_to(outside)
    return measurement


def a_twin(place: Path) -> Twin:
    place.mkdir()
    for name in ("first", "second", "load", "listing"):
        (place / name).write_text(f"add table ip {name}\n")
    return Twin(
        load=place / "load",
        earlier=(place / "first", place / "second"),
        listing=place / "listing",
        tables=b"add table ip mangle\n",
        nft_bytes_peak=a_measure(112),
        attempts=2,
    )


def telling_evidence() -> Evidence:
    """Of a sampled node, with an error of kube-proxy's that tells too much."""
    error = f'exit status 1: token="hunter22\n{JWT}"\nweb01: no /home/alice/x'
    return an_evidence(
        exits=(an_nft(argv=("nft", "-f", "/home/alice/load.nft")),),
        syncs=(a_failed_sync(10.5, error=error), a_sync()),
        cgroup=a_cgroup(samples=tuple(a_sample(at_s) for at_s in looks(8, 20, 1))),
    )


@dataclass(frozen=True)
class Bundle:
    """What was packed, and where it was unpacked to."""

    result: RunResult
    measurement: Path
    archive: Path
    manifest: Manifest
    folder: Path

    def text(self, name: str) -> str:
        return (self.folder / name).read_text()

    @property
    def names(self) -> set[str]:
        return {path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()}


def packed(place: Path, result: RunResult, *, with_twin: bool) -> Bundle:
    measurement = a_measurement(place / "runs", result)
    archive = place / "bundle.tar.gz"
    manifest = pack(
        measurement.path,
        load_session(measurement.path.parent),
        a_twin(place / "twin") if with_twin else None,
        output=archive,
        redactor=REDACTOR,
    )
    return Bundle(result, measurement.path, archive, manifest, unpack(archive, place / "unpacked"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """With a twin."""
    result = of_evidence(
        telling_evidence(), test_id="../../home/alice/scenarios/test_x.py::test_y[web01]", repro=REPRO
    )
    return packed(tmp_path_factory.mktemp("bundle"), result, with_twin=True)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Of another loader, whose runs were polled, without a twin and of an older kilonode."""
    runs = (
        an_nft(comm="iptables-restor", argv=("iptables-restore",), bound="lower"),
        an_nft(comm="ip6tables-resto", argv=None, exit_code=None, signal=9),
    )
    evidence = an_evidence(loader="iptables-restore", exits=(*runs, an_nft()))
    return packed(tmp_path_factory.mktemp("bare"), of_evidence(evidence, asked=None), with_twin=False)


def raw_contents(archive: Path) -> Mapping[str, bytes]:
    """All that is in an archive, its names, and what its pages have inside in another encoding."""
    with tarfile.open(archive) as packed:
        found = {
            member.name: file.read() for member in packed if (file := packed.extractfile(member)) is not None
        }
    pictures = re.findall(rb"base64,([A-Za-z0-9+/=]+)", found["bundle/report.html"])
    assert pictures
    found |= {f"picture {number}": base64.b64decode(each) for number, each in enumerate(pictures)}
    return found | {"names": "\n".join(found).encode(), "archive": gzip.decompress(archive.read_bytes())}


class TestRedaction:
    @pytest.mark.parametrize("which", ["bundle", "bare"])
    def test_leaves_nothing_of_what_was_planted_in_any_file(
        self, which: str, request: pytest.FixtureRequest
    ) -> None:
        for name, content in raw_contents(request.getfixturevalue(which).archive).items():
            assert [text for text in PLANTED if text.encode() in content] == [], name
            assert [text for text in NAMED if text.encode() in content.lower()] == [], name

    def test_leaves_the_logs_otherwise_as_they_are(self, bundle: Bundle) -> None:
        for name in ("logs/kube-proxy.log", "logs/containerd.toml", "control-plane/kube-apiserver.log"):
            lines = bundle.text(name).splitlines()
            assert lines[0].endswith('"Started" host="<host>" config="<home>/config.yaml"')
            assert lines[1].endswith(r'err="Bearer <secret>\n<user> in <folder>/runs"')
            assert lines[2:4] == ["<secret>", '{"ca":"<secret>","password":"<secret>"} <secret>']
            assert lines[4] == LOG.splitlines()[-1]

    def test_leaves_results_that_can_be_read(self, bundle: Bundle) -> None:
        found = load_measurement(bundle.folder)
        evidence = bundle.result.evidence
        assert evidence is not None
        assert found.test_id == "../..<home>/scenarios/test_x.py::test_y[<host>]"
        assert found.evidence is not None
        assert found.evidence.exits[0].argv == ("nft", "-f", "<home>/load.nft")
        assert found.evidence.syncs[0].error is not None
        assert found.evidence.syncs[0].error.startswith("exit status 1: token=")
        assert msgspec.structs.replace(found.evidence, exits=(), syncs=()) == msgspec.structs.replace(
            evidence, exits=(), syncs=()
        )
        assert (found.asked, found.environment) == (bundle.result.asked, bundle.result.environment)

    def test_changes_nothing_of_what_is_harmless(self, bare: Bundle) -> None:
        assert load_measurement(bare.folder) == bare.result


class TestContents:
    def test_are_what_kilonode_knows_and_links_are_not_followed(self, bundle: Bundle) -> None:
        logs = {"kube-proxy.log", "kube-proxy.yaml", "containerd.toml", "not-utf8.log"}
        reproducer = {"earlier/0001.nft", "earlier/0002.nft", "kubelets-tables.nft"}
        assert bundle.names == {
            *("README.md", "ISSUE.md", "manifest.json", "scenario.json", "result.json", "evidence.json"),
            *("report.html", "report.md", "versions.txt", "nft-runs.txt", "control-plane/kube-apiserver.log"),
            *(f"logs/{name}" for name in logs),
            *(f"reproducer/{name}" for name in (*reproducer, "load.nft", "reproduce.sh", "ruleset.txt")),
        }

    @pytest.mark.parametrize("which", ["bundle", "bare"])
    def test_are_listed_with_their_digests(self, which: str, request: pytest.FixtureRequest) -> None:
        found: Bundle = request.getfixturevalue(which)
        manifest = load_manifest(found.folder)
        assert manifest == found.manifest
        assert {file.path for file in manifest.files} == found.names - {MANIFEST}
        for file in manifest.files:
            content = (found.folder / file.path).read_bytes()
            assert (file.size_bytes, file.sha256) == (len(content), sha256(content).hexdigest())

    def test_are_owned_by_nobody_in_particular(self, bundle: Bundle) -> None:
        with tarfile.open(bundle.archive) as archive:
            members = archive.getmembers()
        assert {(each.uid, each.gid, each.uname, each.gname, each.mtime) for each in members} == {
            (0, 0, "", "", 0)
        }
        assert bundle.archive.read_bytes()[4:8] == bytes(4)

    def test_tell_of_each_run_of_the_loader_in_both_families(self, bare: Bundle) -> None:
        first, second = bare.text("nft-runs.txt").splitlines()
        assert re.search(r"14\.000 s  peak >= +111 MiB  exit 0  iptables-restore$", first)
        assert re.search(r"peak +111 MiB  signal 9  ip6tables-resto \(argv unknown\)$", second)

    def test_are_the_same_for_the_same_measurement(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bundle: Bundle
    ) -> None:
        monkeypatch.setattr("framework.bundle.archive.now_utc", lambda: bundle.manifest.made_utc)
        pack(
            bundle.measurement,
            load_session(bundle.measurement.parent),
            a_twin(tmp_path / "twin"),
            output=tmp_path / bundle.archive.name,
            redactor=REDACTOR,
        )
        assert (tmp_path / bundle.archive.name).read_bytes() == bundle.archive.read_bytes()


class TestTexts:
    def test_the_readme_has_the_commands_and_says_whose_ruleset_it_is(self, bundle: Bundle) -> None:
        text = bundle.text("README.md")
        commands = [line.strip() for line in text.splitlines() if line.startswith("    ")]
        assert commands == [
            "pip install kilonode && kilonode setup",
            "kilonode replay THIS-BUNDLE.tar.gz",
            "sh reproducer/reproduce.sh",
            "pytest '<home>/scenarios/test_x.py::test_y[10k]' --max-nodes 10k",
        ]
        assert "**from a twin node**" in text
        assert "The measured node was not wrapped" in text
        assert (
            "111 MiB (exit record) on the\nmeasured node, 112 MiB (cgroup counter) on the twin, +0.9%" in text
        )

    def test_the_readme_of_a_bundle_without_a_twin_says_so(self, bare: Bundle) -> None:
        text = bare.text("README.md")
        assert "There is no reproducer in this bundle" in text
        assert "twin node**" not in text
        assert "reproduce.sh" not in text
        assert "    pytest <home>/scenarios --option=password=<secret> -k ladder\n" in text

    def test_the_issue_can_be_pasted(self, bundle: Bundle) -> None:
        text = bundle.text("ISSUE.md")
        assert text.startswith("### What happened\n\n100k x 1.37.2, 2,048 MiB: programmed, Ready\n")
        assert "\n```text\n  outcome:" in text
        assert text.index("  fate:") < text.index("\n```\n") < text.index("### How to reproduce it")
        assert "sh BUNDLE/reproducer/reproduce.sh" in text
        assert "`kilonode replay BUNDLE.tar.gz`, or `pytest '<home>/scenarios" in text
        assert "- cgroup-v1: v1 (differs)" in text
        assert "| nft | 1.0.6 | path |" in text


class TestReproducer:
    def test_is_a_script_that_sh_reads(self, bundle: Bundle) -> None:
        script = bundle.folder / REPRODUCER / "reproduce.sh"
        assert script.stat().st_mode & stat.S_IXUSR
        subprocess.run(["sh", "-n", script], check=True)

    @pytest.mark.parametrize("argv", [("sh", "reproducer/reproduce.sh"), ("reproducer/reproduce.sh",)])
    def test_loads_all_in_its_order_inside_a_namespace(
        self, bundle: Bundle, tmp_path: Path, argv: Sequence[str]
    ) -> None:
        for name, script in (
            ("unshare", 'echo "$1" >> "$CALLS"; shift; exec "$@"'),
            ("nft", 'echo "$@ $(cat)" >> "$CALLS"'),
        ):
            program = tmp_path / name
            program.write_text(f"#!/bin/sh\n{script}\n")
            program.chmod(0o755)
        calls = tmp_path / "calls"
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(calls)}
        subprocess.run(argv, cwd=bundle.folder, env=environment, check=True, stdin=subprocess.DEVNULL)
        tables = ("mangle", "first", "second", "load")
        assert calls.read_text().splitlines() == [
            "--net",
            *(f"-f - add table ip {name}" for name in tables),
            "list ruleset ",
        ]


class TestRefusals:
    def test_a_folder_without_a_result(self, tmp_path: Path) -> None:
        with pytest.raises(BadInputError, match=r"can't be read: No such file"):
            pack(tmp_path, None, None, output=tmp_path / "x.tar.gz", redactor=REDACTOR)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("output", ["missing/x.tar.gz", "file/x.tar.gz", "folder"])
    def test_a_place_that_cannot_be_written(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, output: str
    ) -> None:
        monkeypatch.setattr("framework.bundle.archive.write_report", lambda *_: None)
        measurement = RunFolder.create(tmp_path / "runs", command=COMMAND).start(a_result())
        place = tmp_path / "place"
        (place / "folder").mkdir(parents=True)
        (place / "file").touch()
        with pytest.raises(BadInputError, match="the bundle can't be written") as caught:
            pack(measurement.path, None, None, output=place / output, redactor=REDACTOR)
        assert caught.value.where == str(place / output)
        assert sorted(path.name for path in place.rglob("*")) == ["file", "folder"]


Member = tuple[tarfile.TarInfo, bytes]


def a_file(name: str, content: bytes = b"hello") -> Member:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    return entry, content


def an_entry(name: str, kind: bytes, link: str = "") -> Member:
    entry = tarfile.TarInfo(name)
    entry.type = kind
    entry.linkname = link
    return entry, b""


def a_manifest(listed: Mapping[str, bytes], **changes: Any) -> bytes:
    files = tuple(
        BundledFile(path=path, size_bytes=len(content), sha256=sha256(content).hexdigest())
        for path, content in listed.items()
    )
    manifest = Manifest(
        format=FORMAT,
        kilonode="0.1.0",
        made_utc="2025-11-15T10:15:00+00:00",
        run_id="20251115T101500Z-1a2b3c",
        test_id="test_x",
        repro="",
        nft_bytes_peak=None,
        twin=None,
        files=files,
    )
    return msgspec.json.encode(msgspec.structs.replace(manifest, **changes))


GOOD: Final = (
    an_entry("b", tarfile.DIRTYPE),
    a_file("b/README.md"),
    a_file(f"b/{MANIFEST}", a_manifest({"README.md": b"hello"})),
)


def an_archive(path: Path, *members: Member) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for entry, content in members:
            archive.addfile(entry, io.BytesIO(content))
    return path


HOSTILE: Final[dict[str, tuple[Callable[[Path], Sequence[Member]], str]]] = {
    "an absolute path": (lambda out: (*GOOD, a_file(f"{out}/evil")), "no plain file in its folder"),
    "a path upwards": (lambda out: (*GOOD, a_file("b/../../outside/evil")), "no plain file in its folder"),
    "a symlink, and a file behind it": (
        lambda out: (*GOOD, an_entry("b/link", tarfile.SYMTYPE, str(out)), a_file("b/link/evil")),
        "it holds 'b/link'",
    ),
    "a symlink inside": (
        lambda out: (*GOOD, an_entry("b/link", tarfile.SYMTYPE, "README.md")),
        "it holds 'b/link'",
    ),
    "a hard link": (lambda out: (*GOOD, an_entry("b/link", tarfile.LNKTYPE, "b/README.md")), "'b/link'"),
    "a device": (lambda out: (*GOOD, an_entry("b/null", tarfile.CHRTYPE)), "'b/null'"),
    "a pipe": (lambda out: (*GOOD, an_entry("b/pipe", tarfile.FIFOTYPE)), "'b/pipe'"),
    "no manifest": (lambda out: GOOD[:2], "no bundle of kilonode's"),
    "nothing": (lambda out: (), "no bundle of kilonode's"),
    "two folders": (lambda out: (*GOOD, a_file("c/README.md")), "no bundle of kilonode's"),
    "a file where its folder is": (lambda out: (*GOOD, a_file("b/README.md/evil")), "it is no bundle: "),
    "a name with a zero in it": (lambda out: (*GOOD, a_named("b/a\0b")), "it is no bundle: "),
    "a changed file": (lambda out: (*GOOD, a_file("b/README.md", b"HELLO")), "README.md is not what"),
    "a file that is not listed": (lambda out: (*GOOD, a_file("b/evil")), "evil is not what"),
    "another manifest": (
        lambda out: (*GOOD, a_file(f"b/logs/{MANIFEST}")),
        "logs/manifest.json is not what",
    ),
    "a listed file that is not there": (
        lambda out: (a_file(f"b/{MANIFEST}", a_manifest({"README.md": b"hello"})),),
        "README.md is not what",
    ),
    "a manifest of another format": (
        lambda out: (a_file(f"b/{MANIFEST}", a_manifest({}, format=99)),),
        "has format 99, this kilonode reads 1",
    ),
    "a manifest that is none": (lambda out: (a_file(f"b/{MANIFEST}", b"[" * 100_000),), "is damaged"),
}


def a_named(name: str) -> Member:
    """A file with any name, which goes where tar has room for such."""
    entry, content = a_file("b/long")
    entry.pax_headers = {"path": name}
    return entry, content


class TestUnpacking:
    """In a folder beside one that is to stay empty."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        place = tmp_path / "place"
        place.mkdir()
        (tmp_path / "outside").mkdir()
        return place

    def test_gives_the_folder_of_a_good_one(self, tmp_path: Path, place: Path) -> None:
        folder = unpack(an_archive(tmp_path / "x.tar.gz", *GOOD), place)
        assert folder == place / "b"
        assert (folder / "README.md").read_bytes() == b"hello"
        assert load_manifest(folder).test_id == "test_x"

    @pytest.mark.parametrize("name", HOSTILE)
    def test_refuses_and_writes_nothing_elsewhere(self, tmp_path: Path, place: Path, name: str) -> None:
        members, says = HOSTILE[name]
        archive = an_archive(tmp_path / "x.tar.gz", *members(tmp_path / "outside"))
        with pytest.raises(BadInputError, match=re.escape(says)):
            unpack(archive, place)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "place", "x.tar.gz"]
        assert list((tmp_path / "outside").iterdir()) == []

    def test_refuses_too_large_a_file_before_it_is_read(self, tmp_path: Path, place: Path) -> None:
        entry = tarfile.TarInfo("b/huge")
        entry.size = UNPACKED_BYTES_MAX + 1
        archive = tmp_path / "x.tar.gz"
        archive.write_bytes(gzip.compress(entry.tobuf()))
        with pytest.raises(BadInputError, match=r"would unpack to 1 files of 8,192 MiB or more"):
            unpack(archive, place)
        assert list(place.iterdir()) == []

    def test_refuses_too_many_files(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: Path
    ) -> None:
        monkeypatch.setattr("framework.bundle.archive.FILES_MAX", 2)
        with pytest.raises(BadInputError, match="would unpack to 3 files"):
            unpack(an_archive(tmp_path / "x.tar.gz", *GOOD), place)
        assert list(place.iterdir()) == []

    @pytest.mark.parametrize(
        "damage",
        [
            lambda content: b"",
            lambda content: b"hello",
            gzip.decompress,
            lambda content: gzip.compress(b"hello" * 1000),
            lambda content: content[: len(content) // 2],
            lambda content: content[:40] + bytes(byte ^ 0xFF for byte in content[40:60]) + content[60:],
        ],
        ids=["empty", "a text", "not packed", "no tar", "half", "damaged inside"],
    )
    def test_refuses_what_is_no_bundle(
        self, tmp_path: Path, place: Path, damage: Callable[[bytes], bytes]
    ) -> None:
        archive = an_archive(tmp_path / "x.tar.gz", *GOOD)
        archive.write_bytes(damage(archive.read_bytes()))
        with pytest.raises(BadInputError, match="it is no bundle") as caught:
            unpack(archive, place)
        assert caught.value.where == str(archive)
        assert "\n" not in str(caught.value)

    def test_refuses_what_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(BadInputError, match="No such file"):
            unpack(tmp_path / "x.tar.gz", tmp_path)

"""Archives made to do harm: bundles that a stranger sent, and downloads.

What ``test_bundle`` has ``unpack`` refuse is given to ``kilonode replay`` here, as its user would. Beyond
that there are archives written block by block, such as Python's tarfile makes none: headers that ask for all
memory, all time or a deep recursion, figures that are none, and what would reach the terminal, or nft.
"""

from __future__ import annotations

import gzip
import os
import stat
import sys
import tarfile
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_bundle import GOOD, HOSTILE, Member, a_file, a_manifest, an_archive, an_entry
from test_security import Served, server

from framework import cli
from framework.binaries.download import UnavailableError
from framework.bundle import MANIFEST, unpack
from framework.bundle.archive import FILE_BYTES_MAX, JSON_BYTES_MAX
from framework.errors import BadInputError, KilonodeError, MissingRequirementError
from framework.units import GIB, KIB, MIB

__all__ = ["server"]  # a fixture
MEMORY_BYTES_MAX: Final = 4 * MIB
ESCAPE: Final = "\x1b]0;evil\x07"


def header(name: str, size_bytes: int = 0, kind: bytes = tarfile.REGTYPE) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.type = size_bytes, kind
    return entry.tobuf(format=tarfile.GNU_FORMAT)


def filled(content: bytes) -> bytes:
    return content + bytes(-len(content) % tarfile.BLOCKSIZE)


def member(name: str, content: bytes, kind: bytes = tarfile.REGTYPE) -> bytes:
    return header(name, len(content), kind) + filled(content)


def records(text: str) -> bytes:
    """PAX records (``keyword=value``, one a line), which hold for the member after them."""
    content = b""
    for record in text.splitlines():
        length = len(record) + 3
        length += len(str(length + len(str(length)))) - 1
        content += f"{length} {record}\n".encode()
    return member("PaxHeader", content, tarfile.XHDTYPE)


def a_tar(*last: bytes, files: Mapping[str, bytes] | None = None) -> bytes:
    """A whole bundle of these files and a README, and what follows ``last``."""
    listed = {"README.md": b"hello"} | dict(files or {})
    named = {**listed, MANIFEST: listed.get(MANIFEST) or a_manifest(listed)}
    blocks = [member(f"b/{name}", content) for name, content in named.items()]
    return b"".join([*blocks, *last]) + bytes(2 * tarfile.BLOCKSIZE)


def a_bomb(kind: bytes) -> bytes:
    """A header that has 4 GiB to say, of which 16 MiB come."""
    return header("x", 4 * GIB, kind) + bytes(16 * MIB)


SPARSE: Final = records("GNU.sparse.major=1\nGNU.sparse.minor=0\nGNU.sparse.name=b/s\nGNU.sparse.realsize=1")
TARS: Final[dict[str, tuple[Callable[[], bytes], str]]] = {
    "a name of 4 GiB": (lambda: a_bomb(tarfile.GNUTYPE_LONGNAME), "a header is longer"),
    "records of 4 GiB": (lambda: a_bomb(tarfile.XHDTYPE), "a header is longer"),
    "a list of holes without end": (
        lambda: SPARSE + member("b/s", b"99999999\n" + b"1\n" * (8 * MIB)),
        "a header is longer",
    ),
    "records that take long to read": (
        lambda: member("PaxHeader", b"1" * (256 * KIB), tarfile.XHDTYPE) + a_tar(),
        "a header is longer",
    ),
    "records of records": (lambda: records("comment=x") * 3000 + a_tar(), "a header is longer"),
    "names of names": (
        lambda: header("././@LongLink", 0, tarfile.GNUTYPE_LONGNAME) * 3000 + a_tar(),
        "a header is longer",
    ),
    "a negative size": (lambda: a_tar(records("size=-1000") + header("b/x")), "b/x has -1,000 bytes"),
    "a moment that is none": (lambda: records("mtime=inf") + a_tar(), "it is no bundle"),
    "a moment too far": (lambda: records("mtime=1e300") + a_tar(), "it is no bundle"),
    "a size that is none": (lambda: records("size=1e9") + a_tar(), "it is no bundle"),
    "a huge result": (lambda: a_tar(header("b/result.json", JSON_BYTES_MAX + 1)), "has 67,108,865 bytes"),
    "a huge transaction": (
        lambda: a_tar(header("b/reproducer/load.nft", FILE_BYTES_MAX + 1)),
        "has 1,073,741,825 bytes",
    ),
    "a name for the terminal": (lambda: a_tar(header(f"b/{ESCAPE}")), r"'b/\x1b]0;evil\x07' is no name"),
    "a name of two lines": (lambda: a_tar(header("b/a\nb")), r"'b/a\nb' is no name"),
    "a name that is no text": (lambda: a_tar(header("b/\udcff")), r"'b/\udcff' is no name"),
    "a long name": (lambda: records(f"path=b/{'x' * 300}") + a_tar(), "File name too long"),
    "a longer one": (lambda: records(f"path=b/{'x' * 20_000}") + a_tar(), "a header is longer"),
    "folders in folders": (lambda: a_tar(records(f"path=b/{'d/' * 2000}x") + header("x")), "is no name"),
    "a file in a file": (lambda: a_tar(header("b/README.md/x")), "it is no bundle"),
    "an identifier for the terminal": (
        lambda: a_tar(files={MANIFEST: a_manifest({"README.md": b"hello"}, test_id=ESCAPE)}),
        "manifest.json has a control character in it",
    ),
    "a result for the terminal": (
        lambda: a_tar(files={"result.json": b'{"test_id": "\\\\\\u009B0m"}'}),
        "result.json has a control character in it",
    ),
    "evidence for the terminal": (
        lambda: a_tar(files={"evidence.json": b'{"error": "\x7f"}'}),
        "evidence.json has a control character in it",
    ),
}
INCLUDES: Final = (
    b'include "/etc/passwd"\n',
    b'\tinclude"/etc/passwd"\n',
    b'add table ip x; include "/etc/passwd"\n',
    b'table ip x { include "/etc/passwd"\n}\n',
    b'table ip x { chain y { counter; }; include "/etc/passwd"\n}\n',
    b'# fine\n include \\\n"/etc/passwd"\n',
    b'\\\ninclude "/etc/passwd"\n',
)
"""Each has nft 1.0.6 read the file, and say its first line in the error."""
HARMLESS: Final = {
    "reproducer/load.nft": b'add rule ip kube-proxy x counter comment "default/include" # not included\n',
    "result.json": b'{"test_id": "a\\tb\\nc\\\\u001b", "error": "\xc3\xa9\xe2\x80\x93"}',
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for what is unpacked, beside one that is to stay empty, where the command runs."""
    for name in ("temporary", "outside"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path / "outside")
    return tmp_path / "temporary"


@pytest.fixture
def replay(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[Path], str]:
    """``kilonode replay`` of a bundle that it is to refuse in one line, which is given."""
    monkeypatch.setattr(cli.reports, "command_lab", lambda *_, **__: pytest.fail("it began to measure"))

    def start(bundle: Path) -> str:
        monkeypatch.setattr(sys, "argv", ["kilonode", "replay", str(bundle)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        assert (ended.value.code, out) == (cli.EXIT_BAD_INPUT, "")
        assert err.endswith("\n")
        assert err[:-1].isprintable()
        assert sorted(path.name for path in place.parent.iterdir()) == ["outside", "temporary", "x.tar.gz"]
        assert [*place.iterdir(), *Path().iterdir()] == []
        return err

    return start


def packed(place: Path, tar: bytes) -> Path:
    path = place.parent / "x.tar.gz"
    path.write_bytes(gzip.compress(tar, compresslevel=1))
    return path


class TestReplay:
    @pytest.mark.parametrize("name", HOSTILE)
    def test_refuses_and_leaves_nothing(self, replay: Callable[[Path], str], place: Path, name: str) -> None:
        members, says = HOSTILE[name]
        assert says in replay(an_archive(place.parent / "x.tar.gz", *members(Path.cwd())))

    @pytest.mark.parametrize("name", TARS)
    def test_refuses_what_no_program_writes(
        self, replay: Callable[[Path], str], place: Path, name: str
    ) -> None:
        tar, says = TARS[name]
        assert says in replay(packed(place, tar()))

    @pytest.mark.parametrize("transaction", INCLUDES)
    @pytest.mark.parametrize("file", ["reproducer/load.nft", "reproducer/earlier/0001.nft", "x.nft"])
    def test_refuses_a_transaction_that_has_nft_read_files(
        self, replay: Callable[[Path], str], place: Path, transaction: bytes, file: str
    ) -> None:
        bundle = packed(place, a_tar(files={file: b"add table ip x\n" + transaction}))
        assert f"{file} has nft read another file" in replay(bundle)


@pytest.fixture
def memory() -> Iterator[Callable[[], int]]:
    """The most that was allocated at once."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


class TestUnpacking:
    @pytest.mark.parametrize("name", [name for name in TARS if TARS[name][1] == "a header is longer"])
    def test_takes_no_memory_for_what_it_refuses(self, place: Path, name: str, request: Any) -> None:
        bundle = packed(place, TARS[name][0]())
        peak_bytes = request.getfixturevalue("memory")
        with pytest.raises(BadInputError, match="a header is longer"):
            unpack(bundle, place)
        assert peak_bytes() < MEMORY_BYTES_MAX

    def test_takes_none_for_how_far_a_bundle_unpacks(self, place: Path, request: Any) -> None:
        bundle = packed(place, a_tar(member("b/zeros", bytes(16 * MIB))))
        assert bundle.stat().st_size < MIB
        peak_bytes = request.getfixturevalue("memory")
        with pytest.raises(BadInputError, match="zeros is not what the bundle's manifest lists"):
            unpack(bundle, place)
        assert peak_bytes() < MEMORY_BYTES_MAX

    def test_begins_only_where_there_is_room(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        bundle = packed(place, a_tar())
        free_bytes = len(b"hello") + len(a_manifest({"README.md": b"hello"}))
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free_bytes - 1))
        with pytest.raises(MissingRequirementError, match=r"unpacks to .* MiB are free"):
            unpack(bundle, place)
        assert list(place.iterdir()) == []
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free_bytes))
        assert unpack(bundle, place) == place / "b"

    def test_takes_what_only_looks_like_harm(self, place: Path) -> None:
        folder = unpack(packed(place, a_tar(files=HARMLESS)), place)
        assert {name: (folder / name).read_bytes() for name in HARMLESS} == HARMLESS

    def test_gives_nobody_more_than_a_plain_file(self, place: Path) -> None:
        members = [*GOOD, an_entry("b/logs", tarfile.DIRTYPE)]
        for entry, _ in members:
            entry.mode, entry.uid, entry.gid, entry.uname = 0o7777, 1234, 1234, "nobody"
        folder = unpack(an_archive(place.parent / "x.tar.gz", *members), place)
        for path in (folder, *folder.iterdir()):
            found = path.stat()
            assert (found.st_uid, found.st_gid) == (os.getuid(), os.getgid())
            assert stat.S_IMODE(found.st_mode) & (stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX) == 0
            assert path.is_dir() or stat.S_IMODE(found.st_mode) & (stat.S_IWGRP | stat.S_IWOTH) == 0

    @pytest.mark.parametrize("contents", [(b"HELLO", b"hello"), (b"hello", b"hello"), (b"", b"hello")])
    def test_of_a_file_that_comes_twice_the_listed_one_is_kept(
        self, place: Path, contents: Sequence[bytes]
    ) -> None:
        members: list[Member] = [*(a_file("b/README.md", content) for content in contents), GOOD[2]]
        folder = unpack(an_archive(place.parent / "x.tar.gz", *members), place)
        assert (folder / "README.md").read_bytes() == b"hello"

    @given(
        damage=st.lists(st.tuples(st.integers(0, 4 * tarfile.BLOCKSIZE), st.binary(min_size=1, max_size=12)))
    )
    def test_of_any_damage_gives_an_error_or_what_is_listed(
        self, damage: Sequence[tuple[int, bytes]]
    ) -> None:
        tar = bytearray(a_tar())
        for position, content in damage:
            tar[position : position + len(content)] = content
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder, "temporary")
            place.mkdir()
            error = refusal(packed(place, bytes(tar)), place)
            assert error.isprintable()
            assert error or (place / "b/README.md").read_bytes() == b"hello"
            assert {path.name for path in Path(folder).iterdir()} == {"temporary", "x.tar.gz"}
            assert [path for path in place.rglob("*") if path.is_symlink() or path.is_fifo()] == []


def refusal(bundle: Path, place: Path) -> str:
    """Why a bundle is refused; empty where it is unpacked."""
    try:
        unpack(bundle, place)
    except KilonodeError as error:
        return str(error)
    return ""


WANTED: Final = a_file("x/file", b"#!/bin/sh\n")
DOWNLOADS: Final[dict[str, tuple[Sequence[Member], bool]]] = {
    "other members land elsewhere": (
        (a_file("/outside/evil"), a_file("../outside/evil"), an_entry("y", tarfile.CHRTYPE), WANTED),
        True,
    ),
    "it comes twice": ((a_file("x/file", b"evil"), WANTED), True),
    "it is not there": ((a_file("x/other"),), False),
    "it is a folder": ((an_entry("x/file", tarfile.DIRTYPE),), False),
    "it is a device": ((an_entry("x/file", tarfile.BLKTYPE),), False),
    "it is a pipe": ((an_entry("x/file", tarfile.FIFOTYPE),), False),
    "it is a link to a file of the machine": ((an_entry("x/file", tarfile.SYMTYPE, "/etc/passwd"),), False),
    "it is a hard link to one": ((an_entry("x/file", tarfile.LNKTYPE, "etc/passwd"),), False),
    "it is a link to itself": ((an_entry("x/file", tarfile.SYMTYPE, "file"),), False),
    "it is behind a link": (
        (an_entry("x", tarfile.SYMTYPE, "/etc"), an_entry("x/file", tarfile.SYMTYPE, "passwd")),
        False,
    ),
}


class TestDownloads:
    """Archives whose checksum is right: their publisher made them so."""

    @pytest.fixture
    def fetch(self, server: Served, place: Path) -> Callable[[bytes], bytes]:
        """Download an archive and give what came out of it, beside which nothing may be."""

        def start(archive: bytes) -> bytes:
            server.publish(archive)
            try:
                return server.fetch(place, member="x/{name}").read_bytes()
            finally:
                assert list(Path().iterdir()) == []
                assert {path.name for path in place.iterdir()} <= {"file", "file.part"}
                assert [path for path in place.iterdir() if path.is_symlink() or not path.is_file()] == []

        return start

    @pytest.mark.parametrize("name", DOWNLOADS)
    def test_give_one_plain_file_or_nothing(
        self, fetch: Callable[[bytes], bytes], place: Path, name: str
    ) -> None:
        members, is_there = DOWNLOADS[name]
        archive = an_archive(place.parent / "x.tar.gz", *members).read_bytes()
        if is_there:
            assert fetch(archive) == WANTED[1]
        else:
            with pytest.raises(UnavailableError, match=r"holds no x/file"):
                fetch(archive)

    @pytest.mark.parametrize(
        "damage",
        [
            lambda content: b"",
            lambda content: b"hello",
            lambda content: content[: len(content) // 2],
            lambda content: content[:30] + bytes(byte ^ 0xFF for byte in content[30:50]) + content[50:],
            lambda content: gzip.compress(gzip.decompress(content)[:600]) + b"hello",
            lambda content: gzip.compress(records("comment=x") * 3000 + gzip.decompress(content)),
            lambda content: gzip.compress(records("size=99999999") + gzip.decompress(content)),
        ],
        ids=[
            "empty",
            "a text",
            "half",
            "damaged inside",
            "a text after it",
            "records of records",
            "too large a size",
        ],
    )
    def test_that_are_damaged_give_nothing(
        self, fetch: Callable[[bytes], bytes], place: Path, damage: Callable[[bytes], bytes]
    ) -> None:
        archive = an_archive(place.parent / "x.tar.gz", a_file("x/file", os.urandom(4096)))
        with pytest.raises(UnavailableError, match=r"holds no x/file"):
            fetch(damage(archive.read_bytes()))

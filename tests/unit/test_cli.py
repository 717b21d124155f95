"""The commands as a user starts them: what they print and the status they end with."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from framework import cli
from framework.binaries import Binaries, Binary, Request
from framework.fleet import SnapshotKey, Snapshots
from framework.ledger import STATE_ENV, Folder, Ledger
from framework.report import RunFolder

EXECUTABLE_MODE = 0o755
APT_GET = """\
#!/bin/sh
folder="${0%/*}"
echo "$DEBIAN_FRONTEND $*" >> "$folder/calls"
case "$*" in
  *update*) : > "$folder/updated" ;;
  *install*)
    [ -e "$folder/updated" ] || { echo "E: Unable to locate package" >&2; exit 100; }
    for program in nft containerd runc ip nsenter xtables-nft-multi; do
      : > "$folder/$program" && /bin/chmod +x "$folder/$program"
    done ;;
esac
"""

Kilonode = Callable[..., int]


@pytest.fixture
def kilonode(monkeypatch: pytest.MonkeyPatch) -> Kilonode:
    """``kilonode("show", "latest")`` gives the exit status."""

    def start(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["kilonode", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    return start


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state folder whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="kn-") as folder:
        monkeypatch.setenv(STATE_ENV, folder)
        yield Path(folder)


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The only folder on PATH; empty."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Request, ...]]:
    """What was to be fetched; nothing is."""
    calls: list[tuple[Request, ...]] = []

    def ensure_all(self: Binaries, requests: Sequence[Request], **_: Any) -> tuple[Binary, ...]:
        calls.append(tuple(requests))
        return ()

    monkeypatch.setattr(Binaries, "ensure_all", ensure_all)
    return calls


def a_dead_run(*, kept: bool = False) -> Ledger:
    ledger = Ledger.begin()
    ledger.keep()
    if not kept:
        (ledger.folder / "kept").unlink()
    return ledger


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (("show", "nowhere"), "there is no run here"),
            (("binaries", "kubectll@1.37.2"), "there is no binary 'kubectll'"),
            (("binaries", "kube-proxy"), "say which of them"),
            (("binaries", "kube-proxy@new"), "kube-proxy"),
            (("stages", "--kube-proxy", "new"), "no exact version"),
            (("stages", "--endpoints", "many"), "no quantity"),
            (("stages", "--transaction", "nowhere.nft"), "nowhere.nft"),
            (("stages", "--transaction", "load.nft", "--endpoints", "10"), "no twin"),
            (("claims", "--stages", "nowhere.json"), "nowhere.json"),
        ],
    )
    def test_a_refused_value_is_one_line_and_status_2(
        self, kilonode: Kilonode, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str
    ) -> None:
        assert kilonode(*arguments) == cli.EXIT_BAD_INPUT
        output = capsys.readouterr()
        assert output.out == ""
        assert output.err.startswith("error: ")
        assert output.err.count("\n") == 1
        assert says in output.err
        assert "Remedy: " in output.err

    def test_an_unknown_command_is_status_2(self, kilonode: Kilonode) -> None:
        assert kilonode("frobnicate") == cli.EXIT_BAD_INPUT

    def test_a_defect_keeps_its_traceback(self, kilonode: Kilonode, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cli.results, "load_run", lambda folder: 1 / 0)
        monkeypatch.setattr(sys, "argv", ["kilonode", "show"])
        with pytest.raises(ZeroDivisionError):
            cli.main()

    def test_every_command_has_help(self, kilonode: Kilonode, capsys: pytest.CaptureFixture[str]) -> None:
        assert kilonode("--help") == 0
        assert "pytest -k scenario" in capsys.readouterr().out
        for command in ("setup", "binaries", "show", "stages", "clean"):
            assert kilonode(command, "--help") == 0
            assert f"kilonode {command}" in capsys.readouterr().out


class TestSetup:
    def test_without_root_it_names_the_command_to_run(
        self,
        kilonode: Kilonode,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        programs: Path,
    ) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        assert kilonode("setup") == cli.EXIT_MISSING
        assert (
            "apt-get install nftables containerd runc iproute2 util-linux iptables;"
            in capsys.readouterr().err
        )

    def test_as_root_it_refreshes_the_lists_only_when_it_must(
        self,
        kilonode: Kilonode,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        programs: Path,
        asked: list[tuple[Request, ...]],
    ) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        apt_get = programs / "apt-get"
        apt_get.write_text(APT_GET)
        apt_get.chmod(EXECUTABLE_MODE)
        assert kilonode("setup") == 0
        assert kilonode("setup") == 0
        calls = (programs / "calls").read_text().splitlines()
        verbs = ["install" if " install " in call else "update" for call in calls]
        assert verbs == ["install", "update", "install"]
        assert all(call.startswith("noninteractive --yes") for call in calls)
        assert calls[0].endswith(
            "install --no-install-recommends nftables containerd runc iproute2 util-linux iptables"
        )
        assert "installing nftables, containerd, runc" in capsys.readouterr().out
        assert asked == [Binaries().defaults()] * 2
        assert kilonode("setup", "--profiler") == 0
        assert (programs / "calls").read_text().endswith("install --no-install-recommends valgrind\n")
        assert kilonode("setup", "--browser") == 0
        assert (programs / "calls").read_text().endswith(" chromium chromium-driver\n")

    def test_a_failing_installation_says_what_apt_get_said(
        self,
        kilonode: Kilonode,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        programs: Path,
    ) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        apt_get = programs / "apt-get"
        apt_get.write_text("#!/bin/sh\necho 'E: no network' >&2\nexit 100\n")
        apt_get.chmod(EXECUTABLE_MODE)
        assert kilonode("setup") == cli.EXIT_FAILED
        assert "E: no network" in capsys.readouterr().err


class TestBinaries:
    @pytest.fixture(autouse=True)
    def _empty_cache(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("KILONODE_CACHE_DIR", str(tmp_path))
        for variable in [name for name in os.environ if name.startswith("KILONODE_KUBE")]:
            monkeypatch.delenv(variable)

    def test_lists_all_that_is_pinned(self, kilonode: Kilonode, capsys: pytest.CaptureFixture[str]) -> None:
        assert kilonode("binaries") == 0
        lines = capsys.readouterr().out.splitlines()
        for version in Binaries().pinned_kube_proxies():
            (line,) = [line for line in lines if "kube-proxy" in line and version in line]
            assert cli.NOT_HERE in line

    def test_an_unusable_path_of_ones_own_is_a_row_and_no_end(
        self, kilonode: Kilonode, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KILONODE_KUBELET", "/nowhere")
        assert kilonode("binaries", "--json") == 0
        rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
        assert rows["kubelet"]["present"] is False
        assert "/nowhere is no file" in rows["kubelet"]["problem"]
        assert rows["etcd"]["problem"] == cli.NOT_HERE

    def test_fetch_alone_gets_the_default_ones(
        self, kilonode: Kilonode, asked: list[tuple[Request, ...]]
    ) -> None:
        assert kilonode("binaries", "--fetch") == 0
        assert asked == [Binaries().defaults()]

    def test_fetch_gets_what_is_named(self, kilonode: Kilonode, asked: list[tuple[Request, ...]]) -> None:
        assert kilonode("binaries", "--fetch", "kube-proxy@1.36.1", "--fetch", "kubelet@1.36.0") == 0
        assert asked == [(Request("kube-proxy", "1.36.1"), Request("kubelet", "1.36.0"))]


class TestShow:
    def test_shows_the_newest_run_with_its_real_name(
        self,
        kilonode: Kilonode,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        folder = RunFolder.create(Path("runs"), command=["pytest"])
        folder.end()
        for named in ((), (folder.path.name,), (str(folder.path),)):
            assert kilonode("show", *named) == 0
            assert f"Full result: {folder.path.resolve()}" in capsys.readouterr().out.replace("\n", "")


class TestClean:
    def test_nothing(self, kilonode: Kilonode, capsys: pytest.CaptureFixture[str], state: Path) -> None:
        assert kilonode("clean") == 0
        assert capsys.readouterr().out == "nothing to remove\n"

    def test_removes_dead_and_kept_runs_and_leaves_live_ones(
        self, kilonode: Kilonode, capsys: pytest.CaptureFixture[str], state: Path
    ) -> None:
        dead, kept, alive = a_dead_run(), a_dead_run(kept=True), Ledger.begin()
        assert kilonode("clean") == 0
        output = capsys.readouterr().out
        assert f"removed what run {dead.run_id} left" in output
        assert f"removed what run {kept.run_id} left" in output
        assert f"left run {alive.run_id} alone" in output
        assert [folder.name for folder in (state / "runs").iterdir()] == [alive.run_id]
        alive.finish()

    def test_what_cannot_be_removed_is_status_1(
        self,
        kilonode: Kilonode,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        state: Path,
    ) -> None:
        run = Ledger.begin()
        run.record(Folder("/held"))
        run.keep()

        def refuse(folder: Folder) -> None:
            raise PermissionError(f"{folder.path} is held")

        monkeypatch.setattr(Folder, "undo", refuse)
        assert kilonode("clean") == cli.EXIT_FAILED
        assert "/held is held" in capsys.readouterr().err


class TestSnapshots:
    @pytest.fixture
    def store(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Snapshots:
        monkeypatch.setenv("KILONODE_CACHE_DIR", str(tmp_path))
        return Snapshots.below(tmp_path)

    def test_are_listed_and_cleared(
        self, kilonode: Kilonode, store: Snapshots, capsys: pytest.CaptureFixture[str]
    ) -> None:
        key = SnapshotKey(nodes=100_000, etcd="3.7.0 (aa)", kube_apiserver="1.37.2 (bb)", shape="cc")
        with store.draft(key) as draft:
            (draft.data / "db").write_bytes(bytes(3 << 20))
            store.save(draft, registered_s=212.4)
        assert kilonode("snapshots") == 0
        listing = capsys.readouterr().out
        assert re.search(r"100,000 +3\.0 .* in 212 s .*1\.37\.2 \(bb\), 3\.7\.0 \(aa\)", listing)
        assert "limit 4,096 MiB" in listing
        assert kilonode("snapshots", "--clear") == 0
        assert capsys.readouterr().out == "removed 3.0 MiB\n"
        assert store.all() == ()

    def test_a_limit_that_is_no_size_is_refused(
        self,
        kilonode: Kilonode,
        store: Snapshots,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setenv("KILONODE_SNAPSHOTS_MAX", "plenty")
        assert kilonode("snapshots") == 2
        assert "KILONODE_SNAPSHOTS_MAX" in capsys.readouterr().err

"""The commands as a user starts them: what they print and the status they end with."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer

from framework import cli
from framework.binaries import Binaries, Binary, Request
from framework.errors import KilonodeError
from framework.fleet import SnapshotKey, Snapshots
from framework.ledger import STATE_ENV, Folder, Ledger
from framework.process import run
from framework.report import RunFolder

PROJECT = Path(__file__).parents[2]
EXECUTABLE_MODE = 0o755
PROGRAM: Any = typer.main.get_command(cli.app)
COMMANDS: dict[str, Any] = PROGRAM.commands
EXAMPLE = re.compile(r"^  ((?:kilonode|pytest) .+)$", re.MULTILINE)
ANSWERING = {
    "limit": {0, 1, 4},
    "forecast": {0, 4, 5, 6},
    "compare": {0, 4, 5},
    "replay": {0, 4, 5},
    "nightly": {0, 1, 4},
    "doctor": {0, 3},
}
"""The commands whose status is an answer, and their statuses."""
COMPLETES = """\
eval "$(kilonode --show-completion)"
COMP_WORDS=(kilonode sho)
COMP_CWORD=1
_kilonode_completion kilonode
echo "${COMPREPLY[*]}"
"""
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


class TestHelp:
    def test_lists_every_command_with_its_whole_first_sentence(
        self, kilonode: Kilonode, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", "80")
        assert kilonode("--help") == 0
        output = capsys.readouterr().out
        assert "pytest -k scenario" in output
        listed = dict(re.findall(r"^  ([a-z-]+)  +(.*)$", output.partition("Commands:")[2], re.MULTILINE))
        assert listed == {name: command.help.splitlines()[0] for name, command in COMMANDS.items()}
        assert all(sentence.endswith(".") for sentence in listed.values())

    @pytest.mark.parametrize("name", COMMANDS)
    def test_of_a_command_teaches(
        self, kilonode: Kilonode, capsys: pytest.CaptureFixture[str], name: str
    ) -> None:
        assert kilonode(name, "--help") == 0
        output = capsys.readouterr().out
        assert f"kilonode {name}" in output
        assert EXAMPLE.findall(COMMANDS[name].help), "it has no example"
        for example in EXAMPLE.findall(COMMANDS[name].help):
            assert f"    {example}\n" in output, "an example is broken into lines"
        for parameter in COMMANDS[name].params:
            assert parameter.help, parameter.name

    @pytest.mark.parametrize("name", ["", *COMMANDS])
    def test_has_examples_that_can_be_typed(
        self, name: str, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.chdir(tmp_path)
        for example in EXAMPLE.findall((COMMANDS[name] if name else PROGRAM).help):
            program, *words = shlex.split(example)
            if program == "kilonode":
                COMMANDS[words[0]].make_context(words[0], words[1:])
            else:
                given = [word.partition("=")[0] for word in words if word.startswith("--")]
                assert "absent" not in [pytestconfig.getoption(option, "absent") for option in given], example

    @pytest.mark.parametrize("name", ANSWERING)
    def test_says_the_statuses_that_carry_an_answer(self, name: str) -> None:
        statuses = COMMANDS[name].help.partition("Exit status:")[2]
        assert set(map(int, re.findall(r"\b\d\b", statuses))) == ANSWERING[name]


class TestCompletion:
    @pytest.fixture
    def completed(
        self,
        kilonode: Kilonode,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> Callable[..., list[str]]:
        """``completed("show", "l")`` is what bash is offered for the last word, in an empty folder."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("KILONODE_CACHE_DIR", str(tmp_path / "cache"))

        def offered(*words: str) -> list[str]:
            monkeypatch.setenv("_KILONODE_COMPLETE", "complete_bash")
            monkeypatch.setenv("COMP_WORDS", "\n".join(["kilonode", *(word or "''" for word in words)]))
            monkeypatch.setenv("COMP_CWORD", str(len(words)))
            assert kilonode() == 0
            output = capsys.readouterr()
            assert output.err == ""
            return output.out.split()

        return offered

    def test_of_commands(self, completed: Callable[..., list[str]]) -> None:
        assert completed("sho") == ["show"]

    @pytest.mark.parametrize(
        "words",
        [
            ("show", "s"),
            ("show", "second", "s"),
            ("claims", "s"),
            ("compare", "s"),
            ("report", "s"),
            ("bundle", "s"),
            ("limit", "--resume", "s"),
        ],
    )
    def test_of_runs(self, completed: Callable[..., list[str]], words: tuple[str, ...]) -> None:
        assert completed(*words) == []
        for name in ("first", "second", "such"):
            (Path("runs") / name).mkdir(parents=True)
        Path("runs/stray").touch()
        assert completed(*words) == ["second", "such"]

    @pytest.mark.parametrize("command", ["limit", "forecast", "stages"])
    def test_of_versions(self, completed: Callable[..., list[str]], command: str) -> None:
        pinned = Binaries().pinned_kube_proxies()
        assert completed(command, "--kube-proxy", "") == list(pinned)
        assert completed(command, "--kube-proxy", pinned[0]) == [pinned[0]]

    def test_of_executables(self, completed: Callable[..., list[str]]) -> None:
        pinned = [f"kube-proxy@{version}" for version in Binaries().pinned_kube_proxies()]
        assert completed("binaries", "kube-proxy") == pinned

    def test_offers_nothing_where_what_is_known_cannot_be_read(
        self, completed: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def unreadable(self: Binaries) -> None:
            raise KilonodeError("it can't be read", remedy="mend it")

        monkeypatch.setattr(Binaries, "installed", unreadable)
        assert completed("limit", "--kube-proxy", "") == []

    @pytest.mark.parametrize(
        ("words", "offered"),
        [
            (("limit", "--phase", "co"), ["cold_start"]),
            (("limit", "--endpoint-mode", "ad"), ["adopted"]),
            (("nightly", "--size", ""), ["standard", "large"]),
        ],
    )
    def test_of_words(
        self, completed: Callable[..., list[str]], words: tuple[str, ...], offered: list[str]
    ) -> None:
        assert completed(*words) == offered

    def test_is_set_up_in_bash_by_what_it_prints(self, tmp_path: Path) -> None:
        script = tmp_path / "kilonode"
        script.write_text(f"#!{sys.executable}\nfrom framework.cli import main\nmain()\n")
        script.chmod(EXECUTABLE_MODE)
        path = f"{tmp_path}:{os.environ['PATH']}"
        completed = run(
            ["bash", "-c", COMPLETES], env={**os.environ, "PATH": path, "PYTHONPATH": str(PROJECT)}
        )
        assert completed.text == "show\n"


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

"""Bad input, all of it: one clear error with its remedy and its documented status, and nothing created.

Each row is something that one can get wrong: an option, a scenario's argument, a variable, a file that is
damaged or that a stranger made. What a single check is about has tests beside that check; here it is what its
user meets. Nothing may be left in the folder that one works in, in the state and cache folders, in the home
folder and among temporary files, and no row gets as far as fetching, a ledger or a control plane. Only a
pytest session has its run folder by then, with no measurement in it.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import chdir, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import matplotlib.figure  # noqa: F401 - pytester forgets modules that its pytest loads; numpy can't come twice
import pytest
import test_cli_answers
import test_cli_forecast
import yaml
from kubernetes.config import kube_config
from test_bundle import GOOD, HOSTILE, an_archive
from test_cli_answers import a_run
from test_comparison import measured
from test_forecast_answers import counts_of
from test_plugin import run_pytest

from framework import cli, command_lab, twin
from framework.binaries import Binaries, Request
from framework.cluster import api
from framework.fleet import SnapshotKey, Snapshots
from framework.ledger import Ledger
from framework.report import RESULT_FILE, SESSION_FILE
from framework.units import MIB

pytest_plugins = ["pytester"]

PAGE: Final = Path(__file__).parents[2] / "docs/errors.md"
CONTEXT: Final = "staging"
PIPE: Final = "pipe"
OTHER_FOLDERS: Final = ("state", "cache", "home", "tmp")

Listing = frozenset[tuple[str, int]]


@dataclass(frozen=True)
class Row:
    """``given`` on a command line, as options of pytest or in a scenario, and what the error ``says``.

    ``env`` is relative to the folder that one works in where a value begins with "./".
    """

    given: str
    says: str
    env: Mapping[str, str] = field(default_factory=dict)
    status: int = cli.EXIT_BAD_INPUT

    @property
    def id(self) -> str:
        return " ".join((*(f"{name}={value[:24]}" for name, value in self.env.items()), self.given))


def ids(rows: Sequence[Row]) -> list[str]:
    return [row.id for row in rows]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str


Kilonode = Callable[[str], Ended]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that commands work in; its neighbours are those of ``OTHER_FOLDERS``."""
    root = tmp_path_factory.mktemp("bad")
    for name in ("work", *OTHER_FOLDERS):
        (root / name).mkdir()
    with chdir(root / "work"):
        test_cli_answers.some_inputs()
        test_cli_forecast.some_inputs()
        a_run("before", measured(nft_mib=100))
        a_run("worse", measured(nft_mib=120))
        Path("folder").mkdir()
        os.mkfifo(PIPE)
        some_damaged_runs()
        some_kubeconfigs()
        some_bundles(root)
        some_programs()
    return root


def some_damaged_runs() -> None:
    """Below ``damaged/``, each a run of one measurement that something has befallen."""
    for name, befall in BEFALLEN.items():
        run = Path("damaged", name)
        shutil.copytree(Path("runs/latest").resolve(), run)
        befall(run, next(path.parent for path in run.glob(f"*/{RESULT_FILE}")))


def _replaced(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink(missing_ok=True)
    make(path)


def _asked(measurement: Path, **node: Any) -> None:
    result = json.loads((measurement / RESULT_FILE).read_bytes())
    asked = json.loads(next(Path("iptables/latest").glob(f"*/{RESULT_FILE}")).read_bytes())["asked"]
    result["asked"] = asked | {"node": asked["node"] | node}
    (measurement / RESULT_FILE).write_text(json.dumps(result))


BEFALLEN: Final[dict[str, Callable[[Path, Path], object]]] = {
    "cut": lambda run, found: (found / RESULT_FILE).write_bytes((found / RESULT_FILE).read_bytes()[:200]),
    "empty": lambda run, found: (found / RESULT_FILE).write_bytes(b""),
    "latin1": lambda run, found: (found / RESULT_FILE).write_bytes(b'{"format": 1, "test_id": "\xe4"}'),
    "deep": lambda run, found: (found / RESULT_FILE).write_bytes(b"[" * 100_000),
    "newer": lambda run, found: (found / RESULT_FILE).write_bytes(b'{"format": 99}'),
    "folder": lambda run, found: _replaced(found / RESULT_FILE, Path.mkdir),
    "pipe": lambda run, found: _replaced(found / RESULT_FILE, os.mkfifo),
    "tiny": lambda run, found: _asked(found, memory_bytes=5),
    "evidence": lambda run, found: (found / "evidence.json").write_bytes(b'{"format": 3}'),
    "session": lambda run, found: (run / SESSION_FILE).write_bytes(b"\0"),
}


def some_kubeconfigs() -> None:
    """Below ``k/``, by what is wrong with each."""
    Path("k").mkdir()
    for name, (cluster, user) in HALF_GOOD.items():
        document = {
            "current-context": "production",
            "contexts": [{"name": CONTEXT, "context": {"cluster": "one", "user": "me"}}],
            "clusters": [{"name": "one", "cluster": {"server": "https://127.0.0.1:1", **cluster}}],
            "users": [{"name": "me", "user": {"token": "secret-1"} if user is None else user}],
        }
        Path("k", name).write_text(yaml.safe_dump(document))
    for name, text in NO_KUBECONFIGS.items():
        Path("k", name).write_bytes(text)


_NONSENSE: Final = base64.b64encode(b"nonsense").decode()
HALF_GOOD: Final[dict[str, tuple[dict[str, Any], dict[str, Any] | None]]] = {
    "good": ({}, None),
    "http": ({"server": "http://127.0.0.1:8001"}, None),
    "port": ({"server": "https://127.0.0.1:99999"}, None),
    "no-server": ({"server": ""}, None),
    "bad-ca": ({"certificate-authority-data": _NONSENSE}, None),
    "no-ca": ({"certificate-authority": "nowhere.crt"}, None),
    "bad-key": ({}, {"client-certificate-data": _NONSENSE, "client-key-data": _NONSENSE}),
    "no-token": ({}, {"tokenFile": "nowhere"}),
    "no-plugin": ({}, {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "./nowhere"}}),
    "old-plugin": ({}, {"auth-provider": {"name": "gcp", "config": {}}}),
}
_CONTEXT_ALONE: Final = b"contexts: [{name: staging, context: {cluster: one, user: me}}]\nclusters: %s"
NO_KUBECONFIGS: Final = {
    "empty": b"",
    "binary": b"\xff\xfe\x00",
    "list": b"[]",
    "text": b"hello",
    "tabs": b"contexts:\n\t- name: staging",
    "date": b"contexts: 2025-13-45",
    "deep": b"contexts: " + b"[" * 1000,
    "code": b'contexts: !!python/object/apply:os.system ["touch owned"]',
    "no-context": b"contexts: [{name: staging}]",
    "no-cluster": _CONTEXT_ALONE % b"[]",
    "no-user": _CONTEXT_ALONE % b'[{name: one, cluster: {server: "https://127.0.0.1:1"}}]',
}

STRANGE: Final = {
    "absolute": "an absolute path",
    "upwards": "a path upwards",
    "symlink": "a symlink, and a file behind it",
    "hardlink": "a hard link",
    "device": "a device",
    "pipe": "a pipe",
    "changed": "a changed file",
    "unlisted": "a file that is not listed",
    "newer": "a manifest of another format",
}
"""Bundles below ``b/``, by what ``HOSTILE`` calls them."""


def some_bundles(root: Path) -> None:
    Path("b").mkdir()
    for name, hostile in STRANGE.items():
        an_archive(Path("b", name), *HOSTILE[hostile][0](root / "home"))
    whole = an_archive(Path("b/half"), *GOOD).read_bytes()
    Path("b/half").write_bytes(whole[: len(whole) // 2])
    huge = tarfile.TarInfo("b/huge")
    huge.size = 9 << 30
    with gzip.open("b/bomb", "wb") as archive:
        archive.write(huge.tobuf())


def some_programs() -> None:
    """Below ``p/``, in the place of a kube-proxy."""
    Path("p").mkdir()
    for name, text in (
        ("plain", ""),
        ("old", "#!/bin/sh\necho Kubernetes v1.0.0\n"),
        ("lost", "#!/nowhere\n"),
    ):
        Path("p", name).write_text(text)
        Path("p", name).chmod(0o644 if name == "plain" else 0o755)


@dataclass(frozen=True)
class Place:
    """Where a row is tried; ``look`` says what is there."""

    folders: tuple[Path, ...]

    def look(self) -> Listing:
        return frozenset(
            (str(path), 0 if path.is_dir() else path.lstat().st_mtime_ns)
            for folder in self.folders
            for path in folder.rglob("*")
            if path.name != "__pycache__" and path.suffix != ".pyc"
        )


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, inputs: Path) -> Place:
    """In ``inputs``, with every other folder of kilonode's beside it."""
    for variable in [name for name in os.environ if name.startswith("KILONODE_")]:
        monkeypatch.delenv(variable)
    for variable, folder in (
        ("KILONODE_STATE_DIR", "state"),
        ("KILONODE_CACHE_DIR", "cache"),
        ("HOME", "home"),
        ("XDG_CACHE_HOME", "home"),
        ("XDG_CONFIG_HOME", "home"),
        ("XDG_STATE_HOME", "home"),
    ):
        monkeypatch.setenv(variable, str(inputs / folder))
    monkeypatch.setattr(tempfile, "tempdir", str(inputs / "tmp"))
    monkeypatch.chdir(inputs / "work")
    return Place((inputs,))


@pytest.fixture(autouse=True)
def _nothing_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that can measure, beginning to is a failure of the test."""

    def begin(what: str) -> Callable[..., None]:
        return lambda *_, **__: pytest.fail(f"it began: {what}")

    def fetch(self: Binaries, wanted: Sequence[Request], **_: Any) -> None:
        if any(self.find(each.name, each.version) is None for each in wanted):
            begin("to fetch")()

    for module in (command_lab, twin):
        monkeypatch.setattr(module, "require_machine", lambda *_: None)
    monkeypatch.setattr(Binaries, "ensure_all", fetch)
    monkeypatch.setattr(Ledger, "begin", begin("a ledger"))
    monkeypatch.setattr(api, "ATTEMPTS_MAX", 1)


@pytest.fixture
def kilonode(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: Place) -> Kilonode:
    """``kilonode("show latest")`` as a shell would start it."""

    def start(words: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["kilonode", *words.split()])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        kube_config._cleanup_temp_files()  # as it does at the process's end
        return Ended(int(ended.value.code or 0), *capsys.readouterr())

    return start


def set_variables(monkeypatch: pytest.MonkeyPatch, inputs: Path, row: Row) -> None:
    for name, value in row.env.items():
        monkeypatch.setenv(name, str(inputs / "work" / value) if value.startswith("./") else value)


LIVE: Final = f"forecast --live --context {CONTEXT} --kubeconfig"
LONG: Final = "/tmp/" + "x" * 100  # noqa: S108 - never made
COMMANDS: Final = (
    *(Row(given, says) for given, says in test_cli_answers.REFUSED),
    *(Row(f"forecast {given}", says) for given, says in test_cli_forecast.REFUSED),
    # what is named is not there, or is something else
    Row("show nowhere", "there is no run here"),
    Row("show text", "there is no run here"),
    Row("show runs/latest nowhere", "there is no run here"),
    Row("claims nowhere", "there is no run here"),
    Row("claims --stages folder", "Is a directory"),
    Row("claims --stages text", "the file is damaged"),
    Row("forecast --model folder", "the file can't be read"),
    Row("limit --resume runs/latest", "the file can't be read"),
    Row("report runs/latest --output folder", "Is a directory"),
    Row("report runs/latest --output text/page.html", "there is no folder text"),
    Row("compare runs/latest runs/latest --json folder", "it is a folder"),
    Row("limit --json .", "it is a folder"),
    Row("bundle --no-twin --output nowhere", "'nowhere' is no name for a bundle"),
    Row("compare --baseline text runs/latest", "no such folder of runs"),
    Row("bundle --no-twin --measurement ../..", "there is no measurement '../..'"),
    Row("nightly --history text/deep", "the folder can't be made"),
    Row("nightly --output text", "the folder can't be made"),
    Row("stages --transaction folder", "a transaction can't be read"),
    Row("binaries kubectll", "there is no binary 'kubectll'"),
    Row("binaries kube-proxy@1.37", "no exact version"),
    Row("binaries --fetch kube-proxy", "say which of them"),
    # what would be waited for, for ever
    Row(f"claims --stages {PIPE}", "Not a regular file"),
    Row(f"stages --transaction {PIPE}", "Not a regular file"),
    Row(f"forecast --model {PIPE}", "Not a regular file"),
    Row(f"{LIVE} {PIPE}", "Not a regular file"),
    # a run that something has befallen
    Row("show damaged/cut", "the file is damaged"),
    Row("show damaged/empty", "the file is damaged"),
    Row("report damaged/latin1", "the file is damaged"),
    Row("claims damaged/deep", "the file is damaged"),
    Row("compare runs/latest damaged/newer", "has format 99"),
    Row("bundle --no-twin damaged/folder", "the file can't be read"),
    Row("show damaged/pipe", "Not a regular file"),
    Row("show damaged/tiny", "can't start its own daemons"),
    Row("show damaged/evidence", "the file is damaged"),
    Row("report damaged/session", "the file is damaged"),
    # a kubeconfig that can't be used
    Row(f"{LIVE} folder", "the kubeconfig can't be read"),
    *(Row(f"{LIVE} k/{name}", "this is no kubeconfig") for name in ("empty", "binary", "list", "text")),
    *(Row(f"{LIVE} k/{name}", "it is no YAML") for name in ("tabs", "date", "deep", "code")),
    Row(f"{LIVE} k/no-context", "missing required field `context`"),
    Row(f"{LIVE} k/no-cluster", "cluster 'one', which is not in the kubeconfig"),
    Row(f"{LIVE} k/no-user", "user 'me', which is not in the kubeconfig"),
    Row(f"{LIVE} k/http", "can't be asked by https"),
    Row(f"{LIVE} k/port", "can't be asked by https"),
    Row(f"{LIVE} k/no-server", "can't be asked by https"),
    Row(f"{LIVE} k/bad-ca", "the certificates or the key"),
    Row(f"{LIVE} k/no-ca", "nowhere.crt"),
    Row(f"{LIVE} k/bad-key", "the certificates or the key"),
    Row(f"{LIVE} k/no-token", "the kubeconfig can't be used"),
    Row(f"{LIVE} k/old-plugin", "the kubeconfig can't be used"),
    Row(f"{LIVE} k/no-plugin", "gets no credentials", status=cli.EXIT_FAILED),
    Row(f"{LIVE} k/good", "the cluster does not answer", status=cli.EXIT_FAILED),
    # a stranger's bundle
    *(Row(f"replay b/{name}", HOSTILE[hostile][1]) for name, hostile in STRANGE.items()),
    Row("replay b/half", "it is no bundle"),
    Row("replay b/bomb", "it would unpack to"),
    Row("replay folder", "it is no bundle"),
    Row(f"replay {PIPE}", "Not a regular file"),
    # variables
    Row("clean", "too long a path for unix sockets", env={"KILONODE_STATE_DIR": LONG}),
    Row("limit", "too long a path for unix sockets", env={"KILONODE_STATE_DIR": LONG}),
    Row("stages --transaction text", "too long a path for unix sockets", env={"KILONODE_STATE_DIR": LONG}),
    Row("clean", "is no folder", env={"KILONODE_STATE_DIR": "./text"}),
    Row("limit", "is no folder", env={"KILONODE_STATE_DIR": "./text/deep"}),
    Row("docker", "too long a path for unix sockets", env={"KILONODE_STATE_DIR": LONG}),
    Row("kind-image", "is no container engine", env={"KIND_EXPERIMENTAL_PROVIDER": "nerdctl"}),
    Row("snapshots", "'plenty' is no quantity", env={"KILONODE_SNAPSHOTS_MAX": "plenty"}),
    Row("snapshots --clear", "no whole number of bytes", env={"KILONODE_SNAPSHOTS_MAX": "1.5"}),
    Row("binaries", "is no folder", env={"KILONODE_CACHE_DIR": "./text"}),
    Row("setup", "is no folder", env={"KILONODE_CACHE_DIR": "./text/deep"}),
    *(
        Row("binaries --fetch kube-proxy@1.37.2", says, env={"KILONODE_KUBE_PROXY_1_37_2": path})
        for path, says in (
            ("/nowhere", "/nowhere is no file"),
            ("./folder", "is no file"),
            ("./pipe", "is no file"),
            ("./p/plain", "is not executable"),
            ("./p/old", "it says 'Kubernetes v1.0.0'"),
            ("./p/lost", "its interpreter is missing"),
        )
    ),
    Row("kind-image", "there is no container engine", env={"PATH": "./folder"}, status=cli.EXIT_MISSING),
)


class TestCommands:
    @pytest.mark.parametrize("row", COMMANDS, ids=ids(COMMANDS))
    def test_refuse_it_in_one_line(
        self, monkeypatch: pytest.MonkeyPatch, inputs: Path, place: Place, kilonode: Kilonode, row: Row
    ) -> None:
        set_variables(monkeypatch, inputs, row)
        before = place.look()
        ended = kilonode(row.given)
        assert (ended.status, ended.out) == (row.status, "")
        *_, last = ended.err.splitlines()
        assert [line for line in ended.err.splitlines() if line.startswith("error: ")] == [last]
        assert row.says in last
        assert re.search(r"\. Remedy: \S", last)
        assert "Traceback" not in ended.err
        assert place.look() ^ before == set()

    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ("frobnicate", "No such command 'frobnicate'"),
            ("show --frobnicate", "No such option: --frobnicate"),
            ("replay", "Missing argument 'BUNDLE'"),
            ("limit --repeats few", "Invalid value for '--repeats'"),
            ("clean everything", "unexpected extra argument"),
        ],
    )
    def test_refuse_words_that_they_do_not_know_and_point_at_their_help(
        self, place: Place, kilonode: Kilonode, given: str, says: str
    ) -> None:
        before = place.look()
        ended = kilonode(given)
        assert (ended.status, ended.out) == (cli.EXIT_BAD_INPUT, "")
        assert says in ended.err.splitlines()[-1]
        assert re.search(r"^Try '.*-h' for help\.$", ended.err, re.M)
        assert place.look() ^ before == set()

    def test_write_into_a_pipe_and_through_a_link_that_they_are_given(
        self, kilonode: Kilonode, tmp_path: Path
    ) -> None:
        pipe, link, target = (tmp_path / name for name in ("pipe", "link", "answer.json"))
        os.mkfifo(pipe)
        link.symlink_to(target)
        compare = "compare before/latest worse/latest --json"
        with closing(os.fdopen(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), "rb")) as reader:
            for place in (pipe, link):
                assert kilonode(f"{compare} {place}").status == cli.EXIT_BAD_NEWS
            found = [json.loads(content) for content in (reader.read(), target.read_bytes())]
        assert [each["changes"][0]["direction"] for each in found] == ["worse", "worse"]
        assert (pipe.is_fifo(), link.is_symlink()) == (True, True)
        assert {path.name for path in tmp_path.iterdir()} == {"pipe", "link", "answer.json"}


OPTIONS: Final = (
    Row("--max-nodes 0", "0 is outside 1 to 1,000,000"),
    Row("--max-nodes many", "'many' is no quantity"),
    Row("--max-nodes 2m", "2000000 is outside"),
    Row("--kube-proxy 1.35", "'1.35' is no exact version"),
    Row("--kube-proxy 1.35.0 --kube-proxy latest", "'latest' is no exact version"),
    Row("--kube-proxy 1.99.0", "newer than kube-apiserver"),
    Row("--kube-proxy 1.20.0", "3 minor releases older"),
    Row("--cluster kind --kind-workers 0", "0 workers can't be real nodes"),
    Row("--cluster kind --kind-workers 1.5", "no whole number"),
    Row("--kubeconfig k/good", "give --cluster existing too"),
    Row("--real-node node-1 --dry-run", "give --cluster existing too"),
    Row("--cluster existing", "give --kubeconfig FILE"),
    Row("--cluster existing --kubeconfig k/good", "give --context NAME, one of: staging"),
    Row("--cluster existing --kubeconfig k/good --context production", "there is no context 'production'"),
    Row("--cluster existing --kubeconfig nowhere --context staging", "the kubeconfig can't be read"),
    Row("--cluster existing --kubeconfig k/http --context staging", "can't be asked by https"),
    Row("--cluster existing --kubeconfig k/no-user --context staging", "not in the kubeconfig"),
    Row(
        "--cluster existing --kubeconfig k/good --context staging --node-command ssh",
        "'ssh' names no node",
    ),
    Row("--cluster existing --kubeconfig k/good --context staging --dry-run", "the cluster does not answer"),
    Row("--runs-dir text", "text is no folder"),
    Row("--max-nodes 1k", "is no folder", env={"KILONODE_CACHE_DIR": "./text"}),
)


@pytest.fixture
def session(pytester: pytest.Pytester, place: Place, monkeypatch: pytest.MonkeyPatch, inputs: Path) -> Place:
    """A pytest in ``inputs``, which has every executable; the scenarios are in pytester's folder."""
    monkeypatch.setenv("CI", "true")  # has pytest tell whole lines
    monkeypatch.setattr(Binaries, "ensure_all", lambda *_, **__: ())
    monkeypatch.setattr(
        "framework.lab.EmbeddedCluster.start", lambda *_: pytest.fail("it began: a control plane")
    )
    monkeypatch.chdir(inputs / "work")
    return Place((inputs, pytester.path))


class TestOptionsOfPytest:
    @pytest.mark.parametrize("row", OPTIONS, ids=ids(OPTIONS))
    def test_are_refused_in_one_line(
        self,
        pytester: pytest.Pytester,
        session: Place,
        monkeypatch: pytest.MonkeyPatch,
        inputs: Path,
        row: Row,
    ) -> None:
        set_variables(monkeypatch, inputs, row)
        scenario = pytester.makepyfile("def test_never(lab): pass")
        before = session.look()
        result = run_pytest(pytester, str(scenario), *row.given.split())
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        (line,) = filter(None, result.errlines)
        assert line.startswith("ERROR: ")
        assert row.says in line
        assert re.search(r"\. Remedy: \S", line)
        assert session.look() ^ before == set()

    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ("--cluster magic", "argument --cluster: invalid choice: 'magic'"),
            ("--endpoint-mode magic", "argument --endpoint-mode: invalid choice: 'magic'"),
            ("--kube-prox 1.35.0", "unrecognized arguments: --kube-prox"),
            ("--max-nodes", "argument --max-nodes: expected one argument"),
        ],
    )
    def test_that_it_does_not_know_are_refused_in_its_own_words(
        self, pytester: pytest.Pytester, session: Place, given: str, says: str
    ) -> None:
        before = session.look()
        result = run_pytest(pytester, *given.split())
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert says in result.stderr.str()
        assert "Traceback" not in result.stderr.str()
        assert session.look() ^ before == set()


NODE: Final = 'memory="1GiB", kube_proxy="1.37.2"'
SCENARIOS: Final = (
    Row('real_node(memory="much", kube_proxy="1.37.2")', "'much' is no quantity"),
    Row('real_node(memory=1024, kube_proxy="1.37.2")', "1024 is no quantity"),
    Row('real_node(memory="1MiB", kube_proxy="1.37.2")', "can't start its own daemons"),
    Row('real_node(memory="1GiB", kube_proxy="newest")', "'newest' is no exact version"),
    Row('real_node(memory="1GiB", kube_proxy=1.37)', "1.37 is no exact version"),
    Row('real_node(memory="64MiB", kube_proxy="1.99.0")', "newer than kube-apiserver"),
    Row(f'real_node({NODE}, ballast="heavy")', "there is no node profile 'heavy'"),
    Row(f'real_node({NODE}, ballast="2GiB")', "does not fit a node"),
    Row(f"real_node({NODE}, ballast=300)", "Expected `array`, got `int`"),
    Row(f"real_node({NODE}, ballast=[300])", "Expected `object`, got `int`"),
    Row(f'real_node({NODE}, colour="red")', "unknown field `colour`"),
    Row(f'real_node({NODE}, client="no")', "Expected `bool`, got `str`"),
    Row(f'real_node({NODE}, oom_policy="cruel")', "Invalid enum value 'cruel'"),
    Row(f'real_node({NODE}, oom_policy={{"nft": 0}})', "an OOM policy names nft"),
    Row(f'real_node({NODE}, restart="always")', "Invalid enum value 'always'"),
    Row(f'real_node({NODE}, proxy_mode="ipvs")', "Invalid enum value 'ipvs'"),
    Row(f'real_node({NODE}, kube_proxy_config="mode: x")', "Expected `object`, got `str`"),
    Row(f'real_node({NODE}, kube_proxy_config={{"mode": "iptables"}})', "give proxy_mode='iptables'"),
    Row(f'real_node({NODE}, kube_proxy_config={{"ipvs": object()}})', "can't be written down"),
    Row('Ballast(name="kubelet", kind="system", memory_bytes=MIB)', "can't name a ballast"),
    Row('Ballast(name="app", kind="huge", memory_bytes=MIB)', "give one of 'system', 'guaranteed'"),
    Row('Ballast(name="app", kind="system", memory_bytes="1MiB")', "Expected `int`, got `str`"),
    Row("daemonset_service(endpoints=0)", "0 is outside 1 to 1,000,000"),
    Row("daemonset_service(endpoints=-1)", "-1 is outside"),
    Row("daemonset_service(endpoints=10**9)", "1000000000 is outside"),
    Row('daemonset_service(endpoints="10k")', "'10k' is outside"),
    Row("daemonset_service(endpoints=1.5)", "1.5 is outside"),
    Row('daemonset_service(endpoints=9, mode="magic")', "give one of 'native', 'adopted', 'endpointslices'"),
    Row("daemonset_service(endpoints=9, ports=())", "no distinct ports"),
    Row("daemonset_service(endpoints=9, ports=(80, 80))", "no distinct ports"),
    Row("daemonset_service(endpoints=9, ports=(0,))", "0 is outside 1 to 65535"),
    Row("daemonset_service(endpoints=9, ports=(80, 65536))", "65536 is outside"),
    Row("daemonset_service(endpoints=9, ports=80)", "Expected `array`, got `int`"),
    Row('daemonset_service(endpoints=9, protocol="SCTP")', "give one of 'TCP', 'UDP'"),
    Row("daemonset_service(endpoints=9, session_affinity=True)", "give one of 'None', 'ClientIP'"),
    Row('daemonset_service(endpoints=9, internal_traffic_policy="Here")', "give one of 'Cluster', 'Local'"),
    Row("daemonset_service(endpoints=9, services=0)", "0 is outside 1 to 100,000"),
    Row('daemonset_service(endpoints=9, mode="native", dual_stack=True)', "IPv4 addresses only"),
    Row('daemonset_service(endpoints=9, colour="red")', "a Service has no colour"),
    Row('daemonset_service(endpoints=9, name="web")', "a Service has no name"),
    Row("many_services(count=0, endpoints_each=2)", "0 is outside 1 to 100,000"),
    Row('many_services(count="10", endpoints_each=2)', "Expected `int`, got `str`"),
    Row("many_services(count=100_000, endpoints_each=100)", "10000000 is outside"),
    Row("fleet.grow_to(-1)", "-1 is outside 0 to 1,000,000"),
    Row('fleet.grow_to("10k")', "'10k' is outside"),
    Row("fleet.grow_to(2_000_000)", "2000000 is outside"),
    Row("fleet.set_to(1.5)", "1.5 is outside"),
    Row("Watch(failures=0)", "0 is no failures"),
    Row("Watch(timeout_s=-1)", "-1 is no timeout_s"),
    Row('Watch(until_s="late")', "'late' is no until_s"),
    Row('Expectation(programming="fine")', "give one of 'programmed'"),
    Row('Expectation(nft_bytes_below="20MiB")', "Expected `int | null`, got `str`"),
    Row("Expectation()", "asserts nothing"),
    Row('Expectation(programming="programmed", known_bad="#1")', "nothing bad is expected"),
    Row("endpoints_ladder()", "the ladder has no rung"),
    Row("endpoints_ladder(0, 10)", "0 is outside 1 to 1,000,000"),
    Row('endpoints_ladder("10k")', "'10k' is outside"),
    Row('load_run(Path("nowhere"))', "there is no run here"),
)
SCENARIO: Final = """
from pathlib import Path
from framework import *

def test_it(fleet, real_node, daemonset_service, many_services):
    {}
"""


class TestArguments:
    @pytest.mark.parametrize("row", SCENARIOS, ids=ids(SCENARIOS))
    def test_fail_in_one_line_before_anything_is_started(
        self, pytester: pytest.Pytester, session: Place, row: Row
    ) -> None:
        scenario = pytester.makepyfile(test_mine=SCENARIO.format(row.given))
        before = session.look()
        runs = pytester.path / "runs"
        result = run_pytest(pytester, str(scenario), "--max-nodes", "1m", f"--runs-dir={runs}")
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        result.assert_outcomes(failed=1)
        (line,) = [line for line in result.outlines if line.startswith("FAILED ")]
        assert row.says in line
        assert re.search(r"\. Remedy: \S", line)
        for inside in ("Traceback", "/framework/"):
            assert inside not in result.stdout.str()
        made = {Path(path) for path, _ in session.look() ^ before}
        assert {path for path in made if runs not in path.parents} <= {runs}
        assert list(runs.glob(f"*/*/{RESULT_FILE}")) == []


ENDINGS: Final = (
    Row("show runs/latest", "Full result: ", status=0),
    Row("compare before/latest worse/latest", "WORSE: nft peak", status=cli.EXIT_BAD_NEWS),
    Row("compare empty/latest empty/latest", "NOTHING COMPARED", status=cli.EXIT_UNKNOWN),
    Row(f"{LIVE} k/good --model made.json --ballast 300MiB", "AMBER: ", status=cli.EXIT_AMBER),
    Row("claims runs/latest", "", status=130),
)
"""Commands that end otherwise than by an error; of the last one see below."""


SESSIONS: Final = (
    ("def test_it(): pass", "", 0),
    ("def test_it(): assert not 1", "", 1),
    ("def test_it(): raise KeyboardInterrupt", "", 2),
    ("from framework import endpoints_ladder\nendpoints_ladder()", "", 2),
    ("def test_it(): pass", "-p broken", 3),
    ("def test_it(): pass", "--max-nodes 0", 4),
    ("def test_it(): pass", "-k nothing", 5),
)


def documented(whose: str) -> set[int]:
    """The statuses of one of the page's tables."""
    table = PAGE.read_text().split(f"Of {whose}")[1].split("\n\n")[1]
    return {int(status) for status in re.findall(r"^\| (\d+) \| \S", table, re.M)}


class TestExitStatuses:
    def test_of_commands_are_documented_and_each_is_seen_here(self) -> None:
        constants = {getattr(cli, name) for name in cli.__all__ if name.startswith("EXIT_")}
        assert documented("`kilonode`") == {0, *constants, 130}
        assert {row.status for row in (*COMMANDS, *ENDINGS)} == documented("`kilonode`")

    @pytest.mark.parametrize("row", ENDINGS, ids=ids(ENDINGS))
    def test_of_commands_tell_how_they_ended(
        self, monkeypatch: pytest.MonkeyPatch, kilonode: Kilonode, row: Row
    ) -> None:
        def interrupt() -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(cli.forecasts, "read_counts", lambda _: counts_of(1900 * MIB))
        monkeypatch.setattr(cli.results, "load_claims", interrupt)
        ended = kilonode(row.given)
        assert (ended.status, ended.err) == (row.status, "")
        assert row.says in ended.out

    def test_of_sessions_are_documented_and_each_is_seen_here(self) -> None:
        assert {status for *_, status in SESSIONS} == documented("a pytest session")

    @pytest.mark.parametrize(("scenario", "options", "status"), SESSIONS)
    def test_of_sessions_are_pytests(
        self, pytester: pytest.Pytester, session: Place, *, scenario: str, options: str, status: int
    ) -> None:
        pytester.makepyfile(broken="def pytest_collection_finish(session): 1 / 0")
        pytester.syspathinsert()
        path = pytester.makepyfile(test_mine=scenario)
        already_imported = "ignore::pytest.PytestAssertRewriteWarning"
        result = pytester.runpytest_inprocess(
            *("-p", "no:cacheprovider", "-W", already_imported, str(path), *options.split()),
            no_reraise_ctrlc=True,
        )
        assert result.ret == status


class TestPins:
    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("", "Expected `object`, got `null`"),
            ("suppliers: [", "while parsing a flow node"),
            ("suppliers: {}\nbinaries: {}", "missing required field `system`"),
            ("suppliers: {}\nbinaries: {}\nsystem: []\ncolour: red", "unknown field `colour`"),
            (
                "suppliers: {}\nbinaries: {kwok: {supplier: nobody, versions: [0.8.0]}}\nsystem: []",
                "kwok has the unknown supplier 'nobody'",
            ),
        ],
    )
    def test_that_were_damaged_are_refused(
        self,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        place: Place,
        kilonode: Kilonode,
        *,
        text: str,
        says: str,
    ) -> None:
        (tmp_path / "pins.yaml").write_text(text)
        monkeypatch.setattr("framework.binaries.pins.resources.files", lambda _: tmp_path)
        before = place.look()
        ended = kilonode("binaries")
        assert (ended.status, ended.out) == (cli.EXIT_BAD_INPUT, "")
        (line,) = ended.err.splitlines()
        assert line.startswith("error: ")
        assert says in line
        assert re.search(r"\(pins\.yaml\)\. Remedy: \S", line)
        assert place.look() ^ before == set()


class TestSnapshots:
    @pytest.mark.parametrize(
        ("manifest", "says"),
        [
            (b"", "its manifest can't be read"),
            (b'{"format": 99}', "it has format 99"),
            (b'{"format": 1, "made_utc": "\xff"}', "its manifest can't be read"),
            (b'{"format": 1, "files": ' + b"[" * 100_000, "its manifest can't be read"),
        ],
        ids=["empty", "newer", "not UTF-8", "deep"],
    )
    def test_that_were_damaged_are_passed_over_and_stay(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        kilonode: Kilonode,
        caplog: pytest.LogCaptureFixture,
        *,
        manifest: bytes,
        says: str,
    ) -> None:
        monkeypatch.setenv("KILONODE_CACHE_DIR", str(tmp_path))
        for nodes in (2000, 3000):
            key = SnapshotKey(nodes=nodes, etcd="3.7.0", kube_apiserver="1.37.2", shape="cc")
            store = Snapshots.below(tmp_path)
            with store.draft(key) as draft:
                store.save(draft, registered_s=1)
        damaged = store.root / key.name / "manifest.json"
        damaged.write_bytes(manifest)
        ended = kilonode("snapshots")
        assert ended.status == 0
        assert "2,000" in ended.out
        assert "3,000" not in ended.out
        assert says in caplog.text
        assert "Remedy: run `kilonode snapshots --clear`" in caplog.text
        assert damaged.read_bytes() == manifest

"""What code that runs as root must not do, and what SECURITY.md promises, as far as no live run is needed.

The code is looked at by its syntax. Each rule is seen to find what was planted for it, and each exception is
listed with its reason: one more of its kind fails, and so does one that is not needed any more.
"""

from __future__ import annotations

import ast
import base64
import http.client
import http.server
import os
import re
import stat
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from ipaddress import IPv4Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, NamedTuple, cast, get_args

import msgspec
import pytest
import yaml
from test_bundle import a_measurement
from test_redact import CERTIFICATE, KEY, REDACTOR
from test_report_run_folder import a_result

from framework import network
from framework.binaries import Binary, Request, load_pins
from framework.binaries.download import Downloader, Reachability, UnavailableError
from framework.binaries.pins import ChecksumFormat, DownloadPin, fill
from framework.binaries.store import CACHE_VARIABLE
from framework.bundle import pack
from framework.cluster import KUBELET_SYSCTLS, ApiEndpoint
from framework.cluster.kind import NODE_SYSCTLS, KindCluster, KindSettings
from framework.cluster.kind.cluster import LIMITS_LEAST
from framework.containers import Container, Engine
from framework.errors import BadInputError
from framework.fleet import FAKE_RANGE, SnapshotKey, Snapshots
from framework.ledger import STATE_ENV, Ledger
from framework.realnode.config import kube_proxy_config
from framework.spec import RealNodeSpec
from framework.traffic.client import CLIENTS_RANGE
from framework.units import GIB

ROOT: Final = Path(__file__).parents[2]
SOURCES: Final = (
    "conftest.py",
    *(f"{name}/**/*.py" for name in ("framework", "scenarios", "benchmarks", "kwok")),
)


class Call(NamedTuple):
    """By the full name of what is called, such as ``subprocess.run``; ``.chmod`` of what is not known."""

    line: int
    name: str
    arguments: list[ast.expr]
    options: dict[str, ast.expr]


class Module:
    """One file as the rules look at it: what it calls, and the texts that it uses, docstrings left out."""

    def __init__(self, source: str) -> None:
        self.nodes = list(ast.walk(ast.parse(source)))
        self._full = dict(self._imported())
        self.calls = [self._call(node) for node in self.nodes if isinstance(node, ast.Call)]
        prose = {id(node.value) for node in self.nodes if isinstance(node, ast.Expr)}
        constants = [node for node in self.nodes if isinstance(node, ast.Constant) and id(node) not in prose]
        self.texts = [(node.lineno, node.value) for node in constants if isinstance(node.value, str)]

    def _imported(self) -> Iterator[tuple[str, str]]:
        """Names that the module gives to what it imports, with their full names."""
        for node in self.nodes:
            if isinstance(node, ast.Import):
                yield from ((alias.asname or alias.name, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from ((a.asname or a.name, f"{node.module}.{a.name}") for a in node.names)

    def _call(self, node: ast.Call) -> Call:
        options = {option.arg: option.value for option in node.keywords if option.arg is not None}
        return Call(node.lineno, self.name(node.func), node.args, options)

    def name(self, node: ast.expr | None) -> str:
        if isinstance(node, ast.Name):
            return self._full.get(node.id, node.id)
        return f"{self.name(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


Rule = Callable[[Module], list[int]]


def constant(node: ast.expr | None) -> Any:
    return node.value if isinstance(node, ast.Constant) else None


def called(is_bad: Callable[[Call], bool]) -> Rule:
    """The lines of a module with such a call."""
    return lambda module: [call.line for call in module.calls if is_bad(call)]


def said(pattern: str) -> Rule:
    """The lines of a module with such a text."""
    return lambda module: [line for line, text in module.texts if re.search(pattern, text)]


def imports_of_pickles(module: Module) -> list[int]:
    pickles = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
    found = []
    for node in module.nodes:
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        found += [cast(ast.stmt, node).lineno for name in names if name.partition(".")[0] in pickles]
    return found


def yaml_that_makes_objects(module: Module) -> list[int]:
    safe = ("yaml.SafeLoader", "yaml.CSafeLoader")
    unsafe = ("yaml.full_load", "yaml.unsafe_load", "yaml.full_load_all", "yaml.unsafe_load_all")
    found = called(lambda call: call.name in unsafe)(module)
    return found + called(
        lambda call: (
            call.name in ("yaml.load", "yaml.load_all")
            and module.name(call.options.get("Loader")) not in safe
        )
    )(module)


def servers_not_checked(module: Module) -> list[int]:
    found = called(
        lambda call: (
            call.name == "ssl._create_unverified_context"
            or any(constant(call.options.get(name)) is False for name in ("verify", "verify_ssl", "ssl"))
        )
    )(module)
    for node in module.nodes:
        if isinstance(node, ast.Attribute) and node.attr == "CERT_NONE":
            found.append(node.lineno)
        if isinstance(node, ast.Assign) and constant(node.value) is False:
            names = [target.attr for target in node.targets if isinstance(target, ast.Attribute)]
            found += [node.lineno for name in names if name in ("verify", "verify_ssl", "check_hostname")]
    return found


def may_be_written_by_others(call: Call) -> bool:
    """A mode with which the group or others may write, or a mask that leaves it to them."""
    modes = [constant(each) for each in (*call.arguments, call.options.get("mode"))]
    numbers = [mode for mode in modes if type(mode) is int]
    if call.name == "os.umask":
        return any(mode & 0o022 != 0o022 for mode in numbers)
    takes = ("chmod", "fchmod", "mkdir", "makedirs", "mkfifo", "touch", "open")
    return call.name.rpartition(".")[2] in takes and any(mode & 0o022 for mode in numbers)


def is_bound_everywhere(call: Call) -> bool:
    place = call.arguments[0] if call.name.endswith(".bind") and call.arguments else None
    return isinstance(place, ast.Tuple) and constant(place.elts[0]) == ""


GUESSED: Final = ("tempfile.mktemp", "tempfile.gettempdir", "tempfile.gettempprefix")
SHELLS: Final = (
    *("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"),
    "asyncio.create_subprocess_shell",
)
WAITS: Final = (
    *("urllib.request.urlopen", "opener.open", "socket.create_connection"),
    *(f"requests.{verb}" for verb in ("get", "post", "put", "patch", "delete", "head", "request")),
)
RULES: Final[dict[str, Rule]] = {
    "a name that others can guess": called(lambda call: call.name in GUESSED),
    "a folder that is shared": said(r"^/(?:tmp|var/tmp|dev/shm)(?:/|$)"),
    "a shell": called(
        lambda call: (
            call.name in SHELLS or constant(call.options.get("shell", ast.Constant(value=False))) is not False
        )
    ),
    "code made of data": called(
        lambda call: call.name.removeprefix("builtins.") in ("eval", "exec", "compile", "__import__")
    ),
    "objects made of data": imports_of_pickles,
    "YAML that makes objects": yaml_that_makes_objects,
    "an archive that lands anywhere": called(
        lambda call: (
            call.name == "shutil.unpack_archive"
            or (
                call.name.endswith((".extractall", ".extract"))
                and constant(call.options.get("filter")) != "data"
            )
        )
    ),
    "a server that is not checked": servers_not_checked,
    "a wait without end": called(lambda call: call.name in WAITS and "timeout" not in call.options),
    "a file that others may write": called(may_be_written_by_others),
    "an address that everybody reaches": lambda module: (
        said(r"(?<![\d.])0\.0\.0\.0(?::|$)|^::$|\[::\]")(module) + called(is_bound_everywhere)(module)
    ),
}
PLANTED: Final = (
    ("a name that others can guess", "import tempfile\npath = tempfile.mktemp()"),
    ("a name that others can guess", "from tempfile import mktemp as fresh\npath = fresh(suffix='.x')"),
    ("a name that others can guess", "import tempfile as t\npath = Path(t.gettempdir(), 'kilonode')"),
    ("a folder that is shared", "open('/tmp/kilonode.log', 'w')"),
    ("a folder that is shared", "path = Path('/tmp') / 'kilonode'"),
    ("a folder that is shared", "path = f'/var/tmp/{name}'"),
    ("a folder that is shared", "PLACE = '/dev/shm/kilonode'"),
    ("a shell", "import subprocess\nsubprocess.run('ip link', shell=True)"),
    ("a shell", "import subprocess as s\ns.Popen('ip link', shell=wanted)"),
    ("a shell", "import os\nos.system('ip link')"),
    ("a shell", "from os import popen\npopen('ip link')"),
    ("a shell", "import subprocess\nsubprocess.getoutput('ip link')"),
    ("a shell", "import asyncio\nasyncio.create_subprocess_shell('ip link')"),
    ("code made of data", "value = eval(text)"),
    ("code made of data", "exec(text)"),
    ("code made of data", "import builtins\nbuiltins.exec(text)"),
    ("objects made of data", "import pickle"),
    ("objects made of data", "from marshal import loads"),
    ("YAML that makes objects", "import yaml\nyaml.load(text)"),
    ("YAML that makes objects", "import yaml\nyaml.load(text, Loader=yaml.Loader)"),
    ("YAML that makes objects", "from yaml import unsafe_load\nunsafe_load(text)"),
    ("an archive that lands anywhere", "archive.extractall(place)"),
    ("an archive that lands anywhere", "archive.extract(member, place, filter='fully_trusted')"),
    ("an archive that lands anywhere", "import shutil\nshutil.unpack_archive(path, place)"),
    ("a server that is not checked", "import requests\nrequests.get(url, verify=False, timeout=3)"),
    ("a server that is not checked", "import ssl\ncontext = ssl._create_unverified_context()"),
    ("a server that is not checked", "settings.verify_ssl = False"),
    ("a server that is not checked", "import ssl\ncontext.verify_mode = ssl.CERT_NONE"),
    ("a wait without end", "import requests\nrequests.get(url)"),
    ("a wait without end", "from urllib.request import urlopen\nurlopen(url)"),
    ("a wait without end", "import socket\nsocket.create_connection(place)"),
    ("a file that others may write", "path.chmod(0o777)"),
    ("a file that others may write", "path.mkdir(mode=0o775)"),
    ("a file that others may write", "import os\nos.open(path, os.O_CREAT, 0o666)"),
    ("a file that others may write", "import os\nos.umask(0)"),
    ("an address that everybody reaches", "server.listen('0.0.0.0', 80)"),
    ("an address that everybody reaches", "address = f'0.0.0.0:{port}'"),
    ("an address that everybody reaches", "made.bind(('', 80))"),
)
FINE: Final = '''
"""Of /tmp and 0.0.0.0."""
import os, socket, subprocess, sys, tempfile, urllib.request, yaml
with tempfile.TemporaryDirectory(prefix="kilonode-") as place, tempfile.TemporaryFile() as file: pass
subprocess.run(["ip", "link"], shell=False)
yaml.safe_load(text)
yaml.load(text, Loader=yaml.CSafeLoader)
archive.extractall(place, filter="data")
urllib.request.urlopen(url, timeout=3)
socket.create_connection(place, timeout=3)
path.chmod(0o755)
path.open("w")
path.mkdir(mode=0o700, parents=True)
os.umask(0o077)
made.bind(("127.0.0.1", 80))
routes = [{"dst": "0.0.0.0/0"}]
re.compile(text)
'''
ALLOWED: Final = {
    ("framework/claims/model.py", "YAML that makes objects"): (1, "a safe loader, in C where there is one"),
    ("framework/cluster/api.py", "a server that is not checked"): (2, "as its user's kubeconfig says"),
    ("framework/cluster/kind/pod_images.py", "a folder that is shared"): (1, "a folder in an image"),
    ("framework/cluster/existing/manifests.py", "an address that everybody reaches"): (1, "in kwok's pod"),
    ("framework/realnode/config.py", "an address that everybody reaches"): (1, "in a node's namespace"),
    ("framework/realnode/kind_worker.py", "an address that everybody reaches"): (
        1,
        "in a worker's container",
    ),
    ("framework/traffic/answer.py", "an address that everybody reaches"): (1, "in the endpoints' namespace"),
    ("framework/traffic/ask.py", "an address that everybody reaches"): (
        1,
        "a client's port, in its namespace",
    ),
}
"""How often which rule is broken in which file, and why that does no harm."""


def broken(source: str) -> Counter[str]:
    """The rules that are broken, with how often."""
    module = Module(source)
    return Counter({rule: len(lines) for rule, find in RULES.items() if (lines := find(module))})


class TestCode:
    @pytest.mark.parametrize(("rule", "snippet"), PLANTED)
    def test_what_is_planted_is_found(self, rule: str, snippet: str) -> None:
        assert broken(snippet) == {rule: 1}

    def test_what_is_fine_is_not(self) -> None:
        assert broken(FINE) == {}
        assert {rule for rule, _ in PLANTED} == set(RULES)

    def test_no_rule_is_broken_but_where_it_is_said_why(self) -> None:
        paths = sorted({path for pattern in SOURCES for path in ROOT.glob(pattern)})
        assert len(paths) > 150
        found: Counter[tuple[str, str]] = Counter()
        for path in paths:
            for rule, count in broken(path.read_text()).items():
                found[path.relative_to(ROOT).as_posix(), rule] += count
        assert found == Counter({place: count for place, (count, _) in ALLOWED.items()})


PINS: Final = load_pins()
EVERY_PIN: Final = [
    (Request(name, version), arch)
    for name, pin in PINS.binaries.items()
    for version in pin.versions
    for arch in ("amd64", "arm64")
]
A_PIN: Final = {
    "base_url": "https://dl.k8s.io/release",
    "file": "{name}",
    "checksum_base_url": "https://dl.k8s.io/release",
    "checksum_file": "{name}.sha256",
    "checksum_format": "sha256",
}


class TestPins:
    @pytest.mark.parametrize(("request_", "arch"), EVERY_PIN, ids=lambda value: str(value).replace(" ", "-"))
    def test_each_has_a_checksum_and_both_come_by_https(self, request_: Request, arch: str) -> None:
        pin = PINS.supplier_of(request_.name).download
        file = f"{pin.base_url}/{fill(pin.file, request_, arch)}"
        checksum = f"{pin.checksum_base_url}/{fill(pin.checksum_file, request_, arch)}"
        assert file.startswith("https://")
        assert checksum.startswith("https://")
        assert file != checksum
        assert pin.checksum_format in get_args(ChecksumFormat)
        assert request_.version in checksum

    @pytest.mark.parametrize("left_out", [name for name in A_PIN if name.startswith("checksum")])
    def test_one_without_a_checksum_is_none(self, left_out: str) -> None:
        assert msgspec.convert(A_PIN, DownloadPin).checksum_format == "sha256"
        with pytest.raises(msgspec.ValidationError, match=left_out):
            msgspec.convert({name: A_PIN[name] for name in A_PIN if name != left_out}, DownloadPin)

    @pytest.mark.parametrize("where", ["base_url", "checksum_base_url"])
    @pytest.mark.parametrize(
        "url",
        [
            "http://dl.k8s.io/release",
            "http://127.0.0.1@dl.k8s.io/release",
            "http://127.0.0.1.dl.k8s.io/release",
            "http://localhost/release",
            "ftp://127.0.0.1/release",
            "file:///release",
            "//dl.k8s.io/release",
            "",
        ],
    )
    def test_no_other_way_is_taken(self, where: str, url: str) -> None:
        with pytest.raises(BadInputError, match=f"^{re.escape(url)} is not asked by https"):
            msgspec.convert(A_PIN | {where: url}, DownloadPin)


@dataclass
class Served:
    """Answers of a server on loopback: a text, or where to look instead. ``asked`` are the paths."""

    place: str = ""
    answers: dict[str, bytes] = field(default_factory=dict)
    elsewhere: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        self.asked.append(handler.path)
        target = self.elsewhere.get(handler.path)
        content = self.answers.get(handler.path, b"")
        handler.send_response(302 if target else 200 if handler.path in self.answers else 404)
        if target:
            handler.send_header("Location", target)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    def fetch(self, folder: Path, *, scheme: str = "http", **pin: Any) -> Path:
        """Download ``file`` with the checksum beside it, as a release is downloaded."""
        url = f"{scheme}://{self.place}"
        pinned = DownloadPin(**{**A_PIN, "base_url": url, "checksum_base_url": url, **pin})
        downloader = Downloader("amd64", Reachability())
        return downloader.fetch(pinned, Request("file", "1.0.0"), folder, lambda done, total: None)

    def publish(self, content: bytes) -> None:
        self.answers |= {"/file": content, "/file.sha256": sha256(content).hexdigest().encode()}


@contextmanager
def served() -> Iterator[Served]:
    made = Served()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.place = f"127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        server.shutdown()
        thread.join()


class WithoutTls(http.client.HTTPConnection):
    """What an address with https is asked by here, where no server has a certificate."""

    def __init__(self, host: str, *, context: Any = None, check_hostname: Any = None, **options: Any) -> None:
        super().__init__(host, **options)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    for variable in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(variable)
    monkeypatch.setattr(http.client, "HTTPSConnection", WithoutTls)
    with served() as made:
        made.publish(b"hello")
        yield made


class TestDownloads:
    def test_follow_from_https_to_https(self, server: Served, tmp_path: Path) -> None:
        server.elsewhere["/moved/file"] = f"https://{server.place}/file"
        server.elsewhere["/moved/file.sha256"] = f"https://{server.place}/file.sha256"
        moved = {"file": "moved/{name}", "checksum_file": "moved/{name}.sha256"}
        assert server.fetch(tmp_path, scheme="https", **moved).read_bytes() == b"hello"
        assert server.asked == ["/moved/file.sha256", "/file.sha256", "/moved/file", "/file"]

    @pytest.mark.parametrize("of", ["file", "file.sha256"])
    @pytest.mark.parametrize("way", [[], ["/once/more"]], ids=["at once", "after https"])
    def test_do_not_follow_from_https_to_http(
        self, server: Served, tmp_path: Path, of: str, way: list[str]
    ) -> None:
        for begin, end in zip([f"/{of}", *way], way, strict=False):
            server.elsewhere[begin] = f"https://{server.place}{end}"
        server.answers["/plain"] = server.answers[f"/{of}"]
        server.elsewhere[[f"/{of}", *way][-1]] = f"http://{server.place}/plain"
        with pytest.raises(UnavailableError, match=r"leads on to http://.*/plain, which is not by https"):
            server.fetch(tmp_path, scheme="https")
        assert "/plain" not in server.asked
        assert list(tmp_path.iterdir()) == []


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def kubeconfig_with_keys() -> str:
    inline = {"client-certificate-data": _base64(CERTIFICATE), "client-key-data": _base64(KEY)}
    cluster = {"server": "https://127.0.0.1:6443", "certificate-authority-data": _base64(CERTIFICATE)}
    return yaml.safe_dump(
        {
            "clusters": [{"name": "a", "cluster": cluster}],
            "users": [{"name": "a", "user": inline}],
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
            "current-context": "a",
        }
    )


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.fixture
def open_umask() -> Iterator[None]:
    """With which a file is everybody's unless it was asked for otherwise."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("open_umask")
class TestModes:
    def test_a_runs_folder_and_the_state_folder_are_closed(self, tmp_path: Path) -> None:
        ledger = Ledger.begin(tmp_path / "state")
        assert mode_of(tmp_path / "state") == mode_of(ledger.folder) == 0o700
        assert ledger.finish() == ()

    def test_fleets_on_disk_are_closed(self, tmp_path: Path) -> None:
        snapshots = Snapshots(tmp_path / "snapshots", 1 << 30)
        key = SnapshotKey(nodes=1, etcd="3.7.0", kube_apiserver="1.37.2", shape="a")
        with snapshots.draft(key) as draft:
            assert mode_of(draft.data) == 0o700
            (draft.data / "db").write_text("x")
            snapshots.save(draft, registered_s=1.0)
        found = snapshots.find(key)
        assert found is not None
        found.restore(tmp_path / "etcd")
        assert mode_of(snapshots.root) == mode_of(tmp_path / "etcd") == 0o700

    def test_a_bundle_is_not_written_through_a_link_that_waits_for_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        measurement = a_measurement(tmp_path / "runs", a_result())
        monkeypatch.setattr("framework.bundle.archive.write_report", lambda *_: None)
        monkeypatch.setattr("framework.bundle.archive.secrets.token_hex", lambda _: "guessed")
        theirs = tmp_path / "theirs"
        theirs.write_text("theirs")
        (tmp_path / ".b.tar.gz.guessed").symlink_to(theirs)
        with pytest.raises(BadInputError, match="can't be written: File exists"):
            pack(measurement.path, None, None, output=tmp_path / "b.tar.gz", redactor=REDACTOR)
        assert theirs.read_text() == "theirs"
        assert not (tmp_path / "b.tar.gz").exists()

    def test_keys_of_somebodys_kubeconfig_are_closed_where_the_client_puts_them(self, tmp_path: Path) -> None:
        path = tmp_path / "kubeconfig"
        path.write_text(kubeconfig_with_keys())
        endpoint = ApiEndpoint.from_kubeconfig(path)
        assert endpoint.key_file is not None
        assert Path(endpoint.key_file).read_text() == KEY
        assert mode_of(Path(endpoint.key_file)) == 0o600

    def test_the_kubeconfig_of_a_kind_cluster_is_closed_and_its_only_copy(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(network, "name_netns", lambda *_: None)
        kind = tmp_path / "kind"
        find_path = "while [ $1 != --kubeconfig ]; do shift; done"
        kind.write_text(f"#!/bin/sh\n{find_path}\ncat > $2 <<'END'\n{kubeconfig_with_keys()}END\n")
        kind.chmod(0o755)
        ledger = Ledger.begin(tmp_path / "state")
        container = Container(id="1", name="n", image="i", pid=1, address="198.18.0.2", files=())
        engine = SimpleNamespace(program="docker", env={}, inspect=lambda name: container)
        cluster = KindCluster(
            ledger,
            {"kind": Binary("kind", "0.33.0", kind, "download", "", "")},
            IPv4Network("198.18.0.0/24"),
            engine=cast(Engine, engine),
            settings=KindSettings(image="i", workers=1),
        )
        cluster.folder.mkdir(mode=0o700)
        cluster._create({})
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        holding = [path for path in files if b"client-key" in path.read_bytes()]
        assert sorted(holding) == sorted([cluster.kubeconfig, kind])
        assert mode_of(cluster.kubeconfig) == 0o600
        assert yaml.safe_load(cluster.kubeconfig.read_text())["clusters"][0]["cluster"]["server"] == (
            "https://198.18.0.2:6443"
        )


class TestStrangers:
    """What a bundle of somebody else's asks of a kube-proxy that runs as root."""

    @pytest.mark.parametrize("path", ["/etc/kubernetes/admin.conf", "b/logs/evil.yaml", ""])
    def test_no_other_kubeconfig_is_taken(self, path: str) -> None:
        with pytest.raises(BadInputError, match=r"can't be given the kubeconfig .*kube_proxy_config"):
            self.node({"clientConnection": {"qps": 5, "kubeconfig": path}})

    def test_the_rest_of_its_connection_is_its_own(self) -> None:
        asked = self.node({"clientConnection": {"qps": 5}})
        written = kube_proxy_config(
            name="real-1",
            address="198.18.0.10",
            kubeconfig=Path("/state/kubeconfig"),
            mode="nftables",
            oom_score_adj=0,
            overrides=asked.kube_proxy_config,
        )
        connection = {"kubeconfig": "/state/kubeconfig", "qps": 5}
        assert yaml.safe_load(written)["clientConnection"] == connection

    def node(self, config: dict[str, Any]) -> RealNodeSpec:
        return RealNodeSpec(memory_bytes=GIB, kube_proxy="1.37.2", kube_proxy_config=config)


def test_the_page_names_what_is_written_and_where() -> None:
    page = (ROOT / "SECURITY.md").read_text()
    sysctls = [key.replace("/", ".") for key in (*KUBELET_SYSCTLS, *NODE_SYSCTLS, *LIMITS_LEAST)]
    ranges = (network.CLUSTER_RANGE, FAKE_RANGE, CLIENTS_RANGE)
    named = (*sysctls, *map(str, ranges), f"${STATE_ENV}", f"${CACHE_VARIABLE}")
    assert [name for name in named if f"`{name}`" not in page] == []


WORKFLOWS: Final = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_read_and_no_more(path: Path) -> None:
    text = path.read_text()
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read"}
    assert not re.search(r"pull_request_target|\$\{\{ *(?:secrets|github\.(?:event|head_ref|token))", text)
    assert [job for job in workflow["jobs"].values() if "permissions" in job] == []


def test_every_environment_of_ci_is_one_of_tox() -> None:
    tox = (ROOT / "tox.ini").read_text()
    checks = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["check"]
    named = {each["environment"] for each in checks["strategy"]["matrix"]["include"]}
    assert named >= {"lint", "typecheck", "py311", "py312", "py313", "audit"}
    assert named == {name for name in named if f"[testenv:{name}]\n" in tox}

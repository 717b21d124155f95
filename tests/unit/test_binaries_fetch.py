"""How a missing binary gets here: a release server on 127.0.0.1, and a strict fake of ``go`` on PATH."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from framework.binaries import (
    Binaries,
    BuildError,
    Building,
    ChecksumError,
    DiskFullError,
    Done,
    Downloading,
    Event,
    ExplicitPathError,
    Failed,
    FellBack,
    GoTooOldError,
    NoSourceError,
    Pins,
    Queued,
    Request,
    UnknownVersionError,
    WrongVersionError,
    gobuild,
    load_pins,
)
from framework.binaries import download as download_module
from framework.errors import BadInputError, KilonodeError, MissingRequirementError

KUBE_PROXY = "v1.35.0/bin/linux/amd64/kube-proxy"
PADDING = b"#" * 400_000


def script(says: str) -> bytes:
    return f"#!/bin/sh\necho '{says}'\n".encode() + PADDING


@dataclass
class ReleaseServer:
    """Serves ``files``; each of ``break_after`` ends one answer after that many bytes."""

    base_url: str
    files: dict[str, bytes] = field(default_factory=dict)
    break_after: list[int] = field(default_factory=list)
    ignores_range: bool = False
    status: int | None = None
    asked: list[tuple[str, str]] = field(default_factory=list)

    def publish(self, path: str, content: bytes, *, sha256: str | None = None) -> None:
        self.files[path] = content
        digest = sha256 or hashlib.sha256(content).hexdigest()
        self.files[f"{path}.sha256"] = f"{digest}\n".encode()

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        path = handler.path.removeprefix("/")
        wanted = handler.headers.get("Range", "")
        self.asked.append((path, wanted))
        content = self.files.get(path)
        if self.status is not None or content is None:
            handler.send_error(self.status or 404)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-") or 0) if not self.ignores_range else 0
        if start >= len(content) > 0:
            handler.send_error(416)
            return
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(content) - start))
        handler.end_headers()
        whole = not self.break_after or path.endswith(".sha256")
        handler.wfile.write(content[start:] if whole else content[start : start + self.break_after.pop(0)])


@pytest.fixture
def server() -> Iterator[ReleaseServer]:
    served = ReleaseServer("")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.base_url = f"http://127.0.0.1:{listening.server_port}"
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    listening.shutdown()
    thread.join()
    listening.server_close()


def pins_at(base_url: str) -> Pins:
    """The shipped pins with every address moved to ``base_url``."""
    pins = load_pins()
    suppliers = {
        name: msgspec.structs.replace(
            supplier,
            download=msgspec.structs.replace(
                supplier.download, base_url=base_url, checksum_base_url=base_url
            ),
        )
        for name, supplier in pins.suppliers.items()
    }
    return msgspec.structs.replace(pins, suppliers=suppliers)


NOBODY_LISTENS = "http://127.0.0.1:9"

FAKE_GO = """\
#!{python}
import json, os, pathlib, sys, time
home = pathlib.Path({home!r})
plan = json.loads((home / "plan.json").read_text())
with (home / "calls").open("a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
assert os.environ["CGO_ENABLED"] == "0" and os.environ["GOWORK"] == "off", "not deterministic"
match sys.argv[1:]:
    case ["env", "-json", *names]:
        caches = {{"GOCACHE": str(home / "cache"), "GOMODCACHE": str(home / "mod")}}
        known = {{"GOVERSION": plan["version"], "GOTOOLCHAIN": plan["toolchain"], **caches}}
        print(json.dumps({{name: known[name] for name in names}}))
    case ["mod", "download", "-json", what]:
        path, version = what.split("@")
        if plan["module_error"]:
            print(json.dumps({{"Path": path, "Error": plan["module_error"]}}))
            sys.exit(1)
        (home / "go.mod").write_text(f"module {{path}}\\n\\ngo {{plan['needs']}}\\n")
        print(json.dumps({{"Path": path, "Version": version, "GoMod": str(home / "go.mod")}}))
    case ["build", "-v", "-mod=mod", "-trimpath", "-buildvcs=false", "-ldflags", _, "-o", target, package]:
        for compiled in ("internal/abi", "runtime", package):
            print(compiled, file=sys.stderr, flush=True)
            time.sleep(plan["build_s"] / 3)
        if plan["build_error"]:
            print(plan["build_error"], file=sys.stderr)
            sys.exit(1)
        pathlib.Path(target).write_text("#!/bin/sh\\necho '" + plan["says"] + "'\\n")
    case other:
        sys.exit(f"the fake go knows no {{other}}")
"""


@dataclass
class FakeGo:
    home: Path

    def plan(
        self,
        *,
        version: str = "go1.26.8",
        toolchain: str = "local",
        needs: str = "1.26.0",
        module_error: str = "",
        build_error: str = "",
        says: str = "Kubernetes v1.35.0",
        build_s: float = 0.0,
    ) -> None:
        (self.home / "plan.json").write_text(
            json.dumps(
                {
                    "version": version,
                    "toolchain": toolchain,
                    "needs": needs,
                    "module_error": module_error,
                    "build_error": build_error,
                    "says": says,
                    "build_s": build_s,
                }
            )
        )

    def calls(self, verb: str) -> list[list[str]]:
        path = self.home / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [call for call in map(json.loads, lines) if call[0] == verb]


@pytest.fixture(autouse=True)
def clean_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No Go on PATH, no variables of kilonode or of a proxy, nothing known of any host, a small build."""
    for variable in list(os.environ):
        if (
            variable.startswith("KILONODE_")
            or variable.lower().endswith("_proxy")
            or variable == "GOTOOLCHAIN"
        ):
            monkeypatch.delenv(variable)
    without_go = tmp_path / "path"
    without_go.mkdir()
    (without_go / "sh").symlink_to(str(shutil.which("sh")))
    monkeypatch.setenv("PATH", str(without_go))
    monkeypatch.setattr(download_module, "THIS_PROCESS", download_module.Reachability())
    monkeypatch.setattr(gobuild, "FREE_BYTES_MIN", 1)
    monkeypatch.setattr(gobuild, "POLL_INTERVAL_S", 0.02)


@pytest.fixture
def fake_go(tmp_path: Path) -> FakeGo:
    program = tmp_path / "path" / "go"
    program.write_text(FAKE_GO.format(python=sys.executable, home=str(tmp_path)))
    program.chmod(0o755)
    fake = FakeGo(tmp_path)
    fake.plan()
    return fake


@pytest.fixture
def offline(tmp_path: Path) -> Binaries:
    return Binaries(pins=pins_at(NOBODY_LISTENS), root=tmp_path / "cache", arch="amd64")


@pytest.fixture
def online(server: ReleaseServer, tmp_path: Path) -> Binaries:
    return Binaries(pins=pins_at(server.base_url), root=tmp_path / "cache", arch="amd64")


def kinds(events: list[Event]) -> list[type[Event]]:
    """The types of ``events``, repetitions dropped."""
    found = [type(event) for event in events]
    return [kind for at, kind in enumerate(found) if at == 0 or found[at - 1] is not kind]


def test_a_download_with_the_right_checksum_is_installed(server: ReleaseServer, online: Binaries) -> None:
    server.publish(KUBE_PROXY, script("Kubernetes v1.35.0"))
    events: list[Event] = []
    binary = online.get("kube-proxy", "1.35.0", progress=events.append)
    assert binary.source == "download"
    assert binary.sha256 == hashlib.sha256(script("Kubernetes v1.35.0")).hexdigest()
    assert kinds(events) == [Queued, Downloading, Done]
    assert [event for event in events if isinstance(event, Downloading)][-1].bytes_done == len(
        script("Kubernetes v1.35.0")
    )
    server.files.clear()
    assert online.get("kube-proxy", "1.35.0") == binary
    assert not list((online.root / "staging").iterdir())


def test_a_download_with_another_checksum_is_refused_and_deleted(
    server: ReleaseServer, online: Binaries, fake_go: FakeGo
) -> None:
    server.publish(KUBE_PROXY, script("Kubernetes v1.35.0"), sha256="a" * 64)
    events: list[Event] = []
    with pytest.raises(ChecksumError, match=f"expected {'a' * 64}, got [0-9a-f]{{64}}"):
        online.get("kube-proxy", "1.35.0", progress=events.append)
    assert kinds(events)[-1] is Failed
    assert not [path for path in online.root.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert fake_go.calls("build") == []


def test_a_download_that_breaks_off_is_resumed(server: ReleaseServer, online: Binaries) -> None:
    server.publish(KUBE_PROXY, script("Kubernetes v1.35.0"))
    server.break_after = [100_000, 50_000]
    assert online.get("kube-proxy", "1.35.0").source == "download"
    ranges = [wanted for path, wanted in server.asked if path == KUBE_PROXY]
    assert ranges == ["", "bytes=100000-", "bytes=150000-"]


def test_a_download_is_resumed_by_the_next_run(server: ReleaseServer, online: Binaries) -> None:
    server.publish(KUBE_PROXY, script("Kubernetes v1.35.0"))
    server.break_after = [1000] * download_module.ATTEMPTS_MAX
    with pytest.raises(NoSourceError, match="broke off"):
        online.get("kube-proxy", "1.35.0")
    online.get("kube-proxy", "1.35.0")
    assert server.asked[-1] == (KUBE_PROXY, f"bytes={1000 * download_module.ATTEMPTS_MAX}-")


def test_a_server_that_ignores_ranges_starts_over(server: ReleaseServer, online: Binaries) -> None:
    server.publish(KUBE_PROXY, script("Kubernetes v1.35.0"))
    server.break_after = [1000]
    server.ignores_range = True
    assert online.get("kube-proxy", "1.35.0").source == "download"


@pytest.mark.parametrize("kept", [b"something else", b"#" * 1_000_000], ids=["shorter", "longer"])
def test_what_was_kept_of_another_file_is_dropped(
    server: ReleaseServer, online: Binaries, kept: bytes
) -> None:
    server.publish(KUBE_PROXY, script("Kubernetes v1.35.0"))
    staging = online.root / "staging" / "kube-proxy-1.35.0-linux-amd64"
    staging.mkdir(parents=True)
    (staging / "kube-proxy.part").write_bytes(kept)
    assert online.get("kube-proxy", "1.35.0").source == "download"


def test_status_404_is_an_unknown_version(online: Binaries, fake_go: FakeGo) -> None:
    with pytest.raises(UnknownVersionError, match=r"no release kube-proxy 1\.99\.0"):
        online.get("kube-proxy", "1.99.0")
    assert fake_go.calls("build") == []


def test_another_status_falls_back_to_go(server: ReleaseServer, online: Binaries, fake_go: FakeGo) -> None:
    server.status = 503
    events: list[Event] = []
    assert online.get("kube-proxy", "1.35.0", progress=events.append).source == "go-build"
    assert "503" in next(event.reason for event in events if isinstance(event, FellBack))


def test_a_release_without_checksum_is_not_downloaded(
    server: ReleaseServer, online: Binaries, fake_go: FakeGo
) -> None:
    server.publish(KUBE_PROXY, script("Kubernetes v1.35.0"))
    server.files[f"{KUBE_PROXY}.sha256"] = b"<html>please log in</html>"
    assert online.get("kube-proxy", "1.35.0").source == "go-build"
    assert (KUBE_PROXY, "") not in server.asked


def test_etcd_comes_out_of_its_archive(server: ReleaseServer, online: Binaries) -> None:
    content = script("etcd Version: 3.7.0")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        member = tarfile.TarInfo("etcd-v3.7.0-linux-amd64/etcd")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    name = "etcd-v3.7.0-linux-amd64.tar.gz"
    server.publish(f"v3.7.0/{name}", archive.getvalue())
    digest = hashlib.sha256(archive.getvalue()).hexdigest()
    server.files["v3.7.0/SHA256SUMS"] = f"{'b' * 64}  other.tar.gz\n{digest}  {name}\n".encode()
    binary = online.get("etcd")
    assert binary.path.read_bytes() == content
    assert binary.sha256 == hashlib.sha256(content).hexdigest()


def test_kwok_is_checked_by_the_digest_of_its_release_asset(server: ReleaseServer, online: Binaries) -> None:
    content = script("kwok version v0.8.0 go1.26.1 (linux/amd64)")
    server.files["v0.8.0/kwok-linux-amd64"] = content
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    assets = [{"name": "kwokctl-linux-amd64", "digest": None}, {"name": "kwok-linux-amd64", "digest": digest}]
    server.files["tags/v0.8.0"] = json.dumps({"tag_name": "v0.8.0", "assets": assets}).encode()
    assert online.get("kwok").source == "download"


def test_a_download_that_reports_another_version_is_not_installed(
    server: ReleaseServer, online: Binaries
) -> None:
    server.publish(KUBE_PROXY, script("Kubernetes v1.35.01"))
    with pytest.raises(WrongVersionError, match=r"v1\.35\.01"):
        online.get("kube-proxy", "1.35.0")
    assert online.find("kube-proxy", "1.35.0") is None


def test_a_host_out_of_reach_falls_back_to_go_and_is_remembered(offline: Binaries, fake_go: FakeGo) -> None:
    events: list[Event] = []
    binary = offline.get("kube-proxy", "1.35.0", progress=events.append)
    assert binary.source == "go-build"
    assert kinds(events)[:3] == [Queued, FellBack, Building]
    assert kinds(events)[-1] is Done
    assert "127.0.0.1:9 is out of reach" in next(e.reason for e in events if isinstance(e, FellBack))
    with pytest.raises(download_module.UnavailableError, match="out of reach"):
        download_module.THIS_PROCESS.require("127.0.0.1:9")


def test_a_build_sets_the_version_by_the_linker(offline: Binaries, fake_go: FakeGo) -> None:
    offline.get("kube-proxy", "1.35.0")
    (call,) = fake_go.calls("build")
    variable = "k8s.io/component-base/version.git"
    assert call[call.index("-ldflags") + 1] == (
        f"-s -w -X {variable}Version=v1.35.0 -X {variable}Major=1 -X {variable}Minor=35"
    )
    assert call[-1] == "k8s.io/kubernetes/cmd/kube-proxy"


def test_neither_go_nor_internet_names_both(offline: Binaries) -> None:
    with pytest.raises(NoSourceError) as caught:
        offline.get("kube-proxy", "1.35.0")
    assert "127.0.0.1:9 is out of reach" in caught.value.what
    assert "no Go on PATH" in caught.value.what
    assert "provide one of the two: internet access, or Go" in caught.value.remedy
    assert "KILONODE_KUBE_PROXY_1_35_0" in caught.value.remedy


def test_go_without_internet_says_so(offline: Binaries, fake_go: FakeGo) -> None:
    fake_go.plan(module_error="dial tcp: lookup proxy.invalid: no such host")
    with pytest.raises(NoSourceError, match=r"Go is here \(go1\.26\.8\).*out of reach.*GOPROXY"):
        offline.get("kube-proxy", "1.35.0")


def test_a_version_that_the_module_proxy_lacks_is_unknown(offline: Binaries, fake_go: FakeGo) -> None:
    fake_go.plan(module_error="reading k8s.io/kubernetes/@v/v1.99.0.info: 404 Not Found")
    with pytest.raises(UnknownVersionError, match=r"k8s\.io/kubernetes@v1\.99\.0"):
        offline.get("kube-proxy", "1.99.0")


@pytest.mark.parametrize(
    "plan",
    [
        {"version": "go1.25.3"},
        {"version": "go1.20.1", "module_error": "invalid go version '1.26.0'"},
        {
            "version": "go1.25.3",
            "module_error": "k8s.io/kubernetes@v1.35.0 requires go >= 1.26.0 (running 1.25)",
        },
    ],
)
def test_a_go_that_is_too_old_is_refused_before_building(
    offline: Binaries, fake_go: FakeGo, plan: dict[str, str]
) -> None:
    fake_go.plan(version=plan["version"], module_error=plan.get("module_error", ""))
    with pytest.raises(GoTooOldError, match=r"Go too old: has 1\.2[05]\.\d, needs 1\.2"):
        offline.get("kube-proxy", "1.35.0")
    assert fake_go.calls("build") == []


def test_an_old_go_may_fetch_a_newer_one_where_the_user_lets_it(
    offline: Binaries, fake_go: FakeGo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOTOOLCHAIN", "auto")
    fake_go.plan(version="go1.25.3", toolchain="auto")
    assert offline.get("kube-proxy", "1.35.0").source == "go-build"


def test_a_failed_build_shows_the_end_of_its_output(offline: Binaries, fake_go: FakeGo) -> None:
    fake_go.plan(build_error="pkg/proxy/proxier.go:1:1: undefined: nft")
    with pytest.raises(BuildError, match="undefined: nft"):
        offline.get("kube-proxy", "1.35.0")


def test_a_disk_that_fills_during_a_build_is_named(offline: Binaries, fake_go: FakeGo) -> None:
    fake_go.plan(build_error="link: writing output: no space left on device")
    with pytest.raises(DiskFullError, match="GiB"):
        offline.get("kube-proxy", "1.35.0")


def test_a_build_needs_free_space_first(
    offline: Binaries, fake_go: FakeGo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gobuild, "FREE_BYTES_MIN", 1 << 60)
    with pytest.raises(DiskFullError, match="MiB are needed"):
        offline.get("kube-proxy", "1.35.0")
    assert fake_go.calls("build") == []


def test_a_damaged_binary_is_fetched_again(offline: Binaries, fake_go: FakeGo) -> None:
    binary = offline.get("kube-proxy", "1.35.0")
    binary.path.write_text("#!/bin/sh\necho 'Kubernetes v1.35.0' # but not that file\n")
    assert offline.get("kube-proxy", "1.35.0").sha256 == binary.sha256
    assert len(fake_go.calls("build")) == 2


def test_what_could_be_fetched_stays_when_the_next_fails(offline: Binaries, fake_go: FakeGo) -> None:
    with pytest.raises(WrongVersionError):
        offline.ensure_all([Request("kube-proxy", "1.35.0"), Request("kube-proxy", "1.36.1")])
    assert offline.find("kube-proxy", "1.35.0") is not None
    assert [binary.version for binary in offline.installed()] == ["1.35.0"]


def test_a_failure_stops_the_other_downloads_and_keeps_what_they_have(
    server: ReleaseServer, online: Binaries
) -> None:
    content = script("Kubernetes v1.35.0") + bytes(30 * 1024**2)
    server.publish(KUBE_PROXY, content)
    events: list[Event] = []

    def slowly(event: Event) -> None:
        events.append(event)
        if isinstance(event, Downloading):
            time.sleep(0.02)

    with pytest.raises(UnknownVersionError):
        online.ensure_all([Request("kube-proxy", "1.99.0"), Request("kube-proxy", "1.35.0")], progress=slowly)
    assert {type(event) for event in events if event.request.version == "1.35.0"} >= {Queued, Failed}
    parts = list(online.root.rglob("*.part"))
    assert sum(part.stat().st_size for part in parts) < len(content)
    assert online.get("kube-proxy", "1.35.0").source == "download"


def test_ctrl_c_ends_a_build(
    offline: Binaries, fake_go: FakeGo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_go.plan(build_s=60.0)

    def press(event: Event) -> None:
        if isinstance(event, Building) and event.packages:
            raise KeyboardInterrupt

    start_s = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        offline.get("kube-proxy", "1.35.0", progress=press)
    assert time.monotonic() - start_s < 20
    fake_go.plan()
    assert offline.get("kube-proxy", "1.35.0").source == "go-build"


def test_the_answer_keeps_the_order_and_the_repetitions_of_the_requests(
    offline: Binaries, fake_go: FakeGo
) -> None:
    fake_go.plan(says="Kubernetes v1.35.0 or Kubernetes v1.36.1")
    old, new = Request("kube-proxy", "1.35.0"), Request("kube-proxy", "1.36.1")
    answer = offline.ensure_all([new, old, new])
    assert [binary.version for binary in answer] == ["1.36.1", "1.35.0", "1.36.1"]
    assert len(fake_go.calls("build")) == 2


TWO_PROCESSES = """
import pathlib, sys
sys.path.insert(0, {tests!r})
import test_binaries_fetch as fetch
from framework.binaries import Binaries, gobuild
gobuild.FREE_BYTES_MIN = 1
binaries = Binaries(pins=fetch.pins_at(fetch.NOBODY_LISTENS), root=pathlib.Path({root!r}), arch="amd64")
print(binaries.get("kube-proxy", "1.35.0", progress=lambda event: print(type(event).__name__)).sha256)
"""


def test_two_processes_that_ask_for_the_same_get_one_build(offline: Binaries, fake_go: FakeGo) -> None:
    fake_go.plan(build_s=3.0)
    code = TWO_PROCESSES.format(tests=str(Path(__file__).parent), root=str(offline.root))
    running = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    outputs = [process.communicate(timeout=60)[0].split() for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert outputs[0][-1] == outputs[1][-1]
    assert len(fake_go.calls("build")) == 1
    assert any("Waiting" in output for output in outputs)


def make_executable(path: Path, says: str) -> Path:
    path.write_bytes(script(says))
    path.chmod(0o755)
    return path


def test_an_explicit_path_comes_before_everything(
    offline: Binaries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = make_executable(tmp_path / "mine", "Kubernetes v1.35.0")
    other = make_executable(tmp_path / "other", "Kubernetes v1.36.1")
    monkeypatch.setenv("KILONODE_KUBE_PROXY_1_35_0", str(chosen))
    monkeypatch.setenv("KILONODE_KUBE_PROXY", str(other))
    binary = offline.get("kube-proxy", "1.35.0")
    assert (binary.path, binary.source) == (chosen, "explicit path")
    assert offline.get("kube-proxy", "1.36.1").path == other
    assert binary.component().source == "explicit path"


def test_an_explicit_path_of_another_version_is_refused(
    offline: Binaries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KILONODE_KUBE_PROXY", str(make_executable(tmp_path / "mine", "Kubernetes v1.35.1")))
    with pytest.raises(ExplicitPathError, match=re.escape("is not kube-proxy 1.35.0; it says")):
        offline.get("kube-proxy", "1.35.0")


def test_an_explicit_path_that_is_missing_is_refused(
    offline: Binaries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KILONODE_ETCD", str(tmp_path / "nowhere"))
    with pytest.raises(ExplicitPathError, match=r"is no file.*KILONODE_ETCD"):
        offline.get("etcd")


def test_an_explicit_path_that_can_not_run_is_refused(
    offline: Binaries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = make_executable(tmp_path / "mine", "etcd Version: 3.7.0")
    chosen.chmod(stat.S_IRUSR)
    monkeypatch.setenv("KILONODE_ETCD", str(chosen))
    with pytest.raises(ExplicitPathError, match="is not executable"):
        offline.get("etcd")
    chosen.write_bytes(b"no program at all")
    chosen.chmod(0o755)
    with pytest.raises(ExplicitPathError, match="is not etcd"):
        offline.get("etcd")


def test_nothing_is_fetched_by_looking(offline: Binaries, fake_go: FakeGo) -> None:
    assert offline.find("kube-proxy", "1.35.0") is None
    assert offline.installed() == ()
    assert not offline.root.exists()
    assert fake_go.calls("env") == []


def test_a_warm_start_is_instant(offline: Binaries, fake_go: FakeGo) -> None:
    fake_go.plan(says=" ".join(f"Kubernetes v1.{minor}.0" for minor in range(30, 38)))
    requests = [Request("kube-proxy", f"1.{minor}.0") for minor in range(30, 38)]
    offline.ensure_all(requests)
    start_s = time.perf_counter()
    offline.ensure_all(requests)
    assert time.perf_counter() - start_s < 0.25


def test_the_control_plane_is_checked_against_a_kube_proxy(offline: Binaries) -> None:
    assert offline.control_plane_version() == load_pins().request("kube-apiserver").version
    for kube_proxy in offline.pinned_kube_proxies():
        offline.check_skew(kube_proxy)
    with pytest.raises(BadInputError, match="newer"):
        offline.check_skew("1.99.0")


def test_a_system_program_without_package_reports_its_own_version(
    offline: Binaries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_executable(tmp_path / "path" / "nft", "nftables v1.0.9 (Old Doc Yak #3)")
    binary = offline.system("nft")
    assert (binary.version, binary.source) == ("1.0.9", "system package")
    monkeypatch.setenv("KILONODE_NFT", str(make_executable(tmp_path / "mine", "nftables v1.1.0")))
    assert (offline.system("nft").version, offline.system("nft").source) == ("1.1.0", "explicit path")


def test_a_system_program_is_named_by_its_package(offline: Binaries, tmp_path: Path) -> None:
    nft = make_executable(tmp_path / "path" / "nft", "nftables v1.0.6 (Lester Gooch #5)")
    make_executable(tmp_path / "path" / "dpkg-query", "").write_text(
        f"#!/bin/sh\nif [ \"$1\" = --search ]; then echo 'nftables: {nft}'; "
        "elif [ \"$*\" = '--show --showformat=${Version} nftables' ]; then printf 1.0.6-2+deb12u2; "
        "else exit 97; fi\n"
    )
    assert offline.system("nft").version == "1.0.6-2+deb12u2"


def test_a_system_program_that_is_not_installed_is_named(
    offline: Binaries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("framework.binaries.system.SYSTEM_FOLDERS", ())
    with pytest.raises(MissingRequirementError, match="runc"):
        offline.system("runc")


def test_a_program_outside_the_pins_is_no_system_program(offline: Binaries) -> None:
    with pytest.raises(KilonodeError, match="containerd-shim-runc-v2"):
        offline.system("iptables")

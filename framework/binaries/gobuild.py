"""Executables from the Go module proxy, for machines that reach it but no release server.

``go mod download`` gives upstream's go.mod, ``gomod.derive`` the go.mod of a small module of our own, and
``go build`` the executable. Go's module and build caches make a build that broke off resume where it was. The
user's GOPROXY, GOFLAGS and GOTOOLCHAIN hold; what would change the result (cgo, a workspace, another target)
is fixed. Where the user leaves GOTOOLCHAIN at Go's default, the Go on PATH builds, and is not replaced by one
that is downloaded: a result names its toolchain, so nobody but the user chooses it.

One build runs at a time on a machine, for ``go build`` uses all CPUs by itself.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from framework.binaries import gomod
from framework.binaries.errors import (
    BuildError,
    DiskFullError,
    GoTooOldError,
    NoSourceError,
    UnknownVersionError,
)
from framework.binaries.model import Request
from framework.binaries.pins import OS, GoPin, fill
from framework.binaries.store import CACHE_VARIABLE, require_free_space
from framework.errors import KilonodeError
from framework.process import Daemon, run
from framework.units import GIB
from framework.wait import wait_until

PROXY_TIMEOUT_S: Final = 20.0
MODULE_TIMEOUT_S: Final = 900.0
BUILD_TIMEOUT_S: Final = 3600.0
POLL_INTERVAL_S: Final = 0.5
FREE_BYTES_MIN: Final = 4 * GIB
"""Modules, build cache and the linker's temporary files of one Kubernetes release together."""
GO_OLDEST: Final = "1.21"
"""The first Go that reads ``godebug`` and three-part ``go`` lines, or refuses them in clear words."""
LOG_TAIL_LINES: Final = 12
_REQUIRES_GO: Final = re.compile(r"requires go >= (\d[\w.]*)")
_NETWORK_FAILURE: Final = re.compile(
    r"dial tcp|no such host|connection re(?:fused|set)|network is unreachable|i/o timeout|TLS handshake|"
    r"proxyconnect|unexpected EOF|server misbehaving|disabled by GOPROXY=off|50\d [A-Z]"
)
_DISK_FULL: Final = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)

OnBuild = Callable[[int, str, float], None]
"""Called with the packages compiled so far, Go's last line, and the seconds since the build began."""


class _Module(msgspec.Struct, rename={"go_mod": "GoMod", "folder": "Dir", "error": "Error"}):
    go_mod: str = ""
    folder: str = ""
    error: str = ""


class _GoEnv(msgspec.Struct):
    GOVERSION: str = ""
    GOTOOLCHAIN: str = ""
    GOCACHE: str = ""
    GOMODCACHE: str = ""


@dataclass(frozen=True)
class Go:
    """The Go on PATH. ``env`` is what a build adds to the user's environment."""

    path: str
    version: str
    stays: bool
    caches: tuple[Path, ...]
    env: dict[str, str]

    @classmethod
    def find(cls, arch: str) -> Go | None:
        """None when there is no ``go`` on PATH. Raises KilonodeError when it does not run."""
        path = shutil.which("go")
        if path is None:
            return None
        env = {"CGO_ENABLED": "0", "GOOS": OS, "GOARCH": arch, "GOWORK": "off", "GO111MODULE": "on"}
        asked = run(
            [path, "env", "-json", *_GoEnv.__struct_fields__], env=env, cwd=Path("/"), remedy="reinstall Go"
        )
        found = msgspec.json.decode(asked.stdout, type=_GoEnv)
        if found.GOTOOLCHAIN in ("", "auto") and "GOTOOLCHAIN" not in os.environ:
            env["GOTOOLCHAIN"] = "local"
        stays = env.get("GOTOOLCHAIN", found.GOTOOLCHAIN) == "local"
        caches = tuple(Path(folder) for folder in (found.GOCACHE, found.GOMODCACHE) if folder)
        return cls(path, found.GOVERSION, stays, caches, env)

    def require(self, needed: str, *, what: str) -> None:
        """Raises GoTooOldError when ``needed`` is newer and Go may not fetch a newer one by itself."""
        floor = max(needed, GO_OLDEST, key=gomod.go_version) if self.stays else GO_OLDEST
        if gomod.go_version(self.version) < gomod.go_version(floor):
            raise _go_too_old(self, floor, what)

    def reach(self, pin: GoPin, request: Request) -> None:
        """Raises KilonodeError where the Go module proxy does not tell of ``request``; downloads nothing."""
        what = f"{pin.module}@v{request.version}"
        said = run(
            [self.path, "list", "-m", what],
            timeout_s=PROXY_TIMEOUT_S,
            env=self.env,
            cwd=Path("/"),
            check=False,
            remedy="see whether the Go module proxy (go env GOPROXY) answers",
        )
        if said.exit_code != 0:
            words = " ".join(said.stderr.decode(errors="replace").split())
            raise NoSourceError(
                f"the Go module proxy is out of reach: {words}",
                where=what,
                remedy="give this machine access to a Go module proxy (GOPROXY) or to the internet",
            )

    def upstream(self, module: str, version: str, *, cwd: Path) -> gomod.GoMod:
        """The go.mod of ``module`` at ``version`` (with Go's ``v``); its source is then in Go's cache too.

        Raises UnknownVersionError, NoSourceError, GoTooOldError, DiskFullError or BuildError.
        """
        return gomod.parse(Path(self._downloaded(module, version, cwd).go_mod).read_text())

    def source(self, module: str, version: str, *, cwd: Path) -> Path:
        """The folder in Go's cache with the source of ``module`` at ``version``; raises as ``upstream``."""
        return Path(self._downloaded(module, version, cwd).folder)

    def _downloaded(self, module: str, version: str, cwd: Path) -> _Module:
        what = f"{module}@{version}"
        done = run(
            [self.path, "mod", "download", "-json", what],
            timeout_s=MODULE_TIMEOUT_S,
            env=self.env,
            cwd=cwd,
            check=False,
            remedy="see whether the Go module proxy (go env GOPROXY) answers",
        )
        if done.exit_code == 0:
            return msgspec.json.decode(done.stdout, type=_Module)
        try:
            said = msgspec.json.decode(done.stdout, type=_Module).error
        except msgspec.DecodeError:
            said = ""
        said = " ".join((said or done.stderr.decode(errors="replace")).split())
        raise explained(self, said, what=what) or UnknownVersionError(
            f"the Go module proxy has no {what}: {said}",
            where=module,
            remedy="ask for a version that was released, or see which GOPROXY is set",
        )


def build(
    go: Go, pin: GoPin, request: Request, *, arch: str, work_dir: Path, target: Path, on_build: OnBuild
) -> str:
    """Build ``request`` into ``target``; gives the ``module@version`` that was built.

    ``work_dir`` belongs to the module and version; the caller sees to it that one build runs at a time.
    Raises UnknownVersionError, NoSourceError, GoTooOldError, DiskFullError or BuildError.
    """
    for folder in (work_dir, *go.caches):
        require_free_space(folder, FREE_BYTES_MIN)
    go.require(GO_OLDEST, what=str(request))
    version = f"v{request.version}"
    upstream = go.upstream(pin.module, version, cwd=work_dir.parent)
    go.require(upstream.go, what=f"{pin.module}@{version}")
    sibling = None if pin.sibling_version is None else fill(pin.sibling_version, request, arch)
    (work_dir / "go.mod").write_text(gomod.derive(upstream, version=version, sibling_version=sibling))
    _compile(
        go,
        [
            "build",
            "-v",
            "-mod=mod",
            "-trimpath",
            "-buildvcs=false",
            "-ldflags",
            linker_flags(pin, request, arch),
            "-o",
            str(target),
            fill(pin.package, request, arch),
        ],
        request,
        work_dir,
        on_build,
    )
    return f"{pin.module}@{version}"


def linker_flags(pin: GoPin, request: Request, arch: str) -> str:
    """No symbol table and no DWARF, as in official releases, and the version that the executable reports."""
    variables = [f"-X {name}={fill(value, request, arch)}" for name, value in pin.variables.items()]
    return " ".join(["-s", "-w", *variables])


def _compile(go: Go, arguments: list[str], request: Request, work_dir: Path, on_build: OnBuild) -> None:
    log_path = work_dir / f"{request.name}.log"
    log_path.unlink(missing_ok=True)
    scratch = work_dir / "tmp"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    start_s = time.monotonic()
    daemon = Daemon.start(
        f"go build of {request}",
        [go.path, *arguments],
        log_path=log_path,
        env={**go.env, "GOTMPDIR": str(scratch)},
        cwd=work_dir,
    )

    def ended() -> int | None:
        exit_code = daemon.exit_code
        packages, last_line = build_progress(log_path.read_text(errors="replace"))
        on_build(packages, last_line, time.monotonic() - start_s)
        return exit_code

    try:
        exit_code = wait_until(
            ended,
            what=f"the build of {request}",
            timeout_s=BUILD_TIMEOUT_S,
            interval_s=POLL_INTERVAL_S,
            describe=lambda: build_progress(log_path.read_text(errors="replace"))[1] or "no output",
            remedy=f"try again, Go resumes where it was; its output is in {log_path}",
        )
    finally:
        daemon.stop()
        shutil.rmtree(scratch, ignore_errors=True)
    if exit_code != 0:
        said = "\n".join(log_path.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
        raise explained(go, said, what=str(request)) or BuildError(
            f"go build of {request} failed:\n{said}",
            where=str(log_path),
            remedy="read its output; a build that broke off resumes when tried again",
        )


def build_progress(log_text: str) -> tuple[int, str]:
    """Packages compiled so far and the last line, from the output of ``go build -v``."""
    lines = log_text.splitlines()
    packages = sum(1 for line in lines if line and not line.startswith(("go: ", "#", "\t")))
    return packages, lines[-1] if lines else ""


def explained(go: Go, said: str, *, what: str) -> KilonodeError | None:
    """The error for what Go said, None where it is none of the known ones."""
    needed = _REQUIRES_GO.search(said)
    if needed is not None:
        return _go_too_old(go, needed.group(1), what)
    if _DISK_FULL.search(said):
        return DiskFullError(
            f"no space is left for building {what}",
            where=", ".join(map(str, go.caches)),
            remedy=f"free at least {FREE_BYTES_MIN / GIB:.0f} GiB there and in {CACHE_VARIABLE}; "
            "the build resumes",
        )
    if _NETWORK_FAILURE.search(said):
        return NoSourceError(
            f"Go is here ({go.version}), but the Go module proxy is out of reach: {said}",
            where=what,
            remedy="give this machine access to a Go module proxy (GOPROXY) or to the internet",
        )
    return None


def _go_too_old(go: Go, needed: str, what: str) -> GoTooOldError:
    return GoTooOldError(
        f"Go too old: has {go.version.removeprefix('go')}, needs {needed}",
        where=what,
        remedy=f"install Go {needed} or newer, or let Go fetch it itself (GOTOOLCHAIN=auto)",
    )

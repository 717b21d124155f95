"""Where a binary comes from: explicit path, cache, official download, Go build; in this order.

An explicit path is an environment variable, ``KILONODE_KUBE_PROXY_1_35_0`` for one version or
``KILONODE_KUBE_APISERVER`` for any; a file that does not report the version asked for is refused, never
replaced silently.

Missing downloads run side by side, then what could not be downloaded is built one after the other. Every
fetch holds the lock of its binary and looks into the cache again once it has it, so of two processes that ask
for the same binary one fetches and the other waits.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from framework.binaries import gobuild, system
from framework.binaries.download import Downloader, UnavailableError
from framework.binaries.errors import (
    ExplicitPathError,
    NoSourceError,
    UnknownVersionError,
    WrongVersionError,
)
from framework.binaries.events import (
    Building,
    Done,
    Downloading,
    Event,
    Failed,
    FellBack,
    Progress,
    Queued,
    Waiting,
    silent,
)
from framework.binaries.identity import says, sha256_of, toolchain_of, version_output
from framework.binaries.model import Binary, Request
from framework.binaries.pins import OS, Pins, architecture, check_skew, fill, load_pins
from framework.binaries.store import Store, default_root
from framework.errors import BadInputError, KilonodeError
from framework.spec import version_order

DOWNLOADS_AT_ONCE: Final = 4
GO_BUILD_LOCK: Final = "go-build"


def variables_of(request: Request) -> tuple[str, str]:
    """The environment variables that give its path: the one for its version, then the one for any."""
    name = f"KILONODE_{request.name}".upper().replace("-", "_")
    return f"{name}_{request.version.replace('.', '_')}", name


@dataclass
class Binaries:
    """Every executable by exact version. Thread-safe, and safe beside other processes."""

    pins: Pins = field(default_factory=load_pins)
    root: Path = field(default_factory=default_root)
    arch: str = field(default_factory=architecture)
    _explicit: dict[tuple[Request, Path], Binary] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._store = Store(self.root, f"{OS}-{self.arch}")
        self._downloader = Downloader(self.arch)

    def request(self, name: str, version: str | None = None) -> Request:
        """``name`` at ``version``, or at its pin; BadInputError where that names no exact version."""
        return self.pins.request(name, version)

    def defaults(self) -> tuple[Request, ...]:
        """What a run needs unless it asks for other versions."""
        return self.pins.defaults()

    def control_plane_version(self) -> str:
        """The pinned kube-apiserver, such as ``1.37.2``."""
        return self.request("kube-apiserver").version

    def pinned_kube_proxies(self) -> tuple[str, ...]:
        """Exact versions, oldest first."""
        versions = self.pins.pin("kube-proxy").versions
        return tuple(sorted(versions, key=version_order))

    def default_kube_proxies(self) -> tuple[str, ...]:
        """The exact versions that are measured unless others are asked for."""
        return self.pins.pin("kube-proxy").default_versions

    def check_skew(self, kube_proxy: str) -> None:
        """Raises SkewError when ``kube_proxy`` does not go with the control plane."""
        check_skew(kube_apiserver=self.control_plane_version(), kube_proxy=kube_proxy)

    def find(self, name: str, version: str | None = None) -> Binary | None:
        """The binary if it is here already (explicit path or cache); fetches nothing."""
        request = self.request(name, version)
        return self._from_variable(request) or self._store.find(request)

    def get(self, name: str, version: str | None = None, *, progress: Progress = silent) -> Binary:
        """The binary, fetched if need be; see ``ensure_all``."""
        return self.ensure_all([self.request(name, version)], progress=progress)[0]

    def installed(self) -> tuple[Binary, ...]:
        """Everything in the cache, as it was recorded; fetches nothing."""
        return self._store.installed()

    def system(self, name: str) -> Binary:
        """A program of the distribution, such as ``nft``; ``KILONODE_NFT`` overrides PATH.

        Raises BadInputError for a name outside the pins, MissingRequirementError when it is not installed.
        """
        if name not in self.pins.system:
            raise BadInputError(
                f"{name!r} is no known system program",
                where="pins.yaml",
                remedy=f"use one of {', '.join(self.pins.system)}",
            )
        variable = f"KILONODE_{name}".upper().replace("-", "_")
        chosen = os.environ.get(variable)
        return system.locate(name, _usable(Path(chosen), variable) if chosen else None)

    def ensure_all(self, requests: Sequence[Request], *, progress: Progress = silent) -> tuple[Binary, ...]:
        """The binaries in the order of ``requests``, each fetched if it is not here.

        The first failure ends it, after ``Failed`` was sent; what was fetched before stays in the cache.
        Raises UnknownVersionError, ExplicitPathError, NoSourceError, GoTooOldError, DiskFullError,
        ChecksumError, WrongVersionError, BuildError or TimeLimitError.
        """
        here = {request: self.find(request.name, request.version) for request in requests}
        stop = threading.Event()
        fetches = [
            _Fetch(self, request, progress, stop) for request, binary in here.items() if binary is None
        ]
        for fetch in fetches:
            progress(Queued(fetch.request))
        for fetch, downloaded in zip(fetches, _download_all(fetches, stop), strict=True):
            here[fetch.request] = downloaded or fetch.build()
        return tuple(binary for request in requests if (binary := here[request]) is not None)

    def refusals(self, request: Request) -> tuple[str, str]:
        """Why ``request`` can't be downloaded, and why it can't be built; empty where it can.

        Whoever publishes it is asked, and nothing is downloaded.
        """
        supplier = self.pins.supplier_of(request.name)
        downloaded = built = ""
        try:
            self._downloader.reach(supplier.download, request)
        except (UnavailableError, UnknownVersionError) as error:
            downloaded = str(error)
        go = gobuild.Go.find(self.arch)
        try:
            if go is not None:
                go.reach(supplier.go, request)
        except KilonodeError as error:
            built = error.what
        return downloaded, built if go is not None else "there is no go on PATH"

    def _from_variable(self, request: Request) -> Binary | None:
        for variable in variables_of(request):
            chosen = os.environ.get(variable)
            if chosen:
                path = _usable(Path(chosen), variable)
                known = self._explicit.get((request, path))
                if known is None:
                    known = self._explicit[request, path] = self._explicit_binary(request, path, variable)
                return known
        return None

    def _explicit_binary(self, request: Request, path: Path, variable: str) -> Binary:
        output = version_output(path, self.pins.version_arguments(request.name))
        if not self._reports(request, output):
            raise ExplicitPathError(
                f"{path} is not {request}; it says {output.strip()[:200]!r}",
                where=variable,
                remedy=f"give the path of {request}, use {variables_of(request)[0]} for this version only, "
                f"or unset {variable}",
            )
        return Binary(
            request.name, request.version, path, "explicit path", toolchain_of(path), sha256_of(path)
        )

    def _reports(self, request: Request, output: str) -> bool:
        expected = self.pins.supplier_of(request.name).version_output
        return says(output, fill(expected, request, self.arch))


def _download_all(fetches: Sequence[_Fetch], stop: threading.Event) -> list[Binary | None]:
    """A failure, Ctrl-C too, stops the downloads under way; what they have is kept for the next try."""
    if not fetches:
        return []
    with ThreadPoolExecutor(DOWNLOADS_AT_ONCE, thread_name_prefix="download") as pool:
        try:
            return list(pool.map(_Fetch.download, fetches))
        except BaseException:
            stop.set()
            raise


class _Fetch:
    """One missing binary on its way into the cache; ``stop`` ends it at its next step."""

    def __init__(
        self, binaries: Binaries, request: Request, progress: Progress, stop: threading.Event
    ) -> None:
        self.request = request
        self._binaries = binaries
        self._store = binaries._store
        self._supplier = binaries.pins.supplier_of(request.name)
        self._stop = stop
        self._listener = progress
        self._start_s = time.monotonic()
        self._no_download = ""

    def download(self) -> Binary | None:
        """None where a download is not possible and a build is next."""
        pin = self._supplier.download
        downloader = self._binaries._downloader
        url = downloader.url(pin, self.request)
        with self._reported(), self._held():
            cached = self._cached()
            if cached is not None:
                return cached
            try:
                staged = downloader.fetch(
                    pin,
                    self.request,
                    self._store.staging(self.request),
                    lambda done, total: self._progress(Downloading(self.request, url, done, total)),
                )
            except UnavailableError as error:
                self._no_download = str(error)
                self._progress(FellBack(self.request, self._no_download))
                return None
            return self._finish(staged, "download", url)

    def build(self) -> Binary:
        with self._reported():
            go = gobuild.Go.find(self._binaries.arch)
            if go is None:
                raise NoSourceError(
                    f"{self.request} is neither in the cache nor to be had: {self._no_download}, "
                    "and there is no Go on PATH to build it",
                    where=str(self.request),
                    remedy=f"provide one of the two: internet access, or Go with a module proxy (GOPROXY); "
                    f"or set {variables_of(self.request)[0]} to the path of a binary",
                )
            with self._held(), self._store.locked(GO_BUILD_LOCK, self._waiting("another build")):
                return self._cached() or self._build_with(go)

    def _build_with(self, go: gobuild.Go) -> Binary:
        target = self._store.staging(self.request) / self.request.name
        target.unlink(missing_ok=True)
        try:
            origin = gobuild.build(
                go,
                self._supplier.go,
                self.request,
                arch=self._binaries.arch,
                work_dir=self._store.build_dir(self._supplier.go.module, self.request.version),
                target=target,
                on_build=lambda packages, line, elapsed_s: self._progress(
                    Building(self.request, packages, line, elapsed_s)
                ),
            )
        except NoSourceError as error:
            raise NoSourceError(
                f"{error.what}; and {self._no_download}", where=error.where, remedy=error.remedy
            ) from error
        return self._finish(target, "go-build", origin)

    def _finish(self, staged: Path, source: Literal["download", "go-build"], url: str) -> Binary:
        staged.chmod(0o755)
        output = version_output(staged, self._binaries.pins.version_arguments(self.request.name))
        if not self._binaries._reports(self.request, output):
            staged.unlink()
            raise WrongVersionError(
                f"the fresh {self.request} says {output.strip()[:200]!r} instead of its version",
                where=url,
                remedy="see that this machine can run it; else report it to kilonode",
            )
        binary = self._store.install(staged, self.request, source=source, sha256=sha256_of(staged), url=url)
        with contextlib.suppress(OSError):
            self._store.staging(self.request).rmdir()
        self._progress(Done(self.request, binary, time.monotonic() - self._start_s))
        return binary

    def _cached(self) -> Binary | None:
        self._store.discard_damaged(self.request)
        found = self._store.find(self.request)
        if found is not None:
            self._progress(Done(self.request, found, time.monotonic() - self._start_s))
        return found

    def _held(self) -> contextlib.AbstractContextManager[None]:
        name = f"{self.request.name}-{self.request.version}-{self._store.platform}"
        return self._store.locked(name, self._waiting("another process that fetches it"))

    def _progress(self, event: Event) -> None:
        if self._stop.is_set():
            raise CancelledError(f"fetching {self.request} was stopped")
        self._listener(event)

    def _waiting(self, reason: str) -> Callable[[], None]:
        return lambda: self._progress(Waiting(self.request, reason))

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self._listener(Failed(self.request, error))
            raise


def _usable(path: Path, variable: str) -> Path:
    """Raises ExplicitPathError unless ``path`` is an executable file."""
    problem = ""
    if not path.is_file():
        problem = "is no file"
    elif not os.access(path, os.X_OK):
        problem = "is not executable"
    if problem:
        raise ExplicitPathError(f"{path} {problem}", where=variable, remedy=f"correct or unset {variable}")
    return path.absolute()

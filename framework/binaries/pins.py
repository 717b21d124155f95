"""The one place for pins: ``pins.yaml``, typed and checked when it is read.

Text in it is a template over name, version, major, minor, patch, os and arch.
"""

from __future__ import annotations

import platform
from importlib import resources
from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec
import yaml

from framework.binaries.errors import SkewError
from framework.binaries.model import Request
from framework.errors import BadInputError, MissingRequirementError
from framework.spec import Spec, require_version

MINORS_BEHIND_MAX: Final = 3
"""How much older than kube-apiserver a kube-proxy may be (kubernetes.io/releases/version-skew-policy)."""
OS: Final = "linux"
_ARCHITECTURES: Final = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}

ChecksumFormat = Literal["sha256", "sha256sums", "github_release"]
"""``sha256``: the bare digest; ``sha256sums``: lines of digest and file name; ``github_release``: GitHub's
JSON record of a release, whose assets have a ``digest``."""
LOOPBACK: Final = "127.0.0.1"
"""Where an address needs no https: nobody is on the way."""


class DownloadPin(Spec, frozen=True, kw_only=True):
    """An official release file. ``member`` is the path inside of a tar archive; None: it is bare."""

    base_url: str
    file: str
    checksum_base_url: str
    checksum_file: str
    checksum_format: ChecksumFormat
    member: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for url in (self.base_url, self.checksum_base_url):
            place = urlsplit(url)
            if place.scheme != "https" and (place.scheme, place.hostname) != ("http", LOOPBACK):
                raise BadInputError(
                    f"{url} is not asked by https", where="pins.yaml", remedy="give an https address"
                )


class GoPin(Spec, frozen=True, kw_only=True):
    """How to build it from published Go modules. ``variables`` are set by the linker (``-X``)."""

    module: str
    package: str
    sibling_version: str | None = None
    variables: dict[str, str] = msgspec.field(default_factory=dict)


class Supplier(Spec, frozen=True, kw_only=True):
    """A project that releases executables.

    Run with ``version_arguments``, an executable prints ``version_output`` among other things.
    """

    download: DownloadPin
    go: GoPin
    version_output: str
    version_arguments: tuple[str, ...] = ("--version",)


class BinaryPin(Spec, frozen=True, kw_only=True):
    """``defaults`` are the versions that a run needs unless it asks for others; None: all of ``versions``."""

    supplier: str
    versions: tuple[str, ...]
    defaults: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for version in self.versions:
            require_version(version, where="pins.yaml")
        if not set(self.default_versions) <= set(self.versions):
            raise BadInputError(
                "a default version is not pinned", where="pins.yaml", remedy="add it to `versions`"
            )

    @property
    def default_versions(self) -> tuple[str, ...]:
        return self.versions if self.defaults is None else self.defaults


class Pins(Spec, frozen=True, kw_only=True):
    """All of ``pins.yaml``."""

    suppliers: dict[str, Supplier]
    binaries: dict[str, BinaryPin]
    system: tuple[str, ...]

    def __post_init__(self) -> None:
        for name, pin in self.binaries.items():
            if pin.supplier not in self.suppliers:
                raise BadInputError(
                    f"{name} has the unknown supplier {pin.supplier!r}",
                    where="pins.yaml",
                    remedy=f"use one of {', '.join(self.suppliers)}",
                )

    def pin(self, name: str) -> BinaryPin:
        """Raises BadInputError for a name that is not pinned."""
        found = self.binaries.get(name)
        if found is None:
            raise BadInputError(
                f"there is no binary {name!r}",
                where="pins.yaml",
                remedy=f"use one of {', '.join(self.binaries)}",
            )
        return found

    def supplier_of(self, name: str) -> Supplier:
        return self.suppliers[self.pin(name).supplier]

    def version_arguments(self, name: str) -> tuple[str, ...]:
        """What makes the executable print its version."""
        return self.supplier_of(name).version_arguments

    def request(self, name: str, version: str | None = None) -> Request:
        """``name`` at ``version``, or at its one pin.

        Raises BadInputError for an unknown name, an inexact version, and where several versions are pinned
        and none was named.
        """
        pin = self.pin(name)
        if version is not None:
            return Request(name, require_version(version, where=name))
        if len(pin.versions) > 1:
            raise BadInputError(
                f"{name} is pinned at {', '.join(pin.versions)}", where=name, remedy="say which of them"
            )
        return Request(name, pin.versions[0])

    def defaults(self) -> tuple[Request, ...]:
        """What a run needs unless it asks for other versions, in the order of fetching."""
        return tuple(
            Request(name, version) for name, pin in self.binaries.items() for version in pin.default_versions
        )


def load_pins() -> Pins:
    """The pins that are shipped with the framework. Raises BadInputError where they were damaged since."""
    text = resources.files("framework.binaries").joinpath("pins.yaml").read_text(encoding="utf-8")
    try:
        return msgspec.convert(yaml.safe_load(text), type=Pins)
    except (msgspec.ValidationError, yaml.YAMLError) as error:
        raise BadInputError(
            f"the pins are damaged: {' '.join(str(error).split())}",
            where="pins.yaml",
            remedy="undo what was changed in it, or install kilonode again",
        ) from error


def architecture() -> str:
    """``amd64`` or ``arm64``. Raises MissingRequirementError on any other machine."""
    machine = platform.machine()
    found = _ARCHITECTURES.get(machine.lower())
    if platform.system().lower() != OS or found is None:
        raise MissingRequirementError(
            f"{platform.system()} on {machine} is no platform that Kubernetes nodes are released for here",
            remedy="use Linux on x86_64 or aarch64",
        )
    return found


def fill(template: str, request: Request, arch: str) -> str:
    """A template of ``pins.yaml`` with its placeholders replaced."""
    major, minor, patch = request.version.split(".")
    return template.format(
        name=request.name,
        version=request.version,
        major=major,
        minor=minor,
        patch=patch,
        os=OS,
        arch=arch,
    )


def check_skew(*, kube_apiserver: str, kube_proxy: str) -> None:
    """Raises SkewError unless ``kube_proxy`` is no newer than, and at most three minors behind, the other.

    Patch releases do not count, as in Kubernetes' version skew policy.
    """
    server, proxy = (
        tuple(int(part) for part in require_version(version, where=where).split("."))
        for version, where in ((kube_apiserver, "kube-apiserver"), (kube_proxy, "kube-proxy"))
    )
    if proxy[:2] > server[:2]:
        raise SkewError(
            f"kube-proxy {kube_proxy} is newer than kube-apiserver {kube_apiserver}",
            where="version skew",
            remedy="use a kube-apiserver of the same or a newer minor release",
        )
    if proxy[0] != server[0] or server[1] - proxy[1] > MINORS_BEHIND_MAX:
        raise SkewError(
            f"kube-proxy {kube_proxy} is more than {MINORS_BEHIND_MAX} minor releases older than "
            f"kube-apiserver {kube_apiserver}",
            where="version skew",
            remedy="use a newer kube-proxy or an older kube-apiserver",
        )

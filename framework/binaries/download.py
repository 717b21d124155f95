"""Official releases over HTTPS, never without a checksum.

The checksum is fetched first; what has none is not downloaded. Both come by HTTPS to the end: an answer that
leads on to an address without it is not followed, or who is on the way could write both. The file grows as
``*.part`` and is resumed by a Range request after a break; the digest is taken over the whole. A host that
can't be reached is remembered for the life of the process, so that each later request falls through at once.

Two outcomes that are not errors of the user are kept apart: ``UnavailableError`` means "try another way",
``UnknownVersionError`` (status 404) means that there is no such release, and no other way is tried.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import tarfile
import threading
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from framework.binaries.errors import ChecksumError, UnknownVersionError
from framework.binaries.identity import sha256_of
from framework.binaries.model import Request
from framework.binaries.pins import ChecksumFormat, DownloadPin, fill
from framework.binaries.store import disk_full_as_error, require_free_space
from framework.units import MIB

SOCKET_TIMEOUT_S: Final = 10.0
"""For connecting and for each read; name resolution has the resolver's own limit."""
ATTEMPTS_MAX: Final = 4
CHECKSUM_BYTES_MAX: Final = 4 * MIB
CHUNK_BYTES: Final = 256 * 1024
_NETWORK_ERRORS: Final = (urllib.error.URLError, http.client.HTTPException, OSError)
_ARCHIVE_ERRORS: Final = (
    *(tarfile.TarError, gzip.BadGzipFile, zlib.error),
    *(EOFError, KeyError, RecursionError, ValueError),
)

OnBytes = Callable[[int, int | None], None]


class UnavailableError(Exception):
    """The download is not possible now; the message says why."""


class _BrokenOffError(Exception):
    """The connection ended before the file did."""


class _HttpsStaysHttps(urllib.request.HTTPRedirectHandler):
    def redirect_request(  # noqa: PLR0917 - the base's
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if req.type == "https" and urllib.parse.urlsplit(newurl).scheme != "https":
            raise UnavailableError(f"{req.full_url} leads on to {newurl}, which is not by https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Asset(msgspec.Struct):
    name: str
    digest: str | None = None


class _Release(msgspec.Struct):
    assets: tuple[_Asset, ...]


@dataclass
class Reachability:
    """Hosts that could not be reached, with the reason."""

    _reasons: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def require(self, host: str) -> None:
        with self._lock:
            reason = self._reasons.get(host)
        if reason is not None:
            raise UnavailableError(reason)

    def lost(self, host: str, error: Exception) -> UnavailableError:
        cause = getattr(error, "reason", error)
        reason = f"{host} is out of reach ({cause})"
        with self._lock:
            self._reasons[host] = reason
        return UnavailableError(reason)


THIS_PROCESS: Final = Reachability()


@dataclass(frozen=True)
class Downloader:
    """``arch`` is ``amd64`` or ``arm64``."""

    arch: str
    reachability: Reachability = field(default_factory=lambda: THIS_PROCESS)

    def url(self, pin: DownloadPin, request: Request) -> str:
        return f"{pin.base_url}/{fill(pin.file, request, self.arch)}"

    def reach(self, pin: DownloadPin, request: Request) -> None:
        """Raises UnavailableError or UnknownVersionError where ``fetch`` would before its download."""
        self._published_sha256(pin, request, self.url(pin, request))

    def fetch(self, pin: DownloadPin, request: Request, folder: Path, on_bytes: OnBytes) -> Path:
        """Download and verify the executable into ``folder``, whose file system is the store's.

        Raises UnavailableError, UnknownVersionError, ChecksumError or DiskFullError.
        """
        url = self.url(pin, request)
        sha256 = self._published_sha256(pin, request, url)
        part = folder / f"{url.rpartition('/')[2]}.part"
        with disk_full_as_error(folder):
            self._download(url, sha256, part, request, on_bytes)
            if pin.member is None:
                return part
            return _extract(part, fill(pin.member, request, self.arch), folder / request.name)

    def _published_sha256(self, pin: DownloadPin, request: Request, url: str) -> str:
        checksum_url = f"{pin.checksum_base_url}/{fill(pin.checksum_file, request, self.arch)}"
        with self._open(checksum_url, request) as response:
            try:
                content = response.read(CHECKSUM_BYTES_MAX)
            except _NETWORK_ERRORS as error:
                raise UnavailableError(f"{checksum_url} broke off ({error})") from error
        sha256 = published_digest(content, pin.checksum_format, url.rpartition("/")[2])
        if sha256 is None:
            raise UnavailableError(f"{checksum_url} has no sha256 for {url.rpartition('/')[2]}")
        return sha256

    def _open(self, url: str, request: Request, *, start_bytes: int = 0) -> http.client.HTTPResponse:
        host = urllib.parse.urlsplit(url).netloc
        self.reachability.require(host)
        headers = {"Range": f"bytes={start_bytes}-"} if start_bytes else {}
        asked = urllib.request.Request(url, headers=headers)  # noqa: S310 - DownloadPin checked the scheme
        opener = urllib.request.build_opener(_HttpsStaysHttps)
        try:
            response: http.client.HTTPResponse = opener.open(asked, timeout=SOCKET_TIMEOUT_S)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == http.HTTPStatus.NOT_FOUND:
                raise UnknownVersionError(
                    f"there is no release {request}", where=url, remedy="ask for a version that was released"
                ) from None
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise _BrokenOffError(f"{url} is shorter than what was kept of it") from None
            raise UnavailableError(f"{url} answered with status {error.code}") from None
        except _NETWORK_ERRORS as error:
            raise self.reachability.lost(host, error) from error
        return response

    def _download(self, url: str, sha256: str, part: Path, request: Request, on_bytes: OnBytes) -> None:
        resumed = part.exists()
        if resumed and sha256_of(part) == sha256:
            return
        broken = ""
        for _ in range(ATTEMPTS_MAX):
            try:
                self._append(url, part, request, on_bytes)
            except _BrokenOffError as error:
                broken = str(error)
                continue
            got = sha256_of(part)
            if got == sha256:
                return
            part.unlink()
            if not resumed:
                raise ChecksumError(
                    f"the checksum does not match and the file was deleted: expected {sha256}, got {got}",
                    where=url,
                    remedy="try again; if it happens again, a proxy or mirror on the way alters the file",
                )
            resumed = False
        raise UnavailableError(f"{url} broke off {ATTEMPTS_MAX} times ({broken})")

    def _append(self, url: str, part: Path, request: Request, on_bytes: OnBytes) -> None:
        """One attempt; what arrives is kept in ``part`` even when it breaks off."""
        kept_bytes = part.stat().st_size if part.exists() else 0
        try:
            response = self._open(url, request, start_bytes=kept_bytes)
        except _BrokenOffError:
            part.unlink(missing_ok=True)
            raise
        with response:
            if response.status != http.HTTPStatus.PARTIAL_CONTENT:
                kept_bytes = 0
            length = response.headers.get("Content-Length")
            total_bytes = kept_bytes + int(length) if length else None
            require_free_space(part.parent, (total_bytes or 0) - kept_bytes)
            done_bytes = kept_bytes
            with part.open("ab" if kept_bytes else "wb") as file:
                while chunk := _read_chunk(response, url):
                    file.write(chunk)
                    done_bytes += len(chunk)
                    on_bytes(done_bytes, total_bytes)
        if total_bytes is not None and done_bytes < total_bytes:
            raise _BrokenOffError(f"{done_bytes} of {total_bytes} bytes arrived")


def _read_chunk(response: http.client.HTTPResponse, url: str) -> bytes:
    try:
        return response.read(CHUNK_BYTES)
    except _NETWORK_ERRORS as error:
        raise _BrokenOffError(f"{url}: {error}") from error


def published_digest(content: bytes, form: ChecksumFormat, file_name: str) -> str | None:
    """The sha256 that a publisher's checksum file gives for ``file_name``; None where it gives none."""
    if form == "github_release":
        try:
            release = msgspec.json.decode(content, type=_Release)
        except msgspec.MsgspecError:
            return None
        digests = [asset.digest or "" for asset in release.assets if asset.name == file_name]
        return _digest(digests[0].removeprefix("sha256:")) if digests else None
    lines = [line.split() for line in content.decode(errors="replace").splitlines()]
    for words in lines:
        if form == "sha256" and words:
            return _digest(words[0])
        if len(words) == 2 and words[1].lstrip("*") == file_name:
            return _digest(words[0])
    return None


def _digest(text: str) -> str | None:
    digest = text.lower()
    is_sha256 = len(digest) == 2 * hashlib.sha256().digest_size and set(digest) <= set("0123456789abcdef")
    return digest if is_sha256 else None


def _extract(archive: Path, member: str, target: Path) -> Path:
    """Take one file out of a verified tar archive, and delete the archive."""
    try:
        with tarfile.open(archive) as tar:
            source = tar.extractfile(member)
            if source is None:
                raise KeyError(member)
            with source, target.open("wb") as file:
                while chunk := source.read(CHUNK_BYTES):
                    file.write(chunk)
    except _ARCHIVE_ERRORS as error:
        raise UnavailableError(f"{archive.name} holds no {member} ({error})") from error
    archive.unlink()
    return target

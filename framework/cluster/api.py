"""The API server, spoken to in bulk.

The ``kubernetes`` client reads the kubeconfig and serves rare, typed calls. Everything that comes in
thousands goes through ``Bulk``: aiohttp with many requests under way, bodies encoded and decoded by msgspec
with only the fields that are needed, lists in pages. Requests that a busy server refuses or drops are tried
again; creating what exists and deleting what is gone count as done, which makes bulk work resumable.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar
from urllib.parse import quote

import msgspec
import tenacity

from framework.errors import KilonodeError
from framework.lazy import LazyModule

if TYPE_CHECKING:
    import aiohttp
    import kubernetes
else:
    aiohttp, kubernetes = LazyModule("aiohttp"), LazyModule("kubernetes")

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]

PARALLELISM: Final = 64
REQUEST_TIMEOUT_S: Final = 60.0
ATTEMPTS_MAX: Final = 8
PAGE_SIZE: Final = 500
UNDER_WAY_S: Final = 2.0
CLOSING_S: Final = 0.25
"""TLS connections that were cut off in their handshake need turns of the event loop to close, and aiohttp
waits only for those that it had handed out; this is the pause that its documentation advises."""
_BUSY: Final = frozenset({429, 500, 502, 503, 504})
_DONE_ALREADY: Final = {"POST": 409, "DELETE": 404}
_CONTENT_TYPE: Final = {"PATCH": "application/merge-patch+json"}

T = TypeVar("T")


class ApiError(KilonodeError):
    """The API server refused a request; ``status`` is its HTTP status, 0 where there was no answer."""

    def __init__(self, method: str, path: str, status: int, body: bytes) -> None:
        self.status = status
        text = body[:500].decode(errors="replace")
        super().__init__(
            f"the API server answered {status}: {text}" if status else f"no answer of the API server: {text}",
            where=f"{method} {path}",
            remedy="see kube-apiserver.log in the run's state folder",
        )


class _BusyError(Exception):
    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


@dataclass(frozen=True)
class ApiEndpoint:
    """Where the API server is, and the credentials to use."""

    kubeconfig: Path
    url: str
    ca_file: str
    cert_file: str
    key_file: str

    @classmethod
    def from_kubeconfig(cls, kubeconfig: Path) -> ApiEndpoint:
        """The endpoint of a kubeconfig's current context."""
        settings = kubernetes.client.Configuration()
        kubernetes.config.load_kube_config(str(kubeconfig), client_configuration=settings)
        return cls(kubeconfig, settings.host, settings.ssl_ca_cert, settings.cert_file, settings.key_file)

    def client(self) -> Any:
        """The typed client, for rare calls; close it after use."""
        return kubernetes.config.new_client_from_config(str(self.kubeconfig))

    def ssl_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca_file)
        context.load_cert_chain(self.cert_file, self.key_file)
        return context


@dataclass(frozen=True)
class Call:
    """One request. ``body`` is JSON."""

    method: Method
    path: str
    body: bytes | None = None


class _ListMeta(msgspec.Struct):
    resource_version: str = msgspec.field(name="resourceVersion", default="")
    continue_: str = msgspec.field(name="continue", default="")


class Bulk:
    """Many requests at once; an async context manager."""

    def __init__(self, endpoint: ApiEndpoint, *, parallelism: int = PARALLELISM) -> None:
        self.endpoint = endpoint
        self.parallelism = parallelism
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            base_url=self.endpoint.url,
            connector=aiohttp.TCPConnector(limit=self.parallelism, ssl=self.endpoint.ssl_context()),
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None  # noqa: S101 - entered before it is left
        await self._session.close()
        if error is not None:
            await asyncio.sleep(CLOSING_S)

    async def request(self, call: Call) -> bytes:
        """The answer's body. Raises ApiError when the server refuses, or stays busy for all attempts."""
        attempts = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type((_BusyError, aiohttp.ClientError, asyncio.TimeoutError)),
            stop=tenacity.stop_after_attempt(ATTEMPTS_MAX),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=5.0),
            reraise=True,
        )
        try:
            return await attempts(self._once, call)
        except _BusyError as busy:
            raise ApiError(call.method, call.path, busy.status, busy.body) from None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ApiError(call.method, call.path, 0, (str(error) or repr(error)).encode()) from error

    async def _once(self, call: Call) -> bytes:
        assert self._session is not None  # noqa: S101 - used inside the context only
        headers = {"Content-Type": _CONTENT_TYPE.get(call.method, "application/json")}
        async with self._session.request(call.method, call.path, data=call.body, headers=headers) as response:
            body = await response.read()
        if response.status in _BUSY:
            raise _BusyError(response.status, body)
        if response.status >= 400 and response.status != _DONE_ALREADY.get(call.method):
            raise ApiError(call.method, call.path, response.status, body)
        return body

    async def each(self, calls: Iterable[Call], on_done: Callable[[int], object] = int) -> int:
        """Send all ``calls``, ``parallelism`` at a time; gives how many. ``on_done`` hears the count so far.

        After the first refusal no further call is sent; those under way may end by themselves for a moment,
        because connections that are cut off in their handshake never close. The refusal is raised.
        """
        source = iter(calls)
        done = 0
        refused = False

        async def worker() -> None:
            nonlocal done, refused
            try:
                for call in source:
                    if refused:
                        return
                    await self.request(call)
                    done += 1
                    on_done(done)
            except BaseException:
                refused = True
                raise

        workers = [asyncio.create_task(worker()) for _ in range(self.parallelism)]
        try:
            _, under_way = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
            if under_way:
                await asyncio.wait(under_way, timeout=UNDER_WAY_S)
        finally:
            for task in workers:
                task.cancel()
            ends = await asyncio.gather(*workers, return_exceptions=True)
        for end in ends:
            if isinstance(end, BaseException) and not isinstance(end, asyncio.CancelledError):
                raise end
        return done

    async def pages(
        self, path: str, item: type[T], *, selector: str = "", page_size: int = PAGE_SIZE
    ) -> AsyncIterator[list[T]]:
        """The items of a list, a page at a time, decoded as ``item`` (a msgspec type)."""
        page = msgspec.defstruct("Page", [("metadata", _ListMeta), ("items", list[item])])  # type: ignore[valid-type]
        decoder = msgspec.json.Decoder(page)
        token = ""
        while True:
            query = f"?limit={page_size}&labelSelector={quote(selector)}&continue={quote(token)}"
            answer: Any = decoder.decode(await self.request(Call("GET", path + query)))
            yield answer.items
            token = answer.metadata.continue_
            if not token:
                return


def run_bulk(work: Callable[[Bulk], Any], endpoint: ApiEndpoint, *, parallelism: int = PARALLELISM) -> Any:
    """Run ``work(bulk)``, a coroutine, to its end from synchronous code."""

    async def main() -> Any:
        async with Bulk(endpoint, parallelism=parallelism) as bulk:
            return await work(bulk)

    return asyncio.run(main())

"""The API server, spoken to in bulk.

The ``kubernetes`` client reads the kubeconfig and serves rare, typed calls. Everything that comes in
thousands goes through ``Bulk``: aiohttp with many requests under way, bodies encoded and decoded by msgspec
with only the fields that are needed, lists in pages. Requests that a busy server refuses or drops are tried
again; creating what exists and deleting what is gone count as done, which makes bulk work resumable.
"""

from __future__ import annotations

import asyncio
import http.client
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar
from urllib.parse import quote, urlsplit

import msgspec
import tenacity

from framework import network
from framework.cluster.kubeconfig import Kubeconfig, require_https
from framework.cluster.lease_budget import BULK_PARALLELISM
from framework.errors import BadInputError, KilonodeError
from framework.lazy import LazyModule

if TYPE_CHECKING:
    import aiohttp
    import kubernetes
else:
    aiohttp, kubernetes = LazyModule("aiohttp"), LazyModule("kubernetes")

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]

REQUEST_TIMEOUT_S: Final = 60.0
RARE_RETRIES_MAX: Final = 1
LOST_LOOK_S: Final = 1.0
ATTEMPTS_MAX: Final = 8
PAGE_SIZE: Final = 500
"""Objects in a page where whole objects are read, as kubectl has it."""
ROW_PAGE_SIZE: Final = 5000
"""Rows in a page of a table: 5,000 nodes are 1.5 MB."""
TABLE: Final = "application/json;as=Table;g=meta.k8s.io;v=v1"
"""The API server's own printed columns: 300 bytes for a Node instead of 3 KB of JSON."""
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
            remedy="see kube-apiserver.log, of a control plane of the run's own in its state folder",
        )


class ClusterLostError(KilonodeError):
    """A control plane of the run's own ended under it."""

    def __init__(self, url: str) -> None:
        super().__init__(
            "the control plane ended under the run",
            where=url,
            remedy="read its logs in the run folder, then run again",
        )


class _BusyError(Exception):
    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


@dataclass(frozen=True)
class ApiEndpoint:
    """Where the API server is, and the credentials to use: a client certificate, a bearer token, or both.

    ``netns`` is the network namespace from which ``get`` connects; None: this process's own. ``context`` is
    the kubeconfig's; None: its current one. ``settings`` are the ``kubernetes`` client's, which knows how a
    token is come by, and comes by another one when an exec plugin's has expired.
    """

    kubeconfig: Path
    url: str
    ca_file: str | None
    cert_file: str | None
    key_file: str | None
    netns: str | None = None
    context: str | None = None
    is_verified: bool = True
    settings: Any = field(default=None, repr=False, compare=False)
    is_lost: Callable[[], bool] = field(default=lambda: False, repr=False, compare=False)
    """Whether it is known that nobody will answer."""

    @classmethod
    def from_kubeconfig(cls, kubeconfig: Path, *, context: str | None = None) -> ApiEndpoint:
        """The endpoint of a kubeconfig's context, of its current one where ``context`` is None.

        Raises BadInputError for one that can't be used, and for a way to the API server that only some of the
        clients here could go; KilonodeError where a plugin gives no credentials.
        """
        settings = kubernetes.client.Configuration()
        try:
            kubernetes.config.load_kube_config(str(kubeconfig), context, client_configuration=settings)
        except Exception as error:
            raise BadInputError(
                f"the kubeconfig can't be used: {error}",
                where=str(kubeconfig),
                remedy="see whether `kubectl --kubeconfig FILE --context NAME get nodes` works",
            ) from error
        _refuse_detours(settings, kubeconfig)
        _require_credentials(settings, kubeconfig, context)
        return cls(
            kubeconfig,
            settings.host,
            settings.ssl_ca_cert,
            settings.cert_file,
            settings.key_file,
            context=context,
            is_verified=settings.verify_ssl,
            settings=settings,
        )

    @property
    def prefix(self) -> str:
        """What the server's URL has before every path, as behind some proxies; empty for most."""
        return urlsplit(self.url).path.rstrip("/")

    @property
    def origin(self) -> str:
        place = urlsplit(self.url)
        return f"{place.scheme}://{place.netloc}"

    def headers(self) -> dict[str, str]:
        """What says who asks, where that is not the certificate."""
        if self.settings is None:
            return {}
        said = self.settings.get_api_key_with_prefix("BearerToken", alias="authorization")
        return {"Authorization": str(said)} if said else {}

    def client(self) -> Any:
        """The typed client, for rare calls, each with a time limit; close it after use."""
        settings = kubernetes.client.Configuration()
        settings.retries = RARE_RETRIES_MAX
        client = kubernetes.config.new_client_from_config(
            str(self.kubeconfig), self.context, client_configuration=settings
        )
        request = client.rest_client.request

        def limited(*arguments: Any, _request_timeout: Any = None, **options: Any) -> Any:
            limit_s = _request_timeout or REQUEST_TIMEOUT_S
            return request(*arguments, _request_timeout=limit_s, **options)

        client.rest_client.request = limited
        return client

    def get(self, path: str, *, timeout_s: float = REQUEST_TIMEOUT_S) -> tuple[int, bytes]:
        """Status and body of one GET without retries; for a few requests. Raises OSError without an
        answer."""
        place = urlsplit(self.url)
        host, port = place.hostname or "", place.port or 443
        connection = http.client.HTTPConnection(host, port)
        try:
            bare = network.connect((host, port), netns=self.netns, timeout_s=timeout_s)
            connection.sock = self.ssl_context().wrap_socket(bare, server_hostname=host)
            connection.request("GET", self.prefix + path, headers=self.headers())
            answer = connection.getresponse()
            return answer.status, answer.read()
        except http.client.HTTPException as error:
            raise OSError(f"broken answer: {error!r}") from error
        finally:
            connection.close()

    def ssl_context(self) -> ssl.SSLContext:
        """Raises BadInputError for certificates or a key that can't be read, or a key with a passphrase."""
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if not self.is_verified:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if self.cert_file:
                context.load_cert_chain(self.cert_file, self.key_file, password="")
        except OSError as error:
            raise BadInputError(
                f"the certificates or the key of the kubeconfig can't be used: {error}",
                where=str(self.kubeconfig),
                remedy="see whether `kubectl --kubeconfig FILE --context NAME get nodes` works",
            ) from error
        return context


def _refuse_detours(settings: Any, kubeconfig: Path) -> None:
    """Raises BadInputError for a server that is not reached by TLS under its own name."""
    require_https(str(settings.host), kubeconfig)
    if getattr(settings, "tls_server_name", None):
        raise BadInputError(
            f"the server has another name in its certificate (tls-server-name: {settings.tls_server_name})",
            where=str(kubeconfig),
            remedy="name the server as its certificate does, in /etc/hosts if need be",
        )


def _require_credentials(settings: Any, kubeconfig: Path, context: str | None) -> None:
    """Raises KilonodeError where a user's plugin gave nothing, which the client only logs."""
    has_some = settings.api_key or settings.cert_file or settings.username
    if not has_some and Kubeconfig(kubeconfig).says_who(context):
        raise KilonodeError(
            "the user of the context gets no credentials: its plugin may be missing, or be signed out",
            where=str(kubeconfig),
            remedy="see what `kubectl --kubeconfig FILE --context NAME get nodes` says",
        )


@dataclass(frozen=True)
class Call:
    """One request. ``body`` is JSON; ``accept`` the media type of the answer, JSON where None."""

    method: Method
    path: str
    body: bytes | None = None
    accept: str | None = None


class _ListMeta(msgspec.Struct):
    resource_version: str = msgspec.field(name="resourceVersion", default="")
    continue_: str = msgspec.field(name="continue", default="")


class _List(msgspec.Struct):
    metadata: _ListMeta


class _Versioned(msgspec.Struct):
    metadata: _ListMeta = msgspec.field(default_factory=_ListMeta)


class _Stamped(msgspec.Struct):
    type: str
    object: _Versioned


class _Column(msgspec.Struct):
    name: str


class _Row(msgspec.Struct):
    cells: list[Any]


class _Table(msgspec.Struct, rename="camel"):
    metadata: _ListMeta = msgspec.field(default_factory=_ListMeta)
    column_definitions: list[_Column] = []
    rows: list[_Row] | None = None


class Bulk:
    """Many requests at once; an async context manager."""

    def __init__(self, endpoint: ApiEndpoint, *, parallelism: int = BULK_PARALLELISM) -> None:
        self.endpoint = endpoint
        self.parallelism = parallelism
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            base_url=self.endpoint.origin,
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
        transient = (_BusyError, aiohttp.ClientError, asyncio.TimeoutError)
        with suppress(*transient):
            return await self._once(call)
        attempts = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(transient),
            stop=tenacity.stop_after_attempt(ATTEMPTS_MAX - 1),
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
        headers |= self.endpoint.headers()
        if call.accept is not None:
            headers["Accept"] = call.accept
        path = self.endpoint.prefix + call.path
        async with self._session.request(call.method, path, data=call.body, headers=headers) as response:
            body = await response.read()
        if response.status in _BUSY:
            raise _BusyError(response.status, body)
        if response.status >= 400 and response.status != _DONE_ALREADY.get(call.method):
            raise ApiError(call.method, call.path, response.status, body)
        return body

    async def each(
        self,
        calls: Iterable[Call],
        on_done: Callable[[int], object] = int,
        *,
        on_answer: Callable[[bytes], object] = len,
    ) -> int:
        """Send all ``calls``, ``parallelism`` at a time; gives how many.

        ``on_done`` hears the count so far, ``on_answer`` each answer's body.

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
                    on_answer(await self.request(call))
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
        async for answer in self._pages(path, msgspec.json.Decoder(page), f"limit={page_size}", selector):
            yield answer.items

    async def rows(
        self,
        path: str,
        columns: Sequence[str],
        *,
        selector: str = "",
        fields: str = "",
        page_size: int = ROW_PAGE_SIZE,
    ) -> AsyncIterator[list[tuple[str, ...]]]:
        """The named printed columns of a list's objects (such as Name and Status), a page at a time.

        This is how to look at 100,000 objects: the API server prints each from its cache, and sends a tenth
        of its JSON. Raises ApiError when it prints no such column.
        """
        query = f"limit={page_size}&includeObject=None&fieldSelector={quote(fields)}"
        wanted: list[int] = []
        async for answer in self._pages(path, msgspec.json.Decoder(_Table), query, selector, accept=TABLE):
            names = [column.name for column in answer.column_definitions]
            if names:
                missing = [column for column in columns if column not in names]
                if missing:
                    raise ApiError("GET", path, 0, f"no columns {missing} among {names}".encode())
                wanted = [names.index(column) for column in columns]
            yield [tuple(str(row.cells[place]) for place in wanted) for row in answer.rows or ()]

    async def watch(self, path: str, event: type[T], *, selector: str = "") -> AsyncIterator[T]:
        """Changes of a list's objects from now on, decoded as ``event`` (a msgspec type with ``type`` and
        ``object``), until the caller has enough.

        A watch that the API server ends, as it does after some minutes, goes on where it was; no change is
        missed or told twice. Raises ApiError when the server no longer knows what came since.
        """
        assert self._session is not None  # noqa: S101 - used inside the context only
        first: Any = msgspec.json.decode(
            await self.request(Call("GET", f"{path}?limit=1&labelSelector={quote(selector)}")), type=_List
        )
        version, decoder = first.metadata.resource_version, msgspec.json.Decoder(event)
        stamp = msgspec.json.Decoder(_Stamped)
        unlimited = aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_TIMEOUT_S)
        while True:
            query = f"?watch=1&resourceVersion={version}&labelSelector={quote(selector)}"
            try:
                async with (
                    self._session.get(
                        self.endpoint.prefix + path + query,
                        timeout=unlimited,
                        headers=self.endpoint.headers(),
                    ) as response,
                    _cut_off_at_once(response),
                ):
                    if response.status != 200:
                        raise ApiError("GET", path + query, response.status, await response.read())
                    async for line in response.content:
                        seen = stamp.decode(line)
                        if seen.type == "ERROR":
                            raise ApiError("GET", path + query, 0, line)
                        version = seen.object.metadata.resource_version
                        yield decoder.decode(line)
            except aiohttp.ClientError as error:
                raise ApiError("GET", path + query, 0, f"the watch broke off: {error}".encode()) from error

    async def _pages(
        self,
        path: str,
        decoder: msgspec.json.Decoder[Any],
        query: str,
        selector: str,
        accept: str | None = None,
    ) -> AsyncIterator[Any]:
        token = ""
        while True:
            rest = f"?{query}&labelSelector={quote(selector)}&continue={quote(token)}"
            answer = decoder.decode(await self.request(Call("GET", path + rest, accept=accept)))
            yield answer
            token = answer.metadata.continue_
            if not token:
                return


@asynccontextmanager
async def _cut_off_at_once(response: aiohttp.ClientResponse) -> AsyncIterator[None]:
    """End the connection of a response that is left unread.

    aiohttp would wait for the server's part of TLS's farewell, which a busy one sends when the event loop is
    gone: then the socket stays open.
    """
    try:
        yield
    except BaseException:
        if response.connection is not None and response.connection.transport is not None:
            response.connection.transport.abort()
        raise


def run_bulk(
    work: Callable[[Bulk], Any], endpoint: ApiEndpoint, *, parallelism: int = BULK_PARALLELISM
) -> Any:
    """Run ``work(bulk)``, a coroutine, to its end from synchronous code.

    Raises ClusterLostError where the endpoint is lost meanwhile: nobody would answer, and each attempt waits.
    """

    async def main() -> Any:
        async with Bulk(endpoint, parallelism=parallelism) as bulk:
            task = asyncio.ensure_future(work(bulk))
            try:
                while not (await asyncio.wait({task}, timeout=LOST_LOOK_S))[0]:
                    if endpoint.is_lost():
                        raise ClusterLostError(endpoint.url)
                return task.result()
            finally:
                task.cancel()
                await asyncio.wait({task})

    return asyncio.run(main())

"""Thousands of requests against a real HTTP server: patient with a busy one, at once with a refusal."""

from __future__ import annotations

import asyncio
import gc
import shutil
import socket
import ssl
import threading
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from framework.cluster import ApiEndpoint, ApiError, Bulk, Call, run_bulk
from framework.process import run

Answer = Callable[[web.Request], Awaitable[web.Response]]


class PlainEndpoint(ApiEndpoint):
    """An API server without TLS."""

    def ssl_context(self) -> ssl.SSLContext:
        return ssl.create_default_context()


class TrustingEndpoint(ApiEndpoint):
    """An API server with TLS, whose certificate lies where others have their kubeconfig."""

    def ssl_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.kubeconfig))


class Item(msgspec.Struct):
    name: str


@asynccontextmanager
async def served(answer: Answer, parallelism: int = 4) -> AsyncIterator[Bulk]:
    """A Bulk that talks to a server which answers everything with ``answer``."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        endpoint = PlainEndpoint(Path("kubeconfig"), f"http://{host}:{port}", "", "", "")
        async with Bulk(endpoint, parallelism=parallelism) as bulk:
            yield bulk
    finally:
        await runner.cleanup()


def ask(answer: Answer, work: Callable[[Bulk], Awaitable[Any]], parallelism: int = 4) -> Any:
    async def main() -> Any:
        async with served(answer, parallelism) as bulk:
            return await work(bulk)

    return asyncio.run(main())


def always(status: int, text: str = "{}") -> Answer:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, text=text)

    return answer


class TestOneRequest:
    @pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
    def test_a_busy_server_is_asked_again(self, status: int) -> None:
        statuses = iter([status, 429, 200])

        async def answer(request: web.Request) -> web.Response:
            return web.Response(status=next(statuses), body=await request.read())

        assert ask(answer, lambda bulk: bulk.request(Call("POST", "/x", b"body"))) == b"body"
        assert next(statuses, None) is None

    def test_a_dropped_connection_is_tried_again(self) -> None:
        seen: list[str] = []

        async def answer(request: web.Request) -> web.Response:
            seen.append(request.path)
            if len(seen) == 1:
                assert request.transport is not None
                request.transport.close()
            return web.Response(text="back")

        assert ask(answer, lambda bulk: bulk.request(Call("GET", "/x"))) == b"back"
        assert len(seen) == 2

    def test_a_server_that_stays_busy_is_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("framework.cluster.api.ATTEMPTS_MAX", 3)
        asked = Counter[str]()

        async def answer(request: web.Request) -> web.Response:
            asked[request.path] += 1
            return web.Response(status=429, text="too many requests")

        with pytest.raises(ApiError, match="answered 429: too many requests") as caught:
            ask(answer, lambda bulk: bulk.request(Call("POST", "/api/v1/nodes", b"{}")))
        assert asked == {"/api/v1/nodes": 3}
        assert (caught.value.status, caught.value.where) == (429, "POST /api/v1/nodes")
        assert "kube-apiserver.log" in caught.value.remedy

    def test_a_server_that_is_not_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("framework.cluster.api.ATTEMPTS_MAX", 2)
        endpoint = PlainEndpoint(Path("kubeconfig"), "http://127.0.0.1:1", "", "", "")
        with pytest.raises(
            ApiError, match=r"no answer of the API server: Cannot connect to host 127\.0\.0\.1:1"
        ) as caught:
            run_bulk(lambda bulk: bulk.request(Call("GET", "/readyz")), endpoint)
        assert caught.value.status == 0

    @pytest.mark.parametrize("status", [400, 403, 409, 422])
    def test_a_refusal_is_final(self, status: int) -> None:
        with pytest.raises(ApiError) as caught:
            ask(always(status, "no" * 1000), lambda bulk: bulk.request(Call("PUT", "/x", b"{}")))
        assert caught.value.status == status
        assert len(str(caught.value)) < 1000

    @pytest.mark.parametrize(("method", "status"), [("POST", 409), ("DELETE", 404)])
    def test_what_is_done_already_is_done(self, method: Any, status: int) -> None:
        ask(always(status), lambda bulk: bulk.request(Call(method, "/x")))

    @pytest.mark.parametrize(("method", "status"), [("POST", 404), ("DELETE", 409), ("GET", 404)])
    def test_but_not_the_other_way_round(self, method: Any, status: int) -> None:
        with pytest.raises(ApiError):
            ask(always(status), lambda bulk: bulk.request(Call(method, "/x")))

    @pytest.mark.parametrize(
        ("call", "kind"),
        [
            (Call("PATCH", "/x", b"{}"), b"application/merge-patch+json"),
            (Call("POST", "/x", b"{}"), b"application/json"),
        ],
    )
    def test_a_body_says_what_kind_it_is(self, call: Call, kind: bytes) -> None:
        async def answer(request: web.Request) -> web.Response:
            return web.Response(text=request.headers["Content-Type"])

        assert ask(answer, lambda bulk: bulk.request(call)) == kind


class TestManyRequests:
    def test_are_all_sent_a_few_at_a_time(self) -> None:
        under_way, most = 0, 0
        seen = Counter[str]()

        async def answer(request: web.Request) -> web.Response:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0.005)
            under_way -= 1
            seen[request.path] += 1
            return web.Response(text="{}")

        heard: list[int] = []
        calls = [Call("POST", f"/{n}", b"{}") for n in range(40)]
        assert ask(answer, lambda bulk: bulk.each(calls, heard.append), parallelism=7) == 40
        assert heard == list(range(1, 41))
        assert seen == {f"/{n}": 1 for n in range(40)}
        assert most == 7

    def test_the_first_refusal_ends_the_others(self) -> None:
        seen: list[str] = []

        async def answer(request: web.Request) -> web.Response:
            seen.append(request.path)
            if request.path == "/5":
                return web.Response(status=403, text="forbidden")
            await asyncio.sleep(0.01 if int(request.path[1:]) < 5 else 30)
            return web.Response(text="{}")

        calls = (Call("POST", f"/{n}", b"{}") for n in range(1000))
        with pytest.raises(ApiError) as caught:
            ask(answer, lambda bulk: bulk.each(calls), parallelism=4)
        assert caught.value.where == "POST /5"
        assert len(seen) < 20

    def test_nothing_to_send(self) -> None:
        assert ask(always(500), lambda bulk: bulk.each([])) == 0

    def test_a_single_error_comes_out_bare(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("framework.cluster.api.ATTEMPTS_MAX", 1)
        endpoint = PlainEndpoint(Path("kubeconfig"), "http://127.0.0.1:1", "", "", "")
        with pytest.raises(ApiError):
            run_bulk(lambda bulk: bulk.each([Call("GET", "/x")]), endpoint)


TABLE_OF_NODES = {
    "kind": "Table",
    "metadata": {"continue": ""},
    "columnDefinitions": [{"name": "Name"}, {"name": "Status"}, {"name": "Age"}],
    "rows": [{"cells": ["n0", "Ready", "1d"]}, {"cells": ["n1", "NotReady", None]}],
}


class TestRows:
    def test_are_the_columns_that_were_asked_for_in_that_order(self) -> None:
        asked: list[web.Request] = []

        async def answer(request: web.Request) -> web.Response:
            asked.append(request)
            return web.json_response(TABLE_OF_NODES)

        async def read(bulk: Bulk) -> list[list[tuple[str, ...]]]:
            return [page async for page in bulk.rows("/x", ("Status", "Name"), fields="a=b", page_size=7)]

        assert ask(answer, read) == [[("Ready", "n0"), ("NotReady", "n1")]]
        (request,) = asked
        assert request.headers["Accept"] == "application/json;as=Table;g=meta.k8s.io;v=v1"
        assert (request.query["limit"], request.query["fieldSelector"]) == ("7", "a=b")
        assert request.query["includeObject"] == "None"

    def test_later_pages_name_no_columns(self) -> None:
        async def answer(request: web.Request) -> web.Response:
            if request.query["continue"]:
                return web.json_response({"metadata": {}, "columnDefinitions": [], "rows": None})
            return web.json_response(TABLE_OF_NODES | {"metadata": {"continue": "more"}})

        async def read(bulk: Bulk) -> list[int]:
            return [len(page) async for page in bulk.rows("/x", ("Name",))]

        assert ask(answer, read) == [2, 0]

    def test_a_column_that_is_not_printed(self) -> None:
        async def answer(request: web.Request) -> web.Response:
            return web.json_response(TABLE_OF_NODES)

        async def read(bulk: Bulk) -> None:
            async for _ in bulk.rows("/x", ("Holder",)):
                pass

        with pytest.raises(ApiError, match="no columns"):
            ask(answer, read)


class Thing(msgspec.Struct):
    name: str


class Event(msgspec.Struct):
    type: str
    object: Thing


class TestWatch:
    @staticmethod
    def line(kind: str, name: str, version: str) -> bytes:
        thing = {"name": name, "metadata": {"resourceVersion": version}}
        return msgspec.json.encode({"type": kind, "object": thing}) + b"\n"

    def test_goes_on_after_the_server_ends_it(self) -> None:
        watches: list[str] = []

        async def answer(request: web.Request) -> web.Response:
            if "watch" not in request.query:
                return web.json_response({"metadata": {"resourceVersion": "7"}, "items": []})
            watches.append(request.query["resourceVersion"])
            number = len(watches)
            return web.Response(body=self.line("MODIFIED", f"a{number}", f"{number}0"))

        async def read(bulk: Bulk) -> list[str]:
            names = []
            async for event in bulk.watch("/x", Event):
                names.append(event.object.name)
                if len(names) == 3:
                    break
            return names

        assert ask(answer, read) == ["a1", "a2", "a3"]
        assert watches == ["7", "10", "20"]

    def test_says_so_when_changes_were_missed(self) -> None:
        async def answer(request: web.Request) -> web.Response:
            if "watch" not in request.query:
                return web.json_response({"metadata": {"resourceVersion": "7"}, "items": []})
            return web.Response(body=b'{"type":"ERROR","object":{"code":410,"message":"too old"}}\n')

        async def read(bulk: Bulk) -> None:
            async for _ in bulk.watch("/x", Event):
                pass

        with pytest.raises(ApiError, match="too old"):
            ask(answer, read)

    def test_a_watch_that_is_left_leaves_no_socket(self, tmp_path: Path) -> None:
        """Also where the server, being busy, never says TLS's farewell."""
        if shutil.which("openssl") is None:
            pytest.skip("no openssl to make a certificate with. Remedy: apt-get install openssl")
        certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
        run(
            f"openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=test -addext "
            f"subjectAltName=IP:127.0.0.1 -keyout {key} -out {certificate}".split(),
            timeout_s=30,
        )
        seen = asyncio.Event()

        async def read(bulk: Bulk) -> None:
            async for _ in bulk.watch("/x", Event):
                seen.set()

        async def read_one(bulk: Bulk) -> None:
            reading = asyncio.create_task(read(bulk))
            await seen.wait()
            reading.cancel()
            await asyncio.wait([reading])

        with silent_tls_server(certificate, key, self.line("ADDED", "a", "2")) as url:
            run_bulk(read_one, TrustingEndpoint(certificate, url, "", "", ""))
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                gc.collect()
        assert [str(warning.message) for warning in caught] == []


@contextmanager
def silent_tls_server(certificate: Path, key: Path, event: bytes) -> Iterator[str]:
    """The URL of a server that answers a list, then a watch with one event, then reads and says no more."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    over = threading.Event()

    def serve() -> None:
        with context.wrap_socket(listener.accept()[0], server_side=True) as connection:
            connection.recv(65536)
            items = b'{"metadata":{"resourceVersion":"1"},"items":[]}'
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(items), items))
            connection.recv(65536)
            chunk = b"%x\r\n%s\r\n" % (len(event), event)
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk)
            over.wait(30)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve)
        server.start()
        try:
            yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            over.set()
            server.join()


class TestPages:
    def test_follow_the_continue_token_and_read_only_what_is_asked(self) -> None:
        asked: list[dict[str, str]] = []

        async def answer(request: web.Request) -> web.Response:
            asked.append(dict(request.query))
            first = int(request.query["continue"].removeprefix("from/") or 0)
            items = [{"name": f"n{n}", "unread": {}} for n in range(first, min(first + 3, 7))]
            token = f"from/{first + 3}" if first + 3 < 7 else ""
            metadata = {"continue": token, "resourceVersion": "1", "remainingItemCount": 9}
            return web.json_response({"kind": "List", "metadata": metadata, "items": items})

        async def read(bulk: Bulk) -> list[list[str]]:
            pages = bulk.pages("/api/v1/nodes", Item, selector="a/b=c d", page_size=3)
            return [[item.name for item in page] async for page in pages]

        assert ask(answer, read) == [["n0", "n1", "n2"], ["n3", "n4", "n5"], ["n6"]]
        assert [query["continue"] for query in asked] == ["", "from/3", "from/6"]
        assert {query["limit"] for query in asked} == {"3"}
        assert {query["labelSelector"] for query in asked} == {"a/b=c d"}

    def test_an_empty_list_is_one_empty_page(self) -> None:
        async def read(bulk: Bulk) -> list[list[Item]]:
            return [page async for page in bulk.pages("/x", Item)]

        assert ask(always(200, '{"metadata": {}, "items": []}'), read) == [[]]

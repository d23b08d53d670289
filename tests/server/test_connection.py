"""Bounds on connections that a test of the whole server would wait long for."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from rerank_server.__main__ import Server
from rerank_server.connection import Connection, Connections, limited
from rerank_server.metrics import Metrics
from rerank_server.settings import Settings

LARGE = 8 * 2**20


@dataclass
class Application:
    """Answers `/large` with much, `/wait` when `go` is set, and everything else with little."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: int = 0
    cancelled: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/wait":
            self.waiting += 1
            gone = asyncio.create_task(self._until_gone(receive))
            done = asyncio.create_task(self.go.wait())
            await asyncio.wait({gone, done}, return_when=asyncio.FIRST_COMPLETED)
            self.cancelled += not done.done()
            gone.cancel()
            done.cancel()
            self.waiting -= 1
        body = b"x" * (LARGE if scope["path"] == "/large" else 2)
        length = (b"content-length", str(len(body)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": body})

    async def _until_gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass


@dataclass
class Running:
    server: Server
    port: int
    application: Application
    shared: Connections
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    def open(self) -> int:
        return len(self.server.server_state.connections)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        return reader, writer

    async def send(self, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await self.connect()
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return reader, writer

    async def connection(self) -> Connection:
        """Return the only connection once it is open."""
        await self.until_open(1)
        [only] = self.server.server_state.connections
        assert isinstance(only, Connection)
        return only

    async def until_open(self, count: int) -> None:
        """Wait until so many connections are open; the test's own timeout is the deadline."""
        while self.open() != count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(**settings: object) -> AsyncIterator[Running]:
    chosen = Settings.model_validate({"model": "tiny"} | settings)
    application = Application()
    protocol = limited(chosen, Metrics())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(
            uvicorn.Config(
                application,
                http=protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                timeout_keep_alive=chosen.keep_alive_seconds,
                timeout_graceful_shutdown=1,
            )
        )
        task = asyncio.create_task(server.serve([listener]))
        port = listener.getsockname()[1]
        try:
            async with asyncio.timeout(30):
                started = Running(server, port, application, protocol.shared)
                yield started
        finally:
            application.go.set()
            for writer in started.writers:
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()
            server.should_exit = True
            await task


async def test_client_that_does_not_read_is_cut_off() -> None:
    async with running(keep_alive_seconds=1) as server:
        server.shared.flush_seconds = 0.1
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.setblocking(False)
        with raw:
            await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", server.port))
            raw.send(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
            await server.until_open(1)

            await server.until_open(0)


async def test_client_that_reads_slowly_gets_everything() -> None:
    async with running(keep_alive_seconds=1) as server:
        reader, _ = await server.send("/large")
        connection = await server.connection()
        while not connection.ended:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

        received = await reader.read()

    assert received.count(b"x") >= LARGE


async def test_idle_connection_is_closed_without_an_answer() -> None:
    async with running(keep_alive_seconds=1) as server:
        silent, _ = await server.connect()
        used, _ = await server.send("/")
        await used.readuntil(b"\r\n\r\nxx")

        rests = [await silent.read(), await used.read()]

    assert rests == [b"", b""]


async def test_no_connection_beyond_the_limit_is_served_while_all_are_busy(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running(max_connections=2) as server:
        busy = [await server.send("/wait") for _ in range(2)]
        while server.application.waiting < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

        with caplog.at_level("INFO"):
            refused, _ = await server.send("/")
            answer = await refused.readuntil(b"}")
        probe, _ = await server.send("/health")
        health = await probe.readuntil(b"\r\n\r\nxx")
        server.application.go.set()
        answers = [await reader.readuntil(b"\r\n\r\nxx") for reader, _ in busy]

    assert answer.startswith(b"HTTP/1.1 429")
    assert b"\r\nretry-after: " in answer
    assert b"\r\nx-request-id: " in answer
    assert b'"error_type":"overloaded"' in answer
    assert "refused a request" in caplog.text
    assert health.startswith(b"HTTP/1.1 200")
    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)


async def test_connection_that_waited_longest_makes_room() -> None:
    async with running(max_connections=3) as server:
        first, _ = await server.connect()
        used, _ = await server.send("/")
        await used.readuntil(b"\r\n\r\nxx")
        busy, _ = await server.send("/wait")
        third, _ = await server.connect()
        fourth, _ = await server.connect()

        gone = [await first.read(), await used.read()]
        server.application.go.set()
        answer = await busy.readuntil(b"\r\n\r\nxx")

        assert gone == [b"", b""]
        assert answer.startswith(b"HTTP/1.1 200")
        assert not third.at_eof()
        assert not fourth.at_eof()


async def test_every_request_of_a_lost_connection_is_given_up() -> None:
    async with running() as server:
        _, writer = await server.connect()
        writer.write(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
        while not server.application.waiting:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

        writer.transport.abort()
        await server.until_open(0)
        while server.application.waiting:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    assert server.application.cancelled == 1

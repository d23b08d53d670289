"""What one connection may bring and for how long; uvicorn's own protocol sets no such limits."""

import asyncio
import logging
import uuid
from collections import deque
from http import HTTPStatus
from typing import Any, ClassVar, cast

import httptools
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from rerank_server.answers import RETRY_AFTER_SECONDS, failure
from rerank_server.gate import OPEN_PATHS, REQUEST_ID_HEADER
from rerank_server.logs import log_refusal, request_id
from rerank_server.metrics import Metrics
from rerank_server.settings import Settings

log = logging.getLogger(__name__)

# Of the request line with all headers, and of the trailers of a chunked body.
MAX_HEAD_BYTES = 32 * 1024
MAX_HEADERS = 100
# Requests that may come in on one connection before the first of them is answered.
MAX_PIPELINED = 16
# After the last answer: for a client that still sends, and for one that is slow to read.
LINGER_SECONDS = 2.0
FLUSH_SECONDS = 60.0
# After SIGTERM: for a request that is on its way on a connection kept alive.
LATE_SECONDS = 1.0

TOO_LARGE = (
    431,
    "headers_too_large",
    f"the request line and headers are larger than {MAX_HEAD_BYTES:,} bytes, or more than "
    f"{MAX_HEADERS}: send fewer, or shorter ones",
)
MALFORMED = (400, "bad_request", "this is not a valid HTTP/1.1 request: check what sends it")


class Connections:
    """Bounds that all connections of one server share."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.most = settings.max_connections
        self.header_seconds = settings.header_seconds
        self.linger_seconds = LINGER_SECONDS
        self.flush_seconds = FLUSH_SECONDS
        self.metrics = metrics
        # Those that could go if there are too many, the longest waiting one first.
        self._waiting: dict[Connection, None] = {}

    def wait(self, connection: "Connection") -> None:
        """Put one at the end of those that wait for their client."""
        self.leave(connection)
        self._waiting[connection] = None

    def leave(self, connection: "Connection") -> None:
        """Take one out that does not, or no longer."""
        self._waiting.pop(connection, None)

    def make_room(self) -> None:
        """Cut off the client that has kept us waiting longest."""
        if oldest := next(iter(self._waiting), None):
            oldest.abort()


class Connection(HttpToolsProtocol):
    """One client's connection: uvicorn's HTTP/1.1, with bounds on size, time and number."""

    shared: ClassVar[Connections]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        self._raw = transport
        self._ended = False
        # The server is shutting down.
        self._leaving = False
        # Nothing more is read; what is here is answered.
        self._deaf = False
        # Requests without a complete answer, in the order in which they came.
        self._cycles: deque[RequestResponseCycle] = deque()
        self._in_head = False
        self._in_body = False
        self._keep_alive = True
        self._head_bytes = 0
        self._headers = 0
        # What has come since the parser last made something of it.
        self._pending_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._end_timer: asyncio.TimerHandle | None = None
        self._fault: tuple[int, str, str] | None = None
        # All that uvicorn asks a transport for, this one has.
        super().connection_made(cast(asyncio.Transport, _Transport(transport, self)))
        if len(self.connections) > self.shared.most:
            self.shared.make_room()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything, the work for this client too."""
        self._let_go()
        super().connection_lost(exc)
        self.shared.leave(self)
        if self._end_timer:
            self._end_timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Parse what came, within the bounds."""
        if self._ended or self._deaf:
            return
        self._unset_keepalive_if_required()
        if not self._cycles and not self._head_timer:
            seconds = self.shared.header_seconds
            self._head_timer = self.loop.call_later(seconds, self._on_late_head)
        self._pending_bytes += len(data)
        try:
            self._parse(data)
        except httptools.HttpParserError as error:
            log.debug("the parser stopped", exc_info=error)
            self._refuse(*self._fault or MALFORMED)
        if self._pending_bytes > MAX_HEAD_BYTES:
            self._refuse(*TOO_LARGE)

    def on_message_begin(self) -> None:
        """Note that a request line has begun."""
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = self._headers = 0
        if not self._cycles:
            self.shared.wait(self)

    def on_url(self, url: bytes) -> None:
        """Count a part of the request line."""
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count and keep a header; count and drop a trailer.

        Who checks headers on the way here does not look into trailers.
        """
        self._headers += 1
        self._count(len(name) + len(value) + len(": \r\n"))
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start on the request, unless there are too many."""
        if len(self._cycles) >= MAX_PIPELINED:
            raise httptools.HttpParserError("too many requests at once")
        if self.parser.get_method() == b"CONNECT":
            raise httptools.HttpParserError("this is no proxy")
        if self.parser.should_upgrade():
            return
        self._stop_head_timer()
        crowded = len(self.connections) > self.shared.most
        path = self.url.partition(b"?")[0].decode("latin-1")
        self.app = _turn_away if crowded and path not in OPEN_PATHS else self.config.loaded_app
        super().on_headers_complete()
        self._cycles.append(self.cycle)
        self._in_head, self._in_body = False, True
        self._pending_bytes = self._head_bytes = self._headers = 0
        # An answer that comes before the end of the body is the last on this connection.
        self._keep_alive = self.cycle.keep_alive and not self._leaving
        self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Hand on a part of the body."""
        self._pending_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the whole request is here."""
        if self._in_head:
            return
        self._in_body = False
        self._pending_bytes = 0
        self.shared.leave(self)
        if not self.cycle.response_started:
            self.cycle.keep_alive = self._keep_alive
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with the next request, or wait for it."""
        self._cycles.popleft()
        super().on_response_complete()
        if not self._cycles and not self._ended:
            self._wait()

    def shutdown(self) -> None:
        """Answer what is here or about to come, then close."""
        self._leaving = True
        self._keep_alive = False
        for cycle in self._cycles:
            cycle.keep_alive = False
        if not self._cycles and not self._in_head:
            self._wait()

    @property
    def ended(self) -> bool:
        """Whether nothing is read or answered any more."""
        return self._ended

    def end(self) -> None:
        """Close once the client has what it was sent.

        A socket that closes with bytes unread sends a reset, which overtakes the answer.
        """
        if self._ended:
            return
        self._let_go()
        if self._in_head or self._in_body:
            self.flow.resume_reading()
            self._raw.write_eof()
            seconds = self.shared.linger_seconds
        else:
            self._raw.close()
            seconds = self.shared.flush_seconds
        self._end_timer = self.loop.call_later(seconds, self._raw.abort)

    def abort(self) -> None:
        """Close at once."""
        self._let_go()
        self._raw.abort()

    def _parse(self, data: bytes) -> None:
        while True:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
            # The parser leaves everything after these headers to the other protocol. We speak
            # none, and Java's client asks for h2c with each first request, its body right behind.
            lines = [self.parser.get_method() + b" " + self.url + b" HTTP/1.1"]
            lines += [
                name + b": " + value
                for name, value in self.headers
                if name not in {b"connection", b"upgrade", b"http2-settings"}
            ]
            self.parser = httptools.HttpRequestParser(self)
            self.parser.feed_data(b"\r\n".join([*lines, b"", b""]))

    def _wait(self) -> None:
        self.shared.wait(self)
        self._unset_keepalive_if_required()
        seconds = LATE_SECONDS if self._leaving else self.timeout_keep_alive
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.end)

    def _let_go(self) -> None:
        self._ended = True
        # What is still to be flushed waits for the client, too.
        self.shared.wait(self)
        self._stop_head_timer()
        self._unset_keepalive_if_required()
        for cycle in self._cycles:
            cycle.disconnected = True
            cycle.message_event.set()

    def _stop_head_timer(self) -> None:
        if self._head_timer:
            self._head_timer.cancel()
            self._head_timer = None

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES or self._headers > MAX_HEADERS:
            self._fault = TOO_LARGE
            raise httptools.HttpParserError("too large")

    def _on_late_head(self) -> None:
        self._head_timer = None
        if self._in_head:
            seconds = self.shared.header_seconds
            message = f"the headers did not arrive within {seconds} s: send them at once"
            self._refuse(408, "request_timeout", message)
        else:
            # Nothing but line ends, which may stand between two requests.
            self.end()

    def _refuse(self, status: int, kind: str, message: str) -> None:
        """Answer in place of the application, unless it would be taken for another answer."""
        if self._ended or self._deaf:
            return
        request_id.set(own_id := uuid.uuid4().hex)
        log_refusal(status, kind, message, {"client": self.client})
        self.shared.metrics.refused.labels(error_type=kind).inc()
        if self._cycles and not self._in_body:
            self._deaf = self._in_head = True
            self.cycle.keep_alive = self._keep_alive = False
            return
        if not self._cycles or (len(self._cycles) == 1 and not self.cycle.response_started):
            own = {"Connection": "close", REQUEST_ID_HEADER: own_id}
            response = failure(status, kind, message, own)
            headers = [*self.server_state.default_headers, *response.raw_headers]
            lines = [
                f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode(),
                *(name + b": " + value for name, value in headers),
            ]
            self._raw.write(b"\r\n".join([*lines, b"", bytes(response.body)]))
        # More may be on its way.
        self._in_head = True
        self.end()


def limited(settings: Settings, metrics: Metrics) -> type[Connection]:
    """Return the protocol of one server, in the form that uvicorn takes it."""
    return type("Connection", (Connection,), {"shared": Connections(settings, metrics)})


class _Transport:
    """A transport that leaves to the connection how to close."""

    def __init__(self, transport: asyncio.Transport, connection: Connection) -> None:
        self._transport = transport
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        self._connection.end()

    def is_closing(self) -> bool:
        return self._connection.ended or self._transport.is_closing()


async def _turn_away(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    kind, message = "overloaded", "too many connections are open: try again later"
    request_id.set(own_id := uuid.uuid4().hex)
    log_refusal(429, kind, message, cast(Any, scope))
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS), REQUEST_ID_HEADER: own_id}
    await failure(429, kind, message, headers)(
        cast(Any, scope), cast(Any, receive), cast(Any, send)
    )

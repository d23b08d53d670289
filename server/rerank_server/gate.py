"""Who may send a request, how many, and under which id; before any of it is read."""

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import math
import re
import time
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from rerank_server import ui
from rerank_server.answers import failure
from rerank_server.dialects import ROUTES
from rerank_server.logs import log_refusal, request_id
from rerank_server.metrics import Metrics
from rerank_server.settings import Settings

log = logging.getLogger(__name__)

# What the gate refuses with: status and `error_type`.
UNAUTHORIZED = (401, "unauthorized")
RATE_LIMITED = (429, "rate_limited")
REFUSALS = (UNAUTHORIZED, RATE_LIMITED)

# For Kubernetes and Prometheus, which come without a token, often, and each time on a new
# connection. Everything else is guarded, routes still to be written among them; but not the page
# where there is one, on which a token is given.
OPEN_PATHS = frozenset({"/health", "/ready", "/metrics"})

REQUEST_ID_HEADER = "x-request-id"
# What may go into logs and back into a header as it came.
SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")

# Buckets of clients remembered at once, some 200 bytes each.
MAX_CLIENTS = 20_000
# One address of IPv6 costs its owner nothing; a network of this size is what a site has at least.
IPV6_PREFIX = 64


def guard(app: Starlette, settings: Settings, metrics: Metrics) -> None:
    """Put the gate before every route of `app`, those to come too."""
    app.add_middleware(Gate, settings=settings, metrics=metrics)
    # Around the gate: a browser shows its page a refusal only if that has these headers, too.
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["Retry-After", REQUEST_ID_HEADER],
        )
    if settings.trusted_proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=_peers(settings))


def _peers(settings: Settings) -> list[str]:
    peers = []
    for text in settings.trusted_proxies:
        peers.append(text)
        network = ipaddress.ip_network(text)
        if network.version == 4:
            # The same as IPv6 writes them.
            peers.append(f"::ffff:{network.network_address}/{96 + network.prefixlen}")
    return peers


class Refusal(NamedTuple):
    """An answer in place of the application's."""

    status: int
    kind: str
    message: str
    headers: Mapping[str, str]


class Rates:
    """How many requests each client may still send: a bucket that fills once a minute."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        # What is left, and when that was so; the client seen longest ago comes first.
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str, now: float) -> float:
        """Return how many seconds `client` has to wait; 0 lets the request pass.

        `now` is in seconds on any clock that only goes forward.
        """
        left, since = self._buckets.pop(client, (float(self._per_minute), now))
        left = min(self._per_minute, left + (now - since) * self._per_minute / 60)
        passes = left >= 1
        self._buckets[client] = (left - passes, now)
        self._forget(now)
        return 0.0 if passes else (1 - left) * 60 / self._per_minute

    def __len__(self) -> int:
        return len(self._buckets)

    def _forget(self, now: float) -> None:
        # After a minute a bucket is full, as if the client had never been here.
        while self._buckets:
            client, (_, since) = next(iter(self._buckets.items()))
            if now - since < 60 and len(self._buckets) <= MAX_CLIENTS:
                return
            del self._buckets[client]


class Gate:
    """ASGI middleware: answers what may not pass, and gives every answer the request's id."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        self._open_paths = OPEN_PATHS | ({ui.PATH} if settings.ui else set())
        per_minute = settings.requests_per_minute_per_client
        self._rates = Rates(per_minute) if per_minute else None
        # Of one length, so that comparing takes the same time whatever is sent.
        self._tokens = [_digest(token.encode()) for token in settings.tokens]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        own_id = _request_id(scope)
        request_id.set(own_id)
        started = False

        async def answer(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = own_id
            await send(message)

        if refusal := self._refusal(scope):
            self._metrics.refused.labels(error_type=refusal.kind).inc()
            if scope["path"] in ROUTES:
                self._metrics.requests.labels(code=str(refusal.status)).inc()
            log_refusal(refusal.status, refusal.kind, refusal.message, scope)
            await failure(*refusal)(scope, receive, answer)
            return
        try:
            await self._app(scope, receive, answer)
        except asyncio.CancelledError:
            # uvicorn does so at the end of a drain.
            if not started:
                message = "the server is shutting down: try again later"
                await failure(503, "not_ready", message)(scope, receive, answer)
            raise
        except Exception:
            if started:
                raise
            log.exception("a request broke the server")
            await failure(500, "internal_error", "internal error")(scope, receive, answer)

    def _refusal(self, scope: Scope) -> Refusal | None:
        if scope["path"] in self._open_paths:
            return None
        if self._rates is not None and (
            seconds := self._rates.take(client_of(scope), time.monotonic())
        ):
            whole = math.ceil(seconds)
            message = f"too many requests from one client: try again in {whole} s"
            return Refusal(*RATE_LIMITED, message, {"Retry-After": str(whole)})
        if self._tokens and not self._authorized(scope):
            message = "the token is missing or wrong: send the header Authorization: Bearer TOKEN"
            return Refusal(*UNAUTHORIZED, message, {"WWW-Authenticate": "Bearer"})
        return None

    def _authorized(self, scope: Scope) -> bool:
        values = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(values) != 1:
            return False
        scheme, _, token = values[0].partition(b" ")
        given = _digest(token.strip())
        matches = [hmac.compare_digest(given, known) for known in self._tokens]
        return scheme.lower() == b"bearer" and any(matches)


def client_of(scope: Scope) -> str:
    """Return what stands for the client: its IPv4 address, or the network of its IPv6 address."""
    host = scope["client"][0] if scope.get("client") else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        # A trusted proxy that hides its clients ("unknown", "_hidden"): together they are one.
        return "unknown"
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), IPV6_PREFIX), strict=False))


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == REQUEST_ID_HEADER.encode():
            given = value.decode("latin-1")
            if SANE_REQUEST_ID.fullmatch(given):
                return str(given)
    return uuid.uuid4().hex


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()

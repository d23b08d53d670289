"""HTTP in front of a pipeline: routes, health and status codes; nothing about models."""

import asyncio
import logging
import math
import time
import uuid
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from rerank_server.answers import failure
from rerank_server.dialects import ROUTES, About, read
from rerank_server.errors import (
    BadRequest,
    Blocked,
    DeadlineExceeded,
    EngineFailed,
    NotReady,
    Overloaded,
    TooLarge,
    TooSlow,
)
from rerank_server.gate import guard
from rerank_server.logs import log_refusal
from rerank_server.metrics import Metrics
from rerank_server.patterns import BlockedPatterns
from rerank_server.pipeline import Pipeline
from rerank_server.settings import Settings

log = logging.getLogger(__name__)

# The whole mapping from failures to HTTP: status and `error_type`. Routes raise; they never
# pick a code.
FAILURES: dict[type[Exception], tuple[int, str]] = {
    BadRequest: (400, "invalid_request"),
    Blocked: (400, "blocked"),
    TooSlow: (408, "request_timeout"),
    TooLarge: (413, "too_large"),
    Overloaded: (429, "overloaded"),
    EngineFailed: (500, "internal_error"),
    NotReady: (503, "not_ready"),
    DeadlineExceeded: (504, "deadline_exceeded"),
}

# Nobody reads it: the client has gone. nginx and others count such requests as 499 too.
CLIENT_GONE = 499

# Seconds that the caller waits for an answer, at most.
DEADLINE_HEADER = "x-request-timeout"

T = TypeVar("T")


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


def create_app(pipeline: Pipeline, metrics: Metrics, settings: Settings) -> FastAPI:
    """Build the application. The caller starts, drains and closes `pipeline`."""
    # No documentation pages: they load their scripts from a public server.
    app = FastAPI(title="reranker", docs_url=None, redoc_url=None, openapi_url=None)

    blocked = BlockedPatterns(settings.blocked_patterns)

    async def rank(request: Request) -> Response:
        """Order documents by relevance to a query."""
        deadline_seconds = _deadline(request)
        body = await _body(request, settings)
        # In a thread: a large body takes long enough to hold up a health probe.
        asked = await asyncio.to_thread(read, request.url.path, body)
        rankings = asked.rankings()
        if blocked:
            await asyncio.to_thread(blocked.check, rankings)
        scored = await _unless_gone(request, pipeline.score(rankings, deadline_seconds))
        about = About(f"rerank-{uuid.uuid4().hex}", settings.name, int(time.time()))
        answer = await asyncio.to_thread(lambda: to_json(asked.answer(scored, about)))
        return Response(answer, media_type="application/json")

    async def counted(request: Request) -> Response:
        started = time.monotonic()
        code, kind = 500, "internal_error"
        try:
            response = await rank(request)
            code, kind = response.status_code, ""
            return response
        except (ClientDisconnect, ClientGone):
            code, kind = CLIENT_GONE, "client_gone"
            return Response(status_code=CLIENT_GONE)
        except tuple(FAILURES) as error:
            code, kind = FAILURES[type(error)]
            return _on_failure(request, error)
        finally:
            metrics.requests.labels(code=str(code)).inc()
            if kind:
                metrics.refused.labels(error_type=kind).inc()
            metrics.request_seconds.observe(time.monotonic() - started)

    for path in ROUTES:
        app.add_api_route(path, counted, methods=["POST"])

    @app.get("/health")
    async def health() -> Response:
        """Tell whether the process is worth keeping; a model that still loads is."""
        if reason := pipeline.dead:
            return JSONResponse({"status": "DEAD", "reason": reason}, 503)
        return JSONResponse({"status": "OK"})

    @app.get("/ready")
    async def ready() -> Response:
        """Tell whether to send requests here."""
        if reason := pipeline.unready:
            return JSONResponse({"status": "NOT_READY", "reason": reason}, 503)
        return JSONResponse({"status": "READY", "model": settings.name})

    @app.get("/metrics")
    async def prometheus() -> Response:
        """Return all metrics in the Prometheus text format."""
        return PlainTextResponse(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> Response:
        # Raised by the router: 404 and 405.
        kind = HTTPStatus(error.status_code).name.lower()
        log_refusal(error.status_code, kind, str(error.detail), request.scope)
        return failure(error.status_code, kind, str(error.detail), error.headers)

    guard(app, settings, metrics)
    return app


def _deadline(request: Request) -> float | None:
    value = request.headers.get(DEADLINE_HEADER)
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise BadRequest(
            f"the header {DEADLINE_HEADER} is {value[:20]!r}: give a number of seconds above 0"
        )
    return seconds


async def _body(request: Request, settings: Settings) -> bytes:
    """Read the body; `TooLarge` comes before the first byte where its length is announced."""
    limit = settings.max_body_bytes
    # The HTTP parser has refused a length that is no number.
    announced = int(request.headers.get("content-length", 0))
    body = bytearray()
    try:
        async with asyncio.timeout(settings.body_seconds):
            if announced <= limit:
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > limit:
                        break
    except TimeoutError as error:
        raise TooSlow(
            f"the body did not arrive within {settings.body_seconds} s, the limit of a request: "
            "send a smaller one"
        ) from error
    if max(announced, len(body)) > limit:
        raise TooLarge(
            f"the body is larger than {limit:,} bytes, the limit of a request: "
            "send fewer documents at a time, or shorter ones"
        )
    return bytes(body)


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Wait for `work` unless the client goes first; then cancel it and raise `ClientGone`."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_until_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return await task
    finally:
        # Also when the server itself gives up waiting at the end of a drain.
        task.cancel()
        gone.cancel()


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _on_failure(request: Request, error: Exception) -> Response:
    status, kind = FAILURES[type(error)]
    if status == 500:
        log.error("the engine failed", exc_info=error)
        return failure(status, kind, "internal error")
    # Some clients keep every reason to themselves.
    log_refusal(status, kind, str(error), request.scope)
    headers = {}
    if isinstance(error, Overloaded):
        headers["Retry-After"] = str(error.retry_after_seconds)
    return failure(status, kind, str(error), headers)

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
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from rerank_server import __version__, ui
from rerank_server.admission import Arriving
from rerank_server.answers import failure
from rerank_server.dialects import ROUTES, About, read
from rerank_server.dialects.service import RERANKER, Info, Models, models
from rerank_server.errors import (
    BadRequest,
    Blocked,
    DeadlineExceeded,
    EngineFailed,
    NotReady,
    Overloaded,
    TooLarge,
    TooSlow,
    UnknownEncoding,
    UnknownModel,
)
from rerank_server.gate import REFUSALS, guard
from rerank_server.logs import log_refusal
from rerank_server.metrics import Metrics
from rerank_server.openapi import DESCRIPTION, complete
from rerank_server.pipeline import Pipeline
from rerank_server.settings import Settings

log = logging.getLogger(__name__)

# The whole mapping from failures to HTTP: status and `error_type`. Routes raise; they never
# pick a code.
FAILURES: dict[type[Exception], tuple[int, str]] = {
    BadRequest: (400, "invalid_request"),
    Blocked: (400, "blocked"),
    UnknownModel: (404, "model_not_found"),
    TooSlow: (408, "request_timeout"),
    TooLarge: (413, "too_large"),
    UnknownEncoding: (415, "unsupported_encoding"),
    Overloaded: (429, "overloaded"),
    EngineFailed: (500, "internal_error"),
    NotReady: (503, "not_ready"),
    DeadlineExceeded: (504, "deadline_exceeded"),
}

# Nobody reads it: the client has gone. nginx and others count such requests as 499 too.
CLIENT_GONE = 499

# Seconds that the caller waits for an answer, at most.
DEADLINE_HEADER = "x-request-timeout"

# How many of the longest bodies may be on their way at once; shorter ones can be more.
BODIES_AT_ONCE = 16

T = TypeVar("T")


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


def create_app(pipeline: Pipeline, metrics: Metrics, settings: Settings) -> FastAPI:
    """Build the application. The caller starts, drains and closes `pipeline`."""
    # FastAPI's own page loads its scripts from a public server, this one has them with it.
    app = FastAPIOffline(
        title="Reranker",
        version=__version__,
        description=DESCRIPTION,
        redoc_url=None,
        # A redirect would name the host of this side of a proxy.
        redirect_slashes=False,
        # As would this do with the description.
        swagger_ui_parameters={"validatorUrl": None},
    )

    arriving = Arriving(BODIES_AT_ONCE * settings.max_body_bytes)

    async def rank(request: Request) -> Response:
        """Order documents by relevance to a query."""
        started = time.monotonic()
        deadline_seconds = _deadline(request)
        # In a thread: a large body takes long enough to hold up a health probe. It has no name
        # here, which would keep it for as long as the request waits.
        asked = await asyncio.to_thread(
            read, request.url.path, await _body(request, settings, arriving)
        )
        if settings.strict_model_name and asked.model and asked.model != settings.name:
            raise UnknownModel(
                f"the request names another model than {settings.name}, the only one here: give "
                "that name, or leave model out"
            )
        work = pipeline.score(asked.rankings(), deadline_seconds, started)
        scored = await _unless_gone(request, work)
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
        except asyncio.CancelledError:
            # The end of a drain; the gate answers.
            code, kind = FAILURES[NotReady]
            raise
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

    created = int(time.time())

    @app.get("/v1/models")
    async def list_models() -> Models:
        """List the one model, in OpenAI's form."""
        return models(settings.name, created, pipeline.max_model_len)

    @app.get("/info")
    async def info() -> Info:
        """Describe model and limits, in the form of Text Embeddings Inference."""
        return {
            "model_id": settings.name,
            "model_sha": settings.revision,
            "model_dtype": settings.dtype,
            "model_type": RERANKER,
            "max_input_length": pipeline.max_model_len,
            "max_client_batch_size": min(settings.max_documents, settings.max_queued_pairs),
            "auto_truncate": settings.truncate,
            "version": __version__,
        }

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

    if settings.ui:
        page = ui.read_page(guarded=bool(settings.tokens))
        page_headers = {"Content-Security-Policy": ui.security_policy(page)}

        # For people: as /docs, it is no part of the description.
        @app.get(ui.PATH, include_in_schema=False)
        async def show_page() -> Response:
            """Return the page on which people can try the service."""
            return HTMLResponse(page, headers=page_headers)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
            )
            app.openapi_schema = complete(document, [*FAILURES.values(), *REFUSALS])
        return app.openapi_schema

    # The way that FastAPI's documentation gives.
    app.openapi = openapi  # type: ignore[method-assign]

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


async def _body(request: Request, settings: Settings, arriving: Arriving) -> bytes:
    """Read the body; `TooLarge` comes before the first byte where its length is announced."""
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        raise UnknownEncoding(
            f"the header Content-Encoding is {encoding[:20]!r}: send the body uncompressed"
        )
    limit = settings.max_body_bytes
    # The HTTP parser has refused a length that is no number.
    announced = int(request.headers.get("content-length", 0))
    body = bytearray()
    try:
        async with asyncio.timeout(settings.body_seconds):
            if announced <= limit:
                async for chunk in request.stream():
                    arriving.add(len(chunk))
                    body += chunk
                    if len(body) > limit:
                        break
    except TimeoutError as error:
        raise TooSlow(
            f"the body did not arrive within {settings.body_seconds} s, the limit of a request: "
            "send a smaller one"
        ) from error
    finally:
        arriving.remove(len(body))
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
    reason = error.for_log if isinstance(error, BadRequest) else str(error)
    log_refusal(status, kind, reason, request.scope)
    headers = {}
    if isinstance(error, Overloaded):
        headers["Retry-After"] = str(error.retry_after_seconds)
    return failure(status, kind, str(error), headers)

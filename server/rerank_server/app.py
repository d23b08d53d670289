"""HTTP in front of a pipeline: routes, health and status codes; nothing about models."""

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from rerank_server.dialects import jina, parse
from rerank_server.errors import BadRequest, EngineFailed, NotReady, TooLarge
from rerank_server.metrics import Metrics
from rerank_server.pipeline import Pipeline
from rerank_server.ranking import rank

log = logging.getLogger(__name__)

# The whole mapping from failures to HTTP: status and `error_type`. Routes raise; they never
# pick a code.
FAILURES: dict[type[Exception], tuple[int, str]] = {
    BadRequest: (400, "invalid_request"),
    TooLarge: (413, "too_large"),
    NotReady: (503, "not_ready"),
    EngineFailed: (500, "internal_error"),
}

# Nobody reads it: the client has gone. nginx and others count such requests as 499 too.
CLIENT_GONE = 499

RETRY_AFTER_SECONDS = 5

# Every running request holds its body in memory, and nothing else bounds it.
MAX_BODY_MIB = 16


def create_app(pipeline: Pipeline, metrics: Metrics, model: str) -> FastAPI:
    """Build the application; `model` is the name in answers.

    The caller starts, drains and closes `pipeline`.
    """
    # No documentation pages: they load their scripts from a public server.
    app = FastAPI(title="reranker", docs_url=None, redoc_url=None, openapi_url=None)

    async def answer_jina(body: bytes) -> Response:
        request = parse(jina.RerankRequest, body)
        scored = await pipeline.score(request.query, request.documents, request.instruction)
        return JSONResponse(
            jina.answer(
                request,
                rank(scored.scores, request.top_n),
                request_id=f"rerank-{uuid.uuid4().hex}",
                model=model,
                tokens=scored.tokens,
                truncated=scored.truncated,
            )
        )

    @app.post("/v1/rerank")
    @app.post("/rerank")
    async def rerank(request: Request) -> Response:
        """Order documents by relevance to a query."""
        started = time.monotonic()
        code = 500
        try:
            response = await _answer(request, answer_jina)
            code = response.status_code
            return response
        finally:
            metrics.requests.labels(code=str(code)).inc()
            metrics.request_seconds.observe(time.monotonic() - started)

    @app.get("/health")
    async def health() -> Response:
        """Tell whether the process is worth keeping; a model that still loads is."""
        if pipeline.alive:
            return JSONResponse({"status": "OK"})
        return JSONResponse({"status": "DEAD", "reason": "the engine has died"}, 503)

    @app.get("/ready")
    async def ready() -> Response:
        """Tell whether to send requests here."""
        if reason := pipeline.unready:
            return JSONResponse({"status": "NOT_READY", "reason": reason}, 503)
        return JSONResponse({"status": "READY", "model": model})

    @app.get("/metrics")
    async def prometheus() -> Response:
        """Return all metrics in the Prometheus text format."""
        return PlainTextResponse(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.exception_handler(HTTPException)
    async def on_http(_: Request, error: HTTPException) -> Response:
        # Raised by the router: 404 and 405.
        kind = HTTPStatus(error.status_code).name.lower()
        return _failure(error.status_code, kind, str(error.detail), error.headers)

    @app.exception_handler(Exception)
    async def on_bug(_: Request, error: Exception) -> Response:
        # Starlette raises it again after this answer, and uvicorn logs it.
        return _failure(500, "internal_error", "internal error")

    return app


async def _answer(request: Request, answer: Callable[[bytes], Awaitable[Response]]) -> Response:
    """Answer a request unless its client goes first; then its work is cancelled."""
    try:
        body = await _body(request)
    except ClientDisconnect:
        return Response(status_code=CLIENT_GONE)
    except TooLarge as error:
        return _on_failure(error)
    work = asyncio.ensure_future(answer(body))
    gone = asyncio.ensure_future(_until_gone(request))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            return Response(status_code=CLIENT_GONE)
        return await work
    except tuple(FAILURES) as error:
        return _on_failure(error)
    finally:
        # Also when the server itself gives up waiting at the end of a drain.
        work.cancel()
        gone.cancel()


async def _body(request: Request) -> bytes:
    """Read the body; `TooLarge` comes before the first byte where its length is announced."""
    limit = MAX_BODY_MIB * 2**20
    # The HTTP parser has refused a length that is no number.
    announced = int(request.headers.get("content-length", 0))
    body = bytearray()
    if announced <= limit:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                break
    if max(announced, len(body)) > limit:
        raise TooLarge(
            f"the body is larger than {MAX_BODY_MIB} MiB, the limit of a request: "
            "send fewer documents at a time, or shorter ones"
        )
    return bytes(body)


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _on_failure(error: Exception) -> Response:
    status, kind = FAILURES[type(error)]
    if status == 500:
        log.error("the engine failed", exc_info=error)
        return _failure(status, kind, "internal error")
    return _failure(status, kind, str(error))


def _failure(
    status: int, kind: str, message: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Return an error under each key that some client reads."""
    if status == 503:
        headers = {"Retry-After": str(RETRY_AFTER_SECONDS), **(headers or {})}
    content = {"error": message, "error_type": kind, "message": message, "detail": message}
    return JSONResponse(content, status, headers)

"""The form of every answer that is no ranking."""

from collections.abc import Mapping

from fastapi.responses import JSONResponse

RETRY_AFTER_SECONDS = 5


def failure(
    status: int, kind: str, message: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Return an error under each key that some client reads."""
    if status == 503:
        headers = {"Retry-After": str(RETRY_AFTER_SECONDS), **(headers or {})}
    content = {"error": message, "error_type": kind, "message": message, "detail": message}
    return JSONResponse(content, status, headers)

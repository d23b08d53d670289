"""Log records as JSON lines on stdout, for this process and for those vLLM starts."""

import json
import logging
import logging.config
import time
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

# Of the request that is being served.
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

REFUSALS = "rerank_server.refusals"
# Of refusals: so many lines at once, and so many a second after that.
BURST_LINES = 50
LINES_PER_SECOND = 1.0
MAX_PATH_CHARS = 100

# What every record has; anything beyond it came in through `extra`.
_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "color_message"}


class JsonFormatter(logging.Formatter):
    """One object per record: time, level, logger, message, then the values of `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line without a line break in it."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if own_id := request_id.get():
            entry["request_id"] = own_id
        entry |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str, ensure_ascii=False)


class Sparse(logging.Filter):
    """Lets few records a second pass: whoever floods us with requests shall not flood the log."""

    def __init__(self) -> None:
        super().__init__()
        self._left = float(BURST_LINES)
        self._since = time.monotonic()
        self._dropped = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether `record` passes; the next one that does says how many did not."""
        now = time.monotonic()
        self._left = min(BURST_LINES, self._left + (now - self._since) * LINES_PER_SECOND)
        self._since = now
        if self._left < 1:
            self._dropped += 1
            return False
        self._left -= 1
        if self._dropped:
            record.not_logged_before = self._dropped
            self._dropped = 0
        return True


def log_refusal(status: int, kind: str, reason: str, scope: Mapping[str, Any]) -> None:
    """Note why a request got no scores; `reason` is what its answer says.

    `scope` is that of ASGI; one without method and path will do.
    """
    client = scope.get("client")
    logging.getLogger(REFUSALS).info(
        "refused a request",
        extra={
            "status": status,
            "error_type": kind,
            "reason": reason,
            "method": scope.get("method"),
            "path": scope.get("path", "")[:MAX_PATH_CHARS],
            "client": client[0] if client else None,
        },
    )


def logging_config(level: str, loggers: Mapping[str, str]) -> dict[str, Any]:
    """Describe JSON logging in the form of `logging.config.dictConfig`.

    `level` is the root's; `loggers` gives the levels of those that differ.
    """
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": "rerank_server.logs.JsonFormatter"}},
        "handlers": {
            "stdout": {
                "class": "logging.StreamHandler",
                "formatter": "json",
                "stream": "ext://sys.stdout",
            }
        },
        "root": {"handlers": ["stdout"], "level": level},
        "loggers": {name: {"level": own} for name, own in loggers.items()},
    }


def set_up_logging(level: str) -> None:
    """Send every logger of this process to stdout."""
    # uvicorn tells of its own steps at INFO, in words for a terminal; ours say the same.
    logging.config.dictConfig(logging_config(level, {"uvicorn": "WARNING", "httpx": "WARNING"}))
    logging.captureWarnings(True)

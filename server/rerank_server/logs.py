"""Log records as JSON lines on stdout, for this process and for those vLLM starts."""

import io
import json
import logging
import logging.config
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# Of the request that is being served.
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

REFUSALS = "rerank_server.refusals"
# Of refusals: so many lines at once, and so many a second after that.
BURST_LINES = 50
LINES_PER_SECOND = 1.0
MAX_PATH_CHARS = 100

FILE_NAME = "errors.log"
FILE_BYTES = 10 * 2**20
OLD_FILES = 4

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

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds."""
        super().__init__()
        self._clock = clock
        self._left = float(BURST_LINES)
        self._since = clock()
        self._dropped = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether `record` passes; the next one that does says how many did not."""
        now = self._clock()
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
    values = {"status": status, "error_type": kind, "reason": reason}
    if client := scope.get("client"):
        values["client"] = client[0]
    if path := scope.get("path"):
        values |= {"method": scope["method"], "path": path[:MAX_PATH_CHARS]}
    logging.getLogger(REFUSALS).info("refused a request", extra=values)


def logging_config(level: str, directory: Path | None, *, rotate: bool) -> dict[str, Any]:
    """Describe JSON logging in the form of `logging.config.dictConfig`.

    `level` is that of Settings. Warnings and errors go into a file in `directory`, too; one
    process alone may `rotate` it.
    """
    handlers: dict[str, Any] = {
        "stdout": {
            "class": "logging.StreamHandler",
            "formatter": "json",
            "stream": "ext://sys.stdout",
        }
    }
    if directory is not None:
        follow = {"class": "logging.handlers.WatchedFileHandler"}
        turn = {
            "class": "logging.handlers.RotatingFileHandler",
            "maxBytes": FILE_BYTES,
            "backupCount": OLD_FILES,
        }
        handlers["file"] = (turn if rotate else follow) | {
            "formatter": "json",
            "level": "WARNING",
            "filename": str(directory / FILE_NAME),
            "encoding": "utf-8",
            "errors": "backslashreplace",
        }
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": "rerank_server.logs.JsonFormatter"}},
        "handlers": handlers,
        "root": {"handlers": list(handlers), "level": level.upper()},
        "loggers": {
            # uvicorn tells of its own steps at INFO, in words for a terminal; ours say the same.
            "uvicorn": {"level": "WARNING"},
            "httpx": {"level": "WARNING"},
        },
    }


def set_up_logging(level: str, directory: Path | None) -> None:
    """Send every logger of this process to stdout, and to a file in `directory` if there is one.

    Raises:
        OSError: no file can be written there.
    """
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        # dictConfig would wrap what goes wrong in an error without a cause for a person.
        with (directory / FILE_NAME).open("a"):
            pass
    logging.config.dictConfig(logging_config(level, directory, rotate=True))
    refusals = logging.getLogger(REFUSALS)
    if not refusals.filters:
        refusals.addFilter(Sparse())
    logging.captureWarnings(True)


def speak_utf8() -> None:
    """Write UTF-8 to stdout and stderr whatever the locale says, here and in child processes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    os.environ["PYTHONUTF8"] = "1"
    os.environ["PYTHONIOENCODING"] = "utf-8:backslashreplace"


def leave_last_words(text: str, file: Path = Path("/dev/termination-log")) -> None:
    """Leave `text` where Kubernetes reads why a container ended; outside of a pod do nothing."""
    if file.exists():
        file.write_text(text, encoding="utf-8")

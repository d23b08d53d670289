"""Log lines: one JSON object each, and none of them a thousand times over."""

import json
import logging
import sys
from datetime import UTC, datetime

# What is said once for each of many objects, or at each try, is written this often.
REPEAT_SECONDS = 30.0


class Seldom(logging.Filter):
    """Lets what an absent API server makes everybody say through now and then, as a warning.

    kopf logs each retry of each watch as an error, and the passes of a thousand objects fail alike.
    """

    _MESSAGES = (
        "failed; will retry: ",
        "API server unavailable, will retry",
        "cannot list",
        "cannot take the lease",
        "not well",
    )

    def __init__(self) -> None:
        super().__init__()
        self._next: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        kind = next((text for text in self._MESSAGES if text in message), None)
        if kind is None:
            return True
        if record.created < self._next.get(kind, 0):
            return False
        self._next[kind] = record.created + REPEAT_SECONDS
        record.levelno = min(record.levelno, logging.WARNING)
        record.levelname = logging.getLevelName(record.levelno)
        return True


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and whatever came in `extra`."""

    _OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if not record.name.startswith("kopf"):  # kopf hangs whole objects on its records
            entry |= {key: value for key, value in vars(record).items() if key not in self._OWN}
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def log_as_json(level: str) -> None:
    """Have our own records from `level` on, and warnings of libraries, written to stdout."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(Seldom())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("rerank_operator").setLevel(level)

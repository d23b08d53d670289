"""Log records as JSON lines on stdout, for this process and for those vLLM starts."""

import json
import logging
import logging.config
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

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
        entry |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str, ensure_ascii=False)


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

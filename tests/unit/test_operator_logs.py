import json
import logging
import sys

from rerank_operator.logs import REPEAT_SECONDS, JsonFormatter, Seldom


def test_record_is_one_line_with_what_came_in_extra() -> None:
    record = logging.makeLogRecord(
        {"name": "rerank_operator.x", "levelname": "INFO", "msg": "done", "service": "demo"}
    )

    line = JsonFormatter().format(record)

    entry = json.loads(line)
    assert entry.pop("time")
    assert entry == {
        "level": "INFO",
        "logger": "rerank_operator.x",
        "message": "done",
        "service": "demo",
    }


def test_traceback_stays_on_the_line() -> None:
    try:
        raise ValueError("no")
    except ValueError:
        record = logging.makeLogRecord({"name": "x", "msg": "failed", "exc_info": sys.exc_info()})

    line = JsonFormatter().format(record)

    assert "\n" not in line
    assert "ValueError: no" in json.loads(line)["error"]


def test_what_an_absent_server_makes_everybody_say_is_a_warning_now_and_then() -> None:
    seldom = Seldom()
    text = "Request attempt #%s failed; will retry: GET https://server/api/v1/pods -> %s"
    records = [
        logging.makeLogRecord(
            {
                "name": "kopf._cogs.clients.watching",
                "levelno": logging.ERROR,
                "levelname": "ERROR",
                "msg": text,
                "args": (number, "ServerDisconnectedError()"),
                "created": second,
            }
        )
        for number, second in enumerate((0.0, 1.0, REPEAT_SECONDS - 1, REPEAT_SECONDS + 1))
    ]

    let_through = [record for record in records if seldom.filter(record)]

    assert let_through == [records[0], records[3]]
    assert {record.levelname for record in let_through} == {"WARNING"}


def test_other_errors_are_errors_each_time() -> None:
    seldom = Seldom()
    record = logging.makeLogRecord(
        {"levelno": logging.ERROR, "levelname": "ERROR", "msg": "pass failed"}
    )

    assert seldom.filter(record)
    assert seldom.filter(record)
    assert record.levelname == "ERROR"

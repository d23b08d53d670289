import json
import logging
from pathlib import Path

import pytest

from rerank_server.logs import JsonFormatter, Sparse, log_refusal, logging_config, request_id


def record(message: str = "text", **values: object) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": message, "levelname": "INFO", "name": "n"} | values)


def test_record_is_one_line_of_json_with_its_values() -> None:
    line = JsonFormatter().format(record("two\nlines", pairs=3, place=Path("größe")))

    entry = json.loads(line)
    assert "\n" not in line
    assert entry["message"] == "two\nlines"
    assert (entry["pairs"], entry["place"]) == (3, "größe")


def test_record_of_a_request_has_its_id() -> None:
    token = request_id.set("abc")

    entry = json.loads(JsonFormatter().format(record()))
    request_id.reset(token)
    outside = json.loads(JsonFormatter().format(record()))

    assert entry["request_id"] == "abc"
    assert "request_id" not in outside


def test_flood_is_cut_and_counted() -> None:
    now = 0.0
    sparse = Sparse(lambda: now)

    passed = [sparse.filter(record()) for _ in range(1000)]
    now = 10.0
    later = [record() for _ in range(20)]
    passed_later = [sparse.filter(one) for one in later]

    assert passed.count(True) == 50
    assert passed_later.count(True) == 10
    assert [vars(one).get("not_logged_before") for one in later[:2]] == [950, None]


def test_refusal_is_logged_without_query_string_and_in_bounds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scope = {
        "client": ("192.0.2.1", 1),
        "method": "POST",
        "path": "/" + "a" * 1000,
        "query_string": b"canary",
        "headers": [(b"authorization", b"canary")],
    }

    with caplog.at_level("INFO"):
        log_refusal(400, "invalid_request", "documents is missing", scope)

    [one] = caplog.records
    values = vars(one)
    assert values["reason"] == "documents is missing"
    assert (values["status"], values["error_type"]) == (400, "invalid_request")
    assert (values["client"], values["method"]) == ("192.0.2.1", "POST")
    assert len(values["path"]) == 100
    assert "canary" not in JsonFormatter().format(one)


def test_only_one_process_turns_the_file_over(tmp_path: Path) -> None:
    ours = logging_config("info", tmp_path, rotate=True)["handlers"]["file"]
    theirs = logging_config("info", tmp_path, rotate=False)["handlers"]["file"]

    assert "Rotating" in ours["class"]
    assert "Watched" in theirs["class"]
    assert ours["filename"] == theirs["filename"] == str(tmp_path / "errors.log")

import logging
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rerank_operator.__main__ import REPEAT_SECONDS, Seldom, main

SAMPLES = Path(__file__).parents[2] / "manifests" / "samples"


@pytest.mark.parametrize("sample", sorted(SAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_render_prints_the_children_of_each_sample(
    sample: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["rerank-operator", "render", "-f", str(sample)])

    main()

    children = list(yaml.safe_load_all(capsys.readouterr().out))
    assert [child["kind"] for child in children] == ["ServiceAccount", "Service", "Deployment"]


def test_bad_setting_stops_the_process_with_the_name_of_its_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["rerank-operator", "run"])
    monkeypatch.setenv("RERANK_OPERATOR_HEALTH_PORT", "many")

    with pytest.raises(SystemExit, match="RERANK_OPERATOR_HEALTH_PORT"):
        main()


def test_crd_command_prints_what_kubectl_reads() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "rerank_operator", "crd"],
        cwd=SAMPLES.parents[1] / "operator",
        capture_output=True,
        text=True,
        check=True,
    )

    assert yaml.safe_load(printed.stdout)["metadata"]["name"] == "rerankerservices.rerank.dev"


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

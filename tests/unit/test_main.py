import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rerank_operator.__main__ import main

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

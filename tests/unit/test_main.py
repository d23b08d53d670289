import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rerank_operator.__main__ import main

SAMPLES = Path(__file__).parents[2] / "manifests" / "samples"


def render(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["rerank-operator", "render", "-f", str(path)])
    main()


@pytest.mark.parametrize("sample", sorted(SAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_render_prints_the_children_of_each_sample(
    sample: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    render(sample, monkeypatch)

    children = list(yaml.safe_load_all(capsys.readouterr().out))
    assert {"ServiceAccount", "Service", "Deployment"} <= {child["kind"] for child in children}


NAMED = "kind: RerankerService\nmetadata: {name: a}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{NAMED}spec: {{model: {{name: a/b}}, modle: 1}}", "unknown field spec.modle"),
        (
            f"{NAMED}spec: {{model: {{name: a/b}}, podTemplate: {{env: [{{nam: A}}]}}}}",
            r"unknown field spec.podTemplate.env\[0\].nam",
        ),
        (f"{NAMED}spec: {{model: {{name: no-organisation}}}}", "model.name is 'no-organisation'"),
        (f"{NAMED}spec: 1", "spec: Input should be"),
        (NAMED, "spec.model: Field required"),
        ("kind: RerankerService\nspec: {model: {name: a/b}}", "metadata.name is not set"),
        ("kind: Pod", "holds no RerankerService"),
        ("a: [", "cannot be read"),
    ],
)
def test_render_names_the_mistake(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "service.yaml"
    path.write_text(text)

    with pytest.raises(SystemExit, match=message):
        render(path, monkeypatch)


def test_render_of_a_file_that_is_not_there_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="cannot be read"):
        render(Path("/nowhere.yaml"), monkeypatch)


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

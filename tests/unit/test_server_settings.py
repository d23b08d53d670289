import json

import pytest

from rerank_server.settings import Settings, read_settings


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Settings.model_fields:
        monkeypatch.delenv(f"RERANK_{field.upper()}", raising=False)


def test_model_is_enough() -> None:
    settings = read_settings(["--model", "/models/qwen3"])

    assert settings.name == "qwen3"
    assert (settings.host, settings.port) == ("127.0.0.1", 8080)
    assert settings.max_model_len == 4096


def test_environment_is_read_and_a_flag_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RERANK_MODEL", "Qwen/Qwen3-Reranker-0.6B")
    monkeypatch.setenv("RERANK_MAX_MODEL_LEN", "512")
    monkeypatch.setenv("RERANK_PORT", "9000")
    monkeypatch.setenv("RERANK_ENFORCE_EAGER", "false")

    settings = read_settings(["--port", "9001"])

    assert settings.name == "Qwen3-Reranker-0.6B"
    assert settings.max_model_len == 512
    assert settings.port == 9001
    assert settings.enforce_eager is False


def test_empty_variable_is_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RERANK_SERVED_NAME", "")
    monkeypatch.setenv("RERANK_DTYPE", "")

    settings = read_settings(["--model", "m"])

    assert settings.name == "m"
    assert settings.dtype == "auto"


def test_flags_are_kebab_case() -> None:
    settings = read_settings(["--model", "m", "--max-model-len", "256", "--enforce-eager", "true"])

    assert settings.max_model_len == 256
    assert settings.enforce_eager is True


def test_missing_model_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        read_settings([])

    assert capsys.readouterr().err == (
        "rerank-server: RERANK_MODEL (--model) is not set. Set it: Model directory, or a Hugging "
        "Face repository id.\n"
    )


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RERANK_PORT", "http"),
        ("RERANK_PORT", "70000"),
        ("RERANK_DTYPE", "int4"),
        ("RERANK_MAX_MODEL_LEN", "0"),
        ("RERANK_GPU_MEMORY_UTILIZATION", "1.5"),
        ("RERANK_ENGINES_PER_GPU", "9"),
        ("RERANK_LOG_LEVEL", "loud"),
    ],
)
def test_bad_value_is_named_with_its_variable(
    variable: str,
    value: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(variable, value)

    with pytest.raises(SystemExit, match="2"):
        read_settings(["--model", "m"])

    [line] = capsys.readouterr().err.splitlines()
    assert variable in line
    assert value in line


def test_several_engines_are_refused_for_a_model_on_several_gpus(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="2"):
        read_settings(["--model", "m", "--tensor-parallel-size", "2", "--engines-per-gpu", "4"])

    [line] = capsys.readouterr().err.splitlines()
    assert "RERANK_ENGINES_PER_GPU (--engines-per-gpu) is '4'" in line
    assert "RERANK_TENSOR_PARALLEL_SIZE is 2" in line
    assert "set one of the two to 1" in line


def test_help_explains_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        read_settings(["--help"])

    text = " ".join(capsys.readouterr().out.split())
    for name, field in Settings.model_fields.items():
        assert f"--{name.replace('_', '-')}" in text
        assert field.description is not None
        assert field.description in text


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("TRUSTED_PROXIES", "10.0.0.0/8, ::1", ("10.0.0.0/8", "::1/128")),
        (
            "CORS_ORIGINS",
            "https://a.example.com,http://b:8080",
            ("https://a.example.com", "http://b:8080"),
        ),
        ("CORS_ORIGINS", "*", ("*",)),
        ("BLOCKED_PATTERNS", "a{1,3}\n\n(?i)b, c\n", ("a{1,3}", "(?i)b, c")),
    ],
)
def test_list_is_one_variable_or_several_flags(
    name: str, value: str, read: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    field = name.lower()
    flag = f"--{field.replace('_', '-')}"

    from_flags = read_settings(["--model", "m", *(part for one in read for part in (flag, one))])
    monkeypatch.setenv(f"RERANK_{name}", value)
    from_variable = read_settings(["--model", "m"])

    assert getattr(from_variable, field) == getattr(from_flags, field) == read


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("RERANK_TRUSTED_PROXIES", "10.0.0.1/8", "has host bits set"),
        ("RERANK_TRUSTED_PROXIES", "*", "does not appear to be an IPv4 or IPv6 network"),
        ("RERANK_TRUSTED_PROXIES", "proxy.example.com", "does not appear to be"),
        ("RERANK_CORS_ORIGINS", "https://a.example.com/", "an origin is scheme://host"),
        ("RERANK_CORS_ORIGINS", "a.example.com", "an origin is scheme://host"),
        ("RERANK_BLOCKED_PATTERNS", "fine\na(b", "'a(b' is no regular expression"),
        ("RERANK_REQUESTS_PER_MINUTE_PER_CLIENT", "0", "greater than or equal to 1"),
        ("RERANK_API_TOKEN", "", "Give a token, or unset the variable"),
        ("RERANK_API_TOKEN", " \n", "Give a token, or unset the variable"),
    ],
)
def test_what_would_guard_nothing_is_refused(
    variable: str,
    value: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(variable, value)

    with pytest.raises(SystemExit, match="2"):
        read_settings(["--model", "m"])

    [line] = capsys.readouterr().err.splitlines()
    assert variable in line
    assert words in line


def test_token_is_shown_nowhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RERANK_API_TOKEN", "canary\n canary2 \n")

    settings = read_settings(["--model", "m"])
    with pytest.raises(SystemExit):
        read_settings(["--port", "canary-free"])
    with pytest.raises(SystemExit):
        read_settings(["--help"])

    shown = capsys.readouterr()
    assert settings.tokens == ["canary", "canary2"]
    assert "canary2" not in f"{settings!r} {settings} {shown.out} {shown.err}"


def test_unknown_flag_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        read_settings(["--model", "m", "--max-modellen", "3"])

    assert "--max-modellen" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("max_model_len", "set RERANK_MAX_MODEL_LEN"),
        ("hf_overrides", "it follows from the model and its family"),
        ("data_parallel_size", "set RERANK_ENGINES_PER_GPU, or start more servers"),
    ],
)
def test_engine_argument_with_a_setting_of_its_own_is_refused(
    name: str, remedy: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RERANK_ENGINE_ARGS", json.dumps({name: 2}))

    with pytest.raises(SystemExit):
        read_settings(["--model", "m"])

    told = capsys.readouterr().err
    assert "RERANK_ENGINE_ARGS (--engine-args)" in told
    assert f"'{name}' is not for engine_args: {remedy}" in told


def test_engine_arguments_are_a_json_object(monkeypatch: pytest.MonkeyPatch) -> None:
    text = '{"max_num_seqs": 512, "compilation_config": {"mode": 0}, "seed": null}'
    monkeypatch.setenv("RERANK_ENGINE_ARGS", text)

    from_environment = read_settings(["--model", "m"]).engine_args
    from_flag = read_settings(["--model", "m", "--engine-args", text]).engine_args

    assert from_environment == from_flag == json.loads(text)


@pytest.mark.parametrize("text", ["max_num_seqs=512", "{", "[1]", "7"])
def test_engine_arguments_that_are_no_object_are_refused(
    text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RERANK_ENGINE_ARGS", text)

    with pytest.raises(SystemExit):
        read_settings(["--model", "m"])

    assert "RERANK_ENGINE_ARGS (--engine-args) is" in capsys.readouterr().err

import pytest
from pydantic import ValidationError

from rerank_operator import __version__
from rerank_operator.settings import Settings


def test_images_default_to_the_operators_own_release() -> None:
    settings = Settings()

    assert settings.server_image.endswith(f":{__version__}")
    assert settings.server_image_cpu.endswith(f":{__version__}")


def test_namespaces_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RERANK_OPERATOR_NAMESPACES", "search, rag,")

    assert Settings().namespaces == ("search", "rag")


def test_bad_value_names_its_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RERANK_OPERATOR_IMAGE_PULL_POLICY", "Sometimes")

    with pytest.raises(ValidationError, match="image_pull_policy"):
        Settings()

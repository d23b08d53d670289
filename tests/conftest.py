"""What the layers need."""

from pathlib import Path

import pytest
from make_tiny import make


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a tiny random reranker."""
    directory = tmp_path_factory.mktemp("models") / "tiny-reranker"
    make(directory)
    return directory

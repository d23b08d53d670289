"""What the layers need."""

from pathlib import Path

import pytest

MODELS = Path(__file__).parents[1] / "models"


@pytest.fixture(scope="session")
def tiny_model() -> Path:
    """The directory of the small reranker; copy it before changing anything."""
    return MODELS / "tiny-reranker"

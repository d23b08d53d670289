"""What of the settings reaches vLLM, and what is refused before it loads anything."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from in_process_engine import LOOKS, vllm_in_this_process
from rerank_server.engines.checkpoint import open_checkpoint
from rerank_server.errors import ModelUnusable
from rerank_server.settings import Settings

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def vllm() -> Iterator[None]:
    with vllm_in_this_process():
        yield


def test_engine_arguments_reach_vllm(vllm: None, tiny_model: Path) -> None:
    from rerank_server.engines.vllm import engine_config

    settings = Settings(
        model=str(tiny_model), dtype="float32", engine_args={"max_num_seqs": 7, "block_size": 32}
    )

    config = engine_config(settings, open_checkpoint(settings))

    assert config.scheduler_config.max_num_seqs == 7
    assert config.cache_config.block_size == 32


def test_engines_of_one_gpu_share_its_memory(vllm: None, tiny_model: Path) -> None:
    from rerank_server.engines.vllm import engine_config

    settings = Settings(model=str(tiny_model), engines_per_gpu=4, gpu_memory_utilization=0.8)

    config = engine_config(settings, open_checkpoint(settings))

    assert config.cache_config.gpu_memory_utilization == pytest.approx(0.2)


def test_implementation_of_a_language_model_is_vllms_unless_another_is_asked_for(
    vllm: None, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rerank_server.engines.vllm import engine_config

    # To choose, it looks at the implementation of transformers as well.
    monkeypatch.setattr(LOOKS, lambda look: look())
    ours = Settings(model=str(tiny_model))
    theirs = Settings(model=str(tiny_model), engine_args={"model_impl": "auto"})

    configs = [engine_config(each, open_checkpoint(each)) for each in (ours, theirs)]

    assert [config.model_config.model_impl for config in configs] == ["vllm", "auto"]


def test_unknown_engine_argument_is_refused_with_the_nearest(vllm: None, tiny_model: Path) -> None:
    from rerank_server.engines.vllm import VllmEngine

    settings = Settings(model=str(tiny_model), engine_args={"max_num_seq": 7})

    with pytest.raises(ModelUnusable, match=r"'max_num_seq', which.* did you mean 'max_num_seqs'"):
        VllmEngine(settings, open_checkpoint(settings))


def test_what_vllm_refuses_is_told_with_its_words_and_advice(vllm: None, tiny_model: Path) -> None:
    from rerank_server.engines.vllm import VllmEngine

    settings = Settings(model=str(tiny_model), dtype="half", quantization="no-such")

    with pytest.raises(ModelUnusable) as caught:
        VllmEngine(settings, open_checkpoint(settings))

    assert "no-such" in str(caught.value)
    assert "RERANK_TENSOR_PARALLEL_SIZE" in str(caught.value)

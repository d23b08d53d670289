"""The HTTP contract, with a stand-in for vLLM."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from rerank_server.app import create_app
from rerank_server.errors import ModelUnusable
from rerank_server.metrics import Metrics
from rerank_server.pipeline import Pipeline
from rerank_server.settings import Settings
from standin_engine import StandInEngine

REQUEST = {"query": "bread", "documents": ["flour", "moon", "water"]}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def settings() -> Settings:
    return Settings(model="tiny")


@pytest.fixture
def pipeline(metrics: Metrics, settings: Settings) -> Pipeline:
    return Pipeline(metrics, settings)


@pytest.fixture
def engine(tiny_model: Path) -> StandInEngine:
    return StandInEngine(tiny_model)


@pytest.fixture
async def loading(
    pipeline: Pipeline, metrics: Metrics, settings: Settings
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server whose model is not there yet."""
    transport = httpx.ASGITransport(
        create_app(pipeline, metrics, settings), raise_app_exceptions=False
    )
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        yield client


@pytest.fixture
async def client(
    loading: httpx.AsyncClient, pipeline: Pipeline, engine: StandInEngine
) -> httpx.AsyncClient:
    """A client of a server that is ready."""
    await pipeline.start([engine])
    return loading


def metric(text: str, name: str) -> float:
    [value] = [line.split()[1] for line in text.splitlines() if line.split(" ")[0] == name]
    return float(value)


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank"])
async def test_answer_is_sorted_and_complete(path: str, client: httpx.AsyncClient) -> None:
    response = await client.post(path, json=REQUEST)

    body = response.json()
    assert response.status_code == 200
    assert body["object"] == "rerank"
    assert body["model"] == "tiny"
    assert body["data"] == body["results"]
    assert body["usage"]["prompt_tokens"] == body["usage"]["total_tokens"] > 0
    assert sorted(result["index"] for result in body["results"]) == [0, 1, 2]
    scores = [result["relevance_score"] for result in body["results"]]
    assert scores == sorted(scores, reverse=True)
    for result in body["results"]:
        assert result["document"] == {"text": REQUEST["documents"][result["index"]]}


async def test_top_n_and_no_documents(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/rerank", json=REQUEST | {"top_n": 1, "return_documents": 0})

    [result] = response.json()["results"]
    assert result.keys() == {"index", "relevance_score"}


async def test_body_is_read_without_a_content_type(client: httpx.AsyncClient) -> None:
    response = await client.post("/rerank", content=b'{"query": "q", "documents": "d"}')

    assert response.status_code == 200


async def test_answer_counts_cut_documents(client: httpx.AsyncClient) -> None:
    response = await client.post("/rerank", json={"query": "q", "documents": ["word " * 900, "d"]})

    assert response.json()["usage"]["truncated_documents"] == 1


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "kind"),
    [
        ("POST", "/v1/rerank", {"query": "q"}, 400, "invalid_request"),
        ("POST", "/v1/rerank", REQUEST | {"query": "word " * 900}, 400, "invalid_request"),
        ("GET", "/v1/rerank", None, 405, "method_not_allowed"),
        ("POST", "/v3/rerank", REQUEST, 404, "not_found"),
    ],
)
async def test_error_has_every_key_that_clients_read(
    method: str, path: str, body: object, status: int, kind: str, client: httpx.AsyncClient
) -> None:
    response = await client.request(method, path, json=body)

    error = response.json()
    assert response.status_code == status
    assert error["error_type"] == kind
    assert error["error"] == error["message"] == error["detail"]
    assert isinstance(error["error"], str)


async def test_too_long_query_names_the_limit(client: httpx.AsyncClient) -> None:
    response = await client.post("/rerank", json=REQUEST | {"query": "word " * 900})

    assert "limit of 512 tokens" in response.json()["error"]


class Upload:
    """A body in pieces of 1 MiB; `sent` counts those that somebody has read."""

    def __init__(self, pieces: int) -> None:
        self.pieces = pieces
        self.sent = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self.sent < self.pieces:
            self.sent += 1
            yield b" " * 2**20


def assert_too_large(response: httpx.Response) -> None:
    error = response.json()
    assert response.status_code == 413
    assert error["error_type"] == "too_large"
    assert error["error"] == error["message"] == error["detail"]
    assert "16,777,216 bytes" in error["error"]


async def test_too_large_body_is_not_read_to_its_end(client: httpx.AsyncClient) -> None:
    upload = Upload(1000)

    response = await client.post("/rerank", content=upload)

    assert_too_large(response)
    assert upload.sent <= 16 + 2


async def test_announced_too_large_body_is_not_read_at_all(client: httpx.AsyncClient) -> None:
    upload = Upload(1000)
    headers = {"Content-Length": str(1000 * 2**20)}

    response = await client.post("/rerank", content=upload, headers=headers)

    assert_too_large(response)
    assert upload.sent == 0


async def test_bodies_leave_no_count_behind(client: httpx.AsyncClient) -> None:
    body = b'{"query": "q", "documents": "d"}'.ljust(2**20)

    statuses = {(await client.post("/rerank", content=body)).status_code for _ in range(300)}

    assert statuses == {200}


@pytest.mark.parametrize(("more", "status"), [(0, 200), (1, 413)])
async def test_body_may_be_as_large_as_the_limit(
    more: int, status: int, client: httpx.AsyncClient
) -> None:
    body = b'{"query": "q", "documents": "d"}'

    response = await client.post("/rerank", content=body.ljust(16 * 2**20 + more))

    assert response.status_code == status


async def test_engine_failure_says_nothing_of_the_inside(
    client: httpx.AsyncClient, engine: StandInEngine
) -> None:
    engine.broken = True

    response = await client.post("/rerank", json=REQUEST)

    assert response.status_code == 500
    assert response.json()["error"] == "internal error"
    assert "secret" not in response.text


async def test_request_to_a_dead_engine_is_one_for_another_server(
    client: httpx.AsyncClient, engine: StandInEngine
) -> None:
    engine.alive = False

    response = await client.post("/rerank", json=REQUEST)

    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0
    assert "secret" not in response.text


async def test_server_that_loads_is_alive_and_not_ready(loading: httpx.AsyncClient) -> None:
    health = await loading.get("/health")
    ready = await loading.get("/ready")
    rerank = await loading.post("/rerank", json=REQUEST)

    assert (health.status_code, health.text) == (200, '{"status":"OK"}')
    assert (ready.status_code, ready.json()["reason"]) == (503, "the model is loading")
    assert rerank.status_code == 503
    assert int(rerank.headers["Retry-After"]) > 0


async def test_loaded_server_is_ready(client: httpx.AsyncClient) -> None:
    response = await client.get("/ready")

    assert response.status_code == 200


async def test_dead_engine_fails_both_probes(
    client: httpx.AsyncClient, engine: StandInEngine
) -> None:
    engine.alive = False

    health = await client.get("/health")
    ready = await client.get("/ready")

    assert health.status_code == ready.status_code == 503
    assert '"status":"OK"' not in health.text


async def test_draining_server_is_not_ready_and_still_serves(
    client: httpx.AsyncClient, pipeline: Pipeline
) -> None:
    pipeline.drain()

    ready = await client.get("/ready")
    health = await client.get("/health")
    rerank = await client.post("/rerank", json=REQUEST)

    assert (ready.status_code, ready.json()["reason"]) == (503, "the server is draining")
    assert health.status_code == rerank.status_code == 200


async def test_model_that_fails_its_check_is_never_ready(
    loading: httpx.AsyncClient, pipeline: Pipeline, engine: StandInEngine
) -> None:
    engine.logits = [0.5, 0.5]

    with pytest.raises(ModelUnusable, match="one score"):
        await pipeline.start([engine])

    ready = await loading.get("/ready")
    rerank = await loading.post("/rerank", json=REQUEST)
    assert ready.status_code == rerank.status_code == 503


async def test_metrics_count_what_was_done(client: httpx.AsyncClient) -> None:
    await client.post("/rerank", json=REQUEST)
    await client.post("/rerank", json=REQUEST | {"top_n": 0})
    await client.post("/rerank", json=REQUEST | {"documents": ["word " * 900]})

    text = (await client.get("/metrics")).text

    assert metric(text, 'rerank_requests_total{code="200"}') == 2
    assert metric(text, 'rerank_requests_total{code="400"}') == 1
    assert metric(text, "rerank_pairs_total") == 4
    assert metric(text, "rerank_tokens_total") > 511
    assert metric(text, "rerank_truncated_documents_total") == 1
    assert metric(text, "rerank_request_seconds_count") == 3
    assert metric(text, "rerank_queue_depth") == 0


async def test_failed_request_leaves_the_queue(
    client: httpx.AsyncClient, engine: StandInEngine
) -> None:
    engine.alive = False

    await client.post("/rerank", json=REQUEST)

    assert metric((await client.get("/metrics")).text, "rerank_queue_depth") == 0


async def test_request_cut_off_at_the_end_of_a_drain_is_counted_as_it_was_answered(
    client: httpx.AsyncClient, engine: StandInEngine, metrics: Metrics
) -> None:
    engine.running.clear()
    engine.entered.clear()
    request = asyncio.create_task(client.post("/rerank", json=REQUEST))
    await engine.entered.wait()

    # As uvicorn does; the answer is 503.
    request.cancel()
    await asyncio.wait({request})

    count = metrics.registry.get_sample_value
    assert count("rerank_requests_total", {"code": "503"}) == 1
    assert count("rerank_refused_requests_total", {"error_type": "not_ready"}) == 1
    assert count("rerank_requests_total", {"code": "500"}) is None


async def test_deadline_counts_from_the_arrival_of_the_request(client: httpx.AsyncClient) -> None:
    async def slowly() -> AsyncIterator[bytes]:
        yield b'{"query": "bread", '
        await asyncio.sleep(0.3)
        yield b'"documents": ["flour"]}'

    response = await client.post("/rerank", content=slowly(), headers={"X-Request-Timeout": "0.2"})

    assert response.status_code == 504
    assert response.json()["error_type"] == "deadline_exceeded"


async def test_request_that_waits_does_not_keep_its_body(
    client: httpx.AsyncClient, engine: StandInEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    freed = asyncio.Event()

    class Watched(bytes):
        def __del__(self) -> None:
            freed.set()

    async def body(*_: object) -> bytes:
        return Watched(json.dumps(REQUEST).encode())

    monkeypatch.setattr("rerank_server.app._body", body)
    engine.running.clear()
    engine.entered.clear()

    request = asyncio.create_task(client.post("/rerank"))
    await engine.entered.wait()

    assert freed.is_set()
    engine.running.set()
    assert (await request).status_code == 200

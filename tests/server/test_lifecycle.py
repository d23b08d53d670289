"""From start to exit over a real socket, with a stand-in for vLLM."""

import asyncio
import contextlib
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from rerank_server.__main__ import Load, serve
from rerank_server.engines import Engine
from rerank_server.errors import ModelUnusable
from rerank_server.settings import Settings
from standin_engine import StandInEngine

REQUEST = {"query": "bread", "documents": ["flour", "moon", "water"]}


@pytest.fixture
async def engine(tiny_model: Path) -> StandInEngine:
    return StandInEngine(tiny_model)


@contextlib.asynccontextmanager
async def server(
    load: Load, drain_seconds: int = 10
) -> AsyncIterator[tuple[httpx.AsyncClient, "asyncio.Task[int]"]]:
    """Run a server on a free port; yields a client and the task that ends with the exit code."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = Settings(model="tiny", port=port, drain_seconds=drain_seconds)
    task = asyncio.create_task(serve(settings, load))
    transport = httpx.AsyncHTTPTransport(retries=10)
    async with (
        asyncio.timeout(20),
        httpx.AsyncClient(transport=transport, base_url=f"http://127.0.0.1:{port}") as client,
    ):
        try:
            yield client, task
        finally:
            if not task.done():
                terminate()
                await task


def terminate() -> None:
    # `serve` has a handler for it by the time its port answers.
    os.kill(os.getpid(), signal.SIGTERM)


async def answer_of(client: httpx.AsyncClient, path: str, status: int) -> httpx.Response:
    """Ask until the answer has this status; the test's own timeout is the deadline."""
    # There is no event to wait for: it is on the far side of a socket.
    while (response := await client.get(path)).status_code != status:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return response


async def test_port_is_open_while_the_model_loads(engine: StandInEngine) -> None:
    loaded = threading.Event()

    def load(_: Settings) -> list[Engine]:
        loaded.wait(10)
        return [engine]

    async with server(load) as (client, _):
        health = await client.get("/health")
        before = await client.get("/ready")
        loaded.set()
        after = await answer_of(client, "/ready", 200)

    assert health.text == '{"status":"OK"}'
    assert before.json()["reason"] == "the model is loading"
    assert after.json()["status"] == "READY"


async def test_unusable_model_ends_the_process_with_its_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def load(_: Settings) -> list[Engine]:
        raise ModelUnusable("no such directory: mount the model there")

    async with server(load) as (_, task):
        code = await task

    assert code == 1
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert [record.message for record in errors] == ["no such directory: mount the model there"]
    assert errors[0].exc_info is None


async def test_instruction_that_leaves_no_room_ends_the_process_with_its_reason(
    tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = StandInEngine(tiny_model, max_model_len=30)

    async with server(lambda _: [engine]) as (_, task):
        code = await task

    assert code == 1
    assert engine.closed
    [error] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "shorten the instruction" in error.message


@pytest.mark.parametrize(
    ("scores", "reason"), [([float("nan"), 0.5], "no numbers"), ([0.5, 0.5], "one score")]
)
async def test_failed_score_check_ends_the_process_with_its_reason(
    scores: list[float], reason: str, engine: StandInEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.logits = scores

    async with server(lambda _: [engine]) as (_, task):
        code = await asyncio.wait_for(task, 5)

    assert code == 1
    assert engine.closed
    [error] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert reason in error.message


async def test_sigterm_while_loading_ends_at_once() -> None:
    never = threading.Event()

    def load(_: Settings) -> list[Engine]:
        never.wait(20)
        raise ModelUnusable("too late")

    async with server(load) as (client, task):
        await client.get("/health")
        terminate()
        code = await asyncio.wait_for(task, 5)
    never.set()

    assert code == 0


async def test_sigterm_lets_running_requests_finish(engine: StandInEngine) -> None:
    async with server(lambda _: [engine]) as (client, task):
        await answer_of(client, "/ready", 200)
        engine.running.clear()
        engine.entered.clear()
        request = asyncio.create_task(client.post("/rerank", json=REQUEST))
        await engine.entered.wait()

        terminate()
        engine.running.set()
        response = await request
        code = await task

    assert response.status_code == 200
    assert code == 0
    assert engine.closed


async def test_drain_ends_in_time_though_a_request_hangs(engine: StandInEngine) -> None:
    async with server(lambda _: [engine], drain_seconds=1) as (client, task):
        await answer_of(client, "/ready", 200)
        engine.running.clear()
        engine.entered.clear()
        request = asyncio.create_task(client.post("/rerank", json=REQUEST))
        await engine.entered.wait()

        terminate()
        code = await asyncio.wait_for(task, 5)
        await asyncio.wait({request})

    assert code == 0
    assert engine.cancelled.is_set()
    assert request.exception() or request.result().status_code >= 500


async def test_client_that_goes_away_takes_its_work_with_it(engine: StandInEngine) -> None:
    async with server(lambda _: [engine]) as (client, _):
        await answer_of(client, "/ready", 200)
        engine.running.clear()
        engine.entered.clear()
        request = asyncio.create_task(client.post("/rerank", json=REQUEST))
        await engine.entered.wait()

        request.cancel()
        await engine.cancelled.wait()
        engine.running.set()
        metrics = (await client.get("/metrics")).text

    assert 'rerank_requests_total{code="499"} 1.0' in metrics
    assert "rerank_queue_depth 0.0" in metrics


async def test_client_that_goes_away_amid_its_body_is_no_failure_of_ours(
    engine: StandInEngine, caplog: pytest.LogCaptureFixture
) -> None:
    async with server(lambda _: [engine]) as (client, _):
        await answer_of(client, "/ready", 200)
        _, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
        head = b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n"
        writer.write(head + b'{"query":')
        await writer.drain()

        writer.close()
        while "rerank_requests_total" not in (text := (await client.get("/metrics")).text):  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    assert 'rerank_requests_total{code="499"} 1.0' in text
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_probes_do_not_wait_behind_work(engine: StandInEngine) -> None:
    async with server(lambda _: [engine]) as (client, _):
        await answer_of(client, "/ready", 200)
        engine.running.clear()
        engine.entered.clear()
        request = asyncio.create_task(client.post("/rerank", json=REQUEST))
        await engine.entered.wait()

        metrics = (await client.get("/metrics")).text
        health = await client.get("/health")
        engine.running.set()
        await request

    assert "rerank_queue_depth 3.0" in metrics
    assert health.status_code == 200

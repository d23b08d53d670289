"""What pods answer to how far their download is, and what is made of other answers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from rerank_operator.api import Manifest
from rerank_operator.observed import Progress
from rerank_operator.progress import Downloads

GOOD = '{"done_bytes": 1, "total_bytes": 2, "more": 3}'


def pod(uid: str = "pod-uid", address: str = "127.0.0.1") -> Manifest:
    return {"metadata": {"uid": uid}, "status": {"podIP": address}}


@asynccontextmanager
async def answering(text: str, status: int = 200) -> AsyncIterator[Downloads]:
    """Have a pod at hand that answers with this, and what asks it."""

    async def answer(request: web.BaseRequest) -> web.Response:
        if request.path == "/elsewhere":
            return web.Response(text=GOOD)
        assert request.path == "/progress"
        headers = {"Location": "/elsewhere"} if status == 302 else {}
        return web.Response(text=text, status=status, headers=headers)

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession(trust_env=False) as session:
        yield Downloads(session, runner.addresses[0][1])
    await runner.cleanup()


async def test_answer_is_kept_until_the_pod_is_asked_no_more() -> None:
    async with answering(GOOD) as downloads:
        seen = downloads.seen
        await downloads.ask([pod()])
        told = dict(seen)
        await downloads.ask([])

    assert told == {"pod-uid": Progress(done_bytes=1, total_bytes=2)}
    assert seen == {}


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("", 404),
        ("no JSON", 200),
        ('{"done_bytes": -1, "total_bytes": 2}', 200),
        ('{"done_bytes": 0, "total_bytes": 0}', 200),
        (GOOD[:-1] + " " * 2000 + "}", 200),
        ("", 302),
        ('{"done_bytes": 0, "total_bytes": 1' + "0" * 400 + "}", 200),
    ],
)
async def test_any_other_answer_is_none(text: str, status: int) -> None:
    async with answering(text, status) as downloads:
        await downloads.ask([pod()])

    assert downloads.seen == {}


async def test_pod_that_takes_no_connection_is_passed_over() -> None:
    async with answering(GOOD) as downloads:
        # Nobody listens there, nor anywhere in the other network.
        await downloads.ask([pod("v6", "::1"), pod("other", "127.0.0.2"), pod()])

    assert set(downloads.seen) == {"pod-uid"}


async def test_pod_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rerank_operator.progress.ASK_SECONDS", 0.05)
    held: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: held.append(writer), "127.0.0.1")
    port = server.sockets[0].getsockname()[1]

    async with aiohttp.ClientSession(trust_env=False) as session:
        downloads = Downloads(session, port)
        await downloads.ask([pod()])

    assert downloads.seen == {}
    assert held
    for writer in held:
        writer.close()
    server.close()

import copy
import json
from collections.abc import AsyncIterator
from itertools import islice
from types import SimpleNamespace
from typing import Any

import aiohttp
import kopf
import pytest
from yarl import URL

import virtual_time
from builders import make_body
from rerank_operator.handlers import Backoffs, Lines, Memo, build_settings, on_reranker, outlast
from rerank_operator.health import Watches
from rerank_operator.metrics import Metrics
from rerank_operator.store import Key, Store
from rerank_operator.workqueue import WorkQueue


class Queue(WorkQueue[Key]):
    """Notes what is added."""

    def __init__(self) -> None:
        self.added: list[tuple[Key, bool]] = []

    def add(self, key: Key, urgent: bool = False) -> None:
        self.added.append((key, urgent))


def make_memo(queue: Queue) -> Memo:
    """Return a memo whose queue is this one."""
    return Memo(Store(), queue, Watches(), Metrics(), "operator_1")


def called(handler: Any, **arguments: Any) -> Any:
    """Call a handler with what it uses of the many arguments that kopf passes."""
    return handler(**arguments)


async def test_event_becomes_a_key() -> None:
    queue = Queue()
    memo = make_memo(queue)
    body = make_body()

    await called(on_reranker, event={"type": "ADDED", "object": body}, memo=memo)

    assert queue.added == [(Key("search", "demo"), True)]
    assert memo.store.reranker(Key("search", "demo")) == body


async def test_only_another_generation_is_urgent() -> None:
    queue = Queue()
    memo = make_memo(queue)
    bodies = [
        make_body(),
        make_body(version=2) | {"status": {"replicas": 1}},
        make_body(version=3, generation=2),
        make_body(version=4, uid="uid-2"),
    ]

    for body in bodies:
        await called(on_reranker, event={"type": "MODIFIED", "object": body}, memo=memo)

    assert [urgent for _, urgent in queue.added] == [True, False, True, True]


def test_backoffs_start_anew_each_time_and_never_end() -> None:
    backoffs = Backoffs()

    delays = list(islice(backoffs, 10000))

    assert max(delays) <= 30
    assert next(iter(backoffs)) <= 0.5


def test_kopf_is_asked_for_nothing_but_watching() -> None:
    settings = build_settings()

    assert settings.scanning.disabled
    assert settings.peering.standalone
    assert not settings.posting.enabled


def test_kopf_keeps_nothing_of_what_it_hears() -> None:
    storage = build_settings().persistence.diffbase_storage
    body = kopf.Body({"spec": {"replicas": 1}})
    memo = make_memo(Queue())

    assert storage.build(body=body) == {}
    assert storage.fetch(body=body) is None
    assert copy.copy(memo) is memo


class Answers:
    """Gives one status after the other, and notes what was asked for."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.asked: list[str] = []

    async def __call__(self, request: Any) -> Any:
        self.asked.append(request.url.path_qs)
        return SimpleNamespace(
            status=self.statuses.pop(0), reason="", content=None, close=lambda: None
        )


def make_request(path: str) -> Any:
    return SimpleNamespace(url=URL(f"https://server{path}"))


PODS_PATH = "/api/v1/pods"


def make_watches() -> Watches:
    watches = Watches()
    watches.expect([PODS_PATH])
    return watches


@pytest.mark.parametrize(
    ("path", "again"),
    [
        (f"{PODS_PATH}?limit=500&continue=abc", f"{PODS_PATH}?limit=500"),
        (f"{PODS_PATH}?watch=true&resourceVersion=5", f"{PODS_PATH}?watch=true"),
    ],
)
async def test_page_or_version_that_is_too_old_is_left_for_the_present(
    path: str, again: str
) -> None:
    answers = Answers(410, 200)

    response = await outlast(make_watches(), Store())(make_request(path), answers)

    assert response.status == 200
    assert answers.asked == [path, again]


@pytest.mark.parametrize("statuses", [(404,), (400,), (410, 410)])
async def test_answer_that_would_end_kopf_looks_like_a_lost_connection(
    statuses: tuple[int, ...],
) -> None:
    watches = make_watches()

    with pytest.raises(aiohttp.ClientConnectionError):
        await outlast(watches, Store())(make_request(f"{PODS_PATH}?watch=true"), Answers(*statuses))

    assert f"answered with {statuses[-1]}" in (watches.obstacle() or "")


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
async def test_answer_that_kopf_knows_is_passed_on(status: int) -> None:
    response = await outlast(make_watches(), Store())(make_request(PODS_PATH), Answers(status))

    assert response.status == status


async def test_kind_that_nobody_watches_may_be_absent() -> None:
    response = await outlast(make_watches(), Store())(
        make_request("/apis/rerank.dev/v1"), Answers(404)
    )

    assert response.status == 404


def make_event(kind: str = "MODIFIED", version: int = 1) -> bytes:
    """Return a line of a watch, as the API server writes them."""
    event = {"type": kind, "object": make_body(version=version)}
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"


EVENT = make_event()
EXPIRED = {"type": "ERROR", "object": {"code": 410}}


class Body:
    """The body of a watch, in these chunks."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = chunks

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            yield chunk


async def lines_of(*chunks: bytes, store: Store | None = None) -> list[bytes]:
    """Return what kopf gets of a body."""
    lines = Lines(Body(*chunks), store or Store())
    return [line async for line in lines.iter_chunked(1 << 20)]


async def test_events_of_a_watch_are_passed_on_line_by_line() -> None:
    lines = await lines_of(EVENT[:20], EVENT[20:] + EVENT, b"\n" + EVENT)

    assert lines == [EVENT, EVENT, EVENT]


@pytest.mark.parametrize(
    ("line", "passed"),
    [
        (make_event("MODIFIED", 4), False),
        (make_event("ADDED", 5), False),
        (make_event("MODIFIED", 6), True),
        (make_event("DELETED", 5), True),
        (make_event("DELETED", 6), True),
    ],
)
async def test_version_that_the_store_has_becomes_a_bookmark(line: bytes, passed: bool) -> None:
    store = Store()
    store.put(make_body(version=5))
    version = json.loads(line)["object"]["metadata"]["resourceVersion"]

    (found,) = await lines_of(line, store=store)

    if passed:
        assert found == line
    else:
        event = json.loads(found)
        assert event["type"] == "BOOKMARK"
        assert event["object"]["metadata"] == {"resourceVersion": version}


async def test_bookmark_is_passed_on() -> None:
    metadata = {"resourceVersion": "7", "creationTimestamp": None}
    bookmark = {"type": "BOOKMARK", "object": {"kind": "Pod", "metadata": metadata}}

    (line,) = await lines_of(json.dumps(bookmark).encode() + b"\n")

    assert json.loads(line) == bookmark


async def test_what_no_pass_reads_is_left_out() -> None:
    body = make_body() | {"status": {"replicas": 1}}
    body["metadata"] = body["metadata"] | {"managedFields": [{"manager": "someone"}]}
    event = {"type": "ADDED", "object": body}

    (line,) = await lines_of(json.dumps(event).encode() + b"\n")

    del body["metadata"]["managedFields"]
    assert json.loads(line) == event


@pytest.mark.parametrize(
    "line",
    [
        b'{"type": "ERROR", "object": {"kind": "Status", "code": 500}}\n',
        b'{"type": "ERROR", "object": {"kind": "Status", "code": 410}}\n',
        b'{"type": "ERROR"}\n',
        b"upstream connect error\n",
        b"[]\n",
        b"{}\n",
        b'{"type": "MODIFIED", "object": null}\n',
        b'{"type": "DELETED", "object": {"kind": "Pod", "metadata": null}}\n',
        b"\xff\n",
    ],
)
def test_line_that_would_end_kopf_has_it_list_anew(line: bytes) -> None:
    lines: list[bytes] = []

    async def main() -> None:
        lines.extend(await lines_of(EVENT + line + EVENT))

    virtual_time.run(main())

    assert lines[0] == EVENT
    assert [json.loads(line) for line in lines[1:]] == [EXPIRED]


async def test_half_a_line_at_the_end_is_left_out() -> None:
    assert await lines_of(EVENT + EVENT[:20]) == [EVENT]


async def test_only_what_is_watched_is_read_by_line() -> None:
    content = object()
    answer = SimpleNamespace(status=200, content=content)

    async def answers(_: Any) -> Any:
        return answer

    await outlast(make_watches(), Store())(make_request(PODS_PATH), answers)
    before = answer.content
    await outlast(make_watches(), Store())(make_request(f"{PODS_PATH}?watch=true"), answers)

    assert before is content
    assert isinstance(answer.content, Lines)

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.rest import RESTClientObject

from rerank_operator.cluster import LEAST_WRITE_SECONDS, Cluster, Fence
from rerank_operator.errors import Conflict, NotFound, Refused, Unavailable
from rerank_operator.names import DEPLOYMENTS, RERANKERS, SERVICES


class Answer:
    """An answer of the API server, or of who stands before it."""

    reason = "Because"

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        self._text = text

    async def read(self) -> bytes:
        return self._text.encode()


class Server(RESTClientObject):
    """Notes path, time limits and body of each request, and answers all the same."""

    def __init__(self, status: int, text: str = '{"message": "no"}') -> None:
        self.status = status
        self.text = text
        self.bodies: list[object] = []
        self.paths: list[str] = []
        self.limits: list[tuple[float, list[str]]] = []

    async def request(self, method: str, url: str, *_: object, **arguments: Any) -> Answer:
        parts = urlsplit(url)
        self.paths.append(f"{method} {parts.path}")
        limit = parse_qs(parts.query).get("timeout", [])
        self.limits.append((arguments["_request_timeout"].total, limit))
        self.bodies.append(arguments["body"])
        return Answer(self.status, self.text)


def make_cluster(server: Server, fence: Fence | None = None) -> Cluster:
    client = ApiClient(Configuration(host="http://api"))
    client.rest_client = server
    return Cluster(client, fence)


MANIFEST = {"metadata": {"name": "demo", "namespace": "search", "uid": "x"}}


@pytest.mark.parametrize(
    ("status", "failure"),
    [
        (400, Refused),
        (401, Unavailable),
        (403, Refused),
        (404, NotFound),
        (409, Unavailable),
        (410, Unavailable),
        (422, Refused),
        (429, Unavailable),
        (500, Refused),
        (503, Unavailable),
        (504, Unavailable),
    ],
)
async def test_answer_becomes_what_a_pass_tells_apart(
    status: int, failure: type[Exception]
) -> None:
    with pytest.raises(failure):
        await make_cluster(Server(status)).apply(SERVICES, MANIFEST)


async def test_absent_object_is_none_and_needs_no_deleting() -> None:
    cluster = make_cluster(Server(404))

    assert await cluster.get(SERVICES, "search", "demo") is None
    await cluster.delete(SERVICES, MANIFEST)


async def test_object_that_is_to_be_new_names_a_version_that_none_has() -> None:
    server = Server(409)

    with pytest.raises(Conflict):
        await make_cluster(server).apply_new(SERVICES, MANIFEST)

    assert server.bodies == [
        {"metadata": {"name": "demo", "namespace": "search", "uid": "x", "resourceVersion": "1"}}
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"kind": "Status", "message": "exceeded quota"}', "exceeded quota"),
        ("Too many requests, please try again later.\n", "Too many requests, please"),
        ('{"kind": "Status"}', '{"kind": "Status"}'),
        ("", "Because"),
    ],
)
async def test_refusal_is_told_in_the_words_of_who_refuses(text: str, words: str) -> None:
    with pytest.raises(Refused, match=words):
        await make_cluster(Server(403, text)).apply(SERVICES, MANIFEST)


async def test_paths_are_those_of_core_and_named_groups() -> None:
    server = Server(404)
    cluster = make_cluster(server)

    await cluster.get(SERVICES, "search", "demo")
    await cluster.get(DEPLOYMENTS, "search", "demo")
    with pytest.raises(NotFound):
        await cluster.apply_status(RERANKERS, MANIFEST)

    assert server.paths == [
        "GET /api/v1/namespaces/search/services/demo",
        "GET /apis/apps/v1/namespaces/search/deployments/demo",
        "PATCH /apis/rerank.dev/v1alpha1/namespaces/search/rerankerservices/demo/status",
    ]


class Clock:
    """Stands until it is set."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_fence_that_was_never_moved_lets_nothing_but_reading_through() -> None:
    server = Server(404)
    cluster = make_cluster(server, Fence())

    for write in (
        cluster.apply(SERVICES, MANIFEST),
        cluster.apply_status(RERANKERS, MANIFEST),
        cluster.delete(SERVICES, MANIFEST),
    ):
        with pytest.raises(Unavailable, match="held back"):
            await write
    await cluster.get(SERVICES, "search", "demo")

    assert server.paths == ["GET /api/v1/namespaces/search/services/demo"]


async def test_write_gets_no_more_time_than_the_fence_leaves_on_either_side() -> None:
    clock = Clock()
    fence = Fence(clock)
    server = Server(404)
    fence.move(begin_before=110, end_before=114)

    clock.now = 109.5
    await make_cluster(server, fence).delete(SERVICES, MANIFEST)

    assert server.limits == [(4.5, ["4s"])]


def test_fence_shuts_by_itself_and_at_once_when_told() -> None:
    clock = Clock()
    fence = Fence(clock)
    fence.move(begin_before=110, end_before=114)
    assert fence.is_open()

    clock.now = 110
    assert not fence.is_open()

    fence.move(begin_before=120, end_before=110 + LEAST_WRITE_SECONDS / 2)
    assert not fence.is_open()

    fence.move(begin_before=120, end_before=124)
    fence.shut()
    assert not fence.is_open()


async def test_lease_is_created_or_replaced_in_the_version_that_was_read() -> None:
    server = Server(409)
    cluster = make_cluster(server, Fence())
    lease = {"metadata": {"name": "operator", "namespace": "rerank-system"}}
    read = {"metadata": lease["metadata"] | {"resourceVersion": "5"}}

    for manifest in (lease, read):
        with pytest.raises(Unavailable):
            await cluster.write_lease(manifest, seconds=3)

    assert server.paths == [
        "POST /apis/coordination.k8s.io/v1/namespaces/rerank-system/leases",
        "PUT /apis/coordination.k8s.io/v1/namespaces/rerank-system/leases/operator",
    ]
    assert server.limits == [(3, []), (3, [])]

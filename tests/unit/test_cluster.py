import json

import pytest
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.dynamic import DynamicClient

from rerank_operator.cluster import Cluster
from rerank_operator.errors import NotFound, Refused, Unavailable
from rerank_operator.names import DEPLOYMENTS, RERANKERS, SERVICES


class Client(DynamicClient):
    """Notes the path of each request and fails with one status."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.paths: list[str] = []

    async def request(self, method: str, path: str, **_: object) -> object:
        self.paths.append(f"{method} {path}")
        error = ApiException(status=self.status, body=json.dumps({"message": "no"}))
        raise error


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
        await Cluster(Client(status)).apply(SERVICES, MANIFEST)


async def test_absent_object_is_none_and_needs_no_deleting() -> None:
    cluster = Cluster(Client(404))

    assert await cluster.get(SERVICES, "search", "demo") is None
    await cluster.delete(SERVICES, MANIFEST)


async def test_paths_are_those_of_core_and_named_groups() -> None:
    client = Client(404)
    cluster = Cluster(client)

    await cluster.get(SERVICES, "search", "demo")
    await cluster.get(DEPLOYMENTS, "search", "demo")
    with pytest.raises(NotFound):
        await cluster.apply_status(RERANKERS, MANIFEST)

    assert client.paths == [
        "get /api/v1/namespaces/search/services/demo",
        "get /apis/apps/v1/namespaces/search/deployments/demo",
        "patch /apis/rerank.dev/v1alpha1/namespaces/search/rerankerservices/demo/status",
    ]

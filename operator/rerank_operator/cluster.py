"""The only module that talks to the API server: get, list, apply, delete, lease."""

import math
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import aiohttp
import msgspec
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from rerank_operator import __version__
from rerank_operator.api import Manifest
from rerank_operator.errors import Conflict, NotFound, OperatorError, Refused, Unavailable
from rerank_operator.metrics import NO_ANSWER, Metrics
from rerank_operator.names import EVENTS, FIELD_MANAGER, LEASES, OWNER_LABEL, RERANKERS, Kind

# A call that hangs holds a worker; the queue retries, so there is no reason to wait longer.
CALL_SECONDS = 30.0
CONNECT_SECONDS = 5.0
# Less than this is no time for a write: it would most likely be cut off half-way.
LEAST_WRITE_SECONDS = 1.0
# Parsed objects take several times the space of what is kept of them.
PAGE_SIZE = 50
_JSON = "application/json"
_APPLY = "application/apply-patch+yaml"
# The revision of an empty etcd: no object has it, so what is to have it can only be made.
_NO_VERSION = "1"
# Not a verdict on the object: expired, overload, and authentication that is renewed.
_PASSING = {401, 408, 410, 429}


class Fence:
    """Until when this process may write, by its own monotonic clock.

    What holds the Lease moves the two limits on; when it cannot, they pass by themselves, also for
    a process that was stopped or starved meanwhile. A fence is shut until it is moved.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begin_before = self._end_before = -math.inf

    def move(self, begin_before: float, end_before: float) -> None:
        """Let writes begin before the one time, and have them over before the other."""
        self._begin_before, self._end_before = begin_before, end_before

    def shut(self) -> None:
        """Let no write begin from now on."""
        self._begin_before = -math.inf

    def is_open(self) -> bool:
        """Tell whether a write may begin now."""
        return self.seconds() > 0

    def seconds(self) -> float:
        """Return how long a write that begins now may take; 0 when none may begin."""
        now = self._clock()
        left = self._end_before - now
        return left if now < self._begin_before and left >= LEAST_WRITE_SECONDS else 0.0


def open_fence() -> Fence:
    """Return the fence of an operator that is alone: it never shuts."""
    fence = Fence()
    fence.move(math.inf, math.inf)
    return fence


class Cluster:
    """Calls with a time limit, whose failures are the ones in `errors`."""

    def __init__(self, client: ApiClient, fence: Fence | None = None) -> None:
        self._client = client
        self._fence = fence or open_fence()

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        """Return an object, or None if there is none."""
        try:
            return await self._request("GET", f"{api_path(kind, namespace)}/{name}")
        except NotFound:
            return None

    async def pages(
        self, kind: Kind, namespace: str | None
    ) -> AsyncIterator[tuple[list[Manifest], int]]:
        """Yield all objects of `kind` that may concern us, some at a time, each time with the
        version of the listing that they belong to. No namespace means all of them.
        """
        token: str | None = None
        while True:
            query = {"limit": str(PAGE_SIZE)}
            if kind != RERANKERS:
                query["labelSelector"] = OWNER_LABEL
            if token:
                query["continue"] = token
            page = await self._request("GET", api_path(kind, namespace), query=query)
            # Items of a list come without the two.
            known = {"apiVersion": kind.api_version, "kind": kind.name}
            items = [item | known for item in page["items"]]
            yield items, int(page["metadata"]["resourceVersion"])
            token = page["metadata"].get("continue")
            if not token:
                break

    async def apply(self, kind: Kind, manifest: Manifest) -> Manifest:
        """Write the full intent for one object and return the object as it is then."""
        return await self._apply(kind, manifest)

    async def apply_new(self, kind: Kind, manifest: Manifest) -> Manifest:
        """Write the full intent for an object that is not there, and return it as it is then.

        Raises:
            Conflict: nothing was written, most likely because there is one of that name.

        Source: k8s.io/apiserver/pkg/registry/generic/registry, `Store.Update`: an apply may create
        whatever version it names, and changes an object only in that version.
        """
        metadata = manifest["metadata"] | {"resourceVersion": _NO_VERSION}
        return await self._apply(kind, manifest | {"metadata": metadata})

    async def apply_status(self, kind: Kind, manifest: Manifest) -> Manifest:
        """Write a whole status and return the object as it is then.

        Raises:
            NotFound: the object is gone.
        """
        return await self._apply(kind, manifest, "/status")

    async def create(self, kind: Kind, manifest: Manifest) -> None:
        """Create an object that is only ever added: an Event."""
        path = api_path(kind, manifest["metadata"]["namespace"])
        await self._write("POST", path, manifest)

    async def delete(self, kind: Kind, manifest: Manifest) -> None:
        """Delete this very object, not one that has taken its name since."""
        metadata = manifest["metadata"]
        try:
            await self._write(
                "DELETE",
                f"{api_path(kind, metadata['namespace'])}/{metadata['name']}",
                {"propagationPolicy": "Background", "preconditions": {"uid": metadata["uid"]}},
            )
        except NotFound:
            return

    async def events(self, manifest: Manifest, reason: str) -> list[Manifest]:
        """Return the Events of one reason on this very object."""
        metadata = manifest["metadata"]
        query = {
            "fieldSelector": f"regarding.uid={metadata['uid']},reason={reason}",
            "limit": str(PAGE_SIZE),
        }
        answer = await self._request("GET", api_path(EVENTS, metadata["namespace"]), query=query)
        return list(answer["items"])

    async def read_lease(self, namespace: str, name: str, seconds: float) -> Manifest | None:
        """Return a Lease, or None if there is none."""
        try:
            return await self._request(
                "GET", f"{api_path(LEASES, namespace)}/{name}", seconds=seconds
            )
        except NotFound:
            return None

    async def write_lease(self, lease: Manifest, seconds: float) -> Manifest:
        """Create a Lease, or replace the very version of it that was read.

        No fence is asked, since this is what moves it.

        Raises:
            Unavailable: somebody else was faster, or no answer came.
        """
        metadata = lease["metadata"]
        path = api_path(LEASES, metadata["namespace"])
        if "resourceVersion" not in metadata:
            return await self._request("POST", path, lease, seconds)
        return await self._request("PUT", f"{path}/{metadata['name']}", lease, seconds)

    async def read(self, path: str, label_selector: str | None = None) -> Manifest:
        """Return what is at an API path.

        Raises:
            NotFound: nothing is.
        """
        query = {"labelSelector": label_selector} if label_selector else {}
        return await self._request("GET", path, query=query)

    async def review(self, kind: Kind, spec: Mapping[str, Any]) -> Manifest:
        """Have the API server answer a question about ourselves; return the answer's `status`."""
        body = {"apiVersion": kind.api_version, "kind": kind.name, "spec": spec}
        status: Manifest = (await self._request("POST", api_path(kind, None), body))["status"]
        return status

    async def answers(self, seconds: float) -> bool:
        """Tell whether the API server says anything at all."""
        try:
            await self._request("GET", "/version", seconds=seconds)
        except Unavailable:
            return False
        except Refused:
            return True
        return True

    async def _apply(self, kind: Kind, manifest: Manifest, subresource: str = "") -> Manifest:
        metadata = manifest["metadata"]
        return await self._write(
            "PATCH",
            f"{api_path(kind, metadata['namespace'])}/{metadata['name']}{subresource}",
            manifest,
            query={"fieldManager": FIELD_MANAGER, "force": "true"},
            content_type=_APPLY,
        )

    async def _write(
        self,
        method: str,
        path: str,
        body: Manifest,
        query: Mapping[str, str] = {},
        content_type: str = _JSON,
    ) -> Manifest:
        """Write within the time that the fence leaves.

        The API server is told the limit too: it would otherwise go on with a write whose sender
        has given up, or has been stopped, for as long as a minute.
        """
        seconds = min(CALL_SECONDS, self._fence.seconds())
        if not seconds:
            raise Unavailable(f"{method} {path}: held back, the Lease was not renewed in time")
        return await self._request(
            method,
            path,
            body,
            seconds,
            query={"timeout": f"{int(seconds)}s", **query},
            content_type=content_type,
        )

    async def _request(
        self,
        method: str,
        path: str,
        body: Manifest | None = None,
        seconds: float = CALL_SECONDS,
        query: Mapping[str, str] = {},
        content_type: str = _JSON,
    ) -> Manifest:
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=min(seconds, CONNECT_SECONDS))
        try:
            _, url, headers, *_ = await self._client.param_serialize(
                method,
                path,
                query_params=list(query.items()),
                header_params={"Accept": _JSON, "Content-Type": content_type},
                auth_settings=["BearerToken"],
            )
            # `param_serialize` would copy the body first.
            response = await self._client.call_api(
                method, url, headers, body, _request_timeout=timeout
            )
            text = await response.read()
            if 200 <= response.status < 300:
                answer: Manifest = msgspec.json.decode(text)
                return answer
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            # ValueError: half an answer, or that of a proxy, is no JSON.
            raise Unavailable(f"{method} {path}: {type(error).__name__}: {error}") from error
        raise _failure(response.status, _message(text) or str(response.reason), f"{method} {path}")


def _failure(status: int, message: str, request: str) -> OperatorError:
    if status == 404:
        return NotFound(message)
    if status == 409:
        return Conflict(f"{request}: {status}: {message}")
    # 500 is mostly about the object: a webhook is silent, no address is left for a Service.
    if status in _PASSING or status > 500:
        return Unavailable(f"{request}: {status}: {message}")
    return Refused(message)


def _message(text: bytes) -> str:
    """Return what a refusal says: a Status in JSON, but for some that are plain text."""
    try:
        return str(msgspec.json.decode(text)["message"])
    except (ValueError, LookupError, TypeError):
        return text.decode(errors="replace").strip()


def api_path(kind: Kind, namespace: str | None) -> str:
    """Return the path at which objects of `kind` are listed and watched; None: everywhere."""
    root = "/api" if "/" not in kind.api_version else "/apis"
    scope = f"/namespaces/{namespace}" if namespace is not None else ""
    return f"{root}/{kind.api_version}{scope}/{kind.plural}"


def user_agent(identity: str) -> str:
    """Return what the API server's audit log shows beside the account that replicas share."""
    return f"{FIELD_MANAGER}/{__version__} ({identity})"


def count_requests(metrics: Metrics) -> aiohttp.TraceConfig:
    """Return what makes a client session count its requests."""
    config = aiohttp.TraceConfig()

    async def on_end(
        _: aiohttp.ClientSession, __: SimpleNamespace, end: aiohttp.TraceRequestEndParams
    ) -> None:
        host = end.url.authority
        metrics.requests.labels(end.response.status, end.method, host).inc()

    async def on_exception(
        _: aiohttp.ClientSession, __: SimpleNamespace, end: aiohttp.TraceRequestExceptionParams
    ) -> None:
        metrics.requests.labels(NO_ANSWER, end.method, end.url.authority).inc()

    config.on_request_end.append(on_end)
    config.on_request_exception.append(on_exception)
    return config


@asynccontextmanager
async def connect(
    identity: str, fence: Fence | None = None, metrics: Metrics | None = None
) -> AsyncIterator[Cluster]:
    """Open a connection with the pod's service account, or else with the user's kubeconfig.

    `identity` is that of this process alone.

    Raises:
        Unavailable: neither is there, or it cannot be read.
    """
    configuration = Configuration()
    # The library would take a proxy for the API server from the environment.
    configuration.client_session_kwargs = {"trust_env": False}
    configuration.trace_configs = [count_requests(metrics or Metrics())]
    try:
        if "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ:
            config.load_incluster_config(client_configuration=configuration)
        else:
            await config.load_kube_config(client_configuration=configuration)
    except config.ConfigException as error:
        raise Unavailable(f"no way to an API server: {error}; set KUBECONFIG") from error
    async with ApiClient(configuration) as client:
        client.user_agent = user_agent(identity)
        yield Cluster(client, fence)

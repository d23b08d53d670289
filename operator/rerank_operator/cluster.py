"""The only module that talks to the API server: get, list, apply, delete."""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.dynamic import DynamicClient

from rerank_operator.api import Manifest
from rerank_operator.errors import NotFound, Refused, Unavailable
from rerank_operator.names import FIELD_MANAGER, OWNER_LABEL, RERANKERS, Kind

# A call that hangs holds a worker; the queue retries, so there is no reason to wait longer.
TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=5)
PAGE_SIZE = 500
_APPLY = "application/apply-patch+yaml"
# Not a verdict on the object: conflict, expired, overload, and authentication that is renewed.
_PASSING = {401, 408, 409, 410, 429}


class Cluster:
    """Calls with a time limit, whose failures are the ones in `errors`."""

    def __init__(self, client: DynamicClient) -> None:
        self._client = client

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        """Return an object, or None if there is none."""
        try:
            return await self._request("get", f"{_path(kind, namespace)}/{name}")
        except NotFound:
            return None

    async def list(self, kind: Kind, namespaces: Sequence[str]) -> tuple[list[Manifest], int]:
        """Return all objects of `kind` that may concern us, and the version of the listing.

        No namespaces means all of them. Of several listings the oldest version counts.
        """
        items: list[Manifest] = []
        versions: list[int] = []
        scopes: Sequence[str | None] = namespaces or [None]
        for scope in scopes:
            token: str | None = None
            while True:
                page = await self._request(
                    "get",
                    _path(kind, scope),
                    label_selector=OWNER_LABEL if kind != RERANKERS else None,
                    limit=PAGE_SIZE,
                    _continue=token,
                )
                # Items of a list come without the two.
                known = {"apiVersion": kind.api_version, "kind": kind.name}
                items += [item | known for item in page["items"]]
                token = page["metadata"].get("continue")
                if not token:
                    versions.append(int(page["metadata"]["resourceVersion"]))
                    break
        return items, min(versions)

    async def apply(self, kind: Kind, manifest: Manifest) -> Manifest:
        """Write the full intent for one object and return the object as it is then."""
        return await self._apply(kind, manifest, "")

    async def apply_status(self, kind: Kind, manifest: Manifest) -> Manifest:
        """Write a whole status and return the object as it is then.

        Raises:
            NotFound: the object is gone.
        """
        return await self._apply(kind, manifest, "/status")

    async def delete(self, kind: Kind, manifest: Manifest) -> None:
        """Delete this very object, not one that has taken its name since."""
        metadata = manifest["metadata"]
        try:
            await self._request(
                "delete",
                f"{_path(kind, metadata['namespace'])}/{metadata['name']}",
                body={
                    "propagationPolicy": "Background",
                    "preconditions": {"uid": metadata["uid"]},
                },
            )
        except NotFound:
            return

    async def _apply(self, kind: Kind, manifest: Manifest, subresource: str) -> Manifest:
        metadata = manifest["metadata"]
        return await self._request(
            "patch",
            f"{_path(kind, metadata['namespace'])}/{metadata['name']}{subresource}",
            body=manifest,
            content_type=_APPLY,
            field_manager=FIELD_MANAGER,
            force_conflicts=True,
        )

    async def _request(self, method: str, path: str, **arguments: Any) -> Manifest:
        try:
            response = await self._client.request(
                method, path, serialize=False, _request_timeout=TIMEOUT, **arguments
            )
            answer: Manifest = await response.json()
        except ApiException as error:
            raise _translated(error, f"{method} {path}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"{method} {path}: {type(error).__name__}: {error}") from error
        return answer


def _translated(error: ApiException, request: str) -> Exception:
    message = error.summary() if hasattr(error, "summary") else str(error)
    if error.status == 404:
        return NotFound(message)
    # 500 is mostly about the object: a webhook is silent, no address is left for a Service.
    if error.status in _PASSING or error.status > 500:
        return Unavailable(f"{request}: {error.status}: {message}")
    return Refused(message)


def _path(kind: Kind, namespace: str | None) -> str:
    root = "/api" if "/" not in kind.api_version else "/apis"
    scope = f"/namespaces/{namespace}" if namespace is not None else ""
    return f"{root}/{kind.api_version}{scope}/{kind.plural}"


@asynccontextmanager
async def connect() -> AsyncIterator[Cluster]:
    """Open a connection with the pod's service account, or else with the user's kubeconfig."""
    configuration = Configuration()
    # The library would take a proxy for the API server from the environment.
    configuration.client_session_kwargs = {"trust_env": False}
    if "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ:
        config.load_incluster_config(client_configuration=configuration)
    else:
        await config.load_kube_config(client_configuration=configuration)
    async with ApiClient(configuration) as client:
        yield Cluster(DynamicClient(client))

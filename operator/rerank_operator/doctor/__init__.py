"""`rerank-operator doctor`: what a cluster lacks for the operator to do its work.

Each check reads something, as whoever runs it; `verdicts` says what that means.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from rerank_operator.api import Manifest
from rerank_operator.cluster import api_path
from rerank_operator.crd import build_crd
from rerank_operator.doctor.verdicts import (
    Finding,
    judge_accelerators,
    judge_definition,
    judge_keda,
    judge_operators,
    judge_rights,
    judge_storage,
    judge_version,
)
from rerank_operator.errors import NotFound, OperatorError, Refused
from rerank_operator.names import RERANKERS, Kind
from rerank_operator.rights import Right, lease_rights, rights
from rerank_operator.settings import Settings

OPERATOR_SELECTOR = "app.kubernetes.io/name=rerank-operator"
WHO_AM_I = Kind("authentication.k8s.io/v1", "selfsubjectreviews", "SelfSubjectReview")
MAY_I = Kind("authorization.k8s.io/v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview")


class Cluster(Protocol):
    """What a check asks of the API server. Each call raises one of `errors`."""

    async def read(self, path: str, label_selector: str | None = None) -> Manifest: ...

    async def review(self, kind: Kind, spec: Mapping[str, Any]) -> Manifest: ...


async def examine(cluster: Cluster, settings: Settings) -> AsyncIterator[Finding]:
    """Yield a finding for each thing that matters to an operator with these settings.

    When the API server does not answer, that is the only one.
    """
    try:
        version = await cluster.read("/version")
    except OperatorError as error:
        yield Finding("fail", "API server", f"{error}; does KUBECONFIG name the right cluster?")
        return
    yield judge_version(version)
    checks: list[tuple[str, Callable[[Cluster], Awaitable[list[Finding]]]]] = [
        ("definition", _definition),
        ("operator", _operator),
        ("KEDA", _keda),
        ("PodMonitor", _pod_monitor),
        ("accelerators", _accelerators),
        ("storage", _storage),
    ]
    for subject, check in checks:
        try:
            for finding in await check(cluster):
                yield finding
        except Refused as error:
            yield Finding("warn", subject, f"not checked, since you may not read it: {error}")
        except OperatorError as error:
            yield Finding("fail", subject, f"not checked: {error}")
    scopes = [(namespace, "", rights()) for namespace in settings.namespaces or [""]]
    if settings.lease:
        namespace, _, name = settings.lease.partition("/")
        scopes.append((namespace, name, lease_rights()))
    for namespace, name, wanted in scopes:
        try:
            yield await _rights(cluster, namespace, name, wanted)
        except OperatorError as error:
            yield Finding("fail", "rights", f"not checked: {error}")


async def _definition(cluster: Cluster) -> list[Finding]:
    wanted = build_crd()
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/" + wanted["metadata"]["name"]
    try:
        return [judge_definition(await cluster.read(path), wanted)]
    except NotFound:
        text = f"of {RERANKERS.name} is missing: install the chart, with crd.install=true"
        return [Finding("fail", "definition", text)]


async def _operator(cluster: Cluster) -> list[Finding]:
    found = await cluster.read("/apis/apps/v1/deployments", OPERATOR_SELECTOR)
    return judge_operators(found["items"])


async def _keda(cluster: Cluster) -> list[Finding]:
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    try:
        await cluster.read("/apis/keda.sh/v1alpha1")
    except NotFound:
        text = "not installed: autoscaling.type keda needs it, hpa does not"
        return [Finding("warn", "KEDA", text)]
    labels = (await cluster.read(f"{crds}/scaledobjects.keda.sh"))["metadata"].get("labels", {})
    try:
        await cluster.read("/apis/external.metrics.k8s.io/v1beta1")
    except OperatorError as error:
        text = f"its metrics API does not answer ({error}): kubectl get apiservice"
        return [Finding("fail", "KEDA", text)]
    return [judge_keda(labels.get("app.kubernetes.io/version", ""))]


async def _pod_monitor(cluster: Cluster) -> list[Finding]:
    try:
        found = await cluster.read("/apis/monitoring.coreos.com/v1")
    except NotFound:
        found = {"resources": []}
    if any(resource["name"] == "podmonitors" for resource in found["resources"]):
        return [Finding("ok", "PodMonitor", "its definition is installed")]
    text = "not installed: monitoring.podMonitor needs the Prometheus operator; leave it out"
    return [Finding("warn", "PodMonitor", text)]


async def _accelerators(cluster: Cluster) -> list[Finding]:
    nodes = await cluster.read("/api/v1/nodes")
    try:
        services = (await cluster.read(api_path(RERANKERS, None)))["items"]
    except OperatorError:
        services = []
    return judge_accelerators(nodes["items"], services)


async def _storage(cluster: Cluster) -> list[Finding]:
    classes = (await cluster.read("/apis/storage.k8s.io/v1/storageclasses"))["items"]
    return judge_storage(classes)


async def _rights(cluster: Cluster, namespace: str, name: str, wanted: Sequence[Right]) -> Finding:
    """Ask for each right on all objects, or on the one of that name."""
    user = (await cluster.review(WHO_AM_I, {}))["userInfo"]["username"]
    answers = await asyncio.gather(*(_may(cluster, right, namespace, name) for right in wanted))
    lacking = [right for right, allowed in zip(wanted, answers, strict=True) if not allowed]
    return judge_rights(user, lacking, len(wanted), namespace)


async def _may(cluster: Cluster, right: Right, namespace: str, name: str) -> bool:
    resource, _, subresource = right.resource.partition("/")
    attributes = {
        "group": right.group,
        "resource": resource,
        "subresource": subresource,
        "verb": right.verb,
        "namespace": namespace,
        "name": name,
    }
    answer = await cluster.review(MAY_I, {"resourceAttributes": attributes})
    return bool(answer["allowed"])

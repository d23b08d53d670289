"""How good or bad a thing is that a check has read, and what to do about it. Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from rerank_operator import __version__
from rerank_operator.api import Manifest
from rerank_operator.names import NO_ACCELERATOR
from rerank_operator.rights import Right

# For the native `preStop: sleep` of the model servers' pods.
OLDEST_MINOR = 30
OLDEST_KEDA = (2, 20)
DEFAULT_ACCELERATOR = "nvidia.com/gpu"
# Parts of provisioners' names. The API does not tell which access modes a class can give.
SHARED_STORAGE = re.compile(
    r"nfs|cephfs|efs\.csi|file\.csi\.azure|azure-file|filestore|longhorn|portworx|gluster|manila"
    r"|lustre|juicefs|weka|spectrumscale|beegfs|quobyte"
)
# Of a long list, so many are named.
NAMED = 4


class Finding(NamedTuple):
    """One line of the report: what was looked at, and how it is or what to do."""

    level: Literal["ok", "warn", "fail"]
    subject: str
    text: str

    def __str__(self) -> str:
        return f"{self.level:<5} {self.subject}: {self.text}"


def judge_version(version: Mapping[str, Any]) -> Finding:
    """Judge the API server's own account of itself."""
    name = version["gitVersion"]
    # Some providers write "30+".
    minor = int(re.sub(r"\D.*", "", version["minor"]))
    if (int(version["major"]), minor) < (1, OLDEST_MINOR):
        return Finding("fail", "API server", f"{name} is too old: upgrade to 1.{OLDEST_MINOR}")
    return Finding("ok", "API server", name)


def judge_definition(found: Manifest, wanted: Manifest) -> Finding:
    """Compare a CustomResourceDefinition with that of this version."""
    remedy = f"upgrade chart and operator to one version; this is {__version__}"
    (version,) = wanted["spec"]["versions"]
    held = next((v for v in found["spec"]["versions"] if v["name"] == version["name"]), None)
    if held is None:
        text = f"has no version {version['name']}: {remedy}"
        return Finding("fail", "definition", text)
    conditions = found.get("status", {}).get("conditions", [])
    if not any(c["type"] == "Established" and c["status"] == "True" for c in conditions):
        reasons = "; ".join(c.get("message", "") for c in conditions if c["status"] != "True")
        text = f"is not established: {reasons or 'try again in a moment'}"
        return Finding("fail", "definition", text)
    ours = fields(version["schema"]["openAPIV3Schema"])
    theirs = fields(held["schema"]["openAPIV3Schema"])
    if lacking := ours.keys() - theirs.keys():
        return Finding("fail", "definition", f"lacks {_some(lacking)}: {remedy}")
    if unknown := theirs.keys() - ours.keys():
        text = f"has {_some(unknown)}, which this version does not know: {remedy}"
        return Finding("warn", "definition", text)
    if other := {path for path, schema in ours.items() if theirs[path] != schema}:
        return Finding("warn", "definition", f"differs in {_some(other)}: {remedy}")
    return Finding("ok", "definition", f"{version['name']} of this version, {__version__}")


def fields(schema: Mapping[str, Any], path: str = "") -> dict[str, Mapping[str, Any]]:
    """Return each field below a schema, and what the schema says of it alone, by its path."""
    found: dict[str, Mapping[str, Any]] = {}
    for name, child in schema.get("properties", {}).items():
        below = f"{path}.{name}" if path else name
        found[below] = {key: value for key, value in child.items() if key not in _NESTED}
        found |= fields(child, below)
        for key in ("items", "additionalProperties"):
            if isinstance(child.get(key), Mapping):
                found |= fields(child[key], f"{below}[]")
    return found


_NESTED = {"properties", "items", "additionalProperties"}


def judge_operators(deployments: Sequence[Manifest]) -> list[Finding]:
    """Judge the Deployments that run operators."""
    if not deployments:
        return [Finding("warn", "operator", "not installed: helm install rerank-operator")]
    findings = []
    for deployment in deployments:
        metadata, status = deployment["metadata"], deployment.get("status", {})
        title = f"{metadata['namespace']}/{metadata['name']}"
        image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
        ready, wanted = status.get("readyReplicas", 0), deployment["spec"].get("replicas", 1)
        text = f"{title}, {image}, {ready} of {wanted} pods ready"
        if ready >= wanted > 0:
            findings.append(Finding("ok", "operator", text))
        else:
            remedy = f"kubectl logs -n {metadata['namespace']} deployment/{metadata['name']}"
            findings.append(Finding("warn" if ready else "fail", "operator", f"{text}: {remedy}"))
    return findings


def judge_keda(version: str) -> Finding:
    """Judge the version that KEDA's definitions carry."""
    numbers = re.findall(r"\d+", version)[:2]
    if len(numbers) < 2:
        return Finding("ok", "KEDA", "installed, in a version that it does not tell")
    if tuple(map(int, numbers)) < OLDEST_KEDA:
        oldest = ".".join(map(str, OLDEST_KEDA))
        return Finding("warn", "KEDA", f"{version} was not tried: upgrade to {oldest} or later")
    return Finding("ok", "KEDA", version)


def judge_accelerators(nodes: Sequence[Manifest], services: Sequence[Manifest]) -> list[Finding]:
    """Judge whether nodes have what is asked for, or what would be by default."""
    asked = {
        service["spec"].get("accelerator", {}).get("resource", DEFAULT_ACCELERATOR)
        for service in services
    } - {NO_ACCELERATOR}
    offers: dict[str, list[int]] = {}
    for node in nodes:
        for resource, count in node.get("status", {}).get("allocatable", {}).items():
            # Kubernetes' own have no prefix, or one of these.
            if "/" in resource and "kubernetes.io/" not in resource and int(count):
                offers.setdefault(resource, []).append(int(count))
    findings = []
    for resource in sorted(asked | {DEFAULT_ACCELERATOR}):
        if counts := offers.get(resource):
            text = f"{sum(counts)} of {resource} on {len(counts)} of {len(nodes)} nodes"
            findings.append(Finding("ok", "accelerators", text))
            continue
        others = f", or ask for {_some(offers)}" if offers else ""
        text = (
            f"no node offers {resource}: install its device plugin{others}, "
            f"or set accelerator.resource to {NO_ACCELERATOR} for the CPU"
        )
        findings.append(Finding("fail" if resource in asked else "warn", "accelerators", text))
    return findings


def judge_storage(classes: Sequence[Manifest]) -> list[Finding]:
    """Judge the StorageClasses that a model cache could use."""
    if not classes:
        text = "no StorageClass: leave `cache` out, or name an existingClaim"
        return [Finding("warn", "storage", text)]
    default = [
        storage["metadata"]["name"]
        for storage in classes
        if storage["metadata"].get("annotations", {}).get(_DEFAULT_CLASS) == "true"
    ]
    names = _some(storage["metadata"]["name"] for storage in classes)
    if default:
        first = Finding("ok", "storage", f"default StorageClass {default[0]}")
    else:
        text = f"no default StorageClass: set cache.storageClassName to one of {names}"
        first = Finding("warn", "storage", text)
    shared = [c["metadata"]["name"] for c in classes if SHARED_STORAGE.search(c["provisioner"])]
    if shared:
        text = f"ReadWriteMany, for pods on several nodes, is what {_some(shared)} should give"
        return [first, Finding("ok", "storage", text)]
    text = (
        f"of {names} none is known to give ReadWriteMany: with cache.accessModes ReadWriteOnce "
        "all pods of a service run on one node"
    )
    return [first, Finding("warn", "storage", text)]


_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


def judge_rights(user: str, lacking: Sequence[Right], count: int, namespace: str) -> Finding:
    """Judge what `user` may do of the `count` things that the operator does; "": everywhere."""
    where = f"in namespace {namespace}" if namespace else "in all namespaces"
    if not lacking:
        text = f"{user} may do all {count} things that the operator does, {where}"
        return Finding("ok", "rights", text)
    names = [f"{right.verb} {right.resource}.{right.group}".rstrip(".") for right in lacking]
    remedy = (
        "upgrade the chart, or bind its role"
        if user.startswith("system:serviceaccount:")
        else "let somebody who may install the chart, or name the namespaces with --namespace"
    )
    return Finding("fail", "rights", f"{user} may not {_some(names)} {where}: {remedy}")


def _some(names: Iterable[str]) -> str:
    """Return the names as one phrase, the first few of many."""
    listed = sorted(names)
    rest = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    return ", ".join(listed[:NAMED]) + rest

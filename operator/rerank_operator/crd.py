"""The CustomResourceDefinition, generated from the models in `api`."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from rerank_operator.api import Manifest, RerankerServiceDocument
from rerank_operator.api.schema import PRESERVED, RULES
from rerank_operator.errors import SchemaError
from rerank_operator.names import GROUP, RERANKERS, VERSION

# JSON Schema keywords pydantic can emit and a CRD cannot hold.
NOT_STRUCTURAL = {"exclusiveMinimum", "exclusiveMaximum", "prefixItems", "oneOf", "allOf"}

PRINTER_COLUMNS = [
    {"name": "Model", "type": "string", "jsonPath": ".spec.model.name"},
    {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
    {"name": "Serving", "type": "integer", "jsonPath": ".status.readyReplicas"},
    {
        "name": "Ready",
        "type": "string",
        "jsonPath": '.status.conditions[?(@.type=="Ready")].status',
    },
    {
        "name": "Reason",
        "type": "string",
        "jsonPath": '.status.conditions[?(@.type=="Ready")].reason',
    },
    {"name": "URL", "type": "string", "jsonPath": ".status.url"},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
]


def build_crd() -> Manifest:
    """Return the complete CustomResourceDefinition."""
    schema = structural_schema(RerankerServiceDocument)
    schema["description"] = "A reranker model, served to the cluster behind one URL."
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{RERANKERS.plural}.{GROUP}",
            # Uninstalling the chart must not delete every RerankerService with the definition.
            "annotations": {"helm.sh/resource-policy": "keep"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "plural": RERANKERS.plural,
                "singular": RERANKERS.name.lower(),
                "kind": RERANKERS.name,
                "listKind": f"{RERANKERS.name}List",
                "shortNames": ["rrs"],
                "categories": ["all"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "additionalPrinterColumns": PRINTER_COLUMNS,
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


def unknown_fields(body: Mapping[str, Any]) -> list[str]:
    """Return the paths in `body` that the schema does not know, as `kubectl apply` names them."""
    schema = structural_schema(RerankerServiceDocument)
    return list(_unknown(schema["properties"]["spec"], body.get("spec"), "spec"))


def _unknown(schema: Manifest, value: Any, path: str) -> Iterator[str]:
    known = schema.get("properties")
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unknown(schema.get("items", {}), item, f"{path}[{index}]")
    elif isinstance(value, dict) and known and not schema.keys() & PRESERVED.keys():
        for key, child in value.items():
            if key in known:
                yield from _unknown(known[key], child, f"{path}.{key}")
            else:
                yield f"{path}.{key}"


def structural_schema(model: type[BaseModel]) -> Manifest:
    """Describe `model` in the dialect a CustomResourceDefinition accepts.

    References are inlined, titles dropped, and `X | None` becomes `X`: in a manifest an absent
    key already means unset. An optional object of known fields defaults to `{}`, which
    is what makes the API server fill in the defaults inside it.

    Raises:
        SchemaError: a union of two types, a keyword in NOT_STRUCTURAL, or a string, list or map
            without an upper bound, over which no CEL rule could be afforded.

    Source: Kubernetes documentation, "Specifying a structural schema".
    """
    document = model.model_json_schema(by_alias=True)
    definitions = document.pop("$defs", {})

    def rewrite(node: Manifest, path: str) -> Manifest:
        node = {key: value for key, value in node.items() if key != "title"}
        if ref := node.pop("$ref", None):
            return rewrite(_over(definitions[ref.removeprefix("#/$defs/")], node), path)
        if node.get("x-kubernetes-int-or-string"):
            # The one union that is structural, in exactly this form.
            return node | {"anyOf": [{"type": "integer"}, {"type": "string"}]}
        if options := node.pop("anyOf", None):
            real, *others = [option for option in options if option != {"type": "null"}]
            if others:
                raise SchemaError(f"{path}: no structural form for {options}")
            node.pop("default", None)
            return rewrite(_over(real, node), path)
        if "const" in node:
            node["enum"] = [node.pop("const")]
        if refused := NOT_STRUCTURAL & node.keys():
            raise SchemaError(f"{path}: {sorted(refused)} cannot be in a CRD")
        # Names of map keys are strings of a bounded count; a CRD cannot say more about them.
        node.pop("propertyNames", None)
        if node.get("additionalProperties") is True:
            del node["additionalProperties"]
        if "description" in node:
            node["description"] = " ".join(node["description"].split())
        if "properties" in node:
            required = node.get("required", [])
            node["properties"] = {
                key: _defaulted(rewrite(child, f"{path}.{key}"), key in required or _null(child))
                for key, child in node["properties"].items()
            }
        for key in ("items", "additionalProperties"):
            if isinstance(node.get(key), dict):
                node[key] = rewrite(node[key], f"{path}[]")
        _require_bound(node, path)
        return node

    return rewrite(document, model.__name__)


def _over(definition: Manifest, node: Manifest) -> Manifest:
    """Return `definition` with what is said at the place of its use; rules of both hold."""
    entries = [*definition.get(RULES, []), *node.get(RULES, [])]
    return definition | node | ({RULES: entries} if entries else {})


def _null(node: Manifest) -> bool:
    return {"type": "null"} in node.get("anyOf", [])


def _defaulted(node: Manifest, absent_is_unset: bool) -> Manifest:
    fields = node.keys() >= {"properties"} and not node.keys() & PRESERVED.keys()
    return node | {"default": {}} if fields and not absent_is_unset else node


def _require_bound(node: dict[str, Any], path: str) -> None:
    bounds = {
        "string": {"maxLength", "enum", "format"},
        "array": {"maxItems"},
        "object": {"maxProperties", "properties", *PRESERVED},
    }
    if (wanted := bounds.get(node.get("type", ""))) and not wanted & node.keys():
        raise SchemaError(f"{path}: one of {sorted(wanted)} is needed")

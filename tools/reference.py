"""Print docs/reference.md: every field of a RerankerService, from its CustomResourceDefinition."""

import json
from typing import Any, NamedTuple

from rerank_operator.crd import build_crd

HEAD = """\
# RerankerService

`{api_version}`, kind `{kind}`, short name `{short}`. This page is generated from the
CustomResourceDefinition; `kubectl explain rerankerservice.spec --recursive` tells the same. Only
`spec.model.name` is required.

A type with a link has a table of its own. A field without a default is unset; what that means is
said where it matters. `kubectl apply` refuses a value out of bounds, an unknown field, and what is
listed below a table. What shows only later, such as a Secret that is missing, is told by a
condition of the status.
"""
BOUNDS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "maxLength": "{} characters",
    "maxItems": "{} items",
    "maxProperties": "{} entries",
}
Node = dict[str, Any]
PRESERVED = "x-kubernetes-preserve-unknown-fields"


def main() -> None:
    """Write the page to stdout."""
    spec = build_crd()["spec"]
    version = spec["versions"][0]
    head = HEAD.format(
        api_version=f"{spec['group']}/{version['name']}",
        kind=spec["names"]["kind"],
        short=spec["names"]["shortNames"][0],
    )
    sections: dict[str, Section] = {}
    for name in ("spec", "status"):
        _collect(version["schema"]["openAPIV3Schema"]["properties"][name], name, sections)
    print("\n".join([head, *(_text(section, sections) for section in sections.values())]), end="")


class Section(NamedTuple):
    """An object, and the paths at which such a one is found."""

    paths: list[str]
    node: Node


def _collect(node: Node, path: str, sections: dict[str, Section]) -> None:
    """Add an object and those in it; several that are alike share a section."""
    if known := sections.get(_likeness(node)):
        known.paths.append(path)
        return
    sections[_likeness(node)] = Section([path], node)
    for name, child in node["properties"].items():
        if _is_object(child):
            _collect(child, f"{path}.{name}", sections)
        elif _is_object(child.get("items", {})):
            _collect(child["items"], f"{path}.{name}[]", sections)


def _likeness(node: Node) -> str:
    return json.dumps([node["properties"], node.get("x-kubernetes-validations")])


def _text(section: Section, sections: dict[str, Section]) -> str:
    node = section.node
    path, *others = section.paths
    about = f"The same as in {', '.join(f'`{other}`' for other in others)}."
    lines = [f"## {path}", "", about if others else node["description"], ""]
    lines += ["| field | type | default | bounds | meaning |", "|---|---|---|---|---|"]
    for name, child in node["properties"].items():
        required = " (required)" if name in node.get("required", []) else ""
        cells = [
            f"`{name}`{required}",
            _type(child, sections),
            _default(child),
            _bounds(child),
            child["description"],
        ]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    if refusals := [f"- {message}" for message in _refusals(node)]:
        lines += ["", "Refused when applied:", "", *refusals]
    return "\n".join([*lines, ""])


def _type(node: Node, sections: dict[str, Section]) -> str:
    if _is_object(node):
        return f"[object](#{_anchor(sections[_likeness(node)].paths[0])})"
    if "items" in node:
        return f"list of {_type(node['items'], sections)}"
    if "additionalProperties" in node:
        return f"map of {_type(node['additionalProperties'], sections)}"
    return "quantity" if node.get("x-kubernetes-int-or-string") else str(node["type"])


def _default(node: Node) -> str:
    # `{}` only has the API server fill in what is in the object's own table.
    return f"`{json.dumps(node['default'])}`" if node.get("default", {}) != {} else ""


def _bounds(node: Node) -> str:
    if choices := node.get("enum"):
        return ", ".join(f"`{choice}`" for choice in choices)
    return ", ".join(text.format(f"{node[key]:,}") for key, text in BOUNDS.items() if key in node)


def _is_object(node: Node) -> bool:
    return "properties" in node and PRESERVED not in node


def _anchor(heading: str) -> str:
    """Return what a heading is linked by: lower case letters, digits and dashes are kept."""
    return "".join(letter for letter in heading.lower() if letter.isalnum() or letter in "-_")


def _refusals(node: Node) -> list[str]:
    """Return what the rules of an object, and of those fields of it that are no objects, say."""
    nodes = [node]
    for child in node["properties"].values():
        parts = (child, child.get("items", {}), child.get("additionalProperties", {}))
        nodes += [part for part in parts if not _is_object(part)]
    rules = [rule for part in nodes for rule in part.get("x-kubernetes-validations", [])]
    return list(dict.fromkeys(rule["message"] for rule in rules))


if __name__ == "__main__":
    main()

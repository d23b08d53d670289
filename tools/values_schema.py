"""Print the JSON Schema of a chart's values: the types found in values.yaml, and no other key.

A map that is empty takes anything, since it does not show more.
"""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

# What the values themselves cannot show.
ENUMS = {
    "pullPolicy": ["Always", "IfNotPresent", "Never"],
    "logLevel": ["DEBUG", "INFO", "WARNING", "ERROR"],
}
# Passed on to Kubernetes as they are: the values are examples, not the shape.
FREE = {"resources"}
# Lists of objects; all others hold strings.
OBJECT_LISTS = {"tolerations"}


def schema(value: Any, name: str = "") -> dict[str, Any]:
    """Return the schema of one value and all below it."""
    if isinstance(value, dict):
        if not value or name in FREE:
            return {"type": "object"}
        return {
            "type": "object",
            "additionalProperties": False,
            "properties": {key: schema(child, key) for key, child in value.items()},
        }
    if isinstance(value, list):
        return {"type": "array", "items": {"type": "object" if name in OBJECT_LISTS else "string"}}
    if isinstance(value, bool):
        return {"type": "boolean"}
    if isinstance(value, int):
        return {"type": "integer"}
    return {"type": "string"} | ({"enum": ENUMS[name]} if name in ENUMS else {})


def main() -> None:
    """Read the file named on the command line."""
    values = yaml.safe_load(Path(sys.argv[1]).read_text())
    # Helm passes `global` to every chart that is part of another one.
    document = schema(values)
    document["properties"]["global"] = {"type": "object"}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    print(json.dumps(head | document, indent=2))


if __name__ == "__main__":
    main()

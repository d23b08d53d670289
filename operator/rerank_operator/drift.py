"""Whether an observed object still holds what we want in it. Pure."""

import json
from collections.abc import Mapping, Sequence
from decimal import MAX_EMAX, MIN_EMIN, ROUND_CEILING, Context, Decimal
from hashlib import sha256
from typing import Any

from rerank_operator.api import Manifest

# Fields that hold quantities, which the API server rewrites: 1000m comes back as 1.
_QUANTITY_MAPS = {"requests", "limits"}
_QUANTITIES = {"sizeLimit", "averageValue"}
# Wide enough for every digit that the schema lets through.
_EXACT = Context(prec=64, Emax=MAX_EMAX, Emin=MIN_EMIN)
# By what server-side apply merges lists of objects; a volume's name is in several mounts.
_MERGE_KEYS = ("mountPath", "name", "containerPort", "uid")
_SUFFIXES = {
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate("num kMGTPE", start=-3)},
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", start=1)},
}


def digest(manifest: Manifest) -> str:
    """Return a short hash of `manifest`, the same for the same content."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return sha256(text.encode()).hexdigest()[:16]


def holds(observed: Any, wanted: Any) -> bool:
    """Tell whether every value in `wanted` is in `observed`, whatever else is there.

    Others may add keys and list items of their own; defaults that the API server fills in are such.
    Lists of plain values are compared whole. What we no longer want is not seen here: that is what
    the hash on the object is for.
    """
    if isinstance(wanted, Mapping):
        return isinstance(observed, Mapping) and all(
            _same_field(key, observed.get(key), value) for key, value in wanted.items()
        )
    if isinstance(wanted, Sequence) and not isinstance(wanted, str):
        return isinstance(observed, Sequence) and _same_list(observed, wanted)
    return bool(observed == wanted)


def _same_field(key: str, observed: Any, wanted: Any) -> bool:
    if key in _QUANTITY_MAPS and isinstance(wanted, Mapping):
        return isinstance(observed, Mapping) and all(
            name in observed and quantity(observed[name]) == quantity(value)
            for name, value in wanted.items()
        )
    if key in _QUANTITIES:
        return observed is not None and quantity(observed) == quantity(wanted)
    return holds(observed, wanted)


def _same_list(observed: Sequence[Any], wanted: Sequence[Any]) -> bool:
    if not all(isinstance(item, Mapping) for item in [*observed, *wanted]):
        return list(observed) == list(wanted)
    merge_key = next((key for key in _MERGE_KEYS if all(key in item for item in wanted)), None)
    if merge_key is None:
        return len(observed) == len(wanted) and all(map(holds, observed, wanted))
    by_key = {item.get(merge_key): item for item in observed}
    return all(holds(by_key.get(item[merge_key]), item) for item in wanted)


def quantity(text: str | int) -> Decimal:
    """Return a Kubernetes quantity, which the API server has already checked, in thousandths.

    Rounded up, as the API server does with what a container asks for: 1u comes back as 1m.

    Source: k8s.io/apimachinery/pkg/api/resource, the grammar above `type Quantity`;
    k8s.io/kubernetes/pkg/apis/core/v1, `SetDefaults_ResourceList`.
    """
    text = str(text)
    number = text.rstrip("numkKMGTPEi")
    thousandths = 1000 * _SUFFIXES.get(text[len(number) :], Decimal(1))
    value = _EXACT.multiply(Decimal(number), thousandths)
    return value.to_integral_value(ROUND_CEILING, _EXACT)

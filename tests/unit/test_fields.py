"""Every field of the spec changes exactly the children, and the places in them, that it is for."""

from typing import Any

import pytest

from builders import make_body
from fields import FIELDS, PRESENT, covered_paths, places, schema_paths, spec_with
from rerank_operator.api import Manifest, parse
from rerank_operator.api.variables import RESERVED_VARIABLES
from rerank_operator.resources import desired
from rerank_operator.resources.environment import environment, secret_environment
from rerank_operator.settings import Settings


def children(spec: Manifest) -> dict[str, Manifest]:
    body = make_body(**spec)
    return {child["kind"]: child for child in desired(parse(body), Settings())}


def test_every_field_of_the_schema_has_an_entry() -> None:
    assert covered_paths() == schema_paths()


@pytest.mark.parametrize("path", FIELDS)
def test_field_changes_what_it_is_about_and_nothing_else(path: str) -> None:
    change = FIELDS[path]
    empty = spec_with("model.name", "Qwen/Qwen3-Reranker-0.6B", change.others)

    before = children(empty)
    after = children(spec_with(path, change.value, change.others))

    assert differences(before, after) == change.seen


def differences(before: dict[str, Manifest], after: dict[str, Manifest]) -> dict[str, Any]:
    """Return what each place holds that holds something else now; None where nothing is left."""
    new, gone = after.keys() - before.keys(), before.keys() - after.keys()
    old_places = places({kind: child for kind, child in before.items() if kind not in gone})
    new_places = places({kind: child for kind, child in after.items() if kind not in new})
    changed = {
        place: new_places.get(place)
        for place in old_places | new_places
        if old_places.get(place) != new_places.get(place)
    }
    return changed | dict.fromkeys(new, PRESENT) | dict.fromkeys(gone)


def test_variables_that_the_operator_sets_are_the_reserved_ones() -> None:
    names: set[str] = set()
    for path, change in FIELDS.items():
        reranker = parse(make_body(**spec_with(path, change.value, change.others)))
        names |= environment(reranker).keys() | secret_environment(reranker).keys()

    assert names == set(RESERVED_VARIABLES)

"""Every field of the spec reaches the cluster and goes again, and no pass finds it drifted."""

from typing import Any

import pytest
import yaml

from apiserver.controlplane import ControlPlane, eventually
from apiserver.objects import Objects
from apiserver.operator_process import OperatorProcess
from builders import make_body
from fields import FIELDS, PRESENT, covered_paths, places, schema_paths, spec_with
from rerank_operator import names
from rerank_operator.api import Manifest, ModelStatus, parse
from rerank_operator.drift import holds
from rerank_operator.resources import desired
from rerank_operator.resources.cache import Found
from rerank_operator.settings import Settings

# That of `builders`, which the values in `fields` hold.
NAMESPACE = "search"
CLAIM = "PersistentVolumeClaim"
MODEL = "Qwen/Qwen3-Reranker-0.6B"
# What cache.existingClaim names.
MODELS = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "models"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
}


@pytest.fixture(scope="module")
def shared(plane: ControlPlane, operator: OperatorProcess) -> Objects:
    """One object, which each test changes and changes back."""
    plane.kubectl("create", "namespace", NAMESPACE)
    plane.apply(yaml.safe_dump(MODELS), NAMESPACE)
    demo = Objects(plane, NAMESPACE)
    demo.create()
    return demo


def test_every_field_of_the_schema_is_tried_below() -> None:
    assert covered_paths() == schema_paths()


@pytest.mark.parametrize("path", FIELDS)
def test_field_reaches_the_cluster_and_goes_again(shared: Objects, path: str) -> None:
    change = FIELDS[path]
    without = spec_with("model.name", MODEL, change.others)
    spec = spec_with(path, change.value, change.others)
    before = become(shared, without)

    changed = become(shared, spec)

    found = places(changed)
    missed = [place for place in change.seen if not seen(found, change.seen, place)]
    assert missed == []
    assert become(shared, without) == before


def become(shared: Objects, spec: Manifest) -> dict[str, Manifest]:
    """Ask for `spec`, and return the children once no pass would put any of them back."""
    shared.replace(spec)
    eventually(lambda: settled(shared.get()))
    # A volume outlives what was asked for before, and most of it cannot be changed.
    cache = spec.get("cache")
    if held := shared.child(CLAIM):
        shared.forget_claim()
        if cache is not None and "existingClaim" not in cache:
            eventually(lambda: uid(shared.child(CLAIM)) not in (None, uid(held)))
    if cache is not None and cache.get("prefetch", True):
        eventually(lambda: shared.child("Job"))
        shared.finish_download()
        eventually(lambda: shared.condition("ModelCached")["status"] == "True")
    eventually(lambda: settled(shared.get()))
    eventually(lambda: drifted(shared, children_of(shared), spec) == [])
    return children_of(shared)


def children_of(shared: Objects) -> dict[str, Manifest]:
    children = {kind: intent(shared.child(kind)) for kind in shared.children}
    return {kind: child for kind, child in children.items() if child}


def uid(child: Manifest) -> Any:
    return child["metadata"]["uid"] if child else None


def settled(body: Manifest) -> bool:
    """Tell whether the operator has answered, and waits for nothing that goes first."""
    status = body["status"]
    reasons = {condition["reason"] for condition in status["conditions"]}
    seen = status["observedGeneration"] == body["metadata"]["generation"]
    return seen and names.AUTOSCALER_SWITCHING not in reasons


def intent(child: Manifest) -> Manifest:
    """Return what a child says, without what each write of it moves."""
    if not child:
        return {}
    if child["kind"] == "Job":
        # The rest is about this very Job.
        return {"spec": child["spec"]["template"]["spec"]}
    labels = {"labels": child["metadata"]["labels"]}
    return {key: child[key] for key in child if key != "status"} | {"metadata": labels}


def seen(found: dict[str, Any], expected: dict[str, Any], place: str) -> bool:
    if expected[place] is None:
        return place not in found
    if expected[place] == PRESENT:
        return place in found
    name = place.rpartition("/")[2]
    return holds({name: found.get(place)}, {name: expected[place]})


def drifted(shared: Objects, children: dict[str, Manifest], spec: Manifest) -> list[str]:
    """Return the kinds of children that the next pass would put back."""
    reranker = parse(make_body(namespace=NAMESPACE, **spec))
    claim = MODELS if "existingClaim" in spec.get("cache", {}) else children.get(CLAIM)
    told = shared.get()["status"].get("model")
    model = ModelStatus.model_validate(told) if told else None
    found = Found(claim, model, waits=False, downloads=False)
    wanted = desired(reranker, Settings(), found=found)
    return [
        child["kind"]
        for child in wanted
        if not holds(children[child["kind"]].get("spec"), child.get("spec"))
    ]

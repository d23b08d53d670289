"""A wrong object is refused by kubectl, with a sentence that names the field."""

import pytest

from lab.errors import LabError
from lab.target import Target

OBJECT = """
apiVersion: rerank.dev/v1alpha1
kind: RerankerService
metadata: {name: wrong}
spec: %s
"""


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ("{}", "spec.model"),
        ("{model: {}}", "spec.model.name"),
        ('{model: {name: ""}}', "spec.model.name"),
        ("{model: {name: ../../etc/passwd}}", "spec.model.name"),
        ("{model: {name: a/b}, replicas: -1}", "spec.replicas"),
        ("{model: {name: a/b}, replicas: many}", "spec.replicas"),
        ("{model: {name: a/b}, engine: {dtype: float64}}", "spec.engine.dtype"),
        ("{model: {name: a/b}, engine: {tensorParallelSize: 0}}", "spec.engine.tensorParallelSize"),
        ("{model: {name: a/b}, engne: {}}", "spec.engne"),
    ],
)
def test_kubectl_apply_names_the_field(kube: Target, namespace: str, spec: str, field: str) -> None:
    with pytest.raises(LabError) as refusal:
        kube.kubectl("apply", f"--namespace={namespace}", "-f", "-", stdin=OBJECT % spec)

    assert field in str(refusal.value)

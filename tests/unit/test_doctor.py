from collections.abc import AsyncIterator, Mapping
from copy import deepcopy
from typing import Any

import pytest

from rerank_operator.api import Manifest
from rerank_operator.crd import build_crd
from rerank_operator.doctor import MAY_I, WHO_AM_I, examine
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
from rerank_operator.errors import NotFound, Refused, Unavailable
from rerank_operator.names import Kind
from rerank_operator.rights import Right, rights
from rerank_operator.settings import Settings


@pytest.mark.parametrize(
    ("minor", "level"), [("30", "ok"), ("35+", "ok"), ("29", "fail"), ("29+", "fail")]
)
def test_api_server_is_old_enough(minor: str, level: str) -> None:
    finding = judge_version({"major": "1", "minor": minor, "gitVersion": f"v1.{minor}"})

    assert finding.level == level


def make_definition() -> Manifest:
    """Return our definition as a cluster that has established it holds it."""
    definition = deepcopy(build_crd())
    definition["status"] = {"conditions": [{"type": "Established", "status": "True"}]}
    return definition


def spec_of(definition: Manifest) -> dict[str, Any]:
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    properties: dict[str, Any] = schema["properties"]["spec"]["properties"]
    return properties


def test_definition_of_this_version_is_right() -> None:
    assert judge_definition(make_definition(), build_crd()).level == "ok"


def test_definition_that_lacks_a_field_fails_by_the_fields_name() -> None:
    found = make_definition()
    del spec_of(found)["drainSeconds"]

    finding = judge_definition(found, build_crd())

    assert finding.level == "fail"
    assert "lacks spec.drainSeconds: upgrade" in finding.text


def test_definition_with_a_field_of_a_later_version_is_worth_a_warning() -> None:
    found = make_definition()
    spec_of(found)["future"] = {"type": "string"}

    finding = judge_definition(found, build_crd())

    assert finding.level == "warn"
    assert "spec.future" in finding.text


def test_definition_with_another_rule_is_worth_a_warning() -> None:
    found = make_definition()
    spec_of(found)["replicas"]["maximum"] = 5

    finding = judge_definition(found, build_crd())

    assert finding.level == "warn"
    assert "differs in spec.replicas" in finding.text


def test_definition_that_is_not_established_fails_with_the_reason() -> None:
    found = make_definition()
    found["status"]["conditions"] = [
        {"type": "Established", "status": "False", "message": "the name is taken"}
    ]

    finding = judge_definition(found, build_crd())

    assert finding.level == "fail"
    assert "the name is taken" in finding.text


def test_definition_without_this_version_fails() -> None:
    found = make_definition()
    found["spec"]["versions"][0]["name"] = "v1"

    assert "no version v1alpha1" in judge_definition(found, build_crd()).text


@pytest.mark.parametrize(
    ("version", "level"),
    [("2.20.0", "ok"), ("v2.21.1", "ok"), ("3.0.0", "ok"), ("2.9.0", "warn"), ("", "ok")],
)
def test_keda_is_old_enough(version: str, level: str) -> None:
    assert judge_keda(version).level == level


GPU = {"status": {"allocatable": {"cpu": "4", "nvidia.com/gpu": "4"}}}
BARE = {"status": {"allocatable": {"cpu": "4", "hugepages-2Mi": "0", "nvidia.com/gpu": "0"}}}


def service(resource: str) -> Manifest:
    return {"spec": {"accelerator": {"resource": resource}}}


def test_accelerators_are_counted_over_nodes() -> None:
    (finding,) = judge_accelerators([GPU, GPU, BARE], [])

    assert finding == Finding("ok", "accelerators", "8 of nvidia.com/gpu on 2 of 3 nodes")


def test_accelerator_that_nobody_asks_for_yet_is_worth_a_warning() -> None:
    (finding,) = judge_accelerators([BARE], [service("none")])

    assert finding.level == "warn"
    assert "set accelerator.resource to none" in finding.text


def test_accelerator_that_a_service_asks_for_in_vain_fails_and_names_what_there_is() -> None:
    first, second = judge_accelerators([GPU], [service("amd.com/gpu"), service("nvidia.com/gpu")])

    assert (first.level, second.level) == ("fail", "ok")
    assert "no node offers amd.com/gpu" in first.text
    assert "or ask for nvidia.com/gpu" in first.text


def storage_class(name: str, provisioner: str, default: bool = False) -> Manifest:
    annotations = {"storageclass.kubernetes.io/is-default-class": str(default).lower()}
    return {"metadata": {"name": name, "annotations": annotations}, "provisioner": provisioner}


def test_storage_wants_a_default_class_and_one_that_is_shared() -> None:
    findings = judge_storage(
        [
            storage_class("fast", "ebs.csi.aws.com", default=True),
            storage_class("shared", "efs.csi.aws.com"),
        ]
    )

    assert [finding.level for finding in findings] == ["ok", "ok"]
    assert "fast" in findings[0].text
    assert "shared" in findings[1].text


def test_storage_without_either_is_worth_two_warnings() -> None:
    findings = judge_storage([storage_class("local", "rancher.io/local-path")])

    assert [finding.level for finding in findings] == ["warn", "warn"]
    assert "set cache.storageClassName to one of local" in findings[0].text
    assert "ReadWriteOnce" in findings[1].text


def test_no_storage_class_is_worth_a_warning() -> None:
    assert [finding.level for finding in judge_storage([])] == ["warn"]


@pytest.mark.parametrize(("ready", "level"), [(2, "ok"), (1, "warn"), (0, "fail")])
def test_operator_has_its_pods(ready: int, level: str) -> None:
    container = {"image": "registry/rerank-operator:0.1.0"}
    deployment = {
        "metadata": {"name": "rerank-operator", "namespace": "rerank-system"},
        "spec": {"replicas": 2, "template": {"spec": {"containers": [container]}}},
        "status": {"readyReplicas": ready},
    }

    (finding,) = judge_operators([deployment])

    assert finding.level == level
    assert f"{ready} of 2 pods ready" in finding.text


def test_operator_that_is_not_there_is_worth_a_warning() -> None:
    assert [finding.level for finding in judge_operators([])] == ["warn"]


def test_missing_rights_are_named_with_a_remedy_for_who_asks() -> None:
    lacking = [Right("apps", "deployments", "patch"), Right("", "pods", "watch")]

    of_operator = judge_rights("system:serviceaccount:a:b", lacking, 5, "search")
    of_user = judge_rights("alice", lacking, 5, "")

    assert "may not patch deployments.apps, watch pods in namespace search" in of_operator.text
    assert "upgrade the chart" in of_operator.text
    assert "in all namespaces: let somebody" in of_user.text


def test_many_missing_rights_are_counted() -> None:
    assert f"and {len(rights()) - 4} more" in judge_rights("alice", rights(), 5, "").text


class FakeCluster:
    """Answers each path with an object or a failure; what it does not know is not there."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.asked: list[dict[str, str]] = []

    async def read(self, path: str, label_selector: str | None = None) -> Manifest:
        answer = self.answers.get(path, NotFound("404"))
        if isinstance(answer, Exception):
            raise answer
        found: Manifest = answer
        return found

    async def review(self, kind: Kind, spec: Mapping[str, Any]) -> Manifest:
        if kind == WHO_AM_I:
            return {"userInfo": {"username": "alice"}}
        assert kind == MAY_I
        self.asked.append(spec["resourceAttributes"])
        return {"allowed": True}


VERSION = {"major": "1", "minor": "35", "gitVersion": "v1.35.0"}


async def collect(findings: AsyncIterator[Finding]) -> dict[str, Finding]:
    return {finding.subject: finding async for finding in findings}


async def test_server_that_does_not_answer_is_the_one_finding() -> None:
    findings = await collect(examine(FakeCluster({"/version": Unavailable("no")}), Settings()))

    assert set(findings) == {"API server"}
    assert findings["API server"].level == "fail"


async def test_what_may_not_be_read_is_a_warning_and_the_rest_is_examined() -> None:
    answers = {
        "/version": VERSION,
        "/apis/apps/v1/deployments": {"items": []},
        "/apis/storage.k8s.io/v1/storageclasses": {"items": []},
        "/api/v1/nodes": Refused("nodes is forbidden"),
    }

    findings = await collect(examine(FakeCluster(answers), Settings()))

    levels = {subject: finding.level for subject, finding in findings.items()}
    assert levels == {
        "API server": "ok",
        "definition": "fail",
        "operator": "warn",
        "KEDA": "warn",
        "PodMonitor": "warn",
        "accelerators": "warn",
        "storage": "warn",
        "rights": "ok",
    }
    assert "nodes is forbidden" in findings["accelerators"].text


async def test_keda_whose_metrics_do_not_answer_fails() -> None:
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    answers = {
        "/version": VERSION,
        "/apis/keda.sh/v1alpha1": {},
        f"{crds}/scaledobjects.keda.sh": {
            "metadata": {"labels": {"app.kubernetes.io/version": "2.20.1"}}
        },
    }

    without = await collect(examine(FakeCluster(answers), Settings()))
    answers["/apis/external.metrics.k8s.io/v1beta1"] = {}
    with_ = await collect(examine(FakeCluster(answers), Settings()))

    assert without["KEDA"].level == "fail"
    assert with_["KEDA"] == Finding("ok", "KEDA", "2.20.1")


async def test_rights_are_asked_for_where_the_operator_needs_them() -> None:
    cluster = FakeCluster({"/version": VERSION})
    settings = Settings(namespaces=("search", "rag"), lease="rerank-system/rerank-operator")

    await collect(examine(cluster, settings))

    asked = [
        (one["namespace"], one["verb"], one["resource"], one["subresource"], one["name"])
        for one in cluster.asked
    ]
    assert ("search", "patch", "rerankerservices", "status", "") in asked
    assert ("rag", "create", "deployments", "", "") in asked
    assert ("rerank-system", "update", "leases", "", "rerank-operator") in asked
    assert len(asked) == 2 * len(rights()) + 3

"""Restarting and removing the operator disturbs nothing."""

import json

import pytest

from lab.observe import children, eventually, ready
from lab.target import NAMESPACE, RELEASE, Target

OPERATOR = f"system:serviceaccount:{NAMESPACE}:{RELEASE}"
WRITES = {"create", "update", "patch", "delete", "deletecollection"}


def test_restart_in_steady_state_writes_nothing(
    kube: Target, namespace: str, served: str, idle: str
) -> None:
    if not kube.audit_log:
        pytest.skip("writes are counted in the lab's audit log; another cluster's is out of reach")
    deployment = f"deployment/{RELEASE}"
    where = f"--namespace={NAMESPACE}"
    eventually(lambda: ready(kube, served, namespace), "all is settled")
    mark = kube.audit_log.stat().st_size

    kube.kubectl("rollout", "restart", deployment, where)
    kube.kubectl("rollout", "status", deployment, where, "--timeout=120s")
    # The new process has seen every object once it has acted on a change.
    patch = json.dumps({"spec": {"drainSeconds": 61}})
    kube.kubectl(
        "patch", "rerankerservice", idle, f"--namespace={namespace}", "--type=merge", "-p", patch
    )
    eventually(lambda: ready(kube, idle, namespace), "the new operator acts")

    writes = _writes(kube, mark)
    assert {name for _, name in writes} == {idle}, writes


def test_killed_leader_is_replaced(kube: Target, namespace: str, idle: str) -> None:
    where = f"--namespace={NAMESPACE}"

    def leader() -> str:
        spec = kube.get("lease", RELEASE, where)["spec"]
        pod: str = spec.get("holderIdentity", "").rpartition("_")[0]
        return pod

    eventually(leader, "one of the pods leads")
    killed = leader()
    kube.kubectl("delete", "pod", killed, where, "--grace-period=0", "--force")
    # Until its node has killed it, it acts.
    eventually(lambda: leader() not in ("", killed), "the other one leads", seconds=20)
    patch = json.dumps({"spec": {"drainSeconds": 62}})
    kube.kubectl(
        "patch", "rerankerservice", idle, f"--namespace={namespace}", "--type=merge", "-p", patch
    )

    eventually(lambda: ready(kube, idle, namespace), "the other one acts", seconds=5)

    kube.kubectl("rollout", "status", f"deployment/{RELEASE}", where, "--timeout=120s")


def test_uninstall_keeps_the_crd_and_its_objects(kube: Target, namespace: str, served: str) -> None:
    before = {child["metadata"]["uid"] for child in children(kube, served, namespace)}

    kube.helm("uninstall", RELEASE, f"--namespace={NAMESPACE}", "--wait")
    kept = kube.get("rerankerservice", served, f"--namespace={namespace}")
    kube.install()

    assert kept["metadata"]["name"] == served
    assert {child["metadata"]["uid"] for child in children(kube, served, namespace)} == before
    eventually(lambda: ready(kube, served, namespace), "it is Ready under the new operator")


def _writes(kube: Target, mark: int) -> list[tuple[str, str]]:
    """Return (verb, object) of each write that the operator made since `mark` in the audit log.

    Its Lease apart, which says every other second that it is there.
    """
    assert kube.audit_log
    with kube.audit_log.open() as log:
        log.seek(mark)
        events = [json.loads(line) for line in log]
    ours = [event for event in events if event["user"]["username"] == OPERATOR]
    assert any(event["verb"] == "watch" for event in ours), "the log does not show the operator"
    return [
        (event["verb"], event["objectRef"].get("name", ""))
        for event in ours
        if event["verb"] in WRITES and event["objectRef"]["resource"] != "leases"
    ]

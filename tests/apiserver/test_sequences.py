"""Whatever is done in whichever order: the end is what a fresh start would make of it."""

import signal
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, settings  # schemathesis brings it
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from apiserver import fresh
from apiserver.controlplane import ControlPlane, eventually
from apiserver.objects import Objects
from apiserver.operator_process import OperatorProcess
from apiserver.standin_controllers import Controllers
from builders import make_body

KEDA = {"type": "keda", "maxReplicas": 4}
# Changes of the spec; None takes a field out.
CHANGES: list[dict[str, Any]] = [
    *({"replicas": number} for number in (0, 1, 2, 3)),
    *({"networkPolicy": value} for value in (None, {"enabled": True})),
    *({"monitoring": value} for value in (None, {"podMonitor": True})),
    *({"autoscaling": value} for value in (None, KEDA)),
    *({"cache": value} for value in (None, {"retain": False}, {"retain": True})),
    *({"paused": value} for value in (True, False)),
    *({"engine": {"maxModelLen": value}} for value in (None, 512)),
    *({"model": {"name": name}} for name in ("org/first", "org/second")),
]
# Hand edits of what the operator owns.
EDITS: list[tuple[str, dict[str, Any]]] = [
    ("Deployment", {"spec": {"replicas": 7}}),
    ("Deployment", {"spec": {"template": {"spec": {"enableServiceLinks": True}}}}),
    ("Service", {"spec": {"selector": {"app.kubernetes.io/name": "other"}}}),
    ("ServiceAccount", {"automountServiceAccountToken": True}),
    ("PodDisruptionBudget", {"spec": {"maxUnavailable": 2}}),
    ("NetworkPolicy", {"spec": {"ingress": None}}),
    ("Service", {"metadata": {"ownerReferences": None}}),
    ("Deployment", {"metadata": {"labels": {"rerank.dev/service": None}}}),
    ("Deployment", {"metadata": {"annotations": {"rerank.dev/applied-hash": "x"}}}),
]
DELETABLE = [
    "Deployment",
    "Job",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "Service",
    "ServiceAccount",
]


@pytest.fixture
def lone(unattended: ControlPlane) -> Iterator[OperatorProcess]:
    """The one operator on that control plane."""
    operator = OperatorProcess(unattended)
    operator.start()
    yield operator
    operator.stop()


def test_any_sequence_ends_in_what_a_fresh_start_would_make(
    unattended: ControlPlane, lone: OperatorProcess
) -> None:
    numbers = count()

    class Sequence(RuleBasedStateMachine):
        """One service, the operator, and all that happens to them."""

        @initialize(changes=st.lists(st.sampled_from(CHANGES), max_size=4))
        def create(self, changes: list[dict[str, Any]]) -> None:
            namespace = f"sequence-{next(numbers)}"
            body: dict[str, Any] = {"metadata": {"name": namespace}}
            unattended.http.post("/api/v1/namespaces", json=body).raise_for_status()
            self.service = Objects(unattended, namespace)
            self.controllers = Controllers(self.service)
            body = make_body()
            body["metadata"] = {"name": self.service.name}
            for change in changes:
                body["spec"] |= {key: value for key, value in change.items() if value is not None}
            path = self.service.path.rpartition("/")[0]
            unattended.http.post(path, json=body).raise_for_status()
            # Else all the steps are over before there are children.
            self.settle()

        @rule(change=st.sampled_from(CHANGES))
        def change(self, change: dict[str, Any]) -> None:
            unattended.patch(self.service.path, {"spec": change})

        @rule(edit=st.sampled_from(EDITS))
        def edit(self, edit: tuple[str, dict[str, Any]]) -> None:
            kind, patch = edit
            if self.service.child(kind):
                unattended.patch(self.service.children[kind], patch)

        @rule(kind=st.sampled_from(DELETABLE))
        def delete(self, kind: str) -> None:
            if self.service.child(kind) and kind == "Job":
                self.service.delete_job()
            elif self.service.child(kind):
                unattended.delete(self.service.children[kind])

        @rule(ready=st.integers(0, 3), succeeds=st.booleans())
        def run_pods(self, ready: int, succeeds: bool) -> None:
            self.controllers.report(ready)
            self.controllers.download(succeeds)

        @rule()
        def kill(self) -> None:
            """End the operator, or start it if it does not run."""
            if lone.running():
                lone.signal(signal.SIGKILL)
                lone.exit_code()
            else:
                lone.launch()

        @rule()
        def wait(self) -> None:
            self.settle()

        def settle(self) -> None:
            """Wait for the end of it all."""
            if not lone.running():
                lone.launch()

            def is_done() -> bool:
                self.controllers.sweep()
                assert fresh.changes(self.service) == []
                return True

            eventually(is_done, 30, pause=0.2)

        def teardown(self) -> None:
            if not hasattr(self, "service"):
                return
            self.settle()
            before, passes = self.service.writes(), self.passes()

            unattended.patch(self.service.path, {"metadata": {"annotations": {"nudge": "1"}}})

            eventually(lambda: self.passes() > passes)
            assert self.service.writes() == before
            assert fresh.changes(self.service) == []

        def passes(self) -> int:
            """Return how many passes found nothing to do."""
            return sum(
                record["message"] == "nothing changed"
                and record["namespace"] == self.service.namespace
                for record in lone.records()
            )

    # Few examples, and none made smaller: each takes a second or two.
    run_state_machine_as_test(
        Sequence,
        settings=settings(
            max_examples=20,
            stateful_step_count=12,
            derandomize=True,
            database=None,
            # A cluster does nothing twice in the same way, so that a failure is told at once.
            verbosity=Verbosity.debug,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )

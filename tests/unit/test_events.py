"""Which change of a status is told as an Event, and how."""

from datetime import UTC, datetime

import pytest

from builders import make_body
from rerank_operator import names
from rerank_operator.api import RerankerServiceStatus
from rerank_operator.events import build_event
from rerank_operator.status import Finding, merge

NOW = datetime(2026, 1, 1, 12, 0, 0, 5, tzinfo=UTC)


def status(reason: str, message: str = "", ready: bool = False) -> RerankerServiceStatus:
    findings = {names.READY: (ready, Finding(reason, message))}
    return RerankerServiceStatus(conditions=merge([], findings, 1, NOW))


def test_trouble_is_told_about_the_object() -> None:
    after = status(names.CRASH_LOOPING, "pod demo-1 ended with exit code 1")

    assert build_event(make_body(), RerankerServiceStatus(), after, NOW) == {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "demo.64752550bf005", "namespace": "search"},
        "regarding": {
            "apiVersion": "rerank.dev/v1alpha1",
            "kind": "RerankerService",
            "name": "demo",
            "namespace": "search",
            "uid": "uid-1",
        },
        "type": "Warning",
        "reason": "CrashLooping",
        "action": "Reconcile",
        "note": "pod demo-1 ended with exit code 1",
        "eventTime": "2026-01-01T12:00:00.000005Z",
        "reportingController": "rerank.dev/rerank-operator",
        "reportingInstance": "rerank-operator",
    }


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (status(names.STARTING_PODS), status(names.LOADING_MODEL)),
        (status(names.LOADING_MODEL), status(names.ALL_PODS_READY, ready=True)),
        (status(names.ALL_PODS_READY, ready=True), status(names.PAUSED)),
        (status(names.CRASH_LOOPING, "3 restarts"), status(names.CRASH_LOOPING, "4 restarts")),
    ],
)
def test_course_of_things_and_what_is_known_are_no_event(
    before: RerankerServiceStatus, after: RerankerServiceStatus
) -> None:
    assert build_event(make_body(), before, after, NOW) is None


def test_trouble_that_comes_again_is_told_again() -> None:
    trouble = status(names.CRASH_LOOPING)

    assert build_event(make_body(), status(names.LOADING_MODEL), trouble, NOW) is not None


def test_long_message_fits_what_the_api_server_takes() -> None:
    event = build_event(make_body(), status("A"), status("B", "\u00e9" * 1000), NOW)

    assert event is not None
    assert len(event["note"].encode()) == 1024

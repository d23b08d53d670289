"""Events on a RerankerService, which `kubectl describe` shows: why it is not ready."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rerank_operator import names
from rerank_operator.api import Condition, Manifest, RerankerServiceStatus

# What each start passes through, or the user asked for. Told as well, these would double the
# writes of a start.
_COURSE = {
    names.DOWNLOADING,
    names.LOADING_MODEL,
    names.PAUSED,
    names.ROLLING_OUT,
    names.STARTING_PODS,
}
# In bytes; the API server refuses a longer one.
_MAX_NOTE = 1024


def build_event(
    body: Mapping[str, Any],
    before: RerankerServiceStatus,
    after: RerankerServiceStatus,
    now: datetime,
) -> Manifest | None:
    """Return the Event that tells what Ready says now; None if that is no trouble, or not new.

    An unchanged reason is no news, whatever its message.
    """
    ready, known = _ready(after), _ready(before)
    if ready is None or ready.status == "True" or ready.reason in _COURSE:
        return None
    if known is not None and known.reason == ready.reason:
        return None
    metadata = body["metadata"]
    moment = now.astimezone(UTC)
    return {
        "apiVersion": names.EVENTS.api_version,
        "kind": names.EVENTS.name,
        "metadata": {
            "name": f"{names.instance(metadata['name'])}.{int(moment.timestamp() * 1e6):x}",
            "namespace": metadata["namespace"],
        },
        "regarding": {
            "apiVersion": names.RERANKERS.api_version,
            "kind": names.RERANKERS.name,
            **{part: metadata[part] for part in ("name", "namespace", "uid")},
        },
        "type": "Warning",
        "reason": ready.reason,
        "action": "Reconcile",
        "note": ready.message.encode()[:_MAX_NOTE].decode(errors="ignore"),
        "eventTime": moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": f"{names.GROUP}/{names.FIELD_MANAGER}",
        "reportingInstance": names.FIELD_MANAGER,
    }


def _ready(status: RerankerServiceStatus) -> Condition | None:
    return next((found for found in status.conditions if found.type == names.READY), None)

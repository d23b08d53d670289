"""Every right that the operator uses: what its role grants, and what `doctor` asks about."""

from typing import NamedTuple

from rerank_operator.names import CHILD_KINDS, EVENTS, LEASES, OPTIONAL_KINDS, PODS, RERANKERS, Kind

READ = ("list", "watch")
# `create` because an apply may create, `get` for what has the name of one that is to be created.
KEEP = ("get", *READ, "create", "patch", "delete")
KEEP_UNWATCHED = tuple(verb for verb in KEEP if verb != "watch")


class Right(NamedTuple):
    """One verb on one kind of object; `resource` may hold a subresource."""

    group: str
    resource: str
    verb: str


def rights() -> list[Right]:
    """Return what the operator does in each namespace that it watches."""
    return [
        *_each(RERANKERS, READ),
        *_each(RERANKERS, ("patch",), "/status"),
        *(right for kind in CHILD_KINDS for right in _each(kind, KEEP)),
        *(right for kind in OPTIONAL_KINDS for right in _each(kind, KEEP_UNWATCHED)),
        *_each(PODS, READ),
        # Those on a Job tell why it gets no pod; nothing else does.
        *_each(EVENTS, ("list", "create")),
    ]


def lease_rights() -> list[Right]:
    """Return what it does in the namespace of its Lease."""
    return _each(LEASES, ("get", "create", "update"))


def _each(kind: Kind, verbs: tuple[str, ...], subresource: str = "") -> list[Right]:
    group = kind.api_version.rpartition("/")[0]
    return [Right(group, kind.plural + subresource, verb) for verb in verbs]

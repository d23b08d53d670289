from typing import Any

from builders import make_body
from rerank_operator.api import Manifest
from rerank_operator.names import OWNER_LABEL, RERANKERS, SERVICES, Kind
from rerank_operator.store import Key, Store

KEY = Key("search", "demo")


def service(version: int, owner: str | None = "demo", **metadata: Any) -> Manifest:
    labels = {OWNER_LABEL: owner} if owner else {}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "demo",
            "namespace": "search",
            "uid": "uid-2",
            "resourceVersion": str(version),
            "labels": labels,
            **metadata,
        },
        "spec": {},
    }


def listed(store: Store, kind: Kind, version: int) -> set[Key]:
    """Take in a listing without objects."""
    listing = store.listing(kind)
    listing.take([], version)
    return listing.end()


def test_object_and_its_children_share_a_key() -> None:
    store = Store()

    assert store.put(make_body()) == {KEY}
    assert store.put(service(2)) == {KEY}
    assert store.keys() == {KEY}
    assert [child["kind"] for child in store.children(KEY)] == ["Service"]


def test_repeated_and_older_events_change_nothing() -> None:
    store = Store()
    store.put(service(5))

    assert store.put(service(5)) == set()
    assert store.put(service(4)) == set()
    assert store.put(service(4), deleted=True) == set()
    assert store.children(KEY)


def test_version_is_known_once_it_or_a_later_one_is_held() -> None:
    store = Store()
    before = store.knows(service(5))
    store.put(service(5))

    assert not before
    assert store.knows(service(4))
    assert store.knows(service(5))
    assert not store.knows(service(6))


def test_child_that_changes_hands_concerns_both() -> None:
    store = Store()
    store.put(service(1))

    assert store.put(service(2, owner="other")) == {KEY, Key("search", "other")}
    assert store.children(KEY) == []


def test_child_without_label_concerns_its_former_owner() -> None:
    store = Store()
    store.put(service(1))

    assert store.put(service(2, owner=None)) == {KEY}
    assert store.children(KEY) == []


def test_child_that_lost_and_regained_its_label_is_back() -> None:
    store = Store()
    store.put(service(1))
    store.put(service(2), deleted=True)

    assert store.put(service(3)) == {KEY}


def test_listing_does_not_bring_back_what_was_deleted_meanwhile() -> None:
    store = Store()
    store.put(service(1))
    store.put(service(3), deleted=True)

    listing = store.listing(SERVICES)
    listing.take([service(1)], version=2)
    listing.end()

    assert store.children(KEY) == []


def test_listing_drops_what_went_without_an_event() -> None:
    store = Store()
    store.put(service(1))

    assert listed(store, SERVICES, version=2) == {KEY}
    assert store.children(KEY) == []


def test_listing_keeps_what_is_newer_than_itself() -> None:
    store = Store()
    store.put(service(3))

    assert listed(store, SERVICES, version=2) == set()
    assert store.children(KEY)


def test_listing_of_one_kind_leaves_the_others() -> None:
    store = Store()
    store.put(service(1))

    listed(store, RERANKERS, version=2)

    assert store.children(KEY)


def test_managed_fields_and_specs_of_pods_are_not_kept() -> None:
    store = Store()
    pod = service(1, managedFields=[{"manager": "x"}]) | {"kind": "Pod", "status": {"phase": "x"}}

    store.put(pod)

    (held,) = store.pods(KEY)
    assert "managedFields" not in held["metadata"]
    assert "spec" not in held
    assert held["status"] == {"phase": "x"}


def test_nothing_is_left_of_an_object_that_went() -> None:
    store = Store()
    store.put(make_body(version=1))

    store.put(make_body(version=2), deleted=True)

    assert store.reranker(KEY) is None
    assert store.keys() == set()


def test_listing_in_pages_keeps_what_any_page_held() -> None:
    store = Store()
    listing = store.listing(SERVICES)

    listing.take([service(1)], version=2)
    listing.take([service(1, name="other")], version=2)
    listing.end()

    assert len(store.children(KEY)) == 2


def test_of_several_listings_the_oldest_counts() -> None:
    store = Store()
    store.put(service(3))
    listing = store.listing(SERVICES)

    listing.take([], version=5)
    listing.take([], version=2)

    assert listing.end() == set()
    assert store.children(KEY)

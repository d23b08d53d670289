from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from builders import make_body, make_pod
from rerank_operator import names
from rerank_operator.api import Manifest
from rerank_operator.errors import Conflict, NotFound, OperatorError, Refused, Unavailable
from rerank_operator.names import Kind
from rerank_operator.reconcile import ROOM_WAIT, Reconciler
from rerank_operator.settings import Settings
from rerank_operator.store import Key, Store

KEY = Key("search", "demo")


class FakeCluster:
    """Holds objects like an API server, notes each write, and fails as it is told."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Manifest] = {}
        self.writes: list[str] = []
        self.failures: dict[str, Exception] = {}
        self.told: list[Manifest] = []
        self.version = 100

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        self._fail("get")
        return self.objects.get((kind.name, name))

    async def apply(self, kind: Kind, manifest: Manifest) -> Manifest:
        self.writes.append(f"apply {kind.name}")
        self._fail(f"apply {kind.name}")
        name = manifest["metadata"]["name"]
        held = self.objects.get((kind.name, name), {"metadata": {"uid": f"{kind.name}-uid"}})
        return self._keep(held | manifest | {"metadata": held["metadata"] | manifest["metadata"]})

    async def apply_new(self, kind: Kind, manifest: Manifest) -> Manifest:
        if (kind.name, manifest["metadata"]["name"]) in self.objects:
            raise Conflict("409")
        return await self.apply(kind, manifest)

    async def apply_status(self, kind: Kind, manifest: Manifest) -> Manifest:
        self.writes.append("status")
        self._fail("status")
        held = self.objects[(kind.name, manifest["metadata"]["name"])]
        return self._keep(held | {"status": manifest["status"]})

    async def create(self, kind: Kind, manifest: Manifest) -> None:
        self.writes.append(f"create {kind.name} {manifest['reason']}")
        self._fail("create")

    async def events(self, manifest: Manifest, reason: str) -> list[Manifest]:
        self._fail("events")
        return [event for event in self.told if event["about"] == (manifest["kind"], reason)]

    async def delete(self, kind: Kind, manifest: Manifest) -> None:
        self.writes.append(f"delete {kind.name} {manifest['metadata']['name']}")
        self._fail("delete")
        del self.objects[(kind.name, manifest["metadata"]["name"])]

    def _keep(self, manifest: Manifest) -> Manifest:
        self.version += 1
        created = {"creationTimestamp": datetime.now(UTC).isoformat()}
        metadata = created | manifest["metadata"] | {"resourceVersion": str(self.version)}
        self.objects[(manifest["kind"], metadata["name"])] = manifest | {"metadata": metadata}
        return self.objects[(manifest["kind"], metadata["name"])]

    def _fail(self, call: str) -> None:
        if call in self.failures:
            raise self.failures[call]


class World:
    """A reconciler between a store and a fake cluster."""

    def __init__(self, **arguments: Any) -> None:
        self.cluster = FakeCluster()
        self.store = Store()
        self.put(make_body(**arguments))
        self.now = datetime.now(UTC)
        self.reconciler = self.start()

    def start(self) -> Reconciler:
        """Return the reconciler of an operator that has just started."""
        return Reconciler(self.store, self.cluster, Settings(), lambda: self.now)

    def put(self, body: Manifest) -> None:
        """Have an object in the cluster, and its event in the store."""
        self.cluster.objects[(body["kind"], body["metadata"]["name"])] = body
        self.store.put(body)

    def edit(self, kind: str, **changes: Any) -> None:
        """Change a child as somebody else would."""
        self.put(self.cluster._keep(self.cluster.objects[(kind, "demo")] | changes))

    def ask(self, generation: int, **spec: Any) -> None:
        """Change the spec as a user would."""
        self.put(self.cluster._keep(make_body(generation=generation, **spec)))

    async def settle(self) -> None:
        """Run passes until one writes nothing, then forget all writes."""
        for _ in range(5):
            self.cluster.writes.clear()
            await self.reconciler.reconcile(KEY)
            if not self.cluster.writes:
                return
        raise AssertionError("does not settle")

    def condition(self, name: str = names.READY) -> dict[str, Any]:
        return next(found for found in self.status()["conditions"] if found["type"] == name)

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.cluster.objects[("RerankerService", "demo")]["status"]
        return status


async def test_first_pass_makes_the_children_and_one_status() -> None:
    world = World()

    settled = await world.reconciler.reconcile(KEY)

    assert settled
    assert world.cluster.writes == [
        "apply ServiceAccount",
        "apply Service",
        "apply Deployment",
        "status",
    ]


async def test_second_pass_writes_nothing() -> None:
    world = World()
    await world.reconciler.reconcile(KEY)
    world.cluster.writes.clear()

    settled = await world.reconciler.reconcile(KEY)

    assert settled
    assert world.cluster.writes == []


async def test_children_name_their_owner() -> None:
    world = World()

    await world.reconciler.reconcile(KEY)

    assert world.cluster.objects[("Service", "demo")]["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "rerank.dev/v1alpha1",
            "kind": "RerankerService",
            "name": "demo",
            "uid": "uid-1",
            "controller": True,
        }
    ]


async def test_changed_spec_writes_the_child_it_concerns() -> None:
    world = World()
    await world.settle()
    world.put(make_body(image="other:1", generation=2, version=200))

    await world.reconciler.reconcile(KEY)

    assert world.cluster.writes == ["apply Deployment", "status"]


async def test_child_that_is_no_longer_wanted_goes() -> None:
    world = World(replicas=2, networkPolicy={"enabled": True}, monitoring={"podMonitor": True})
    await world.settle()
    world.put(make_body(generation=2, version=200))

    await world.reconciler.reconcile(KEY)

    assert sorted(world.cluster.writes) == [
        "apply Deployment",
        "delete NetworkPolicy demo",
        "delete PodDisruptionBudget demo",
        "delete PodMonitor demo",
        "status",
    ]


async def test_child_without_a_watch_is_deleted_once() -> None:
    world = World(monitoring={"podMonitor": True})
    await world.settle()
    world.put(make_body(generation=2, version=200))
    await world.reconciler.reconcile(KEY)
    world.cluster.writes.clear()

    await world.reconciler.reconcile(KEY)

    assert "delete PodMonitor demo" not in world.cluster.writes


async def test_child_without_a_watch_whose_making_was_not_answered_is_known_all_the_same() -> None:
    world = World(monitoring={"podMonitor": True})
    await world.settle()
    world.store = Store()
    for (kind, _), held in world.cluster.objects.items():
        if kind != "PodMonitor":
            world.store.put(held)
    world.reconciler = world.start()
    await world.settle()

    world.ask(2)
    await world.reconciler.reconcile(KEY)

    assert "delete PodMonitor demo" in world.cluster.writes


async def test_child_without_a_watch_that_went_with_its_owner_does_not_stand_in_the_way() -> None:
    world = World(autoscaling={"maxReplicas": 4})
    await world.settle()
    for kind, name in list(world.cluster.objects):
        gone = world.cluster.objects.pop((kind, name))
        if kind != "ScaledObject":
            world.store.put(gone, deleted=True)

    world.put(world.cluster._keep(make_body(uid="uid-new", autoscaling={"maxReplicas": 4})))
    await world.settle()

    (owner,) = world.cluster.objects[("ScaledObject", "demo")]["metadata"]["ownerReferences"]
    assert owner["uid"] == "uid-new"


async def test_child_that_is_going_is_waited_for() -> None:
    world = World(autoscaling={"maxReplicas": 4})
    await world.settle()
    scaled = world.cluster.objects[("ScaledObject", "demo")]
    going = scaled | {"metadata": scaled["metadata"] | {"deletionTimestamp": "now"}}
    world.cluster.objects[("ScaledObject", "demo")] = going
    world.store.put(scaled, deleted=True)

    assert not await world.reconciler.reconcile(KEY)
    assert world.cluster.writes == []
    del world.cluster.objects[("ScaledObject", "demo")]
    await world.reconciler.reconcile(KEY)

    assert world.cluster.writes == ["apply ScaledObject"]


async def test_paused_object_changes_nothing_but_its_status() -> None:
    world = World(replicas=2)
    await world.settle()
    world.edit("Deployment", spec={"replicas": 7})
    world.put(make_body(paused=True, image="other:1", generation=2, version=200))

    settled = await world.reconciler.reconcile(KEY)

    assert settled
    assert world.cluster.writes == ["status"]
    assert world.condition()["reason"] == names.PAUSED
    assert world.status()["observedGeneration"] == 2


async def test_resumed_object_becomes_what_is_asked_for_by_then() -> None:
    world = World(paused=True)
    await world.settle()
    world.put(make_body(image="other:1", generation=2, version=200))

    await world.reconciler.reconcile(KEY)

    deployment = world.cluster.objects[("Deployment", "demo")]
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "other:1"


async def world_without_room() -> World:
    """Return one whose Deployment rolls out, and whose new pod finds no GPU."""
    world = World()
    await world.settle()
    counts = {"replicas": 2, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1}
    world.edit("Deployment", status=counts)
    world.put(no_gpu(version=1))
    return world


def no_gpu(version: int) -> Manifest:
    return make_pod(unschedulable="1 Insufficient nvidia.com/gpu.", **pod_metadata(version))


def pod_metadata(version: int) -> dict[str, Any]:
    labels = {names.OWNER_LABEL: "demo"}
    return {"resourceVersion": str(version), "uid": "p", "labels": labels}


def strategy(world: World) -> dict[str, int]:
    deployment = world.cluster.objects[("Deployment", "demo")]
    numbers: dict[str, int] = deployment["spec"]["strategy"]["rollingUpdate"]
    return numbers


async def test_rollout_without_a_gpu_is_looked_at_again_and_then_goes_in_place() -> None:
    world = await world_without_room()

    assert not await world.reconciler.reconcile(KEY)
    assert strategy(world) == {"maxSurge": 1, "maxUnavailable": 0}
    assert world.condition()["reason"] == names.WAITING_FOR_GPU
    world.now += ROOM_WAIT

    assert await world.reconciler.reconcile(KEY)
    assert strategy(world) == {"maxSurge": 0, "maxUnavailable": 1}
    assert "take their place" in world.condition()["message"]


async def test_room_that_comes_in_time_keeps_the_surge() -> None:
    world = await world_without_room()
    await world.reconciler.reconcile(KEY)
    world.put(make_pod({"running": {}}, **pod_metadata(version=2)))
    await world.reconciler.reconcile(KEY)
    world.now += ROOM_WAIT
    world.put(no_gpu(version=3))

    assert not await world.reconciler.reconcile(KEY)
    assert strategy(world) == {"maxSurge": 1, "maxUnavailable": 0}


async def test_restarted_operator_waits_anew_and_keeps_what_was_switched() -> None:
    world = await world_without_room()
    await world.reconciler.reconcile(KEY)
    world.now += ROOM_WAIT - timedelta(seconds=1)

    restarted = world.start()
    await restarted.reconcile(KEY)
    world.now += timedelta(seconds=1)
    await restarted.reconcile(KEY)
    assert strategy(world) == {"maxSurge": 1, "maxUnavailable": 0}
    world.now += ROOM_WAIT
    await restarted.reconcile(KEY)
    assert strategy(world) == {"maxSurge": 0, "maxUnavailable": 1}

    world.cluster.writes.clear()
    await world.start().reconcile(KEY)
    assert world.cluster.writes == []


async def test_trouble_is_an_event_once() -> None:
    world = await world_without_room()
    world.cluster.writes.clear()

    await world.reconciler.reconcile(KEY)
    world.now += ROOM_WAIT
    await world.reconciler.reconcile(KEY)

    assert world.cluster.writes == [
        "status",
        "create Event WaitingForGPU",
        "apply Deployment",
        "status",
    ]


async def test_event_that_is_refused_changes_nothing() -> None:
    world = await world_without_room()
    await world.reconciler.reconcile(KEY)
    world.cluster.failures["create"] = Refused("namespace is being terminated")
    world.store.put(no_gpu(version=2), deleted=True)
    failed = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    world.edit("Deployment", status={"replicas": 2, "conditions": [failed]})
    world.cluster.writes.clear()

    assert await world.reconciler.reconcile(KEY)
    assert world.cluster.writes == ["status", "create Event RolloutStuck"]


async def test_missing_kind_is_told_and_the_rest_goes_on() -> None:
    world = World(monitoring={"podMonitor": True})
    world.cluster.failures["apply PodMonitor"] = NotFound("the server could not find it")

    settled = await world.reconciler.reconcile(KEY)

    assert not settled
    assert world.condition(names.MONITORED)["reason"] == names.POD_MONITOR_MISSING
    assert "install the Prometheus operator" in world.condition(names.MONITORED)["message"]
    assert world.condition()["reason"] == names.ROLLING_OUT


async def test_kind_that_comes_is_used() -> None:
    world = World(monitoring={"podMonitor": True})
    world.cluster.failures["apply PodMonitor"] = NotFound("the server could not find it")
    await world.reconciler.reconcile(KEY)
    world.cluster.failures.clear()

    settled = await world.reconciler.reconcile(KEY)

    assert settled
    assert world.condition(names.MONITORED)["status"] == "True"


def keda_hpa(world: World) -> Manifest:
    """Return what KEDA makes of our ScaledObject, with the labels and annotations of it."""
    scaled = world.cluster.objects[("ScaledObject", "demo")]
    owner = {"kind": "ScaledObject", "name": "demo", "uid": "ScaledObject-uid", "controller": True}
    metadata = scaled["metadata"] | {
        "name": "keda-hpa-demo",
        "uid": "keda-hpa-uid",
        "ownerReferences": [owner],
    }
    hpa = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler"}
    return hpa | {"metadata": metadata, "status": {}}


async def test_missing_keda_is_told_and_the_service_is_as_good_as_with_it() -> None:
    world = World(autoscaling={"maxReplicas": 4})
    world.cluster.failures["apply ScaledObject"] = NotFound("the server could not find it")

    settled = await world.reconciler.reconcile(KEY)

    assert not settled
    assert world.condition(names.AUTOSCALER_READY)["reason"] == names.KEDA_MISSING
    assert world.condition()["reason"] == names.ROLLING_OUT


async def test_old_keda_is_told() -> None:
    world = World(autoscaling={"maxReplicas": 4})
    world.cluster.failures["apply ScaledObject"] = Refused(
        ".spec.fallback.behavior: field not declared in schema"
    )

    await world.reconciler.reconcile(KEY)

    told = world.condition(names.AUTOSCALER_READY)
    assert told["reason"] == names.KEDA_TOO_OLD
    assert told["message"].startswith("upgrade KEDA to 2.20 or later: ScaledObject demo: .spec")


async def test_what_keda_makes_is_left_alone() -> None:
    world = World(autoscaling={"maxReplicas": 4})
    await world.settle()
    world.put(world.cluster._keep(keda_hpa(world)))

    await world.settle()

    assert ("HorizontalPodAutoscaler", "keda-hpa-demo") in world.cluster.objects


async def test_autoscaler_waits_until_the_one_before_it_is_gone() -> None:
    world = World(autoscaling={"maxReplicas": 4})
    await world.settle()
    hpa = world.cluster._keep(keda_hpa(world))
    world.put(hpa)

    world.ask(2, autoscaling={"type": "hpa", "maxReplicas": 4})
    waiting = await world.reconciler.reconcile(KEY)

    assert not waiting
    assert world.cluster.writes == ["delete ScaledObject demo", "status"]
    told = world.condition(names.AUTOSCALER_READY)
    assert told["reason"] == names.AUTOSCALER_SWITCHING
    assert told["message"] == "waits until HorizontalPodAutoscaler keda-hpa-demo is gone"

    # As KEDA does, and the garbage collector after it.
    world.store.put(hpa, deleted=True)
    await world.settle()

    assert ("HorizontalPodAutoscaler", "demo") in world.cluster.objects

    world.ask(3, autoscaling={"maxReplicas": 4})
    waiting = await world.reconciler.reconcile(KEY)
    assert not waiting
    assert world.cluster.writes == ["delete HorizontalPodAutoscaler demo", "status"]


async def test_autoscaler_goes_and_the_number_of_pods_stays() -> None:
    world = World(autoscaling={"maxReplicas": 4}, replicas=3)
    await world.settle()

    world.ask(2, replicas=3)
    await world.reconciler.reconcile(KEY)

    assert world.cluster.writes == ["delete ScaledObject demo", "status"]
    assert world.cluster.objects[("Deployment", "demo")]["spec"]["replicas"] == 3
    assert {found["type"] for found in world.status()["conditions"]} == {"Ready", "Available"}


async def test_hand_edit_is_put_back_and_looked_at_again() -> None:
    world = World()
    await world.settle()
    world.edit("Service", spec={"selector": {}})

    settled = await world.reconciler.reconcile(KEY)

    assert not settled
    assert world.cluster.writes == ["apply Service"]
    assert await world.reconciler.reconcile(KEY)


async def test_two_operators_that_want_different_things_do_not_write_all_the_time() -> None:
    world = World()
    theirs = Reconciler(
        world.store, world.cluster, Settings(server_image="x/y:2"), lambda: world.now
    )
    await world.settle()

    settled = [await each.reconcile(KEY) for each in 3 * (theirs, world.reconciler)]

    assert settled == [True, True, False, False, False, False]


async def test_change_and_change_back_are_no_other_operators() -> None:
    world = World()
    await world.settle()

    for generation in range(2, 6):
        world.ask(generation=generation, drainSeconds=30 + generation % 2)
        assert await world.reconciler.reconcile(KEY)


async def test_edit_of_a_field_that_is_not_ours_is_left() -> None:
    world = World()
    await world.settle()
    world.edit("ServiceAccount", imagePullSecrets=[{"name": "mine"}])

    await world.reconciler.reconcile(KEY)

    assert world.cluster.writes == []


async def test_foreign_object_is_reported_and_never_touched() -> None:
    world = World()
    foreign = {
        "kind": "Service",
        "metadata": {"name": "demo", "namespace": "search", "uid": "x", "resourceVersion": "1"},
    }
    world.cluster.objects[("Service", "demo")] = foreign

    settled = await world.reconciler.reconcile(KEY)

    assert not settled
    assert world.cluster.objects[("Service", "demo")] is foreign
    assert world.condition()["reason"] == names.NAME_CONFLICT
    assert "Service demo" in world.condition()["message"]
    assert world.status()["url"] == ""


async def test_address_is_told_when_the_service_is_ours() -> None:
    world = World()

    await world.reconciler.reconcile(KEY)

    assert world.status()["url"] == "http://demo.search.svc"


async def test_child_of_an_earlier_object_of_the_name_is_foreign() -> None:
    world = World()
    await world.settle()
    world.put(make_body(uid="uid-new", version=200))

    await world.reconciler.reconcile(KEY)

    assert world.cluster.writes == ["status", "create Event NameConflict"]
    assert world.condition()["reason"] == names.NAME_CONFLICT


@pytest.mark.parametrize("lost", ["ownerReferences", "annotations"])
async def test_child_is_known_by_either_mark(lost: str) -> None:
    world = World()
    await world.settle()
    metadata = world.cluster.objects[("Service", "demo")]["metadata"]
    world.edit("Service", metadata={key: metadata[key] for key in metadata if key != lost})

    await world.reconciler.reconcile(KEY)

    assert world.cluster.writes == ["apply Service"]


async def test_owned_child_that_is_not_wanted_is_deleted() -> None:
    world = World()
    await world.settle()
    extra = world.cluster.objects[("Service", "demo")]
    world.put(extra | {"metadata": extra["metadata"] | {"name": "extra", "uid": "x"}})

    await world.reconciler.reconcile(KEY)

    assert world.cluster.writes == ["delete Service extra"]


async def test_refused_deletion_is_told_in_the_servers_words() -> None:
    world = World()
    await world.settle()
    extra = world.cluster.objects[("Service", "demo")]
    world.put(extra | {"metadata": extra["metadata"] | {"name": "extra", "uid": "x"}})
    world.cluster.failures["delete"] = Refused("a webhook says no")

    settled = await world.reconciler.reconcile(KEY)

    assert not settled
    assert world.condition()["reason"] == names.APPLY_REFUSED
    assert world.condition()["message"] == "delete Service extra: a webhook says no"


async def test_labelled_object_of_somebody_else_is_not_deleted() -> None:
    world = World()
    await world.settle()
    metadata = {
        "name": "extra",
        "namespace": "search",
        "uid": "x",
        "resourceVersion": "300",
        "labels": {names.OWNER_LABEL: "demo"},
    }
    world.put({"kind": "Service", "metadata": metadata})

    await world.reconciler.reconcile(KEY)

    assert world.cluster.writes == []


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("deployments.apps is forbidden: exceeded quota: q", names.QUOTA_EXCEEDED),
        ("admission webhook denied the request: no", names.APPLY_REFUSED),
    ],
)
async def test_refused_child_is_told_in_the_servers_words(message: str, reason: str) -> None:
    world = World()
    world.cluster.failures["apply Deployment"] = Refused(message)

    settled = await world.reconciler.reconcile(KEY)

    assert not settled
    assert world.condition()["reason"] == reason
    assert message in world.condition()["message"]


async def test_refusal_that_stays_is_written_once() -> None:
    world = World()
    world.cluster.failures["apply Deployment"] = Refused("no")
    await world.reconciler.reconcile(KEY)
    world.cluster.writes.clear()

    await world.reconciler.reconcile(KEY)

    assert "status" not in world.cluster.writes


@pytest.mark.parametrize("call", ["apply Service", "get", "status"])
async def test_unavailable_server_is_tried_again_and_leaves_no_verdict(call: str) -> None:
    world = World()
    if call == "get":
        # Looked at because its name is taken.
        world.cluster.objects[("Service", "demo")] = {}
    world.cluster.failures[call] = Unavailable("503")

    settled = await world.reconciler.reconcile(KEY)

    assert not settled
    assert "status" not in world.cluster.objects[("RerankerService", "demo")]


async def test_conflict_without_an_object_is_tried_again_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    world.cluster.failures["apply Deployment"] = Conflict("409: the quota was changed")

    settled = await world.reconciler.reconcile(KEY)

    assert not settled
    (record,) = [each for each in caplog.records if each.levelname == "WARNING"]
    assert vars(record)["error"] == "409: the quota was changed"


async def test_object_that_goes_during_the_pass_is_no_failure() -> None:
    world = World()
    world.cluster.failures["status"] = NotFound("gone")

    assert await world.reconciler.reconcile(KEY)


async def test_change_during_the_pass_is_not_lost_with_its_event() -> None:
    world = World()
    changed = make_body(replicas=3, generation=2, version=50)
    world.cluster.objects[("RerankerService", "demo")] = changed

    settled = await world.reconciler.reconcile(KEY)
    late = world.store.put(changed)
    await world.reconciler.reconcile(KEY)

    assert not settled
    assert late == set()
    assert world.cluster.objects[("Deployment", "demo")]["spec"]["replicas"] == 3


async def test_object_that_is_going_is_left_to_the_garbage_collector() -> None:
    world = World()
    body = make_body(version=2)
    world.put(body | {"metadata": body["metadata"] | {"deletionTimestamp": "now"}})

    assert await world.reconciler.reconcile(KEY)
    assert world.cluster.writes == []


async def test_unreadable_spec_becomes_a_condition() -> None:
    world = World(replicas="many")

    settled = await world.reconciler.reconcile(KEY)

    assert settled
    assert world.cluster.writes == ["status", "create Event InvalidSpec"]
    assert world.condition()["reason"] == names.INVALID_SPEC
    assert "spec.replicas" in world.condition()["message"]


async def test_volume_and_download_come_before_the_pods() -> None:
    world = World(cache={})

    settled = await world.reconciler.reconcile(KEY)

    assert settled
    assert world.cluster.writes == [
        "apply ServiceAccount",
        "apply PersistentVolumeClaim",
        "apply Service",
        "apply Job",
        "status",
    ]
    assert world.condition()["reason"] == names.DOWNLOADING
    await world.settle()


@pytest.mark.parametrize("retain", [True, False])
async def test_volume_that_is_retained_is_owned_by_nobody(retain: bool) -> None:
    world = World(cache={"retain": retain})

    await world.reconciler.reconcile(KEY)

    claim = world.cluster.objects[("PersistentVolumeClaim", "demo")]
    assert ("ownerReferences" in claim["metadata"]) is not retain
    (job,) = [name for kind, name in world.cluster.objects if kind == "Job"]
    assert "ownerReferences" in world.cluster.objects[("Job", job)]["metadata"]


@pytest.mark.parametrize("retain", [True, False])
async def test_volume_that_is_no_longer_wanted_goes_unless_it_is_retained(retain: bool) -> None:
    world = World(cache={"retain": retain, "prefetch": False})
    await world.settle()
    world.put(make_body(generation=2, version=200))

    await world.reconciler.reconcile(KEY)

    assert ("delete PersistentVolumeClaim demo" in world.cluster.writes) is not retain


async def test_volume_of_an_earlier_service_of_the_name_is_taken_over() -> None:
    world = World(cache={"prefetch": False})
    await world.settle()
    for kind in ("Deployment", "Service", "ServiceAccount"):
        world.store.put(world.cluster.objects.pop((kind, "demo")), deleted=True)
    world.put(make_body(uid="uid-new", version=200, cache={"prefetch": False}))

    await world.reconciler.reconcile(KEY)

    claim = world.cluster.objects[("PersistentVolumeClaim", "demo")]
    assert claim["metadata"]["annotations"][names.OWNER_UID_ANNOTATION] == "uid-new"
    assert world.condition()["reason"] != names.NAME_CONFLICT


async def test_refused_volume_is_told_and_no_pod_comes_without_it() -> None:
    world = World(cache={})
    world.cluster.failures["apply PersistentVolumeClaim"] = Refused("exceeded quota: storage")

    settled = await world.reconciler.reconcile(KEY)

    assert not settled
    assert world.condition()["reason"] == names.QUOTA_EXCEEDED
    assert not {kind for kind, _ in world.cluster.objects} & {"Job", "Deployment"}


async def test_job_that_gets_no_pod_is_asked_about_after_a_while() -> None:
    world = World(cache={})
    await world.settle()
    note = 'pods "demo-1-x" is forbidden: exceeded quota: pods'
    world.cluster.told = [
        {
            "about": ("Job", "FailedCreate"),
            "note": note,
            "metadata": {"creationTimestamp": world.now.isoformat()},
        }
    ]

    await world.reconciler.reconcile(KEY)
    before = world.condition(names.MODEL_CACHED)
    world.now += timedelta(seconds=6)
    settled = await world.reconciler.reconcile(KEY)

    assert settled
    assert before["reason"] == names.DOWNLOADING
    assert world.condition(names.MODEL_CACHED)["reason"] == names.QUOTA_EXCEEDED
    assert world.condition()["message"].endswith(note)


@pytest.mark.parametrize("error", [Refused, NotFound, Unavailable])
async def test_events_that_cannot_be_read_cost_no_more_than_their_words(
    error: type[OperatorError],
) -> None:
    world = World(cache={})
    await world.settle()
    world.cluster.failures["events"] = error("events")
    world.now += timedelta(seconds=6)

    settled = await world.reconciler.reconcile(KEY)

    assert settled
    assert world.condition()["reason"] == names.DOWNLOADING


async def test_missing_claim_of_the_user_is_asked_for_again() -> None:
    world = World(cache={"existingClaim": "models"})

    settled = await world.reconciler.reconcile(KEY)

    assert not settled
    assert world.condition()["reason"] == names.CLAIM_NOT_FOUND
    assert world.condition(names.MODEL_CACHED)["reason"] == names.CLAIM_NOT_FOUND

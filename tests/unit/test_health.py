import httpx

from rerank_operator.health import (
    DEAD_LEASE_SECONDS,
    DEAD_SECONDS,
    LEASE_SECONDS,
    SILENT_SECONDS,
    STUCK_SECONDS,
    Health,
    Watches,
    serve,
)
from rerank_operator.metrics import Metrics

PATH = "/apis/rerank.dev/v1alpha1/rerankerservices"


class World:
    """An operator that is well, and synced; a test ails it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pass_seconds = 0.0
        self.lease_seconds = 0.0
        self.server_answers = True
        self.watches = Watches(lambda: self.now)
        self.watches.expect([PATH, "/api/v1/pods"])
        self.health = Health(self, self.watches, lambda: self.lease_seconds, self.answers)
        self.health.synced.set()

    def longest_running_seconds(self) -> float:
        return self.pass_seconds

    async def answers(self, _: float) -> bool:
        return self.server_answers


async def test_operator_that_is_well_is_alive_and_ready() -> None:
    world = World()

    assert await world.health.ailment() is None
    assert world.health.obstacle() is None


async def test_operator_that_waits_for_its_first_listing_is_alive_and_not_ready() -> None:
    world = World()
    world.health.synced.clear()

    assert await world.health.ailment() is None
    assert world.health.obstacle()


async def test_pass_that_does_not_end_is_an_ailment() -> None:
    world = World()
    world.pass_seconds = STUCK_SECONDS + 1

    assert "a pass has been running for 301 s" in (await world.health.ailment() or "")


async def test_watch_that_is_not_opened_again_is_silent() -> None:
    world = World()
    world.now += SILENT_SECONDS + 1
    world.watches.note("/api/v1/pods", True, 200)

    assert PATH in (world.health.obstacle() or "")


async def test_watch_without_any_answer_is_an_ailment_unless_the_server_is_away() -> None:
    world = World()
    world.now += DEAD_SECONDS + 1
    world.watches.note("/api/v1/pods", True, 200)

    assert PATH in (await world.health.ailment() or "")
    world.server_answers = False
    assert await world.health.ailment() is None


async def test_refused_watch_keeps_from_work_until_it_is_opened() -> None:
    world = World()

    assert world.watches.note(PATH, True, 404)
    assert "answered with 404" in (world.health.obstacle() or "")
    assert await world.health.ailment() is None

    world.watches.note(PATH, True, 200)
    assert world.health.obstacle() is None


async def test_listing_is_an_answer_and_no_watch() -> None:
    world = World()
    world.now += DEAD_SECONDS + 1
    world.watches.note("/api/v1/pods", True, 200)

    world.watches.note(PATH, False, 200)

    assert await world.health.ailment() is None
    assert "silent" in (world.health.obstacle() or "")


def test_requests_that_are_no_watch_of_ours_do_not_count() -> None:
    watches = Watches()

    assert not watches.note("/apis", False, 200)
    assert watches.obstacle() is None


async def test_lease_that_is_not_renewed_keeps_from_work_and_then_is_an_ailment() -> None:
    world = World()

    world.lease_seconds = LEASE_SECONDS + 1
    assert "lease" in (world.health.obstacle() or "")
    assert await world.health.ailment() is None

    world.lease_seconds = DEAD_LEASE_SECONDS + 1
    assert "lease" in (await world.health.ailment() or "")
    world.server_answers = False
    assert await world.health.ailment() is None


async def test_probes_and_metrics_are_served_on_their_ports(
    unused_tcp_port_factory: object,
) -> None:
    world = World()
    world.health.synced.clear()
    assert callable(unused_tcp_port_factory)
    port, metrics_port = unused_tcp_port_factory(), unused_tcp_port_factory()

    async with (
        serve(world.health, Metrics(), port, metrics_port),
        httpx.AsyncClient(trust_env=False) as client,
    ):
        alive = await client.get(f"http://127.0.0.1:{port}/healthz")
        ready = await client.get(f"http://127.0.0.1:{port}/readyz")
        metrics = await client.get(f"http://127.0.0.1:{metrics_port}/metrics")
        elsewhere = await client.get(f"http://127.0.0.1:{port}/metrics")

    assert (alive.status_code, alive.text) == (200, "ok\n")
    assert (ready.status_code, ready.text) == (503, "not every kind has been listed yet\n")
    assert elsewhere.status_code == 404
    names = {line.split("{")[0].split()[0] for line in metrics.text.splitlines() if line[0] != "#"}
    assert {
        "controller_runtime_active_workers",
        "controller_runtime_max_concurrent_reconciles",
        "controller_runtime_reconcile_errors_total",
        "controller_runtime_reconcile_time_seconds_count",
        "controller_runtime_reconcile_total",
        "process_resident_memory_bytes",
        "workqueue_adds_total",
        "workqueue_depth",
        "workqueue_longest_running_processor_seconds",
        "workqueue_queue_duration_seconds_count",
        "workqueue_retries_total",
        "workqueue_unfinished_work_seconds",
        "workqueue_work_duration_seconds_count",
    } <= names


async def test_port_zero_serves_nothing() -> None:
    async with serve(World().health, Metrics(), 0, 0):
        pass

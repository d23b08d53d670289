"""The operator with many services, on two cores with all of a control plane: `make bench-operator`.

etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kwok, which stands in for nodes,
share the cores with the operator and with this client. The limits are those of the project.
"""

import argparse
import contextlib
import json
import math
import os
import platform
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import httpx
import msgspec
import psutil

from apiserver.controlplane import WRITES, ControlPlane, eventually
from apiserver.operator_process import LEASE, OperatorProcess
from bench.fakenodes import start_cluster
from builders import make_body
from rerank_operator import names
from rerank_operator.api import Manifest, parse
from rerank_operator.cluster import api_path
from rerank_operator.names import DEPLOYMENTS, KIND_BY_NAME, RERANKERS
from rerank_operator.observed import conditions, is_rolled_out
from rerank_operator.resources import desired
from rerank_operator.settings import Settings

CORES = 2
# As those of so many teams: for each pod, controllers go through all of its namespace.
NAMESPACES = [f"team-{number:02}" for number in range(50)]
# Two pods, since one has no PodDisruptionBudget: with the NetworkPolicy these are five children.
REPLICAS = 2
CHILDREN = {
    "Deployment",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "Service",
    "ServiceAccount",
}
CLIENTS = 8
CHANGES_PER_SECOND = 2.0
# Past the listing that the operator does half a minute after its start.
RESTART_SECONDS = 40.0
TICKS_PER_SECOND = 50.0
# A service of this name always fails: its Deployment is refused.
REFUSED = "refused"
REFUSAL = f"""
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {{name: {REFUSED}}}
spec:
  matchConstraints:
    resourceRules:
    - {{apiGroups: [apps], apiVersions: [v1], operations: [CREATE], resources: [deployments]}}
  validations: [{{expression: "object.metadata.name != '{REFUSED}'"}}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {{name: {REFUSED}}}
spec: {{policyName: {REFUSED}, validationActions: [Deny]}}
"""

clock = time.perf_counter


class Figures:
    """Rows of the table, each printed when it is known."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}
        print("| figure | measured | limit |\n|---|---|---|")

    def add(self, name: str, value: float, most: float | None = None) -> None:
        """Print a figure, and the most that it is to be; None: there is no such limit."""
        self.values[name] = value
        limit = "" if most is None else f"{most:,g}{'' if value <= most else ', missed'}"
        print(f"| {name} | {value:,.3f} | {limit} |", flush=True)

    def add_latencies(self, name: str, seconds: Sequence[float], most: float | None = None) -> None:
        """Print the median and the 99th percentile of some times."""
        self.add(f"{name}: p50, s", percentile(seconds, 50))
        self.add(f"{name}: p99, s", percentile(seconds, 99), most)


@contextlib.contextmanager
def beside(figures: Figures, title: str) -> Iterator[None]:
    """Print how much of the machine other work took meanwhile: with any, times are too long."""
    before, started = others_seconds(), clock()
    yield
    cores = (others_seconds() - before) / (clock() - started)
    figures.add(f"{title}: cores taken by other work", cores)


def others_seconds() -> float:
    """Return the processor time that all but this process and its children have used."""
    busy = psutil.cpu_times()
    everyone = busy.user + busy.nice + busy.system + busy.irq + busy.softirq
    first = psutil.Process()
    ended = first.cpu_times()
    ours = ended.children_user + ended.children_system
    for process in (first, *first.children(recursive=True)):
        times = process.cpu_times()
        ours += times.user + times.system
    return everyone - ours


class Watch:
    """Notes when each object of a kind was seen first, changed, and was ready.

    By a watch, so that nothing is waited for longer than it takes, and nothing is asked for twice.
    """

    def __init__(
        self, plane: ControlPlane, kind: names.Kind, is_ready: Callable[[Manifest], bool]
    ) -> None:
        self._plane = plane
        self._path = api_path(kind, None)
        self._is_ready = is_ready
        # (name, generation) -> when it was seen first.
        self.seen: dict[tuple[str, int], float] = {}
        # Name -> since when it is ready, without those that are not.
        self.ready: dict[str, float] = {}
        self._version = plane.get(self._path)["metadata"]["resourceVersion"]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        query = {"watch": "true", "resourceVersion": self._version}
        # It ends with the API server.
        with (
            contextlib.suppress(httpx.HTTPError),
            self._plane.http.stream("GET", self._path, params=query, timeout=None) as answer,
        ):
            for line in answer.iter_lines():
                self._note(msgspec.json.decode(line)["object"], clock())

    def _note(self, body: Manifest, now: float) -> None:
        name = body["metadata"]["name"]
        self.seen.setdefault((name, body["metadata"]["generation"]), now)
        if self._is_ready(body):
            self.ready.setdefault(name, now)
        else:
            self.ready.pop(name, None)


class Written(NamedTuple):
    """What a write was for."""

    name: str
    resource: str
    subresource: str


class Bench:
    """One cluster with the operator and the services, through all measurements."""

    def __init__(self, plane: ControlPlane, count: int, figures: Figures) -> None:
        self.plane = plane
        self.count = count
        self.figures = figures
        self.operator = OperatorProcess(plane, lease=LEASE, log_level="INFO")
        self.services = Watch(plane, RERANKERS, service_is_ready)
        self.deployments = Watch(plane, DEPLOYMENTS, deployment_is_ready)

    def create(self) -> None:
        """Have all services created at once, and count what that takes."""
        self.operator.start()
        eventually(self.operator.leads)
        self.figures.add("memory of the idle operator, MiB", self.operator.memory_mib())
        before = self.cpu_seconds()
        started = clock()
        with ThreadPoolExecutor(CLIENTS) as threads:
            list(threads.map(self._post, service_bodies(self.count)))
        created = clock()
        eventually(lambda: len(self.services.ready) == self.count, seconds=900)
        count = f"{self.count:,} services"
        self.figures.add(f"{count}: the client's own time to create them, s", created - started)
        children = max(self.deployments.seen[name, 1] for name in self.services.ready)
        self.figures.add(f"{count}: until the last child is there, s", children - started)
        ready = max(self.services.ready.values())
        self.figures.add(f"{count}: until all are Ready, s", ready - started, 90)
        self.settle()
        self.figures.add(f"{count}: processor time, s", self.cpu_seconds() - before)
        self.figures.add(f"{count}: largest memory, MiB", self.operator.peak_memory_mib(), 120)
        assert_children(self.plane, self.count)
        writes = self.writes()
        total = sum(writes.values())
        status = sum(writes[each] for each in writes if each.subresource == "status")
        self.figures.add(f"{count}: writes for each, average", total / self.count)
        self.figures.add(f"{count}: of these, of its status", status / self.count)
        most = max(Counter(each.name for each in writes.elements()).values())
        self.figures.add(f"{count}: most writes for one", most, 8)

    def change(self, changes: int, title: str, value: int) -> None:
        """Change services one after the other, and time the way to their Deployments.

        `value` is another one in each call.
        """
        started: dict[tuple[str, int], float] = {}
        known = self.generations(self.services)
        before = self.generations(self.deployments)
        for name in paced((service_name(n) for n in range(changes)), CHANGES_PER_SECOND):
            started[name, before[name] + 1] = clock()
            body = {"spec": {"limits": {"maxQueuedPairs": value}}}
            self.plane.patch(object_path(RERANKERS, name), body)
        eventually(lambda: started.keys() <= self.deployments.seen.keys(), seconds=60)
        self.figures.add_latencies(
            f"{changes} changes, {title}: until the Deployment has it",
            [self.deployments.seen[key] - begun for key, begun in started.items()],
            1,
        )
        self.figures.add_latencies(
            f"{changes} changes, {title}: until a watch shows the change itself",
            [
                self.services.seen[name, known[name] + 1] - begun
                for (name, _), begun in started.items()
            ],
        )
        self.settle()

    def restart(self) -> None:
        """End the operator and start it anew, with nothing to do."""
        self.operator.stop()
        before = self.writes()
        started = clock()
        self.operator.launch()
        # Longer than `wait` has patience, for a figure rather than a failure.
        eventually(self._answers, seconds=300)
        self.figures.add("restart: until all is listed, s", clock() - started, 10)
        eventually(lambda: self.passes() >= self.count, seconds=300)
        self.figures.add("restart: until each service had its pass, s", clock() - started)
        time.sleep(max(0.0, started + RESTART_SECONDS - clock()))
        self.settle()
        writes = sum((self.writes() - before).values())
        self.figures.add(f"restart: writes in {RESTART_SECONDS:g} s", writes, 0)
        self.figures.add("restart: largest memory, MiB", self.operator.peak_memory_mib(), 120)

    def fail(self) -> None:
        """Have one service that always fails."""
        self.plane.apply(REFUSAL)
        body = service_body(REFUSED)
        deployment = next(each for each in children(body) if each["kind"] == DEPLOYMENTS.name)
        path = f"{api_path(DEPLOYMENTS, namespace(REFUSED))}?dryRun=All"
        eventually(lambda: self.plane.http.post(path, json=deployment).status_code == 422)
        self._post(body)
        eventually(self._is_refused)

    def tick(self, seconds: float) -> None:
        """Have the status of one Deployment change over and over."""
        path = object_path(DEPLOYMENTS, service_name(0))
        kept = self.plane.get(path)["status"]["conditions"]
        idle = self.cpu_seconds()
        time.sleep(seconds)
        self.figures.add("no events: cores used", (self.cpu_seconds() - idle) / seconds)
        before, writes, passes = self.cpu_seconds(), self.writes(), self.passes()
        started = clock()
        ticks = round(seconds * TICKS_PER_SECOND)
        for tick in paced(range(ticks), TICKS_PER_SECOND):
            # One that the Deployment's controller keeps as it is.
            extra = {"type": "Tick", "status": "True", "reason": "Tick", "message": str(tick)}
            self.plane.patch(f"{path}/status", {"status": {"conditions": [*kept, extra]}})
        elapsed = clock() - started
        events = f"{ticks / elapsed:.0f} status events a second on a child"
        used = (self.cpu_seconds() - before) / elapsed
        self.figures.add(f"{events}: cores used", used, 0.5)
        self.figures.add(f"{events}: passes a second", (self.passes() - passes) / elapsed)
        self.settle()
        written = (self.writes() - writes).elements()
        of_it = sum(each.name == service_name(0) for each in written)
        self.figures.add(f"{events}: writes for that service", of_it)

    def settle(self) -> None:
        """Return when all services are Ready, and the operator has had nothing to do for 3 s."""

        def is_ready() -> bool:
            # The one that always fails is not.
            return len(self.services.ready) == self.count

        eventually(is_ready, seconds=300)
        passes, since = self.passes(), clock()
        while clock() - since < 3:
            time.sleep(0.5)
            if (now := self.passes()) != passes or not is_ready():
                passes, since = now, clock()

    def writes(self) -> Counter[Written]:
        """Count what the operator has written, its Lease apart."""
        references = (entry["objectRef"] for entry in self.plane.calls() if entry["verb"] in WRITES)
        return Counter(
            # Children have the name of their service.
            Written(each["name"], each["resource"], each.get("subresource", ""))
            for each in references
            if each["resource"] != names.LEASES.plural
        )

    def passes(self) -> float:
        """Return how many passes have gone well since the operator's start."""
        labels = '{controller="rerankerservice",result="success"}'
        return self.operator.metric(f"controller_runtime_reconcile_total{labels}")

    def cpu_seconds(self) -> float:
        """Return the processor time that the operator has used since its start."""
        return self.operator.metric("process_cpu_seconds_total")

    def generations(self, watch: Watch) -> dict[str, int]:
        """Return the generation at which each object is."""
        return {name: generation for name, generation in sorted(watch.seen)}

    def _answers(self) -> bool:
        return self.operator.probe("readyz").status_code == 200

    def _is_refused(self) -> bool:
        found = self.plane.get(object_path(RERANKERS, REFUSED))
        reason: str = conditions(found)[names.READY]["reason"] if "status" in found else ""
        return reason == names.APPLY_REFUSED

    def _post(self, body: Manifest) -> None:
        path = api_path(RERANKERS, body["metadata"]["namespace"])
        self.plane.http.post(path, json=body).raise_for_status()


def service_name(number: int) -> str:
    """Return the name of one of the services."""
    return f"service-{number:04}"


def namespace(name: str) -> str:
    """Return where the service of that name is."""
    return NAMESPACES[crc32(name.encode()) % len(NAMESPACES)]


def object_path(kind: names.Kind, name: str) -> str:
    """Return the API path of the service of that name, or of its child."""
    return f"{api_path(kind, namespace(name))}/{name}"


def service_body(name: str) -> Manifest:
    """Return a service with five children."""
    body = make_body(replicas=REPLICAS, networkPolicy={"enabled": True})
    return body | {"metadata": {"name": name, "namespace": namespace(name)}}


def service_bodies(count: int) -> Iterator[Manifest]:
    """Yield so many services."""
    return (service_body(service_name(number)) for number in range(count))


def children(body: Manifest) -> list[Manifest]:
    """Return what the operator makes of a service, but for who owns it."""
    return desired(parse(body), Settings())


def service_is_ready(body: Manifest) -> bool:
    """Tell whether a service is Ready as it is asked for now."""
    found = conditions(body).get(names.READY, {})
    current: bool = found.get("observedGeneration") == body["metadata"]["generation"]
    return current and found["status"] == "True"


def deployment_is_ready(body: Manifest) -> bool:
    """Tell whether all pods of a Deployment are there."""
    return is_rolled_out(body, REPLICAS)


def assert_children(plane: ControlPlane, count: int) -> None:
    """Fail unless each service has its five children."""
    for name in CHILDREN:
        query = f"?labelSelector={names.OWNER_LABEL}"
        found = len(plane.get(api_path(KIND_BY_NAME[name], None) + query)["items"])
        assert found == count, f"{found} of {count} {name}s"


def by_hand(plane: ControlPlane, count: int, figures: Figures) -> None:
    """Have a plain client apply the same children, without any operator: what the rest takes."""
    manifests = [child for body in service_bodies(count) for child in children(body)]
    assert {each["kind"] for each in manifests} == CHILDREN
    deployments = Watch(plane, DEPLOYMENTS, deployment_is_ready)

    def apply(manifest: Manifest) -> None:
        path = object_path(KIND_BY_NAME[manifest["kind"]], manifest["metadata"]["name"])
        plane.http.patch(
            f"{path}?fieldManager=bench&force=true",
            headers={"Content-Type": "application/apply-patch+yaml"},
            json=manifest,
        ).raise_for_status()

    started = clock()
    with ThreadPoolExecutor(CLIENTS) as threads:
        list(threads.map(apply, manifests))
    applied = clock()
    eventually(lambda: len(deployments.ready) == count, seconds=900)
    title = f"{count:,} times the children, applied by a plain client"
    figures.add(f"{title}: until the last is there, s", applied - started)
    ready = max(deployments.ready.values())
    figures.add(f"{title}: until all pods are ready, s", ready - started)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest of `values` that so many percent of them do not exceed."""
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


def paced(items: Iterator[Any] | Sequence[Any], per_second: float) -> Iterator[Any]:
    """Yield so many items a second, however long each takes, as far as that can be."""
    started = clock()
    for number, item in enumerate(items):
        time.sleep(max(0.0, started + number / per_second - clock()))
        yield item


def machine() -> str:
    """Return what the figures were measured on."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(": ")[2] for line in info if line.startswith("model name")), "?")
    versions = ", ".join(f"{name} {version(name)}" for name in ("kopf", "kubernetes", "aiohttp"))
    return (
        f"{date.today()}; {CORES} of {os.cpu_count()} cores, {model}; load before the start "
        f"{os.getloadavg()[0]:.1f}; Python {platform.python_version()}, {versions}"
    )


@contextlib.contextmanager
def cluster(services: int) -> Iterator[ControlPlane]:
    """Run a cluster with room for so many services, and their namespaces."""
    # During a change of all services each has a pod more.
    with start_cluster(services * (REPLICAS + 1)) as plane:
        for name in NAMESPACES:
            body = {"metadata": {"name": name}}
            plane.http.post("/api/v1/namespaces", json=body).raise_for_status()
        yield plane


def main() -> None:
    """Print the table of docs/performance.md, and write it to --out as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--namespaces", type=int, default=len(NAMESPACES), help="at most so many")
    parser.add_argument("--changes", type=int, default=120, help="at most as many as services")
    parser.add_argument("--seconds", type=float, default=30, help="of the status events")
    parser.add_argument("--out", type=Path, help="write the figures here")
    options = parser.parse_args()
    del NAMESPACES[options.namespaces :]
    # As an exception, so that all processes end too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    print(machine(), end="\n\n")
    # For this process and all that it starts.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    figures = Figures()
    with (
        cluster(options.services) as plane,
        beside(figures, "children applied by a plain client"),
    ):
        by_hand(plane, options.services, figures)
    with cluster(options.services) as plane:
        bench = Bench(plane, options.services, figures)
        try:
            with beside(figures, "services created"):
                bench.create()
            bench.change(options.changes, "one at a time", 1000)
            bench.restart()
            bench.fail()
            bench.change(options.changes, "beside one that always fails", 2000)
            bench.tick(options.seconds)
        finally:
            bench.operator.stop()
    if options.out:
        options.out.write_text(json.dumps(figures.values, indent=1) + "\n")


if __name__ == "__main__":
    main()

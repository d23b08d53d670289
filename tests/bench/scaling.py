"""A day of load and some ways to choose the number of pods: `make sim-autoscaling`.

A simulation: requests are queues at pods of a known speed, and the HorizontalPodAutoscaler is its
documented algorithm. What is measured elsewhere comes in as numbers (see `Pods`).

Source: https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#algorithm-details
"""

import argparse
import math
import random
from bisect import bisect
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

DAY = 86_400
SYNC_SECONDS = 15
TOLERANCE = 0.1
# As in the operator's `resources/autoscaler.py`, which the plotting environment cannot import.
UTILIZATION = 0.7


class Pods(NamedTuple):
    """What pods can do: pairs a second, seconds until a new one serves, pairs in vLLM's steps."""

    speed: float = 1000.0
    start_seconds: float = 90.0
    in_engine: float = 200.0


class Load(NamedTuple):
    """Requests of a day: pairs of each, and pairs a second by day, by night and in bursts."""

    pairs: int = 50
    night: float = 100.0
    day: float = 2200.0
    burst: float = 1500.0
    bursts: int = 12
    burst_seconds: float = 420.0


def arrivals(load: Load, dice: random.Random) -> Iterator[float]:
    """Yield the time of each request, in seconds from midnight, by thinning."""
    bursts = sorted(dice.uniform(7, 21) * 3600 for _ in range(load.bursts))

    def rate(now: float) -> float:
        sun = max(0.0, math.sin((now / 3600 - 6) / 14 * math.pi)) if 6 <= now / 3600 <= 20 else 0.0
        burst = any(begin <= now < begin + load.burst_seconds for begin in bursts)
        return load.night + (load.day - load.night) * sun + load.burst * burst

    most = (load.day + load.burst) / load.pairs
    now = 0.0
    while (now := now + dice.expovariate(most)) < DAY:
        if dice.random() < rate(now) / load.pairs / most:
            yield now


@dataclass
class Pod:
    """One that serves from `ready` on; it has work until `free`."""

    ready: float
    free: float = 0.0
    # Served, but not given anything any more.
    leaving: bool = False


class Seen(NamedTuple):
    """What the ready pods tell: pairs before each, and pairs a second in the last minute."""

    works: list[float]
    done: float


# How many pods it would take, as a fraction: the metric's sum over its target.
Signal = Callable[[Seen], float]


@dataclass
class Autoscaler:
    """A HorizontalPodAutoscaler: of several signals the largest counts."""

    signals: Sequence[Signal]
    fewest: int = 1
    most: int = 6
    stabilization_seconds: float = 300.0
    _wished: deque[tuple[float, int]] = field(default_factory=deque)
    _ups: deque[tuple[float, int]] = field(default_factory=deque)
    _down_at: float = -math.inf

    def wanted(self, now: float, pods: int, seen: Seen) -> int:
        """Return how many pods there should be, `pods` being how many there are."""
        needed = max(signal(seen) for signal in self.signals)
        wish = pods if abs(needed / pods - 1) <= TOLERANCE else math.ceil(needed)
        wish = max(self.fewest, min(self.most, wish))
        self._wished.append((now, wish))
        while self._wished[0][0] < now - self.stabilization_seconds:
            self._wished.popleft()
        if wish >= pods:
            return self._up(now, pods, wish)
        return self._down(now, pods, max(each for _, each in self._wished))

    def _up(self, now: float, pods: int, wish: int) -> int:
        # The default: in 15 s four pods, or as many again as there were, whichever is more.
        while self._ups and self._ups[0][0] <= now - 15:
            self._ups.popleft()
        before = pods - sum(added for _, added in self._ups)
        allowed = max(pods, min(wish, max(before + 4, before * 2)))
        self._ups.append((now, allowed - pods))
        return allowed

    def _down(self, now: float, pods: int, wish: int) -> int:
        # One a minute, as the operator has it.
        if wish >= pods or now - self._down_at < 60:
            return pods
        self._down_at = now
        return pods - 1


class Result(NamedTuple):
    """Waits in seconds, pod hours, and the number of pods every 15 s."""

    waits: list[float]
    hours: float
    counts: list[int]


def simulate(
    times: Sequence[float], load: Load, kind: Pods, first: int, autoscaler: Autoscaler | None
) -> Result:
    """Run one day. Each request goes to a ready pod at random, as a Service does."""
    dice = random.Random(1)
    pods = [Pod(0.0) for _ in range(first)]
    waits: list[float] = []
    counts: list[int] = []
    seconds = 0.0
    next_sync = 0.0
    service_seconds = load.pairs / kind.speed
    for index, now in enumerate(times):
        while next_sync <= now:
            pods = [pod for pod in pods if not pod.leaving or pod.free > next_sync]
            staying = [pod for pod in pods if not pod.leaving]
            if autoscaler:
                ready = [pod for pod in staying if pod.ready <= next_sync]
                works = [max(0.0, pod.free - next_sync) * kind.speed for pod in ready]
                came = (index - bisect(times, next_sync - 60, hi=index)) * load.pairs / 60
                seen = Seen(works, min(came, len(ready) * kind.speed))
                wanted = autoscaler.wanted(next_sync, len(staying), seen)
                added = max(0, wanted - len(staying))
                pods += [Pod(next_sync + kind.start_seconds) for _ in range(added)]
                # The ones that came last go first, as a ReplicaSet has it.
                for pod in staying[wanted:]:
                    pod.leaving = True
            counts.append(sum(not pod.leaving for pod in pods))
            seconds += SYNC_SECONDS * len(pods)
            next_sync += SYNC_SECONDS
        pod = dice.choice([pod for pod in pods if pod.ready <= now and not pod.leaving])
        began = max(now, pod.free)
        pod.free = began + service_seconds
        waits.append(began - now)
    return Result(waits, seconds / 3600, counts)


def ways(load: Load, kind: Pods) -> dict[str, tuple[int, Autoscaler | None]]:
    """Return what is compared: pods at midnight, and what changes their number."""

    def waiting(target: float) -> Signal:
        """vLLM's own `num_requests_waiting`: what no step of the engine has taken yet."""
        return lambda seen: (
            sum(max(0.0, work - kind.in_engine) for work in seen.works) / load.pairs / target
        )

    def queue(seconds: float) -> Signal:
        return lambda seen: sum(seen.works) / kind.speed / seconds

    def used(seen: Seen) -> float:
        return seen.done / kind.speed / UTILIZATION

    return {
        **{f"{pods} pods": (pods, None) for pods in (2, 3, 4, 5)},
        **{
            f"waiting requests, {target:g} per pod": (1, Autoscaler([waiting(target)]))
            for target in (10, 1)
        },
        **{
            f"queue alone, {seconds:g} s per pod": (1, Autoscaler([queue(seconds)]))
            for seconds in (1, 0.2)
        },
        **{
            f"queue and utilization, {seconds:g} s per pod": (
                1,
                Autoscaler([queue(seconds), used]),
            )
            for seconds in (1, 0.2)
        },
        "queue and utilization, 1 s per pod, at least 3": (
            3,
            Autoscaler([queue(1), used], fewest=3),
        ),
    }


def main() -> None:
    """Print the table of docs/autoscaling.md, and draw its plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plot", type=Path, help="draw load and pods to this SVG (matplotlib)")
    options = parser.parse_args()
    load, kind = Load(), Pods()
    times = list(arrivals(load, random.Random(2026)))
    results: dict[str, Result] = {}
    print("| number of pods by | GPU hours | wait: p50, s | p99, s | over 1 s |")
    print("|---|---|---|---|---|")
    for name, (first, autoscaler) in ways(load, kind).items():
        result = results[name] = simulate(times, load, kind, first, autoscaler)
        waits = sorted(result.waits)
        over = sum(wait > 1 for wait in waits) / len(waits)
        print(
            f"| {name} | {result.hours:.0f} | {waits[len(waits) // 2]:.2f} | "
            f"{waits[int(len(waits) * 0.99)]:.1f} | {over:.1%} |"
        )
    if options.plot:
        draw(options.plot, times, load, kind, results)


def draw(
    path: Path, times: Sequence[float], load: Load, kind: Pods, results: dict[str, Result]
) -> None:
    """Draw the load in pods' worth, and what three of the ways made of it."""
    import matplotlib

    matplotlib.use("svg")
    # The same file each time.
    matplotlib.rcParams |= {"svg.hashsalt": "rerank", "svg.fonttype": "none"}
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(3, 1, figsize=(8, 6), sharex=True, sharey=True)
    step = 300
    begins = [begin / 3600 for begin in range(0, DAY, step)]
    asked = [0.0] * len(begins)
    for now in times:
        asked[int(now // step)] += load.pairs / step / kind.speed
    shown = ("waiting requests, 10 per pod", "queue alone, 1 s per pod")
    for axis, name in zip(axes, (*shown, "queue and utilization, 1 s per pod"), strict=True):
        counts = results[name].counts
        changes = [n for n in range(1, len(counts)) if counts[n] != counts[n - 1]]
        shown_at = [0, *changes, len(counts) - 1]
        axis.fill_between(begins, asked, step="post", color="0.8", label="load")
        axis.step(
            [n * SYNC_SECONDS / 3600 for n in shown_at],
            [counts[n] for n in shown_at],
            where="post",
            label="pods",
        )
        axis.set_title(name, loc="left", fontsize=10)
    axes[0].legend(loc="upper left")
    axes[-1].set_xlabel("hour of the day")
    figure.supylabel("pods, and load in what a pod can do")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()

"""Whether the operator is well, and the HTTP server that tells it, with the metrics beside it.

`/healthz` fails for what a restart may mend, `/readyz` for whatever keeps the operator from its
work: an API server that is away makes it not ready, and no restart would bring that back.
"""

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

from aiohttp import web
from prometheus_client import exposition

from rerank_operator.metrics import Metrics

log = logging.getLogger(__name__)

# Calls in a pass end after half a minute each, and a pass makes a handful.
STUCK_SECONDS = 300.0
# A watch is opened anew after two minutes, or after 70 s without a word; then kopf has up to half
# a minute between two tries. Longer than that is silence.
SILENT_SECONDS = 240.0
# The same, for what a restart may mend: an answer that refuses counts as one.
DEAD_SECONDS = 300.0
LEASE_SECONDS = 10.0
DEAD_LEASE_SECONDS = 60.0
# Probes give up after five.
ASK_SECONDS = 3.0


class Watches:
    """When each watch was last opened, and last got an answer of any kind."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._opened: dict[str, float] = {}
        self._answered: dict[str, float] = {}

    def expect(self, paths: Iterable[str]) -> None:
        """Count from now on: these are about to be watched."""
        now = self._clock()
        self._opened = dict.fromkeys(paths, now)
        self._answered = dict(self._opened)

    def note(self, path: str, is_watch: bool, status: int) -> None:
        """Take in the answer to a request for a listing or a watch."""
        if path in self._answered:
            self._answered[path] = self._clock()
            if is_watch and status < 400:
                self._opened[path] = self._clock()

    def silent(self) -> tuple[str, float]:
        """Return the path that was opened longest ago, and how long; "" and 0 without any."""
        return self._oldest(self._opened)

    def dead(self) -> tuple[str, float]:
        """Return the path that got no answer for longest, and for how long."""
        return self._oldest(self._answered)

    def _oldest(self, times: dict[str, float]) -> tuple[str, float]:
        if not times:
            return "", 0.0
        path = min(times, key=lambda path: times[path])
        return path, self._clock() - times[path]


class Queue(Protocol):
    """What is asked of the work queue."""

    def longest_running_seconds(self) -> float: ...


class Health:
    """Judges what the parts of the operator tell of themselves."""

    def __init__(
        self,
        queue: Queue,
        watches: Watches,
        lease_silent_seconds: Callable[[], float],
        answers: Callable[[float], Awaitable[bool]],
    ) -> None:
        self.synced = False
        self._queue = queue
        self._watches = watches
        self._lease_silent_seconds = lease_silent_seconds
        self._answers = answers

    async def ailment(self) -> str | None:
        """Return what a restart may mend, as a sentence; None when alive."""
        if (seconds := self._queue.longest_running_seconds()) > STUCK_SECONDS:
            return f"a pass has been running for {seconds:.0f} s"
        reason = None
        path, seconds = self._watches.dead()
        if seconds > DEAD_SECONDS:
            reason = f"the watch of {path} has had no answer for {seconds:.0f} s"
        elif (seconds := self._lease_silent_seconds()) > DEAD_LEASE_SECONDS:
            reason = f"the lease could not be read or renewed for {seconds:.0f} s"
        # With the API server away there is nothing to mend here.
        return reason if reason and await self._answers(ASK_SECONDS) else None

    def obstacle(self) -> str | None:
        """Return what keeps the operator from its work, as a sentence; None when ready."""
        if not self.synced:
            return "not every kind has been listed yet"
        path, seconds = self._watches.silent()
        if seconds > SILENT_SECONDS:
            return f"the watch of {path} has been silent for {seconds:.0f} s"
        if (seconds := self._lease_silent_seconds()) > LEASE_SECONDS:
            return f"the lease could not be read or renewed for {seconds:.0f} s"
        return None


@asynccontextmanager
async def serve(
    health: Health, metrics: Metrics, health_port: int, metrics_port: int
) -> AsyncIterator[None]:
    """Answer on the two ports while the block runs. Port 0: not at all.

    Raises:
        OSError: a port is taken.
    """

    async def healthz(_: web.Request) -> web.Response:
        return _verdict(await health.ailment())

    async def readyz(_: web.Request) -> web.Response:
        return _verdict(health.obstacle())

    async def scrape(request: web.Request) -> web.Response:
        encode, kind = exposition.choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(metrics.registry), headers={"Content-Type": kind})

    async with AsyncExitStack() as stack:
        for port, routes in [
            (health_port, [web.get("/healthz", healthz), web.get("/readyz", readyz)]),
            (metrics_port, [web.get("/metrics", scrape)]),
        ]:
            if port:
                app = web.Application()
                app.add_routes(routes)
                runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
                await runner.setup()
                stack.push_async_callback(runner.cleanup)
                await web.TCPSite(runner, None, port).start()
        yield


def _verdict(reason: str | None) -> web.Response:
    if reason is None:
        return web.Response(text="ok\n")
    log.warning("not well", extra={"reason": reason})
    return web.Response(text=f"{reason}\n", status=503)

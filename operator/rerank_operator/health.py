"""Whether the operator is well, and the HTTP server that tells it, with the metrics beside it.

`/healthz` fails for what a restart may mend, `/readyz` for whatever keeps the operator from its
work: an API server that is away makes it not ready, and no restart would bring that back.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
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
        self._refused: dict[str, int] = {}

    def expect(self, paths: Iterable[str]) -> None:
        """Count from now on: these are about to be watched."""
        now = self._clock()
        self._opened = dict.fromkeys(paths, now)
        self._answered = dict(self._opened)
        self._refused.clear()

    def note(self, path: str, is_watch: bool, status: int) -> bool:
        """Take in the answer to a request. Return whether it is for one of the watches."""
        if path not in self._answered:
            return False
        now = self._clock()
        self._answered[path] = now
        self._refused.pop(path, None)
        if status >= 400:
            self._refused[path] = status
        elif is_watch:
            self._opened[path] = now
        return True

    def obstacle(self) -> str | None:
        """Return which watch does not do its work, as a sentence; None if each does."""
        for path, status in self._refused.items():
            return f"the watch of {path} is answered with {status}"
        return self._overdue(self._opened, SILENT_SECONDS, "has been silent")

    def ailment(self) -> str | None:
        """Return which watch gets no answer at all, as a sentence; None if each does."""
        return self._overdue(self._answered, DEAD_SECONDS, "has had no answer")

    def _overdue(self, times: Mapping[str, float], limit: float, verdict: str) -> str | None:
        path = min(times, key=lambda path: times[path], default=None)
        if path is None or (seconds := self._clock() - times[path]) <= limit:
            return None
        return f"the watch of {path} {verdict} for {seconds:.0f} s"


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
        self.synced = asyncio.Event()
        self._queue = queue
        self._watches = watches
        self._lease_silent_seconds = lease_silent_seconds
        self._answers = answers

    async def ailment(self) -> str | None:
        """Return what a restart may mend, as a sentence; None when alive."""
        if (seconds := self._queue.longest_running_seconds()) > STUCK_SECONDS:
            return f"a pass has been running for {seconds:.0f} s"
        reason = self._watches.ailment() or self._lease(DEAD_LEASE_SECONDS)
        # With the API server away there is nothing to mend here.
        return reason if reason and await self._answers(ASK_SECONDS) else None

    def obstacle(self) -> str | None:
        """Return what keeps the operator from its work, as a sentence; None when ready."""
        if not self.synced.is_set():
            return "not every kind has been listed yet"
        return self._watches.obstacle() or self._lease(LEASE_SECONDS)

    def _lease(self, limit: float) -> str | None:
        if (seconds := self._lease_silent_seconds()) <= limit:
            return None
        return f"the lease could not be read or renewed for {seconds:.0f} s"


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

"""The kopf surface: what the store does not know yet becomes a key. No decisions live here."""

import asyncio
import logging
import os
import random
import signal
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import aiohttp
import kopf
import msgspec
from aiohttp import ClientHandlerType, ClientMiddlewareType

from rerank_operator.cluster import PAGE_SIZE, api_path, count_requests, user_agent
from rerank_operator.health import Watches
from rerank_operator.metrics import Metrics
from rerank_operator.names import CHILD_KINDS, OWNER_LABEL, PODS, RERANKERS, WATCHED_KINDS
from rerank_operator.store import Key, Store, owner_key, stripped
from rerank_operator.workqueue import WorkQueue

log = logging.getLogger(__name__)

# Of the answers that refuse: log in again, and try again.
_KNOWN_TO_KOPF = {401, 403, 429}
# kopf gives its handlers two seconds to end.
END_SECONDS = 4.0
# The event after which kopf lists anew.
_EXPIRED = b'{"type": "ERROR", "object": {"code": 410}}\n'
# Between an error in a watch and the listing that follows it.
BROKEN_SECONDS = 1.0
# Least time between two logins, when the API server no longer knows who we are.
LOGIN_SECONDS = 2.0


@dataclass
class Memo:
    """What handlers reach; kopf hands it to each of them."""

    store: Store
    queue: WorkQueue[Key]
    watches: Watches
    metrics: Metrics
    identity: str
    logged_in_at: float = -LOGIN_SECONDS

    def __copy__(self) -> "Memo":
        """Return itself: kopf would keep a copy for each object that it hears of."""
        return self


class Backoffs:
    """Endless delays: kopf gives a watch up, and the process with it, when these run out."""

    def __iter__(self) -> Iterator[float]:
        delay = 0.5
        while True:
            yield delay * random.uniform(0.5, 1)
            delay = min(30.0, delay * 2)


class NoDiffs(kopf.DiffBaseStorage):
    """Keeps kopf from copying each object of each event, for a comparison that nobody asked for.

    `kopf.on.event` handlers get no difference, and to find one was a quarter of our processor time.
    """

    def build(self, **_: Any) -> kopf.BodyEssence:
        """Return that nothing of an object is to be compared."""
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> None:
        """Return that nothing is known of earlier."""

    def store(self, **_: Any) -> None:
        """Keep nothing."""


def build_settings() -> kopf.OperatorSettings:
    """Return kopf's settings: watching, and nothing else of what it can do."""
    settings = kopf.OperatorSettings()
    # Looking for new kinds and namespaces would take rights on all of both.
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.persistence.diffbase_storage = NoDiffs()
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.networking.error_backoffs = Backoffs()
    # Whether a watch still works shows when it is opened anew; `health` counts on these two.
    settings.watching.server_timeout = 120
    settings.watching.inactivity_timeout = 70
    settings.watching.chunk_size = PAGE_SIZE
    # Of a worker for each object that was heard of, which holds what it heard: after a listing all
    # of them would be there at once.
    settings.queueing.idle_timeout = 0.05
    # `process` has a time limit of its own for ending.
    settings.process.ultimate_exiting_timeout = None
    for kind in (*CHILD_KINDS, PODS):
        settings.watching.label_selectors[kind.plural] = OWNER_LABEL
    return settings


async def watch(memo: Memo, namespaces: Collection[str], on_signal: Callable[[], None]) -> None:
    """Watch all kinds, in all namespaces or in those named, until cancelled.

    Raises:
        Exception: kopf gave up, on an error in a watch for instance.
    """
    scopes: Collection[str | None] = namespaces or [None]
    memo.watches.expect(api_path(kind, scope) for kind in WATCHED_KINDS for scope in scopes)
    tasks = await kopf.spawn_tasks(
        settings=build_settings(),
        memo=memo,
        clusterwide=not namespaces,
        namespaces=namespaces,
    )
    # kopf has just taken these for itself.
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    # Not by `run_tasks`: to end, it cancels every task there is, the passes under way among them.
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=END_SECONDS)
    for task in done:
        task.result()
    raise RuntimeError("kopf has ended by itself")


@kopf.on.login()
async def login(memo: Memo, **arguments: Any) -> kopf.AiohttpSession | None:
    """Return a session with the pod's service account, or else with the user's kubeconfig."""
    # kopf comes back at once for as long as the API server answers 401.
    clock = asyncio.get_running_loop().time
    await asyncio.sleep(max(0.0, memo.logged_in_at + LOGIN_SECONDS - clock()))
    memo.logged_in_at = clock()
    info = _credentials(**arguments)
    if info is None:
        return None
    return kopf.AiohttpSession(
        server=info.server,
        default_namespace=info.default_namespace,
        aiohttp_session=aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
            headers={"User-Agent": user_agent(memo.identity), **info.as_http_headers()},
            proxy=info.proxy_url,
            trace_configs=[count_requests(memo.metrics)],
            middlewares=[outlast(memo.watches, memo.store)],
        ),
    )


def _credentials(**arguments: Any) -> kopf.ConnectionInfo | None:
    if "KUBECONFIG" in os.environ:
        return kopf.login_with_kubeconfig(**arguments)
    if (info := kopf.login_with_service_account(**arguments)) is None:
        return kopf.login_with_kubeconfig(**arguments)
    # By address rather than by name: the operator should not need the cluster's DNS.
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    host = f"[{host}]" if ":" in host else host
    return replace(info, server=f"https://{host}:{port}")


def outlast(watches: Watches, store: Store) -> ClientMiddlewareType:
    """Return what keeps answers from kopf that it does not know: it gives up on them for good.

    That a version or a page is too old (410) is answered by beginning at the present. Whatever
    else refuses a listing or a watch, a definition that was deleted say, is tried again later.
    What goes wrong in the middle of a watch is answered by a listing. The events of a watch come
    shortened, and those that tell nothing new as bookmarks.
    """

    async def middleware(
        request: aiohttp.ClientRequest, handler: ClientHandlerType
    ) -> aiohttp.ClientResponse:
        response = await handler(request)
        if response.status == 410:
            response.close()
            request.url = request.url.without_query_params("continue", "resourceVersion")
            response = await handler(request)
        is_watch = request.url.query.get("watch") == "true"
        expected = watches.note(request.url.path, is_watch, response.status)
        if expected and 400 <= response.status < 500 and response.status not in _KNOWN_TO_KOPF:
            response.close()
            raise aiohttp.ClientConnectionError(f"{response.status} {response.reason}")
        if expected and is_watch and response.status == 200:
            response.content = cast(aiohttp.StreamReader, Lines(response.content, store))
        return response

    return middleware


class Chunks(Protocol):
    """The body of an answer, as it comes in."""

    def iter_chunked(self, size: int) -> AsyncIterator[bytes]: ...


class Lines:
    """The body of a watch without what ends kopf: an error event, half a line, and no JSON at all.

    In place of an error there is the one that kopf knows: it lists anew, and then watches. Of
    objects there is what passes read. A version that the store has already becomes a bookmark: a
    third of what comes are our own writes, whose answers told us, and kopf takes a task for each.
    """

    def __init__(self, content: Chunks, store: Store) -> None:
        self._content = content
        self._store = store

    def __getattr__(self, name: str) -> Any:
        """Leave to the body what aiohttp asks of it when it closes the connection."""
        return getattr(self._content, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        """Yield whole lines, which are chunks to whoever reads them."""
        rest = b""
        async for chunk in self._content.iter_chunked(size):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in filter(None, lines):
                try:
                    event = self._shortened(line)
                # The last one, of a part that is no object.
                except (ValueError, TypeError, LookupError, AttributeError) as error:
                    fault = f"{type(error).__name__}: {error}"
                    log.info("watch broken, will list anew", extra={"error": fault})
                    await asyncio.sleep(BROKEN_SECONDS)
                    yield _EXPIRED
                    return
                yield event + b"\n"

    def _shortened(self, line: bytes) -> bytes:
        event = msgspec.json.decode(line)
        kind, body = event["type"], event["object"]
        if kind == "ERROR":
            raise ValueError(str(body))
        if kind in ("ADDED", "MODIFIED") and self._store.knows(body):
            version = {"resourceVersion": body["metadata"]["resourceVersion"]}
            kind, body = "BOOKMARK", {"kind": body["kind"], "metadata": version}
        return msgspec.json.encode({"type": kind, "object": stripped(body)})


@kopf.on.event(RERANKERS.api_version, RERANKERS.plural)
async def on_reranker(event: kopf.RawEvent, memo: Memo, **_: Any) -> None:
    """Remember the object and ask for a pass.

    kopf drops what an event handler raises and never calls it again, so nothing here can fail for
    a reason worth retrying; the work queue does the retrying.
    """
    key = owner_key(event["object"])
    held = memo.store.reranker(key) if key else None
    # A status that is written anew at each failure must not end the wait that follows it.
    _note(event, memo, urgent=_generation(held) != _generation(event["object"]))


async def on_child(event: kopf.RawEvent, memo: Memo, **_: Any) -> None:
    """A child moved: the pass belongs to the object named in its label, before and after."""
    _note(event, memo, urgent=False)


for _kind in (*CHILD_KINDS, PODS):
    kopf.on.event(_kind.api_version, _kind.plural)(on_child)


def _generation(body: Mapping[str, Any] | None) -> tuple[str, int] | None:
    """Return what changes when something else is asked for; None for no object."""
    return (body["metadata"]["uid"], body["metadata"]["generation"]) if body else None


def _note(event: kopf.RawEvent, memo: Memo, urgent: bool) -> None:
    for key in memo.store.put(event["object"], deleted=event["type"] == "DELETED"):
        memo.queue.add(key, urgent)

"""A server between operator and API server that fails as it is told to.

It speaks TLS on both sides: to the operator as the API server, to the API server as the operator.
"""

import asyncio
import json
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import aiohttp
from aiohttp import web
from yarl import URL

from apiserver.controlplane import OPERATOR, ControlPlane

_OBJECT = re.compile(r"/namespaces/([^/]+)/([^/]+)(?:/[^/]+)?(/status)?$")
# These concern one connection, and there are two.
_HOP_BY_HOP = {"Host", "Connection", "Transfer-Encoding", "Content-Length"}
# From the path of a watch and one line of it, what to pass on instead. None ends the watch, and so
# does what is no whole line.
Alter = Callable[[str, bytes], bytes | None]


class Fault(NamedTuple):
    """What answers a write: a status, a connection that is closed, or nothing.

    `after`: the API server has done what was asked for, all the same.
    """

    answer: int | Literal["reset", "hang"]
    after: bool = False

    def __str__(self) -> str:
        return f"{self.answer} {'after' if self.after else 'instead'}"


class Write(NamedTuple):
    """A write that arrived; `status` is the API server's answer, 0 if it was never asked."""

    namespace: str
    what: str
    status: int


class FaultProxy:
    """`kubeconfig` is the operator's, by way of it. `writes` are in the order of their ends.

    `alter` sees each event of each watch; without it all are passed on.
    """

    def __init__(self, plane: ControlPlane) -> None:
        self.writes: list[Write] = []
        self.alter: Alter | None = None
        self._plan: dict[str, tuple[int, Fault]] = {}
        self._passing: set[asyncio.Future[web.StreamResponse]] = set()
        self._pki = plane.folder / "pki"
        self._config = json.loads(plane.kubeconfig(OPERATOR).read_text())
        self._cluster = self._config["clusters"][0]["cluster"]
        self._target: str = self._cluster["server"]
        self.kubeconfig: Path = plane.folder / "operator-faults.conf"

    def plan(self, namespace: str, number: int, fault: Fault) -> None:
        """Have the write there fail that comes after `number` others."""
        self._plan[namespace] = (number, fault)

    def is_due(self, namespace: str) -> bool:
        """Tell whether what was planned there is yet to happen."""
        return namespace in self._plan

    async def serve(self, started: threading.Event, stop: asyncio.Event) -> None:
        """Take connections until told to stop."""
        server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server.load_cert_chain(self._pki / "apiserver.crt", self._pki / "apiserver.key")
        client = ssl.create_default_context(cafile=self._pki / "ca.crt")
        client.load_cert_chain(self._pki / f"{OPERATOR}.crt", self._pki / f"{OPERATOR}.key")
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=client, limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            trust_env=False,
        ) as self._session:
            runner = web.ServerRunner(
                web.Server(self._handle, handler_cancellation=True, access_log=None),
                shutdown_timeout=0.1,
            )
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server)
            await site.start()
            port = runner.addresses[0][1]
            self._cluster["server"] = f"https://127.0.0.1:{port}"
            self.kubeconfig.write_text(json.dumps(self._config))
            started.set()
            await stop.wait()
            await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        found = _OBJECT.search(request.path)
        if request.method == "GET" or found is None:
            return await self._pass_on(request, body)
        namespace, plural, subresource = found.groups()
        what = f"{request.method.lower()} {plural}{subresource or ''}"
        fault = self._due(namespace)
        if fault is not None and not fault.after:
            self.writes.append(Write(namespace, what, 0))
            return await _strike(request, fault)
        # Whoever asked may be killed meanwhile: what takes effect is noted all the same.
        passing = asyncio.ensure_future(self._note(request, body, namespace, what))
        self._passing.add(passing)
        passing.add_done_callback(self._passing.discard)
        response = await asyncio.shield(passing)
        return response if fault is None else await _strike(request, fault)

    async def _note(
        self, request: web.BaseRequest, body: bytes, namespace: str, what: str
    ) -> web.StreamResponse:
        response = await self._pass_on(request, body)
        self.writes.append(Write(namespace, what, response.status))
        return response

    def _due(self, namespace: str) -> Fault | None:
        """Count a write, and return what is planned for it."""
        if namespace not in self._plan:
            return None
        number, fault = self._plan.pop(namespace)
        if number == 0:
            return fault
        self._plan[namespace] = (number - 1, fault)
        return None

    async def _pass_on(self, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        headers = [
            (name, text) for name, text in request.headers.items() if name not in _HOP_BY_HOP
        ]
        url = URL(self._target + request.raw_path, encoded=True)
        async with self._session.request(
            request.method, url, headers=headers, data=body or None
        ) as response:
            kept = {
                name: text for name, text in response.headers.items() if name not in _HOP_BY_HOP
            }
            if request.query.get("watch") != "true" or response.status != 200:
                content = await response.read()
                return web.Response(status=response.status, headers=kept, body=content)
            stream = web.StreamResponse(status=response.status, headers=kept)
            await stream.prepare(request)
            await self._pass_events_on(request.path, response, stream)
            return stream

    async def _pass_events_on(
        self, path: str, response: aiohttp.ClientResponse, stream: web.StreamResponse
    ) -> None:
        rest = b""
        async for chunk in response.content.iter_any():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                line += b"\n"
                altered = self.alter(path, line) if self.alter else line
                if altered is None:
                    return
                await stream.write(altered)
                if altered and not altered.endswith(b"\n"):
                    return


async def _strike(request: web.BaseRequest, fault: Fault) -> web.StreamResponse:
    if fault.answer == "hang":
        # Until the other end is gone: then this is cancelled.
        await asyncio.Event().wait()
    if not isinstance(fault.answer, int):
        assert request.transport is not None
        request.transport.abort()
        return web.Response()
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": fault.answer}
    headers = {"Retry-After": "1"} if fault.answer == 429 else {}
    return web.json_response(status | {"message": "by test"}, status=fault.answer, headers=headers)


@contextmanager
def start_fault_proxy(plane: ControlPlane) -> Iterator[FaultProxy]:
    """Run it while the block runs, in a thread of its own."""
    proxy, started = FaultProxy(plane), threading.Event()
    loop, stop = asyncio.new_event_loop(), asyncio.Event()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(proxy.serve(started, stop))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)

"""The life of a real server process: start, overload, a dying engine, signals, logs."""

import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

import standin_server
from server_process import REQUEST, ROOT, ServerProcess, server_process, wait_for

SECONDS = 30


def requests_at_once(
    server: ServerProcess, count: int, meanwhile: Callable[[], None]
) -> list[httpx.Response | httpx.TransportError]:
    """Send `count` requests, call `meanwhile` when the engine has them, and return the answers."""

    async def one(client: httpx.AsyncClient) -> httpx.Response | httpx.TransportError:
        try:
            return await client.post("/rerank", json=REQUEST)
        except httpx.TransportError as error:
            return error

    async def all_of_them() -> list[httpx.Response | httpx.TransportError]:
        async with httpx.AsyncClient(base_url=server.client.base_url, timeout=SECONDS) as client:
            tasks = [asyncio.create_task(one(client)) for _ in range(count)]
            pairs = count * len(REQUEST["documents"])
            await asyncio.to_thread(
                wait_for, lambda: server.figure("rerank_queue_depth") >= pairs, server.output
            )
            meanwhile()
            return await asyncio.gather(*tasks)

    return asyncio.run(all_of_them())


def statuses(answers: list[httpx.Response | httpx.TransportError]) -> Counter[object]:
    return Counter(
        answer.status_code if isinstance(answer, httpx.Response) else repr(answer)
        for answer in answers
    )


def everything(raw: socket.socket) -> bytes:
    received = b""
    while piece := raw.recv(65536):
        received += piece
    return received


def listens(port: int) -> bool:
    with socket.socket() as raw:
        return raw.connect_ex(("127.0.0.1", port)) == 0


def test_sigterm_ends_an_idle_server_at_once(tiny_model: Path, tmp_path: Path) -> None:
    with server_process(tiny_model, tmp_path) as server:
        began = time.monotonic()
        server.terminate()
        code = server.process.wait(SECONDS)

        assert code == 0
        assert time.monotonic() - began < 10
        assert [record["message"] for record in server.log()][-2:] == ["draining", "stopped"]


def test_sigterm_while_loading_ends_at_once(tiny_model: Path, tmp_path: Path) -> None:
    environment = {standin_server.LOAD_SECONDS: "60"}
    with server_process(tiny_model, tmp_path, environment=environment, ready=False) as server:
        ready = server.client.get("/ready")
        server.terminate()
        code = server.process.wait(SECONDS)

    assert ready.status_code == 503
    assert code == 0


def test_sigterm_under_load_answers_everything_that_came_in(
    tiny_model: Path, tmp_path: Path
) -> None:
    environment = {standin_server.PAIRS_PER_SECOND: "100"}
    with server_process(tiny_model, tmp_path, environment=environment) as server:
        answers = requests_at_once(server, 50, meanwhile=server.terminate)
        code = server.process.wait(SECONDS)

    assert statuses(answers) == {200: 50}
    assert code == 0


def test_sigterm_does_not_wait_for_ever_for_a_stuck_request(
    tiny_model: Path, tmp_path: Path
) -> None:
    with server_process(tiny_model, tmp_path, "--drain-seconds", "2") as server:
        server.process.send_signal(signal.SIGUSR2)

        [answer] = requests_at_once(server, 1, meanwhile=server.terminate)
        code = server.process.wait(SECONDS)

    assert isinstance(answer, httpx.Response)
    assert answer.status_code == 503
    assert "shutting down" in answer.json()["error"]
    assert int(answer.headers["Retry-After"]) > 0
    assert code == 0


def test_request_that_comes_late_on_an_open_connection_is_served(
    tiny_model: Path, tmp_path: Path
) -> None:
    with server_process(tiny_model, tmp_path) as server:
        head = b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
        body = json.dumps(REQUEST).encode()
        with server.connect() as kept, server.connect() as half_way:
            kept.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            before = kept.recv(65536)
            while not before.endswith(b"}"):
                before += kept.recv(65536)
            half_way.sendall(b"POST /rer")

            server.terminate()
            wait_for(lambda: not listens(server.port))
            kept.sendall(head % len(body) + body)
            half_way.sendall((head % len(body) + body).removeprefix(b"POST /rer"))
            answers = [everything(kept), everything(half_way)]
        code = server.process.wait(SECONDS)

    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in answer
    assert code == 0


def test_killed_server_leaves_the_port_to_the_next(tiny_model: Path, tmp_path: Path) -> None:
    with server_process(tiny_model, tmp_path) as server:
        server.process.kill()
        server.process.wait(SECONDS)

        with server_process(tiny_model, tmp_path, port=server.port) as second:
            answer = second.client.post("/rerank", json=REQUEST)

    assert answer.status_code == 200


def test_dead_engine_fails_health_at_once_and_requests_under_way(
    tiny_model: Path, tmp_path: Path
) -> None:
    with server_process(tiny_model, tmp_path) as server:
        server.process.send_signal(signal.SIGUSR2)
        health = []

        def kill_engine() -> None:
            server.process.send_signal(signal.SIGUSR1)
            began = time.monotonic()
            wait_for(lambda: server.client.get("/health").status_code == 503)
            health.append(time.monotonic() - began)

        answers = requests_at_once(server, 20, meanwhile=kill_engine)
        later = server.client.post("/rerank", json=REQUEST)
        reason = server.client.get("/health").json()["reason"]

    assert statuses(answers) == {503: 20}
    assert later.status_code == 503
    assert health[0] < 2
    assert reason == "the engine has died"
    for answer in answers:
        assert isinstance(answer, httpx.Response)
        assert int(answer.headers["Retry-After"]) > 0
        assert "secret" not in answer.text


CAPACITY = 100
DOCUMENTS = 20
QUEUE_SECONDS = 2
FLOOD_SECONDS = 6


@pytest.fixture(scope="module")
def slow_server(
    tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    with server_process(
        tiny_model,
        tmp_path_factory.mktemp("slow"),
        *("--max-queued-pairs", str(CAPACITY * QUEUE_SECONDS)),
        environment={standin_server.PAIRS_PER_SECOND: str(CAPACITY)},
    ) as server:
        yield server


class Flood:
    """Requests that come in so many times as fast as the server can work, answered or not."""

    def __init__(self, server: ServerProcess, times: int) -> None:
        self.statuses: Counter[int] = Counter()
        self.accepted_seconds: list[float] = []
        self.health_seconds: list[float] = []
        self._port = server.port
        self._times = times

    async def run(self) -> float:
        """Send for a while, wait for all answers, and return the seconds that it took."""
        began = time.monotonic()
        probing = asyncio.create_task(self._probe())
        async with asyncio.TaskGroup() as requests:
            sent = 0
            while (passed := time.monotonic() - began) < FLOOD_SECONDS:
                while sent < passed * CAPACITY * self._times / DOCUMENTS:
                    requests.create_task(self._rank())
                    sent += 1
                await asyncio.sleep(0.01)
        probing.cancel()
        return time.monotonic() - began

    async def _rank(self) -> None:
        body = json.dumps({"query": "bread", "documents": ["moon"] * DOCUMENTS}).encode()
        seconds, answer = await self._ask(
            b"POST /rerank HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        status = int(answer[9:12])
        self.statuses[status] += 1
        if status == 200:
            self.accepted_seconds.append(seconds)
        else:
            assert b"\r\nretry-after: " in answer

    async def _probe(self) -> None:
        while True:
            seconds, answer = await self._ask(
                b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            )
            assert answer[9:12] == b"200"
            self.health_seconds.append(seconds)
            await asyncio.sleep(0.05)

    async def _ask(self, request: bytes) -> tuple[float, bytes]:
        began = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(request)
        answer = await reader.read()
        writer.close()
        return time.monotonic() - began, answer


@pytest.mark.parametrize("times", [2, 10])
def test_overload_costs_only_what_is_too_much(times: int, slow_server: ServerProcess) -> None:
    flood = Flood(slow_server, times)
    memory = slow_server.memory()

    seconds = asyncio.run(flood.run())
    began = time.monotonic()
    after = slow_server.client.post("/rerank", json=REQUEST)
    recovered = time.monotonic() - began

    assert set(flood.statuses) == {200, 429}
    assert flood.statuses[200] * DOCUMENTS / seconds > 0.6 * CAPACITY
    assert statistics.median(flood.accepted_seconds) < QUEUE_SECONDS * 1.5
    assert statistics.median(flood.health_seconds) < 0.1
    assert slow_server.memory() - memory < 64 * 2**20
    assert after.status_code == 200
    assert recovered < 2


def test_log_is_utf8_whatever_the_locale(tiny_model: Path, tmp_path: Path) -> None:
    environment = {"LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    with server_process(
        tiny_model, tmp_path, "--served-name", "größe 東京", environment=environment
    ) as server:
        [ready] = server.logged("ready")

    assert ready["model"] == "größe 東京"


def test_warnings_and_errors_go_into_a_file_too(tiny_model: Path, tmp_path: Path) -> None:
    directory = tmp_path / "logs" / "größe"
    flags = ("--log-dir", str(directory), "--served-name", "東京")
    with server_process(tiny_model, tmp_path, *flags) as server:
        stdout = server.log()

    lines = (directory / "errors.log").read_text(encoding="utf-8").splitlines()
    kept = [json.loads(line) for line in lines]
    assert kept == [record for record in stdout if record["level"] in {"WARNING", "ERROR"}]
    assert kept


def test_log_directory_that_is_none_ends_the_process_with_its_reason(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()

    ended = subprocess.run(
        [sys.executable, ROOT / "tests" / "standin_server.py", "--model=m", f"--log-dir={file}"],
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'server'}:{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )

    [line] = ended.stderr.splitlines()
    assert ended.returncode == 2
    assert line.startswith("rerank-server: RERANK_LOG_DIR (--log-dir) is ")
    assert str(file) in line


def test_client_of_this_machine_cannot_pretend_to_be_another(
    tiny_model: Path, tmp_path: Path
) -> None:
    # What uvicorn reads, unless told not to.
    environment = {"FORWARDED_ALLOW_IPS": "*"}
    flags = ("--requests-per-minute-per-client", "1")
    with server_process(tiny_model, tmp_path, *flags, environment=environment) as server:
        answers = [
            server.client.post("/rerank", json=REQUEST, headers={"X-Forwarded-For": client})
            for client in ("192.0.2.1", "192.0.2.2")
        ]

    assert [answer.status_code for answer in answers] == [200, 429]


def test_port_in_use_ends_the_process_with_its_reason(tiny_model: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = subprocess.run(
            [
                *(sys.executable, ROOT / "tests" / "standin_server.py"),
                *("--model", tiny_model, "--port", str(port)),
            ],
            env=os.environ | {"PYTHONPATH": f"{ROOT / 'server'}:{ROOT / 'tests'}"},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    errors = [json.loads(line) for line in ended.stdout.splitlines()]
    assert ended.returncode != 0
    (told,) = [record["message"] for record in errors if record["level"] == "ERROR"]
    assert told.startswith(f"nothing can listen on 127.0.0.1 port {port}: ")
    assert "Address already in use" in told
    assert told.endswith(": end what does, or give another RERANK_HOST or RERANK_PORT")


@pytest.mark.parametrize(
    ("wanted", "allowed", "warned"), [(100, 256, False), (300, 300, False), (9999, 512, True)]
)
def test_process_may_open_a_file_for_each_connection(
    wanted: int, allowed: int, warned: bool
) -> None:
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 512));"
        "from rerank_server.__main__ import allow_files; allow_files(int(sys.argv[1]));"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )

    # A process cannot raise its hard limit again.
    ended = subprocess.run(
        [sys.executable, "-c", program, str(wanted)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "server")},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )

    assert int(ended.stdout) == allowed
    assert ("RERANK_MAX_CONNECTIONS" in ended.stderr) is warned

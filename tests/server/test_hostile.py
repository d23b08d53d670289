"""What broken and hostile clients send, byte by byte, to a real server process."""

import concurrent.futures
import contextlib
import itertools
import json
import socket
import statistics
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from server_process import REQUEST, ServerProcess, server_process, wait_for

HEADER_SECONDS = 1
BODY_SECONDS = 5
MAX_CONNECTIONS = 600
TOKEN = "s3cret"
# For `/health` under attack. On a quiet machine it answers within a few milliseconds.
HEALTH_SECONDS = 0.1

BODY = json.dumps(REQUEST).encode()
LAST = b"Connection: close\r\n"
AUTHORIZED = b"Authorization: Bearer s3cret\r\n"


@pytest.fixture(scope="module")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with server_process(
        tiny_model,
        tmp_path_factory.mktemp("server"),
        *("--header-seconds", str(HEADER_SECONDS), "--body-seconds", str(BODY_SECONDS)),
        *("--max-connections", str(MAX_CONNECTIONS), "--api-token", TOKEN),
    ) as process:
        process.client.headers["Authorization"] = f"Bearer {TOKEN}"
        yield process


@pytest.fixture(autouse=True)
def unharmed(server: ServerProcess) -> Iterator[None]:
    """After each test the server works, has no error to tell, and no connection left."""
    yield
    assert server.client.post("/rerank", json=REQUEST).status_code == 200
    wait_for(lambda: connections(server) <= 1)
    assert [record for record in server.log() if record["level"] == "ERROR"] == []


def connections(server: ServerProcess) -> int:
    """Count those that the server holds open."""
    held = psutil.Process(server.process.pid).net_connections()
    return len([one for one in held if one.raddr])


def head(first: bytes, *headers: bytes) -> bytes:
    return b"".join([first, b" HTTP/1.1\r\nHost: x\r\n", AUTHORIZED, *headers, b"\r\n"])


def post(body: bytes = BODY, *headers: bytes) -> bytes:
    return head(b"POST /rerank", b"Content-Length: %d\r\n" % len(body), *headers) + body


def ask(server: ServerProcess, *parts: bytes, half_close: bool = False) -> bytes:
    """Send all parts and return everything that comes back until the server closes."""
    with server.connect() as raw:
        # It may answer, and stop reading, half-way.
        with contextlib.suppress(ConnectionError):
            for part in parts:
                raw.sendall(part)
        if half_close:
            raw.shutdown(socket.SHUT_WR)
        return rest_of(raw)


def rest_of(raw: socket.socket) -> bytes:
    received = b""
    while piece := raw.recv(65536):
        received += piece
    return received


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def assert_refused(answer: bytes, status: int, kind: str) -> None:
    """An error in the form of every error, and the last answer of its connection."""
    lines, _, body = answer.partition(b"\r\n\r\n")
    error = json.loads(body)
    assert status_of(answer) == status
    assert b"connection: close" in lines.lower()
    assert b"x-request-id: " in lines.lower()
    assert error["error_type"] == kind
    assert error["error"] == error["message"] == error["detail"]


@pytest.mark.parametrize(
    "request_bytes",
    [
        head(b"POST /rerank", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n")
        + b"0\r\n\r\n",
        head(b"POST /rerank", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n")
        + b"0\r\n\r\n",
        head(b"POST /rerank", b"Content-Length: 5\r\n", b"Content-Length: 6\r\n") + b"abcdef",
        head(b"POST /rerank", b"Content-Length: 5\r\n", b"Content-Length: 5\r\n") + b"abcde",
        head(b"POST /rerank", b"Content-Length: -5\r\n") + b"abcde",
        head(b"POST /rerank", b"Content-Length: +5\r\n") + b"abcde",
        head(b"POST /rerank", b"Content-Length: 0x5\r\n") + b"abcde",
        head(b"POST /rerank", b"Content-Length: 5, 5\r\n") + b"abcde",
        head(b"POST /rerank", b"Content-Length: " + b"9" * 30 + b"\r\n") + b"abcde",
        head(b"POST /rerank", b"Content-Length : 5\r\n") + b"abcde",
        head(b"POST /rerank", b"Transfer-Encoding: gzip\r\n") + b"abcde",
        head(b"POST /rerank", b"Transfer-Encoding: chunked, identity\r\n") + b"0\r\n\r\n",
        head(b"POST /rerank", b"Transfer-Encoding: chunked\r\n") + b"zz\r\n",
        head(b"POST /rerank", b"Transfer-Encoding: chunked\r\n") + b"-1\r\n",
        head(b"POST /rerank", b"Transfer-Encoding: chunked\r\n") + b"f" * 20 + b"\r\n",
        head(b"POST /rerank", b"Transfer-Encoding: chunked\r\n") + b"2\r\n{}zz",
        head(b"GET /health", b"X: a\r\n folded\r\n"),
        head(b"GET /health", b"X: a\x00b\r\n"),
        head(b"GET /health", b"X\x00: a\r\n"),
        head(b"GET /health", b": a\r\n"),
        head(b"GET /health", b"X: a\rb\r\n"),
        b"GET /health HTTP/1.1\nHost: x\n\n",
        b"GET /health HTTP/9.9\r\nHost: x\r\n\r\n",
        b"BREW /health HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT http://example.com/health HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /é HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00" * 1000,
        b"\xff" * 1000,
    ],
    ids=itertools.count(),
)
def test_what_is_no_http_is_refused(request_bytes: bytes, server: ServerProcess) -> None:
    answer = ask(server, request_bytes)

    assert_refused(answer, 400, "bad_request")


@pytest.mark.parametrize(
    "request_bytes",
    [
        head(b"GET /health", b"X: " + b"a" * 33_000 + b"\r\n"),
        head(b"GET /health", b"X: " + b"a" * 33_000)[:-2],
        head(b"GET /health", b"X: " + b"a" * 3_000_000),
        head(b"GET /health", *[b"X-%d: %s\r\n" % (n, b"a" * 1000) for n in range(40)]),
        head(b"GET /health", b"X: a\r\n" * 99),
        head(b"GET /health", b"X: a\r\n" * 100_000),
        head(b"GET /" + b"a" * 33_000),
        head(b"GET /?" + b"a" * 3_000_000),
        b"A" * 3_000_000,
        b"\r\n" * 1_000_000,
        head(b"POST /rerank", b"Transfer-Encoding: chunked\r\n") + b"5;" + b"a" * 3_000_000,
        head(b"POST /rerank", b"Transfer-Encoding: chunked\r\n") + b"0\r\nX: " + b"a" * 3_000_000,
        head(b"POST /rerank", b"Transfer-Encoding: chunked\r\n") + b"0\r\n" + b"X: a\r\n" * 10_000,
    ],
    ids=itertools.count(),
)
def test_giant_headers_are_refused(request_bytes: bytes, server: ServerProcess) -> None:
    memory = server.memory()

    answer = ask(
        server, *(request_bytes[at : at + 9999] for at in range(0, len(request_bytes), 9999))
    )

    if request_bytes.startswith(b"A"):
        assert_refused(answer, 400, "bad_request")
    else:
        assert_refused(answer, 431, "headers_too_large")
        assert b"32,768 bytes" in answer
    assert server.memory() - memory < 20 * 2**20


def test_headers_within_the_limits_pass(server: ServerProcess) -> None:
    many = ask(server, head(b"GET /health", LAST, b"X: a\r\n" * 97))
    large = ask(server, head(b"GET /health", LAST, b"X: " + b"a" * 32_000 + b"\r\n"))

    assert status_of(many) == status_of(large) == 200


@pytest.mark.parametrize("sent", [b"G", b"GET /health HTTP/1.1\r\nHos", head(b"GET /health")[:-1]])
def test_headers_that_stop_half_way_time_out(sent: bytes, server: ServerProcess) -> None:
    began = time.monotonic()

    answer = ask(server, sent)

    assert_refused(answer, 408, "request_timeout")
    assert time.monotonic() - began >= HEADER_SECONDS * 0.9


def test_headers_that_drip_time_out(server: ServerProcess) -> None:
    with server.connect() as raw:
        began = time.monotonic()
        answer = b""
        for byte in head(b"GET /health", b"X: " + b"a" * 1000):
            raw.settimeout(0.05)
            with contextlib.suppress(TimeoutError, ConnectionError):
                raw.sendall(bytes([byte]))
                answer = raw.recv(65536)
                break

    assert_refused(answer, 408, "request_timeout")
    assert time.monotonic() - began < HEADER_SECONDS + 10


def test_second_request_of_a_connection_has_a_deadline_too(server: ServerProcess) -> None:
    with server.connect() as raw:
        raw.sendall(head(b"GET /health"))
        first = raw.recv(65536)
        raw.sendall(b"GET /hea")
        second = rest_of(raw)

    assert status_of(first) == 200
    assert_refused(second, 408, "request_timeout")


@pytest.mark.parametrize("sent", [b"", b'{"query"'])
def test_body_that_stops_half_way_times_out(sent: bytes, server: ServerProcess) -> None:
    answer = ask(server, head(b"POST /rerank", b"Content-Length: 99\r\n"), sent)

    assert_refused(answer, 408, "request_timeout")


def test_body_of_an_unwanted_request_is_not_waited_for(server: ServerProcess) -> None:
    began = time.monotonic()

    answers = [
        ask(server, b"POST /rerank HTTP/1.1\r\nContent-Length: 99\r\n\r\n"),
        ask(server, head(b"POST /none", b"Content-Length: 99\r\n")),
        ask(server, head(b"PUT /rerank", b"Content-Length: 99\r\n")),
        ask(server, head(b"POST /rerank", b"Content-Length: 99999999\r\n")),
    ]

    assert [status_of(answer) for answer in answers] == [401, 404, 405, 413]
    assert all(b"connection: close" in answer for answer in answers)
    # The client sees the end at once, though the server listens a little longer.
    assert time.monotonic() - began < BODY_SECONDS


def test_answer_reaches_a_client_that_goes_on_sending(server: ServerProcess) -> None:
    answer = ask(
        server, head(b"POST /rerank", b"Content-Length: 90000000\r\n"), *[b" " * 2**20] * 90
    )

    assert status_of(answer) == 413


def test_too_large_body_is_refused_before_it_is_sent(server: ServerProcess) -> None:
    expecting = b"Expect: 100-continue\r\n"

    answer = ask(server, head(b"POST /rerank", b"Content-Length: 99999999\r\n", expecting))

    assert_refused(answer, 413, "too_large")


def test_client_without_a_token_is_refused_before_it_sends_its_body(
    server: ServerProcess,
) -> None:
    answer = ask(
        server, b"POST /rerank HTTP/1.1\r\nContent-Length: 99\r\nExpect: 100-continue\r\n\r\n"
    )

    assert_refused(answer, 401, "unauthorized")


def test_body_is_asked_for_when_it_is_wanted(server: ServerProcess) -> None:
    with server.connect() as raw:
        length = b"Content-Length: %d\r\n" % len(BODY)
        raw.sendall(head(b"POST /rerank", length, b"Expect: 100-continue\r\n", LAST))
        go_on = raw.recv(65536)
        raw.sendall(BODY)
        answer = rest_of(raw)

    assert go_on == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert status_of(answer) == 200


def test_chunks_of_one_byte_make_a_body(server: ServerProcess) -> None:
    chunks = b"".join(b"1;x=y\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n"

    answer = ask(server, head(b"POST /rerank", b"Transfer-Encoding: chunked\r\n", LAST) + chunks)

    assert status_of(answer) == 200


def test_trailer_is_no_header(server: ServerProcess) -> None:
    chunks = b"%x\r\n%s\r\n0\r\nAuthorization: Bearer s3cret\r\n\r\n" % (len(BODY), BODY)
    request = b"POST /rerank HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"

    answer = ask(server, request + chunks)

    assert status_of(answer) == 401


def test_requests_in_a_row_are_answered_in_their_order(server: ServerProcess) -> None:
    answer = ask(
        server,
        head(b"GET /health") + post() + head(b"GET /none") + post(b"{}") + post(BODY, LAST),
    )

    statuses = [line.split(b" ")[1] for line in answer.split(b"HTTP/1.1 ") if line]
    starts = [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert len(statuses) == 5
    assert starts == [200, 200, 404, 400, 200]


def test_flood_of_requests_in_a_row_is_cut_off(server: ServerProcess) -> None:
    answer = ask(server, post() * 1000)

    assert answer.count(b"HTTP/1.1 200") == 16


def test_nonsense_after_a_request_does_not_spoil_its_answer(server: ServerProcess) -> None:
    answer = ask(server, post() + b"\x00nonsense\r\n\r\n")

    assert answer.count(b"HTTP/1.1") == 1
    assert status_of(answer) == 200


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c", b"TLS/1.0"])
def test_wish_for_another_protocol_is_ignored(protocol: bytes, server: ServerProcess) -> None:
    wish = (
        b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
        b"Upgrade: " + protocol + b"\r\n"
    )
    answer = ask(server, post(BODY, wish)[:-5], post()[-5:], post(BODY, wish) + post(BODY, LAST))

    assert answer.count(b"HTTP/1.1 200") == 3


def test_http_1_0_gets_one_answer(server: ServerProcess) -> None:
    request = b"POST /rerank HTTP/1.0\r\n%sContent-Length: %d\r\n\r\n%s"

    answer = ask(server, request % (AUTHORIZED, len(BODY), BODY))

    assert status_of(answer) == 200
    assert b"transfer-encoding" not in answer


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET http://elsewhere.example.com/health", 200),
        (b"GET http://elsewhere.example.com:99/none", 404),
        (b"TRACE /health", 405),
        (b"OPTIONS *", 404),
        (b"OPTIONS /rerank", 405),
        (b"DELETE /rerank", 405),
        (b"GET /health?a=%ff", 200),
        (b"GET /%2e%2e/%2e%2e/etc/passwd", 404),
        (b"GET /..%2f..%2fetc/passwd", 404),
        (b"GET /%00", 404),
        (b"GET /%ff%fe", 404),
        (b"GET /" + b"a" * 20_000, 404),
        (b"GET //health", 404),
    ],
)
def test_odd_targets_are_answered(line: bytes, status: int, server: ServerProcess) -> None:
    answer = ask(server, head(line, LAST))

    assert status_of(answer) == status
    assert b"passwd" not in answer


def test_client_that_closes_its_side_takes_its_work_with_it(server: ServerProcess) -> None:
    gone = 'rerank_requests_total{code="499"}'
    before = server.figure(gone)

    with server.connect() as raw:
        raw.sendall(post()[:-5])
        raw.shutdown(socket.SHUT_WR)
        answer = rest_of(raw)

    wait_for(lambda: server.figure(gone) > before)
    assert answer == b""


def test_client_that_resets_is_forgotten(server: ServerProcess) -> None:
    for sent in (b"", b"GET /he", post()[:-5], post()):
        with server.connect() as raw:
            raw.sendall(sent)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    wait_for(lambda: connections(server) <= 1)


def latencies(server: ServerProcess, count: int = 50) -> list[float]:
    """Return the seconds that so many health probes took, each on a new connection."""
    found = []
    for line in (b"GET /health", b"GET /metrics") * (count // 2):
        began = time.monotonic()
        assert status_of(ask(server, head(line, LAST))) == 200
        found.append(time.monotonic() - began)
    return found


def assert_quick(taken: list[float]) -> None:
    # The worst ones are those of a machine that does other things, too.
    assert statistics.median(taken) < HEALTH_SECONDS
    assert sorted(taken)[len(taken) * 9 // 10] < HEALTH_SECONDS * 5


def test_idle_and_dripping_connections_change_nothing_for_others(server: ServerProcess) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(500):
            stack.enter_context(server.connect())
        dripping = [stack.enter_context(server.connect()) for _ in range(50)]
        for number, raw in enumerate(dripping):
            raw.sendall(head(b"POST /rerank", b"Content-Length: 99\r\n") if number % 2 else b"GE")

        taken = []
        for _ in range(5):
            for raw in dripping:
                with contextlib.suppress(ConnectionError):
                    raw.sendall(b"T")
            taken += latencies(server, 10)
        answer = server.client.post("/rerank", json=REQUEST)

    assert answer.status_code == 200
    assert_quick(taken)


def test_large_bodies_change_nothing_for_others(server: ServerProcess) -> None:
    tiny = json.dumps({"query": "q", "documents": ["d"] * 99_000}).encode()
    limit = 16 * 2**20
    long = json.dumps({"query": "q", "documents": ["d" * 10_000] * 1600}).encode()
    nested = b'{"query": "q", "documents": ' + b"[" * (limit - 100)
    values = b'{"query": "q", "documents": [' + b"[]," * (limit // 3 - 100) + b"1]}"
    huge = [
        head(b"POST /rerank", b"Transfer-Encoding: chunked\r\n"),
        *[b"100000\r\n" + b" " * 2**20 + b"\r\n"] * 100,
    ]
    memory = server.memory()

    with concurrent.futures.ThreadPoolExecutor(5) as threads:
        attacks = [
            threads.submit(ask, server, *request)
            for request in (
                [post(tiny, LAST)],
                [post(long, LAST)],
                [post(nested, LAST)],
                [post(values, LAST)],
                huge,
            )
        ]
        taken = latencies(server)
        answers = [attack.result() for attack in attacks]

    assert [status_of(answer) for answer in answers] == [413, 413, 400, 400, 413]
    assert_quick(taken)
    assert server.memory() - memory < 300 * 2**20


def test_more_connections_than_the_limit_cost_the_oldest_idle_one(server: ServerProcess) -> None:
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(server.connect()) for _ in range(MAX_CONNECTIONS + 100)]
        taken = latencies(server, 10)
        answer = server.client.post("/rerank", json=REQUEST)
        oldest, newest = held[0], held[-1]

        closed = oldest.recv(1)
        newest.sendall(head(b"GET /health"))
        served = newest.recv(65536)

    assert answer.status_code == 200
    assert closed == b""
    assert status_of(served) == 200
    assert_quick(taken)


def test_client_that_does_not_read_its_answer_holds_up_nobody(server: ServerProcess) -> None:
    large = json.dumps({"query": "q", "documents": ["moon " * 15_000] * 20}).encode()
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            raw = stack.enter_context(server.connect(receive_buffer=4096))
            raw.sendall(post(large))
        wait_for(lambda: server.figure("rerank_queue_depth") == 0)

        taken = latencies(server, 20)

    assert_quick(taken)


def test_flood_of_refusals_does_not_flood_the_log(server: ServerProcess) -> None:
    before = len(server.logged("refused a request"))

    for _ in range(300):
        server.client.get("/none")

    assert len(server.logged("refused a request")) - before < 200
    assert [record for record in server.log() if TOKEN in str(record)] == []

"""Who may send a request: tokens, rates, proxies, browsers; and the id that each one has."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from rerank_server import gate
from rerank_server.app import create_app
from rerank_server.gate import OPEN_PATHS, Rates
from rerank_server.metrics import Metrics
from rerank_server.pipeline import Pipeline
from rerank_server.settings import Settings
from standin_engine import StandInEngine

REQUEST = {"query": "bread", "documents": ["flour", "moon", "water"]}
PROXY = "10.0.0.1"


@pytest.fixture
def engine(tiny_model: Path) -> StandInEngine:
    return StandInEngine(tiny_model)


@contextlib.asynccontextmanager
async def client_of(
    engine: StandInEngine, peer: str = PROXY, **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client at the address `peer` of a server that is ready."""
    app, pipeline = build(**settings)
    await pipeline.start([engine])
    transport = httpx.ASGITransport(app, client=(peer, 1234))
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        yield client


def build(**settings: Any) -> tuple[FastAPI, Pipeline]:
    chosen = Settings.model_validate({"model": "tiny"} | settings)
    metrics = Metrics()
    pipeline = Pipeline(metrics, chosen)
    return create_app(pipeline, metrics, chosen), pipeline


def forwarded(value: str) -> dict[str, str]:
    return {"X-Forwarded-For": value}


@pytest.mark.parametrize(("ui", "unguarded"), [(False, OPEN_PATHS), (True, OPEN_PATHS | {"/ui"})])
def test_every_route_but_the_open_ones_asks_for_the_token(
    ui: bool, unguarded: frozenset[str]
) -> None:
    app, _ = build(api_token="s3cret", ui=ui)
    transport = httpx.ASGITransport(app)
    routes = {
        str(vars(route)["path"]): min(vars(route).get("methods") or {"GET"}) for route in app.routes
    }

    async def ask() -> dict[str, int]:
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return {
                path: (await client.request(method, path)).status_code
                for path, method in routes.items()
            }

    statuses = asyncio.run(ask())

    assert statuses.keys() >= unguarded
    assert {path for path, status in statuses.items() if status != 401} == unguarded


@pytest.mark.parametrize("path", ["/redoc", "/", "/none", "/health/", "//health", "/ui"])
async def test_path_that_does_not_exist_asks_for_the_token_first(
    path: str, engine: StandInEngine
) -> None:
    token = {"Authorization": "Bearer s3cret"}
    async with client_of(engine, api_token="s3cret") as client:
        without = await client.get(path)
        with_token = await client.get(path, headers=token, follow_redirects=False)

    assert without.status_code == 401
    assert with_token.status_code in {404, 307}


@pytest.mark.parametrize(
    "header",
    [
        b"Bearer s3cret",
        b"bearer s3cret",
        b"BEARER  s3cret ",
        b"Bearer other",
        "Bearer größe".encode(),
    ],
)
async def test_any_of_the_tokens_is_let_in(header: bytes, engine: StandInEngine) -> None:
    async with client_of(engine, api_token="s3cret\n other \n\ngröße\n") as client:
        response = await client.post("/rerank", json=REQUEST, headers=[(b"Authorization", header)])

    assert response.status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        None,
        b"",
        b"Bearer",
        b"Bearer ",
        b"Bearer None",
        b"Bearer s3cre",
        b"Bearer s3cret2",
        b"Bearer S3CRET",
        b"Basic s3cret",
        b"s3cret",
        b"Bearer s3cret, Bearer s3cret",
        b"Bearer \xff\xfe\x80",
        "Bearer ś3cret".encode(),
    ],
)
async def test_any_other_token_is_refused_in_the_form_of_every_error(
    header: bytes | None, engine: StandInEngine
) -> None:
    headers = [] if header is None else [(b"Authorization", header)]
    async with client_of(engine, api_token="s3cret") as client:
        response = await client.post("/rerank", json=REQUEST, headers=headers)

    error = response.json()
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert error["error_type"] == "unauthorized"
    assert error["error"] == error["message"] == error["detail"]
    assert "Authorization: Bearer" in error["error"]
    assert "s3cret" not in response.text


async def test_two_authorization_headers_are_refused(engine: StandInEngine) -> None:
    headers = [("Authorization", "Bearer wrong"), ("Authorization", "Bearer s3cret")]
    async with client_of(engine, api_token="s3cret") as client:
        response = await client.post("/rerank", json=REQUEST, headers=headers)

    assert response.status_code == 401


@pytest.mark.parametrize("header", ["Bearer ", "Bearer None", "Bearer sk-whatever", ""])
async def test_token_that_nobody_asks_for_is_no_mistake(header: str, engine: StandInEngine) -> None:
    async with client_of(engine) as client:
        response = await client.post("/rerank", json=REQUEST, headers={"Authorization": header})

    assert response.status_code == 200


async def test_token_is_checked_before_the_body_is_read(engine: StandInEngine) -> None:
    read = False

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        read = True
        yield b"{}"

    async with client_of(engine, api_token="s3cret") as client:
        response = await client.post("/rerank", content=body())

    assert response.status_code == 401
    assert not read


async def test_refusals_at_the_gate_are_counted(engine: StandInEngine) -> None:
    async with client_of(engine, api_token="s3cret") as client:
        await client.post("/rerank", json=REQUEST)
        await client.get("/none")
        metrics = (await client.get("/metrics")).text

    assert 'rerank_refused_requests_total{error_type="unauthorized"} 2.0' in metrics
    assert 'rerank_requests_total{code="401"} 1.0' in metrics


async def test_client_that_asks_too_often_is_told_when_to_come_back(
    engine: StandInEngine,
) -> None:
    async with client_of(engine, requests_per_minute_per_client=2) as client:
        statuses = [(await client.post("/rerank", json=REQUEST)).status_code for _ in range(2)]
        refused = await client.post("/rerank", json=REQUEST)
        health = [(await client.get(path)).status_code for path in sorted(OPEN_PATHS) * 3]

    assert statuses == [200, 200]
    assert refused.status_code == 429
    assert refused.json()["error_type"] == "rate_limited"
    assert 1 <= int(refused.headers["Retry-After"]) <= 30
    assert set(health) == {200}


async def test_each_client_has_a_rate_of_its_own(engine: StandInEngine) -> None:
    settings: dict[str, Any] = {
        "requests_per_minute_per_client": 1,
        "trusted_proxies": "10.0.0.0/8",
    }
    async with client_of(engine, **settings) as client:
        first = await client.post("/rerank", json=REQUEST, headers=forwarded("192.0.2.1"))
        other = await client.post("/rerank", json=REQUEST, headers=forwarded("192.0.2.2"))
        again = await client.post("/rerank", json=REQUEST, headers=forwarded("192.0.2.1"))

    assert [first.status_code, other.status_code, again.status_code] == [200, 200, 429]


@pytest.mark.parametrize(
    ("peer", "trusted", "first", "second", "same"),
    [
        # Nobody is trusted: the header says nothing.
        ("10.0.0.1", "", "192.0.2.1", "192.0.2.2", True),
        ("127.0.0.1", "", "192.0.2.1", "192.0.2.2", True),
        ("::1", "", "192.0.2.1", "192.0.2.2", True),
        # Nor does it from a peer that is not trusted.
        ("11.0.0.1", "10.0.0.0/8", "192.0.2.1", "192.0.2.2", True),
        # What stands left of the client's own address was written by the client.
        ("10.0.0.1", "10.0.0.0/8", "1.1.1.1, 192.0.2.1", "2.2.2.2, 192.0.2.1", True),
        ("10.0.0.1", "10.0.0.0/8", "10.0.0.7, 192.0.2.1", "10.0.0.8, 192.0.2.1", True),
        ("10.0.0.1", "10.0.0.0/8", "192.0.2.1", "192.0.2.2", False),
        # Proxies in a row.
        ("10.0.0.1", "10.0.0.0/8", "192.0.2.1, 10.0.0.2", "192.0.2.2, 10.0.0.2", False),
        ("10.0.0.1", "10.0.0.0/8", "192.0.2.1, 10.0.0.2", "192.0.2.1, 10.0.0.3", True),
        ("10.0.0.1", "10.0.0.1,10.0.0.2", "192.0.2.1, 10.0.0.3", "192.0.2.2, 10.0.0.3", True),
        # Ports and spaces, as some proxies write them.
        ("10.0.0.1", "10.0.0.0/8", "192.0.2.1:1111", "192.0.2.1:2222", True),
        ("10.0.0.1", "10.0.0.0/8", "192.0.2.1:1111", "192.0.2.2:1111", False),
        ("10.0.0.1", "10.0.0.0/8", "192.0.2.1", "  192.0.2.1  ", True),
        ("10.0.0.1", "10.0.0.0/8", "[2001:db8::1]:1111", "2001:db8::1", True),
        # IPv6: the network is the client.
        ("fd00::1", "fd00::/8", "2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("fd00::1", "fd00::/8", "2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("fd00::1", "fd00::/8", "2001:DB8:0:1::1", "2001:db8:0:1:0:0:0:1", True),
        # IPv4 as IPv6 writes it.
        ("::ffff:10.0.0.1", "10.0.0.0/8", "192.0.2.1", "192.0.2.2", False),
        ("10.0.0.1", "10.0.0.0/8", "::ffff:192.0.2.1", "192.0.2.1", True),
        ("10.0.0.1", "10.0.0.0/8", "192.0.2.1, ::ffff:10.0.0.2", "192.0.2.1", True),
        # Hidden and broken ones are all one.
        ("10.0.0.1", "10.0.0.0/8", "unknown", "_hidden", True),
        ("10.0.0.1", "10.0.0.0/8", "a" * 5000, "300.300.300.300", True),
        ("10.0.0.1", "10.0.0.0/8", "192.0.2.1, garbage", "192.0.2.2, [::1", True),
        ("10.0.0.1", "10.0.0.0/8", "\xff\x00é", ",,,,", False),
        ("10.0.0.1", "10.0.0.0/8", "", "10.0.0.1", True),
    ],
)
async def test_client_is_the_last_address_that_no_trusted_proxy_has(
    peer: str, trusted: str, first: str, second: str, same: bool, engine: StandInEngine
) -> None:
    settings: dict[str, Any] = {"requests_per_minute_per_client": 1, "trusted_proxies": trusted}
    async with client_of(engine, peer=peer, **settings) as client:
        statuses = [
            (
                await client.post(
                    "/rerank", json=REQUEST, headers=[(b"X-Forwarded-For", value.encode("latin-1"))]
                )
            ).status_code
            for value in (first, second)
        ]

    assert statuses == [200, 429 if same else 200]


async def test_two_headers_are_read_as_one_list(engine: StandInEngine) -> None:
    settings: dict[str, Any] = {
        "requests_per_minute_per_client": 1,
        "trusted_proxies": "10.0.0.0/8",
    }
    async with client_of(engine, **settings) as client:
        statuses = [
            (
                await client.post(
                    "/rerank",
                    json=REQUEST,
                    headers=[("X-Forwarded-For", forged), ("X-Forwarded-For", "192.0.2.1")],
                )
            ).status_code
            for forged in ("1.1.1.1", "2.2.2.2")
        ]

    assert statuses == [200, 429]


def test_bucket_fills_evenly() -> None:
    rates = Rates(per_minute=60)
    assert [rates.take("a", now=0) for _ in range(60)] == [0] * 60

    waits = [rates.take("a", now=now) for now in (0, 0.5, 1.0, 1.1)]

    assert waits == pytest.approx([1.0, 0.5, 0.0, 0.9])


def test_client_that_is_quiet_for_a_minute_is_forgotten() -> None:
    rates = Rates(per_minute=10)
    for number in range(100):
        rates.take(f"client {number}", now=number)

    rates.take("client 0", now=200)

    assert len(rates) == 1


def test_clients_without_number_cost_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "MAX_CLIENTS", 100)
    rates = Rates(per_minute=1)
    for number in range(1000):
        rates.take(f"client {number}", now=0)

    wait = rates.take("client 999", now=0)

    assert len(rates) == 100
    assert wait == pytest.approx(60)


async def test_browsers_are_not_let_in_unless_configured(engine: StandInEngine) -> None:
    origin = {"Origin": "https://app.example.com"}
    async with client_of(engine) as client:
        response = await client.post("/rerank", json=REQUEST, headers=origin)
        preflight = await client.options(
            "/rerank", headers=origin | {"Access-Control-Request-Method": "POST"}
        )

    found = [name for name in response.headers if name.startswith("access-control-")]
    assert found == []
    assert preflight.status_code == 405


CROSS_ORIGIN: dict[str, Any] = {
    "cors_origins": "https://app.example.com, https://b.example.com:8443",
    "api_token": "s3cret",
}


async def test_browser_asks_first_without_a_token(engine: StandInEngine) -> None:
    headers = {
        "Origin": "https://app.example.com",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type, x-request-timeout",
    }
    async with client_of(engine, **CROSS_ORIGIN) as client:
        preflight = await client.options("/rerank", headers=headers)

    assert preflight.status_code == 200
    assert preflight.headers["Access-Control-Allow-Origin"] == "https://app.example.com"
    assert "authorization" in preflight.headers["Access-Control-Allow-Headers"].lower()


@pytest.mark.parametrize(
    ("token", "path", "rate", "body", "status"),
    [
        ("s3cret", "/rerank", 9, REQUEST, 200),
        ("s3cret", "/rerank", 9, {"query": "q"}, 400),
        ("wrong", "/rerank", 9, REQUEST, 401),
        ("s3cret", "/none", 9, REQUEST, 404),
        ("s3cret", "/rerank", 1, REQUEST, 429),
    ],
)
async def test_browser_can_read_every_answer(
    token: str, path: str, rate: int, body: object, status: int, engine: StandInEngine
) -> None:
    headers = {"Origin": "https://b.example.com:8443", "Authorization": f"Bearer {token}"}
    settings = CROSS_ORIGIN | {"requests_per_minute_per_client": rate}
    async with client_of(engine, **settings) as client:
        if status == 429:
            await client.post(path, json=body, headers=headers)
        response = await client.post(path, json=body, headers=headers)

    assert response.status_code == status
    assert response.headers["Access-Control-Allow-Origin"] == "https://b.example.com:8443"
    assert "Retry-After" in response.headers["Access-Control-Expose-Headers"]


async def test_page_of_another_origin_gets_no_answer(engine: StandInEngine) -> None:
    async with client_of(engine, **CROSS_ORIGIN) as client:
        response = await client.get("/health", headers={"Origin": "https://evil.example.com"})

    assert "Access-Control-Allow-Origin" not in response.headers


async def test_bug_of_ours_is_answered_like_any_failure(
    engine: StandInEngine, caplog: pytest.LogCaptureFixture
) -> None:
    app, _ = build(cors_origins="*")

    @app.get("/bug")
    async def bug() -> None:
        raise RuntimeError("secret")

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        response = await client.get("/bug", headers={"Origin": "https://a.example.com"})

    assert response.status_code == 500
    assert response.json()["error_type"] == "internal_error"
    assert "secret" not in response.text
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert response.headers["X-Request-ID"]
    assert [record.levelname for record in caplog.records] == ["ERROR"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("3f2c-aa.B_1", True),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", True),
        ("a" * 128, True),
        ("a" * 129, False),
        ("", False),
        ("a b", False),
        ('a"b', False),
        ("<script>", False),
        ("é", False),
    ],
)
async def test_sane_request_id_comes_back(given: str, kept: bool, engine: StandInEngine) -> None:
    async with client_of(engine) as client:
        response = await client.get("/health", headers=[(b"X-Request-ID", given.encode("latin-1"))])

    [own] = response.headers.get_list("X-Request-ID")
    assert (own == given) is kept
    assert own


async def test_every_answer_has_an_id_of_its_own(engine: StandInEngine) -> None:
    async with client_of(engine, api_token="s3cret") as client:
        ids = {(await client.get("/health")).headers["X-Request-ID"] for _ in range(3)}
        ids.add((await client.get("/none")).headers["X-Request-ID"])

    assert len(ids) == 4


async def test_refusal_is_logged_with_its_reason_and_nothing_of_the_request(
    engine: StandInEngine, caplog: pytest.LogCaptureFixture
) -> None:
    body = {"query": "canary query", "documents": ["canary document"], "top_n": -1}
    headers = {"Authorization": "Bearer canary"}
    with caplog.at_level("DEBUG", "rerank_server"):
        async with client_of(engine) as client:
            await client.post("/rerank?canary=1", json=body, headers=headers)
        async with client_of(engine, api_token="canary token") as client:
            await client.post("/rerank", json=body, headers=headers)

    refused = [record for record in caplog.records if record.message == "refused a request"]
    assert [vars(record)["status"] for record in refused] == [400, 401]
    assert vars(refused[0])["reason"].startswith("top_n is not what it takes")
    assert vars(refused[0])["path"] == "/rerank"
    assert vars(refused[0])["client"] == PROXY
    assert not [record for record in caplog.records if "canary" in str(vars(record))]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"query": "a forbidden word"}, "query"),
        ({"instruction": "a forbidden word"}, "instruction"),
        ({"documents": ["fine", "a FORBIDDEN word"]}, "documents[1]"),
    ],
)
async def test_blocked_pattern_is_refused_by_the_name_of_its_field(
    change: dict[str, object], field: str, engine: StandInEngine
) -> None:
    async with client_of(engine, blocked_patterns=r"(?i)for[b]idden") as client:
        response = await client.post("/rerank", json=REQUEST | change)
        metrics = (await client.get("/metrics")).text

    assert response.status_code == 400
    assert response.json()["error_type"] == "blocked"
    assert response.json()["error"].startswith(f"{field} has something in it")
    assert "for" not in response.text.lower().replace("error", "")
    assert 'rerank_refused_requests_total{error_type="blocked"} 1.0' in metrics


async def test_request_without_a_blocked_pattern_passes(engine: StandInEngine) -> None:
    async with client_of(engine, blocked_patterns="forbidden\nflour{2,3}") as client:
        response = await client.post("/rerank", json=REQUEST)

    assert response.status_code == 200

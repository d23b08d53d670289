"""The page for people: there when asked for, open, and closed to everything from elsewhere."""

import base64
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from rerank_server.app import create_app
from rerank_server.metrics import Metrics
from rerank_server.pipeline import Pipeline
from rerank_server.settings import Settings

REQUEST = {"query": "bread", "documents": ["flour", "moon", "water"]}


@contextlib.asynccontextmanager
async def client_of(**settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of a server whose model is not there yet."""
    chosen = Settings.model_validate({"model": "tiny"} | settings)
    metrics = Metrics()
    transport = httpx.ASGITransport(create_app(Pipeline(metrics, chosen), metrics, chosen))
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        yield client


def policy(response: httpx.Response) -> dict[str, str]:
    directives = response.headers["Content-Security-Policy"].split("; ")
    return dict(directive.split(" ", 1) for directive in directives)


def source(page: str, tag: str) -> str:
    [content] = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


async def test_without_the_setting_there_is_no_page() -> None:
    async with client_of() as client:
        page = await client.get("/ui")
        unknown = await client.get("/none")

    assert page.status_code == unknown.status_code == 404
    assert page.json() == unknown.json()


async def test_page_may_run_its_own_script_and_style_and_no_other() -> None:
    async with client_of(ui=True) as client:
        response = await client.get("/ui")

    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert policy(response) == {
        "default-src": "'none'",
        "script-src": source(response.text, "script"),
        "style-src": source(response.text, "style"),
        "img-src": "data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
    }


async def test_page_names_nothing_elsewhere_and_no_path_from_the_root() -> None:
    async with client_of(ui=True) as client:
        page = (await client.get("/ui")).text

    assert not re.findall(r"""//[\w.-]|@import|url\(|\bsrc=|["'`]/""", page)
    assert re.findall(r'href="([^"]*)"', page) == ["data:,"]


async def test_page_is_no_part_of_the_description() -> None:
    async with client_of(ui=True) as client:
        document = (await client.get("/openapi.json")).json()

    assert "/ui" not in document["paths"]


async def test_page_is_not_counted_with_the_requests_of_a_client() -> None:
    async with client_of(ui=True, requests_per_minute_per_client=1) as client:
        pages = {(await client.get("/ui")).status_code for _ in range(3)}
        ranked = [(await client.post("/v1/rerank", json=REQUEST)).status_code for _ in range(2)]

    assert pages == {200}
    assert ranked == [503, 429]


@pytest.mark.parametrize("token", [None, "s3cret"])
async def test_page_asks_for_a_token_where_the_server_does(token: str | None) -> None:
    async with client_of(ui=True, api_token=token) as client:
        response = await client.get("/ui")

    assert response.status_code == 200
    assert ('<div id="access">' in response.text) is (token is not None)
    assert ('<div id="access" hidden>' in response.text) is (token is None)


@pytest.mark.parametrize("path", ["/ui/", "/ui/x", "//ui", "/UI", "/docs"])
async def test_nothing_beside_the_page_is_open(path: str) -> None:
    async with client_of(ui=True, api_token="s3cret") as client:
        response = await client.get(path)

    assert response.status_code == 401

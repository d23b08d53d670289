"""The page as people have it: a real browser, and a real server with a stand-in for vLLM."""

import contextlib
import re
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

import standin_server
from server_process import ROOT, ServerProcess, server_process, wait_for

QUERY = "Was ist das größte 東京? 🥖"
DOCUMENTS = [
    "🥖 Bread is made of flour, water, salt and yeast. 👩‍🚀",
    "פריז היא בירת צרפת. (Paris)",
    "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>",
    "باريس هي عاصمة فرنسا",
    'Ein Gänsefüßchen: "&quot;" und ein \\ am Ende\\',
]
PICTURES = ROOT / "build"


class Page:
    """What a person does with the page, and sees on it."""

    def __init__(self, browser: Chrome, url: str) -> None:
        self.browser = browser
        browser.get_log("browser")
        browser.get(url)

    def find(self, name: str) -> WebElement:
        return self.browser.find_element(By.ID, name)

    def text(self, name: str) -> str:
        return self.find(name).text

    def type(self, name: str, text: str) -> None:
        """Replace what is in a field; keys alone cannot bring emoji."""
        self.find(name).clear()
        self.find(name).click()
        self.browser.execute_cdp_cmd("Input.insertText", {"text": text})

    def rank(self) -> None:
        """Click, and wait for what comes of it."""
        self.browser.find_element(By.TAG_NAME, "button").click()
        self.wait_for_an_end()

    def wait_for_an_end(self) -> None:
        wait_for(lambda: " ms" in self.text("summary") or self.find("error").is_displayed())

    def results(self) -> list[tuple[float, int, str]]:
        """Return score, index and text of each."""
        found = []
        for item in self.browser.find_elements(By.CSS_SELECTOR, "#results li"):
            score, index, text = (
                item.find_element(By.CLASS_NAME, name).text for name in ("score", "index", "text")
            )
            found.append((float(score), int(index.removeprefix("index ")), text))
        return found

    def complaints(self) -> list[str]:
        """Return what the browser had to say of the page, refusals by the policy among it."""
        return [
            entry["message"]
            for entry in self.browser.get_log("browser")
            if entry["level"] in {"WARNING", "SEVERE"}
        ]


@pytest.fixture(scope="module")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    flags = ("--ui", "true", "--max-documents", "50")
    with server_process(tiny_model, tmp_path_factory.mktemp("server"), *flags) as running:
        yield running


@pytest.fixture
def page(browser: Chrome, server: ServerProcess) -> Page:
    return Page(browser, url(server))


def url(server: ServerProcess) -> str:
    return f"http://127.0.0.1:{server.port}/ui"


def ranked(server: ServerProcess, **request: Any) -> list[tuple[float, int, str]]:
    """Return what the API says, as the page would show it."""
    results = server.client.post("/v1/rerank", json=request).json()["results"]
    return [
        (round(result["relevance_score"], 4), result["index"], result["document"]["text"])
        for result in results
    ]


def test_example_is_ranked_at_one_click(page: Page) -> None:
    page.rank()

    assert len(page.results()) == 5
    assert re.fullmatch(r"5 of 5 documents in \d+ ms · \d+ tokens · none cut", page.text("summary"))
    assert page.browser.title == "Rerank: tiny-reranker"
    assert page.text("model") == "tiny-reranker"
    assert page.complaints() == []


def test_any_text_is_ranked_and_shown_as_it_is(page: Page, server: ServerProcess) -> None:
    page.type("query", QUERY)
    page.type("documents", "\n".join(DOCUMENTS))

    page.rank()

    assert page.results() == ranked(server, query=QUERY, documents=DOCUMENTS)
    assert page.browser.execute_script("return window.hacked") is None
    assert page.complaints() == []


def test_every_field_goes_into_the_request(page: Page, server: ServerProcess) -> None:
    documents = ["first\nof two lines", "second", "third\n of\nthree"]
    page.type("documents", "\n\n".join(documents) + "\n \n\n")
    page.find("paragraphs").click()
    page.type("query", "lines")
    page.type("instruction", "Find what has lines")
    page.type("top_n", "2")

    page.rank()

    assert page.text("count") == "3, with a blank line in between"
    assert page.results() == ranked(
        server,
        query="lines",
        documents=documents,
        instruction="Find what has lines",
        top_n=2,
    )
    assert page.text("summary").startswith("2 of 3 documents in ")


def test_documents_that_were_cut_are_counted(page: Page) -> None:
    page.type("documents", "short\n" + "word " * 900)

    page.rank()

    assert page.text("summary").endswith(" · 1 document cut to fit")


@pytest.mark.parametrize(
    ("field", "value", "status", "words"),
    [
        ("query", " ", "400 invalid_request", "query is "),
        ("top_n", "0", "400 invalid_request", "top_n is 0: "),
        ("top_n", "two", "400 invalid_request", 'top_n is "two": '),
        ("top_n", "Infinity", "400 invalid_request", 'top_n is "Infinity": '),
        ("documents", "a\n" * 51, "413 too_large", "51 documents, and the limit is 50: "),
    ],
)
def test_mistake_is_told_in_the_words_of_the_server(
    field: str, value: str, status: str, words: str, page: Page
) -> None:
    page.rank()
    page.type(field, value)

    page.rank()

    title, message = page.text("error").split("\n")
    assert title == status
    assert words in message
    assert page.results() == []
    assert page.text("summary") == ""


def test_keys_are_enough(page: Page, server: ServerProcess) -> None:
    before = server.figure('rerank_requests_total{code="200"}')
    keys = ActionChains(page.browser)

    reached = []
    for _ in range(6):
        keys.send_keys(Keys.TAB).perform()
        reached.append(page.browser.switch_to.active_element.accessible_name)
    keys.key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(Keys.CONTROL).perform()
    page.wait_for_an_end()

    assert reached == [
        "Query",
        "Documents",
        "Several lines each, with a blank line in between",
        "Instruction",
        "top_n",
        "Rank",
    ]
    assert len(page.results()) == 5
    assert server.figure('rerank_requests_total{code="200"}') == before + 1


def test_policy_lets_no_other_script_run(page: Page) -> None:
    page.browser.execute_script(
        "const script = document.createElement('script');"
        "try { script.text = 'window.hacked = 1'; document.body.append(script); } catch {}"
        "try { document.body.innerHTML = '<img src=x onerror=\"window.hacked = 1\">'; } catch {}"
    )

    assert page.browser.execute_script("return window.hacked") is None
    assert page.find("form").is_displayed()
    assert page.complaints()


def test_token_is_asked_for_and_kept_nowhere(
    browser: Chrome, tiny_model: Path, tmp_path: Path
) -> None:
    token = {"RERANK_API_TOKEN": "größe"}
    with server_process(tiny_model, tmp_path, "--ui", "true", environment=token) as server:
        page = Page(browser, url(server))
        page.type("token", "grösse")
        page.rank()
        refused = page.text("error")
        focused = browser.switch_to.active_element.accessible_name
        page.type("token", "größe")
        page.rank()
        results = page.results()
        stored = browser.execute_script(
            "return document.cookie + localStorage.length + sessionStorage.length"
        )
        browser.refresh()
        left = page.find("token").get_property("value")

    assert refused == (
        "401 unauthorized\n"
        "the token is missing or wrong: send the header Authorization: Bearer TOKEN"
    )
    assert focused == "Token"
    assert len(results) == 5
    assert stored == "00"
    assert left == ""


def test_field_for_a_token_appears_where_something_else_wants_one(
    browser: Chrome, server: ServerProcess
) -> None:
    login = httpx.Response(401, html="<h1>Sign in</h1>")
    with proxy(server, {"/v1/rerank": login}) as address:
        page = Page(browser, f"{address}/some/where/ui")
        before = page.find("token").is_displayed()

        page.rank()

    assert not before
    assert page.text("error") == "401 Unauthorized\n<h1>Sign in</h1>"
    assert page.find("token").is_displayed()


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        (httpx.Response(403, json={"message": "No key"}), "403 Forbidden\nNo key"),
        (httpx.Response(502, json="down"), '502 Bad Gateway\n"down"'),
    ],
    ids=["another-form", "no-object"],
)
def test_refusal_of_somebody_else_is_shown_as_far_as_it_is_known(
    answer: httpx.Response, shown: str, browser: Chrome, server: ServerProcess
) -> None:
    with proxy(server, {"/v1/rerank": answer}) as address:
        page = Page(browser, f"{address}/some/where/ui")

        page.rank()

    assert page.text("error") == shown


def test_page_works_behind_a_path(browser: Chrome, server: ServerProcess) -> None:
    with proxy(server) as address:
        page = Page(browser, f"{address}/some/where/ui")

        page.rank()

    assert len(page.results()) == 5
    assert page.text("model") == "tiny-reranker"


def test_answer_that_does_not_come_is_told(browser: Chrome, server: ServerProcess) -> None:
    with proxy(server) as address:
        page = Page(browser, f"{address}/some/where/ui")

    page.rank()

    assert page.text("error").startswith("No ranking came back\n")


def test_client_that_asks_too_often_sees_when_to_come_back(
    browser: Chrome, tiny_model: Path, tmp_path: Path
) -> None:
    flags = ("--ui", "true", "--requests-per-minute-per-client", "1")
    with server_process(tiny_model, tmp_path, *flags) as server:
        page = Page(browser, url(server))
        page.rank()
        first = len(page.results())
        page.rank()

        assert first == 5
        assert re.fullmatch(
            r"429 rate_limited\n"
            r"too many requests from one client: try again in \d+ s\n"
            r"Retry-After: \d+ s",
            page.text("error"),
        )


def test_model_that_loads_is_told_and_waited_for(
    browser: Chrome, tiny_model: Path, tmp_path: Path
) -> None:
    slow = {standin_server.LOAD_SECONDS: "10"}
    with server_process(
        tiny_model, tmp_path, "--ui", "true", environment=slow, ready=False
    ) as server:
        page = Page(browser, url(server))
        wait_for(lambda: page.text("model") != "")
        state = page.text("model")
        page.rank()
        refused = page.text("error")
        wait_for(lambda: page.text("model") == "tiny-reranker")
        page.rank()

        assert state == "the model is loading"
        assert refused == ("503 not_ready\nthe model is loading: try again later\nRetry-After: 5 s")
        assert len(page.results()) == 5


def test_request_takes_the_place_of_the_one_before(
    browser: Chrome, tiny_model: Path, tmp_path: Path
) -> None:
    slow = {standin_server.PAIRS_PER_SECOND: "50"}
    with server_process(tiny_model, tmp_path, "--ui", "true", environment=slow) as server:
        page = Page(browser, url(server))
        page.type("documents", "moon\n" * 400)
        page.browser.find_element(By.TAG_NAME, "button").click()
        wait_for(lambda: server.figure("rerank_queue_depth") > 0)
        page.type("documents", "flour")
        page.rank()

        assert [text for _, _, text in page.results()] == ["flour"]
        wait_for(lambda: server.figure('rerank_requests_total{code="499"}') == 1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (360, 1300)])
def test_page_fits_the_window(width: int, height: int, scheme: str, page: Page) -> None:
    window = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    wish = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", window)
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", wish)
    page.type("documents", "\n".join([*DOCUMENTS, "w" * 200]))

    page.rank()

    PICTURES.mkdir(exist_ok=True)
    page.browser.save_screenshot(str(PICTURES / f"ui-{scheme}-{width}.png"))
    wide = page.browser.execute_script("return document.documentElement.scrollWidth")
    ground = page.browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert wide <= width
    assert (sum(map(int, re.findall(r"\d+", ground))) > 3 * 128) is (scheme == "light")


@contextlib.contextmanager
def proxy(server: ServerProcess, answers: Mapping[str, httpx.Response] = {}) -> Iterator[str]:
    """Run a proxy that has the server at /some/where, and `answers` of its own for some paths."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.removeprefix("/some/where")
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if path == self.path:
                answer = httpx.Response(404)
            elif path in answers:
                answer = answers[path]
            else:
                answer = server.client.request(self.command, path, content=body)
            self.send_response(answer.status_code)
            for name in {"Content-Type", "Content-Length", "Content-Security-Policy"}:
                if name in answer.headers:
                    self.send_header(name, answer.headers[name])
            self.end_headers()
            self.wfile.write(answer.content)

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_port}"
        finally:
            listening.shutdown()
            thread.join()

"""How far downloads are, asked of their pods: what the API server knows does not tell."""

import asyncio
from collections.abc import Mapping, Sequence

import aiohttp

from rerank_operator.api import Manifest
from rerank_operator.names import HTTP_PORT, PROGRESS_PATH
from rerank_operator.observed import Progress

ASK_SECONDS = 2.0
# A longer one is no answer of ours.
MOST_BYTES = 1024


class Downloads:
    """`seen` is what pods have answered last, by their UIDs; those that did not are not in it."""

    def __init__(self, session: aiohttp.ClientSession, port: int = HTTP_PORT) -> None:
        self.seen: dict[str, Progress] = {}
        self._session = session
        self._port = port

    async def ask(self, pods: Sequence[Manifest]) -> None:
        """Ask these pods, all at once, and forget what others have answered."""
        answers = await asyncio.gather(*map(self._answer, pods))
        found = zip(pods, answers, strict=True)
        seen = {pod["metadata"]["uid"]: answer for pod, answer in found if answer is not None}
        self.seen.clear()
        self.seen.update(seen)

    async def _answer(self, pod: Manifest) -> Progress | None:
        """Return None where no way leads to the pod: nothing depends on it."""
        url = f"http://{_host(pod['status'])}:{self._port}{PROGRESS_PATH}"
        timeout = aiohttp.ClientTimeout(total=ASK_SECONDS)
        try:
            async with self._session.get(url, timeout=timeout, allow_redirects=False) as response:
                return Progress.model_validate_json(await response.content.read(MOST_BYTES))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return None


def _host(status: Mapping[str, str]) -> str:
    address = status["podIP"]
    return f"[{address}]" if ":" in address else address

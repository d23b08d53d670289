"""Load on a service, from a pod: so many clients at once, and what became of all they asked."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab.demo import CLIENT_IMAGE
from lab.load_client import CLIENTS, STATS
from lab.observe import eventually
from lab.target import Target

# A namespace for tests takes no pod as simple as this.
WHERE = "--namespace=default"


class Load:
    """The pod that asks."""

    def __init__(self, kube: Target, pod: str) -> None:
        self._kube = kube
        self._pod = pod

    def clients(self, number: int, pause_seconds: float = 0) -> None:
        """Have so many clients ask from now on, with a pause between two requests of each."""
        new = f"{CLIENTS}.new"
        self._exec("sh", "-c", f"echo {number} {pause_seconds} > {new}; mv {new} {CLIENTS}")

    def answers(self) -> int:
        """Return how many right answers there were so far."""
        return int(self._stats()["answers"])

    def end(self) -> dict[str, Any]:
        """Ask no more, wait for the last answers, and return all counts."""
        self.clients(0)
        eventually(self._quiet, "all requests are answered", 90)
        return self._stats()

    def _quiet(self) -> bool:
        found = self._stats()
        return not found["clients"] and not found["running"]

    def _stats(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._exec("cat", STATS))
        return found

    def _exec(self, *words: str) -> str:
        return self._kube.kubectl("exec", self._pod, WHERE, "--", *words)


@contextmanager
def load_on(kube: Target, name: str, url: str, documents: int) -> Iterator[Load]:
    """Have a pod that asks `url` to rank so many documents in each request; no client at first.

    `name` tells it from others.
    """
    pod = f"load-{name}"
    script = (Path(__file__).parent / "load_client.py").read_text()
    command = ["--command", "--", "python", "-c", script, url, str(documents)]
    image = [f"--image={CLIENT_IMAGE}", "--image-pull-policy=IfNotPresent"]
    kube.kubectl("run", pod, WHERE, "--restart=Never", *image, *command)
    try:
        kube.kubectl("wait", f"pod/{pod}", WHERE, "--for=condition=Ready", "--timeout=60s")
        found = Load(kube, pod)
        eventually(found._stats, "the pod counts")
        yield found
    finally:
        kube.kubectl("delete", "pod", pod, WHERE, "--grace-period=0", "--force")

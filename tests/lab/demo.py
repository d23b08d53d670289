"""`make demo`: from nothing to documents in order of relevance, on a real cluster."""

import json
import sys
import time
from typing import Any

from lab import target
from lab.errors import LabError
from lab.observe import eventually
from lab.report import say, step
from lab.settings import CHECKOUT
from lab.target import Target

SAMPLE = CHECKOUT / "manifests" / "samples" / "demo.yaml"
URL = "http://demo.default.svc/v1/rerank"
CLIENT_IMAGE = "python:3.12-slim"
READY_SECONDS = 600
ASK_SECONDS = 90

REQUEST = {
    "query": "program to take screenshots of the desktop",
    "documents": [
        "A window manager for the desktop that needs little memory.",
        "An object-relational database with transactions.",
        "A tool that captures screenshots of the desktop or of one window.",
        "A viewer for PDF documents.",
        "A cow that says what you tell it to.",
    ],
}

# Runs in a pod, with nothing but Python's standard library.
CLIENT = """
import sys, urllib.error, urllib.request
request = urllib.request.Request(
    sys.argv[1], sys.argv[2].encode(), {"Content-Type": "application/json"}
)
try:
    with urllib.request.urlopen(request, timeout=60) as response:
        print(response.read().decode())
except urllib.error.HTTPError as error:
    sys.exit(f"{error.code} {error.read().decode()}")
except OSError as error:
    sys.exit(f"with nothing: {error}")
"""


def main() -> int:
    """Run the demo, or with "down" take it away; 1 and a sentence where that cannot be done."""
    try:
        if sys.argv[1:] == ["down"]:
            target.take_down(SAMPLE)
            return 0
        cluster = target.prepare()
        with step("install the operator with Helm"):
            cluster.install()
        with step(f"apply {SAMPLE.relative_to(CHECKOUT)} and wait until it is Ready"):
            cluster.kubectl("apply", "-f", str(SAMPLE))
            # Of an earlier demo it may still be Ready, with the image of then.
            eventually(lambda: _image(cluster) == cluster.server_image, "the image is this one's")
            wait_ready(cluster, "demo", "default")
        with step(f"ask {URL} from a pod"):
            answer = ask(cluster, URL, REQUEST)
        _print(answer)
        _print_next(cluster)
    except LabError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


def wait_ready(cluster: Target, name: str, namespace: str, seconds: float = READY_SECONDS) -> None:
    """Wait for the Ready condition, and print what the object says of itself meanwhile.

    Raises:
        LabError: it was not Ready in time; the message holds its last condition and the end of
            the pods' log.
    """
    deadline = time.monotonic() + seconds
    said, since = "", 0.0
    while time.monotonic() < deadline:
        found = cluster.get("rerankerservice", name, f"--namespace={namespace}")
        conditions = found.get("status", {}).get("conditions", [])
        ready = next((c for c in conditions if c["type"] == "Ready"), None)
        generation = found["metadata"]["generation"]
        if ready and ready["status"] == "True" and ready["observedGeneration"] == generation:
            return
        text = f"  {ready['reason']}: {ready['message']}" if ready else "  not seen by the operator"
        if text != said or time.monotonic() - since > 15:
            say(text)
            said, since = text, time.monotonic()
        time.sleep(1)
    pods = cluster.kubectl("get", "pods", f"--namespace={namespace}", "-o", "wide")
    logs = cluster.kubectl(
        "logs", f"deployment/{name}", f"--namespace={namespace}", "--tail=20", "--ignore-errors"
    )
    raise LabError(f"{name} is not Ready after {seconds:.0f} s: {said}\n{pods}\n{logs}")


def ask(cluster: Target, url: str, request: dict[str, Any], namespace: str = "default") -> Any:
    """POST `request` to `url` from a pod of its own and return the parsed answer.

    Raises:
        LabError: no answer in time, or one that is not 200; with status and body of that.
    """
    pod = "rerank-client"
    cluster.kubectl("delete", "pod", pod, f"--namespace={namespace}", "--ignore-not-found")
    try:
        cluster.kubectl(
            "run",
            pod,
            f"--namespace={namespace}",
            f"--image={CLIENT_IMAGE}",
            "--image-pull-policy=IfNotPresent",
            "--restart=Never",
            "--command",
            "--",
            "python",
            "-c",
            CLIENT,
            url,
            json.dumps(request),
        )
        deadline = time.monotonic() + ASK_SECONDS
        while (found := cluster.get("pod", pod, f"--namespace={namespace}"))["status"].get(
            "phase"
        ) not in ("Succeeded", "Failed"):
            if time.monotonic() > deadline:
                raise LabError(f"no answer from {url} in {ASK_SECONDS} s: {found['status']}")
            time.sleep(0.5)
        said = cluster.kubectl("logs", pod, f"--namespace={namespace}")
        if found["status"]["phase"] == "Failed":
            raise LabError(f"{url} answered {said}")
        return json.loads(said)
    finally:
        cluster.kubectl("delete", "pod", pod, f"--namespace={namespace}", "--wait=false")


def _image(cluster: Target) -> str:
    deployment = cluster.get("deployment", "demo", "--namespace=default")
    image: str = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    return image


def _print(answer: Any) -> None:
    print(f"\n  {REQUEST['query']}\n\n  {'place':<6} {'score':>6}  document")
    for place, result in enumerate(answer["results"], 1):
        print(f"  {place:<6} {result['relevance_score']:6.3f}  {result['document']['text']}")


def _print_next(cluster: Target) -> None:
    print(f"""
  The cluster stays up. Try next:
    export KUBECONFIG={cluster.kubeconfig}
    alias kubectl={cluster.kubectl_binary}
    kubectl get rerankerservices                     # short: rrs
    kubectl explain rerankerservice.spec --recursive
    kubectl scale rrs/demo --replicas=2 && kubectl get pods --watch
    kubectl port-forward svc/demo 8080:80            # then open http://localhost:8080/ui
    make demo-down                                   # ends the cluster, leaves nothing behind
""")


if __name__ == "__main__":
    sys.exit(main())

"""Asks for rankings over and over, and counts what comes back. Runs in a pod, as `python -c`.

Arguments: URL, and the number of documents of a request. The file CLIENTS says how many ask at
once, and how many seconds each waits between two requests. Each request has a connection of its
own, as those of many clients would. STATS is kept up to date.
"""

import json
import os
import sys
import threading
import time
import urllib.error
import urllib.request

CLIENTS = "/tmp/clients"
STATS = "/tmp/stats"
MOST_CLIENTS = 32
TIMEOUT_SECONDS = 60
# So many different requests; each has one right answer, whichever pod gives it, but for what the
# company in a batch does to a float32.
VARIANTS = 7
TOLERANCE = 1e-3


class Count:
    """What became of all requests so far."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.clients = 0
        self.pause_seconds = 0.0
        self.running = 0
        self.answers = 0
        self.refused = 0
        self.faults: list[str] = []
        self.right: dict[int, dict[int, float]] = {}

    def ask(self, url: str, documents: int, variant: int) -> None:
        """Ask once, and note the outcome; a request that is refused is not asked again."""
        body = {
            "query": f"question {variant}",
            "documents": [f"document {variant} {number}" for number in range(documents)],
        }
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
                results = json.load(response)["results"]
            scores = {result["index"]: result["relevance_score"] for result in results}
            in_order = sorted(scores.values(), reverse=True) == list(scores.values())
        except urllib.error.HTTPError as error:
            if error.code == 429:
                self.refused += 1
                time.sleep(0.2)
                return
            self.faults.append(f"{time.time():.1f}: {error.code} {error.read().decode()}")
        except Exception as error:
            self.faults.append(f"{time.time():.1f}: {error!r}")
        else:
            right = self.right.setdefault(variant, scores)
            if in_order and len(results) == len(scores) == documents and alike(scores, right):
                self.answers += 1
            else:
                self.faults.append(f"{time.time():.1f}: a wrong answer: {results}")


def alike(scores: dict[int, float], right: dict[int, float]) -> bool:
    """Tell whether the same documents have the same scores."""
    return scores.keys() == right.keys() and all(
        abs(score - right[index]) <= TOLERANCE for index, score in scores.items()
    )


def work(count: Count, place: int) -> None:
    """Ask for as long as there should be more than `place` clients."""
    variant = place
    while True:
        with count.lock:
            active = place < count.clients
            count.running += active
        if not active:
            time.sleep(0.05)
            continue
        variant += 1
        count.ask(sys.argv[1], int(sys.argv[2]), variant % VARIANTS)
        with count.lock:
            count.running -= 1
        time.sleep(count.pause_seconds)


def main() -> None:
    """Follow CLIENTS until the pod ends."""
    count = Count()
    for place in range(MOST_CLIENTS):
        threading.Thread(target=work, args=(count, place), daemon=True).start()
    while True:
        if os.path.exists(CLIENTS):
            with open(CLIENTS) as file:
                clients, pause_seconds = file.read().split()
            with count.lock:
                count.clients, count.pause_seconds = int(clients), float(pause_seconds)
        parts = ("clients", "running", "answers", "refused", "faults")
        with open(STATS + ".new", "w") as file:
            json.dump({part: getattr(count, part) for part in parts}, file)
        os.replace(STATS + ".new", STATS)
        time.sleep(0.1)


if __name__ == "__main__":
    main()

"""Our server, with a window before the engine that can be changed while it runs.

The first argument is a file, the others are the flags of rerank-server. Until the file is there,
the loaded engine is not measured: whatever else starts then would show in the window. On SIGUSR1
the window becomes as many times a small request as the file says.
"""

import json
import signal
import sys
import time
from pathlib import Path

from rerank_server import pipeline
from rerank_server.__main__ import run
from rerank_server.engines import Engine, load_engines
from rerank_server.scheduling import Window
from rerank_server.settings import Settings

windows: list[Window] = []


class KnownWindow(Window):
    """Can be found by the signal handler."""

    def __init__(self, tokens: int) -> None:
        super().__init__(tokens)
        windows.append(self)


def main(file: Path) -> int:
    """Serve; returns the exit code."""
    measured: list[int] = []

    def change(*_: object) -> None:
        [window] = windows
        measured.append(window.tokens)
        least, most = pipeline.WINDOW_TOKENS
        times = float(file.read_text())
        tokens = round(measured[0] * times / pipeline.WINDOW_SMALL_TIMES)
        window.tokens = max(least, min(most, tokens))
        print(json.dumps({"times": times, "window_tokens": window.tokens}), flush=True)

    def load(settings: Settings) -> list[Engine]:
        engines = load_engines(settings)
        while not file.exists():
            time.sleep(0.1)
        return engines

    vars(pipeline)["Window"] = KnownWindow
    signal.signal(signal.SIGUSR1, change)
    return run(sys.argv[2:], load)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

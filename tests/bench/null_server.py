"""Our server with a stand-in for vLLM that takes no time: `python -m bench.null_server MODEL`."""

import asyncio
import sys
from pathlib import Path

from rerank_server.__main__ import serve
from rerank_server.logs import set_up_logging
from rerank_server.settings import Settings
from standin_engine import StandInEngine


def main() -> None:
    """Serve until a signal ends it."""
    model, _, port = sys.argv[1:]
    set_up_logging("WARNING")
    settings = Settings(model=model, port=int(port))
    sys.exit(asyncio.run(serve(settings, lambda _: StandInEngine(Path(model)))))


if __name__ == "__main__":
    main()

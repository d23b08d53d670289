"""Read settings, load the engines, run uvicorn."""

import asyncio
import contextlib
import logging
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import uvicorn
import uvloop

from rerank_server import __version__
from rerank_server.app import create_app
from rerank_server.connection import limited
from rerank_server.engines import Engine, load_engines
from rerank_server.errors import EngineFailed, ModelUnusable
from rerank_server.listening import listen
from rerank_server.logs import leave_last_words, set_up_logging, speak_utf8
from rerank_server.metrics import Metrics
from rerank_server.pipeline import Pipeline
from rerank_server.settings import Settings, read_settings

log = logging.getLogger(__name__)

Load = Callable[[Settings], Sequence[Engine]]

PROGRESS_SECONDS = 10
# Open files beside the connections: libraries, logs, vLLM's own sockets.
OTHER_FILES = 1024


class Server(uvicorn.Server):
    """uvicorn, with signals left to us: its own handlers end the process with 143, not 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Change nothing."""
        yield


def main() -> None:
    """Run the server until a signal ends it, or until the model turns out unusable."""
    sys.exit(run(sys.argv[1:], load_engines))


def run(arguments: Sequence[str], load: Load) -> int:
    """Serve with the engines that `load` returns, and return the exit code.

    Raises:
        SystemExit: the settings are wrong; stderr says how.
    """
    speak_utf8()
    settings = read_settings(arguments)
    try:
        set_up_logging(settings.log_level, settings.log_dir)
    except OSError as error:
        print(
            f"rerank-server: RERANK_LOG_DIR (--log-dir) is {str(settings.log_dir)!r}, and no log "
            f"can be written there ({error.strerror}): give a directory that this user may "
            "write to, or unset it",
            file=sys.stderr,
        )
        return 2
    allow_files(settings.max_connections + OTHER_FILES)

    def load_and_log(settings: Settings) -> Sequence[Engine]:
        try:
            return load(settings)
        finally:
            # vLLM has put its own set-up in place of ours.
            set_up_logging(settings.log_level, settings.log_dir)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve(settings, load_and_log))


def allow_files(wanted: int) -> None:
    """Raise the number of files that this process may have open, if the system lets it.

    systemd and container runtimes start processes with 1,024, and a hard limit far above.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Unlimited is -1.
    most = wanted if hard < 0 else min(wanted, hard)
    if 0 <= soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < wanted:
        log.warning(
            "fewer files may be open than RERANK_MAX_CONNECTIONS needs: raise the limit (ulimit "
            "-Hn) or lower the setting",
            extra={"limit": most, "needed": wanted},
        )


async def serve(settings: Settings, load: Load) -> int:
    """Serve until SIGTERM or SIGINT and return the exit code.

    The port opens at once, so that probes get an answer while `load` works in a thread.
    """
    try:
        listener = listen(settings.host, settings.port)
    except OSError as error:
        log.error(
            f"nothing can listen on {settings.host} port {settings.port}: {error}: end what does, "
            "or give another RERANK_HOST or RERANK_PORT"
        )
        return 1
    metrics = Metrics()
    pipeline = Pipeline(metrics, settings)
    server = Server(
        uvicorn.Config(
            create_app(pipeline, metrics, settings),
            http=limited(settings, metrics),
            # A WebSocket has none of these limits, and nobody asks for one.
            ws="none",
            timeout_keep_alive=settings.keep_alive_seconds,
            # Its default believes what 127.0.0.1 says of clients; the gate knows whom to believe.
            proxy_headers=False,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=settings.drain_seconds,
        )
    )

    def end() -> None:
        server.should_exit = True

    def drain() -> None:
        log.info("draining", extra={"longest_seconds": settings.drain_seconds})
        pipeline.drain()
        end()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, drain)
    log.info(
        "starting",
        extra={"version": __version__, "host": settings.host, "port": settings.port},
    )
    starting = asyncio.create_task(_start(pipeline, settings, load))
    # A model that cannot be loaded ends the process.
    starting.add_done_callback(lambda task: end() if _failed(task) else None)
    try:
        await server.serve([listener])
        return 1 if starting.done() and _failed(starting) else 0
    finally:
        starting.cancel()
        pipeline.close()
        log.info("stopped")


def _failed(task: "asyncio.Task[None]") -> bool:
    return not task.cancelled() and task.exception() is not None


async def _start(pipeline: Pipeline, settings: Settings, load: Load) -> None:
    started = time.monotonic()
    loading = _in_thread(lambda: load(settings))
    try:
        while not (await asyncio.wait({loading}, timeout=PROGRESS_SECONDS))[0]:
            seconds = round(time.monotonic() - started)
            log.info("loading the model", extra={"model": settings.name, "seconds": seconds})
        await pipeline.start(loading.result())
    except ModelUnusable as error:
        log.error(str(error))
        leave_last_words(str(error))
        raise
    except EngineFailed:
        # Seen where a virtual machine offers AMX instructions that it then refuses.
        text = (
            "the engine broke on its first prompts: the lines above say why; on a CPU, set "
            "RERANK_DTYPE to float32"
        )
        log.exception(text)
        leave_last_words(text)
        raise
    except Exception:
        log.exception("loading the model failed")
        raise
    seconds = round(time.monotonic() - started)
    log.info("ready", extra={"model": settings.name, "seconds": seconds})


def _in_thread(load: Callable[[], Sequence[Engine]]) -> "asyncio.Future[Sequence[Engine]]":
    """Run `load` in a thread that does not keep the process from ending half-way."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Sequence[Engine]] = loop.create_future()

    def settle(engines: Sequence[Engine] | None, error: Exception | None) -> None:
        if future.cancelled():
            return
        if engines is not None:
            future.set_result(engines)
        elif error is not None:
            future.set_exception(error)

    def report(engines: Sequence[Engine] | None, error: Exception | None) -> None:
        # A closed loop means that the process is ending: nobody waits for the model.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, engines, error)

    def run() -> None:
        try:
            engines = load()
        except Exception as error:
            report(None, error)
        else:
            report(engines, None)

    threading.Thread(target=run, name="load", daemon=True).start()
    return future


if __name__ == "__main__":
    main()

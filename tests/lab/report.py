"""What the lab is doing, and how long each step took."""

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lab.errors import LabError

STARTED = time.monotonic()


def say(text: str) -> None:
    """Print a line with the seconds since the start."""
    print(f"{time.monotonic() - STARTED:7.1f} s  {text}", flush=True)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Announce `what`; say how long it took when it is done or has failed."""
    begin = time.monotonic()
    say(f"{what} ...")
    try:
        yield
    except BaseException:
        say(f"{what}: failed after {time.monotonic() - begin:.1f} s")
        raise
    say(f"{what}: {time.monotonic() - begin:.1f} s")


def tail(log: Path, lines: int = 20) -> str:
    """Return the end of a log file, indented."""
    if not log.exists():
        return f"    ({log} does not exist)"
    text = log.read_text(errors="replace").splitlines()[-lines:]
    return "\n".join(f"    {line}" for line in text) or f"    ({log} is empty)"


def run(
    command: Sequence[str | Path],
    *,
    log: Path | None = None,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
) -> str:
    """Run a command and return what it printed; with `log`, write that there instead.

    Raises:
        LabError: it failed; the message names the command and shows the end of its output.
    """
    words = [str(word) for word in command]
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as file:
            code = subprocess.run(
                words, stdout=file, stderr=subprocess.STDOUT, env=env, cwd=cwd, check=False
            ).returncode
        if code:
            raise LabError(f"{' '.join(words[:3])} failed ({code}); the end of {log}:\n{tail(log)}")
        return ""
    done = subprocess.run(
        words, capture_output=True, text=True, env=env, cwd=cwd, input=stdin, check=False
    )
    if done.returncode:
        raise LabError(f"{' '.join(words)} failed ({done.returncode}): {done.stderr.strip()}")
    return done.stdout

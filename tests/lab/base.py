"""A base image with Python 3.12, made on this machine where none can be pulled."""

import contextlib
import shutil
import sys
import threading
from pathlib import Path

from lab.errors import LabError
from lab.images import PYTHON, buildah
from lab.report import run, say, step
from lab.settings import CACHE, LOG, SOURCE

# What CPython's standard library links to, and what the official image has beside it.
PACKAGES = (
    "ca-certificates,netbase,tzdata,libssl3,libffi8,libsqlite3-0,libbz2-1.0,liblzma5,"
    "libreadline8,zlib1g,libncursesw6,libuuid1,libexpat1,libgdbm6"
)


def ensure() -> None:
    """Have `python:3.12-slim` in the store: pulled, or where no registry answers, made here.

    Raises:
        LabError: there is no registry, and no Python 3.12 on this machine to make it from.
    """
    with _MAKING:
        if not buildah("images", "--quiet", "--filter", f"reference={PYTHON}").strip():
            _get()


# Two threads want it at once: one starts the cluster, the other builds images.
_MAKING = threading.Lock()


def _get() -> None:
    with contextlib.suppress(LabError), step(f"pull {PYTHON}"):
        buildah("pull", "--quiet", PYTHON)
        return
    say("no container registry answers: a base of that name is made here")
    python = _python312()
    layer = CACHE / "tmp" / "python-base.tar"
    layer.parent.mkdir(parents=True, exist_ok=True)
    with step(f"make {PYTHON} from Debian's packages and {python}"):
        run(
            [
                "mmdebstrap",
                "--variant=minbase",
                '--aptopt=APT::Install-Recommends "false"',
                *(f"--dpkgopt=path-exclude=/usr/share/{x}/*" for x in ("man", "locale", "doc")),
                f"--include={PACKAGES}",
                f'--customize-hook={SOURCE}/images/python.sh {python} "$1"',
                "bookworm",
                layer,
            ],
            log=LOG / "python-base.log",
        )
        container = buildah("from", "scratch").strip()
        buildah("add", "--quiet", container, layer, "/")
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        environment = [f"--env=PATH={path}", "--env=LANG=C.UTF-8"]
        buildah("config", *environment, "--cmd=python3", container)
        buildah("commit", "--rm", "--quiet", container, PYTHON)
        layer.unlink()


def _python312() -> Path:
    """The prefix of a CPython 3.12 on this machine: on PATH, or beside the one that runs this."""
    siblings = sorted(Path(sys.base_prefix).parent.glob("3.12.*"))
    candidates = [p for p in siblings if (p / "bin/python3.12").exists()]
    if not candidates and (found := shutil.which("python3.12")):
        with contextlib.suppress(LabError):
            code = "import sys; print(sys.base_prefix)"
            candidates.append(Path(run([found, "-c", code]).strip()))
    if not candidates:
        raise LabError(
            f"{PYTHON} cannot be pulled and there is no Python 3.12 here to make it from: "
            "install Python 3.12 (with pyenv, say), or let buildah reach a container registry"
        )
    return candidates[-1]

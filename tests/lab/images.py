"""Images: built with buildah from the repository's Dockerfiles, and loaded into the node."""

import configparser
import contextlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.node import enter
from lab.report import run, step, tail
from lab.settings import CACHE, CONTAINERD, CONTAINERD_SOCKET, LOG, SOURCE

PYTHON = "docker.io/library/python:3.12-slim"
# Beside the node's store, so that both are kept, or deleted, together.
LAYOUT = CONTAINERD / "layout"
# Shared with the virtual environments of this user: what one has downloaded the other need not.
UV_CACHE = Path(os.environ.get("UV_CACHE_DIR") or CACHE.parent / "uv")
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True)
class Image:
    """One image to run in the node: its name without tag, and what it is built from."""

    name: str
    recipe: Path
    context: Path
    arguments: tuple[str, ...] = ()


def of_tool(binary: Path) -> Image:
    """Return the image, named after it, that holds one static binary and nothing else."""
    recipe = SOURCE / "images" / "tool.Dockerfile"
    return Image(f"localhost/{binary.name}", recipe, binary.parent, (f"BINARY={binary.name}",))


def buildah(*words: str | Path, log: Path | None = None) -> str:
    """Run buildah on a store of the lab's own.

    In a mount namespace of its own: whatever ends a build, its mounts go with it.
    """
    store = [f"--root={CACHE}/buildah", f"--runroot={CACHE}/buildah-run"]
    command = ["unshare", "--mount", "buildah", *store, "--storage-driver=overlay"]
    return run([*command, *words], log=log)


def build(image: Image) -> str:
    """Build `image` and return its name with a tag made from its content.

    A changed image has another name, so a Deployment that names it rolls, and a node that has it
    need not pull.
    """
    (CACHE / "tmp").mkdir(parents=True, exist_ok=True)
    iid = CACHE / "tmp" / f"{image.name.replace('/', '_')}.iid"
    buildah(
        "build",
        "--layers",
        "--isolation=oci",
        "--runtime=runc",
        "--network=host",
        "--format=oci",
        # The same content gives the same image, whenever it was built.
        "--timestamp=0",
        *(f"--volume={volume}" for volume in _machine_files()),
        *(f"--build-arg={argument}" for argument in image.arguments),
        f"--iidfile={iid}",
        f"--file={image.recipe}",
        image.context,
        log=LOG / f"build-{image.name.rsplit('/', 1)[-1]}.log",
    )
    digest = iid.read_text().removeprefix("sha256:")
    name = f"{image.name}:{digest[:12]}"
    buildah("tag", digest, name)
    for old in _others(name, buildah("images", "--format={{.Name}}:{{.Tag}}").split()):
        buildah("rmi", "--force", old)
    return name


def _others(name: str, names: Iterable[str]) -> list[str]:
    """Return those of `names` that are earlier builds of `name`."""
    repository = name.rpartition(":")[0]
    return [other for other in names if other.rpartition(":")[0] == repository and other != name]


def _machine_files() -> list[str]:
    """What a build here needs to reach package indexes: mounted for the build, and in no image."""
    settings: dict[str, str] = {"cert": str(CA_BUNDLE)} if CA_BUNDLE.exists() else {}
    files = configparser.ConfigParser(interpolation=None)
    files.read(
        ["/etc/pip.conf", Path.home() / ".pip/pip.conf", Path.home() / ".config/pip/pip.conf"]
    )
    for key in ("index-url", "extra-index-url", "trusted-host"):
        value = os.environ.get("PIP_" + key.upper().replace("-", "_"))
        if value := value or files.get("global", key, fallback=None):
            settings[key] = value
    folder = CACHE / "build-settings"
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["[global]", *(f"{key} = {value}" for key, value in settings.items())]
    (folder / "pip.conf").write_text("\n".join(lines) + "\n")
    uv = [f'{key} = "{settings[key]}"' for key in ("index-url",) if key in settings]
    (folder / "uv.toml").write_text("\n".join(["[pip]", *uv]) + "\n")
    UV_CACHE.mkdir(parents=True, exist_ok=True)
    mounts = [
        f"{folder}/pip.conf:/etc/pip.conf:ro",
        f"{folder}/uv.toml:/etc/uv/uv.toml:ro",
        f"{UV_CACHE}:/var/cache/uv",
    ]
    if CA_BUNDLE.exists():
        mounts.append(f"{CA_BUNDLE}:{CA_BUNDLE}:ro")
    return mounts


def load(name: str) -> None:
    """Bring an image from buildah's store into the node's, layer by layer: only what it lacks."""
    there = _in_node("images", "ls", "-q").split()
    if name in there:
        return
    with step(f"load {name} into the node"):
        present = set(_in_node("content", "ls", "-q").split())
        wanted = _export(name, present)
        index = json.loads((LAYOUT / "index.json").read_text())
        (entry,) = (m for m in index["manifests"] if m["digest"] == wanted[0])
        entry["annotations"] = {"io.containerd.image.name": name}
        index["manifests"] = [entry]
        _import(index, [digest for digest in wanted if digest not in present])
        # The node holds these now. Left behind as holes of the same size they tell the next
        # export that they need not be written again, and take no space.
        for digest in wanted[1:]:
            size = _blob(digest).stat().st_size
            os.truncate(_blob(digest), 0)
            os.truncate(_blob(digest), size)
        if old := _others(name, there):
            _in_node("images", "rm", *old)


def _export(name: str, present: set[str]) -> list[str]:
    """Write an image to LAYOUT, uncompressed; return its digests, that of the manifest first."""
    blobs = LAYOUT / "blobs/sha256"
    for hole in blobs.glob("*") if blobs.exists() else ():
        if f"sha256:{hole.name}" not in present:
            hole.unlink()
    # buildah's own push would compress for a minute; skopeo also leaves out what is there.
    store = f"overlay@{CACHE}/buildah+{CACHE}/buildah-run"
    run(
        [
            "unshare",
            "--mount",
            "skopeo",
            "copy",
            "--quiet",
            "--dest-oci-accept-uncompressed-layers",
            f"containers-storage:[{store}]{name}",
            f"oci:{LAYOUT}:{name}",
        ]
    )
    index = json.loads((LAYOUT / "index.json").read_text())
    (manifest,) = (
        entry["digest"]
        for entry in index["manifests"]
        if entry["annotations"]["org.opencontainers.image.ref.name"] == name
    )
    content = json.loads(_blob(manifest).read_text())
    parts = [content["config"]["digest"], *(layer["digest"] for layer in content["layers"])]
    return [manifest, *dict.fromkeys(parts)]


def _import(index: dict[str, object], digests: list[str]) -> None:
    """Stream `digests` and their index to containerd, which unpacks the image."""
    log = LOG / "image-import.log"
    with log.open("w") as output:
        importer = subprocess.Popen(
            enter([*CTR, "images", "import", "-"]),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        with (
            contextlib.suppress(BrokenPipeError),  # the importer's own words tell why
            tarfile.open(fileobj=importer.stdin, mode="w|", bufsize=1 << 20) as archive,
        ):
            _add(archive, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
            _add(archive, "index.json", json.dumps(index).encode())
            for digest in digests:
                archive.add(_blob(digest), f"blobs/sha256/{digest.removeprefix('sha256:')}")
        importer.communicate()
    if importer.returncode:
        raise LabError(f"the node refused an image; the end of {log}:\n{tail(log)}")


CTR = ["ctr", f"--address={CONTAINERD_SOCKET}", "--namespace=k8s.io"]


def _in_node(*words: str) -> str:
    return run(enter([*CTR, *words]))


def _blob(digest: str) -> Path:
    return LAYOUT / "blobs/sha256" / digest.removeprefix("sha256:")


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))

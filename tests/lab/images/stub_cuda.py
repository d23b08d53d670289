"""Replace the CUDA libraries that torch links against, and a CPU never calls, by empty ones.

    python stub_cuda.py SITE_PACKAGES

PyPI's torch is the CUDA build: the loader wants each library named in its DT_NEEDED entries, and
each symbol it takes from there, or `import torch` fails. A stub has these symbols and versions and
no code: each reports failure, which these libraries tell by any value but zero. It makes the image
half as large and its start twice as fast. Needs gcc, nm and readelf.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

# Everything but libcudart: torch asks it for the number of devices.
KEEP = {"libcudart.so.13"}


def main() -> None:
    """Stub or delete every library below SITE_PACKAGES/nvidia."""
    packages = Path(sys.argv[1])
    users = sorted((packages / "torch" / "lib").glob("*.so"))
    wanted = {symbol for user in users for symbol in symbols(user, "--undefined-only")}
    needed = {name for user in users for name in needs(user)}
    before = after = 0
    for library in sorted((packages / "nvidia").rglob("*.so*")):
        before += library.stat().st_size
        if library.name in KEEP:
            pass
        elif library.name in needed:
            stub(library, sorted(symbols(library, "--defined-only") & wanted))
        else:
            library.unlink()
            continue
        after += library.stat().st_size
    print(f"nvidia libraries: {before >> 20} MiB before, {after >> 20} MiB after")


def symbols(library: Path, which: str) -> set[str]:
    """Return dynamic symbols as `name` or `name@VERSION`."""
    command = ["nm", "--dynamic", "--with-symbol-versions", which, str(library)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    names = {line.split()[-1].replace("@@", "@") for line in lines if line.strip()}
    # The interfaces are C. What is mangled is a copy of the C++ library's: it must not win.
    return {name for name in names if not name.startswith("_Z")}


def needs(library: Path) -> list[str]:
    """Return the names of the libraries this one is linked against."""
    command = ["readelf", "--dynamic", "--wide", str(library)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return re.findall(r"\(NEEDED\).*\[(.+)\]", text)


def stub(library: Path, wanted: list[str]) -> None:
    """Overwrite `library` with one that has the wanted symbols and nothing else."""
    names = [symbol.partition("@") for symbol in wanted]
    source = "".join(f"int {name}(void) {{ return 1; }}\n" for name, _, _ in names)
    versions = sorted({version for _, _, version in names if version})
    script = "".join(
        f"{version} {{ global: {' '.join(n + ';' for n, _, v in names if v == version)} }};\n"
        for version in versions
    )
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        (work / "stub.c").write_text(source)
        (work / "stub.map").write_text(script)
        # Unlinked first: the file may be a hard link into a package cache.
        library.unlink()
        command = [
            "gcc",
            "-shared",
            "-fPIC",
            "-O1",
            "-w",
            "-nostdlib",
            f"-Wl,-soname,{library.name}",
        ]
        command += [f"-Wl,--version-script,{work / 'stub.map'}"] if versions else []
        subprocess.run([*command, "-o", str(library), str(work / "stub.c")], check=True)
    print(f"{library.name}: {len(names)} symbols")


if __name__ == "__main__":
    main()

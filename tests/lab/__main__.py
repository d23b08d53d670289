"""Command line of the lab: `python -m lab COMMAND`; `--help` lists the commands."""

import argparse
import contextlib
import sys

from lab import cluster, keda, packages, target, tools
from lab.errors import LabError


def main() -> int:
    """Do what the command line says; 1 and a sentence where that cannot be done."""
    parser = argparse.ArgumentParser(prog="lab", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start a single-node Kubernetes on this machine")
    commands.add_parser("down", help="end it and leave nothing behind but the cache")
    commands.add_parser("build", help="build its tools and this checkout's images")
    commands.add_parser("build-keda", help="build KEDA and Prometheus")
    commands.add_parser(
        "keda", help="start KEDA and Prometheus on it, where they stay till its end"
    )
    needed = commands.add_parser("packages", help="install the Debian packages that are missing")
    needed.add_argument("--browser", action="store_true", help="those of the browser's tests")
    gpus = commands.add_parser("gpus", help="let the node claim accelerators, for scheduling")
    gpus.add_argument("count", type=int)
    named = commands.add_parser("tool", help="print the path of one of the cluster's programs")
    named.add_argument("name", choices=sorted([*tools.PACKAGES, tools.PROVISIONER[0]]))
    options = parser.parse_args()
    try:
        match options.command:
            case "up":
                cluster.up()
            case "down":
                cluster.down()
            case "build":
                target.build()
            case "build-keda":
                keda.build()
            case "keda":
                keda.install()
            case "packages":
                packages.install(packages.BROWSER if options.browser else packages.NEEDED)
            case "tool":
                # Its path is the output; how long a build takes is for the person who waits.
                with contextlib.redirect_stdout(sys.stderr):
                    path = tools.tool(options.name)
                print(path)
            case "gpus":
                cluster.advertise_gpus(options.count)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

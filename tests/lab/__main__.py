"""Command line of the lab: `python -m lab up | down | gpus N | packages`."""

import argparse
import sys

from lab import cluster, packages
from lab.errors import LabError


def main() -> int:
    """Do what the command line says; 1 and a sentence where that cannot be done."""
    parser = argparse.ArgumentParser(prog="lab", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start a single-node Kubernetes on this machine")
    commands.add_parser("down", help="end it and leave nothing behind but the cache")
    commands.add_parser("packages", help="install the Debian packages that are missing")
    gpus = commands.add_parser("gpus", help="let the node claim accelerators, for scheduling")
    gpus.add_argument("count", type=int)
    options = parser.parse_args()
    try:
        match options.command:
            case "up":
                cluster.up()
            case "down":
                cluster.down()
            case "packages":
                packages.install()
            case "gpus":
                cluster.advertise_gpus(options.count)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

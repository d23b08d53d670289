"""The port that a process takes."""

import socket

# The addresses that stand for all of them.
EVERYWHERE = {"0.0.0.0", "::"}


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that takes connections.

    Those that stand for all are taken for all of both families: a pod's only address may be one of
    IPv6, and its probes come there.

    Raises:
        OSError: the port is taken, or the address is not one of this machine's.
    """
    if both := host in EVERYWHERE:
        both = socket.has_dualstack_ipv6()
        host = "::" if both else "0.0.0.0"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, dualstack_ipv6=both)

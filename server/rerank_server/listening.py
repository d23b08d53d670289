"""The port that a process takes."""

import socket

# The address that stands for all of them, those of IPv4 as well.
EVERYWHERE = "::"


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that takes connections.

    A pod's only address may be one of IPv6, and its probes come there. asyncio and http.server take
    `::` for IPv6 alone.

    Raises:
        OSError: the port is taken, or the address is not one of this machine's.
    """
    if host == EVERYWHERE and not socket.has_dualstack_ipv6():
        host = "0.0.0.0"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, dualstack_ipv6=host == EVERYWHERE)

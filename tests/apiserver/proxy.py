"""A wire between operator and API server that can go dead, or be cut."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from apiserver.controlplane import OPERATOR, ControlPlane


class Proxy:
    """Passes bytes on, whatever they are. `kubeconfig` is the operator's, by way of it."""

    def __init__(self, plane: ControlPlane, listener: socket.socket) -> None:
        self.is_cut = False
        self._listener = listener
        self._flowing: list[threading.Event] = []
        self._sockets: list[socket.socket] = []
        config = json.loads(plane.kubeconfig(OPERATOR).read_text())
        cluster = config["clusters"][0]["cluster"]
        target = urlsplit(cluster["server"])
        assert target.hostname
        assert target.port
        self._target = (target.hostname, target.port)
        port = listener.getsockname()[1]
        cluster["server"] = f"https://127.0.0.1:{port}"
        self.kubeconfig: Path = plane.folder / f"operator-{port}.conf"
        self.kubeconfig.write_text(json.dumps(config))

    def freeze(self) -> None:
        """Let nothing more through the connections that are open, and keep them open."""
        for flowing in self._flowing:
            flowing.clear()

    def cut(self) -> None:
        """Close all connections, and take no new ones until `mend`."""
        self.is_cut = True
        self.hang_up()

    def mend(self) -> None:
        """Take connections again."""
        self.is_cut = False

    def hang_up(self) -> None:
        """Close all connections."""
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for flowing in self._flowing:
            flowing.set()
        self._sockets.clear()
        self._flowing.clear()

    def serve(self) -> None:
        """Take connections until the listener is closed."""
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = None if self.is_cut else socket.create_connection(self._target)
            except OSError:
                server = None
            if server is None:
                client.close()
                continue
            flowing = threading.Event()
            flowing.set()
            self._flowing.append(flowing)
            self._sockets += [client, server]
            for pair in ((client, server), (server, client)):
                threading.Thread(target=_pump, args=(*pair, flowing), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket, flowing: threading.Event) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            flowing.wait()
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@contextmanager
def start_proxy(plane: ControlPlane) -> Iterator[Proxy]:
    """Run a proxy while the block runs."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = Proxy(plane, listener)
        thread = threading.Thread(target=proxy.serve, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.hang_up()
            listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)

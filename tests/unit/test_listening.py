"""The port that a process takes."""

import socket

import pytest

from rerank_server.listening import EVERYWHERE, listen


def reaches(port: int, address: str) -> bool:
    try:
        with socket.create_connection((address, port), timeout=5):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="the machine has no IPv6")
@pytest.mark.parametrize("host", sorted(EVERYWHERE))
def test_all_addresses_are_those_of_both_families(host: str) -> None:
    with listen(host, 0) as listening:
        port = listening.getsockname()[1]

        assert reaches(port, "127.0.0.1")
        assert reaches(port, "::1")


@pytest.mark.parametrize("host", sorted(EVERYWHERE))
def test_all_addresses_are_those_of_ipv4_where_there_is_no_other(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)

    with listen(host, 0) as listening:
        assert listening.family == socket.AF_INET
        assert reaches(listening.getsockname()[1], "127.0.0.1")


def test_one_address_is_no_more_than_that() -> None:
    with listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]

        assert reaches(port, "127.0.0.1")
        assert not reaches(port, "127.0.0.2")

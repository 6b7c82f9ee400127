"""Which addresses are this machine's alone, and which ports can be had."""

from __future__ import annotations

import socket

import pytest

from serve.address import free_port, is_loopback, url_of


def test_loopback_is_told_from_elsewhere() -> None:
    here = ("localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]", "milpa.localhost")
    assert all(map(is_loopback, here))
    elsewhere = ("0.0.0.0", "::", "", "example.org", "10.0.0.1", "localhostx", "127.0.0.1.nip.io")
    assert not any(map(is_loopback, elsewhere))


@pytest.mark.parametrize("shared", [False, True])
def test_a_port_in_use_is_refused_even_where_it_is_shared(shared: bool) -> None:
    with socket.socket() as other:
        if shared:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(OSError, match=f"free port at 127.0.0.1, got {port}"):
            free_port("127.0.0.1", port)
    assert free_port("127.0.0.1", port) == port


def test_zero_is_any_free_port() -> None:
    assert free_port("127.0.0.1", 0) > 1023


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 99999), ("203.0.113.1", 8000)])
def test_a_port_or_host_that_cannot_be_is_refused(host: str, port: int) -> None:
    with pytest.raises(OSError, match=str(port)):
        free_port(host, port)


def test_an_address_of_version_6_stands_in_brackets() -> None:
    assert url_of("127.0.0.1", 80) == "http://127.0.0.1:80"
    assert url_of("::1", 80) == "http://[::1]:80"

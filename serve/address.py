"""Where a server listens: which addresses are this machine's alone, and whether a port is free."""

from __future__ import annotations

import ipaddress
import socket


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def free_port(host: str, port: int) -> int:
    """The port, or any free one for 0.

    NOTE: Serve's proxy shares its port (SO_REUSEPORT): it would start beside another server, and
    each would get some of the requests. So it is tried here without sharing.

    Raises:
        OSError: it is in use, or not to be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise OSError(
                f"expected a free port at {host}, got {port}: {error}; pass another --port, "
                "or 0 for any free one"
            ) from error
        return int(probe.getsockname()[1])


def url_of(host: str, port: int) -> str:
    """Where a client finds the server."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"

"""Addresses that a server of a test may listen on."""

from __future__ import annotations

import socket


def free_address() -> str:
    """A loopback address with a port that nothing listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{one.getsockname()[1]}"

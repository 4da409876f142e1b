"""Addresses as text: "host:port", with brackets around an IPv6 host."""

from __future__ import annotations

PORT_MAX = 65_535
"""Largest port."""


def split_address(text: str) -> tuple[str, int]:
    """(host, port) of "HOST:PORT" or "[IPV6]:PORT"; the host may be empty. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > PORT_MAX:
        raise ValueError(f"{text!r} is not an address: write HOST:PORT, such as 127.0.0.1:4150")
    return host.removeprefix("[").removesuffix("]"), int(port)


def join_address(host: str, port: int) -> str:
    """What `split_address` takes apart."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

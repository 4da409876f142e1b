"""Where brokers are: "host:port", several separated by commas. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from plait.wire.errors import BadRequest

NATIVE_PORT = 4150
"""The port of the native protocol where an address names none."""


def parse_addresses(address: str | Sequence[str]) -> list[tuple[str, int]]:
    """The (host, port) pairs of "host", "host:port", "[::1]:port"; several with commas between, or as a list.

    Raises BadRequest.
    """
    parts = address.split(",") if isinstance(address, str) else list(address)
    found = [_parse(part.strip()) for part in parts if part.strip()]
    if not found:
        raise BadRequest(f"The address {address!r} names no broker: write it as HOST:PORT.")
    return found


def _parse(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(NATIVE_PORT)
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise BadRequest(f"The address {text!r} is not HOST:PORT with a port from 1 to 65535.")
    return host, int(port)

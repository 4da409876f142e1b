"""Lines and JSON in and out of messages: what `publish --from` reads and `consume` prints. Pure but for `Lines`.

    {"value": "text" or any JSON, or "value_base64": "...", "key": ..., "headers": {...}, "timestamp_ms": ...}

What `consume --json` prints is what `publish --ndjson` takes, so that the one can feed the other.
"""

from __future__ import annotations

import base64
import binascii
import os
from typing import Any

import msgspec
import trio

from plait import Leased, Message, Received

READ_BYTES = 1 << 18
"""Read from a file or pipe at a time."""
LINE_BYTES_MAX = 64 << 20
"""Longest line: the largest record that any broker can be set to take."""


class LineInvalid(Exception):
    """A line is no message; the text says which line and why. Lines before it were published."""


class Lines:
    """Lines of a file or pipe as they come, without blocking the loop while there are none."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest = b""

    async def next(self) -> list[bytes] | None:
        """Whole lines, without their ends; None at the end of the input. Raises LineInvalid, OSError."""
        while True:
            data = await trio.to_thread.run_sync(os.read, self._descriptor, READ_BYTES, abandon_on_cancel=True)
            if not data:
                last, self._rest = self._rest, b""
                return [last] if last else None
            *lines, self._rest = (self._rest + data).split(b"\n")
            if len(self._rest) > LINE_BYTES_MAX:
                raise LineInvalid(f"a line is longer than {LINE_BYTES_MAX:,} bytes")
            if lines:
                return [line.removesuffix(b"\r") for line in lines]


def message_of(line: bytes, number: int) -> Message:
    """The message that a line of NDJSON describes. Raises LineInvalid."""
    try:
        found = msgspec.json.decode(line)
    except msgspec.DecodeError as error:
        raise LineInvalid(f"line {number} is not JSON: {error}") from None
    if not isinstance(found, dict) or not ("value" in found or "value_base64" in found):
        raise LineInvalid(f'line {number} is no message: write {{"value": ...}}, with key and headers if wanted')
    try:
        key = _bytes(found, "key")
        headers = [(name, _as_bytes(value)) for name, value in found.get("headers", {}).items()]
        timestamp_ms = found.get("timestamp_ms")
        if timestamp_ms is not None and type(timestamp_ms) is not int:
            raise ValueError("timestamp_ms is not a whole number")
        return Message(_bytes(found, "value") or b"", key=key, headers=headers, timestamp_ms=timestamp_ms)
    except (ValueError, AttributeError, binascii.Error) as error:
        raise LineInvalid(f"line {number} is no message: {error}") from None


def json_of(message: Received) -> bytes:
    """A message as one line of NDJSON, without its end."""
    found: dict[str, Any] = {
        "partition": message.partition,
        "offset": message.offset,
        "timestamp_ms": message.timestamp_ms,
    }
    if message.key is not None:
        found |= _text("key", message.key)
    found |= _text("value", message.value)
    if message.header_items:
        found["headers"] = {name: _header(value) for name, value in message.header_items}
    if isinstance(message, Leased):
        found["deliveries"] = message.deliveries
    return msgspec.json.encode(found)


def _bytes(found: dict[str, Any], name: str) -> bytes | None:
    packed = found.get(f"{name}_base64")
    if packed is not None:
        return base64.b64decode(packed, validate=True)
    value = found.get(name)
    return None if value is None else _as_bytes(value)


def _as_bytes(value: Any) -> bytes:
    if isinstance(value, dict) and value.keys() == {"base64"}:
        return base64.b64decode(value["base64"], validate=True)
    return value.encode() if isinstance(value, str) else msgspec.json.encode(value)


def _text(name: str, value: bytes) -> dict[str, str]:
    try:
        return {name: value.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(value).decode()}


def _header(value: bytes | None) -> Any:
    try:
        return (value or b"").decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value or b"").decode()}

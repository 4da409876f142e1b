"""Zigzag varints, as Kafka's records use them (Protocol Buffers encoding, chapter "Signed Integers").

Seven bits a byte, the lowest first; the top bit says that more follow. Zigzag turns 0, -1, 1, -2 into 0, 1, 2, 3,
so that numbers near zero are short.
"""

from __future__ import annotations

from plait.wire.errors import BatchInvalid

SHORT_VALUES = 8192
"""How many non-negative numbers the table holds: all that take one or two bytes."""
VARINT_BYTES_MAX = 10
"""The longest varint: 64 bits, seven at a time."""

SHORT: tuple[bytes, ...] = (
    *(bytes((n << 1,)) for n in range(64)),
    *(bytes((n << 1 & 0x7F | 0x80, n >> 6)) for n in range(64, SHORT_VALUES)),
)
"""SHORT[n] is the varint of n: a look-up instead of a loop on the hot paths."""


def varint(value: int) -> bytes:
    """The varint of a signed 64-bit number."""
    if 0 <= value < SHORT_VALUES:
        return SHORT[value]
    rest = value << 1 if value >= 0 else ~(value << 1)
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at a position, and the position behind it. Raises BatchInvalid."""
    rest, behind = read_unsigned(data, at)
    return (rest >> 1) ^ -(rest & 1), behind


def read_unsigned(data: bytes, at: int) -> tuple[int, int]:
    """As `read_varint`, before the zigzag is undone. Raises BatchInvalid."""
    piece = data[at : at + VARINT_BYTES_MAX]
    value = 0
    for count, byte in enumerate(piece):
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            if value >> 64:
                break
            return value, at + count + 1
    raise BatchInvalid(f"the batch is damaged at byte {at} of its records: a number has no end or over 64 bits")

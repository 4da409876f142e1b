"""CRC-32C (Castagnoli), the checksum of everything that Plait stores.

Hardware speed, any contiguous buffer without copying it; pass a former result as second argument to go on:
`crc32c(b, crc32c(a)) == crc32c(a + b)`. Check value (RFC 3720, B.4): `crc32c(b"123456789") == 0xE3069283`.
"""

from __future__ import annotations

from fastcrc.crc32 import iscsi as crc32c

__all__ = ["crc32c"]

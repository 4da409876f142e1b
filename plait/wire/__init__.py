"""The formats that SDK and server share: record batches, native frames and messages. All pure."""

from __future__ import annotations

Buffer = bytes | bytearray | memoryview
"""Bytes in any form; a memoryview must be one-dimensional, of single bytes and contiguous."""

"""Making record batches: one record at a time, or from many values at once.

The parts of all records are collected in a list and joined once; values are not copied before that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from plait.wire import Buffer
from plait.wire.compression import compress
from plait.wire.header import CODECS, CRC_START, HEADER, HEADER_BYTES, LENGTH_END, MAGIC, checksum
from plait.wire.varint import SHORT, SHORT_VALUES, varint

_NONE = varint(-1)


class BatchBuilder:
    """Collects records and builds one batch of them. The producer's fields may be set until then."""

    __slots__ = (
        "_parts",
        "_stamp",
        "_stamp_ms",
        "base_sequence",
        "base_timestamp_ms",
        "compression",
        "count",
        "leader_epoch",
        "max_timestamp_ms",
        "producer_epoch",
        "producer_id",
        "size_bytes",
    )

    def __init__(
        self,
        base_timestamp_ms: int | None = None,
        compression: str = "none",
        producer_id: int = -1,
        producer_epoch: int = -1,
        base_sequence: int = -1,
        leader_epoch: int = -1,
    ) -> None:
        """`base_timestamp_ms`: what the records' timestamps count from; None takes the first record's."""
        if compression not in CODECS:
            raise ValueError(f"compression is one of {', '.join(CODECS)}, not {compression!r}")
        self.base_timestamp_ms = base_timestamp_ms
        self.compression = compression
        self.producer_id = producer_id
        self.producer_epoch = producer_epoch
        self.base_sequence = base_sequence
        self.leader_epoch = leader_epoch
        self.max_timestamp_ms = -1
        self.count = 0
        self.size_bytes = HEADER_BYTES
        """What the batch will have, before compression."""
        self._parts: list[bytes] = []
        self._stamp_ms: int | None = None
        self._stamp = b"\0\0"

    def append(
        self,
        value: Buffer | None,
        key: Buffer | None = None,
        headers: Sequence[tuple[str, Buffer | None]] = (),
        timestamp_ms: int = 0,
    ) -> None:
        """Add a record."""
        if timestamp_ms != self._stamp_ms:
            self._set_stamp(timestamp_ms)
        delta = self.count
        self.count = delta + 1
        if type(value) is bytes and key is None and not headers and delta < SHORT_VALUES:
            length = len(value)
            if length < SHORT_VALUES - 32:
                stamp = self._stamp
                offset = SHORT[delta]
                prefix = SHORT[length]
                size = len(stamp) + len(offset) + len(prefix) + length + 2
                head = SHORT[size]
                self._parts += (head, stamp, offset, b"\1", prefix, value, b"\0")
                self.size_bytes += len(head) + size
                return
        self._append_slowly(delta, value, key, headers)

    def _append_slowly(
        self, delta: int, value: Buffer | None, key: Buffer | None, headers: Sequence[tuple[str, Buffer | None]]
    ) -> None:
        parts = [self._stamp, varint(delta), *_sized(key), *_sized(value), varint(len(headers))]
        for name, content in headers:
            parts += _sized(name.encode())
            parts += _sized(content)
        size = sum(map(len, parts))
        head = varint(size)
        self._parts.append(head)
        self._parts += parts
        self.size_bytes += len(head) + size

    def _set_stamp(self, timestamp_ms: int) -> None:
        if self.base_timestamp_ms is None:
            self.base_timestamp_ms = timestamp_ms
        self._stamp_ms = timestamp_ms
        self._stamp = b"\0" + varint(timestamp_ms - self.base_timestamp_ms)
        self.max_timestamp_ms = max(self.max_timestamp_ms, timestamp_ms)

    def build(self, base_offset: int = 0) -> bytes:
        """The batch. Raises ValueError when it is empty."""
        if not self.count or self.base_timestamp_ms is None:
            raise ValueError("a batch has at least one record")
        return _seal(
            b"".join(self._parts),
            self.compression,
            base_offset=base_offset,
            leader_epoch=self.leader_epoch,
            count=self.count,
            base_timestamp_ms=self.base_timestamp_ms,
            max_timestamp_ms=self.max_timestamp_ms,
            producer=(self.producer_id, self.producer_epoch, self.base_sequence),
        )


def _sized(content: Buffer | None) -> tuple[bytes, ...]:
    if content is None:
        return (_NONE,)
    content = bytes(content)
    return varint(len(content)), content


def _seal(
    records: bytes,
    compression: str,
    *,
    base_offset: int,
    leader_epoch: int,
    count: int,
    base_timestamp_ms: int,
    max_timestamp_ms: int,
    producer: tuple[int, int, int],
) -> bytes:
    body = compress(compression, records)
    fields: list[Any] = [base_offset, HEADER_BYTES - LENGTH_END + len(body), leader_epoch, MAGIC, 0]
    fields += [CODECS.index(compression), count - 1, base_timestamp_ms, max_timestamp_ms, *producer, count]
    batch = bytearray().join((HEADER.pack(*fields), body))
    batch[CRC_START - 4 : CRC_START] = checksum(batch).to_bytes(4, "big")
    return bytes(batch)


def encode_batch(
    values: Sequence[bytes],
    timestamp_ms: int,
    *,
    compression: str = "none",
    producer_id: int = -1,
    producer_epoch: int = -1,
    base_sequence: int = -1,
    leader_epoch: int = -1,
    base_offset: int = 0,
) -> bytes:
    """A batch of values without keys or headers that share a timestamp. Raises ValueError."""
    builder = BatchBuilder(timestamp_ms, compression, producer_id, producer_epoch, base_sequence, leader_epoch)
    for value in values:
        builder.append(value, timestamp_ms=timestamp_ms)
    return builder.build(base_offset)

"""Making record batches: one record at a time, or from many values at once.

The parts of all records are collected in a list and joined once; values are not copied before that.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastcrc import crc32

from plait.wire import Buffer
from plait.wire.checks import BATCH_RECORDS_MAX, TIMESTAMP_MS_MAX
from plait.wire.compression import compress
from plait.wire.header import CODECS, COVERED, HEADER_BYTES, LENGTH_END, MAGIC, START
from plait.wire.varint import SHORT, SHORT_VALUES, varint

CACHED_LENGTHS_MAX = 4096
"""Lengths of values whose prefixes are remembered between batches."""
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
        timestamp_ms: int | None = None,
    ) -> None:
        """Add a record. `timestamp_ms` is since 1970, -1 for none; left out: as the record before, or the base.

        Raises ValueError.
        """
        if timestamp_ms != self._stamp_ms or timestamp_ms is None:
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

    def _set_stamp(self, timestamp_ms: int | None) -> None:
        if timestamp_ms is None:
            if self._stamp_ms is not None:
                return
            timestamp_ms = self.base_timestamp_ms
        if timestamp_ms is None:
            raise ValueError("the batch has no timestamp yet: give its first record one")
        if not -1 <= timestamp_ms <= TIMESTAMP_MS_MAX:
            raise ValueError(f"a timestamp is from -1 to {TIMESTAMP_MS_MAX}, not {timestamp_ms}")
        if self.base_timestamp_ms is None:
            self.base_timestamp_ms = timestamp_ms
        self._stamp_ms = timestamp_ms
        self._stamp = b"\0" + varint(timestamp_ms - self.base_timestamp_ms)
        self.max_timestamp_ms = max(self.max_timestamp_ms, timestamp_ms)

    def build(self, base_offset: int = 0) -> bytes:
        """The batch; the builder can go on. Raises ValueError when it is empty or has too many records."""
        _check_count(self.count)
        assert self.base_timestamp_ms is not None, "the first record set it"
        place = (base_offset, self.leader_epoch)
        timestamps_ms = (self.base_timestamp_ms, self.max_timestamp_ms)
        producer = (self.producer_id, self.producer_epoch, self.base_sequence)
        return _seal(b"".join(self._parts), self.compression, place, timestamps_ms, producer, self.count)


def _check_count(count: int) -> None:
    if not 0 < count <= BATCH_RECORDS_MAX:
        raise ValueError(f"a batch holds 1 to {BATCH_RECORDS_MAX} records, not {count}")


def _sized(content: Buffer | None) -> tuple[bytes, ...]:
    if content is None:
        return (_NONE,)
    if type(content) is not bytes:
        content = bytes(content)  # the caller may change it after append
    return varint(len(content)), content


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
    """A batch of values without keys or headers that share a timestamp: three times as fast as a builder.

    Raises ValueError when there are none or too many.
    """
    _check_count(len(values))
    place = (base_offset, leader_epoch)
    producer = (producer_id, producer_epoch, base_sequence)
    records = b"".join(_value_parts(values))
    return _seal(records, compression, place, (timestamp_ms, timestamp_ms), producer, len(values))


def _value_parts(values: Sequence[bytes]) -> list[bytes]:
    """What joins to the records of the values. Works on columns: all heads, all offset deltas, all prefixes, all
    values, which C code puts in place; a record then costs no bytecode of its own.

        0 | length, attributes, timestamp delta | offset delta | no key, value length | value
        └ end of the record before: it has no headers
    """
    parts: list[bytes] = []
    for first, last, heads in _STRETCHES:
        piece = values[first:last]
        if not piece:
            break
        lengths = list(map(len, piece))
        columns = [b""] * (4 * len(piece))
        columns[0::4] = map(heads.__getitem__, lengths)
        columns[1::4] = SHORT[first:last][: len(piece)] or map(varint, range(first, first + len(piece)))
        columns[2::4] = map(_PREFIXES.__getitem__, lengths)
        columns[3::4] = piece
        parts += columns
    parts[0] = parts[0][1:]
    parts.append(b"\0")
    return parts


class _Heads(dict[int, bytes]):
    """By the value's length: the record's first bytes, for offset deltas of one size."""

    def __init__(self, delta_bytes: int) -> None:
        self._delta_bytes = delta_bytes

    def __missing__(self, length: int) -> bytes:
        if len(self) >= CACHED_LENGTHS_MAX:
            self.clear()
        size = 2 + self._delta_bytes + 1 + len(varint(length)) + length + 1
        self[length] = head = b"\0" + varint(size) + b"\0\0"
        return head


class _Prefixes(dict[int, bytes]):
    """By the value's length: what stands right before the value."""

    def __missing__(self, length: int) -> bytes:
        if len(self) >= CACHED_LENGTHS_MAX:
            self.clear()
        self[length] = prefix = b"\1" + varint(length)
        return prefix


_STRETCHES = (
    (0, 64, _Heads(1)),
    (64, SHORT_VALUES, _Heads(2)),
    (SHORT_VALUES, BATCH_RECORDS_MAX, _Heads(3)),
)
"""First and last + 1 of the offset deltas that take one, two and three bytes."""
_PREFIXES = _Prefixes()


def _seal(
    records: bytes,
    compression: str,
    place: tuple[int, int],
    timestamps_ms: tuple[int, int],
    producer: tuple[int, int, int],
    count: int,
) -> bytes:
    """The batch around encoded records."""
    body = compress(compression, records)
    covered = COVERED.pack(CODECS.index(compression), count - 1, *timestamps_ms, *producer, count)
    crc = crc32.iscsi(body, crc32.iscsi(covered))
    start = START.pack(place[0], HEADER_BYTES - LENGTH_END + len(body), place[1], MAGIC, crc)
    return b"".join((start, covered, body))

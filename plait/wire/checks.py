"""Is a batch what it says it is? Without opening it (`validate`), and record by record (`check_records`)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from plait.wire import Buffer
from plait.wire.errors import BatchInvalid, RecordTooLarge
from plait.wire.header import HEADER_BYTES, BatchHeader, checksum, read_header
from plait.wire.records import RecordRun, iterate_run, positions, records_of

RECORD_BYTES_MIN = 7
"""The shortest record: its length and six fields of one byte each."""
BATCH_RECORDS_MAX = 1 << 20
"""Records that one batch may hold; also bounds the offsets that an unopened compressed batch may claim."""

MAX_BATCH_BYTES = 8 << 20
"""Default of the largest batch that is taken."""
MAX_RECORD_BYTES = 1 << 20
"""Default of the largest record that is taken: its key, value and headers together."""

TIMESTAMP_MS_MAX = (1 << 63) - 1
"""The latest time that a batch can express."""

_NOT_STORED = "the batch was not stored"


class Limits(Protocol):
    """What `validate` bounds."""

    @property
    def max_record_bytes(self) -> int:
        """Key, value and headers of one record together."""

    @property
    def max_batch_bytes(self) -> int:
        """A whole batch, as sent."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Limits of a topic or broker."""

    max_record_bytes: int = MAX_RECORD_BYTES
    max_batch_bytes: int = MAX_BATCH_BYTES


def validate(buffer: Buffer, limits: Limits) -> BatchHeader:
    """Check that the buffer is exactly one undamaged batch, without opening it; its header.

    Compressed records are looked at only by whoever opens them (`open_body`, `check_records`).
    Raises BatchInvalid or RecordTooLarge.
    """
    header = read_header(buffer)
    if header.size_bytes != len(buffer):
        raise BatchInvalid(f"the batch says {header.size_bytes} bytes but has {len(buffer)}; {_NOT_STORED}")
    if len(buffer) > limits.max_batch_bytes:
        raise too_large("batch", len(buffer), limits.max_batch_bytes)
    if checksum(buffer) != header.crc:
        raise BatchInvalid(f"the batch is damaged: its CRC-32C is wrong; {_NOT_STORED}: send it again")
    _check_counts(header)
    if header.compression == "none" and len(buffer) - HEADER_BYTES > limits.max_record_bytes:
        check_sizes(memoryview(buffer)[HEADER_BYTES:], limits.max_record_bytes)
    return header


def _check_counts(header: BatchHeader) -> None:
    if not 0 < header.count <= BATCH_RECORDS_MAX:
        raise BatchInvalid(
            f"a batch holds 1 to {BATCH_RECORDS_MAX} records, this one {header.count}; {_NOT_STORED}"
        )
    if header.last_offset_delta != header.count - 1:
        raise BatchInvalid(
            f"the batch says {header.count} records but a last delta of {header.last_offset_delta}; {_NOT_STORED}"
        )
    room = header.size_bytes - HEADER_BYTES
    if header.compression == "none" and room < header.count * RECORD_BYTES_MIN:
        raise BatchInvalid(f"{header.count} records do not fit into {room} bytes; {_NOT_STORED}")
    idempotent = header.producer_id >= 0 and not header.is_control
    if idempotent and (header.producer_epoch < 0 or header.base_sequence < 0):
        raise BatchInvalid(f"the batch has a producer id but no epoch or sequence; {_NOT_STORED}")


def too_large(what: str, size_bytes: int, limit_bytes: int) -> RecordTooLarge:
    """The error for a record or batch over its limit."""
    return RecordTooLarge(
        f"the {what} has {size_bytes} bytes, the limit is {limit_bytes}; it was not stored: "
        f"send smaller ones or raise the limit",
        limit_bytes=limit_bytes,
        size_bytes=size_bytes,
    )


def check_sizes(body: Buffer, max_record_bytes: int) -> None:
    """Check that no record's key, value and headers are over the limit. Raises BatchInvalid or RecordTooLarge."""
    found = positions(body)
    for start, end in pairwise(found):
        if end - start > max_record_bytes:
            size_bytes = _payload_bytes(bytes(memoryview(body)[start:end]))
            if size_bytes > max_record_bytes:
                raise too_large("record", size_bytes, max_record_bytes)


def _payload_bytes(data: bytes) -> int:
    (record,) = iterate_run(RecordRun(0, 0, False, 0, 1, data))
    headers = sum(len(name.encode()) + len(value or b"") for name, value in record.headers)
    return len(record.key or b"") + len(record.value or b"") + headers


def check_records(body: Buffer, header: BatchHeader, max_record_bytes: int | None = None) -> None:
    """Check every record of an opened batch, headers too: for topics whose leader looks inside.

    Raises BatchInvalid or RecordTooLarge.
    """
    for delta, record in enumerate(records_of(body, header)):
        if record.offset != header.base_offset + delta:
            raise BatchInvalid(
                f"record {delta} says offset delta {record.offset - header.base_offset}; {_NOT_STORED}"
            )
        if not -1 <= record.timestamp_ms <= TIMESTAMP_MS_MAX:
            raise BatchInvalid(f"record {delta} has the timestamp {record.timestamp_ms}; {_NOT_STORED}")
        _ = record.headers
    if max_record_bytes is not None:
        check_sizes(body, max_record_bytes)

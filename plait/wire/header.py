"""The first 61 bytes of a record batch: reading, checking and addressing it without opening the rest.

    0            8        12             16      17    21           23
    | base offset| length | leader epoch | magic | CRC | attributes | last offset delta, timestamps, producer,
                                                       | sequence, count (to 61), records ...
                                                       |<──────────── what the CRC-32C covers ──────────────>|

The CRC leaves out offset and leader epoch, so a leader gives a batch its place by writing 12 bytes. Kafka
protocol guide, "Record Batch" (magic 2, KIP-98).
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from fastcrc import crc32

from plait.wire import Buffer
from plait.wire.errors import BatchInvalid

HEADER_BYTES = 61
"""Size of the header; the records follow."""
LENGTH_END = 12
"""Position from which the length field counts."""
CRC_START = 21
"""Position from which the CRC counts."""
MAGIC = 2
"""The only batch format that is taken."""
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
"""Compression by its number in the attributes."""

HEADER = Struct(">qiibIhiqqqhii")
START = Struct(">qiibI")
"""The fields that the CRC does not cover."""
COVERED = Struct(">hiqqqhii")
"""The fields that it covers."""
_PLACE = Struct(">q")
_EPOCH = Struct(">i")
_MOVED = Struct(">qii")

TIMESTAMP_APPEND = 0x08
"""Attribute: the maximal timestamp is the broker's, and that of every record."""
TRANSACTIONAL = 0x10
"""Attribute: the batch belongs to a transaction."""
CONTROL = 0x20
"""Attribute: the batch is a transaction marker, not messages."""

_NOT_STORED = "the batch was not stored"


@dataclass(slots=True)
class BatchHeader:
    """The header's fields, in their order."""

    base_offset: int
    length: int
    """Bytes behind this field."""
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp_ms: int
    max_timestamp_ms: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    count: int

    @property
    def size_bytes(self) -> int:
        """The whole batch, header included."""
        return LENGTH_END + self.length

    @property
    def last_offset(self) -> int:
        """Offset of the last record."""
        return self.base_offset + self.last_offset_delta

    @property
    def compression(self) -> str:
        """Name of the codec. Raises BatchInvalid for a number that stands for none."""
        number = self.attributes & 0x07
        if number >= len(CODECS):
            raise BatchInvalid(f"compression {number} is unknown; {_NOT_STORED}: use one of {', '.join(CODECS)}")
        return CODECS[number]

    @property
    def is_transactional(self) -> bool:
        """The batch belongs to a transaction."""
        return bool(self.attributes & TRANSACTIONAL)

    @property
    def is_control(self) -> bool:
        """The batch is a transaction marker."""
        return bool(self.attributes & CONTROL)

    @property
    def timestamp_type(self) -> str:
        """Whose clock the records' timestamps are: "create" (the producer's) or "append" (the broker's)."""
        return "append" if self.attributes & TIMESTAMP_APPEND else "create"


def read_header(buffer: Buffer, at: int = 0) -> BatchHeader:
    """The header at a position, unchecked but for its magic number. Raises BatchInvalid."""
    if len(buffer) - at < HEADER_BYTES:
        raise BatchInvalid(f"a batch has at least {HEADER_BYTES} bytes, this one {len(buffer) - at}")
    header = BatchHeader(*HEADER.unpack_from(buffer, at))
    if header.magic != MAGIC:
        raise BatchInvalid(
            f"record format {header.magic} is not supported, only {MAGIC} (Kafka 0.11 and later); {_NOT_STORED}"
        )
    return header


def checksum(buffer: Buffer) -> int:
    """CRC-32C of the part of a batch that its CRC covers."""
    return int(crc32.iscsi(memoryview(buffer)[CRC_START:]))


def split(buffer: Buffer) -> list[memoryview]:
    """Consecutive whole batches, one view each, by their lengths alone. Raises BatchInvalid."""
    view = memoryview(buffer)
    batches = []
    at = 0
    while at < len(view):
        end = at + read_header(view, at).size_bytes
        if not at + HEADER_BYTES <= end <= len(view):
            raise BatchInvalid(
                f"the batch at byte {at} says {end - at} bytes, of which {len(view) - at} are there"
            )
        batches.append(view[at:end])
        at = end
    return batches


def assign(buffer: bytearray | memoryview, base_offset: int, leader_epoch: int) -> None:
    """Give the batch its place, in the buffer itself. The CRC stays right."""
    _PLACE.pack_into(buffer, 0, base_offset)
    _EPOCH.pack_into(buffer, LENGTH_END, leader_epoch)


def assigned(buffer: Buffer, base_offset: int, leader_epoch: int) -> list[Buffer]:
    """The batch in its place, as buffers to be written one behind the other; the body is not copied."""
    view = memoryview(buffer)
    (length,) = _EPOCH.unpack_from(view, 8)
    return [_MOVED.pack(base_offset, length, leader_epoch), view[_MOVED.size :]]

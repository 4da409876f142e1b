"""The frame of segment and snapshot files: content, and a directory of it, twice.

    header │ content ... │ directory │ to the next sector │ directory │ header

No single bad sector takes both copies of either, and the two ends are written by writes of their own, so no single
write that is lost or goes astray does.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from replication.crc import crc32c
from replication.environment import File
from replication.storage.format import FORMAT_VERSION, align

_HEADER = Struct("<8sIIQQQQQI")
_CRC = Struct("<I")
_SEED = Struct("<QQ")
HEADER_BYTES = _HEADER.size + _CRC.size
CONTENT_START = HEADER_BYTES


class Unreadable(Exception):
    """A file's directory cannot be read: both copies are damaged."""


@dataclass(frozen=True, slots=True)
class DirectoryHeader:
    """Who a file is, and where its directory stands."""

    magic: bytes
    rows: int
    number: int
    salt: int
    first_position: int
    second_position: int
    size_bytes: int
    crc: int

    @property
    def seed(self) -> int:
        """What this file's checksums start from: bytes of another file never pass for its own."""
        return seed_of(self.salt, self.number)


def seed_of(salt: int, number: int) -> int:
    """The start of the checksums of a file with that salt and number."""
    return crc32c(_SEED.pack(salt, number))


def write_directory(
    file: File, magic: bytes, number: int, salt: int, content_end: int, rows: int, directory: bytes
) -> DirectoryHeader:
    """Write both directories and both headers behind the content (blocking, not synced). Raises OSError."""
    second = align(content_end + len(directory))
    header = DirectoryHeader(
        magic,
        rows,
        number,
        salt,
        content_end,
        second,
        len(directory),
        crc32c(directory, seed_of(salt, number)),
    )
    encoded = _encode(header)
    file.pwrite([directory], content_end)
    file.pwrite([directory, encoded], second)
    file.pwrite([encoded], 0)
    return header


def read_directory(file: File, magic: bytes) -> tuple[DirectoryHeader, memoryview]:
    """A file's header and directory, by whichever copies are whole (blocking). Raises Unreadable."""
    for at in (0, _size(file) - HEADER_BYTES):
        header = _decode(_read(file, HEADER_BYTES, at), magic)
        if header is None:
            continue
        for position in (header.first_position, header.second_position):
            directory = _read(file, header.size_bytes, position)
            if len(directory) == header.size_bytes and crc32c(directory, header.seed) == header.crc:
                return header, memoryview(directory)
    raise Unreadable("header or directory is damaged, in both copies")


def _size(file: File) -> int:
    return max(file.size(), HEADER_BYTES)


def _read(file: File, size_bytes: int, position: int) -> bytes:
    try:
        return file.pread(size_bytes, position)
    except OSError:  # a sector that cannot be read is as bad as one that is wrong: there is another copy
        return b""


def _encode(header: DirectoryHeader) -> bytes:
    body = _HEADER.pack(
        header.magic,
        FORMAT_VERSION,
        header.rows,
        header.number,
        header.salt,
        header.first_position,
        header.second_position,
        header.size_bytes,
        header.crc,
    )
    return body + _CRC.pack(crc32c(body))


def _decode(data: bytes, magic: bytes) -> DirectoryHeader | None:
    if len(data) < HEADER_BYTES or crc32c(data[: _HEADER.size]) != _CRC.unpack_from(data, _HEADER.size)[0]:
        return None
    found, version, rows, number, salt, first, second, size_bytes, crc = _HEADER.unpack_from(data)
    if found != magic or version != FORMAT_VERSION:
        return None
    return DirectoryHeader(magic, rows, number, salt, first, second, size_bytes, crc)

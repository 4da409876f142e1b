"""How many times a data directory was opened: a number that peers know a process by, and that must never fall.

    life = sector with the number | its copy      each written and synced on its own, in place

A crash between the two leaves the old number in one of them, and nobody has seen the new one yet. Should both be
unreadable, the number of the write-ahead log's file stands in, which rises by at least one with every opening too.
"""

from __future__ import annotations

import errno
from struct import Struct

from replication.crc import crc32c
from replication.environment import Disk, File
from replication.storage.format import SECTOR_BYTES

NAME = "life"
MAGIC = b"PLAITLIF"
_LIFE = Struct("<8sQ")
_CRC = Struct("<I")


def begin_life(disk: Disk, log_file: int) -> tuple[int, int]:
    """Count this opening, durably (blocking); its number, and the one before as far as it could be read, else 0.

    `log_file`: the number of the log file that this process begins, whose header is durable; it is the life's too
    where the disk is too full for a file of its own. Raises OSError.
    """
    if NAME in disk.list(""):
        file = disk.open(NAME)
    else:
        try:
            file = disk.create(NAME, 2 * SECTOR_BYTES)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return log_file, 0
        disk.sync_folder("")
    try:
        former = max(_read(file, 0), _read(file, SECTOR_BYTES))
        life = former + 1 if former else log_file
        for position in (0, SECTOR_BYTES):
            file.pwrite([_encode(life)], position)
            file.sync()
    finally:
        file.close()
    return life, former


def _encode(life: int) -> bytes:
    body = _LIFE.pack(MAGIC, life)
    return body + _CRC.pack(crc32c(body))


def _read(file: File, position: int) -> int:
    try:
        data = file.pread(_LIFE.size + _CRC.size, position)
    except OSError:  # a sector that cannot be read is as bad as one that is wrong: there is another copy
        return 0
    if len(data) < _LIFE.size + _CRC.size or crc32c(data[: _LIFE.size]) != _CRC.unpack_from(data, _LIFE.size)[0]:
        return 0
    magic, life = _LIFE.unpack_from(data)
    return int(life) if magic == MAGIC else 0

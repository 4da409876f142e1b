"""The write-ahead log of a node: one sequential write and one sync commit what all groups have waiting.

    append ─┐                        ┌─ done, in order
    append ─┼─> pending ─> one block ┴─ write + fdatasync in the lane "wal"
    append ─┘   (collects while the block before is being synced)

A full file is closed and handed on (`on_full`); the next one was prepared meanwhile. Any failing write or sync
ends everything: all that waits is told, nothing is tried again, and StorageFailed leaves `run`.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import structlog
import trio

from replication.environment import Buffer, Environment, File
from replication.storage.damage import StorageFailed
from replication.storage.format import (
    BLOCK_HEADER_BYTES,
    ECHO_BLOCKS,
    ECHO_DELETED,
    FILE_HEADER_PLACES,
    FIRST_BLOCK,
    FLAG_SEAL,
    RECORD_BYTES,
    BlockHeader,
    Echo,
    FileHeader,
    align,
    encode_block,
    encode_echo,
    encode_file_header,
)
from replication.storage.settings import StorageSettings

FOLDER = "wal"
WAL_BLOCK_RECORDS = 2048
"""Records of one group commit: bounds the time that building it and answering for it holds the loop."""
JOIN_PARTS = 64
"""Parts of a write from which on small ones are joined: the kernel takes few large ones faster."""
JOIN_BELOW_BYTES = 2048
"""Average size of parts that counts as small."""
SMALL_FILE_BYTES = 1 << 20
"""Size of a file where the disk has no room for one of the usual size."""
SPARE_RETRY_MS = 1_000
"""Wait after the disk had no room for the next file."""

SLOW_SYNC_MS = 1_000
"""A write with its sync that takes so long is counted and logged: every publish waited for it."""

_logger = structlog.get_logger("plait.storage")

Done = Callable[[Exception | None], None]


class Log(Protocol):
    """A group's log, as the writer sees it."""

    group: int

    def placed(self, number: int, last_index: int) -> None:
        """Entries up to `last_index` (0: no entries) go to file `number`."""


class Append:
    """What is written together or not at all."""

    __slots__ = ("deletes", "done", "last_index", "log", "payload_bytes", "payloads", "records", "table")

    def __init__(
        self,
        log: Log | None,
        table: list[bytes],
        records: int,
        payloads: Sequence[Buffer] = (),
        payload_bytes: int = 0,
        last_index: int = 0,
        done: Done | None = None,
        deletes: bool = False,
    ) -> None:
        self.log = log
        self.table = table
        self.records = records
        self.payloads = payloads
        self.payload_bytes = payload_bytes
        self.last_index = last_index
        self.done = done
        self.deletes = deletes

    @property
    def size_bytes(self) -> int:
        """What it takes in a block."""
        return self.records * RECORD_BYTES + self.payload_bytes


@dataclass(slots=True)
class FirstBlock:
    """The last block that recovery found, to be written once more: the next file begins with it.

    Nobody vouches for the last block of a log: a former process may have failed to sync it, and reads may have
    seen it in a cache that the disk never got. It is as it was, under the number that it had.
    """

    groups: tuple[int, ...] = ()
    records: int = 0
    table: list[bytes] = field(default_factory=list)
    payloads: list[Buffer] = field(default_factory=list)
    payload_bytes: int = 0


class Wal:
    """The writer of the log, continuing where recovery found its end."""

    def __init__(
        self,
        environment: Environment,
        settings: StorageSettings,
        continues: FileHeader,
        on_full: Callable[[int], None],
        free_space: Callable[[], bool],
    ) -> None:
        """`continues` is the header of the first file to write; its salt is drawn anew.

        `free_space` gives up ballast when a file does not fit on the disk; True if it is worth another try.
        """
        self._environment = environment
        self._settings = settings
        self._next = continues
        self._echo: Echo = ()
        self._on_full = on_full
        self._free_space = free_space
        self._pending: deque[Append] = deque()
        self._wake = trio.Event()
        self._ended = trio.Event()
        self._closing = False
        self.closed = False
        """True behind an orderly end of `run`."""
        self._started = False
        self._sealed = True  # nothing was written that a seal would have to vouch for
        self._file: File | None = None
        self._header = continues
        self._seed = 0
        self._position = 0
        self._size_bytes = 0
        self._entries = 0
        self._seq = continues.previous_seq
        self._spare: tuple[File, str] | None = None
        self._spares = 0
        self._spare_taken = trio.Event()
        self._rotate_from = 0
        self.on_no_room: Callable[[], None] = lambda: None
        """Called when there is no room on the disk for the next file."""
        self.failed: StorageFailed | None = None
        self.no_room = False
        """True while there is no room on the disk for the next file."""
        self.bytes_written = 0
        self.blocks_written = 0
        self.sync_ns = 0
        """Time that writing and syncing them took."""
        self.sync_began_ns = 0
        """When the one that is under way began; 0: none is."""
        self.slow_syncs = 0
        """Those that took SLOW_SYNC_MS or longer."""

    @property
    def number(self) -> int:
        """The file that is being written, or the first one to come."""
        return self._header.number

    def append(self, item: Append) -> None:
        """Have it written with whatever else waits. `done` is called on the loop, in order of append.

        Behind a failure `done` gets the error at once.
        """
        if self.failed is not None:
            if item.done is not None:
                item.done(self.failed)
            return
        self._pending.append(item)
        self._wake.set()

    def clip(self, log: Log, index: int) -> None:
        """What waits of this log was truncated behind `index`."""
        for item in self._pending:
            if item.log is log:
                item.last_index = min(item.last_index, index)

    async def barrier(self) -> None:
        """Return when everything appended so far is synced. Raises StorageFailed."""
        synced = trio.Event()
        self.append(Append(None, [], 0, done=lambda _: synced.set()))
        await synced.wait()
        if self.failed is not None:
            raise self.failed

    def rotate(self, number: int) -> None:
        """Close file `number`, as soon as the next one is ready, as if it were full; it has something in it."""
        self._rotate_from = max(self._rotate_from, number)
        self._wake.set()

    async def close(self) -> None:
        """Write what waits and a last seal; return when `run` has ended."""
        self._closing = True
        self._wake.set()
        if self._started:
            await self._ended.wait()
        else:
            await self.run()
        file, self._file = self._file, None
        if file is not None:
            await self._environment.tasks.offload("wal", file.close)

    async def start(self, first: FirstBlock | None, echo: Echo) -> None:
        """Begin the first file, with that block in it. Raises OSError."""
        self._echo = echo
        await self._open_next(FIRST_BLOCK, first)

    async def run(self) -> None:
        """Write until closed. Raises StorageFailed."""
        if self._started:
            return  # it was closed before this task had its first turn
        self._started = True
        try:
            while await self._rest():
                batch = None if self._rotation_due() else self._take()
                if batch is None:
                    self._on_full(await self._rotate())
                else:
                    await self._write(batch)
            self.closed = True
            self.failed = StorageFailed("the write-ahead log is closed")
        except OSError as error:
            raise self.fail(error)
        finally:
            self._ended.set()

    async def keep_spare(self) -> None:
        """Have the next file ready before it is needed, until cancelled. Raises StorageFailed."""
        while True:
            if self._spare is None:
                await self._prepare_spare()
                self._wake.set()
            self._spare_taken = trio.Event()
            if self.no_room:
                with trio.move_on_after(SPARE_RETRY_MS / 1e3):
                    await self._spare_taken.wait()
            else:
                await self._spare_taken.wait()

    # ---- the writer

    async def _rest(self) -> bool:
        """Wait for work; seal when there is none for a while. False: closed, and all is written."""
        while self.failed is None and not self._pending and not self._rotation_due():
            if self._closing:
                if self._sealed:
                    return False
                await self._write_seal()  # what is appended meanwhile is written, too
                continue
            self._wake = trio.Event()
            if self._sealed:
                await self._wake.wait()
                continue
            with trio.move_on_after(self._settings.seal_after_ms / 1e3):
                await self._wake.wait()
            if not self._wake.is_set():
                await self._write_seal()
        if self.failed is not None:
            raise self.failed
        return True

    def _rotation_due(self) -> bool:
        """Somebody wants the file closed, and that cannot fail for want of room."""
        return self._rotate_from >= self.number and self._position > FIRST_BLOCK and self._spare is not None

    def _take(self) -> list[Append] | None:
        """What goes into the next block, at least one append; None if the file is full."""
        empty = self._position == FIRST_BLOCK
        if self._entries >= self._settings.wal_file_entries and not empty:
            return None
        room = self._size_bytes - self._position - BLOCK_HEADER_BYTES - self._echo_bytes()
        pending = self._pending
        batch: list[Append] = []
        size_bytes = records = 0
        while pending:
            size_bytes += pending[0].size_bytes
            records += pending[0].records
            if batch:
                if size_bytes > min(room, self._settings.wal_write_bytes) or records > WAL_BLOCK_RECORDS:
                    break
            elif size_bytes > room and not empty:
                return None
            batch.append(pending.popleft())
        return batch

    def _echo_bytes(self) -> int:
        return sum(8 * (len(groups) + 1) for groups in self._echo if groups is not None)

    async def _write(self, batch: list[Append]) -> None:
        groups = self._place(batch)
        table = [row for item in batch for row in item.table]
        payloads = [payload for item in batch for payload in item.payloads]
        try:
            if table:
                await self._write_block(batch, table, payloads, groups)
        except OSError:
            self._pending.extendleft(reversed(batch))  # they are told first
            raise
        for item in batch:
            if item.done is not None:
                item.done(self.failed)  # set if something else failed meanwhile: then nothing succeeds any more

    def _place(self, batch: list[Append]) -> tuple[int, ...]:
        """Tell the logs where their entries go; the groups of the block, as its echo will name them."""
        number = self._header.number
        groups: dict[int, None] = {}
        for item in batch:
            log = item.log
            if log is not None:
                log.placed(number, item.last_index)
                groups[log.group] = None
        if any(item.deletes for item in batch):
            gone = {item.log.group for item in batch if item.deletes and item.log is not None}
            return tuple(group | ECHO_DELETED if group in gone else group for group in groups)
        return tuple(groups)

    async def _write_block(
        self,
        batch: list[Append],
        table: list[bytes],
        payloads: list[Buffer],
        groups: tuple[int, ...],
        flags: int = 0,
    ) -> None:
        records = sum(item.records for item in batch)
        payload_bytes = sum(item.payload_bytes for item in batch)
        echo_count, echo = encode_echo(self._echo)
        header = BlockHeader(
            flags, self._seq + 1, self._seq, self._position, records, echo_count, payload_bytes, table_crc=0
        )
        parts = encode_block(header, self._seed, table, echo, payloads)
        assert self._file is not None, "the writer runs with an open file"
        clock = self._environment.clock
        began_ns = self.sync_began_ns = clock.monotonic_ns()
        await self._environment.tasks.offload("wal", partial(_write_and_sync, self._file, parts, self._position))
        self._synced(clock.monotonic_ns() - began_ns, header.end - self._position)
        self._advance(header, groups)

    def _synced(self, took_ns: int, size_bytes: int) -> None:
        self.bytes_written += size_bytes
        self.blocks_written += 1
        self.sync_ns += took_ns
        self.sync_began_ns = 0
        if took_ns >= SLOW_SYNC_MS * 1_000_000:
            self.slow_syncs += 1
            _logger.warning("slow sync", ms=took_ns // 1_000_000, bytes=size_bytes, slow_syncs=self.slow_syncs)

    async def _write_seal(self) -> None:
        """A full file grows by its seal: else rot in its last block could pass for a torn write."""
        try:
            await self._write_block([], [], [], (), FLAG_SEAL)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            self._sealed = True  # nothing was to be saved; the next file's header will vouch for this one

    def fail(self, error: OSError) -> StorageFailed:
        """Fence everything: nothing that was not synced by now ever will be. The error to raise."""
        if self.failed is None:
            self.failed = StorageFailed(f"this node's disk failed and nothing more is written: {error}")
            self.failed.__cause__ = error
        self._wake.set()
        pending, self._pending = self._pending, deque()
        for item in pending:
            if item.done is not None:
                item.done(self.failed)
        return self.failed

    # ---- files

    async def _rotate(self) -> int:
        """Close the full file and open the next; the number of the full one."""
        full, old = self._header.number, self._file
        self._next = FileHeader(full + 1, 0, full, self._seq, self._position)
        size_bytes = BLOCK_HEADER_BYTES
        if not self._rotation_due():
            size_bytes += self._echo_bytes() + self._pending[0].size_bytes
        await self._open_next(FIRST_BLOCK + align(size_bytes), None)
        if old is not None:
            await self._environment.tasks.offload("wal", old.close)
        return full

    async def _open_next(self, least_bytes: int, first: FirstBlock | None) -> None:
        """Begin the next file, with room for at least `least_bytes`."""
        salt = self._environment.random.getrandbits(64)
        after = self._next
        header = FileHeader(after.number, salt, after.previous_number, after.previous_seq, after.previous_end)
        spare = self._spare if least_bytes <= self._settings.wal_file_bytes else None
        if spare is not None:
            self._spare = None
            self._spare_taken.set()
        self._seed = header.seed
        self._position, self._entries = FIRST_BLOCK, 0
        parts = self._first_parts(first) if first is not None else []
        start = partial(self._start_file, header, least_bytes, spare, parts)
        self._file, self._size_bytes = await self._environment.tasks.offload("wal", start)
        self._header = header
        self._sealed = True  # the header vouches for everything before, and the file's name for its first block

    def _first_parts(self, first: FirstBlock) -> list[Buffer]:
        count, echo = encode_echo(self._echo)
        header = BlockHeader(
            0, self._seq + 1, self._seq, FIRST_BLOCK, first.records, count, first.payload_bytes, table_crc=0
        )
        parts = encode_block(header, self._seed, first.table, echo, first.payloads)
        self._advance(header, first.groups)
        return parts

    def _advance(self, header: BlockHeader, groups: tuple[int, ...]) -> None:
        """A block was written."""
        self._position = header.end
        self._size_bytes = max(self._size_bytes, header.end)
        self._seq = header.seq
        self._entries += header.records
        self._echo = (groups, *self._echo)[:ECHO_BLOCKS]
        self._sealed = bool(header.flags & FLAG_SEAL)

    def _start_file(
        self, header: FileHeader, least_bytes: int, spare: tuple[File, str] | None, parts: list[Buffer]
    ) -> tuple[File, int]:
        """Blocking. The header is durable under the file's name before any other block is written."""
        disk = self._environment.disk
        file, name = spare or self._create(f"{FOLDER}/{header.number:012d}.tmp", least_bytes)
        for place in FILE_HEADER_PLACES:  # one write each: a write that goes astray spares the other
            file.pwrite([encode_file_header(header)], place)
        if parts:
            file.pwrite(parts, FIRST_BLOCK)
        file.sync()
        disk.rename(name, file_name(header.number))
        disk.sync_folder(FOLDER)
        return file, file.size()

    def _create(self, name: str, least_bytes: int) -> tuple[File, str]:
        """A file of the usual size; where the disk is full without ballast, or else a smaller one."""
        usual_bytes = max(self._settings.wal_file_bytes, least_bytes)
        small_bytes = min(max(SMALL_FILE_BYTES, least_bytes), usual_bytes)
        for size_bytes in (usual_bytes, usual_bytes, small_bytes):
            try:
                return self._environment.disk.create(name, size_bytes), name
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                self._free_space()
        return self._environment.disk.create(name, least_bytes), name

    async def _prepare_spare(self) -> None:
        self._spares += 1
        name = f"{FOLDER}/spare-{self._spares:012d}.tmp"
        try:
            self._spare = await self._environment.tasks.offload("wal-files", partial(self._make_spare, name))
            self.no_room = False
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise self.fail(error)
            self.no_room = True  # the writer can still try, when it needs the file; until then admission refuses
            self.on_no_room()

    def _make_spare(self, name: str) -> tuple[File, str]:
        file = self._environment.disk.create(name, self._settings.wal_file_bytes)
        file.sync()
        return file, name


def file_name(number: int) -> str:
    """Name of a write-ahead log file."""
    return f"{FOLDER}/{number:012d}.wal"


def _write_and_sync(file: File, parts: list[Buffer], position: int) -> None:
    if len(parts) > JOIN_PARTS and sum(map(len, parts)) < JOIN_BELOW_BYTES * len(parts):
        parts = [b"".join(parts)]
    file.pwrite(parts, position)
    file.sync()

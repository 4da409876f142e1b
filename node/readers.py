"""Reading a topic's partition: fetches that wait for records, and offsets found by time.

Only committed records are given out: an entry that is in the log but not on a majority's disks does not exist yet.
A replica that follows gives out what it has applied, to those who say that this is enough.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

from node.entries import batch_of
from node.state import PartitionState
from plait.wire.batch import iterate, read_header
from plait.wire.errors import BatchInvalid, LimitReached, OffsetOutOfRange, PlaitError
from replication.actor import Promise
from replication.environment import Buffer, Tasks
from replication.machine import Entry
from replication.storage.log import GroupLog

WAITING_FETCHES = 20_000
"""Fetches that may wait for records at one partition."""
FETCH_BYTES_MAX = 8 << 20
"""What one fetch gives at the most, unless its first batch alone is larger."""
SCAN_BYTES = 1 << 20
"""What one step of a search by time reads."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """Batches from a partition; the first may begin before the offset that was asked for."""

    start_offset: int
    end_offset: int
    """The high watermark: the offset behind the last committed record."""
    next_offset: int
    """Where the next fetch goes on."""
    batches: Sequence[Buffer]


@dataclass(frozen=True, slots=True)
class Located:
    """An offset that was looked for, within a partition that has the records from start to end - 1."""

    offset: int
    start: int
    end: int


@dataclass(slots=True)
class Fetch:
    """A request for records from `offset` on, waiting up to `wait_ms` for the first."""

    offset: int
    max_bytes: int
    wait_ms: int
    nearest: bool = False
    """A replica that only follows may answer."""
    promise: Promise[Fetched] = field(default_factory=Promise)


@dataclass(slots=True)
class Locate:
    """A request for the start, the end, or the first record whose timestamp is at least `at` (ms)."""

    at: str | int
    promise: Promise[Located] = field(default_factory=Promise)


class Readers:
    """The fetches of one partition, answered at once, later, or empty when their time is over."""

    def __init__(self, name: str, state: PartitionState, log: GroupLog, tasks: Tasks) -> None:
        self._name = name
        self._state = state
        self._log = log
        self._tasks = tasks
        self._waiting: list[tuple[int, int, Fetch]] = []  # heap by (deadline_ns, number)
        self._number = 0

    def is_certain(self, request: Fetch) -> bool:
        """Whether what `fetch` does now is right even if another replica leads by now: records that are committed
        stay, and who waits is told nothing. That there is no such record must be confirmed by the group."""
        state = self._state
        if request.offset == state.next_offset:
            return request.wait_ms > 0
        return state.start_offset <= request.offset < state.next_offset

    def fetch(self, request: Fetch, now_ns: int) -> None:
        """Answer a fetch, or let it wait."""
        state, offset = self._state, request.offset
        if not state.start_offset <= offset <= state.next_offset:
            request.promise.reject(self._out_of_range(offset))
        elif offset < state.next_offset:
            self._give(request)
        elif request.wait_ms <= 0:
            request.promise.resolve(self._fetched(offset, []))
        elif not self._has_room():
            request.promise.reject(
                LimitReached(
                    f"{self._name} has {WAITING_FETCHES} fetches waiting; nothing was read; try again later"
                )
            )
        else:
            self._number += 1
            heapq.heappush(self._waiting, (now_ns + request.wait_ms * 1_000_000, self._number, request))

    def wake(self) -> None:
        """There are new records: give them to everyone who waits."""
        waiting, self._waiting = self._waiting, []
        for deadline_ns, number, request in waiting:
            if request.promise.abandoned:
                continue
            if request.offset < self._state.next_offset:
                self._give(request)
            else:
                heapq.heappush(self._waiting, (deadline_ns, number, request))

    def expired(self, now_ns: int) -> list[Fetch]:
        """Those whose time is over, which do not wait any more: `give_up` answers them."""
        over: list[Fetch] = []
        while self._waiting and self._waiting[0][0] <= now_ns:
            request = heapq.heappop(self._waiting)[2]
            if not request.promise.abandoned:
                over.append(request)
        return over

    def give_up(self, request: Fetch) -> None:
        """Answer one whose time is over, with nothing unless something has come after all."""
        if request.offset < self._state.next_offset:
            self._give(request)
        else:
            request.promise.resolve(self._fetched(request.offset, []))

    @property
    def next_deadline_ns(self) -> int | None:
        """When `expired` has something to say."""
        return self._waiting[0][0] if self._waiting else None

    def fail(self, error: PlaitError) -> None:
        """Answer everyone who waits with an error."""
        waiting, self._waiting = self._waiting, []
        for _, _, request in waiting:
            request.promise.reject(error)

    def locate(self, request: Locate) -> None:
        """Answer where something is."""
        start, end = self._state.start_offset, self._state.next_offset
        if request.at == "start":
            request.promise.resolve(Located(start, start, end))
        elif request.at == "end":
            request.promise.resolve(Located(end, start, end))
        else:
            assert isinstance(request.at, int), "parsed by the gateway"
            self._tasks.spawn(f"{self._name}/locate", self._search, request.at, request.promise)

    def _has_room(self) -> bool:
        """Whether one more may wait; those whose askers are gone do not count."""
        if len(self._waiting) >= WAITING_FETCHES:
            self._waiting = [waiting for waiting in self._waiting if not waiting[2].promise.abandoned]
            heapq.heapify(self._waiting)
        return len(self._waiting) < WAITING_FETCHES

    def _give(self, request: Fetch) -> None:
        max_bytes = min(request.max_bytes, FETCH_BYTES_MAX)
        entries = self._log.cached_marks(request.offset, max_bytes)
        if entries is None:
            # what is not committed yet may be another entry by the time that it is
            self._tasks.spawn(f"{self._name}/read", self._read, request, max_bytes, self._state.next_offset)
        else:
            request.promise.resolve(self._fetched(request.offset, entries))

    async def _read(self, request: Fetch, max_bytes: int, committed: int) -> None:
        try:
            entries = await self._log.read_marks(request.offset, max_bytes)
        except PlaitError as error:
            request.promise.reject(error)
            return
        if request.offset < self._state.start_offset:  # trimmed meanwhile: what came back may have a gap
            request.promise.reject(self._out_of_range(request.offset))
        else:
            request.promise.resolve(self._fetched(request.offset, entries, committed))

    def _fetched(self, offset: int, entries: Sequence[Entry], committed: int | None = None) -> Fetched:
        state = self._state
        batches: list[Buffer] = []
        for entry in entries:
            if entry.mark + entry.span > (state.next_offset if committed is None else committed):
                break  # proposed and not committed
            batches.append(batch_of(entry.payload))
            offset = entry.mark + entry.span
        return Fetched(state.start_offset, state.next_offset, offset, batches)

    def _out_of_range(self, offset: int) -> OffsetOutOfRange:
        start, end = self._state.start_offset, self._state.next_offset
        return OffsetOutOfRange(
            f"{self._name} has the records from offset {start} to {end - 1}, not {offset}; nothing was read; "
            "begin at the start, the end or a time",
            start=start,
            end=end,
        )

    async def _search(self, timestamp_ms: int, promise: Promise[Located]) -> None:
        """Scan forward from the milestone before it: the first record with at least this timestamp."""
        try:
            offset = await self._first_at(timestamp_ms)
        except PlaitError as error:
            promise.reject(error)
            return
        promise.resolve(Located(offset, self._state.start_offset, self._state.next_offset))

    async def _first_at(self, timestamp_ms: int) -> int:
        offset = max(self._state.milestones.before_timestamp(timestamp_ms), self._state.start_offset)
        end = self._state.next_offset
        while offset < end:
            entries = self._log.cached_marks(offset, SCAN_BYTES)
            if entries is None:
                entries = await self._log.read_marks(offset, SCAN_BYTES)
            for entry in entries:
                if entry.mark + entry.span > end:
                    return end
                batch = batch_of(entry.payload)
                if read_header(batch).max_timestamp_ms >= timestamp_ms:
                    found = _first_record_at(batch, timestamp_ms)
                    if found is not None:
                        return max(found, offset)
                offset = entry.mark + entry.span
            if not entries:
                return end
            await trio.lowlevel.checkpoint()
        return end


def _first_record_at(batch: Buffer, timestamp_ms: int) -> int | None:
    """The offset of a batch's first record with at least that timestamp.

    None if there is none: the header of a compressed batch says what its producer liked.
    """
    try:
        return next((record.offset for record in iterate(batch) if record.timestamp_ms >= timestamp_ms), None)
    except BatchInvalid:  # not opened when it was taken; its readers are the ones to judge it
        return read_header(batch).base_offset

"""What a queue gives up goes to its dead-letter queue, exactly once through any crash.

    DEAD_LETTER ──> outbox (replicated, in order) ──publish, sequence = moved so far──> target ──> DEAD_LETTERED

The first range of the outbox stays the same until it is known to be moved. Its head is published with a producer
id of the group's own and a sequence that follows from the replicated count: whoever leads after a crash sends the
same batch again, and the target knows it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from node.source import RecordSource
from plait.wire.batch import BatchBuilder, Record, iterate_run
from replication.environment import Buffer
from replication.machine import Range

OUTBOX_PRODUCERS = 1 << 62
"""Producer ids from here on belong to groups' outboxes: this plus the group's number."""
MOVE_RECORDS = 256
"""Records moved to the dead-letter queue in one batch."""
MOVE_BYTES = 1 << 20
"""Bytes from which a batch of dead letters is not filled up any more; one large record may exceed it."""
# What a batch holds follows from these two and the log, and nothing else: one that is sent again after a crash is
# known by its first and last sequence number.
SEQUENCES = 1 << 31
"""Sequences count up to here and begin again at 0 (KIP-98)."""

HEADER_REASON = "plait.dead-letter.reason"
HEADER_QUEUE = "plait.dead-letter.queue"
HEADER_OFFSET = "plait.dead-letter.offset"


class Outbox:
    """Offsets on their way to the dead-letter queue, in the order of giving up; replicated state."""

    def __init__(self) -> None:
        self.moved = 0  # records moved so far
        self.records = 0  # records that wait; the sum over _waiting
        self._waiting: deque[Range] = deque()  # in order of giving up, not of offset; the first never grows

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, ranges: Iterable[Sequence[int]]) -> None:
        """These were given up."""
        waiting = self._waiting
        for first, last in ranges:
            self.records += last - first + 1
            if len(waiting) > 1 and waiting[-1][1] + 1 == first:
                first = waiting.pop()[0]
            waiting.append((first, last))

    def head(self) -> Range:
        """What is to be moved next, if it is not too large for one batch; the same until `done`."""
        first, last = self._waiting[0]
        return first, min(last, first + MOVE_RECORDS - 1)

    def done(self, first: int, last: int) -> bool:
        """These are in the dead-letter queue; False, and nothing done, if the outbox does not begin with them."""
        if not self._waiting or self._waiting[0][0] != first or not first <= last <= self._waiting[0][1]:
            return False
        whole = self._waiting.popleft()[1]
        if last < whole:
            self._waiting.appendleft((last + 1, whole))
        self.moved += last - first + 1
        self.records -= last - first + 1
        return True

    def snapshot(self) -> list[Any]:
        """Canonical plain lists."""
        return [self.moved, [list(each) for each in self._waiting]]

    @classmethod
    def restored(cls, snapshot: list[Any]) -> Outbox:
        """What `snapshot` described."""
        outbox = cls()
        outbox.moved, waiting = snapshot
        outbox._waiting.extend((first, last) for first, last in waiting)
        outbox.records = sum(last - first + 1 for first, last in waiting)
        return outbox


@dataclass(frozen=True, slots=True)
class Letter:
    """Where a batch of dead letters comes from."""

    queue: str
    group: int
    reason: str


async def pack(source: RecordSource, outbox: Outbox, letter: Letter) -> tuple[bytes, Range]:
    """The head of the outbox as a batch for the dead-letter queue, and which records that is.

    Raises StorageDamaged.
    """
    first, last = outbox.head()
    head = first
    builder = BatchBuilder(
        producer_id=OUTBOX_PRODUCERS + letter.group, producer_epoch=0, base_sequence=outbox.moved % SEQUENCES
    )
    while first <= last and builder.size_bytes < MOVE_BYTES:
        runs, following = source.runs(first, last)
        for record in chain.from_iterable(iterate_run(run) for run in runs):
            _append(builder, record, letter)
            first = record.offset + 1
            if builder.size_bytes >= MOVE_BYTES:
                break
        else:
            if following <= last:
                await source.load(following)
    return builder.build(), (head, first - 1)


def _append(builder: BatchBuilder, record: Record, letter: Letter) -> None:
    headers: list[tuple[str, Buffer | None]] = [
        *record.headers,
        (HEADER_REASON, letter.reason.encode()),
        (HEADER_QUEUE, letter.queue.encode()),
        (HEADER_OFFSET, str(record.offset).encode()),
    ]
    builder.append(record.value, record.key, headers, timestamp_ms=record.timestamp_ms)

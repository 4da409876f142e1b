"""What one partition's batches go through between producer and broker. Pure: no clock, loop or socket.

                 take (at most 5 under way)               answered
    waiting ───────────────────────────────> under way ─────────────> stored
       ^  ^                                    │   │
       │  └── lost connection: same sequence ──┘   └── refused for good, or too late ──> failed
       └───── refused for now: all of them, in order, once nothing is under way any more

An idempotent sequencer gives each batch the producer id, epoch and sequence that it keeps through all tries
(Kafka protocol guide, "Record Batch"; KIP-98). The broker remembers a producer's last five batches of a
partition, so a batch that is sent again is stored once, in its place. A batch that failed leaves a gap; the
broker refuses what follows a gap (SequenceOutOfOrder, hence not stored), and that follows under a new id.
"""

from __future__ import annotations

import struct
from collections import deque
from dataclasses import dataclass

from fastcrc import crc32

from plait.wire.errors import OutcomeUnknown, PlaitError, SequenceOutOfOrder, TimedOut
from plait.wire.messages import Published

BATCHES_UNDER_WAY_MAX = 5
"""Batches of one partition sent and not answered; as many as the broker remembers per producer."""
IDENTITIES_PER_BATCH_MAX = 3
"""Producer ids that one batch is tried under before its SequenceOutOfOrder is passed on."""
RETRY_AFTER_LEAST_S = 0.02
"""Wait before a refused batch is sent again, where the broker names no longer one."""
LAST_TRY_S = 1.0
"""A refused batch is not sent again with less time left: the answer might come too late, and a refusal is better
than not to know."""

_IDENTITY = struct.Struct(">qhi")
_IDENTITY_AT = 43
_CRC = struct.Struct(">I")
_CRC_AT = 17
_CRC_FROM = 21


class Batch:
    """One encoded RecordBatch on its way."""

    __slots__ = (
        "count",
        "data",
        "deadline_s",
        "doubtful",
        "failed",
        "identities",
        "number",
        "refusal",
        "sequence",
        "size_bytes",
    )

    def __init__(self, data: bytes | bytearray, count: int, deadline_s: float) -> None:
        self.data = data
        self.count = count
        self.size_bytes = len(data)
        self.deadline_s = deadline_s
        self.number = 0
        self.sequence: int | None = None
        self.identities = 0
        self.doubtful = False
        """It was sent on a connection that was lost before the answer: it may be stored."""
        self.failed = False
        """Its producer has been told that it failed; a late answer changes nothing."""
        self.refusal: PlaitError | None = None
        """Why it was not taken at the last try."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one batch: stored, or failed with an error."""

    batch: Batch
    stored: Published | None
    error: PlaitError | None


def stamp(data: bytes | bytearray, producer_id: int, epoch: int, sequence: int) -> bytearray:
    """The batch under a producer's name, its checksum made anew (RecordBatch v2, bytes 43 to 56; CRC at 17)."""
    stamped = bytearray(data)
    _IDENTITY.pack_into(stamped, _IDENTITY_AT, producer_id, epoch, sequence)
    _CRC.pack_into(stamped, _CRC_AT, crc32.iscsi(memoryview(stamped)[_CRC_FROM:]))
    return stamped


class Sequencer:
    """The batches of one partition of one producer. Times are seconds of whatever clock the caller keeps to."""

    def __init__(self, idempotent: bool) -> None:
        self._idempotent = idempotent
        self._waiting: deque[Batch] = deque()
        self._under_way: list[Batch] = []
        self._refused: list[Batch] = []
        self._not_before_s = 0.0
        self._count = 0
        self._identity: tuple[int, int] | None = None
        self._next_sequence = 0
        self._gap = False
        self._known = False
        """The broker has stored a batch under this identity, and refuses what does not follow from then on.
        Before, it would take any batch for the first one, also one behind a batch that it has just refused."""

    @property
    def has_room(self) -> bool:
        """Whether a batch added now could go out at once, as far as the window is concerned."""
        return not self._waiting and not self._refused and len(self._under_way) < BATCHES_UNDER_WAY_MAX

    @property
    def idle(self) -> bool:
        """Whether nothing is under way: what comes next may go another way."""
        return not self._under_way

    @property
    def needs_identity(self) -> bool:
        """Whether nothing goes on before `identify` is called."""
        return (
            self._idempotent
            and self._identity is None
            and bool(self._waiting)
            and self._waiting[0].sequence is None
            and not self._under_way
        )

    def identify(self, producer_id: int, epoch: int) -> None:
        """Use a producer id that nobody has used on this partition before."""
        self._identity = (producer_id, epoch)
        self._next_sequence = 0
        self._known = False

    def add(self, batch: Batch) -> None:
        """Put a batch behind all the others."""
        self._count += 1
        batch.number = self._count
        self._waiting.append(batch)

    def take(self, now_s: float) -> list[Batch]:
        """The batches to send now, in order."""
        taken: list[Batch] = []
        if self._refused or now_s < self._not_before_s:
            return taken
        most = BATCHES_UNDER_WAY_MAX if self._known or not self._idempotent else 1
        while self._waiting and len(self._under_way) < most:
            first = self._waiting[0]
            if _is_last_moment(first, now_s) or not self._ready(first):
                break
            batch = self._waiting.popleft()
            self._under_way.append(batch)
            taken.append(batch)
        return taken

    def answered(self, batch: Batch, stored: Published, now_s: float) -> list[Outcome]:
        """The broker has stored the batch (now, or at an earlier try)."""
        self._under_way.remove(batch)
        self._known = True
        if stored.throttle_ms:
            self._not_before_s = max(self._not_before_s, now_s + stored.throttle_ms / 1000)
        self._turn_back()
        return [] if batch.failed else [Outcome(batch, stored, None)]

    def refused(self, batch: Batch, error: PlaitError, now_s: float) -> list[Outcome]:
        """The broker has answered with an error."""
        self._under_way.remove(batch)
        final = self._judge(batch, error, now_s)
        if final is not None or batch.failed:
            self._gap = self._gap or batch.sequence is not None
        else:
            batch.refusal = error
            self._refused.append(batch)
        self._turn_back()
        return [] if final is None or batch.failed else [Outcome(batch, None, final)]

    def lost(self) -> list[Outcome]:
        """The connection is gone: what was under way is sent again, or its outcome is unknown for ever."""
        under_way, self._under_way = self._under_way, []
        outcomes = []
        for batch in under_way:
            batch.doubtful = True
            if batch.failed:
                self._gap = self._idempotent
            elif self._idempotent:
                self._refused.append(batch)
            else:
                outcomes.append(Outcome(batch, None, _unknown(batch)))
        self._not_before_s = 0.0
        self._turn_back()
        return outcomes

    def expire(self, now_s: float) -> list[Outcome]:
        """Give up the batches whose deadline has passed."""
        outcomes = []
        for batch in self._under_way:
            if batch.deadline_s <= now_s and not batch.failed:
                batch.failed = batch.doubtful = True  # its place stays taken until the broker answers
                outcomes.append(Outcome(batch, None, _unknown(batch)))
        for source in (self._refused, self._waiting):
            late = [batch for batch in source if batch.deadline_s <= now_s]
            for batch in late:
                source.remove(batch)
                self._gap = self._gap or batch.sequence is not None
                outcomes.append(Outcome(batch, None, _too_late(batch)))
        self._turn_back()
        return outcomes

    def next_time_s(self, now_s: float) -> float | None:
        """When `take` or `expire` may have something to say without anything else happening."""
        times = [batch.deadline_s for batch in self._under_way if not batch.failed]
        times += [batch.deadline_s for batch in self._refused]
        if self._waiting:
            times.append(self._waiting[0].deadline_s)  # the oldest is first
            if self._not_before_s > now_s:
                times.append(self._not_before_s)
        return min(times, default=None)

    def _ready(self, batch: Batch) -> bool:
        if not self._idempotent or batch.sequence is not None:
            return True
        if self._gap:
            if not self._under_way:  # nothing more comes under the old id
                self._identity = None
                self._gap = False
            return False
        if self._identity is None:
            return False
        batch.sequence = self._next_sequence
        batch.identities += 1
        batch.data = stamp(batch.data, *self._identity, batch.sequence)
        self._next_sequence = (self._next_sequence + batch.count) & 0x7FFFFFFF
        return True

    def _judge(self, batch: Batch, error: PlaitError, now_s: float) -> PlaitError | None:
        """The error that ends the batch, or None: it is to be sent again."""
        if isinstance(error, SequenceOutOfOrder) and self._idempotent:
            return self._judge_sequence(batch, error)
        if error.unknown:
            batch.doubtful = True
            return None if self._idempotent else error
        if not error.retriable:
            return error
        self._not_before_s = max(self._not_before_s, now_s + max(error.retry_after_s, RETRY_AFTER_LEAST_S))
        return None

    def _judge_sequence(self, batch: Batch, error: PlaitError) -> PlaitError | None:
        if self._refused and not self._gap:
            return None  # an earlier batch waits for its next try, this one follows it
        if batch.doubtful:
            return _unknown(batch)  # if the broker has forgotten this producer, it may have stored it before
        if batch.identities >= IDENTITIES_PER_BATCH_MAX:
            return error
        batch.sequence = None
        self._gap = True
        return None

    def _turn_back(self) -> None:
        """Once nothing is under way, line up again what was refused."""
        if self._refused and not self._under_way:
            self._refused.sort(key=_number)
            self._waiting.extendleft(reversed(self._refused))
            self._refused.clear()


def _is_last_moment(batch: Batch, now_s: float) -> bool:
    refused = batch.refusal is not None and not batch.doubtful
    return refused and batch.deadline_s - now_s < LAST_TRY_S


def _number(batch: Batch) -> int:
    return batch.number


def _unknown(batch: Batch) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"A batch of {batch.count} records was sent and no answer came: it may or may not be stored. "
        "Publish it again only if a duplicate does no harm, or use an idempotent producer with a longer deadline.",
        records=batch.count,
    )


def _too_late(batch: Batch) -> PlaitError:
    if batch.doubtful:
        return _unknown(batch)
    if batch.refusal is not None:
        return batch.refusal
    return TimedOut(
        f"A batch of {batch.count} records could not be sent within its deadline; it was not stored. "
        "Check that the broker can be reached, or allow more time with `deadline_s`.",
        records=batch.count,
    )

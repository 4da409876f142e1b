"""Idempotent producers: a batch that is sent again is stored once.

Kafka's semantics (KIP-98 "Idempotent Producer", KIP-360), per partition. A producer numbers its records; a batch
says the number of its first one and must follow the last batch without a gap. The last REMEMBERED_BATCHES are
remembered, as many as a Kafka producer may have under way, so a repetition of one of them gets its first answer.

Decisions where Kafka's versions differ:
- A producer that is not in the table may begin with any sequence number, as in Kafka from 2.5 on: its entry may
  have been expired, and refusing would stop a producer that did nothing wrong.
- A new epoch begins with sequence 0.
- A batch older than those remembered is out of order: whether it was stored is no longer known.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from plait.wire.errors import OutcomeUnknown, ProducerFenced, SequenceOutOfOrder

REMEMBERED_BATCHES = 5
"""Batches remembered per producer: max.in.flight.requests.per.connection of an idempotent Kafka producer."""
PRODUCERS_MAX = 10_000
"""Producers remembered per partition; beyond it the one that was quiet for longest is forgotten."""
PRODUCER_QUIET_MS_MAX = 24 * 3600 * 1000
"""How long a producer that says nothing is remembered (Kafka's producer.id.expiration.ms)."""
SEQUENCES = 1 << 31
"""Sequence numbers are counted modulo this: 2**31 - 1 is followed by 0."""

SNAPSHOT_FORMAT = 1
"""First element of a snapshot."""


@dataclass(frozen=True, slots=True)
class New:
    """The batch was not seen before and is in order."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The batch is stored already."""

    base_offset: int
    """Where."""


@dataclass(frozen=True, slots=True)
class InFlight:
    """The batch is proposed already, and not committed."""

    key: tuple[int, int, int]
    """(producer id, epoch, first sequence number)."""


NEW = New()

Remembered = tuple[int, int, int]
"""(first sequence number, last one, base offset) of a batch."""


class Sequenced(Protocol):
    """What is needed of a batch's header."""

    @property
    def producer_id(self) -> int:
        """Which producer."""

    @property
    def producer_epoch(self) -> int:
        """Which life of it."""

    @property
    def base_sequence(self) -> int:
        """Number of the batch's first record."""

    @property
    def count(self) -> int:
        """Records in the batch."""


@dataclass(slots=True)
class Producer:
    """What is known of one producer."""

    epoch: int
    batches: deque[Remembered]
    """The last ones, the newest at the end; never empty."""
    last_stamp_ms: int

    def find(self, epoch: int, first: int, last: int) -> int | None:
        """Base offset of exactly that batch, if it is remembered."""
        if epoch == self.epoch:
            for batch in self.batches:
                if batch[0] == first and batch[1] == last:
                    return batch[2]
        return None


def last_sequence(first: int, count: int) -> int:
    """Number of the last of `count` records that begin with number `first`."""
    return (first + count - 1) % SEQUENCES


class ProducerTable:
    """The replicated table of one partition: changed by `record` and `expire` only."""

    def __init__(self) -> None:
        self._producers: OrderedDict[int, Producer] = OrderedDict()  # who was quiet for longest comes first
        self.last_base_offset = -1
        """Base offset of the last batch recorded; -1 if there was none since the start. Not part of the state."""

    def __len__(self) -> int:
        return len(self._producers)

    def get(self, producer_id: int) -> Producer | None:
        """What is known of a producer; not to be changed."""
        return self._producers.get(producer_id)

    def check(self, producer_id: int, epoch: int, first_sequence: int, count: int) -> New | Duplicate:
        """What a batch is. Raises ProducerFenced or SequenceOutOfOrder."""
        producer = self._producers.get(producer_id)
        if producer is None:
            return NEW
        stored = producer.find(epoch, first_sequence, last_sequence(first_sequence, count))
        if stored is not None:
            return Duplicate(stored)
        check_follows(producer_id, producer.epoch, producer.batches[-1][1], epoch, first_sequence)
        return NEW

    def record(
        self, producer_id: int, epoch: int, first_sequence: int, count: int, base_offset: int, stamp_ms: int
    ) -> None:
        """A batch was committed. Forgets producers that were quiet for too long or are too many."""
        batch = (first_sequence, last_sequence(first_sequence, count), base_offset)
        producer = self._producers.get(producer_id)
        if producer is None:
            self._producers[producer_id] = Producer(epoch, deque((batch,), REMEMBERED_BATCHES), stamp_ms)
            if len(self._producers) > PRODUCERS_MAX:
                self._producers.popitem(last=False)
        else:
            if producer.epoch != epoch:
                producer.epoch = epoch
                producer.batches.clear()
            producer.batches.append(batch)
            producer.last_stamp_ms = stamp_ms
            self._producers.move_to_end(producer_id)
        self.last_base_offset = base_offset
        self.expire(stamp_ms)

    def expire(self, stamp_ms: int) -> int:
        """Forget producers that were quiet for PRODUCER_QUIET_MS_MAX; returns how many."""
        count = 0
        while self._producers:
            quietest = next(iter(self._producers.values()))
            if quietest.last_stamp_ms > stamp_ms - PRODUCER_QUIET_MS_MAX:
                break
            self._producers.popitem(last=False)
            count += 1
        return count

    def snapshot(self) -> list[Any]:
        """[format, [[producer id, epoch, stamp, first, last, offset, first, last, ...], ...]], quietest first."""
        return [
            SNAPSHOT_FORMAT,
            [
                [key, each.epoch, each.last_stamp_ms, *(item for batch in each.batches for item in batch)]
                for key, each in self._producers.items()
            ],
        ]

    @classmethod
    def restored(cls, snapshot: Sequence[Any]) -> ProducerTable:
        """The table that `snapshot` described. Raises ValueError for a format of a newer version."""
        form, producers = snapshot
        if form != SNAPSHOT_FORMAT:
            raise ValueError(f"a producer table of format {form}; this version reads {SNAPSHOT_FORMAT}")
        table = cls()
        for producer_id, epoch, stamp_ms, *flat in producers:
            batches = deque(zip(flat[::3], flat[1::3], flat[2::3], strict=True), REMEMBERED_BATCHES)
            table._producers[producer_id] = Producer(epoch, batches, stamp_ms)
        return table


def check_follows(producer_id: int, known_epoch: int, known_last: int, epoch: int, first_sequence: int) -> None:
    """Whether a batch may follow the last one known. Raises ProducerFenced or SequenceOutOfOrder."""
    if epoch < known_epoch:
        raise ProducerFenced(
            f"producer {producer_id} has epoch {known_epoch} by now and this batch is of epoch {epoch}; "
            "the batch was not stored: make a new producer",
            epoch=known_epoch,
        )
    expected = 0 if epoch > known_epoch else (known_last + 1) % SEQUENCES
    if first_sequence != expected:
        raise SequenceOutOfOrder(
            f"producer {producer_id} sent sequence number {first_sequence} where {expected} follows; "
            "the batch was not stored: make a new producer",
            expected=expected,
            got=first_sequence,
        )


class SpeculativeProducers:
    """The leader's view: the table, and behind it the batches that are proposed and not applied.

    Proposals are applied in order, so a batch is applied when the table has recorded its base offset or a higher
    one: nobody has to say so.
    """

    def __init__(self, table: ProducerTable) -> None:
        self._table = table
        # By producer id: (epoch, first sequence number, last one) of its batches, in order; none is empty.
        self._proposed: dict[int, deque[tuple[int, int, int]]] = {}
        self._order: deque[tuple[int, int]] = deque()  # (base offset, producer id), ascending

    def __len__(self) -> int:
        """Batches that are proposed and not applied."""
        self._settle()
        return len(self._order)

    def find(self, header: Sequenced) -> Duplicate | InFlight | None:
        """Where exactly this batch is already, if anywhere; whether it is in order is `begin`'s question."""
        self._settle()
        producer_id, epoch, first = header.producer_id, header.producer_epoch, header.base_sequence
        last = last_sequence(first, header.count)
        proposed = self._proposed.get(producer_id)
        if proposed is not None and (epoch, first, last) in proposed:
            return InFlight((producer_id, epoch, first))
        producer = self._table.get(producer_id)
        stored = producer.find(epoch, first, last) if producer is not None else None
        return Duplicate(stored) if stored is not None else None

    def check(self, header: Sequenced) -> New | Duplicate | InFlight:
        """What a batch is, now. Raises ProducerFenced or SequenceOutOfOrder."""
        found = self.find(header)
        if found is not None:
            return found
        producer_id = header.producer_id
        proposed = self._proposed.get(producer_id)
        if proposed is not None:
            known_epoch, _, known_last = proposed[-1]
            check_follows(producer_id, known_epoch, known_last, header.producer_epoch, header.base_sequence)
            return NEW
        return self._table.check(producer_id, header.producer_epoch, header.base_sequence, header.count)

    def begin(self, header: Sequenced, base_offset: int) -> None:
        """A batch is about to be proposed, with the base offset that it will have when it is applied.

        Raises ProducerFenced or SequenceOutOfOrder, and OutcomeUnknown for a repetition (which `find` would have
        found; an idempotent producer may send it again).
        """
        producer_id = header.producer_id
        if not isinstance(self.check(header), New):
            raise OutcomeUnknown(
                f"producer {producer_id} sent the batch with sequence number {header.base_sequence} twice and the "
                "first one is stored or about to be; this one was not stored: send it again to learn its offset"
            )
        last = last_sequence(header.base_sequence, header.count)
        batch = (header.producer_epoch, header.base_sequence, last)
        self._proposed.setdefault(producer_id, deque()).append(batch)
        self._order.append((base_offset, producer_id))

    def withdraw(self) -> None:
        """The batch that was begun last will not be proposed."""
        _, producer_id = self._order.pop()
        proposed = self._proposed[producer_id]
        proposed.pop()
        if not proposed:
            del self._proposed[producer_id]

    def reset(self) -> None:
        """Nothing is proposed any more: the role changed."""
        self._proposed.clear()
        self._order.clear()

    def _settle(self) -> None:
        """Forget what has been applied since."""
        applied = self._table.last_base_offset
        while self._order and self._order[0][0] <= applied:
            _, producer_id = self._order.popleft()
            proposed = self._proposed[producer_id]
            proposed.popleft()
            if not proposed:
                del self._proposed[producer_id]

"""A partition's replicated state: what its log means, and nothing that differs between replicas.

    batch entries    next_offset, producers, origins, milestones
    command entries  the shared subscriptions' leases and acks, the log's start

Pure: every replica that applies the same entries has an equal state. The leader's soft state (who waits, what is
proposed and not committed) lives in `node/partition.py` and beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cbor2

from cluster.settings import Settings, TopicSettings
from node.entries import (
    KIND_BATCH,
    KIND_COMMANDS,
    Command,
    batch_of,
    decode_commands,
    read_envelope,
)
from node.milestones import Milestones
from node.origins import OriginTable
from node.outbox import Outbox
from node.producers import ProducerTable
from node.shared import Settled, SharedSubscription
from plait.wire.batch import read_header
from replication.machine import Entry, Range

SNAPSHOT_VERSION = 2
"""2 has origins; a snapshot of version 1 is read as one without any."""
LEASE_POSITIONS = 65_536
"""Commands that one entry may hold; a lease id is the entry's index times this plus the command's position."""
QUEUE_SUBSCRIPTION = ""
"""The name of a queue's one shared subscription."""


class PartitionState:
    """Apply entries to it; read what they made of it."""

    def __init__(self, is_queue: bool) -> None:
        self.is_queue = is_queue
        self.start_offset = 0  # the first offset that may still be read
        self.next_offset = 0  # the offset that the next record takes; start_offset <= next_offset
        self.log_time_ms = 0  # the highest stamp applied; never falls
        self.producers = ProducerTable()
        self.origins = OriginTable()
        self.milestones = Milestones()
        self.outbox = Outbox()
        self.shared: dict[str, SharedSubscription] = {}
        if is_queue:
            self.shared[QUEUE_SUBSCRIPTION] = SharedSubscription(0)

    def apply(self, entry: Entry) -> list[Any]:
        """What the entry's parts came to: for a batch [(base_offset, stamp_ms)], for commands one result each."""
        if entry.kind == KIND_BATCH:
            return [self._apply_batch(entry)]
        if entry.kind == KIND_COMMANDS:
            stamp_ms, commands = decode_commands(entry.payload)
            stamp = self._advance(stamp_ms)
            first_id = entry.index * LEASE_POSITIONS
            return [
                self._apply_command(first_id + position, stamp, command)
                for position, command in enumerate(commands)
            ]
        raise ValueError(f"an entry of kind {entry.kind}, which this version does not know")

    def live_entries(self) -> list[Range]:
        """Offsets whose batches are still needed."""
        if self.start_offset >= self.next_offset:
            return []
        if self.is_queue:
            return self.shared[QUEUE_SUBSCRIPTION].live_ranges(self.next_offset)
        return [(self.start_offset, self.next_offset - 1)]

    def backlog_records(self) -> int:
        """A queue's records that are not acknowledged or given up; a topic's that are kept."""
        if self.is_queue:
            return self.shared[QUEUE_SUBSCRIPTION].backlog_records(self.next_offset) - self.outbox.records
        return self.next_offset - self.start_offset

    def backlog_bytes(self) -> int:
        """About how many bytes those have: their number times the mean size of the records that are kept."""
        return self.backlog_records() * self.mean_record_bytes()

    def mean_record_bytes(self) -> int:
        """Bytes per record between the log's start and its end, batch headers included; 0 for an empty log."""
        records = self.next_offset - self.start_offset
        return self.milestones.live_bytes // records if records else 0

    def retention_point(self, settings: Settings, stamp_ms: int) -> int:
        """The offset before which a topic's records are too old or too many."""
        if not isinstance(settings, TopicSettings):
            return self.start_offset
        return self.milestones.trim_point(stamp_ms, settings.retention_ms, settings.retention_bytes)

    def retention_due_ms(self, settings: Settings) -> int | None:
        """The stamp from which `retention_point` is beyond the start; None: no time alone will bring that."""
        if not isinstance(settings, TopicSettings):
            return None
        return self.milestones.trim_due_ms(settings.retention_ms, settings.retention_bytes)

    def snapshot(self) -> bytes:
        """Canonical: equal states give equal bytes."""
        return cbor2.dumps(
            [
                SNAPSHOT_VERSION,
                self.is_queue,
                self.start_offset,
                self.next_offset,
                self.log_time_ms,
                self.producers.snapshot(),
                self.milestones.snapshot(),
                self.outbox.snapshot(),
                [[name, self.shared[name].snapshot()] for name in sorted(self.shared)],
                self.origins.snapshot(),
            ]
        )

    def restore(self, state: bytes) -> None:
        """Become the state of a snapshot. Raises ValueError for one that a newer version wrote."""
        version, *fields = cbor2.loads(state)
        if version > SNAPSHOT_VERSION:
            raise ValueError(f"a partition snapshot of version {version}; this node knows {SNAPSHOT_VERSION}")
        self.is_queue, self.start_offset, self.next_offset, self.log_time_ms, *rest = fields
        producers, milestones, outbox, shared, *later = rest
        self.origins = OriginTable.restored(later[0]) if later else OriginTable()
        self.producers = ProducerTable.restored(producers)
        self.outbox = Outbox.restored(outbox)
        self.milestones = Milestones.restored(milestones)
        self.shared = {name: SharedSubscription.restored(held) for name, held in shared}

    def _advance(self, stamp_ms: int) -> int:
        """A command's time is max(last, stamp): no replica's own clock ever changes the state."""
        self.log_time_ms = max(self.log_time_ms, stamp_ms)
        return self.log_time_ms

    def _apply_batch(self, entry: Entry) -> tuple[int, int]:
        envelope = read_envelope(entry.payload)
        stamp = self._advance(envelope.stamp_ms)
        batch = batch_of(entry.payload)
        header = read_header(batch)
        assert header.base_offset == entry.mark == self.next_offset, "the leader assigned another offset"
        if header.producer_id >= 0:
            self.producers.record(
                header.producer_id,
                header.producer_epoch,
                header.base_sequence,
                header.count,
                header.base_offset,
                stamp,
            )
        if envelope.origin_incarnation:
            self.origins.record((envelope.origin_incarnation, envelope.origin_request), header.base_offset, stamp)
        self.milestones.note(header.base_offset, header.count, len(batch), stamp, header.max_timestamp_ms)
        self.next_offset += header.count
        return header.base_offset, stamp

    def _apply_command(self, lease_id: int, stamp: int, command: Sequence[Any]) -> Any:
        match command:
            case [Command.LEASE, subscription, consumer, lease_ms, ranges]:
                shared = self.shared.get(subscription)
                runs = shared.lease(stamp, lease_id, consumer, ranges, lease_ms) if shared else []
                return lease_id, runs
            case [Command.ACK, subscription, items]:
                return self._settle(subscription, items, lambda shared: shared.ack(stamp, items))
            case [Command.RETURN, subscription, items, delay_ms]:
                return self._settle(subscription, items, lambda shared: shared.return_(stamp, items, delay_ms))
            case [Command.EXTEND, subscription, items, lease_ms]:
                return self._settle(subscription, items, lambda shared: shared.extend(stamp, items, lease_ms))
            case [Command.CONSUMER_GONE, consumer]:
                for shared in self.shared.values():
                    shared.consumer_gone(stamp, consumer)
            case [Command.DUE]:
                for shared in self.shared.values():
                    shared.due(stamp)
            case [Command.SUBSCRIBE, subscription, offset]:
                if subscription not in self.shared:
                    self.shared[subscription] = SharedSubscription(max(offset, self.start_offset))
            case [Command.TRIM, offset]:
                self._trim(min(offset, self.next_offset))
            case [Command.DROP, subscription, records, before]:
                self.shared[subscription].drop_oldest(stamp, records, min(before, self.next_offset))
            case [Command.DEAD_LETTER, subscription, records, before]:
                shared = self.shared[subscription]
                self.outbox.add(shared.give_up_oldest(stamp, records, min(before, self.next_offset)))
            case [Command.DEAD_LETTERED, subscription, first, last]:
                if self.outbox.done(first, last):
                    self.shared[subscription].given_up(first, last)
            case [Command.NODE_RESTARTED, node, incarnation]:
                self._node_restarted(stamp, node, incarnation)
            case _:
                raise ValueError(f"a command that this version does not know: {command!r}")
        self._follow_floor()
        return None

    def _settle(self, subscription: str, items: Any, act: Callable[[SharedSubscription], Settled]) -> Settled:
        shared = self.shared.get(subscription)
        if shared is None:
            return Settled(0, [(first, last) for _, first, last in items])
        settled = act(shared)
        self._follow_floor()
        return settled

    def _node_restarted(self, stamp: int, node: int, incarnation: int) -> None:
        for shared in self.shared.values():
            for consumer in shared.consumers():
                owner, life = (int(part) for part in consumer.split(".")[:2])
                if owner == node and life < incarnation:
                    shared.consumer_gone(stamp, consumer)

    def _trim(self, offset: int) -> None:
        if offset > self.start_offset:
            self.start_offset = offset
            self.milestones.trim(offset)
            for shared in self.shared.values():
                shared.trim(offset)

    def _follow_floor(self) -> None:
        """A queue's log begins where its first unacknowledged record lies."""
        if self.is_queue:
            floor = self.shared[QUEUE_SUBSCRIPTION].floor
            if floor > self.start_offset:
                self.start_offset = floor
                self.milestones.trim(floor)

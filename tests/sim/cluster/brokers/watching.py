"""Sees what the groups and partitions of whole nodes do: subclasses stand in for the classes that a node makes.

The node under test is unchanged; where it makes its `Groups` and its partitions their `Consumers`, it makes these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any
from zlib import crc32

import node.groups
import node.node
import node.partition
import node.state
from cluster.catalogue import COORDINATORS
from node.commanded import CommandedReplica
from node.consumers import Consumer, Consumers, Grant
from node.entries import KIND_BATCH, KIND_COMMANDS, Command, batch_of, decode_commands, read_envelope
from node.groups import Groups, Machine
from node.origins import NO_ORIGIN
from node.partition import Partition
from node.shared import SharedSubscription
from plait.wire.batch import iterate
from replication.machine import Entry, Range
from replication.raft.membership import Membership
from replication.transfer import Transfers
from replication.transfer_rules import TransferSettings
from tests.sim.cluster.checkers import Broken, GroupChecker

if TYPE_CHECKING:
    from tests.sim.cluster.brokers.life import BrokerLife

LIFE: ContextVar[BrokerLife] = ContextVar("LIFE")
"""The process that a task is of."""
APPLYING: ContextVar[Partition | None] = ContextVar("APPLYING", default=None)
"""The queue's partition that applies entries at this moment, where the queue lets go of what it has."""
RELEASE_MS = 300
"""How often partitions tell their logs what they no longer need, while they are simulated."""


class ReplicaChecker(GroupChecker):
    """What is known of one group of brokers."""

    def __init__(self, group: int, broken: Broken) -> None:
        super().__init__(group, broken)
        self._seen: dict[int, tuple[int, int, int]] = {}
        self._origins: dict[tuple[int, int], int] = {}

    def applied_entry(self, entry: Entry) -> bool:
        """A state machine applies an entry; True for the first one that does."""
        what = entry.term, entry.kind, crc32(entry.payload)
        known = self._seen.setdefault(entry.index, what)
        if known != what:
            self.broken(f"group {self.group}: two entries are applied at {entry.index}: {known} and {what}")
        first = entry.index > self.last_index
        if first and entry.kind == KIND_BATCH:
            self._count_once(entry)
        self.last_index = max(self.last_index, entry.index)
        return first

    def _count_once(self, entry: Entry) -> None:
        """What a node sends for its clients is stored once, however often it sends it and to whom."""
        envelope = read_envelope(entry.payload)
        origin = envelope.origin_incarnation, envelope.origin_request
        before = self._origins.setdefault(origin, entry.index)
        if origin != NO_ORIGIN and before != entry.index:
            self.broken(f"group {self.group}: publish {origin} is applied at {before} and at {entry.index}")


class WatchedGroups(Groups):
    """Groups whose replicas and cores are looked at."""

    async def open(
        self, group: int, replica: int, machine: Machine, members: Membership | None, *, eager: bool
    ) -> None:
        """See Groups."""
        life = LIFE.get()
        assert isinstance(machine, Partition | CommandedReplica), "there are no others"
        checker = life.world.checker(group)
        machine.apply = partial(_apply, life, checker, machine, machine.apply)  # type: ignore[method-assign]
        await super().open(group, replica, machine, members, eager=eager)
        life.opened(group, machine, self.log_of(group, replica))

    def leave(self, group: int) -> None:
        """See Groups."""
        LIFE.get().replicas.pop(group, None)
        super().leave(group)


def _apply(
    life: BrokerLife,
    checker: ReplicaChecker,
    replica: Partition | CommandedReplica,
    apply: Any,
    entries: Sequence[Entry],
) -> None:
    for entry in entries:
        if checker.applied_entry(entry) and isinstance(replica, Partition):
            if entry.kind == KIND_COMMANDS:
                _tell_leases(life, replica.name, entry)
            elif life.world.lets_go(replica.name):
                _tell_content(life, replica.number, entry)
    before = APPLYING.set(replica if isinstance(replica, Partition) and life.world.lets_go(replica.name) else None)
    try:
        apply(entries)
    finally:
        APPLYING.reset(before)


def _tell_content(life: BrokerLife, number: int, entry: Entry) -> None:
    for record in iterate(batch_of(entry.payload)):
        life.world.queue.seen(bytes(record.value or b""), (number, record.offset))


class WatchedSubscription(SharedSubscription):
    """One whose choice of what a full queue lets go is looked at."""

    def drop_oldest(self, stamp_ms: int, limit: int, next_offset: int) -> int:
        """See SharedSubscription."""
        self._tell(limit, next_offset, dead=False)
        return super().drop_oldest(stamp_ms, limit, next_offset)

    def give_up_oldest(self, stamp_ms: int, limit: int, next_offset: int) -> list[Range]:
        """See SharedSubscription."""
        self._tell(limit, next_offset, dead=True)
        return super().give_up_oldest(stamp_ms, limit, next_offset)

    def _tell(self, limit: int, next_offset: int, *, dead: bool) -> None:
        partition = APPLYING.get()
        if partition is None:
            return
        world = LIFE.get().world
        for first, last in self._oldest(limit, next_offset):
            for offset in range(first, last + 1):
                world.queue.let_go((partition.number, offset), dead=dead)
        world.events.reached("dead letters" if dead else "oldest dropped")


def _tell_leases(life: BrokerLife, partition: str, entry: Entry) -> None:
    leases = life.world.leases
    stamp_ms, commands = decode_commands(entry.payload)
    for command, *arguments in commands:
        if command == Command.RETURN:
            for item in arguments[1]:
                leases.returned(partition, *item)
        elif command == Command.CONSUMER_GONE:  # only the node whose client it was says so
            leases.ended(arguments[0])
        elif command == Command.ACK:
            for item in arguments[1]:
                leases.acknowledged(partition, stamp_ms, *item)
        elif command == Command.EXTEND:
            for lease_id, first, last in arguments[1]:
                leases.extended(partition, stamp_ms, lease_id, first, last, stamp_ms + arguments[2])


class WatchedConsumers(Consumers):
    """Consumers whose leases are looked at."""

    def leased(self, grant: Grant, lease_id: int, runs: list[tuple[int, int, int]]) -> None:
        """See Consumers."""
        shared = self._newest(grant.consumer.subscription)
        for first, last, deliveries in runs if shared is not None else ():
            assert shared is not None, "there are no runs otherwise"
            for low, high, state in shared.runs(first, last):
                if state.lease_id == lease_id and state.consumer == grant.consumer.consumer_id:
                    run = max(low, first), min(high, last), deliveries
                    LIFE.get().world.leases.granted(
                        self._name, state.consumer, lease_id, state.leased_ms, state.until_ms, [run]
                    )
        super().leased(grant, lease_id, runs)

    def _newest(self, subscription: str) -> SharedSubscription | None:
        """The subscription as the replica has it that has applied most: a leader of the past, which was paused,
        may hand out what was given back since; nobody listens to it any more."""
        partitions = [
            replica
            for life in LIFE.get().world.lives()
            for replica in life.replicas.values()
            if isinstance(replica, Partition) and replica.name == self._name
        ]
        newest = max(partitions, key=lambda each: each.group.applied_index, default=None)
        return newest.state.shared.get(subscription) if newest is not None else None

    def remove(self, consumer: Consumer) -> None:
        """See Consumers."""
        LIFE.get().world.leases.ended(consumer.consumer_id)
        super().remove(consumer)


@contextmanager
def watched(transfers: TransferSettings, coordinators: int = COORDINATORS) -> Iterator[None]:
    """Nodes that are made meanwhile are looked at, and so small that their limits are reached."""
    stand_ins = {
        (node.node, "Groups"): WatchedGroups,
        (node.partition, "Consumers"): WatchedConsumers,
        (node.groups, "Transfers"): partial(Transfers, settings=transfers),
        (node.partition, "RELEASE_INTERVAL_MS"): RELEASE_MS,
        (node.node, "COORDINATORS"): coordinators,
        (node.state, "SharedSubscription"): WatchedSubscription,
    }
    before = {place: getattr(*place) for place in stand_ins}
    try:
        for (module, name), value in stand_ins.items():
            setattr(module, name, value)
        yield
    finally:
        for (module, name), value in before.items():
            setattr(module, name, value)

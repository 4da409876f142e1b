"""A snapshot travels over links that lose, from leaders that change, several at a time, and arrives as it was."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from plait.wire.errors import NotFound, OutcomeUnknown, Overloaded, PlaitError, StorageDamaged, Unavailable
from replication.actor import Promise, rejected
from replication.machine import Entry
from replication.raft.messages import SnapshotOffer
from replication.storage.log import GroupLog
from replication.storage.store import Store
from replication.transfer import Transfers
from replication.transfer_rules import (
    Answer,
    Handler,
    Heard,
    TransferSettings,
    Turns,
    decode_entries,
    encode_entries,
)
from tests.sim.disk import SimDisk
from tests.sim.environment import sim_environment
from tests.unit.storage.test_damage import rot
from tests.unit.storage.test_install import by_mark
from tests.unit.storage.world import TINY, Source, append, batch, batches, killed, kind, new_disk, plain

SETTINGS = TransferSettings(piece_bytes=2_000, transfers_max=2, waiting_max=3)


class Net:
    """Links between nodes: answers come at once, unless a rule says otherwise."""

    def __init__(self) -> None:
        self.handlers: dict[int, Handler] = {}
        self.asked: list[list[Any]] = []
        self.loses: Callable[[list[Any]], bool] = lambda head: False
        self.spoils: Callable[[bytearray], None] = lambda payload: None
        self.on_ask: Callable[[list[Any]], None] = lambda head: None

    def link(self, node: int) -> Link:
        return Link(self, node)


@dataclass
class Link:
    """The net as one node sees it."""

    net: Net
    node: int

    def serve(self, channel: str, handler: Handler) -> None:
        self.net.handlers[self.node] = handler

    def ask(
        self, node_id: int, channel: str, head: list[Any], payload: Sequence[bytes] = (), timeout_ms: int = 0
    ) -> Promise[Heard]:
        self.net.asked.append(head)
        self.net.on_ask(head)
        handler = self.net.handlers.get(node_id)
        if handler is None:
            return rejected(Unavailable("no such node"))
        heard: Promise[Heard] = Promise()

        def answered(promise: Promise[Answer]) -> None:
            if promise.error is not None:
                heard.reject(promise.error)
            elif self.net.loses(head):
                heard.reject(OutcomeUnknown("lost"))
            else:
                found, parts = promise.result()
                data = bytearray(b"".join(parts))
                self.net.spoils(data)
                heard.resolve((found, memoryview(bytes(data))))

        handler(self.node, head, memoryview(b"")).then(answered)
        return heard


class Node:
    """A node with a store and transfers."""

    def __init__(self, number: int, store: Store, transfers: Transfers) -> None:
        self.number = number
        self.store = store
        self.transfers = transfers
        self.counters = transfers.counters

    def log(self, group: int) -> GroupLog:
        return self.store.log(group) if group in self.store.groups() else self.store.create(group)


@asynccontextmanager
async def cluster(
    *disks: SimDisk, net: Net | None = None, settings: TransferSettings = SETTINGS
) -> AsyncIterator[tuple[Net, list[Node]]]:
    net = net or Net()
    nodes: list[Node] = []
    async with trio.open_nursery() as nursery:
        for number, disk in enumerate(disks, 1):
            environment = sim_environment(nursery, number, disk).environment
            store = await Store.open(environment, TINY)
            nursery.start_soon(store.run)
            transfers = Transfers(environment, net.link(number), store._logs.get, settings=settings)
            nodes.append(Node(number, store, transfers))
        yield net, nodes
        nursery.cancel_scope.cancel()


async def leading(node: Node, group: int = 1, last: int = 30, *, state: bytes = b"s" * 9_000) -> GroupLog:
    """A leader's log with a snapshot at 20, of which entries 3 to 15 are live, in segments."""
    log = node.log(group)
    source = Source()
    source.index, source.live, source.state = 20, [(30, 159)], state
    log.attach(source)
    await append(log, batches(1, last, 300))
    await log.snapshot_now()
    assert log.snapshot_index == 20
    return log


def offer(index: int = 20, term: int = 1) -> SnapshotOffer:
    return SnapshotOffer(1, 2, 3, index, term, 0)


LIVE = plain(batches(3, 15, 300))


async def test_a_new_replica_gets_the_state_and_all_live_entries(autojump_clock: MockClock) -> None:
    disks = new_disk(), new_disk()
    async with cluster(*disks) as (net, (leader, follower)):
        await leading(leader)
        log = follower.log(1)
        moments: list[tuple[int, int, int]] = []

        def installed(index: int, state: bytes) -> None:
            moments.append((index, len(state), log.snapshot_index))

        assert await follower.transfers.fetch(log, 1, offer(), 0, installed) == (20, b"s" * 9_000)
        assert moments == [(20, 9_000, 20)]
        assert (log.snapshot_index, log.snapshot_term, log.last_index) == (20, 1, 20)
        assert await by_mark(log) == LIVE
        assert await log.load_snapshot() == (20, 1, b"s" * 9_000)
        assert (follower.counters.state_bytes_received, follower.counters.entry_bytes_received) == (9_000, 3_900)
        assert (leader.counters.state_bytes_sent, leader.counters.entry_bytes_sent) == (9_000, 3_900)
        assert all(head[4] <= 2_000 for head in net.asked)
    async with cluster(*map(killed, disks)) as (_, (_, follower)):
        assert await by_mark(follower.log(1)) == LIVE


async def test_what_the_follower_has_is_not_sent(autojump_clock: MockClock) -> None:
    async with cluster(new_disk(), new_disk()) as (_, (leader, follower)):
        await leading(leader)
        log = follower.log(1)
        await append(log, batches(1, 12, 300))
        await follower.transfers.fetch(log, 1, offer(), 10)
        assert follower.counters.entry_bytes_received == 5 * 300
        assert await by_mark(log) == plain(batches(1, 15, 300))


async def test_only_what_has_rotted_is_sent(autojump_clock: MockClock) -> None:
    disks = new_disk(), new_disk()
    async with cluster(*disks) as (_, nodes):
        for node in nodes:
            await leading(node)
        await trio.sleep(1)
    disks = killed(disks[0]), killed(disks[1])
    rot(disks[1], bytes(batch(7, 300).payload), "segments")
    async with cluster(*disks) as (_, (leader, follower)):
        log = follower.log(1)
        leader.log(1).retain([(30, 159)])
        with pytest.raises(StorageDamaged):
            await by_mark(log)
        assert kind(log) == "repairable"
        await follower.transfers.fetch(log, 1, offer(), 30)
        assert follower.counters.entry_bytes_received == 300
        assert (kind(log), log.last_index) == ("none", 30)
        assert (await by_mark(log))[:13] == LIVE


@pytest.mark.parametrize("seed", range(10))
async def test_lost_answers_are_asked_for_again(seed: int, autojump_clock: MockClock) -> None:
    random = Random(seed)
    async with cluster(new_disk(), new_disk()) as (net, (leader, follower)):
        await leading(leader)
        net.loses = lambda head: random.random() < 0.3
        log = follower.log(1)
        while True:
            try:
                await follower.transfers.fetch(log, 1, offer(), 0)
                break
            except OutcomeUnknown:
                continue
        assert await by_mark(log) == LIVE
        assert follower.counters.asked_again > 0
        assert follower.counters.entry_bytes_received <= 2 * 3_900


async def test_another_attempt_goes_on_with_another_leader(autojump_clock: MockClock) -> None:
    async with cluster(new_disk(), new_disk(), new_disk()) as (net, (one, two, follower)):
        for node in (one, two):
            await leading(node)
        log = follower.log(1)
        entries = 0

        def loses(head: list[Any]) -> bool:
            nonlocal entries
            entries += head[0] == "entries"
            return entries > 1

        net.loses = loses
        with pytest.raises(OutcomeUnknown):
            await follower.transfers.fetch(log, 1, offer(), 0)
        assert log.snapshot_index == 0
        got = follower.counters.entry_bytes_received
        assert 0 < got < 3_900
        net.loses = lambda head: False
        await follower.transfers.fetch(log, 2, offer(), 0)
        assert follower.counters.entry_bytes_received == 3_900
        assert follower.counters.state_bytes_received == 9_000
        assert await by_mark(log) == LIVE


async def test_a_snapshot_that_has_moved_on_is_taken_as_it_is_now(autojump_clock: MockClock) -> None:
    async with cluster(new_disk(), new_disk()) as (net, (leader, follower)):
        source = await leading(leader, last=40)
        log = follower.log(1)
        seen = 0

        def moves(head: list[Any]) -> None:
            nonlocal seen
            seen += head[0] == "entries"
            if seen == 2 and source.snapshot_index == 20:
                source.snapshot_index = 21  # as if a flush had begun before the transfer

        net.on_ask = moves
        with pytest.raises(Unavailable):  # the row is the old one still: this never ends well
            await follower.transfers.fetch(log, 1, offer(), 0)
        source.snapshot_index = 20
        net.on_ask = lambda head: None
        await follower.transfers.fetch(log, 1, offer(), 0)
        assert follower.counters.entry_bytes_received == 3_900


async def test_an_older_offer_gets_the_newer_snapshot(autojump_clock: MockClock) -> None:
    async with cluster(new_disk(), new_disk()) as (_, (leader, follower)):
        await leading(leader)
        index, _ = await follower.transfers.fetch(follower.log(1), 1, offer(12), 0)
        assert (index, follower.log(1).snapshot_index) == (20, 20)


async def test_a_snapshot_before_the_one_that_was_offered_is_none(autojump_clock: MockClock) -> None:
    async with cluster(new_disk(), new_disk()) as (_, (leader, follower)):
        await leading(leader)
        with pytest.raises(Unavailable):
            await follower.transfers.fetch(follower.log(1), 1, offer(25), 0)
        with pytest.raises(NotFound):
            await follower.transfers.fetch(follower.log(2), 1, offer(), 0)
        with pytest.raises(Unavailable):
            await follower.transfers.fetch(follower.log(2), 9, offer(), 0)
        leader.log(3)
        with pytest.raises(Unavailable):
            await follower.transfers.fetch(follower.log(3), 1, offer(), 0)
        assert follower.counters.failed == 4


@pytest.mark.parametrize("what", ["state", "entries"])
async def test_bytes_that_changed_on_the_way_are_never_installed(what: str, autojump_clock: MockClock) -> None:
    async with cluster(new_disk(), new_disk()) as (net, (leader, follower)):
        await leading(leader)
        log = follower.log(1)
        size = 1_000 if what == "state" else 1_500

        def spoils(data: bytearray) -> None:
            if data and (data[:1] == b"s") == (what == "state"):
                data[size // 2] ^= 1

        net.spoils = spoils
        with pytest.raises(Unavailable):
            await follower.transfers.fetch(log, 1, offer(), 0)
        assert follower.counters.bad_checksums == 1
        assert log.snapshot_index == 0
        net.spoils = lambda data: None
        await follower.transfers.fetch(log, 1, offer(), 0)
        assert await by_mark(log) == LIVE


async def test_rot_at_the_sender_is_not_sent(autojump_clock: MockClock) -> None:
    disks = new_disk(), new_disk()
    async with cluster(*disks) as (_, (leader, _)):
        await leading(leader, state=b"the state" * 100)
    disks = killed(disks[0]), killed(disks[1])
    rot(disks[0], b"the state" * 100, "snapshots")
    async with cluster(*disks) as (_, (leader, follower)):
        told: list[object] = []
        leader.log(1).on_damage = told.append
        with pytest.raises(StorageDamaged):
            await follower.transfers.fetch(follower.log(1), 1, offer(), 0)
        assert told
        assert kind(leader.log(1)) == "repairable"


async def test_the_sender_forgets_nothing_while_it_sends_and_a_moment_longer(autojump_clock: MockClock) -> None:
    async with cluster(new_disk(), new_disk()) as (net, (leader, follower)):
        log = await leading(leader, last=40)
        source = log.source
        assert isinstance(source, Source)
        held: list[int] = []
        net.on_ask = lambda head: held.append(log.held)
        await follower.transfers.fetch(follower.log(1), 1, offer(), 0)
        assert held[0] == 0
        assert set(held[4:]) == {1}
        source.index = 35
        await log.snapshot_now()
        assert log.snapshot_index == 20
        await trio.sleep(6)
        assert log.held == 0
        await log.snapshot_now()
        assert log.snapshot_index == 35


async def test_a_receiver_that_falls_silent_holds_nothing_for_long(autojump_clock: MockClock) -> None:
    async with cluster(new_disk(), new_disk()) as (net, (leader, follower)):
        log = await leading(leader)
        net.loses = lambda head: head[0] == "entries"
        with pytest.raises(OutcomeUnknown):
            await follower.transfers.fetch(follower.log(1), 1, offer(), 0)
        assert log.held == 1
        await trio.sleep(16)
        assert log.held == 0


async def test_a_transfer_that_takes_too_long_holds_nothing_any_more(autojump_clock: MockClock) -> None:
    settings = replace(SETTINGS, hold_ms=1_000)
    async with cluster(new_disk(), new_disk(), settings=settings) as (net, (leader, follower)):
        log = await leading(leader)
        net.loses = lambda head: head[0] == "entries"
        with pytest.raises(OutcomeUnknown):
            await follower.transfers.fetch(follower.log(1), 1, offer(), 0)
        await trio.sleep(2)
        assert log.held == 0
        await trio.sleep(20)
        assert log.held == 0


async def test_many_transfers_take_turns_and_all_arrive(autojump_clock: MockClock) -> None:
    disks = [new_disk() for _ in range(4)]
    async with cluster(*disks, settings=replace(SETTINGS, waiting_max=100)) as (_, (leader, *followers)):
        for group in range(1, 6):
            await leading(leader, group)
        async with trio.open_nursery() as nursery:
            for follower in followers:
                for group in range(1, 6):
                    nursery.start_soon(follower.transfers.fetch, follower.log(group), 1, offer(), 0)
        for follower in followers:
            for group in range(1, 6):
                assert await by_mark(follower.log(group)) == LIVE
        assert leader.counters.waits > 0


async def test_too_many_that_wait_are_refused(autojump_clock: MockClock) -> None:
    async with cluster(new_disk(), new_disk()) as (_, (leader, follower)):
        for group in range(1, 9):
            await leading(leader, group)
        refused: list[int] = []

        async def fetch(group: int) -> None:
            try:
                await follower.transfers.fetch(follower.log(group), 1, offer(), 0)
            except Overloaded:
                refused.append(group)

        async with trio.open_nursery() as nursery:
            for group in range(1, 9):
                nursery.start_soon(fetch, group)
        assert len(refused) == 3
        for group in refused:
            await fetch(group)
        assert all(follower.log(group).snapshot_index == 20 for group in range(1, 9))


async def test_what_failed_attempts_have_got_can_be_given_up(autojump_clock: MockClock) -> None:
    disk = new_disk()
    async with cluster(new_disk(), disk) as (net, (leader, follower)):
        await leading(leader)
        log = follower.log(1)
        seen = 0

        def loses(head: list[Any]) -> bool:
            nonlocal seen
            seen += head[0] == "entries"
            return seen > 1

        net.loses = loses
        with pytest.raises(OutcomeUnknown):
            await follower.transfers.fetch(log, 1, offer(), 0)
        assert [name for name in disk.names() if name.startswith("segments")]
        await follower.transfers.forget(log)
        assert not [name for name in disk.names() if name.startswith("segments")]
        net.loses = lambda head: False
        await follower.transfers.fetch(log, 1, offer(), 0)
        assert await by_mark(log) == LIVE


async def test_questions_that_make_no_sense_are_refused(autojump_clock: MockClock) -> None:
    async with cluster(new_disk(), new_disk()) as (net, (leader, _)):
        await leading(leader)
        for head in ([], ["state"], ["state", 1, 2, -3, 4], ["entries", 1, 20, 0, 9, [[3, 1]]], ["x", 1, 2, 3, 4]):
            with pytest.raises(PlaitError) as caught:
                await net.link(2).ask(1, "snapshot", head).wait()
            assert caught.value.code == "bad_request"


ENTRIES = st.lists(
    st.builds(
        Entry,
        st.integers(1, 2**63),
        st.integers(0, 2**63),
        st.integers(0, 255),
        st.integers(-(2**63), 2**63 - 1),
        st.integers(0, 2**32 - 1),
        st.binary(max_size=100),
    ),
    max_size=5,
    unique_by=lambda entry: entry.index,
).map(lambda entries: sorted(entries, key=lambda entry: entry.index))


@given(ENTRIES, st.integers(0, 10_000))
def test_entries_arrive_as_they_were_or_not_at_all(entries: list[Entry], bit: int) -> None:
    data = bytearray(b"".join(encode_entries(entries)))
    found = decode_entries(memoryview(bytes(data)))
    assert plain(found) == plain(entries)
    if data:
        data[bit // 8 % len(data)] ^= 1 << bit % 8
        assert decode_entries(memoryview(bytes(data))) is None


def test_turns_come_in_order_and_the_silent_lose_theirs() -> None:
    turns = Turns(2, 3, silence_ns=100)
    keys = [(node, 1) for node in range(6)]
    assert [turns.ask(key, 0) for key in keys[:5]] == [True, True, False, False, False]
    with pytest.raises(Overloaded):
        turns.ask(keys[5], 0)
    turns.end(keys[0])
    assert not turns.ask(keys[3], 50)
    assert turns.ask(keys[2], 60)
    assert turns.ask(keys[2], 61)
    turns.end(keys[1])
    assert turns.ask(keys[3], 200), "the others before it have been silent for too long"
    assert not turns.ask(keys[5], 200)


async def test_a_disk_that_takes_longer_than_a_silent_receiver_is_waited_for(autojump_clock: MockClock) -> None:
    settings = replace(SETTINGS, idle_ms=1_000, linger_ms=400)
    disk = new_disk()
    async with cluster(disk, new_disk(), settings=settings) as (_, (leader, follower)):
        await leading(leader)
        disk.latency_ns = lambda operation: 3_000_000_000
        await follower.transfers.fetch(follower.log(1), 1, offer(), 0)
        disk.latency_ns = lambda operation: 0
        assert await by_mark(follower.log(1)) == LIVE

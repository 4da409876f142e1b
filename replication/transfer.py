"""Snapshots on their way from a leader to a replica that lacks what the leader's log no longer has.

    receiver                                    sender (the leader's node)
    "state", position    ──────────────────>    a piece of its durable snapshot, some at a time, until all is here
    "entries", from mark ──────────────────>    live entries that the snapshot covers, until there are no more
    install: staged as they come, then durable in one moment (replication/storage/install.py)

The receiver pulls: what got lost is asked for again, from whoever leads. Every piece is bounded, the state and
each entry carry a checksum from disk to disk, and each side takes part in few transfers at a time; the others are
told to wait. While a transfer goes on the sender's log forgets nothing behind its snapshot, so that the receiver
can go on from there with the log.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import trio

from plait.wire.errors import OutcomeUnknown, Overloaded, PlaitError, Unavailable
from replication.actor import Promise
from replication.environment import Buffer, Clock, Environment
from replication.machine import Entry
from replication.raft.messages import SnapshotOffer
from replication.sending import SnapshotSender
from replication.storage.damage import InstallRefused, StorageFailed
from replication.storage.install import Install
from replication.storage.log import GroupLog
from replication.transfer_rules import (
    CHANNEL,
    NS_PER_MS,
    Handler,
    Heard,
    PartialState,
    TransferCounters,
    TransferSettings,
    decode_entries,
    state_of,
)

FIRST_MARK = -(1 << 63)
SKIPS_MAX = 64
"""Ranges of entries that a receiver says it has; what is in others is sent to it once more."""
ROUNDS_MAX = 8
"""How often a transfer begins again because the sender's snapshot has moved on."""
PARTIALS_MAX = 16
"""States of which failed transfers have left a part in memory."""


class Peers(Protocol):
    """What is needed of the links between nodes (replication/peers/peers.py)."""

    def serve(self, channel: str, handler: Handler) -> None:
        """Have questions on that channel answered."""

    def ask(
        self, node_id: int, channel: str, head: list[Any], payload: Sequence[Buffer] = (), timeout_ms: int = 0
    ) -> Promise[Heard]:
        """Ask a node; rejected with a PlaitError."""


class SnapshotReceiver:
    """Fetches snapshots from other nodes into this node's logs."""

    def __init__(
        self,
        peers: Peers,
        clock: Clock,
        group_of: Callable[[GroupLog], int],
        settings: TransferSettings,
        counters: TransferCounters,
    ) -> None:
        self._peers = peers
        self._clock = clock
        self._group_of = group_of
        self._settings = settings
        self._counters = counters
        self._places = trio.CapacityLimiter(settings.transfers_max)
        self._partials: dict[int, PartialState] = {}  # what failed transfers left

    async def fetch(
        self,
        log: GroupLog,
        node_id: int,
        offer: SnapshotOffer,
        agreed_index: int,
        installed: Callable[[int, bytes], None] | None = None,
    ) -> tuple[int, bytes]:
        """See Transfers.fetch."""
        if self._places.statistics().tasks_waiting >= self._settings.waiting_max:
            raise Overloaded("too many snapshots are being fetched; nothing was done; try again")
        async with self._places:
            transfer = _Receiving(self, log, node_id, self._group_of(log), agreed_index, installed)
            try:
                found = await transfer.run(offer.index)
            except InstallRefused as error:
                self._counters.failed += 1
                raise Unavailable(f"the snapshot was not installed: {error}")
            except StorageFailed as error:  # the store ends the node
                self._counters.failed += 1
                raise Unavailable(f"the snapshot was not installed: {error}")
            except PlaitError:
                self._counters.failed += 1
                raise
            self._counters.received += 1
            return found

    async def forget(self, log: GroupLog) -> None:
        """See Transfers.forget."""
        self._partials.pop(self._group_of(log), None)
        if log.install is not None and not log.install.committing:
            await log.install.abandon()


class _Receiving:
    """One fetch."""

    def __init__(
        self,
        receiver: SnapshotReceiver,
        log: GroupLog,
        node_id: int,
        group: int,
        agreed_index: int,
        installed: Callable[[int, bytes], None] | None,
    ) -> None:
        self._peers = receiver._peers
        self._clock = receiver._clock
        self._settings = receiver._settings
        self._counters = receiver._counters
        self._partials = receiver._partials
        self._log = log
        self._node_id = node_id
        self._group = group
        self._agreed_index = agreed_index
        self._installed = installed
        self._moves = 0  # how often the sender had another state by now

    async def run(self, index: int) -> tuple[int, bytes]:
        for _ in range(ROUNDS_MAX):
            state = await self._state(index)
            if state.index < index:
                raise Unavailable(f"node {self._node_id} has no snapshot at or behind {index}; ask again")
            install = self._log.begin_install(state.index, state.term, self._agreed_index)
            moved_to = await self._entries(install)
            if moved_to is None:
                return await self._commit(install, state)
            index = max(index, moved_to)
        raise Unavailable(f"the snapshot of group {self._group} moved on while it was fetched; ask again")

    async def _commit(self, install: Install, state: PartialState) -> tuple[int, bytes]:
        data = bytes(state.data)
        installed = self._installed
        then = partial(installed, state.index, data) if installed is not None else lambda: None
        await install.commit(data, None, state.last_mark, then)
        self._partials.pop(self._group, None)
        return state.index, data

    # ---- the state

    async def _state(self, index: int) -> PartialState:
        """All of the sender's state, at `index` or behind; what an earlier attempt got is not asked for again."""
        first, piece = await self._first_piece(index)
        state = self._partials.get(self._group)
        if state is None or not state.same_as(first):
            self._partials.pop(self._group, None)
            while len(self._partials) >= PARTIALS_MAX:
                del self._partials[next(iter(self._partials))]
            state = self._partials[self._group] = first
        state.term, state.last_mark = first.term, first.last_mark
        if not state.data:
            self._take(state, piece)
        waiting: deque[Promise[Heard]] = deque()
        asked = len(state.data)
        try:
            while not state.whole:
                while asked < state.size_bytes and len(waiting) < self._settings.pieces_outstanding:
                    waiting.append(self._begin(self._state_question(state.index, asked)))
                    asked += self._settings.piece_bytes
                begun = waiting.popleft()
                head, piece = await self._settle(begun, self._state_question(state.index, len(state.data)))
                if not state_of(head).same_as(state) or not len(piece):
                    return await self._again(state, index)
                due = min(self._settings.piece_bytes, state.size_bytes - len(state.data))
                self._take(state, piece)
                if len(piece) != due:  # the other side gives smaller ones: those under way are not what comes next
                    _drop(waiting)
                    asked = len(state.data)
        finally:
            _drop(waiting)
        if not state.intact():
            self._counters.bad_checksums += 1
            self._partials.pop(self._group, None)
            raise Unavailable("the state of a snapshot is not the one that was sent; try again")
        return state

    async def _again(self, state: PartialState, index: int) -> PartialState:
        """The sender has another state by now."""
        self._partials.pop(self._group, None)
        self._moves += 1
        if self._moves > ROUNDS_MAX:
            raise Unavailable(f"the snapshot of group {self._group} moved on while it was fetched; ask again")
        return await self._state(max(state.index, index))

    def _state_question(self, index: int, position: int) -> list[Any]:
        return ["state", self._group, index, position, self._settings.piece_bytes]

    async def _first_piece(self, index: int) -> tuple[PartialState, memoryview]:
        head, piece = await self._ask(self._state_question(index, 0))
        return state_of(head), piece

    def _take(self, state: PartialState, piece: memoryview) -> None:
        state.data += piece
        self._counters.state_bytes_received += len(piece)

    # ---- the entries

    async def _entries(self, install: Install) -> int | None:
        """Stage all that is missing. The index of the sender's snapshot where that has moved on, else None."""
        longest = sorted(install.present, key=lambda one: one[0] - one[1])[:SKIPS_MAX]
        skip = [list(one) for one in sorted(longest)]
        mark: int | None = FIRST_MARK if install.next_mark is None else install.next_mark
        begun: Promise[Heard] | None = None
        while mark is not None:
            question = self._entry_question(install.index, mark, skip)
            head, payload = await (self._ask(question) if begun is None else self._settle(begun, question))
            match head:
                case ["moved", int(index)]:
                    return index
                case ["entries", int(index), int() | None as following] if index == install.index:
                    pass
                case _:
                    raise Unavailable("an answer about a snapshot that this node does not understand")
            entries = decode_entries(payload)
            if entries is None or (following is not None and following <= mark):
                self._counters.bad_checksums += 1
                raise Unavailable("the entries of a snapshot are not those that were sent; try again")
            mark = following
            begun = None
            if mark is not None:  # the next ones travel while these are written
                begun = self._begin(self._entry_question(install.index, mark, skip))
            self._counters.entry_bytes_received += sum(len(entry.payload) for entry in entries)
            await self._stage(install, entries)
        return None

    def _entry_question(self, index: int, mark: int, skip: list[list[int]]) -> list[Any]:
        return ["entries", self._group, index, mark, self._settings.piece_bytes, skip]

    async def _stage(self, install: Install, entries: list[Entry]) -> None:
        try:
            await install.add(entries)
        except PlaitError:  # the disk is full: what was staged goes
            await install.abandon()
            raise

    # ---- questions

    def _begin(self, question: list[Any]) -> Promise[Heard]:
        return self._peers.ask(self._node_id, CHANNEL, question, (), self._settings.timeout_ms)

    async def _ask(self, question: list[Any]) -> Heard:
        return await self._settle(self._begin(question), question)

    async def _settle(self, begun: Promise[Heard], question: list[Any]) -> Heard:
        """The answer to a question that was asked; it is asked again where none came, or the sender was busy.

        Raises PlaitError.
        """
        failures = 0
        while True:
            try:
                head, payload = await begun.wait()
            except (Unavailable, OutcomeUnknown):
                failures += 1
                self._counters.asked_again += 1
                if failures >= self._settings.tries:
                    raise
                await self._pause(self._settings.retry_ms)
            else:
                if not head or head[0] != "wait":
                    return head, payload
                failures = 0
                await self._pause(self._settings.wait_ms)
            if self._log.deleted:
                raise Unavailable(f"group {self._group} was deleted here")
            begun = self._begin(question)

    async def _pause(self, wait_ms: int) -> None:
        await self._clock.sleep_until(self._clock.monotonic_ns() + wait_ms * NS_PER_MS)


def _drop(promises: deque[Promise[Heard]]) -> None:
    """Nobody wants to hear these any more."""
    for promise in promises:
        promise.abandon()
    promises.clear()


class Transfers:
    """Both sides, one per node."""

    def __init__(
        self,
        environment: Environment,
        peers: Peers,
        log_of: Callable[[int], GroupLog | None],
        group_of: Callable[[GroupLog], int] = lambda log: log.group,
        settings: TransferSettings | None = None,
    ) -> None:
        """`log_of` gives this node's log of a group, `group_of` the group that a log is of: nodes know each
        other's groups, not each other's logs."""
        settings = settings or TransferSettings()
        self.counters = TransferCounters()
        self._sender = SnapshotSender(environment, log_of, settings, self.counters)
        self._receiver = SnapshotReceiver(peers, environment.clock, group_of, settings, self.counters)
        peers.serve(CHANNEL, self._sender.serve)

    async def fetch(
        self,
        log: GroupLog,
        node_id: int,
        offer: SnapshotOffer,
        agreed_index: int,
        installed: Callable[[int, bytes], None] | None = None,
    ) -> tuple[int, bytes]:
        """Fetch the snapshot that was offered, or a later one, and install it; its index and state.

        `agreed_index`: entries of the log up to here are known to be the leader's. `installed(index, state)` is
        called in the moment in which the log has it, before anybody else can look.
        Raises PlaitError when it could not be had: the log is as it was, and another attempt, also with another
        node, goes on with what this one has got.
        """
        return await self._receiver.fetch(log, node_id, offer, agreed_index, installed)

    async def forget(self, log: GroupLog) -> None:
        """No other attempt will come: give up what failed ones have got."""
        await self._receiver.forget(log)

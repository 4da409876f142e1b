"""The sender of snapshots: it answers a receiver's questions out of this node's logs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from plait.wire.errors import BadRequest, NotFound, PlaitError, Unavailable
from replication.actor import Promise, rejected
from replication.environment import Environment
from replication.machine import Entry, Range
from replication.storage.damage import StorageFailed
from replication.storage.log import GroupLog
from replication.transfer_rules import (
    NS_PER_MS,
    Answer,
    TransferCounters,
    TransferSettings,
    Turns,
    encode_entries,
    ranges_of,
)


@dataclass(slots=True)
class _Sending:
    """One transfer to another node."""

    key: tuple[int, int]
    """(node, group)."""
    log: GroupLog
    until_ns: int
    hold_until_ns: int
    holds: bool = True
    over: bool = False

    def let_go(self) -> None:
        """The log may forget again."""
        if self.holds:
            self.holds = False
            self.log.held -= 1


class SnapshotSender:
    """Answers questions out of this node's logs."""

    def __init__(
        self,
        environment: Environment,
        log_of: Callable[[int], GroupLog | None],
        settings: TransferSettings,
        counters: TransferCounters,
    ) -> None:
        self._clock = environment.clock
        self._tasks = environment.tasks
        self._log_of = log_of
        self._settings = settings
        self._counters = counters
        self._turns = Turns(settings.transfers_max, settings.waiting_max, 4 * settings.wait_ms * NS_PER_MS)
        self._sendings: dict[tuple[int, int], _Sending] = {}

    def serve(self, node: int, head: list[Any], payload: memoryview) -> Promise[Answer]:
        """A question from a node; see Peers.serve."""
        match head:
            case ["state", int(group), int(index), int(position), int(size)] if min(position, size) >= 0:
                work = partial(self._state, index, position, min(size, self._settings.piece_bytes))
            case ["entries", int(group), int(index), int(mark), int(size), list(skip)] if size >= 0:
                size = min(size, self._settings.piece_bytes)
                work = partial(self._entries, index, mark, size, ranges_of(skip))
            case _:
                return rejected(BadRequest("a question about a snapshot that this node does not understand"))
        promise: Promise[Answer] = Promise()
        self._tasks.spawn("snapshot/answer", self._answer, (node, group), work, promise)
        return promise

    async def _answer(
        self, key: tuple[int, int], work: Callable[[_Sending], Any], promise: Promise[Answer]
    ) -> None:
        try:
            log = self._log_of(key[1])
            if log is None or log.deleted:
                raise NotFound(f"group {key[1]} is not here; nothing was sent")
            if self._turns.ask(key, self._clock.monotonic_ns()):
                promise.resolve(await work(self._sending(key, log)))
            else:
                self._counters.waits += 1
                promise.resolve((["wait", self._settings.wait_ms], ()))
        except PlaitError as error:
            promise.reject(error)
        except StorageFailed:
            promise.reject(Unavailable("this node's disk failed; ask another one"))
        finally:
            promise.reject(Unavailable("the node ends"))  # counts only where there was no answer

    def _sending(self, key: tuple[int, int], log: GroupLog) -> _Sending:
        """The transfer that the question belongs to; its log forgets nothing from now on."""
        now_ns = self._clock.monotonic_ns()
        sending = self._sendings.get(key)
        if sending is None or sending.log is not log:
            if sending is not None:
                self._end(sending)
                self._turns.active[key] = None
            sending = _Sending(key, log, 0, now_ns + self._settings.hold_ms * NS_PER_MS)
            self._sendings[key] = sending
            log.held += 1
            self._tasks.spawn("snapshot/hold", self._hold, sending)
        sending.until_ns = now_ns + self._settings.idle_ms * NS_PER_MS
        return sending

    async def _hold(self, sending: _Sending) -> None:
        while not sending.over:
            now_ns = self._clock.monotonic_ns()
            if now_ns >= sending.hold_until_ns:
                sending.let_go()
            if now_ns >= sending.until_ns:
                self._end(sending)
            else:  # the end may come nearer meanwhile
                step_ns = self._settings.linger_ms * NS_PER_MS // 4
                await self._clock.sleep_until(min(sending.until_ns, now_ns + step_ns))

    def _end(self, sending: _Sending) -> None:
        sending.over = True
        sending.let_go()
        if self._sendings.get(sending.key) is sending:
            del self._sendings[sending.key]
            self._turns.end(sending.key)

    async def _state(self, index: int, position: int, size_bytes: int, sending: _Sending) -> Answer:
        log = sending.log
        if position == 0:  # once for each transfer it is read as a whole, so that rot is found here
            await log.load_snapshot()
        found = await log.read_snapshot(position, size_bytes)
        if found is None:
            raise Unavailable(f"group {log.group} has no snapshot to send now; ask again")
        row, piece = found
        head = ["state", row.index, row.term, row.state_bytes, row.state_crc, row.last_mark]
        if row.index != index and position:
            piece = b""  # of another state than the pieces before
        self._counters.state_bytes_sent += len(piece)
        return head, (piece,)

    async def _entries(
        self, index: int, mark: int, size_bytes: int, skip: list[Range], sending: _Sending
    ) -> Answer:
        log = sending.log
        if log.snapshot_index != index:
            return ["moved", log.snapshot_index], ()
        following: int | None = mark
        entries: list[Entry] = []
        since_ns = self._clock.monotonic_ns()
        patience_ns = self._settings.timeout_ms * NS_PER_MS // 4
        while not entries and following is not None:
            entries, following = await log.live_piece(following, size_bytes, skip)
            if self._clock.monotonic_ns() - since_ns > patience_ns:
                break
        if following is None:
            sending.until_ns = self._clock.monotonic_ns() + self._settings.linger_ms * NS_PER_MS
            if self._sendings.get(sending.key) is sending:  # not if the disk took so long that it was given up
                self._turns.end(sending.key)
        self._counters.entry_bytes_sent += sum(len(entry.payload) for entry in entries)
        return ["entries", index, following], encode_entries(entries)

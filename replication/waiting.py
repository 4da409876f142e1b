"""Who waits for something of a group: reads, changes of members, leadership handed over, a leader to be known.

ask ──> promise ──(the core says it is safe)──> (applied up to there)──> resolved
            └─────(leadership went)──> rejected
"""

from __future__ import annotations

from collections import deque

from plait.wire.errors import NotLeader, OutcomeUnknown, Unavailable
from replication.actor import Promise
from replication.raft.core import RaftCore
from replication.raft.output import Output


class Waiting:
    """The promises of one replica that nobody but its group resolves."""

    __slots__ = ("_changes", "_handing_over", "_led", "_name", "_reads", "_safe")

    def __init__(self, name: str) -> None:
        self._name = name
        self._reads: dict[int, Promise[int]] = {}  # by the core's ticket
        self._safe: deque[tuple[int, Promise[int]]] = deque()  # (index, ...): to be applied up to there
        self._changes: list[Promise[None]] = []
        self._handing_over: list[Promise[None]] = []
        self._led: Promise[None] | None = None

    def leader(self) -> Promise[None]:
        """Somebody who leads, as far as is known here."""
        if self._led is None:
            self._led = Promise()
        return self._led

    def read(self, ticket: int) -> Promise[int]:
        """A read that the core has a ticket for."""
        promise = self._reads[ticket] = Promise()
        return promise

    def change(self) -> Promise[None]:
        """A change of members that has begun."""
        promise: Promise[None] = Promise()
        self._changes.append(promise)
        return promise

    def hand_over(self) -> Promise[None]:
        """Leadership that is to go to somebody else."""
        promise: Promise[None] = Promise()
        self._handing_over.append(promise)
        return promise

    def reads_settled(self, output: Output, applied_index: int) -> None:
        """What the core said of reads."""
        for ticket, index in output.reads:
            promise = self._reads.pop(ticket)
            if index <= applied_index:
                promise.resolve(applied_index)
            else:
                self._safe.append((index, promise))
        for ticket in output.lost_reads:
            self._reads.pop(ticket).reject(self._led_elsewhere())

    def look(self, core: RaftCore, applied_index: int) -> None:
        """Answer whoever waited for what has happened by now."""
        while self._safe and self._safe[0][0] <= applied_index:
            self._safe.popleft()[1].resolve(applied_index)
        if self._changes and not core.membership.joint and core.membership_index <= core.commit:
            done, self._changes = self._changes, []
            for promise in done:
                promise.resolve(None)
        if self._led is not None and core.leader:
            self._end_wait_for_leader()
        if self._handing_over and core.leader == core.replica and not core.transferring_to:
            failed, self._handing_over = self._handing_over, []
            for promise in failed:
                promise.reject(
                    Unavailable(f"{self._name} was not taken over in time; leadership stays; try again")
                )

    def end(self) -> None:
        """Leadership is over: whoever waits is answered."""
        self._end_wait_for_leader()
        lost = OutcomeUnknown(f"{self._name} lost its leadership; whether it was done is not known; look")
        changes, self._changes = self._changes, []
        handing_over, self._handing_over = self._handing_over, []
        reads = [*self._reads.values(), *(promise for _, promise in self._safe)]
        self._reads.clear()
        self._safe.clear()
        for changing in changes:
            changing.reject(lost)
        for handing in handing_over:
            handing.resolve(None)
        for reading in reads:
            reading.reject(self._led_elsewhere())

    def _end_wait_for_leader(self) -> None:
        if self._led is not None:
            led, self._led = self._led, None
            led.resolve(None)

    def _led_elsewhere(self) -> NotLeader:
        return NotLeader(f"{self._name} is not led here any more; nothing was read; ask again")

"""Publishes that wait for room in a partition, each producer in a line of its own, served in fair turns.

    producer A  [a1 a2 a3 ...]  ─┐
    producer B  [b1]            ─┼─ deficit round robin, QUANTUM_BYTES a turn ──> next()
    producer C  [c1 c2]         ─┘

Deficit round robin (Shreedhar and Varghese, 1995): over any time in which two producers both wait, what they
are given differs by at most a quantum and a largest publish each, however many publishes one of them sends.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass

QUANTUM_BYTES = 65_536
"""Bytes that a producer's turn is worth."""
WAITING_PUBLISHES_PER_PRODUCER_MAX = 32
"""Publishes of one producer that wait for one partition."""
WAITING_PUBLISHES_MAX = 1_024
"""Publishes of all producers that wait for one partition."""
WAITING_BYTES_MAX = 8 * 1_048_576
"""Bytes of all publishes that wait for one partition (a single larger one may wait alone)."""


@dataclass(slots=True, eq=False)
class Waiter:
    """One publish that waits."""

    ticket: int
    owner: str
    producer: str
    records: int
    size_bytes: int
    cost_bytes: int
    """What it counts in fair turns: at least 1, and at most the partition's cap."""
    deadline_ns: int
    through: int = 0
    """The node that it came by way of; 0: it is a client's of this one."""


class _Line:
    __slots__ = ("deficit_bytes", "waiters", "waiting_bytes")

    def __init__(self) -> None:
        self.waiters: deque[Waiter] = deque()
        self.deficit_bytes = 0
        self.waiting_bytes = 0


class FairLine:
    """The waiting publishes of one partition."""

    __slots__ = ("_deadlines", "_lines", "_tickets", "_turns", "waiting_bytes")

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}
        # the producers' turns: the first one's is now
        self._turns: deque[_Line] = deque()
        self._tickets: dict[int, Waiter] = {}
        self._deadlines: list[tuple[int, int]] = []
        self.waiting_bytes = 0

    def __len__(self) -> int:
        return len(self._tickets)

    def producer_full(self, producer: str) -> bool:
        """Whether the producer has as many publishes waiting as one may."""
        line = self._lines.get(producer)
        return line is not None and len(line.waiters) >= WAITING_PUBLISHES_PER_PRODUCER_MAX

    def full_for(self, size_bytes: int) -> bool:
        """Whether a publish of that size finds no place behind the others."""
        if not self._tickets:
            return False
        return len(self._tickets) >= WAITING_PUBLISHES_MAX or self.waiting_bytes + size_bytes > WAITING_BYTES_MAX

    def bytes_ahead(self, producer: str, size_bytes: int) -> int:
        """Bytes that may be served before a new publish of the producer has its turn, at most."""
        line = self._lines.get(producer)
        own_bytes = (line.waiting_bytes if line is not None else 0) + size_bytes
        return min(self.waiting_bytes, (own_bytes + QUANTUM_BYTES) * len(self._lines))

    def heaviest(self, than_bytes: int) -> Waiter | None:
        """The newest publish of the producer with the most bytes waiting, if those are more than that."""
        heaviest: _Line | None = None
        for line in self._turns:
            if line.waiting_bytes > than_bytes:
                heaviest, than_bytes = line, line.waiting_bytes
        return heaviest.waiters[-1] if heaviest is not None else None

    def waiting_bytes_of(self, producer: str) -> int:
        """Bytes that the producer has waiting."""
        line = self._lines.get(producer)
        return line.waiting_bytes if line is not None else 0

    def add(self, waiter: Waiter) -> None:
        """Put a publish at the end of its producer's line."""
        line = self._lines.get(waiter.producer)
        if line is None:
            line = self._lines[waiter.producer] = _Line()
            self._turns.append(line)
        line.waiters.append(waiter)
        line.waiting_bytes += waiter.size_bytes
        self.waiting_bytes += waiter.size_bytes
        self._tickets[waiter.ticket] = waiter
        heapq.heappush(self._deadlines, (waiter.deadline_ns, waiter.ticket))
        if len(self._deadlines) > 2 * WAITING_PUBLISHES_MAX:  # mostly of publishes that were served long ago
            self._deadlines = [entry for entry in self._deadlines if entry[1] in self._tickets]
            heapq.heapify(self._deadlines)

    def next(self) -> Waiter | None:
        """Whose turn it is; stays the same until it is taken, or somebody cancels."""
        if not self._turns:
            return None
        while True:
            for _ in range(len(self._turns)):
                line = self._turns[0]
                if line.waiters[0].cost_bytes <= line.deficit_bytes:
                    return line.waiters[0]
                self._turns.rotate(-1)
            self._grant()

    def _grant(self) -> None:
        """As many quanta for all as the first to be served needs: rounds that serve nobody are skipped."""
        rounds = min(
            -(-(line.waiters[0].cost_bytes - line.deficit_bytes) // QUANTUM_BYTES) for line in self._turns
        )
        for line in self._turns:
            line.deficit_bytes += rounds * QUANTUM_BYTES

    def take(self, waiter: Waiter) -> None:
        """The waiter that `next` named is served."""
        line = self._lines[waiter.producer]
        line.deficit_bytes -= waiter.cost_bytes
        assert line.deficit_bytes >= 0, "served beyond its turn"
        self._leave(waiter)

    def remove(self, ticket: int) -> Waiter | None:
        """Take a publish out of the line; None if it does not wait (any more)."""
        waiter = self._tickets.get(ticket)
        if waiter is not None:
            # what the line had saved up for this one does not go to the ones behind it
            line = self._lines[waiter.producer]
            line.deficit_bytes = min(line.deficit_bytes, QUANTUM_BYTES)
            self._leave(waiter)
        return waiter

    def of_owner(self, owner: str) -> list[int]:
        """Tickets of that owner's publishes, oldest first."""
        return [ticket for ticket, waiter in self._tickets.items() if waiter.owner == owner]

    def all(self) -> list[int]:
        """Every ticket, oldest first."""
        return list(self._tickets)

    def next_deadline_ns(self) -> int | None:
        """When the first waiting publish has waited for as long as it may."""
        while self._deadlines and self._deadlines[0][1] not in self._tickets:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def expired(self, now_ns: int) -> list[Waiter]:
        """Take out the publishes that have waited for as long as they may, and return them."""
        gone = []
        while (deadline_ns := self.next_deadline_ns()) is not None and deadline_ns <= now_ns:
            waiter = self.remove(self._deadlines[0][1])
            assert waiter is not None, "next_deadline_ns names a waiting one"
            gone.append(waiter)
        return gone

    def _leave(self, waiter: Waiter) -> None:
        del self._tickets[waiter.ticket]
        self.waiting_bytes -= waiter.size_bytes
        line = self._lines[waiter.producer]
        line.waiters.remove(waiter)
        line.waiting_bytes -= waiter.size_bytes
        if not line.waiters:
            assert line.waiting_bytes == 0, "an empty line has bytes"
            del self._lines[waiter.producer]
            self._turns.remove(line)
        assert self.waiting_bytes >= 0, "more left than came"

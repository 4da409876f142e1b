"""Reads that wait for a quorum to confirm that the leader still leads (ReadIndex, dissertation 6.4).

    asked ──(next round of beats)──> (round, commit index at its start) ──(quorum answered that round)──> safe

A round is numbered afresh and begins after every read that it speaks for: an answer to an older round proves
nothing for a younger read.
"""

from __future__ import annotations

from collections import deque


class Reads:
    """The reads of one leader in one term."""

    __slots__ = ("_asked", "_rounds", "_tickets", "round")

    def __init__(self) -> None:
        self.round = 0
        """The newest round that was begun."""
        self._tickets = 0
        self._asked: list[int] = []
        self._rounds: deque[tuple[int, int, list[int]]] = deque()  # (round, index, tickets)

    def __len__(self) -> int:
        return len(self._asked) + sum(len(tickets) for _, _, tickets in self._rounds)

    @property
    def asked(self) -> bool:
        """Reads wait for a round to begin."""
        return bool(self._asked)

    def ask(self) -> int:
        """A new read; its ticket."""
        self._tickets += 1
        self._asked.append(self._tickets)
        return self._tickets

    def begin(self, index: int) -> None:
        """Begin a round for all that asked; `index` is committed now."""
        self.round += 1
        self._rounds.append((self.round, index, self._asked))
        self._asked = []

    def confirmed(self, round_: int) -> list[tuple[int, int]]:
        """A quorum answered that round: (ticket, index) of all reads that are safe now."""
        safe: list[tuple[int, int]] = []
        while self._rounds and self._rounds[0][0] <= round_:
            _, index, tickets = self._rounds.popleft()
            safe += [(ticket, index) for ticket in tickets]
        return safe

    def drop(self) -> list[int]:
        """Leadership ended: the tickets of all reads that wait. Tickets and rounds are not used again."""
        lost = [ticket for _, _, tickets in self._rounds for ticket in tickets] + self._asked
        self._rounds.clear()
        self._asked = []
        return lost

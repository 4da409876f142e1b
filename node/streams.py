"""What comes from a node in pieces that may overtake each other is taken in the order in which it was sent.

A sender numbers what it sends from 0 on within a stream. When something went wrong it waits until nothing is under
way any more and begins a new stream, with a higher number; what is left of the old one is refused. Pure.
"""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")

HELD_MAX = 1_024
"""Pieces that may wait for one that was sent before them; more than a sender has under way."""

StreamNumber = tuple[int, int]
"""(the sender's incarnation, number of its stream)."""


class Stream(Generic[T]):
    """The latest stream of one sender to one receiver."""

    __slots__ = ("_held", "broken", "next", "number")

    def __init__(self) -> None:
        self.number: StreamNumber = (0, 0)
        self.next = 0
        """The place of the piece that is taken next."""
        self.broken = False
        """A piece was refused: so is everything behind it."""
        self._held: dict[int, T] = {}

    def begin(self, number: StreamNumber) -> list[T]:
        """A piece of that stream has come. If it is a new one, the old one ends: what was held of it."""
        if number <= self.number:
            return []
        left, self._held = list(self._held.values()), {}
        self.number, self.next, self.broken = number, 0, False
        return left

    def accepts(self, number: StreamNumber, place: int) -> bool:
        """Whether a piece may still be taken."""
        return number == self.number and not self.broken and self.next <= place < self.next + HELD_MAX

    def take(self, place: int, piece: T) -> list[T]:
        """A piece that is accepted: what can be taken now, in order."""
        self._held[place] = piece
        ready: list[T] = []
        while self.next in self._held:
            ready.append(self._held.pop(self.next))
            self.next += 1
        return ready

    def end(self) -> list[T]:
        """A piece was refused: what was held behind it, to be refused as well."""
        self.broken = True
        left, self._held = list(self._held.values()), {}
        return left

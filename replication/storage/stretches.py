"""Which part of which segment has which entries of a group. Pure.

    part 7   ████████░░████████        ░ hidden: rotten, and brought anew by a snapshot from the leader
    part 9           ██        ██████
    stretches  7       9   7     9     disjoint, by rising index

Indexes and marks rise together, so that stretches can be searched by either.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass

from replication.storage.segments import Part


@dataclass(slots=True)
class Stretch:
    """A run of indexes that one part has."""

    part: Part
    first: int
    last: int
    valid_mark: int = -1
    """The last mark that may be looked for here: those behind belong to later stretches."""


class Stretches:
    """All of one group."""

    def __init__(self, parts: Iterable[Part] = ()) -> None:
        self.parts = [part for part in parts if part.shown]
        """By rising index."""
        self.parts.sort(key=lambda part: part.first_index)
        self.all = [Stretch(part, first, last) for part in self.parts for first, last in part.shown]
        self.all.sort(key=lambda stretch: stretch.first)
        self.marked = [stretch for stretch in self.all if stretch.part.marks]
        """Those of parts with marks."""
        following: int | None = None
        for stretch in reversed(self.marked):  # a part that was cut may name marks that others have now
            part = stretch.part
            stretch.valid_mark = part.last_mark if following is None else min(part.last_mark, following - 1)
            if stretch.first == part.first_index:  # further on in a part nobody knows the mark at hand
                following = part.first_mark if following is None else min(part.first_mark, following)

    @property
    def last(self) -> Stretch | None:
        """The last one."""
        return self.all[-1] if self.all else None

    def of_index(self, index: int) -> Stretch | None:
        """The stretch that has this index, or else the first behind it."""
        at = bisect_left(self.all, index, key=lambda stretch: stretch.last)
        return self.all[at] if at < len(self.all) else None

    def of_mark(self, mark: int, behind: int) -> Stretch | None:
        """The first stretch behind index `behind` that may have this mark or one behind it."""
        marked = self.marked
        for at in range(bisect_left(marked, mark, key=lambda stretch: stretch.valid_mark), len(marked)):
            if marked[at].first > behind:
                return marked[at]
        return None

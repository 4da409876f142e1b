"""Sets of offsets as ranges (first, last), both included: the measure of everything that is kept in pieces.

A list of ranges is *tidy* when it is sorted and no two ranges touch or overlap; all functions here take and
give tidy lists unless they say otherwise. `RangeSet` is the set that changes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence

Range = tuple[int, int]
"""(first, last), both included."""


def tidy(ranges: Iterable[Range]) -> list[Range]:
    """Any ranges, in any order and overlapping, as a tidy list of the same offsets. Empty ranges vanish."""
    result: list[Range] = []
    for first, last in sorted(ranges):
        if first > last:
            continue
        if result and first <= result[-1][1] + 1:
            if last > result[-1][1]:
                result[-1] = (result[-1][0], last)
        else:
            result.append((first, last))
    return result


def extend(ranges: list[Range], first: int, last: int) -> None:
    """Append a range that lies behind all of `ranges` (not necessarily apart from the last one)."""
    if ranges and ranges[-1][1] + 1 == first:
        ranges[-1] = (ranges[-1][0], last)
    else:
        ranges.append((first, last))


def count(ranges: Iterable[Range]) -> int:
    """How many offsets a tidy list holds."""
    return sum(last - first + 1 for first, last in ranges)


def contains(ranges: Sequence[Range], offset: int) -> bool:
    """Whether the offset lies in one of the ranges: O(log n)."""
    at = bisect_right(ranges, offset, key=_first) - 1
    return at >= 0 and offset <= ranges[at][1]


def intersect(left: Sequence[Range], right: Sequence[Range]) -> list[Range]:
    """The offsets that are in both."""
    result: list[Range] = []
    i = j = 0
    while i < len(left) and j < len(right):
        first = max(left[i][0], right[j][0])
        last = min(left[i][1], right[j][1])
        if first <= last:
            result.append((first, last))
        if left[i][1] < right[j][1]:
            i += 1
        else:
            j += 1
    return result


def subtract(left: Sequence[Range], right: Sequence[Range]) -> list[Range]:
    """The offsets of `left` that are not in `right`."""
    result: list[Range] = []
    j = 0
    for first, last in left:
        while j < len(right) and right[j][1] < first:
            j += 1
        at = j
        while at < len(right) and right[at][0] <= last:
            if first < right[at][0]:
                result.append((first, right[at][0] - 1))
            first = right[at][1] + 1
            at += 1
        if first <= last:
            result.append((first, last))
    return result


def _first(each: Range) -> int:
    return each[0]


class RangeSet:
    """A set of offsets that costs memory per range.

    Kept as one sorted list of edges, where membership changes: [first, last + 1, first, last + 1, ...]. An even
    index opens a range and an odd one closes it, so adding or removing a range is two bisections and one slice.
    """

    __slots__ = ("_count", "_edges")

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._edges: list[int] = []
        self._count = 0
        for first, last in ranges:
            self.add(first, last)

    def __len__(self) -> int:
        """How many ranges (not offsets) there are."""
        return len(self._edges) // 2

    def __bool__(self) -> bool:
        return bool(self._edges)

    def __contains__(self, offset: int) -> bool:
        return bisect_right(self._edges, offset) % 2 == 1

    def __iter__(self) -> Iterator[Range]:
        """The ranges in order; the set must not change meanwhile."""
        edges = self._edges
        for at in range(0, len(edges), 2):
            yield edges[at], edges[at + 1] - 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RangeSet) and self._edges == other._edges

    __hash__ = None  # type: ignore[assignment]  # mutable, as list and set do it

    def __repr__(self) -> str:
        return f"RangeSet({list(self)})"

    @property
    def count(self) -> int:
        """How many offsets are in the set."""
        return self._count

    @property
    def first(self) -> int | None:
        """The lowest offset, or None when the set is empty."""
        return self._edges[0] if self._edges else None

    @property
    def last(self) -> int | None:
        """The highest offset, or None when the set is empty."""
        return self._edges[-1] - 1 if self._edges else None

    def add(self, first: int, last: int) -> int:
        """Put a range in; returns how many of its offsets were not there before."""
        if first > last:
            return 0
        edges = self._edges
        low = bisect_left(edges, first)
        high = bisect_right(edges, last + 1, low)
        fresh = last - first + 1 - _covered(edges, low, high, first, last)
        edge: list[int] = [] if low % 2 else [first]
        if high % 2 == 0:
            edge.append(last + 1)
        edges[low:high] = edge
        self._count += fresh
        return fresh

    def remove(self, first: int, last: int) -> int:
        """Take a range out; returns how many of its offsets were there."""
        if first > last:
            return 0
        edges = self._edges
        low = bisect_left(edges, first)
        high = bisect_right(edges, last + 1, low)
        gone = _covered(edges, low, high, first, last)
        edge: list[int] = [first] if low % 2 else []
        if high % 2:
            edge.append(last + 1)
        edges[low:high] = edge
        self._count -= gone
        return gone

    def clear(self) -> None:
        """Take everything out."""
        self._edges.clear()
        self._count = 0

    def fill(self, ranges: Iterable[Range]) -> None:
        """Hold exactly a tidy list of ranges."""
        self._edges = [edge for first, last in ranges for edge in (first, last + 1)]
        self._count = sum(self._edges[1::2]) - sum(self._edges[::2])

    def covers(self, first: int, last: int) -> bool:
        """Whether every offset of the range is in the set."""
        at = bisect_right(self._edges, first)
        return at % 2 == 1 and last < self._edges[at]

    def ranges_from(self, offset: int) -> Iterator[Range]:
        """The ranges in order from `offset` on; one that begins before it is cut. No changes meanwhile."""
        edges = self._edges
        at = bisect_right(edges, offset)
        if at % 2:
            yield offset, edges[at] - 1
            at += 1
        for opening in range(at, len(edges), 2):
            yield edges[opening], edges[opening + 1] - 1

    def within(self, first: int, last: int) -> list[Range]:
        """What the set has of a range."""
        result: list[Range] = []
        for low, high in self.ranges_from(first):
            if low > last:
                break
            result.append((low, min(high, last)))
        return result

    def missing(self, first: int, last: int) -> list[Range]:
        """What the set does not have of a range."""
        return subtract([(first, last)], self.within(first, last)) if first <= last else []

    def take(self, limit: int) -> list[Range]:
        """Take out the lowest offsets, at most `limit` of them."""
        edges = self._edges
        taken: list[Range] = []
        left = limit
        at = 0
        while left > 0 and at < len(edges):
            first, behind = edges[at], edges[at + 1]
            if behind - first > left:
                edges[at] = behind = first + left
            else:
                at += 2
            taken.append((first, behind - 1))
            left -= behind - first
        del edges[:at]
        self._count -= limit - left if limit > 0 else 0
        return taken


def _covered(edges: list[int], low: int, high: int, first: int, last: int) -> int:
    """How many of first..last are in the set, given that edges[low:high] are the edges from first to last + 1."""
    if low == high:
        return last - first + 1 if low % 2 else 0
    inside = 0
    opened = first
    for at in range(low, high):
        if at % 2:
            inside += edges[at] - opened
        else:
            opened = edges[at]
    if high % 2:
        inside += last + 1 - opened
    return inside

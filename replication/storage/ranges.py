"""Arithmetic of sorted ranges that do not overlap. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from replication.machine import Range


def touches(ranges: Sequence[Range], first: int, last: int) -> bool:
    """True if one of the ranges has something between first and last."""
    at = bisect_right(ranges, last, key=lambda item: item[0]) - 1
    return at >= 0 and ranges[at][1] >= first


def without(ranges: Iterable[Range], first: int, last: int) -> list[Range]:
    """What is left when `first` to `last` are taken out."""
    left: list[Range] = []
    for low, high in ranges:
        if high < first or low > last:
            left.append((low, high))
            continue
        if low < first:
            left.append((low, first - 1))
        if high > last:
            left.append((last + 1, high))
    return left


def within(ranges: Iterable[Range], first: int, last: int) -> list[Range]:
    """What of them lies between first and last."""
    return [(max(low, first), min(high, last)) for low, high in ranges if low <= last and high >= first]


def range_of(ranges: Sequence[Range], number: int) -> Range | None:
    """The range that has this number."""
    at = bisect_right(ranges, number, key=lambda item: item[0]) - 1
    return ranges[at] if at >= 0 and ranges[at][1] >= number else None

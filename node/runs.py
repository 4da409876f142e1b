"""A map from offsets to values that is stored as runs: neighbours with equal values are one run.

    offsets   0 ........ 9 10 .... 14 15 ....... 29 30 ...
    values    none         A          none          B ...
    boundaries       -1: none, 10: A, 15: none, 30: B, ...

What is stored is boundaries: "from here on the value is ...". Two neighbouring boundaries never have equal values,
so the form is canonical: the same contents, reached in whatever way, are stored in the same boundaries. They lie
in blocks of bounded size, so that a change in the middle of half a million runs moves one block only.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

V = TypeVar("V")

BLOCK_BOUNDARIES_MAX = 512
"""Boundaries in one block; a larger one is split in halves."""

HIGHEST_OFFSET = (1 << 63) - 1
"""No offset is above it."""


class RunMap(Generic[V]):
    """Offsets (0 and up) to values; offsets that were given none have the value None."""

    __slots__ = ("_count", "_keys", "_starts", "_values")

    def __init__(self) -> None:
        # The first boundary, -1, is below every offset; the last one's value is always None.
        # No block is empty, and _starts[b] == _keys[b][0].
        self._starts: list[int] = [-1]
        self._keys: list[list[int]] = [[-1]]
        self._values: list[list[V | None]] = [[None]]
        self._count = 0

    def __len__(self) -> int:
        """How many runs there are (of values other than None)."""
        return self._count

    def __iter__(self) -> Iterator[tuple[int, int, V]]:
        """All runs (first, last, value) in order. The map must not change meanwhile."""
        first = -1
        value: V | None = None
        for keys, values in zip(self._keys, self._values, strict=True):
            for key, following in zip(keys, values, strict=True):
                if value is not None:
                    yield first, key - 1, value
                first, value = key, following

    def clear(self) -> None:
        """Give every offset the value None."""
        self.__init__()  # type: ignore[misc]  # one place says what empty means

    def fill(self, runs: Iterable[tuple[int, int, V]]) -> None:
        """Hold exactly these runs (first, last, value), sorted and apart unless their values differ."""
        keys = [-1]
        values: list[V | None] = [None]
        for first, last, value in runs:
            if keys[-1] == first:
                values[-1] = value
            else:
                keys.append(first)
                values.append(value)
            keys.append(last + 1)
            values.append(None)
        half = BLOCK_BOUNDARIES_MAX // 2
        self._keys = [keys[at : at + half] for at in range(0, len(keys), half)]
        self._values = [values[at : at + half] for at in range(0, len(keys), half)]
        self._starts = keys[::half]
        self._count = len(values) - values.count(None)

    def get(self, offset: int) -> V | None:
        """The value of one offset."""
        block = bisect_right(self._starts, offset) - 1
        return self._values[block][bisect_right(self._keys[block], offset) - 1]

    def first_offset(self) -> int | None:
        """The lowest offset that has a value, or None."""
        if len(self._keys[0]) > 1:
            return self._keys[0][1]
        return self._starts[1] if len(self._starts) > 1 else None

    def overlapping(self, first: int, last: int) -> list[tuple[int, int, V]]:
        """The whole runs that have at least one offset in first..last, in order."""
        block = bisect_right(self._starts, first) - 1
        keys = self._keys[block]
        values = self._values[block]
        at = bisect_right(keys, first) - 1
        found: list[tuple[int, int, V]] = []
        while True:
            size = len(keys)
            while at < size:
                key = keys[at]
                if key > last:
                    return found
                value = values[at]
                at += 1
                if value is not None:
                    behind = keys[at] if at < size else self._starts[block + 1]
                    found.append((key, behind - 1, value))
            block += 1
            if block == len(self._starts):
                return found
            keys = self._keys[block]
            values = self._values[block]
            at = 0

    def within(self, first: int, last: int) -> list[tuple[int, int, V]]:
        """The runs of first..last, in order, cut to it."""
        found = self.overlapping(first, last)
        if found:
            low, high, value = found[0]
            if low < first:
                found[0] = (first, high, value)
            low, high, value = found[-1]
            if high > last:
                found[-1] = (low, last, value)
        return found

    def assign(self, first: int, last: int, value: V | None) -> None:
        """Give all of first..last (not empty) one value."""
        starts = self._starts
        behind = last + 1
        # The block that has a boundary strictly below `first`: what lies before the range is known from it.
        block = bisect_left(starts, first) - 1
        keys = self._keys[block]
        values = self._values[block]
        low = bisect_left(keys, first)
        end_block = block
        if block + 1 < len(starts) and starts[block + 1] <= behind:
            end_block = bisect_right(starts, behind) - 1
            high = bisect_right(self._keys[end_block], behind)
            after = self._values[end_block][high - 1]
        else:
            high = bisect_right(keys, behind, low)
            after = values[high - 1]
        new_keys: list[int] = []
        new_values: list[V | None] = []
        if values[low - 1] != value:
            new_keys.append(first)
            new_values.append(value)
        if after != value:
            new_keys.append(behind)
            new_values.append(after)
        if end_block != block:
            self._cut(block, low, end_block, high)
            high = low
        elif low != high:
            old = values[low:high]
            self._count -= len(old) - old.count(None)
        keys[low:high] = new_keys
        values[low:high] = new_values
        self._count += len(new_values) - new_values.count(None)
        if len(keys) > BLOCK_BOUNDARIES_MAX:
            self._split(block)

    def _cut(self, block: int, low: int, end_block: int, high: int) -> None:
        """Remove the boundaries from `low` of one block to before `high` of a later one."""
        for each in range(block, end_block + 1):
            old = self._values[each][low if each == block else 0 : high if each == end_block else None]
            self._count -= len(old) - old.count(None)
        del self._keys[block][low:]
        del self._values[block][low:]
        if high == len(self._keys[end_block]):
            end_block += 1
        else:
            del self._keys[end_block][:high]
            del self._values[end_block][:high]
            self._starts[end_block] = self._keys[end_block][0]
        del self._starts[block + 1 : end_block]
        del self._keys[block + 1 : end_block]
        del self._values[block + 1 : end_block]

    def _split(self, block: int) -> None:
        keys = self._keys[block]
        values = self._values[block]
        half = len(keys) // 2
        self._keys.insert(block + 1, keys[half:])
        self._values.insert(block + 1, values[half:])
        self._starts.insert(block + 1, keys[half])
        del keys[half:]
        del values[half:]

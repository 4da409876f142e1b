"""Deadlines of many things, most of which are put off before they come. Pure: told the time, says what is due.

Putting one off costs no search: the queue keeps the old time, and looks again when that has come.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Deadlines(Generic[K]):
    """One deadline a key, in ns of whatever clock the caller keeps to."""

    def __init__(self) -> None:
        self._at: dict[K, int] = {}
        self._queued: dict[K, int] = {}  # the queue's entry that counts; never behind the deadline
        self._queue: list[tuple[int, int, K]] = []
        self._number = 0  # breaks ties in the order of asking

    def __contains__(self, key: K) -> bool:
        return key in self._at

    def set(self, key: K, at_ns: int) -> None:
        """The key is due at that time, and not at an earlier one that was said."""
        self._at[key] = at_ns
        if at_ns < self._queued.get(key, at_ns + 1):
            self._enqueue(key, at_ns)

    def drop(self, key: K) -> None:
        """It is not due any more."""
        self._at.pop(key, None)

    def clear(self) -> None:
        """Nothing is due any more."""
        self._at.clear()
        self._queued.clear()
        self._queue.clear()

    def due(self, now_ns: int) -> list[K]:
        """Those whose time has come, in the order of their times; they are dropped."""
        found: list[K] = []
        while self._queue and self._queue[0][0] <= now_ns:
            queued_ns, _, key = heapq.heappop(self._queue)
            if self._queued.get(key) != queued_ns:
                continue
            del self._queued[key]
            at_ns = self._at.get(key)
            if at_ns is None:
                continue
            if at_ns == queued_ns:
                del self._at[key]
                found.append(key)
            else:  # it was put off: its place in the order is that of its new time, also if that has come
                self._enqueue(key, at_ns)
        return found

    @property
    def next_ns(self) -> int | None:
        """When to look again; it may be too early, never too late. None: nothing is due ever."""
        return self._queue[0][0] if self._queue else None

    def _enqueue(self, key: K, at_ns: int) -> None:
        self._number += 1
        self._queued[key] = at_ns
        heapq.heappush(self._queue, (at_ns, self._number, key))

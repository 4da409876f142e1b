"""How many groups of a node may campaign at one time: after a node's death thousands want to. Pure.

    may_start ── a place is free ──> True, and it is taken
              └─ none is ──────────> False, and the group stands in line: `next` gives it its turn

A place is given back by `ended`, or falls free by itself after a while, so that nobody can keep it by mistake.
"""

from __future__ import annotations


class Campaigns:
    """Places and the line in front of them."""

    def __init__(self, places: int, hold_ns: int) -> None:
        self._places = places
        self._hold_ns = hold_ns
        self._running: dict[int, int] = {}  # group: when its place falls free; in that order, all hold as long
        self._line: dict[int, None] = {}

    @property
    def running(self) -> int:
        """Places that are taken."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Groups in line."""
        return len(self._line)

    def may_start(self, group: int, now_ns: int) -> bool:
        """Whether the group may campaign now; else it stands in line. Asking again changes nothing."""
        self._expire(now_ns)
        if group in self._running:
            return True
        if len(self._running) < self._places and (not self._line or next(iter(self._line)) == group):
            self._line.pop(group, None)
            self._running[group] = now_ns + self._hold_ns
            return True
        self._line[group] = None
        return False

    def ended(self, group: int) -> None:
        """The group has a leader, gave up, or is gone: neither running nor in line."""
        self._running.pop(group, None)
        self._line.pop(group, None)

    def next(self, now_ns: int) -> int | None:
        """A group whose turn has come, with its place taken; None: no place is free, or nobody is in line."""
        self._expire(now_ns)
        if not self._line or len(self._running) >= self._places:
            return None
        group = next(iter(self._line))
        del self._line[group]
        self._running[group] = now_ns + self._hold_ns
        return group

    def next_deadline_ns(self) -> int | None:
        """When to call `next` although nobody called `ended`."""
        return next(iter(self._running.values())) if self._line and self._running else None

    def _expire(self, now_ns: int) -> None:
        while self._running:
            group, until_ns = next(iter(self._running.items()))
            if until_ns > now_ns:
                break
            del self._running[group]

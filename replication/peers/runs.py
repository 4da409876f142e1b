"""Runs of entries as bytes, kept for a moment: a leader sends each to all of its followers. Pure.

Append to node 2 ──┐                      ┌─ encoded
Append to node 3 ──┴─ the same entries ───┴─ found
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from replication.environment import Buffer
from replication.machine import Entry

RUNS_BYTES = 2 << 20
"""Encoded runs that are kept. Links take what waits for them one after the other, a frame or less at a time."""
RUNS_MAX = 64
"""Encoded runs that are kept, and looked through."""


class Runs:
    """Encoded runs, the newest of them, by the very sequence that they were made from."""

    __slots__ = ("_bytes", "_kept")

    def __init__(self) -> None:
        self._kept: deque[tuple[Sequence[Entry], bytes]] = deque()
        self._bytes = 0

    def find(self, entries: Sequence[Entry]) -> bytes | None:
        """What was kept of it."""
        for kept, data in reversed(self._kept):
            if kept is entries:
                return data
        return None

    def keep(self, entries: Sequence[Entry], parts: Sequence[Buffer]) -> bytes:
        """The parts in one piece, which is kept until newer ones take its place. The sequence must not change."""
        data = b"".join(parts)
        self._kept.append((entries, data))
        self._bytes += len(data)
        while self._bytes > RUNS_BYTES or len(self._kept) > RUNS_MAX:
            self._bytes -= len(self._kept.popleft()[1])
        return data

    def forget(self) -> None:
        """Let go of all."""
        self._kept.clear()
        self._bytes = 0

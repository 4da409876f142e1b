"""What waits to be sent to one client: encoded buffers in order, and how many bytes they are.

    answers, deliveries ──append──> Outbox ──take──> the driver's writer ──> socket

Many small buffers leave as one; a large one leaves as it is, without being copied.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from replication.environment import Buffer

SEND_BYTES = 256 * 1024
"""Bytes handed to the socket at once; the time that a client has to take them is SEND_STALL_S."""
JOIN_BYTES_MAX = 64 * 1024
"""Bytes of a buffer above which it is sent on its own, because copying it would cost more than a call."""


class Outbox:
    """A queue of buffers with two marks: `crowded` becomes true above `high_bytes` and false below `low_bytes`.

    `on_first` is called when something is put into an empty outbox, `on_crowded` and `on_relieved` when
    `crowded` changes. Nothing is refused here: whoever fills it looks at `crowded`.
    """

    __slots__ = ("_buffers", "_high", "_low", "crowded", "on_crowded", "on_first", "on_relieved", "size_bytes")

    def __init__(
        self,
        high_bytes: int,
        low_bytes: int,
        on_first: Callable[[], None],
        on_crowded: Callable[[], None],
        on_relieved: Callable[[], None],
    ) -> None:
        self._high = high_bytes
        self._low = low_bytes
        self._buffers: deque[Buffer] = deque()
        self.size_bytes = 0
        self.crowded = False
        self.on_first = on_first
        self.on_crowded = on_crowded
        self.on_relieved = on_relieved

    def append(self, buffers: Sequence[Buffer]) -> None:
        """Put an encoded frame at the end; the buffers must not change any more."""
        first = not self._buffers
        for buffer in buffers:
            if size := len(buffer):  # an empty one would look like the end to `take`
                self._buffers.append(buffer)
                self.size_bytes += size
        if first:
            self.on_first()
        if self.size_bytes > self._high and not self.crowded:
            self.crowded = True
            self.on_crowded()

    def take(self) -> Buffer:
        """Remove and return what should be sent next: at most SEND_BYTES, b"" when nothing waits."""
        buffers = self._buffers
        if not buffers:
            return b""
        taken: Buffer
        if len(buffers) == 1 or len(buffers[0]) > JOIN_BYTES_MAX:
            taken = self._take_one()
        else:
            taken = self._take_joined()
        self.size_bytes -= len(taken)
        if self.crowded and self.size_bytes < self._low:
            self.crowded = False
            self.on_relieved()
        return taken

    def clear(self) -> None:
        """Drop everything; no callback is called."""
        self._buffers.clear()
        self.size_bytes = 0

    def _take_one(self) -> Buffer:
        buffer = self._buffers.popleft()
        if len(buffer) <= SEND_BYTES:
            return buffer
        view = memoryview(buffer)
        self._buffers.appendleft(view[SEND_BYTES:])
        return view[:SEND_BYTES]

    def _take_joined(self) -> bytes:
        buffers = self._buffers
        parts: list[Buffer] = []
        room = SEND_BYTES
        while buffers and (size := len(buffers[0])) <= JOIN_BYTES_MAX and size <= room:
            parts.append(buffers.popleft())
            room -= size
        return b"".join(parts)

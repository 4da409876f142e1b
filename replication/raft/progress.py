"""What a leader knows of one follower, and how much it may send ahead of the answers.

PROBE ──answer──> REPLICATE ──refused, silent──> PROBE          any ──log does not reach back──> SNAPSHOT
  one append at a time      pipelined, in a window                         paused until it is installed
"""

from __future__ import annotations

from collections import deque
from enum import Enum


class Pace(Enum):
    """How a follower is sent the log."""

    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"
    LOST = "lost"
    """It lost what it had acknowledged: nothing is sent, and it counts for nothing."""


class Progress:
    """One follower, as its leader sees it. match < next."""

    __slots__ = (
        "acked_ns",
        "asked",
        "asleep",
        "confirmed_sequence",
        "damaged",
        "damaged_until",
        "heard_ns",
        "loading",
        "match",
        "next",
        "node",
        "offered_ns",
        "pace",
        "paused_sequence",
        "probed_ns",
        "read",
        "replica",
        "sequence",
        "window",
        "window_bytes",
    )

    def __init__(self, replica: int, node: int, next_index: int, now_ns: int) -> None:
        self.replica = replica
        self.node = node
        self.match = 0
        """Everything up to here is on its disk and the same as ours. Never falls."""
        self.next = next_index
        self.pace = Pace.PROBE
        self.sequence = 0
        """Of the last append that was sent."""
        self.confirmed_sequence = 0
        """The last append that was sent before `match` was known: refusals of later ones are news."""
        self.paused_sequence = 0
        """The last append before its pace last fell. Answers to what was on its way then do not change the pace:
        else each refusal in a window would have it sent again."""
        self.window: deque[tuple[int, int]] = deque()  # (last index, bytes) of each append under way
        self.window_bytes = 0
        self.probed_ns: int | None = None
        """When the probe or offer that is unanswered was sent."""
        self.asked = False
        """A probe is wanted even if there is nothing to send."""
        self.loading = False
        """Entries for it are being read."""
        self.heard_ns = now_ns
        self.acked_ns = now_ns
        """When the window last moved."""
        self.read = 0
        """Newest round of reads that it confirmed."""
        self.asleep = False
        """It agreed to sleep."""
        self.damaged = False
        """It asks for a snapshot because its storage is damaged; it goes on following."""
        self.damaged_until = 0
        """A snapshot at this index or behind it covers the damage that is known, but for what is not committed."""
        self.offered_ns: int | None = None
        """When a snapshot was last offered for that reason."""

    def probe(self) -> None:
        """Forget what is under way and find out where it stands."""
        self.pace = Pace.PROBE
        self.next = self.match + 1
        self._pause()

    def replicate(self) -> None:
        """It answers: send ahead."""
        self.pace = Pace.REPLICATE
        self.next = max(self.next, self.match + 1)
        self.probed_ns = None

    def await_snapshot(self) -> None:
        """The log does not reach back to it."""
        self.pace = Pace.SNAPSHOT
        self._pause()

    def lose(self) -> None:
        """It lost what it had acknowledged."""
        self.pace = Pace.LOST
        self._empty_window()

    def full(self, messages: int, size_bytes: int) -> bool:
        """Nothing more may be sent ahead."""
        return len(self.window) >= messages or (bool(self.window) and self.window_bytes >= size_bytes)

    def sent(self, last_index: int, size_bytes: int, now_ns: int) -> None:
        """An append is under way."""
        if not self.window:
            self.acked_ns = now_ns
        self.window.append((last_index, size_bytes))
        self.window_bytes += size_bytes
        self.next = last_index + 1

    def acknowledged(self, index: int, now_ns: int) -> bool:
        """It has everything up to `index`; True if that is news."""
        window = self.window
        while window and window[0][0] <= index:
            self.window_bytes -= window.popleft()[1]
            self.acked_ns = now_ns
        if index <= self.match:
            return False
        self.match = index
        self.next = max(self.next, index + 1)
        self.confirmed_sequence = self.sequence
        self.acked_ns = now_ns
        return True

    def _pause(self) -> None:
        self._empty_window()
        self.paused_sequence = self.sequence
        self.probed_ns = None
        self.loading = False

    def _empty_window(self) -> None:
        self.window.clear()
        self.window_bytes = 0

"""What waits to be sent to one node on the control connection: two lanes, bounded, cut into frames. Pure.

    words    beats, votes, answers: small            all of them go into the next frame
    appends  entries, and what must not overtake     up to `frame_bytes`; the rest goes into the frames after it
             them: empty appends, snapshot offers

A beat behind 64 MiB of entries for a slow node would come too late, so words overtake appends; within a frame, and
within a lane, everything keeps the order in which it was posted.
"""

from __future__ import annotations

from collections import deque

from replication.peers.codec import Addressed, payload_bytes
from replication.peers.settings import PeerSettings
from replication.raft.messages import Append, Message, SnapshotOffer

FRAME_MESSAGES_MAX = 1_024
"""Messages of one frame: bounds the time that taking it holds the receiver's loop."""


class Outbox:
    """Messages for one node."""

    def __init__(self, settings: PeerSettings) -> None:
        self._settings = settings
        self._words: deque[tuple[int, Addressed]] = deque()
        self._appends: deque[tuple[int, Addressed, int]] = deque()
        self._number = 0  # of the last message posted: the order across the lanes
        self.waiting_bytes = 0
        """Payload of the appends that wait."""

    def __len__(self) -> int:
        return len(self._words) + len(self._appends)

    def post(self, group: int, message: Message) -> bool:
        """Have it sent; False: there is no room, and it was dropped."""
        if len(self) >= self._settings.queue_messages:
            return False
        kind = type(message)
        self._number += 1
        if kind is Append or kind is SnapshotOffer:
            size_bytes = payload_bytes(message)
            over = self._appends and self.waiting_bytes + size_bytes > self._settings.queue_bytes
            if over or size_bytes > self._settings.payload_bytes_max:
                return False
            self._appends.append((self._number, (group, message), size_bytes))
            self.waiting_bytes += size_bytes
        else:
            self._words.append((self._number, (group, message)))
        return True

    def take(self) -> list[Addressed]:
        """The messages of the next frame; at least one if any wait."""
        batch: list[tuple[int, Addressed]] = []
        while self._words and len(batch) < FRAME_MESSAGES_MAX:
            batch.append(self._words.popleft())
        words = len(batch)
        left_bytes = self._settings.frame_bytes
        while self._appends and left_bytes > 0 and len(batch) < FRAME_MESSAGES_MAX:
            number, addressed, size_bytes = self._appends[0]
            if size_bytes > left_bytes < self._settings.frame_bytes:
                break
            self._appends.popleft()
            self.waiting_bytes -= size_bytes
            left_bytes -= size_bytes
            batch.append((number, addressed))
        if 0 < words < len(batch):
            batch.sort(key=_number)
        return [addressed for _, addressed in batch]

    def clear(self) -> list[int]:
        """Drop everything; the groups whose messages were dropped, in order of group."""
        groups = {addressed[0]: None for _, addressed in self._words}
        groups.update((addressed[0], None) for _, addressed, _ in self._appends)
        self._words.clear()
        self._appends.clear()
        self.waiting_bytes = 0
        return sorted(groups)


def _number(item: tuple[int, Addressed]) -> int:
    return item[0]

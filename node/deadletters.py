"""Moves the outbox of one queue's partition to its dead-letter queue, while this replica leads."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from node.outbox import Letter, pack
from node.publishing import Published
from node.source import RecordSource
from node.state import PartitionState
from plait.wire.errors import PlaitError
from replication.actor import Promise
from replication.environment import Clock, Tasks
from replication.machine import Range

_logger = structlog.get_logger("plait.partition")

MOVE_RETRY_MS = 1_000
"""How long a move that failed (the target is full, or is not there) waits before it is tried again."""

Send = Callable[[str, int, bytes], Promise[Published]]
"""Publishes a batch to a queue for a group: (queue, group, batch)."""


class DeadLetters:
    """At most one move is under way; none while the outbox is empty."""

    def __init__(
        self,
        letter: Letter,
        target: str,
        state: PartitionState,
        source: RecordSource,
        tasks: Tasks,
        clock: Clock,
        send: Send,
        moved: Callable[[Range], Promise[None]],
    ) -> None:
        self._letter = letter
        self._target = target
        self._state = state
        self._source = source
        self._tasks = tasks
        self._clock = clock
        self._send = send
        self._moved = moved
        self._term = 0
        self._moving = False

    def begin(self, term: int) -> None:
        """This replica leads a new term (0: it leads no more)."""
        self._term = term
        self.look()

    def look(self) -> None:
        """There may be something to move."""
        if self._term and self._state.outbox and not self._moving:
            self._moving = True
            self._tasks.spawn(f"{self._letter.queue}/dead-letters", self._move_all)

    async def _move_all(self) -> None:
        try:
            while self._state.outbox and (term := self._term):
                try:
                    batch, moved = await pack(self._source, self._state.outbox, self._letter)
                    if term == self._term:
                        await self._send(self._target, self._letter.group, batch).wait()
                    # the answer came from the target's disk: whoever leads here now may say so, nobody else
                    if term == self._term:
                        await self._moved(moved).wait()
                except PlaitError as error:
                    _logger.warning(
                        "dead letters wait", queue=self._letter.queue, target=self._target, error=str(error)
                    )
                    await self._clock.sleep_until(self._clock.monotonic_ns() + MOVE_RETRY_MS * 1_000_000)
        finally:
            self._moving = False
            self._source.forget()

"""Actors: state and a bounded mailbox each, drained in batches by one host task.

An actor owns its state alone. Others `post` to it and never touch it; `handle` is synchronous, so nothing can
change between a check and the act that relies on it. Work that must wait (disk, network) is spawned, and posts
its result back. An idle actor costs no task and no timer.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import structlog
import trio

from replication.environment import Clock

T = TypeVar("T")

_logger = structlog.get_logger("plait.actors")

MAILBOX_MESSAGES = 100_000
"""Messages that may wait in one actor's mailbox; a full one refuses, which its poster turns into an answer."""
TURN_ACTORS = 256
"""Actors drained before the host task lets the sockets have a turn."""
ALARMS_REPLACED = 1_024
"""Alarms that were replaced or called off and may stay in the clock, beyond as many as are set."""


class MailboxFull(Exception):
    """The actor has MAILBOX_MESSAGES waiting. Nothing was posted; the caller refuses the work it came from."""


class Promise(Generic[T]):
    """An answer that is given once, later: resolved with a value or rejected with an error.

    `then` calls back, `wait` awaits. A waiter that is cancelled abandons the promise: whoever holds the work
    looks at `abandoned` and may drop it, or asked to be told (`when_abandoned`).
    """

    __slots__ = ("_callbacks", "_on_abandoned", "abandoned", "done", "error", "value")

    def __init__(self) -> None:
        self.done = False
        self.abandoned = False
        self.value: T | None = None
        self.error: Exception | None = None
        self._callbacks: list[Callable[[Promise[T]], None]] | None = None
        self._on_abandoned: list[Callable[[], None]] | None = None

    def resolve(self, value: T) -> None:
        """Give the answer; the first word counts, later ones are ignored."""
        if not self.done:
            self.value = value
            self._finish()

    def reject(self, error: Exception) -> None:
        """Give an error as the answer."""
        if not self.done:
            self.error = error
            self._finish()

    def then(self, callback: Callable[[Promise[T]], None]) -> None:
        """Call back with this promise when it is done; at once if it is.

        An exception of the callback is logged and goes no further: whoever resolves has others to answer.
        """
        if self.done:
            self._call(callback)
        elif self._callbacks is None:
            self._callbacks = [callback]
        else:
            self._callbacks.append(callback)

    def abandon(self) -> None:
        """Nobody waits for the answer any more."""
        if self.done or self.abandoned:
            return
        self.abandoned = True
        callbacks, self._on_abandoned = self._on_abandoned, None
        for callback in callbacks or ():
            callback()

    def when_abandoned(self, callback: Callable[[], None]) -> None:
        """Call once, when nobody waits for the answer any more before it is given; at once if that is so."""
        if self.abandoned:
            callback()
        elif self._on_abandoned is None:
            self._on_abandoned = [callback]
        else:
            self._on_abandoned.append(callback)

    async def wait(self) -> T:
        """The value, or raises the error."""
        if not self.done:
            event = trio.Event()
            self.then(lambda _: event.set())
            try:
                await event.wait()
            finally:
                self.abandon()
        return self.result()

    def result(self) -> T:
        """The value of a promise that is done, or raises its error."""
        assert self.done, "asked for the result of a promise that has none yet"
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]  # resolve() stored a T

    def _finish(self) -> None:
        self.done = True
        callbacks, self._callbacks = self._callbacks, None
        self._on_abandoned = None
        if callbacks is not None:
            for callback in callbacks:
                self._call(callback)

    def _call(self, callback: Callable[[Promise[T]], None]) -> None:
        try:
            callback(self)
        except Exception as error:  # a defect of the one who asked must not become one of the one who answers
            _logger.error("answer not taken", exc_info=error)


def rejected(error: Exception) -> Promise[Any]:
    """A promise that is an error already."""
    promise: Promise[Any] = Promise()
    promise.reject(error)
    return promise


class Actor:
    """Base of all actors: a name, a mailbox, and what to do with everything that waits in it."""

    def __init__(self, host: Host, name: str) -> None:
        self.host = host
        self.name = name
        self.stopped = False
        self.alarm_ns: int | None = None  # when the alarm that is set rings
        self._mailbox: list[Any] = []
        self._scheduled = False

    def post(self, message: Any, *, always: bool = False) -> None:
        """Put a message into the mailbox and have it handled within this turn or the next.

        Raises MailboxFull. `always`: put it into a full one too; for messages that are few by their nature and
        must not get lost (ends, alarms). A stopped actor's messages are dropped.
        """
        if self.stopped:
            return
        if len(self._mailbox) >= MAILBOX_MESSAGES and not always:
            self.host.overflows += 1
            raise MailboxFull(f"{self.name}: {MAILBOX_MESSAGES} messages are waiting")
        self._mailbox.append(message)
        if not self._scheduled:
            self._scheduled = True
            self.host.schedule(self)

    @property
    def waiting(self) -> int:
        """Messages in its mailbox."""
        return len(self._mailbox)

    def drain(self) -> None:
        """Handle everything that waits. Called by the host only."""
        self._scheduled = False
        messages, self._mailbox = self._mailbox, []
        if not self.stopped:
            self.handle(messages)

    def handle(self, messages: list[Any]) -> None:
        """Act on the messages, in order."""
        raise NotImplementedError(f"{type(self).__name__} handles no messages")

    def summary(self) -> dict[str, Any]:
        """A few facts for the log when this actor fails."""
        return {}

    def stop(self) -> None:
        """End the actor: messages still waiting are dropped, and its alarm."""
        self.stopped = True
        self._mailbox.clear()
        self.host.call_off(self)


_Alarm = list[Any]
"""[deadline_ns, number, actor, message], of which the first two order the heap."""


class Host:
    """The one task that drains all actors of a node, and their alarm clock."""

    def __init__(self, clock: Clock, on_failure: Callable[[Actor, Exception], None]) -> None:
        self.clock = clock
        self._on_failure = on_failure
        self._ready: deque[Actor] = deque()
        self._alarms: list[_Alarm] = []  # heap; those that were replaced or called off have no actor any more
        self._alarm_of: dict[Actor, _Alarm] = {}
        self._alarm_number = 0
        self._wake = trio.Event()
        self.overflows = 0
        """Messages that were refused since a mailbox was full."""
        self.failures = 0
        """Times that an actor failed."""

    @property
    def ready(self) -> int:
        """Actors that have something to do now."""
        return len(self._ready)

    def schedule(self, actor: Actor) -> None:
        """Called by Actor.post."""
        self._ready.append(actor)
        self._wake.set()

    def alarm(self, deadline_ns: int, actor: Actor, message: Any) -> None:
        """Post `message` to the actor at a monotonic time. An actor has one alarm: this one replaces the last."""
        self.call_off(actor)
        self._alarm_number += 1  # breaks ties in the order of asking, so that runs are reproducible
        alarm: _Alarm = [deadline_ns, self._alarm_number, actor, message]
        self._alarm_of[actor] = alarm
        actor.alarm_ns = deadline_ns
        heapq.heappush(self._alarms, alarm)
        if self._alarms[0] is alarm:
            self._wake.set()

    def call_off(self, actor: Actor) -> None:
        """The actor's alarm does not ring any more, if one was set."""
        alarm = self._alarm_of.pop(actor, None)
        if alarm is not None:
            actor.alarm_ns = None
            alarm[2] = alarm[3] = None
            if len(self._alarms) > 2 * len(self._alarm_of) + ALARMS_REPLACED:
                self._alarms = list(self._alarm_of.values())
                heapq.heapify(self._alarms)

    async def run(self) -> None:
        """Drain actors until cancelled."""
        while True:
            self._ring_alarms()
            for _ in range(min(len(self._ready), TURN_ACTORS)):
                self._drain(self._ready.popleft())
            if self._ready:
                await trio.lowlevel.checkpoint()
            else:
                await self._rest()

    async def _rest(self) -> None:
        self._wake = trio.Event()
        if not self._alarms:
            await self._wake.wait()
            return
        left_ns = self._alarms[0][0] - self.clock.monotonic_ns()
        with trio.move_on_after(max(left_ns, 0) / 1e9):
            await self._wake.wait()

    def _ring_alarms(self) -> None:
        now_ns = self.clock.monotonic_ns() if self._alarms else 0
        while self._alarms and self._alarms[0][0] <= now_ns:
            _, _, actor, message = heapq.heappop(self._alarms)
            if actor is not None:
                del self._alarm_of[actor]
                actor.alarm_ns = None
                actor.post(message, always=True)

    def _drain(self, actor: Actor) -> None:
        try:
            actor.drain()
        except Exception as error:  # the supervisor's place: one actor's failure must not end the others
            self.failures += 1
            _logger.error("actor failed", actor=actor.name, exc_info=error, **actor.summary())
            self._on_failure(actor, error)

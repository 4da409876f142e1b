"""The client's connection and its keeper: connects, speaks through `core`, and connects again when it breaks.

    run ── connect ── HELLO ── WELCOME ── up ──┬── reader: socket ──> core.feed ──> callbacks, deliveries
     ^                                         ├── writer: collectors ──> core.outgoing ──> socket
     │                                         └── watch: PING when it is quiet
     └────── route.py: where to <──── down: what was under way is handed back ────┘

A broker that does not lead what it was asked for says so, and the connection goes where it points: what is under
way gets DRAIN_S to be answered, nothing new is begun meanwhile.

Everything else in the client is callbacks of this: no task per consumer, producer or message.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import anyio

from plait.client.answers import Answer
from plait.client.backoff import Backoff
from plait.client.core import Answered, ConnectionCore, Ended
from plait.client.outside import Outside, Stream
from plait.client.route import Address, Route
from plait.client.timers import Timers
from plait.wire import Buffer
from plait.wire.errors import (
    Closed,
    NotLeader,
    OutcomeUnknown,
    PlaitError,
    TimedOut,
    Unavailable,
)
from plait.wire.messages import (
    ConsumerGone,
    Deliver,
    Ok,
    Ping,
    Request,
    Welcome,
    read_result,
)

RECEIVE_BYTES_MAX = 256 * 1024
"""Bytes taken from the socket at once."""
FAREWELL_S = 0.5
"""Longest that a client which is cancelled takes for its last words."""
CLOSE_S = 1.0
"""Seconds in which a connection is closed in good order."""
CONNECT_ATTEMPT_S = 5.0
"""Time for one try: TCP connection and handshake."""
QUIET_S = 10.0
"""Silence of the broker after which it is asked for a sign of life."""
DEAD_S = 15.0
"""Silence of the broker after which the connection counts as lost: half-open connections end here."""
CONNECT_ATTEMPT_OF_SEVERAL_S = 1.5
"""As CONNECT_ATTEMPT_S, where there is another broker to go to."""
QUIET_OF_SEVERAL_S = 2.0
"""As QUIET_S, where there is another broker to go to."""
DEAD_OF_SEVERAL_S = 3.5
"""As DEAD_S, where there is another broker to go to."""
DRAIN_S = 0.25
"""Time that a broker which does not lead any more has for what is under way, before the connection is left."""

R = TypeVar("R")
Reply = Ok | PlaitError
Callback = Callable[[Reply], None]


class Listener(Protocol):
    """Who wants to know when the connection comes and goes."""

    def came_up(self) -> None: ...

    def went_down(self) -> None: ...


class Receiver(Protocol):
    """Who deliveries of one tag are for."""

    def delivered(self, deliver: Deliver) -> None: ...

    def gone(self, error: PlaitError) -> None: ...

    async def cancel(self) -> None: ...


class Member(Protocol):
    """Who is in a consumer group."""

    async def leave(self) -> None: ...

    def abandon(self) -> None: ...


class Connection:
    """Keeps one connection to one of the addresses, for as long as `run` runs."""

    def __init__(
        self, addresses: Sequence[tuple[str, int]], name: str, namespace: str, deadline_s: float, outside: Outside
    ) -> None:
        self.deadline_s = deadline_s
        self.outside = outside
        self.timers = Timers()
        self.life = 0
        """Counts the connections that came up."""
        self.closed = False
        self.fatal: PlaitError | None = None
        """Why no further connection is tried."""
        self.listeners: dict[Listener, None] = {}
        self.receivers: dict[int, Receiver] = {}
        self.memberships: dict[Member, None] = {}
        self.spawn: Callable[[Callable[[], Coroutine[Any, Any, None]]], None] = _nowhere
        """Runs something for as long as the client is open; whoever runs this connection says where."""
        self.name = name
        self.welcome: Welcome | None = None
        """What the broker of the last connection said of itself."""
        self._route = Route(addresses, outside.random)
        self.namespace = namespace
        self._core: ConnectionCore[Callback] | None = None
        self._leaving = anyio.Event()
        self._answered = anyio.Event()
        self._up: Answer[None] = Answer()
        self._down_since_s = anyio.current_time()
        self._last_error: Exception | None = None
        self._tags = 0
        self._collectors: dict[Callable[[], None], None] = {}
        self._wake = anyio.Event()
        self._sending = False
        """A frame is on its way to the socket, maybe half of it."""
        self._heard_s = 0.0
        self._orphans: deque[Callable[[], None]] = deque()
        self._thread = threading.get_ident()

    # what the rest of the client asks for

    @property
    def up(self) -> bool:
        """Whether there is a connection to send something on."""
        return self._core is not None

    @property
    def ready(self) -> bool:
        """Whether something new should be begun now: the connection is not about to be left for another broker."""
        return self._core is not None and not self._leaving.is_set()

    @property
    def in_haste(self) -> bool:
        """A broker that does not answer is given up soon: there is another one to go to."""
        return self._route.has_choice

    @property
    def down_too_long(self) -> PlaitError | None:
        """The error to raise when there is no connection and has been none for the whole deadline."""
        if self.fatal is not None or self.closed:
            return self.fatal or closed_error()
        if self.up or anyio.current_time() - self._down_since_s < self.deadline_s:
            return None
        return self.unavailable(self.deadline_s)

    @property
    def deadline_at_s(self) -> float:
        """When something that begins now has to be done (loop's clock)."""
        return anyio.current_time() + self.deadline_s

    def new_tag(self) -> int:
        """A consumer's tag."""
        self._tags += 1
        return self._tags

    def post(self, request: Request, then: Callback, payload: Sequence[Buffer] = ()) -> None:
        """Send a request; `then` is called once with the answer, or Unavailable or OutcomeUnknown.

        Only while `up`. The callback runs in the reader's task and must not wait.
        """
        assert self._core is not None, "posted without a connection"
        self._core.request(request, then, payload)
        self._wake.set()

    def soon(self, collect: Callable[[], None]) -> None:
        """Call `collect` once before the next write; with no connection, now."""
        if self._core is None:
            collect()
        else:
            self._collectors[collect] = None
            self._wake.set()

    def orphaned(self, clean_up: Callable[[], None]) -> None:
        """Call `clean_up` at the next write. For finalizers, which may run anywhere, even in another thread."""
        self._orphans.append(clean_up)
        if threading.get_ident() == self._thread and not self.closed:
            self._wake.set()

    async def request(self, make: Callable[[], Request], result: type[R], *, again: bool = True) -> R:
        """Send a request and wait for its result. Refusals that may pass, and lost connections, are tried again
        until the deadline; a lost answer only if `again`: then the request must do no harm when repeated.

        Raises PlaitError.
        """
        deadline_s = self.deadline_at_s
        backoff = Backoff(self.outside.random)
        while True:
            await self.wait_until_up(deadline_s - anyio.current_time())
            answer: Answer[Ok] = Answer()
            self.post(make(), lambda reply, answer=answer: _give(answer, reply))  # type: ignore[misc]  # bound now
            try:
                with anyio.fail_after(max(0.0, deadline_s - anyio.current_time())):
                    return read_result(result, await answer.wait())  # type: ignore[type-var]  # one of its classes
            except TimeoutError:
                raise _no_answer(self.deadline_s, again) from None
            except PlaitError as error:
                if not error.retriable or (error.unknown and not again):
                    raise
                wait_s = max(error.retry_after_s, backoff.next_s())
                if anyio.current_time() + wait_s >= deadline_s:
                    raise
                await anyio.sleep(wait_s)

    async def wait_until_up(self, within_s: float) -> None:
        """Wait for a connection. Raises Unavailable after `within_s` seconds, Closed, UnsupportedVersion."""
        deadline_s = anyio.current_time() + within_s
        while not self.ready:
            if self.fatal is not None or self.closed:
                raise self.fatal or closed_error()
            left_s = deadline_s - anyio.current_time()
            if left_s <= 0:
                raise self.unavailable(within_s)
            with anyio.move_on_after(left_s):
                await self._up.settled()

    def unavailable(self, waited_s: float) -> Unavailable:
        """The error that says that no broker answers."""
        where = ", ".join(f"{host}:{port}" for host, port in self._route.addresses)
        cause = f" ({self._last_error})" if self._last_error is not None else ""
        return Unavailable(
            f"No broker answered at {where} within {waited_s:.3g} s{cause}; nothing was done. "
            "Check that `plait serve` runs and listens there."
        )

    # the keeper

    async def run(self) -> None:
        """Keep connected until cancelled or until a broker says that it never will do."""
        while self.fatal is None and not self.closed:
            address, wait_s = self._route.next()
            if wait_s > 0:
                await anyio.sleep(wait_s)
            await self._attempt(address)
            self._route.ended(anyio.current_time())
        self._up.resolve(None)  # whoever waits looks again and sees `fatal`

    async def _attempt(self, address: Address) -> None:
        """One connection from beginning to end."""
        stream: Stream | None = None
        core: ConnectionCore[Callback] = ConnectionCore(self.name, self.namespace)
        try:
            try:
                with anyio.fail_after(CONNECT_ATTEMPT_OF_SEVERAL_S if self.in_haste else CONNECT_ATTEMPT_S):
                    stream = await self.outside.connect(*address)
                    await self._shake_hands(stream, core)
            except (OSError, TimeoutError, anyio.BrokenResourceError, anyio.EndOfStream, PlaitError) as error:
                self._note(error)
                if isinstance(error, PlaitError) and not error.retriable:
                    self.fatal = error  # another try would be answered in the same way
            if core.welcome is not None and stream is not None:
                await self._live(stream, core)
        finally:
            if stream is not None:  # also when the client is left: the broker would wait for more from it
                with anyio.move_on_after(CLOSE_S, shield=True):
                    await stream.aclose()

    async def _shake_hands(self, stream: Stream, core: ConnectionCore[Callback]) -> None:
        await stream.send(core.outgoing() or b"")
        while core.welcome is None:
            for event in core.feed(await stream.receive(RECEIVE_BYTES_MAX)):
                if isinstance(event, Ended):
                    raise event.error
        try:
            self._check(core.welcome)  # before anybody sees it
        except PlaitError:
            core.welcome = None
            raise

    def _check(self, welcome: Welcome) -> None:
        """Whether this broker is one to speak to. Raises PlaitError."""

    async def _live(self, stream: Stream, core: ConnectionCore[Callback]) -> None:
        self._sending = False
        try:
            self._came_up(core)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._write, stream, core, tasks.cancel_scope, name="plait client writer")
                tasks.start_soon(self._watch, core, tasks.cancel_scope, name="plait client watch")
                tasks.start_soon(self._leave, core, tasks.cancel_scope, name="plait client move")
                await self._read(stream, core)
                tasks.cancel_scope.cancel()
        except anyio.get_cancelled_exc_class():
            await self._say_farewell(stream, core)
            raise
        finally:
            self._went_down(core)

    async def _say_farewell(self, stream: Stream, core: ConnectionCore[Callback]) -> None:
        """The client is cancelled: its members leave, others need not wait for the end of their sessions."""
        for membership in list(self.memberships):
            membership.abandon()
        data = core.outgoing()
        if data is not None and not self._sending:  # behind half a frame it would be taken for the rest of that
            with (
                anyio.move_on_after(FAREWELL_S, shield=True),
                suppress(anyio.BrokenResourceError, anyio.ClosedResourceError),
            ):
                await stream.send(data)

    async def _read(self, stream: Stream, core: ConnectionCore[Callback]) -> None:
        try:
            while True:
                data = await stream.receive(RECEIVE_BYTES_MAX)
                self._heard_s = anyio.current_time()
                for event in core.feed(data):
                    if isinstance(event, Answered):
                        self._judge(event.result)
                        event.token(event.result)
                    elif isinstance(event, Deliver):
                        if (receiver := self.receivers.get(event.tag)) is not None:
                            receiver.delivered(event)
                    elif isinstance(event, ConsumerGone):
                        error = event.error()
                        self._judge(error)
                        if (receiver := self.receivers.get(event.tag)) is not None:
                            receiver.gone(error)
                    elif isinstance(event, Ended):
                        raise event.error
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, PlaitError) as error:
            self._note(error)

    async def _write(self, stream: Stream, core: ConnectionCore[Callback], scope: anyio.CancelScope) -> None:
        try:
            while True:
                while self._orphans:
                    self._orphans.popleft()()
                while self._collectors:
                    collectors, self._collectors = self._collectors, {}
                    for collect in collectors:
                        collect()
                data = core.outgoing()
                if data is not None:
                    self._sending = True
                    await stream.send(data)
                    self._sending = False
                else:
                    self._wake = anyio.Event()
                    await self._wake.wait()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            self._note(error)
            scope.cancel()

    def _judge(self, reply: Reply) -> None:
        """See from an answer whether another broker should be asked from now on."""
        if isinstance(reply, Ok):
            self._route.led()
        elif isinstance(reply, NotLeader) and self.ready and self._route.refused(reply, anyio.current_time()):
            self._note(reply)
            self._leaving.set()
        self._answered.set()

    async def _leave(self, core: ConnectionCore[Callback], scope: anyio.CancelScope) -> None:
        """Once this broker is to be left: wait for the answers that it still owes, within a bound."""
        await self._leaving.wait()
        with anyio.move_on_after(DRAIN_S):
            while core.pending_short:
                self._answered = anyio.Event()
                await self._answered.wait()
        scope.cancel()

    async def _watch(self, core: ConnectionCore[Callback], scope: anyio.CancelScope) -> None:
        quiet_s, dead_s = (QUIET_OF_SEVERAL_S, DEAD_OF_SEVERAL_S) if self.in_haste else (QUIET_S, DEAD_S)
        while True:
            heard_s = self._heard_s
            await anyio.sleep(max(0.0, heard_s + quiet_s - anyio.current_time()))
            if self._heard_s == heard_s:  # a sleep may end a rounding too early: nothing was heard, that counts
                self.post(Ping(0), _ignore)
                await anyio.sleep(dead_s - quiet_s)
                if self._heard_s == heard_s:
                    self._note(TimedOut(f"the broker has been silent for {dead_s:g} s"))
                    scope.cancel()
                    return

    def _came_up(self, core: ConnectionCore[Callback]) -> None:
        assert core.welcome is not None, "came up without a welcome"
        self._core = core
        self._leaving = anyio.Event()
        self._route.came_up(core.welcome.node_id, anyio.current_time())
        self.welcome = core.welcome
        self.life += 1
        self._heard_s = anyio.current_time()
        self._wake = anyio.Event()
        self._last_error = None
        up, self._up = self._up, Answer()
        up.resolve(None)
        for listener in list(self.listeners):
            listener.came_up()

    def _went_down(self, core: ConnectionCore[Callback]) -> None:
        self._core = None
        self._down_since_s = anyio.current_time()
        lost = OutcomeUnknown(
            "The connection was lost before the answer came: the request may or may not have been carried out."
        )
        for then in core.lost():
            then(lost)
        for listener in list(self.listeners):
            listener.went_down()
        collectors, self._collectors = self._collectors, {}
        for collect in collectors:
            collect()
        if math.isfinite(self.deadline_s):
            self.timers.call_later(self.deadline_s, self._wake_waiters)

    def _wake_waiters(self) -> None:
        """The deadline of a connection that went down: consumers that wait look whether it came back."""
        if not self.up:
            for listener in list(self.listeners):
                listener.went_down()

    def _note(self, error: Exception) -> None:
        """Remember why there is no connection; what a broker said counts more than that it then hung up."""
        if isinstance(error, TimeoutError):
            error = TimedOut("no answer to a try to connect")
        elif isinstance(error, anyio.EndOfStream | anyio.BrokenResourceError):
            error = self._last_error or Unavailable("the connection was closed by the other side")
        self._last_error = error


def _nowhere(run: Callable[[], Coroutine[Any, Any, None]]) -> None:
    raise AssertionError("nobody runs this connection")


def closed_error() -> Closed:
    """The error of everything that is asked of a client that was closed."""
    return Closed("The client is closed; nothing was done. Ask inside its `async with` block.")


def _give(answer: Answer[Ok], reply: Reply) -> None:
    if isinstance(reply, Ok):
        answer.resolve(reply)
    else:
        answer.reject(reply)


def _no_answer(waited_s: float, again: bool) -> PlaitError:
    if again:
        return TimedOut(f"No answer came within {waited_s:g} s. Ask again, or allow more time with `deadline_s`.")
    return OutcomeUnknown(
        f"No answer came within {waited_s:g} s: the request may or may not have been carried out."
    )


def _ignore(reply: Reply) -> None:
    """For requests whose answer nobody needs."""

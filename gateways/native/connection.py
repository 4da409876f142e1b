"""One client's connection: a reader task and a writer task around a Session, nothing per message.

    socket ──reader──> Session.receive      Session.outbox ──writer──> socket

Until the client has said HELLO there is one task and nothing else, so that silent connections cost little.
The session decides what is answered and when reading pauses; this module only moves bytes and keeps time.
"""

from __future__ import annotations

from typing import Protocol

import trio

from gateways.native.counters import Counters
from gateways.native.limits import GatewayLimits
from gateways.native.session import Session
from plait.wire.errors import LimitReached, PlaitError, TimedOut
from replication.environment import Clock

HANDSHAKE_READ_BYTES = 4 * 1024
"""Bytes asked of the socket at once before HELLO."""
READ_BYTES_MIN = 16 * 1024
"""Bytes asked of the socket at once while the client sends little."""
READ_BYTES_MAX = 256 * 1024
"""Bytes asked of the socket at once while the client sends much."""
THROTTLE_MS_MAX = 60_000
"""Milliseconds that one answer's throttle may keep a client's requests unread."""
LAST_WORD_S = 1.0
"""Seconds that a client has to take a last ERROR when there is no writer task."""
LINGER_S = 1.0
"""Seconds that a closing connection goes on dropping what the client sends: closing a socket with unread bytes
would reset it, and the client might never see why."""
LINGER_BYTES_MAX = 64 * 1024 * 1024
"""Bytes dropped in that time."""


class Household(Protocol):
    """What a connection needs of the gateway that it belongs to."""

    clock: Clock
    limits: GatewayLimits
    counters: Counters

    def new_session(self, connection: Connection) -> Session:
        """The session for a connection that has begun to speak."""

    def said_hello(self, connection: Connection) -> None:
        """The handshake is done: its time limit does not matter any more."""

    def ended(self, connection: Connection) -> None:
        """The connection is over; its session is closed."""

    def defect(self, connection: Connection, error: Exception) -> None:
        """An exception that nobody expected; the connection ends."""


class Connection:
    """A client's connection from accept to close; `run` is its (first) task."""

    __slots__ = (
        "_buffered_bytes",
        "_household",
        "_last_error",
        "_quiet_until_ns",
        "_reader_wake",
        "_reading",
        "_session",
        "_stream",
        "_writer_wake",
        "number",
    )

    def __init__(self, number: int, stream: trio.abc.Stream, household: Household) -> None:
        self.number = number
        self._stream = stream
        self._household = household
        self._session: Session | None = None
        self._reading = trio.CancelScope()
        self._reader_wake: trio.Event | None = None
        self._writer_wake: trio.Event | None = None
        self._quiet_until_ns = 0
        self._buffered_bytes = 0
        self._last_error: PlaitError | None = None

    # what the gateway asks

    async def run(self) -> None:
        """Serve the client until it goes, breaks the rules, stalls, or is told to go."""
        try:
            if await self._shake_hands():
                await self._converse()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client went away, which is its right
        except Exception as error:  # a defect in one connection must not end the gateway and all the others
            self._household.defect(self, error)
        finally:
            self._close_session()
            self._household.ended(self)
            await trio.aclose_forcefully(self._stream)

    def dismiss(self, error: PlaitError) -> None:
        """Answer what is under way, tell the client why, send what waits for it, and close."""
        if self._session is not None and self._session.established:
            self._session.finish(error)
        else:
            self._last_error = error
            self._reading.cancel()

    # what the session tells (gateways.native.session.Driver)

    def output_waits(self) -> None:
        """The outbox was empty and is not any more."""
        if self._writer_wake is not None:
            self._writer_wake.set()

    def reading_resumed(self) -> None:
        """The session would take requests again."""
        if self._reader_wake is not None:
            self._reader_wake.set()

    def session_closing(self) -> None:
        """The session's last word is in the outbox: read no more, flush, close."""
        self._reading.cancel()
        self.output_waits()

    def defect(self, error: Exception) -> None:
        """The session met an exception that nobody expected."""
        self._household.defect(self, error)

    # before HELLO

    async def _shake_hands(self) -> bool:
        with self._reading:
            while data := await self._stream.receive_some(HANDSHAKE_READ_BYTES):
                if self._session is None:
                    self._session = self._household.new_session(self)
                self._take(self._session, data)
                if self._session.established:
                    self._household.said_hello(self)
                    return True
        session = self._session
        if self._last_error is not None:
            session = session or self._household.new_session(self)
            session.end(self._last_error)
        if session is not None and session.closing:
            await self._last_word(session)
        return False

    async def _last_word(self, session: Session) -> None:
        with trio.move_on_after(LAST_WORD_S):
            while data := session.outbox.take():
                await self._stream.send_all(data)
        if session.bytes_received:
            await self._linger()

    # after HELLO

    async def _converse(self) -> None:
        session = self._session
        assert session is not None, "conversing before the handshake"
        self._reading = trio.CancelScope()  # the one of the handshake may be cancelled by now, too late
        async with trio.open_nursery() as nursery:
            flushed = trio.Event()
            nursery.start_soon(self._write, session, flushed, nursery.cancel_scope, name="native writer")
            with self._reading:
                await self._read(session)
            if session.closing:
                with trio.move_on_after(self._household.limits.shutdown_flush_s):
                    await flushed.wait()
            nursery.cancel_scope.cancel()
        if session.closing:
            await self._linger()

    async def _read(self, session: Session) -> None:
        """Read until the client goes or the session closes."""
        size_bytes = READ_BYTES_MIN
        await self._work_off(session)
        while not session.closing:
            data = await self._receive(session, size_bytes)
            if not data:
                return
            size_bytes = min(max(2 * len(data), READ_BYTES_MIN), READ_BYTES_MAX)
            if session.throttle_ms or self._quiet_until_ns:
                await self._until_reading(session)
            self._take(session, data)
            if session.reading_paused or session.throttle_ms:
                await self._work_off(session)

    async def _receive(self, session: Session, size_bytes: int) -> bytes | bytearray:
        """What the client sent; b"" when it is gone or was told to go."""
        try:
            if not session.mid_frame:
                return await self._stream.receive_some(size_bytes)
            with trio.move_on_after(self._household.limits.frame_stall_s):
                return await self._stream.receive_some(size_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""
        self._household.counters.connections_stalled += 1
        limit_s = self._household.limits.frame_stall_s
        session.end(TimedOut(f"a frame was begun and nothing more of it came for {limit_s:g} s; it was dropped"))
        return b""

    def _take(self, session: Session, data: bytes | bytearray) -> None:
        """Give the session what came, and keep account of the unfinished frames of all connections."""
        counters = self._household.counters
        counters.bytes_received += len(data)
        session.receive(data)
        self._account(session.buffered_bytes)
        limit = self._household.limits.input_bytes_max
        if counters.input_bytes_now > limit and session.mid_frame:
            session.end(LimitReached(f"more than {limit} bytes of unfinished frames are waiting in this broker"))
            self._account(session.buffered_bytes)

    def _account(self, buffered_bytes: int) -> None:
        self._household.counters.input_bytes_now += buffered_bytes - self._buffered_bytes
        self._buffered_bytes = buffered_bytes

    async def _work_off(self, session: Session) -> None:
        """Wait while the session does not want requests, then let it go on with those that it has already."""
        while not session.closing:
            await self._until_reading(session)
            if not session.has_requests:
                return
            session.proceed()
            self._account(session.buffered_bytes)

    async def _until_reading(self, session: Session) -> None:
        clock = self._household.clock
        while not session.closing:
            if session.throttle_ms:
                throttle_ms = min(session.take_throttle_ms(), THROTTLE_MS_MAX)
                self._quiet_until_ns = max(self._quiet_until_ns, clock.monotonic_ns() + throttle_ms * 1_000_000)
            if self._quiet_until_ns:
                await clock.sleep_until(self._quiet_until_ns)
                if not session.throttle_ms:
                    self._quiet_until_ns = 0
            elif session.reading_paused:
                self._reader_wake = trio.Event()
                await self._reader_wake.wait()
                self._reader_wake = None
            else:
                return

    async def _write(self, session: Session, flushed: trio.Event, connection_scope: trio.CancelScope) -> None:
        """Send what comes into the outbox until the session has said its last word."""
        counters = self._household.counters
        outbox = session.outbox
        try:
            while True:
                data = outbox.take()
                if data:
                    await self._send(data)
                    counters.bytes_sent += len(data)
                elif session.closing:
                    flushed.set()
                    return
                else:
                    self._writer_wake = trio.Event()
                    await self._writer_wake.wait()
                    self._writer_wake = None
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            connection_scope.cancel()
        except trio.TooSlowError:
            counters.connections_stalled += 1
            connection_scope.cancel()

    async def _send(self, data: bytes | bytearray | memoryview) -> None:
        with trio.fail_after(self._household.limits.send_stall_s):
            await self._stream.send_all(data)

    async def _linger(self) -> None:
        """Let a client that is still sending see the last word: half-close, and drop what comes for a while."""
        dropped = 0
        with trio.move_on_after(LINGER_S):
            if isinstance(self._stream, trio.abc.HalfCloseableStream):
                await self._stream.send_eof()
            while dropped < LINGER_BYTES_MAX and (data := await self._stream.receive_some(READ_BYTES_MAX)):
                dropped += len(data)

    def _close_session(self) -> None:
        self._account(0)
        if self._session is not None:
            self._session.close()

"""The native gateway: listeners, the limit of connections, the time limit of handshakes, and a graceful end.

listener ──accept──> Connection (connection.py) ──> Session (session.py) ──> Broker
"""

from __future__ import annotations

from collections import OrderedDict

import structlog
import trio

from gateways.native.connection import LAST_WORD_S, Connection
from gateways.native.counters import Counters
from gateways.native.limits import GatewayLimits
from gateways.native.session import Session, connection_error
from node.broker import Broker
from plait.wire.errors import LimitReached, TimedOut, Unavailable
from replication.environment import Environment

ACCEPT_BACKOFF_MS = 100
"""Milliseconds without accepting after the machine refused a connection (no file descriptors, no memory)."""
REFUSALS_AT_ONCE = 64
"""Connections beyond the limit that are told so at one time; still more are closed without a word."""


class NativeGateway:
    """Serves the native protocol on one address: `start`, then `run` in a task of its own, then `stop`.

    Cancelling `run` ends it at once; `stop` ends it gracefully. Leases of clients that are connected then are
    returned either way.
    """

    def __init__(
        self, env: Environment, broker: Broker, host: str, port: int, limits: GatewayLimits | None = None
    ) -> None:
        self.clock = env.clock
        self.limits = limits or GatewayLimits()
        self.counters = Counters()
        self._network = env.network
        self._broker = broker
        self._address = (host, port)
        self._listeners: list[trio.abc.Listener[trio.abc.Stream]] = []
        self._accepting = trio.CancelScope()
        self._connections: dict[int, Connection] = {}
        self._handshakes: OrderedDict[int, tuple[int, Connection]] = OrderedDict()
        """Connections that did not say HELLO yet, with deadlines: oldest first, as all have the same time."""
        self._handshake_begun = trio.Event()
        self._numbers = 0
        self._refusing = 0
        self._accept_failing = False
        self._running = False
        self._stopping = trio.Event()
        self._stopped = trio.Event()
        self._empty: trio.Event | None = None
        self._log = structlog.get_logger("plait.gateways.native")

    async def start(self) -> tuple[str, int]:
        """Listen, and return the (host, port) that clients can connect to. Raises OSError."""
        self._listeners.extend(await self._network.listen(*self._address))
        host, port = self._network.address_of(self._listeners[0])
        self._log.info("listening", host=host, port=port)
        return host, port

    async def run(self) -> None:
        """Serve until `stop` is called or this is cancelled."""
        if self._stopping.is_set():
            return
        assert self._listeners, "run() before start()"
        self._running = True
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._accept_all, nursery, name="native accept")
                nursery.start_soon(self._expire_handshakes, name="native handshakes")
                await self._stopping.wait()
                self._accepting.cancel()
                await self._close_listeners()
                await self._dismiss_all()
                nursery.cancel_scope.cancel()
        finally:
            await self._close_listeners()
            self._stopped.set()

    async def stop(self) -> None:
        """Accept nobody any more, tell the clients, send what waits for them, and close: all within a bound."""
        self._stopping.set()
        if self._running:
            await self._stopped.wait()
        else:
            await self._close_listeners()

    # what connections ask (gateways.native.connection.Household)

    def new_session(self, connection: Connection) -> Session:
        """The session for a connection that has begun to speak."""
        return Session(self._broker, self.limits, self.counters, f"native/{connection.number}", connection)

    def said_hello(self, connection: Connection) -> None:
        """The handshake is done: its time limit does not matter any more."""
        self._handshakes.pop(connection.number, None)

    def ended(self, connection: Connection) -> None:
        """The connection is over; its session is closed."""
        self._handshakes.pop(connection.number, None)
        self._connections.pop(connection.number, None)
        self.counters.connections_now = len(self._connections)
        if self._empty is not None and not self._connections:
            self._empty.set()

    def defect(self, connection: Connection, error: Exception) -> None:
        """An exception that nobody expected; the connection ends, the others do not notice."""
        self.counters.defects += 1
        self._log.error("session failed", connection=connection.number, exc_info=error)

    # accepting

    async def _accept_all(self, nursery: trio.Nursery) -> None:
        with self._accepting:
            async with trio.open_nursery() as acceptors:
                for listener in self._listeners:
                    acceptors.start_soon(self._accept, listener, nursery)

    async def _accept(self, listener: trio.abc.Listener[trio.abc.Stream], nursery: trio.Nursery) -> None:
        while True:
            try:
                stream = await listener.accept()
            except OSError as error:
                await self._survive(error)
                continue
            self._accept_failing = False
            if len(self._connections) < self.limits.connections_max:
                self._serve(stream, nursery)
            else:
                await self._turn_away(stream, nursery)

    async def _survive(self, error: OSError) -> None:
        """The machine has no room for another connection now; those that wait stay in the listener's queue."""
        self.counters.accept_errors += 1
        if not self._accept_failing:
            self._accept_failing = True
            self._log.warning("cannot accept", error=str(error), connections=len(self._connections))
        await self.clock.sleep_until(self.clock.monotonic_ns() + ACCEPT_BACKOFF_MS * 1_000_000)

    def _serve(self, stream: trio.abc.Stream, nursery: trio.Nursery) -> None:
        self._numbers += 1
        connection = Connection(self._numbers, stream, self)
        self._connections[connection.number] = connection
        self.counters.connections_accepted += 1
        self.counters.connections_now = len(self._connections)
        deadline_ns = self.clock.monotonic_ns() + round(self.limits.handshake_timeout_s * 1e9)
        self._handshakes[connection.number] = (deadline_ns, connection)
        self._handshake_begun.set()
        nursery.start_soon(connection.run, name="native connection")

    async def _turn_away(self, stream: trio.abc.Stream, nursery: trio.Nursery) -> None:
        self.counters.connections_refused += 1
        if self._refusing < REFUSALS_AT_ONCE:
            self._refusing += 1
            nursery.start_soon(self._refuse, stream)
        else:
            await trio.aclose_forcefully(stream)

    async def _refuse(self, stream: trio.abc.Stream) -> None:
        most = self.limits.connections_max
        error = LimitReached(f"this broker has {most} connections, which is its limit; try again later")
        try:
            with trio.move_on_after(LAST_WORD_S):
                await stream.send_all(b"".join(connection_error(error)))
                if isinstance(stream, trio.abc.HalfCloseableStream):
                    await stream.send_eof()
                await stream.receive_some(1)  # until the client has seen it, says something, or the time is over
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # gone already
        finally:
            self._refusing -= 1
            await trio.aclose_forcefully(stream)

    async def _expire_handshakes(self) -> None:
        """One task keeps the time limit of all handshakes: connections that wait have no timer of their own."""
        while True:
            if not self._handshakes:
                self._handshake_begun = trio.Event()
                await self._handshake_begun.wait()
            deadline_ns, connection = next(iter(self._handshakes.values()))
            if deadline_ns > self.clock.monotonic_ns():
                await self.clock.sleep_until(deadline_ns)
            elif self._handshakes.pop(connection.number, None):
                self.counters.handshakes_late += 1
                limit_s = self.limits.handshake_timeout_s
                connection.dismiss(TimedOut(f"no HELLO came within {limit_s:g} s; the connection is closed"))

    # ending

    async def _dismiss_all(self) -> None:
        if not self._connections:
            return
        self._empty = trio.Event()
        error = Unavailable("broker is shutting down; connect again later or to another node")
        for connection in list(self._connections.values()):
            connection.dismiss(error)
        with trio.move_on_after(self.limits.shutdown_flush_s):
            await self._empty.wait()

    async def _close_listeners(self) -> None:
        listeners, self._listeners = self._listeners, []
        with trio.CancelScope(shield=True):  # closing does not wait, and all of them must be closed
            for listener in listeners:
                await listener.aclose()

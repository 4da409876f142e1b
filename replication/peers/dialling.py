"""Dialling: how two nodes come to one connection of a kind, whichever of them begins.

    no connection ──(a pause that grows)──> connect ──> HELLO ──WELCOME──> adopted; CONFIRM goes first on it

A side dials while it has no connection. That two who dial at once end with one, and not with none or two:

- while its own HELLO is out, the lower node id refuses the other's ("crossed"), and the higher one gives up its
  own attempt and welcomes the other's;
- nobody says HELLO while it has welcomed the other's and waits for the CONFIRM;
- an acceptor takes a connection for real at the CONFIRM only, and a dialler one that is WELCOME only while it has
  none: what one side has given up replaces nothing at the other.
"""

from __future__ import annotations

from typing import Protocol

import structlog
import trio

from replication.environment import Environment
from replication.peers.connection import Connection, hear_word, say_no, say_word, was_refused
from replication.peers.lives import Life
from replication.peers.proof import DIALLER, Proofs
from replication.peers.protocol import (
    Hearing,
    Hello,
    Identity,
    Refusal,
    Told,
    confirm_word,
    encode_word,
    judge_welcome,
    read_welcome,
)
from replication.peers.settings import PeerSettings

_logger = structlog.get_logger("plait.peers")

NS_PER_MS = 1_000_000
CROSSED = "crossed"
"""Code of the refusal of one of two connections that were dialled at once."""
DOUBLINGS_MAX = 16
"""Failures in a row that still count: more do not make the pause longer."""


class Link(Protocol):
    """What a dialler asks of its link."""

    node: int

    def has(self, kind: str) -> bool:
        """There is a connection of that kind."""

    def adopt(self, connection: Connection, who: Identity, process: int) -> None:
        """From now on this is the connection of its kind. Raises Refusal."""

    async def run(self, connection: Connection) -> None:
        """Run a connection that was adopted, until it ends."""

    def address_refused(self) -> None:
        """Nobody listens at the node's address."""


class House(Protocol):
    """What a dialler asks of the node's `Peers`."""

    environment: Environment
    identity: Identity
    process: int
    settings: PeerSettings

    def proofs(self, role: str) -> Proofs:
        """For one handshake, in which this node has that role."""

    def seen(self, node: int) -> Life:
        """The last life of that node that was seen."""

    async def meet(self, who: Identity) -> None:
        """Remember that life of the node for good, before anything is made of it. Raises Refusal."""

    def is_welcome(self, node: int, kind: str) -> bool:
        """A connection of that node and kind was welcomed and waits for its CONFIRM."""

    def refused(self, node: int, refusal: Refusal) -> None:
        """The node will not have this one, or this one not the node."""


class Dialler:
    """Keeps up one kind of connection to one node."""

    def __init__(self, link: Link, kind: str, house: House) -> None:
        self._link = link
        self._kind = kind
        self._house = house
        self._settings = house.settings
        self._address: tuple[str, int] | None = None
        self._failures = 0  # in a row
        self._hello_out = False
        self._wanted = trio.Event()
        self._life = trio.CancelScope()
        self._pausing = trio.CancelScope()
        self._attempt = trio.CancelScope()

    def begin(self, address: tuple[str, int]) -> None:
        """Dial this address from now on, at once if there is no connection."""
        first, self._address = self._address is None, address
        self._failures = 0
        self._pausing.cancel()
        self.wake()
        if first:
            self._house.environment.tasks.spawn(f"peer {self._link.node} {self._kind}", self._keep)

    def stop(self) -> None:
        """Dial no more."""
        self._life.cancel()

    def wake(self) -> None:
        """There may be a need for a connection."""
        self._wanted.set()

    def ended(self, lasted: bool) -> None:
        """A connection ended; one that had hardly begun counts as a failure."""
        self._failures = 0 if lasted else self._failures + 1

    # the other side dials

    def may_greet(self) -> None:
        """Whether the other side's HELLO may be welcomed now. Raises Refusal."""
        if not self._hello_out:
            return
        if self._house.identity.node_id < self._link.node:
            raise Refusal(CROSSED, "both sides dialled at once, and mine goes on: it has the lower node id")
        self._attempt.cancel()

    # this side dials

    async def _keep(self) -> None:
        with self._life:
            while True:
                while not self._needed():
                    self._wanted = trio.Event()
                    await self._wanted.wait()
                await self._pause()
                if self._needed():
                    await self._dial()

    def _needed(self) -> bool:
        return not self._link.has(self._kind) and not self._house.is_welcome(self._link.node, self._kind)

    async def _pause(self) -> None:
        settings = self._settings
        most_ms = min(settings.backoff_min_ms << min(self._failures, DOUBLINGS_MAX), settings.backoff_max_ms)
        least_ms = most_ms / 2 if self._failures else 0
        clock, random = self._house.environment.clock, self._house.environment.random
        with trio.CancelScope() as self._pausing:
            await clock.sleep_until(clock.monotonic_ns() + round(random.uniform(least_ms, most_ms) * NS_PER_MS))

    async def _dial(self) -> None:
        connection: Connection | None = None
        with trio.CancelScope() as self._attempt:
            try:
                connection = await self._try()
            finally:
                self._hello_out = False
        if connection is not None:
            await self._link.run(connection)

    async def _try(self) -> Connection | None:
        stream = await self._connect()
        if stream is None:
            return None
        connection: Connection | None = None
        try:
            with trio.fail_after(self._settings.handshake_ms / 1_000):
                connection = await self._introduce(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            self._failures += 1
        finally:
            if connection is None:
                await trio.aclose_forcefully(stream)
        return connection

    async def _connect(self) -> trio.abc.Stream | None:
        assert self._address is not None, "a dialler begins with an address"
        try:
            with trio.fail_after(self._settings.connect_ms / 1_000):
                return await self._house.environment.network.connect(*self._address)
        except OSError as error:
            self._failures += 1
            if was_refused(error):
                self._link.address_refused()
        except trio.TooSlowError:
            self._failures += 1
        return None

    async def _introduce(self, stream: trio.abc.Stream) -> Connection | None:
        """A connection that the link has adopted; None if it is not to be."""
        if not self._needed():  # the other side was quicker
            return None
        house, node = self._house, self._link.node
        self._hello_out = True
        hearing, proofs = Hearing(), house.proofs(DIALLER)
        try:
            hello = Hello(house.identity, house.process, self._kind, node)
            await say_word(stream, proofs, hello.word())
            welcome = await hear_word(stream, hearing, proofs, read_welcome)
            judge_welcome(welcome, house.identity, node, house.seen(node))
            await house.meet(welcome.identity)
            if self._attempt.cancel_called or self._link.has(self._kind):  # the other side was quicker
                return None
            connection = self._connection(stream, hearing, encode_word(proofs.say(confirm_word())))
            self._link.adopt(connection, welcome.identity, welcome.process)
            return connection
        except Refusal as refusal:
            if refusal.code != CROSSED:
                self._failures += 1
                house.refused(node, refusal)
            if not isinstance(refusal, Told):
                await say_no(stream, refusal, proofs)
            return None

    def _connection(self, stream: trio.abc.Stream, hearing: Hearing, confirm: bytes) -> Connection:
        clock, stall_ms = self._house.environment.clock, self._settings.stall_ms
        return Connection(self._kind, stream, hearing.reader, clock, stall_ms, confirm)

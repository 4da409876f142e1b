"""The wires between nodes: what one node sends to another passes here, is held, slowed, cut or lost here.

    n1 ── dials n2's advertised address ──> door of n2 ── who is it? (HELLO, JOIN) ──> n2's own peer port
             bytes n1 -> n2 go the way (n1, n2), bytes n2 -> n1 the way (n2, n1), whoever dialled

A fault is a condition of a way: what is lost in one direction is lost on connections of both dialers.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

import trio

from replication.peers.joining import is_join, read_join
from replication.peers.protocol import Hearing, Refusal, read_hello

CHUNK_BYTES = 64 * 1024
"""Taken from a socket at once."""
FIRST_WORD_S = 10.0
"""A connection that has not said who it is by then is closed."""
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of a connection that ends with RST."""
GONE = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)
"""What a connection that is over raises."""

Names = tuple[str, str]
"""(from, to)."""


class CutHere(Exception):
    """This connection ends now, with RST."""


@dataclass(slots=True)
class Way:
    """What becomes of the bytes from one node to another. As made, they pass."""

    delay_s: float = 0.0
    bytes_per_s: float = 0.0
    """0: as fast as it goes."""
    held: bool = False
    """Nothing arrives and nobody is told, until this is over: as with TCP over a network that loses everything."""
    cut: bool = False
    """Connections are reset, and so are new ones."""
    stall_percent: int = 0
    """Share of the chunks behind which nothing comes for `stall_s`: a lost packet."""
    stall_s: float = 0.0
    reset_percent: float = 0.0
    """Share of the chunks with which the connection ends."""
    changed: trio.Event = field(default_factory=trio.Event)

    async def passed(self, size_bytes: int, random: Random) -> None:
        """Wait until so many bytes have come through. Raises CutHere."""
        if self.delay_s:
            await trio.sleep(self.delay_s)
        if self.bytes_per_s:
            await trio.sleep(size_bytes / self.bytes_per_s)
        if self.stall_percent and random.randrange(100) < self.stall_percent:
            await trio.sleep(self.stall_s)
        while self.held and not self.cut:
            await self.changed.wait()
        if self.cut or random.random() * 100 < self.reset_percent:
            raise CutHere


class Wires:
    """All ways between the nodes of a fleet."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self._ways: dict[Names, Way] = {}
        self._connections: dict[trio.CancelScope, Names] = {}

    def way(self, source: str, target: str) -> Way:
        """From one to another."""
        return self._ways.setdefault((source, target), Way())

    def set(self, pairs: list[Names], **condition: object) -> None:
        """These ways are like this from now on; connections over a way that is cut end."""
        for pair in pairs:
            before = self.way(*pair)
            self._ways[pair] = Way(**condition)  # type: ignore[arg-type]
            before.cut, before.held = self._ways[pair].cut, self._ways[pair].held
            before.changed.set()
            if self._ways[pair].cut:
                for scope, names in list(self._connections.items()):
                    if set(names) == set(pair):
                        scope.cancel()

    def heal(self, pairs: list[Names]) -> None:
        """They pass everything again."""
        self.set(pairs)

    async def serve(
        self, nursery: trio.Nursery, target: str, own: tuple[str, int], who: Callable[[int, str], str]
    ) -> int:
        """Open the door of a node whose own peer address is `own`. Returns the port.

        `who`: the name of a node by its id (0: it has none) or its advertised address.
        """
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port: int = listener.socket.getsockname()[1]

        async def connected(stream: trio.SocketStream) -> None:
            await self._relay(stream, target, own, who)

        nursery.start_soon(trio.serve_listeners, connected, [listener])
        return port

    async def _relay(
        self, near: trio.SocketStream, target: str, own: tuple[str, int], who: Callable[[int, str], str]
    ) -> None:
        far: trio.SocketStream | None = None
        with suppress(CutHere, Refusal, *GONE), trio.CancelScope() as scope:
            try:
                with trio.move_on_after(FIRST_WORD_S):
                    source, said = await _first_word(near, who)
                if not said:
                    return
                self._connections[scope] = source, target
                await self.way(source, target).passed(len(said), self.random)
                far = await trio.open_tcp_stream(*own)
                await far.send_all(said)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._pump, near, far, (source, target), scope)
                    nursery.start_soon(self._pump, far, near, (target, source), scope)
            finally:
                self._connections.pop(scope, None)
                for stream in filter(None, (near, far)):
                    _reset(stream)

    async def _pump(
        self, source: trio.SocketStream, target: trio.SocketStream, names: Names, scope: trio.CancelScope
    ) -> None:
        try:
            while data := await source.receive_some(CHUNK_BYTES):
                await self._passed(names, len(data))
                await target.send_all(data)
            await self._passed(names, 0)
        except (CutHere, *GONE):
            with suppress(CutHere):  # a connection that died behind a wire that holds everything: nobody is told
                await self._passed(names, 0)
        scope.cancel()

    async def _passed(self, names: Names, size_bytes: int) -> None:
        way = self.way(*names)
        await way.passed(size_bytes, self.random)
        while (now := self.way(*names)) is not way:
            way = now
            await way.passed(0, self.random)


async def _first_word(stream: trio.SocketStream, who: Callable[[int, str], str]) -> tuple[str, bytes]:
    """Who dials, and the bytes that said so; b"": it said nothing. Raises Refusal."""
    hearing = Hearing()
    said = bytearray()
    source = ""
    while not source:
        data = await stream.receive_some(CHUNK_BYTES)
        if not data:
            return "", b""
        said += data
        hearing.feed(data)
        head = hearing.word()
        if head is not None:
            source = who(0, read_join(head).peer) if is_join(head) else who(read_hello(head).identity.node_id, "")
    return source, bytes(said)


def _reset(stream: trio.SocketStream) -> None:
    with suppress(OSError):
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    stream.socket.close()


def both(pairs: Iterator[Names] | list[Names]) -> list[Names]:
    """These pairs, and each the other way round."""
    there = list(pairs)
    return there + [(target, source) for source, target in there]

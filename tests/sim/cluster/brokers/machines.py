"""Machines on which clients run: the SDK, the real one, over the simulated network.

A client's process connects, runs its programs (programs.py), and leaves in good order at the end; until then it
may be killed, and is started again.
"""

from __future__ import annotations

from contextvars import copy_context
from random import Random
from typing import TYPE_CHECKING

import anyio
import trio
import trio.abc

import plait
from plait.client.client import Client
from plait.client.outside import Outside
from plait.wire.errors import PlaitError
from tests.history.programs import Program, programs_of
from tests.sim.cluster.brokers.life import NATIVE_PORT
from tests.sim.pauses import NODE

if TYPE_CHECKING:
    from tests.sim.cluster.brokers.world import BrokerWorld

CONNECT_S = 3.0
"""How long a client tries to connect for the first time before its program tries anew."""
AGAIN_S = 0.2
"""Pause before it does."""


class ClientStream:
    """A simulated stream in anyio's words."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        """See anyio.abc.ByteReceiveStream."""
        try:
            data = await self._stream.receive_some(max_bytes)
        except trio.BrokenResourceError:
            raise anyio.BrokenResourceError from None
        except trio.ClosedResourceError:
            raise anyio.ClosedResourceError from None
        if not data:
            raise anyio.EndOfStream
        return bytes(data)

    async def send(self, item: bytes) -> None:
        """See anyio.abc.ByteSendStream."""
        try:
            await self._stream.send_all(item)
        except trio.BrokenResourceError:
            raise anyio.BrokenResourceError from None
        except trio.ClosedResourceError:
            raise anyio.ClosedResourceError from None

    async def aclose(self) -> None:
        """See anyio.abc.AsyncResource."""
        await self._stream.aclose()


class ClientMachine:
    """One machine; its programs share one connection."""

    def __init__(self, world: BrokerWorld, number: int) -> None:
        self.world = world
        self.name = f"c{number}"
        self.number = number
        self.lives = 0
        self.random = Random(f"{world.plan.seed} {self.name}")
        self.over = trio.Event()
        """It has done all that it wanted, and left."""
        self._scope = trio.CancelScope()
        self._down_ms = 0

    def __str__(self) -> str:
        return self.name

    def start(self) -> None:
        """Run from now on."""
        context = copy_context()
        context.run(NODE.set, self.name)
        context.run(self.world.nursery.start_soon, self._run)

    def kill(self, down_ms: int) -> bool:
        """Its process is gone; it comes back."""
        if self.over.is_set():
            return False
        self._down_ms = down_ms
        self.world.gate.resume(self.name)
        self.world.internet.crash(self.name, silent=self.random.random() < 0.5)
        self._scope.cancel()
        return True

    def connect(self, deadline_ms: int = 0) -> plait.connect:
        """An SDK client that knows every broker. `deadline_ms`: how long it tries; 0: as planned."""
        world, network = self.world, self.world.internet.network(self.name)

        async def dial(host: str, port: int) -> ClientStream:
            return ClientStream(await network.connect(host, port))

        outside = Outside(dial, Random(self.random.getrandbits(64)), _wall_ms)
        addresses = [f"{box.name}:{NATIVE_PORT}" for box in world.boxes]
        self.random.shuffle(addresses)
        deadline_s = (deadline_ms or world.plan.shape.deadline_ms) / 1_000
        return plait.connect(addresses, deadline_s=deadline_s, connect_timeout_s=CONNECT_S, outside=outside)

    async def _run(self) -> None:
        while not self.over.is_set():
            self.lives += 1
            self.world.events.note("client", self.name, f"life={self.lives}")
            with trio.CancelScope() as self._scope:
                await self._live()
            if self._scope.cancelled_caught:
                await trio.sleep(self._down_ms / 1_000)
        self.world.events.note("client", self.name, "is done")

    async def _live(self) -> None:
        try:
            async with self.connect() as client:
                await self._work(client)
            if self.world.emptied.is_set():
                self.over.set()
        except PlaitError as error:
            self.world.events.note("client", self.name, error.code)
            await trio.sleep(AGAIN_S)

    async def _work(self, client: Client) -> None:
        async with trio.open_nursery() as nursery:
            for program in programs_of(self, client):
                nursery.start_soon(_until_emptied, program)


async def _until_emptied(program: Program) -> None:
    publishing = program.world.publishing
    if program.publishes:
        publishing[program.who] = None
    try:
        await program.run()
    finally:
        publishing.pop(program.who, None)
    await program.world.emptied.wait()


def _wall_ms() -> int:
    return round(trio.current_time() * 1_000)

"""All nodes of a run, as processes on one machine, with wires between them that can be cut.

fleet ── box n1: plait serve, disk, clock ──┐
      ── box n2                             ├── wires: every node knows the others by their doors
      ── box n3                             │
      ── box n4, spare: joins and is lost ──┘
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import TypeVar

import trio

import plait
from plait.client.client import Client
from plait.wire.errors import PlaitError
from tests.chaos.boxes import Box, BoxFailed
from tests.chaos.disks import Shelf
from tests.chaos.events import Events
from tests.chaos.wires import Wires

T = TypeVar("T")
ASK_S = 90.0
"""What an operator asks for is done within this time."""
GUARD_S = 0.2
"""Time between two looks whether a node has ended by itself."""
DEAD_AFTER_S = 5
"""A node that is silent for so long is dead, and others take over what it has."""


class Fleet:
    """Nodes 1 to `nodes` found the cluster; one more joins and leaves."""

    def __init__(self, folder: Path, nodes: int, random: Random, events: Events) -> None:
        self.events = events
        self.random = random
        self.wires = Wires(random)
        self.shelf = Shelf(folder, nodes + 1)
        self.boxes = [
            Box(f"n{number}", folder / f"n{number}", self.shelf.new_disk(f"n{number}"))
            for number in range(1, nodes + 2)
        ]
        self.founders = self.boxes[:-1]
        self._flags: list[str] = []
        for number, box in enumerate(self.founders, start=1):
            box.node_id = number
            box.in_fleet = True

    @property
    def spare(self) -> Box:
        """The one that joins and is lost."""
        return self.boxes[-1]

    @property
    def members(self) -> list[Box]:
        """Those that should be up."""
        return [box for box in self.boxes if box.in_fleet]

    @property
    def addresses(self) -> list[str]:
        """Where clients find the founders."""
        return [box.native for box in self.founders]

    async def start(self, nursery: trio.Nursery) -> None:
        """Found the cluster."""
        for box in self.boxes:
            host, port = box.peer.split(":")
            box.door = f"127.0.0.1:{await self.wires.serve(nursery, box.name, (host, int(port)), self._who)}"
        self._flags = ["--initial", ",".join(box.door for box in self.founders)]
        self._flags += ["--dead-after-s", str(DEAD_AFTER_S), "--log-level", "debug"]
        self._flags += ["--storage-wal-file-bytes", "1MiB", "--storage-min-free-bytes", "16MiB"]
        for box in self.founders:
            self.launch(box)
        for box in self.founders:
            await box.ready()
        nursery.start_soon(self._guard)

    def flags(self, box: Box) -> list[str]:
        """What a node is told."""
        return [*self._flags, "--http", box.http]

    def launch(self, box: Box) -> None:
        """Start a node, and do not wait."""
        self.events.note("launch", box)
        box.launch(self.flags(box))

    def kill(self, box: Box) -> None:
        """SIGKILL."""
        self.events.note("kill", box)
        box.kill()

    async def bring_back(self, box: Box) -> None:
        """It runs and is ready, however it was left. Raises BoxFailed."""
        if not box.is_up:
            self.launch(box)
        await box.ready()
        self.events.note("ready", box)

    async def ask(self, what: Callable[[Client], Awaitable[T]]) -> T:
        """Ask a founder for something, until it is done. Raises BoxFailed when that takes too long."""
        error: Exception | None = None
        with trio.move_on_after(ASK_S):
            while True:
                try:
                    async with plait.connect(self.addresses, name="operator") as client:
                        return await what(client)
                except PlaitError as refusal:
                    error = refusal
                    self.events.note("operator", refusal.code, refusal.message)
                    await trio.sleep(GUARD_S)
        raise BoxFailed(f"what an operator asks for is not done within {ASK_S:g} s: {error}")

    def close(self) -> None:
        """Kill all, and take away what they had."""
        for box in self.boxes:
            box.kill()
        self.shelf.close()

    def _who(self, node_id: int, door: str) -> str:
        """A node's name by its id or address. One with an id that nobody knows is the one that has just joined."""
        for box in self.boxes:
            if box.door == door or (node_id and box.node_id == node_id):
                return box.name
        return self.spare.name

    async def _guard(self) -> None:
        while True:
            await trio.sleep(GUARD_S)
            for box in self.members:
                if box.busy or box.ended is None:
                    continue
                if not box.may_end:
                    self.events.break_promise(f"{box} ended by itself with code {box.ended}: {box.said()}")
                    return
                self.events.reached("ended by itself after trouble with its disk")
                try:
                    await self.bring_back(box)
                except BoxFailed as error:
                    self.events.break_promise(str(error))

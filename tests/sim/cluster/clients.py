"""Clients of groups: they write, settle and read through whichever node leads, and never give an operation up.

begin ──> attempt ──> ok: acknowledged                           one operation at a time, in order
            ^  └───> refused: certainly not done ──┐
            └─────── unknown: may have been done ──┴── again, with the same sequence number
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import trio

from plait.wire.errors import NotLeader, OutcomeUnknown, Overloaded, PlaitError
from replication.actor import Promise
from tests.sim.cluster.checkers import Operation
from tests.sim.cluster.member import Member

if TYPE_CHECKING:
    from tests.sim.cluster.world import World

PATIENCE_S = 0.8
"""How long a client waits for an answer before it asks again."""
AGAIN_S = 0.06
"""Mean pause before it does."""


class Client:
    """Of all groups, one operation at a time."""

    def __init__(self, world: World, number: int) -> None:
        self._world = world
        self.number = number
        self._random = Random(f"{world.plan.seed} client {number}")
        self._sequences: dict[int, int] = {}

    async def run(self) -> None:
        """Work until the world says that it is enough; then end with one more operation on each group."""
        shape, random = self._world.plan.shape, self._random
        groups = list(self._world.checkers)
        while not self._world.healed.is_set():
            await trio.sleep(random.expovariate(1_000 / shape.think_ms))
            group = random.choice(groups)
            if random.random() < shape.read_share:
                await self.read(group)
            else:
                await self.write(group)
        for group in groups:
            await self.write(group)
            await self.read(group)

    async def write(self, group: int) -> None:
        """One operation, until it is acknowledged."""
        checker, random, shape = self._world.checkers[group], self._random, self._world.plan.shape
        sequence = self._sequences[group] = self._sequences.get(group, 0) + 1
        operation = checker.begin(self.number, sequence)
        filling = random.randbytes(random.randrange(shape.payload_bytes))
        span = random.choice((1, 1, 1, 3))
        keep_every = shape.keep_every if random.random() < shape.settle_share else 0
        while True:
            member = await self._find(group)
            attempt = checker.attempt(operation)
            index = await self._attempt(member, operation, attempt, filling, span, keep_every)
            if index is not None:
                checker.acknowledge(operation, index)
                self._world.events.note("ack", f"group={group}", f"{self.number}/{sequence}.{attempt}", index)
                return
            await self._pause()

    async def read(self, group: int) -> None:
        """One read, until it is answered."""
        checker = self._world.checkers[group]
        floor = checker.floor
        while True:
            member = await self._find(group)
            found = None
            with trio.move_on_after(PATIENCE_S):
                try:
                    await self._in(member, member.group.read_index())
                    found = member.look()
                except PlaitError:
                    self._world.events.reached("read refused")
            if found is not None:
                checker.read(floor, found)
                self._world.events.reached("read answered")
                self._world.events.note("read", f"group={group}", f"client={self.number}", f"{floor} < {found}")
                return
            await self._pause()

    async def _attempt(
        self, member: Member, operation: Operation, attempt: int, filling: bytes, span: int, keep_every: int
    ) -> int | None:
        checker, events = member.checker, self._world.events
        try:
            promise = member.submit(self.number, operation.sequence, attempt, filling, span, keep_every)
        except (NotLeader, Overloaded) as error:
            checker.refused(operation, attempt)
            if isinstance(error, Overloaded):
                events.reached("refused for overload")
            return None
        with trio.move_on_after(PATIENCE_S):
            try:
                return await self._in(member, promise)
            except OutcomeUnknown:
                pass
        events.reached("outcome unknown")
        return None

    async def _in(self, member: Member, promise: Promise[int]) -> int:
        """An answer of a life counts only while that life is there to give it."""
        box = self._world.box_of(member)
        value = await promise.wait()
        if box is None or box.life is None or box.life.dead:
            raise OutcomeUnknown("the node died with the answer in its hands")
        return value

    async def _find(self, group: int) -> Member:
        """A replica to ask: mostly one that leads, sometimes any."""
        while True:
            found = [
                box.member_of[group]
                for box in self._world.boxes
                if group in box.member_of and not self._world.gate.is_paused(box.name)
            ]
            if found:
                leading = [member for member in found if member.leads]
                return self._random.choice(leading if leading and self._random.random() < 0.95 else found)
            await self._pause()

    async def _pause(self) -> None:
        await trio.sleep(self._random.expovariate(1 / AGAIN_S))

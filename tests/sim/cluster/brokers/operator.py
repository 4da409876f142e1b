"""Whoever runs the cluster: asks for changes through the SDK, again until they are made, and keeps the machines.

A machine whose node was removed is switched off and cleared: it may join again, as another node. What the operator
sees in the catalogue on its rounds counts as reached.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Literal

import trio

from cluster.assignment import Assignment, Replica
from cluster.catalogue import METADATA_GROUP, Catalogue
from plait.client.client import Client
from plait.wire.errors import PlaitError
from tests.history.programs import DEAD_LETTERS
from tests.sim.cluster.brokers.machines import ClientMachine

if TYPE_CHECKING:
    from tests.sim.cluster.brokers.fleet import FleetWorld
    from tests.sim.cluster.brokers.life import BrokerBox

ROUND_S = 0.1
"""Time between two rounds."""
AGAIN_S = 0.3
"""Time between two tries."""
TRIES = 40
"""Of one change; then it is left."""
TRIES_HEALED = 3
"""Of one change when nothing goes wrong any more."""
DEADLINE_MS = 2_000
"""How long one try may take."""
MACHINE = 90
"""Number of the operator's own machine."""
State = Literal["active", "draining", "leaving"]


class Operator:
    """Of one run."""

    def __init__(self, world: FleetWorld) -> None:
        self._world = world
        self._machine = ClientMachine(world, MACHINE)
        self.busy = 0
        """Changes that are asked for, and not made yet."""
        self._moves: dict[int, tuple[int, str]] = {}
        """By group that is on its way: the assignment's epoch, and who led it when that was seen."""
        self._told: dict[str, None] = {}

    # what is asked for

    def begin(self) -> None:
        """Make what must be there from the beginning."""
        if self._world.plan.shape.overflow == "dead-letter":
            asked = partial(self._insist, "dead letters", lambda client: client.queue(DEAD_LETTERS, partitions=1))
            self._start(asked)

    def change(self, node: int, state: State) -> None:
        """Have a node serve, hand over, or leave."""
        self._start(partial(self._insist, f"{state} {node}", lambda client: client.change_node(node, state)))

    def resize(self, name: str, *, partitions: int = 0, replicas: int = 0) -> None:
        """Have a topic or queue have more partitions, or other replicas."""

        async def resize() -> None:
            asked = partial(_resize, name, partitions, replicas)
            if not await self._insist(f"resize {name} {partitions} {replicas}", asked):
                return
            world = self._world
            if partitions:
                world.grown += 1
            if not world.healed.is_set():
                world.events.reached(
                    "partitions added under load" if partitions else "replicas changed under load"
                )

        self._start(resize)

    def replace(self, box: BrokerBox, down_ms: int = 0, *, comes_first: bool = True) -> None:
        """A machine is lost with its disk: its node is removed, and another one joins in its place."""
        node = box.node_id
        box.clear()

        async def remove() -> None:
            await self._insist(f"leaving {node}", lambda client: client.change_node(node, "leaving"))

        async def replace() -> None:
            await trio.sleep(down_ms / 1_000)
            if not comes_first and node:
                await remove()
            box.switch_on()
            if comes_first and node:
                await remove()

        self._start(replace)

    def _start(self, work: Callable[[], Awaitable[object]]) -> None:
        async def run() -> None:
            self.busy += 1
            try:
                await work()
            finally:
                self.busy -= 1

        self._world.nursery.start_soon(run)

    async def _insist(self, what: str, ask: Callable[[Client], Awaitable[object]]) -> bool:
        for tries in range(TRIES):
            if self._world.healed.is_set() and tries > TRIES_HEALED:
                return False
            try:
                async with self._machine.connect(DEADLINE_MS) as client:
                    await ask(client)
                self._world.events.note("operator", what, "done")
                return True
            except PlaitError as error:
                self._world.events.note("operator", what, error.code)
                if not error.retriable:
                    return False
            await trio.sleep(AGAIN_S)
        return False

    # rounds

    async def watch(self) -> None:
        """See to the machines, for ever."""
        while True:
            await trio.sleep(ROUND_S)
            catalogue = self._world.newest()
            if catalogue is None:
                continue
            self._switch_off(catalogue)
            self._see_moves(catalogue)
            self._see_nodes(catalogue)

    def _switch_off(self, catalogue: Catalogue) -> None:
        for box in self._world.boxes:
            if box.is_on and box.node_id and catalogue.node_was_removed(box.node_id):
                self._world.events.note("cleared", box.name, f"node={box.node_id}")
                box.clear()
                if not self._world.healed.is_set():
                    self._reach("node removed under load", box.name)

    def _see_moves(self, catalogue: Catalogue) -> None:
        unsettled = catalogue.assignments.unsettled
        for group in [group for group in self._moves if group not in unsettled]:
            epoch, leader = self._moves.pop(group)
            assignment = catalogue.assignment(group)
            if assignment is None:
                continue
            events, faults = self._world.events, not self._world.healed.is_set()
            events.reached("move finished under faults" if faults else "move finished")
            if self._leader(group) not in ("", leader) and leader:
                events.reached("move outlived its leader")
            if assignment.epoch > epoch:
                events.reached("move changed on its way")
        for group in unsettled:
            assignment = catalogue.assignment(group)
            assert assignment is not None, "it is unsettled"
            if group not in self._moves:
                self._moves[group] = assignment.epoch, self._leader(group)

    def _leader(self, group: int) -> str:
        return next((life.box.name for life in self._world.lives() if life.leads_group(group)), "")

    def _see_nodes(self, catalogue: Catalogue) -> None:
        healed = self._world.healed.is_set()
        held = {place.node for group, each in catalogue.assignments.items() if group for place in _all(each)}
        assert METADATA_GROUP == 0, "it is not counted: every node has it"
        for node in catalogue.nodes():
            if node.dead and node.node_id not in held:
                self._reach("dead node replaced", node.node_id, node.incarnation)
            if node.state == "draining" and node.node_id not in held:
                self._reach("drain finished" if healed else "drain finished under faults", node.node_id)

    def _reach(self, state: str, *about: object) -> None:
        """Once for each that it is about."""
        key = f"{state} {about}"
        if key not in self._told:
            self._told[key] = None
            self._world.events.reached(state)


def _all(assignment: Assignment) -> list[Replica]:
    return [*assignment.wanted, *assignment.leaving]


async def _resize(name: str, partitions: int, replicas: int, client: Client) -> None:
    await client.resize(name, partitions=partitions, replicas=replicas)

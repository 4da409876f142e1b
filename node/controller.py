"""The cluster's housekeeper: runs where the catalogue is led, and has replicas put where they should be.

    nodes come, go, are silent ──> decisions (cluster/balance.py) ──> Reassign, Declare, RemoveNode
                                   some groups a turn                   │
                                                                        └> groups' leaders go there (moving.py)

It keeps nothing that matters: whoever leads the catalogue next looks at everything anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import structlog

from cluster.assignment import Assignment, Place
from cluster.balance import Fleet, improved, is_hopeless, metadata_places
from cluster.catalogue import METADATA_GROUP, Catalogue
from cluster.commands import Command, Declare, Reassign, RemoveNode
from replication.actor import Actor, Host, Promise

_logger = structlog.get_logger("plait.controller")

LOOK_GROUPS = 200
"""Groups that are looked at in one turn."""
LOOK_MS = 50
"""Time between two turns while there is something to look at."""
WATCH_MS = 500
"""Time between two looks at nodes that are silent."""
MOVES_MAX = 32
"""Groups that may be on their way to other members at a time."""
COMMANDS_MAX = 32
"""Commands of its own that may be under way."""


@dataclass(frozen=True, slots=True)
class ControllerSettings:
    """When it acts."""

    dead_after_ms: int = 300_000
    """A node that is silent for so long is dead: others take over what it has."""


class Controller(Actor):
    """One per node; works on the one that leads the catalogue."""

    def __init__(
        self,
        host: Host,
        catalogue: Catalogue,
        node_id: int,
        is_up: Callable[[int], bool],
        submit: Callable[[Command], Promise[Any]],
        settings: ControllerSettings,
    ) -> None:
        """`submit`: have a command applied, by this node's replica of the catalogue."""
        super().__init__(host, "controller")
        self._catalogue = catalogue
        self._node_id = node_id
        self._is_up = is_up
        self._submit = submit
        self._settings = settings
        self._leads = False
        self._under_way = 0
        self._silent: dict[int, int] = {}  # node: since when, by this node's clock
        self._left: Iterator[tuple[int, Assignment]] | None = None  # groups that were not looked at yet
        self._again = False  # something has changed since that look began

    def standing(self, leads: bool) -> None:
        """This node leads the catalogue, and serves; or it does not."""
        self._leads = leads
        self._silent.clear()
        self._left = None
        self.look()

    def look(self) -> None:
        """Something may be better elsewhere now."""
        self._again = True
        if self._leads:
            self._look_in(0)

    def handle(self, messages: list[Any]) -> None:
        """Look at the nodes, and at some groups; ask for what should be changed."""
        if not self._leads or not self._catalogue.cluster_id:
            return
        now_ns = self.host.clock.monotonic_ns()
        self._watch(now_ns)
        if len(self._catalogue.nodes()) > 1 and self._under_way == 0:
            self._look_at_groups()
        if self._left is not None or self._again or self._under_way:
            self._look_in(LOOK_MS)
        elif self._silent or self._catalogue.assignments.unsettled:
            self._look_in(WATCH_MS)

    # nodes

    def _watch(self, now_ns: int) -> None:
        """Declare dead who is silent for too long, and alive who is heard again."""
        for node in self._catalogue.nodes():
            if self._is_up(node.node_id):
                self._silent.pop(node.node_id, None)
            else:
                since_ns = self._silent.setdefault(node.node_id, now_ns)
                if now_ns - since_ns < self._settings.dead_after_ms * 1_000_000:
                    continue
            is_dead = node.node_id in self._silent
            if is_dead != node.dead and node.incarnation:
                _logger.warning("node is dead" if is_dead else "node is back", node=node.node_id, name=node.name)
                self._ask(Declare(node.node_id, node.incarnation, is_dead, 0))
            if node.state == "leaving" and not self._catalogue.assignments.replicas_on(node.node_id):
                _logger.info("node is removed", node=node.node_id, name=node.name)
                self._ask(RemoveNode(node.node_id, 0))

    # groups

    def _look_at_groups(self) -> None:
        catalogue = self._catalogue
        if self._left is None:
            if not self._again:
                return
            self._again = False
            self._left = iter(list(catalogue.assignments.items()))
            self._look_at_moves()
        fleet = self._fleet()
        room = MOVES_MAX - len(catalogue.assignments.unsettled)
        for _ in range(LOOK_GROUPS):
            group, _former = next(self._left, (None, None))
            if group is None:
                self._left = None
                return
            if room <= 0 or self._under_way >= COMMANDS_MAX:
                self._left, self._again = None, True
                return
            room -= self._improve(group, fleet)

    def _look_at_moves(self) -> None:
        """Groups on their way to a node that died meanwhile would never arrive: they go elsewhere."""
        fleet = self._fleet()
        for group in list(self._catalogue.assignments.unsettled):
            assignment = self._catalogue.assignment(group)
            if assignment is None or self._under_way >= COMMANDS_MAX:
                continue
            places = self._better_places(group, assignment, fleet)
            if places is not None and is_hopeless(assignment, places, fleet):
                self._reassign(group, assignment, places)

    def _improve(self, group: int, fleet: Fleet) -> bool:
        assignment = self._catalogue.assignment(group)
        if assignment is None or not assignment.settled:
            return False
        places = self._better_places(group, assignment, fleet)
        if places is not None:
            self._reassign(group, assignment, places)
        return places is not None

    def _better_places(self, group: int, assignment: Assignment, fleet: Fleet) -> list[Place] | None:
        if group == METADATA_GROUP:
            return metadata_places(assignment, fleet)
        found = self._catalogue.partition_of(group)
        return improved(assignment, found[0].settings.replicas, fleet) if found is not None else None

    def _reassign(self, group: int, assignment: Assignment, places: list[Place]) -> None:
        _logger.info("group is assigned anew", group=group, nodes=[place.node for place in places])
        self._ask(Reassign(group, assignment.epoch, [[node, int(votes)] for node, votes in places], [], 0))

    def _fleet(self) -> Fleet:
        nodes = self._catalogue.nodes()
        up = [node.node_id for node in nodes if self._is_up(node.node_id)]
        return Fleet(nodes, self._catalogue.assignments.sites(nodes), up)

    # asking

    def _ask(self, command: Command) -> None:
        self._under_way += 1

        def done(asked: Promise[Any]) -> None:
            self._under_way -= 1
            if asked.error is not None:
                self._again = True
            if self._leads:
                self._look_in(LOOK_MS)

        self._submit(command).then(done)

    def _look_in(self, wait_ms: int) -> None:
        when_ns = self.host.clock.monotonic_ns() + wait_ms * 1_000_000
        if not self.stopped and (self.alarm_ns is None or when_ns < self.alarm_ns):
            self.host.alarm(when_ns, self, None)

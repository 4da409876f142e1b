"""Which nodes are short of disk space: each tells all others, and says so again to whoever comes.

    watch ──what the disk is like──> Scarcity ──changed──> told to every node, until it has answered
    another node's word ──> NodePressure.scarce ──> admission (a majority without space), leading (who may lead)

A node that is short leads nothing that another one could (node/leading.py), and where a majority is short nobody
publishes (cluster/admission.py).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import structlog

from cluster.limits import NodePressure, Storage
from cluster.rates import NS_PER_MS
from cluster.scarcity import Scarcity, at_least
from plait.wire.errors import BadRequest
from replication.actor import Promise
from replication.group import Group
from replication.peers.channels import Answer, Heard
from replication.peers.peers import Peers

CHANNEL = "space"
"""The channel on which nodes say what their disks are like."""
TELL_MS = 1_000
"""How long a node may take to hear it, and the time before it is told again if it did not."""

_logger = structlog.get_logger("plait.node")


class Spaces:
    """One per node."""

    def __init__(self, peers: Peers, pressure: NodePressure, changed: Callable[[], None]) -> None:
        """`changed`: called when this node or another one is short from now on, or is not any more."""
        self._peers = peers
        self._pressure = pressure
        self._changed = changed
        self._own = Scarcity()
        self._told: dict[int, Storage] = {}
        """What each node is known to have heard."""
        self._asked_ns: dict[int, int] = {}
        """When each node was told last, while it has not answered."""
        peers.serve(CHANNEL, self._hear)
        peers.on_node.append(self._node_changed)

    @property
    def is_short(self) -> bool:
        """This node is."""
        return self._own.degree != "none"

    def may_take(self, node: int) -> bool:
        """Whether another node has space for more."""
        return node not in self._pressure.scarce

    def look(self, now_ns: int, storage: Storage) -> None:
        """This node's disk is so now. Called often."""
        if self._own.look(now_ns, storage):
            _logger.info("disk space of this node changed", space=self._own.degree)
            self._changed()
        for node in self._peers.nodes_up():
            asked_ns = self._asked_ns.get(node)
            rested = asked_ns is None or now_ns - asked_ns >= TELL_MS * NS_PER_MS
            if rested and self._told.get(node) != self._own.degree:
                self._tell(node, now_ns)

    def _tell(self, node: int, now_ns: int) -> None:
        self._asked_ns[node] = now_ns
        degree = self._own.degree
        asked = self._peers.ask(node, CHANNEL, [degree], timeout_ms=TELL_MS)
        asked.then(partial(self._heard, node, degree))

    def _heard(self, node: int, degree: Storage, done: Promise[Heard]) -> None:
        if done.error is None:  # else it is told again
            self._told[node] = degree
            self._asked_ns.pop(node, None)

    def _hear(self, node: int, head: list[Any], payload: memoryview) -> Promise[Answer]:
        before = self._pressure.scarce.get(node, "none")
        match head:
            case ["none"]:
                self._pressure.scarce.pop(node, None)
            case ["low" | "critical" as degree]:
                self._pressure.scarce[node] = degree
            case _:
                raise BadRequest(f"channel {CHANNEL} has no word {head!r:.60}; nothing was noted")
        if head[0] != before:
            _logger.info("disk space of a node changed", node=node, space=head[0])
            self._changed()
        answer: Promise[Answer] = Promise()
        answer.resolve(([], ()))
        return answer

    def _node_changed(self, node: int, up: bool) -> None:
        """It may be another life of it that comes, and knows nothing; what it said holds until it says more."""
        self._told.pop(node, None)
        self._asked_ns.pop(node, None)


def replicas_storage(group: Group, pressure: NodePressure) -> Storage:
    """What the disks take that a majority of a group's replicas are on: "none" where a majority has space."""
    own = group.membership.members().get(group.replica, 0)

    def storage(node: int) -> Storage:
        return pressure.storage if node == own else pressure.scarce.get(node, "none")

    if not group.has_quorum(lambda node: not at_least(storage(node), "critical")):
        return "critical"
    return "none" if group.has_quorum(lambda node: not at_least(storage(node), "low")) else "low"

"""The nodes of a cluster: who they are, where they are reached, and what they are to do.

AddNode (a disk) ──> id ──RegisterNode (a start)──> active ⇄ draining ──> leaving ──(has nothing more)──> removed
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from cluster.commands import AddNode, ChangeNode, Declare, RegisterNode
from cluster.names import check_node_name
from plait.wire.errors import AlreadyExists, BadRequest, LimitReached, NotFound

NODES_MAX = 64
"""Nodes of a cluster: each has a replica of the catalogue."""
REMOVED_MAX = 100_000
"""Removed nodes that a cluster remembers, so that none of them comes back."""
NODE_ID_MAX = 2**31 - 1
"""Largest node id (Kafka's protocol has 32 bits for it)."""
ADDRESS_CHARACTERS_MAX = 280
"""Characters of an address: a name of 253, a port, and brackets."""
RACK_CHARACTERS_MAX = 64
"""Characters of a rack's name."""

State = Literal["active", "draining", "leaving"]
STATES: tuple[State, ...] = ("active", "draining", "leaving")


@dataclass(frozen=True, slots=True)
class Node:
    """A node as the cluster knows it."""

    node_id: int
    name: str
    incarnation: int
    """How often it has started; 0: never, from 1."""
    registered_ms: int
    """When it last did."""
    native: str = ""
    """"host:port" at which clients reach it; "": unknown."""
    peer: str = ""
    """"host:port" at which other nodes reach it; "": unknown."""
    rack: str = ""
    disk: int = 0
    """The number of its data directory; 0: unknown."""
    features: int = 0
    """What its version knows (cluster/features.py)."""
    state: State = "active"
    dead: bool = False
    """It has been silent for so long that others take over what it has."""


class Nodes:
    """All of them. Changed by the catalogue alone."""

    def __init__(self) -> None:
        self._nodes: dict[int, Node] = {}
        self._removed: dict[int, None] = {}
        self._next = 1

    def __len__(self) -> int:
        return len(self._nodes)

    def get(self, node_id: int) -> Node | None:
        """The node of that id."""
        return self._nodes.get(node_id)

    def all(self) -> list[Node]:
        """All, by id."""
        return [self._nodes[node_id] for node_id in sorted(self._nodes)]

    def was_removed(self, node_id: int) -> bool:
        """Whether that node was of the cluster, and must not come back."""
        return node_id in self._removed

    @property
    def features(self) -> int:
        """What all nodes know that have ever started."""
        return min((node.features for node in self._nodes.values() if node.incarnation), default=0)

    # changing; each raises a PlaitError before it changes anything

    def found(self, founders: Mapping[int, int], stamp_ms: int) -> None:
        """Those who are there from the beginning."""
        for node_id in founders:
            _check_id(node_id)
        for node_id, disk in sorted(founders.items()):
            self._keep(Node(node_id, f"node-{node_id}", 0, stamp_ms, disk=disk))

    def joined(self, disk: int) -> Node | None:
        """The node that has this disk."""
        return next((node for node in self._nodes.values() if disk and node.disk == disk), None)

    def add(self, command: AddNode, stamp_ms: int) -> Node:
        """A node with a disk that is new here."""
        _check(command.name, command.peer, command.native, command.rack)
        if command.disk < 1:
            raise BadRequest("a node that joins names the number of its disk; it was not added")
        if len(self._nodes) >= NODES_MAX:
            raise LimitReached(f"the cluster has {NODES_MAX:,} nodes, the most there can be; none was added")
        return self._keep(
            Node(
                self._next,
                command.name,
                0,
                stamp_ms,
                command.native,
                command.peer,
                command.rack,
                command.disk,
                command.features,
            )
        )

    def registered(self, command: RegisterNode) -> Node | None:
        """The node, if this start of it is known already; None if it is news. Raises for what cannot be one."""
        _check_id(command.node_id)
        _check(command.name, command.peer, command.native, command.rack)
        if self.was_removed(command.node_id):
            raise AlreadyExists(
                f"node {command.node_id} was removed from this cluster, and cannot come back as it was; it was "
                "not registered: start it with an empty data directory and --join, as a new node"
            )
        known = self._nodes.get(command.node_id)
        if known is None and len(self._nodes) >= NODES_MAX:
            raise LimitReached(f"the cluster has {NODES_MAX:,} nodes, the most there can be; none was added")
        incarnation = known.incarnation if known else 0
        if known is not None and 0 < command.start == incarnation:
            return known
        if 0 < command.start < incarnation:
            raise AlreadyExists(
                f"node {command.node_id} has been started {incarnation} times, and this is start {command.start}: "
                "it was replaced by a later one, or its data directory is an older copy; it was not registered"
            )
        return None

    def register(self, command: RegisterNode, stamp_ms: int) -> Node:
        """A node has started, as `registered` has allowed."""
        known = self._nodes.get(command.node_id) or Node(command.node_id, command.name, 0, stamp_ms)
        return self._keep(
            replace(
                known,
                name=command.name,
                incarnation=command.start or known.incarnation + 1,
                registered_ms=stamp_ms,
                native=command.native,
                peer=command.peer or known.peer,
                rack=command.rack,
                features=command.features,
                dead=False,
            )
        )

    def declared(self, command: Declare) -> Node:
        """What the node would be. Raises NotFound."""
        node = self.find(command.node_id)
        return replace(node, dead=command.dead) if node.incarnation == command.incarnation else node

    def find(self, node_id: int) -> Node:
        """The node of that id. Raises NotFound."""
        node = self._nodes.get(node_id)
        if node is None:
            raise NotFound(f"the cluster has no node {node_id}; nothing was done: see plait cluster status")
        return node

    def changed(self, command: ChangeNode) -> Node:
        """What the node would be. Raises NotFound, BadRequest."""
        node = self.find(command.node_id)
        for state in STATES:
            if state == command.state:
                return replace(node, state=state)
        raise BadRequest(f"a node is {', '.join(STATES)}, not {command.state!r}; nothing was changed")

    def change(self, node: Node) -> Node:
        """It is this from now on."""
        return self._keep(node)

    def remove(self, node_id: int) -> None:
        """It is gone for good."""
        del self._nodes[node_id]
        self._removed[node_id] = None
        while len(self._removed) > REMOVED_MAX:
            del self._removed[min(self._removed)]

    def _keep(self, node: Node) -> Node:
        self._nodes[node.node_id] = node
        self._next = max(self._next, node.node_id + 1)
        return node

    # snapshots

    def plain(self) -> tuple[int, list[list[Any]], list[int]]:
        """All of it as plain values; equal states give equal ones."""
        nodes = [[getattr(node, each.name) for each in fields(Node)] for node in self.all()]
        return self._next, nodes, sorted(self._removed)

    def become(self, following: int, nodes: Sequence[Sequence[Any]], removed: Sequence[int]) -> None:
        """What `plain` gave."""
        self._next = following
        self._nodes = {node[0]: Node(*node) for node in nodes}
        self._removed = dict.fromkeys(removed)


def _check_id(node_id: int) -> None:
    if not (type(node_id) is int and 0 < node_id <= NODE_ID_MAX):
        raise BadRequest(f"node id {node_id}: must be between 1 and {NODE_ID_MAX:,}")


def _check(name: str, peer: str, native: str, rack: str) -> None:
    check_node_name(name)
    if max(len(peer), len(native)) > ADDRESS_CHARACTERS_MAX:
        raise BadRequest(f"an address has at most {ADDRESS_CHARACTERS_MAX} characters; the node was not added")
    if len(rack) > RACK_CHARACTERS_MAX:
        raise BadRequest(f"a rack's name has at most {RACK_CHARACTERS_MAX} characters; the node was not added")

"""How nodes with the same list of members become a cluster, once, and never again with other disks.

    new disk ── who are you, and whose disks did you found with? ──> every other node
             <── its disk's number, founders or none ──

All must answer. If nobody has founded yet, the disks that answered are the founders, which each node writes down
before it opens its first group. A node whose disk is none of the founders' is not let in: what it had acknowledged
and voted for is lost, and under its old id it could do it again otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog

from node.identity import NodeIdentity
from plait.wire.errors import AlreadyExists, BadRequest, PlaitError
from replication.actor import Promise
from replication.environment import Clock
from replication.peers.channels import Answer
from replication.peers.peers import Peers

_logger = structlog.get_logger("plait.node")

CHANNEL = "founding"
"""The channel of these questions."""
ASK_MS = 2_000
"""How long a node has to answer."""
AGAIN_MS = 200
"""Wait before those who have not answered are asked again."""
COMPLAIN_MS = 5_000
"""How often it is said who is still missing."""

Said = tuple[int, dict[int, int]]
"""What a node says: its disk, and the founders that it knows."""


class Founding:
    """This node's part in it. `identity` is what it says of itself from now on."""

    def __init__(self, identity: NodeIdentity, nodes: Sequence[int], peers: Peers, clock: Clock) -> None:
        self.identity = identity
        self._nodes = nodes
        self._others = [node for node in nodes if node != identity.node_id]
        self._peers = peers
        self._clock = clock
        peers.serve(CHANNEL, self._answer)

    async def agree(self) -> dict[int, int]:
        """Node to disk of all founders; waits until all nodes are there.

        Raises AlreadyExists: the cluster was founded with another disk of this node's; BadRequest: the lists of
        members differ.
        """
        mine = self.identity
        said: dict[int, Said] = {}
        complain_ns = self._clock.monotonic_ns() + COMPLAIN_MS * 1_000_000
        while len(said) < len(self._others):
            await self._ask_others(said)
            for node, (_, founders) in said.items():
                _check(mine, node, founders, self._nodes)
            missing = [node for node in self._others if node not in said]
            now_ns = self._clock.monotonic_ns()
            if missing and now_ns >= complain_ns:
                complain_ns = now_ns + COMPLAIN_MS * 1_000_000
                _logger.warning("waiting for all nodes, to found the cluster", missing=missing)
            if missing:
                await self._clock.sleep_until(now_ns + AGAIN_MS * 1_000_000)
        return {mine.node_id: mine.disk, **{node: disk for node, (disk, _) in sorted(said.items())}}

    async def _ask_others(self, said: dict[int, Said]) -> None:
        asked = {
            node: self._peers.ask(node, CHANNEL, [self.identity.disk], timeout_ms=ASK_MS)
            for node in self._others
            if node not in said
        }
        for node, promise in asked.items():
            try:
                head, _ = await promise.wait()
            except PlaitError:
                continue  # it is not there yet, or gone again
            disk, founders = head
            said[node] = disk, dict(founders)

    def _answer(self, node: int, head: list[Any], payload: memoryview) -> Promise[Answer]:
        promise: Promise[Answer] = Promise()
        founders = [list(each) for each in sorted(self.identity.founders.items())]
        promise.resolve(([self.identity.disk, founders], []))
        return promise


def _check(mine: NodeIdentity, node: int, founders: dict[int, int], nodes: Sequence[int]) -> None:
    """Whether this disk may be one of that node's cluster."""
    if not founders:
        return
    if sorted(founders) != list(nodes):
        raise BadRequest(
            f"node {node} belongs to a cluster of the nodes {sorted(founders)}, this node was told {list(nodes)}; "
            "nothing was begun: give all the same list, and nodes of a former cluster an empty data directory"
        )
    if founders[mine.node_id] != mine.disk:
        raise AlreadyExists(
            f"node {node} knows node {mine.node_id} with another data directory, in which votes and messages are "
            "that this one does not have; nothing was begun: bring that directory back, or, if the cluster has "
            "nothing that you need, empty the directories of all its nodes"
        )

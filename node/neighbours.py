"""The other nodes, as the links need to know them: kept as the catalogue says, and found again after a start.

catalogue ──nodes and addresses──> links to each, and their addresses on this disk
                                   (a node that starts knows no catalogue before it has found somebody)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import structlog

from cluster.catalogue import Catalogue
from node.identity import IdentityFile
from plait.wire.addresses import split_address
from replication.environment import Tasks
from replication.peers.peers import Peers

_logger = structlog.get_logger("plait.node")


class Neighbours:
    """One per node."""

    def __init__(self, peers: Peers, identity: IdentityFile, tasks: Tasks) -> None:
        self._peers = peers
        self._identity = identity
        self._tasks = tasks
        self._known: dict[int, str] = {}
        self._gone: dict[int, None] = {}

    def expect(self, addresses: Mapping[int, str]) -> None:
        """Nodes that are said to be there."""
        for node, address in addresses.items():
            self._connect(node, address)

    def look(self, catalogue: Catalogue) -> None:
        """The catalogue's nodes may be others now."""
        own = self._identity.identity.node_id
        for node in catalogue.nodes():
            if node.node_id != own and node.peer:
                self._connect(node.node_id, node.peer)
        for node_id in [node_id for node_id in self._known if catalogue.node_was_removed(node_id)]:
            del self._known[node_id]
            self._peers.forget(node_id)
        if self._known != dict(self._identity.identity.addresses):
            self._tasks.spawn("addresses", self._remember)

    def _connect(self, node: int, address: str) -> None:
        if node != self._identity.identity.node_id and self._known.get(node) != address:
            self._known[node] = address
            self._peers.connect_to(node, *split_address(address))

    async def _remember(self) -> None:
        known = dict(self._known)
        try:
            await self._identity.change(lambda identity: replace(identity, addresses=known))
        except OSError as error:  # they are only where to look first
            _logger.warning("addresses of other nodes cannot be kept", error=str(error))

"""Whether this node lives, and whether it can serve: asked at any time, from its start to its end.

    recovering ──> meeting the others ──> registering ──> opening ──> serving ──> stopping

It is there before the node is: a node that waits for a majority is healthy, and says what it waits for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from node.metadata import Metadata
    from replication.peers.peers import Peers
    from replication.storage.store import Store

RECOVERING = "recovering what is in the data directory"
MEETING = "meeting the other nodes"
REGISTERING = "registering with the cluster, which needs a majority of its nodes"
OPENING = "opening the partitions"
SERVING = "serving"
STOPPING = "stopping"


class Health:
    """Filled in by the node as it starts."""

    def __init__(self) -> None:
        self.stage = RECOVERING
        self.store: Store | None = None
        self.peers: Peers | None = None
        self.metadata: Metadata | None = None

    def ailments(self) -> list[str]:
        """Why this process cannot go on; none: it lives."""
        failed = self.store.failure if self.store is not None else ""
        return [f"the write-ahead log has failed: {failed}"] if failed else []

    def hindrances(self) -> list[str]:
        """Why this node cannot serve now; none: it can."""
        found = self.ailments()
        if self.stage != SERVING:
            found.append(f"this node is {self.stage}")
        if self.stage in (SERVING, REGISTERING, OPENING):
            found += self._lost_catalogue()
        return found

    def facts(self) -> dict[str, Any]:
        """Who this is, as far as it is known yet."""
        metadata = self.metadata
        if metadata is None:
            return {"stage": self.stage}
        return {
            "stage": self.stage,
            "cluster_id": metadata.cluster_id,
            "node_id": metadata.node_id,
            "incarnation": metadata.incarnation,
            "catalogue_leader": self._leader(metadata),
        }

    def _lost_catalogue(self) -> list[str]:
        """Why the catalogue cannot be asked: it is what a node must be able to do to serve."""
        metadata = self.metadata
        if metadata is None:
            return ["the catalogue is not open yet"]
        if metadata.replica.failure:
            return [f"the catalogue cannot be served here: {metadata.replica.failure}"]
        leader = self._leader(metadata)
        if not leader:
            return ["no leader of the catalogue is known here: a majority of the nodes may be missing"]
        if leader != metadata.node_id and self.peers is not None and not self.peers.is_up(leader):
            return [f"node {leader}, which leads the catalogue, is not heard"]
        group = metadata.replica.group
        if group is not None and self.peers is not None and not group.has_quorum(self.peers.is_up):
            return ["a majority of the nodes that keep the catalogue is not heard"]
        if leader == metadata.node_id and not metadata.replica.ready:
            return ["the catalogue, which this node leads, is being read back"]
        return []

    def _leader(self, metadata: Metadata) -> int:
        group = metadata.replica.group
        return group.leader_node if group is not None else 0

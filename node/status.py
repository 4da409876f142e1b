"""The cluster as one node sees it and as every node says of itself: what `plait cluster status` shows.

    cluster_status() ──asks all nodes at once──> each counts what it leads ──> one document
                                             └─> a node that does not answer in time is shown as not heard

Figures are those of a moment and may be a second old; which nodes there are is what this node's catalogue says.
"""

from __future__ import annotations

from typing import Any

import trio

from cluster.catalogue import Catalogue
from node.counting import PartitionSum, ReplicaSum, in_slices
from node.groups import Groups
from node.health import Health
from node.replicas import Replicas
from plait.version import __version__
from plait.wire.errors import BadRequest, PlaitError
from replication.actor import Promise
from replication.environment import Environment
from replication.group import Group
from replication.peers.channels import Answer
from replication.peers.peers import Peers
from replication.storage.store import Store

CHANNEL = "status"
"""The channel on which nodes are asked for their facts."""
STATUS_MS = 2_000
"""How long a node may take to tell its facts before it is shown as not heard."""
FRESH_MS = 500
"""Facts that are not older than this are told once more."""
LAGGING_PARTITIONS = 20
"""Under-replicated partitions that a node names; it says how many there are in all."""
LISTED_PARTITIONS = 60
"""Under-replicated partitions that all nodes together name in one answer."""
NS_PER_MS = 1_000_000


class Status:
    """One per node."""

    def __init__(
        self,
        environment: Environment,
        health: Health,
        catalogue: Catalogue,
        peers: Peers,
        groups: Groups,
        replicas: Replicas,
        store: Store,
    ) -> None:
        self._clock = environment.clock
        self._memory = environment.memory
        self._tasks = environment.tasks
        self._health = health
        self._catalogue = catalogue
        self._peers = peers
        self._groups = groups
        self._replicas = replicas
        self._store = store
        self._began_ns = environment.clock.monotonic_ns()
        self._lock = trio.Lock()
        self._facts: dict[str, Any] = {}
        self._facts_ns = 0
        peers.serve(CHANNEL, self._serve)

    async def cluster(self) -> dict[str, Any]:
        """All nodes with what each of them says of itself."""
        own = self._groups.node_id
        nodes = self._catalogue.nodes()
        asked = {
            node.node_id: self._peers.ask(node.node_id, CHANNEL, ["facts"], timeout_ms=STATUS_MS)
            for node in nodes
            if node.node_id != own and self._peers.is_up(node.node_id)
        }
        told = {own: dict(await self.facts())}
        for node_id, promise in asked.items():
            try:
                told[node_id] = dict((await promise.wait())[0][0])
            except (PlaitError, LookupError, TypeError, ValueError):
                continue  # it is shown as not heard, which says it
        _shorten(told)
        return {
            **{name: self._health.facts()[name] for name in ("cluster_id", "catalogue_leader")},
            "asked_node": own,
            "nodes": [
                {
                    "node": node.node_id,
                    "name": node.name,
                    "native": node.native,
                    "peer": node.peer,
                    "rack": node.rack,
                    "state": "dead" if node.dead else node.state,
                    "incarnation": node.incarnation,
                    "heard": node.node_id in told,
                    **told.get(node.node_id, {}),
                }
                for node in nodes
            ],
        }

    async def facts(self) -> dict[str, Any]:
        """What this node says of itself."""
        async with self._lock:
            now_ns = self._clock.monotonic_ns()
            if not self._facts or now_ns - self._facts_ns > FRESH_MS * NS_PER_MS:
                self._facts = await self._count()
                self._facts_ns = self._clock.monotonic_ns()
            return self._facts

    async def _count(self) -> dict[str, Any]:
        replicas, partitions, lagging = ReplicaSum(), PartitionSum(), list[Group]()
        now_ns = self._clock.monotonic_ns()
        async for group in in_slices(self._clock, list(self._groups.opened.values())):
            if replicas.count(group, now_ns) and len(lagging) < LAGGING_PARTITIONS:
                lagging.append(group)
        async for partition in in_slices(self._clock, list(self._replicas.all_partitions())):
            partitions.count(partition)
        return {
            "version": __version__,
            "stage": self._health.stage,
            "not_ready": self._health.hindrances(),
            "uptime_s": (now_ns - self._began_ns) // 1_000_000_000,
            "hears": self._peers.nodes_up(),
            "replicas": replicas.replicas,
            "leads": replicas.leaders,
            "fenced": replicas.fenced,
            "under_replicated": replicas.under_replicated,
            "lagging": [each for group in lagging for each in self._lags(group)],
            "backlog_records": partitions.backlog_records,
            "backlog_bytes": partitions.backlog_bytes,
            "leased_records": partitions.leased,
            "memory_bytes": self._memory().used_bytes,
            "disk_free_bytes": self._store.figures(now_ns).free_bytes,
        }

    def _lags(self, group: Group) -> list[dict[str, Any]]:
        found = self._catalogue.partition_of(group.group)
        name = f"{found[0].name}/{found[1]}" if found is not None else f"group {group.group}"
        return [
            {"partition": name if group.group else "catalogue", "node": each.node, "lag_entries": each.lag_entries}
            for each in group.followers()
            if not each.caught_up
        ]

    def _serve(self, node: int, head: list[Any], payload: memoryview) -> Promise[Answer]:
        if head != ["facts"]:
            raise BadRequest(f"channel {CHANNEL} has no question {head!r:.60}; nothing was done")
        answer: Promise[Answer] = Promise()
        self._tasks.spawn("status", self._answer, answer)
        return answer

    async def _answer(self, answer: Promise[Answer]) -> None:
        try:
            answer.resolve(([await self.facts()], []))
        except Exception as error:  # the node goes on whatever its figures do, and whoever asked is told
            answer.reject(error)


def _shorten(told: dict[int, dict[str, Any]]) -> None:
    """All of it has to fit into one answer: the figures do, the lists of names may not."""
    room = LISTED_PARTITIONS
    for facts in told.values():
        facts["lagging"] = list(facts.get("lagging", ()))[:room]
        room -= len(facts["lagging"])

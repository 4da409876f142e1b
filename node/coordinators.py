"""The coordinator partitions of this node, and which of them all a subscription belongs to.

    subscription ──hash──> a group of the internal topic ──placed here──> Coordinator

Whoever asks one goes through node/routes.py with the questions of node/group_questions.py, wherever it is led.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cluster.catalogue import COORDINATOR_TOPIC, Catalogue, Topic
from node.coordinator import Coordinator
from node.groups import Groups, founding_members
from node.whereabouts import Whereabouts
from plait.wire.errors import Unavailable
from plait.wire.partitioning import partition_for_key
from replication.actor import Host
from replication.environment import Clock
from replication.group import Group


@dataclass(frozen=True, slots=True)
class _Held:
    """One that is open here."""

    replica: int
    coordinator: Coordinator


class Coordinators:
    """Of one node, by group."""

    def __init__(
        self,
        host: Host,
        clock: Clock,
        catalogue: Catalogue,
        whereabouts: Whereabouts,
        groups: Groups,
        standing: Callable[[Group, bool], None],
    ) -> None:
        self._host = host
        self._clock = clock
        self._catalogue = catalogue
        self._whereabouts = whereabouts
        self._groups = groups
        self._standing = standing
        self._held: dict[int, _Held] = {}

    async def fit(self, topic: Topic, drop_gone: Callable[[int], None]) -> None:
        """Have those that this node is to have, and no others. `drop_gone`: the data of a group's replicas goes
        that are not wanted any more."""
        for number, group_id in enumerate(topic.groups):
            assignment = self._catalogue.assignment(group_id)
            replica = assignment.replica_on(self._groups.node_id) if assignment is not None else None
            former = self._held.get(group_id)
            if former is not None and (replica is None or replica.replica != former.replica):
                del self._held[group_id]
                former.coordinator.close()
                self._groups.leave(group_id)
                drop_gone(group_id)
            if assignment is None or replica is None or group_id in self._held:
                continue
            coordinator = self._made(number)
            self._held[group_id] = _Held(replica.replica, coordinator)
            members = founding_members(assignment, replica)
            eager = assignment.preferred == self._groups.node_id
            await self._groups.open(group_id, replica.replica, coordinator.replica, members, eager=eager)

    async def settled(self) -> None:
        """Return when each is served, or cannot be."""
        for held in list(self._held.values()):
            await held.coordinator.replica.settled.wait()

    def get(self, group_id: int) -> Coordinator | None:
        """This node's replica of a coordinator partition."""
        held = self._held.get(group_id)
        return held.coordinator if held is not None else None

    def forget_topic(self, topic_id: int) -> None:
        """A topic is gone: whoever leads forgets it."""
        for held in self._held.values():
            held.coordinator.forget_topic(topic_id)

    def _made(self, number: int) -> Coordinator:
        return Coordinator(
            self._host,
            f"{COORDINATOR_TOPIC}/{number}",
            self._whereabouts.refusal,
            self._standing,
            self._clock.wall_ms,
            self._size_of,
        )

    def _size_of(self, topic_id: int) -> int | None:
        if self._catalogue.topic_is_deleted(topic_id):
            return 0
        topic = self._catalogue.topic_by_id(topic_id)
        return len(topic.groups) if topic is not None else None


def coordinator_groups(catalogue: Catalogue) -> tuple[int, ...]:
    """The groups of all coordinator partitions. Raises Unavailable before this node knows them."""
    topic = catalogue.topic(COORDINATOR_TOPIC)
    if topic is None:
        raise Unavailable("this node does not know the cluster's catalogue yet; nothing was done; try again")
    return topic.groups


def coordinator_of(catalogue: Catalogue, subscription: str) -> int:
    """The group that a subscription's positions and consumer group are in. Raises Unavailable."""
    groups = coordinator_groups(catalogue)
    return groups[partition_for_key(subscription.encode("utf-8", "replace"), len(groups))]

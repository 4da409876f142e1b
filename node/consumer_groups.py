"""Consumer groups as gateways see them: topics by name, every call answered by a promise.

gateway ──> ConsumerGroups ──name to topic id──> Routes ──> the subscription's coordinator, wherever it is led
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from cluster.catalogue import Topic
from cluster.features import GROUPS_FEATURE
from cluster.group_membership import (
    MEMBER_TOPICS_MAX,
    SESSION_MS_MAX,
    SESSION_MS_MIN,
    Assigned,
)
from cluster.names import check_subscription_name
from node.coordinators import coordinator_groups, coordinator_of
from node.group_questions import GroupsOf, HeartbeatTo, JoinTo, LeaveFrom, MemberCommitTo
from node.metadata import Metadata
from node.questions import Question
from node.routes import Routes
from plait.wire.errors import (
    BadRequest,
    LimitReached,
    NotFound,
    PlaitError,
    SettingInvalid,
    Unavailable,
    WrongKind,
)
from replication.actor import Promise, rejected

T = TypeVar("T")
MEMBER_CHARACTERS_MAX = 100
"""Characters of a member's id."""
MEMBER_CLIENT_CHARACTERS_MAX = 200
"""Characters of the name of a member's client."""


@dataclass(frozen=True, slots=True)
class GroupAssignment:
    """What a member may read."""

    generation: int
    partitions: dict[str, list[int]]
    """By topic; both sorted."""


class ConsumerGroups:
    """The facade of groups; a part of Broker."""

    def __init__(
        self,
        metadata: Metadata,
        routes: Routes,
        soon: Callable[[str, Awaitable[Any]], Promise[Any]],
    ) -> None:
        """`soon`: carries out what has to wait, under a name."""
        self._metadata = metadata
        self._routes = routes
        self._soon = soon

    def join(
        self, group: str, member: str, client: str, topics: Sequence[str], session_ms: int
    ) -> Promise[GroupAssignment]:
        """Come into the group of a subscription, or come again, and read these topics.

        `member`: an id that the client has drawn, so that a join which is sent again makes no second member.
        `session_ms`: how long the member may be silent. Rejects with NotFound, WrongKind, NameInvalid,
        SettingInvalid, LimitReached, NotLeader.
        """
        return self._soon("join", self._join(group, member, client, topics, session_ms))

    def heartbeat(
        self, group: str, member: str, acknowledged: int, known: int, wait_ms: int
    ) -> Promise[GroupAssignment]:
        """What a member may read now; if it has `known` that generation, as soon as it changes or `wait_ms` is
        over.

        `acknowledged`: the last generation to whose partitions the member has confined itself. Rejects with
        StaleGeneration: it is no member (any more); NotLeader.
        """
        return self._named(self._ask(group, HeartbeatTo(group, member, acknowledged, known, wait_ms)))

    def leave(self, group: str, member: str) -> Promise[None]:
        """Go: what the member had is given to others at once. To leave twice is no error."""
        return self._ask(group, LeaveFrom(group, member))

    def commit(
        self, group: str, member: str, generation: int, name: str, positions: Sequence[tuple[int, int]]
    ) -> Promise[None]:
        """Store a member's positions in a topic, as it knows them in that generation.

        Rejects with StaleGeneration, having stored nothing, unless it has held all of these partitions since.
        """
        try:
            check_subscription_name(group)
            topic = self._find(name)
            for number, offset in positions:
                if not 0 <= number < len(topic.groups) or offset < 0:
                    raise NotFound(
                        f"{name} has no partition {number} or no offset {offset}; no position was stored"
                    )
        except PlaitError as error:
            return rejected(error)
        return self._ask(group, MemberCommitTo(group, member, generation, topic.topic_id, positions))

    def names(self) -> Promise[list[dict[str, Any]]]:
        """All groups that have members; only whoever leads the coordinators can say so."""
        return self._soon("groups", self._names())

    def describe(self, group: str) -> Promise[dict[str, Any]]:
        """A group: its members, who has what, and how far they are. Rejects with NotFound if it has no members."""
        return self._soon("group", self._describe(group))

    # inside

    async def _join(
        self, group: str, member: str, client: str, topics: Sequence[str], session_ms: int
    ) -> GroupAssignment:
        if self._metadata.catalogue.features < GROUPS_FEATURE:
            raise Unavailable(
                "not every node of the cluster knows consumer groups; nothing was done: upgrade the others"
            )
        check_subscription_name(group)
        _check_member(member, client, session_ms)
        if not 0 < len(topics) <= MEMBER_TOPICS_MAX:
            raise LimitReached(
                f"a member reads 1 to {MEMBER_TOPICS_MAX} topics, not {len(topics)}; it did not join"
            )
        if any(self._metadata.catalogue.topic(name) is None for name in topics):
            await self._metadata.confirm()
        found = [self._find(name) for name in topics]
        sizes = [(topic.topic_id, len(topic.groups)) for topic in found]
        question = JoinTo(group, member, client, sizes, session_ms)
        return self._with_names(await self._ask(group, question).wait())

    def _ask(self, group: str, question: Question[T]) -> Promise[T]:
        try:
            return self._routes.ask(coordinator_of(self._metadata.catalogue, group), question)
        except PlaitError as error:
            return rejected(error)

    def _find(self, name: str) -> Topic:
        topic = self._metadata.catalogue.topic(name)
        if topic is None or topic.internal:
            raise NotFound(f"there is no topic {name!r}; nothing was done: create it first")
        if topic.kind != "topic":
            raise WrongKind(f"{name} is a {topic.kind}; groups read topics; nothing was done")
        return topic

    def _named(self, assigned: Promise[Assigned]) -> Promise[GroupAssignment]:
        promise: Promise[GroupAssignment] = Promise()

        def done(assigned: Promise[Assigned]) -> None:
            if assigned.error is not None:
                promise.reject(assigned.error)
            else:
                promise.resolve(self._with_names(assigned.result()))

        assigned.then(done)
        return promise

    def _with_names(self, assigned: Assigned) -> GroupAssignment:
        """Topics that this node does not know of (they are gone, or it is behind) are left out."""
        partitions: dict[str, list[int]] = {}
        for topic_id, partition in assigned.partitions:
            topic = self._metadata.catalogue.topic_by_id(topic_id)
            if topic is not None:
                partitions.setdefault(topic.name, []).append(partition)
        return GroupAssignment(assigned.generation, dict(sorted(partitions.items())))

    async def _names(self) -> list[dict[str, Any]]:
        asked = [self._routes.ask(each, GroupsOf("")) for each in coordinator_groups(self._metadata.catalogue)]
        found = [row for each in asked for row in await each.wait()]
        for row in found:
            row["topics"] = sorted(name for topic in row["topics"] if (name := self._name_of(topic)))
        return sorted(found, key=lambda row: str(row["name"]))

    async def _describe(self, name: str) -> dict[str, Any]:
        check_subscription_name(name)
        found = await self._ask(name, GroupsOf(name)).wait()
        if not found:
            raise NotFound(f"subscription {name} has no group with members; nothing was done")
        topics = [
            {"name": self._name_of(topic), "partitions": partitions} for topic, partitions in found[0]["topics"]
        ]
        return {**found[0], "topics": sorted(topics, key=lambda topic: str(topic["name"]))}

    def _name_of(self, topic_id: int) -> str:
        """A topic's name; "" for one that this node does not know of."""
        topic = self._metadata.catalogue.topic_by_id(topic_id)
        return topic.name if topic is not None else ""


def _check_member(member: str, client: str, session_ms: int) -> None:
    if not 0 < len(member) <= MEMBER_CHARACTERS_MAX or not member.isprintable():
        raise BadRequest(f"a member's id has 1 to {MEMBER_CHARACTERS_MAX} printable characters; it did not join")
    if len(client) > MEMBER_CLIENT_CHARACTERS_MAX:
        raise BadRequest(f"a client's name has at most {MEMBER_CLIENT_CHARACTERS_MAX} characters; it did not join")
    if not SESSION_MS_MIN <= session_ms <= SESSION_MS_MAX:
        raise SettingInvalid(
            f"a session lasts from {SESSION_MS_MIN:,} to {SESSION_MS_MAX:,} ms, not {session_ms:,}; "
            "the member did not join"
        )

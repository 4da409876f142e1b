"""Consumer groups of one coordinator partition: who is in, who should have which partition, who holds it. Pure.

    join, leave, resize ──> targets: who should have what (group_assignment)
                                │
    a partition:   held by A, meant for A ──> held by A, meant for B ──A acknowledged, or is gone──> held by B
                   (A is told of it)          (nobody is told of it)                                 (B is told)

A group is the readers of one subscription. Rebalances are cooperative (as in KIP-429 and KIP-848): only what
moves is
taken away, and nobody gets a partition before its last holder has said that it let go of it, or is gone. So at no
time have two members been told of the same partition and not yet been told otherwise.

A member's *generation* is the number of the last change to what it is told. It acknowledges by generation, and it
commits by generation: a commit counts for partitions that the member has held since that generation or longer.
Time plays no part here: whoever leads decides that a session has ended, and says so with a command.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import cbor2

from cluster.group_assignment import Place, assign
from cluster.group_commands import AcknowledgeAssignment, CommitAsMember, JoinGroup, LeaveGroup, TopicGrew
from plait.wire.errors import LimitReached, StaleGeneration

GROUPS_MAX = 5_000
"""Consumer groups with members that one coordinator partition keeps."""
GROUP_MEMBERS_MAX = 250
"""Members of one consumer group."""
COORDINATED_MEMBERS_MAX = 20_000
"""Members of all consumer groups of one coordinator partition."""
MEMBER_TOPICS_MAX = 100
"""Topics that one member reads."""
GROUP_PARTITIONS_MAX = 10_000
"""Partitions of all topics of a consumer group together, when a member joins."""
COORDINATED_PARTITIONS_MAX = 500_000
"""Partitions of all consumer groups of one coordinator partition, when a member joins."""
SESSION_MS_MIN = 100
"""Shortest session of a member."""
SESSION_MS_MAX = 1_800_000
"""Longest session of a member."""

SNAPSHOT_FORMAT = 1
"""First element of a snapshot."""


@dataclass(frozen=True, slots=True)
class Assigned:
    """What a member is told: it may read these partitions."""

    generation: int
    partitions: tuple[Place, ...]
    """Sorted."""


@dataclass(slots=True)
class Member:
    """One reader of a group."""

    client: str
    topics: tuple[int, ...]
    session_ms: int
    joined_ms: int
    generation: int
    held: dict[Place, int] = field(default_factory=dict)
    """What nobody else may have, with the generation from which on."""


@dataclass(slots=True)
class Group:
    """The members of one subscription."""

    members: dict[str, Member] = field(default_factory=dict)
    partitions: dict[int, int] = field(default_factory=dict)
    """How many partitions each topic has that some member wants."""
    targets: dict[Place, str] = field(default_factory=dict)
    """Who should have what; never somebody who is no member."""
    holders: dict[Place, str] = field(default_factory=dict)
    """Who holds what: the members' `held`, turned round."""

    def told(self, place: Place) -> str | None:
        """The member that is told of a partition."""
        holder = self.holders.get(place)
        return holder if holder is not None and self.targets.get(place) == holder else None


Woken = list[tuple[str, str]]
"""(group, member) of those to whom something else is told now."""


class GroupMembership:
    """All groups of one coordinator partition. A group without members is not kept."""

    def __init__(self) -> None:
        self._groups: dict[str, Group] = {}
        self._members = 0
        self._partitions = 0
        self._generation = 0
        self.last_stamp_ms = 0
        """The largest stamp so far; never falls."""

    # commands

    def join(self, command: JoinGroup) -> tuple[Assigned, Woken]:
        """A member comes in. Raises LimitReached, having changed nothing."""
        self._check_join(command)
        group = self._groups.get(command.group)
        if group is None:
            group = self._groups[command.group] = Group()
        topics = tuple(sorted({topic for topic, _ in command.topics}))
        member = group.members.get(command.member)
        self._passed(command.stamp_ms)
        if member is None:
            member = group.members[command.member] = Member("", (), 0, self.last_stamp_ms, 0)
            self._members += 1
        member.client, member.topics, member.session_ms = command.client, topics, command.session_ms
        sizes = {topic: max(count, group.partitions.get(topic, 0)) for topic, count in command.topics}
        woken = self._rebalance(command.group, group, sizes, set() if member.generation else {command.member})
        return self._assigned(group, command.member), woken

    def leave(self, command: LeaveGroup) -> Woken:
        """A member is gone, and what it held is free. Somebody who is no member changes nothing."""
        group = self._groups.get(command.group)
        member = group.members.pop(command.member, None) if group is not None else None
        if group is None or member is None:
            return []
        self._passed(command.stamp_ms)
        self._members -= 1
        for place in member.held:
            del group.holders[place]
        woken = self._rebalance(command.group, group, {})
        if not group.members:
            del self._groups[command.group]
        return woken

    def acknowledge(self, command: AcknowledgeAssignment) -> Woken:
        """A member has let go of all that it was not told of; an acknowledgement of something older is void."""
        group = self._groups.get(command.group)
        member = group.members.get(command.member) if group is not None else None
        if group is None or member is None or member.generation != command.generation:
            return []
        self._passed(command.stamp_ms)
        freed = [place for place in member.held if group.targets.get(place) != command.member]
        for place in freed:
            del member.held[place], group.holders[place]
        return self._grant(command.group, group, set(), freed)

    def resize(self, command: TopicGrew) -> Woken:
        """A topic has more partitions now: they are shared out in every group that reads it."""
        self._passed(command.stamp_ms)
        woken: Woken = []
        for name, group in self._groups.items():
            if group.partitions.get(command.topic_id, command.partitions) < command.partitions:
                woken += self._rebalance(name, group, {command.topic_id: command.partitions})
        return woken

    def forget_topic(self, topic_id: int) -> Woken:
        """A topic is gone."""
        woken: Woken = []
        for name, group in self._groups.items():
            gone = [place for place in group.holders if place[0] == topic_id]
            if topic_id not in group.partitions and not gone:
                continue
            for member in group.members.values():
                member.topics = tuple(topic for topic in member.topics if topic != topic_id)
            told = {holder for place in gone if (holder := group.told(place)) is not None}
            for place in gone:
                del group.members[group.holders.pop(place)].held[place]
            woken += self._rebalance(name, group, {}, told)
        return woken

    # questions

    def check_commit(self, command: CommitAsMember, topic_id: int, partitions: Iterable[int]) -> None:
        """Raises StaleGeneration unless the member has held these partitions since what it knew."""
        group = self._groups.get(command.group)
        member = group.members.get(command.member) if group is not None else None
        if member is None:
            raise no_member(command.group, command.member)
        lost = [
            partition
            for partition in partitions
            if member.held.get((topic_id, partition), command.generation + 1) > command.generation
        ]
        if lost:
            raise StaleGeneration(
                f"{command.member} of group {command.group} does not hold the partitions {lost[:10]} (any more) "
                f"that it knew of in generation {command.generation}; nothing was committed: whoever holds them "
                "now reads on from what was committed before",
                partitions=lost[:100],
            )

    def check_single(self, subscription: str, topic_id: int) -> None:
        """Raises StaleGeneration if a group reads the topic: who is no member must not move its positions."""
        group = self._groups.get(subscription)
        if group is not None and topic_id in group.partitions:
            raise StaleGeneration(
                f"subscription {subscription} is read by a group of {len(group.members)}; nothing was committed: "
                "only its members can commit, so join it, or end them first"
            )

    def assigned(self, group: str, member: str) -> Assigned:
        """What a member is told now. Raises StaleGeneration for one that is no member."""
        found = self._groups.get(group)
        if found is None or member not in found.members:
            raise no_member(group, member)
        return self._assigned(found, member)

    def owes_acknowledgement(self, group: str, member: str) -> bool:
        """Whether the member holds something that is meant for somebody else."""
        found = self._groups.get(group)
        if found is None or member not in found.members:
            return False
        return any(found.targets.get(place) != member for place in found.members[member].held)

    @property
    def untouched(self) -> bool:
        """There never was a member."""
        return self._generation == 0

    def group(self, name: str) -> Group | None:
        """A group that has members."""
        return self._groups.get(name)

    def names(self) -> list[str]:
        """The groups that have members, sorted."""
        return sorted(self._groups)

    def sessions(self) -> list[tuple[str, str, int]]:
        """(group, member, session_ms) of all members."""
        return [
            (name, member, group.members[member].session_ms)
            for name, group in self._groups.items()
            for member in group.members
        ]

    def topics(self) -> dict[int, int]:
        """The topics of all groups, with the fewest partitions that some group knows of."""
        found: dict[int, int] = {}
        for group in self._groups.values():
            for topic, count in group.partitions.items():
                found[topic] = min(count, found.get(topic, count))
        return found

    # inside

    def _check_join(self, command: JoinGroup) -> None:
        group = self._groups.get(command.group, Group())
        new = command.member not in group.members
        known = sum(group.partitions.values())
        more = sum(max(0, count - group.partitions.get(topic, 0)) for topic, count in command.topics)
        for so_far, most, what in (
            (len(self._groups) + (command.group not in self._groups), GROUPS_MAX, "groups"),
            (len(group.members) + new, GROUP_MEMBERS_MAX, "members of a group"),
            (self._members + new, COORDINATED_MEMBERS_MAX, "members of the groups of one coordinator"),
            (len(command.topics), MEMBER_TOPICS_MAX, "topics of a member"),
            (known + more, GROUP_PARTITIONS_MAX, "partitions of a group"),
            (self._partitions + more, COORDINATED_PARTITIONS_MAX, "partitions of the groups of one coordinator"),
        ):
            if so_far > most:
                raise LimitReached(
                    f"{command.member} did not join {command.group}: there are at most {most:,} {what}", limit=most
                )

    def _passed(self, stamp_ms: int) -> None:
        self.last_stamp_ms = max(self.last_stamp_ms, stamp_ms)

    def _assigned(self, group: Group, member: str) -> Assigned:
        found = group.members[member]
        told = sorted(place for place in found.held if group.targets.get(place) == member)
        return Assigned(found.generation, tuple(told))

    def _rebalance(self, name: str, group: Group, sizes: dict[int, int], also: Iterable[str] = ()) -> Woken:
        """Decide anew who should have what, and give what is free. `also`: who is to be told whatever comes of
        it."""
        wanted = sorted({topic for member in group.members.values() for topic in member.topics})
        self._partitions -= sum(group.partitions.values())
        known = group.partitions | sizes
        group.partitions = {topic: known[topic] for topic in wanted}
        self._partitions += sum(group.partitions.values())
        told = {place: holder for place in group.holders if (holder := group.told(place)) is not None}
        members = {member: found.topics for member, found in group.members.items()}
        group.targets = assign(members, group.partitions, group.targets, group.holders)
        changed = {holder for place, holder in told.items() if group.told(place) != holder}
        changed |= {
            holder
            for place in group.holders
            if (holder := group.told(place)) is not None and told.get(place) != holder
        }
        changed.update(also)
        return self._grant(name, group, changed & group.members.keys(), group.targets)

    def _grant(self, name: str, group: Group, changed: set[str], places: Iterable[Place]) -> Woken:
        """Give those of these places that nobody holds to whom they are meant for; count the change."""
        free = [place for place in places if place not in group.holders and place in group.targets]
        if not changed and not free:
            return []
        self._generation += 1
        for place in free:
            taker = group.holders[place] = group.targets[place]
            group.members[taker].held[place] = self._generation
            changed.add(taker)
        for member in changed:
            group.members[member].generation = self._generation
        return [(name, member) for member in sorted(changed)]

    # snapshots

    def snapshot(self) -> bytes:
        """The state; equal states give equal bytes."""
        groups = []
        for name in sorted(self._groups):
            group = self._groups[name]
            numbers = {member: number for number, member in enumerate(sorted(group.members))}
            members = [
                [
                    member,
                    found.client,
                    found.topics,
                    found.session_ms,
                    found.joined_ms,
                    found.generation,
                    [number for place in sorted(found.held) for number in (*place, found.held[place])],
                ]
                for member, found in sorted(group.members.items())
            ]
            targets = [
                number for place in sorted(group.targets) for number in (*place, numbers[group.targets[place]])
            ]
            groups.append([name, sorted(group.partitions.items()), members, targets])
        return cbor2.dumps([SNAPSHOT_FORMAT, self._generation, self.last_stamp_ms, groups])

    def restore(self, state: bytes) -> None:
        """Become the state of a snapshot. Raises ValueError for a format of a newer version."""
        form, *rest = cbor2.loads(state)
        if form != SNAPSHOT_FORMAT:
            raise ValueError(f"consumer groups of format {form}; this version reads {SNAPSHOT_FORMAT}")
        self._generation, self.last_stamp_ms, groups = rest
        self._groups = {}
        for name, partitions, members, targets in groups:
            group = self._groups[name] = Group(partitions=dict(partitions))
            for member, client, topics, session_ms, joined_ms, generation, held in members:
                found = Member(client, tuple(topics), session_ms, joined_ms, generation, _places(held))
                group.members[member] = found
                group.holders |= dict.fromkeys(found.held, member)
            names = [row[0] for row in members]
            group.targets = {place: names[number] for place, number in _places(targets).items()}
        self._members = sum(len(group.members) for group in self._groups.values())
        self._partitions = sum(sum(group.partitions.values()) for group in self._groups.values())


def no_member(group: str, member: str) -> StaleGeneration:
    """The answer to somebody who is in no such group."""
    return StaleGeneration(
        f"{member} is no member of group {group} (any more), so others may have its partitions; nothing was done: "
        "join again"
    )


def _places(flat: list[int]) -> dict[Place, int]:
    """Triples (topic, partition, number), one behind the other."""
    return {
        (topic, partition): number
        for topic, partition, number in zip(flat[::3], flat[1::3], flat[2::3], strict=True)
    }

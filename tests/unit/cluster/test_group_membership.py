"""Consumer groups: nobody is told of a partition that another has not let go of, and in the end all are given.

The machine of hypothesis plays the members as clients are: each knows what it was told, lets go of what it is
not told any more when it pleases, and then says so. The slow model knows only what the members know.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cluster import group_membership
from cluster.commands import CommandUnknown
from cluster.group_assignment import Place
from cluster.group_commands import (
    AcknowledgeAssignment,
    CommitAsMember,
    GroupCommand,
    JoinGroup,
    LeaveGroup,
    TopicGrew,
    decode_group_command,
    encode_group_command,
)
from cluster.group_membership import Assigned, GroupMembership
from plait.wire.errors import LimitReached, StaleGeneration

G = "billing"
NAMES = ["ann", "ben", "cat", "dan"]
BOTH = ((1, 5), (2, 2))


def join(machine: GroupMembership, member: str, topics: tuple[tuple[int, int], ...] = ((1, 4),)) -> Assigned:
    return machine.join(JoinGroup(G, member, "test", topics, 1_000, 1))[0]


def partitions(assigned: Assigned) -> list[int]:
    return [partition for _, partition in assigned.partitions]


def acknowledge(machine: GroupMembership, member: str) -> list[tuple[str, str]]:
    return machine.acknowledge(AcknowledgeAssignment(G, member, machine.assigned(G, member).generation, 1))


def test_the_first_member_has_all_and_shares_with_the_second_once_it_has_let_go() -> None:
    machine = GroupMembership()
    assert partitions(join(machine, "ann")) == [0, 1, 2, 3]
    assert partitions(join(machine, "ben")) == []
    assert machine.owes_acknowledgement(G, "ann")
    kept = partitions(machine.assigned(G, "ann"))
    assert len(kept) == 2
    assert acknowledge(machine, "ann") == [(G, "ben")]
    assert sorted(kept + partitions(machine.assigned(G, "ben"))) == [0, 1, 2, 3]
    assert not machine.owes_acknowledgement(G, "ann")


def test_what_a_member_held_that_is_gone_is_given_at_once() -> None:
    machine = GroupMembership()
    join(machine, "ann")
    join(machine, "ben")
    assert machine.leave(LeaveGroup(G, "ann", True, 1)) == [(G, "ben")]
    assert partitions(machine.assigned(G, "ben")) == [0, 1, 2, 3]
    machine.leave(LeaveGroup(G, "ben", False, 1))
    assert machine.names() == []
    assert machine.leave(LeaveGroup(G, "ben", False, 1)) == []


def test_joining_again_changes_nothing() -> None:
    machine = GroupMembership()
    first = join(machine, "ann")
    assert join(machine, "ann") == first


def test_an_older_acknowledgement_is_void() -> None:
    machine = GroupMembership()
    first = join(machine, "ann")
    join(machine, "ben")
    assert machine.acknowledge(AcknowledgeAssignment(G, "ann", first.generation, 1)) == []
    assert partitions(machine.assigned(G, "ben")) == []


def test_a_commit_counts_for_what_is_held_since_then() -> None:
    machine = GroupMembership()
    first = join(machine, "ann")
    commit = CommitAsMember(G, "ann", first.generation, b"")
    join(machine, "ben")
    moving = next(n for n in range(4) if n not in partitions(machine.assigned(G, "ann")))
    machine.check_commit(commit, 1, [0, 1, 2, 3])  # not acknowledged: it is still the one who holds it
    acknowledge(machine, "ann")
    with pytest.raises(StaleGeneration) as refused:
        machine.check_commit(commit, 1, [0, 1, 2, 3])
    assert moving in refused.value.details["partitions"]
    machine.leave(LeaveGroup(G, "ben", False, 1))
    assert moving in partitions(machine.assigned(G, "ann"))
    with pytest.raises(StaleGeneration):  # it has it again, but this commit is of the time before
        machine.check_commit(commit, 1, [moving])
    with pytest.raises(StaleGeneration):
        machine.check_commit(CommitAsMember(G, "eve", 99, b""), 1, [0])


def test_whoever_is_no_member_cannot_commit_while_there_are_some() -> None:
    machine = GroupMembership()
    machine.check_single(G, 1)
    join(machine, "ann")
    with pytest.raises(StaleGeneration):
        machine.check_single(G, 1)
    machine.check_single(G, 2)


def test_new_partitions_are_shared_out_and_a_topic_that_is_gone_leaves() -> None:
    machine = GroupMembership()
    join(machine, "ann", BOTH)
    join(machine, "ben", BOTH)
    acknowledge(machine, "ann")
    assert {member for _, member in machine.resize(TopicGrew(1, 9, 1))} == {"ann", "ben"}
    told = [machine.assigned(G, member).partitions for member in ("ann", "ben")]
    assert sorted(len(each) for each in told) == [5, 6]
    machine.forget_topic(1)
    left = [place for member in ("ann", "ben") for place in machine.assigned(G, member).partitions]
    assert {place for place in left if place[0] == 1} == set()
    assert machine.resize(TopicGrew(1, 12, 1)) == []
    assert machine.topics() == {2: 2}


def test_members_and_groups_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = GroupMembership()
    monkeypatch.setattr(group_membership, "GROUP_MEMBERS_MAX", 2)
    monkeypatch.setattr(group_membership, "GROUPS_MAX", 1)
    monkeypatch.setattr(group_membership, "GROUP_PARTITIONS_MAX", 6)
    join(machine, "ann")
    join(machine, "ben")
    before = machine.snapshot()
    for command in (
        JoinGroup(G, "cat", "", ((1, 4),), 1_000, 2),
        JoinGroup("other", "cat", "", ((1, 4),), 1_000, 2),
        JoinGroup(G, "ann", "", ((1, 4), (2, 3)), 1_000, 2),
    ):
        with pytest.raises(LimitReached):
            machine.join(command)
    assert machine.snapshot() == before


@pytest.mark.parametrize(
    "command",
    [
        JoinGroup(G, "ann", "größe", BOTH, 1_000, 5),
        LeaveGroup(G, "ann", True, 5),
        AcknowledgeAssignment(G, "ann", 7, 5),
        TopicGrew(3, 4, 5),
        CommitAsMember(G, "ann", 7, b"\x01commit"),
    ],
)
def test_a_command_comes_out_of_the_log_as_it_went_in(command: GroupCommand) -> None:
    assert decode_group_command(encode_group_command(command)) == command


@pytest.mark.parametrize("payload", [b"\x08", b"\x08\x81\x09", b"\x08\x82\x01\x01", b"\x08\xff"])
def test_an_unknown_command_is_not_skipped(payload: bytes) -> None:
    with pytest.raises(CommandUnknown):
        decode_group_command(payload)


@dataclass
class Client:
    """A member as it sees itself."""

    knows: Assigned
    reads: set[Place]
    """What it works on: what it was told, and what it has not let go of yet."""
    acknowledged: list[int] = field(default_factory=list)
    """Acknowledgements that were sent; they may arrive at any time, and again."""


class Groups(RuleBasedStateMachine):
    """One group; `machine` lives through everything, a copy is restored at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = GroupMembership()
        self.clients: dict[str, Client] = {}
        self.topics = {1: 4, 2: 3}
        self.stamp = 0

    def time(self) -> int:
        self.stamp += 1
        return self.stamp

    @rule(member=st.sampled_from(NAMES), wants=st.sampled_from([(1,), (1, 2), (1, 2)]))
    def joins(self, member: str, wants: tuple[int, ...]) -> None:
        topics = tuple((topic, self.topics[topic]) for topic in wants if topic in self.topics)
        told, _ = self.machine.join(JoinGroup(G, member, "", topics, 1_000, self.time()))
        client = self.clients.setdefault(member, Client(told, set()))
        client.knows = told
        client.reads |= set(told.partitions)

    @rule(member=st.sampled_from(NAMES), expired=st.booleans())
    def goes(self, member: str, expired: bool) -> None:
        self.clients.pop(member, None)  # whose session ends knows it before it is over
        self.machine.leave(LeaveGroup(G, member, expired, self.time()))

    @rule(member=st.sampled_from(NAMES))
    def hears(self, member: str) -> None:
        if (client := self.clients.get(member)) is not None:
            client.knows = self.machine.assigned(G, member)
            client.reads |= set(client.knows.partitions)

    @rule(member=st.sampled_from(NAMES))
    def lets_go(self, member: str) -> None:
        if (client := self.clients.get(member)) is not None:
            client.reads = set(client.knows.partitions)
            client.acknowledged.append(client.knows.generation)

    @rule(member=st.sampled_from(NAMES), which=st.integers(0, 5))
    def acknowledgement_arrives(self, member: str, which: int) -> None:
        client = self.clients.get(member)
        if client is not None and client.acknowledged:
            generation = client.acknowledged[-1 - which % len(client.acknowledged)]
            self.machine.acknowledge(AcknowledgeAssignment(G, member, generation, self.time()))

    @rule(topic=st.integers(1, 2), more=st.integers(1, 2))
    def grows(self, topic: int, more: int) -> None:
        if topic in self.topics:
            self.topics[topic] += more
            self.machine.resize(TopicGrew(topic, self.topics[topic], self.time()))

    @precondition(lambda self: 2 in self.topics and len(self.clients) > 2)
    @rule()
    def topic_goes(self) -> None:
        del self.topics[2]
        self.machine.forget_topic(2)
        for client in self.clients.values():
            client.reads = {place for place in client.reads if place[0] != 2}
            client.knows = Assigned(
                client.knows.generation, tuple(place for place in client.knows.partitions if place[0] != 2)
            )

    @rule()
    def calms_down(self) -> None:
        """When nothing comes or goes, and everyone does what it should, all is given, and evenly."""
        for _ in range(3):
            for member in list(self.clients):
                self.hears(member)
                self.lets_go(member)
                self.acknowledgement_arrives(member, 0)
        for member in self.clients:
            self.hears(member)
            assert not self.machine.owes_acknowledgement(G, member)
        given = sorted(place for client in self.clients.values() for place in client.reads)
        group = self.machine.group(G)
        wanted = group.partitions if group is not None else {}
        assert given == sorted((topic, number) for topic in wanted for number in range(wanted[topic]))
        if group is not None and len({found.topics for found in group.members.values()}) == 1:
            counts = [len(client.reads) for client in self.clients.values()]
            assert max(counts) - min(counts) <= 1

    @invariant()
    def no_two_have_the_same(self) -> None:
        everything = [place for client in self.clients.values() for place in client.reads]
        assert len(everything) == len(set(everything))

    @invariant()
    def what_is_read_can_be_committed(self) -> None:
        for member, client in self.clients.items():
            for topic, partition in set(client.knows.partitions) & client.reads:
                commit = CommitAsMember(G, member, client.knows.generation, b"")
                self.machine.check_commit(commit, topic, [partition])

    @invariant()
    def a_snapshot_is_the_whole_of_it(self) -> None:
        reborn = GroupMembership()
        reborn.restore(self.machine.snapshot())
        assert reborn.snapshot() == self.machine.snapshot()
        assert reborn.names() == self.machine.names()
        self.machine = reborn


TestGroups = Groups.TestCase
TestGroups.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)

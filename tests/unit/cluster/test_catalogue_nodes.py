"""The catalogue's nodes and replicas: joining, leaving, moving, and who is told no."""

from __future__ import annotations

import pytest

from cluster import catalogue as c
from cluster.commands import (
    AddNode,
    Bootstrap,
    ChangeNode,
    Command,
    CreateTopic,
    Declare,
    DeleteTopic,
    Reassign,
    RegisterNode,
    RemoveNode,
    ResizeTopic,
    WentOver,
    decode_command,
    encode_command,
)
from plait.wire import errors
from tests.unit.cluster.test_catalogue import House


@pytest.fixture
def house() -> House:
    house = House(founded=False)
    house.do(Bootstrap("here", 1, {1: 11, 2: 22, 3: 33}))
    for node in (1, 2, 3):
        house.do(RegisterNode(node, f"n{node}", 2, 1, f"n{node}:1", f"n{node}:2", "", 1))
    return house


def add(disk: int, stamp_ms: int = 5) -> AddNode:
    return AddNode(disk, "new", "new:2", "new:1", "rack", 1, stamp_ms)


def wanted(house: House, group: int) -> list[int]:
    assignment = house.catalogue.assignment(group)
    assert assignment is not None
    return sorted(assignment.nodes)


def test_the_founders_are_there_and_have_the_catalogue(house):
    assert [(node.node_id, node.disk) for node in house.catalogue.nodes()] == [(1, 11), (2, 22), (3, 33)]
    assignment = house.catalogue.assignment(c.METADATA_GROUP)
    assert (assignment.voters, assignment.settled) == ({1: 1, 2: 2, 3: 3}, True)
    assert wanted(house, 1) == [1, 2, 3]


def test_a_disk_is_given_one_id_however_often_it_asks(house):
    first = house.value(add(44))
    assert (first.node_id, first.incarnation, first.peer, first.rack) == (4, 0, "new:2", "rack")
    again = house.do(add(44))
    assert (again.value, again.changed) == (first, False)
    assert house.value(add(55)).node_id == 5
    assert house.catalogue.node_of_disk(44) == first
    assignment = house.catalogue.assignment(c.METADATA_GROUP)
    assert assignment.learners == {4: 4, 5: 5}


def test_a_disk_without_a_number_is_no_node(house):
    house.refused(add(0), errors.BadRequest)


def test_a_removed_node_never_comes_back(house):
    house.value(add(44))
    house.value(ChangeNode(4, "leaving", 6))
    house.refused(RemoveNode(4, 7), errors.Unavailable)
    assignment = house.catalogue.assignment(c.METADATA_GROUP)
    places = [[each.node, int(each.votes)] for each in assignment.wanted if each.node != 4]
    house.value(Reassign(c.METADATA_GROUP, assignment.epoch, places, [], 8))
    house.refused(RemoveNode(4, 9), errors.Unavailable)  # it is still on its way out
    house.value(WentOver(c.METADATA_GROUP, assignment.epoch + 1, 10))
    house.value(RemoveNode(4, 11))
    assert house.catalogue.node_was_removed(4)
    error = house.refused(RegisterNode(4, "n4", 12), errors.AlreadyExists)
    assert "--join" in error.message
    assert house.value(add(44)).node_id == 5


def test_a_node_that_serves_is_not_removed(house):
    house.refused(RemoveNode(1, 5), errors.Unavailable)
    house.refused(RemoveNode(9, 5), errors.NotFound)
    house.refused(ChangeNode(1, "asleep", 5), errors.BadRequest)


def test_the_last_node_that_serves_cannot_be_drained(house):
    house.value(ChangeNode(1, "draining", 5))
    house.value(ChangeNode(2, "leaving", 5))
    house.refused(ChangeNode(3, "draining", 5), errors.Unavailable)
    house.value(ChangeNode(1, "active", 6))
    house.value(ChangeNode(3, "draining", 7))


def test_new_replicas_go_to_nodes_that_serve_and_are_up(house):
    house.value(add(44))
    house.value(ChangeNode(1, "draining", 5))
    topic = house.value(CreateTopic("queue", "q", {}, 6))
    assert wanted(house, topic.groups[0]) == [2, 3, 4]
    house.value(ChangeNode(1, "active", 7))
    topic = house.value(CreateTopic("queue", "r", {}, 8, [3]))
    assert wanted(house, topic.groups[0]) == [1, 2, 4]
    topic = house.value(CreateTopic("queue", "s", {}, 8, [3, 4]))  # too few are up
    assert len(wanted(house, topic.groups[0])) == 3


def test_an_assignment_is_changed_only_from_what_it_is(house):
    group = house.value(CreateTopic("queue", "q", {}, 6)).groups[0]
    house.value(add(44))
    first = house.catalogue.assignment(group)
    house.value(Reassign(group, 1, [[1, 1], [2, 1], [4, 1]], [], 7))
    house.refused(Reassign(group, 1, [[1, 1], [2, 1], [3, 1]], [], 8), errors.Unavailable)
    house.refused(WentOver(group, 1, 8), errors.Unavailable)
    house.refused(Reassign(99, 1, [[1, 1]], [], 8), errors.NotFound)
    house.refused(Reassign(group, 2, [[1, 0]], [], 8), errors.BadRequest)
    house.refused(Reassign(group, 2, [[1, 1], [1, 1]], [], 8), errors.BadRequest)
    house.refused(Reassign(group, 2, [[9, 1]], [], 8), errors.NotFound)
    assert list(house.catalogue.assignments.unsettled) == [c.METADATA_GROUP, group]
    moved = first.replica_on(3).replica
    assert not house.catalogue.replica_is_gone(group, moved)
    house.value(WentOver(group, 2, 9))
    assert list(house.catalogue.assignments.unsettled) == [c.METADATA_GROUP]
    assert house.catalogue.replica_is_gone(group, moved)
    assert not house.catalogue.replica_is_gone(group, 9)  # that one was never given out


def test_replicas_of_deleted_topics_are_gone(house):
    group = house.value(CreateTopic("queue", "q", {}, 6)).groups[0]
    assert not house.catalogue.replica_is_gone(group, 1)
    house.value(DeleteTopic("q", 0, 7))
    assert house.catalogue.replica_is_gone(group, 1)
    assert house.catalogue.assignment(group) is None
    assert house.catalogue.assignments.replicas_on(1) == 2  # the catalogue's, and the coordinator's


def test_partitions_are_added_and_never_taken_away(house):
    first = house.value(CreateTopic("topic", "t", {"partitions": 2}, 6))
    second = house.value(ResizeTopic("t", 4, 0, 7))
    assert second.groups[:2] == first.groups
    assert (len(second.groups), second.settings.partitions) == (4, 4)
    assert house.catalogue.topic("t") is second
    house.refused(ResizeTopic("t", 3, 0, 8), errors.SettingInvalid)
    assert house.value(ResizeTopic("t", 0, 1, 8)).settings.replicas == 1
    house.refused(ResizeTopic("none", 3, 0, 8), errors.NotFound)
    house.refused(ResizeTopic(c.COORDINATOR_TOPIC, 3, 0, 8), errors.NotFound)
    again = house.do(ResizeTopic("t", 4, 1, 9))
    assert not again.changed


def test_the_dead_are_declared_in_the_incarnation_that_was_silent(house):
    assert house.value(Declare(2, 1, True, 5)).dead
    house.do(RegisterNode(2, "n2", 6, 2, "n2:1", "n2:2", "", 1))
    assert not house.catalogue.node(2).dead
    assert not house.value(Declare(2, 1, True, 7)).dead
    house.refused(Declare(9, 1, True, 7), errors.NotFound)


def test_the_cluster_knows_what_all_its_nodes_know(house):
    assert house.catalogue.features == 1
    house.value(add(44))
    assert house.catalogue.features == 1
    house.value(RegisterNode(4, "old", 6, 1, "", "", "", 0))
    assert house.catalogue.features == 0


COMMANDS: list[Command] = [
    Bootstrap("c", 1, {1: 2, 3: 4}),
    add(7),
    RegisterNode(1, "n", 2, 3, "n:1", "n:2", "r", 4),
    CreateTopic("queue", "q", {"replicas": 2}, 3, [1, 2]),
    ChangeNode(1, "draining", 2),
    RemoveNode(1, 2),
    ResizeTopic("t", 3, 2, 1, [4]),
    Reassign(1, 2, [[1, 1], [2, 0]], [2], 3),
    WentOver(1, 2, 3),
    Declare(1, 2, True, 3),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_survive_their_encoding(command):
    assert decode_command(encode_command(command)) == command


def test_a_restored_catalogue_has_the_same_nodes_and_replicas(house):
    house.value(add(44))
    group = house.value(CreateTopic("queue", "q", {}, 6)).groups[0]
    house.value(Reassign(group, 1, [[1, 1], [2, 1], [4, 1]], [], 7))
    house.value(ChangeNode(4, "leaving", 8))
    other = c.Catalogue()
    other.restore(house.catalogue.snapshot())
    assert other.snapshot() == house.catalogue.snapshot()
    assert other.nodes() == house.catalogue.nodes()
    assert dict(other.assignments.items()) == dict(house.catalogue.assignments.items())
    assert list(other.assignments.unsettled) == [c.METADATA_GROUP, group]
    for node in (1, 2, 3, 4):
        assert other.assignments.replicas_on(node) == house.catalogue.assignments.replicas_on(node)

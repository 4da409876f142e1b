"""The checker of placement at rest sees what is wrong, on its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from cluster.catalogue import COORDINATOR_TOPIC, METADATA_GROUP, Catalogue
from cluster.commands import Bootstrap, ChangeNode, Command, CreateTopic, Declare, Reassign, RegisterNode, WentOver
from replication.raft.membership import Membership
from tests.sim.cluster.brokers.placing import Standing, unrest
from tests.unit.cluster.test_catalogue import House


@dataclass
class Scene:
    """Four nodes, a coordinator, and a topic of two partitions; everything is as it should be."""

    house: House = field(default_factory=lambda: House(founded=False))
    leaders: dict[int, Standing] = field(default_factory=dict)
    disks: dict[int, list[tuple[int, int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.do(Bootstrap("here", 1, {node: node for node in (1, 2, 3, 4)}, 1))
        for node in (1, 2, 3, 4):
            self.do(RegisterNode(node, f"n{node}", 2, 1, f"n{node}:1", f"n{node}:2", "", 1))
        self.do(CreateTopic("topic", "events", {"partitions": 3}, 3))
        for group, assignment in self.catalogue.assignments.items():
            members = Membership(assignment.voters, assignment.learners)
            self.leaders[group] = Standing(assignment.preferred, members, certain=True)
            for each in assignment.wanted:
                self.disks.setdefault(each.node, []).append((group, 0))

    @property
    def catalogue(self) -> Catalogue:
        return self.house.catalogue

    def do(self, command: Command) -> Any:
        return self.house.value(command)

    def partition(self) -> int:
        topic = self.catalogue.topic("events")
        assert topic is not None
        return topic.groups[0]

    def move(self, places: Iterable[tuple[int, int]], *, settled: bool = True) -> int:
        """The first partition is to be there, and is."""
        group = self.partition()
        assignment = self.catalogue.assignment(group)
        assert assignment is not None
        self.do(Reassign(group, assignment.epoch, [list(place) for place in places], [], 4))
        if settled:
            self.do(WentOver(group, assignment.epoch + 1, 5))
        return group

    def said(self) -> str:
        return "; ".join(unrest(self.catalogue, self.leaders, self.disks, racks=False))


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_nothing_is_said_of_what_is_at_rest(scene: Scene) -> None:
    assert scene.said() == ""
    assert scene.catalogue.topic(COORDINATOR_TOPIC) is not None


def test_nodes_that_are_not_what_they_should_be(scene: Scene) -> None:
    scene.do(ChangeNode(2, "leaving", 4))
    scene.do(Declare(3, 1, True, 5))
    del scene.disks[4]
    said = scene.said()
    assert "node 2 has not left" in said
    assert "node 3 counts as dead" in said
    assert "node 4 is not up" in said


def test_a_group_on_its_way(scene: Scene) -> None:
    group = scene.move([(1, 1), (2, 1), (4, 1)], settled=False)
    assert f"group {group} is on its way" in scene.said()


@pytest.mark.parametrize(
    ("places", "says"),
    [
        ([(1, 1), (2, 1)], "has 2 replicas of 3"),
        ([(1, 1), (2, 1), (3, 0)], "has 2 voters of 3 replicas"),
        ([(1, 1), (2, 1), (3, 1), (4, 1)], "has 4 replicas of 3"),
    ],
)
def test_a_group_with_other_replicas_than_wanted(scene: Scene, places: list[tuple[int, int]], says: str) -> None:
    scene.move(places)
    assert says in scene.said()


def test_a_group_that_says_other_members_than_the_catalogue(scene: Scene) -> None:
    group = scene.partition()
    led = scene.leaders[group]
    scene.leaders[group] = replace(led, certain=False)
    assert f"group {group} is in a joint step" in scene.said()
    scene.leaders[group] = replace(led, members=Membership({1: 1}))
    assert f"group {group} has the members" in scene.said()
    scene.leaders[group] = replace(led, node=led.node % 4 + 1)
    assert f"group {group} is led by node" in scene.said()
    del scene.leaders[group]
    assert scene.said() == f"nobody leads group {group}"


def test_what_is_left_on_a_disk(scene: Scene) -> None:
    scene.disks[1].append((scene.partition(), 9))
    scene.disks[2].append((77, 0))
    said = scene.said()
    assert f"node 1 has what is left of replica 9 of group {scene.partition()}" in said
    assert "node 2 has what is left of replica 0 of group 77" in said


def test_a_drained_node_that_keeps_what_others_could_have(scene: Scene) -> None:
    group = scene.move([(1, 1), (2, 1), (3, 1)])
    scene.do(ChangeNode(1, "draining", 6))
    said = scene.said()
    assert f"group {group} is still on [1]" in said
    assert f"group {group} is to be led by node 1, which is not to lead" in said


def test_leaders_and_replicas_that_could_be_more_even(scene: Scene) -> None:
    for group in [group for group, _ in scene.catalogue.assignments.items() if group != METADATA_GROUP]:
        assignment = scene.catalogue.assignment(group)
        assert assignment is not None
        scene.do(Reassign(group, assignment.epoch, [[1, 1], [2, 1], [3, 1]], [], 4))
        scene.do(WentOver(group, assignment.epoch + 1, 5))
    said = scene.said()
    assert "could be on [4]" in said
    assert "is to be led by node 1: {1: 4}" in said

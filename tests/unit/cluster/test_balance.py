"""What moves when nodes come, go, die: decisions taken one after the other until nothing is better."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.assignment import Assignment, Place, founded, metadata_founded
from cluster.assignments import Assignments
from cluster.balance import UNEVEN, Fleet, improved, metadata_places
from cluster.nodes import Node
from cluster.placement import place, shape


def node(number: int, state: str = "active", *, dead: bool = False, rack: str = "") -> Node:
    return Node(number, f"node-{number}", 1, 0, rack=rack, state=state, dead=dead)  # type: ignore[arg-type]


class World:
    """Groups on nodes; a group that is assigned anew goes over at once."""

    def __init__(self, nodes: list[Node], up: list[int] | None = None) -> None:
        self.nodes = nodes
        self.up = up if up is not None else [each.node_id for each in nodes if not each.dead]
        self.assignments = Assignments()
        self.wanted: dict[int, int | None] = {}
        self.moves = 0

    def fleet(self) -> Fleet:
        return Fleet(self.nodes, self.assignments.sites(self.nodes), self.up)

    def create(self, count: int, wanted: int | None = None) -> None:
        able = [each for each in self.nodes if each.state == "active" and each.node_id in self.up]
        for _ in range(count):
            group = len(self.wanted) + 1
            self.assignments.keep(group, founded(place(wanted, self.assignments.sites(able))))
            self.wanted[group] = wanted

    def settle(self, rounds: int = 30) -> None:
        """Until nothing is better."""
        for _ in range(rounds):
            fleet, changed = self.fleet(), 0
            for group, wanted in self.wanted.items():
                assignment = self.get(group)
                better = improved(assignment, wanted, fleet)
                if better is not None:
                    changed += 1
                    self.assignments.keep(group, assignment.reassigned(better).went_over())
            self.moves += changed
            if not changed:
                return
        raise AssertionError("it never comes to rest")

    def get(self, group: int) -> Assignment:
        found = self.assignments.get(group)
        assert found is not None
        return found

    def loads(self) -> dict[int, int]:
        return {site.node: site.replicas for site in self.assignments.sites(self.nodes)}


def test_what_is_well_placed_stays():
    world = World([node(number) for number in (1, 2, 3, 4)])
    world.create(10)
    world.settle()
    assert world.moves == 0


def test_one_node_two_three():
    world = World([node(1)])
    world.create(1)
    world.nodes.append(node(2))
    assert improved(world.get(1), None, world.fleet()) is None  # it is not up
    world.up = [1, 2]
    world.settle()
    assert world.get(1).places == ((1, True), (2, False))
    world.nodes.append(node(3))
    world.settle()
    assert world.get(1).places == ((1, True), (2, False))
    world.up = [1, 2, 3]
    world.settle()
    assert set(world.get(1).nodes) == {1, 2, 3}
    assert len(world.get(1).voters) == 3


def test_a_new_node_gets_its_share_of_replicas_and_of_leaders():
    world = World([node(number) for number in (1, 2, 3)])
    world.create(12)
    world.nodes.append(node(4))
    world.up.append(4)
    world.settle()
    assert world.loads() == {1: 9, 2: 9, 3: 9, 4: 9}
    led = [world.get(group).preferred for group in world.wanted]
    assert max(led.count(each) for each in (1, 2, 3, 4)) - min(led.count(each) for each in (1, 2, 3, 4)) <= UNEVEN
    assert world.moves <= 15


def test_a_dead_node_is_replaced_where_there_is_another_and_kept_where_there_is_none():
    world = World([node(1), node(2), node(3)])
    world.create(4)
    world.nodes[1] = node(2, dead=True)
    world.up = [1, 3]
    world.settle()
    assert all(2 in world.get(group).nodes for group in world.wanted)
    assert all(world.get(group).preferred != 2 for group in world.wanted)
    world.nodes.append(node(4))
    world.up = [1, 3, 4]
    world.settle()
    assert all(sorted(world.get(group).nodes) == [1, 3, 4] for group in world.wanted)


def test_a_draining_node_gives_away_what_others_can_take_and_leads_nothing():
    world = World([node(1), node(2), node(3)])
    world.create(4)
    world.nodes[0] = node(1, "draining")
    world.settle()
    assert all(1 in world.get(group).nodes for group in world.wanted)
    assert all(world.get(group).preferred != 1 for group in world.wanted)
    world.nodes.append(node(4))
    world.up.append(4)
    world.settle()
    assert world.loads()[1] == 0


def test_a_leaving_node_goes_even_if_there_are_fewer_replicas_then():
    world = World([node(1), node(2), node(3)])
    world.create(4)
    world.nodes[0] = node(1, "leaving")
    world.settle()
    assert all(sorted(world.get(group).nodes) == [2, 3] for group in world.wanted)
    assert all(len(world.get(group).voters) == 1 for group in world.wanted)


def test_racks_are_kept_apart():
    world = World([node(1, rack="a"), node(2, rack="b"), node(3, rack="c"), node(4, rack="a")])
    world.create(6)
    world.settle()
    world.nodes[1] = node(2, rack="b", dead=True)
    world.nodes.append(node(5, rack="b"))
    world.up = [1, 3, 4, 5]
    world.settle()
    racks = {1: "a", 2: "b", 3: "c", 4: "a", 5: "b"}
    assert all({racks[each] for each in world.get(group).nodes} == {"a", "b", "c"} for group in world.wanted)


def metadata(world: World, assignment: Assignment) -> Assignment:
    better = metadata_places(assignment, world.fleet())
    return assignment if better is None else assignment.reassigned(better, numbered=True).went_over()


def test_every_node_learns_the_catalogue_and_some_vote():
    world = World([node(number) for number in range(1, 8)])
    assignment = metadata_founded({number: number == 1 for number in range(1, 8)})
    assignment = metadata(world, assignment)
    assert len(assignment.voters) == 5
    assert len(assignment.learners) == 2
    voter = min(assignment.voters)
    world.nodes[voter - 1] = node(voter, dead=True)
    world.up.remove(voter)
    assignment = metadata(world, assignment)
    assert len(assignment.voters) == 5
    assert voter in assignment.learners


def test_a_voter_that_is_dead_stays_one_where_nobody_can_take_its_place():
    world = World([node(1), node(2), node(3, dead=True)])
    assignment = metadata_founded({1: True, 2: True, 3: True})
    assert metadata_places(assignment, world.fleet()) is None


def test_a_leaving_node_keeps_the_catalogue_until_it_has_nothing_else():
    world = World([node(1), node(2), node(3), node(4, "leaving")])
    catalogue = metadata_founded({1: True, 2: True, 3: True, 4: False})
    world.assignments.keep(0, catalogue)
    world.assignments.keep(9, founded([Place(4, True)]))
    assert metadata_places(catalogue, world.fleet()) is None
    world.assignments.drop(9)
    assert metadata_places(catalogue, world.fleet()) == [(1, True), (2, True), (3, True)]


STATES = st.sampled_from(["active", "active", "active", "draining", "leaving"])
NODES = st.lists(st.tuples(STATES, st.booleans(), st.sampled_from(["", "a", "b", "c"])), min_size=1, max_size=7)


@given(NODES, NODES, st.lists(st.sampled_from([None, None, 1, 2, 3, 5]), min_size=1, max_size=12))
@settings(max_examples=200, deadline=None)
def test_whatever_happens_it_comes_to_rest_with_what_is_possible(first, later, topics):
    world = World([node(1), *(node(number, rack=rack) for number, (_, _, rack) in enumerate(first, start=2))])
    for wanted in topics:
        world.create(1, wanted)
    world.nodes = [
        node(number, state, dead=dead, rack=rack) for number, (state, dead, rack) in enumerate(later, start=2)
    ]
    world.nodes.insert(0, node(1))
    world.up = [each.node_id for each in world.nodes if not each.dead]
    world.settle()
    whole = {each.node_id for each in world.nodes if each.state == "active" and not each.dead}
    staying = [each for each in world.nodes if each.state != "leaving"]
    for group, wanted in world.wanted.items():
        assignment = world.get(group)
        voters, learners = shape(wanted, len(staying))
        good = set(assignment.nodes) & whole
        assert len(good) >= min(voters + learners, len(whole))
        assert not set(assignment.nodes) & {each.node_id for each in world.nodes if each.state == "leaving"}
        assert assignment.preferred in whole
        assert (len(assignment.voters), len(assignment.learners)) == shape(wanted, len(assignment.nodes))

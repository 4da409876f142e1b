"""Assignments: which replicas a group is to have, and that ids are given once."""

from __future__ import annotations

from cluster.assignment import FOUNDERS_MAX, Place, Replica, founded, metadata_founded


def places(*nodes: int) -> list[Place]:
    return [Place(node, True) for node in nodes]


def test_founders_are_numbered_in_order():
    assignment = founded([Place(7, True), Place(3, True), Place(9, False)])
    assert assignment.wanted == (Replica(1, 7, True), Replica(2, 3, True), Replica(3, 9, False))
    assert (assignment.voters, assignment.learners) == ({1: 7, 2: 3}, {3: 9})
    assert (assignment.preferred, assignment.settled, assignment.next_replica) == (7, True, FOUNDERS_MAX + 1)
    assert all(assignment.is_founder(each.replica) for each in assignment.wanted)


def test_nodes_keep_their_replicas_and_new_ones_get_new_ids():
    moved = founded(places(1, 2, 3)).reassigned(places(4, 1, 2))
    assert moved.wanted == (Replica(8, 4, True), Replica(1, 1, True), Replica(2, 2, True))
    assert moved.leaving == (Replica(3, 3, True),)
    assert (moved.settled, moved.epoch, moved.preferred) == (False, 2, 4)
    assert not moved.is_founder(8)
    assert moved.replica_on(3) == Replica(3, 3, True)
    assert moved.replica_on(9) is None


def test_what_has_left_is_gone_when_the_group_has_gone_over():
    done = founded(places(1, 2, 3)).reassigned(places(1, 2, 4)).went_over()
    assert (done.leaving, done.settled, done.epoch) == ((), True, 2)
    assert done.replica_on(3) is None


def test_a_node_that_comes_back_gets_another_replica():
    back = founded(places(1, 2, 3)).reassigned(places(1, 2)).went_over().reassigned(places(1, 2, 3))
    assert back.replica_on(3) == Replica(8, 3, True)


def test_one_that_is_taken_back_before_the_group_went_over_stays_what_it_is():
    back = founded(places(1, 2, 3)).reassigned(places(4, 5, 6)).reassigned(places(1, 2, 3))
    assert back.voters == {1: 1, 2: 2, 3: 3}, "they are all that the group has"
    assert [each.replica for each in back.leaving] == [8, 9, 10]
    assert (back.settled, back.epoch) == (False, 3)


def test_of_two_that_a_node_has_on_their_way_out_the_newer_one_is_taken_back():
    renewed = founded(places(1, 2, 3)).reassigned(places(1, 2, 3), renew=[3])
    back = renewed.reassigned(places(1, 2, 4)).reassigned(places(1, 2, 3))
    assert back.replica_on(3) == Replica(8, 3, True)
    assert back.leaving == (Replica(3, 3, True), Replica(9, 4, True))


def test_a_lost_replica_is_renewed_on_its_node():
    renewed = founded(places(1, 2, 3)).reassigned(places(1, 2, 3), renew=[2])
    assert renewed.voters == {1: 1, 8: 2, 3: 3}
    assert renewed.leaving == (Replica(2, 2, True),)
    assert renewed.replica_on(2) == Replica(8, 2, True)


def test_a_learner_becomes_a_voter_under_its_id():
    grown = founded([Place(1, True), Place(2, False)]).reassigned(places(1, 2, 3))
    assert grown.voters == {1: 1, 2: 2, 8: 3}
    assert grown.leaving == ()


def test_the_catalogues_replicas_have_their_nodes_ids():
    assignment = metadata_founded({5: True, 2: True, 9: False})
    assert (assignment.voters, assignment.learners) == ({2: 2, 5: 5}, {9: 9})
    more = assignment.reassigned([*assignment.places, Place(12, False)], numbered=True)
    assert more.learners == {9: 9, 12: 12}

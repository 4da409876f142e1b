"""Which broker a client goes to next."""

from __future__ import annotations

from random import Random

from plait.client.route import CALM_S, NO_LEADER_S, Address, Route
from plait.wire.errors import NotLeader

A, B, C = ("a", 1), ("b", 2), ("c", 3)


def route(*addresses: Address) -> Route:
    return Route(addresses, Random(1))


def attempt(way: Route, now_s: float, node_id: int | None = None, lasted_s: float = 0.0) -> tuple[Address, float]:
    """Go to the next one; with a node id it is reached, and lost again."""
    goal, wait_s = way.next()
    if node_id is not None:
        way.came_up(node_id, now_s)
    way.ended(now_s + lasted_s)
    return goal, wait_s


def test_the_addresses_have_their_turns() -> None:
    way = route(A, B, C)
    assert [attempt(way, 0)[0] for _ in range(5)] == [A, B, C, A, B]


def test_the_first_try_does_not_wait_and_each_failure_waits_longer() -> None:
    way = route(A, B)
    waits = [attempt(way, 0)[1] for _ in range(6)]
    assert waits[0] == 0
    assert all(0 < earlier < later * 1.01 for earlier, later in zip(waits[1:4], waits[3:6], strict=True))


def test_a_lost_broker_is_left_for_the_next_one_at_once() -> None:
    way = route(A, B)
    attempt(way, 0, node_id=1)
    assert attempt(way, 0) == (B, 0)


def test_the_only_broker_is_not_tried_again_without_a_wait() -> None:
    way = route(A)
    attempt(way, 0, node_id=1)
    goal, wait_s = attempt(way, 0)
    assert goal == A
    assert wait_s > 0


def test_a_broker_that_points_elsewhere_is_followed_also_out_of_the_list() -> None:
    way = route(A, B)
    way.next()
    way.came_up(1, 0)
    assert way.refused(NotLeader("no", leader=7, address="far:9"), 10)
    way.ended(10)
    assert way.next() == (("far", 9), 0)
    way.came_up(7, 10)
    way.ended(10)
    assert way.next()[0] == B, "then it goes on in the list"


def test_a_broker_of_a_known_id_is_found_without_an_address() -> None:
    way = route(A, B, C)
    for node_id in (1, 2, 3):
        attempt(way, 0, node_id)
    way.next()
    way.came_up(1, 0)
    assert way.refused(NotLeader("no", leader=3), 0)
    way.ended(0)
    assert way.next()[0] == C


def test_brokers_that_point_at_each_other_are_visited_slower_and_slower() -> None:
    way = route(A, B)
    waits = []
    for turn in range(8):
        goal, wait_s = way.next()
        waits.append(wait_s)
        way.came_up(1 if goal == A else 2, 0)
        assert way.refused(NotLeader("no", leader=9, address="b:2" if goal == A else "a:1"), turn * 0.01)
        way.ended(turn * 0.01)
    assert waits[-1] > 4 * waits[1] > 0
    way.next()
    way.came_up(1, 0)
    way.refused(NotLeader("no", leader=9, address="b:2"), CALM_S)
    way.ended(CALM_S)
    assert way.next()[1] == 0, "after a calm time the next move is quick again"


def test_a_broker_that_knows_no_leader_is_given_some_time() -> None:
    way = route(A, B)
    way.next()
    way.came_up(1, 0)
    nobody = NotLeader("an election is on", leader=0)
    assert not way.refused(nobody, 0)
    assert not way.refused(nobody, NO_LEADER_S * 0.9)
    way.led()
    assert not way.refused(nobody, NO_LEADER_S * 1.1), "it has led meanwhile"
    assert way.refused(nobody, NO_LEADER_S * 2.2)
    way.ended(3)
    assert way.next()[0] == B


def test_a_broker_that_points_at_itself_or_a_client_with_nowhere_to_go_stays() -> None:
    way = route(A)
    way.next()
    way.came_up(1, 0)
    assert not way.refused(NotLeader("soon", leader=1, address="a:1"), 0)
    assert not way.refused(NotLeader("who knows", leader=2), 0)
    assert not way.refused(NotLeader("nonsense", leader=2, address=":::"), 0)
    assert not way.refused(NotLeader("nobody"), 100)
    assert not way.refused(NotLeader("nobody"), 200)

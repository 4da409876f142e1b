"""A bounded number of groups campaigns at one time; the others stand in line and get their turn."""

from __future__ import annotations

from random import Random

from replication.peers.campaigns import Campaigns


def test_places_are_given_in_order_and_given_back() -> None:
    campaigns = Campaigns(2, hold_ns=100)
    assert [campaigns.may_start(group, 0) for group in (1, 2, 3, 4)] == [True, True, False, False]
    assert campaigns.may_start(1, 0)
    assert campaigns.next(0) is None
    campaigns.ended(2)
    assert not campaigns.may_start(4, 0)  # 3 was there before
    assert campaigns.next(0) == 3
    assert campaigns.next(0) is None
    campaigns.ended(4)
    campaigns.ended(1)
    assert campaigns.next(0) is None
    assert (campaigns.running, campaigns.waiting) == (1, 0)


def test_the_first_in_line_may_take_a_free_place_by_asking_again() -> None:
    campaigns = Campaigns(1, hold_ns=100)
    assert [campaigns.may_start(group, 0) for group in (1, 2)] == [True, False]
    campaigns.ended(1)
    assert campaigns.may_start(2, 0)
    assert campaigns.waiting == 0


def test_nobody_keeps_a_place_for_ever() -> None:
    campaigns = Campaigns(1, hold_ns=100)
    assert campaigns.may_start(1, 0)
    assert campaigns.next_deadline_ns() is None
    assert not campaigns.may_start(2, 50)
    assert campaigns.next_deadline_ns() == 100
    assert campaigns.next(99) is None
    assert campaigns.next(100) == 2
    campaigns.ended(1)  # late: the place is 2's now
    assert campaigns.running == 1


def test_places_are_never_exceeded_and_all_get_their_turn() -> None:
    for seed in range(30):
        random, campaigns = Random(seed), Campaigns(3, hold_ns=50)
        served: dict[int, None] = {}
        for now_ns in range(0, 2_000, 5):
            group = random.randrange(20)
            if random.random() < 0.5 and campaigns.may_start(group, now_ns):
                served[group] = None
            elif random.random() < 0.3:
                campaigns.ended(group)
            while (turn := campaigns.next(now_ns)) is not None:
                served[turn] = None
            assert campaigns.running <= 3
        assert len(served) == 20

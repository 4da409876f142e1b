"""What waits for one node: bounded, in order, words before appends when there is too much for one frame."""

from __future__ import annotations

from random import Random

from replication.machine import Entry
from replication.peers.outbox import FRAME_MESSAGES_MAX, Outbox
from replication.peers.settings import PeerSettings
from replication.raft.messages import Append, Beat, Message, SnapshotOffer

SMALL = PeerSettings(queue_messages=10, queue_bytes=1_000, frame_bytes=300, payload_bytes_max=5_000)


def append(size_bytes: int, index: int = 1) -> Append:
    return Append(1, 2, 3, index - 1, 3, [Entry(index, 3, 1, 0, 1, bytes(size_bytes))], 0, index)


BEAT = Beat(1, 2, 3, 4, 5)
OFFER = SnapshotOffer(1, 2, 3, 4, 3, 6)


def test_what_fits_leaves_in_the_order_in_which_it_was_posted() -> None:
    outbox = Outbox(SMALL)
    posted: list[tuple[int, Message]] = [(1, append(100)), (2, BEAT), (1, append(100, 2)), (3, OFFER), (1, BEAT)]
    assert all(outbox.post(*item) for item in posted)
    assert outbox.take() == posted
    assert outbox.take() == []
    assert (len(outbox), outbox.waiting_bytes) == (0, 0)


def test_words_overtake_appends_that_have_to_wait_and_nothing_else_does() -> None:
    outbox = Outbox(SMALL)
    for index in range(1, 5):
        assert outbox.post(1, append(200, index))
    outbox.post(1, OFFER)
    outbox.post(2, BEAT)
    assert outbox.take() == [(1, append(200, 1)), (2, BEAT)]
    assert outbox.waiting_bytes == 600
    assert [outbox.take() for _ in range(3)] == [
        [(1, append(200, 2))],
        [(1, append(200, 3))],
        [(1, append(200, 4)), (1, OFFER)],
    ]


def test_one_that_is_larger_than_a_frame_or_the_queue_leaves_alone() -> None:
    outbox = Outbox(SMALL)
    assert outbox.post(1, append(4_000))
    assert not outbox.post(1, append(1))
    assert outbox.post(1, BEAT)
    assert outbox.take() == [(1, append(4_000)), (1, BEAT)]
    assert outbox.post(1, append(1))


def test_too_many_messages_or_bytes_and_what_no_frame_holds_are_dropped() -> None:
    outbox = Outbox(SMALL)
    assert not outbox.post(1, append(5_001))
    assert outbox.post(1, append(900))
    assert not outbox.post(1, append(200))
    assert [outbox.post(1, BEAT) for _ in range(10)] == [True] * 9 + [False]


def test_clearing_names_the_groups() -> None:
    outbox = Outbox(SMALL)
    for group in (5, 3, 5):
        outbox.post(group, BEAT)
    outbox.post(4, append(10))
    assert outbox.clear() == [3, 4, 5]
    assert (outbox.take(), outbox.waiting_bytes) == ([], 0)


def test_a_frame_has_a_bounded_number_of_messages() -> None:
    outbox = Outbox(PeerSettings())
    for index in range(3 * FRAME_MESSAGES_MAX):
        outbox.post(index, BEAT if index % 2 else append(0))
    assert len(outbox.take()) == FRAME_MESSAGES_MAX


def test_each_lane_keeps_its_order_whatever_is_posted_and_taken() -> None:
    for seed in range(50):
        random, outbox = Random(seed), Outbox(SMALL)
        posted: list[tuple[int, Message]] = []
        taken: list[tuple[int, Message]] = []
        for number in range(200):
            if random.random() < 0.3:
                taken += outbox.take()
            message = (
                Beat(1, 2, 3, number, 0) if random.random() < 0.5 else append(random.randrange(400), number + 1)
            )
            if outbox.post(number, message):
                posted.append((number, message))
        while more := outbox.take():
            taken += more
        for kind in (Beat, Append):
            assert [item for item in taken if type(item[1]) is kind] == [
                item for item in posted if type(item[1]) is kind
            ]

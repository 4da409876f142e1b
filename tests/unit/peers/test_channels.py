"""Questions and answers between two sides, frame by frame and without a loop."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from plait.wire.errors import (
    BadRequest,
    Closed,
    InternalError,
    NotFound,
    OutcomeUnknown,
    Overloaded,
    PlaitError,
    Unavailable,
)
from replication.actor import Promise, rejected
from replication.peers.channels import Answer, Channels
from replication.peers.settings import PeerSettings

SMALL = PeerSettings(piece_bytes=10, bulk_frame_bytes=40, asks_max=5, ask_bytes=500, payload_bytes_max=2_000)


class Side:
    """One node: it keeps what it was asked until the test answers."""

    def __init__(self, settings: PeerSettings = SMALL) -> None:
        self.asked: list[tuple[str, list[Any], bytes, Promise[Answer]]] = []
        self.channels = Channels(9, settings, self.serve)

    def serve(self, channel: str, head: list[Any], payload: memoryview) -> Promise[Answer]:
        promise: Promise[Answer] = Promise()
        self.asked.append((channel, head, bytes(payload), promise))
        return promise


def frame(source: Side, target: Side) -> bool:
    """One frame; False: there was none."""
    found = source.channels.take()
    if found is not None:
        words, parts = found
        target.channels.hear(words, memoryview(b"".join(parts)))
    return found is not None


def flow(a: Side, b: Side) -> None:
    """Frames until nobody has anything to say."""
    while frame(a, b) | frame(b, a):
        pass


def test_a_question_travels_and_its_answer_comes_back() -> None:
    a, b = Side(), Side()
    promise = a.channels.ask("snapshot", [1, {"k": b"v"}], [b"pay", memoryview(b"load")], 1)
    flow(a, b)
    ((channel, head, payload, answer),) = b.asked
    assert (channel, head, payload) == ("snapshot", [1, {"k": b"v"}], b"payload")
    assert (a.channels.outstanding, b.channels.serving) == (1, 1)
    answer.resolve((["fine"], [b"an", b"", b"swer" * 100]))
    flow(a, b)
    found, data = promise.result()
    assert (found, bytes(data)) == (["fine"], b"an" + b"swer" * 100)
    assert (a.channels.outstanding, b.channels.serving) == (0, 0)


def test_the_items_of_frames_are_these() -> None:
    a = Side()
    a.channels.ask("c", [7], [bytes(25)], 1)
    a.channels.ask("c", [], [], 1)
    assert a.channels.take() == (
        [[1, 2, "c", b"\x80", 0, 0], [1, 1, "c", b"\x81\x07", 25, 10], [2, 1, 10], [2, 1, 5]],
        [
            bytes(10),
            bytes(10),
            bytes(5),
        ],
    )


def test_large_ones_take_turns_and_small_ones_go_first_but_never_alone() -> None:
    a, b = Side(PeerSettings(piece_bytes=10, bulk_frame_bytes=20)), Side()
    a.channels.ask("large", [1], [bytes(40)], 1)
    a.channels.ask("large", [2], [bytes(40)], 1)
    for number in range(3):
        a.channels.ask("small", [number], [bytes(10)], 1)
    seen = []
    while (found := a.channels.take()) is not None:
        words, parts = found
        seen.append([item[1] for item in words])
        b.channels.hear(words, memoryview(b"".join(parts)))
    assert seen == [[3, 4, 1], [5, 2], [1, 2], [1, 2], [1, 2]]
    assert [head[0] for _, head, _, _ in b.asked] == [0, 1, 2, 1, 2]


def test_what_the_server_fails_with_is_what_the_asker_gets() -> None:
    errors: list[tuple[Exception, type[PlaitError]]] = [
        (NotFound("no such group", group=7), NotFound),
        (ValueError("a defect"), InternalError),
        (NotFound("details that cannot be sent", what=object()), NotFound),
    ]
    for error, expected in errors:
        a, b = Side(), Side()
        promise = a.channels.ask("c", [], [], 1)
        flow(a, b)
        b.asked[0][3].reject(error)
        flow(a, b)
        assert type(promise.error) is expected
        assert b.channels.serving == 0
    assert promise.error is not None


def test_an_answer_that_cannot_be_sent_is_a_defect_of_the_server() -> None:
    answers: list[Answer] = [([object()], []), ([], [bytes(2_001)]), (["h" * 70_000], [])]
    for answer in answers:
        a, b = Side(), Side()
        promise = a.channels.ask("c", [], [], 1)
        flow(a, b)
        b.asked[0][3].resolve(answer)
        flow(a, b)
        assert type(promise.error) is InternalError


def test_a_question_that_can_never_be_sent_is_refused_at_once() -> None:
    a = Side()
    for head, payload in (([object()], []), (["h" * 70_000], []), ([], [bytes(2_001)])):
        with pytest.raises(BadRequest):
            a.channels.ask("c", head, payload, 1)
    assert a.channels.take() is None


def test_time_that_runs_out_says_whether_it_can_have_been_done() -> None:
    a, b = Side(), Side()
    sent = a.channels.ask("c", [1], [], 100)
    flow(a, b)
    begun = a.channels.ask("c", [2], [bytes(100)], 200)
    assert frame(a, b)
    waiting = a.channels.ask("c", [3], [], 300)
    later = a.channels.ask("c", [4], [], 301)
    a.channels.expire(99)
    assert not sent.done
    a.channels.expire(300)
    assert [type(promise.error) for promise in (sent, begun, waiting)] == [
        OutcomeUnknown,
        Unavailable,
        Unavailable,
    ]
    assert a.channels.next_deadline_ns() == 301
    flow(a, b)
    assert [head for _, head, _, _ in b.asked] == [[1], [4]]
    assert b.asked[0][3].abandoned
    assert b.channels.serving == 1  # those whose time is over are forgotten there
    b.asked[0][3].resolve(([], []))
    b.asked[1][3].resolve(([], []))
    flow(a, b)
    assert later.done
    assert a.channels.next_deadline_ns() is None


def test_a_question_that_nobody_waits_for_is_called_off() -> None:
    a, b = Side(), Side()
    served, begun, waiting = (a.channels.ask("c", [n], [bytes(100 if n else 0)], 1) for n in range(3))
    frame(a, b)
    for promise in (served, begun, waiting):
        promise.abandon()
        assert isinstance(promise.error, Closed)
    assert a.channels.outstanding == 0
    flow(a, b)
    assert [(head, answer.abandoned) for _, head, _, answer in b.asked] == [([0], True)]
    assert b.channels.serving == 0
    b.asked[0][3].resolve(([], []))  # which nobody hears
    flow(a, b)
    again = a.channels.ask("c", [4], [], 1)
    flow(a, b)
    b.asked[1][3].resolve((["fine"], []))
    flow(a, b)
    assert again.result()[0] == ["fine"]


def test_an_answer_that_is_being_sent_is_not_called_back() -> None:
    a, b = Side(), Side()
    promise = a.channels.ask("c", [1], [], 1)
    flow(a, b)
    b.asked[0][3].resolve(([], [bytes(200)]))
    frame(b, a)
    promise.abandon()
    flow(a, b)
    assert not b.asked[0][3].abandoned
    assert (a.channels.outstanding, b.channels.serving) == (0, 0)


def test_with_the_connection_everything_ends_and_nothing_of_it_comes_back() -> None:
    a, b = Side(), Side()
    sent = a.channels.ask("c", [1], [], 100)
    flow(a, b)
    begun = a.channels.ask("c", [2], [bytes(100)], 100)
    frame(a, b)
    a.channels.reset()
    b.channels.reset()
    assert [type(promise.error) for promise in (sent, begun)] == [OutcomeUnknown, Unavailable]
    assert (a.channels.outstanding, b.channels.serving) == (0, 0)
    again = a.channels.ask("c", [3], [], 100)
    assert b.asked[0][3].abandoned
    b.asked[0][3].resolve((["late"], []))  # asked on the old connection
    flow(a, b)
    assert not again.done
    b.asked[1][3].resolve((["fine"], []))
    flow(a, b)
    assert again.result()[0] == ["fine"]


def test_too_much_outstanding_is_refused_here_and_too_much_to_serve_there() -> None:
    a, b = Side(), Side()
    assert [type(a.channels.ask("c", [], [], 1).error) for _ in range(6)] == [type(None)] * 5 + [Overloaded]
    a = Side()
    assert [type(a.channels.ask("c", [], [bytes(300)], 1).error) for _ in range(2)] == [type(None), Overloaded]
    a = Side(PeerSettings(piece_bytes=10, bulk_frame_bytes=40))
    promises = [a.channels.ask("c", [], [bytes(100)], 1) for _ in range(8)]
    flow(a, b)
    assert [type(promise.error) for promise in promises] == [type(None)] * 5 + [Overloaded] * 3
    assert len(b.asked) == 5
    for _, _, _, answer in b.asked:
        answer.resolve(([], []))
    flow(a, b)
    assert b.channels.serving == 0
    assert a.channels.outstanding == 0


def test_a_handler_that_refuses_at_once() -> None:
    a = Side()
    b = Channels(1, SMALL, lambda channel, head, payload: rejected(NotFound(channel)))
    promise = a.channels.ask("c", [], [], 1)
    for source, target in ((a.channels, b), (b, a.channels)):
        found = source.take()
        assert found is not None
        target.hear(found[0], memoryview(b"".join(found[1])))
    assert type(promise.error) is NotFound


def test_any_mix_of_sizes_arrives_whole() -> None:
    for seed in range(30):
        random = Random(seed)
        a, b = Side(PeerSettings(piece_bytes=7, bulk_frame_bytes=30)), Side(PeerSettings(piece_bytes=7))
        expected: dict[int, bytes] = {}
        promises = {}
        for number in range(40):
            payload = random.randbytes(random.choice((0, 1, 7, 8, 100)))
            expected[number] = payload
            cut = random.randrange(len(payload) + 1)
            promises[number] = a.channels.ask("c", [number], [payload[:cut], payload[cut:]], 1)
            for side, other in ((a, b), (b, a)):
                if random.random() < 0.5:
                    frame(side, other)
            for _, head, got, answer in b.asked:
                assert got == expected[head[0]]
                answer.resolve((head, [got, got]))
            b.asked.clear()
        for _ in range(2):
            flow(a, b)
            for _, head, got, answer in b.asked:
                answer.resolve((head, [got, got]))
            b.asked.clear()
        for number, promise in promises.items():
            head, got_back = promise.result()
            assert (head, bytes(got_back)) == ([number], expected[number] * 2)


@pytest.mark.parametrize(
    ("words", "raw"),
    [
        ([1], b""),
        ([[]], b""),
        ([["1"]], b""),
        ([[7, 1]], b""),
        ([[True, 1]], b""),
        ([[1, 1, "c", b"\x80", 0]], b""),
        ([[1, -1, "c", b"\x80", 0, 0]], b""),
        ([[1, 1, "", b"\x80", 0, 0]], b""),
        ([[1, 1, "c" * 65, b"\x80", 0, 0]], b""),
        ([[1, 1, "c", b"\x01", 0, 0]], b""),
        ([[1, 1, "c", b"\xff", 0, 0]], b""),
        ([[1, 1, "c", b"\x80", 1, 2]], b"12"),
        ([[1, 1, "c", b"\x80", 2, 2]], b"1"),
        ([[1, 1, "c", b"\x80", 1, 1]], b"12"),
        ([[1, 1, "c", b"\x80", 2_001, 0]], b""),
        ([[1, 1, "c", b"\x80", 5, 1], [2, 1, 5]], b"123456"),
        ([[1, 1, "c", b"\x80", 0, 0], [1, 1, "c", b"\x80", 0, 0]], b""),
        ([[2, 1]], b""),
        ([[5, 1, "code", "message", []]], b""),
    ],
)
def test_frames_that_are_none_are_refused(words: list[Any], raw: bytes) -> None:
    with pytest.raises(BadRequest, match="the connection ends"):
        Side().channels.hear(words, memoryview(raw))


def test_pieces_and_answers_of_what_nobody_knows_are_dropped() -> None:
    side = Side()
    side.channels.hear(
        [[2, 9, 2], [3, 9, b"\x80", 2, 2], [4, 9, 1], [5, 9, "x", "y", {}], [6, 9]], memoryview(b"12345")
    )
    assert side.channels.take() is None


def test_a_peer_that_asks_on_and_takes_no_answers_is_cut_off() -> None:
    side = Side()

    def ask_on() -> None:
        for number in range(70_000):
            side.channels.hear([[1, number, "c", b"\x80", 0, 0]], memoryview(b""))

    with pytest.raises(BadRequest, match="takes no answers"):
        ask_on()

"""JOIN and JOINED: as bytes, and what is none."""

from __future__ import annotations

import pytest

from plait.wire.frames import FrameReader
from replication.peers.joining import (
    JOIN,
    MAGIC,
    NODES_MAX,
    Join,
    Joined,
    challenge_word,
    is_join,
    read_challenge,
    read_join,
    read_joined,
)
from replication.peers.protocol import VERSION_MAX, Refusal, Told, encode_word

ASKED = Join(12345, "new", "new:4151", "new:4150", "rack", 1)
TOLD = Joined(1, "cluster", 4, {1: "a:4151", 2: "b:4151"})


def head_of(frame: bytes) -> list[object]:
    reader = FrameReader(1 << 16)
    reader.feed(frame)
    ((head, _),) = reader.frames()
    return head


@pytest.mark.parametrize("join", [ASKED, Join(1, "n", "p", "", "", 0, "cluster", 7)])
def test_a_join_survives_its_encoding(join):
    head = head_of(encode_word(join.word()))
    assert is_join(head)
    assert read_join(head) == join


def test_a_joined_survives_its_encoding():
    head = head_of(encode_word(TOLD.word()))
    assert not is_join(head)
    assert read_joined(head) == TOLD


def test_a_refusal_is_told():
    with pytest.raises(Told, match="no room") as caught:
        read_joined(head_of(encode_word(Refusal("busy", "no room").word())))
    assert caught.value.code == "busy"


def test_a_challenge_is_one_word_and_nothing_else_is_one():
    assert challenge_word() == [7, {}]
    assert read_challenge([7, {"nonce": b"n"}]) == {"nonce": b"n"}
    with pytest.raises(Told, match="no room"):
        read_challenge(Refusal("busy", "no room").word())
    for head in ([], [7], [7, 1], [6, {}], [7, {}, 1]):
        with pytest.raises(Refusal, match="a CHALLENGE was to come"):
            read_challenge(head)


def test_versions_that_do_not_meet():
    head = [JOIN, MAGIC, VERSION_MAX + 1, VERSION_MAX + 2, 1, "n", "p", "", "", 0, "", 0, {}]
    with pytest.raises(Refusal, match="versions"):
        read_join(head)


GOOD = [JOIN, MAGIC, 1, 1, 1, "n", "p", "", "", 0, "", 0, {}]


@pytest.mark.parametrize(
    ("at", "value"), [(4, -1), (4, True), (4, "1"), (5, 1), (5, "x" * 300), (9, 1 << 63), (12, []), (12, None)]
)
def test_what_is_no_join_is_refused(at, value):
    head = [*GOOD]
    head[at] = value
    with pytest.raises(Refusal):
        read_join(head)
    with pytest.raises(Refusal):
        read_join(GOOD[:-1])


@pytest.mark.parametrize(
    "head",
    [
        [6, 1, "cluster", 0, [], {}],
        [6, 1, "", 4, [], {}],
        [6, 1, "cluster", 4, [[1]], {}],
        [6, 1, "cluster", 4, [[1, 2]], {}],
        [6, 1, "cluster", 4, [[n, "a"] for n in range(NODES_MAX + 1)], {}],
        [6, 1, "cluster", 4, []],
        [2, 1],
        [],
    ],
)
def test_what_is_no_joined_is_refused(head):
    with pytest.raises(Refusal):
        read_joined(head)

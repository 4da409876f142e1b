"""Whatever a node or a stranger sends: its connection ends with a sentence, and nothing else happens."""

from __future__ import annotations

from contextlib import suppress
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plait.wire.errors import BadRequest
from plait.wire.frames import FrameReader, encode_frame, encode_plain
from replication.actor import Promise
from replication.environment import Buffer
from replication.machine import Entry
from replication.peers.beats import BUCKETS, Rounds, Sleepers, read_beat
from replication.peers.channels import Answer, Channels
from replication.peers.codec import decode_messages, decode_run, encode_message
from replication.peers.lives import Life
from replication.peers.proof import ACCEPTOR, DIALLER, ClusterKey, Proofs
from replication.peers.protocol import (
    BULK_WORDS,
    CONTROL,
    CONTROL_WORDS,
    Hearing,
    Hello,
    Identity,
    Refusal,
    Welcome,
    confirm_word,
    encode_word,
    judge_hello,
    read_confirm,
    read_hello,
    read_welcome,
    seal,
    unseal,
)
from replication.peers.settings import PeerSettings
from replication.raft.messages import Append, Beat

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.floats()
    | st.text(max_size=9)
    | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)
NUMBERS = st.integers(0, 4) | st.integers(-1, 2**64)
ROWS = st.lists(NUMBERS | st.booleans() | st.sampled_from([b"\x80", b"\xff", "c", {}]), max_size=12)
HEADS = st.lists(PLAIN, max_size=12) | ROWS
MINE = Identity("c1", 1, 7)
HELLO = Hello(Identity("c1", 2, 3), 99, CONTROL, 1)
WELCOME = Welcome(1, Identity("c1", 2, 3), 5)
FRAMES = [
    encode_word(word) for word in (HELLO.word(), WELCOME.word(), confirm_word(), Refusal("code", "why").word())
]
KEY = ClusterKey(b"a secret of the fuzzed cluster")


def refused_or_read(hearing: Hearing) -> None:
    """All that may happen to a stranger's bytes."""
    try:
        head = hearing.word()
        if head is not None:
            judge_hello(read_hello(head), MINE, Life(3))
    except Refusal as refusal:
        encode_word(refusal.word())


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_any_bytes_at_the_door(pieces: list[bytes]) -> None:
    hearing = Hearing()
    for piece in pieces:
        hearing.feed(piece)
        refused_or_read(hearing)


@given(HEADS, st.binary(max_size=5))
@settings(max_examples=300)
def test_any_frame_at_the_door(head: list[Any], payload: bytes) -> None:
    hearing = Hearing()
    hearing.feed(b"".join(encode_frame(head, [payload])))
    refused_or_read(hearing)
    for read in (read_hello, read_welcome, read_confirm):
        with suppress(Refusal):
            read(head)


@given(st.sampled_from(FRAMES), st.data())
@settings(max_examples=300)
def test_a_handshake_with_bytes_changed_cut_and_put_in(frame: bytes, data: st.DataObject) -> None:
    changed = bytearray(frame)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed)))
        changed[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    hearing = Hearing()
    hearing.feed(bytes(changed))
    refused_or_read(hearing)


@given(HEADS)
@settings(max_examples=300)
def test_no_word_that_was_made_up_is_let_in_where_there_is_a_secret(head: list[Any]) -> None:
    for role in (DIALLER, ACCEPTOR):
        proofs = Proofs(KEY, role, Random(1))
        with pytest.raises(Refusal) as found:
            proofs.hear(head)
        assert found.value.code == "secret"
        assert not proofs.believes(head)
    assert Proofs(KEY, ACCEPTOR, Random(1)).say(Refusal("code", "why").word()) == Refusal("code", "why").word()


@given(st.sampled_from(["hello", "welcome", "confirm", "refused"]), st.data())
@settings(max_examples=400)
def test_a_proven_word_with_anything_changed_is_not_let_in(name: str, data: st.DataObject) -> None:
    dialler, acceptor = Proofs(KEY, DIALLER, Random(1)), Proofs(KEY, ACCEPTOR, Random(2))
    word = dialler.say(HELLO.word())
    hears = acceptor
    if name != "hello":
        acceptor.hear(word)
        word = acceptor.say(Refusal("code", "why").word() if name == "refused" else WELCOME.word())
        hears = dialler
    if name == "confirm":
        dialler.hear(word)
        word = dialler.say(confirm_word())
        hears = acceptor
    frame = encode_word(word)
    changed = bytearray(frame)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(changed)))
        changed[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    hearing = Hearing()
    hearing.feed(bytes(changed))
    with suppress(Refusal):
        found = hearing.word()
        if found is not None:
            assert hears.believes(found) == (encode_plain(found) == encode_plain(word))


class Node:
    """What takes the frames of a peer, without a loop."""

    def __init__(self) -> None:
        followed = Sleepers()
        for group in range(200):
            followed.add(group, 3)
        self._rounds = Rounds(Sleepers(), followed, 5)
        self._channels = Channels(2, PeerSettings(payload_bytes_max=1_000, asks_max=5, ask_bytes=100), self._serve)
        self._reader = FrameReader(1 << 20)

    def receive(self, data: bytes) -> None:
        """Raises BadRequest and nothing else."""
        self._reader.feed(data)
        for head, payload in self._reader.frames():
            kind, words, raw = unseal(head, payload)
            self.hear(kind, words, raw)

    def hear(self, kind: int, words: list[Any], raw: memoryview) -> None:
        """As a link does."""
        if kind == CONTROL_WORDS and words:
            if words[0] is not None:
                self._rounds.hear(read_beat(words[0]))
            decode_messages(words[1:], raw)
        else:
            self._channels.hear(words, raw)
            self._channels.take()

    def _serve(self, channel: str, head: list[Any], payload: memoryview) -> Promise[Answer]:
        promise: Promise[Answer] = Promise()
        if len(payload) % 2:
            promise.resolve((head, [payload]))
        return promise


def survive(node: Node, data: bytes) -> bool:
    """Whether the connection would go on."""
    try:
        node.receive(data)
    except BadRequest:
        return False
    return True


@given(st.lists(st.binary(max_size=80), max_size=6))
def test_any_bytes_behind_the_handshake(pieces: list[bytes]) -> None:
    node = Node()
    for piece in pieces:
        if not survive(node, piece):
            return


@given(
    st.sampled_from([CONTROL_WORDS, BULK_WORDS]),
    st.lists(st.lists(ROWS | PLAIN, max_size=5), min_size=1, max_size=4),
    st.binary(max_size=40),
)
@settings(max_examples=400)
def test_any_sealed_frame(kind: int, batches: list[list[Any]], raw: bytes) -> None:
    node = Node()
    for words in batches:
        if not survive(node, bytes(seal(kind, words, [raw]))):
            return


ITEMS = st.one_of(
    st.tuples(st.just(1), NUMBERS, st.just("c"), st.just(b"\x80"), NUMBERS, NUMBERS),
    st.tuples(st.sampled_from([2, 4]), NUMBERS, NUMBERS),
    st.tuples(st.just(3), NUMBERS, st.just(b"\x80"), NUMBERS, NUMBERS),
    st.tuples(st.just(5), NUMBERS, st.just("code"), st.just("message"), st.just({})),
    st.tuples(st.just(6), NUMBERS),
)


@given(st.lists(st.tuples(st.lists(ITEMS.map(list), max_size=6), st.binary(max_size=8)), max_size=6))
@settings(max_examples=400)
def test_questions_that_nearly_make_sense(frames: list[tuple[list[Any], bytes]]) -> None:
    node = Node()
    for words, raw in frames:
        try:
            node.hear(BULK_WORDS, words, memoryview(raw))
        except BadRequest:
            return


@given(st.integers(1, 9), st.booleans(), st.booleans(), st.lists(st.integers(0, BUCKETS)), st.lists(NUMBERS))
def test_beats_that_nearly_make_sense(
    sequence: int, whole: bool, again: bool, wake: list[int], slept: list[int]
) -> None:
    survive(Node(), bytes(seal(CONTROL_WORDS, [[sequence, whole, again, wake, slept]])))


@given(st.data())
@settings(max_examples=300)
def test_frames_with_bytes_changed_hand_nothing_on(data: st.DataObject) -> None:
    parts: list[Buffer] = []
    append = Append(1, 2, 3, 4, 3, [Entry(5, 3, 1, 9, 1, b"payload"), Entry(6, 3, 1, 10, 1, b"more")], 4, 1)
    words = [None, encode_message(1, append, parts), encode_message(2, Beat(1, 2, 3, 4, 5), parts)]
    frame = bytes(seal(CONTROL_WORDS, words, parts))
    at = data.draw(st.integers(6, len(frame) - 1))
    new = data.draw(st.binary(min_size=1, max_size=3))
    changed = frame[:at] + new + frame[at + len(new) :]
    node = Node()
    if changed[: len(frame)] == frame:
        assert survive(node, frame)
    elif len(changed) == len(frame):
        assert not survive(node, changed)


@given(st.integers(0, 2**63), st.integers(-1, 9), st.binary(max_size=240))
def test_any_records_of_entries(previous_index: int, count: int, raw: bytes) -> None:
    try:
        entries = decode_run(7, previous_index, count, memoryview(raw))
    except BadRequest:
        return
    assert [entry.index for entry in entries] == list(range(previous_index + 1, previous_index + 1 + count))


def test_a_bomb_of_nested_lists_is_refused() -> None:
    for depth in (9, 1_000, 60_000):
        with pytest.raises(BadRequest):
            Node().receive(
                b"".join([(depth + 3).to_bytes(4, "big"), (depth + 1).to_bytes(2, "big"), b"\x81" * depth, b"\0"])
            )

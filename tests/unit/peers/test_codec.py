"""Raft messages become words and raw bytes, and those become the same messages; anything else is refused."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.wire.errors import BadRequest
from plait.wire.frames import FrameReader
from replication.environment import Buffer
from replication.machine import Entry
from replication.peers.codec import (
    COPY_BYTES,
    KINDS,
    Addressed,
    decode_messages,
    decode_run,
    encode_message,
    payload_bytes,
)
from replication.peers.protocol import CONTROL_WORDS, seal, unseal
from replication.raft import messages as raft
from replication.raft.messages import Append, Beat, Lost, Message, VoteAnswer
from replication.run import Run, encoded
from replication.storage.format import HARD_STATE, RECORD_BYTES, encode_entries, encode_note

NUMBERS = st.integers(0, 2**63 - 1) | st.integers(0, 300)
TERMS = st.integers(0, 2**64 - 1)


def message_of(kind: type[Any]) -> st.SearchStrategy[Any]:
    return st.builds(
        kind, **{field.name: st.booleans() if field.type == "bool" else NUMBERS for field in fields(kind)}
    )


def entry_of(index: int) -> st.SearchStrategy[Entry]:
    return st.builds(
        Entry,
        st.just(index),
        TERMS,
        st.integers(0, 255),
        st.integers(-(2**63), 2**63 - 1),
        st.integers(0, 2**32 - 1),
        st.binary(max_size=40),
    )


@st.composite
def appends(draw: st.DrawFn) -> Append:
    previous = draw(st.integers(0, 2**62))
    entries = [draw(entry_of(previous + at)) for at in range(1, draw(st.integers(0, 6)) + 1)]
    source, target, term, previous_term, commit, sequence = (draw(NUMBERS) for _ in range(6))
    return Append(source, target, term, previous, previous_term, entries, commit, sequence)


MESSAGES: st.SearchStrategy[Message] = st.one_of(
    appends(), *(message_of(kind) for kind in KINDS if kind is not Append)
)
BATCHES = st.lists(st.tuples(NUMBERS, MESSAGES), max_size=8)


def encode(batch: list[Addressed]) -> tuple[list[Any], list[Buffer]]:
    parts: list[Buffer] = []
    return [encode_message(group, message, parts) for group, message in batch], parts


def frame_of(batch: list[Addressed]) -> bytes:
    return bytes(seal(CONTROL_WORDS, *encode(batch)))


def read(reader: FrameReader, data: bytes) -> list[list[Addressed]]:
    reader.feed(data)
    return [decode_messages(*unseal(head, payload)[1:]) for head, payload in reader.frames()]


def test_every_message_there_is_has_a_tag_of_its_own_which_never_changes() -> None:
    found = [kind.__name__ for kind in raft.Message.__args__]
    assert sorted(found) == sorted(kind.__name__ for kind in KINDS)
    assert [kind.__name__ for kind in KINDS] == [
        *("VoteRequest", "VoteAnswer", "Append", "AppendAnswer", "Beat", "BeatAnswer"),
        *("SnapshotOffer", "TimeoutNow", "Sleep", "SleepAnswer", "Removed", "Lost"),
    ]


def test_the_words_of_messages_are_these() -> None:
    entries = [Entry(8, 5, 1, 100, 10, b"abc"), Entry(9, 6, 255, -1, 0, b"")]
    batch: list[Addressed] = [
        (70, Beat(1, 2, 5, 10, 3)),
        (71, VoteAnswer(3, 4, 9, granted=True, pre=False)),
        (72, Append(1, 2, 6, 7, 5, entries, 4, 11)),
        (73, Append(1, 2, 6, 7, 5, [], 4, 12)),
        (74, Lost(1, 2, 3, 4)),
    ]
    words, parts = encode(batch)
    assert words == [
        [5, 70, 1, 2, 5, 10, 3],
        [2, 71, 3, 4, 9, True, False],
        [3, 72, 1, 2, 6, 7, 5, 4, 11, 2, 2 * RECORD_BYTES + 3],
        [3, 73, 1, 2, 6, 7, 5, 4, 12, 0, 0],
        [12, 74, 1, 2, 3, 4],
    ]
    table: list[bytes] = []
    encode_entries(72, entries, table, [])
    raw = b"".join([*table, b"abc"])
    assert b"".join(parts) == raw
    assert decode_messages(words, memoryview(raw)) == batch


@given(BATCHES)
def test_what_was_encoded_is_decoded(batch: list[Addressed]) -> None:
    assert read(FrameReader(), frame_of(batch)) == [batch]


@given(st.lists(BATCHES, min_size=1, max_size=3), st.data())
def test_however_the_bytes_are_cut(batches: list[list[Addressed]], data: st.DataObject) -> None:
    stream = b"".join(map(frame_of, batches))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    reader = FrameReader()
    found = [
        batch for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True) for batch in read(reader, stream[a:b])
    ]
    assert found == batches


def test_byte_by_byte() -> None:
    batch: list[Addressed] = [
        (1, Append(1, 2, 3, 4, 3, [Entry(5, 3, 1, 9, 1, b"payload")], 4, 1)),
        (2, Beat(1, 2, 3, 4, 5)),
    ]
    reader = FrameReader()
    frame = frame_of(batch)
    found = [read(reader, frame[at : at + 1]) for at in range(len(frame))]
    assert found[:-1] == [[]] * (len(frame) - 1)
    assert found[-1] == [batch]


@pytest.mark.parametrize(("size_bytes", "kind"), [(COPY_BYTES + 1, memoryview), (100, bytes)])
def test_large_payloads_are_views_of_the_frame_and_small_ones_do_not_hold_it(size_bytes: int, kind: type) -> None:
    payload = bytes(size_bytes)
    (batch,) = read(FrameReader(), frame_of([(1, Append(1, 2, 3, 0, 0, [Entry(1, 3, 1, 0, 1, payload)], 0, 1))]))
    append = batch[0][1]
    assert isinstance(append, Append)
    assert type(append.entries[0].payload) is kind
    assert payload_bytes(append) == size_bytes


@given(BATCHES, st.data())
def test_a_flipped_bit_anywhere_behind_the_lengths_is_noticed(batch: list[Addressed], data: st.DataObject) -> None:
    frame = bytearray(frame_of(batch))
    at = data.draw(st.integers(6, len(frame) - 1))
    frame[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(BadRequest):
        read(FrameReader(), bytes(frame))


@pytest.mark.parametrize(
    "words",
    [
        [7],
        [[]],
        [[0, 1]],
        [[13, 1]],
        [[True, 70, 1, 2, 5, 10, 3]],
        [["5", 70, 1, 2, 5, 10, 3]],
        [[5, 70, 1, 2, 5, 10]],
        [[5, 70, 1, 2, 5, 10, 3, 4]],
        [[5, 70, 1, 2, 5, 10, -1]],
        [[5, 70, 1, 2, 5, 10, 2**63]],
        [[5, 70, 1, 2, 5, 10, 3.0]],
        [[5, 70, 1, 2, 5, 10, True]],
        [[2, 71, 3, 4, 9, 1, False]],
        [[3, 72, 1, 2, 6, 7, 5, 4, 11, 1, 0]],
        [[3, 72, 1, 2, 6, 7, 5, 4, 11, 0, 5]],
        [[3, 72, 1, 2, 6, 7, 5, 4, 11, 1, 2**40]],
        [[3, 72, 1, 2, 6, 7, 5, 4, 11, 2**40, 5]],
    ],
)
def test_words_that_are_none_are_refused(words: list[Any]) -> None:
    with pytest.raises(BadRequest, match="the connection ends"):
        decode_messages(words, memoryview(b"12345"))


def test_bytes_that_no_message_takes_are_refused() -> None:
    with pytest.raises(BadRequest, match="do not cover"):
        decode_messages([[5, 70, 1, 2, 5, 10, 3]], memoryview(b"1"))


def raw_of(group: int, entries: list[Entry]) -> memoryview:
    found = encoded(group, entries)
    return memoryview(b"".join([found.records, *found.payloads]))


def test_a_run_is_all_of_its_bytes_and_of_one_group() -> None:
    entries = [Entry(5, 1, 1, 0, 1, b"a"), Entry(6, 1, 1, 0, 1, b"bc")]
    raw = raw_of(7, entries)
    assert decode_run(7, 4, 2, raw) == entries
    with pytest.raises(BadRequest, match="cover"):
        decode_run(7, 4, 2, memoryview(raw.tobytes() + b"x"))
    with pytest.raises(BadRequest, match="more records"):
        decode_run(7, 4, 3, raw)
    with pytest.raises(BadRequest, match="not of this group"):
        decode_run(8, 4, 2, raw)
    with pytest.raises(BadRequest, match="not of this group"):
        decode_run(7, 4, 1, memoryview(encode_note(HARD_STATE, 7, 5, 1)))


@pytest.mark.parametrize("indexes", [(5, 7), (6, 5), (5, 5), (4, 5), (6, 7)])
def test_an_append_with_gaps_is_refused(indexes: tuple[int, int]) -> None:
    raw = raw_of(7, [Entry(index, 1, 1, 0, 1, b"x") for index in indexes])
    with pytest.raises(BadRequest, match="gaps"):
        decode_messages([[3, 7, 1, 2, 6, 4, 5, 4, 11, 2, len(raw)]], raw)


@given(appends())
def test_what_came_is_written_and_sent_on_as_it_came(append: Append) -> None:
    words, parts = encode([(7, append)])
    (again,) = decode_messages(words, memoryview(b"".join(parts)))
    assert isinstance(again[1], Append)
    if append.entries:
        assert isinstance(again[1].entries, Run)
        assert encode([again])[0] == words
        assert b"".join(encode([again])[1]) == b"".join(parts)


@pytest.mark.parametrize(
    "entry",
    [
        Entry(1, 2**64, 1, 0, 1, b""),
        Entry(1, 1, 256, 0, 1, b""),
        Entry(1, 1, 1, 2**63, 1, b""),
        Entry(1, 1, 1, 0, 2**32, b""),
        Entry(2, 1, 1, 0, 1, b""),
        Entry(-1, 1, 1, 0, 1, b""),
    ],
)
def test_an_entry_that_no_record_holds_is_an_error_of_the_sender(entry: Entry) -> None:
    with pytest.raises(ValueError, match=r"cannot be sent|must follow"):
        encode_message(7, Append(1, 2, 1, 0, 0, [entry], 0, 1), [])

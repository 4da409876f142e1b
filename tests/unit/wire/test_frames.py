"""Frames: known bytes, any cut, and everything that a stranger may send instead."""

from __future__ import annotations

import struct

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.wire.errors import BadRequest
from plait.wire.frames import (
    FRAME_BYTES_MAX,
    HEAD_BYTES_MAX,
    HEAD_DEPTH_MAX,
    FrameReader,
    decode_plain,
    encode_frame,
    encode_plain,
    is_plain,
)

KNOWN = [
    ([5, 1], b"", "00000005 0003 82 05 01"),
    (
        [3, 7, "a", b"b", None, True, -1, [1], {"k": 2}],
        b"",
        "00000012 0010 89 03 07 6161 4162 f6 f5 20 8101 a1616b02",
    ),
    ([21, 2, "q", -1], b"payload", "0000000f 0006 84 15 02 6171 20 7061796c6f6164"),
]
SCALARS = st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.text() | st.binary()
PLAIN = st.recursive(
    SCALARS | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
).filter(lambda value: depth(value) < HEAD_DEPTH_MAX)
FRAMES = st.lists(st.tuples(st.lists(PLAIN, max_size=6), st.binary(max_size=300)), max_size=8)


def depth(value: object) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


def frame(head: bytes, payload: bytes = b"") -> bytes:
    return struct.pack(">IH", 2 + len(head) + len(payload), len(head)) + head + payload


def read(data: bytes, max_frame_bytes: int = FRAME_BYTES_MAX) -> list[tuple[list[object], bytes]]:
    reader = FrameReader(max_frame_bytes)
    reader.feed(data)
    return [(head, bytes(payload)) for head, payload in reader.frames()]


@pytest.mark.parametrize(("head", "payload", "encoded"), KNOWN)
def test_frames_have_their_known_bytes(head, payload, encoded):
    encoded = bytes.fromhex(encoded.replace(" ", ""))
    assert b"".join(encode_frame(head, [payload])) == encoded
    assert read(encoded) == [(head, payload)]


def test_fed_byte_by_byte_they_are_the_same():
    data = b"".join(bytes.fromhex(encoded.replace(" ", "")) for _, _, encoded in KNOWN)
    reader = FrameReader()
    found = []
    for at in range(len(data)):
        reader.feed(data[at : at + 1])
        found += [(head, bytes(payload)) for head, payload in reader.frames()]
    assert found == [(head, payload) for head, payload, _ in KNOWN]
    assert reader.pending_bytes == 0


@given(FRAMES, st.lists(st.integers(1, 400), max_size=30))
def test_however_the_stream_is_cut_the_frames_are_the_same(frames, cuts):
    data = b"".join(b"".join(encode_frame(head, [payload])) for head, payload in frames)
    reader = FrameReader()
    found = []
    for size in [*cuts, len(data)]:
        reader.feed(data[:size])
        data = data[size:]
        found += [(head, bytes(payload)) for head, payload in reader.frames()]
    assert found == frames
    assert reader.pending_bytes == 0


@given(FRAMES.filter(bool), st.integers(1, 50))
def test_chunks_may_be_collected_before_they_are_looked_at(frames, size):
    data = b"".join(b"".join(encode_frame(head, [payload])) for head, payload in frames)
    reader = FrameReader()
    for at in range(0, len(data), size):
        reader.feed(bytearray(data[at : at + size]))
    assert [(head, bytes(payload)) for head, payload in reader.frames()] == frames


def test_a_payload_within_one_chunk_is_not_copied():
    data = b"".join(encode_frame([1, 1], [b"x" * 100]))
    reader = FrameReader()
    reader.feed(data)
    ((_, payload),) = reader.frames()
    assert payload.obj is data


def test_payload_parts_are_not_copied_when_sending():
    part = memoryview(b"x" * 100)
    assert encode_frame([1, 1], [part, part])[1:] == [part, part]


def test_a_large_frame_in_small_chunks_is_joined_once():
    data = b"".join(encode_frame([1, 1], [bytes(5_000_000)]))
    reader = FrameReader()
    for at in range(0, len(data), 1000):
        assert list(reader.frames()) == []
        reader.feed(data[at : at + 1000])
    ((_, payload),) = reader.frames()
    assert len(payload) == 5_000_000


@pytest.mark.parametrize("size", [999, 1000, 1001])
def test_a_frame_may_be_as_large_as_its_limit(size):
    data = frame(b"\x80", bytes(size - 3))
    if size <= 1000:
        assert len(read(data, 1000)) == 1
        return
    with pytest.raises(BadRequest, match="limit is 1000") as caught:
        read(data[:4], 1000)  # known by the length alone, before anything of it is kept
    assert "max_frame_bytes" in str(caught.value)


def test_a_broken_stream_stays_broken_after_the_frames_before_it():
    reader = FrameReader()
    reader.feed(frame(b"\x81\x01") + b"\xff" * 10)
    frames = reader.frames()
    assert next(frames)[0] == [1]
    for _ in range(2):
        with pytest.raises(BadRequest):
            next(reader.frames())
        reader.feed(frame(b"\x81\x01"))


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0\0\0",
        b"\0\0\0\2\0\0",
        b"\0\0\0\3\0\0\0",
        b"\0\0\0\3\0\2\x80",
        b"\0\0\0\4\xff\xff\x80\x80",
    ],
)
def test_lengths_that_contradict_each_other_are_refused(data):
    with pytest.raises(BadRequest, match="frame cannot be read"):
        read(data)


@pytest.mark.parametrize(
    "head",
    [
        "00",
        "f6",
        "6161",
        "a0",
        "8102 00",
        "81",
        "9b 0f0f0f0f0f0f0f0f",
        "9a ffffffff 00",
        "81 5b 0f0f0f0f0f0f0f0f",
        "81 bb 0f0f0f0f0f0f0f0f",
        "9f 01 ff",
        "81 5f 4161 ff",
        "81 f7",
        "81 f0",
        "81 f8 ff",
        "81 fc",
        "81 62 ffff",
        "81 a2 616101 616102",
        "81 a1 0102",
        "81 a1 416102",
        "81 a1 810102",
        "81 c1 1a 00000000",
        "81 c2 41 01",
        "81 c4 82 1a7fffffff 01",
        "81 d81c 81 d81d 00",
        "81 d81c 80",
        "81 d823 66 28612b292b",
        "81 d9d9f7 01",
        "82 d90100 43616263 d819 00",
        "81" * 9 + "00",
        "81" * 60_000,
    ],
    ids=lambda head: head[:20],
)
def test_heads_that_are_not_plain_lists_are_refused(head):
    with pytest.raises(BadRequest, match="frame cannot be read"):
        read(frame(bytes.fromhex(head.replace(" ", ""))))


def test_a_head_may_be_as_deep_as_its_limit():
    deep: object = 0
    for _ in range(HEAD_DEPTH_MAX):
        deep = [deep]
    assert decode_plain(encode_plain(deep)) == deep
    with pytest.raises(BadRequest):
        decode_plain(encode_plain([deep]))


def test_a_head_may_be_as_long_as_its_limit():
    text = "x" * (HEAD_BYTES_MAX - 4)
    assert read(b"".join(encode_frame([text]))) == [([text], b"")]
    with pytest.raises(ValueError, match="65535"):
        encode_frame([text + "x"])


@pytest.mark.parametrize("value", [memoryview(b"abc"), bytearray(b"abc"), {1: 2}, {"a": {b"b": 1}}, {1}, object()])
def test_nothing_else_gets_into_a_head(value):
    assert not is_plain([1, value])
    with pytest.raises(TypeError):
        encode_frame([1, value])


def test_why_a_view_must_not_get_into_a_head():
    assert cbor2.dumps(memoryview(b"abc")) == cbor2.dumps([97, 98, 99])


@given(st.lists(st.lists(st.integers() | st.just(()) | st.just(memoryview(b"")), max_size=3), max_size=3))
def test_lists_of_lists_are_judged_like_their_items(value):
    assert is_plain(value) == all(type(item) is not memoryview for each in value for item in each)

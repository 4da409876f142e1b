"""Anything may arrive: no bytes make the wire's code raise another error than its own, or take memory for ever."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from plait.wire.batch import (
    CODECS,
    BatchBuilder,
    BatchLimits,
    check_records,
    checksum,
    iterate,
    open_body,
    positions,
    read_header,
    split,
    validate,
)
from plait.wire.compression import compress, decompress
from plait.wire.errors import BadRequest, BatchInvalid, RecordTooLarge
from plait.wire.frames import FrameReader, encode_frame
from plait.wire.header import CRC_START
from plait.wire.messages import REQUESTS, parse_answer, parse_request
from plait.wire.records import read_headers

MAX_BYTES = 1 << 16
LIMITS = BatchLimits(max_record_bytes=100, max_batch_bytes=4096)
REFUSALS = (BatchInvalid, BadRequest, RecordTooLarge)
SMALL = st.binary(max_size=300)


def sound_batch(codec: str = "none") -> bytes:
    builder = BatchBuilder(1000, codec)
    for n in range(8):
        builder.append(b"v" * n * 9, b"key" if n % 2 else None, [("h", b"x"), ("n", None)] if n % 3 else ())
    return builder.build()


BATCHES = [sound_batch(codec) for codec in CODECS]


@st.composite
def mutations(draw: Callable[..., object], originals: list[bytes]) -> bytes:
    """One of the originals with some bytes changed, cut out or put in."""
    data = bytearray(draw(st.sampled_from(originals)))  # type: ignore[arg-type]
    for _ in range(draw(st.integers(0, 6))):  # type: ignore[call-overload]
        at = draw(st.integers(0, max(0, len(data) - 1)))
        end = draw(st.integers(at, min(len(data), at + 12)))  # type: ignore[call-overload]
        data[at:end] = draw(st.binary(max_size=12))  # type: ignore[index]
    return bytes(data)


def sealed(batch: bytes) -> bytes:
    """With the length and CRC that the bytes have, so that what lies behind those checks is reached."""
    changed = bytearray(batch)
    if len(changed) >= CRC_START:
        changed[8:12] = (len(changed) - 12).to_bytes(4, "big")
        changed[CRC_START - 4 : CRC_START] = checksum(changed).to_bytes(4, "big")
    return bytes(changed)


def take(batch: bytes) -> None:
    """All that a broker or client does with a batch from a stranger."""
    with contextlib.suppress(*REFUSALS):
        header = validate(batch, LIMITS)
        body = open_body(batch, header, MAX_BYTES)
        assert len(body) <= MAX_BYTES or header.compression == "none"
        with contextlib.suppress(*REFUSALS):
            positions(body)
        check_records(body, header, LIMITS.max_record_bytes)
    with contextlib.suppress(*REFUSALS):
        split(batch)
    with contextlib.suppress(*REFUSALS):
        for record in iterate(batch, MAX_BYTES):
            _ = record.headers


@given(mutations(BATCHES) | SMALL)
@settings(max_examples=300)
def test_any_bytes_as_a_batch(data):
    take(data)


@given(mutations(BATCHES))
@settings(max_examples=600)
def test_changed_batches_with_a_right_checksum(data):
    take(sealed(data))


@given(mutations([sound_batch()[61:]]) | SMALL, st.integers(-2, 20))
@settings(max_examples=400)
def test_any_bytes_as_records_agree_on_what_is_sound(body, count):
    """What the strict check lets through can be cut into runs, and every record be read."""
    header = read_header(BATCHES[0])
    header.count = count
    try:
        check_records(body, header, 1000)
    except REFUSALS:
        with contextlib.suppress(*REFUSALS):
            positions(body)
    else:
        assert len(positions(body)) == max(count, 0) + 1


@given(SMALL)
def test_any_bytes_as_headers(data):
    with contextlib.suppress(BatchInvalid):
        read_headers(data)


PACKED = {codec: [compress(codec, b"some text that repeats " * 20), compress(codec, b"")] for codec in CODECS}


@given(st.data(), st.sampled_from(CODECS))
@settings(max_examples=600)
def test_any_bytes_as_compressed_data(data, codec):
    packed = data.draw(mutations(PACKED[codec]) | SMALL)
    with contextlib.suppress(BatchInvalid):
        assert len(decompress(codec, packed, 1000)) <= 1000


STREAM = b"".join(
    b"".join(encode_frame(head, [b"payload"]))
    for head in (
        [1, 1, 1, 1, "me", "", {}],
        [21, 2, "q", -1],
        [32, 3, 1, 0, "ack", 0, [[1, 2, 3]]],
        [31, 0, 1, 0, []],
    )
)


@given(mutations([STREAM]) | SMALL, st.integers(1, 64))
@settings(max_examples=400)
def test_any_bytes_as_a_stream_of_frames(data, size):
    reader = FrameReader(4096)
    with contextlib.suppress(BadRequest):
        for at in range(0, len(data), size):
            reader.feed(data[at : at + size])
            for head, payload in reader.frames():
                with contextlib.suppress(BadRequest):
                    parse_request(head)
                with contextlib.suppress(BadRequest):
                    parse_answer(head, payload)
            assert reader.pending_bytes <= 4096 + 4


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from([*REQUESTS, 2, 3, 4, 6, 31, 34]), st.lists(ANYTHING, max_size=8), SMALL)
@settings(max_examples=500)
def test_any_head_of_a_known_kind(kind, fields, payload):
    for head in ([kind, 1, *fields], [kind, *fields]):
        with contextlib.suppress(BadRequest):
            assert parse_request(head).head() == head or head[0] in REQUESTS
        with contextlib.suppress(BadRequest):
            parse_answer(head, memoryview(payload))

"""Messages as lines, and lines as messages."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait import Message, Received
from plait.cli.lines import LineInvalid, Lines, json_of, message_of
from plait.wire.batch import BatchBuilder, encode_batch, iterate

VALUES = st.one_of(st.binary(max_size=40), st.text(max_size=20).map(str.encode))
HEADERS = st.dictionaries(st.text(max_size=8), VALUES, max_size=3)


def received(value: bytes, key: bytes | None, headers: dict[str, bytes]) -> Received:
    builder = BatchBuilder()
    builder.append(value, key, list(headers.items()), timestamp_ms=1_000)
    (record,) = iterate(builder.build())
    return Received(record, 3)


@given(VALUES, st.none() | VALUES, HEADERS)
def test_what_consume_prints_publish_takes(value: bytes, key: bytes | None, headers: dict[str, bytes]) -> None:
    message = message_of(json_of(received(value, key, headers)), 1)
    assert (message.value, message.key, message.timestamp_ms) == (value, key, 1_000)
    assert dict(message.headers or ()) == headers


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (b'{"value": "text"}', b"text"),
        (b'{"value": {"a": [1, null]}}', b'{"a":[1,null]}'),
        (b'{"value": 5}', b"5"),
        (b'{"value_base64": "/w=="}', b"\xff"),
    ],
)
def test_a_value_is_text_or_any_json(line: bytes, value: bytes) -> None:
    assert message_of(line, 1).value == value


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"plain",
        b"[]",
        b"{}",
        b'{"value_base64": "?"}',
        b'{"value": "x", "headers": 3}',
        b'{"value": "x", "timestamp_ms": "now"}',
    ],
)
def test_a_line_that_is_no_message_is_named_by_its_number(line: bytes) -> None:
    with pytest.raises(LineInvalid, match="line 12 is"):
        message_of(line, 12)


def test_a_message_needs_no_key_and_no_headers() -> None:
    batch = encode_batch([b"one"], 1_000)
    (record,) = iterate(batch)
    assert json_of(Received(record, 0)) == b'{"partition":0,"offset":0,"timestamp_ms":1000,"value":"one"}'
    assert isinstance(message_of(b'{"value":"one"}', 1), Message)


async def test_lines_come_whole_however_they_are_written() -> None:
    reading, writing = os.pipe()
    lines = Lines(reading)
    os.write(writing, b"one\ntw")
    assert await lines.next() == [b"one"]
    os.write(writing, b"o\r\n\nthree")
    assert await lines.next() == [b"two", b""]
    os.close(writing)
    assert await lines.next() == [b"three"]
    assert await lines.next() is None
    os.close(reading)

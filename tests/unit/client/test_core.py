"""The connection without a socket: tables of (bytes from the broker, events), whole and byte by byte."""

from __future__ import annotations

from typing import Any

import pytest

from plait.client.core import Answered, ConnectionCore, Ended, Event
from plait.wire.batch import RecordRun
from plait.wire.errors import BadRequest, NotFound, UnsupportedVersion
from plait.wire.frames import FrameReader
from plait.wire.messages import (
    ConsumerGone,
    Deliver,
    Delivered,
    Describe,
    Hello,
    Ok,
    Ping,
    Welcome,
    consumer_gone,
    deliver,
    failed,
    ok,
    parse_request,
    welcome,
)

WELCOME = b"".join(welcome(1, 1, "cluster", 2, 3, {"max_record_bytes": 10}))


def sent_by(core: ConnectionCore[str]) -> list[Any]:
    reader = FrameReader()
    reader.feed(core.outgoing() or b"")
    return [parse_request(head) for head, _ in reader.frames()]


def connected() -> ConnectionCore[str]:
    core: ConnectionCore[str] = ConnectionCore("tests", "space")
    core.outgoing()
    core.feed(WELCOME)
    return core


def test_begins_with_hello_and_takes_welcome() -> None:
    core: ConnectionCore[str] = ConnectionCore("tests", "space")
    [hello] = sent_by(core)
    assert isinstance(hello, Hello)
    assert (hello.client, hello.namespace, hello.min_version) == ("tests", "space", 1)
    assert core.outgoing() is None
    [event] = core.feed(WELCOME)
    assert isinstance(event, Welcome)
    assert core.welcome is event


def test_a_refused_hello_ends_the_connection() -> None:
    core: ConnectionCore[str] = ConnectionCore("tests", "")
    [event] = core.feed(b"".join(failed(1, UnsupportedVersion("too old"))))
    assert isinstance(event, Ended)
    assert isinstance(event.error, UnsupportedVersion)


def test_answers_find_their_requests_in_any_order() -> None:
    core = connected()
    core.request(Ping(0), "first")
    core.request(Describe(0, "x"), "second")
    first, second = sent_by(core)
    data = b"".join([*failed(second.correlation, NotFound("no x")), *ok(first.correlation)])
    answers = core.feed(data)
    assert [each.token for each in answers if isinstance(each, Answered)] == ["second", "first"]
    results = [each.result for each in answers if isinstance(each, Answered)]
    assert isinstance(results[0], NotFound)
    assert isinstance(results[1], Ok)
    assert core.pending == 0


def test_what_has_no_answer_comes_back_when_the_connection_is_lost() -> None:
    core = connected()
    for token in ("a", "b", "c"):
        core.request(Ping(0), token)
    _, second, _ = sent_by(core)
    core.feed(b"".join(ok(second.correlation)))
    assert core.lost() == ["a", "c"]
    assert core.lost() == []


@pytest.mark.parametrize(
    "frame",
    [
        b"".join(ok(77)),
        WELCOME,
        b"\0\0\0\x08\0\x06rubbis",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
    ids=["answer to nothing", "second welcome", "no CBOR", "another protocol"],
)
def test_what_is_not_the_protocol_is_an_error(frame: bytes) -> None:
    with pytest.raises(BadRequest):
        connected().feed(frame)


def unasked() -> tuple[bytes, list[type[Event[str]]]]:
    run = RecordRun(10, 0, False, 0, 2, b"bytes")
    parts = [
        *deliver(4, 0, [Delivered(9, 1, run)]),
        *consumer_gone(4, NotFound("deleted")),
        *failed(0, BadRequest("you")),
    ]
    return b"".join(parts), [Deliver, ConsumerGone, Ended]


def test_takes_what_comes_unasked() -> None:
    data, kinds = unasked()
    assert [type(event) for event in connected().feed(data)] == kinds


def test_takes_bytes_one_by_one() -> None:
    data, kinds = unasked()
    core = connected()
    events = [event for byte in data for event in core.feed(bytes([byte]))]
    assert [type(event) for event in events] == kinds

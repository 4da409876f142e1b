"""A session's rules: the handshake, which mistakes end a connection and which do not, and when reading pauses."""

from __future__ import annotations

import pytest

from plait.wire import messages
from plait.wire.batch import BatchLimits
from plait.wire.errors import InternalError, NotFound, Overloaded, Unavailable
from plait.wire.frames import encode_frame
from plait.wire.messages import Failed, Ok, Welcome
from tests.unit.gateways.native.scripted import (
    Asked,
    Fetched,
    Located,
    Published,
    ScriptedBroker,
    Talk,
    batch,
    errors,
    frame,
    give,
)

# handshake


def test_hello_is_answered_with_who_the_broker_is_and_what_it_takes() -> None:
    talk = Talk(hello=False)
    assert talk.say(messages.Hello(9, 1, 5)) == [
        Welcome(
            9,
            1,
            "cluster",
            1,
            7,
            {
                "max_frame_bytes": talk.session.max_frame_bytes,
                "max_record_bytes": talk.broker.limits.max_record_bytes,
                "max_batch_bytes": talk.broker.limits.max_batch_bytes,
                "features": [messages.FEATURE_NEAREST, messages.FEATURE_WAIT],
            },
        )
    ]
    assert talk.session.established


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (messages.Hello(1, 2, 9), "unsupported_version"),
        (messages.Hello(1, 0, 0), "unsupported_version"),
        (messages.Hello(1, 2, 1), "unsupported_version"),
        (messages.Hello(1, namespace="a.b"), "name_invalid"),
        (messages.Hello(1, namespace="x" * 41), "name_invalid"),
        (messages.Hello(1, namespace="plait"), "name_invalid"),
        (messages.Ping(1), "bad_request"),
        (messages.Describe(1, "orders"), "bad_request"),
    ],
)
def test_a_bad_beginning_ends_the_connection(request_: messages.Request, code: str) -> None:
    talk = Talk(hello=False)
    assert errors(talk.say(request_)) == [(0, code)]
    assert talk.session.closing
    assert talk.events[-1] == "closing"
    assert not talk.broker.asked
    assert talk.say(messages.Hello(2)) == []


def test_the_longest_namespace_is_taken() -> None:
    talk = Talk(hello=False)
    assert isinstance(talk.say(messages.Hello(1, namespace="x" * 40))[0], Welcome)


def test_a_second_hello_changes_nothing() -> None:
    talk = Talk()
    assert errors(talk.say(messages.Hello(2, namespace="other"))) == [(2, "bad_request")]
    talk.say(messages.Describe(3, "orders"))
    assert talk.broker.asked[0].arguments == ("orders",)


# mistakes


@pytest.mark.parametrize(
    ("head", "payload", "answer"),
    [
        ([99, 5], b"", (5, "bad_request")),
        ([4, 5], b"", (5, "bad_request")),
        (["PING", 5], b"", (5, "bad_request")),
        ([5, 5, 1], b"", (5, "bad_request")),
        ([5, 5], b"x", (5, "bad_request")),
        ([11, 5], b"", (5, "bad_request")),
        ([11, 5, 1], b"", (5, "bad_request")),
        ([11, 5, "x" * 1001], b"", (5, "bad_request")),
        ([21, 5, "orders", -2], b"x", (5, "bad_request")),
        ([21, 5, "orders", True], b"x", (5, "bad_request")),
        ([22, 5, "orders", 0, -1, 1, 1], b"", (5, "bad_request")),
        ([23, 5, "orders", 0, "middle"], b"", (5, "bad_request")),
        ([30, 5, 1, "orders", "", 0, 0], b"", (5, "bad_request")),
        ([32, 5, 1, 0, "eat", 0, []], b"", (5, "bad_request")),
        ([32, 5, 1, 0, "ack", 0, [[1, 5, 4]]], b"", (5, "bad_request")),
        ([32, 5, 1, 0, "ack", 0, [[1, 5, 5]]], b"", (5, "not_found")),
        ([33, 5, 1], b"", (5, "not_found")),
    ],
)
def test_a_mistake_in_a_request_is_answered_and_the_connection_goes_on(
    head: list[object], payload: bytes, answer: tuple[int, str]
) -> None:
    talk = Talk()
    talk.session.receive(b"".join(encode_frame(head, [payload])))
    assert errors(talk.heard()) == [answer]
    assert talk.say(messages.Ping(6)) == [Ok(6, [], memoryview(b""))]
    assert not talk.broker.asked


@pytest.mark.parametrize(
    "sent",
    [
        b"\0\0\0\x02\0\0",
        b"\xff\xff\xff\xff\0\0",
        b"\0\0\0\x03\0\x01\xff",
        b"\0\0\0\x03\0\x01\xa0",
        b"\0\0\0\x03\0\x05\x80",
        b"GET / HTTP/1.1\r\n\r\n",
        b"".join(encode_frame([5, 0])),
        b"".join(encode_frame([5, -1])),
        b"".join(encode_frame([5, 1 << 32])),
        b"".join(encode_frame([5, "1"])),
        b"".join(encode_frame([5])),
        b"".join(encode_frame([])),
    ],
)
def test_what_makes_the_stream_meaningless_ends_the_connection(sent: bytes) -> None:
    talk = Talk()
    talk.session.receive(sent + frame(messages.Describe(3, "orders")))
    answers = talk.heard()
    assert errors(answers) == [(0, "bad_request")]
    assert isinstance(answers[0], Failed)
    assert "connection ends" in answers[0].message
    assert talk.session.closing
    assert not talk.broker.asked


def test_a_frame_at_the_limit_is_taken_and_one_above_it_is_not() -> None:
    limits = BatchLimits(max_record_bytes=1000, max_batch_bytes=2000)
    talk = Talk(ScriptedBroker(limits))
    most = talk.session.max_frame_bytes
    empty = len(b"".join(encode_frame([21, 5, "orders", 0])))
    at_limit = b"".join(encode_frame([21, 5, "orders", 0], [bytes(most + 4 - empty)]))
    talk.session.receive(at_limit)
    assert len(talk.broker.calls("publish")) == 1
    talk.session.receive((most + 1).to_bytes(4, "big"))
    (answer,) = talk.heard()
    assert isinstance(answer, Failed)
    assert answer.code == "bad_request"
    assert str(most) in answer.message
    assert "max_frame_bytes" in answer.message


def test_a_conversation_may_arrive_byte_by_byte() -> None:
    talk = Talk(hello=False)
    talk.broker.answers = {"describe": {"name": "orders"}}
    sent = frame(messages.Hello(1)) + frame(messages.Ping(2)) + frame(messages.Describe(3, "orders"))
    answers = []
    for at in range(len(sent)):
        talk.session.receive(sent[at : at + 1])
        answers += talk.heard()
    assert [each.correlation for each in answers if isinstance(each, Ok | Welcome)] == [1, 2, 3]
    assert not talk.session.mid_frame
    assert talk.session.buffered_bytes == 0


def test_an_unfinished_frame_is_noticed() -> None:
    talk = Talk()
    talk.session.receive(frame(messages.Ping(2))[:-1])
    assert talk.session.mid_frame
    assert talk.session.buffered_bytes == len(frame(messages.Ping(2))) - 1


# answers of the broker


def test_answers_come_when_the_broker_has_them_in_any_order() -> None:
    talk = Talk()
    assert talk.say(messages.Describe(2, "a"), messages.Delete(3, "b"), messages.NewProducer(4)) == []
    describe, delete, producer = talk.broker.asked
    give(producer.promise, (17, 0))
    give(delete.promise, None)
    give(describe.promise, {"name": "a"})
    assert talk.heard() == [
        Ok(4, [17, 0], memoryview(b"")),
        Ok(3, [], memoryview(b"")),
        Ok(2, [{"name": "a"}], memoryview(b"")),
    ]
    assert talk.events.count("output") == 2  # once for WELCOME, once for these


def test_errors_keep_code_message_and_details() -> None:
    talk = Talk()
    talk.broker.answers = {"describe": Overloaded("full", reason="rate", retry_after_ms=70, ranges=[(1, 2)])}
    details = {"reason": "rate", "retry_after_ms": 70, "ranges": [[1, 2]]}
    assert talk.say(messages.Describe(2, "a")) == [Failed(2, "overloaded", "full", details)]


def test_a_defect_behind_the_facade_is_logged_and_the_client_sees_no_traceback() -> None:
    talk = Talk()
    defect = ValueError("secret")
    talk.broker.answers = {"describe": defect}
    (answer,) = talk.say(messages.Describe(2, "a"))
    assert isinstance(answer, Failed)
    assert (answer.correlation, answer.code) == (2, "internal")
    assert "secret" not in answer.message
    assert talk.defects == [defect]
    assert not talk.session.closing


def test_an_exception_out_of_the_facade_ends_this_connection_only() -> None:
    talk = Talk()
    talk.broker.ask = lambda *_: 1 // 0  # type: ignore[assignment,method-assign]
    (answer,) = talk.say(messages.Describe(2, "a"), messages.Ping(3))
    assert isinstance(answer, Failed)
    assert (answer.correlation, answer.code) == (0, "internal")
    assert talk.session.closing
    assert isinstance(talk.defects[0], ZeroDivisionError)


def test_an_answer_that_cannot_be_sent_does_not_raise_into_the_broker() -> None:
    talk = Talk()
    talk.say(messages.Describe(2, "a"))
    talk.broker.asked[0].promise.resolve({"name": object()})
    assert errors(talk.heard()) == [(0, "internal")]
    assert isinstance(talk.defects[0], TypeError)


def test_a_long_list_is_answered_whole() -> None:
    talk = Talk()
    found = [{"name": f"queue-{number}", "settings": {"retention_ms": 1000}} for number in range(5000)]
    talk.broker.answers = {"names": found}
    (answer,) = talk.say(messages.ListNames(2, "queue"))
    assert isinstance(answer, Ok)
    assert answer.fields == [found]


# fetching


def test_a_fetch_gives_batches_as_the_payload() -> None:
    talk = Talk()
    one, two = batch(b"one"), batch(b"two", b"three")
    talk.broker.answers = {"fetch": Fetched(0, 3, 3, [one, two]), "locate": Located(2, 0, 3)}
    assert talk.say(messages.Fetch(2, "t", 0, 0, 1000, 50), messages.Locate(3, "t", 0, "end")) == [
        Ok(2, [0, 3, 3], memoryview(one + two)),
        Ok(3, [2, 0, 3], memoryview(b"")),
    ]
    assert talk.broker.calls("fetch")[0].arguments == ("t", 0, 0, 1000, 50, False)


def test_what_a_fetch_may_ask_for_is_bounded() -> None:
    talk = Talk(fetch_bytes_max=5000, fetch_wait_ms_max=100)
    talk.say(messages.Fetch(2, "t", 0, 0, 1 << 30, 1 << 30))
    assert talk.broker.calls("fetch")[0].arguments == ("t", 0, 0, 5000, 100, False)


def test_batches_that_do_not_fit_into_a_frame_are_left_for_the_next_fetch() -> None:
    from plait.wire.batch import assign

    limits = BatchLimits(max_batch_bytes=1500)
    talk = Talk(ScriptedBroker(limits))
    batches = [bytearray(batch(bytes(1000))) for _ in range(3)]
    for number, each in enumerate(batches):
        assign(each, number + 10, 0)
    talk.broker.answers = {"fetch": Fetched(0, 13, 13, [bytes(each) for each in batches])}
    (answer,) = talk.say(messages.Fetch(2, "t", 0, 10, 1500, 0))
    assert isinstance(answer, Ok)
    assert answer.fields == [0, 13, 11]
    assert answer.payload == batches[0]


def test_only_so_many_fetches_wait() -> None:
    talk = Talk(fetches_waiting_max=2, requests_pending_max=1)
    fetch = messages.Fetch(2, "t", 0, 0, 10, 1000)
    assert talk.say(fetch, fetch) == []
    assert errors(talk.say(messages.Fetch(3, "t", 0, 0, 10, 1000))) == [(3, "limit_reached")]
    assert not talk.session.reading_paused  # those that wait do not keep others from being served
    give(talk.broker.asked[0].promise, Fetched(0, 0, 0, []))
    assert len(talk.heard()) == 1
    assert talk.say(fetch) == []
    assert talk.session.fetches_waiting == 2


# pausing


def test_too_many_pending_requests_pause_reading_in_the_middle_of_a_chunk() -> None:
    talk = Talk(requests_pending_max=2)
    talk.say(*(messages.Describe(number, "a") for number in range(2, 9)))
    assert len(talk.broker.asked) == 3
    assert talk.session.reading_paused
    assert talk.session.has_requests
    assert not talk.session.mid_frame
    give(talk.broker.asked[0].promise, {})
    assert talk.session.reading_paused
    give(talk.broker.asked[1].promise, {})
    assert not talk.session.reading_paused
    assert talk.events[-1] == "resumed"
    talk.session.proceed()
    assert len(talk.broker.asked) == 5


def test_what_arrives_while_reading_is_paused_is_kept() -> None:
    talk = Talk(requests_pending_max=0)
    talk.say(messages.Describe(2, "a"))
    assert talk.say(messages.Ping(3)) == []
    give(talk.broker.asked[0].promise, {})
    talk.session.proceed()
    assert [each.correlation for each in talk.heard() if isinstance(each, Ok)] == [2, 3]


def test_a_crowded_outbox_pauses_reading_until_it_is_taken() -> None:
    talk = Talk(outbox_bytes_high=1000, outbox_bytes_low=500)
    talk.broker.answers = {"describe": {"name": "x" * 600}}
    talk.session.receive(b"".join(frame(messages.Describe(number, "a")) for number in range(2, 9)))
    assert len(talk.broker.asked) == 2
    assert talk.session.reading_paused
    assert len(talk.heard()) == 2
    assert not talk.session.reading_paused
    assert "resumed" in talk.events


# ending


def test_a_client_that_leaves_abandons_what_it_asked() -> None:
    talk = Talk()
    talk.say(
        messages.Describe(2, "a"), messages.Fetch(3, "t", 0, 0, 1, 1), messages.Publish(4, "t", 0), payload=b""
    )
    talk.session.receive(frame(messages.Publish(5, "t", 0), batch()))
    talk.session.close()
    assert [each.promise.abandoned for each in talk.broker.asked] == [True] * len(talk.broker.asked)
    assert talk.broker.gone_clients == ["native/1"]
    for each in talk.broker.asked:
        give(each.promise, {})
    assert talk.heard() == []
    assert talk.defects == []


def test_a_broker_that_stops_answers_what_is_under_way_first() -> None:
    talk = Talk()
    talk.session.receive(frame(messages.Publish(2, "t", 0), batch()))
    talk.say(messages.Fetch(3, "t", 0, 0, 1, 1))
    talk.session.finish(Unavailable("broker is shutting down"))
    assert talk.say(messages.Ping(4)) == []
    give(talk.broker.calls("publish")[0].promise, Published())
    heard = talk.heard()
    assert [each.correlation for each in heard if isinstance(each, Ok)] == [2]
    assert errors(heard) == [(0, "unavailable")]
    assert talk.session.closing


def test_a_broker_that_stops_ends_idle_sessions_at_once() -> None:
    talk = Talk()
    talk.session.finish(Unavailable("broker is shutting down"))
    assert errors(talk.heard()) == [(0, "unavailable")]
    talk.session.end(InternalError("again"))
    assert talk.heard() == []


# namespaces


def in_namespace(answers: dict[str, object]) -> Talk:
    talk = Talk(hello=False)
    talk.broker.answers = answers
    talk.say(messages.Hello(1, namespace="tests-7"))
    return talk


def test_every_name_is_made_full() -> None:
    talk = in_namespace({})
    talk.say(
        messages.Create(2, "queue", "a", {"dead_letter": "b", "partitions": 3}),
        messages.Describe(3, "a"),
        messages.Delete(4, "a"),
        messages.Locate(5, "a", 0, "start"),
        messages.Fetch(6, "a", 0, 0, 1, 1),
        messages.Commit(7, "sub", "a", [(0, 5)]),
        messages.Committed(8, "sub", "a"),
        messages.Subscriptions(9, "a"),
        messages.Consume(10, 1, "a", "", 5, 0),
    )
    talk.session.receive(frame(messages.Publish(11, "a", 0), batch()))
    named: list[Asked] = talk.broker.asked
    assert [next(word for word in each.arguments if str(word).startswith("tests-7.")) for each in named] == [
        "tests-7.a"
    ] * 5 + ["tests-7.sub"] * 2 + ["tests-7.a"] * 3
    assert named[0].arguments == ("queue", "tests-7.a", {"dead_letter": "tests-7.b", "partitions": 3})
    assert named[5].arguments == ("tests-7.sub", "tests-7.a", [(0, 5)])


def test_names_in_answers_are_the_clients_own() -> None:
    description = {"name": "tests-7.a", "settings": {"dead_letter": "tests-7.b", "lease_ms": 1}}
    others = [{"name": "a"}, {"name": "tests-70.a"}, {"name": "tests-7"}]
    talk = in_namespace({"describe": description, "names": [*others, description]})
    seen = {"name": "a", "settings": {"dead_letter": "b", "lease_ms": 1}}
    assert talk.say(messages.Describe(2, "a"), messages.ListNames(3, "")) == [
        Ok(2, [seen], memoryview(b"")),
        Ok(3, [[seen]], memoryview(b"")),
    ]
    assert description["name"] == "tests-7.a"  # the broker's own map is left alone


def test_names_in_errors_are_the_clients_own() -> None:
    error = NotFound("no queue 'tests-7.a', see my-tests-7.a and tests-7. Sorry", name="tests-7.a")
    talk = in_namespace({"describe": error})
    assert talk.say(messages.Describe(2, "a")) == [
        Failed(2, "not_found", "no queue 'a', see my-tests-7.a and tests-7. Sorry", {"name": "a"})
    ]

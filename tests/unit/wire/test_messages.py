"""The native protocol: every message's bytes, every field's limits, and what either side makes of nonsense."""

from __future__ import annotations

import pytest

from plait.wire import errors, messages
from plait.wire.batch import RecordRun
from plait.wire.fields import I31_MAX, I63_MAX, SETTINGS_MAX, TEXT_CHARACTERS_MAX, U32_MAX
from plait.wire.frames import FrameReader, encode_frame
from plait.wire.messages import (
    Answer,
    Assigned,
    Cancel,
    ChangeNode,
    ClusterStatus,
    Commit,
    Committed,
    Consume,
    ConsumerGone,
    Create,
    Delete,
    Deliver,
    Delivered,
    Describe,
    Described,
    DescribeGroup,
    Failed,
    Fetch,
    Fetched,
    Groups,
    Heartbeat,
    Hello,
    Join,
    Leave,
    Listed,
    ListNames,
    Locate,
    Located,
    MemberCommit,
    NewProducer,
    Nothing,
    Ok,
    Ping,
    Positions,
    ProducerMade,
    Publish,
    Published,
    Resize,
    Settle,
    Settled,
    Subscriptions,
    Welcome,
    correlation_of,
    parse_answer,
    parse_request,
    read_result,
)

RUN = RecordRun(100, 1700, False, 2, 3, memoryview(b"three"))
APPENDED = RecordRun(200, 1800, True, 0, 1, memoryview(b"one"))

REQUESTS = [
    (Hello(1, 1, 1, "me", "ns", {}), "87 01 01 01 01 626d65 626e73 a0"),
    (Ping(2), "82 05 02"),
    (Create(3, "queue", "q", {"partitions": 2}), "85 0a 03 657175657565 6171 a1 6a706172746974696f6e73 02"),
    (Describe(4, "q"), "83 0b 04 6171"),
    (Delete(5, "q"), "83 0c 05 6171"),
    (ListNames(6, ""), "83 0d 06 60"),
    (ClusterStatus(6), "82 0e 06"),
    (Resize(6, "t", 3, 0), "85 0f 06 61 74 03 00"),
    (ChangeNode(6, 2, "leaving"), "84 10 06 02 67 6c656176696e67"),
    (NewProducer(7), "82 14 07"),
    (Publish(8, "q", -1), "84 15 08 6171 20"),
    (Publish(8, "q", 0, wait_ms=3), "85 15 08 6171 00 03"),
    (Fetch(9, "t", 0, 1 << 32, 65536, 500), "87 16 09 6174 00 1b0000000100000000 1a00010000 1901f4"),
    (Fetch(9, "t", 0, 1, 2, 3, nearest=True), "88 16 09 6174 00 01 02 03 f5"),
    (Locate(10, "t", 1, "start"), "85 17 0a 6174 01 657374617274"),
    (Locate(10, "t", 1, 1700), "85 17 0a 6174 01 1906a4"),
    (Commit(11, "s", "t", [(0, 5), (1, 6)]), "85 1818 0b 6173 6174 82 820005 820106"),
    (Committed(12, "s", "t"), "84 1819 0c 6173 6174"),
    (Consume(13, 1, "q", "", 50, 30000), "87 181e 0d 01 6171 60 1832 197530"),
    (Settle(14, 1, 0, "ack", 0, [(9, 3, 4)]), "87 1820 0e 01 00 6361636b 00 81 83090304"),
    (Cancel(15, 1), "83 1821 0f 01"),
    (Subscriptions(16, "t"), "83 1823 10 6174"),
    (Join(17, "s", "m", "c", ["t", "u"], 10000), "87 1828 11 6173 616d 6163 82 6174 6175 192710"),
    (Heartbeat(18, "s", "m", 3, 4, 5000), "87 1829 12 6173 616d 03 04 191388"),
    (Leave(19, "s", "m"), "84 182a 13 6173 616d"),
    (MemberCommit(20, "s", "m", 4, "t", [(0, 5)]), "87 182b 14 6173 616d 04 6174 81 820005"),
    (Groups(21), "82 182c 15"),
    (DescribeGroup(22, "s"), "83 182d 16 6173"),
]
OVERLOADED = errors.Overloaded("full", reason="backlog", retry_after_ms=50)
ANSWERS = [
    (
        messages.welcome(1, 1, "c1", 2, 3, {"max_frame_bytes": 9}),
        Welcome(1, 1, "c1", 2, 3, {"max_frame_bytes": 9}),
        "87 02 01 01 626331 02 03 a1 6f6d61785f6672616d655f6279746573 09",
    ),
    (messages.ok(2), Ok(2, [], memoryview(b"")), "82 03 02"),
    (messages.ok(3, 7, True), Ok(3, [7, True], memoryview(b"")), "84 03 03 07 f5"),
    (messages.ok(4, 1, payload=[b"ab", b"c"]), Ok(4, [1], memoryview(b"abc")), "83 03 04 01 | 616263"),
    (
        messages.failed(5, OVERLOADED),
        Failed(5, "overloaded", "full", {"reason": "backlog", "retry_after_ms": 50}),
        "85 04 05 6a6f7665726c6f61646564 6466756c6c a2 66726561736f6e 676261636b6c6f67"
        "6e72657472795f61667465725f6d73 1832",
    ),
    (
        messages.deliver(1, 0, [Delivered(9, 1, RUN), Delivered(10, 2, APPENDED)]),
        Deliver(1, 0, [Delivered(9, 1, RUN), Delivered(10, 2, APPENDED)]),
        "85 181f 00 01 00 82 88 09 1864 1906a4 02 03 01 00 05 88 0a 18c8 190708 00 01 02 01 03| 7468726565 6f6e65",
    ),
    (
        messages.consumer_gone(1, errors.NotFound("deleted")),
        ConsumerGone(1, "not_found", "deleted"),
        "85 1822 00 01 696e6f745f666f756e64 6764656c65746564",
    ),
]


def one_frame(parts) -> tuple[list[object], memoryview]:
    reader = FrameReader()
    reader.feed(b"".join(parts))
    (found,) = reader.frames()
    return found


def answer(parts) -> Answer:
    return parse_answer(*one_frame(parts))


def pinned(encoded: str) -> bytes:
    head, _, payload = encoded.replace(" ", "").partition("|")
    size = len(head) // 2
    return (
        (2 + size + len(payload) // 2).to_bytes(4, "big") + size.to_bytes(2, "big") + bytes.fromhex(head + payload)
    )


@pytest.mark.parametrize(("request_", "encoded"), REQUESTS)
def test_requests_have_their_known_bytes_and_come_back(request_, encoded):
    frame = b"".join(encode_frame(request_.head()))
    assert frame.hex(" ") == pinned(encoded).hex(" ")
    assert parse_request(one_frame([frame])[0]) == request_


@pytest.mark.parametrize(("parts", "meaning", "encoded"), ANSWERS)
def test_answers_have_their_known_bytes_and_come_back(parts, meaning, encoded):
    assert b"".join(parts).hex(" ") == pinned(encoded).hex(" ")
    assert answer(parts) == meaning


def test_the_tables_of_this_test_are_complete():
    assert {type(each) for each, _ in REQUESTS} == {each.kind for each in messages.REQUESTS.values()}
    kinds = {
        messages.WELCOME,
        messages.OK,
        messages.LONG_OK,
        messages.ERROR,
        messages.DELIVER,
        messages.CONSUMER_GONE,
    }
    assert not kinds & set(messages.REQUESTS)


U32 = [(-1, False), (0, True), (U32_MAX, True), (U32_MAX + 1, False), (True, False), ("1", False), (1.0, False)]
PARTITION = [(-1, False), (0, True), (I31_MAX, True), (I31_MAX + 1, False), (None, False)]
MS = PARTITION
TEXT = [
    ("", True),
    ("x" * TEXT_CHARACTERS_MAX, True),
    ("x" * (TEXT_CHARACTERS_MAX + 1), False),
    (b"q", False),
    (1, False),
]
MAP = [
    ({}, True),
    ({str(n): n for n in range(SETTINGS_MAX)}, True),
    ({str(n): n for n in range(SETTINGS_MAX + 1)}, False),
]
MAP += [([], False), (None, False)]
KIND = [("topic", True), ("queue", True), ("stream", False), (1, False)]
POSITIONS = [
    ([], True),
    ([[0, 0]] * messages.POSITIONS_MAX, True),
    ([[0, 0]] * (messages.POSITIONS_MAX + 1), False),
]
POSITIONS += [
    ([[0]], False),
    ([[0, -1]], False),
    ([[0, I63_MAX]], True),
    ([[0, I63_MAX + 1]], False),
    ([0, 0], False),
]
POSITIONS += [([[0, True]], False), ([[0, "1"]], False), ("ab", False), ([[0, 1], [0, 1, 2]], False)]
RANGES = [
    ([], True),
    ([[1, 2, 2]], True),
    ([[1, 3, 2]], False),
    ([[1, -1, 2]], False),
    ([[1, 2]], False),
    ({}, False),
]
RANGES += [
    ([[1, 2, 3]] * messages.SETTLE_RANGES_MAX, True),
    ([[1, 2, 3]] * (messages.SETTLE_RANGES_MAX + 1), False),
]
VERSION = [(-1, False), (0, True), (255, True), (256, False)]
OFFSET = [(-1, False), (0, True), (I63_MAX, True), (I63_MAX + 1, False)]
AT = [
    ("start", True),
    ("end", True),
    (0, True),
    (I63_MAX, True),
    (I63_MAX + 1, False),
    (-1, False),
    ("now", False),
]
AT += [(True, False), (None, False), ([], False)]

TOPICS = [
    ([], True),
    (["t"] * messages.JOIN_TOPICS_MAX, True),
    (["t"] * (messages.JOIN_TOPICS_MAX + 1), False),
    ([1], False),
    (["x" * (TEXT_CHARACTERS_MAX + 1)], False),
    ("t", False),
]

FIELDS = [
    (
        Hello(1),
        {"min_version": VERSION, "max_version": VERSION, "client": TEXT, "namespace": TEXT, "options": MAP},
    ),
    (Ping(1), {"correlation": [(0, False), *U32[2:]]}),
    (Create(1, "queue", "q", {}), {"kind": [*KIND, ("", False)], "name": TEXT, "settings": MAP}),
    (Describe(1, "q"), {"name": TEXT}),
    (Delete(1, "q"), {"name": TEXT}),
    (ListNames(1, ""), {"kind": [*KIND, ("", True)]}),
    (NewProducer(1), {"correlation": U32[3:]}),
    (Publish(1, "q", 0), {"name": TEXT, "partition": [(-2, False), (-1, True), *PARTITION[1:]]}),
    (Publish(1, "q", 0, wait_ms=0), {"wait_ms": MS}),
    (
        Fetch(1, "t", 0, 0, 0, 0),
        {"name": TEXT, "partition": PARTITION, "offset": OFFSET, "max_bytes": MS, "wait_ms": MS},
    ),
    (Fetch(1, "t", 0, 0, 0, 0, nearest=True), {"nearest": [(True, True), (False, True), (1, False)]}),
    (Locate(1, "t", 0, 0), {"name": TEXT, "partition": PARTITION, "at": AT}),
    (Commit(1, "s", "t", []), {"subscription": TEXT, "name": TEXT, "positions": POSITIONS}),
    (Committed(1, "s", "t"), {"subscription": TEXT, "name": TEXT}),
    (
        Consume(1, 1, "q", "", 1, 0),
        {
            "tag": U32,
            "name": TEXT,
            "subscription": TEXT,
            "prefetch": [(0, False), (1, True), *MS[2:]],
            "lease_ms": MS,
        },
    ),
    (
        Settle(1, 1, 0, "ack", 0, []),
        {
            "tag": U32,
            "partition": PARTITION,
            "action": [("ack", True), ("return", True), ("extend", True), ("nack", False), (0, False)],
            "extend_ms": MS,
            "ranges": RANGES,
        },
    ),
    (Cancel(1, 1), {"tag": U32}),
    (Subscriptions(1, "t"), {"name": TEXT}),
    (
        Join(1, "s", "m", "c", [], 1),
        {"subscription": TEXT, "member": TEXT, "client": TEXT, "topics": TOPICS, "session_ms": MS},
    ),
    (
        Heartbeat(1, "s", "m", 0, 0, 0),
        {"subscription": TEXT, "member": TEXT, "acknowledged": OFFSET, "known": OFFSET, "wait_ms": MS},
    ),
    (Leave(1, "s", "m"), {"subscription": TEXT, "member": TEXT}),
    (
        MemberCommit(1, "s", "m", 0, "t", []),
        {"subscription": TEXT, "member": TEXT, "generation": OFFSET, "name": TEXT, "positions": POSITIONS},
    ),
    (Groups(1), {"correlation": U32[3:]}),
    (DescribeGroup(1, "s"), {"subscription": TEXT}),
]
CASES = [
    pytest.param(request_, field, value, passes, id=f"{type(request_).__name__}-{field}-{value!r:.20}-{passes}")
    for request_, fields in FIELDS
    for field, values in fields.items()
    for value, passes in values
]


@pytest.mark.parametrize(("request_", "field", "value", "passes"), CASES)
def test_each_field_is_held_to_its_type_and_range(request_, field, value, passes):
    names = [name for name, _ in messages.REQUESTS[request_.KIND].checks]
    head = request_.head()
    head[1 + names.index(field)] = value
    if passes:
        assert parse_request(head).head()[0] == request_.KIND
        return
    with pytest.raises(errors.BadRequest, match=f": {field} ") as caught:
        parse_request(head)
    assert caught.value.details == {"field": field}


@pytest.mark.parametrize("request_", [each for each, _ in REQUESTS])
def test_a_field_too_few_or_too_many_is_refused(request_):
    optional = messages.REQUESTS[request_.KIND].optional
    fields = len(messages.REQUESTS[request_.KIND].checks)
    for head in (request_.head()[: fields - optional], [*request_.head(), *[0] * (1 + optional)]):
        with pytest.raises(errors.BadRequest, match=r"fields? \(correlation"):
            parse_request(head)


@pytest.mark.parametrize(
    "head", [[], [0, 1], [2, 1], [99, 1], ["1", 1], [True, 1], [[], 1], [None], [1.0, 1], [{}]]
)
def test_an_unknown_kind_is_refused(head):
    with pytest.raises(errors.BadRequest, match="kind"):
        parse_request(head)


@pytest.mark.parametrize(
    ("head", "correlation"),
    [([5, 7], 7), ([99, U32_MAX, None], U32_MAX), ([5], 0), ([], 0), ([5, "7"], 0), ([5, -1], 0), ([5, True], 0)],
)
def test_the_correlation_of_a_bad_head_is_found_if_there_is_one(head, correlation):
    assert correlation_of(head) == correlation


def test_full_lists_fit_into_a_head_whatever_their_numbers():
    large = I63_MAX
    encode_frame(Settle(1, 1, 0, "return", 0, [(large, large, large)] * messages.SETTLE_RANGES_MAX).head())
    encode_frame(Commit(1, "s" * 1000, "t" * 1000, [(I31_MAX, large)] * messages.POSITIONS_MAX).head())
    positions = [(I31_MAX, large)] * messages.POSITIONS_MAX
    encode_frame(MemberCommit(1, "s" * 1000, "m" * 1000, large, "t" * 1000, positions).head())
    run = RecordRun(large, large, True, large, large, b"")
    messages.deliver(U32_MAX, I31_MAX, [Delivered(large, large, run)] * messages.DELIVER_RUNS_MAX)


@pytest.mark.parametrize(
    ("result", "fields"),
    [
        (Nothing(), []),
        (Described({"name": "q"}), [{"name": "q"}]),
        (Assigned(7, {"t": [0, 2]}), [7, {"t": [0, 2]}]),
        (Listed([{"name": "q"}, {"name": "r"}]), [[{"name": "q"}, {"name": "r"}]]),
        (ProducerMade(5, 0), [5, 0]),
        (Published(0, 17, 1700, 0, True), [0, 17, 1700, 0, True]),
        (Published(0, 17, 1700, 0, True, 3, "host:1"), [0, 17, 1700, 0, True, 3, "host:1"]),
        (Fetched(0, 9, 5), [0, 9, 5]),
        (Located(3, 0, 9), [3, 0, 9]),
        (Positions([(0, 5)]), [[[0, 5]]]),
        (Settled(3, [(4, 6)]), [3, [[4, 6]]]),
    ],
)
def test_results_are_typed(result, fields):
    found = answer(messages.ok(1, *fields))
    assert isinstance(found, Ok)
    assert read_result(type(result), found) == result
    with pytest.raises(errors.BadRequest):
        read_result(type(result), Ok(1, [*fields, "more"], memoryview(b"")))
    if fields:
        with pytest.raises(errors.BadRequest):
            read_result(type(result), Ok(1, [None] * len(fields), memoryview(b"")))


def test_an_answer_too_long_for_a_head_goes_as_a_long_one():
    descriptions = [{"name": f"queue {n}", "settings": {"lease_ms": 30_000}} for n in range(10_000)]
    found = answer(messages.ok(1, descriptions))
    assert isinstance(found, Ok)
    assert read_result(Listed, found) == Listed(descriptions)
    assert found.correlation == 1


def test_an_error_keeps_its_class_and_details():
    found = answer(messages.failed(1, OVERLOADED))
    assert isinstance(found, Failed)
    error = found.error()
    assert type(error) is errors.Overloaded
    assert error.retry_after_s == 0.05
    gone = answer(messages.consumer_gone(1, errors.NotFound("deleted")))
    assert isinstance(gone, ConsumerGone)
    assert type(gone.error()) is errors.NotFound


@pytest.mark.parametrize(
    "details", [{"what": object(), "kept": 1}, {"what": memoryview(b""), "kept": 1}, {"what": {1: 2}, "kept": 1}]
)
def test_details_that_cannot_be_sent_are_left_out(details):
    found = answer(messages.failed(1, errors.BadRequest("no", **details)))
    assert found == Failed(1, "bad_request", "no", {"kept": 1})


def test_an_error_can_always_be_sent():
    long = errors.BadRequest("x" * 100_000 + "\ud800", why="y" * 100_000)
    found = answer(messages.failed(1, long))
    assert isinstance(found, Failed)
    assert found.message == "x" * messages.MESSAGE_CHARACTERS_MAX
    found = answer(messages.failed(1, errors.BadRequest("\ud800", why="\ud800")))
    assert found == Failed(1, "bad_request", "?", {})


ROW = [1, 100, 1700, 0, 1, 1, 0, 3]


@pytest.mark.parametrize(
    "head",
    [
        [],
        [99],
        [messages.OK],
        [messages.OK, "1"],
        [messages.LONG_OK, 1],
        [messages.ERROR, 1, 2, 3, {}],
        [messages.WELCOME, 1],
        [messages.CONSUMER_GONE, 0, 1],
        [messages.DELIVER, 0, 1, 0],
        [messages.DELIVER, 0, "1", 0, []],
        [messages.DELIVER, 0, 1, 0, [ROW[:-1]]],
        [messages.DELIVER, 0, 1, 0, [[*ROW[:-1], 2]]],
        [messages.DELIVER, 0, 1, 0, [[*ROW[:-1], 4]]],
        [messages.DELIVER, 0, 1, 0, [[*ROW[:-1], -3]]],
        [messages.DELIVER, 0, 1, 0, [[1, 100, 1700, -1, 1, 1, 0, 3]]],
    ],
)
def test_the_client_refuses_answers_that_make_no_sense(head):
    with pytest.raises(errors.BadRequest):
        parse_answer(head, memoryview(b"abc"))


def test_the_sound_row_of_these_tests_passes():
    found = parse_answer([messages.DELIVER, 0, 1, 0, [ROW]], memoryview(b"abc"))
    assert found == Deliver(1, 0, [Delivered(1, 1, RecordRun(100, 1700, False, 0, 1, memoryview(b"abc")))])


def test_a_long_answer_that_is_no_list_is_refused():
    for payload in (b"\x01", b"", b"\x81", b"\xa0"):
        with pytest.raises(errors.BadRequest):
            parse_answer([messages.LONG_OK, 1], memoryview(payload))

"""Whatever a client sends, a session answers it or ends with an ERROR; it never raises, and has no defect."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from node.consumer_groups import GroupAssignment
from plait.wire import messages
from plait.wire.errors import NotFound, Overloaded
from plait.wire.frames import encode_frame
from plait.wire.messages import ConsumerGone, Deliver, Failed, Ok, Welcome
from tests.unit.gateways.native.scripted import (
    Fetched,
    Located,
    Published,
    ScriptedAttachment,
    ScriptedBroker,
    Settled,
    Talk,
    batch,
    frame,
    give,
)
from tests.unit.gateways.native.test_consuming import leased

CORRELATIONS = st.integers(1, 50)
NAMES = st.sampled_from(["orders", "jobs", "", "plait.offsets", "a" * 300, "\x00", "é", "../x"])
NUMBERS = st.one_of(st.integers(0, 4), st.integers(0, 2**31 - 1))
TAGS = st.integers(0, 3)
RANGES = st.lists(st.tuples(NUMBERS, st.integers(0, 10), st.integers(10, 20)), max_size=4)

REQUESTS = st.one_of(
    st.builds(messages.Hello, CORRELATIONS, namespace=NAMES),
    st.builds(messages.Ping, CORRELATIONS),
    st.builds(messages.Create, CORRELATIONS, st.sampled_from(["topic", "queue"]), NAMES, st.just({"lease_ms": 5})),
    st.builds(messages.Describe, CORRELATIONS, NAMES),
    st.builds(messages.Delete, CORRELATIONS, NAMES),
    st.builds(messages.ListNames, CORRELATIONS, st.sampled_from(["topic", "queue", ""])),
    st.builds(messages.NewProducer, CORRELATIONS),
    st.builds(messages.Publish, CORRELATIONS, NAMES, st.integers(-1, 3)),
    st.builds(messages.Fetch, CORRELATIONS, NAMES, NUMBERS, NUMBERS, NUMBERS, NUMBERS),
    st.builds(messages.Locate, CORRELATIONS, NAMES, NUMBERS, st.sampled_from(["start", "end", 0, 2**40])),
    st.builds(messages.Commit, CORRELATIONS, NAMES, NAMES, st.lists(st.tuples(NUMBERS, NUMBERS), max_size=3)),
    st.builds(messages.Committed, CORRELATIONS, NAMES, NAMES),
    st.builds(messages.Consume, CORRELATIONS, TAGS, NAMES, NAMES, st.integers(1, 10), NUMBERS),
    st.builds(
        messages.Settle, CORRELATIONS, TAGS, NUMBERS, st.sampled_from(["ack", "return", "extend"]), NUMBERS, RANGES
    ),
    st.builds(messages.Cancel, CORRELATIONS, TAGS),
    st.builds(messages.Subscriptions, CORRELATIONS, NAMES),
    st.builds(messages.ClusterStatus, CORRELATIONS),
    st.builds(messages.Resize, CORRELATIONS, NAMES, st.integers(0, 9), st.integers(0, 9)),
    st.builds(messages.ChangeNode, CORRELATIONS, st.integers(1, 9), st.sampled_from(["active", "leaving"])),
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
HEADS = st.tuples(st.sampled_from([*messages.REQUESTS, 0, 2, 3, 4, 31, 99]), PLAIN | CORRELATIONS).flatmap(
    lambda start: st.lists(PLAIN | NAMES | TAGS, max_size=7).map(lambda rest: [*start, *rest])
)
SMALL = {
    "requests_pending_max": 5,
    "fetches_waiting_max": 3,
    "consumers_max": 2,
    "publish_in_flight_bytes": 200,
    "outbox_bytes_high": 3_000,
    "outbox_bytes_low": 1_000,
}


class Careless(ScriptedBroker):
    """A broker that answers what a test draws, now or later, and delivers to whoever is attached."""

    def __init__(self, data: st.DataObject) -> None:
        super().__init__()
        self._data = data
        self.attached: list[ScriptedAttachment] = []
        self.consumers: list[tuple[Any, Any]] = []

    def ask(self, method: str, *arguments: Any) -> Any:
        promise = super().ask(method, *arguments)
        if method == "attach":
            self.consumers.append(arguments[3:])
        if self._data.draw(st.booleans(), label=f"{method} now"):
            self.answer(-1)
        return promise

    def answer(self, number: int) -> None:
        """Give the answer to something that was asked."""
        asked = self.asked[number]
        if asked.promise.done:
            return
        values: dict[str, Any] = {
            "create": {"name": "orders"},
            "describe": {"name": "orders", "settings": {"dead_letter": ""}},
            "delete": None,
            "names": [{"name": "orders"}],
            "new_producer": (1, 0),
            "subscriptions": [{"subscription": ""}],
            "cluster_status": {"nodes": []},
            "change_node": None,
            "resize": {"name": "orders"},
            "publish": Published(),
            "fetch": Fetched(0, 1, 1, [batch()]),
            "locate": Located(0, 0, 1),
            "commit": None,
            "committed": [(0, 1)],
            "settle": Settled(1, [(0, 0)]),
            "detach": None,
            "groups.join": GroupAssignment(1, {"orders": [0]}),
            "groups.heartbeat": GroupAssignment(1, {"orders": [0]}),
            "groups.leave": None,
            "groups.commit": None,
            "groups.names": [{"name": "g", "topics": ["orders"]}],
            "groups.describe": {"name": "g", "topics": [{"name": "orders"}]},
        }
        if self._data.draw(st.integers(0, 3), label="fails") == 0:
            give(asked.promise, NotFound("no 'orders'"))
        elif asked.method == "attach":
            self.attached.append(ScriptedAttachment(self))
            asked.promise.resolve(self.attached[-1])
        else:
            give(asked.promise, values[asked.method])

    def interrupt(self) -> None:
        """Deliver to, or end, somebody."""
        if self.consumers:
            deliver, gone = self._data.draw(st.sampled_from(self.consumers), label="consumer")
            if self._data.draw(st.booleans(), label="deliver"):
                deliver(0, [leased(b"one", b"two")])
            else:
                gone(Overloaded("moved"))


def converse(talk: Talk, broker: Careless, sent: bytes, data: st.DataObject) -> list[messages.Answer]:
    """Send bytes in pieces, while the broker answers and delivers as it likes; all that is said back."""
    heard: list[messages.Answer] = []
    at = 0
    while at < len(sent):
        size = data.draw(st.integers(1, max(1, len(sent) - at)), label="piece")
        talk.session.receive(sent[at : at + size])
        at += size
        if broker.asked:
            broker.answer(data.draw(st.integers(0, len(broker.asked) - 1), label="answer"))
        broker.interrupt()
        heard += talk.heard()
    number = 0
    while number < len(broker.asked) or (talk.session.has_requests and not talk.session.reading_paused):
        while number < len(broker.asked):
            broker.answer(number)
            number += 1
        heard += talk.heard()
        talk.session.proceed()
        heard += talk.heard()
    return heard


def check(talk: Talk, broker: Careless, heard: list[messages.Answer]) -> None:
    """What must hold in the end."""
    assert talk.defects == []
    ends = [number for number, each in enumerate(heard) if isinstance(each, Failed) and each.correlation == 0]
    assert ends == ([len(heard) - 1] if talk.session.closing else [])
    assert all(isinstance(each, Ok | Failed | Welcome | Deliver | ConsumerGone) for each in heard)
    talk.session.close()
    for number in range(len(broker.asked)):
        broker.answer(number)
    broker.interrupt()
    assert talk.heard() == []
    assert all(each.detached <= 1 for each in broker.attached)
    assert talk.session.publishing.in_flight_bytes == 0
    assert talk.session.buffered_bytes == 0


@given(st.binary(max_size=200), st.booleans(), st.data())
@settings(max_examples=150)
def test_arbitrary_bytes(sent: bytes, after_hello: bool, data: st.DataObject) -> None:
    broker = Careless(data)
    talk = Talk(broker, hello=after_hello)
    check(talk, broker, converse(talk, broker, sent, data))


@given(st.lists(HEADS, max_size=5), st.binary(max_size=10), st.data())
@settings(max_examples=150)
def test_heads_of_any_shape(heads: list[list[Any]], payload: bytes, data: st.DataObject) -> None:
    broker = Careless(data)
    talk = Talk(broker)
    sent = b"".join(b"".join(encode_frame(head, [payload])) for head in heads)
    check(talk, broker, converse(talk, broker, sent, data))


def conversation(requests: list[messages.Request]) -> bytes:
    return b"".join(frame(each, batch() if isinstance(each, messages.Publish) else b"") for each in requests)


@given(st.lists(REQUESTS, max_size=25), st.data())
@settings(max_examples=150)
def test_every_valid_request_is_answered_exactly_once(
    requests: list[messages.Request], data: st.DataObject
) -> None:
    broker = Careless(data)
    talk = Talk(broker, **SMALL)
    heard = converse(talk, broker, conversation(requests), data)
    answered = [each.correlation for each in heard if isinstance(each, Ok | Failed)]
    assert sorted(answered) == sorted(each.correlation for each in requests)
    assert not talk.session.closing
    check(talk, broker, heard)


@given(st.lists(REQUESTS, min_size=1, max_size=10), st.data())
@settings(max_examples=200)
def test_a_valid_conversation_that_was_damaged(requests: list[messages.Request], data: st.DataObject) -> None:
    broker = Careless(data)
    talk = Talk(broker, **SMALL)
    sent = bytearray(conversation(requests))
    for _ in range(data.draw(st.integers(1, 3), label="damages")):
        at = data.draw(st.integers(0, len(sent) - 1), label="place") if sent else 0
        what = data.draw(st.sampled_from(["change", "cut", "insert", "end"]), label="damage")
        if what == "change" and sent:
            sent[at] = data.draw(st.integers(0, 255), label="byte")
        elif what == "cut":
            del sent[at : at + data.draw(st.integers(1, 8), label="length")]
        elif what == "insert":
            sent[at:at] = data.draw(st.binary(min_size=1, max_size=8), label="inserted")
        else:
            del sent[at:]
    check(talk, broker, converse(talk, broker, bytes(sent), data))

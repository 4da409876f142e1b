"""Consumers of one connection: their life, what is delivered, and who pauses whom."""

from __future__ import annotations

from typing import Any

import pytest

from plait.wire import messages
from plait.wire.batch import BatchLimits, RecordRun, iterate_run, positions, read_header, run_of
from plait.wire.errors import NotFound
from plait.wire.header import HEADER_BYTES
from plait.wire.messages import ConsumerGone, Deliver, Delivered, Failed, Ok
from tests.unit.gateways.native.scripted import (
    ScriptedAttachment,
    ScriptedBroker,
    Settled,
    Talk,
    batch,
    errors,
    give,
)

OK = memoryview(b"")


def leased(*values: bytes, lease_id: int = 1, deliveries: int = 1) -> Delivered:
    data = batch(*values)
    body = memoryview(data)[HEADER_BYTES:]
    run = run_of(read_header(data), body, positions(body), 0, len(values) - 1)
    return Delivered(lease_id, deliveries, run)


class Consuming:
    """A talk with one attached consumer, tag 5."""

    def __init__(self, broker: ScriptedBroker | None = None, **limits: Any) -> None:
        self.talk = Talk(broker, **limits)
        self.broker = self.talk.broker
        self.attachment = ScriptedAttachment(self.broker)
        self.broker.answers["attach"] = self.attachment
        assert self.talk.say(messages.Consume(2, 5, "jobs", "", 10, 30_000)) == [Ok(2, [], OK)]
        name, subscription, self.options, self.deliver, self.gone = self.broker.calls("attach")[0].arguments
        assert (name, subscription) == ("jobs", "")


def test_a_consumer_is_attached_with_its_options() -> None:
    options = Consuming().options
    assert (options.prefetch, options.lease_ms, options.client) == (10, 30_000, "native/1")


def test_what_is_leased_is_delivered_without_a_copy_of_the_records() -> None:
    consuming = Consuming()
    first = leased(b"one", b"two", lease_id=8, deliveries=3)
    consuming.deliver(1, [first, leased(b"three")])
    assert any(part is first.run.body for part in consuming.talk.session.outbox._buffers)
    (answer,) = consuming.talk.heard()
    assert isinstance(answer, Deliver)
    assert (answer.tag, answer.partition) == (5, 1)
    assert [(each.lease_id, each.deliveries, each.run.count) for each in answer.runs] == [(8, 3, 2), (1, 1, 1)]
    values = [record.value for each in answer.runs for record in iterate_run(each.run)]
    assert values == [b"one", b"two", b"three"]
    assert consuming.talk.counters.records_delivered == 3


def test_many_runs_are_put_into_several_frames() -> None:
    consuming = Consuming()
    runs = [leased(b"%d" % number) for number in range(2_000)]
    consuming.deliver(0, runs)
    answers = consuming.talk.heard()
    assert len(answers) == 3
    values = [
        record.value
        for answer in answers
        if isinstance(answer, Deliver)
        for each in answer.runs
        for record in iterate_run(each.run)
    ]
    assert values == [b"%d" % number for number in range(2_000)]


def test_a_run_that_is_larger_than_a_frame_is_cut_between_records() -> None:
    consuming = Consuming(ScriptedBroker(BatchLimits(max_record_bytes=1_000, max_batch_bytes=2_000)))
    values = [bytes([number]) * 900 for number in range(7)]
    small, large = leased(b"small"), leased(*values, lease_id=4)
    consuming.deliver(0, [small, large])
    answers = [each for each in consuming.talk.heard() if isinstance(each, Deliver)]
    runs = [each for answer in answers for each in answer.runs]
    assert [record.value for each in runs for record in iterate_run(each.run)] == [b"small", *values]
    assert [record.offset for each in runs[1:] for record in iterate_run(each.run)] == list(range(7))
    assert all(len(each.run.body) <= 2_000 for each in runs)
    assert {each.lease_id for each in runs[1:]} == {4}


@pytest.mark.parametrize("action", ["ack", "return", "extend"])
def test_settling_is_passed_on_and_answered(action: str) -> None:
    consuming = Consuming()
    request = messages.Settle(3, 5, 1, action, 60_000, [(8, 0, 4), (9, 7, 7)])
    assert consuming.talk.say(request) == []
    asked = consuming.broker.calls("settle")[0]
    assert asked.arguments == (1, action, 60_000, [(8, 0, 4), (9, 7, 7)])
    give(asked.promise, Settled(5, [(7, 7)]))
    assert consuming.talk.heard() == [Ok(3, [5, [[7, 7]]], OK)]


def test_cancelling_returns_the_leases_and_frees_the_tag() -> None:
    consuming = Consuming()
    assert consuming.talk.say(messages.Cancel(3, 5)) == []
    assert consuming.attachment.detached == 1
    give(consuming.broker.calls("detach")[0].promise, None)
    assert consuming.talk.heard() == [Ok(3, [], OK)]
    consuming.deliver(0, [leased(b"late")])
    consuming.gone(NotFound("late"))
    assert consuming.talk.heard() == []
    assert errors(consuming.talk.say(messages.Cancel(4, 5))) == [(4, "not_found")]
    assert consuming.talk.say(messages.Consume(5, 5, "jobs", "", 1, 0)) == [Ok(5, [], OK)]


def test_a_tag_cannot_be_used_twice_at_a_time() -> None:
    consuming = Consuming()
    assert errors(consuming.talk.say(messages.Consume(3, 5, "other", "", 1, 0))) == [(3, "bad_request")]
    assert len(consuming.broker.calls("attach")) == 1


def test_consumers_and_prefetch_are_limited() -> None:
    consuming = Consuming(consumers_max=2, prefetch_records_max=10)
    talk = consuming.talk
    assert errors(talk.say(messages.Consume(3, 6, "jobs", "", 11, 0))) == [(3, "bad_request")]
    assert errors(talk.say(messages.Consume(4, 6, "jobs", "", 10, 0))) == []
    assert errors(talk.say(messages.Consume(5, 7, "jobs", "", 10, 0))) == [(5, "limit_reached")]


def test_a_refused_consumer_leaves_its_tag_free() -> None:
    talk = Talk()
    talk.broker.answers = {"attach": NotFound("no such queue")}
    for correlation in (2, 3):
        assert errors(talk.say(messages.Consume(correlation, 5, "jobs", "", 1, 0))) == [(correlation, "not_found")]
    assert errors(talk.say(messages.Settle(4, 5, 0, "ack", 0, [(1, 0, 0)]))) == [(4, "not_found")]


def test_a_consumer_that_is_cancelled_while_attaching_is_detached_as_soon_as_it_is_attached() -> None:
    talk = Talk()
    attachment = ScriptedAttachment(talk.broker)
    assert talk.say(messages.Consume(2, 5, "jobs", "", 1, 0)) == []
    assert errors(talk.say(messages.Settle(3, 5, 0, "ack", 0, [(1, 0, 0)]))) == [(3, "not_found")]
    assert talk.say(messages.Cancel(4, 5)) == [Ok(4, [], OK)]
    give(talk.broker.calls("attach")[0].promise, attachment)
    assert attachment.detached == 1
    assert talk.heard() == [Ok(2, [], OK)]


def test_a_client_that_leaves_while_attaching_is_detached_too() -> None:
    talk = Talk()
    attachment = ScriptedAttachment(talk.broker)
    talk.say(messages.Consume(2, 5, "jobs", "", 1, 0))
    talk.session.close()
    asked = talk.broker.calls("attach")[0]
    assert asked.promise.abandoned
    give(asked.promise, attachment)
    assert attachment.detached == 1
    assert talk.heard() == []


def test_a_client_that_leaves_returns_what_it_holds_once() -> None:
    consuming = Consuming()
    consuming.talk.session.close()
    consuming.talk.session.close()
    assert consuming.attachment.detached == 1
    consuming.deliver(0, [leased(b"late")])
    assert consuming.talk.heard() == []


def test_a_consumer_that_the_broker_ends_is_told_so() -> None:
    consuming = Consuming()
    consuming.gone(NotFound("queue jobs was deleted"))
    assert consuming.talk.heard() == [ConsumerGone(5, "not_found", "queue jobs was deleted")]
    assert errors(consuming.talk.say(messages.Cancel(3, 5))) == [(3, "not_found")]


def test_a_client_that_does_not_read_pauses_its_consumers() -> None:
    consuming = Consuming(outbox_bytes_high=100_000, outbox_bytes_low=50_000)
    attachment = consuming.attachment
    for _ in range(5):
        consuming.deliver(0, [leased(bytes(30_000))])
    assert (attachment.paused, attachment.resumed) == (1, 0)
    assert consuming.talk.session.reading_paused
    second = ScriptedAttachment(consuming.broker)
    consuming.broker.answers["attach"] = second
    assert len(consuming.talk.heard()) == 5
    assert (attachment.paused, attachment.resumed) == (1, 1)
    assert not consuming.talk.session.reading_paused


def test_a_consumer_that_attaches_while_the_client_does_not_read_starts_paused() -> None:
    consuming = Consuming(outbox_bytes_high=100_000, outbox_bytes_low=50_000)
    second = ScriptedAttachment(consuming.broker)
    del consuming.broker.answers["attach"]
    consuming.talk.say(messages.Consume(3, 6, "jobs", "", 1, 0))
    consuming.deliver(0, [leased(bytes(120_000))])
    give(consuming.broker.calls("attach")[1].promise, second)
    assert (second.paused, second.resumed) == (1, 0)
    consuming.talk.heard()
    assert (second.paused, second.resumed) == (1, 1)


def test_a_delivery_that_cannot_be_encoded_ends_the_connection_and_raises_nothing() -> None:
    consuming = Consuming()
    broken = Delivered("x" * 100_000, 1, RecordRun(0, 0, False, 0, 1, b"\x0c\0\0\0\x01\x01\0"))  # type: ignore[arg-type]
    consuming.deliver(0, [broken])
    (answer,) = consuming.talk.heard()
    assert isinstance(answer, Failed)
    assert answer.code == "internal"
    assert consuming.attachment.detached == 1

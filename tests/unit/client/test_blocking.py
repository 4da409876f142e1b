"""The blocking client: the same promises, without a loop in the program."""

from __future__ import annotations

from contextlib import suppress

import pytest

import plait.blocking
from plait.client.outside import Outside
from tests.unit.client.peer import Peer


@pytest.fixture
def peer() -> Peer:
    return Peer()


def connect(peer: Peer) -> plait.blocking.connect:
    return plait.blocking.connect(outside=Outside(peer.connect))


def test_publishes_consumes_and_acknowledges(peer: Peer) -> None:
    with connect(peer) as client:
        queue = client.queue("orders")
        assert queue.publish(b"one").offset == 0
        assert queue.publish_many([b"two", b"three"]) == 2
        seen = []
        for message in queue.consume():
            seen.append((message.value, message.deliveries))
            message.ack()
            if len(seen) == 3:
                break
        assert seen == [(b"one", 1), (b"two", 1), (b"three", 1)]
        assert queue.backlog().records == 0


def test_acknowledgements_without_waiting_are_there_after_the_flush(peer: Peer) -> None:
    with connect(peer) as client:
        queue = client.queue("orders")
        queue.publish_many([b"%d" % number for number in range(200)])
        with queue.consume(prefetch=200) as consumer:
            for count, message in enumerate(consumer, 1):
                message.ack_soon()
                if count == 200:
                    break
            consumer.flush()
            assert len(peer.logs["orders"].acked) == 200


def test_a_producer_hands_over_in_order(peer: Peer) -> None:
    with connect(peer) as client:
        topic = client.topic("events")
        with topic.producer(batch_bytes=1000) as producer:
            for number in range(20_000):
                producer.send(b"%d" % number)
        assert peer.values("events") == [b"%d" % number for number in range(20_000)]


def test_an_error_of_a_send_comes_out(peer: Peer) -> None:
    with connect(peer) as client:
        producer = client.topic("events").producer()
        with suppress(plait.RecordTooLarge):  # by now or by the flush, whichever comes first
            producer.send(bytes(2 << 20))
            producer.send(b"small")
            producer.flush()
            pytest.fail("nobody was told")
        producer.close()
    assert peer.values("events") == [b"small"]


def test_what_the_loop_has_not_finished_is_not_committed(peer: Peer) -> None:
    with connect(peer) as client:
        topic = client.topic("events")
        topic.publish_many([b"%d" % number for number in range(100)])
        with topic.subscribe("billing") as subscription:
            for message in subscription:
                if message.offset == 41:
                    break
        assert peer.committed["billing", "events"] == {0: 42}
        with topic.subscribe("billing") as subscription:
            assert next(subscription).offset == 42
            subscription.seek(7)
            assert next(subscription).offset == 7


def test_replays_to_the_end(peer: Peer) -> None:
    with connect(peer) as client:
        topic = client.topic("events", partitions=2)
        topic.publish_many([b"%d" % number for number in range(10)])
        assert len(list(topic.read(to_end=True))) == 10


def test_errors_are_the_same_classes(peer: Peer) -> None:
    with connect(peer) as client, pytest.raises(plait.NotFound):
        client.queue("orders", create=False)


def test_methods_keep_their_words(peer: Peer) -> None:
    assert plait.blocking.Queue.publish.__doc__ == plait.Queue.publish.__doc__
    assert plait.blocking.Producer.send.__doc__ == plait.Producer.send.__doc__

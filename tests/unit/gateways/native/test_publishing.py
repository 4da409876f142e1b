"""Publishes of one connection: order of answers, bytes in flight, throttling, and memory that is not pinned."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from plait.wire import messages
from plait.wire.errors import BatchInvalid, Overloaded
from plait.wire.messages import Failed, Ok
from tests.unit.gateways.native.scripted import Published, Talk, batch, frame, give


def publish(talk: Talk, correlation: int, partition: int = 0, name: str = "orders") -> None:
    talk.session.receive(frame(messages.Publish(correlation, name, partition), batch()))


def correlations(talk: Talk) -> list[int]:
    return [each.correlation for each in talk.heard() if isinstance(each, Ok | Failed)]


def test_how_long_it_may_wait_is_handed_on() -> None:
    talk = Talk()
    talk.session.receive(frame(messages.Publish(2, "orders", -1, wait_ms=250), batch()))
    assert talk.broker.asked[0].arguments[-1] == 250


def test_a_publish_is_handed_on_and_answered_with_its_place() -> None:
    talk = Talk()
    talk.broker.answers = {"publish": Published(2, 17, 1_000, 0, True)}
    sent = batch(b"a", b"b")
    assert talk.say(messages.Publish(2, "orders", -1), payload=sent) == [
        Ok(2, [2, 17, 1_000, 0, True], memoryview(b""))
    ]
    name, partition, payload, client, wait_ms = talk.broker.asked[0].arguments
    assert wait_ms == -1
    assert (name, partition, bytes(payload), client) == ("orders", -1, sent, "native/1")
    assert isinstance(payload, memoryview)
    assert talk.counters.publishes == 1
    assert talk.counters.publish_bytes == len(sent)


def test_who_leads_is_told_to_those_who_want_to_know() -> None:
    talk = Talk(hello=False)
    talk.broker.answers = {"publish": Published(2, 17, 1_000, 0, True)}
    talk.broker.leader_elsewhere = lambda name, partition: (3, f"{name}-{partition}:4150")  # type: ignore[attr-defined]
    talk.say(messages.Hello(1, options={messages.OPTION_LEADERS: True}))
    (told,) = talk.say(messages.Publish(2, "orders", -1), payload=batch(b"a"))
    assert isinstance(told, Ok)
    assert told.fields == [2, 17, 1_000, 0, True, 3, "orders-2:4150"]


def test_answers_of_one_partition_keep_the_order_of_the_requests() -> None:
    talk = Talk()
    for correlation in (2, 3, 4):
        publish(talk, correlation)
    first, second, third = (each.promise for each in talk.broker.asked)
    give(second, Overloaded("full", retry_after_ms=5))
    give(third, Published())
    assert correlations(talk) == []
    give(first, Published())
    assert correlations(talk) == [2, 3, 4]


def test_partitions_do_not_wait_for_each_other() -> None:
    talk = Talk()
    publish(talk, 2, partition=0)
    publish(talk, 3, partition=1)
    publish(talk, 4, partition=0, name="others")
    give(talk.broker.asked[1].promise, Published())
    give(talk.broker.asked[2].promise, Published())
    assert correlations(talk) == [3, 4]


def test_a_refusal_at_once_waits_for_its_turn_too() -> None:
    talk = Talk()
    publish(talk, 2)
    talk.broker.answers = {"publish": BatchInvalid("bad")}
    publish(talk, 3)
    assert correlations(talk) == []
    give(talk.broker.asked[0].promise, Published())
    assert correlations(talk) == [2, 3]


def test_bytes_in_flight_pause_reading_until_half_of_them_are_answered() -> None:
    size = len(batch())
    talk = Talk(publish_in_flight_bytes=4 * size)
    talk.session.receive(
        b"".join(frame(messages.Publish(number, "orders", 0), batch()) for number in range(2, 12))
    )
    assert len(talk.broker.asked) == 5
    assert talk.session.publishing.in_flight_bytes == 5 * size
    assert talk.session.reading_paused
    for each in talk.broker.asked[:2]:
        give(each.promise, Published())
    assert talk.session.reading_paused
    give(talk.broker.asked[2].promise, Published())
    assert not talk.session.reading_paused
    assert talk.session.has_requests
    talk.session.proceed()
    assert len(talk.broker.asked) == 8


def test_a_throttle_is_for_the_driver_to_take_once() -> None:
    talk = Talk()
    for correlation, throttle_ms in ((2, 30), (3, 70), (4, 50)):
        talk.broker.answers = {"publish": Published(throttle_ms=throttle_ms)}
        publish(talk, correlation)
    assert talk.session.throttle_ms == 70
    assert talk.session.take_throttle_ms() == 70
    assert talk.session.take_throttle_ms() == 0


def test_a_small_batch_does_not_keep_the_chunk_that_it_came_in() -> None:
    talk = Talk()
    large = frame(messages.Publish(2, "orders", 0), batch(bytes(100_000)))
    talk.session.receive(large + frame(messages.Publish(3, "orders", 0), batch(b"small")))
    kept_large, kept_small = (each.arguments[2] for each in talk.broker.asked)
    assert len(kept_large.obj) > 100_000
    assert len(kept_small.obj) == len(kept_small)


def test_idle_lanes_are_dropped_when_there_are_many() -> None:
    talk = Talk()
    talk.broker.answers = {"publish": Published()}
    for number in range(3_000):
        publish(talk, number + 2, name=f"topic-{number}")
    assert len(talk.session.publishing._lanes) <= 1_024
    assert correlations(talk) == list(range(2, 3_002))


@given(
    partitions=st.lists(st.integers(-1, 2), min_size=1, max_size=30),
    order=st.randoms(use_true_random=False),
)
def test_whatever_order_the_broker_answers_in_each_lane_is_in_order_and_whole(
    partitions: list[int], order: object
) -> None:
    talk = Talk()
    for number, partition in enumerate(partitions):
        publish(talk, number + 2, partition)
    promises = [each.promise for each in talk.broker.asked]
    order.shuffle(promises)  # type: ignore[attr-defined]
    heard: list[int] = []
    for number, promise in enumerate(promises):
        give(promise, Overloaded("full") if number % 3 else Published())
        heard += correlations(talk)
    for lane in set(partitions):
        asked = [number + 2 for number, partition in enumerate(partitions) if partition == lane]
        assert [each for each in heard if each in asked] == asked
    assert talk.session.publishing.in_flight_bytes == 0
    assert talk.session.publishing.pending == 0

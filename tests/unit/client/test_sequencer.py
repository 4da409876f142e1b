"""The sequencer against a broker in a few lines that remembers five batches a producer, and may fail to answer."""

from __future__ import annotations

import struct
from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from plait.client.sequencer import BATCHES_UNDER_WAY_MAX, Batch, Outcome, Sequencer
from plait.wire.errors import (
    BatchInvalid,
    OutcomeUnknown,
    Overloaded,
    PlaitError,
    SequenceOutOfOrder,
    StorageFull,
    TimedOut,
)
from plait.wire.messages import Published

EMPTY_BATCH = bytes(61)
FOREVER_S = 1e9


def batch_of(count: int = 1, deadline_s: float = FOREVER_S) -> Batch:
    return Batch(EMPTY_BATCH, count, deadline_s)


def stored_at(offset: int, throttle_ms: int = 0) -> Published:
    return Published(0, offset, 0, throttle_ms, False)


def identified(idempotent: bool = True) -> Sequencer:
    sequencer = Sequencer(idempotent)
    sequencer.identify(7, 0)
    return sequencer


def known(idempotent: bool = True) -> Sequencer:
    """One whose producer the broker knows: a record of it is stored."""
    sequencer = identified(idempotent)
    first = batch_of()
    sequencer.add(first)
    sequencer.take(0.0)
    sequencer.answered(first, stored_at(0), 0.0)
    return sequencer


def stamped(batch: Batch) -> tuple[int, int]:
    producer_id, _, sequence = struct.unpack_from(">qhi", batch.data, 43)
    return producer_id, sequence


def test_sends_at_most_five_and_the_next_when_one_is_answered() -> None:
    sequencer = known()
    batches = [batch_of() for _ in range(7)]
    for batch in batches:
        sequencer.add(batch)
    assert sequencer.take(0.0) == batches[:BATCHES_UNDER_WAY_MAX]
    assert sequencer.take(0.0) == []
    assert [outcome.batch for outcome in sequencer.answered(batches[0], stored_at(0), 0.0)] == [batches[0]]
    assert sequencer.take(0.0) == [batches[5]]


def test_the_first_batch_of_a_producer_goes_alone_until_the_broker_knows_it() -> None:
    sequencer = identified()
    first, second = batch_of(), batch_of()
    sequencer.add(first)
    sequencer.add(second)
    assert sequencer.take(0.0) == [first], "were it refused, the second one would be taken for the first"
    sequencer.answered(first, stored_at(0), 0.0)
    assert sequencer.take(0.0) == [second]


def test_sequences_count_records_and_survive_a_lost_connection() -> None:
    sequencer = known()
    batches = [batch_of(3), batch_of(2), batch_of(1)]
    for batch in batches:
        sequencer.add(batch)
    sequencer.take(0.0)
    assert [stamped(batch) for batch in batches] == [(7, 1), (7, 4), (7, 6)]
    assert sequencer.lost() == []
    assert sequencer.take(0.0) == batches
    assert [stamped(batch) for batch in batches] == [(7, 1), (7, 4), (7, 6)]


def test_waits_for_a_producer_id_before_the_first_batch() -> None:
    sequencer = Sequencer(idempotent=True)
    assert not sequencer.needs_identity
    sequencer.add(batch_of())
    assert sequencer.take(0.0) == []
    assert sequencer.needs_identity
    sequencer.identify(9, 0)
    assert len(sequencer.take(0.0)) == 1


def test_without_idempotence_a_lost_answer_is_an_unknown_outcome() -> None:
    sequencer = Sequencer(idempotent=False)
    batch = batch_of()
    sequencer.add(batch)
    sequencer.take(0.0)
    [outcome] = sequencer.lost()
    assert isinstance(outcome.error, OutcomeUnknown)
    assert sequencer.take(0.0) == []


def test_overloaded_waits_as_long_as_told_and_then_sends_all_again_in_order() -> None:
    sequencer = known()
    first, second = batch_of(), batch_of()
    sequencer.add(first)
    sequencer.add(second)
    sequencer.take(0.0)
    assert sequencer.refused(first, Overloaded("full", retry_after_ms=500), 10.0) == []
    assert sequencer.take(20.0) == []  # the second is still under way
    assert sequencer.refused(second, SequenceOutOfOrder("gap"), 10.0) == []
    assert sequencer.take(10.4) == []
    assert sequencer.next_time_s(10.4) == 10.5
    assert sequencer.take(10.5) == [first, second]
    assert [stamped(first), stamped(second)] == [(7, 1), (7, 2)]


def test_a_refused_batch_is_not_sent_again_in_the_last_moment() -> None:
    sequencer = identified()
    batch = batch_of(deadline_s=10.0)
    sequencer.add(batch)
    assert sequencer.take(9.5) == [batch]  # the first try is always worth it
    sequencer.refused(batch, Overloaded("full", retry_after_ms=10), 9.6)
    assert sequencer.take(9.7) == []
    [outcome] = sequencer.expire(10.0)
    assert isinstance(outcome.error, Overloaded)


def test_a_full_disk_is_left_in_peace_for_as_long_as_told() -> None:
    sequencer = identified()
    batch = batch_of()
    sequencer.add(batch)
    sequencer.take(0.0)
    sequencer.refused(batch, StorageFull("full", retry_after_ms=5_000), 1.0)
    assert sequencer.take(5.9) == []
    assert sequencer.take(6.0) == [batch]


def test_overloaded_to_the_end_is_the_error_that_the_producer_sees() -> None:
    sequencer = identified()
    batch = batch_of(deadline_s=30.0)
    sequencer.add(batch)
    sequencer.take(0.0)
    sequencer.refused(batch, Overloaded("full", retry_after_ms=50_000), 1.0)
    assert sequencer.expire(29.0) == []
    [outcome] = sequencer.expire(30.0)
    assert isinstance(outcome.error, Overloaded)


def test_a_batch_never_sent_times_out_as_not_stored() -> None:
    sequencer = Sequencer(idempotent=True)
    sequencer.add(batch_of(deadline_s=5.0))
    [outcome] = sequencer.expire(5.0)
    assert isinstance(outcome.error, TimedOut)


def test_a_batch_sent_and_not_answered_in_time_is_unknown_and_its_late_answer_is_ignored() -> None:
    sequencer = identified()
    batch = batch_of(deadline_s=5.0)
    sequencer.add(batch)
    sequencer.take(0.0)
    [outcome] = sequencer.expire(5.0)
    assert isinstance(outcome.error, OutcomeUnknown)
    assert sequencer.expire(6.0) == []
    assert sequencer.answered(batch, stored_at(0), 7.0) == []


def test_what_follows_a_batch_refused_for_good_goes_under_a_new_producer_id() -> None:
    sequencer = known()
    batches = [batch_of() for _ in range(3)]
    for batch in batches:
        sequencer.add(batch)
    sequencer.take(0.0)
    [outcome] = sequencer.refused(batches[0], BatchInvalid("bad"), 0.0)
    assert isinstance(outcome.error, BatchInvalid)
    for batch in batches[1:]:
        assert sequencer.refused(batch, SequenceOutOfOrder("gap"), 0.0) == []
    assert sequencer.take(0.0) == []
    assert sequencer.needs_identity
    sequencer.identify(8, 0)
    assert sequencer.take(0.0) == batches[1:2]
    sequencer.answered(batches[1], stored_at(0), 0.0)
    assert sequencer.take(0.0) == batches[2:]
    assert [stamped(batch) for batch in batches[1:]] == [(8, 0), (8, 1)]


def test_a_throttled_answer_delays_the_next_batch() -> None:
    sequencer = identified()
    first, second = batch_of(), batch_of()
    sequencer.add(first)
    sequencer.take(0.0)
    sequencer.answered(first, stored_at(0, throttle_ms=250), 1.0)
    sequencer.add(second)
    assert sequencer.take(1.2) == []
    assert sequencer.take(1.25) == [second]


class ScriptedBroker:
    """Keeps what it is sent, refuses gaps, answers what it remembers with the first answer."""

    def __init__(self) -> None:
        self.log: list[int] = []
        self.known: dict[int, deque[tuple[int, int, int]]] = {}

    def publish(self, batch: Batch, mood: str) -> Published | PlaitError:
        producer_id, sequence = stamped(batch)
        remembered = self.known.setdefault(producer_id, deque(maxlen=BATCHES_UNDER_WAY_MAX))
        for first, _, offset in remembered:
            if first == sequence:
                return Published(0, offset, 0, 0, True)
        if sequence != (remembered[-1][1] + 1 if remembered else 0):
            return SequenceOutOfOrder("gap")
        if mood == "overloaded":
            return Overloaded("full", retry_after_ms=10)
        if mood == "invalid":
            return BatchInvalid("bad")
        remembered.append((sequence, sequence + batch.count - 1, len(self.log)))
        self.log.append(batch.number)
        return stored_at(len(self.log) - 1)


class World:
    """A producer, a connection that breaks, a broker, and what became of each batch."""

    def __init__(self) -> None:
        self.broker = ScriptedBroker()
        self.sequencer = Sequencer(idempotent=True)
        self.now_s = 0.0
        self.requests: deque[Batch] = deque()
        self.answers: deque[tuple[Batch, Published | PlaitError]] = deque()
        self.outcomes: dict[int, Outcome] = {}
        self.added: list[Batch] = []
        self.producer_ids = 0

    def note(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            assert outcome.batch.number not in self.outcomes, "one batch, one outcome"
            self.outcomes[outcome.batch.number] = outcome

    def pump(self) -> None:
        self.requests.extend(self.sequencer.take(self.now_s))
        if self.sequencer.needs_identity:
            self.producer_ids += 1
            self.sequencer.identify(self.producer_ids, 0)
            self.requests.extend(self.sequencer.take(self.now_s))

    def step(self, action: str) -> None:
        if action == "add":
            batch = batch_of(1 + len(self.added) % 3, self.now_s + 20)
            self.added.append(batch)
            self.sequencer.add(batch)
        elif action in ("take", "overloaded", "invalid") and self.requests:
            batch = self.requests.popleft()
            self.answers.append((batch, self.broker.publish(batch, action)))
        elif action == "answer" and self.answers:
            batch, answer = self.answers.popleft()
            if isinstance(answer, Published):
                self.note(self.sequencer.answered(batch, answer, self.now_s))
            else:
                self.note(self.sequencer.refused(batch, answer, self.now_s))
        elif action == "lose":
            self.requests.clear()
            self.answers.clear()
            self.note(self.sequencer.lost())
        elif action == "time":
            self.now_s += 3
            self.note(self.sequencer.expire(self.now_s))
        self.pump()


ACTIONS = st.sampled_from(
    ["add", "add", "take", "take", "take", "answer", "answer", "lose", "overloaded", "invalid", "time"]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(ACTIONS, max_size=120))
def test_whatever_happens_nothing_doubles_and_every_answer_is_true(actions: list[str]) -> None:
    world = World()
    for action in actions:
        world.step(action)
    while len(world.outcomes) < len(world.added):  # then a calm time
        for action in ("take", "answer", "time"):
            world.step(action)
    log = world.broker.log
    assert len(set(log)) == len(log), "a batch was stored twice"
    assert log == sorted(log), "the order of the producer was not kept"
    for number, outcome in world.outcomes.items():
        if outcome.stored is not None:
            assert log[outcome.stored.base_offset] == number
        elif not isinstance(outcome.error, OutcomeUnknown):
            assert number not in log, "reported as not stored, and is"

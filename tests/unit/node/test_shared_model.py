"""A shared subscription against the slow model: every command, question and snapshot, restored at any time.

A history is a list of (command, number, number): the numbers are taken modulo what makes sense at that moment, so
that most commands have something to do.
"""

from __future__ import annotations

from typing import Any

import cbor2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node import outstanding, shared
from node.leases import LeaseChooser
from node.recordstate import DEAD_LETTER_PENDING, DELAYED, LEASED, NEVER_MS, RETURNED
from node.shared import Settled, SharedSubscription
from tests.unit.node.shared_model import DONE, NEW, Model, joined

RECORDS_MAX = 150
CONSUMERS = ("1.1.1", "1.1.2", "2.1.1")
LEASES_MS = (0, 1, 5, 10, 10, 20, 30, NEVER_MS)
LEASE_IDS = 16
"""Lease ids are used again, so that some are met while they are still out."""


class History:
    """`steady` lives through everything; `reborn` is restored now and then; both must be the model."""

    def __init__(self) -> None:
        self.model = Model(shared.WINDOW_RANGES_MAX, shared.WINDOW_RECORDS_MAX, shared.DUE_RUNS_MAX)
        self.steady = SharedSubscription()
        self.reborn = SharedSubscription()
        self.stamp = 1_000
        self.lease_id = 0

    def both(self, name: str, *args: Any, **options: Any) -> Any:
        """Apply a command to both; they must answer the same."""
        answer = getattr(self.steady, name)(*args, **options)
        assert getattr(self.reborn, name)(*args, **options) == answer
        return answer

    @property
    def next_offset(self) -> int:
        return len(self.model.cells)

    def held(self, a: int, b: int) -> list[tuple[int, int, int]]:
        """One or two items, most of which settle something."""
        leased = self.model.of(LEASED)
        if not leased or a % 13 == 0:
            return [(a % LEASE_IDS, b % 60, b % 60 + a % 5)]
        starts = [leased[a % len(leased)], leased[b % len(leased)]][: 1 + b % 2]
        return [(self.model.cells[first].lease_id, first, first + (a + b) % 6) for first in starts]

    def publish(self, a: int, b: int) -> None:
        self.model.publish(min(1 + a % 20, RECORDS_MAX - self.next_offset))

    def time_passes(self, a: int, b: int) -> None:
        self.stamp += a % 12

    def restart(self, a: int, b: int) -> None:
        self.reborn = SharedSubscription.restored(cbor2.loads(cbor2.dumps(self.reborn.snapshot())))

    def lease_what_is_next(self, a: int, b: int) -> None:
        available = self.model.of(NEW, RETURNED)[: 1 + a % 12]
        self._lease(a, b, joined(available))

    def lease_anything(self, a: int, b: int) -> None:
        last = self.next_offset - 1
        ranges = [(min(a % 60, last), min(a % 60 + b % 7, last)), (min(b % 90, last), min(b % 90 + a % 7, last))]
        self._lease(a, b, ranges if last >= 0 else [])

    def _lease(self, a: int, b: int, ranges: list[tuple[int, int]]) -> None:
        self.lease_id = (self.lease_id + 1) % LEASE_IDS
        wanted = (self.lease_id, CONSUMERS[a % 3], ranges, LEASES_MS[b % 8])
        granted = self.both("lease", self.stamp, *wanted)
        got = [(offset, n) for first, last, n in granted for offset in range(first, last + 1)]
        assert got == self.model.lease(self.stamp, *wanted)

    def ack(self, a: int, b: int) -> None:
        items = self.held(a, b)
        assert self.both("ack", self.stamp, items) == Settled(*self.model.ack(items))

    def return_(self, a: int, b: int) -> None:
        items, delay_ms, counted = self.held(a, b), (0, 0, 4, 15)[a % 4], b % 3 > 0
        expected = self.model.return_(self.stamp, items, delay_ms, counted)
        assert self.both("return_", self.stamp, items, delay_ms, counted) == Settled(*expected)

    def extend(self, a: int, b: int) -> None:
        items, lease_ms = self.held(a, b), LEASES_MS[a % 8]
        expected = self.model.extend(self.stamp, items, lease_ms)
        assert self.both("extend", self.stamp, items, lease_ms) == Settled(*expected)

    def consumer_gone(self, a: int, b: int) -> None:
        consumer = CONSUMERS[a % 3]
        assert self.both("consumer_gone", self.stamp, consumer) == self.model.consumer_gone(self.stamp, consumer)

    def due(self, a: int, b: int) -> None:
        assert self.both("due", self.stamp) == self.model.due(self.stamp)

    def drop(self, a: int, b: int) -> None:
        first = a % (self.next_offset + 1)
        last, leased = min(first + b % 6, self.next_offset - 1), a % 3 == 0
        assert self.both("drop", self.stamp, last, first, leased) == self.model.drop(first, last, leased)

    def drop_oldest(self, a: int, b: int) -> None:
        limit = a % 9
        assert self.both("drop_oldest", self.stamp, limit, self.next_offset) == self.model.drop_oldest(limit)

    def give_up_oldest(self, a: int, b: int) -> None:
        limit = a % 6
        expected = self.model.give_up_oldest(limit)
        assert self.both("give_up_oldest", self.stamp, limit, self.next_offset) == expected

    def given_up(self, a: int, b: int) -> None:
        first = self.model.of(DEAD_LETTER_PENDING)[a % 3 : a % 3 + 1] or [b % 60]
        span = first[0], first[0] + b % 5
        assert self.both("given_up", *span) == self.model.given_up(*span)

    def trim(self, a: int, b: int) -> None:
        start = min(max(0, self.steady.floor + a % 12 - 2), self.next_offset)
        assert self.both("trim", start) == self.model.trim(start)

    def seek(self, a: int, b: int) -> None:
        offset = a % (self.next_offset + 1)
        self.model.seek(offset)
        self.both("seek", offset)

    def is_the_model(self) -> None:
        expected = self.model.snapshot()
        for subscription in (self.steady, self.reborn):
            assert subscription.snapshot() == expected
            self._answers_as_the_model(subscription)

    def every_record_is_somewhere(self) -> None:
        found = self.steady.summary()
        undelivered = self.next_offset - found.end
        outstanding = found.leased + found.returned + found.delayed + found.dead_letter_pending
        assert self.model.acked + self.model.removed + outstanding + undelivered == self.next_offset

    def _answers_as_the_model(self, subscription: SharedSubscription) -> None:
        model, next_offset, end = self.model, self.next_offset, self.model.end
        live = [offset for offset, cell in enumerate(model.cells) if cell.kind != DONE]
        leased = model.of(LEASED)
        below = [offset for offset in model.of(NEW) if offset < end]
        assert subscription.floor == (live[0] if live and live[0] < end else end)
        assert subscription.end == end
        assert subscription.live_ranges(next_offset) == joined(live)
        assert subscription.backlog_records(next_offset) == len(live)
        assert subscription.outstanding == sum(offset < end for offset in live)
        assert subscription.leased_count == len(leased)
        assert subscription.returned_count == len(model.of(RETURNED)) + len(below)
        assert subscription.range_count == len(model.runs())
        assert subscription.room == model.room()
        assert subscription.next_deadline_ms() == model.deadline()
        assert subscription.returned_within() == joined(sorted(model.of(RETURNED) + below))
        assert list(subscription.ready) == subscription.returned_within()
        owners = {model.cells[offset].consumer for offset in leased}
        assert subscription.consumers() == sorted(owners)
        for consumer in CONSUMERS:
            mine = [offset for offset in leased if model.cells[offset].consumer == consumer]
            assert subscription.leased_by(consumer) == len(mine)
            listed = subscription.pending(self.stamp, 7, consumer)
            assert sum(each.last - each.first + 1 for each in listed) == sum(offset >= 7 for offset in mine)
            for each in listed:
                cell = model.cells[each.first]
                assert each.idle_ms == self.stamp - cell.leased_ms
                assert (each.lease_id, each.deliveries, each.deadline_ms) == (
                    cell.lease_id,
                    cell.deliveries,
                    cell.until_ms,
                )
        assert subscription.summary().delayed == len(model.of(DELAYED))
        assert subscription.summary().dead_letter_pending == len(model.of(DEAD_LETTER_PENDING))


COMMANDS = (
    *[History.publish] * 3,
    *[History.lease_what_is_next] * 6,
    *[History.lease_anything] * 2,
    *[History.ack] * 5,
    *[History.return_] * 4,
    *[History.extend] * 2,
    *[History.due] * 3,
    *[History.time_passes] * 4,
    History.restart,
    History.consumer_gone,
    History.drop,
    History.drop_oldest,
    History.give_up_oldest,
    History.given_up,
    History.trim,
)
"""As often as they are named here."""
NUMBERS = st.integers(0, 9_999)


def histories_of(commands: Any, longest: int) -> Any:
    return st.lists(
        st.tuples(st.sampled_from(commands), NUMBERS, NUMBERS), min_size=longest // 2, max_size=longest
    )


class Choices:
    """The chooser promises the lowest records that are free, and nothing twice."""

    def __init__(self) -> None:
        self.shared = SharedSubscription()
        self.chooser = LeaseChooser(self.shared)
        self.promised: list[tuple[int, list[tuple[int, int]]]] = []
        self.next_offset = 0
        self.lease_id = 0

    def free(self) -> list[int]:
        """The slow way: what is returned or undelivered and not promised."""
        taken = {o for _, ranges in self.promised for first, last in ranges for o in range(first, last + 1)}
        held = {o for first, last, state in self.shared.runs() for o in range(first, last + 1)}
        returned = {o for first, last in self.shared.returned_within() for o in range(first, last + 1)}
        undelivered = set(range(self.shared.end, self.next_offset)) - held
        return sorted((returned | undelivered) - taken)

    def publish(self, a: int, b: int) -> None:
        self.next_offset += 1 + a % 12

    def choose(self, a: int, b: int) -> None:
        limit = a % 16
        free = self.free()
        assert self.chooser.available(self.next_offset) == len(free)
        chosen = self.chooser.choose(limit, self.next_offset)
        assert chosen == joined(free[:limit])
        self.lease_id += 1
        self.promised.append((self.lease_id, chosen))

    def a_promise_is_kept_or_not(self, a: int, b: int) -> None:
        if self.promised:
            lease_id, ranges = self.promised.pop(a % len(self.promised) if b % 3 == 0 else 0)
            if b % 5:
                self.shared.lease(0, lease_id, "1.1.1", ranges, NEVER_MS)
            self.chooser.release(ranges)

    def held(self, a: int, b: int) -> list[tuple[int, int, int]]:
        runs = [run for run in self.shared.runs() if run[2].kind == LEASED]
        if not runs:
            return []
        first, last, state = runs[a % len(runs)]
        first += b % (last - first + 1)
        return [(state.lease_id, first, min(last, first + a % 5))]

    def return_(self, a: int, b: int) -> None:
        self.shared.return_(0, self.held(a, b), (0, 0, 1)[a % 3], b % 2 > 0)

    def ack(self, a: int, b: int) -> None:
        self.shared.ack(0, self.held(a, b))

    def due(self, a: int, b: int) -> None:
        self.shared.due(10)

    def drop_oldest(self, a: int, b: int) -> None:
        self.shared.drop_oldest(0, a % 6, self.next_offset)

    def role_changes(self, a: int, b: int) -> None:
        self.promised.clear()
        self.chooser = LeaseChooser(self.shared)


CHOICES = (
    *[Choices.publish] * 3,
    *[Choices.choose] * 6,
    *[Choices.a_promise_is_kept_or_not] * 5,
    *[Choices.return_] * 4,
    *[Choices.ack] * 3,
    Choices.due,
    Choices.drop_oldest,
    Choices.role_changes,
)


@pytest.fixture(params=["wide", "narrow"])
def window(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With limits that histories of this length never meet, or always."""
    monkeypatch.setattr(outstanding, "DEADLINES_SLACK", 3)
    if request.param == "narrow":
        monkeypatch.setattr(shared, "WINDOW_RANGES_MAX", 5)
        monkeypatch.setattr(shared, "WINDOW_RECORDS_MAX", 20)
        monkeypatch.setattr(shared, "DUE_RUNS_MAX", 2)
    return str(request.param)


@given(history=histories_of(COMMANDS, 80), sought=st.booleans())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_subscription_is_the_slow_model_after_every_step(window: str, history: Any, sought: bool) -> None:
    state = History()
    state.publish(19, 0)
    for command, a, b in history:
        command(state, a, b)
        state.is_the_model()
        state.every_record_is_somewhere()
    if sought:
        state.seek(len(history) * 7, 0)
        state.is_the_model()


@given(history=histories_of(CHOICES, 80))
@settings(max_examples=250, deadline=None)
def test_the_lowest_free_records_are_promised_and_nothing_twice(history: Any) -> None:
    state = Choices()
    for command, a, b in history:
        command(state, a, b)

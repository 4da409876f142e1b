"""Rates in whole numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.rates import DRAIN_KNOWN_NS, NS_PER_S, DrainMeter, TokenBucket

RATES = st.integers(1, 10**10)


@given(RATES, st.lists(st.tuples(st.integers(0, NS_PER_S), st.integers(1, 10**7)), max_size=30))
def test_no_more_than_a_burst_one_publish_and_the_rate_gets_through(rate, arrivals):
    bucket = TokenBucket(rate, 0)
    now_ns = taken = largest = 0
    for pause_ns, size in arrivals:
        now_ns += pause_ns
        if bucket.wait_ns(now_ns) == 0:
            bucket.take(size, now_ns)
            taken += size
            largest = max(largest, size)
    assert taken * NS_PER_S <= rate * now_ns + rate * NS_PER_S + largest * NS_PER_S


@given(RATES, st.integers(1, 10**9))
def test_after_the_wait_there_is_something_to_take_and_not_before(rate, size):
    bucket = TokenBucket(rate, 0)
    bucket.take(size, 0)
    wait_ns = bucket.wait_ns(0)
    if wait_ns > 0:
        assert bucket.wait_ns(wait_ns - 1) > 0
    assert bucket.wait_ns(wait_ns) == 0


@given(RATES, st.integers(1, 10**9))
def test_a_debt_is_paid_when_it_says(rate, size):
    bucket = TokenBucket(rate, 0)
    debt_ns = bucket.take(size, 0)
    assert bucket.wait_ns(debt_ns + 1) == 0
    assert (debt_ns > 0) == (size > rate)


def test_unused_rate_is_saved_for_a_second_only():
    bucket = TokenBucket(100, 0)
    bucket.wait_ns(3600 * NS_PER_S)
    assert bucket.take(101, 3600 * NS_PER_S) == NS_PER_S // 100


def test_a_clock_that_stands_still_gives_nothing():
    bucket = TokenBucket(1, 5)
    bucket.take(2, 5)
    assert bucket.wait_ns(5) == bucket.wait_ns(4) > 0


def test_a_drain_meter_says_nothing_before_it_has_seen_something():
    meter = DrainMeter()
    assert meter.estimate_ns(1_000, 0) == 0
    meter.admitted(0)
    meter.drained(10, DRAIN_KNOWN_NS - 1, busy=False)
    assert meter.estimate_ns(1_000, 10**9) == 0


def test_a_drain_meter_measures_while_there_is_something_to_drain():
    meter = DrainMeter()
    meter.admitted(0)
    meter.drained(1_000, NS_PER_S, busy=False)
    meter.admitted(100 * NS_PER_S)  # the pause does not count
    meter.admitted(100 * NS_PER_S + 1)
    assert meter.estimate_ns(500, 100 * NS_PER_S) == NS_PER_S // 2


def test_a_stall_that_goes_on_makes_the_estimate_longer():
    meter = DrainMeter()
    meter.admitted(0)
    meter.drained(1_000, NS_PER_S, busy=True)
    assert meter.estimate_ns(1_000, 10 * NS_PER_S) == 10 * NS_PER_S


def test_what_was_long_ago_counts_for_less():
    meter = DrainMeter()
    meter.admitted(0)
    for second in range(1, 20):
        meter.drained(1_000_000 if second < 10 else 1_000, second * NS_PER_S, busy=True)
    assert meter.estimate_ns(1_000, 19 * NS_PER_S) > NS_PER_S // 10

"""A leader's stamps follow wall time, never jump and never go back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from node.clock import SLEW_PERCENT, StampClock

MS = 1_000_000
START = 1_700_000_000_000


def test_the_first_stamp_is_wall_time() -> None:
    assert StampClock().stamp_ms(5, START, 0) == START


def test_the_first_stamp_is_not_below_what_was_applied() -> None:
    assert StampClock().stamp_ms(5, START, START + 70) == START + 70


def test_stamps_advance_by_elapsed_time() -> None:
    clock = StampClock()
    clock.stamp_ms(0, START, 0)
    assert clock.stamp_ms(250 * MS, START + 250, 0) == START + 250


def test_a_wall_clock_that_is_set_ahead_is_followed_slowly() -> None:
    clock = StampClock()
    clock.stamp_ms(0, START, 0)
    hour = 3_600_000
    assert clock.stamp_ms(1_000 * MS, START + 1_000 + hour, 0) == START + 1_000 + 10 * SLEW_PERCENT


def test_a_wall_clock_that_is_set_back_slows_stamps_and_never_turns_them() -> None:
    clock = StampClock()
    clock.stamp_ms(0, START, 0)
    hour = 3_600_000
    assert clock.stamp_ms(1_000 * MS, START + 1_000 - hour, 0) == START + 1_000 - 10 * SLEW_PERCENT


def test_a_small_error_is_corrected_and_not_overdone() -> None:
    clock = StampClock()
    clock.stamp_ms(0, START, 0)
    assert clock.stamp_ms(1_000 * MS, START + 1_007, 0) == START + 1_007
    assert clock.stamp_ms(2_000 * MS, START + 2_007, 0) == START + 2_007


def test_a_new_leadership_counts_the_time_in_which_nobody_led() -> None:
    clock = StampClock()
    clock.stamp_ms(0, START, 0)
    clock.reset()
    assert clock.stamp_ms(1 * MS, START + 3_600_000, START) == START + 3_600_000


def test_a_timer_for_a_stamp_rings_when_it_is_reached() -> None:
    clock = StampClock()
    clock.stamp_ms(10 * MS, START, 0)
    rings_ns = clock.monotonic_ns_at(START + 40)
    assert rings_ns == 50 * MS
    assert clock.stamp_ms(rings_ns, START + 40, 0) == START + 40
    assert clock.monotonic_ns_at(START) == rings_ns  # reached: now


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(-(10**9), 10**9), st.integers(0, 100)), min_size=1))
def test_stamps_never_fall_and_keep_their_pace(steps: list[tuple[int, int, int]]) -> None:
    clock = StampClock()
    monotonic_ms, last = 0, clock.stamp_ms(0, START, 0)
    for elapsed_ms, wall_error_ms, applied in steps:
        monotonic_ms += elapsed_ms
        floor_ms = last if applied else 0
        stamp = clock.stamp_ms(monotonic_ms * MS, START + wall_error_ms, floor_ms)
        slew_ms = elapsed_ms * SLEW_PERCENT / 100 + 1
        assert last <= stamp
        assert elapsed_ms - slew_ms <= stamp - last <= elapsed_ms + slew_ms
        last = stamp

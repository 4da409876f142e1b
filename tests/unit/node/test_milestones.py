"""Milestones against a list of all batches: bounded, and never wrong on the dangerous side."""

from __future__ import annotations

from dataclasses import dataclass

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node import milestones
from node.milestones import MILESTONES_MAX, Milestones


@dataclass(frozen=True)
class Batch:
    """One batch as it was noted."""

    offset: int
    count: int
    size_bytes: int
    stamp_ms: int
    max_timestamp_ms: int


STEPS = st.lists(
    st.tuples(
        st.integers(1, 20), st.integers(61, 5_000), st.sampled_from([0, 0, 1, 50, 3_000]), st.integers(-90, 90)
    ),
    max_size=150,
)


@pytest.fixture(autouse=True)
def _few_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(milestones, "MILESTONES_MAX", 36)
    monkeypatch.setattr(milestones, "GAPS", 3)


def noted(steps: list[tuple[int, int, int, int]]) -> tuple[Milestones, list[Batch]]:
    points = Milestones()
    log: list[Batch] = []
    offset, stamp_ms = 0, 1_000
    for count, size_bytes, later_ms, skew_ms in steps:
        stamp_ms += later_ms
        log.append(Batch(offset, count, size_bytes, stamp_ms, stamp_ms + skew_ms))
        points.note(offset, count, size_bytes, stamp_ms, stamp_ms + skew_ms)
        offset += count
    return points, log


@given(STEPS, st.integers(0, 20_000), st.sampled_from([None, 0, 100, 5_000]), st.sampled_from([None, 0, 7_000]))
@settings(deadline=None)
def test_retention_never_cuts_what_is_young_or_needed(
    steps: list[tuple[int, int, int, int]], after_ms: int, retention_ms: int | None, retention_bytes: int | None
) -> None:
    points, log = noted(steps)
    now_ms = (log[-1].stamp_ms if log else 1_000) + after_ms
    start = points.trim_point(now_ms, retention_ms, retention_bytes)
    gone = [batch for batch in log if batch.offset < start]
    kept_bytes = sum(batch.size_bytes for batch in log if batch.offset >= start)
    assert all(batch.offset + batch.count <= start for batch in gone)  # whole batches
    old_enough = retention_ms is not None and all(now_ms - batch.stamp_ms >= retention_ms for batch in gone)
    enough_left = retention_bytes is not None and kept_bytes >= retention_bytes
    assert not gone or old_enough or enough_left


@given(STEPS, st.integers(0, 40_000))
def test_looking_for_a_timestamp_begins_before_the_first_that_fits(
    steps: list[tuple[int, int, int, int]], ahead_ms: int
) -> None:
    points, log = noted(steps)
    wanted_ms = 900 + ahead_ms
    begin = points.before_timestamp(wanted_ms)
    first = next((batch.offset for batch in log if batch.max_timestamp_ms >= wanted_ms), points.next_offset)
    assert begin <= first


@given(STEPS)
def test_bytes_between_batches_are_near_the_truth(steps: list[tuple[int, int, int, int]]) -> None:
    points, log = noted(steps)
    total = sum(batch.size_bytes for batch in log)
    assert points.live_bytes == total
    assert points.bytes_between(0, points.next_offset - 1) == total
    largest = max((batch.size_bytes for batch in log), default=0)
    so_far = 0
    for batch in log:
        so_far += batch.size_bytes
        about = points.bytes_between(0, batch.offset + batch.count - 1)
        assert abs(about - so_far) <= total // 3 + largest
    assert points.bytes_between(5, 4) == 0


@given(STEPS, st.lists(st.integers(0, 3_000), max_size=5))
@settings(deadline=None)
def test_restored_milestones_go_on_as_the_first_ones(
    steps: list[tuple[int, int, int, int]], trims: list[int]
) -> None:
    points, _ = noted(steps)
    reborn = Milestones.restored(cbor2.loads(cbor2.dumps(points.snapshot())))
    for each in (points, reborn):
        for trim in sorted(trims):
            each.trim(min(trim, each.next_offset))
        for number in range(40):
            each.note(each.next_offset, 3, 100 + number, 1_000_000 + number, 1_000_000)
    assert reborn.snapshot() == points.snapshot()
    assert len(points) <= milestones.MILESTONES_MAX


@given(STEPS, st.integers(0, 3_000))
def test_after_a_trim_only_what_is_left_counts(steps: list[tuple[int, int, int, int]], cut: int) -> None:
    points, _ = noted(steps)
    start = min(cut, points.next_offset)
    behind = points.bytes_between(start, points.next_offset - 1)
    points.trim(start)
    assert points.start_offset == start
    assert points.live_bytes == behind
    assert points.trim_point(1 << 50, None, None) == start
    assert points.before_timestamp(0) == start
    points.trim(0)
    assert points.start_offset == start


@given(STEPS, st.sampled_from([None, 0, 100, 5_000]), st.sampled_from([None, 0, 7_000]), st.integers(0, 3_000))
@settings(deadline=None)
def test_the_stamp_of_the_next_trim_is_exact(
    steps: list[tuple[int, int, int, int]], retention_ms: int | None, retention_bytes: int | None, cut: int
) -> None:
    points, _ = noted(steps)
    points.trim(min(cut, points.next_offset))
    due_ms = points.trim_due_ms(retention_ms, retention_bytes)
    if due_ms is None:
        assert points.trim_point(1 << 50, retention_ms, retention_bytes) == points.start_offset
    else:
        assert points.trim_point(due_ms, retention_ms, retention_bytes) > points.start_offset
        if due_ms:
            assert points.trim_point(due_ms - 1, retention_ms, retention_bytes) == points.start_offset


def test_a_log_without_limits_is_never_trimmed() -> None:
    points, _ = noted([(5, 100, 10, 0)] * 50)
    assert points.trim_point(1 << 50, None, None) == 0
    assert points.trim_due_ms(None, None) is None


def test_points_stay_few_and_cover_the_whole_log_whatever_its_rhythm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    points = Milestones()
    offset = stamp_ms = 0
    for number in range(20_000):  # bursts of 1,000 batches a second, and an hour of silence in between
        stamp_ms += 3_600_000 if number % 1_000 == 0 else 1
        points.note(offset, 10, 1_000, stamp_ms, stamp_ms)
        offset += 10
    assert MILESTONES_MAX // 4 < len(points) <= MILESTONES_MAX
    half = points.trim_point(stamp_ms, stamp_ms // 2, None)
    assert abs(half - 100_000) <= 12_000  # a burst, and the thinning's one percent
    assert abs(points.bytes_between(0, 99_999) - 10_000_000) <= 20_000_000 // 100


def test_milestones_of_a_newer_format_are_refused() -> None:
    with pytest.raises(ValueError, match="format 2"):
        Milestones.restored([2, 0, [0], [0], [0], [0]])

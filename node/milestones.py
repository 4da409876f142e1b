"""Milestones: how offsets, bytes and time relate in one partition, in bounded memory.

    offset     0      812     1650   ...   next
    bytes      0    96 KB   210 KB   ...  total      each point stands between two batches
    stamp      -    12:00    12:01   ...    now      and tells about everything before it
    timestamp  -    11:58    12:01   ...  highest

Answers three questions without reading the log: how many bytes lie between two offsets (interpolated), up to where
retention may cut, and where to begin to look for a timestamp. The answers err on the safe side.

Every batch adds a point; when there are too many, those are taken out whose neighbours are close in bytes, time
and offsets, so that what is left is spread over the whole log whatever its rhythm was. A function of what was
noted and trimmed, and nothing else: replicas agree.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Any

MILESTONES_MAX = 1_024
"""Points per partition: 32 bytes each."""
GAPS = MILESTONES_MAX // 12
"""Thinning keeps two neighbouring points that are further apart than the whole divided by this, in bytes, time or
offsets; which leaves at most 6 * GAPS points and a few."""

SNAPSHOT_FORMAT = 1
"""First element of a snapshot."""

_NO_TIME = -(1 << 63)


class Milestones:
    """The points of one partition."""

    __slots__ = ("_bytes", "_offsets", "_stamps", "_timestamps", "start_offset")

    def __init__(self, start_offset: int = 0) -> None:
        self.start_offset = start_offset
        # Parallel and never falling. The first point lies at or before start_offset, the last one at the end.
        self._offsets = array("q", (start_offset,))
        self._bytes = array("q", (0,))
        self._stamps = array("q", (_NO_TIME,))
        self._timestamps = array("q", (_NO_TIME,))

    def __len__(self) -> int:
        """How many points there are."""
        return len(self._offsets)

    @property
    def next_offset(self) -> int:
        """Behind the last record noted."""
        return self._offsets[-1]

    @property
    def live_bytes(self) -> int:
        """Bytes from the start to the end."""
        return self._bytes[-1] - self._bytes_before(self.start_offset)

    def note(self, offset: int, count: int, size_bytes: int, stamp_ms: int, max_timestamp_ms: int) -> None:
        """A batch of `count` records was stored at `offset`, which is not below `next_offset`."""
        self._offsets.append(offset + count)
        self._bytes.append(self._bytes[-1] + size_bytes)
        self._stamps.append(max(stamp_ms, self._stamps[-1]))
        self._timestamps.append(max(max_timestamp_ms, self._timestamps[-1]))
        if len(self._offsets) > MILESTONES_MAX:
            self._thin()

    def bytes_between(self, first: int, last: int) -> int:
        """Bytes that the records first..last take, interpolated where no point stands; 0 if last < first."""
        return max(0, self._bytes_before(last + 1) - self._bytes_before(first))

    def trim_point(self, now_ms: int, retention_ms: int | None, retention_bytes: int | None) -> int:
        """The offset before which everything may go: the log's new start (or the present one).

        `retention_ms`: all before it was stored at least that long ago (by stamps, not the producers' timestamps,
        which may be anything). `retention_bytes`: at least that much is left behind it. None: no such limit. With
        both limits the one that cuts more decides.
        """
        point = -1
        if retention_ms is not None:
            point = bisect_right(self._stamps, now_ms - retention_ms) - 1
        if retention_bytes is not None:
            point = max(point, bisect_right(self._bytes, self._bytes[-1] - retention_bytes) - 1)
        return max(self.start_offset, self._offsets[point] if point >= 0 else 0)

    def trim_due_ms(self, retention_ms: int | None, retention_bytes: int | None) -> int | None:
        """The stamp from which `trim_point` says more than the present start: 0 means now; None: nothing will.

        Only notes change the answer, so a timer set for it never rings for nothing.
        """
        point = bisect_right(self._offsets, self.start_offset)
        if point == len(self._offsets):
            return None
        if retention_bytes is not None and self._bytes[point] <= self._bytes[-1] - retention_bytes:
            return 0
        return None if retention_ms is None else self._stamps[point] + retention_ms

    def before_timestamp(self, timestamp_ms: int) -> int:
        """An offset before which every record has a lower timestamp: where to look for the first that has not."""
        point = bisect_left(self._timestamps, timestamp_ms) - 1
        return max(self.start_offset, self._offsets[max(0, point)])

    def trim(self, start_offset: int) -> None:
        """The log begins there now; nothing changes if it begins later already."""
        if start_offset <= self.start_offset:
            return
        self.start_offset = start_offset
        behind = bisect_right(self._offsets, start_offset) - 1  # the points before this one are of no use
        if behind > 0:
            for column in self._columns():
                del column[:behind]
        if start_offset > self._offsets[-1]:
            self._offsets[-1] = start_offset

    def snapshot(self) -> list[Any]:
        """[format, start offset, offsets, bytes, stamps, timestamps]: each list as differences."""
        return [SNAPSHOT_FORMAT, self.start_offset, *(_differences(column) for column in self._columns())]

    @classmethod
    def restored(cls, snapshot: Sequence[Any]) -> Milestones:
        """The milestones that `snapshot` described. Raises ValueError for a format of a newer version."""
        form, start_offset, *columns = snapshot
        if form != SNAPSHOT_FORMAT:
            raise ValueError(f"milestones of format {form}; this version reads {SNAPSHOT_FORMAT}")
        milestones = cls(start_offset)
        for column, differences in zip(milestones._columns(), columns, strict=True):
            del column[:]
            value = 0
            for difference in differences:
                value += difference
                column.append(value)
        return milestones

    def _columns(self) -> tuple[array[int], array[int], array[int], array[int]]:
        return self._offsets, self._bytes, self._stamps, self._timestamps

    def _bytes_before(self, offset: int) -> int:
        """Bytes before an offset, as if records between two points had one size."""
        offsets, sizes = self._offsets, self._bytes
        behind = bisect_right(offsets, offset)
        if behind == 0:
            return sizes[0]
        if behind == len(offsets):
            return sizes[-1]
        span = offsets[behind] - offsets[behind - 1]
        size = sizes[behind] - sizes[behind - 1]
        return sizes[behind - 1] + size * (offset - offsets[behind - 1]) // span

    def _thin(self) -> None:
        """Take out every point whose neighbours are close enough without it; the first and last stay."""
        times = self._stamps
        times_from = times[1]  # the first point may have no time
        measures = (
            (self._offsets, (self._offsets[-1] - self._offsets[0]) // GAPS),
            (self._bytes, (self._bytes[-1] - self._bytes[0]) // GAPS),
            (times, (times[-1] - times_from) // GAPS),
        )
        keep = [0]
        for point in range(1, len(times) - 1):
            if any(column[point + 1] - column[keep[-1]] > gap for column, gap in measures):
                keep.append(point)
        keep.append(len(times) - 1)
        for column in self._columns():
            column[:] = array("q", [column[point] for point in keep])


def _differences(column: array[int]) -> list[int]:
    return [column[0], *(column[at] - column[at - 1] for at in range(1, len(column)))]

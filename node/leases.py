"""What the leader leases next: the lowest records that nobody has and nobody was promised.

    returned ──choose──> promised ──(the lease is applied, or given up)──release──> leased, or returned again
    undelivered ─^

Soft state of the leader. Between the choice and its commit the replicated state knows nothing of it; the chooser
makes sure that nothing is chosen twice meanwhile. (It would do no harm: `SharedSubscription.lease` skips what is
taken.)
"""

from __future__ import annotations

from collections.abc import Iterable

from node.ranges import Range
from node.shared import WINDOW_RANGES_MAX, SharedSubscription


class LeaseChooser:
    """Chooses for one subscription, of which there is one chooser at a time."""

    __slots__ = ("_shared",)

    def __init__(self, shared: SharedSubscription) -> None:
        self._shared = shared
        self.reset()

    @property
    def promised_count(self) -> int:
        """Records that are chosen and not released."""
        return self._shared.promised.count

    def reset(self) -> None:
        """Nothing is promised any more: the role changed, and no proposal of before will be heard of."""
        self._shared.promised.clear()
        self._shared.ready.fill(self._shared.returned_within())

    def available(self, next_offset: int) -> int:
        """How many records below `next_offset` could be chosen now."""
        shared = self._shared
        promised = sum(last - first + 1 for first, last in shared.promised.ranges_from(shared.end))
        undelivered = max(0, next_offset - shared.end - promised)
        return shared.ready.count + min(undelivered, self._room())

    def choose(self, limit: int, next_offset: int) -> list[Range]:
        """Promise the lowest records that are available below `next_offset`, at most `limit`: tidy.

        `next_offset` may count batches that are proposed and not committed, as the lease goes behind them.
        """
        shared = self._shared
        chosen = shared.ready.take(limit)
        left = min(limit - sum(last - first + 1 for first, last in chosen), self._room())
        at = shared.end
        while left > 0 and at < next_offset:
            taken = next(shared.promised.ranges_from(at), (next_offset, next_offset))
            last = min(taken[0], next_offset, at + left) - 1
            if at <= last:
                left -= last - at + 1
                if chosen and chosen[-1][1] + 1 == at:
                    chosen[-1] = (chosen[-1][0], last)
                else:
                    chosen.append((at, last))
            at = taken[1] + 1
        for first, last in chosen:
            shared.promised.add(first, last)
        return chosen

    def release(self, ranges: Iterable[Range]) -> None:
        """A choice was applied, or will never be: what it left returned can be chosen again.

        May be said of ranges that are not promised (any more): then it changes nothing.
        """
        shared = self._shared
        for first, last in ranges:
            shared.promised.remove(first, last)
            if first < shared.end:
                for low, high in shared.returned_within(first, last):
                    shared.ready.add(low, high)

    def _room(self) -> int:
        """Undelivered records that the window will have room for when everything promised is leased."""
        shared = self._shared
        if shared.range_count + len(shared.promised) >= WINDOW_RANGES_MAX:
            return 0
        return max(0, shared.room - shared.promised.count)

"""A shared subscription: leases and acknowledgements per record, replicated.

    0 ......... floor .................... end ................. next offset
      all done        done, except:            never delivered
                      leased | returned | delayed | dead-letter pending

                 lease           ack
    undelivered ───────> leased ───────> done <─── moved ─── dead-letter pending <─── given up
                         │    ^            ^
         return, due,    │    │ lease      └── drop: undelivered, returned, delayed
         consumer gone   v    │
                        returned <─── due ─── delayed <─── return with a delay

Only the exceptions are stored, as runs of equal state, so memory follows what is outstanding and never the
backlog. The lowest of `returned` and `end` is next, which puts a returned record back where it was.

Pure and deterministic: the state changes by commands only, each with the leader's stamp (ms, never falling), and
equal states have equal snapshots whatever their histories. The form is that of rabbit_fifo's checkout and of
KIP-932's share-partition state (SPSO, SPEO, state batches).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from node import recordstate
from node.outstanding import Deadline, Deadlines, LeaseIndex
from node.ranges import Range, RangeSet, extend, tidy
from node.recordstate import (
    DEAD_LETTER_PENDING,
    DELAYED,
    KINDS,
    LEASED,
    NEVER_MS,
    RETURNED,
    UNDELIVERED,
    Pending,
    RecordState,
    Summary,
    returned,
)
from node.runs import HIGHEST_OFFSET, RunMap

WINDOW_RANGES_MAX = 20_000
"""Exception runs of one subscription beyond which nothing undelivered is leased (returned records still are, or
the window could never empty)."""
WINDOW_RECORDS_MAX = 1_000_000
"""Outstanding records of one subscription beyond which nothing undelivered is leased: acknowledging every other
record of a large lease makes a run of each that is left."""
DUE_RUNS_MAX = 400
"""Runs that one `due` brings back, so that it stays far below 5 ms; what remains is due at once again."""
PENDING_RUNS_MAX = 1_000
"""Runs that one listing of what is pending gives at most."""
SNAPSHOT_FORMAT = 1
"""First element of a snapshot."""

Run = tuple[int, int, RecordState]
"""(first, last, state)."""
LeaseItem = tuple[int, int, int]
"""(lease id, first, last): what a consumer settles."""


class Settled(NamedTuple):
    """What became of an ack, return or extend."""

    records: int
    """How many were settled."""
    lost: list[Range]
    """Tidy: what that lease does not hold (any more). Nothing was done to it."""


class SharedSubscription:
    """The replicated state of one shared subscription of one partition."""

    __slots__ = ("_deadlines", "_leases", "_records", "_runs", "end", "promised", "ready")

    def __init__(self, start_offset: int = 0) -> None:
        self.end = start_offset  # every run lies below it; it is never right behind an UNDELIVERED run
        self._runs: RunMap[RecordState] = RunMap()
        # Soft, as `ready` is: what the leader's chooser has promised to consumers and not released (leases.py).
        self.promised = RangeSet()
        self._forget_derived()

    # What follows from the runs

    def _forget_derived(self) -> None:
        self._records = [0] * KINDS  # records per kind of exception
        self._leases = LeaseIndex()
        self._deadlines = Deadlines()
        # Soft: the returned records that are not promised. No command reads it.
        self.ready = RangeSet()

    def _derive(self) -> None:
        """Rebuild everything that follows from the runs."""
        self._forget_derived()
        for first, last, state in self._runs:
            self._records[state.kind] += last - first + 1
        self.ready.fill(self.returned_within())
        self._leases = LeaseIndex.of_runs(
            (first, last, state.lease_id, state.consumer)
            for first, last, state in self._runs
            if state.kind == LEASED
        )
        self._deadlines.rebuild(self._due_entries())

    def _due_entries(self) -> Iterator[Deadline]:
        for first, last, state in self._runs:
            if state.until_ms < NEVER_MS:
                yield state.until_ms, first, last, state.lease_id

    # Commands

    def lease(
        self, stamp_ms: int, lease_id: int, consumer: str, ranges: Iterable[Sequence[int]], lease_ms: int
    ) -> list[tuple[int, int, int]]:
        """Lease what is available of `ranges` until stamp_ms + lease_ms; all below the next offset.

        The leader chose the ranges; what is no longer returned or undelivered is skipped, so is what the window
        has no room for. Returns what was leased: (first, last, deliveries including this one), in order. A lease
        id is used once: one that still holds records leases nothing.
        """
        if lease_id in self._leases.by_id:
            return []
        until_ms = min(stamp_ms + lease_ms, NEVER_MS)
        granted: list[tuple[int, int, int]] = []
        for first, last in tidy((first, last) for first, last in ranges):
            if first < self.end:
                for low, high, state in self._runs.within(first, min(last, self.end - 1)):
                    if state.kind == RETURNED:
                        deliveries = state.deliveries + 1
                        since_ms = state.first_delivery_ms if state.deliveries else stamp_ms
                        leased = RecordState(LEASED, deliveries, since_ms, until_ms, lease_id, consumer, stamp_ms)
                        self._leave(low, high, state)
                        self._enter(low, high, leased)
                        granted.append((low, high, deliveries))
            first = max(first, self.end)
            last = min(last, first + self.room - 1)
            if first <= last:
                self._reach(first)
                self.end = last + 1
                leased = RecordState(LEASED, 1, stamp_ms, until_ms, lease_id, consumer, stamp_ms)
                self._enter(first, last, leased)
                granted.append((first, last, 1))
        if granted:
            held: list[Range] = []
            records = 0
            for first, last, _ in granted:
                extend(held, first, last)
                records += last - first + 1
            self._leases.add(lease_id, consumer, held, records)
        return granted

    def ack(self, stamp_ms: int, items: Iterable[LeaseItem]) -> Settled:
        """Records are done: they never come again."""
        count = 0
        lost: list[Range] = []
        for lease_id, first, last in items:
            for low, high, state in self._held(lease_id, first, last, lost):
                self._leave(low, high, state)
                self._runs.assign(low, high, None)
                count += high - low + 1
        return Settled(count, tidy(lost) if lost else lost)

    def return_(
        self, stamp_ms: int, items: Iterable[LeaseItem], delay_ms: int = 0, count_delivery: bool = True
    ) -> Settled:
        """Records come back to where they were, at once or after `delay_ms`.

        `count_delivery` False: this delivery is taken as not made (the consumer never saw it).
        """
        count = 0
        lost: list[Range] = []
        for lease_id, first, last in items:
            for low, high, state in self._held(lease_id, first, last, lost):
                self._leave(low, high, state)
                self._enter(low, high, returned(state, stamp_ms, delay_ms, count_delivery))
                count += high - low + 1
        if not count_delivery:
            self._lower_end()
        return Settled(count, tidy(lost) if lost else lost)

    def extend(self, stamp_ms: int, items: Iterable[LeaseItem], lease_ms: int) -> Settled:
        """Leases last until stamp_ms + lease_ms instead, which may be sooner (0: due now)."""
        until_ms = min(stamp_ms + lease_ms, NEVER_MS)
        count = 0
        lost: list[Range] = []
        for lease_id, first, last in items:
            for low, high, state in self._held(lease_id, first, last, lost):
                self._runs.assign(low, high, state._replace(until_ms=until_ms))
                self._expect(until_ms, low, high, lease_id)
                count += high - low + 1
        return Settled(count, tidy(lost) if lost else lost)

    def consumer_gone(self, stamp_ms: int, consumer: str) -> int:
        """Everything that a consumer holds comes back; returns how many records."""
        count = 0
        for lease_id in self._leases.of(consumer):
            for first, last in self._leases.by_id[lease_id].ranges:
                for low, high, state in self._runs.within(first, last):
                    if state.lease_id == lease_id:
                        self._leave(low, high, state)
                        self._enter(low, high, returned(state, stamp_ms))
                        count += high - low + 1
        return count

    def due(self, stamp_ms: int) -> int:
        """Leases whose deadline is reached and delays that are over come back; returns how many records.

        Until this says so a late holder may still settle. At most DUE_RUNS_MAX runs come back at a time, the
        earliest first: if more are due, `next_deadline_ms` is still not above `stamp_ms`.
        """
        count = runs = 0
        deadlines = self._deadlines
        while (entry := deadlines.peek()) is not None and entry[0] <= stamp_ms:
            when_ms, first, last, lease_id = entry
            if lease_id < 0 or lease_id in self._leases.by_id:
                # Whole runs, not cut to the entry: entries differ between replicas (one may have been restored),
                # so the limit must count what does not differ: runs by (deadline, first offset).
                for low, high, state in self._runs.overlapping(first, last):
                    if state.until_ms == when_ms:
                        if runs == DUE_RUNS_MAX:
                            deadlines.narrow(max(low, first))
                            self._lower_end()
                            return count
                        self._leave(low, high, state)
                        self._enter(low, high, returned(state, stamp_ms))
                        count += high - low + 1
                        runs += 1
            deadlines.pop()
        self._lower_end()
        return count

    def drop(self, stamp_ms: int, last: int, first: int = 0, leased: bool = False) -> int:
        """Records of first..last (below the next offset) are done without an ack: overflow, purge.

        Leased ones are spared unless `leased`; dead-letter-pending ones always. Returns how many were dropped.
        """
        count = 0
        kinds = (RETURNED, DELAYED, LEASED) if leased else (RETURNED, DELAYED)
        for low, high, state in self._runs.within(first, last):
            if state.kind in kinds:
                self._leave(low, high, state)
                self._runs.assign(low, high, None)
                count += high - low + 1
        first = max(first, self.end)
        if first <= last:
            self._reach(first)
            self.end = last + 1
            count += last - first + 1
        return count

    def drop_oldest(self, stamp_ms: int, limit: int, next_offset: int) -> int:
        """Drop the oldest records that nobody holds, at most `limit`; returns how many."""
        return sum(self.drop(stamp_ms, last, first) for first, last in self._oldest(limit, next_offset))

    def give_up_oldest(self, stamp_ms: int, limit: int, next_offset: int) -> list[Range]:
        """The oldest records that nobody holds, at most `limit`, become dead-letter pending; which, tidy."""
        chosen = self._oldest(limit, next_offset)
        for first, last in chosen:
            for low, high, state in self._runs.within(first, last):
                self._leave(low, high, state)
                self._enter(low, high, RecordState(DEAD_LETTER_PENDING, state.deliveries, state.first_delivery_ms))
            if last >= self.end:
                self._enter(self.end, last, RecordState(DEAD_LETTER_PENDING, 0, 0))
                self.end = last + 1
        return tidy(chosen)

    def given_up(self, first: int, last: int) -> int:
        """Dead-letter-pending records of first..last are in the dead-letter queue; returns how many there were."""
        count = 0
        for low, high, state in self._runs.within(first, last):
            if state.kind == DEAD_LETTER_PENDING:
                self._leave(low, high, state)
                self._runs.assign(low, high, None)
                count += high - low + 1
        return count

    def _oldest(self, limit: int, next_offset: int) -> list[Range]:
        """The oldest records that nobody holds, at most `limit`, in pieces that do not cross the end."""
        chosen: list[Range] = []
        left = limit
        if self._records[RETURNED] + self._records[DELAYED]:
            for low, high, state in self._runs:
                if left <= 0:
                    break
                if state.kind in (RETURNED, DELAYED):
                    chosen.append((low, min(high, low + left - 1)))
                    left -= high - low + 1
        if left > 0 and self.end < next_offset:
            chosen.append((self.end, min(next_offset, self.end + left) - 1))
        return chosen

    def trim(self, start_offset: int) -> int:
        """Records before `start_offset` no longer exist; returns how many were not done yet."""
        if start_offset <= self.floor:
            return 0
        count = max(0, start_offset - self.end)
        for low, high, state in self._runs.within(0, start_offset - 1):
            self._leave(low, high, state)
            count += high - low + 1
        self._runs.assign(0, start_offset - 1, None)
        self.end = max(self.end, start_offset)
        return count

    def seek(self, offset: int) -> None:
        """Start again: all before `offset` is done, nothing from it on was ever delivered, every lease is lost."""
        self.end = offset
        self._runs.clear()
        self._forget_derived()

    # Questions

    @property
    def floor(self) -> int:
        """Everything below it is done."""
        first = self._runs.first_offset()
        return self.end if first is None else first

    @property
    def outstanding(self) -> int:
        """Records below the end that are not done."""
        return sum(self._records)

    @property
    def leased_count(self) -> int:
        """Records that somebody holds."""
        return self._records[LEASED]

    @property
    def returned_count(self) -> int:
        """Records below the end that can be leased now."""
        return self._records[RETURNED]

    @property
    def range_count(self) -> int:
        """Runs of exceptions, which is what memory follows."""
        return len(self._runs)

    @property
    def room(self) -> int:
        """How many undelivered records the window has room for: 0 when it is full."""
        if len(self._runs) >= WINDOW_RANGES_MAX:
            return 0
        return max(0, WINDOW_RECORDS_MAX - sum(self._records))

    def leased_by(self, consumer: str) -> int:
        """Records that one consumer holds."""
        return self._leases.records(consumer)

    def held_by(self, consumer: str, lease_id: int, offset: int) -> list[tuple[int, int, int, int]]:
        """What a consumer holds behind that offset of that lease, in the order in which it was leased:
        (lease id, first, last, deliveries)."""
        found: list[tuple[int, int, int, int]] = []
        for held in self._leases.of(consumer):
            if held >= lease_id:
                ranges = self._leases.by_id[held].ranges
                low = offset + 1 if held == lease_id else ranges[0][0]
                for first, last, state in self._runs.within(low, ranges[-1][1]) if low <= ranges[-1][1] else ():
                    if state.lease_id == held:
                        found.append((held, first, last, state.deliveries))
        return found

    def consumers(self) -> list[str]:
        """Who holds at least one record, sorted."""
        return self._leases.consumers()

    def backlog_records(self, next_offset: int) -> int:
        """Records that are not done, delivered or not."""
        return sum(self._records) + max(0, next_offset - self.end)

    def live_ranges(self, next_offset: int) -> list[Range]:
        """The offsets that are not done, tidy."""
        live: list[Range] = []
        for first, last, _ in self._runs:
            extend(live, first, last)
        if self.end < next_offset:
            extend(live, self.end, next_offset - 1)
        return live

    def returned_within(self, first: int = 0, last: int = HIGHEST_OFFSET) -> list[Range]:
        """What of first..last is returned and not leased again, tidy."""
        found: list[Range] = []
        for low, high, state in self._runs.within(first, last):
            if state.kind == RETURNED:
                extend(found, low, high)
        return found

    def next_deadline_ms(self) -> int | None:
        """The earliest stamp at which `due` has something to do; None: never, as things are."""
        deadlines = self._deadlines
        while (entry := deadlines.peek()) is not None:
            when_ms, first, last, lease_id = entry
            if (lease_id < 0 or lease_id in self._leases.by_id) and any(
                state.until_ms == when_ms for _, _, state in self._runs.overlapping(first, last)
            ):
                return when_ms
            deadlines.pop()
        return None

    def runs(self, first: int = 0, last: int = HIGHEST_OFFSET) -> list[Run]:
        """The exceptions in first..last with their states."""
        return self._runs.within(first, last)

    def pending(
        self, stamp_ms: int, first: int = 0, consumer: str | None = None, limit: int = PENDING_RUNS_MAX
    ) -> list[Pending]:
        """What is leased from `first` on, to anybody or to one consumer: at most `limit` runs, by offset."""
        found: list[Pending] = []
        for low, high, state in self._runs.overlapping(first, HIGHEST_OFFSET):
            if len(found) >= min(limit, PENDING_RUNS_MAX):
                break
            if state.kind == LEASED and consumer in (None, state.consumer):
                found.append(recordstate.pending(max(low, first), high, state, stamp_ms))
        return found

    def summary(self) -> Summary:
        """The subscription in numbers."""
        records = self._records
        return Summary(
            self.floor,
            self.end,
            records[LEASED],
            records[RETURNED],
            records[DELAYED],
            records[DEAD_LETTER_PENDING],
            len(self._runs),
            len(self._leases.consumers()),
        )

    # Snapshots

    def snapshot(self) -> list[Any]:
        """The state as plain lists: equal states give equal ones.

        [format, end, [state, ...], [gap, length, number of its state, gap, ...]]: the states are numbered in the
        order in which the runs, by offset, meet them; a gap is the offsets between two runs.
        """
        numbers: dict[RecordState, int] = {}
        flat: list[int] = []
        behind = 0
        for first, last, state in self._runs:
            flat += (first - behind, last - first + 1, numbers.setdefault(state, len(numbers)))
            behind = last + 1
        return [SNAPSHOT_FORMAT, self.end, [list(state) for state in numbers], flat]

    @classmethod
    def restored(cls, snapshot: Sequence[Any]) -> SharedSubscription:
        """The subscription that `snapshot` described. Raises ValueError for a format of a newer version."""
        form, end, states, flat = snapshot
        if form != SNAPSHOT_FORMAT:
            raise ValueError(f"a subscription snapshot of format {form}; this version reads {SNAPSHOT_FORMAT}")
        subscription = cls(end)
        table = [RecordState(*state) for state in states]
        runs: list[Run] = []
        behind = 0
        for gap, length, number in zip(flat[::3], flat[1::3], flat[2::3], strict=True):
            runs.append((behind + gap, behind + gap + length - 1, table[number]))
            behind += gap + length
        subscription._runs.fill(runs)
        subscription._derive()
        return subscription

    # How the state changes

    def _held(self, lease_id: int, first: int, last: int, lost: list[Range]) -> list[Run]:
        """What that lease holds of first..last; all else of it is added to `lost`."""
        lease = self._leases.by_id.get(lease_id)
        if lease is None:
            lost.append((first, last))
            return []
        low, high = max(first, lease.ranges[0][0]), min(last, lease.ranges[-1][1])
        runs = self._runs.within(low, high) if low <= high else []
        if len(runs) == 1 and runs[0][2].lease_id == lease_id and runs[0][0] == first and runs[0][1] == last:
            return runs
        held: list[Run] = []
        for run in runs:
            if run[2].lease_id == lease_id:
                if first < run[0]:
                    lost.append((first, run[0] - 1))
                first = run[1] + 1
                held.append(run)
        if first <= last:
            lost.append((first, last))
        return held

    def _leave(self, first: int, last: int, state: RecordState) -> None:
        """Records stop being in a state; what they become is said next."""
        self._records[state.kind] -= last - first + 1
        if state.kind == LEASED:
            self._leases.settle(state.lease_id, last - first + 1)
        elif state.kind == RETURNED:
            self.ready.remove(first, last)

    def _enter(self, first: int, last: int, state: RecordState) -> None:
        """Records are in a state from now on. A lease's records are counted by `lease` itself."""
        self._records[state.kind] += last - first + 1
        self._runs.assign(first, last, state)
        if state.kind == RETURNED:
            self.ready.add(first, last)
        elif state.until_ms < NEVER_MS:
            self._expect(state.until_ms, first, last, state.lease_id)

    def _expect(self, when_ms: int, first: int, last: int, lease_id: int) -> None:
        if when_ms < NEVER_MS:
            self._deadlines.push(when_ms, first, last, lease_id)
            if self._deadlines.full:
                self._deadlines.rebuild(self._due_entries())

    def _reach(self, offset: int) -> None:
        """The end is about to pass `offset`: what is undelivered before it stays to be delivered."""
        if self.end < offset:
            self._enter(self.end, offset - 1, UNDELIVERED)
            for first, last in self.promised.within(self.end, offset - 1):
                self.ready.remove(first, last)

    def _lower_end(self) -> None:
        """Undelivered records right before the end are just undelivered: one state, one form."""
        state = self._runs.get(self.end - 1) if self.end else None
        if state == UNDELIVERED:
            first, last, _ = self._runs.overlapping(self.end - 1, self.end - 1)[0]
            self._leave(first, last, state)
            self._runs.assign(first, last, None)
            self.end = first

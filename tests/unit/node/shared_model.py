"""A shared subscription the slow and obvious way: one entry per record."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from node.ranges import Range
from node.recordstate import DEAD_LETTER_PENDING, DELAYED, LEASED, NEVER_MS, RETURNED

NEW, DONE = -1, 0


@dataclass(frozen=True)
class Cell:
    """One record."""

    kind: int
    deliveries: int = 0
    first_delivery_ms: int = 0
    until_ms: int = NEVER_MS
    lease_id: int = -1
    consumer: str = ""
    leased_ms: int = 0

    def back(self, stamp_ms: int, delay_ms: int = 0, counted: bool = True) -> Cell:
        deliveries = self.deliveries if counted else self.deliveries - 1
        since_ms = self.first_delivery_ms if deliveries else 0
        if delay_ms:
            return Cell(DELAYED, deliveries, since_ms, stamp_ms + delay_ms)
        return Cell(RETURNED, deliveries, since_ms) if deliveries else Cell(NEW)


def joined(offsets: list[int]) -> list[Range]:
    """Ascending offsets as ranges."""
    result: list[Range] = []
    for offset in offsets:
        if result and result[-1][1] == offset - 1:
            result[-1] = (result[-1][0], offset)
        else:
            result.append((offset, offset))
    return result


@dataclass
class Model:
    """All records ever published, and what each is."""

    ranges_max: int
    records_max: int
    due_runs_max: int
    cells: list[Cell] = field(default_factory=list)
    acked: int = 0
    removed: int = 0
    """Done without an ack: dropped, trimmed, sought past, moved to the dead-letter queue."""

    def publish(self, count: int) -> None:
        self.cells += [Cell(NEW)] * count

    # What follows from the cells

    @property
    def end(self) -> int:
        return 1 + max((o for o, cell in enumerate(self.cells) if cell.kind != NEW), default=-1)

    def of(self, *kinds: int) -> list[int]:
        return [offset for offset, cell in enumerate(self.cells) if cell.kind in kinds]

    def runs(self) -> list[tuple[int, int, Cell]]:
        """Below the end, what is not done, equal neighbours joined; never delivered counts as returned."""
        result: list[tuple[int, int, Cell]] = []
        for offset, cell in enumerate(self.cells[: self.end]):
            if cell.kind == NEW:
                cell = Cell(RETURNED)
            if cell.kind == DONE:
                continue
            if result and result[-1][1] == offset - 1 and result[-1][2] == cell:
                result[-1] = (result[-1][0], offset, cell)
            else:
                result.append((offset, offset, cell))
        return result

    def room(self) -> int:
        runs = self.runs()
        if len(runs) >= self.ranges_max:
            return 0
        return max(0, self.records_max - sum(last - first + 1 for first, last, _ in runs))

    def deadline(self) -> int | None:
        times = [cell.until_ms for cell in self.cells if cell.until_ms < NEVER_MS]
        return min(times, default=None)

    def snapshot(self) -> list[Any]:
        states: list[list[Any]] = []
        flat: list[int] = []
        behind = 0
        for first, last, cell in self.runs():
            state = [
                cell.kind,
                cell.deliveries,
                cell.first_delivery_ms,
                cell.until_ms,
                cell.lease_id,
                cell.consumer,
                cell.leased_ms,
            ]
            if state not in states:
                states.append(state)
            flat += [first - behind, last - first + 1, states.index(state)]
            behind = last + 1
        return [1, self.end, states, flat]

    # Commands

    def lease(
        self, stamp: int, lease_id: int, consumer: str, ranges: list[Range], lease_ms: int
    ) -> list[tuple[int, int]]:
        """(offset, deliveries) of what was leased."""
        if any(cell.lease_id == lease_id for cell in self.cells):
            return []
        got: list[tuple[int, int]] = []
        wanted = sorted({offset for first, last in ranges for offset in range(first, last + 1)})
        for first, last in joined(wanted):
            end = self.end
            for offset in range(first, min(last, end - 1) + 1):
                if self.cells[offset].kind in (NEW, RETURNED):
                    got.append(self._give(offset, stamp, lease_id, consumer, lease_ms))
            room = self.room()
            for offset in range(max(first, end), min(last + 1, max(first, end) + room)):
                got.append(self._give(offset, stamp, lease_id, consumer, lease_ms))
        return got

    def _give(self, offset: int, stamp: int, lease_id: int, consumer: str, lease_ms: int) -> tuple[int, int]:
        old = self.cells[offset]
        since = old.first_delivery_ms if old.deliveries else stamp
        until = min(stamp + lease_ms, NEVER_MS)
        self.cells[offset] = Cell(LEASED, old.deliveries + 1, since, until, lease_id, consumer, stamp)
        return offset, old.deliveries + 1

    def settle(self, items: list[tuple[int, int, int]], become: Any) -> tuple[int, list[Range]]:
        """Change what the leases hold to what `become` makes of it."""
        count = 0
        lost: set[int] = set()
        for lease_id, first, last in items:
            for offset in range(first, last + 1):
                if offset < len(self.cells) and self.cells[offset].lease_id == lease_id:
                    self.cells[offset] = become(self.cells[offset])
                    count += 1
                else:
                    lost.add(offset)
        return count, joined(sorted(lost))

    def ack(self, items: list[tuple[int, int, int]]) -> tuple[int, list[Range]]:
        count, lost = self.settle(items, lambda cell: Cell(DONE))
        self.acked += count
        return count, lost

    def return_(
        self, stamp: int, items: list[tuple[int, int, int]], delay_ms: int, counted: bool
    ) -> tuple[int, list[Range]]:
        return self.settle(items, lambda cell: cell.back(stamp, delay_ms, counted))

    def extend(self, stamp: int, items: list[tuple[int, int, int]], lease_ms: int) -> tuple[int, list[Range]]:
        until = min(stamp + lease_ms, NEVER_MS)
        return self.settle(items, lambda cell: replace(cell, until_ms=until))

    def consumer_gone(self, stamp: int, consumer: str) -> int:
        held = [offset for offset in self.of(LEASED) if self.cells[offset].consumer == consumer]
        for offset in held:
            self.cells[offset] = self.cells[offset].back(stamp)
        return len(held)

    def due(self, stamp: int) -> int:
        late = sorted((cell.until_ms, first, last) for first, last, cell in self.runs() if cell.until_ms <= stamp)
        count = 0
        for _, first, last in late[: self.due_runs_max]:
            for offset in range(first, last + 1):
                self.cells[offset] = self.cells[offset].back(stamp)
                count += 1
        return count

    def drop(self, first: int, last: int, leased: bool) -> int:
        kinds = (NEW, RETURNED, DELAYED, LEASED) if leased else (NEW, RETURNED, DELAYED)
        gone = [offset for offset in self.of(*kinds) if first <= offset <= last]
        self._remove(gone)
        return len(gone)

    def drop_oldest(self, limit: int) -> int:
        gone = self.of(NEW, RETURNED, DELAYED)[:limit]
        self._remove(gone)
        return len(gone)

    def give_up_oldest(self, limit: int) -> list[Range]:
        chosen = self.of(NEW, RETURNED, DELAYED)[:limit]
        for offset in chosen:
            old = self.cells[offset]
            self.cells[offset] = Cell(DEAD_LETTER_PENDING, old.deliveries, old.first_delivery_ms)
        return joined(chosen)

    def given_up(self, first: int, last: int) -> int:
        moved = [offset for offset in self.of(DEAD_LETTER_PENDING) if first <= offset <= last]
        self._remove(moved)
        return len(moved)

    def trim(self, start: int) -> int:
        live = self.of(NEW, RETURNED, DELAYED, LEASED, DEAD_LETTER_PENDING)
        gone = [offset for offset in live if offset < start]
        self._remove(gone)
        return len(gone)

    def seek(self, offset: int) -> None:
        self.removed = offset
        self.acked = 0
        self.cells = [Cell(DONE)] * offset + [Cell(NEW)] * (len(self.cells) - offset)

    def _remove(self, offsets: list[int]) -> None:
        for offset in offsets:
            self.cells[offset] = Cell(DONE)
        self.removed += len(offsets)

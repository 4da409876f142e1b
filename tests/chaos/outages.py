"""How long nobody could publish: for each fault, the longest time between two successes in the worst partition.

    success ──────── success ─┬─ fault ──────────────────┬─ healed ──── success
                              └── counts from here       │        └── and until everything was published to again

Pure: told the times of successes and faults.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from statistics import median


@dataclass(slots=True)
class Window:
    """One fault's time."""

    kind: str
    last_s: dict[Hashable, float]
    """By partition, the last success, or the beginning."""
    longest_s: float = 0.0

    def succeeded(self, partition: Hashable, now_s: float) -> None:
        """Somebody published to a partition."""
        self.longest_s = max(self.longest_s, now_s - self.last_s[partition])
        self.last_s[partition] = now_s


@dataclass(slots=True)
class Outages:
    """Of one run."""

    by_kind: dict[str, list[float]] = field(default_factory=dict)
    """Seconds without service, for each fault of a kind."""
    last_s: dict[Hashable, float] = field(default_factory=dict)
    """By partition, the last success."""
    _open: dict[int, Window] = field(default_factory=dict)
    _windows: int = 0

    def begin(self, partitions: list[Hashable], now_s: float) -> None:
        """These are published to from now on, and no others."""
        self.last_s = dict.fromkeys(partitions, now_s)

    def succeeded(self, partition: Hashable, now_s: float) -> None:
        """Somebody published to a partition."""
        if partition not in self.last_s:
            return
        self.last_s[partition] = now_s
        for window in self._open.values():
            if partition in window.last_s:
                window.succeeded(partition, now_s)

    def struck(self, kind: str, now_s: float) -> int:
        """A fault begins. Returns the number by which to say that it is over."""
        self._windows += 1
        self._open[self._windows] = Window(kind, dict.fromkeys(self.last_s, now_s))
        return self._windows

    def over(self, number: int, now_s: float) -> float:
        """Service is there again; the seconds that there was none."""
        window = self._open.pop(number)
        for partition in window.last_s:
            window.succeeded(partition, now_s)
        self.by_kind.setdefault(window.kind, []).append(window.longest_s)
        return window.longest_s

    def forget(self, number: int) -> None:
        """Nothing happened after all."""
        del self._open[number]

    def served_since(self, since_s: float) -> bool:
        """Every partition was published to."""
        return all(last_s >= since_s for last_s in self.last_s.values())

    def unserved(self, since_s: float) -> list[Hashable]:
        """Those that were not."""
        return [partition for partition, last_s in self.last_s.items() if last_s < since_s]

    def rows(self) -> list[tuple[str, int, float, float]]:
        """(kind, faults, median seconds, longest seconds)."""
        return [(kind, len(all_s), median(all_s), max(all_s)) for kind, all_s in sorted(self.by_kind.items())]

"""Whether a node counts as short of disk space: at once when it is, and for a while after it was. Pure.

    plenty ──low──> low ──critical──> critical ──more space for EASE_MS──> low, plenty

What follows from it (who leads, who is refused) would go to and fro without the while.
"""

from __future__ import annotations

from cluster.limits import Storage
from cluster.rates import NS_PER_MS

EASE_MS = 5_000
"""How long a node must have more space before it counts as having it."""

_DEGREES: dict[Storage, int] = {"none": 0, "low": 1, "critical": 2}


class Scarcity:
    """Of one node. `degree` is "none", "low" or "critical"."""

    def __init__(self) -> None:
        self.degree: Storage = "none"
        self._better: tuple[int, Storage] | None = None
        """Since when there has been more space, and the worst that was seen since then."""

    def look(self, now_ns: int, storage: Storage) -> bool:
        """This is what the disk is like now; whether the node counts for something else from now on."""
        found: Storage = "none" if storage == "busy" else storage
        before = self.degree
        if _DEGREES[found] >= _DEGREES[before]:
            self._better, self.degree = None, found
        elif self._better is None:
            self._better = now_ns, found
        else:
            since_ns, worst = self._better
            worst = max(worst, found, key=_DEGREES.__getitem__)
            self._better = since_ns, worst
            if now_ns - since_ns >= EASE_MS * NS_PER_MS:
                self._better, self.degree = None, worst
        return self.degree != before


def at_least(storage: Storage, degree: Storage) -> bool:
    """Whether a disk is as short of space as that, or shorter."""
    return _DEGREES.get(storage, 0) >= _DEGREES[degree]

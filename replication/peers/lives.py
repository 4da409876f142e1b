"""How a node's disk is known again: a life is one start of a node on it, and has a mark that was drawn at it.

    start 1, mark a ── start 2, mark b ── start 3, mark c          the disk remembers its latest marks: its past
                              └─ copied ── start 3, mark d         counts as far, but where c was seen, d is told

The count alone would not do: an older copy of a disk, started often enough, comes to any number. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

MARK_BITS = 32
"""Size of the number that is drawn at a start."""
PAST_LIVES_MAX = 64
"""Latest lives that a disk remembers, beside those in which it met another node last."""
PAST_TOLD_MAX = 192
"""Lives that a node may tell of at a handshake."""


@dataclass(frozen=True, slots=True)
class Life:
    """One start of a node. Life(0, 0) is before all."""

    number: int
    mark: int = 0
    """0: it is not known."""

    def is_of(self, number: int, past: Mapping[int, int]) -> bool:
        """Whether a disk in its life `number`, with that past, has had this life, and not only one of its number.

        A disk that tells no marks is known by its number alone.
        """
        if number < self.number:
            return False
        return not self.mark or not past or past.get(self.number) == self.mark


def remembered(past: Mapping[int, int], needed: Collection[int]) -> dict[int, int]:
    """What is kept of a past: the latest lives, and the needed ones."""
    latest = sorted(past)[-PAST_LIVES_MAX:]
    return {number: past[number] for number in sorted({*latest, *needed} & past.keys())}


def encode_past(past: Mapping[int, int]) -> list[int]:
    """Flat, for a handshake: number, mark, number, mark..."""
    return [part for number in sorted(past) for part in (number, past[number])]


def decode_past(told: Any) -> dict[int, int] | None:
    """The past of `encode_past`; None for anything else."""
    if type(told) is not list or len(told) % 2 or len(told) > 2 * PAST_TOLD_MAX:
        return None
    if not all(type(part) is int and 0 <= part < 1 << 63 for part in told):
        return None
    return dict(zip(told[::2], told[1::2], strict=True))

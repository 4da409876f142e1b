"""Beats between nodes: who is there, and which groups sleep, so that nobody sleeps through a loss. Pure.

    leader's node ── beat: what I lead asleep with you, count and digest per bucket ──> follower's node: compares
                  <── beat: wake these buckets ──   differed for `mismatch_beats`, and neither side moved

Digests do not depend on order: the sum of a 64-bit mix of (group, term). Groups that fall asleep one after the
other make the sides differ all the time for a moment; cut into buckets, and counted only while neither side's
bucket changes, that is not taken for a loss. Only buckets that changed are sent: a connection keeps its order.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from plait.wire.errors import BadRequest

BUCKETS = 64
"""Parts that sleeping groups are compared in, by the group's number."""
_MASK = (1 << 64) - 1


def mix(group: int, term: int) -> int:
    """64 well-mixed bits of both (the finaliser of SplitMix64, Steele, Lea and Flood 2014, twice)."""
    return _finalise((_finalise((group + 0x9E3779B97F4A7C15) & _MASK) + term) & _MASK)


def _finalise(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


@dataclass(frozen=True, slots=True)
class Beat:
    """What a node says every `beat_ms` to a node."""

    sequence: int
    """From 1 on each connection; rises by one."""
    wake: list[int]
    """Buckets in which what the receiver says it leads asleep is not what sleeps here: it is to wake them."""
    slept: list[int]
    """Bucket, count, digest; bucket, count, digest; ... of what the sender leads asleep with a follower here."""

    def words(self) -> list[Any]:
        """As part of a frame's words."""
        return [self.sequence, self.wake, self.slept]


def read_beat(words: Any) -> Beat:
    """What `Beat.words` gave. Raises BadRequest."""
    match words:
        case [int(sequence), [*wake], [*slept]] if _numbers([sequence, *wake]) and _numbers(slept):
            if len(slept) % 3 == 0 and all(bucket < BUCKETS for bucket in [*wake, *slept[::3]]):
                return Beat(sequence, wake, slept)
    raise BadRequest("a peer's beat cannot be read; the connection ends")


def _numbers(found: list[Any]) -> bool:
    return all(type(number) is int and 0 <= number <= _MASK for number in found)


class Sleepers:
    """Groups that sleep, with a digest for each bucket."""

    __slots__ = ("counts", "digests", "terms")

    def __init__(self) -> None:
        self.terms: dict[int, int] = {}
        self.counts = [0] * BUCKETS
        self.digests = [0] * BUCKETS

    def add(self, group: int, term: int) -> None:
        """It fell asleep; replaces what was said of it before."""
        self.discard(group)
        self.terms[group] = term
        self._count(group, 1, mix(group, term))

    def discard(self, group: int) -> None:
        """It is awake."""
        term = self.terms.pop(group, None)
        if term is not None:
            self._count(group, -1, -mix(group, term))

    def of(self, buckets: Collection[int]) -> list[int]:
        """The groups of these buckets, in order of group."""
        return sorted(group for group in self.terms if group % BUCKETS in buckets)

    def _count(self, group: int, one: int, mixed: int) -> None:
        bucket = group % BUCKETS
        self.counts[bucket] += one
        self.digests[bucket] = (self.digests[bucket] + mixed) & _MASK


class Rounds:
    """Beats to and from one node on one connection. A new connection begins with a new one."""

    def __init__(self, led: Sleepers, followed: Sleepers, mismatch_beats: int) -> None:
        self._led = led
        """Asleep, led here, with a follower there."""
        self._followed = followed
        """Asleep here, led there."""
        self._mismatch_beats = mismatch_beats
        self._sequence = 0
        self._said = [(0, 0)] * BUCKETS
        self._theirs = [(0, 0)] * BUCKETS
        self._mine = [(0, 0)] * BUCKETS  # as of the last comparison
        self._differed = [0] * BUCKETS  # beats in a row, with neither side changed
        self._ask_to_wake: list[int] = []

    def speak(self) -> Beat:
        """The next beat to send."""
        self._sequence += 1
        slept: list[int] = []
        for bucket, now in enumerate(zip(self._led.counts, self._led.digests, strict=True)):
            if now != self._said[bucket]:
                self._said[bucket] = now
                slept += (bucket, *now)
        wake, self._ask_to_wake = self._ask_to_wake, []
        return Beat(self._sequence, wake, slept)

    def hear(self, beat: Beat) -> list[int]:
        """The groups to wake, in order of group."""
        changed: dict[int, None] = {}
        for at in range(0, len(beat.slept), 3):
            bucket, count, digest = beat.slept[at : at + 3]
            self._theirs[bucket] = (count, digest)
            changed[bucket] = None
        lost = self._compare(changed)
        self._ask_to_wake += lost
        wake = self._followed.of(dict.fromkeys(lost)) if lost else []
        if beat.wake:
            wake += self._led.of(dict.fromkeys(beat.wake))
        return wake

    def _compare(self, changed: Iterable[int]) -> list[int]:
        """Buckets that differed for long enough."""
        for bucket in changed:
            self._differed[bucket] = 0
        lost = []
        for bucket, mine in enumerate(zip(self._followed.counts, self._followed.digests, strict=True)):
            if mine != self._mine[bucket]:
                self._mine[bucket] = mine
                self._differed[bucket] = 0
            if mine == self._theirs[bucket]:
                self._differed[bucket] = 0
                continue
            self._differed[bucket] += 1
            if self._differed[bucket] >= self._mismatch_beats:
                self._differed[bucket] = 0
                lost.append(bucket)
        return lost

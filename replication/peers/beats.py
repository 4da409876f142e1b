"""Beats between nodes: who is there, and which groups sleep, so that nobody sleeps through a loss. Pure.

    leader's node ── beat: what I lead asleep with you, count and digest per bucket ──> follower's node: compares
                  <── beat: wake these buckets ──   differed for `mismatch_beats`, and neither side moved

Digests do not depend on order: the sum of a 64-bit mix of (group, term). Groups that fall asleep one after the
other make the sides differ all the time for a moment; cut into buckets, and counted only while neither side's
bucket changes, that is not taken for a loss. Only buckets that changed are sent; whoever misses a beat asks for
all of them.
"""

from __future__ import annotations

from collections.abc import Collection
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
    whole: bool
    """Buckets that are not named in `slept` are empty; else they are as they were."""
    again: bool
    """A beat is missing: the next one is to be whole."""
    wake: list[int]
    """Buckets in which what the receiver says it leads asleep is not what sleeps here: it is to wake them."""
    slept: list[int]
    """Bucket, count, digest; bucket, count, digest; ... of what the sender leads asleep with a follower here."""

    def words(self) -> list[Any]:
        """As part of a frame's words."""
        return [self.sequence, self.whole, self.again, self.wake, self.slept]


def read_beat(words: Any) -> Beat:
    """What `Beat.words` gave. Raises BadRequest."""
    match words:
        case [int(sequence), bool(whole), bool(again), [*wake], [*slept]]:
            sound = _numbers([sequence, *wake, *slept]) and len(slept) % 3 == 0
            if sound and all(bucket < BUCKETS for bucket in [*wake, *slept[::3]]):
                return Beat(sequence, whole, again, wake, slept)
    raise BadRequest("a peer's beat cannot be read; the connection ends")


def _numbers(found: list[Any]) -> bool:
    return all(type(number) is int and 0 <= number <= _MASK for number in found)


class Sleepers:
    """Groups that sleep, with a digest for each bucket."""

    __slots__ = ("changes", "counts", "digests", "terms")

    def __init__(self) -> None:
        self.terms: dict[int, int] = {}
        self.changes = 0
        """Rises with every change: while it stands, nothing needs to be compared anew."""
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
        self.changes += 1
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
        self._heard = 0  # the highest sequence that came
        self._again = False  # beats are missing; nothing is compared until a whole one came
        self._whole_next = True
        self._said = [(0, 0)] * BUCKETS
        self._theirs = [(0, 0)] * BUCKETS
        self._mine = [(0, 0)] * BUCKETS  # as of the last comparison
        self._differed = [0] * BUCKETS  # beats in a row, with neither side changed
        self._led_changes = self._followed_changes = -1  # as of the last look at all buckets
        self._ask_to_wake: list[int] = []

    def speak(self) -> Beat:
        """The next beat to send."""
        self._sequence += 1
        whole, self._whole_next = self._whole_next, False
        if whole:
            self._said = [(0, 0)] * BUCKETS
        slept = self._news() if whole or self._led_changes != self._led.changes else []
        wake, self._ask_to_wake = self._ask_to_wake, []
        return Beat(self._sequence, whole, self._again, wake, slept)

    def _news(self) -> list[int]:
        self._led_changes = self._led.changes
        slept: list[int] = []
        for bucket, now in enumerate(zip(self._led.counts, self._led.digests, strict=True)):
            if now != self._said[bucket]:
                self._said[bucket] = now
                slept += (bucket, *now)
        return slept

    def hear(self, beat: Beat) -> list[int]:
        """The groups to wake, in order of group. A beat that comes twice, or behind a later one, says nothing."""
        if beat.sequence <= self._heard:
            return []
        self._again = not beat.whole and (self._again or beat.sequence != self._heard + 1)
        self._heard = beat.sequence
        self._whole_next |= beat.again
        woken = self._led.of(dict.fromkeys(beat.wake)) if beat.wake else []
        return woken if self._again else woken + self._learn(beat)

    def _learn(self, beat: Beat) -> list[int]:
        """What sleeps here and is not what sleeps there."""
        still = not beat.whole and not beat.slept and self._followed_changes == self._followed.changes
        if still and self._mine == self._theirs:
            return []
        self._followed_changes = self._followed.changes
        theirs = [(0, 0)] * BUCKETS if beat.whole else self._theirs.copy()
        for at in range(0, len(beat.slept), 3):
            bucket, count, digest = beat.slept[at : at + 3]
            theirs[bucket] = (count, digest)
        before, self._theirs = self._theirs, theirs
        lost = self._compare(before)
        self._ask_to_wake += lost
        return self._followed.of(dict.fromkeys(lost)) if lost else []

    def _compare(self, before: list[tuple[int, int]]) -> list[int]:
        """Buckets that differed for long enough, with neither side moving."""
        lost = []
        for bucket, mine in enumerate(zip(self._followed.counts, self._followed.digests, strict=True)):
            moved = mine != self._mine[bucket] or before[bucket] != self._theirs[bucket]
            self._mine[bucket] = mine
            if moved or mine == self._theirs[bucket]:
                self._differed[bucket] = 0
            if mine != self._theirs[bucket]:
                self._differed[bucket] += 1
            if self._differed[bucket] >= self._mismatch_beats:
                self._differed[bucket] = 0
                lost.append(bucket)
        return lost

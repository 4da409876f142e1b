"""Publishes that a node sent to a partition's leader are stored once, however often it sends them.

    entry node: origin (its incarnation, request number) ──> envelope of the batch ──applied──> remembered here
    sent again ──find──> stored: where | forgotten: it may be stored | not stored

A node numbers its publishes per partition, and never has one under way that lies ORIGIN_WINDOW or more behind the
newest: so what may still be sent again is remembered. What comes later than that is refused as unknown.
Part of the partition's replicated state. The idea is RIFL's (Lee et al., SOSP 2015), with a window in place of
the client's word of what it has heard.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

ORIGIN_WINDOW = 256
"""Request numbers of one node, back from its newest, whose results a partition remembers."""
ORIGINS_MAX = 1_024
"""Incarnations of nodes that one partition remembers; beyond it the one quiet for longest is forgotten."""
ORIGIN_QUIET_MS_MAX = 3_600_000
"""How long an incarnation that publishes nothing is remembered: a request is never under way for so long."""
NODE_BITS = 32
"""An origin's incarnation is the node's id and, in this many bits below it, which start of that node it is."""

SNAPSHOT_FORMAT = 1
"""First element of a snapshot."""

Origin = tuple[int, int]
"""(incarnation, request number)."""
NO_ORIGIN: Origin = (0, 0)
"""Of a publish that nobody will send again."""


def incarnation_of(node: int, start: int) -> int:
    """A number for one life of one node, which no other life of any node has."""
    assert 0 < node < 1 << (63 - NODE_BITS), "a node id"
    assert 0 < start < 1 << NODE_BITS, "a node's start"
    return node << NODE_BITS | start


class Stored(NamedTuple):
    """It was applied."""

    base_offset: int
    stamp_ms: int


@dataclass(frozen=True, slots=True)
class Forgotten:
    """It lies behind the window: whether it was applied is not known any more."""


FORGOTTEN = Forgotten()


@dataclass(slots=True)
class _Life:
    """What is known of one incarnation."""

    highest: int = 0
    last_stamp_ms: int = 0
    results: dict[int, Stored] = field(default_factory=dict)
    """By request number, all above `highest` - ORIGIN_WINDOW."""


class OriginTable:
    """The replicated table of one partition, changed by `record` only."""

    def __init__(self) -> None:
        self._lives: OrderedDict[int, _Life] = OrderedDict()  # who was quiet for longest comes first

    def __len__(self) -> int:
        return len(self._lives)

    def find(self, origin: Origin) -> Stored | Forgotten | None:
        """What became of a request; None: it was not applied."""
        incarnation, request = origin
        life = self._lives.get(incarnation)
        if life is None:
            return None
        if request <= life.highest - ORIGIN_WINDOW:
            return FORGOTTEN
        return life.results.get(request)

    def record(self, origin: Origin, base_offset: int, stamp_ms: int) -> None:
        """A publish with an origin was applied."""
        incarnation, request = origin
        life = self._lives.get(incarnation)
        if life is None:
            life = self._lives[incarnation] = _Life()
            if len(self._lives) > ORIGINS_MAX:
                self._lives.popitem(last=False)
        else:
            self._lives.move_to_end(incarnation)
        life.last_stamp_ms = stamp_ms
        if request > life.highest:
            self._move_on(life, request)
        if request > life.highest - ORIGIN_WINDOW:
            life.results[request] = Stored(base_offset, stamp_ms)
        self._expire(stamp_ms)

    def snapshot(self) -> list[Any]:
        """[format, [[incarnation, highest, stamp, request, offset, stamp, request, ...], ...]], quietest first."""
        return [
            SNAPSHOT_FORMAT,
            [
                [
                    incarnation,
                    life.highest,
                    life.last_stamp_ms,
                    *(item for request in sorted(life.results) for item in (request, *life.results[request])),
                ]
                for incarnation, life in self._lives.items()
            ],
        ]

    @classmethod
    def restored(cls, snapshot: Sequence[Any]) -> OriginTable:
        """The table that `snapshot` described. Raises ValueError for a format of a newer version."""
        form, lives = snapshot
        if form != SNAPSHOT_FORMAT:
            raise ValueError(f"a table of origins of format {form}; this version reads {SNAPSHOT_FORMAT}")
        table = cls()
        for incarnation, highest, stamp_ms, *flat in lives:
            results = {
                request: Stored(offset, when_ms)
                for request, offset, when_ms in zip(flat[::3], flat[1::3], flat[2::3], strict=True)
            }
            table._lives[incarnation] = _Life(highest, stamp_ms, results)
        return table

    def _move_on(self, life: _Life, highest: int) -> None:
        """The window ends at a higher number: forget what falls out of it."""
        before, life.highest = life.highest, highest
        if highest - before >= ORIGIN_WINDOW:
            life.results.clear()
            return
        for request in range(before - ORIGIN_WINDOW + 1, highest - ORIGIN_WINDOW + 1):
            life.results.pop(request, None)

    def _expire(self, stamp_ms: int) -> None:
        while next(iter(self._lives.values())).last_stamp_ms <= stamp_ms - ORIGIN_QUIET_MS_MAX:
            self._lives.popitem(last=False)

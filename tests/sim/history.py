"""Random histories of a log store, as plain lists of steps that a failing one can be cut down to.

Each seed draws its own mix (some delete often, some never settle), so that a batch of seeds meets combinations
that one average mix would not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

PAYLOAD_BYTES = (0, 1, 30, 100, 100, 100, 600, 3_900, 5_000)
"""Sizes that payloads are drawn from: around what a block and a page hold."""
WAIT_US = (0, 0, 100, 1_000, 10_000, 120_000)
"""Pauses between steps: none (the next batch collects), about one sync, longer than the idle seal's delay."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that is done to a store. Numbers are taken modulo what there is, so that any list is a history."""

    action: str
    group: int = 0
    count: int = 0
    size_bytes: int = 0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Shape:
    """How the store of a history is set up."""

    wal_file_bytes: int
    segment_own_bytes: int
    sector_bytes: int


@dataclass(frozen=True, slots=True)
class History:
    """A list of steps and the set-up that they run on."""

    seed: int
    shape: Shape
    steps: tuple[Step, ...]


_WEIGHTS = {
    "create": (1, 2),
    "append": (20, 40),
    "vote": (0, 3),
    "settle": (0, 12),
    "settle_all": (0, 2),
    "truncate": (0, 4),
    "install": (0, 4),
    "apply": (4, 12),
    "retain": (0, 4),
    "delete": (0, 2),
    "read": (0, 10),
    "wait": (5, 40),
    "drain": (1, 8),
}
"""Per action: least and greatest weight of a history's mix."""


def random_history(seed: int, steps: int) -> History:
    """A history of that many steps; equal for equal arguments."""
    random = Random(seed)
    shape = Shape(
        wal_file_bytes=random.choice((32_768, 65_536, 131_072)),
        segment_own_bytes=random.choice((4_096, 16_384, 1 << 20)),
        sector_bytes=random.choice((512, 4_096)),
    )
    actions = list(_WEIGHTS)
    weights = [random.uniform(*_WEIGHTS[action]) for action in actions]
    found = [Step("create", seed=random.getrandbits(32)), Step("append", 0, 1, 100, random.getrandbits(32))]
    while len(found) < steps:
        (action,) = random.choices(actions, weights)
        group, count = random.randrange(6), random.randrange(1, 6)
        found.append(Step(action, group, count, random.choice(PAYLOAD_BYTES), random.getrandbits(32)))
    return History(seed, shape, tuple(found))


def shrink(history: History, fails: Callable[[History], bool], tries: int = 200) -> History:
    """A shorter history that still fails: steps are taken out in ever smaller runs (ddmin)."""
    size = max(len(history.steps) // 2, 1)
    while size:
        at = 0
        while at < len(history.steps) and tries:
            tries -= 1
            shorter = replace(history, steps=history.steps[:at] + history.steps[at + size :])
            if fails(shorter):
                history = shorter
            else:
                at += size
        size //= 2
    return history

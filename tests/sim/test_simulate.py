"""Whole nodes under seeded faults keep their promises, each seed in the same way in whatever process.

A short form of scripts/simulate, which runs as many seeds as one likes; here PLAIT_SIMULATE_SEEDS of them.
"""

from __future__ import annotations

import os

import pytest

from tests.sim.cluster.layers import STATES, run_any
from tests.sim.cluster.plan import draw, shrink
from tests.sim.cluster.runner import run_batch
from tests.sim.cluster.sometimes import never
from tests.sim.disk import SimDisk
from tests.sim.faults import OperationKind
from tests.sim.pages import Inode

SEEDS = int(os.environ.get("PLAIT_SIMULATE_SEEDS", "40"))
SEEDS_FOR_STATES = 300
"""A smaller batch may miss some."""
RARE = (
    "damage without remedy",
    "older disk found by its leader",
    "older disk refused",
    "membership change reverted",
)
"""States that only a batch of thousands must reach."""
TRIES = 60
"""Seeds within which a defect that is put in must be found."""


@pytest.mark.slow
def test_every_promise_is_kept_and_equal_seeds_give_equal_runs() -> None:
    batch = run_batch("groups", range(SEEDS), os.cpu_count() or 1, twice=True, progress=lambda _: None)
    assert batch.broken == {}, "scripts/simulate --seed N --shrink tells more"
    assert batch.differing == [], "they ran differently under another hash seed"
    assert batch.runs == 2 * SEEDS
    if SEEDS >= SEEDS_FOR_STATES:
        expected = [state for state in STATES["groups"] if state not in RARE]
        assert never(batch.states, expected) == []


def sync_nothing(disk: SimDisk, name: str, inode: Inode) -> None:
    """What a disk does that says "synced" and has synced nothing."""
    disk.begin(OperationKind.SYNC, name)


@pytest.mark.slow
def test_disks_that_lie_about_syncs_are_noticed_and_the_plan_is_cut_down_to_what_shows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SimDisk, "sync", sync_nothing)
    plans = (draw(seed, kinds=("power cut", "power cut everywhere")) for seed in range(TRIES))
    plan = next(plan for plan in plans if run_any(plan).broken)
    smaller = shrink(plan, lambda one: bool(run_any(one).broken), tries=40)
    report = run_any(smaller)
    assert report.broken
    assert len(smaller.faults) <= len(plan.faults)
    assert any("BROKEN" in line for line in report.lines), "its events are told"


@pytest.mark.slow
def test_a_seed_is_told_line_by_line_and_runs_the_same_again() -> None:
    first, second = run_any(draw(4), trace=True), run_any(draw(4), trace=True)
    assert list(first.lines) == list(second.lines)
    assert first.digest == second.digest != run_any(draw(5)).digest
    assert any("standing" in line for line in first.lines)

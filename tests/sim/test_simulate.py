"""Whole nodes under seeded faults keep their promises, each seed in the same way in whatever process.

A short form of scripts/simulate, which runs as many seeds as one likes; here PLAIT_SIMULATE_SEEDS of them.
"""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from replication.raft import elections
from replication.raft.core import RaftCore
from replication.raft.messages import VoteRequest
from tests.sim.cluster.layers import run_any
from tests.sim.cluster.plan import ALL, Plan, draw, shrink
from tests.sim.cluster.runner import run_batch
from tests.sim.cluster.sometimes import missed
from tests.sim.disk import SimDisk
from tests.sim.faults import OperationKind
from tests.sim.pages import Inode

SEEDS = int(os.environ.get("PLAIT_SIMULATE_SEEDS", "300"))
TRIES = 60
"""Seeds within which a defect that is put in must be found."""
SMALL_FAULTS = 4
"""Faults that are left of a plan which was cut down, at the most."""

would_vote = elections._would_vote


@pytest.mark.slow
def test_every_promise_is_kept_and_equal_seeds_give_equal_runs() -> None:
    batch = run_batch(ALL, range(SEEDS), os.cpu_count() or 1, twice=True, progress=lambda _: None)
    assert batch.broken == {}, "scripts/simulate --seed N --shrink tells more"
    assert batch.differing == [], "they ran differently under another hash seed"
    assert (batch.seeds, batch.runs) == (SEEDS, 2 * SEEDS)
    for layer, tally in batch.tallies.items():
        assert missed(layer, tally.runs // 2, tally.faults, tally.states) == [], layer


def sync_nothing(disk: SimDisk, name: str, inode: Inode) -> None:
    """What a disk does that says "synced" and has synced nothing."""
    disk.begin(OperationKind.SYNC, name)


def vote_for_any_log(core: RaftCore, now_ns: int, request: VoteRequest) -> bool:
    """What a core does that does not ask whether the candidate has all that it has itself."""
    return would_vote(core, now_ns, replace(request, last_term=core.log.last_term + 1))


def first_broken(layer: str, *kinds: str) -> Plan:
    """The first plan with only these faults that breaks a promise."""
    return next(plan for seed in range(TRIES) if run_any(plan := draw(seed, layer, kinds=kinds)).broken)


def is_small_and_told(plan: Plan) -> None:
    """Cut down, it has few faults and little work, and fails in the same way each time, told line by line."""
    smaller = shrink(plan, lambda one: bool(run_any(one).broken), tries=80)
    assert len(smaller.faults) <= min(SMALL_FAULTS, len(plan.faults))
    assert smaller.shape.safety_ms <= plan.shape.safety_ms
    again = run_any(Plan.from_json(smaller.to_json()))
    assert again.broken
    assert again.digest == run_any(smaller).digest
    assert all("\n" not in line for line in again.lines), "one line per event"
    assert sum(" fault " in line for line in again.lines) <= len(smaller.faults)
    assert sum(" BROKEN " in line for line in again.lines) == len(again.broken)


@pytest.mark.slow
def test_disks_that_lie_about_syncs_are_noticed_and_the_plan_is_cut_down_to_what_shows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SimDisk, "sync", sync_nothing)
    is_small_and_told(first_broken("groups", "power cut", "power cut everywhere"))


@pytest.mark.slow
def test_a_core_that_votes_for_anybody_is_noticed_and_the_plan_is_cut_down_to_what_shows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(elections, "_would_vote", vote_for_any_log)
    is_small_and_told(first_broken("groups", "partition", "kill", "one way", "pause", "lossy", "transfer"))


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["groups", "brokers"])
def test_a_seed_is_told_line_by_line_and_runs_the_same_again(layer: str) -> None:
    first, second = run_any(draw(4, layer), trace=True), run_any(draw(4, layer), trace=True)
    assert list(first.lines) == list(second.lines)
    assert first.digest == second.digest != run_any(draw(5, layer)).digest

"""Cores alone under seeded faults keep what they promise, each seed in the same way in whatever process.

python -m tests.sim.raft.seeds --seeds A..B        runs as many as one likes
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.raft.seeds import batch, missed

ROOT = Path(__file__).parents[3]
SEEDS = 400
"""Worlds that are run here."""
REPRODUCED_SEEDS = 40
"""Worlds that are run in two more processes."""


@pytest.mark.slow
def test_every_world_keeps_its_promises_and_rare_states_are_reached() -> None:
    tally = batch(range(SEEDS))
    assert tally.broken == {}, "python -m tests.sim.raft.seeds --seeds N --trace tells more"
    assert missed(tally) == [], "a run in which nobody was ever elected twice proves nothing"


def digest(hash_seed: str) -> str:
    """Of some worlds, in a process of its own."""
    program = f"from tests.sim.raft.seeds import batch; print(batch(range({REPRODUCED_SEEDS})).digest)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_equal_seeds_give_equal_runs_whatever_the_order_of_sets() -> None:
    assert digest("1") == digest("2") != ""

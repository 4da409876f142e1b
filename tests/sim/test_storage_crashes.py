"""Whatever a crash, a failing disk or rot does: what was acknowledged is there, and nothing else is.

A short form of scripts/storage-crashes, which runs as many seeds as one likes. PLAIT_STORAGE_SEEDS sets how many
of each campaign run here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from tests.sim.crash import Survival
from tests.sim.disk import SimDisk
from tests.sim.faults import OperationKind
from tests.sim.history import History, Shape, Step, random_history
from tests.sim.ledger import Ledger
from tests.sim.pages import Inode
from tests.sim.storage_crashes import CAMPAIGNS, Tally, campaign, crash_everywhere, live, recover
from tests.sim.storage_world import Violation

ROOT = Path(__file__).parents[2]
SEEDS = int(os.environ.get("PLAIT_STORAGE_SEEDS", "6"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("kind", CAMPAIGNS)
def test_a_store_keeps_its_promises(kind: str, seed: int) -> None:
    campaign(kind, seed, Tally())


@pytest.mark.slow
def test_a_short_history_is_crashed_everywhere_in_every_way() -> None:
    tally = Tally()
    crash_everywhere(random_history(1000, 20), tally, survivals=list(Survival))
    assert tally.recoveries > 100


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_installs_are_crashed_at_every_call_of_the_disk_in_every_way(seed: int) -> None:
    """With other entries before, behind and in the place of truncated ones."""
    append = Step("append", count=4, size_bytes=600)
    busy = (append, Step("drain"), Step("apply"), replace(append, seed=seed))
    install = (Step("install", count=3, size_bytes=600, seed=seed), Step("wait", seed=3), Step("wait", seed=3))
    again = (*install[:1], Step("vote", seed=5), *install[1:], *busy, Step("truncate", count=3), append)
    steps = (
        Step("create"),
        Step("create", seed=1),
        *busy,
        *again,
        *install,
        append,
        Step("settle"),
        Step("drain"),
    )
    shape = Shape(wal_file_bytes=32_768, segment_own_bytes=4_096, sector_bytes=512)
    tally = Tally()
    crash_everywhere(History(seed, shape, steps), tally, survivals=list(Survival))
    assert tally.recoveries > 300


@pytest.mark.slow
def test_campaigns_meet_what_they_are_for() -> None:
    tally = Tally()
    for seed in range(100, 110):
        campaign("fail", seed, tally)
        campaign("rot", seed, tally)
    assert tally.refused > 0, "a failing disk stopped a store"
    assert tally.damaged > 0, "rot was found"
    assert tally.repaired > 0, "and repaired"


@pytest.mark.slow
def test_rot_in_the_block_that_fills_a_file_is_no_torn_write() -> None:
    """The seal behind it has to be there, though the file has no room left for it."""
    shape = Shape(wal_file_bytes=32_768, segment_own_bytes=4_096, sector_bytes=512)
    disk, ledger = SimDisk(Random(1)), Ledger()
    append = Step("append", count=2, size_bytes=7_900)
    steps = (Step("create"), append, Step("drain"), replace(append, count=1))
    live(History(1, shape, steps), disk, ledger, Tally())
    (name,) = [name for name in disk.names() if name.endswith(".wal")]
    assert len(disk.content(name)) > shape.wal_file_bytes, "the seal has made it grow"
    after = disk.crash(Survival.NOTHING, Random(1))
    after.flip(name, shape.wal_file_bytes - 1_000)
    found = recover(after, shape, 1, ledger.possible(ledger.reading()), Tally(), rotten=True)
    assert found == {}, "its group is reported damaged"


class LyingDisk(SimDisk):
    """A disk that says "synced" and has synced nothing."""

    def sync(self, name: str, inode: Inode) -> None:
        """Does nothing."""
        self.begin(OperationKind.SYNC, name)


@pytest.mark.slow
def test_a_disk_that_lies_about_syncs_is_noticed() -> None:
    """So a store that forgot one would be."""
    with pytest.raises(Violation):
        crash_everywhere(
            random_history(1, 30), Tally(), survivals=[Survival.NOTHING, Survival.SUBSET], make_disk=LyingDisk
        )


def digest(seed: int) -> str:
    """The fingerprint of all campaigns of one seed: every disk operation, schedule and recovered state."""
    tally = Tally()
    for kind in CAMPAIGNS:
        campaign(kind, seed, tally)
    return tally.digest()


@pytest.mark.slow
def test_equal_seeds_give_equal_runs_in_whatever_process() -> None:
    code = "from tests.sim.test_storage_crashes import digest; print(digest(2))"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": "7"},
        check=True,
        cwd=ROOT,
    )
    assert ran.stdout.split()[-1] == digest(2) != digest(3)  # what is logged comes before

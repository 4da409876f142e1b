"""`scripts/storage-crashes`: campaigns of many seeds, with progress, and a list of what failed."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from dataclasses import replace

import structlog

from tests.sim.history import History, random_history, shrink
from tests.sim.storage_crashes import CAMPAIGNS, Tally, campaign, crash_everywhere
from tests.sim.storage_world import Violation

PROGRESS_S = 5.0
"""Time between two lines of progress."""


def main() -> int:
    """Run what the command line says; 0 where no promise was broken."""
    options = _arguments()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    first, _, last = options.seeds.partition("..")
    numbers = range(int(first), int(last or first) + 1)
    kinds = CAMPAIGNS if options.campaign == "all" else (options.campaign,)
    tally, broken = Tally(), list[str]()
    began = shown = time.monotonic()
    for done, seed in enumerate(numbers):
        for kind in kinds:
            broken += _one(kind, seed, tally)
        now = time.monotonic()
        if now - shown > PROGRESS_S:
            shown = now
            left_s = (now - began) / (done + 1) * (len(numbers) - done - 1)
            _say(f"seed {seed}: {_figures(tally)}; {len(broken)} broken; about {left_s:.0f} s left")
    _say(f"{len(numbers)} seeds in {time.monotonic() - began:.0f} s: {_figures(tally)}; digest {tally.digest()}")
    if broken and options.shrink:
        _shrink(int(broken[0].split()[1]))
    _say(f"{len(broken)} broken" + "".join(f"\n  {one}" for one in broken))
    return 1 if broken else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/storage-crashes", description=__doc__)
    parser.add_argument("--seeds", default="0..99", help="A or A..B, both included (default: %(default)s)")
    parser.add_argument("--campaign", default="all", choices=["all", *CAMPAIGNS], help="which kind (default: all)")
    parser.add_argument("--shrink", action="store_true", help="cut the first failing `crash` history down")
    return parser.parse_args()


def _one(kind: str, seed: int, tally: Tally) -> list[str]:
    try:
        campaign(kind, seed, tally)
    except Violation as error:
        _say(f"BROKEN {kind} {seed}: {error}")
        return [f"{kind} {seed}"]
    return []


def _shrink(seed: int) -> None:
    def fails(history: History) -> bool:
        try:
            crash_everywhere(history, Tally())
        except Violation:
            return True
        return False

    history = random_history(seed, 50)
    if fails(history):
        shorter = shrink(history, fails)
        _say(f"seed {seed} still fails with {replace(shorter, steps=())} and these steps:")
        for step in shorter.steps:
            _say(f"  {step}")


def _figures(tally: Tally) -> str:
    return (
        f"{tally.histories} lives, {tally.recoveries} recoveries, {tally.refused} stopped by a failing disk,"
        f" {tally.damaged} groups reported damaged, {tally.repaired} repaired"
    )


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""Many seeds, one behind the other: what they met, what they broke, how long it took.

python -m tests.sim.raft.seeds --seeds 0..999         prints a line per violation and a table of states reached
python -m tests.sim.raft.seeds --seeds 17 --trace     prints the last lines of what happened in one
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.sim.raft.run import Run, figures
from tests.sim.raft.swarm import FAULTS
from tests.sim.raft.truth import Violation
from tests.sim.reference.trace import line

TRACE_LINES = 60
"""Of a run's end, that `--trace` shows."""

RARE = (
    *("elected", "pre-candidate", "real-candidate", "pre-vote refused", "vote refused", "read lost", "truncated"),
    *("transfer begun", "transfer refused", "transfer campaigned"),
    *("change begun", "change refused: unavailable", "joint membership entered", "joint membership left"),
    "membership change reverted",
    *("log compacted", "snapshot installed", "install failed"),
    *("proposal refused: not_leader", "proposal refused: overloaded"),
)
"""States that some hundreds of worlds must have reached."""


@dataclass
class Tally:
    """Of a batch of seeds."""

    runs: int = 0
    inputs: int = 0
    simulated_ns: int = 0
    digest: int = 0
    sometimes: Counter[str] = field(default_factory=Counter)
    broken: dict[int, str] = field(default_factory=dict)
    """Seed to what was violated."""
    checks: dict[int, str] = field(default_factory=dict)
    """Seed to the name of the check that saw it."""


def one(seed: int, tally: Tally) -> None:
    """Run a seed and count it."""
    run = Run(seed)
    try:
        run.run()
    except Exception as error:  # whatever a core raises where it must not is what is looked for
        tally.checks[seed] = why(error)
        tally.broken[seed] = str(error) or repr(error)
    world = run.world
    tally.runs += 1
    tally.inputs += world.inputs
    tally.simulated_ns += world.now_ns
    tally.digest = (tally.digest * 31 + world.digest) & 0xFFFFFFFFFFFF
    tally.sometimes.update(world.checkers.sometimes)


def batch(seeds: Iterable[int]) -> Tally:
    """Run them all."""
    tally = Tally()
    for seed in seeds:
        one(seed, tally)
    return tally


def missed(tally: Tally) -> list[str]:
    """Rare states and kinds of faults that the batch never had."""
    return [name for name in (*RARE, *(f"fault: {fault}" for fault in FAULTS)) if not tally.sometimes[name]]


def why(error: BaseException) -> str:
    """The name of the check that an exception comes from."""
    if isinstance(error, Violation):
        return error.check
    return "invariant" if isinstance(error, AssertionError) else type(error).__name__


def main() -> int:
    """Run what the command line says; 0 where nothing was violated."""
    options = _arguments()
    first, _, last = options.seeds.partition("..")
    if options.trace:
        return _trace(int(first))
    tally, began = Tally(), time.monotonic()
    for seed in range(int(first), int(last or first) + 1):
        one(seed, tally)
        if seed in tally.broken:
            print(f"BROKEN {seed}: {tally.broken[seed].splitlines()[0]}", flush=True)
    took_s = time.monotonic() - began
    for name, count in sorted(tally.sometimes.items()):
        print(f"  {name:<40}{count:>10}")
    print(
        f"{tally.runs} runs, {tally.simulated_ns / 1e9:.0f} simulated seconds, {tally.inputs} inputs in"
        f" {took_s:.0f} s"
        f" ({tally.inputs / took_s:.0f}/s), digest {tally.digest:x}, {len(tally.broken)} broken"
        f" {dict(Counter(tally.checks.values()))}"
    )
    return 1 if tally.broken else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0..99", help="A or A..B, both included (default: %(default)s)")
    parser.add_argument("--trace", action="store_true", help="one seed, and the end of its trace")
    return parser.parse_args()


def _trace(seed: int) -> int:
    run, broken = Run(seed, record=True), ""
    try:
        run.run()
    except Exception as error:  # as above
        broken = f"{type(error).__name__}: {error}"
    assert run.world.recorder is not None
    for event in run.world.recorder.events[-TRACE_LINES:]:
        print(line(event))
    for replica in run.world.replicas.values():
        print(figures(replica))
    print(broken or "nothing was violated")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())

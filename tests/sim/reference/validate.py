"""Are traces of the real core, in the worlds of tests/sim/raft, ones that the papers allow?

python -m tests.sim.reference.validate --seeds 0..999         a line per illegal trace, and what it cost
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from replication.raft.settings import NS_PER_MS
from tests.sim.raft.run import Run
from tests.sim.reference.model import Illegal, Model
from tests.sim.reference.step import Rules
from tests.sim.reference.trace import Event

PAPER = Rules(pre_vote=False)
"""Figure 2 and no more."""


def validate(events: Iterable[Event], rules: Rules | None = None) -> Model:
    """Accept all of it; the model as it is then. Raises Illegal."""
    model = Model(rules)
    for event in events:
        model.accept(event)
    return model


def trace_of(seed: int) -> tuple[list[Event], Rules]:
    """What the cores of that world did, up to its end or up to what its own checkers found broken, and what they
    promise."""
    run = Run(seed, record=True)
    with suppress(Exception):  # whatever it is, tests/sim/raft tells of it; here only the trace up to it is judged
        run.run()
    world = run.world
    assert world.recorder is not None, "it was asked for"
    # the trace has the world's time: by a clock that is fast, an election's time is over sooner
    deaf_ns = world.settings.election_ms * NS_PER_MS * 1_000 // max(*world.swarm.rates, 1_000)
    return world.recorder.events, Rules(deaf_ns=deaf_ns - NS_PER_MS)


@dataclass
class Verdict:
    """Over many seeds."""

    runs: int = 0
    events: int = 0
    run_s: float = 0.0
    """CPU seconds of the runs, with the recording."""
    judge_s: float = 0.0
    """CPU seconds of the judging."""
    illegal: dict[int, str] = field(default_factory=dict)
    """By seed."""

    def take(self, seed: int) -> None:
        """Run a seed and judge it."""
        began_s = time.process_time()
        events, rules = trace_of(seed)
        ran_s = time.process_time()
        try:
            validate(events, rules)
        except Illegal as illegal:
            self.illegal[seed] = str(illegal)
        self.runs += 1
        self.events += len(events)
        self.run_s += ran_s - began_s
        self.judge_s += time.process_time() - ran_s


def main() -> int:
    """Judge what the command line says; 1 if a trace is illegal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0..99", help="A or A..B, both included (default: %(default)s)")
    first, _, last = parser.parse_args().seeds.partition("..")
    verdict = Verdict()
    for seed in range(int(first), int(last or first) + 1):
        verdict.take(seed)
        if seed in verdict.illegal:
            print(f"ILLEGAL {seed}: {verdict.illegal[seed]}", flush=True)
    rate = verdict.events / max(verdict.judge_s, 1e-9)
    print(
        f"{verdict.runs} runs, {verdict.events:,} events, {verdict.run_s:.0f} s to run, {verdict.judge_s:.0f} s to"
        f" judge ({rate:,.0f} events/s), {len(verdict.illegal)} illegal"
    )
    return 1 if verdict.illegal else 0


if __name__ == "__main__":
    sys.exit(main())

"""`scripts/simulate`: many seeds with progress and a report; or one, told line by line, or shrunk if it fails."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tests.sim.cluster.layers import run_any
from tests.sim.cluster.plan import ALL, LAYERS, Plan, draw, layer_of, shrink
from tests.sim.cluster.runner import Batch, Tally, run_batch
from tests.sim.cluster.sometimes import missed

SHOWN_FAILURES = 10
"""Failing seeds that the report tells of."""


def main() -> int:
    """Run what the command line says; 0 where no promise was broken and everything was reached."""
    options = _arguments()
    console = Console(highlight=False, soft_wrap=True)
    if options.plan:
        return _replay(Plan.from_json(Path(options.plan).read_text()), options, console)
    if options.seed is not None:
        return _replay(draw(options.seed, layer_of(options.layer, options.seed)), options, console)
    first, _, last = options.seeds.partition("..")
    seeds = range(int(first), int(last or first) + 1)
    return _many(seeds, options, console)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/simulate", description=__doc__)
    parser.add_argument("--seeds", default="0..99", help="A or A..B, both included (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="one seed; if it fails, all its events are printed")
    parser.add_argument("--trace", action="store_true", help="print the events of --seed in any case")
    parser.add_argument("--plan", help="a file with a plan, as a shrunk seed prints it, to be run")
    parser.add_argument("--shrink", action="store_true", help="cut a failing --seed or --plan down first")
    parser.add_argument("--layer", default=ALL, choices=(*LAYERS, ALL), help="what is simulated (default: all)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one per core)")
    parser.add_argument("--twice", action="store_true", help="run each seed twice and compare the digests")
    parser.add_argument("--validate", action="store_true", help="hold every step of the cores against the papers")
    return parser.parse_args()


def _many(seeds: Sequence[int], options: argparse.Namespace, console: Console) -> int:
    layer = options.layer
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[broken]} broken"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(layer, total=len(seeds) * (1 + options.twice), broken=0)
        told: dict[int, None] = {}

        def look(now: Batch) -> None:
            for seed in now.broken:
                if seed not in told:  # at once: a long batch may be broken off
                    told[seed] = None
                    console.print(f"seed {seed} broke a promise: {now.broken[seed][0]}")
            progress.update(task, completed=now.runs, broken=len(now.broken) + len(now.differing))

        batch = run_batch(layer, seeds, options.jobs, options.twice, look, validate=options.validate)
    absent = {name: missed(name, tally.runs, tally.faults, tally.states) for name, tally in batch.tallies.items()}
    _report(seeds, batch, absent, console)
    return 1 if batch.broken or batch.differing or any(absent.values()) else 0


def _report(seeds: Sequence[int], batch: Batch, absent: Mapping[str, Sequence[str]], console: Console) -> None:
    for layer, tally in sorted(batch.tallies.items()):
        _tell(layer, tally, console)
        if absent[layer]:
            console.print(f"NEVER REACHED: {', '.join(absent[layer])}")
        console.print()
    for seed, broken in sorted(batch.broken.items())[:SHOWN_FAILURES]:
        console.print(f"BROKEN seed {seed}: {broken[0]}")
    for seed in sorted(batch.differing)[:SHOWN_FAILURES]:
        console.print(f"NOT REPRODUCIBLE: seed {seed} ran in two ways")
    console.print(
        f"seeds {seeds[0]}..{seeds[-1]}, {batch.runs} runs: violations {len(batch.broken)},"
        f" not reproducible {len(batch.differing)}, digest {batch.digest()}"
    )


def _tell(layer: str, tally: Tally, console: Console) -> None:
    console.print(
        f"{layer}: {tally.runs:,} runs, {tally.simulated_s / 3_600:.2f} simulated hours,"
        f" {tally.acknowledged:,} operations acknowledged, {tally.steps:,} steps of tasks,"
        f" {tally.cpu_s / max(tally.runs, 1):.2f} s of CPU each"
    )
    if tally.judged:
        console.print(f"  steps of Raft cores judged by the reference model: {tally.judged:,}")
    console.print(f"  faults: {_counts(tally.faults)}")
    console.print(f"  states reached: {_counts(tally.states)}")


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{what} {count:,}" for what, count in sorted(counts.items()))


def _replay(plan: Plan, options: argparse.Namespace, console: Console) -> int:
    run = partial(run_any, validate=options.validate)
    report = run(plan, trace=options.trace)
    if report.broken and options.shrink:
        plan = shrink(plan, lambda smaller: bool(run(smaller).broken))
        console.print(f"a smaller plan that fails, for --plan: {plan.to_json()}")
        report = run(plan, trace=True)
    if report.broken or options.trace:
        for line in report.lines:
            console.print(line)
    for broken in report.broken:
        console.print(f"BROKEN: {broken}")
    console.print(
        f"seed {plan.seed}: {report.simulated_s:.1f} simulated seconds, {report.steps:,} steps,"
        f" {report.acknowledged} operations acknowledged, digest {report.digest}"
    )
    console.print(f"faults: {_counts(report.faults)}")
    console.print(f"states reached: {_counts(report.states)}")
    return 1 if report.broken else 0


if __name__ == "__main__":
    sys.exit(main())

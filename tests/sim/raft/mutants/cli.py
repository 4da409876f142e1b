"""`scripts/mutants`: runs every deliberate bug over seeds until something catches it, and prints what did."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from tests.sim.raft.mutants import MUTANTS
from tests.sim.raft.mutants.first_seeds import FIRST_SEEDS
from tests.sim.raft.mutants.hunt import Hunt
from tests.sim.raft.mutants.mutant import Layer, Mutant

ROOT = Path(__file__).parents[4]
FIRST_SEEDS_FILE = Path(__file__).with_name("first_seeds.py")
SEEDS = 4_000
"""Worlds of cores in which a mutant has to be caught, if the command line says no other number."""
SLOWER = {Layer.CORES: 1, Layer.NODES: 10, Layer.BROKERS: 100, Layer.FLEETS: 100}
"""So many times fewer seeds are run of the layers that take longer."""
CHUNK = 250
"""Seeds that one process runs of the code as it is."""


def main() -> int:
    """Run what the command line says; 0 where every mutant is caught, and the code as it is breaks no promise."""
    options = _arguments()
    mutants = [mutant for mutant in MUTANTS if options.mutant in ("", mutant.name)]
    if not mutants:
        print(f"there is no mutant {options.mutant!r}; --list names them all", file=sys.stderr)
        return 2
    if options.list:
        for mutant in mutants:
            print(f"{mutant.name}: {mutant.does}")
        return 0
    jobs = [(mutant.name, 0, _seeds(mutant.layer, options.seeds) - 1) for mutant in mutants]
    sound: list[_Job] = []
    if not options.mutant:
        sound = [job for layer in _layers(mutants) for job in _chunks(layer, _seeds(layer, options.seeds))]
    found = _run([*jobs, *sound], options.jobs)
    if options.remember:
        _remember({hunted.name: hunted.seed for job in jobs if (hunted := found[job]).check})
    return _report(mutants, [found[job] for job in jobs], [found[job] for job in sound])


_Job = tuple[str, int, int]
"""Name of a mutant, or of a layer whose code is to be run as it is; first and last seed."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/mutants", description=__doc__)
    parser.add_argument("--mutant", default="", metavar="NAME", help="only this one")
    parser.add_argument("--list", action="store_true", help="say what the mutants do, and run none")
    parser.add_argument(
        "--seeds", type=int, default=SEEDS, help="within which to be caught (default: %(default)s)"
    )
    parser.add_argument(
        "--remember", action="store_true", help="keep the seeds in first_seeds.py, where quick tests look first"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one per core)")
    return parser.parse_args()


def _layers(mutants: Iterable[Mutant]) -> list[Layer]:
    return list(dict.fromkeys(mutant.layer for mutant in mutants if mutant.layer is not Layer.SCRIPTS))


def _seeds(layer: Layer, seeds: int) -> int:
    return max(seeds // SLOWER[layer], 1) if layer is not Layer.SCRIPTS else 0


def _chunks(layer: Layer, seeds: int) -> list[_Job]:
    chunk = max(CHUNK // SLOWER[layer], 1)
    return [(layer.value, first, min(first + chunk, seeds) - 1) for first in range(0, seeds, chunk)]


def _run(jobs: Sequence[_Job], processes: int) -> dict[_Job, Hunt]:
    columns = (TextColumn("mutants"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    found: dict[_Job, Hunt] = {}
    with (
        Progress(*columns, console=Console(stderr=True), transient=True) as progress,
        ThreadPoolExecutor(processes) as pool,
    ):
        task = progress.add_task("", total=len(jobs))
        running = {pool.submit(_one, job): job for job in jobs}
        for done in as_completed(running):
            found[running[done]] = done.result()
            progress.update(task, advance=1, description=running[done][0])
    return found


def _one(job: _Job) -> Hunt:
    name, first, last = job
    command = [sys.executable, "-m", "tests.sim.raft.mutants.hunt", name, str(first), str(last)]
    done = subprocess.run(command, stdout=subprocess.PIPE, cwd=ROOT, check=True)
    return Hunt(**json.loads(done.stdout))


def _remember(seeds: dict[str, int]) -> None:
    lines = [f"    {json.dumps(name)}: {seed:_},\n" for name, seed in (FIRST_SEEDS | seeds).items()]
    head, opening, rest = FIRST_SEEDS_FILE.read_text(encoding="utf-8").partition("= {\n")
    _, closing, rest = rest.partition("}\n")
    FIRST_SEEDS_FILE.write_text(head + opening + "".join(lines) + closing + rest, encoding="utf-8")


def _report(mutants: Sequence[Mutant], found: Sequence[Hunt], sound: Sequence[Hunt]) -> int:
    heads = ("mutant", "bugs", "caught by", "seed", "seeds", "inputs", "the reference model says", "scenarios")
    rows = [_row(mutant, hunted) for mutant, hunted in zip(mutants, found, strict=True)]
    print("| " + " | ".join(heads) + " |")
    print("|" + " --- |" * len(heads))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()
    survivors = [hunted.name for hunted in found if not hunted.check and not hunted.scenarios]
    rejected = sum(bool(hunted.reference) for hunted in found)
    caught = len(found) - len(survivors)
    print(f"{len(found)} mutants, {caught} caught; the reference model, too, rejects what {rejected} of them did")
    for name in survivors:
        print(f"SURVIVES: {name}")
    broken = [each for each in sound if each.check]
    for each in broken:
        print(f"BROKEN without a mutant: seed {each.seed}: {each.found}")
    if sound:
        runs, inputs = sum(each.seeds for each in sound), sum(each.inputs for each in sound)
        print(f"without a mutant: {runs:,} seeds, {inputs:,} inputs, {len(broken)} violations")
    return 1 if survivors or broken else 0


def _row(mutant: Mutant, hunted: Hunt) -> tuple[str, ...]:
    bugs = ", ".join(map(str, mutant.bugs))
    scenarios = ", ".join(name.partition("_")[0] for name in hunted.scenarios)
    seeds, inputs = f"{hunted.seeds:,}", f"{hunted.inputs:,}"
    if not hunted.check:
        return (mutant.name, bugs, "its scenarios" if scenarios else "NOTHING", "", seeds, inputs, "", scenarios)
    caught = hunted.check if mutant.layer is Layer.CORES else f"{mutant.layer.value}: {hunted.check}"
    return (mutant.name, bugs, caught, str(hunted.seed), seeds, inputs, hunted.reference or "nothing", scenarios)


if __name__ == "__main__":
    sys.exit(main())

"""Runs one mutant over seeds until something catches it, and says what did.

python -m tests.sim.raft.mutants.hunt NAME FIRST LAST        a line of JSON
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.sim.cluster.layers import run_any
from tests.sim.cluster.plan import draw
from tests.sim.raft import script
from tests.sim.raft.commands import Misspelt
from tests.sim.raft.mutants import MUTANTS
from tests.sim.raft.mutants.mutant import Layer, Mutant, on
from tests.sim.raft.run import Run
from tests.sim.raft.seeds import why
from tests.sim.reference.model import Illegal
from tests.sim.reference.validate import trace_of, validate


@dataclass
class Hunt:
    """What became of one mutant, or of the core as it is."""

    name: str
    check: str = ""
    """What caught it; "": nothing did."""
    found: str = ""
    """What it said."""
    seed: int = -1
    seeds: int = 0
    """That were run."""
    inputs: int = 0
    """Of cores, or steps of whole nodes' tasks."""
    reference: str = ""
    """The rule of the reference model that the same seed's trace breaks; "": none, or not asked."""
    scenarios: list[str] = field(default_factory=list)
    """Those that print something else with it."""


def hunt(mutant: Mutant, seeds: Iterable[int], *, reference: bool = False) -> Hunt:
    """Run it until it is caught; `reference`: have the reference model judge the trace of that seed."""
    with on(mutant):
        return _run(mutant.name, mutant.layer, mutant.kinds, seeds, reference)


def differs(mutant: Mutant, path: Path) -> bool:
    """Whether a scenario prints something else with it."""
    with on(mutant):
        try:
            played = script.play(script.read(path))
        except Misspelt:
            return True  # what comes next in the script is not possible any more
    return played.text != path.read_text(encoding="utf-8")


def shown_by(mutant: Mutant) -> list[str]:
    """The scenarios that name it, and print something else with it: like "b17_answer_to_a_former_leader"."""
    paths = sorted(script.SCENARIOS.glob("*.txt"))
    return [path.stem for path in paths if mutant.name in script.read(path).mutants and differs(mutant, path)]


def hunt_nothing(layer: Layer, seeds: Iterable[int]) -> Hunt:
    """The same without any bug."""
    return _run("", layer, (), seeds, reference=False)


def _run(name: str, layer: Layer, kinds: tuple[str, ...], seeds: Iterable[int], reference: bool) -> Hunt:
    hunted = Hunt(name)
    for seed in seeds:
        hunted.seeds += 1
        if layer is Layer.CORES:
            _cores(hunted, seed)
        else:
            _nodes(hunted, layer, kinds, seed)
        if hunted.check:
            hunted.seed = seed
            if reference and layer is Layer.CORES:
                hunted.reference = _judge(seed)
            break
    return hunted


def _cores(hunted: Hunt, seed: int) -> None:
    run = Run(seed)
    try:
        run.run()
    except Exception as error:  # whatever the bug makes of it, it is caught
        hunted.check, hunted.found = why(error), (str(error) or repr(error)).splitlines()[0]
    hunted.inputs += run.world.inputs


def _nodes(hunted: Hunt, layer: Layer, kinds: tuple[str, ...], seed: int) -> None:
    report = run_any(draw(seed, layer.value.replace("nodes", "groups"), kinds=kinds or None))
    hunted.inputs += report.steps
    if report.broken:
        hunted.check = report.broken[0].partition(":")[0]
        hunted.found = report.broken[0].splitlines()[0]


def _judge(seed: int) -> str:
    events, rules = trace_of(seed)
    try:
        validate(events, rules)
    except Illegal as illegal:
        return illegal.rule
    except Exception as error:  # a trace so wrong that the model cannot follow it is none that it accepts
        return f"cannot follow: {error!r}"
    return ""


def main() -> None:
    """Hunt what the command line names."""
    name, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    seeds = range(first, last + 1)
    if name in [layer.value for layer in Layer]:
        found = hunt_nothing(Layer(name), seeds)
    else:
        mutant = next(mutant for mutant in MUTANTS if mutant.name == name)
        found = hunt(mutant, seeds, reference=True)
        found.scenarios = shown_by(mutant)
    print(json.dumps(asdict(found)))


if __name__ == "__main__":
    main()

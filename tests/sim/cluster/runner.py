"""Many seeds on all cores: worker processes that run plans, and what is gathered from them.

    Batch ──(seeds, a hash seed)──> python -m tests.sim.cluster.runner ──(a line of JSON per seed)──> Batch

A worker is a process of its own with its own PYTHONHASHSEED: run a batch twice with different ones, and whatever
depends on the order of sets shows as a digest that differs.
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import os
import selectors
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from tests.sim.cluster.plan import layer_of

ROOT = Path(__file__).parents[3]
HASH_SEEDS = ("1", "2")
"""PYTHONHASHSEED of the first and of the second run of a seed."""
COLLECT_EVERY = 4
"""Runs after which a worker collects what they left."""
VALIDATE = "validate"
"""Third argument of a worker that has the reference model judge what the cores do."""


@dataclass(slots=True)
class Outcome:
    """What one run came to, as a worker tells it."""

    layer: str
    seed: int
    digest: str
    broken: list[str]
    faults: dict[str, int]
    states: dict[str, int]
    simulated_s: float
    steps: int
    acknowledged: int
    judged: int
    cpu_s: float


@dataclass(slots=True)
class Tally:
    """What the runs of one layer came to."""

    runs: int = 0
    simulated_s: float = 0.0
    cpu_s: float = 0.0
    steps: int = 0
    acknowledged: int = 0
    judged: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)

    def take(self, outcome: Outcome) -> None:
        """Add a run."""
        self.runs += 1
        self.simulated_s += outcome.simulated_s
        self.cpu_s += outcome.cpu_s
        self.steps += outcome.steps
        self.acknowledged += outcome.acknowledged
        self.judged += outcome.judged
        self.faults.update(outcome.faults)
        self.states.update(outcome.states)


@dataclass(slots=True)
class Batch:
    """What many runs came to."""

    tallies: dict[str, Tally] = field(default_factory=dict)
    """By layer."""
    broken: dict[int, list[str]] = field(default_factory=dict)
    differing: list[int] = field(default_factory=list)
    """Seeds whose two runs were not the same."""
    _digests: dict[int, str] = field(default_factory=dict)

    @property
    def runs(self) -> int:
        """Of all layers."""
        return sum(tally.runs for tally in self.tallies.values())

    @property
    def seeds(self) -> int:
        """How many there were, run once or twice."""
        return len(self._digests)

    def take(self, outcome: Outcome) -> None:
        """Add a run; the second one of a seed is compared with the first."""
        known = self._digests.setdefault(outcome.seed, outcome.digest)
        if known != outcome.digest and outcome.seed not in self.differing:
            self.differing.append(outcome.seed)
        self.tallies.setdefault(outcome.layer, Tally()).take(outcome)
        if outcome.broken:
            self.broken[outcome.seed] = outcome.broken

    def digest(self) -> str:
        """Over all seeds, in their order."""
        found = hashlib.sha256()
        for seed, digest in sorted(self._digests.items()):
            found.update(f"{seed} {digest}\n".encode())
        return found.hexdigest()[:16]


def run_batch(
    layers: str,
    seeds: Sequence[int],
    jobs: int,
    twice: bool,
    progress: Callable[[Batch], None],
    *,
    validate: bool = False,
) -> Batch:
    """Run all seeds of a layer, or of ALL; `twice` with different hash seeds, in so many processes at a time.

    `validate`: what the cores do is judged by the reference model.
    """
    batch = Batch()
    shares = [(hash_seed, seeds[job::jobs]) for job in range(jobs) for hash_seed in HASH_SEEDS[: 1 + twice]]
    waiting = [share for share in shares if share[1]]
    with selectors.DefaultSelector() as selector:
        while waiting or selector.get_map():
            while waiting and len(selector.get_map()) < jobs:
                _start(selector, layers, *waiting.pop(0), validate)
            for key, _ in selector.select():
                _hear(selector, key.data, batch)
                progress(batch)
    return batch


@dataclass(slots=True)
class _Worker:
    process: subprocess.Popen[bytes]
    left: dict[int, None]
    """Seeds of which it has said nothing yet."""
    rest: bytes = b""


def _start(
    selector: selectors.BaseSelector, layers: str, hash_seed: str, seeds: Sequence[int], validate: bool
) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.sim.cluster.runner",
            layers,
            ",".join(map(str, seeds)),
            *[VALIDATE] * validate,
        ],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        cwd=ROOT,
    )
    assert process.stdout is not None, "it is a pipe"
    selector.register(process.stdout, selectors.EVENT_READ, _Worker(process, dict.fromkeys(seeds)))


def _hear(selector: selectors.BaseSelector, worker: _Worker, batch: Batch) -> None:
    assert worker.process.stdout is not None, "it is a pipe"
    data = os.read(worker.process.stdout.fileno(), 1 << 16)
    *lines, worker.rest = (worker.rest + data).split(b"\n")
    for line in lines:
        outcome = Outcome(**json.loads(line))
        worker.left.pop(outcome.seed, None)
        batch.take(outcome)
    if not data:
        selector.unregister(worker.process.stdout)
        worker.process.stdout.close()
        code = worker.process.wait()
        if worker.left:
            seed = next(iter(worker.left))
            batch.broken[seed] = [
                f"the process ended with code {code} before it had run this seed and those behind"
            ]


def run_one(layers: str, seed: int, *, validate: bool = False) -> Outcome:
    """One seed in this process."""
    from tests.sim.cluster.layers import run_layer  # the parent process needs none of it

    layer = layer_of(layers, seed)
    from_s = time.process_time()
    report = run_layer(layer, seed, validate=validate)
    return Outcome(
        layer,
        seed,
        report.digest,
        report.broken,
        dict(report.faults),
        dict(report.states),
        report.simulated_s,
        report.steps,
        report.acknowledged,
        report.judged,
        time.process_time() - from_s,
    )


def _work(layers: str, seeds: Sequence[int], validate: bool) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    gc.disable()
    for number, seed in enumerate(seeds):
        outcome: dict[str, Any] = {
            name: getattr(found, name) for found in [run_one(layers, seed, validate=validate)] for name in _FIELDS
        }
        sys.stdout.write(json.dumps(outcome) + "\n")
        sys.stdout.flush()
        if number == 0:
            gc.collect()
            gc.freeze()
        if number % COLLECT_EVERY == 0:
            gc.collect()


_FIELDS = Outcome.__slots__

if __name__ == "__main__":
    _work(sys.argv[1], [int(seed) for seed in sys.argv[2].split(",")], VALIDATE in sys.argv[3:])

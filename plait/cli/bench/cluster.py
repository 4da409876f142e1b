"""`plait bench cluster`: measure a cluster of three brokers on this machine."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from plait.cli import exits
from plait.cli.bench.cluster_plan import PARTS, Sizes
from plait.cli.bench.ending import sigterm_interrupts
from plait.cli.bench.figures import Figure, give
from plait.cli.bench.parts import chosen
from plait.cli.session import usage


@sigterm_interrupts()
def cluster(
    *,
    only: Annotated[list[str] | None, Parameter(negative="")] = None,
    producers: int = 3,
    records: int = 1_500_000,
    rounds: int = 3,
    kills: int = 20,
    join_s: float = 10.0,
    queues: int = 5_000,
    idle_s: float = 10.0,
    data: Path = Path("."),
    profile: Path | None = None,
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> int:
    """Measure a cluster: three brokers as processes on this machine, three replicas, and clients in others.

    The brokers keep their data in a temporary folder, synced to disk as always. It takes about ten minutes.

    Parameters
    ----------
    only
        Measure these parts only: batched, through, failover, join, queues; with commas, or given again.
    producers
        Producers that publish at the same time, each in a process of its own and a client of another node.
    records
        Records of 100 bytes a round, of all producers together; of 1 KB a fifth of that.
    rounds
        Rounds of batched and through; medians count.
    kills
        Nodes that are killed, and started again.
    join_s
        Seconds of publishing before a fourth node joins: so much is there to be moved.
    queues
        Queues that are made.
    idle_s
        Seconds for which nodes with that many queues are watched.
    data
        The folder in which the temporary folder is made: its disk is what is measured.
    profile
        A folder for cProfile outputs of brokers and clients; everything is slower then.
    json
        JSON for programs.
    """
    parts = chosen(only, PARTS)
    if isinstance(parts, str):
        return usage(parts)
    if min(producers, records, rounds, kills, join_s, queues, idle_s) <= 0:
        return usage("sizes must be greater than 0")
    if profile is not None:
        profile.mkdir(parents=True, exist_ok=True)
    sizes = Sizes(producers, records, rounds, kills, join_s, queues, idle_s)
    folder = Path(tempfile.mkdtemp(prefix="plait-bench-cluster-", dir=data))
    figures: list[Figure] = []
    try:
        return _measure(folder, sizes, profile, parts, figures)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        give(figures, json)


def _measure(folder: Path, sizes: Sizes, profile: Path | None, parts: list[str], figures: list[Figure]) -> int:
    """Add the figures of these parts, as they come. Returns the exit code."""
    from plait.cli.bench.broker import BrokerFailed
    from plait.cli.bench.cluster_suite import ClusterSuite
    from plait.cli.bench.suite import LoadFailed

    suite = ClusterSuite(folder, sizes, profile)
    try:
        for part in PARTS:
            if part in parts:
                figures.extend(suite.parts[part]())
    except (BrokerFailed, LoadFailed) as error:
        exits.complain(f"the measurement failed: {error}")
        return exits.FAILED
    return exits.DONE

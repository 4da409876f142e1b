"""`plait bench raft`: measure replication on this machine, three nodes against one."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from plait.cli import exits
from plait.cli.bench.ending import sigterm_interrupts
from plait.cli.bench.figures import Figure, give
from plait.cli.bench.parts import chosen
from plait.cli.bench.raft_plan import PARTS
from plait.cli.session import usage


@sigterm_interrupts()
def raft(
    *,
    only: Annotated[list[str] | None, Parameter(negative="")] = None,
    rounds: int = 9,
    batches: int = 150,
    singles: int = 150,
    groups: int = 1_000,
    idle_s: float = 10.0,
    start_groups: int = 10_000,
    kills: int = 20,
    data: Path = Path("."),
    profile: Path | None = None,
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> int:
    """Measure replication: three nodes as processes on this machine, against a single node.

    The nodes keep their data in a temporary folder, synced to disk as always. It takes some minutes.

    Parameters
    ----------
    only
        Measure these parts only: batched, single, idle, start, failover; with commas between them, or given again.
    rounds
        Rounds of batched and single, one node and three in turn; medians count.
    batches
        Batches of 64 KiB a round.
    singles
        Entries one at a time a round.
    groups
        Idle groups.
    idle_s
        Seconds for which idle nodes are watched.
    start_groups
        Groups that are started.
    kills
        Leaders that are killed.
    data
        The folder in which the temporary folder is made: its disk is what is measured.
    profile
        A folder for cProfile outputs of the nodes; everything is slower then.
    json
        JSON for programs.
    """
    parts = chosen(only, PARTS)
    if isinstance(parts, str):
        return usage(parts)
    if min(rounds, batches, singles, groups, idle_s, start_groups, kills) <= 0:
        return usage("sizes must be greater than 0")
    from plait.cli.bench.raft_suite import RaftSuite, Sizes

    sizes = Sizes(rounds, batches, singles, groups, idle_s, start_groups, kills)
    folder = Path(tempfile.mkdtemp(prefix="plait-bench-raft-", dir=data))
    if profile is not None:
        profile.mkdir(parents=True, exist_ok=True)
    return _given(RaftSuite(folder, sizes, profile), parts, folder, json)


def _given(suite: object, parts: list[str], folder: Path, json: bool) -> int:
    """Measure and print; the folder goes. Returns the exit code."""
    figures: list[Figure] = []
    try:
        return _measure(suite, parts, figures)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        give(figures, json)


def _measure(suite: object, parts: list[str], figures: list[Figure]) -> int:
    """Add the figures of these parts, as they come. Returns the exit code."""
    import trio

    from plait.cli.bench.raft_process import NodeFailed
    from plait.cli.bench.raft_suite import RaftSuite

    assert isinstance(suite, RaftSuite), "the suite of this command"

    async def measure() -> None:
        for part in PARTS:
            if part in parts:
                figures.extend(await suite.parts[part]())

    try:
        trio.run(measure)
    except BaseException as error:  # trio hands up groups of what happened in several tasks
        causes = list(_causes(error))
        if any(isinstance(cause, KeyboardInterrupt) for cause in causes):
            return exits.INTERRUPTED
        failed = next((cause for cause in causes if isinstance(cause, NodeFailed | OSError)), None)
        if failed is None:
            raise
        exits.complain(f"the measurement failed: {failed}")
        return exits.FAILED
    return exits.DONE


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What really went wrong."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _causes(inner)
    else:
        yield error

"""`plait bench`: measure a broker on this machine, against the figures that the project promises."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from plait.cli import exits
from plait.cli.bench.broker import BrokerFailed
from plait.cli.bench.ending import sigterm_interrupts
from plait.cli.bench.figures import Figure, give
from plait.cli.bench.suite import LoadFailed, Suite
from plait.cli.session import usage

Part = Literal["stream", "queue", "sync", "start", "backlog"]
NEED_OWN_BROKER = ("start", "backlog")

app = App(name="bench", help="Measure a broker on this machine.")
app.command("plait.cli.bench.raft:raft", name="raft", help="Measure replication: three nodes against one.")
app.command("plait.cli.bench.cluster:cluster", name="cluster", help="Measure a cluster of three brokers.")


@app.default
@sigterm_interrupts()
def bench(
    *,
    only: Annotated[list[Part] | None, Parameter(negative="")] = None,
    backlog: int | None = None,
    server: str = "",
    data: Path = Path("."),
    scale: float = 1.0,
    profile: Path | None = None,
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> int:
    """Measure a broker: publishing, reading, a queue, single publishes, start-up, memory.

    It starts a broker of its own on a temporary folder, with clients in another process, and takes about a minute;
    with --backlog 5000000, three more. Every acknowledgement is synced to disk, as always.

    Parameters
    ----------
    only
        Measure this part only; may be given again.
    backlog
        Also measure with so many 100-byte messages waiting in a queue.
    server
        Measure the broker at HOST:PORT instead; it gets topics and queues named bench-...
    data
        The folder in which the temporary folder is made: its disk is what is measured.
    scale
        Less than 1 for a quicker and rougher run.
    profile
        A folder for cProfile outputs of broker and clients; everything is slower then.
    json
        JSON for programs.
    """
    parts = list(only or ("stream", "queue", "sync", "start"))
    if backlog is not None and "backlog" not in parts:
        parts.append("backlog")
    if server and any(part in NEED_OWN_BROKER for part in parts):
        if only or backlog is not None:
            return usage("start-up and backlog are measured on a broker of one's own: leave out --server")
        parts = [part for part in parts if part not in NEED_OWN_BROKER]
    if profile is not None:
        profile.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="plait-bench-", dir=data))
    suite = Suite(folder, server, profile, scale)
    figures: list[Figure] = []
    try:
        for part in parts:
            for figure in _measured(suite, part, backlog or 5_000_000):
                figures.append(figure)
        suite.close()
    except (BrokerFailed, LoadFailed) as error:
        exits.complain(f"the measurement failed: {error}\nthe broker said:\n{suite.broker_said()}")
        return exits.FAILED
    finally:
        suite.kill()
        shutil.rmtree(folder, ignore_errors=True)
        give(figures, json)
    return exits.DONE


def _measured(suite: Suite, part: Part, backlog: int) -> Iterator[Figure]:
    measures: dict[str, Callable[[], Iterator[Figure]]] = {
        "stream": suite.stream,
        "queue": suite.queue,
        "sync": suite.sync,
        "start": suite.start,
        "backlog": partial(suite.backlog, backlog),
    }
    return measures[part]()

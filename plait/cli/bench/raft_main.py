"""A node of the replication benchmark as a process: python -m plait.cli.bench.raft_main ORDERS.

It does what lines of JSON on its standard input ask for, answers on its standard output, and ends in an orderly
way when its input ends, so that it never outlives the benchmark.
"""

from __future__ import annotations

import gc
import sys

import msgspec

from plait.cli import logs
from plait.cli.bench.raft_plan import NodeOrders
from plait.serve import _set_up_allocator, _settle_down, _use_server_packages


def main() -> None:
    """Run a node until its input ends, set up as a broker's process is."""
    orders = msgspec.json.decode(sys.argv[1], type=NodeOrders)
    gc.disable()
    _use_server_packages()
    _set_up_allocator()
    logs.set_up("console", "warning")
    if not orders.profile:
        _run(orders)
        return
    import cProfile

    profile = cProfile.Profile()
    try:
        profile.runcall(_run, orders)
    finally:
        profile.dump_stats(orders.profile)


def _run(orders: NodeOrders) -> None:
    import trio

    from plait.cli.bench.raft_node import serve

    _settle_down()
    trio.run(serve, orders)


if __name__ == "__main__":
    main()

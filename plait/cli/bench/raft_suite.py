"""What is measured of replication, each part on nodes of its own; one node and three in turn where compared."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

import trio

from plait.cli.bench.figures import Figure
from plait.cli.bench.raft_plan import RAFT_TARGETS, RAFT_WORKLOAD
from plait.cli.bench.raft_process import Cluster, NodeFailed, NodeProcess, cluster
from plait.cli.output import Progress

GROUP = 1
"""The group of the parts that need only one."""
LED_S = 120.0
"""Groups that have no leader by then never will."""
ASLEEP_S = 30.0
"""Groups that do not sleep by then are measured awake."""
SETTLE_S = 2.0
"""After that an idle node has done what it does once."""
BUSY_S = 0.3
"""A leader has had proposals for so long when it is killed."""
TAKEN_OVER_S = 30.0
"""A leader that is not replaced by then never will be."""
POLL_S = 0.02
"""Time between two looks at whether groups are led; the error of the measured start."""


@dataclass(frozen=True)
class Sizes:
    """How much of each part."""

    rounds: int
    batches: int
    singles: int
    groups: int
    idle_s: float
    start_groups: int
    kills: int


class RaftSuite:
    """The parts, by name; each gives its figures."""

    def __init__(self, folder: Path, sizes: Sizes, profiles: Path | None = None) -> None:
        self._folder = folder
        self._sizes = sizes
        self._profiles = profiles
        self.parts: dict[str, Callable[[], Awaitable[list[Figure]]]] = {
            "batched": self.batched,
            "single": self.single,
            "idle": self.idle,
            "start": self.start,
            "failover": self.failover,
        }

    async def batched(self) -> list[Figure]:
        """Entries in batches, some of them under way."""
        sizes = self._sizes
        rates: dict[int, list[float]] = {1: [], 3: []}
        cpu: dict[int, list[float]] = {1: [], 3: []}
        with Progress("entries in batches", 2 * sizes.rounds, "rounds") as bar:
            async with self._pair("batched") as pair:
                for number in range(sizes.rounds + 1):
                    for size, (nodes, leader) in pair.items():
                        rate, used = await _batches(nodes, leader, sizes.batches)
                        if number:  # the first round only warms up
                            rates[size].append(rate)
                            cpu[size].append(used)
                            bar.advance(1)
        ratios = [three / one for one, three in zip(rates[1], rates[3], strict=True)]
        return [
            _rate("batched, single node", rates[1], cpu[1]),
            _rate("batched, three nodes", rates[3], cpu[3]),
            Figure(
                what="batched, three nodes / single node",
                measured=median(ratios),
                unit="",
                target=RAFT_TARGETS.batched_ratio,
                note=f"{min(ratios):.2f} to {max(ratios):.2f} in {sizes.rounds} rounds",
            ),
        ]

    async def single(self) -> list[Figure]:
        """One entry at a time."""
        sizes = self._sizes
        times: dict[int, list[float]] = {1: [], 3: []}
        ratios = []
        with Progress("one entry at a time", 2 * sizes.rounds, "rounds") as bar:
            async with self._pair("single") as pair:
                for number in range(sizes.rounds + 1):
                    now: dict[int, list[float]] = {}
                    for size, (_, leader) in pair.items():
                        now[size] = await leader.ask("single", group=GROUP, count=sizes.singles)
                        bar.advance(1 if number else 0)
                    if number:
                        ratios.append(median(now[3]) / median(now[1]))
                        for size, found in now.items():
                            times[size] += found
        return [
            *_times("one entry, single node", times[1]),
            *_times("one entry, three nodes", times[3]),
            Figure(
                what="one entry, three nodes / single node",
                measured=median(ratios),
                unit="",
                target=RAFT_TARGETS.single_ratio,
                at_most=True,
                note=f"medians; {min(ratios):.2f} to {max(ratios):.2f} in {sizes.rounds} rounds",
            ),
        ]

    async def idle(self) -> list[Figure]:
        """What groups cost that do nothing."""
        count, seconds = self._sizes.groups, self._sizes.idle_s
        with Progress(f"{count:,} idle groups", None, "") as _:
            async with cluster(self._folder / "idle", 3, self._profiles) as three:
                await trio.sleep(SETTLE_S)
                before = {node.node: node.memory_bytes for node in three.nodes.values()}
                bare = await _busy(three, seconds / 2)
                await three.ask("open", LED_S, first=1, count=count, nodes=[1, 2, 3])
                await _led(three, count)
                asleep = await _asleep(three, count)
                await trio.sleep(SETTLE_S)
                busy = await _busy(three, seconds)
                grown = [node.memory_bytes - before[node.node] for node in three.nodes.values()]
        return [
            Figure(
                what=f"{count:,} idle groups, processor",
                measured=max(busy),
                unit="% of a core",
                target=RAFT_TARGETS.idle_percent,
                at_most=True,
                note=f"of the busiest node; without groups {max(bare):.2f} %; {asleep:,} groups slept on all",
            ),
            Figure(
                what=f"{count:,} idle groups, memory",
                measured=max(grown) / count / 1_000,
                unit="kB a group",
                target=RAFT_TARGETS.group_kb,
                at_most=True,
                note=f"on the largest node; without groups {max(before.values()) / 1e6:.0f} MB",
            ),
        ]

    async def start(self) -> list[Figure]:
        """From no groups to as many with leaders; and the same from the disk."""
        count = self._sizes.start_groups
        figures = []
        with Progress(f"start of {count:,} groups", 2, "starts") as bar:
            async with cluster(self._folder / "start", 3, self._profiles) as three:
                for how in ("new", "after a restart"):
                    begun = time.perf_counter()
                    if how != "new":
                        await three.start()
                    launched = time.perf_counter() - begun
                    opened = await three.ask("open", LED_S, first=1, count=count, nodes=[1, 2, 3])
                    await _led(three, count)
                    seconds = time.perf_counter() - begun
                    note = f"processes {launched:.1f} s, opening {max(opened.values()):.1f} s"
                    figures.append(
                        Figure(
                            what=f"{count:,} groups led, {how}",
                            measured=seconds,
                            unit="s",
                            target=RAFT_TARGETS.start_s,
                            at_most=True,
                            note=note,
                        )
                    )
                    await three.stop()
                    bar.advance(1)
        return figures

    async def failover(self) -> list[Figure]:
        """From the kill of a leader until a proposal succeeds on the next."""
        kills = self._sizes.kills
        pauses = max(kills // 4, 1)
        times: dict[str, list[float]] = {"busy": [], "asleep": [], "paused": []}
        with Progress("killing leaders", kills + pauses, "leaders") as bar:
            async with cluster(self._folder / "failover", 3, self._profiles) as three:
                await three.ask("open", LED_S, first=GROUP, count=1, nodes=[1, 2, 3])
                for number in range(kills + pauses):
                    how = "paused" if number >= kills else ("busy", "asleep")[number % 2]
                    times[how].append(await _replaced(three, how))
                    bar.advance(1)
        killed = times["busy"] + times["asleep"]
        both = [f"{how} {median(found):.2f} s" for how, found in times.items() if found and how != "paused"]
        return [
            Figure(
                what=f"leader replaced after SIGKILL, median of {kills}",
                measured=median(killed),
                unit="s",
                target=RAFT_TARGETS.failover_s,
                at_most=True,
                note="until a proposal succeeds; medians: " + ", ".join(both),
            ),
            Figure(what="leader replaced after SIGKILL, longest", measured=max(killed), unit="s"),
            Figure(
                what=f"leader replaced that stands still, median of {pauses}",
                measured=median(times["paused"]),
                unit="s",
                note=f"its connections stay open; longest {max(times['paused']):.2f} s",
            ),
        ]

    @asynccontextmanager
    async def _pair(self, name: str) -> AsyncIterator[dict[int, tuple[Cluster, NodeProcess]]]:
        """A group of one and a group of three, each with its leader."""
        profiles = self._profiles
        async with (
            cluster(self._folder / f"{name}-1", 1, profiles) as one,
            cluster(self._folder / f"{name}-3", 3, profiles) as three,
        ):
            leaders = {}
            for each in (one, three):
                await each.ask("open", first=GROUP, count=1, nodes=list(each.nodes))
                leaders[len(each.nodes)] = each, await _leader(each)
            yield leaders
            await _same(three)


async def _batches(nodes: Cluster, leader: NodeProcess, batches: int) -> tuple[float, float]:
    """Entries per second, and microseconds of processor time of all nodes together for each."""
    before = await nodes.ask("cpu")
    under_way = RAFT_WORKLOAD.batches_under_way
    done = await leader.ask("batched", group=GROUP, batches=batches, under_way=under_way)
    looks = await nodes.ask("look", group=GROUP)
    await nodes.ask("caught_up", group=GROUP, applied=max(look["applied"] for look in looks.values()))
    used = sum((await nodes.ask("cpu")).values()) - sum(before.values())
    return done["entries"] / done["seconds"], used / done["entries"] * 1e6


async def _replaced(three: Cluster, how: str) -> float:
    """End a leader's service, and see it replaced. Returns the seconds; behind it all three are there again."""
    leader = await _leader(three)
    others = [node for node in three.nodes.values() if node is not leader]
    async with trio.open_nursery() as nursery:
        if how == "asleep":
            await _asleep(three, 1)
        else:
            nursery.start_soon(_trickle, leader)
            await trio.sleep(BUSY_S)
        found: list[int] = []
        replaced = trio.Event()
        for node in others:
            nursery.start_soon(_succeed, node, found, replaced)
        for node in others:
            await node.ask("standing")  # behind it, they wait
        begun = time.monotonic_ns()
        if how == "paused":
            leader.pause()
        else:
            await leader.kill()
        await replaced.wait()
        nursery.cancel_scope.cancel()
    for node in others:
        await node.ask("give_up")
    await _back(three, leader, how)
    return (found[0] - begun) / 1e9


async def _back(three: Cluster, former: NodeProcess, how: str) -> None:
    """The one that was away is there again, and has everything."""
    if how == "paused":
        former.resume()
    else:
        await three.restart(former)
        await former.ask("open", first=GROUP, count=1, nodes=[1, 2, 3])
    looks = [await node.ask("look", group=GROUP) for node in three.nodes.values() if node is not former]
    await former.ask("caught_up", group=GROUP, applied=max(look["applied"] for look in looks))


async def _trickle(leader: NodeProcess) -> None:
    with suppress(NodeFailed):  # it is killed, which is what is wanted
        await leader.ask("trickle", LED_S, group=GROUP)


async def _succeed(node: NodeProcess, found: list[int], replaced: trio.Event) -> None:
    found.append(await node.ask("succeed", TAKEN_OVER_S, group=GROUP))
    replaced.set()


async def _leader(nodes: Cluster) -> NodeProcess:
    """Who leads the group, and serves."""
    with trio.move_on_after(LED_S):
        while True:
            for node in nodes.nodes.values():
                if (await node.ask("look", group=GROUP))["ready"]:
                    return node
            await trio.sleep(POLL_S)
    raise NodeFailed(f"no leader within {LED_S:g} s")


async def _led(nodes: Cluster, count: int) -> None:
    """Return when each group has a leader that is ready."""
    leading = 0
    with trio.move_on_after(LED_S):
        while True:
            found = await nodes.ask("standing", LED_S)
            leading = sum(standing["leading"] for standing in found.values())
            if leading >= count:
                return
            await trio.sleep(POLL_S)
    raise NodeFailed(f"{leading:,} of {count:,} groups have a leader after {LED_S:g} s")


async def _asleep(nodes: Cluster, count: int) -> int:
    """How many groups sleep on all nodes, when all do or enough time has passed."""
    until = time.perf_counter() + ASLEEP_S
    while True:
        asleep: int = min((await nodes.ask("asleep")).values())
        if asleep >= count or time.perf_counter() > until:
            return asleep
        await trio.sleep(POLL_S)


async def _busy(nodes: Cluster, seconds: float) -> list[float]:
    """The share of a core in percent that each node uses over some time."""
    before = await nodes.ask("cpu")
    begun = time.perf_counter()
    await trio.sleep(seconds)
    after = await nodes.ask("cpu")
    passed = time.perf_counter() - begun
    return [100 * (after[node] - before[node]) / passed for node in nodes.nodes]


async def _same(nodes: Cluster) -> None:
    """All replicas have applied the same. Raises NodeFailed."""
    looks = await nodes.ask("look", group=GROUP)
    applied = max(look["applied"] for look in looks.values())
    await nodes.ask("caught_up", group=GROUP, applied=applied)
    tallies = {(look["count"], look["bytes"]) for look in (await nodes.ask("look", group=GROUP)).values()}
    if len(tallies) != 1:
        raise NodeFailed(f"replicas differ: {sorted(tallies)}")


def _rate(what: str, rates: list[float], cpu: list[float]) -> Figure:
    return Figure(
        what=what,
        measured=median(rates),
        unit="entries/s",
        note=f"{median(cpu):.2f} us of processor time an entry, all nodes together",
    )


def _times(what: str, times: list[float]) -> list[Figure]:
    p99 = quantiles(times, n=100)[-1] if len(times) > 1 else times[0]
    return [
        Figure(what=f"{what}, median", measured=median(times) * 1_000, unit="ms"),
        Figure(what=f"{what}, p99", measured=p99 * 1_000, unit="ms"),
    ]

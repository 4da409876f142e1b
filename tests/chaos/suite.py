"""One run of chaos: a fleet of real nodes, load, one fault after the other, and a judgement after every round.

    round: clients start ──> faults ──> heal ──> judge ──> (topic and queue deleted) ──> next round

`scripts/chaos` runs it; tests/chaos/test_chaos.py has a short form. docs/chaos.md says what is done and judged.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random

import trio

from tests.chaos.boxes import BoxFailed
from tests.chaos.events import Events
from tests.chaos.faults import Kind, NotNow, possible
from tests.chaos.fleet import Fleet
from tests.chaos.judging import Judge, remove, replicas_are_equal
from tests.chaos.load import Round
from tests.chaos.report import QUIET, Report

ROUND_FAULTS = 25
"""Between two judgements."""
SERVICE_S = 45.0
"""Within so long after a fault is healed, every partition must be published to."""
LOOK_S = 0.02
"""Time between two looks whether it is."""
CALM_S_MAX = 0.5
"""Longest pause between two faults."""
QUIET_S = 2.0
"""How long is looked at what the measure shows without a fault, once a round."""
TWO_PERCENT = 20
"""Share of the faults that another one joins."""
TWO = "two at once"
"""What they count as when outages are told."""
FAULT_S = 25.0
"""Time that a run allows for each fault before it gives up."""


class Chaos:
    """One run."""

    def __init__(
        self,
        folder: Path,
        *,
        faults: int,
        nodes: int,
        seed: int,
        kinds: Sequence[str] = (),
        quiet: bool = False,
        round_faults: int = ROUND_FAULTS,
        minutes: float = math.inf,
    ) -> None:
        """`kinds`: only these, in this order, one after the other; else at random. After so many minutes no more
        round is begun."""
        self._folder = folder
        self._faults = faults
        self._nodes = nodes
        self._seed = seed
        self._kinds = list(kinds)
        self._quiet = quiet
        self._round_faults = round_faults
        self._minutes = minutes
        self._random = Random(seed)
        self._struck = 0

    async def run(self) -> Report:
        """Everything. The report says what was broken."""
        events = Events(self._folder / "events.txt", self._quiet)
        self.report = Report(self._seed, self._nodes, events)
        fleet = self._fleet = Fleet(self._folder, self._nodes, self._random, events)
        self._possible, self.report.skipped = possible(fleet)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._end_early, nursery.cancel_scope)
                await fleet.start(nursery)
                events.say(f"{self._nodes} nodes are up")
                while self._struck < self._faults:
                    await self._round()
                    if events.now_s > self._minutes * 60:
                        break
                await replicas_are_equal(fleet)
                nursery.cancel_scope.cancel()
        except* Exception as group:  # whatever it is: what was found until then is told
            for error in _causes(group):
                events.break_promise(str(error) if isinstance(error, BoxFailed) else _told(error))
        finally:
            self._look_into_logs()
            fleet.close()
            self.report.seconds = events.now_s
            events.close()
        return self.report

    async def _end_early(self, scope: trio.CancelScope) -> None:
        with trio.move_on_after(120 + FAULT_S * self._faults):
            await self.report.events.ended.wait()
        if not self.report.events.broken:
            self.report.events.break_promise("the run takes too long")
        scope.cancel()

    async def _round(self) -> None:
        report, fleet, events = self.report, self._fleet, self.report.events
        report.rounds += 1
        world = Round(report.rounds, self._seed, events, self._succeeded)
        partitions: list[Hashable] = list(world.partitions)
        report.outages.begin(partitions, trio.current_time())
        async with trio.open_nursery() as clients:
            world.start(clients, fleet.addresses)
            await self._served(trio.current_time(), "the beginning of a round")
            await self._measure(QUIET, partial(trio.sleep, QUIET_S))
            until = min(self._faults, self._struck + self._round_faults)
            while self._struck < until:
                await trio.sleep(self._random.uniform(0, CALM_S_MAX))
                await self._strike(until)
            events.say(f"{self._struck} faults; judging round {report.rounds}")
            await Judge(world, fleet.addresses, events).run()
            clients.cancel_scope.cancel()
        self._count(world)
        if self._struck < self._faults:
            await remove(world, fleet.addresses, events)

    def _count(self, world: Round) -> None:
        report = self.report
        values = len(world.topic.values) + len(world.queue.values)
        report.acknowledged += world.topic.acknowledged + world.queue.acknowledged
        report.processed += len(world.queue._done)
        report.operations += values + len(world.queue._done)

    # faults

    async def _strike(self, until: int) -> None:
        if self._kinds:
            names = {kind.name: kind for kind in self._possible}
            kind = names.get(self._kinds[self._struck % len(self._kinds)])
            if kind is None:
                self._struck += 1
                return
            await self._one(kind)
            return
        chosen = self._choose(alone=True)
        if chosen.alone or self._random.randrange(100) >= TWO_PERCENT or self._struck + 1 >= until:
            await self._one(chosen)
            return
        other = self._choose(alone=False)
        await self._measure(TWO, partial(self._two, chosen, other))

    def _choose(self, *, alone: bool) -> Kind:
        kinds = [kind for kind in self._possible if alone or not kind.alone]
        return self._random.choices(kinds, [kind.weight for kind in kinds])[0]

    async def _one(self, kind: Kind) -> None:
        await self._measure(kind.name, partial(self._done, kind))

    async def _two(self, first: Kind, second: Kind) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._done, first)
            await trio.sleep(self._random.uniform(0, 2.0))
            nursery.start_soon(self._done, second)

    async def _done(self, kind: Kind) -> None:
        events = self.report.events
        try:
            events.note("fault", kind.name)
            await kind.strike(self._fleet, Random(self._random.getrandbits(64)))
        except NotNow:
            events.note("fault", kind.name, "not now")
            return
        self._struck += 1
        events.faults[kind.name] += 1

    async def _measure(self, name: str, strike: Callable[[], Awaitable[None]]) -> None:
        """Do it, wait for service, and note how long there was none."""
        outages, events = self.report.outages, self.report.events
        before = self._struck
        window = outages.struck(name, trio.current_time())
        await strike()
        if name != QUIET and self._struck == before:
            outages.forget(window)
            return
        events.note("healed", name)
        await self._served(trio.current_time(), name)
        seconds = outages.over(window, trio.current_time())
        events.note("served", name, f"{seconds:.2f} s without service")
        if name != QUIET and self._struck // 5 > before // 5:
            events.say(f"{self._struck} of {self._faults} faults; {name}: {seconds:.2f} s without service")

    async def _served(self, since_s: float, behind: str) -> None:
        outages = self.report.outages
        with trio.move_on_after(SERVICE_S) as limit:
            while not outages.served_since(since_s):  # noqa: ASYNC110 - clients tell nobody
                await trio.sleep(LOOK_S)
        if limit.cancelled_caught:
            self.report.events.break_promise(
                f"no service {SERVICE_S:g} s after {behind}: {outages.unserved(since_s)}"
            )

    def _succeeded(self, partition: tuple[str, int]) -> None:
        self.report.outages.succeeded(partition, trio.current_time())

    def _look_into_logs(self) -> None:
        for box in self._fleet.boxes:
            for line in box.complaints()[:1]:
                self.report.events.break_promise(f"{box} has met an error that it did not expect: {line}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _causes(inner)
    else:
        yield error


def _told(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


async def _run(chaos: Chaos) -> Report:
    """Ended by SIGTERM and SIGINT in good order: nodes are killed, disks taken away."""
    async with trio.open_nursery() as nursery:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:

            async def interrupted() -> None:
                await anext(signals)
                raise KeyboardInterrupt

            nursery.start_soon(interrupted)
            report = await chaos.run()
            nursery.cancel_scope.cancel()
    return report


def main() -> int:
    """Run it from the command line. Returns 0 when every promise was kept."""
    parser = argparse.ArgumentParser(
        description="Faults at random for a cluster of real nodes under load, and what became of what it promised."
    )
    parser.add_argument("--faults", type=int, default=60, help="how many (default 60)")
    parser.add_argument("--nodes", type=int, default=3, help="that found the cluster; one more joins (default 3)")
    parser.add_argument("--seed", type=int, default=None, help="of the faults (default: a new one)")
    parser.add_argument("--kind", action="append", default=[], help="only this kind; may be given several times")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="begin no further round after so long (default: no limit)"
    )
    parser.add_argument("--keep", action="store_true", help="keep the folder with logs and events in any case")
    given = parser.parse_args()
    seed = random.randrange(1 << 32) if given.seed is None else given.seed
    folder = Path(tempfile.mkdtemp(prefix="plait-chaos-"))
    print(f"seed {seed}, {given.faults} faults, {given.nodes} nodes; logs and events: {folder}", flush=True)
    chaos = Chaos(
        folder, faults=given.faults, nodes=given.nodes, seed=seed, kinds=given.kind, minutes=given.minutes
    )
    good = False
    try:
        report = trio.run(_run, chaos)
        good = report.good
        print(report.text())
        if not good:
            print("\nthe last events:", *report.events.last, sep="\n")
            print("\nFAILED:", *report.events.broken[:20], sep="\n  ")
        print("\nevery promise was kept" if good else f"\nFAILED: nodes' logs and all events are in {folder}")
    except* KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    if good and not given.keep:
        with suppress(OSError):
            shutil.rmtree(folder)
    return 0 if good else 1


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())

"""What is done to the fleet, one function a kind: strike, wait, heal; it returns when everything is as before.

Each takes boxes that nobody else touches meanwhile. Raises BoxFailed when a node does not come back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

import trio

from plait.client.client import Client
from tests.chaos.boxes import Box, BoxFailed
from tests.chaos.fleet import Fleet
from tests.chaos.wires import Names, both

DOWN_S_MAX = 4.0
"""Longest time that a node is down or stopped."""
FAULT_S_MAX = 5.0
"""Longest time that a wire or a disk is bad."""
LOOK_S = 0.2
"""Time between two looks whether a node is removed."""
EARLY_S_MAX = 0.8
"""A node that is killed while it starts is killed within this time."""
CLOCK_STEP_S_MAX = 7_200
"""Furthest that a clock is set wrong."""
WRITES_PER_S = (3, 40)
"""Of a slow disk."""


class NotNow(Exception):
    """There is no node to strike."""


@contextmanager
def taken(fleet: Fleet, random: Random, count: int = 1) -> Iterator[list[Box]]:
    """Some nodes of the fleet that nobody else has in hand. Raises NotNow."""
    free = [box for box in fleet.members if box.is_up and not box.busy]
    if len(free) < count:
        raise NotNow
    boxes = random.sample(free, count)
    for box in boxes:
        box.busy = True
    try:
        yield boxes
    finally:
        for box in boxes:
            box.busy = False


async def _pause(random: Random, longest_s: float, least_s: float = 0.1) -> None:
    await trio.sleep(random.uniform(least_s, longest_s))


# processes


async def kill(fleet: Fleet, random: Random) -> None:
    """SIGKILL; now and then once more while it starts."""
    with taken(fleet, random) as (box,):
        fleet.kill(box)
        await _pause(random, DOWN_S_MAX)
        if random.random() < 0.2:
            fleet.launch(box)
            await _pause(random, EARLY_S_MAX, 0.0)
            fleet.kill(box)
        await fleet.bring_back(box)


async def vanish(fleet: Fleet, random: Random) -> None:
    """The machine is gone: nobody gets as much as a RST from it."""
    with taken(fleet, random) as (box,):
        pairs = _around(fleet, [box])
        fleet.wires.set(pairs, held=True)
        fleet.kill(box)
        await _pause(random, DOWN_S_MAX)
        fleet.wires.heal(pairs)
        await fleet.bring_back(box)


async def stop_and_go(fleet: Fleet, random: Random) -> None:
    """SIGSTOP and SIGCONT."""
    with taken(fleet, random) as (box,):
        box.pause()
        try:
            await _pause(random, DOWN_S_MAX)
        finally:
            box.resume()


async def restart_all(fleet: Fleet, random: Random) -> None:
    """SIGKILL for every node at once; they start in any order."""
    with taken(fleet, random, len(fleet.members)) as boxes:
        for box in boxes:
            fleet.kill(box)
        for box in boxes:
            await _pause(random, 0.5, 0.0)
            fleet.launch(box)
        for box in boxes:
            await fleet.bring_back(box)


async def rolling_restart(fleet: Fleet, random: Random) -> None:
    """SIGTERM for one node after the other, as for an upgrade."""
    with taken(fleet, random, len(fleet.members)) as boxes:
        for box in boxes:
            await box.stop()
            await fleet.bring_back(box)


async def kill_in_rolling_restart(fleet: Fleet, random: Random) -> None:
    """And another one is killed meanwhile."""
    with taken(fleet, random, len(fleet.members)) as boxes:
        unlucky = random.randrange(len(boxes))
        for at, box in enumerate(boxes):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(box.stop)
                if at == unlucky:
                    await _pause(random, 0.5, 0.0)
                    fleet.kill(random.choice(boxes))
            for each in boxes:
                await fleet.bring_back(each)


# wires


def _around(fleet: Fleet, boxes: list[Box]) -> list[Names]:
    """All ways from and to these."""
    names = [box.name for box in boxes]
    return both([(name, other.name) for name in names for other in fleet.boxes if other.name not in names])


def _some(fleet: Fleet, random: Random, box: Box) -> list[Names]:
    """All ways of a node, or those between it and another one, in both directions."""
    others = [other for other in fleet.members if other is not box]
    return _around(fleet, [box]) if random.random() < 0.5 else both([(box.name, random.choice(others).name)])


async def _with(fleet: Fleet, random: Random, pairs: list[Names], **condition: object) -> None:
    fleet.events.note("wires", pairs, condition)
    fleet.wires.set(pairs, **condition)
    try:
        await _pause(random, FAULT_S_MAX)
    finally:
        fleet.wires.heal(pairs)


async def cut(fleet: Fleet, random: Random) -> None:
    """A node, or a pair of them, cannot speak to each other; connections are reset."""
    with taken(fleet, random) as (box,):
        await _with(fleet, random, _some(fleet, random, box), cut=True)


async def drop(fleet: Fleet, random: Random) -> None:
    """The same, and nobody is told."""
    with taken(fleet, random) as (box,):
        await _with(fleet, random, _some(fleet, random, box), held=True)


async def drop_one_way(fleet: Fleet, random: Random) -> None:
    """The same in one direction."""
    with taken(fleet, random) as (box,):
        outward = random.random() < 0.5
        pairs = _some(fleet, random, box)
        await _with(fleet, random, [pair for pair in pairs if (pair[0] == box.name) == outward], held=True)


async def slow_wire(fleet: Fleet, random: Random) -> None:
    """Bytes take their time."""
    with taken(fleet, random) as (box,):
        delay_s, bytes_per_s = random.uniform(0.005, 0.3), random.choice((0, 30_000, 300_000))
        await _with(fleet, random, _some(fleet, random, box), delay_s=delay_s, bytes_per_s=bytes_per_s)


async def lossy_wire(fleet: Fleet, random: Random) -> None:
    """Connections stall and break by chance."""
    with taken(fleet, random) as (box,):
        stall, reset = random.randrange(1, 30), random.choice((0.0, 0.5, 5.0))
        pairs = _some(fleet, random, box)
        await _with(fleet, random, pairs, stall_percent=stall, stall_s=0.25, reset_percent=reset)


# disks


async def full_disk(fleet: Fleet, random: Random) -> None:
    """Nothing, or hardly anything, is free; now and then the node is started so."""
    with taken(fleet, random) as (box,):
        box.may_end = True
        try:
            fleet.events.note("full", box, box.disk.fill(random))
            await _pause(random, FAULT_S_MAX)
            if random.random() < 0.25:
                fleet.kill(box)
                fleet.launch(box)
                await _pause(random, DOWN_S_MAX)
        finally:
            box.disk.free()
        await _bring_back_after_trouble(fleet, box)


async def read_only_disk(fleet: Fleet, random: Random) -> None:
    """The file system gives up; then somebody sees to the machine."""
    with taken(fleet, random) as (box,):
        box.may_end = True
        box.disk.break_down()
        await _pause(random, FAULT_S_MAX)
        if not box.is_up:
            fleet.events.reached("ended by itself after trouble with its disk")
        fleet.kill(box)
        box.disk.mend()
        await _bring_back_after_trouble(fleet, box)


async def _bring_back_after_trouble(fleet: Fleet, box: Box) -> None:
    """A process that has met trouble may end a moment later."""
    if box.ended is not None:
        fleet.events.reached("ended by itself after trouble with its disk")
    try:
        await fleet.bring_back(box)
    except BoxFailed:
        if box.ended is None:
            raise
        await fleet.bring_back(box)
    box.may_end = False


async def slow_disk(fleet: Fleet, random: Random) -> None:
    """A few writes a second."""
    with taken(fleet, random) as (box,):
        box.disk.slow_down(random.randint(*WRITES_PER_S))
        try:
            await _pause(random, FAULT_S_MAX)
        finally:
            box.disk.slow_down(0)


# clocks


async def clock_step(fleet: Fleet, random: Random) -> None:
    """The wall clock is wrong, and then right again: a step in each direction."""
    with taken(fleet, random) as (box,):
        step_s = random.choice((-1, 1)) * random.choice((2.0, 60.0, random.uniform(0, CLOCK_STEP_S_MAX)))
        fleet.events.note("clock", box, f"{step_s:+.1f} s")
        box.step_clock(step_s)
        try:
            await _pause(random, FAULT_S_MAX)
        finally:
            box.step_clock(0)


# members


async def join(fleet: Fleet, random: Random) -> None:
    """A new node joins with an empty disk; it, or another one, is killed while replicas move to it."""
    box = fleet.spare
    if box.in_fleet:
        raise NotNow
    with taken(fleet, random) as (other,):
        box.node_id, box.busy, box.in_fleet = 0, True, True
        try:
            box.disk.erase()
            fleet.launch(box)
            await _pause(random, 3.0, 0.0)
            victim = random.choice((box, other))
            fleet.kill(victim)
            await _pause(random, 2.0)
            for each in (other, box):
                await fleet.bring_back(each)
        finally:
            box.busy = False


async def lose(fleet: Fleet, random: Random) -> None:
    """The node that joined is lost with its disk; others take over what it had, and one of them is killed then."""
    box = fleet.spare
    if not box.in_fleet or box.busy:
        raise NotNow
    with taken(fleet, random) as (other,):
        if other is box:
            raise NotNow
        fleet.kill(box)
        box.in_fleet = False
        await _pause(random, DOWN_S_MAX)
        fleet.kill(other)
        await _pause(random, 2.0)
        await fleet.bring_back(other)


async def leave(fleet: Fleet, random: Random) -> None:
    """The node that joined is removed by an operator; it, or another, is killed while its replicas move away."""
    box = fleet.spare
    if not box.in_fleet or box.busy:
        raise NotNow
    with taken(fleet, random) as (other,):
        if other is box:
            raise NotNow
        box.busy = True
        try:
            await fleet.ask(lambda client: client.change_node(box.node_id, "leaving"))
            await _pause(random, 1.0, 0.0)
            victim = random.choice((box, other))
            fleet.kill(victim)
            await _pause(random, 1.0)
            fleet.launch(victim)
            while await fleet.ask(lambda client: _knows(client, box)):  # noqa: ASYNC110 - it is asked
                await trio.sleep(LOOK_S)
            fleet.events.note("removed", box)
            await fleet.bring_back(other)
            fleet.kill(box)
            box.in_fleet = False
        finally:
            box.busy = False


async def _knows(client: Client, box: Box) -> bool:
    return any(node["node"] == box.node_id for node in (await client.cluster_status())["nodes"])


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault."""

    name: str
    strike: Callable[[Fleet, Random], Awaitable[None]]
    weight: int
    alone: bool = False
    """Nothing else goes wrong meanwhile."""


KINDS = (
    Kind("kill", kill, 14),
    Kind("vanish", vanish, 6),
    Kind("stop and go", stop_and_go, 10),
    Kind("cut", cut, 8),
    Kind("drop", drop, 8),
    Kind("drop one way", drop_one_way, 8),
    Kind("slow wire", slow_wire, 6),
    Kind("lossy wire", lossy_wire, 8),
    Kind("full disk", full_disk, 6),
    Kind("read-only disk", read_only_disk, 5),
    Kind("slow disk", slow_disk, 5),
    Kind("clock step", clock_step, 5),
    Kind("kill while one joins", join, 4, alone=True),
    Kind("kill while one leaves", leave, 3, alone=True),
    Kind("lost, and kill", lose, 2, alone=True),
    Kind("rolling restart", rolling_restart, 2, alone=True),
    Kind("kill in rolling restart", kill_in_rolling_restart, 3, alone=True),
    Kind("all at once", restart_all, 3, alone=True),
)


def possible(fleet: Fleet) -> tuple[list[Kind], dict[str, str]]:
    """The kinds that can be done here; the others, and why not."""
    why_not: dict[str, str] = {}
    if fleet.shelf.why_not:
        why_not |= dict.fromkeys(("full disk", "read-only disk"), fleet.shelf.why_not)
    if fleet.shelf.why_not_slow:
        why_not["slow disk"] = fleet.shelf.why_not_slow
    return [kind for kind in KINDS if kind.name not in why_not], why_not

"""How a run ends: everything is healed, and then all must come right within so many simulated seconds.

Every operation is answered; each group has a leader, the members that are wanted, and replicas in the same
state; nobody holds anything for anybody; groups fall asleep. What does not come is a violation, told with how
things stand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import trio

from replication.machine import Role

if TYPE_CHECKING:
    from tests.sim.cluster.member import Member
    from tests.sim.cluster.world import World

LOOK_S = 0.05
"""Time between two looks whether it has come."""
LIVE_ELECTIONS = 40
"""Elections' times within which everything must come right."""
LIVE_S = 10.0
"""Seconds on top, for restarts, replacements and what a full disk held up."""
REST_S = 6.0
"""Seconds within which idle groups must sleep."""


class Ending:
    """Of one run."""

    def __init__(self, world: World, answered: trio.Event) -> None:
        self._world = world
        self._answered = answered

    async def run(self) -> None:
        """Heal, wait, judge."""
        world = self._world
        world.heal()
        live_s = LIVE_S + LIVE_ELECTIONS * world.plan.shape.election_ms / 1_000
        with trio.move_on_after(live_s) as limit:
            await self._answered.wait()
            await self._until(lambda: all(self._is_whole(group) for group in world.checkers))
        if limit.cancelled_caught:
            world.events.break_promise(f"not alive {live_s:.0f} s after everything was healed: {self._why()}")
            return
        world.events.note("alive")
        if world.plan.shape.sleeps:
            with trio.move_on_after(REST_S) as limit:
                await self._until(lambda: all(_rests(member) for member in self._all()))
            if limit.cancelled_caught:
                awake = [f"{box} {member.group.name}" for box, member in self._places() if not _rests(member)]
                world.events.break_promise(f"idle groups do not sleep: {awake}")
                return
        else:
            await trio.sleep(0.5)
        self._judge()

    async def _until(self, true: Callable[[], bool]) -> None:
        while not true():  # noqa: ASYNC110 - many things must have come true at once, and none of them tells
            await trio.sleep(LOOK_S)

    def _places(self) -> Iterator[tuple[str, Member]]:
        for box in self._world.boxes:
            for member in box.member_of.values():
                yield box.name, member

    def _all(self) -> list[Member]:
        return [member for _, member in self._places()]

    def _is_whole(self, group: int) -> bool:
        world = self._world
        if any(box.life is None or not box.life.started or box.must_go for box in world.boxes):
            return False
        if not world.members.is_settled(group):
            return False
        members = [box.member_of[group] for box in world.boxes if group in box.member_of]
        if len(members) != len(world.members.wanted[group]):
            return False
        applied = {(member.group.applied_index, member.machine.chain) for member in members}
        return len(applied) == 1 and all(not member.group.failure for member in members)

    def _judge(self) -> None:
        world = self._world
        for group, checker in world.checkers.items():
            machines = {box.name: box.member_of[group].machine for box in world.boxes if group in box.member_of}
            checker.finish(machines)
        for name, member in self._places():
            self._check_idle(name, member)
            core = member.group.core
            assert core is not None, "a member that is whole has a core"
            first = member.log.snapshot_index + 1
            entries = member.log.cached(first, 1 << 30) if first <= member.log.last_index else []
            member.checker.stands(entries or [], member.log.term_at(first - 1))
        for box in world.boxes:
            assert box.life is not None, "all are up"
            held = box.life.holds()
            if held:
                world.events.break_promise(f"{box.name} holds at the end: {held}")

    def _check_idle(self, name: str, member: Member) -> None:
        held = member.holds()
        if held:
            self._world.events.break_promise(f"{name} {member.group.name} holds at the end: {held}")

    def _why(self) -> str:
        """How things stand, for people."""
        world = self._world
        found: list[str] = [] if self._answered.is_set() else ["operations are not answered"]
        for box in world.boxes:
            if box.life is None or not box.life.started:
                found.append(f"{box.name} is not up")
        for group in world.checkers:
            if self._is_whole(group):
                continue
            wanted = [box.name for box in world.members.wanted[group]]
            found.append(f"group {group} wants {wanted}, settled: {world.members.is_settled(group)}")
            for box in world.boxes:
                if group in box.member_of:
                    found.append(f"{box.name}: {_standing(box.member_of[group])}")
        return "; ".join(found)


def _rests(member: Member) -> bool:
    """Nothing will happen by itself: it sleeps, or is alone."""
    core = member.group.core
    return core is not None and (core.asleep or core.next_deadline_ns() is None)


def _standing(member: Member) -> str:
    group, core = member.group, member.group.core
    if core is None or group.role is Role.FENCED:
        return f"replica {member.replica} is fenced: {group.failure}"
    return (
        f"replica {member.replica} {core.role.value} term={core.term} leader={core.leader}"
        f" log={core.log.snapshot_index}..{core.log.last_index} commit={core.commit} applied={group.applied_index}"
        f" members={core.membership} asleep={core.asleep}"
        f" damaged={core.damaged} removed={core.removed} installing={core.installing is not None}"
    )

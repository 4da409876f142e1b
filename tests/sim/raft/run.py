"""One seed from its beginning to its end: faults, healing, and what must have happened then."""

from __future__ import annotations

from collections.abc import Callable

from tests.sim.raft.nemesis import Nemesis
from tests.sim.raft.replica import Replica
from tests.sim.raft.truth import Violation
from tests.sim.raft.world import HEAL_NS, LOOK_NS, World


class Run:
    """Runs a world. `world` tells afterwards what happened."""

    def __init__(self, seed: int, *, record: bool = False) -> None:
        self.world = World(seed, record=record)
        self.nemesis = Nemesis(self.world)
        self._settled_before = self._answered_before = 0

    def run(self) -> World:
        """All of it. Raises Violation, or AssertionError from within a core."""
        world, swarm = self.world, self.world.swarm
        self._repeat(swarm.propose_ns, world.propose)
        self._repeat(swarm.read_ns, world.read)
        self.nemesis.begin()
        world.run_until(swarm.duration_ns)
        self.nemesis.heal()
        self._settled_before, self._answered_before = world.checkers.truth.settled, world.answered
        self._until("settles", self._settled, again=self._ask_again)
        self._retire()
        if world.settings.sleeps:
            self._until("falls asleep", self._asleep)
        return world

    def _repeat(self, mean_ns: int, do: Callable[[], bool]) -> None:
        def again() -> None:
            if not self.world.healed:
                do()
                self.world.at(self.world.about(mean_ns), again)

        self.world.at(self.world.about(mean_ns), again)

    def _until(self, what: str, done: Callable[[], str], again: Callable[[], None] = lambda: None) -> None:
        world = self.world
        end_ns = world.now_ns + HEAL_NS
        while missing := done():
            if world.now_ns >= end_ns:
                raise Violation("liveness", f"the group never {what}: {missing}\n" + "\n".join(self._figures()))
            again()
            world.compare_sleepers()
            world.run_until(world.now_ns + LOOK_NS)

    def _ask_again(self) -> None:
        """Clients go on asking until something of theirs got done after the healing."""
        truth = self.world.checkers.truth
        if truth.settled == self._settled_before:
            self.world.propose()
        if self.world.answered == self._answered_before:
            self.world.read()

    def _members(self) -> list[Replica]:
        world = self.world
        return [world.replicas[one] for one in world.committed_membership().members()]

    def _settled(self) -> str:
        """What is missing yet; "": nothing."""
        world, truth = self.world, self.world.checkers.truth
        if world.committed_membership().joint:
            return "a change of members is under way"
        leaders = [each for each in self._members() if each.core is not None and each.core.ready]
        if len(leaders) != 1:
            return f"{len(leaders)} leaders"
        if truth.settled == self._settled_before or world.answered == self._answered_before:
            return "nothing that was asked since got done"
        for replica in self._members():
            core = replica.core
            if core is None or core.leader != leaders[0].id:
                return f"{replica.id} does not follow {leaders[0].id}"
            if not replica.log.last_index == replica.log.durable.last_index == replica.applied == truth.last_index:
                return f"{replica.id} has not everything up to {truth.last_index}"
            if replica.reads:
                return f"{replica.id} has not answered all reads"
        return ""

    def _retire(self) -> None:
        """Whoever is no member is switched off, as whoever gave the order does at last."""
        for replica in self.world.replicas.values():
            if replica.core is not None and replica.id not in self.world.committed_membership():
                self.world.crash(replica)
        self.nemesis.tell_all()

    def _asleep(self) -> str:
        """Who is awake; "": nobody, and nothing happens any more."""
        for replica in self._members():
            if len(self._members()) > 1 and (replica.core is None or not replica.core.asleep):
                return f"{replica.id} is awake"
        inputs = self.world.inputs
        self.world.run_until(self.world.now_ns + 4 * LOOK_NS)
        return "" if self.world.inputs == inputs else "something goes on in the sleeping group"

    def _figures(self) -> list[str]:
        """How each stands."""
        return [figures(replica) for replica in self.world.replicas.values()]


def figures(replica: Replica) -> str:
    """How one stands, in one line."""
    core, log = replica.core, replica.log
    if core is None:
        return f"  {replica.id}: down, on disk {log.last_index}/{log.last_term}"
    followers = [
        f"{each.replica}: {each.pace.value} match {each.match} next {each.next}{' damaged' * each.damaged}"
        for each in core.progress.values()
    ]
    return (
        f"  {replica.id}: {core.candidate or core.role.value} of {core.term} (leader {core.leader}), log"
        f" {log.snapshot_index}..{log.last_index}/{log.last_term}, commit {core.commit}, applied"
        f" {replica.applied},"
        f" members {sorted(core.membership.voters)} {sorted(core.membership.outgoing)}"
        f" {sorted(core.membership.learners)}{' asleep' * core.asleep}{' damaged' * core.damaged}"
        f"{' removed' * core.removed}{' installing' * (core.installing is not None)}; {', '.join(followers)}"
    )

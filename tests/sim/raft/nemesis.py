"""What goes wrong in a world, and when; and how it is healed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from plait.wire.errors import BadRequest, NotLeader, Unavailable
from replication.raft.membership import Membership
from tests.sim.raft.replica import Replica
from tests.sim.raft.swarm import MS, healed
from tests.sim.raft.world import DISK_FAILED, World

REPLICAS_MAX = 12
"""That one world ever has."""


class Nemesis:
    """Strikes a world at random until it is to be healed."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.random = world.random
        self._next_replica = world.swarm.voters + 1
        self._believed: set[tuple[int, int]] = set()
        """(replica, other): it was told that the other's node is down."""
        self._strikes: dict[str, Callable[[], None]] = {
            "isolate": self._isolate,
            "halves": self._halves,
            "bridge": self._bridge,
            "one_way": self._one_way,
            "lonely_leader": self._lonely_leader,
            "crash": lambda: self._crash(self._anybody()),
            "crash_leader": lambda: self._crash(self._leader()),
            "crash_all": self._crash_all,
            "pause": lambda: self._pause(self._anybody()),
            "pause_leader": lambda: self._pause(self._leader()),
            "transfer": self._transfer,
            "change": self._change,
            "compact": self._compact,
            "damage": self._damage,
            "rumour": self._rumour,
            "hurry": self._hurry,
            "fence": self._fence,
        }

    def begin(self) -> None:
        """From now on."""
        if self.world.swarm.faults:
            self._later()

    def _later(self) -> None:
        self.world.at(self.world.about(self.world.swarm.fault_ns), self._strike)

    def _strike(self) -> None:
        if not self.world.healed:
            fault = self.random.choice(self.world.swarm.faults)
            self.world.checkers.sometimes[f"fault: {fault}"] += 1
            self._strikes[fault]()
            self._later()

    # ---- whom

    def _alive(self) -> list[Replica]:
        return [each for each in self.world.replicas.values() if each.core is not None]

    def _anybody(self) -> Replica | None:
        alive = self._alive()
        return self.random.choice(alive) if alive else None

    def _leader(self) -> Replica | None:
        leading = [each for each in self._alive() if each.leads]
        return self.random.choice(leading) if leading else None

    # ---- links

    def _cut(self, links: set[tuple[int, int]]) -> None:
        self.world.cut |= links
        self._spread_news()
        self.world.at(self.world.about(1_500 * MS), partial(self._join, links))

    def _join(self, links: set[tuple[int, int]]) -> None:
        self.world.cut -= links
        self._spread_news()

    def _between(self, one: list[int], other: list[int]) -> set[tuple[int, int]]:
        return {(a, b) for a in one for b in other} | {(b, a) for a in one for b in other}

    def _shuffled(self) -> list[int]:
        ids = list(self.world.replicas)
        self.random.shuffle(ids)
        return ids

    def _isolate(self) -> None:
        first, *others = self._shuffled()
        self._cut(self._between([first], others))

    def _lonely_leader(self) -> None:
        leader = self._leader()
        if leader is not None:
            self._cut(self._between([leader.id], [each for each in self.world.replicas if each != leader.id]))

    def _halves(self) -> None:
        ids = self._shuffled()
        at = self.random.randrange(len(ids))
        self._cut(self._between(ids[:at], ids[at:]))

    def _bridge(self) -> None:
        ids = self._shuffled()
        middle = len(ids) // 2
        self._cut(self._between(ids[:middle], ids[middle + 1 :]))

    def _one_way(self) -> None:
        first, *others = self._shuffled()
        links = {(first, other) for other in others if self.random.random() < 0.8}
        self._cut(links if self.random.random() < 0.5 else {(b, a) for a, b in links})

    # ---- lives

    def _crash(self, replica: Replica | None) -> None:
        if replica is None:
            return
        pending = len(replica.log.pending)
        self.world.crash(replica, self.random.choice((0, 0, pending, self.random.randint(0, pending))))
        replica.held = None
        self._spread_news()
        self.world.at(self.world.about(1_000 * MS), partial(self._restart, replica, replica.life))

    def _crash_all(self) -> None:
        for replica in self._alive():
            self._crash(replica)

    def _restart(self, replica: Replica, life: int) -> None:
        if replica.life == life and replica.core is None and self._may_live(replica):
            replica.eager = self.random.random() < 0.1
            self.world.start(replica)
            self._spread_news()

    def _may_live(self, replica: Replica) -> bool:
        """Whoever was taken out is gone, unless it lingers."""
        world = self.world
        return world.swarm.linger or replica.id in world.committed_membership() or not self._was_member(replica)

    def _was_member(self, replica: Replica) -> bool:
        return any(replica.id in membership for _, membership in self.world.checkers.truth.memberships)

    def _pause(self, replica: Replica | None) -> None:
        if replica is not None and replica.held is None:
            replica.held = []
            self._spread_news()
            self.world.at(self.world.about(1_500 * MS), partial(self._resume, replica))

    def _resume(self, replica: Replica) -> None:
        if replica.held is not None:
            self.world.resume(replica)
        self._spread_news()

    def _fence(self) -> None:
        replica = self._anybody()
        if replica is not None and replica.core is not None:
            replica.core.fence(self.world.now_of(replica), DISK_FAILED)
            self.world.after(replica)
            self.world.at(self.world.about(500 * MS), partial(self._crash_fenced, replica, replica.life))

    def _crash_fenced(self, replica: Replica, life: int) -> None:
        if replica.life == life and replica.core is not None:
            self._crash(replica)

    # ---- the group

    def _transfer(self) -> None:
        leader = self._leader()
        if leader is None or leader.core is None:
            return
        try:
            leader.core.transfer(self.world.now_of(leader), self.random.choice(list(self.world.replicas)))
            self.world.checkers.sometimes["transfer begun"] += 1
        except (NotLeader, Unavailable):
            self.world.checkers.sometimes["transfer refused"] += 1
        self.world.after(leader)

    def _change(self) -> None:
        if self.random.random() < 0.15:
            self._lonely_leader()  # a change that nobody hears of is to be undone
        leader = self._leader()
        if leader is None or leader.core is None:
            return
        if self.random.random() < 0.5:
            self.world.at(self.world.about(400 * MS), self._change_again)
        voters, learners = self._next_members(leader.log.membership)
        try:
            leader.core.change_membership(self.world.now_of(leader), voters, learners, leader.core.term)
            self.world.checkers.sometimes["change begun"] += 1
        except (NotLeader, Unavailable, BadRequest) as error:
            self.world.checkers.sometimes[f"change refused: {error.code}"] += 1
        self.world.after(leader)

    def _change_again(self) -> None:
        if not self.world.healed:
            self._change()

    def _next_members(self, now: Membership) -> tuple[dict[int, int], dict[int, int]]:
        voters, learners = dict(now.voters), dict(now.learners)
        for _ in range(self.random.choice((1, 1, 2, 3))):
            kind = self.random.choice(("add", "add", "promote", "promote", "remove", "demote", "drop"))
            if kind == "add" and len(self.world.replicas) < REPLICAS_MAX:
                made = self._make()
                learners[made.id] = made.node
            elif kind == "promote" and learners:
                one = self.random.choice(list(learners))
                voters[one] = learners.pop(one)
            elif kind in ("remove", "demote") and len(voters) > 1:
                one = self.random.choice(list(voters))
                node = voters.pop(one)
                if kind == "demote":
                    learners[one] = node
            elif kind == "drop" and learners:
                learners.pop(self.random.choice(list(learners)))
        return voters, learners

    def _make(self) -> Replica:
        """A new replica under a new id, sometimes on a node that had another one."""
        node = self._next_replica if self.random.random() < 0.8 else self.random.choice(list(self.world.replicas))
        made = self.world.make(self._next_replica, node)
        self._next_replica += 1
        self.world.at(self.random.choice((0, 300 * MS)), partial(self._restart, made, made.life))
        return made

    def _compact(self) -> None:
        replica = self._anybody()
        if replica is not None:
            self.world.compact(replica)

    def _damage(self) -> None:
        replica = self._anybody()
        if replica is not None and replica.core is not None and not replica.damaged:
            replica.damaged = True
            replica.core.found_damage(self.world.now_of(replica))
            self.world.after(replica)
            self.world.at(self.world.about(3_000 * MS), partial(self.world.repair, replica))

    def _hurry(self) -> None:
        """Calls that come at no special time."""
        replica, other = self._anybody(), self._anybody()
        if replica is None or replica.core is None or other is None or replica.held is not None:
            return
        now_ns = self.world.now_of(replica)
        self.random.choice(
            (
                partial(replica.core.tick, now_ns),
                partial(replica.core.unreachable, now_ns, other.id),
                partial(replica.core.wake, now_ns),
                partial(replica.core.persisted, now_ns, 0),
            )
        )()
        self.world.after(replica)

    # ---- what the links say

    def _rumour(self) -> None:
        """A link believes what is not so."""
        replica, other = self._anybody(), self._anybody()
        if replica is not None and other is not None and replica is not other:
            self._tell(replica, replica.life, other, self.random.random() < 0.5)

    def _spread_news(self) -> None:
        for replica in self._alive():
            for other in self.world.replicas.values():
                if other is not replica and self._gone(replica, other) != (
                    (replica.id, other.id) in self._believed
                ):
                    self._maybe_tell(replica, other)

    def _gone(self, replica: Replica, other: Replica) -> bool:
        """Nothing is heard of the other's node: of no replica there."""
        return all(
            each.core is None or each.held is not None or (each.id, replica.id) in self.world.cut
            for each in self.world.replicas.values()
            if each.node == other.node
        )

    def _maybe_tell(self, replica: Replica, other: Replica) -> None:
        if self.random.random() < self.world.swarm.told:
            gone = self._gone(replica, other)
            tell = partial(self._tell, replica, replica.life, other, gone)
            self.world.at(self.random.randrange(600 * MS), tell)

    def _tell(self, replica: Replica, life: int, other: Replica, gone: bool) -> None:
        if replica.core is None or replica.life != life:
            return
        if replica.held is not None:
            replica.held.append(partial(self._tell, replica, life, other, gone))
            return
        now_ns = self.world.now_of(replica)
        if gone:
            self._believed.add((replica.id, other.id))
            replica.core.node_down(now_ns, other.node)
            self.world.checkers.told_down(replica, other.node)
        else:
            self._believed.discard((replica.id, other.id))
            replica.core.node_up(now_ns, other.node)
        self.world.after(replica)

    # ---- the end

    def heal(self) -> None:
        """Nothing goes wrong any more, and all know it."""
        world = self.world
        world.healed, world.swarm = True, healed(world.swarm)
        world.cut.clear()
        for replica in list(world.replicas.values()):
            if replica.held is not None:
                self._resume(replica)
        for replica in list(world.replicas.values()):
            if replica.core is not None and replica.core.failure:
                world.crash(replica)
            if replica.core is None and self._may_live(replica):
                world.start(replica)
            world.repair(replica)
        self.tell_all()

    def tell_all(self) -> None:
        """The links tell everybody what is so."""
        for replica in self._alive():
            for other in self.world.replicas.values():
                if other is not replica:
                    self._tell(replica, replica.life, other, self._gone(replica, other))

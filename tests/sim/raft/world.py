"""Cores alone, under one heap of events and one seed: thousands of schedules in the time of one real cluster.

    heap ──(time, event)──> input of a core ──> take() ──┬─ messages ──> datagrams: lost, doubled, late, cut off
      ^                                                  ├─ writes ────> synced later, in order
      └──────────────── new events ──────────────────────┴─ commits ───> applied later

A run has two phases: faults, in which nothing wrong may happen; then all is healed, and everything must get
done: a leader, all proposals and reads, equal replicas, and at the end sleep, in which nothing happens at all.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from plait.wire.errors import NotLeader, Overloaded
from replication.machine import Proposal, Role
from replication.raft.core import RaftCore
from replication.raft.membership import Membership
from replication.raft.messages import Append, Beat, Message, Sleep, SnapshotOffer, VoteAnswer
from replication.raft.output import Standing
from tests.sim.raft.cluster import Cluster
from tests.sim.raft.replica import Replica
from tests.sim.raft.swarm import MS, Swarm, draw
from tests.sim.raft.truth import Violation
from tests.sim.reference.record import Recorder

HEAL_NS = 120_000 * MS
"""Simulated time in which a healed group must have done everything."""
LATE_NS = 1_500 * MS
"""What a late message takes, on average."""
LOOK_NS = 250 * MS
"""Time between two looks whether it has."""
DISK_FAILED = "the disk failed"
"""Why a world fences a replica; one that fences itself is a violation."""
INPUTS_MAX = 200_000
"""Of one run; more means that something goes round in circles."""
SLICE_ENTRIES = 7
"""Entries applied in one turn."""

_OF_LEADERS = (Append, Beat, Sleep, SnapshotOffer)

Event = tuple[int, int, Replica | None, int, Callable[..., None], tuple[Any, ...]]
"""When, number, whose, for which of its lives (0: any), what."""


class World(Cluster):
    """One seed's run."""

    def __init__(self, seed: int, *, record: bool = False, swarm: Swarm | None = None) -> None:
        random = Random(seed)
        self.swarm = swarm or draw(random)
        super().__init__(self.swarm.settings, random)
        self.seed = seed
        self.now_ns = 0
        self.inputs = 0
        self.digest = 0
        """Equal for equal runs."""
        self.healed = False
        self.cut: set[tuple[int, int]] = set()
        """(source, target) of links that are down."""
        self.proposals = 0
        self.answered = 0
        self._heap: list[Event] = []
        self._numbers = 0
        self._links: dict[tuple[int, int], int] = {}
        self._heard: dict[tuple[int, int], int] = {}
        """(replica, other): when it last got a message of the other."""
        self._led: dict[int, tuple[int, int, int]] = {}
        """Follower: its life, its leader, when it last heard it."""
        self._since: dict[int, tuple[tuple[int, Membership, bool], int]] = {}
        """Leader: its term, its members, whether some of them sleep; and since when it is so."""
        if record:
            self.recorder = Recorder(lambda: self.now_ns)
        self.found({number: number for number in range(1, self.swarm.voters + 1)})
        for replica in self.replicas.values():
            self.at(random.randrange(50 * MS), partial(self.start, replica))

    def make(self, replica: int, node: int) -> Replica:
        """See Cluster."""
        made = super().make(replica, node)
        made.rate = self.swarm.rates[replica % len(self.swarm.rates)]
        made.offset_ns = self.random.randrange(1 << 40)
        made.log.cache_entries = self.swarm.cache_entries
        return made

    # ---- time

    def at(self, delay_ns: int, do: Callable[[], None]) -> None:
        """Do something later that concerns the world."""
        self._numbers += 1
        heapq.heappush(self._heap, (self.now_ns + delay_ns, self._numbers, None, 0, do, ()))

    def later(self, delay_ns: int, replica: Replica, do: Callable[..., None], *args: Any) -> None:
        """Do something later that only this life of this replica is to see, and not while it is paused."""
        self._numbers += 1
        event = (self.now_ns + delay_ns, self._numbers, replica, replica.life, do, (replica, *args))
        heapq.heappush(self._heap, event)

    def about(self, mean_ns: int) -> int:
        """A time that is often short and sometimes long."""
        return int(self.random.expovariate(1.0) * mean_ns)

    def now_of(self, replica: Replica) -> int:
        """See Cluster."""
        return self.now_ns * replica.rate // 1_000 + replica.offset_ns

    def run_until(self, end_ns: int) -> None:
        """Let everything happen that is due until then."""
        heap = self._heap
        while heap and heap[0][0] <= end_ns:
            self.now_ns, _, replica, life, do, args = heapq.heappop(heap)
            if replica is None:
                do()
            elif life and life != replica.life:
                continue
            elif replica.held is not None:
                replica.held.append(partial(self._held, replica, life, do, args))
            else:
                do(*args)
        self.now_ns = max(self.now_ns, end_ns)

    def resume(self, replica: Replica) -> None:
        """A paused one goes on with all that came meanwhile; its timers may be the last that it looks at."""
        held, replica.held = replica.held or [], None
        if self.random.random() < 0.5:
            held.sort(key=lambda event: isinstance(event, partial) and self._ring in event.args)
        for do in held:
            do()

    def _held(self, replica: Replica, life: int, do: Callable[..., object], args: tuple[Any, ...]) -> None:
        if not life or life == replica.life:
            do(*args)

    @property
    def quiet(self) -> bool:
        """Nothing will ever happen again."""
        return not self._heap

    # ---- what cores want

    def after(self, replica: Replica) -> None:
        """See Cluster."""
        super().after(replica)
        core = replica.core
        assert core is not None
        self.inputs += 1
        if self.inputs > INPUTS_MAX:
            raise Violation("liveness", "this never ends")
        self.digest = (
            self.digest * 31 + replica.id + 7 * core.term + 131 * core.commit + self.now_ns
        ) & 0xFFFFFFFFFF
        if core.role is Role.LEADER:
            self._leads(replica, core)
        deadline_ns = core.next_deadline_ns()
        if deadline_ns is not None:
            self._arm(replica, deadline_ns)

    def _arm(self, replica: Replica, deadline_ns: int) -> None:
        due_ns = (deadline_ns - replica.offset_ns) * 1_000 // replica.rate + 1
        if not replica.armed_ns or due_ns < replica.armed_ns:
            replica.armed_ns = due_ns = max(due_ns, self.now_ns)
            self.later(due_ns - self.now_ns, replica, self._ring, due_ns)

    def _ring(self, replica: Replica, due_ns: int) -> None:
        core = replica.core
        if core is None or replica.armed_ns != due_ns:
            return
        replica.armed_ns = 0
        now_ns = self.now_of(replica)
        deadline_ns = core.next_deadline_ns()
        if deadline_ns is None:
            return
        if deadline_ns > now_ns:
            self._arm(replica, deadline_ns)
            return
        core.tick(now_ns)
        self.after(replica)
        if core.role is Role.LEADER:
            self._hears_quorum(replica, core)

    def _leads(self, replica: Replica, core: RaftCore) -> None:
        """Note since when it leads as it does, awake and with the followers that it has."""
        sleepy = core.asleep or any(each.asleep for each in core.progress.values())
        standing = (core.term, core.membership, sleepy)
        before = self._since.get(replica.id)
        if before is None or sleepy or before[0] != standing:
            self._since[replica.id] = standing, self.now_ns

    def _hears_quorum(self, replica: Replica, core: RaftCore) -> None:
        """A leader whose beat was due knows that a quorum follows, or leads no more (dissertation 6.2)."""
        settings = self.settings
        patience_ns = (settings.election_ms + settings.beat_ms + 1) * MS * 1_000 // replica.rate
        since_ns = self.now_ns - patience_ns
        (_, _, sleepy), at_ns = self._since[replica.id]
        if sleepy or at_ns > since_ns:
            return
        for voters in core.membership.voter_sets():
            heard = sum(one == replica.id or self._heard.get((replica.id, one), 0) >= since_ns for one in voters)
            if 2 * heard <= len(voters):
                raise Violation("leaders hear a quorum", f"{replica.id} leads on in {core.term}, heard by nobody")

    def send(self, replica: Replica, message: Message) -> None:
        """See Cluster."""
        link = (message.source, message.target)
        random = self.random
        swarm = self.swarm
        if type(message) is VoteAnswer and message.pre and message.granted:
            self._stands_by_its_leader(replica, message)
        if link in self.cut or (swarm.loss and random.random() < swarm.loss):
            return
        copies = 1 + (swarm.double > 0.0 and random.random() < swarm.double)
        for _ in range(copies):
            due_ns = self.now_ns + swarm.delay_min_ns + int(random.expovariate(1.0) * swarm.delay_mean_ns)
            if swarm.late and random.random() < swarm.late:
                due_ns += self.about(LATE_NS)
            if swarm.ordered:
                due_ns = self._links[link] = max(due_ns, self._links.get(link, 0) + 1)
            self._numbers += 1
            target = self.replicas.get(message.target)
            if target is not None:
                event = (due_ns, self._numbers, target, 0, self._deliver, (target, message))
                heapq.heappush(self._heap, event)

    def _stands_by_its_leader(self, replica: Replica, message: VoteAnswer) -> None:
        """Whoever heard its leader within an election's time helps nobody else to lead (dissertation 9.6)."""
        core = replica.core
        if core is None or core.leader in (0, message.target):
            return
        life, leader, heard_ns = self._led.get(replica.id, (0, 0, 0))
        deaf_ns = (self.settings.election_ms - 1) * MS * 1_000 // replica.rate
        if (life, leader) == (replica.life, core.leader) and self.now_ns - heard_ns < deaf_ns:
            raise Violation("voters stand by their leader", f"{replica.id} would vote for {message.target}")

    def _deliver(self, replica: Replica, message: Message) -> None:
        if (message.source, message.target) not in self.cut:
            self._heard[replica.id, message.source] = self.now_ns
            self.deliver(replica, message)
            core = replica.core
            spoke = isinstance(message, _OF_LEADERS) and core is not None and core.term == message.term
            if spoke and core is not None and core.leader == message.source:
                self._led[replica.id] = replica.life, core.leader, self.now_ns

    def sync_soon(self, replica: Replica) -> None:
        """See Cluster."""
        if not replica.syncing:
            replica.syncing = True
            self.later(self.about(self.swarm.sync_ns), replica, self._synced, replica.log.pending[-1][0])

    def _synced(self, replica: Replica, upto: int) -> None:
        log, io = replica.log, 0
        while log.pending and log.pending[0][0] <= upto:
            io = log.sync_one()
        replica.syncing = False
        if replica.core is not None and io:
            replica.core.persisted(self.now_of(replica), io)
            self.after(replica)
        if log.pending:
            self.sync_soon(replica)

    def apply_soon(self, replica: Replica) -> None:
        """See Cluster."""
        if not replica.applying:
            replica.applying = True
            self.later(self.about(self.swarm.apply_ns), replica, self._apply)

    def _apply(self, replica: Replica) -> None:
        replica.applying = False
        self.apply(replica, SLICE_ENTRIES)
        if replica.applied < replica.to_apply and replica.core is not None:
            self.apply_soon(replica)

    def load_soon(self, replica: Replica, target: int, first_index: int) -> None:
        """See Cluster."""
        self.later(self.about(self.swarm.sync_ns), replica, self.load, target, first_index)

    def install_soon(self, replica: Replica, offer: SnapshotOffer) -> None:
        """See Cluster."""
        self.later(self.about(4 * self.swarm.delay_mean_ns + 50 * MS), replica, self._install, offer)

    def _install(self, replica: Replica, offer: SnapshotOffer) -> None:
        gone = (offer.source, replica.id) in self.cut or (not self.healed and self.random.random() < 0.2)
        if gone and replica.core is not None:
            replica.installing = 0
            replica.core.install_failed(self.now_of(replica))
            self.after(replica)
            self.checkers.sometimes["install failed"] += 1
        elif self.install(replica, offer) and replica.damaged:
            self.repair(replica)

    def repair(self, replica: Replica) -> None:
        """Its storage is whole again."""
        if replica.damaged:
            replica.damaged = False
            if replica.core is not None:
                replica.core.repaired(self.now_of(replica))
                self.after(replica)

    def compare_sleepers(self) -> None:
        """What the links do with each beat: where two nodes differ about who sleeps, the group is woken."""
        for leader in [each for each in self.leading() if each.core is not None and each.core.asleep]:
            assert leader.core is not None
            for progress in [each for each in leader.core.progress.values() if each.asleep]:
                other = self.replicas[progress.replica]
                if other.core is not None and not other.core.asleep and other.held is None:
                    leader.core.wake(self.now_of(leader))
                    self.after(leader)
                    break

    # ---- clients

    def leading(self) -> list[Replica]:
        """Those that think they lead, and can be asked."""
        return [each for each in self.replicas.values() if each.leads and each.held is None]

    def propose(self) -> bool:
        """A client proposes something to somebody that leads; False if nobody took it."""
        leading = self.leading()
        if not leading:
            return False
        random, replica = self.random, self.random.choice(leading)
        core = replica.core
        assert core is not None
        batch: list[Proposal] = []
        for _ in range(random.choice((1, 1, 1, 3))):
            self.proposals += 1
            size = random.choice(self.swarm.payload_bytes)
            batch.append(Proposal(1, 0, 0, b"%d " % self.proposals + bytes(size)))
        stale = random.random() < 0.03
        term = core.term - stale
        try:
            first = core.propose(self.now_of(replica), batch, term)
        except (NotLeader, Overloaded) as error:
            self.checkers.sometimes[f"proposal refused: {error.code}"] += 1
            self.after(replica)
            return False
        if stale:
            raise Violation("expected term", f"{replica.id} of term {core.term} takes a proposal for term {term}")
        for index, proposal in enumerate(batch, first):
            self.checkers.proposed(bytes(proposal.payload), index, term)
        self.after(replica)
        return True

    def read(self) -> bool:
        """A client reads from somebody that leads, or led when it was paused and will find the question then."""
        leading = [each for each in self.replicas.values() if each.leads]
        if not leading:
            return False
        replica = self.random.choice(leading)
        if replica.held is None:
            return self._read(replica)
        replica.held.append(partial(self._held, replica, replica.life, self._read, (replica,)))
        return False

    def _read(self, replica: Replica) -> bool:
        core = replica.core
        if core is None or core.role is not Role.LEADER:
            return False
        for _ in range(self.random.choice((1, 1, 2))):
            ticket = core.read_index(self.now_of(replica))
            if self.recorder is not None:
                self.recorder.asked(core, ticket)
            self.checkers.asked_read(replica, ticket)
        self.after(replica)
        return True

    def stands(self, replica: Replica, standing: Standing) -> None:
        """See Cluster."""
        if standing.role is Role.FENCED and standing.reason != DISK_FAILED:
            raise Violation("fenced itself", f"{replica.id}: {standing.reason}")

    def read_done(self, replica: Replica, ticket: int, index: int) -> None:
        """See Cluster."""
        self.answered += 1

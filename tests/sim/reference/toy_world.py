"""Runs toys under a heap of events: a network that loses, doubles and delays, disks that take their time, crashes,
partitions, clients that propose, read and change members. What happened is left in a trace.

    run(seed, bug) -> list of events
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from random import Random

from replication.machine import KIND_MEMBERSHIP, Entry, Proposal, Role
from replication.raft.log import Vote
from replication.raft.membership import Membership, decode_membership
from replication.raft.messages import Message, SnapshotOffer
from tests.sim.reference.record import Recorder
from tests.sim.reference.toy import Refused, Toy
from tests.sim.reference.trace import Event

MS = 1_000_000
"""Nanoseconds."""
DURATION_NS = 1_200 * MS
"""Of one run, in its own time."""

_NOBODY = Membership({})


class ToyLog:
    """Implements replication.raft.log.Log, with a copy that lags behind: what is durable."""

    def __init__(self) -> None:
        self.snapshot: tuple[int, int, Membership] = (0, 0, _NOBODY)
        self.entries: list[Entry] = []
        self.vote = Vote()
        self.pending: deque[tuple[int, int, Sequence[Entry], Vote | None]] = deque()
        self.durable_snapshot, self.durable, self.durable_vote = self.snapshot, list(self.entries), self.vote

    last_mark = 0

    @property
    def snapshot_index(self) -> int:
        return self.snapshot[0]

    @property
    def last_index(self) -> int:
        return self.snapshot[0] + len(self.entries)

    @property
    def last_term(self) -> int:
        return self.entries[-1].term if self.entries else self.snapshot[1]

    def term_at(self, index: int) -> int | None:
        """See Log."""
        at = index - self.snapshot[0] - 1
        if 0 <= at < len(self.entries):
            return self.entries[at].term
        return self.snapshot[1] if at == -1 else None

    def cached(self, first_index: int, max_bytes: int) -> list[Entry] | None:
        """See Log."""
        at = first_index - self.snapshot[0] - 1
        return self.entries[at : at + 8] if 0 <= at < len(self.entries) else None

    def append(self, entries: Sequence[Entry], vote: Vote | None, io: int) -> None:
        """See Log."""
        self.entries.extend(entries)
        self.vote = vote or self.vote
        self.pending.append((io, -1, list(entries), vote))

    def truncate_after(self, index: int, io: int) -> None:
        """See Log."""
        del self.entries[index - self.snapshot[0] :]
        self.pending.append((io, index, (), None))

    def sync(self) -> int:
        """The oldest write is durable now; its number."""
        io, after, entries, vote = self.pending.popleft()
        if after >= 0:
            del self.durable[after - self.durable_snapshot[0] :]
        self.durable.extend(entries)
        self.durable_vote = vote or self.durable_vote
        return io

    def begin_at(self, index: int, term: int, membership: Membership) -> None:
        """A snapshot takes the place of what it covers. Nothing is pending."""
        follows = self.term_at(index) == term
        self.entries = self.entries[index - self.snapshot[0] :] if follows else []
        self.snapshot = self.durable_snapshot = (index, term, membership)
        self.durable = list(self.entries)

    def memberships(self) -> list[tuple[int, Membership]]:
        """The snapshot's, then those behind it."""
        found = [(each.index, each.payload) for each in self.entries if each.kind == KIND_MEMBERSHIP]
        return [(self.snapshot[0], self.snapshot[2]), *((at, decode_membership(each)) for at, each in found)]

    def crash(self, survivors: int) -> None:
        """Only what is durable is left, and so many of the writes under way."""
        for _ in range(survivors):
            self.sync()
        self.pending.clear()
        self.snapshot, self.entries, self.vote = self.durable_snapshot, list(self.durable), self.durable_vote


class ToyWorld:
    """A group of toys. Everything is drawn from the seed."""

    def __init__(self, seed: int, bug: str = "") -> None:
        self.random = random = Random(seed)
        self.bug = bug
        self.now_ns = 0
        self.recorder = Recorder(lambda: self.now_ns)
        self.loss = random.choice((0.0, 0.05, 0.2))
        self.delay_ns = random.choice((1, 3, 10)) * MS
        self.sync_ns = random.choice((0, 3, 15)) * MS
        self.election_ns = random.choice((40, 60)) * MS
        self.voters = random.choice((2, 3, 3, 3, 4, 5))
        self.logs: dict[int, ToyLog] = {}
        self.toys: dict[int, Toy] = {}
        self.lives: dict[int, int] = {}
        self.cut_off: frozenset[int] = frozenset()
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._scheduled = 0

    def run(self) -> list[Event]:
        """The trace of one run."""
        members = {each: each for each in range(1, self.voters + 1)}
        founding = Entry(1, 1, KIND_MEMBERSHIP, 0, 0, Membership(members).encode())
        for each in range(1, self.voters + 4):
            log = self.logs[each] = ToyLog()
            if each in members:
                log.entries, log.vote = [founding], Vote(1, 0)
                log.durable, log.durable_vote = [founding], Vote(1, 0)
            self._start(each)
        pace = self.random.choice((2, 4))
        for mean, act in (
            (15, self._propose),
            (30, self._read),
            (60 * pace, self._change),
            (40 * pace, self._fault),
        ):
            self._often(mean * MS, act)
        while self._heap and self.now_ns < DURATION_NS:
            self.now_ns, _, act = heapq.heappop(self._heap)
            act()
        return self.recorder.events

    def _after(self, delay_ns: float, act: Callable[[], None]) -> None:
        self._scheduled += 1
        heapq.heappush(self._heap, (self.now_ns + int(delay_ns), self._scheduled, act))

    def _often(self, mean_ns: int, act: Callable[[], None]) -> None:
        def again() -> None:
            act()
            self._often(mean_ns, act)

        self._after(self.random.expovariate(1 / mean_ns), again)

    # ---- replicas

    def _start(self, replica: int) -> None:
        log = self.logs[replica]
        recorded = self.recorder.log(replica, log)
        random = Random(self.random.getrandbits(32))
        toy = Toy(replica, recorded, log.vote, log.memberships(), random, self.now_ns, self.election_ns, self.bug)
        self.toys[replica] = toy
        life = self.lives[replica] = self.lives.get(replica, 0) + 1
        self.recorder.started(toy, log, log.vote)
        self._ticks(replica, life)

    def _crash(self, replica: int) -> None:
        del self.toys[replica]
        self.lives[replica] += 1
        log = self.logs[replica]
        log.crash(self.random.randint(0, len(log.pending)))
        self.recorder.crashed(replica)
        self._after(self.random.randrange(400) * MS, lambda: self._start(replica))

    def _ticks(self, replica: int, life: int) -> None:
        def tick() -> None:
            if self.lives[replica] == life:
                toy = self.toys[replica]
                if self.now_ns >= toy.deadline:
                    toy.tick(self.now_ns)
                    self._take(toy)
                self._ticks(replica, life)

        self._after(max(self.toys[replica].deadline - self.now_ns, MS), tick)

    def _take(self, toy: Toy) -> None:
        """Do what it wants."""
        out = toy.take()
        self.recorder.taken(toy, out)
        for message in out.messages:
            self._send(message)
        replica, life = toy.replica, self.lives[toy.replica]
        if out.install is not None:
            offer = out.install
            self._after(self.random.expovariate(1 / self.delay_ns), lambda: self._install(replica, life, offer))
        if toy.commit > toy.applied_index:
            toy.applied(self.now_ns, toy.commit)
        if self.logs[replica].pending:
            self._after(
                self.random.expovariate(1 / self.sync_ns) if self.sync_ns else 0, lambda: self._sync(replica, life)
            )

    def _sync(self, replica: int, life: int) -> None:
        log = self.logs[replica]
        if self.lives[replica] == life and log.pending:
            io = log.sync()
            while log.pending and self.random.random() < 0.5:
                io = log.sync()
            self.toys[replica].persisted(self.now_ns, io)
            self._take(self.toys[replica])

    def _install(self, replica: int, life: int, offer: SnapshotOffer) -> None:
        source, target = self.logs[offer.source], self.logs[replica]
        toy = self.toys.get(replica)
        if self.lives[replica] != life or toy is None or offer.source not in self.toys:
            return
        index, term, membership = source.durable_snapshot
        if index > toy.commit:
            while target.pending:
                toy.persisted(self.now_ns, target.sync())
            target.begin_at(index, term, membership)
            toy.installed(self.now_ns, index, membership)
            self._take(toy)

    def _send(self, message: Message) -> None:
        for _ in range(2 if self.random.random() < 0.05 else 1):
            if self.random.random() >= self.loss:
                late = 40 if self.random.random() < 0.06 else 1
                self._after(self.random.expovariate(1 / self.delay_ns) * late, lambda: self._deliver(message))

    def _deliver(self, message: Message) -> None:
        toy = self.toys.get(message.target)
        if toy is not None and (message.source in self.cut_off) == (message.target in self.cut_off):
            toy.step(self.now_ns, message)
            self._take(toy)

    # ---- clients and faults

    def _leader(self) -> Toy | None:
        leaders = [each for each in self.toys.values() if each.role is Role.LEADER]
        return self.random.choice(leaders) if leaders else None

    def _propose(self) -> None:
        leader = self._leader()
        if leader is not None:
            count = self.random.randint(1, 3)
            payloads = [b"%d" % self.random.getrandbits(32) for _ in range(count)]
            leader.propose(self.now_ns, [Proposal(1, 0, 0, each) for each in payloads], leader.term)
            self._take(leader)

    def _read(self) -> None:
        leader = self._leader()
        if leader is not None:
            self.recorder.asked(leader, leader.read_index(self.now_ns))
            self._take(leader)

    def _change(self) -> None:
        leader = self._leader()
        if leader is None:
            return
        everybody = sorted(self.logs)
        voters = self.random.sample(everybody, self.random.randint(1, min(5, len(everybody))))
        learners = [each for each in everybody if each not in voters and self.random.random() < 0.3]
        try:
            chosen = {each: each for each in sorted(voters)}, {each: each for each in learners}
            leader.change_membership(self.now_ns, *chosen, leader.term)
        except Refused:
            return
        self._take(leader)

    def _fault(self) -> None:
        chosen, leader = self.random.random(), self._leader()
        replica = self.random.choice(sorted(self.toys)) if self.toys else 0
        if leader is not None and self.random.random() < 0.5:
            replica = leader.replica
        if not replica or chosen < 0.25:
            self.cut_off = frozenset()
        elif chosen < 0.4:
            self._crash(replica)
        elif chosen < 0.65:
            self.cut_off = frozenset([replica])
        elif chosen < 0.75:
            self.cut_off = frozenset(self.random.sample(sorted(self.logs), self.random.randint(2, 3)))
        else:
            self._compact(replica)

    def _compact(self, replica: int) -> None:
        toy, log = self.toys[replica], self.logs[replica]
        index = toy.applied_index
        if index > log.snapshot_index and not log.pending:
            membership = [each for at, each in log.memberships() if at <= index][-1]
            log.begin_at(index, log.term_at(index) or 0, membership)


def run(seed: int, bug: str = "") -> list[Event]:
    """The trace of one seed."""
    return ToyWorld(seed, bug).run()

"""A cluster in which nothing happens by itself: a script says what comes when, and is told what came of it.

command ──> input of a core ──> told: what it is now, wrote, said
                 └── messages ──> flying ──(deliver, run)──> input of a core ...
                 └── writes ────> durable at once, or when the script says so (slow disk)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from random import Random

from replication.machine import Entry
from replication.raft.messages import Message, SnapshotOffer
from replication.raft.output import Standing
from replication.raft.settings import NS_PER_MS, RaftSettings
from tests.sim.raft import words
from tests.sim.raft.cluster import LOAD_BYTES, Cluster
from tests.sim.raft.replica import Replica
from tests.sim.reference.record import Recorder

RUN_MAX = 5_000
"""Messages and other events of one `run`; more means that something goes round in circles."""
ALL_ENTRIES = 1 << 30
"""What a state machine that is not slow applies at once."""


@dataclass(frozen=True, slots=True)
class Which:
    """Some messages: from whom (0: anybody), to whom (0: anybody), of which kind ("": any)."""

    source: int
    target: int
    kind: str = ""

    def __contains__(self, message: Message) -> bool:
        return (
            self.source in (0, message.source)
            and self.target in (0, message.target)
            and self.kind in ("", type(message).__name__)
        )


class Told:
    """What a script has been told of a replica."""

    def __init__(self, replica: Replica) -> None:
        core = replica.core
        assert core is not None
        self.office = words.of_office(replica.id, core)
        self.vote = (core.term, core.vote)
        self.entries = list(replica.log.seen.entries)
        self.snapshot = replica.log.snapshot_index
        self.commit, self.ready, self.asleep = core.commit, core.ready, core.asleep


class Scripted(Cluster):
    """What a script plays with."""

    def __init__(self, settings: RaftSettings) -> None:
        super().__init__(settings, Random(1))
        self.now_ns = 10_000 * NS_PER_MS
        self.trace = self.recorder = Recorder(lambda: self.now_ns)
        self.lines: list[str] = []
        """What is told since somebody looked."""
        self.quiet = 0
        """Above 0, only what people ask for is told: answers to reads, failures."""
        self.flying: list[Message] = []
        self.late: list[Message] = []
        """Those among them that wait to be named."""
        self.holding: list[Which] = []
        """What is late as soon as it is sent."""
        self.cut: set[tuple[int, int]] = set()
        """(source, target)."""
        self.slow: set[tuple[str, int]] = set()
        """("disk" | "machine" | "loads" | "install", replica) that wait to be told."""
        self.paused: set[int] = set()
        self.loads: list[tuple[Replica, int, int, list[Entry]]] = []
        self.offers: dict[int, SnapshotOffer] = {}
        self._told: dict[int, Told] = {}
        self._soon: deque[Callable[[], object]] = deque()

    # ---- what is told

    def tell(self, line: str, *, always: bool = False) -> None:
        """Something happened."""
        if always or not self.quiet:
            self.lines.append(f"  {line}")

    def after(self, replica: Replica) -> None:
        """See Cluster."""
        self._tell_changes(replica)
        super().after(replica)
        self._tell_changes(replica)

    def _tell_changes(self, replica: Replica) -> None:
        core, told = replica.core, self._told.get(replica.id)
        assert core is not None
        now = self._told[replica.id] = Told(replica)
        if told is None or self.quiet:
            return
        name = replica.id
        if now.office != told.office and not core.failure:
            self.tell(now.office)
        if now.vote != told.vote and core.vote not in (0, name):
            self.tell(f"{name} votes {core.vote} in term {core.term}")
        if now.snapshot != told.snapshot:
            self.tell(f"{name} begins at {now.snapshot}, log {words.of_log(replica)}")
        else:
            self._tell_log(name, told.entries, now.entries)
        if now.commit != told.commit:
            self.tell(f"{name} commits {now.commit}")
        if now.ready and not told.ready:
            self.tell(f"{name} is ready")
        if now.asleep != told.asleep:
            self.tell(f"{name} {'falls asleep' if now.asleep else 'wakes'}")

    def _tell_log(self, name: int, before: list[Entry], after: list[Entry]) -> None:
        same = 0
        for one, other in zip(before, after, strict=False):
            if (one.index, one.term) != (other.index, other.term):
                break
            same += 1
        if same < len(before):
            self.tell(f"{name} cuts off {words.of_entries(before[same:])}")
        if same < len(after):
            self.tell(f"{name} writes {words.of_entries(after[same:])}")

    # ---- Cluster

    def now_of(self, replica: Replica) -> int:
        """See Cluster."""
        return self.now_ns + replica.offset_ns

    def send(self, replica: Replica, message: Message) -> None:
        """See Cluster."""
        if (message.source, message.target) in self.cut:
            self.tell(f"{words.of_message(message)} (cut off)")
            return
        self.tell(words.of_message(message))
        self.flying.append(message)
        if any(message in which for which in self.holding):
            self.late.append(message)

    def sync_soon(self, replica: Replica) -> None:
        """See Cluster."""
        if ("disk", replica.id) not in self.slow:
            self._soon.append(lambda: self.sync_all(replica))

    def apply_soon(self, replica: Replica) -> None:
        """See Cluster."""
        if ("machine", replica.id) not in self.slow:
            self._soon.append(lambda: self.apply(replica, ALL_ENTRIES))

    def load_soon(self, replica: Replica, target: int, first_index: int) -> None:
        """See Cluster. What is read is what is there now, also if it is given to the core later."""
        self.loads.append((replica, target, first_index, replica.log.read(first_index, LOAD_BYTES)))
        self.tell(f"{replica.id} reads from {first_index} on, for {target}")

    def install_soon(self, replica: Replica, offer: SnapshotOffer) -> None:
        """See Cluster."""
        self.offers[replica.id] = offer
        self.tell(f"{replica.id} wants the snapshot {offer.index}/{offer.index_term} of {offer.source}")

    def stands(self, replica: Replica, standing: Standing) -> None:
        """See Cluster."""
        if standing.reason:
            assert replica.core is not None
            self.tell(words.of_office(replica.id, replica.core), always=True)

    def read_done(self, replica: Replica, ticket: int, index: int) -> None:
        """See Cluster."""
        self.tell(f"{replica.id} answers read {ticket} when {index} is applied", always=True)

    def read_lost(self, replica: Replica, ticket: int) -> None:
        """See Cluster."""
        self.tell(f"{replica.id} gives up read {ticket}", always=True)

    # ---- what happens

    def settle(self) -> None:
        """Let be done what is not slow."""
        while self._soon:
            self._soon.popleft()()

    def tick(self, replica: Replica) -> bool:
        """Its timer rings, if it is due."""
        core = replica.core
        assert core is not None
        due_ns = core.next_deadline_ns()
        if due_ns is None or due_ns > self.now_of(replica):
            return False
        core.tick(self.now_of(replica))
        self.after(replica)
        self.settle()
        return True

    def wait_for_timer(self, replica: Replica) -> None:
        """Its clock goes on to when its timer rings."""
        core = replica.core
        due_ns = core.next_deadline_ns() if core is not None else None
        assert due_ns is not None, f"{replica.id} waits for no timer"
        replica.offset_ns += max(due_ns - self.now_of(replica), 0)

    def come(self, message: Message, *, stays: bool = False) -> None:
        """A message is delivered; `stays`: a copy of it."""
        if not stays:
            self._forget(message)
        target = self.replicas.get(message.target)
        if target is not None and target.core is not None:
            self.deliver(target, message)
            self.settle()

    def drop(self, message: Message) -> None:
        """A message is lost."""
        self._forget(message)

    def _forget(self, message: Message) -> None:
        self.flying = [each for each in self.flying if each is not message]
        self.late = [each for each in self.late if each is not message]

    def matching(self, which: Which) -> list[Message]:
        """Messages that fly, in the order in which they were sent."""
        return [message for message in self.flying if message in which]

    def load_one(self, at: int) -> None:
        """Entries that were read reach the core."""
        replica, target, first_index, entries = self.loads.pop(at)
        if replica.core is not None:
            replica.core.loaded(self.now_of(replica), target, first_index, entries)
            self.after(replica)
            self.settle()

    def install_one(self, replica: Replica) -> None:
        """The snapshot that it wants is fetched and installed, if that can be."""
        done = self.install(replica, self.offers.pop(replica.id))
        if done and replica.damaged and replica.core is not None:
            replica.damaged = False
            replica.core.repaired(self.now_of(replica))
            self.after(replica)
        self.settle()

    def run(self) -> None:
        """Let everything happen that is not late, slow or paused. No time passes."""
        for _ in range(RUN_MAX):
            step = next(self._possible(), None)
            if step is None:
                return
            step()
        raise AssertionError("this never ends")

    def _possible(self) -> Iterator[Callable[[], None]]:
        for message in self.flying:
            late = any(message is each for each in self.late)
            if not late and message.target not in self.paused:
                yield partial(self.come, message)
        for at, (replica, *_) in enumerate(self.loads):
            if ("loads", replica.id) not in self.slow:
                yield partial(self.load_one, at)
        for one in self.offers:
            if ("install", one) not in self.slow:
                yield partial(self.install_one, self.replicas[one])

    def advance(self, time_ns: int) -> None:
        """Time passes: timers ring, and everything happens at once that is not late, slow or paused."""
        end_ns = self.now_ns + time_ns
        for _ in range(RUN_MAX):
            self.run()
            due: list[tuple[int, int]] = []
            for replica in self.replicas.values():
                deadline_ns = replica.core.next_deadline_ns() if replica.core is not None else None
                if deadline_ns is not None and replica.id not in self.paused:
                    due.append((deadline_ns - replica.offset_ns, replica.id))
            due_ns, first = min(due, default=(end_ns + 1, 0))
            if due_ns > end_ns:
                self.now_ns = end_ns
                return
            self.now_ns = max(self.now_ns, due_ns)
            self.tick(self.replicas[first])
        raise AssertionError("this never ends")

    def look(self, replica: Replica) -> None:
        """What it is now, or that it is down, is nothing to be told."""
        if replica.core is None:
            self._told.pop(replica.id, None)
        else:
            self._told[replica.id] = Told(replica)

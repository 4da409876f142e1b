"""Replicas of one group, and what is done with what their cores want: the part that worlds and scripts share."""

from __future__ import annotations

from random import Random

from replication.raft.membership import Membership
from replication.raft.messages import Message, SnapshotOffer
from replication.raft.output import Output, Standing
from replication.raft.settings import RaftSettings
from tests.sim.raft.checkers import Checkers
from tests.sim.raft.replica import Replica, founding_entry
from tests.sim.reference.record import Recorder

LOAD_BYTES = 4_096
"""Payload that one answer to Output.wanted has."""


class Cluster:
    """A group. What takes time (messages, syncs, loads, installs, applying) is up to those who extend it."""

    def __init__(self, settings: RaftSettings, random: Random) -> None:
        self.settings = settings
        self.random = random
        self.replicas: dict[int, Replica] = {}
        self.founders = Membership({})
        self.checkers = Checkers(self.replicas)
        self.recorder: Recorder | None = None
        """Writes a trace for the reference model, if there is one."""

    # ---- members

    def found(self, voters: dict[int, int]) -> None:
        """The group begins, with these replicas on these nodes; none is started."""
        entry, vote = founding_entry(voters)
        self.founders = Membership(dict(voters))
        self.checkers.founded(entry)
        for replica, node in voters.items():
            self.make(replica, node).log.found([entry], vote)

    def make(self, replica: int, node: int) -> Replica:
        """A replica with nothing in its log."""
        made = Replica(replica, node, self.settings, Random(self.random.getrandbits(64)), self.checkers)
        self.replicas[replica] = made
        return made

    # ---- what a core wants

    def after(self, replica: Replica) -> None:
        """An input was given to its core: check everything, then do what it wants."""
        core = replica.core
        assert core is not None
        out = core.take()
        if self.recorder is not None:
            self.recorder.taken(core, out)
        for message in out.messages:
            self.checkers.sending(replica, message)
        self.checkers.after(replica)
        for message in out.messages:
            self.send(replica, message)
        if out.commit > replica.to_apply:
            replica.to_apply = out.commit
            self.apply_soon(replica)
        if out.standing is not None:
            self.checkers.stands(replica, ready=out.standing.ready)
            self.stands(replica, out.standing)
        self._rarely(replica, out)
        if replica.log.pending:
            self.sync_soon(replica)

    def _rarely(self, replica: Replica, out: Output) -> None:
        if out.checkpoint:
            self.compact(replica)
        for target, first_index in out.wanted:
            self.load_soon(replica, target, first_index)
        if out.install is not None:
            replica.installing = out.install.index
            self.install_soon(replica, out.install)
        for ticket, index in out.reads:
            self.checkers.answered_read(replica, ticket, index)
            self.read_done(replica, ticket, index)
        for ticket in out.lost_reads:
            self.checkers.lost_read(replica, ticket)
            self.read_lost(replica, ticket)

    # ---- what a driver does when its time has come

    def deliver(self, replica: Replica, message: Message) -> None:
        """A message has come."""
        if replica.core is not None:
            replica.core.step(self.now_of(replica), message)
            self.checkers.delivered(replica, message)
            self.after(replica)

    def load(self, replica: Replica, target: int, first_index: int) -> None:
        """Entries for a follower were read."""
        if replica.core is not None:
            entries = replica.log.read(first_index, LOAD_BYTES)
            replica.core.loaded(self.now_of(replica), target, first_index, entries)
            self.after(replica)

    def install(self, replica: Replica, offer: SnapshotOffer) -> bool:
        """The snapshot was fetched from the leader that offered it, if that still can be; True if it stands
        here."""
        core, source = replica.core, self.replicas.get(offer.source)
        if core is None:
            return False
        snapshot = source.log.durable.snapshot if source is not None and source.core is not None else None
        replica.installing = 0
        if snapshot is None or snapshot.index < max(offer.index, replica.applied + 1, core.commit):
            core.install_failed(self.now_of(replica))
            self.after(replica)
            return False
        self.sync_all(replica)
        if core.commit > snapshot.index:
            core.install_failed(self.now_of(replica))
            self.after(replica)
            return False
        replica.log.install(snapshot)
        replica.restore(snapshot)
        core.installed(self.now_of(replica), snapshot.index, snapshot.membership)
        self.after(replica)
        self.checkers.sometimes["snapshot installed"] += 1
        self.checkers.applied(replica)
        return True

    def sync_all(self, replica: Replica) -> None:
        """All that is pending becomes durable, and the core is told."""
        while replica.log.pending:
            io = replica.log.sync_one()
            if replica.core is not None and not replica.log.pending:
                replica.core.persisted(self.now_of(replica), io)
                self.after(replica)

    def apply(self, replica: Replica, most: int) -> None:
        """Its state machine gets what is committed."""
        if replica.core is not None and replica.apply(most):
            self.checkers.applied(replica)
            replica.core.applied(self.now_of(replica), replica.applied)
            self.after(replica)

    def compact(self, replica: Replica) -> bool:
        """It stores a snapshot of its state and forgets the log before it; False if it cannot yet."""
        index, log = replica.applied, replica.log
        if index <= log.snapshot_index or log.durable.term_at(index) != log.term_at(index):
            return False  # a committed entry may be on the disks of the others and not yet on this one
        log.compact(replica.snapshot(index))
        self.checkers.sometimes["log compacted"] += 1
        return True

    def crash(self, replica: Replica, survivors: int = 0) -> None:
        """It loses what was not durable."""
        replica.crash(survivors)
        if self.recorder is not None:
            self.recorder.crashed(replica.id)
        self.checkers.crashed(replica)

    def start(self, replica: Replica) -> None:
        """It begins another life."""
        self.checkers.starting(replica)
        replica.start(self.now_of(replica), self.recorder)
        self.after(replica)

    def committed_membership(self) -> Membership:
        """The last one that anybody committed."""
        return self.checkers.truth.memberships[-1][1] if self.checkers.truth.memberships else self.founders

    # ---- for those who extend it

    def now_of(self, replica: Replica) -> int:
        """That replica's clock."""
        raise NotImplementedError

    def send(self, replica: Replica, message: Message) -> None:
        """A message leaves."""
        raise NotImplementedError

    def sync_soon(self, replica: Replica) -> None:
        """Something is pending."""
        raise NotImplementedError

    def apply_soon(self, replica: Replica) -> None:
        """Something is committed."""
        raise NotImplementedError

    def load_soon(self, replica: Replica, target: int, first_index: int) -> None:
        """Entries are wanted."""
        raise NotImplementedError

    def install_soon(self, replica: Replica, offer: SnapshotOffer) -> None:
        """A snapshot is wanted."""
        raise NotImplementedError

    def stands(self, replica: Replica, standing: Standing) -> None:
        """Its role changed."""

    def read_done(self, replica: Replica, ticket: int, index: int) -> None:
        """A read may be answered."""

    def read_lost(self, replica: Replica, ticket: int) -> None:
        """A read has to be asked again."""

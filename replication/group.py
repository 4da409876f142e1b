"""One replica of one Raft group: it drives a core, a log and a state machine.

    propose, messages, time ──> core ──> messages to the other replicas
                                 │ └──> log ──(synced)──> core
                                 └──(committed)──> apply, in slices ──> state machine

A group of one is the same code: it has nobody to ask, so what its disk has is committed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, Protocol

import structlog
import trio

from plait.wire.errors import NotLeader, PlaitError, StorageDamaged, StorageFull, Unavailable
from replication.actor import Actor, Host, Promise, rejected
from replication.environment import Tasks
from replication.machine import (
    KIND_MEMBERSHIP,
    KIND_NOOP,
    Checkpoint,
    Entry,
    Proposal,
    Role,
    RoleChange,
    StateMachine,
)
from replication.raft.core import RaftCore
from replication.raft.envelope import unwrap, wrap
from replication.raft.followers import Follower, followers, lagging
from replication.raft.log import Vote
from replication.raft.membership import Membership, decode_membership
from replication.raft.messages import Message, SnapshotOffer, TimeoutNow
from replication.raft.output import Standing
from replication.raft.quorum import has_quorum
from replication.raft.settings import RaftSettings
from replication.replica_log import ReplicaLog
from replication.storage.damage import Damage, StorageFailed
from replication.storage.log import GroupLog, HardState
from replication.voice import Links, Voice
from replication.waiting import Waiting

_logger = structlog.get_logger("plait.replication")

APPLY_ENTRIES = 512
"""Entries applied in one turn; with more waiting the group comes round again, so that others get theirs."""
REPLAY_BYTES = 256 * 1024
"""Payload bytes of one read while committed entries are fetched from the disk to be applied."""
REPLAY_SLICE_NS = 3_000_000
"""Time after which such work lets others have a turn."""
REPLAY_SLICE_ENTRIES = 64
"""Entries applied before the time is looked at."""
FOUNDING_TERM = 1
"""Term of the entry that names a new group's first members."""


class Snapshots(Protocol):
    """What fetches a snapshot from another node."""

    async def fetch(
        self,
        log: GroupLog,
        node_id: int,
        offer: SnapshotOffer,
        agreed_index: int,
        installed: Callable[[int, bytes], None],
    ) -> tuple[int, bytes]:
        """(index, state) of a snapshot that is durable in the log now, at or behind the one that was offered;
        `installed` is called with them in the moment in which the log begins with it.

        Raises PlaitError when it could not be had; then the log is as it was.
        """


_TICK = object()
"""In the mailbox: the core's deadline may have come."""
_LOOK = object()
"""In the mailbox: there is news from the core."""


class Group(Actor):
    """Drives one replica. Open it once; then propose while it leads."""

    def __init__(
        self,
        host: Host,
        group: int,
        replica: int,
        log: GroupLog,
        machine: StateMachine,
        tasks: Tasks,
        random: Random,
        links: Links | None = None,
        snapshots: Snapshots | None = None,
        settings: RaftSettings | None = None,
        observer: Callable[[Group, RoleChange], None] | None = None,
    ) -> None:
        """`links` and `snapshots` may be None in a group that will never have but one member. `observer` hears of
        what the state machine is told about its role."""
        super().__init__(host, f"group/{group}")
        self.group = group
        self.replica = replica
        self.applied_index = 0
        self.failure = ""
        """Why this replica is fenced."""
        self.lost = False
        """It is fenced because its disk lost what it had vouched for: it will never serve again under its id."""
        self._applied_term = 0
        self._log = log
        self._machine = machine
        self._tasks = tasks
        self._random = random
        self._links = links
        self._snapshots = snapshots
        self._settings = settings or RaftSettings()
        self._observer = observer
        self._retired = False  # it leads no more than it does, for its node is about to end
        self._raft_log = ReplicaLog(log, self._synced)
        self.core: RaftCore | None = None
        self._told = Standing(0, Role.FOLLOWER, 0, ready=False)
        self._catching_up = False
        self._checkpointing = False
        self._blind = False  # the state machine has no state: a snapshot could not be read
        self._voice = Voice(group, links, lambda: self.post(_TICK, always=True))
        self._waiting = Waiting(self.name)

    async def open(self, initial: Membership | None, *, eager: bool = False) -> None:
        """Bring back what the log has; `initial`: the members at the founding, for a log without any.

        The state machine gets what is committed, when it is known to be. `eager`: campaign before others do. A
        replica that cannot serve under its id is fenced.
        """
        try:
            self._check_damage()
            memberships = await self._recover(initial)
        except StorageDamaged as error:
            self.lost = True
            self.fence(error.message)
            return
        except Exception as error:  # as in _apply: this replica stops here, and the node serves its others
            _logger.error("log cannot be read back", group=self.group, exc_info=error)
            self.fence(f"its snapshot or members cannot be read: {error!r}")
            return
        state = self._log.hard_state
        self.core = RaftCore(
            self.replica,
            self._raft_log,
            Vote(state.term, state.vote),
            memberships,
            self._settings,
            self._random,
            self.host.clock.monotonic_ns(),
            damaged=self._log.damage is not None,
            eager=eager,
        )
        self._voice.learn(self.core.membership)
        known = self.membership if memberships else initial
        if self._log.damage is not None and known is not None and list(known.members()) == [self.replica]:
            self.lost = True
            self.fence(self._log.damage.error(self.group).message)
            return
        self._log.on_damage = self._damaged
        self._log.attach(self)
        self.post(_TICK)

    # ---- what it is

    @property
    def term(self) -> int:
        """The term that it knows of."""
        return self.core.term if self.core is not None else self._log.hard_state.term

    @property
    def role(self) -> Role:
        """What it is in that term."""
        if self.failure:
            return Role.FENCED
        return self.core.role if self.core is not None else Role.FOLLOWER

    @property
    def ready(self) -> bool:
        """It leads, and serves."""
        return self.core is not None and self.core.ready

    @property
    def leader_node(self) -> int:
        """The node on which the leader lives, as far as is known; 0: unknown."""
        return self._voice.node(self.core.leader) if self.core is not None else 0

    async def led(self) -> None:
        """Return when it is known here who leads, or this replica has failed or is stopped."""
        while not (self.leader_node or self.failure or self.stopped):
            await self._waiting.leader().wait()

    @property
    def membership(self) -> Membership:
        """The members in force."""
        return self.core.membership if self.core is not None else Membership({})

    def has_quorum(self, is_up: Callable[[int], bool]) -> bool:
        """Whether a majority of its voters live on nodes that are up: an idle group does not look by itself."""
        voter_sets = self.membership.voter_sets()
        nodes = self.membership.members()
        return has_quorum(voter_sets, lambda voter: is_up(nodes[voter]))

    @property
    def members_committed(self) -> bool:
        """These members are committed: no later leader can have others."""
        return self.core is not None and self.core.membership_index <= self.core.commit

    @property
    def asleep(self) -> bool:
        """Idle, without beats or timers."""
        return self.core is not None and self.core.asleep

    # ---- asked by those above

    def propose(self, proposals: Sequence[Proposal], expected_term: int) -> int:
        """Append to the log as leader of `expected_term`; the index of the first entry.

        The state machine sees each when it is committed. Raises NotLeader (nothing was appended) when this
        replica does not lead that term: what was decided in it must not be appended in another; Overloaded when
        too much waits for a majority.
        """
        if self.core is None:
            raise NotLeader(f"{self.name} does not lead here; nothing was done; ask again")
        first = self.core.propose(self.host.clock.monotonic_ns(), proposals, expected_term)
        self._act()
        return first

    def read_index(self) -> Promise[int]:
        """Resolves when a read that began now may be answered: this replica led when it was asked, and everything
        committed by then is applied. The value is the index that it has applied."""
        if self.core is None:
            return rejected(NotLeader(f"{self.name} does not lead here; nothing was read; ask again"))
        try:
            ticket = self.core.read_index(self.host.clock.monotonic_ns())
        except PlaitError as error:
            return rejected(error)
        promise = self._waiting.read(ticket)
        self._act()
        return promise

    def change_membership(self, voters: Mapping[int, int], learners: Mapping[int, int]) -> Promise[None]:
        """Go to these members (replica to node); resolves when the whole change is committed.

        New voters must be learners that have caught up. Rejects with NotLeader, Unavailable or BadRequest when
        nothing was begun, OutcomeUnknown when leadership went meanwhile.
        """
        if self.core is None:
            return rejected(NotLeader(f"{self.name} does not lead here; nothing was done; ask again"))
        try:
            self.core.change_membership(self.host.clock.monotonic_ns(), voters, learners, self.core.term)
        except PlaitError as error:
            return rejected(error)
        promise = self._waiting.change()
        self._act()
        return promise

    def transfer(self, replica: int) -> Promise[None]:
        """Hand leadership to a voter; resolves when this replica leads no more. Rejects with NotLeader or
        Unavailable when it leads on."""
        if self.core is None:
            return rejected(NotLeader(f"{self.name} does not lead here; nothing was done; ask again"))
        if replica == self.replica:
            return rejected(Unavailable(f"{self.name} leads already; name another replica"))
        try:
            self.core.transfer(self.host.clock.monotonic_ns(), replica)
        except PlaitError as error:
            return rejected(error)
        promise = self._waiting.hand_over()
        self._act()
        return promise

    def retire(self) -> None:
        """Never stand for election nor take leadership over from now on; what it leads it may lead on."""
        self._retired = True
        if self.core is not None and not self.failure:
            self._set_alarm()

    def checkpoint(self) -> Checkpoint | None:
        """What the log needs in order to forget the past (called by the storage at each rotation)."""
        core = self.core
        if core is None or self._blind or self.failure:
            return None
        if self.applied_index == 0 or self.applied_index < self._log.snapshot_index:
            return None  # nothing yet, or a snapshot from the leader has just overtaken it
        membership = next((found for index, found in reversed(core.memberships) if index <= core.commit), None)
        if membership is None:
            return None
        return Checkpoint(
            self.applied_index,
            self._applied_term,
            wrap(membership, self._machine.snapshot()),
            self._machine.live_entries(),
        )

    def release(self) -> None:
        """Tell the log which payloads are still needed, so that files without any can go."""
        self._log.retain(self._machine.live_entries())

    def fence(self, reason: str) -> None:
        """End this replica's service; its data stays on disk untouched."""
        if self.failure:
            return
        _logger.error("replica fenced", group=self.group, reason=reason)
        self.failure = reason
        term = self.term
        if self.core is not None:
            self.core.fence(self.host.clock.monotonic_ns(), reason)
            self.core.take()
            self._voice.tell(self.core, failed=True)
        self.host.call_off(self)
        self._waiting.end()
        self._change_role(RoleChange(term, Role.FENCED, ready=False, reason=reason))

    def stop(self) -> None:
        """End the actor; reads and changes that still wait are answered."""
        super().stop()
        self._waiting.end()

    # ---- told by the links

    def receive(self, node_id: int, message: Message) -> None:
        """A message came from a replica on that node."""
        self._voice.heard(message.source, node_id)
        self.post(message)

    def node_down(self, node_id: int) -> None:
        """A node is silent."""
        self.post((RaftCore.node_down, node_id))

    def node_up(self, node_id: int) -> None:
        """A node is heard again."""
        self.post((RaftCore.node_up, node_id))

    def wake(self) -> None:
        """Two nodes differ about who is asleep."""
        self.post((RaftCore.wake,))

    def unreachable(self, node_id: int) -> None:
        """Messages to that node may have been lost."""
        for replica in self._voice.replicas_on(node_id):
            self.post((RaftCore.unreachable, replica))

    def members_on(self) -> list[int]:
        """The other nodes that have a member of this group."""
        return sorted({node for replica, node in self.membership.members().items() if replica != self.replica})

    def followers(self) -> list[Follower]:
        """The other members as their leader sees them; [] where this replica does not lead."""
        return followers(self.core, self.host.clock.monotonic_ns()) if self.core is not None else []

    def lagging(self, now_ns: int) -> int:
        """How many of them are not caught up."""
        return lagging(self.core, now_ns) if self.core is not None else 0

    @property
    def apply_lag(self) -> int:
        """Entries that are committed and not applied here yet."""
        return max(0, self.core.commit - self.applied_index) if self.core is not None else 0

    def summary(self) -> dict[str, Any]:
        """Facts for the log."""
        return {"term": self.term, "role": self.role.value, "applied": self.applied_index}

    # ---- the actor

    def handle(self, messages: list[Any]) -> None:
        """Let the core see what came, then act on what it says."""
        core = self.core
        if core is None or self.failure:
            return
        now_ns = self.host.clock.monotonic_ns()
        for message in messages:
            if message is _TICK:
                self._tick(core, now_ns)
            elif isinstance(message, tuple):
                message[0](core, now_ns, *message[1:])
            elif message is not _LOOK and not (self._retired and isinstance(message, TimeoutNow)):
                core.step(now_ns, message)
        self._act()
        self._tell_standing()
        if self._apply_committed():
            self._act()
            self._tell_standing()
        self._waiting.look(core, self.applied_index)
        self._set_alarm()

    def _tick(self, core: RaftCore, now_ns: int) -> None:
        """Let time pass; where that begins an election, in turn with the node's other groups."""
        due_ns = self._deadline_ns(core)
        if due_ns is None or now_ns < due_ns:
            return
        if self._is_alone() or self._voice.may_campaign(core):
            core.tick(now_ns)

    def _deadline_ns(self, core: RaftCore) -> int | None:
        retired = self._retired and core.role is not Role.LEADER  # for a follower time only brings elections
        return None if retired else core.next_deadline_ns()

    def _synced(self, io: int, error: Exception | None) -> None:
        """Called by the storage, on the loop, in order of writing; with an error maybe while the core writes."""
        if error is not None and self._raft_log.writing:
            self.post((RaftCore.fence, _not_written(error)), always=True)  # it is to finish what it does first
        elif error is not None:
            self.fence(_not_written(error))
        elif self.core is not None and not self.stopped:
            self.core.persisted(self.host.clock.monotonic_ns(), io)
            self._act()

    def _act(self) -> None:
        """Do at once what the core wants, except what could call back into those that may be calling now."""
        core = self.core
        assert core is not None, "there is a core from `open` on"
        output = core.take()
        if core.role is Role.FENCED and not self.failure:
            self.lost = core.lost
            self.fence(core.failure)
            return
        if output.membership is not None:
            self._voice.learn(output.membership)
        for message in output.messages:
            self._voice.send(message)
        for replica, first_index in output.wanted:
            self._tasks.spawn(f"{self.name}/load", self._load, replica, first_index)
        if output.install is not None:
            self._tasks.spawn(f"{self.name}/install", self._install, output.install)
        if output.checkpoint and not self._checkpointing:
            self._checkpointing = True
            self._tasks.spawn(f"{self.name}/checkpoint", self._checkpoint_now)
        self._waiting.reads_settled(output, self.applied_index)
        self._voice.tell(core, bool(self.failure))
        timeless = self.alarm_ns is None and not self._voice.in_line and self._deadline_ns(core) is not None
        applicable = core.commit > self.applied_index and not self._catching_up and not self._blind
        if (output.standing is not None or applicable or timeless) and not self._scheduled:
            self.post(_LOOK, always=True)

    def _tell_standing(self) -> None:
        """Tell the state machine what this replica is, before it sees entries of another leader."""
        core = self.core
        assert core is not None, "there is a core from `open` on"
        told = self._told
        same = core.role is told.role and core.term == told.term and core.ready == told.ready
        if same or self.failure:
            return
        now = Standing(core.term, core.role, 0, core.ready)
        if told.role is Role.LEADER and (now.role is not Role.LEADER or now.term != told.term):
            self._waiting.end()
        self._told = now
        self._change_role(RoleChange(now.term, now.role, now.ready))

    def _change_role(self, change: RoleChange) -> None:
        self._machine.role_changed(change)
        if self._observer is not None:
            self._observer(self, change)

    def _apply_committed(self) -> bool:
        """Let the state machine have what is committed; True if it was given something."""
        core = self.core
        assert core is not None, "there is a core from `open` on"
        if self._blind:
            self._raft_log.forget_unapplied()
        if self._catching_up or self._blind or self.applied_index >= core.commit or self.failure:
            return False
        entries = self._raft_log.take_unapplied(self.applied_index + 1, core.commit, APPLY_ENTRIES)
        if entries:
            self._apply(entries)
            if self.applied_index < core.commit and not self._scheduled:
                self.post(_LOOK, always=True)
        else:
            self._catching_up = True
            self._tasks.spawn(f"{self.name}/catch up", self._catch_up)
        return bool(entries)

    def _apply(self, entries: Sequence[Entry]) -> None:
        assert self.core is not None, "there is a core from `open` on"
        assert entries[0].index == self.applied_index + 1, "entries are applied in order, each once"
        try:
            self._machine.apply([entry for entry in entries if entry.kind not in _OWN_KINDS])
        except Exception as error:  # an entry that cannot be applied is never skipped: this replica stops here
            _logger.error("entry cannot be applied", group=self.group, exc_info=error)
            self.fence(f"entry {entries[0].index} to {entries[-1].index} cannot be applied: {error!r}")
            return
        self.applied_index, self._applied_term = entries[-1].index, entries[-1].term
        self.core.applied(self.host.clock.monotonic_ns(), self.applied_index)

    def _set_alarm(self) -> None:
        assert self.core is not None, "there is a core from `open` on"
        deadline_ns = self._deadline_ns(self.core)
        if deadline_ns is None or self.failure or self._voice.in_line:
            self.host.call_off(self)
        elif self.alarm_ns is None or deadline_ns < self.alarm_ns:
            self.host.alarm(deadline_ns, self, _TICK)  # one that rings early is set anew

    # ---- what takes time

    def _check_damage(self) -> None:
        """Raises StorageDamaged where the replica may have promised something that its disk forgot."""
        for damage in self._log.damages:
            if damage.lost:
                error = damage.error(self.group)
                error.message = f"{error.message}; the replica has to be replaced under a new id"
                raise error

    async def _recover(self, initial: Membership | None) -> list[tuple[int, Membership]]:
        """The state machine as of the snapshot; all memberships in force since."""
        log = self._log
        memberships: list[tuple[int, Membership]] = []
        try:
            snapshot = await log.load_snapshot()
        except StorageDamaged:
            if self._links is None:
                raise
            snapshot, self._blind = None, True  # the leader has another one
        if snapshot is not None:
            index, self._applied_term, state = snapshot
            membership, machine_state = unwrap(state)
            self._machine.restore(bytes(machine_state))
            self.applied_index = index
            memberships.append((index, membership))
        if log.last_index == 0 and initial is not None:
            self._found(initial)
        memberships += [(entry.index, decode_membership(entry.payload)) for entry in await log.memberships()]
        return memberships

    def _found(self, initial: Membership) -> None:
        """A new group: all its first members begin with the same entry."""
        entry = Entry(1, FOUNDING_TERM, KIND_MEMBERSHIP, 0, 0, initial.encode())
        self._log.append([entry], HardState(FOUNDING_TERM, 0), self._founded)

    def _founded(self, error: Exception | None) -> None:
        if error is not None:
            self.fence(_not_written(error))

    async def _load(self, replica: int, first_index: int) -> None:
        """Read entries for a follower from the disk."""
        try:
            entries = await self._log.read(first_index, self._settings.append_bytes)
        except StorageDamaged:
            entries = []  # the log has told `_damaged` of it
        self._tell_core(RaftCore.loaded, replica, first_index, entries)

    async def _catch_up(self) -> None:
        """Apply committed entries that are not in memory."""
        core = self.core
        assert core is not None, "there is a core from `open` on"
        since_ns = self.host.clock.monotonic_ns()
        try:
            while self.applied_index < core.commit and not self._ended():
                entries = await self._log.read(self.applied_index + 1, REPLAY_BYTES)
                for at in range(0, len(entries), REPLAY_SLICE_ENTRIES):
                    slice_ = [e for e in entries[at : at + REPLAY_SLICE_ENTRIES] if e.index <= core.commit]
                    if not slice_ or slice_[0].index != self.applied_index + 1 or self._ended():
                        break
                    self._apply(slice_)
                    if self.host.clock.monotonic_ns() - since_ns > REPLAY_SLICE_NS:
                        await trio.lowlevel.checkpoint()
                        since_ns = self.host.clock.monotonic_ns()
        except StorageDamaged as error:
            self._blind = True
            if self._is_alone():
                self.fence(error.message)
        finally:
            self._catching_up = False
        if not self._ended():
            self.post(_LOOK, always=True)

    async def _install(self, offer: SnapshotOffer) -> None:
        """Fetch the leader's snapshot, and become what it says."""
        node_id = self._voice.node(offer.source)
        try:
            if self._snapshots is None or not node_id:
                raise Unavailable("there is nobody to fetch a snapshot from")
            await self._snapshots.fetch(self._log, node_id, offer, self._agreed_index(), self._installed)
        except PlaitError as error:
            _logger.warning("snapshot not installed", group=self.group, error=error.message)
            self._tell_core(RaftCore.install_failed)

    def _installed(self, index: int, state: bytes) -> None:
        """The log begins with that snapshot from this moment on: nothing may come between it and the core."""
        if self._ended():
            return
        try:
            membership, machine_state = unwrap(state)
            if index > self.applied_index or self._blind:
                self._machine.restore(bytes(machine_state))
                self.applied_index, self._applied_term = index, self._log.snapshot_term
                self._blind = False
                self._raft_log.forget_unapplied()
        except Exception as error:  # as in `open`: this replica stops here, and the node serves its others
            _logger.error("snapshot cannot be taken in", group=self.group, exc_info=error)
            self.fence(f"the snapshot at {index} cannot be read: {error!r}")
            return
        self._tell_core(RaftCore.installed, index, membership)
        if self._log.damage is None:
            self._tell_core(RaftCore.repaired)

    async def _checkpoint_now(self) -> None:
        """Have the log make a newer snapshot, for a follower whose storage is damaged."""
        try:
            await self._log.snapshot_now()
        except (StorageFull, StorageFailed) as error:  # the core asks again; or the node ends
            _logger.warning("no snapshot for a damaged replica", group=self.group, error=str(error))
        finally:
            self._checkpointing = False

    def _agreed_index(self) -> int:
        """What the log has up to here is the leader's too."""
        return self.core.commit if self.core is not None else 0

    def _tell_core(self, door: Any, *args: Any) -> None:
        """The result of work that took time, at once: nothing may come between it and what it rests on."""
        if self.core is not None and not self._ended():
            door(self.core, self.host.clock.monotonic_ns(), *args)
            self._act()
            self.post(_LOOK, always=True)

    def _ended(self) -> bool:
        return self.stopped or bool(self.failure)

    def _is_alone(self) -> bool:
        return self._links is None or list(self.membership.members()) == [self.replica]

    def _damaged(self, damage: Damage) -> None:
        """The storage found damage while it runs."""
        if self._is_alone():
            self.fence(f"storage is damaged: {damage}")
        else:
            self.post((RaftCore.found_damage,), always=True)


def _not_written(error: Exception) -> str:
    return f"the log could not be written: {error}"


_OWN_KINDS = (KIND_NOOP, KIND_MEMBERSHIP)

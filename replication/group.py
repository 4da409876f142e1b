"""One replica of one Raft group: it drives a log and a state machine.

    propose ──> append to the log ──> (synced) ──> committed ──> apply, in slices ──> state machine

A group has one replica so far, so an entry is committed when this replica's disk has it. The calls and their
order are those of a group of any size: what a restart finds in the log is committed, a new term is opened by an
own entry, and a leader is ready when that entry has been applied.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any

import structlog

from plait.wire.errors import NotLeader, OutcomeUnknown, StorageDamaged
from replication.actor import Actor, Host, Promise, rejected
from replication.machine import (
    KIND_NOOP,
    Checkpoint,
    Entry,
    Proposal,
    Role,
    RoleChange,
    StateMachine,
)
from replication.storage.log import GroupLog, HardState

_logger = structlog.get_logger("plait.replication")

APPLY_ENTRIES = 512
"""Entries applied in one turn; with more waiting the group comes round again, so that others get theirs."""


class Group(Actor):
    """Drives one log and one state machine. Open it once, then propose while it leads."""

    def __init__(self, host: Host, group: int, replica: int, log: GroupLog, machine: StateMachine) -> None:
        super().__init__(host, f"group/{group}")
        self.group = group
        self.term = log.hard_state.term
        self.role = Role.FOLLOWER
        self.ready = False
        self.applied_index = 0
        self._applied_term = 0
        self._replica = replica
        self._log = log
        self._machine = machine
        self._unapplied: deque[Entry] = deque()  # proposed in this term and not applied yet, in order of index
        self._synced_index = 0  # entries up to here are on disk; applied_index <= _synced_index
        self._first_of_term = 0
        self._reads: deque[tuple[int, Promise[int]]] = deque()

    async def open(self) -> None:
        """Rebuild the state machine from snapshot and log, then lead. A damaged log fences the replica."""
        if self._log.damage is not None:
            self.fence(f"storage is damaged: {self._log.damage}")
            return
        try:
            await self._rebuild()
        except StorageDamaged as error:
            self.fence(error.message)
            return
        except Exception as error:  # as in _apply: this replica stops here, and the node serves its others
            _logger.error("log cannot be applied", group=self.group, exc_info=error)
            self.fence(f"what follows entry {self.applied_index} cannot be applied: {error!r}")
            return
        self._log.attach(self)
        self._campaign()

    async def _rebuild(self) -> None:
        snapshot = await self._log.load_snapshot()
        if snapshot is not None:
            self.applied_index, self._applied_term, state = snapshot
            self._machine.restore(state)
        await self._log.replay(self.applied_index, self._replay)
        self._synced_index = self.applied_index

    def _replay(self, entries: list[Entry]) -> None:
        if entries:
            self._machine.apply([entry for entry in entries if entry.kind != KIND_NOOP])
            self.applied_index = entries[-1].index
            self._applied_term = entries[-1].term

    def _campaign(self) -> None:
        """Open a new term: vote and first entry go to disk together, before anything of that term counts."""
        self.term = max(self._log.hard_state.term, self._log.last_term) + 1
        self.role = Role.LEADER
        self._first_of_term = self._log.last_index + 1
        self._machine.role_changed(RoleChange(self.term, Role.LEADER, ready=False))
        noop = Entry(self._first_of_term, self.term, KIND_NOOP, self._log.last_mark, 0, b"")
        self._append([noop], HardState(self.term, self._replica))

    def propose(self, proposals: Sequence[Proposal], expected_term: int) -> int:
        """Append to the log as leader of `expected_term`; the index of the first entry.

        The state machine sees each when it is committed. Raises NotLeader (nothing was appended) when this
        replica does not lead that term: what was decided in it must not be appended in another.
        """
        if self.role is not Role.LEADER or self.term != expected_term:
            raise NotLeader(f"{self.name} does not lead term {expected_term} here; nothing was done; ask again")
        first = self._log.last_index + 1
        term = self.term
        entries = [
            Entry(index, term, proposal.kind, proposal.mark, proposal.span, proposal.payload)
            for index, proposal in enumerate(proposals, first)
        ]
        self._append(entries, None)
        return first

    def read_index(self) -> Promise[int]:
        """The index that must be applied before a read that begins now may be answered."""
        if self.role is not Role.LEADER:
            return rejected(NotLeader(f"{self.name} does not lead here; nothing was read; ask again"))
        promise: Promise[int] = Promise()
        if self.ready:
            promise.resolve(self.applied_index)
        else:
            self._reads.append((self._first_of_term, promise))
        return promise

    def checkpoint(self) -> Checkpoint | None:
        """What the log needs in order to forget the past (called by the storage at each rotation)."""
        if self.role is Role.FENCED or self.applied_index == 0:
            return None
        return Checkpoint(
            self.applied_index, self._applied_term, self._machine.snapshot(), self._machine.live_entries()
        )

    def release(self) -> None:
        """Tell the log which payloads are still needed, so that files without any can go."""
        self._log.retain(self._machine.live_entries())

    def fence(self, reason: str) -> None:
        """End this replica's service; its data stays on disk untouched."""
        if self.role is not Role.FENCED:
            _logger.error("replica fenced", group=self.group, reason=reason)
            self.role, self.ready = Role.FENCED, False
            self._unapplied.clear()
            self._fail_reads()
            self._machine.role_changed(RoleChange(self.term, Role.FENCED, ready=False, reason=reason))

    def stop(self) -> None:
        """End the actor; reads that still wait are answered."""
        super().stop()
        self._fail_reads()

    def summary(self) -> dict[str, Any]:
        """Facts for the log."""
        return {"term": self.term, "role": self.role.value, "applied": self.applied_index}

    def _append(self, entries: list[Entry], hard_state: HardState | None) -> None:
        self._unapplied.extend(entries)
        self._log.append(entries, hard_state, partial(self._synced, entries[-1].index))

    def _synced(self, index: int, error: Exception | None) -> None:
        """Called by the storage, on the loop, in order of append."""
        if error is not None:
            self.fence(f"the log could not be written: {error}")
        else:
            self._synced_index = index
            if not self._scheduled:
                self.post(None)  # the mailbox carries no messages: being drained means "apply what is synced"

    def handle(self, messages: list[Any]) -> None:
        """Apply what is committed: for a group of one, what is synced."""
        entries: list[Entry] = []
        unapplied = self._unapplied
        while unapplied and unapplied[0].index <= self._synced_index and len(entries) < APPLY_ENTRIES:
            entries.append(unapplied.popleft())
        if not entries:
            return
        self._apply(entries)
        if self.role is Role.LEADER and unapplied and unapplied[0].index <= self._synced_index:
            self.post(None)

    def _apply(self, entries: list[Entry]) -> None:
        assert entries[0].index == self.applied_index + 1, "entries are applied in order, each once"
        try:
            self._machine.apply([entry for entry in entries if entry.kind != KIND_NOOP])
        except Exception as error:  # an entry that cannot be applied is never skipped: this replica stops here
            _logger.error("entry cannot be applied", group=self.group, exc_info=error)
            self.fence(f"entry {entries[0].index} to {entries[-1].index} cannot be applied: {error!r}")
            return
        self.applied_index, self._applied_term = entries[-1].index, entries[-1].term
        if not self.ready and self.applied_index >= self._first_of_term:
            self.ready = True
            self._machine.role_changed(RoleChange(self.term, Role.LEADER, ready=True))
        while self._reads and self._reads[0][0] <= self.applied_index:
            self._reads.popleft()[1].resolve(self.applied_index)

    def _fail_reads(self) -> None:
        while self._reads:
            self._reads.popleft()[1].reject(OutcomeUnknown(f"{self.name} lost its leadership; ask again"))

"""One replica of a group in one life of a node, as clients and the world see it: submit, read, look."""

from __future__ import annotations

from collections.abc import Callable

from plait.wire.errors import NotLeader, OutcomeUnknown
from replication.actor import Promise
from replication.group import Group
from replication.machine import Entry, Proposal, Role, RoleChange
from replication.storage.log import GroupLog
from tests.sim.cluster.checkers import GroupChecker
from tests.sim.cluster.machine import ChainMachine, encode
from tests.sim.ledger import KIND_BATCH, KIND_SETTLE


class Member:
    """A replica: its group actor, its log, its state machine, and the operations that wait for it."""

    def __init__(self, checker: GroupChecker, replica: int, log: GroupLog) -> None:
        self.checker = checker
        self.replica = replica
        self.log = log
        self.machine = ChainMachine(self._applied, checker.restored, self._role_changed)
        self.group: Group
        self.on_standing: Callable[[RoleChange], None] = lambda _: None
        self._waiting: dict[tuple[int, int], Promise[int]] = {}
        self._term = 0

    def holds(self) -> dict[str, int]:
        """What somebody still waits for, by kind: nothing, at rest."""
        core = self.group.core
        found = {"operations": len(self._waiting)}
        if core is not None:
            found |= {
                "reads": len(core.reads),
                "uncommitted bytes": core.uncommitted_bytes,
                "held": len(core.held),
            }
        return {what: count for what, count in found.items() if count}

    @property
    def leads(self) -> bool:
        """It leads, and serves."""
        return self.group.role is Role.LEADER and self.group.ready

    def submit(
        self, client: int, sequence: int, attempt: int, filling: bytes, span: int, keep_every: int
    ) -> Promise[int]:
        """Propose an operation; its index, when it is applied. `keep_every` not 0: settle instead of writing.

        Raises NotLeader or Overloaded when nothing was proposed. Rejects with OutcomeUnknown.
        """
        if not self.leads:
            raise NotLeader("this replica does not lead; nothing was done")
        settles = self.machine.settleable(keep_every) if keep_every else ()
        payload = encode(client, sequence, attempt, settles, filling)
        last_mark = self.log.last_mark
        if settles:
            proposal = Proposal(KIND_SETTLE, last_mark, 0, payload)
        else:
            proposal = Proposal(KIND_BATCH, last_mark + 1, span, payload)
        self.group.propose([proposal], self.group.term)
        promise = self._waiting[client, sequence] = Promise[int]()
        return promise

    def look(self) -> int:
        """The index of the state that a read sees now."""
        return self.machine.index

    def _applied(self, machine: ChainMachine, entry: Entry, who: tuple[int, int, int], counts: bool) -> None:
        self.checker.applied(machine, entry, who, counts)
        promise = self._waiting.pop(who[:2], None)
        if promise is not None:
            promise.resolve(machine.clients[who[0]][1])

    def _role_changed(self, change: RoleChange) -> None:
        if change.role is not Role.LEADER or change.term != self._term:
            waiting, self._waiting = self._waiting, {}
            for promise in waiting.values():
                promise.reject(OutcomeUnknown("leadership was lost; it may or may not have been done"))
        self._term = change.term
        self.on_standing(change)

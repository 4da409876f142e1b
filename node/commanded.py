"""A replica whose state machine takes commands and gives each a result: the catalogue, the stream positions.

submit(command) ──> group ──> committed ──> machine.apply_command ──> the promise of `submit`

Every replica applies; the leader's alone takes commands, and answers those that it took.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import trio

from node.entries import KIND_COMMANDS
from plait.wire.errors import OutcomeUnknown, Overloaded, PlaitError, Unavailable
from replication.actor import Actor, Host, Promise
from replication.group import Group
from replication.machine import Entry, Proposal, Range, Role, RoleChange

COMMANDS_IN_FLIGHT = 4_096
"""Commands of one such replica that may be proposed and not committed; further ones are refused."""
COMMANDS_RETRY_AFTER_MS = 50
"""What a refused command is told to wait."""


class Commanded(Protocol):
    """The state machine inside."""

    def apply_command(self, index: int, command: bytes) -> Any:
        """Apply one command; its result. A PlaitError is its answer too and changed nothing; any other fences."""

    def snapshot(self) -> bytes: ...

    def restore(self, state: bytes) -> None: ...


class CommandedReplica(Actor):
    """Owns one commanded state machine and is what its group drives."""

    def __init__(
        self,
        host: Host,
        name: str,
        machine: Commanded,
        refusal: Callable[[str, Group | None], PlaitError],
        standing_changed: Callable[[], None],
    ) -> None:
        """`refusal`: what a replica that does not serve says (its name, its group)."""
        super().__init__(host, name)
        self.machine = machine
        self.group: Group | None = None
        self._refusal = refusal
        self._standing_changed = standing_changed
        self.settled = trio.Event()  # it is served, or `failure` says why not
        self.failure = ""
        self.ready = False
        """It leads, and takes commands."""
        self._term = 0
        self._waiting: deque[tuple[int, Promise[Any]]] = deque()  # proposed in this term, by index

    def driven_by(self, group: Group) -> None:
        """See Groups."""
        self.group = group

    def submit(self, command: bytes) -> Promise[Any]:
        """Have a command applied by the group; its result, or the PlaitError that it was refused with."""
        promise: Promise[Any] = Promise()
        if not self.ready:
            promise.reject(self._not_served())
        elif len(self._waiting) + len(self._mailbox) >= COMMANDS_IN_FLIGHT:
            promise.reject(
                Overloaded(
                    f"{self.name} has {COMMANDS_IN_FLIGHT} commands under way; nothing was done; try again",
                    reason="commands_in_flight",
                    retry_after_ms=COMMANDS_RETRY_AFTER_MS,
                )
            )
        else:
            self.post((command, promise))
        return promise

    def confirmed(self) -> Promise[int]:
        """Resolves when the machine shows everything that was committed before this was asked; only the leader's
        can say so. Rejects with NotLeader."""
        if not self.ready or self.group is None:
            promise: Promise[int] = Promise()
            promise.reject(self._not_served())
            return promise
        return self.group.read_index()

    def _not_served(self) -> PlaitError:
        return self._refusal(self.name, self.group)

    def handle(self, messages: list[tuple[bytes, Promise[Any]]]) -> None:
        """Propose what was submitted, together."""
        assert self.group is not None
        proposals = [Proposal(KIND_COMMANDS, 0, 0, command) for command, _ in messages]
        try:
            first = self.group.propose(proposals, self._term)
        except PlaitError as error:
            for _, promise in messages:
                promise.reject(error)
            return
        for index, (_, promise) in enumerate(messages, first):
            self._waiting.append((index, promise))

    def apply(self, entries: Sequence[Entry]) -> None:
        """StateMachine: apply and answer."""
        for entry in entries:
            try:
                result = self.machine.apply_command(entry.index, bytes(entry.payload))
            except PlaitError as error:
                result = error
            if self._waiting and self._waiting[0][0] == entry.index and entry.term == self._term:
                _answer(self._waiting.popleft()[1], result)

    def snapshot(self) -> bytes:
        """StateMachine."""
        return self.machine.snapshot()

    def restore(self, state: bytes) -> None:
        """StateMachine."""
        self.machine.restore(state)

    def live_entries(self) -> Sequence[Range]:
        """StateMachine: commands carry no payload that outlives the snapshot."""
        return ()

    def role_changed(self, change: RoleChange) -> None:
        """StateMachine."""
        self._term, self.ready = change.term, change.ready
        if change.role is not Role.LEADER:
            self.failure = change.reason
            self._fail_waiting()
        if change.ready or change.role is Role.FENCED:
            self.settled.set()
        self._standing_changed()

    def stop(self) -> None:
        """End the actor; what is under way is answered as unknown."""
        for _, promise in self._mailbox:
            promise.reject(Unavailable(f"{self.name} is closing; nothing was done"))
        super().stop()
        self._fail_waiting()

    def _fail_waiting(self) -> None:
        while self._waiting:
            self._waiting.popleft()[1].reject(
                OutcomeUnknown(
                    f"{self.name} lost its leadership: the command may or may not be done; look, then retry"
                )
            )


def _answer(promise: Promise[Any], result: Any) -> None:
    if isinstance(result, PlaitError):
        promise.reject(result)
    else:
        promise.resolve(result)

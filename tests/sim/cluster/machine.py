"""The state machine that groups drive in simulations: a hash over all that was applied, and who wrote what.

    batch    [client, sequence, attempt] and filling; alive until it is settled
    settle   marks that are alive no more

A client writes each of its operations until it is acknowledged, under one sequence number: the machine takes each
number once, in order. Every application is shown to the checkers.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Sequence

from replication.machine import Entry, Range, RoleChange
from tests.sim.ledger import KIND_BATCH, KIND_SETTLE, ranges_of

HEAD = struct.Struct(">III")
"""Client, sequence, attempt: how every payload begins."""
_ENTRY = struct.Struct(">QQBQI")
_RANGE = struct.Struct(">qq")
_STATE = struct.Struct(">QQ16sII")
_CLIENT = struct.Struct(">IIQ")

Applied = Callable[["ChainMachine", Entry, tuple[int, int, int], bool], None]
"""Called behind each application: machine, entry, (client, sequence, attempt), and whether it counted."""


def encode(client: int, sequence: int, attempt: int, settles: Sequence[Range], filling: bytes) -> bytes:
    """The payload of one operation."""
    ranges = b"".join(_RANGE.pack(first, last) for first, last in settles)
    return HEAD.pack(client, sequence, attempt) + (ranges if settles else filling)


class ChainMachine:
    """See the module. Implements replication.machine.StateMachine."""

    def __init__(
        self,
        applied: Applied,
        restored: Callable[[ChainMachine], None],
        role_changed: Callable[[RoleChange], None],
    ) -> None:
        self.index = 0
        """Of the last entry that came; groups keep their own entries to themselves."""
        self.term = 0
        self.chain = bytes(16)
        self.clients: dict[int, tuple[int, int]] = {}
        """By client, the last sequence number that counted, and the index of its entry."""
        self.live: dict[int, None] = {}
        self._applied = applied
        self._restored = restored
        self.role_changed = role_changed

    def apply(self, entries: Sequence[Entry]) -> None:
        """See StateMachine."""
        for entry in entries:
            payload = bytes(entry.payload)
            self.index, self.term = entry.index, entry.term
            head = _ENTRY.pack(entry.index, entry.term, entry.kind, entry.mark, entry.span)
            self.chain = hashlib.blake2b(self.chain + head + payload, digest_size=16).digest()
            client, sequence, attempt = HEAD.unpack_from(payload)
            counts = sequence == self.clients.get(client, (0, 0))[0] + 1
            if counts:
                self.clients[client] = sequence, entry.index
            if entry.kind == KIND_SETTLE and counts:
                for first, last in _RANGE.iter_unpack(payload[HEAD.size :]):
                    for mark in range(first, last + 1):
                        self.live.pop(mark, None)
            if entry.kind == KIND_BATCH and counts:
                for mark in range(entry.mark, entry.mark + entry.span):
                    self.live[mark] = None
            self._applied(self, entry, (client, sequence, attempt), counts)

    def snapshot(self) -> bytes:
        """See StateMachine."""
        live = self.live_entries()
        parts = [_STATE.pack(self.index, self.term, self.chain, len(self.clients), len(live))]
        parts += [_CLIENT.pack(client, *last) for client, last in sorted(self.clients.items())]
        parts += [_RANGE.pack(first, last) for first, last in live]
        return b"".join(parts)

    def restore(self, state: bytes) -> None:
        """See StateMachine."""
        view = memoryview(state)
        self.index, self.term, self.chain, clients, ranges = _STATE.unpack_from(view)
        at = _STATE.size
        end = at + clients * _CLIENT.size
        self.clients = {client: (last, index) for client, last, index in _CLIENT.iter_unpack(view[at:end])}
        self.live = {}
        for first, last in _RANGE.iter_unpack(view[end : end + ranges * _RANGE.size]):
            self.live.update(dict.fromkeys(range(first, last + 1)))
        self._restored(self)

    def live_entries(self) -> Sequence[Range]:
        """See StateMachine."""
        return ranges_of(list(self.live))

    def settleable(self, keep_every: int) -> list[Range]:
        """What a client may settle now: the oldest marks that are alive, but for one of so many."""
        return ranges_of([mark for mark in list(self.live)[:60] if mark % keep_every])[:20]

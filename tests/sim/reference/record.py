"""Writes down what a core does, from outside: through its observer, its log, and its driver's `take`.

driver ── inputs ──> core ── append, truncate_after ──> RecordedLog ──> log
                      └─ observer ──> Recorder ──> events <──── started, taken, crashed ── driver
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from replication.machine import Entry, Proposal
from replication.raft.log import Log, Vote
from replication.raft.membership import Membership
from replication.raft.messages import Message
from replication.raft.output import Output
from tests.sim.reference.trace import (
    Asked,
    Crashed,
    Event,
    Input,
    Listing,
    Started,
    State,
    Taken,
    Write,
    proposed,
    said,
    written,
)

_MESSAGES = Message.__args__
_NOBODY = Membership({})


class RecordedLog:
    """Implements replication.raft.log.Log with another one, and tells a recorder what is written."""

    def __init__(self, log: Log, wrote: Callable[[Write], None]) -> None:
        self._log = log
        self._wrote = wrote

    @property
    def snapshot_index(self) -> int:
        return self._log.snapshot_index

    @property
    def last_index(self) -> int:
        return self._log.last_index

    @property
    def last_term(self) -> int:
        return self._log.last_term

    @property
    def last_mark(self) -> int:
        return self._log.last_mark

    def term_at(self, index: int) -> int | None:
        """See replication.raft.log.Log."""
        return self._log.term_at(index)

    def cached(self, first_index: int, max_bytes: int) -> list[Entry] | None:
        """See replication.raft.log.Log."""
        return self._log.cached(first_index, max_bytes)

    def append(self, entries: Sequence[Entry], vote: Vote | None, io: int) -> None:
        """See replication.raft.log.Log."""
        self._wrote(written(io, -1, entries, vote))
        self._log.append(entries, vote, io)

    def truncate_after(self, index: int, io: int) -> None:
        """See replication.raft.log.Log."""
        self._wrote(written(io, index, (), None))
        self._log.truncate_after(index, io)


class Recorder:
    """A trace in the making, of any number of replicas. It reads public attributes of cores and logs only."""

    def __init__(self, clock: Callable[[], int], tell: Callable[[Event], None] | None = None) -> None:
        """`tell` is given each event; without it they are kept in `events`."""
        self.events: list[Event] = []
        self._tell = tell or self.events.append
        self._clock = clock
        self._writes: dict[int, list[Write]] = {}
        self._encoded: dict[int, tuple[Membership, bytes]] = {}

    def log(self, replica: int, log: Log) -> RecordedLog:
        """What the core is to be given for its log."""
        return RecordedLog(log, partial(self.wrote, replica))

    def wrote(self, replica: int, write: Write) -> None:
        """Its log was just told to write this."""
        self._writes.setdefault(replica, []).append(write)

    def started(self, core: Any, log: Log, vote: Vote, *, observe: bool = True) -> None:
        """A core was made of this log and vote; from now on it is observed, unless somebody else does that."""
        self._writes.setdefault(core.replica, []).clear()
        memberships = tuple((index, self._bytes(membership)) for index, membership in core.memberships)
        if not memberships or memberships[0][0] > log.snapshot_index:  # there is no snapshot that names members
            memberships = (log.snapshot_index, self._bytes(_NOBODY)), *memberships
        state = self._state(core, log)
        self._tell(Started(self._clock(), core.replica, listing(log, vote), memberships, state))
        if observe:
            core.observer = partial(self.observed, core, log)

    def observed(self, core: Any, log: Log, name: str, arguments: tuple[Any, ...]) -> None:
        """An input has come to its end."""
        writes = self._writes[core.replica]
        given = tuple(_argument(each) for each in arguments)
        state = self._state(core, log)
        whole = listing(log, Vote(core.term, core.vote)) if name == "installed" else None
        self._tell(Input(self._clock(), core.replica, name, given, tuple(writes), state, whole))
        writes.clear()

    def asked(self, core: Any, ticket: int) -> None:
        """What `read_index` has just returned."""
        self._tell(Asked(self._clock(), core.replica, ticket))

    def taken(self, core: Any, output: Output) -> None:
        """What `take` has just returned."""
        if not (output.messages or output.reads or output.lost_reads or output.install or output.standing):
            return
        standing = output.standing
        self._tell(
            Taken(
                *(self._clock(), core.replica, tuple(map(said, output.messages)), output.commit),
                *(tuple(output.reads), tuple(output.lost_reads)),
                install=output.install.index if output.install is not None else 0,
                standing=(standing.term, standing.role.value, standing.leader, standing.ready)
                if standing
                else None,
            )
        )

    def crashed(self, replica: int) -> None:
        """The core is gone."""
        self._tell(Crashed(self._clock(), replica))

    def _state(self, core: Any, log: Log) -> State:
        index, membership = core.memberships[-1] if core.memberships else (0, _NOBODY)
        return State(
            *(core.term, core.vote, core.role.value, core.candidate, core.leader, core.commit, core.applied_index),
            *(log.last_index, log.last_term, log.snapshot_index, index, self._bytes(membership)),
            *(core.ready, core.asleep, core.damaged, bool(core.failure)),
        )

    def _bytes(self, membership: Membership) -> bytes:
        """Encoded; remembered by identity, and kept, so that no other one can have the same."""
        known = self._encoded.get(id(membership))
        if known is None:
            known = self._encoded[id(membership)] = membership, membership.encode()
        return known[1]


def listing(log: Log, vote: Vote) -> Listing:
    """All of a log."""
    first = log.snapshot_index
    terms = [log.term_at(index) for index in range(first, log.last_index + 1)]
    assert None not in terms, "a log has a term for every index from its snapshot's on"
    return Listing(vote.term, vote.replica, first, terms[0] or 0, tuple(term or 0 for term in terms[1:]))


def _argument(value: Any) -> Any:
    if isinstance(value, _MESSAGES):
        return said(value)
    if isinstance(value, Membership):
        return value.encode()
    if isinstance(value, Mapping):
        return tuple(sorted(value.items()))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(proposed(each) if isinstance(each, Proposal) else each.index for each in value)
    return value

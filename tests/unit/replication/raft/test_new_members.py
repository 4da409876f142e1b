"""A member that joins an idle group is told of everything, though nothing new is written."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from replication.machine import KIND_MEMBERSHIP, Entry, Role
from replication.raft.core import RaftCore
from replication.raft.log import Vote
from replication.raft.membership import Membership
from replication.raft.messages import Append, AppendAnswer
from replication.raft.settings import RaftSettings

SECOND_NS = 1_000_000_000


class ListLog:
    """A log without a past, durable as soon as it is written."""

    snapshot_index = 0
    last_mark = 0

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = entries

    @property
    def last_index(self) -> int:
        return len(self.entries)

    @property
    def last_term(self) -> int:
        return self.entries[-1].term

    def term_at(self, index: int) -> int | None:
        if index == 0:
            return 0
        return self.entries[index - 1].term if index <= len(self.entries) else None

    def cached(self, first_index: int, max_bytes: int) -> list[Entry]:
        return self.entries[first_index - 1 :]

    def append(self, entries: Sequence[Entry], vote: Vote | None, io: int) -> None:
        self.entries.extend(entries)

    def truncate_after(self, index: int, io: int) -> None:
        del self.entries[index:]


def test_a_learner_that_joins_an_idle_group_gets_the_whole_log() -> None:
    alone = Membership({1: 1})
    log = ListLog([Entry(1, 1, KIND_MEMBERSHIP, 0, 0, alone.encode())])
    core = RaftCore(1, log, Vote(1), [(1, alone)], RaftSettings(), Random(1), 0, eager=True)
    core.tick(10 * SECOND_NS)
    while core.commit < log.last_index:
        core.persisted(10 * SECOND_NS, core.io)
    assert core.role is Role.LEADER
    core.take()
    core.change_membership(11 * SECOND_NS, {1: 1}, {2: 2}, core.term)
    core.persisted(11 * SECOND_NS, core.io)
    (probe,) = [message for message in core.take().messages if isinstance(message, Append)]
    assert probe.previous_index == log.last_index
    refusal = AppendAnswer(2, 1, core.term, probe.sequence, False, probe.previous_index, 0, 0, False)
    core.step(11 * SECOND_NS, refusal)
    (append,) = [message for message in core.take().messages if isinstance(message, Append)]
    assert [entry.index for entry in append.entries] == list(range(1, log.last_index + 1))

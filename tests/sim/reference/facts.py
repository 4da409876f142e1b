"""What the reference model knows: of a replica what the paper says that it keeps, of the group what ever happened.

    Group: entries made, reigns of leaders, committed log, everything ever sent      (no replica knows it all)
      └─ Replica: log and vote as seen, the same as durable, what lies between; what it was told and has answered

The log of a replica is a list of terms: which entry of a term stands at an index is a fact about the group,
because only one leader may make it, and only once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import lru_cache

from replication.raft.membership import Membership, decode_membership
from tests.sim.reference.trace import State, Write


class Broken(Exception):
    """A rule does not hold. `source` says where the rule is from."""

    def __init__(self, rule: str, source: str, found: str) -> None:
        super().__init__(rule, source, found)
        self.rule = rule
        self.source = source
        self.found = found


decoded = lru_cache(maxsize=1024)(decode_membership)
"""A membership from its bytes."""


NOBODY = Membership({}).encode()
"""The membership of an empty log."""


def quorum(membership: Membership, present: Collection[int]) -> bool:
    """More than half of each set of voters are among those (dissertation 4.3)."""
    sets = [membership.voters] + ([membership.outgoing] if membership.outgoing else [])
    return all(2 * sum(voter in present for voter in voters) > len(voters) for voters in sets)


class Terms:
    """A log: the term of each entry behind a snapshot."""

    __slots__ = ("base", "base_term", "behind")

    def __init__(self, base: int = 0, base_term: int = 0, behind: Collection[int] = ()) -> None:
        self.base = base
        self.base_term = base_term
        self.behind = list(behind)

    @property
    def last_index(self) -> int:
        return self.base + len(self.behind)

    @property
    def last_term(self) -> int:
        return self.behind[-1] if self.behind else self.base_term

    def term_at(self, index: int) -> int | None:
        """From the snapshot's index to the last one; None for any other."""
        at = index - self.base - 1
        if 0 <= at < len(self.behind):
            return self.behind[at]
        return self.base_term if at == -1 else None

    def cut(self, after: int) -> None:
        """Forget what is behind `after`."""
        del self.behind[max(after - self.base, 0) :]

    def install(self, index: int, term: int) -> None:
        """A snapshot takes the place of the log, except of what follows it (figure 13)."""
        if self.term_at(index) == term:
            del self.behind[: index - self.base]
        else:
            self.behind.clear()
        self.base, self.base_term = index, term

    def write(self, write: Write) -> None:
        """What one write does to it."""
        if write.after >= 0:
            self.cut(write.after)
        else:
            self.behind.extend(entry.term for entry in write.entries)

    def copy(self) -> Terms:
        return Terms(self.base, self.base_term, self.behind)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Terms):
            return NotImplemented
        if self.last_index != other.last_index:
            return False
        first = max(self.base, other.base)
        return all(self.term_at(index) == other.term_at(index) for index in range(self.last_index, first, -1))


@dataclass(slots=True)
class Reign:
    """What happened in one term under its leader."""

    leader: int
    log: Terms
    """The leader's, which only grows in its term."""
    first: int
    """Index of its first entry of this term."""
    acked: dict[int, int] = field(default_factory=dict)
    """By follower: the highest index that an answer which reached the leader has confirmed."""
    heard: dict[int, int] = field(default_factory=dict)
    """By follower: the newest round of reads that an answer which reached the leader spoke for."""
    agreed: set[tuple[int, int]] = field(default_factory=set)
    """(follower, index): agreed to sleep."""
    rounds: dict[int, int] = field(default_factory=dict)
    """Round of reads: number of the event that first let others see it."""
    questions: dict[tuple[int, int], int] = field(default_factory=dict)
    """(follower, sequence): `key` of the message that has this number."""


@dataclass(frozen=True, slots=True)
class Made:
    """An entry, and what its maker had before it."""

    previous_term: int
    kind: int
    digest: int | bytes


@dataclass(frozen=True, slots=True)
class Ask:
    """A read that waits."""

    term: int
    floor: int
    """What had been committed, by anybody, when it was asked."""
    number: int
    """Of the event that asked."""


class Replica:
    """One of the group, with what figure 2 gives it, and what it may truly say to others."""

    def __init__(self, replica: int) -> None:
        self.id = replica
        self.alive = False
        self.state: State
        self.log = Terms()
        self.durable = Terms()
        self.vote_written = (0, 0)
        self.vote_durable = (0, 0)
        self.pending: deque[Write] = deque()
        self.forget()

    def forget(self) -> None:
        """All that a crash takes."""
        self.configs: list[tuple[int, bytes]] = []
        """(index, membership) of the log, oldest first."""
        self.in_force: list[tuple[int, bytes]] = []
        """(event number, membership): since when which was in force."""
        self.cast: dict[int, int] = {}
        """Term: the candidate that it voted for."""
        self.grants: set[tuple[int, int]] = set()
        """(term, candidate) that it may say yes to in a pre-vote."""
        self.asked: set[tuple[bool, int, int, int]] = set()
        """(pre, term, last index, last term) that it stood for election with."""
        self.votes: set[int] = set()
        """Who granted, in answers that reached it in this candidacy."""
        self.pre_votes: set[int] = set()
        self.hurried = 0
        """Term in which the leader told it to campaign."""
        self.accepted: dict[tuple[int, int], int] = {}
        """(term, sequence): up to where its log agrees with the leader's by that append."""
        self.offered: dict[tuple[int, int], int] = {}
        """(term, sequence): the snapshot that was offered."""
        self.matched: dict[int, int] = {}
        """Term: up to where it learned that its log agrees with the leader's."""
        self.proved: dict[int, int] = {}
        """Term: up to where that is durable, or has been."""
        self.told: dict[int, int] = {}
        """Term: the highest commit that its leader told."""
        self.beats: set[tuple[int, int]] = set()
        """(term, read) of beats that reached it when it had no higher term."""
        self.sleeps: set[tuple[int, int]] = set()
        """(term, index) with which it may agree to sleep."""
        self.heard_ns = -(1 << 62)
        """When it last heard the leader of its term."""
        self.asks: dict[int, Ask] = {}
        self.down: set[int] = set()
        """Nodes that it was told are gone."""

    @property
    def membership(self) -> Membership:
        """In force: the last one in its log, committed or not (dissertation 4.1)."""
        return decoded(self.configs[-1][1])

    @property
    def durable_term(self) -> int:
        """What it will know its term to be at least after a crash."""
        return max(self.vote_durable[0], self.durable.last_term)

    def vote_is_durable(self, term: int, candidate: int) -> bool:
        """No crash can make it vote for anybody else in that term."""
        return self.vote_durable[0] > term or self.vote_durable == (term, candidate)

    @property
    def synced_index(self) -> int:
        """Up to where its log is durable as it is now."""
        index = min(self.log.last_index, self.durable.last_index)
        while index > self.log.base and self.log.term_at(index) != self.durable.term_at(index):
            index -= 1
        return index


class Group:
    """Everything that ever happened among its replicas."""

    def __init__(self) -> None:
        self.replicas: dict[int, Replica] = {}
        self.reigns: dict[int, Reign] = {}
        self.made: dict[tuple[int, int], Made] = {}
        self.committed: list[int] = [0]
        """The term of each committed entry, by index."""
        self.configs: list[tuple[int, bytes]] = []
        """(index, membership) of the committed log."""
        self.reach: dict[int, int] = {}
        """Term: up to where its leader committed by counting answers."""
        self.sent: set[int] = set()
        """`key` of each message that ever left."""
        self.promises: dict[tuple[int, int], int] = {}
        """(voter, term): the candidate that others saw it vote for."""

    @property
    def commit(self) -> int:
        """Up to where anybody knows that entries are committed."""
        return len(self.committed) - 1

    def reign(self, term: int) -> Reign:
        """Of a term that must have a leader."""
        if term not in self.reigns:
            raise Broken("only leaders speak as leaders", "figure 2, Leaders", f"term {term} has had no leader")
        return self.reigns[term]

    def term_under(self, reign: Reign, index: int) -> int | None:
        """The leader's entry there: its term. None: it has none."""
        term = reign.log.term_at(index)
        if term is None and index < reign.log.base:
            return self.committed[index]
        return term

    def agrees(self, reign: Reign, log: Terms, index: int) -> bool:
        """That log and the leader's are the same up to there (figure 3, Log Matching)."""
        term = log.term_at(index)
        return (term is None and index < log.base) or (term is not None and term == self.term_under(reign, index))

    def config_at(self, index: int) -> bytes:
        """The membership of the committed log up to `index`."""
        found = [membership for at, membership in self.configs if at <= index]
        return found[-1] if found else NOBODY

    def commits(self, index: int, term: int | None) -> None:
        """Somebody takes the entry at `index` for committed."""
        if term is None:
            raise Broken("a commit is never beyond the log", "figure 2, commitIndex", f"no entry {index}")
        if index <= self.commit:
            if self.committed[index] != term:
                found = f"entry {index} is committed with term {self.committed[index]} and with term {term}"
                raise Broken("what is committed is the same for all", "figure 3, State Machine Safety", found)
            return
        self.committed.append(term)
        made = self.made[index, term]
        if isinstance(made.digest, bytes):
            self.configs.append((index, made.digest))

    def undo(self, term: int) -> None:
        """The sole voter that led in `term` crashed before anybody could know."""
        del self.reigns[term]
        for each in [each for each in self.made if each[1] == term]:
            del self.made[each]

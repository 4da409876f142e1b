"""What was committed, once and for ever, as seen from outside of all replicas; and what clients asked for."""

from __future__ import annotations

from dataclasses import dataclass

from replication.machine import Entry
from replication.raft.membership import Membership
from tests.sim.raft.replica import fold


class Violation(AssertionError):
    """A promise is broken; `check` names which."""

    def __init__(self, check: str, text: str) -> None:
        super().__init__(f"{check}: {text}")
        self.check = check


@dataclass(slots=True)
class Asked:
    """One proposal that a leader took."""

    index: int
    term: int


class Truth:
    """The committed entries by index, from 1. Index 0 stands for the empty beginning."""

    def __init__(self) -> None:
        self.terms = [0]
        self.commit_terms = [0]
        """The term of the leader that committed it first."""
        self.states = [0]
        """The state machine's after it."""
        self.kinds = [0]
        self.memberships: list[tuple[int, Membership]] = []
        """Committed ones."""
        self.in_force = Membership({})
        """The membership by which the last one was committed."""
        self.asked: dict[bytes, Asked] = {}
        self.settled = 0
        """Proposals among the committed entries."""

    @property
    def last_index(self) -> int:
        return len(self.terms) - 1

    def add(self, entry: Entry, term: int) -> None:
        """One more is committed, by the leader of `term`."""
        self.terms.append(entry.term)
        self.commit_terms.append(term)
        self.states.append(fold(self.states[-1], entry))
        self.kinds.append(entry.kind)
        if 0 < entry.kind < 255:
            self._client_entry(entry)

    def _client_entry(self, entry: Entry) -> None:
        asked = self.asked.get(bytes(entry.payload))
        if asked is None:
            raise Violation("no phantom", f"entry {entry.index}/{entry.term} was never proposed")
        if asked.term != entry.term:
            raise Violation(
                "expected term",
                f"entry {entry.index} was proposed for term {asked.term} and stands in {entry.term}",
            )
        if asked.index != entry.index:
            raise Violation("one index", f"the proposal of index {asked.index} is committed at {entry.index}")
        self.settled += 1

    def newest_before(self, term: int) -> int:
        """The last index that leaders of terms before `term` committed."""
        index = self.last_index
        while self.commit_terms[index] >= term and index:
            index -= 1
        return index

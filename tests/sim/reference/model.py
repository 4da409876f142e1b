"""The reference model: replays a trace and accepts only what the Raft papers allow. Written from the papers
(Ongaro and Ousterhout 2014; Ongaro's dissertation), not from the core that it judges.

    trace ──> Model.accept ──> step.py, elections.py, logs.py, members.py: may this input do that?
                   │     └───> releases.py: may this be said now?             facts.py: what is known
                   └─> Illegal: event, rule, source, and what the replica did last

It knows the whole group, which no replica does, and judges with what the replica could know: a vote counts when an
answer that was really sent has reached the candidate.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from replication.machine import KIND_MEMBERSHIP
from tests.sim.reference import elections, logs, members, releases, step
from tests.sim.reference.facts import Ask, Broken, Group, Made, Replica, Terms
from tests.sim.reference.step import LEADER, Rules, Step
from tests.sim.reference.trace import Asked, Crashed, Event, Input, Started, Taken, line

HISTORY_MAX = 12
"""Events of one replica that are shown with a broken rule."""

_RULES = (
    step.heard,
    *(elections.term, elections.vote, elections.candidacy, elections.office),
    *(logs.log, logs.durability, logs.commit, logs.prove),
    *(members.membership, members.sleep, members.standing),
)
"""What an input is judged by. Their order matters: each may rest on what those before it have noted."""


class Illegal(AssertionError):
    """The trace is none that the paper allows."""

    def __init__(self, number: int, broken: Broken, history: Iterable[str]) -> None:
        self.number = number
        self.rule, self.source = broken.rule, broken.source
        told = "\n".join(history)
        super().__init__(f"event {number}: {broken.rule} ({broken.source}): {broken.found}\n{told}")


class Model:
    """The state of a whole group. `accept` events in their order."""

    def __init__(self, rules: Rules | None = None) -> None:
        self.rules = rules or Rules()
        self.group = Group()
        self.accepted = 0
        """Events so far."""
        self._latest: dict[int, deque[tuple[int, Event]]] = {}

    def accept(self, event: Event) -> None:
        """The next event. Raises Illegal, and is of no use afterwards."""
        self.accepted = number = self.accepted + 1
        latest = self._latest.setdefault(event.replica, deque(maxlen=HISTORY_MAX))
        latest.append((number, event))
        try:
            self._dispatch(number, event)
        except Broken as broken:
            raise Illegal(number, broken, (f"{number:>7} {line(each)}" for number, each in latest)) from None

    def _dispatch(self, number: int, event: Event) -> None:
        if isinstance(event, Started):
            self._started(number, event)
            return
        replica = self.group.replicas[event.replica]
        if not replica.alive:
            raise Broken("who has crashed does nothing", "figure 2", f"{event}")
        if isinstance(event, Input):
            self._input(number, replica, event)
        elif isinstance(event, Taken):
            releases.check(self.group, replica, number, event)
        elif isinstance(event, Asked):
            self._asked(number, replica, event)
        else:
            assert isinstance(event, Crashed)
            replica.alive = False

    def _input(self, number: int, replica: Replica, event: Input) -> None:
        message = event.arguments[0] if event.name == "step" else None
        taken = Step(self.group, self.rules, replica, number, event, replica.state, event.state, message)
        for rule in _RULES:
            rule(taken)
        replica.state = event.state

    def _asked(self, number: int, replica: Replica, event: Asked) -> None:
        if replica.state.role != LEADER or event.ticket in replica.asks:
            raise Broken("only leaders take reads, each under its own ticket", "dissertation 6.4", f"{event}")
        replica.asks[event.ticket] = Ask(replica.state.term, self.group.commit, number)

    # ---- lives

    def _started(self, number: int, event: Started) -> None:
        group = self.group
        if event.replica in group.replicas:
            self._again(group.replicas[event.replica], event)
        else:
            self._first(event)
        replica, state = group.replicas[event.replica], event.state
        listing = event.listing
        expected = (max(listing.term, replica.log.last_term), listing.snapshot_index, "")
        if (state.term, state.commit, state.candidate) != expected or state.role == LEADER:
            found = f"{state}, from {listing}"
            raise Broken("a life begins with what is durable", "figure 2, persistent and volatile state", found)
        vote = listing.vote if listing.term == state.term else 0
        if state.vote != vote:
            raise Broken("a vote once cast stands", "figure 2, persistent state", f"{state}, from {listing}")
        if vote:
            replica.cast[state.term] = vote
        replica.configs = list(event.memberships)
        replica.in_force = [(number, replica.configs[-1][1])]
        replica.state, replica.alive = state, True
        self._check_configs(replica)

    def _check_configs(self, replica: Replica) -> None:
        log = replica.log
        expected = [(log.base, self.group.config_at(log.base))]
        for index in range(log.base + 1, log.last_index + 1):
            made = self.group.made[index, log.term_at(index) or 0]
            if isinstance(made.digest, bytes):
                expected.append((index, made.digest))
        if replica.configs != expected:
            found = f"{replica.configs}, not {expected}"
            raise Broken("memberships are those of the log", "dissertation 4.1", found)

    def _first(self, event: Started) -> None:
        """Of a replica: founding members begin with the same first entry, all others with nothing."""
        group, listing = self.group, event.listing
        replica = group.replicas[event.replica] = Replica(event.replica)
        terms = listing.terms
        if not listing.snapshot_index and len(terms) == 1:
            founding = Made(0, KIND_MEMBERSHIP, event.memberships[-1][1])
            if group.made.setdefault((1, terms[0]), founding) != founding:
                raise Broken("founders agree on their first entry", "dissertation 4.4", f"{event.memberships}")
            group.commits(1, terms[0])
        elif listing.snapshot_index or terms:
            raise Broken("who joins begins with nothing", "dissertation 4.2.1", f"{listing}")
        replica.log, replica.durable = Terms(0, 0, terms), Terms(0, 0, terms)
        replica.vote_written = replica.vote_durable = listing.term, listing.vote

    def _again(self, replica: Replica, event: Started) -> None:
        """After a crash: what was durable, and maybe the oldest of the writes that were under way."""
        group, listing = self.group, event.listing
        if replica.alive:
            raise Broken("who starts is not there yet", "figure 2", f"{event}")
        found = Terms(listing.snapshot_index, listing.snapshot_term, listing.terms)
        self._snapshot_found(replica, found)
        while not (replica.durable == found and replica.vote_durable == (listing.term, listing.vote)):
            if not replica.pending:
                detail = f"{listing}, durable were {replica.vote_durable} and {replica.durable.behind}"
                raise Broken("a crash takes only what was not durable", "figure 2, persistent state", detail)
            write = replica.pending.popleft()
            replica.durable.write(write)
            if write.term:
                replica.vote_durable = write.term, write.vote
        replica.pending.clear()
        replica.forget()
        replica.durable.base, replica.durable.base_term, replica.durable.behind = (
            found.base,
            found.base_term,
            found.behind,
        )
        replica.log = found.copy()
        replica.vote_written = replica.vote_durable
        for term, reign in list(group.reigns.items()):
            if reign.leader == replica.id and term > event.state.term:
                group.undo(term)

    def _snapshot_found(self, replica: Replica, found: Terms) -> None:
        """A snapshot may have become durable, and the core not have heard of it before it crashed."""
        index = found.base
        if index > self.group.commit or self.group.committed[index] != found.base_term:
            raise Broken("a snapshot is of what is committed", "figure 13", f"{index} of {found.base_term}")
        if index > replica.durable.last_index or replica.durable.term_at(index) not in (None, found.base_term):
            replica.durable.install(index, found.base_term)

"""One input of a replica, and what its message tells the replica.

    before ── heard ── term ── vote ── candidacy ── office ── log ── durability ── commit ── membership ──> after

Each of these functions (here, in elections.py, logs.py and members.py) raises `Broken` unless the difference is
one that a rule of the paper makes. What does not differ needs no reason: any message may be lost, so ignoring it
is always legal.
"""

from __future__ import annotations

from dataclasses import dataclass

from replication.raft.messages import AppendAnswer, BeatAnswer, SleepAnswer, TimeoutNow, VoteAnswer
from tests.sim.reference.facts import Broken, Group, Reign, Replica
from tests.sim.reference.trace import Input, Said, Stamp, State, key

LEADER = "leader"
"""The role of who leads."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What a core promises beyond the paper's figure 2."""

    pre_vote: bool = True
    """It stands for election only when a quorum said that it would vote (dissertation 9.6)."""
    deaf_ns: int = 0
    """It ignores candidates for so long after it heard its leader (dissertation 4.2.3 and 6). 0: it does not."""


@dataclass(slots=True)
class Step:
    """One input, with what the replica was before and is after it."""

    group: Group
    rules: Rules
    replica: Replica
    number: int
    event: Input
    before: State
    after: State
    message: Said | None
    """Of a `step`, else None."""
    campaigned: bool = False
    appended: tuple[Stamp, ...] = ()

    @property
    def reign(self) -> Reign | None:
        """That it leads, or led when this began."""
        for state in (self.after, self.before):
            if state.role == LEADER:
                return self.group.reign(state.term)
        return None

    def of_leader(self) -> bool:
        """The message is from the leader of the term that the replica is in."""
        return self.message is not None and self.message.term == self.after.term and self.after.role != LEADER


def heard(step: Step) -> None:
    """What an answer tells the replica that asked, while it is still what it was when it asked."""
    message, before, replica = step.message, step.before, step.replica
    if message is None:
        return
    if message.target != replica.id or key(message) not in step.group.sent:
        raise Broken("a message is one that was sent to its receiver", "figure 2", f"{message} never was")
    if isinstance(message, VoteAnswer) and message.granted:
        if message.pre and before.candidate == "pre" and message.term == before.term + 1:
            replica.pre_votes.add(message.source)
        elif not message.pre and before.candidate == "real" and message.term == before.term:
            replica.votes.add(message.source)
    elif isinstance(message, TimeoutNow) and message.term >= before.term:
        replica.hurried = message.term
    if before.role == LEADER and message.term == before.term:
        _answered(step.group.reign(before.term), message)


def _answered(reign: Reign, message: Said) -> None:
    if isinstance(message, AppendAnswer) and message.success:
        reign.acked[message.source] = max(reign.acked.get(message.source, 0), message.index)
    elif isinstance(message, BeatAnswer):
        reign.heard[message.source] = max(reign.heard.get(message.source, 0), message.read)
    elif isinstance(message, SleepAnswer) and message.agreed:
        reign.agreed.add((message.source, message.index))

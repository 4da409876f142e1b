"""The model accepts what a small correct Raft does, and rejects each of the mistakes that it can be given."""

from __future__ import annotations

import pytest

from tests.sim.reference.model import Illegal
from tests.sim.reference.step import Rules
from tests.sim.reference.toy import BUGS
from tests.sim.reference.toy_world import run
from tests.sim.reference.validate import PAPER, validate

SEEDS = 40
"""Legal worlds that are judged."""
TRIES = 200
"""Worlds within which a mistake must have shown."""

EXPECTED = {
    "double vote": "a vote once cast stands",
    "vote before sync": "a vote is durable before anybody knows",
    "leads before sync": "a term is durable before anybody knows",
    "longer log wins": "no vote for a log that is behind",
    "forgets its vote": "a vote once cast stands",
    "votes of older terms": "a leader has the votes of a quorum",
    "refusal taken for a vote": "a leader has the votes of a quorum",
    "ack before sync": "what is confirmed is durable",
    "ack of the tail": "an answer covers what was asked, and no more",
    "acks of older terms": "a beat commits what its receiver has confirmed",
    "appends of older terms": "only a leader, or its append, changes a log",
    "stale append cuts": "only a conflict cuts a log",
    "cut on refusal": "an append follows what it names",
    "commit beyond agreement": "a follower commits what its leader says, as far as they agree",
    "commit on refusal": "what is committed is on a quorum's disks",
    "old term counts": "a leader counts answers for entries of its own term only",
    "counts itself unsynced": "what is committed is on a quorum's disks",
    "beat tells all": "a beat commits what its receiver has confirmed",
    "quorum of the new set": "a quorum confirms that a reader leads",
    "quorum of the union": "what is committed is on a quorum's disks",
    "learners count": "a quorum confirms that a reader leads",
    "second change": "one change of members at a time",
    "change in one step": "a change of voters goes through both sets",
    "change before own commit": "no change before a commit in the own term",
    "membership of cut entries": "the last membership of the log is in force",
    "removed leader stays": "who is taken out leads no longer",
    "stale membership with snapshot": "the last membership of the log is in force",
    "read before own commit": "a read sees all that was committed before it",
    "read without asking": "a quorum confirms that a reader leads",
    "reused read number": "a quorum confirms that a reader leads",
}
"""Which rule sees which mistake first."""


def test_worlds_of_correct_replicas_are_legal_and_eventful() -> None:
    models = [validate(run(seed), PAPER) for seed in range(SEEDS)]
    groups = [model.group for model in models]
    assert sum(len(group.reigns) for group in groups) > 2 * SEEDS, "leaders changed"
    assert sum(group.commit for group in groups) > 20 * SEEDS, "entries were committed"
    assert sum(len(group.configs) for group in groups) > 3 * SEEDS, "members changed"
    snapshots = [replica for group in groups for replica in group.replicas.values() if replica.offered]
    assert snapshots, "followers were offered snapshots"


def test_every_mistake_is_expected() -> None:
    assert sorted(EXPECTED) == sorted(BUGS)


@pytest.mark.parametrize("bug", BUGS)
def test_a_mistake_is_rejected_with_its_step_named(bug: str) -> None:
    found = next(illegal for illegal in (rejected(seed, bug) for seed in range(TRIES)) if illegal)
    assert found.rule == EXPECTED[bug]
    assert f"event {found.number}: {found.rule}" in str(found)


def rejected(seed: int, bug: str) -> Illegal | None:
    try:
        validate(run(seed, bug), PAPER)
    except Illegal as illegal:
        return illegal
    return None


def test_who_promises_pre_votes_must_have_asked_for_them() -> None:
    with pytest.raises(Illegal) as caught:
        validate(run(0), Rules(pre_vote=True))
    assert caught.value.rule == "a term begins only if a quorum would vote"
    assert caught.value.source == "dissertation 9.6"

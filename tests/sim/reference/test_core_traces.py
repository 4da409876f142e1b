"""The real core takes only steps that the papers allow, in some hundreds of the worlds of tests/sim/raft.

python -m tests.sim.reference.validate --seeds A..B        judges as many as one likes
"""

from __future__ import annotations

import pytest

from tests.sim.reference.model import Illegal
from tests.sim.reference.step import Rules
from tests.sim.reference.validate import Verdict, trace_of, validate

SEEDS = 130
"""Worlds that are judged here: about 450,000 events."""
DEAF_NS = 3_600 * 10**9
"""Longer than any world lasts."""


@pytest.mark.slow
def test_every_trace_of_the_core_is_legal() -> None:
    verdict = Verdict()
    for seed in range(SEEDS):
        verdict.take(seed)
    assert verdict.illegal == {}
    assert verdict.events > 1_000 * SEEDS, "the worlds were eventful"


def test_who_promises_to_be_deaf_to_candidates_for_longer_than_it_is_is_found_out() -> None:
    events, rules = trace_of(0)
    assert 0 < rules.deaf_ns < DEAF_NS
    validate(events, rules)
    with pytest.raises(Illegal) as caught:
        validate(events, Rules(deaf_ns=DEAF_NS))
    assert caught.value.rule == "a pre-vote is as true as a vote"

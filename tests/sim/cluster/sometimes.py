"""States that a batch of runs must have reached: a run in which nobody was ever elected twice proves nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tests.sim.cluster.plan import KINDS

GROUP_STATES = (
    "leader changed",
    "candidate lost",
    "leader stepped down without a new one",
    "leadership transferred",
    "snapshot installed",
    "log truncated",
    "torn tail cut",
    "joint membership",
    "membership changed",
    "membership change reverted",
    "replica replaced",
    "damage found",
    "damage repaired",
    "node stopped by its disk",
    "disk full",
    "older disk refused",
    "older disk found by its leader",
    "damage without remedy",
    "refused for overload",
    "snapshot not had",
    "group slept",
    "group woke",
    "read answered",
    "read refused",
    "outcome unknown",
    "retry was taken for what it was",
    "follower caught up from disk",
    "node paused while it led",
)
"""Of the layer of groups."""

BROKER_STATES = (
    "leader changed",
    "snapshot installed",
    "log truncated",
    "node stopped by its disk",
    "disk full",
    "wrong disk refused",
    "group slept",
    "group woke",
    "read answered",
    "retry was taken for what it was",
    "message returned",
    "position committed",
    "topic made and deleted",
    "leadership transferred",
    "node paused while it led",
    "damage found",
    "damage repaired",
    "told overloaded",
    "told lease_lost",
    "told outcome_unknown",
    "told unavailable",
    "told timed_out",
    "told storage_full",
)
"""Of the layer of brokers."""
FLEET_STATES = (
    *(state for state in BROKER_STATES if state != "told storage_full"),
    "joint membership",
    "membership change reverted",
    "node joined",
    "node joined while links were cut",
    "node joined in bad weather",
    "lone broker has grown",
    "node declared dead",
    "dead node came back",
    "dead node replaced",
    "node removed under load",
    "node removed that nobody is",
    "removed node refused",
    "drain finished under faults",
    "at rest with a drained node",
    "move finished under faults",
    "move outlived its leader",
    "move changed on its way",
    "replicas that came later",
    "lost replica renewed",
    "machine with a damaged disk replaced",
    "partitions added under load",
    "replicas changed under load",
    "oldest dropped",
    "dead letters",
)
"""Of the layer of fleets."""
STATES = {"groups": GROUP_STATES, "brokers": BROKER_STATES, "fleets": FLEET_STATES}
"""By layer."""
SEEN_WITH_RUNS = {"groups": 250, "brokers": 250, "fleets": 250}
"""By layer, the runs from which on a batch must have reached everything."""
RARE = (
    "damage without remedy",
    "told storage_full",
    "lost replica renewed",
    "machine with a damaged disk replaced",
    "node removed that nobody is",
    "removed node refused",
    "node joined in bad weather",
)
"""States that only a batch of many more must have reached."""
RARE_FACTOR = 10
"""How many times more."""


def missed(layer: str, runs: int, faults: Counter[str], states: Counter[str]) -> list[str]:
    """The kinds of faults that never struck, and the states that were never reached, in a batch large enough."""
    if runs < SEEN_WITH_RUNS[layer]:
        return []
    many = runs >= RARE_FACTOR * SEEN_WITH_RUNS[layer]
    expected = [state for state in STATES[layer] if many or state not in RARE]
    return [*never(faults, KINDS[layer]), *never(states, expected)]


def never(counts: Counter[str], expected: Iterable[str]) -> list[str]:
    """The names that a batch did not count."""
    return [name for name in expected if not counts[name]]

"""Deliberate bugs, each of a kind that some implementation had: the checkers are to catch every one.

scripts/mutants        runs them all; docs/verification.md keeps what it prints
"""

from tests.sim.raft.mutants import elections, fleets, logs, members, nodes, reads, scripts

MUTANTS = (
    *elections.MUTANTS,
    *logs.MUTANTS,
    *members.MUTANTS,
    *reads.MUTANTS,
    *nodes.MUTANTS,
    *fleets.MUTANTS,
    *scripts.MUTANTS,
)
"""All of them, each with a name of its own."""

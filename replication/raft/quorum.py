"""Majorities, of one set of voters or of each of two (dissertation 4.3)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from enum import Enum


class Ballot(Enum):
    """How a vote stands."""

    OPEN = "open"
    WON = "won"
    LOST = "lost"


def agreed(voter_sets: Iterable[Collection[int]], value_of: Callable[[int], int]) -> int:
    """The highest value that a majority of every set has reached; a set without voters has reached none."""
    return min((_of_one(voters, value_of) for voters in voter_sets), default=0)


def _of_one(voters: Collection[int], value_of: Callable[[int], int]) -> int:
    if not voters:
        return 0
    return sorted(map(value_of, voters))[(len(voters) - 1) // 2]


def has_quorum(voter_sets: Iterable[Collection[int]], has: Callable[[int], bool]) -> bool:
    """True if a majority of every set has it."""
    return agreed(voter_sets, lambda voter: int(has(voter))) == 1


def ballot(voter_sets: Iterable[Collection[int]], votes: Mapping[int, bool]) -> Ballot:
    """How the vote stands; votes of those who have none are not counted."""
    result = Ballot.WON
    for voters in voter_sets:
        granted = sum(votes.get(voter, False) for voter in voters)
        refused = sum(not votes.get(voter, True) for voter in voters)
        if refused * 2 >= len(voters):
            return Ballot.LOST
        if granted * 2 <= len(voters):
            result = Ballot.OPEN
    return result

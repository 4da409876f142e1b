"""Which nodes are to have a group's replicas. Pure; cluster/balance.py decides when something is to move.

    nodes with their racks and loads, how many are wanted ──> places, the first one is to lead

Spread over racks first, then over nodes by what they have already.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cluster.assignment import FOUNDERS_MAX, Place

REPLICAS_DEFAULT = 3
"""Replicas of a partition whose topic does not say how many."""
REPLICAS_MAX = FOUNDERS_MAX
"""Replicas that a topic may ask for."""
METADATA_VOTERS_MAX = 5
"""Nodes that vote on the catalogue; all others learn it."""


@dataclass(slots=True)
class Site:
    """A node as a place for replicas."""

    node: int
    rack: str
    replicas: int
    """What it is to have."""
    preferred: int
    """How many groups it is to lead."""
    held: int = 0
    """What it has, and what it is still giving away."""


def shape(wanted: int | None, nodes: int) -> tuple[int, int]:
    """(voters, learners) of a group, when so many are wanted (None: no matter) and there are so many nodes.

    Three where they are to be had. Of two nodes one votes: with two voters the loss of either would stop both. Who
    asks for an even number gets it.
    """
    target = wanted or REPLICAS_DEFAULT
    there = max(1, min(target, nodes))
    if there == target and wanted is not None:
        return there, 0
    return (there, 0) if there % 2 else (there - 1, 1)


def metadata_voters(nodes: int) -> int:
    """How many of so many nodes vote on the catalogue."""
    return shape(METADATA_VOTERS_MAX, nodes)[0]


def place(wanted: int | None, sites: Sequence[Site]) -> list[Place]:
    """Places for a new group, whose load is added to the sites'."""
    voters, learners = shape(wanted, len(sites))
    chosen = pick(voters + learners, sites, ())
    leader = min(chosen[:voters], key=lambda site: (site.preferred, site.replicas, site.node))
    chosen.remove(leader)
    chosen.insert(0, leader)
    leader.preferred += 1
    for site in chosen:
        site.replicas += 1
    return [Place(site.node, number < voters) for number, site in enumerate(chosen)]


def pick(count: int, sites: Iterable[Site], beside: Iterable[Site]) -> list[Site]:
    """So many sites, or all there are: as few as possible in one rack, counting those `beside` which they come."""
    left = list(sites)
    crowd: dict[str, int] = {}
    for site in beside:
        crowd[site.rack] = crowd.get(site.rack, 0) + bool(site.rack)
    chosen: list[Site] = []
    while left and len(chosen) < count:
        best = min(left, key=lambda site: (crowd.get(site.rack, 0), site.replicas, site.preferred, site.node))
        crowd[best.rack] = crowd.get(best.rack, 0) + bool(best.rack)
        left.remove(best)
        chosen.append(best)
    return chosen

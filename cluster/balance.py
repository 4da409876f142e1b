"""What should move: replicas off nodes that are dead or to go, onto nodes that have less; and who is to lead.

    assignment, wanted replicas, fleet ──> better places, or none

One decision for one group, from what is known now; the loads that it changes are counted at once, so that those
that are taken one after the other do not all choose the same node. Pure: node/controller.py asks, and proposes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from cluster.assignment import Assignment, Place
from cluster.nodes import Node
from cluster.placement import Site, metadata_voters, pick, shape

UNEVEN = 2
"""Difference in replicas, or in groups led, from which it is worth moving one."""


class Fleet:
    """The nodes of one moment, as places for replicas."""

    def __init__(self, nodes: Sequence[Node], sites: Iterable[Site], up: Collection[int]) -> None:
        """`up`: the nodes that are heard of."""
        self.sites = {site.node: site for site in sites}
        self._states = {node.node_id: node.state for node in nodes}
        self.whole = {node.node_id for node in nodes if node.state == "active" and not node.dead}
        """Those whose replicas may stay where they are."""
        self.takers = {node for node in self.whole if node in up}
        """Those that may be given replicas."""

    @property
    def size(self) -> int:
        """Nodes that count: those that are to go for good do not."""
        return sum(state != "leaving" for state in self._states.values())

    def may_keep(self, node: int) -> bool:
        """Whether a replica may stay on a node if it can go nowhere else."""
        return self._states.get(node, "leaving") != "leaving"

    def is_whole(self, node: int) -> bool:
        """Whether it is to have replicas, and lead."""
        return node in self.whole

    def free(self, beside: Collection[int]) -> list[Site]:
        """Where one more replica may go."""
        return [self.sites[node] for node in sorted(self.takers) if node not in beside]


def improved(assignment: Assignment, replicas: int | None, fleet: Fleet) -> list[Place] | None:
    """Better places for a group of which so many replicas are wanted (None: no matter); or None."""
    voters, learners = shape(replicas, fleet.size)
    now = assignment.nodes
    chosen = _kept(assignment, voters + learners, fleet)
    chosen += [site.node for site in pick(voters + learners - len(chosen), fleet.free(now), _sites(fleet, chosen))]
    spare = [node for node in now if not fleet.is_whole(node) and fleet.may_keep(node)]
    chosen += spare[: voters + learners - len(chosen)]
    if not chosen:
        return None
    if set(chosen) == set(now):
        chosen = _evened(chosen, fleet)
    places = _ordered(assignment, chosen, shape(replicas, len(chosen))[0], fleet)
    if places == list(assignment.places):
        return None
    _count(assignment, places, fleet)
    return places


def is_hopeless(assignment: Assignment, places: Sequence[Place], fleet: Fleet) -> bool:
    """Whether a group on its way is to vote on a node that died, or is to go, and by these places would not."""
    voting = {node for node, votes in places if votes}
    return any(
        each.votes and not fleet.is_whole(each.node) and each.node not in voting for each in assignment.wanted
    )


def metadata_places(assignment: Assignment, fleet: Fleet) -> list[Place] | None:
    """Better places for the catalogue: every node has it, some vote; None: it is well placed."""
    nodes = [node for node in assignment.nodes if fleet.may_keep(node) or _is_needed(node, fleet)]
    able = [node for node in nodes if node in fleet.takers or node in assignment.voters.values()]
    ranked = sorted(able, key=lambda node: _rank(assignment, node, fleet))
    voting = set(ranked[: metadata_voters(len(able))])
    places = [Place(node, node in voting) for node in nodes]
    return None if places == list(assignment.places) or not voting else places


def _is_needed(node: int, fleet: Fleet) -> bool:
    """A node that leaves keeps the catalogue until it has nothing else."""
    return node in fleet.sites and fleet.sites[node].held > 1


def _rank(assignment: Assignment, node: int, fleet: Fleet) -> tuple[bool, bool, int]:
    """Those first that may vote on the catalogue rather than others: whole ones, then those that do already."""
    return not fleet.is_whole(node), node not in assignment.voters.values(), node


def _kept(assignment: Assignment, count: int, fleet: Fleet) -> list[int]:
    """Of the nodes that have replicas those that are to keep them, as many as are wanted."""
    good = [each for each in assignment.wanted if fleet.is_whole(each.node)]
    good.sort(key=lambda each: (not each.votes, fleet.sites[each.node].replicas))
    return [each.node for each in good[:count]]


def _sites(fleet: Fleet, nodes: Iterable[int]) -> list[Site]:
    return [fleet.sites[node] for node in nodes if node in fleet.sites]


def _evened(chosen: list[int], fleet: Fleet) -> list[int]:
    """The same nodes, or one of them exchanged for one that has less."""
    free = fleet.free(chosen)
    loaded = [node for node in chosen if fleet.is_whole(node)]
    if not free or not loaded:
        return chosen
    most = max(loaded, key=lambda node: fleet.sites[node].replicas)
    others = [node for node in chosen if node != most]
    (best,) = pick(1, free, _sites(fleet, others))
    crowded = {fleet.sites[node].rack for node in others if node in fleet.sites} - {""}
    worse = best.rack in crowded and fleet.sites[most].rack not in crowded
    if worse or fleet.sites[most].replicas - best.replicas < UNEVEN:
        return chosen
    return [best.node if node == most else node for node in chosen]


def _ordered(assignment: Assignment, chosen: Sequence[int], voters: int, fleet: Fleet) -> list[Place]:
    """Who votes, and in which order they are to lead: as it was, as far as that is good."""
    order = {node: number for number, node in enumerate(assignment.nodes)}
    voted = {each.node for each in assignment.wanted if each.votes}
    ranked = sorted(
        chosen, key=lambda node: (not fleet.is_whole(node), node not in voted, order.get(node, len(order)), node)
    )
    first = _leader(assignment, ranked[:voters], fleet)
    ranked.remove(first)
    return [Place(node, number < voters) for number, node in enumerate([first, *ranked])]


def _leader(assignment: Assignment, voters: Sequence[int], fleet: Fleet) -> int:
    able = [node for node in voters if fleet.is_whole(node)] or list(voters)
    least = min(able, key=lambda node: (_preferred(fleet, node), node))
    now = assignment.preferred
    if now in able and _preferred(fleet, now) - _preferred(fleet, least) < UNEVEN:
        return now
    return least


def _preferred(fleet: Fleet, node: int) -> int:
    return fleet.sites[node].preferred if node in fleet.sites else 0


def _count(assignment: Assignment, places: Sequence[Place], fleet: Fleet) -> None:
    for site in _sites(fleet, assignment.nodes):
        site.replicas -= 1
    for site in _sites(fleet, [place.node for place in places]):
        site.replicas += 1
    for node, one in ((assignment.preferred, -1), (places[0].node, 1)):
        if node in fleet.sites:
            fleet.sites[node].preferred += one

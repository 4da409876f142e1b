"""What must be true of a cluster's placement when nothing has happened for a while. Knows no scenario.

    nodes      nobody is leaving, dead, or has never started
    groups     none is on its way; as many replicas and voters as can be; each on a node that is to have it
    members    the group itself says the same as the catalogue, in no joint step
    leaders    each group is led by the node that is to lead it; these are spread
    disks      nobody has a replica, or what is left of one, that the catalogue does not give him

Written from docs/cluster.md, not from cluster/balance.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from cluster.assignment import Assignment
from cluster.catalogue import METADATA_GROUP, Catalogue
from replication.raft.membership import Membership

USUAL_REPLICAS = 3
"""Of a topic or queue that does not say how many."""
VOTERS_MAX = 5
"""Of the catalogue."""
UNEVEN = 2
"""Difference of two nodes' shares from which it is worth moving something."""
FOUNDER = 0
"""The replica that a group began with on a node, as the node's disk names it."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One group as a node sees it that leads it."""

    node: int
    members: Membership
    certain: bool
    """These members are committed."""


def unrest(
    catalogue: Catalogue,
    leaders: Mapping[int, Standing],
    disks: Mapping[int, Iterable[tuple[int, int]]],
    *,
    racks: bool,
) -> Iterator[str]:
    """What is not as it should be. `disks`: by node, (group, replica or FOUNDER) of each log that it has."""
    nodes = catalogue.nodes()
    for node in nodes:
        if node.state == "leaving":
            yield f"node {node.node_id} has not left"
        if node.dead:
            yield f"node {node.node_id} counts as dead"
        if not node.incarnation:
            yield f"node {node.node_id} was never started"
        if node.node_id not in disks:
            yield f"node {node.node_id} is not up"
    whole = [node.node_id for node in nodes if node.state == "active" and not node.dead]
    for group, assignment in catalogue.assignments.items():
        yield from _group(catalogue, group, assignment, whole)
        yield from _members(group, assignment, leaders.get(group), whole)
    if not racks:
        yield from _spread(catalogue, whole)
    for node_id, logs in disks.items():
        for group, replica in logs:
            number = node_id if group == METADATA_GROUP else replica
            if not _is_given(catalogue.assignment(group), node_id, number):
                yield f"node {node_id} has what is left of replica {replica} of group {group}"


def _group(catalogue: Catalogue, group: int, assignment: Assignment, whole: list[int]) -> Iterator[str]:
    if not assignment.settled:
        yield f"group {group} is on its way to {assignment.places}"
        return
    nodes, voters = assignment.nodes, len(assignment.voters)
    everybody = [node.node_id for node in catalogue.nodes()]
    if group == METADATA_GROUP:
        if sorted(nodes) != everybody:
            yield f"the catalogue is on the nodes {sorted(nodes)}, not on {everybody}"
        least = _odd(min(VOTERS_MAX, len(whole)))
        if voters < least or voters % 2 == 0:
            yield f"{voters} nodes vote on the catalogue, of {len(whole)}"
        return
    found = catalogue.partition_of(group)
    asked = found[0].settings.replicas if found is not None else None
    wanted = asked or USUAL_REPLICAS
    if not min(wanted, len(whole)) <= len(nodes) <= wanted:
        yield f"group {group} has {len(nodes)} replicas of {wanted}; {len(whole)} nodes could have one"
    if voters != (len(nodes) if asked is not None and len(nodes) == wanted else _odd(len(nodes))):
        yield f"group {group} has {voters} voters of {len(nodes)} replicas"
    left = [node for node in nodes if node not in whole]
    if left and any(node not in nodes for node in whole):
        yield f"group {group} is still on {left}"
    if assignment.preferred not in whole and any(node in whole for node in assignment.voters.values()):
        yield f"group {group} is to be led by node {assignment.preferred}, which is not to lead"


def _members(group: int, assignment: Assignment, leader: Standing | None, whole: list[int]) -> Iterator[str]:
    if leader is None:
        yield f"nobody leads group {group}"
        return
    members = leader.members
    if members.joint or not leader.certain:
        yield f"group {group} is in a joint step"
    if members.voters != assignment.voters or members.learners != assignment.learners:
        yield f"group {group} has the members {members}, and is to have {assignment.wanted}"
    if group != METADATA_GROUP and leader.node != assignment.preferred and assignment.preferred in whole:
        yield f"group {group} is led by node {leader.node}, not {assignment.preferred}"


def _spread(catalogue: Catalogue, whole: list[int]) -> Iterator[str]:
    """No single move would make nodes more equal."""
    replicas: Counter[int] = Counter()
    preferred: Counter[int] = Counter()
    groups = [(group, each) for group, each in catalogue.assignments.items()]
    for group, each in groups:
        replicas.update(each.nodes)
        preferred.update([each.preferred] if group != METADATA_GROUP else [])
    for group, each in groups:
        if group == METADATA_GROUP:
            continue
        given = [node for node in each.nodes if node in whole]
        free = [node for node in whole if node not in each.nodes]
        if (
            given
            and free
            and max(replicas[node] for node in given) - min(replicas[node] for node in free) >= UNEVEN
        ):
            yield f"group {group} is on {given} and could be on {free}: {dict(replicas)}"
        able = [node for node in each.voters.values() if node in whole]
        if able and preferred[each.preferred] - min(preferred[node] for node in able) >= UNEVEN:
            yield f"group {group} is to be led by node {each.preferred}: {dict(preferred)}"


def _is_given(assignment: Assignment | None, node: int, replica: int) -> bool:
    if assignment is None:
        return False
    known = assignment.founder_on(node) if replica == FOUNDER else replica
    return any(each.node == node and each.replica == known for each in (*assignment.wanted, *assignment.leaving))


def _odd(count: int) -> int:
    return count if count % 2 else max(1, count - 1)

"""The groups that this node has a replica of: their logs, their Raft, their place among the links.

log_of ──> GroupLog      open ──> Group, known to the links      drop ──> gone from links and disk

A log belongs to one replica: where a node gets a new replica of a group that it had one of before, that one has a
log of its own. Logs of founders have their group's number, as entries have it on their way between nodes: they are
written as they come. Those of later replicas have others, and are encoded anew.
"""

from __future__ import annotations

from functools import partial
from typing import Protocol

import structlog

from cluster.assignment import FOUNDERS_MAX, Assignment, Replica
from cluster.catalogue import METADATA_GROUP
from node.standings import Standings
from replication.actor import Host
from replication.environment import Environment
from replication.group import Group
from replication.machine import StateMachine
from replication.peers.peers import Peers
from replication.raft.membership import Membership
from replication.raft.settings import RaftSettings
from replication.storage.log import GroupLog
from replication.storage.store import Store
from replication.transfer import Transfers

FOUNDER = 0
"""Stands for the replica that a group began with on this node, whichever that is."""
_logger = structlog.get_logger("plait.node")

GROUP_BITS = 40
"""Bits of a group's number in the number of a log; the others say of which replica, for one that is no founder."""


class Machine(StateMachine, Protocol):
    """A state machine that knows its group."""

    def driven_by(self, group: Group) -> None:
        """Told before anything else."""


class Groups:
    """Opens and drops them."""

    def __init__(
        self,
        environment: Environment,
        host: Host,
        store: Store,
        node_id: int,
        settings: RaftSettings,
        peers: Peers,
    ) -> None:
        self.node_id = node_id
        self._environment = environment
        self._host = host
        self._store = store
        self._settings = settings
        self._peers = peers
        self.snapshots = Transfers(environment, peers, self._log_in_use, _group_of)
        self._in_use: dict[int, int] = {}  # by group, the log of the replica that is open
        self._replicas: dict[int, dict[int, None]] = {}  # by group, those that have a log here
        for group, replica in self.known():
            self._replicas.setdefault(group, {})[replica] = None
        self.opened: dict[int, Group] = {}
        """The replicas that are open here, by group."""
        self.standings = Standings(alone=lambda: not peers.nodes_known())

    def known(self) -> list[tuple[int, int]]:
        """(group, replica or FOUNDER) of each log here."""
        return sorted(_taken_apart(log) for log in self._store.groups())

    def log_of(self, group: int, replica: int) -> GroupLog:
        """A replica's log; made where there is none (the node may have ended between catalogue and log)."""
        number = _log_number(group, replica)
        if self._store.has(number):
            return self._store.log(number)
        self._replicas.setdefault(group, {})[_taken_apart(number)[1]] = None
        return self._store.create(number)

    def replicas_of(self, group: int) -> list[int]:
        """The replicas of a group, or FOUNDER, that have a log here."""
        return list(self._replicas.get(group, ()))

    async def open(
        self, group: int, replica: int, machine: Machine, members: Membership | None, *, eager: bool
    ) -> None:
        """Open this node's replica of a group: its state from its log, then its part in elections.

        `members`: those with which the group began, if this replica is one of them. `eager`: it should lead the
        group if nobody does.
        """
        environment = self._environment
        opened = Group(
            self._host,
            group,
            replica,
            self.log_of(group, replica),
            machine,
            environment.tasks,
            environment.random,
            self._peers,
            self.snapshots,
            self._settings,
            self.standings.changed,
        )
        machine.driven_by(opened)
        self._in_use[group] = _log_number(group, replica)
        self.opened[group] = opened
        await opened.open(members, eager=eager)
        if not opened.stopped:
            self._peers.add(opened)

    def leave(self, group: int) -> None:
        """The replica that was open is open no more; its data stays."""
        self._peers.remove(group)
        self._in_use.pop(group, None)
        self.opened.pop(group, None)
        self.standings.forget(group)

    def drop(self, group: int, replica: int) -> None:
        """The replica, or FOUNDER, is gone: its data goes."""
        number = _log_number(group, replica)
        if self._in_use.get(group) == number:
            self.leave(group)
        self._replicas.get(group, {}).pop(_taken_apart(number)[1], None)
        if self._store.has(number):  # it is not, where a topic was deleted before it was opened
            self._store.delete(number, partial(_dropped, group))

    def _log_in_use(self, group: int) -> GroupLog | None:
        number = self._in_use.get(group)
        return self._store.log(number) if number is not None and self._store.has(number) else None


def founding_members(assignment: Assignment, replica: Replica) -> Membership | None:
    """The members that a group began with; None for a replica that came later, which is told them."""
    if not assignment.is_founder(replica.replica):
        return None
    voters = {each.replica: each.node for each in assignment.founders if each.votes}
    learners = {each.replica: each.node for each in assignment.founders if not each.votes}
    return Membership(voters, learners)


def _log_number(group: int, replica: int) -> int:
    return group if group == METADATA_GROUP or replica <= FOUNDERS_MAX else replica << GROUP_BITS | group


def _taken_apart(log: int) -> tuple[int, int]:
    return log & ((1 << GROUP_BITS) - 1), log >> GROUP_BITS


def _group_of(log: GroupLog) -> int:
    return _taken_apart(log.group)[0]


def _dropped(group: int, error: Exception | None) -> None:
    if error is not None:
        _logger.error("group's data could not be deleted", group=group, error=str(error))

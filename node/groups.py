"""The groups that this node has a replica of: their logs, their Raft, their place among the links.

log_of ──> GroupLog      open ──> Group, known to the links      drop ──> gone from links and disk
"""

from __future__ import annotations

from functools import partial
from typing import Protocol

import structlog

from node.members import Members
from node.standings import Standings
from replication.actor import Host
from replication.environment import Environment
from replication.group import Group
from replication.machine import StateMachine
from replication.peers.peers import Peers
from replication.raft.settings import RaftSettings
from replication.storage.log import GroupLog
from replication.storage.store import Store
from replication.transfer import Transfers

_logger = structlog.get_logger("plait.node")


class Replica(StateMachine, Protocol):
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
        members: Members,
        settings: RaftSettings,
        peers: Peers | None,
    ) -> None:
        self._environment = environment
        self._host = host
        self._store = store
        self._members = members
        self._settings = settings
        self._peers = peers
        self._snapshots = Transfers(environment, peers, self._find) if peers is not None else None
        self._known = dict.fromkeys(sorted(store.groups()))
        self.opened: dict[int, Group] = {}
        """The replicas that are open here."""
        self.standings = Standings(members.alone)
        self.eager = False
        """What is opened now should be led here, if it has no leader."""

    def known(self) -> list[int]:
        """The groups that have a log here."""
        return list(self._known)

    def log_of(self, group_id: int) -> GroupLog:
        """The group's log; made where there is none (the node may have ended between catalogue and log)."""
        if group_id in self._known:
            return self._store.log(group_id)
        self._known[group_id] = None
        return self._store.create(group_id)

    def _find(self, group_id: int) -> GroupLog | None:
        return self._store.log(group_id) if group_id in self._known else None

    async def open(self, group_id: int, replica: Replica) -> None:
        """Open this node's replica of a group: its state from its log, then its part in elections."""
        environment, members = self._environment, self._members
        group = Group(
            self._host,
            group_id,
            members.replica_on(group_id, members.node_id),
            self.log_of(group_id),
            replica,
            environment.tasks,
            environment.random,
            self._peers,
            self._snapshots,
            self._settings,
            self.standings.changed,
        )
        self.opened[group_id] = group
        replica.driven_by(group)
        await group.open(members.founders_of(group_id), eager=self.eager)
        if self._peers is not None and not group.stopped:
            self._peers.add(group)

    def drop(self, group_id: int) -> None:
        """The group was deleted: its data goes."""
        self.opened.pop(group_id, None)
        self.standings.forget(group_id)
        if self._peers is not None:
            self._peers.remove(group_id)
        if group_id in self._known:  # it is not, where a topic was deleted before it was opened
            del self._known[group_id]
            self._store.delete(group_id, partial(_dropped, group_id))


def _dropped(group_id: int, error: Exception | None) -> None:
    if error is not None:
        _logger.error("group's data could not be deleted", group=group_id, error=str(error))

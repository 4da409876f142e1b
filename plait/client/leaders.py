"""Further connections of one client: straight to the nodes that lead what it publishes to.

    answer to a publish: "node 3 leads it, at host:port" ──> Leaders.to ──> not there yet: None, stay forwarded
                                                               │  ^
                                                               v  │ up: the connection to publish on from now on
                                                        LeaderConnection ── cannot be reached, is somebody else,
                                                                            lost: not again for LEADER_RETRY_S

Everything works without them, by way of the client's own node: they save a hop, and nothing waits for them.
"""

from __future__ import annotations

import math

import anyio

from plait.client.address import parse_addresses
from plait.client.connection import Connection, Reply
from plait.client.route import Address
from plait.wire.errors import BadRequest, Unavailable
from plait.wire.messages import Welcome

LEADER_CONNECTIONS_MAX = 64
"""Nodes that one client publishes to straight; what further ones lead stays forwarded."""
LEADER_AFTER_ANSWERS = 8
"""Publishes that are forwarded to a node before the client connects to it: a few are not worth a connection."""
LEADER_RETRY_S = 10.0
"""Wait before a leader that could not be reached, or was lost, is connected to again."""


class LeaderConnection(Connection):
    """One connection to one node. Once it is lost it does not come back: another one is made."""

    def __init__(self, home: Connection, node_id: int, address: Address) -> None:
        super().__init__([address], home.name, home.namespace, math.inf, home.outside)
        self.node_id = node_id
        self._home = home
        self._address = address

    @property
    def in_haste(self) -> bool:
        """There is another way: by the client's own node."""
        return True

    async def run(self) -> None:
        """Live once."""
        try:
            await self._attempt(self._address)
        except UnicodeError as error:  # a name that cannot be looked up, which nobody here has chosen
            self._note(error)
        finally:
            self.closed = True

    def _check(self, welcome: Welcome) -> None:
        """What a node calls its address may lead somewhere else from here. Raises Unavailable."""
        own = self._home.welcome
        if own is None or own.cluster_id != welcome.cluster_id or welcome.node_id != self.node_id:
            raise Unavailable("another broker answers at the leader's address; nothing was done")

    def _judge(self, reply: Reply) -> None:
        """Whoever publishes sees for itself whether this node still leads."""
        self._answered.set()


class _Leader:
    """What is known of one node."""

    __slots__ = ("answers", "connection", "not_before_s")

    def __init__(self) -> None:
        self.answers = 0
        self.connection: LeaderConnection | None = None
        self.not_before_s = -math.inf


class Leaders:
    """Of one client."""

    def __init__(self, home: Connection) -> None:
        self._home = home
        self._leaders: dict[int, _Leader] = {}

    def to(self, node_id: int, address: str) -> Connection | None:
        """The connection to publish on what a node leads, after a publish that was forwarded to it; None: go on
        by way of the own node."""
        own = self._home.welcome
        if own is not None and own.node_id == node_id:
            return self._home
        leader = self._leaders.get(node_id)
        if leader is None:
            if len(self._leaders) >= LEADER_CONNECTIONS_MAX:
                return None
            leader = self._leaders[node_id] = _Leader()
        leader.answers += 1
        if anyio.current_time() < leader.not_before_s:
            return None
        if leader.connection is None and leader.answers >= LEADER_AFTER_ANSWERS:
            self._connect(leader, node_id, address)
        connection = leader.connection
        return connection if connection is not None and connection.ready else None

    def refused(self, connection: Connection) -> None:
        """A node has found no leader for what was published to it: nothing is for some time."""
        if isinstance(connection, LeaderConnection) and (leader := self._leaders.get(connection.node_id)):
            leader.not_before_s = anyio.current_time() + LEADER_RETRY_S

    def _connect(self, leader: _Leader, node_id: int, address: str) -> None:
        try:
            where = parse_addresses(address)[0]
        except BadRequest:
            leader.not_before_s = math.inf
            return
        connection = leader.connection = LeaderConnection(self._home, node_id, where)

        async def live() -> None:
            try:
                await connection.run()
            finally:
                leader.connection = None
                leader.not_before_s = anyio.current_time() + LEADER_RETRY_S

        self._home.spawn(live)

"""One Plait node, assembled: storage below, groups and partitions on it, the broker facade on top.

Node.open(environment, settings) ──> node.broker ──> gateways
                                     node.close() when the gateways are closed

A node is alone, or one of a cluster whose members are fixed when it is founded (members.py). Either way it is the
same code: whoever is alone needs nobody else's consent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256

import structlog

from cluster.catalogue import METADATA_GROUP
from cluster.limits import NodePressure
from cluster.rates import NS_PER_MS
from node.attending import Attendance
from node.broker import Broker
from node.departures import Departures
from node.door import Door
from node.founding import Founding
from node.groups import Groups
from node.hosting import Hosting
from node.identity import DISK_BITS, IdentityFile, NodeIdentity, read_identity
from node.lanes import Lanes
from node.leaders import Leaders
from node.members import Members
from node.metadata import Metadata
from node.origins import incarnation_of
from node.partition import PartitionContext
from node.questions import ReturnLeases
from node.replicas import Replicas
from node.routes import Routes
from plait.wire.batch import BatchLimits
from plait.wire.errors import BadRequest, Closed, StorageDamaged
from replication.actor import Actor, Host
from replication.environment import Environment
from replication.group import Group
from replication.peers.lives import MARK_BITS, Life
from replication.peers.peers import Peers
from replication.peers.protocol import Identity
from replication.peers.settings import PeerSettings
from replication.raft.settings import RaftSettings
from replication.storage.store import StorageFailed, StorageSettings, Store

WATCH_INTERVAL_MS = 100
"""How often the node looks at its disk and memory for admission's sake."""
MEMORY_PERCENT = 60
"""Share of the machine's memory that the node may use before it refuses publishes, unless it is told a size."""

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What a node is told at its start."""

    name: str = "plait"
    limits: BatchLimits = field(default_factory=BatchLimits)
    storage: StorageSettings = field(default_factory=StorageSettings)
    memory_bytes_max: int | None = None
    """Memory from which publishes are refused; None: MEMORY_PERCENT of the machine's."""
    node_id: int = 1
    initial: Mapping[int, Address] | None = None
    """Where each node of the cluster, this one included, is reached by the others; None: a cluster of one."""
    peer_listen: Address | None = None
    """Where this node listens for the others; None: where `initial` says that it is reached."""
    native: Address | None = None
    """Where clients reach this node, which other nodes tell them; None: they are not told."""
    raft: RaftSettings = field(default_factory=RaftSettings)
    peers: PeerSettings = field(default_factory=PeerSettings)


class Node:
    """Opened once; `broker` is there from then on."""

    broker: Broker

    def __init__(self, environment: Environment, settings: NodeSettings) -> None:
        self._environment = environment
        self._settings = settings
        self._logger = structlog.get_logger("plait.node")
        self.pressure = NodePressure()
        self.host = Host(environment.clock, self._actor_failed)
        self.members = Members(settings.node_id, sorted(settings.initial or (settings.node_id,)))
        self.peers: Peers | None = None

    @classmethod
    async def open(cls, environment: Environment, settings: NodeSettings | None = None) -> Node:
        """Recover the data directory and serve what is in it; in a cluster, as soon as a majority is there.

        Raises OSError for a directory or an address that cannot be used, StorageDamaged for a catalogue that
        cannot be read, BadRequest and AlreadyExists for a node that cannot be the one that it was told to be.
        """
        node = cls(environment, settings or NodeSettings())
        await node._open()
        return node

    async def close(self) -> None:
        """End in an orderly way: everyone who waits is answered, the log is sealed."""
        self.routes.stop()
        for partitions in self.replicas.all_partitions():
            for partition in partitions:
                partition.close(Closed("the broker is shutting down; nothing was done; connect again"))
        if self.peers is not None:
            await self.peers.close()
        await self.store.close()

    async def _open(self) -> None:
        environment, settings = self._environment, self._settings
        self.store = await Store.open(environment, settings.storage)
        environment.tasks.spawn("storage", self.store.run)
        environment.tasks.spawn("host", self.host.run)
        self._identity = IdentityFile(environment, await self._identify())
        if settings.initial is not None:
            await self._meet_the_others()
        await self._open_catalogue(self._identity.identity)
        await self._open_replicas()
        environment.tasks.spawn("watch", self._watch)

    # who this is

    async def _identify(self) -> NodeIdentity:
        """Find out who this node is. A node that is alone keeps no such file."""
        environment, node_id = self._environment, self._settings.node_id
        found = await environment.tasks.offload("identity", partial(read_identity, environment.disk))
        if self._settings.initial is None:
            if found is not None:
                raise BadRequest(
                    f"this is the data directory of node {found.node_id} of a cluster; nothing was begun: "
                    "name the cluster's nodes, or another directory"
                )
            return NodeIdentity(node_id, 0, 0)
        if found is None:
            if self.store.groups():
                raise BadRequest(
                    "this is the data directory of a broker that runs alone, and it cannot join others yet; "
                    "nothing was begun: name another directory"
                )
            found = NodeIdentity(node_id, environment.random.getrandbits(DISK_BITS), 0)
        if found.node_id != node_id:
            raise BadRequest(
                f"this is the data directory of node {found.node_id}, not {node_id}; nothing was begun: "
                "name its own"
            )
        if found.founders and tuple(sorted(found.founders)) != self.members.nodes:
            raise BadRequest(
                f"this node's cluster has the nodes {sorted(found.founders)}, not {list(self.members.nodes)}: "
                "they are fixed when it is founded; nothing was begun"
            )
        return found

    async def _meet_the_others(self) -> None:
        """Count this start, open the links, and see to it that the cluster is founded."""
        settings, environment = self._settings, self._environment
        assert settings.initial is not None, "there are others"
        mark = environment.random.getrandbits(MARK_BITS)
        identity = await self._keep(lambda known: known.started(mark))
        name = _name_of_cluster(settings.initial)
        own = Identity(name, settings.node_id, identity.starts, identity.past)
        peers = self.peers = Peers(environment, self.host, own, settings.peers)
        peers.lives = {node: meeting.life for node, meeting in identity.met.items()}
        peers.keep = self._identity.met
        peers.on_outlived = self._outlived
        peers.members_only = True
        founding = Founding(identity, self.members, peers, environment.clock)
        host, port = settings.peer_listen or settings.initial[settings.node_id]
        try:
            await peers.listen(host, port)
        except OSError as error:  # there are two addresses that a node listens on: say which
            raise OSError(error.errno, error.strerror, "peers", None, f"{host}:{port}") from error
        for node in self.members.others:
            peers.connect_to(node, *settings.initial[node])
        if not identity.founders:
            founders = await founding.agree()
            founding.identity = await self._keep(lambda known: replace(known, founders=founders))

    async def _keep(self, changed: Callable[[NodeIdentity], NodeIdentity]) -> NodeIdentity:
        """Change this node's facts while it starts. Raises StorageFailed."""
        try:
            return await self._identity.change(changed)
        except OSError as error:
            raise StorageFailed(f"this node's facts cannot be written, so it does not start: {error}") from error

    def _outlived(self, sentence: str) -> None:
        """Another node has seen this one on a later disk: nothing may be said in this one's name."""

        async def end() -> None:
            raise StorageDamaged(f"{sentence} [told by another node]")

        self._environment.tasks.spawn("outlived", end)

    # what it has

    async def _open_catalogue(self, identity: NodeIdentity) -> None:
        settings, environment = self._settings, self._environment
        cluster_id = identity.cluster_id if identity.founders else ""
        self.metadata = Metadata(self.host, environment, settings.node_id, cluster_id, self.peers)
        self.groups = Groups(environment, self.host, self.store, self.members, settings.raft, self.peers)
        await self.groups.open(METADATA_GROUP, self.metadata.replica)
        if self.members.alone:
            await self.metadata.replica.settled.wait()
        native = f"{settings.native[0]}:{settings.native[1]}" if settings.native is not None else ""
        await self.metadata.join(settings.name, identity.starts, native)
        if self.peers is not None:  # a node that comes with an older disk than the catalogue knows is refused
            for node, start in self.metadata.whereabouts.incarnations().items():
                if start > self.peers.seen(node).number:
                    self.peers.lives[node] = Life(start)

    async def _open_replicas(self) -> None:
        environment, metadata = self._environment, self.metadata
        self.replicas = Replicas(self.groups, self._context(), metadata.catalogue, metadata.spread)
        self._stand_by_the_catalogue()
        metadata.on_standing = self._stand_by_the_catalogue
        metadata.on_change = self.replicas.changed
        self.broker = self._make_broker()
        await self.replicas.open_all()
        environment.tasks.spawn("catalogue", self.replicas.follow)

    def _make_broker(self) -> Broker:
        """The facade, and behind it the ways to whoever leads."""
        environment, metadata, replicas, peers = self._environment, self.metadata, self.replicas, self.peers
        deleted = metadata.catalogue.group_is_deleted
        leaders = Leaders(self.members.node_id, replicas.group, self.members.nodes_of)
        routes = self.routes = Routes(
            leaders, replicas, replicas.leads, deleted, peers, environment.tasks, environment.clock
        )
        incarnation = incarnation_of(metadata.node_id, metadata.incarnation) if peers is not None else 0
        lanes = self.lanes = Lanes(self.host, leaders, replicas, deleted, peers, incarnation)
        replicas.on_closed = [lanes.forget, leaders.forget]
        departures = Departures(self.host, lambda group, names: routes.ask(group, ReturnLeases(names)), deleted)
        attendance = Attendance(
            routes, replicas, deleted, departures.departed, peers, environment.tasks, environment.clock
        )
        if peers is not None:
            Door(peers, replicas)
            Hosting(self.host, peers, replicas)
        limits = self._settings.limits
        return Broker(metadata, replicas, routes, lanes, attendance, limits, environment.tasks, environment.clock)

    def _context(self) -> PartitionContext:
        environment = self._environment
        return PartitionContext(
            self.host,
            environment.clock,
            environment.tasks,
            self.pressure,
            self.members.alone,
            self.metadata.whereabouts,
            send_dead_letters=lambda queue, group, batch: self.broker.publish_dead_letters(queue, group, batch),
        )

    def _stand_by_the_catalogue(self) -> None:
        """What is new is led where the catalogue is led: that node hears of it first."""
        self.groups.eager = self.metadata.replica.ready and not self.members.alone

    # what it does all the time

    async def _watch(self) -> None:
        """Keep admission informed of what the disk and the memory can take."""
        clock, pressure = self._environment.clock, self.pressure
        while True:
            memory = self._environment.memory()
            most = self._settings.memory_bytes_max or memory.machine_bytes * MEMORY_PERCENT // 100
            pressure.storage = self.store.pressure
            pressure.memory_percent = memory.used_bytes * 100 // most if most else 0
            await clock.sleep_until(clock.monotonic_ns() + WATCH_INTERVAL_MS * NS_PER_MS)

    def _actor_failed(self, actor: Actor, error: Exception) -> None:
        """An actor's own defect: its group is fenced, everything else goes on (the log has the traceback)."""
        group = actor if isinstance(actor, Group) else getattr(actor, "group", None)
        if isinstance(group, Group):
            group.fence(f"{actor.name} failed: {error!r}")


def _name_of_cluster(initial: Mapping[int, Address]) -> str:
    """Nodes talk only to such that were told the same members."""
    told = ",".join(f"{node}={host}:{port}" for node, (host, port) in sorted(initial.items()))
    return f"members {sha256(told.encode()).hexdigest()[:16]}"

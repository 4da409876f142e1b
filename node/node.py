"""One Plait node, assembled: storage below, groups and partitions on it, the broker facade on top.

Node.open(environment, settings) ──> node.broker ──> gateways
                                     node.close() when the gateways are closed

    empty disk ──alone──> founds a cluster of one ─┐
               ──initial──> founds it with others ─┼──> links ──> catalogue ──> registers ──> opens its replicas
               ──join──> is given an id ───────────┘
    a disk with facts (identity.py) goes on as the node that it is
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256

import structlog
import trio

from cluster.catalogue import COORDINATORS, METADATA_GROUP, Result, first_voters
from cluster.commands import Bootstrap, DeleteTopic, RegisterNode, ResizeTopic, WentOver
from cluster.features import FEATURES
from cluster.limits import NodePressure
from cluster.nodes import Node as ClusterNode
from node.attending import Attendance
from node.broker import Broker
from node.controller import Controller, ControllerSettings
from node.departures import Departures
from node.door import Door
from node.founding import Founding
from node.groups import Groups
from node.handover import Handover
from node.health import MEETING, OPENING, REGISTERING, SERVING, Health
from node.hosting import Hosting
from node.identity import DISK_BITS, FILES, IdentityFile, NodeIdentity, read_identity
from node.joining import Doorkeeper, check_cluster, join_cluster
from node.lanes import Lanes
from node.leaders import Leaders
from node.leading import Leading
from node.metadata import Metadata
from node.moving import Moving
from node.neighbours import Neighbours
from node.origins import incarnation_of
from node.partition import PartitionContext
from node.questions import ReturnLeases
from node.replicas import Replicas
from node.routes import Routes
from node.spaces import Spaces
from node.status import Status
from node.watch import Watch
from plait.wire.addresses import join_address
from plait.wire.batch import BatchLimits
from plait.wire.errors import BadRequest, StorageDamaged, Unavailable
from replication.actor import Actor, Host
from replication.environment import Environment
from replication.group import Group
from replication.peers.joining import Join
from replication.peers.lives import MARK_BITS, Life
from replication.peers.peers import Peers
from replication.peers.proof import ClusterKey
from replication.peers.protocol import Identity
from replication.peers.settings import PeerSettings
from replication.raft.membership import Membership
from replication.raft.settings import RaftSettings
from replication.storage.store import StorageFailed, StorageSettings, Store

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What a node is told at its start."""

    name: str = ""
    """What people call it; "": node- and its id."""
    limits: BatchLimits = field(default_factory=BatchLimits)
    storage: StorageSettings = field(default_factory=StorageSettings)
    memory_bytes_max: int | None = None
    """Memory from which publishes are refused; None: a share of the machine's (watch.py)."""
    node_id: int = 1
    """Of one that founds a cluster; a node that joins is given its id."""
    initial: Mapping[int, Address] | None = None
    """The nodes that found a cluster together, this one included, and where they reach each other."""
    join: Sequence[Address] = ()
    """Where nodes of a cluster are reached, for a node whose disk is empty."""
    peer_listen: Address | None = None
    """Where this node listens for others; None: where `initial` says, and a node that is alone does not."""
    peer_optional: bool = False
    """A node that is alone goes without, if it cannot listen there."""
    peer: Address | None = None
    """Where other nodes reach it; None: as `initial` says, or where it listens."""
    native: Address | None = None
    """Where clients reach this node, which other nodes tell them; None: they are not told."""
    rack: str = ""
    secret: bytes = field(default=b"", repr=False)
    """What the nodes of the cluster prove to each other that they know; none: nothing is proven."""
    raft: RaftSettings = field(default_factory=RaftSettings)
    peers: PeerSettings = field(default_factory=PeerSettings)
    spread_leaders: bool = True
    """Whether leadership is handed to the nodes that the catalogue prefers; else it stays where it comes to be."""
    controller: ControllerSettings = field(default_factory=ControllerSettings)


class Node:
    """Opened once; `broker` is there from then on."""

    broker: Broker
    peers: Peers

    def __init__(self, environment: Environment, settings: NodeSettings, health: Health | None = None) -> None:
        self._environment = environment
        self.health = health or Health()
        self._settings = settings
        self._logger = structlog.get_logger("plait.node")
        self.pressure = NodePressure()
        self.host = Host(environment.clock, self._actor_failed)
        self._key: ClusterKey | None = None
        self._peer = settings.peer or (settings.initial or {}).get(settings.node_id)
        self.removed = trio.Event()
        """Set when the cluster has removed it while it served: whoever runs it ends it."""

    @classmethod
    async def open(
        cls, environment: Environment, settings: NodeSettings | None = None, health: Health | None = None
    ) -> Node:
        """Recover the data directory and serve what is in it; in a cluster, as soon as a majority is there.

        `health` says meanwhile how far it is.

        Raises OSError for a directory or an address that cannot be used, StorageDamaged for a catalogue that
        cannot be read, BadRequest and AlreadyExists for a node that cannot be the one that it was told to be.
        """
        node = cls(environment, settings or NodeSettings(), health)
        await node._open()
        return node

    @property
    def node_id(self) -> int:
        """Its id in the cluster."""
        return self._identity.identity.node_id

    async def hand_over(self) -> None:
        """Give what is led here to other nodes, as far as they can take it; the first step of an orderly end."""
        self._leading.stop()
        await self.handover.run()

    async def close(self) -> None:
        """End in an orderly way: everyone who waits is answered, the log is sealed."""
        self.routes.stop()
        for partition in self.replicas.all_partitions():
            partition.close(
                Unavailable("this node is about to end; nothing was done; ask another one or connect again")
            )
        await self.peers.close()
        await self.store.close()

    async def _open(self) -> None:
        environment, settings = self._environment, self._settings
        health = self.health
        self.store = health.store = await Store.open(environment, settings.storage)
        environment.tasks.spawn("storage", self.store.run)
        environment.tasks.spawn("host", self.host.run)
        health.stage = MEETING
        found = await environment.tasks.offload("identity", partial(read_identity, environment.disk))
        if settings.secret:
            self._key = await environment.tasks.offload("secret", partial(ClusterKey, settings.secret))
        identity = found or await self._begin()
        self._check(identity)
        self._identity = IdentityFile(environment, identity)
        if found is not None and settings.join:
            await check_cluster(environment, settings.join, self._introduction(identity), self._key)
        await self._meet_the_others()
        health.peers, health.stage = self.peers, REGISTERING
        await self._open_catalogue()
        health.stage = OPENING
        await self._open_replicas()
        self.watch = Watch(
            environment,
            self.store,
            self.pressure,
            self.groups.standings,
            settings.memory_bytes_max,
            self._spaces.look,
        )
        environment.tasks.spawn("watch", self.watch.run)
        self.peers.on_forgotten = self._forgotten
        health.stage = SERVING

    # who this is

    async def _begin(self) -> NodeIdentity:
        """The facts of a node whose disk is empty. Raises StorageDamaged for one that is not."""
        settings, environment = self._settings, self._environment
        if self.store.groups():
            raise StorageDamaged(
                "this data directory has messages, but the files that say which node it is of are gone "
                f"({' and '.join(FILES)}); nothing was begun: bring one of them back"
            )
        disk = environment.random.getrandbits(DISK_BITS) | 1
        if settings.join:
            identity = NodeIdentity(0, disk, 0)
            joined = await join_cluster(environment, settings.join, self._introduction(identity), self._key)
            addresses = dict(joined.addresses)
            return replace(identity, node_id=joined.node, cluster=joined.cluster, addresses=addresses)
        if settings.initial is not None:
            return NodeIdentity(settings.node_id, disk, 0, cluster=_name_of_cluster(settings.initial))
        alone = NodeIdentity(settings.node_id, disk, 0, founders={settings.node_id: disk})
        return replace(alone, cluster=alone.cluster_id)

    def _introduction(self, identity: NodeIdentity) -> Join:
        settings = self._settings
        if self._peer is None or self._peer[1] == 0:
            raise BadRequest(
                "a node that joins others says where they reach it; nothing was begun: name an address with a port"
            )
        return Join(
            identity.disk,
            settings.name or "node",
            join_address(*self._peer),
            join_address(*settings.native) if settings.native is not None else "",
            settings.rack,
            FEATURES,
            identity.cluster,
            identity.node_id,
        )

    def _check(self, identity: NodeIdentity) -> None:
        """Raises BadRequest where this is not the disk of the node that this one was told to be."""
        initial = self._settings.initial
        if initial is None:
            return
        if identity.node_id != self._settings.node_id:
            raise BadRequest(
                f"this is the data directory of node {identity.node_id}, not {self._settings.node_id}; "
                "nothing was begun: name its own"
            )
        if identity.founders and sorted(identity.founders) != sorted(initial):
            raise BadRequest(
                f"this node's cluster was founded by the nodes {sorted(identity.founders)}, not {sorted(initial)};"
                " nothing was begun: say --initial as it was then, or leave it out, or name another directory"
            )

    async def _meet_the_others(self) -> None:
        """Count this start, open the links, and see to it that the cluster is founded."""
        settings, environment = self._settings, self._environment
        mark = environment.random.getrandbits(MARK_BITS)
        identity = await self._keep(lambda known: known.started(mark))
        own = Identity(identity.cluster, identity.node_id, identity.starts, identity.past)
        peers = self.peers = Peers(environment, self.host, own, settings.peers, self._key)
        peers.lives = {node: meeting.life for node, meeting in identity.met.items()}
        peers.keep = self._identity.met
        peers.on_outlived = peers.on_forgotten = self._outlived
        peers.members_only = True
        self._neighbours = Neighbours(peers, self._identity, environment.tasks)
        nodes = sorted(settings.initial or identity.founders or [identity.node_id])
        founding = Founding(identity, nodes, peers, environment.clock)
        await self._listen()
        self._neighbours.expect(identity.addresses)
        if settings.initial is not None:
            self._neighbours.expect({node: join_address(*each) for node, each in settings.initial.items()})
        if (
            settings.initial is not None
            and not identity.founders
            and identity.cluster == _name_of_cluster(settings.initial)
        ):
            founders = await founding.agree()
            founding.identity = await self._keep(lambda known: replace(known, founders=founders))

    async def _listen(self) -> None:
        settings = self._settings
        where = settings.peer_listen or self._peer
        if where is None:
            return
        host, port = where
        try:
            listening = await self.peers.listen(host, port)
        except OSError as error:
            if settings.peer_optional and list(self._identity.identity.founders) == [self.node_id]:
                self._logger.warning("no node can join this one", address=f"{host}:{port}", why=error.strerror)
                return
            # there are two addresses that a node listens on: say which
            raise OSError(error.errno, error.strerror, "peers", None, f"{host}:{port}") from error
        self._peer = self._peer or listening

    async def _keep(self, changed: Callable[[NodeIdentity], NodeIdentity]) -> NodeIdentity:
        """Change this node's facts while it starts. Raises StorageFailed."""
        try:
            return await self._identity.change(changed)
        except OSError as error:
            raise StorageFailed(f"this node's facts cannot be written, so it does not start: {error}") from error

    def _outlived(self, sentence: str) -> None:
        """Another node has seen this one on a later disk, or knows that it was removed, while it starts: nothing
        may be said in this one's name."""

        async def end() -> None:
            raise StorageDamaged(f"{sentence} [told by another node]")

        self._environment.tasks.spawn("outlived", end)

    def _forgotten(self, sentence: str) -> None:
        if not self.removed.is_set():
            self._logger.info("removed from the cluster", why=sentence)
            self.removed.set()

    # what it has

    async def _open_catalogue(self) -> None:
        settings, environment, identity = self._settings, self._environment, self._identity.identity
        founders = dict(identity.founders)
        founding = Bootstrap(identity.cluster_id, 0, founders, COORDINATORS) if founders else None
        metadata = self.metadata = Metadata(self.host, environment, identity.node_id, founding, self.peers)
        self.health.metadata = metadata
        self.groups = Groups(environment, self.host, self.store, identity.node_id, settings.raft, self.peers)
        self._keep_house()
        members = None
        if founders:
            votes = first_voters(founders)
            voters, learners = ({n: n for n in founders if votes[n] is each} for each in (True, False))
            members = Membership(voters, learners)
        await self.groups.open(METADATA_GROUP, identity.node_id, metadata.replica, members, eager=False)
        if self._is_alone():
            await metadata.replica.settled.wait()
        await metadata.join(
            RegisterNode(
                identity.node_id,
                settings.name or f"node-{identity.node_id}",
                0,
                identity.starts,
                join_address(*settings.native) if settings.native is not None else "",
                join_address(*self._peer) if self._peer is not None else "",
                settings.rack,
                FEATURES,
            )
        )
        for node, start in metadata.whereabouts.incarnations().items():
            if start > self.peers.seen(node).number and node != identity.node_id:
                self.peers.lives[node] = Life(start)  # one that comes with an older disk than that is refused
        own = (identity.node_id, join_address(*self._peer) if self._peer is not None else "")
        self.peers.let_in = Doorkeeper(metadata, identity.cluster, own).let_in

    def _is_alone(self) -> bool:
        """The catalogue has no replica but this one."""
        group = self.metadata.replica.group
        return group is not None and list(group.membership.members()) == [self.node_id]

    def _keep_house(self) -> None:
        """Those who see to it that replicas and leaders are where they should be."""
        host, metadata, is_up = self.host, self.metadata, self.peers.is_up
        catalogue = metadata.catalogue
        self._moving = Moving(host, catalogue, self.node_id, metadata.ask)
        self.handover = Handover(self._environment.clock, self.peers, lambda: list(self.groups.opened.values()))
        self._spaces = Spaces(self.peers, self.pressure, self._space_changed)
        self._leading = Leading(
            host,
            catalogue,
            self.node_id,
            lambda node: self.handover.may_lead(node) and self._spaces.may_take(node),
            self.pressure.leaving,
            spreads=self._settings.spread_leaders,
        )
        self._controller = Controller(
            host, catalogue, self.node_id, is_up, metadata.ask, self._settings.controller
        )
        self.peers.on_node.append(self._node_changed)
        metadata.on_standing = self._catalogue_stands
        metadata.on_change = self._catalogue_changed

    async def _open_replicas(self) -> None:
        environment, metadata = self._environment, self.metadata
        self.replicas = Replicas(self.groups, self._context(), metadata.catalogue, metadata.spread)
        self.replicas.placed = self._placed
        metadata.on_change = self._catalogue_changed_here
        self.broker = self._make_broker()
        self.broker.status = Status(
            environment, self.health, metadata.catalogue, self.peers, self.groups, self.replicas, self.store
        )
        await self.replicas.open_all()
        environment.tasks.spawn("catalogue", self.replicas.follow)
        self._placed(METADATA_GROUP)

    def _make_broker(self) -> Broker:
        """The facade, and behind it the ways to whoever leads."""
        environment, metadata, replicas, peers = self._environment, self.metadata, self.replicas, self.peers
        deleted = metadata.catalogue.group_is_deleted
        leaders = Leaders(self.node_id, replicas.group, metadata.whereabouts.nodes_of)
        routes = self.routes = Routes(
            leaders, replicas, replicas.leads, deleted, peers, environment.tasks, environment.clock
        )
        incarnation = incarnation_of(metadata.node_id, metadata.incarnation)
        lanes = self.lanes = Lanes(self.host, leaders, replicas, deleted, peers, incarnation, self.pressure)
        door = self.door = Door(peers, replicas, deleted)
        replicas.on_closed = [lanes.forget, leaders.forget, door.forget]
        departures = Departures(self.host, lambda group, names: routes.ask(group, ReturnLeases(names)), deleted)
        attendance = Attendance(
            routes, replicas, deleted, departures.departed, peers, environment.tasks, environment.clock
        )
        Hosting(self.host, peers, replicas)
        limits = self._settings.limits
        return Broker(metadata, replicas, routes, lanes, attendance, limits, environment.tasks)

    def _context(self) -> PartitionContext:
        environment = self._environment
        catalogue = self.metadata.catalogue
        return PartitionContext(
            self.host,
            environment.clock,
            environment.tasks,
            self.pressure,
            lambda: len(catalogue.nodes()) <= 1,
            self.metadata.whereabouts,
            send_dead_letters=lambda queue, group, batch: self.broker.publish_dead_letters(queue, group, batch),
            standing=self._group_stands,
        )

    # what changes

    def _group_stands(self, group: Group, leads: bool) -> None:
        self._moving.standing(group, leads)
        self._leading.standing(group, leads)

    def _catalogue_stands(self) -> None:
        replica = self.metadata.replica
        if replica.group is not None:
            self._moving.standing(replica.group, replica.ready)
            self._leading.standing(replica.group, replica.ready)
        self._controller.standing(replica.ready)

    def _catalogue_changed(self, result: Result | None) -> None:
        if result is None or isinstance(result.value, ClusterNode):
            self._neighbours.look(self.metadata.catalogue)
            self._leading.look()
            self._controller.look()
        elif isinstance(result.command, ResizeTopic | DeleteTopic):
            self._controller.look()  # there is less on some nodes than on others, or too little
        elif isinstance(result.command, WentOver) and not self.metadata.catalogue.assignments.unsettled:
            self._controller.look()  # one move may make room for the next

    def _catalogue_changed_here(self, result: Result | None) -> None:
        self._catalogue_changed(result)
        self.replicas.changed(result)
        if result is None or isinstance(result.command, ResizeTopic):
            self.broker.catalogue_changed()

    def _space_changed(self) -> None:
        self._leading.relieve(self._spaces.is_short)

    def _placed(self, group: int) -> None:
        self._moving.placed(group)
        self._leading.look()

    def _node_changed(self, node: int, up: bool) -> None:
        self.handover.node_changed(node)
        self._leading.look()
        self._controller.look()

    def _actor_failed(self, actor: Actor, error: Exception) -> None:
        """An actor's own defect: its group is fenced, everything else goes on (the log has the traceback)."""
        group = actor if isinstance(actor, Group) else getattr(actor, "group", None)
        if isinstance(group, Group):
            group.fence(f"{actor.name} failed: {error!r}")


def _name_of_cluster(initial: Mapping[int, Address]) -> str:
    """Nodes talk only to such that were told the same members."""
    told = ",".join(f"{node}={host}:{port}" for node, (host, port) in sorted(initial.items()))
    return f"members {sha256(told.encode()).hexdigest()[:16]}"

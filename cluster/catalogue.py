"""The metadata group's state machine: what the cluster knows about itself.

    command bytes ──apply_command(index)──> Result (an answer for the proposer) + the next state

Pure and deterministic: every node applies the same commands in the same order and holds the same catalogue.
A command that cannot be carried out is answered with an error and changes nothing. Ids come from counters in
the state that only rise, so none is ever used again; deleting and creating a name gives new ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import cbor2

from cluster.assignment import Assignment, Place, founded, metadata_founded
from cluster.assignments import Assignments
from cluster.commands import (
    AddNode,
    AllocateProducers,
    Bootstrap,
    ChangeNode,
    Command,
    CreateTopic,
    Declare,
    DeleteTopic,
    Reassign,
    RegisterNode,
    RemoveNode,
    ResizeTopic,
    WentOver,
    decode_command,
)
from cluster.names import check_queue_name, check_topic_name, is_internal
from cluster.nodes import Node, Nodes
from cluster.placement import REPLICAS_DEFAULT, Site, metadata_voters, place
from cluster.settings import Kind, Settings, check_kind, settings_from, settings_to_mapping
from plait.wire.errors import (
    AlreadyExists,
    BadRequest,
    LimitReached,
    NameInvalid,
    NotFound,
    PlaitError,
    SettingInvalid,
    Unavailable,
)
from replication.environment import Buffer

SNAPSHOT_FORMAT = 2
"""Version of the encoding of a snapshot."""
METADATA_GROUP = 0
"""The group that replicates this catalogue; partitions' groups follow from 1."""
COORDINATOR_TOPIC = "plait.subscriptions"
"""The internal topic whose partitions keep the positions of stream subscriptions, and consumer groups."""
COORDINATORS = 8
"""Coordinator partitions of a cluster that is founded now; a subscription's name decides which one has it."""
COORDINATORS_MAX = 64
"""Coordinator partitions of any cluster."""
PRODUCER_BLOCK_IDS = 1_000
"""Producer ids given to a node at a time."""
TOPICS_MAX = 100_000
"""Topics and queues of a cluster."""
PARTITIONS_TOTAL_MAX = 200_000
"""Partitions of all topics and queues of a cluster together."""
CLUSTER_ID_CHARACTERS_MAX = 64
"""Characters of a cluster id."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic or queue as the cluster knows it."""

    topic_id: int
    kind: Kind
    name: str
    settings: Settings
    groups: tuple[int, ...]
    """The group of each partition."""
    created_ms: int

    @property
    def internal(self) -> bool:
        """Whether it is one of the broker's own."""
        return is_internal(self.name)


@dataclass(frozen=True, slots=True)
class ProducerBlock:
    """Producer ids that one node may give out."""

    first: int
    last: int
    """Included."""


Value = str | Node | Topic | ProducerBlock | None
"""What a command comes to."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one command."""

    command: Command
    value: Value
    """Bootstrap: the cluster id; of a command for a node: the node; for a topic: the topic; or its error."""
    error: PlaitError | None
    changed: bool
    """Whether the catalogue is another one now: no for an error, and for a create of what is there already."""
    version: int
    """The catalogue's version behind this command."""


class Catalogue:
    """The state. Everyone may read it; only `apply_command` and `restore` change it."""

    def __init__(self) -> None:
        self.cluster_id = ""
        """"" until Bootstrap."""
        self.version = 0
        """How many commands have changed something."""
        self.applied_index = 0
        self.last_stamp_ms = 0
        """Time as the log knows it: the largest stamp so far."""
        self._next_topic_id = 1
        self._next_group = METADATA_GROUP + 1
        self._next_producer = 1
        self._members = Nodes()
        self._assignments = Assignments()
        self._topics: dict[int, Topic] = {}  # in the order of ids, because they only rise
        self._by_name: dict[str, Topic] = {}
        self._by_group: dict[int, tuple[Topic, int]] = {}
        # a topic hardly ever changes once made, so its part of the snapshot is encoded once
        self._encoded: dict[int, bytes] = {}

    # reading

    def topic(self, name: str) -> Topic | None:
        """The topic or queue of that name."""
        return self._by_name.get(name)

    def topic_by_id(self, topic_id: int) -> Topic | None:
        """The topic or queue of that id."""
        return self._topics.get(topic_id)

    def partition_of(self, group: int) -> tuple[Topic, int] | None:
        """The topic and partition number that a group holds."""
        return self._by_group.get(group)

    def topics(self, kind: Kind | None = None) -> Iterator[Topic]:
        """All topics and queues, or those of one kind, the internal ones too, in the order of creation."""
        return (topic for topic in self._topics.values() if kind is None or topic.kind == kind)

    def node(self, node_id: int) -> Node | None:
        """The node of that id."""
        return self._members.get(node_id)

    def nodes(self) -> list[Node]:
        """All nodes, by id."""
        return self._members.all()

    def node_was_removed(self, node_id: int) -> bool:
        """Whether a node was of the cluster, and is not any more, for good."""
        return self._members.was_removed(node_id)

    def node_of_disk(self, disk: int) -> Node | None:
        """The node that has this data directory."""
        return self._members.joined(disk)

    @property
    def features(self) -> int:
        """What every node knows (cluster/features.py)."""
        return self._members.features

    def assignment(self, group: int) -> Assignment | None:
        """Where a group's replicas are to be; None for one that is not there (any more)."""
        return self._assignments.get(group)

    @property
    def assignments(self) -> Assignments:
        """Of all groups."""
        return self._assignments

    def group_is_deleted(self, group: int) -> bool:
        """Whether the group was given out and its topic deleted: its data may go.

        A group that this catalogue never gave out is not deleted but unknown: its data must stay.
        """
        return METADATA_GROUP < group < self._next_group and group not in self._by_group

    def replica_is_gone(self, group: int, replica: int) -> bool:
        """Whether the replica was given out and is neither wanted nor on its way out: its data may go."""
        assignment = self._assignments.get(group)
        if assignment is None:
            return self.group_is_deleted(group)
        there = any(each.replica == replica for each in (*assignment.wanted, *assignment.leaving))
        return group != METADATA_GROUP and replica < assignment.next_replica and not there

    def topic_is_deleted(self, topic_id: int) -> bool:
        """Whether the topic was there and is not any more; False for one that this catalogue has not heard of."""
        return topic_id < self._next_topic_id and topic_id not in self._topics

    # changing

    def apply_command(self, index: int, payload: Buffer) -> Result:
        """Apply the committed command of that log index. Raises CommandUnknown, having changed nothing."""
        assert index > self.applied_index, f"index {index} behind {self.applied_index}: applied twice"
        command = decode_command(payload)
        self.applied_index = index
        before = self.version
        try:
            value = self._apply(command)
        except PlaitError as error:
            assert self.version == before, "a rejected command changed the catalogue"
            return Result(command, None, error, False, self.version)
        return Result(command, value, None, self.version != before, self.version)

    def _apply(self, command: Command) -> Value:
        if isinstance(command, Bootstrap):
            return self._bootstrap(command)
        if not self.cluster_id:
            raise Unavailable("the cluster is not founded yet; nothing was done; try again")
        return self._carry_out(command)

    def _carry_out(self, command: Command) -> Value:
        match command:
            case CreateTopic():
                return self._create(command)
            case DeleteTopic():
                return self._delete(command)
            case ResizeTopic():
                return self._resize(command)
            case AllocateProducers():
                return self._allocate(command)
            case Reassign():
                return self._reassign(command)
            case WentOver():
                return self._went_over(command)
            case RegisterNode():
                return self._register(command)
            case AddNode():
                return self._add_node(command)
            case ChangeNode():
                return self._change_node(command)
            case RemoveNode():
                return self._remove_node(command)
            case Declare():
                return self._declare(command)
        raise AssertionError(f"a command that nobody carries out: {command!r}")

    def _bootstrap(self, command: Bootstrap) -> str:
        if not 0 < len(command.cluster_id) <= CLUSTER_ID_CHARACTERS_MAX:
            raise BadRequest(f"a cluster id has 1 to {CLUSTER_ID_CHARACTERS_MAX} characters")
        if not 0 < command.coordinators <= COORDINATORS_MAX:
            raise BadRequest(f"a cluster has 1 to {COORDINATORS_MAX} coordinators, not {command.coordinators}")
        if self.cluster_id and self.cluster_id != command.cluster_id:
            raise AlreadyExists(f"this is cluster {self.cluster_id} already; {command.cluster_id} was not founded")
        if not self.cluster_id:
            if not command.founders:
                raise BadRequest("a cluster is founded by one node at least; nothing was founded")
            self._members.found(command.founders, command.stamp_ms)
            self.cluster_id = command.cluster_id
            self._assignments.keep(METADATA_GROUP, metadata_founded(first_voters(command.founders)))
            settings = settings_from("topic", {"partitions": command.coordinators, "retention_ms": None})
            self._add("topic", COORDINATOR_TOPIC, settings, self._changed(command.stamp_ms), ())
        return self.cluster_id

    # nodes

    def _register(self, command: RegisterNode) -> Node:
        known = self._members.registered(command)
        if known is not None:
            return known
        node = self._members.register(command, self._changed(command.stamp_ms))
        self._give_catalogue(node)
        return node

    def _add_node(self, command: AddNode) -> Node:
        known = self._members.joined(command.disk)
        if known is not None:
            return known
        node = self._members.add(command, max(self.last_stamp_ms, command.stamp_ms))
        self._changed(command.stamp_ms)
        self._give_catalogue(node)
        return node

    def _give_catalogue(self, node: Node) -> None:
        """Every node learns the catalogue; who votes is for the controller to say."""
        assignment = self._assignments.get(METADATA_GROUP)
        assert assignment is not None, "it is there from the founding on"
        if assignment.replica_on(node.node_id) is None:
            places = [*assignment.places, Place(node.node_id, False)]
            self._assignments.keep(METADATA_GROUP, assignment.reassigned(places, numbered=True))

    def _change_node(self, command: ChangeNode) -> Node:
        node = self._members.changed(command)
        known = self._members.find(command.node_id)
        if node == known:
            return known
        others = [each for each in self.nodes() if each.state == "active" and each.node_id != node.node_id]
        if node.state != "active" and not others:
            raise Unavailable(
                f"node {node.node_id} is the last one that serves: nobody could take what it has; "
                "nothing was changed"
            )
        self._changed(command.stamp_ms)
        return self._members.change(node)

    def _declare(self, command: Declare) -> Node:
        node = self._members.declared(command)
        if node != self._members.get(command.node_id):
            self._changed(command.stamp_ms)
            self._members.change(node)
        return node

    def _remove_node(self, command: RemoveNode) -> Node:
        node = self._members.find(command.node_id)
        if node.state != "leaving" or self._assignments.replicas_on(node.node_id):
            raise Unavailable(
                f"node {node.node_id} still has {self._assignments.replicas_on(node.node_id)} replicas or was not "
                "told to leave; it was not removed"
            )
        self._changed(command.stamp_ms)
        self._members.remove(node.node_id)
        return node

    # topics

    def _create(self, command: CreateTopic) -> Topic:
        kind = check_kind(command.kind)
        (check_topic_name if kind == "topic" else check_queue_name)(command.name)
        settings = settings_from(kind, command.settings)
        if getattr(settings, "dead_letter", None) == command.name:
            raise SettingInvalid(f"setting dead_letter: {command.name} cannot take its own dead letters")
        found = self._by_name.get(command.name)
        if found is not None:
            if found.kind == kind and found.settings == settings:
                return found
            raise AlreadyExists(_difference(found, kind, settings))
        if len(self._topics) >= TOPICS_MAX or len(self._by_group) + settings.partitions > PARTITIONS_TOTAL_MAX:
            raise LimitReached(
                f"{command.name} was not created: a cluster has at most {TOPICS_MAX:,} topics and queues and "
                f"{PARTITIONS_TOTAL_MAX:,} partitions; delete some first"
            )
        return self._add(kind, command.name, settings, self._changed(command.stamp_ms), command.avoid)

    def _delete(self, command: DeleteTopic) -> Topic:
        found = self._by_name.get(command.name)
        if found is None or command.topic_id not in (0, found.topic_id):
            raise NotFound(f"there is no topic or queue {command.name!r}; nothing was deleted")
        if found.internal:
            raise NameInvalid(f"{command.name} is the broker's own; it was not deleted")
        self._changed(command.stamp_ms)
        del self._topics[found.topic_id], self._by_name[found.name], self._encoded[found.topic_id]
        for group in found.groups:
            del self._by_group[group]
            self._assignments.drop(group)
        return found

    def _resize(self, command: ResizeTopic) -> Topic:
        found = self._by_name.get(command.name)
        if found is None or found.internal:
            raise NotFound(f"there is no topic or queue {command.name!r}; nothing was changed")
        plain = settings_to_mapping(found.settings)
        if command.partitions:
            plain["partitions"] = command.partitions
        if command.replicas:
            plain["replicas"] = command.replicas
        settings = settings_from(found.kind, plain)
        more = settings.partitions - len(found.groups)
        if more < 0:
            raise SettingInvalid(
                f"{found.name} has {len(found.groups)} partitions, and cannot have fewer: keys would move; "
                "nothing was changed"
            )
        if len(self._by_group) + more > PARTITIONS_TOTAL_MAX:
            raise LimitReached(
                f"{found.name} was not changed: a cluster has at most {PARTITIONS_TOTAL_MAX:,} partitions"
            )
        if settings == found.settings:
            return found
        self._changed(command.stamp_ms)
        groups = self._new_groups(more, settings, command.avoid)
        topic = replace(found, settings=settings, groups=(*found.groups, *groups))
        self._keep(topic)
        return topic

    # replicas

    def _reassign(self, command: Reassign) -> Topic | None:
        assignment = self._current(command.group, command.epoch)
        places = [Place(node, bool(votes)) for node, votes in command.places]
        if not any(votes for _, votes in places) or len({node for node, _ in places}) < len(places):
            raise BadRequest(f"group {command.group} needs a voter, and each node once; nothing was changed")
        for node, _ in places:
            self._members.find(node)
        self._changed(command.stamp_ms)
        numbered = command.group == METADATA_GROUP
        changed = assignment.reassigned(places, command.renew, numbered=numbered)
        self._assignments.keep(command.group, changed)
        return self._topic_of(command.group)

    def _went_over(self, command: WentOver) -> Topic | None:
        assignment = self._current(command.group, command.epoch)
        if not assignment.settled:
            self._changed(command.stamp_ms)
            self._assignments.keep(command.group, assignment.went_over())
        return self._topic_of(command.group)

    def _current(self, group: int, epoch: int) -> Assignment:
        assignment = self._assignments.get(group)
        if assignment is None:
            raise NotFound(f"group {group} is not there (any more); nothing was changed")
        if assignment.epoch != epoch:
            raise Unavailable(f"group {group} was assigned anew meanwhile; nothing was changed")
        return assignment

    def _topic_of(self, group: int) -> Topic | None:
        found = self._by_group.get(group)
        return found[0] if found is not None else None

    # ids and indexes

    def _allocate(self, command: AllocateProducers) -> ProducerBlock:
        node = self._members.get(command.node_id)
        if node is None or node.incarnation != command.incarnation:
            raise NotFound(
                f"node {command.node_id} is not in its incarnation {command.incarnation} (any more); "
                "it was given no producer ids"
            )
        self._changed(command.stamp_ms)
        first = self._next_producer
        self._next_producer += PRODUCER_BLOCK_IDS
        return ProducerBlock(first, self._next_producer - 1)

    def _changed(self, stamp_ms: int) -> int:
        self.version += 1
        self.last_stamp_ms = max(self.last_stamp_ms, stamp_ms)
        return self.last_stamp_ms

    def _add(self, kind: Kind, name: str, settings: Settings, created_ms: int, avoid: Sequence[int]) -> Topic:
        groups = self._new_groups(settings.partitions, settings, avoid)
        topic = Topic(self._next_topic_id, kind, name, settings, groups, created_ms)
        self._next_topic_id += 1
        self._keep(topic)
        return topic

    def _new_groups(self, count: int, settings: Settings, avoid: Sequence[int]) -> tuple[int, ...]:
        groups = tuple(range(self._next_group, self._next_group + count))
        self._next_group += count
        sites = self._sites(settings.replicas, avoid)
        for group in groups:
            self._assignments.keep(group, founded(place(settings.replicas, sites)))
        return groups

    def _sites(self, replicas: int | None, avoid: Sequence[int]) -> list[Site]:
        """Where new replicas may be: on nodes that serve, and are up as long as there are enough of those."""
        active = [node for node in self.nodes() if node.state == "active"] or self.nodes()
        up = [node for node in active if node.node_id not in avoid]
        enough = len(up) >= min(replicas or REPLICAS_DEFAULT, len(active))
        return self._assignments.sites(up if enough else active)

    def _keep(self, topic: Topic) -> None:
        self._topics[topic.topic_id] = topic
        self._by_name[topic.name] = topic
        for partition, group in enumerate(topic.groups):
            self._by_group[group] = (topic, partition)
        self._encoded[topic.topic_id] = cbor2.dumps(
            [
                topic.topic_id,
                topic.kind,
                topic.name,
                settings_to_mapping(topic.settings),
                topic.groups,
                topic.created_ms,
            ],
            canonical=True,
        )

    # snapshots

    def snapshot(self) -> bytes:
        """The whole state; equal states give equal bytes."""
        return cbor2.dumps(
            [
                SNAPSHOT_FORMAT,
                self.cluster_id,
                self.version,
                self.applied_index,
                self.last_stamp_ms,
                [self._next_topic_id, self._next_group, self._next_producer],
                self._members.plain(),
                list(self._encoded.values()),
                self._assignments.encoded(),
            ],
            canonical=True,
        )

    def restore(self, state: bytes) -> None:
        """Become the state of a snapshot, whatever this was. Raises ValueError for another format."""
        form, *rest = cbor2.loads(state)
        if form != SNAPSHOT_FORMAT:
            raise ValueError(f"a catalogue snapshot of format {form}; this version reads {SNAPSHOT_FORMAT}")
        self.cluster_id, self.version, self.applied_index, self.last_stamp_ms, *rest = rest
        counters, nodes, topics, assignments = rest
        self._next_topic_id, self._next_group, self._next_producer = counters
        self._members.become(*nodes)
        self._assignments.become(assignments)
        for former in (self._topics, self._by_name, self._by_group, self._encoded):
            former.clear()
        for encoded in topics:
            topic_id, kind, name, settings, groups, created_ms = cbor2.loads(encoded)
            self._keep(Topic(topic_id, kind, name, settings_from(kind, settings), tuple(groups), created_ms))


def first_voters(founders: Mapping[int, int]) -> dict[int, bool]:
    """Node to whether it votes on the catalogue from the beginning, of those who found a cluster."""
    voters = metadata_voters(len(founders))
    return {node: number < voters for number, node in enumerate(sorted(founders))}


def _difference(found: Topic, kind: Kind, settings: Settings) -> str:
    if found.kind != kind:
        return f"{found.name} is a {found.kind}; no {kind} of that name was created"
    ours, asked = settings_to_mapping(found.settings), settings_to_mapping(settings)
    differing = [f"{key} is {ours[key]!r}, not {value!r}" for key, value in asked.items() if ours[key] != value]
    return f"{kind} {found.name} exists with other settings: {', '.join(differing)}; nothing was changed"

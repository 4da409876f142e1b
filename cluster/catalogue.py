"""The metadata group's state machine: what the cluster knows about itself.

    command bytes ──apply_command(index)──> Result (an answer for the proposer) + the next state

Pure and deterministic: every node applies the same commands in the same order and holds the same catalogue.
A command that cannot be carried out is answered with an error and changes nothing. Ids come from counters in
the state that only rise, so none is ever used again; deleting and creating a name gives new ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cbor2

from cluster.commands import (
    AllocateProducers,
    Bootstrap,
    Command,
    CreateTopic,
    DeleteTopic,
    RegisterNode,
    decode_command,
)
from cluster.names import check_node_name, check_queue_name, check_topic_name, is_internal
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

SNAPSHOT_FORMAT = 1
"""Version of the encoding of a snapshot."""
METADATA_GROUP = 0
"""The group that replicates this catalogue; partitions' groups follow from 1."""
COORDINATOR_TOPIC = "plait.subscriptions"
"""The internal topic whose one partition keeps the positions of stream subscriptions."""
PRODUCER_BLOCK_IDS = 1_000
"""Producer ids given to a node at a time."""
TOPICS_MAX = 100_000
"""Topics and queues of a cluster."""
PARTITIONS_TOTAL_MAX = 200_000
"""Partitions of all topics and queues of a cluster together."""
NODES_MAX = 1_000
"""Nodes that a cluster remembers."""
NODE_ID_MAX = 2**31 - 1
"""Largest node id (Kafka's protocol has 32 bits for it)."""
CLUSTER_ID_CHARACTERS_MAX = 64
"""Characters of a cluster id."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node as the cluster knows it."""

    node_id: int
    name: str
    incarnation: int
    """How often it has started; from 1."""
    registered_ms: int
    """When it last did."""
    native: str = ""
    """"host:port" at which clients reach it; "": unknown."""


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


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one command."""

    command: Command
    value: str | Node | Topic | ProducerBlock | None
    """Bootstrap: the cluster id; RegisterNode: the node; CreateTopic, DeleteTopic: the topic; or its error."""
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
        # both in the order of ids: topics because ids only rise, nodes because a snapshot sorts them
        self._topics: dict[int, Topic] = {}
        self._nodes: dict[int, Node] = {}
        self._by_name: dict[str, Topic] = {}
        self._by_group: dict[int, tuple[Topic, int]] = {}
        # a topic never changes once made, so its part of the snapshot is encoded once
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
        return self._nodes.get(node_id)

    def nodes(self) -> list[Node]:
        """All nodes, by id."""
        return [self._nodes[node_id] for node_id in sorted(self._nodes)]

    def group_is_deleted(self, group: int) -> bool:
        """Whether the group was given out and its topic deleted: its data may go.

        A group that this catalogue never gave out is not deleted but unknown: its data must stay.
        """
        return METADATA_GROUP < group < self._next_group and group not in self._by_group

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

    def _apply(self, command: Command) -> str | Node | Topic | ProducerBlock:
        if isinstance(command, Bootstrap):
            return self._bootstrap(command)
        if not self.cluster_id:
            raise Unavailable("the cluster is not founded yet; nothing was done; try again")
        if isinstance(command, RegisterNode):
            return self._register(command)
        if isinstance(command, CreateTopic):
            return self._create(command)
        if isinstance(command, DeleteTopic):
            return self._delete(command)
        return self._allocate(command)

    def _bootstrap(self, command: Bootstrap) -> str:
        if not 0 < len(command.cluster_id) <= CLUSTER_ID_CHARACTERS_MAX:
            raise BadRequest(f"a cluster id has 1 to {CLUSTER_ID_CHARACTERS_MAX} characters")
        if self.cluster_id and self.cluster_id != command.cluster_id:
            raise AlreadyExists(f"this is cluster {self.cluster_id} already; {command.cluster_id} was not founded")
        if not self.cluster_id:
            self.cluster_id = command.cluster_id
            settings = settings_from("topic", {"partitions": 1, "retention_ms": None})
            self._add("topic", COORDINATOR_TOPIC, settings, self._changed(command.stamp_ms))
        return self.cluster_id

    def _register(self, command: RegisterNode) -> Node:
        if not 0 < command.node_id <= NODE_ID_MAX:
            raise BadRequest(f"node id {command.node_id}: must be between 1 and {NODE_ID_MAX:,}")
        check_node_name(command.name)
        known = self._nodes.get(command.node_id)
        if known is None and len(self._nodes) >= NODES_MAX:
            raise LimitReached(f"the cluster has {NODES_MAX:,} nodes, the most there can be; none was added")
        incarnation = known.incarnation if known else 0
        if known is not None and 0 < command.start == incarnation:
            return known
        if 0 < command.start < incarnation:
            raise AlreadyExists(
                f"node {command.node_id} has been started {incarnation} times, and this is start {command.start}: "
                "it was replaced by a later one, or its data directory is an older copy; it was not registered"
            )
        stamp_ms = self._changed(command.stamp_ms)
        start = command.start or incarnation + 1
        node = self._nodes[command.node_id] = Node(command.node_id, command.name, start, stamp_ms, command.native)
        return node

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
        return self._add(kind, command.name, settings, self._changed(command.stamp_ms))

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
        return found

    def _allocate(self, command: AllocateProducers) -> ProducerBlock:
        node = self._nodes.get(command.node_id)
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

    def _add(self, kind: Kind, name: str, settings: Settings, created_ms: int) -> Topic:
        groups = tuple(range(self._next_group, self._next_group + settings.partitions))
        topic = Topic(self._next_topic_id, kind, name, settings, groups, created_ms)
        self._next_topic_id += 1
        self._next_group += settings.partitions
        self._keep(topic)
        return topic

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
        nodes = [[n.node_id, n.name, n.incarnation, n.registered_ms, n.native] for n in self.nodes()]
        return cbor2.dumps(
            [
                SNAPSHOT_FORMAT,
                self.cluster_id,
                self.version,
                self.applied_index,
                self.last_stamp_ms,
                [self._next_topic_id, self._next_group, self._next_producer],
                nodes,
                list(self._encoded.values()),
            ],
            canonical=True,
        )

    def restore(self, state: bytes) -> None:
        """Become the state of a snapshot, whatever this was. Raises ValueError for another format."""
        form, *rest = cbor2.loads(state)
        if form != SNAPSHOT_FORMAT:
            raise ValueError(f"a catalogue snapshot of format {form}; this version reads {SNAPSHOT_FORMAT}")
        self.cluster_id, self.version, self.applied_index, self.last_stamp_ms, counters, nodes, topics = rest
        self._next_topic_id, self._next_group, self._next_producer = counters
        for former in (self._topics, self._nodes, self._by_name, self._by_group, self._encoded):
            former.clear()
        for node in nodes:
            self._nodes[node[0]] = Node(*node)
        for encoded in topics:
            topic_id, kind, name, settings, groups, created_ms = cbor2.loads(encoded)
            self._keep(Topic(topic_id, kind, name, settings_from(kind, settings), tuple(groups), created_ms))


def _difference(found: Topic, kind: Kind, settings: Settings) -> str:
    if found.kind != kind:
        return f"{found.name} is a {found.kind}; no {kind} of that name was created"
    ours, asked = settings_to_mapping(found.settings), settings_to_mapping(settings)
    differing = [f"{key} is {ours[key]!r}, not {value!r}" for key, value in asked.items() if ours[key] != value]
    return f"{kind} {found.name} exists with other settings: {', '.join(differing)}; nothing was changed"

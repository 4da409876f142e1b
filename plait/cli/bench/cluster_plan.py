"""How much of a cluster is measured, what the project has promised, and the words to and from its clients."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

PARTS = ("batched", "through", "failover", "join", "queues")
"""What can be measured, in this order."""


@dataclass(frozen=True)
class ClusterTargets:
    """Three brokers on one machine of two cores, three replicas, everything synced to disk."""

    publish_rate: float = 120_000
    """Records of 100 bytes per second, of all producers together."""
    publish_mb: float = 60
    """Megabytes per second in records of 1 KB."""
    through_ratio: float = 0.6
    """Publishing through a node that does not lead, as a share of the same straight to the leader."""
    failover_s: float = 2
    """From the kill of a node until a publish to each partition has succeeded, median."""
    join_ratio: float = 0.7
    """Publishing while a fourth node joins and takes its share, as a share of the rate before."""
    create_rate: float = 200
    """Queues made per second, with many under way."""
    queues_mb: float = 400
    """Memory of a node with the queues."""
    queues_idle_percent: float = 5
    """Of a core, for each node, with the queues and nothing to do."""


@dataclass(frozen=True)
class ClusterWorkload:
    """What does not depend on how large a run is."""

    nodes: int = 3
    partitions: int = 6
    """Of a topic that is published to."""
    moved_partitions: int = 12
    """Of the topic whose replicas move to a node that joins."""
    small_bytes: int = 100
    large_bytes: int = 1_000
    creating: int = 100
    """Queues that are being made at the same time."""
    trickle_ms: int = 10
    """Time between two publishes to each partition before a node is killed, every second time."""


CLUSTER_TARGETS = ClusterTargets()
CLUSTER_WORKLOAD = ClusterWorkload()


@dataclass(frozen=True)
class Sizes:
    """How much of each part."""

    producers: int
    records: int
    rounds: int
    kills: int
    join_s: float
    queues: int
    idle_s: float


class Orders(msgspec.Struct, frozen=True):
    """What a client process does; JSON on its command line."""

    scenario: str
    servers: str
    name: str
    records: int = 0
    record_bytes: int = 100
    partitions: int = 1
    kill_pid: int = 0
    """The process that is killed."""
    busy_s: float = 0.0
    """How long publishes trickle to all partitions before that; 0: it is quiet."""


class Span(msgspec.Struct):
    """Work, and when it was done, in seconds of the clock that all processes of a machine share."""

    count: int
    begun_s: float
    ended_s: float
    cpu_s: float = 0.0
    """Processor time of the client."""


class Tick(msgspec.Struct):
    """How far a client was at one moment."""

    done: int
    at_s: float

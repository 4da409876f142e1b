"""Topics, queues and subscriptions as people see them: plain maps with the figures of this moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cluster.catalogue import Topic
from cluster.settings import settings_to_mapping
from node.partition import Partition
from replication.machine import Role


def describe_topic(topic: Topic, partitions: Sequence[Partition]) -> dict[str, Any]:
    """A topic or queue: what it is, its settings, and each partition's figures as this node knows them."""
    return {
        "name": topic.name,
        "kind": topic.kind,
        "id": topic.topic_id,
        "partitions": len(partitions),
        "settings": settings_to_mapping(topic.settings),
        "partitions_detail": [_describe_partition(partition) for partition in partitions],
    }


def describe_subscriptions(
    topic: Topic, partitions: Sequence[Partition], positions: Mapping[str, Mapping[int, int]]
) -> list[dict[str, Any]]:
    """A topic's stream subscriptions with their lag, and shared ones with their backlog."""
    found = [
        {
            "subscription": name,
            "kind": "stream",
            "lag_records": sum(
                partition.state.next_offset - max(stored.get(partition.number, 0), partition.state.start_offset)
                for partition in partitions
            ),
            "positions": [[number, stored[number]] for number in sorted(stored)],
        }
        for name, stored in sorted(positions.items())
    ]
    for name in sorted({name for partition in partitions for name in partition.state.shared}):
        members = [partition for partition in partitions if name in partition.state.shared]
        found.append(
            {
                "subscription": name,
                "kind": "shared",
                "backlog_records": sum(
                    member.state.shared[name].backlog_records(member.state.next_offset) for member in members
                ),
                "leased": sum(member.state.shared[name].leased_count for member in members),
                "consumers": sum(member.consumers.attached(name) for member in members),
            }
        )
    return found


def _describe_partition(partition: Partition) -> dict[str, Any]:
    state = partition.state
    return {
        "partition": partition.number,
        "start": state.start_offset,
        "end": state.next_offset,
        "backlog_records": state.backlog_records(),
        "backlog_bytes": state.backlog_bytes(),
        "leased": sum(shared.leased_count for shared in state.shared.values()),
        "consumers": sum(partition.consumers.attached(name) for name in state.shared),
        "leader": partition.group.leader_node,
        "failure": "" if partition.group.role is not Role.FENCED else _failure(partition),
    }


def _failure(partition: Partition) -> str:
    return "" if partition.failure is None else partition.failure.message

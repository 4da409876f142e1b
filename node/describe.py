"""Topics, queues and subscriptions as people see them: plain maps with the figures of this moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster.catalogue import Topic
from cluster.settings import settings_to_mapping
from node.partition import Partition
from replication.machine import Role


@dataclass(frozen=True, slots=True)
class Figures:
    """One partition, as its replica knows it."""

    partition: dict[str, Any]
    """As people see it."""
    shared: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    """Of each shared subscription: backlog and leased records, and consumers."""


def figures_of(partition: Partition) -> Figures:
    """What this node's replica of a partition knows of it."""
    state = partition.state
    shared = {
        name: (held.backlog_records(state.next_offset), held.leased_count, partition.consumers.attached(name))
        for name, held in state.shared.items()
    }
    return Figures(
        {
            "partition": partition.number,
            "start": state.start_offset,
            "end": state.next_offset,
            "backlog_records": state.backlog_records(),
            "backlog_bytes": state.backlog_bytes(),
            "leased": sum(leased for _, leased, _ in shared.values()),
            "consumers": sum(consumers for _, _, consumers in shared.values()),
            "leader": partition.group.leader_node,
            "failure": "" if partition.group.role is not Role.FENCED else _failure(partition),
        },
        shared,
    )


def figures_unknown(number: int, leader: int) -> Figures:
    """A partition that this node knows nothing of but perhaps its leader (0: not that either)."""
    nothing = dict.fromkeys(("start", "end", "backlog_records", "backlog_bytes", "leased", "consumers"), 0)
    return Figures({"partition": number, **nothing, "leader": leader, "failure": ""})


def describe_topic(topic: Topic, partitions: Sequence[Figures]) -> dict[str, Any]:
    """A topic or queue: what it is, its settings, and each partition's figures."""
    return {
        "name": topic.name,
        "kind": topic.kind,
        "id": topic.topic_id,
        "partitions": len(topic.groups),
        "settings": settings_to_mapping(topic.settings),
        "partitions_detail": [figures.partition for figures in partitions],
    }


def describe_subscriptions(
    partitions: Sequence[Figures], positions: Mapping[str, Mapping[int, int]]
) -> list[dict[str, Any]]:
    """A topic's stream subscriptions with their lag, and shared ones with their backlog."""
    found = [
        {
            "subscription": name,
            "kind": "stream",
            "lag_records": sum(_lag(figures.partition, stored) for figures in partitions),
            "positions": [[number, stored[number]] for number in sorted(stored)],
        }
        for name, stored in sorted(positions.items())
    ]
    for name in sorted({name for figures in partitions for name in figures.shared}):
        held = [figures.shared[name] for figures in partitions if name in figures.shared]
        found.append(
            {
                "subscription": name,
                "kind": "shared",
                "backlog_records": sum(backlog for backlog, _, _ in held),
                "leased": sum(leased for _, leased, _ in held),
                "consumers": sum(consumers for _, _, consumers in held),
            }
        )
    return found


def _lag(partition: Mapping[str, Any], stored: Mapping[int, int]) -> int:
    at: int = max(stored.get(partition["partition"], 0), partition["start"])
    end: int = partition["end"]
    return end - at


def _failure(partition: Partition) -> str:
    return "" if partition.failure is None else partition.failure.message

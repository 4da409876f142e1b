"""What admission answers, and what a refusal is called at the client.

request ──> Admit | Evict | Refuse          final, at once
        └─> Wait(ticket) ──> Answer(ticket, Admit | Evict | Refuse)     later, exactly once unless cancelled
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from plait.wire.errors import Overloaded, PlaitError, StorageFull

Reason = Literal[
    "in_flight",
    "rate",
    "backlog",
    "storage_full",
    "replicas_full",
    "storage_busy",
    "memory",
    "node_in_flight",
    "producer_queue",
    "partition_queue",
    "node_queue",
    "link_queue",
    "client_queue",
]

STORAGE_REASONS: tuple[Reason, ...] = ("storage_full", "replicas_full")
"""Those that end when somebody frees space, and no sooner."""

_GOES_ON = "consuming and acknowledging go on; `plait cluster status` shows the disks"
_WORDS: dict[Reason, str] = {
    "in_flight": "has too many bytes or publishes that are not on disk yet",
    "rate": "has reached its publish rate",
    "backlog": "has a full backlog",
    "storage_full": f"is on a disk that is nearly full ({_GOES_ON})",
    "replicas_full": f"has most of its replicas on disks that are nearly full ({_GOES_ON})",
    "storage_busy": "is on a disk that is behind with writing",
    "memory": "is on a node that is short of memory",
    "node_in_flight": "is on a node that has too many bytes not on disk yet",
    "producer_queue": "has too many publishes of this producer waiting",
    "partition_queue": "has too many publishes waiting",
    "node_queue": "is on a node that has too many publishes waiting",
    "client_queue": "is on a node where too many publishes of this client wait",
    "link_queue": "is on a node that has too many publishes waiting that came by way of the same other node",
}


@dataclass(slots=True, eq=False)
class Permit:
    """A publish's share of a partition's in-flight limits, until it is committed or given up."""

    owner: str
    """Whose it is: what `release_owner` asks for."""
    number: int
    records: int
    size_bytes: int
    charged_bytes: int
    """What it takes of the cap: its size, or the whole cap if it is larger."""
    node_bytes: int
    """What it takes of the node's cap."""
    evict_records: int
    evict_bytes: int
    held: bool = True


@dataclass(frozen=True, slots=True)
class Admit:
    """Propose it now, and give the permit back when it is committed or has failed."""

    permit: Permit
    throttle_ms: int
    """How long its producer should keep quiet now; 0: not at all."""


@dataclass(frozen=True, slots=True)
class Evict:
    """First take that much off the old end of the backlog, then do as for Admit."""

    records: int
    """At least that many."""
    size_bytes: int
    """And at least that many."""
    to_dead_letter: bool
    """Move them to the dead-letter queue instead of dropping them."""
    permit: Permit
    throttle_ms: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """Nothing was and nothing will be stored."""

    reason: Reason
    retry_after_ms: int
    """When trying again makes sense; always above 0."""

    def error(self, name: str, partition: int) -> PlaitError:
        """The same as a client sees it."""
        message = (
            f"{name}, partition {partition}, {_WORDS[self.reason]}; nothing was stored; "
            f"try again in {self.retry_after_ms} ms"
        )
        kind = StorageFull if self.reason in STORAGE_REASONS else Overloaded
        return kind(message, reason=self.reason, retry_after_ms=self.retry_after_ms)


@dataclass(frozen=True, slots=True)
class Wait:
    """It waits inside: its answer comes from a later call, at the deadline at the latest."""

    ticket: int
    reason: Reason
    deadline_ns: int


@dataclass(frozen=True, slots=True)
class Answer:
    """The final word about a publish that waited."""

    ticket: int
    outcome: Admit | Evict | Refuse


Outcome = Admit | Evict | Refuse | Wait

"""Commands to the consumer groups of a coordinator partition, and their form in its log.

A command is the byte GROUP_COMMAND and a CBOR array: [number of its kind, field, field, ...]. A later version only
appends fields or kinds; a reader that meets a kind it does not know must not go on (CommandUnknown).
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any

import cbor2

from cluster.commands import CommandUnknown

GROUP_COMMAND = 8
"""First byte: what tells these commands from those to the positions, which share the log."""


@dataclass(frozen=True, slots=True)
class JoinGroup:
    """A member comes in, or comes again: with the same topics that changes nothing."""

    group: str
    member: str
    client: str
    """Its name, for people."""
    topics: tuple[tuple[int, int], ...]
    """(topic id, how many partitions it has) of all that it wants."""
    session_ms: int
    """How long it may be silent."""
    stamp_ms: int


@dataclass(frozen=True, slots=True)
class LeaveGroup:
    """A member is gone: by its own word, or because its session ended."""

    group: str
    member: str
    expired: bool
    stamp_ms: int


@dataclass(frozen=True, slots=True)
class AcknowledgeAssignment:
    """A member holds no more than what it was told with this generation."""

    group: str
    member: str
    generation: int
    stamp_ms: int


@dataclass(frozen=True, slots=True)
class TopicGrew:
    """A topic has so many partitions now."""

    topic_id: int
    partitions: int
    stamp_ms: int


@dataclass(frozen=True, slots=True)
class CommitAsMember:
    """A member's commit, which counts while it holds those partitions."""

    group: str
    member: str
    generation: int
    """The one that the member knew when it made the commit."""
    commit: bytes
    """The commit itself, as it goes into the log where there is no group."""


GroupCommand = JoinGroup | LeaveGroup | AcknowledgeAssignment | TopicGrew | CommitAsMember

_KINDS: dict[int, tuple[type[GroupCommand], tuple[type, ...]]] = {
    1: (JoinGroup, (str, str, str, list, int, int)),
    2: (LeaveGroup, (str, str, bool, int)),
    3: (AcknowledgeAssignment, (str, str, int, int)),
    4: (TopicGrew, (int, int, int)),
    5: (CommitAsMember, (str, str, int, bytes)),
}
_NUMBERS = {kind: number for number, (kind, _) in _KINDS.items()}


def encode_group_command(command: GroupCommand) -> bytes:
    """The command as an entry's payload; equal commands give equal bytes."""
    return bytes((GROUP_COMMAND,)) + cbor2.dumps([_NUMBERS[type(command)], *astuple(command)], canonical=True)


def decode_group_command(payload: bytes) -> GroupCommand:
    """The command that `encode_group_command` wrote. Raises CommandUnknown."""
    try:
        number, *values = cbor2.loads(payload[1:])
        kind, types = _KINDS[number]
    except (cbor2.CBORError, ValueError, TypeError, KeyError, EOFError) as error:
        raise CommandUnknown(f"no command to a consumer group: {payload!r:.100}") from error
    if payload[0] != GROUP_COMMAND or tuple(map(type, values)) != types:
        raise CommandUnknown(f"{kind.__name__} with fields {values!r:.100}")
    if kind is JoinGroup:
        values[3] = _pairs(values[3])
    return kind(*values)


def _pairs(items: list[Any]) -> tuple[tuple[int, int], ...]:
    try:
        return tuple((int(first), int(second)) for first, second in items)
    except (TypeError, ValueError) as error:
        raise CommandUnknown(f"the topics of a JoinGroup are {items!r:.100}") from error

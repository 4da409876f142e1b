"""Commands to the catalogue, and their form in the metadata group's log.

A command is a CBOR array: [FORMAT, number of its kind, field, field, ...]. A later version only appends
fields or kinds; a reader that meets a kind it does not know must not go on (CommandUnknown).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from typing import Any

import cbor2

from replication.environment import Buffer

FORMAT = 1
"""Version of the encoding of commands."""


class CommandUnknown(Exception):
    """A committed command that this version cannot read. The replica must stop there: nothing is skipped."""


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Found the cluster: gives it its id and its internal topics."""

    cluster_id: str
    stamp_ms: int
    founders: Mapping[int, int] = field(default_factory=lambda: {1: 0}, hash=False)
    """Node to disk of those who are there from the beginning."""
    coordinators: int = 1
    """Coordinator partitions; fixed from then on, for a subscription's name decides which one has it."""


@dataclass(frozen=True, slots=True)
class AddNode:
    """Give an id to a node that wants to join. The same disk always gets the same one."""

    disk: int
    name: str
    peer: str
    """"host:port" at which other nodes reach it."""
    native: str
    rack: str
    features: int
    stamp_ms: int


@dataclass(frozen=True, slots=True)
class RegisterNode:
    """A node has started: gives it its next incarnation.

    May be sent again, and may come late: a start that is known already changes nothing, an older one is refused.
    """

    node_id: int
    name: str
    stamp_ms: int
    start: int = 0
    """Its incarnation, by the node's own durable count of its starts; 0: one more than the last one."""
    native: str = ""
    """"host:port" at which clients reach it; "": it does not say."""
    peer: str = ""
    """"host:port" at which other nodes reach it; "": as before."""
    rack: str = ""
    """Where it stands: replicas are spread over racks; "": nowhere in particular."""
    features: int = 0
    """What it knows (cluster/features.py)."""


@dataclass(frozen=True, slots=True)
class ChangeNode:
    """Have a node serve ("active"), hand over what it has ("draining"), or do so and go for good ("leaving")."""

    node_id: int
    state: str
    stamp_ms: int


@dataclass(frozen=True, slots=True)
class Declare:
    """A node has been silent for too long in that incarnation, or was heard again."""

    node_id: int
    incarnation: int
    dead: bool
    stamp_ms: int


@dataclass(frozen=True, slots=True)
class RemoveNode:
    """Strike out a leaving node that has no replicas any more; its id is never given again."""

    node_id: int
    stamp_ms: int


@dataclass(frozen=True, slots=True)
class CreateTopic:
    """Create a topic or queue, with one new group per partition."""

    kind: str
    name: str
    settings: Mapping[str, Any] = field(hash=False)
    stamp_ms: int
    avoid: list[int] = field(default_factory=list, hash=False)
    """Nodes that are down: they get replicas only where there are no others."""


@dataclass(frozen=True, slots=True)
class DeleteTopic:
    """Delete a topic or queue; its groups are then nobody's."""

    name: str
    topic_id: int
    """Delete only this one, not one that was made later under the same name; 0: whichever has the name."""
    stamp_ms: int


@dataclass(frozen=True, slots=True)
class ResizeTopic:
    """Give a topic or queue more partitions (never fewer), or another number of replicas."""

    name: str
    partitions: int
    """0: as many as it has."""
    replicas: int
    """0: as it has."""
    stamp_ms: int
    avoid: list[int] = field(default_factory=list, hash=False)
    """As in CreateTopic."""


@dataclass(frozen=True, slots=True)
class Reassign:
    """Have a group's replicas on these nodes, in the order in which they are to lead."""

    group: int
    epoch: int
    """Of the assignment that this was decided from; another one is refused."""
    places: list[list[int]] = field(hash=False)
    """[node, 1 for a voter or 0 for a learner] each."""
    renew: list[int] = field(hash=False)
    """Nodes whose replica is lost: it is taken out, and a new one put in its place."""
    stamp_ms: int


@dataclass(frozen=True, slots=True)
class WentOver:
    """A group has exactly the members of that epoch's assignment: what left it may be deleted."""

    group: int
    epoch: int
    stamp_ms: int


@dataclass(frozen=True, slots=True)
class AllocateProducers:
    """Give a node a block of producer ids to hand out."""

    node_id: int
    incarnation: int
    stamp_ms: int


Command = (
    Bootstrap
    | RegisterNode
    | CreateTopic
    | DeleteTopic
    | AllocateProducers
    | AddNode
    | ChangeNode
    | RemoveNode
    | ResizeTopic
    | Reassign
    | WentOver
    | Declare
)

_NUMBERS: dict[type[Command], int] = {
    Bootstrap: 1,
    RegisterNode: 2,
    CreateTopic: 3,
    DeleteTopic: 4,
    AllocateProducers: 5,
    AddNode: 6,
    ChangeNode: 7,
    RemoveNode: 8,
    ResizeTopic: 9,
    Reassign: 10,
    WentOver: 11,
    Declare: 12,
}
_FIRST_FIELDS: dict[type[Command], int] = {Bootstrap: 2, RegisterNode: 3, CreateTopic: 4}
"""Of commands to which fields were appended: how many they began with."""
_KINDS: dict[int, type[Command]] = {number: kind for kind, number in _NUMBERS.items()}
_FIELD_TYPES: dict[type[Command], tuple[type, ...]] = {
    Bootstrap: (str, int, dict, int),
    RegisterNode: (int, str, int, int, str, str, str, int),
    CreateTopic: (str, str, dict, int, list),
    DeleteTopic: (str, int, int),
    AllocateProducers: (int, int, int),
    AddNode: (int, str, str, str, str, int, int),
    ChangeNode: (int, str, int),
    RemoveNode: (int, int),
    ResizeTopic: (str, int, int, int, list),
    Reassign: (int, int, list, list, int),
    WentOver: (int, int, int),
    Declare: (int, int, bool, int),
}


def encode_command(command: Command) -> bytes:
    """The command as an entry's payload; equal commands give equal bytes."""
    return cbor2.dumps([FORMAT, _NUMBERS[type(command)], *astuple(command)], canonical=True)


def decode_command(payload: Buffer) -> Command:
    """The command that `encode_command` wrote. Raises CommandUnknown."""
    try:
        parts = cbor2.loads(bytes(payload))
    except (cbor2.CBORError, ValueError, EOFError) as error:
        raise CommandUnknown(f"a command of {len(payload)} bytes is not CBOR: {error}") from error
    if not isinstance(parts, list) or len(parts) < 2 or parts[0] != FORMAT:
        raise CommandUnknown(f"not a command of format {FORMAT}: {parts!r:.100}")
    kind = _KINDS.get(parts[1]) if isinstance(parts[1], int) else None
    if kind is None:
        raise CommandUnknown(f"there is no command {parts[1]!r:.100} in format {FORMAT}")
    values, types = parts[2:], _FIELD_TYPES[kind]
    least = _FIRST_FIELDS.get(kind, len(types))
    if not least <= len(values) <= len(types) or not all(
        type(v) is t for v, t in zip(values, types, strict=False)
    ):
        raise CommandUnknown(f"{kind.__name__} with fields {values!r:.100}")
    return kind(*values)

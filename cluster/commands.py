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


@dataclass(frozen=True, slots=True)
class CreateTopic:
    """Create a topic or queue, with one new group per partition."""

    kind: str
    name: str
    settings: Mapping[str, Any] = field(hash=False)
    stamp_ms: int


@dataclass(frozen=True, slots=True)
class DeleteTopic:
    """Delete a topic or queue; its groups are then nobody's."""

    name: str
    topic_id: int
    """Delete only this one, not one that was made later under the same name; 0: whichever has the name."""
    stamp_ms: int


@dataclass(frozen=True, slots=True)
class AllocateProducers:
    """Give a node a block of producer ids to hand out."""

    node_id: int
    incarnation: int
    stamp_ms: int


Command = Bootstrap | RegisterNode | CreateTopic | DeleteTopic | AllocateProducers

_NUMBERS: dict[type[Command], int] = {
    Bootstrap: 1,
    RegisterNode: 2,
    CreateTopic: 3,
    DeleteTopic: 4,
    AllocateProducers: 5,
}
_FIRST_FIELDS: dict[type[Command], int] = {RegisterNode: 3}
"""Of commands to which fields were appended: how many they began with."""
_KINDS: dict[int, type[Command]] = {number: kind for kind, number in _NUMBERS.items()}
_FIELD_TYPES: dict[type[Command], tuple[type, ...]] = {
    Bootstrap: (str, int),
    RegisterNode: (int, str, int, int, str),
    CreateTopic: (str, str, dict, int),
    DeleteTopic: (str, int, int),
    AllocateProducers: (int, int, int),
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

"""The other first word at a node's door: a node without an id asks to be let in.

    newcomer ── JOIN ──> any node of the cluster      my disk, where I am reached
              <── CHALLENGE ──                         are you there, and do you know the secret? (proof.py)
              ── CONFIRM ──>
              <── JOINED ──                            your id, the cluster's name, where its nodes are reached
                                                       (or REFUSED, with a sentence)

It may ask as often as it likes: the same disk is always given the same id. A node that has an id already says so,
and is told whether it is of this cluster. Pure, but for `ask`; docs/peer-protocol.md has the layouts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import trio

from replication.peers.connection import hear_word, say_word
from replication.peers.proof import Proofs
from replication.peers.protocol import (
    CLUSTER_ID_LENGTH_MAX,
    NUMBER_MAX,
    REFUSED,
    VERSION_MAX,
    VERSION_MIN,
    Hearing,
    Refusal,
    Told,
    confirm_word,
)

MAGIC = "plait join"
"""Opens a JOIN."""
JOIN = 5
JOINED = 6
CHALLENGE = 7
TEXT_CHARACTERS_MAX = 280
"""Characters of each text in a JOIN."""
NODES_MAX = 64
"""Nodes that a JOINED names."""


@dataclass(frozen=True, slots=True)
class Join:
    """What a newcomer says."""

    disk: int
    """The number of its data directory."""
    name: str
    peer: str
    """"host:port" at which other nodes reach it."""
    native: str
    """"host:port" at which clients reach it; "": it does not say."""
    rack: str
    features: int
    cluster: str = ""
    """The cluster that it is of already; "": of none."""
    node: int = 0
    """Its id there."""
    min_version: int = VERSION_MIN
    max_version: int = VERSION_MAX
    extras: dict[str, Any] = field(default_factory=dict)

    def word(self) -> list[Any]:
        """As the head of a frame."""
        head: list[Any] = [JOIN, MAGIC, self.min_version, self.max_version, self.disk, self.name, self.peer]
        return [*head, self.native, self.rack, self.features, self.cluster, self.node, self.extras]


@dataclass(frozen=True, slots=True)
class Joined:
    """What it is told."""

    version: int
    cluster: str
    """What the nodes call their cluster among themselves."""
    node: int
    """Its id from now on."""
    addresses: Mapping[int, str]
    """"host:port" of the nodes."""
    extras: dict[str, Any] = field(default_factory=dict)

    def word(self) -> list[Any]:
        """As the head of a frame."""
        nodes = [[node, address] for node, address in sorted(self.addresses.items())]
        return [JOINED, self.version, self.cluster, self.node, nodes, self.extras]


def challenge_word() -> list[Any]:
    """The other side's first word, as the head of a frame."""
    return [CHALLENGE, {}]


def is_join(head: list[Any]) -> bool:
    """Whether a first word is a JOIN, and not a HELLO."""
    return len(head) > 1 and head[0] == JOIN and head[1] == MAGIC


def read_join(head: list[Any]) -> Join:
    """The JOIN in a head. Raises Refusal."""
    match head[2:]:
        case [int(least), int(most), *_] if least > VERSION_MAX or most < VERSION_MIN:
            mine = f"{VERSION_MIN} to {VERSION_MAX}"
            raise Refusal("version", f"you speak versions {least} to {most} of the peer protocol, I speak {mine}")
        case [
            int(least),
            int(most),
            int(disk),
            str(name),
            str(peer),
            str(native),
            str(rack),
            int(features),
            str(cluster),
            int(node),
            dict(extras),
        ]:
            texts, numbers = (name, peer, native, rack, cluster), (least, most, disk, features, node)
            if _sound(numbers) and max(map(len, texts)) <= TEXT_CHARACTERS_MAX:
                return Join(disk, name, peer, native, rack, features, cluster, node, least, most, extras)
    raise Refusal("malformed", "what came is no JOIN that this version can read; the connection ends")


def read_challenge(head: list[Any]) -> dict[str, Any]:
    """The extras of a CHALLENGE. Raises Told when it is a REFUSED, Refusal when it is anything else."""
    match head:
        case [int(kind), str(code), str(sentence), *_] if kind == REFUSED:
            raise Told(code, sentence)
        case [int(kind), dict(extras)] if kind == CHALLENGE:
            return extras
    raise Refusal("malformed", "a CHALLENGE was to come, and what came is none; the connection ends")


def read_joined(head: list[Any]) -> Joined:
    """The JOINED in a head. Raises Told when it is a REFUSED, Refusal when it is anything else."""
    match head:
        case [int(kind), str(code), str(sentence), *_] if kind == REFUSED:
            raise Told(code, sentence)
        case [int(kind), int(version), str(cluster), int(node), [*nodes], dict(extras)] if kind == JOINED:
            addresses = _addresses(nodes)
            named = 0 < len(cluster) <= CLUSTER_ID_LENGTH_MAX
            if named and addresses is not None and _sound((version, node)) and node:
                return Joined(version, cluster, node, addresses, extras)
    raise Refusal("malformed", "a JOINED was to come, and what came is none; the connection ends")


def _addresses(nodes: list[Any]) -> dict[int, str] | None:
    found: dict[int, str] = {}
    for each in nodes[: NODES_MAX + 1]:
        match each:
            case [int(node), str(address)] if _sound((node,)) and len(address) <= TEXT_CHARACTERS_MAX:
                found[node] = address
            case _:
                return None
    return found if len(nodes) <= NODES_MAX else None


def _sound(numbers: tuple[int, ...]) -> bool:
    return all(type(number) is int and 0 <= number <= NUMBER_MAX for number in numbers)


async def ask(stream: trio.abc.Stream, join: Join, proofs: Proofs) -> Joined:
    """Say a JOIN over a new connection, which is of no use afterwards. Raises Refusal, and what streams raise."""
    hearing = Hearing()
    await say_word(stream, proofs, join.word())
    await hear_word(stream, hearing, proofs, read_challenge)
    await say_word(stream, proofs, confirm_word())
    return await hear_word(stream, hearing, proofs, read_joined)

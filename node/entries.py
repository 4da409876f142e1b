"""What a partition writes into its group's log: batches in an envelope, and commands.

    batch entry    version u8 | flags u8 | stamp_ms i64 | origin incarnation u64 | origin request u64 | RecordBatch
    command entry  CBOR [version, stamp_ms, [[command, ...], ...]]

The batch lies in its entry byte for byte as it goes out to a Kafka consumer; its base offset and leader epoch are
patched by the leader, which its checksum leaves out (Kafka protocol guide, "Record Batch").
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from struct import Struct
from typing import Any, NamedTuple

import cbor2

from replication.environment import Buffer

KIND_BATCH = 1
KIND_COMMANDS = 2

VERSION = 1
"""Of both forms. An entry of a higher version was written by a newer node: it cannot be applied here."""

_ENVELOPE = Struct(">BBqQQ")
ENVELOPE_BYTES = _ENVELOPE.size


class Command(IntEnum):
    """The first item of each command; the rest are its arguments, in this order. Numbers are never used again."""

    LEASE = 1
    """subscription, consumer, lease_ms, [[first, last], ...]; the lease id is the entry's index and position"""
    ACK = 2
    """subscription, [[lease_id, first, last], ...]"""
    RETURN = 3
    """subscription, [[lease_id, first, last], ...], delay_ms"""
    EXTEND = 4
    """subscription, [[lease_id, first, last], ...], lease_ms"""
    CONSUMER_GONE = 5
    """consumer: every lease it holds, in every subscription, comes back"""
    DUE = 6
    """nothing: leases past their deadline and delays that are over come back"""
    SUBSCRIBE = 7
    """subscription, offset: a shared subscription that begins there"""
    TRIM = 8
    """offset: the records before it are gone (retention)"""
    DROP = 9
    """subscription, records, before: that many of the oldest below that offset that nobody holds are gone"""
    NODE_RESTARTED = 10
    """node, incarnation: leases of consumers of that node's earlier incarnations come back"""
    DEAD_LETTER = 11
    """subscription, records, before: as DROP, but they go to the outbox for dead letters"""
    DEAD_LETTERED = 12
    """subscription, first, last: these offsets, the first of the outbox, are in the dead-letter queue"""


class Envelope(NamedTuple):
    """What the leader writes beside a batch."""

    version: int
    flags: int
    stamp_ms: int
    origin_incarnation: int
    origin_request: int


def encode_batch(stamp_ms: int, origin: tuple[int, int], batch_parts: Sequence[Buffer]) -> bytes:
    """The payload of a batch entry. This is the one copy of a batch on its way through the node."""
    return b"".join((_ENVELOPE.pack(VERSION, 0, stamp_ms, *origin), *batch_parts))


def read_envelope(payload: Buffer) -> Envelope:
    """The envelope of a batch entry. Raises ValueError for one that a newer version wrote."""
    envelope = Envelope(*_ENVELOPE.unpack_from(payload))
    if envelope.version > VERSION:
        raise ValueError(f"a batch entry of version {envelope.version}; this node knows up to {VERSION}")
    return envelope


def batch_of(payload: Buffer) -> memoryview:
    """The batch inside a batch entry, not copied."""
    return memoryview(payload)[ENVELOPE_BYTES:]


def encode_commands(stamp_ms: int, commands: Sequence[Sequence[Any]]) -> bytes:
    """The payload of a command entry."""
    return cbor2.dumps([VERSION, stamp_ms, commands])


def decode_commands(payload: Buffer) -> tuple[int, list[list[Any]]]:
    """(stamp_ms, commands) of a command entry. Raises ValueError for one that a newer version wrote."""
    version, stamp_ms, commands = cbor2.loads(bytes(payload))
    if version > VERSION:
        raise ValueError(f"a command entry of version {version}; this node knows up to {VERSION}")
    return stamp_ms, commands

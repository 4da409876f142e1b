"""Raft messages as the words and raw bytes of a frame, and back. Pure, and on the hot path.

    words of a message = [tag, group, field, ...]        entries of an Append: their count, and bytes in the frame
    raw bytes          = records | payloads | records | payloads | ...         (one pair for each Append, in order)

Records and payloads are those of the write-ahead log (storage/format.py): a leader encodes entries once, for its
own log, and followers write what came. Large payloads become views of the frame, small ones are copied out of it.
The frame's checksum (protocol.seal) covers all of it; those of records and payloads are for who reads the log.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import fields
from itertools import accumulate, pairwise
from operator import attrgetter
from typing import Any

from plait.wire.errors import BadRequest
from replication.environment import Buffer
from replication.machine import Entry
from replication.peers.protocol import NUMBER_MAX
from replication.raft import messages as raft
from replication.raft.messages import Append, Message
from replication.run import Encoded, Run, encoded, payload_bytes_of
from replication.storage.format import ENTRY, RECORD_BYTES, decode_rows

COPY_BYTES = 2_048
"""Mean size of entries up to which they are copied out of the frame: views would cost more than a small copy, keep
the whole frame alive, and be one more object for the garbage collector to look at (measured: a third of the time
for 650 entries of 100 bytes)."""

KINDS: tuple[type[Any], ...] = (
    raft.VoteRequest,
    raft.VoteAnswer,
    raft.Append,
    raft.AppendAnswer,
    raft.Beat,
    raft.BeatAnswer,
    raft.SnapshotOffer,
    raft.TimeoutNow,
    raft.Sleep,
    raft.SleepAnswer,
    raft.Removed,
    raft.Lost,
)
"""A message's tag is its place in here, from 1. Never reordered; new kinds come with a new protocol version."""

_APPEND = KINDS.index(Append) + 1
_SHAPES: dict[int, list[type]] = {
    tag: [int, int, *(bool if field.type == "bool" else int for field in fields(kind))]
    for tag, kind in enumerate(KINDS, 1)
}
_SHAPES[_APPEND] = [int] * 11  # tag, group, 7 fields, count of entries, their bytes
_MAKE: dict[int, Callable[..., Message]] = dict(enumerate(KINDS, 1))
_READ: dict[type[Any], tuple[int, Callable[[Any], tuple[Any, ...]]]] = {
    kind: (tag, attrgetter(*(field.name for field in fields(kind)))) for tag, kind in enumerate(KINDS, 1)
}

Addressed = tuple[int, Message]
"""A group's id and a message to its replica."""


def payload_bytes(message: Message) -> int:
    """Payload that the message brings into a frame."""
    return payload_bytes_of(message.entries) if type(message) is Append else 0


def encode_message(group: int, message: Message, parts: list[Buffer]) -> list[Any]:
    """The words of a message; its raw bytes are added to `parts`. Raises ValueError if it cannot be sent."""
    if type(message) is Append:
        return _encode_append(group, message, parts)
    tag, read = _READ[type(message)]
    return [tag, group, *read(message)]


def decode_messages(words: Sequence[Any], raw: memoryview) -> list[Addressed]:
    """The messages that these are. Raises BadRequest: the frame is to be thrown away whole."""
    batch: list[Addressed] = []
    at = 0
    for row in words:
        tag = row[0] if type(row) is list and row else 0
        if type(tag) is not int or tag not in _SHAPES:
            raise _malformed("a message of a kind that this version does not know")
        if list(map(type, row)) != _SHAPES[tag] or min(row) < 0 or max(row) > NUMBER_MAX:
            raise _malformed(f"fields of {KINDS[tag - 1].__name__} that are none")
        if tag == _APPEND:
            batch.append(_decode_append(row, raw, at))
            at += row[-1]
        else:
            batch.append((row[1], _MAKE[tag](*row[2:])))
    if at != len(raw):
        raise _malformed("its messages do not cover its bytes")
    return batch


def _encode_append(group: int, message: Append, parts: list[Buffer]) -> list[Any]:
    entries = message.entries
    count, size_bytes = len(entries), 0
    if count:
        if entries[-1].index != message.previous_index + count:
            raise ValueError("an append's entries must follow one another")
        try:
            found = encoded(group, entries)
        except struct.error as error:
            raise ValueError(f"entries behind {message.previous_index} cannot be sent: {error}") from None
        parts.append(found.records)
        parts += found.payloads
        size_bytes = len(found.records) + found.payload_bytes
    head = [_APPEND, group, message.source, message.target, message.term, message.previous_index]
    return [*head, message.previous_term, message.commit, message.sequence, count, size_bytes]


def _decode_append(row: list[Any], raw: memoryview, at: int) -> Addressed:
    _, group, source, target, term, previous, previous_term, commit, sequence, count, size_bytes = row
    if at + size_bytes > len(raw) or (not count and size_bytes):
        raise _malformed("an append that is larger than its frame")
    entries = decode_run(group, previous, count, raw[at : at + size_bytes]) if count else []
    return group, Append(source, target, term, previous, previous_term, entries, commit, sequence)


def decode_run(group: int, previous_index: int, count: int, raw: memoryview) -> Run:
    """The entries of `count` records of that group and the payloads behind them, which must be all of `raw`.

    Raises BadRequest.
    """
    start = RECORD_BYTES * count
    if count <= 0 or start > len(raw):
        raise _malformed("more records of entries than what holds them")
    data = raw if len(raw) > COPY_BYTES * count else bytes(raw)
    types, kinds, flags, spans, groups, indexes, terms, marks, lengths, _, _ = zip(
        *decode_rows(raw, count), strict=True
    )
    if {*zip(types, flags, groups, strict=True)} != {(ENTRY, 0, group)}:
        raise _malformed("records that are not of this group's entries")
    if indexes != tuple(range(previous_index + 1, previous_index + 1 + count)):
        raise _malformed("an append with gaps")
    ends = list(accumulate(lengths, initial=start))
    if ends[-1] != len(raw):
        raise _malformed("records of entries that do not cover their payloads")
    payloads = [data[begin:end] for begin, end in pairwise(ends)]
    entries = map(Entry, indexes, terms, kinds, marks, spans, payloads)
    return Run(entries, Encoded(group, bytes(data[:start]), (memoryview(data)[start:],), len(data) - start))


def _malformed(what: str) -> BadRequest:
    return BadRequest(f"a peer's frame cannot be read: it has {what}; the connection ends")

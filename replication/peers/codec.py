"""Raft messages as the words and raw bytes of a frame, and back. Pure, and on the hot path.

    words of a message = [tag, group, field, ...]        entries of an Append: their count, and bytes in the frame
    raw bytes          = table | payloads | table | payloads | ...             (one pair for each Append, in order)
    table              = columns: steps u32, terms u64, kinds u8, marks i64, spans u32, lengths u32

Columns, because a whole column is packed and unpacked by one call: rows would cost three times as much. A step is
the distance from the index before. Large payloads become views of the frame, small ones are copied out of it.
The frame's checksum (protocol.seal) covers all of it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from itertools import accumulate, pairwise
from operator import attrgetter
from typing import Any

from plait.wire.errors import BadRequest
from replication.environment import Buffer
from replication.machine import Entry
from replication.peers.protocol import NUMBER_MAX
from replication.peers.runs import Runs
from replication.raft import messages as raft
from replication.raft.messages import Append, Message

ROW_BYTES = 29
"""What an entry takes in a table."""
COPY_BYTES = 2_048
"""Mean size of entries up to which their payloads are copied out of the frame: a view would cost more than a small
copy, keep the whole frame alive, and be one more object for the garbage collector to look at (measured: a third
of the time for 650 entries of 100 bytes)."""

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
    return sum([len(entry.payload) for entry in message.entries]) if type(message) is Append else 0


def encode_message(group: int, message: Message, parts: list[Buffer], runs: Runs | None = None) -> list[Any]:
    """The words of a message; its raw bytes are added to `parts`. Raises ValueError if it cannot be sent.

    Entries that `runs` has are not encoded again.
    """
    if type(message) is Append:
        return _encode_append(group, message, parts, runs)
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


def _encode_append(group: int, message: Append, parts: list[Buffer], runs: Runs | None) -> list[Any]:
    entries = message.entries
    count, size_bytes = len(entries), 0
    if count:
        if entries[-1].index != message.previous_index + count:
            raise ValueError("an append's entries must follow one another")
        size_bytes = _encode_run(message.previous_index, entries, parts, runs)
    head = [_APPEND, group, message.source, message.target, message.term, message.previous_index]
    return [*head, message.previous_term, message.commit, message.sequence, count, size_bytes]


def _encode_run(base_index: int, entries: Sequence[Entry], parts: list[Buffer], runs: Runs | None) -> int:
    if runs is None:
        return encode_entries(base_index, entries, parts)
    data = runs.find(entries)
    if data is None:
        found: list[Buffer] = []
        encode_entries(base_index, entries, found)
        data = runs.keep(entries, found)
    parts.append(data)
    return len(data)


def _decode_append(row: list[Any], raw: memoryview, at: int) -> Addressed:
    _, group, source, target, term, previous, previous_term, commit, sequence, count, size_bytes = row
    if at + size_bytes > len(raw) or (not count and size_bytes):
        raise _malformed("an append that is larger than its frame")
    entries = decode_entries(previous, count, raw[at : at + size_bytes]) if count else []
    if entries and entries[-1].index != previous + count:
        raise _malformed("an append with gaps")
    return group, Append(source, target, term, previous, previous_term, entries, commit, sequence)


def encode_entries(base_index: int, entries: Sequence[Entry], parts: list[Buffer]) -> int:
    """Add a table and the payloads to `parts`; their bytes. Indexes rise from above `base_index` on, gaps allowed.

    Raises ValueError for entries that no table can hold.
    """
    count = len(entries)
    steps = [after - before for before, after in pairwise([base_index, *[entry.index for entry in entries]])]
    if count and min(steps) < 1:
        raise ValueError(f"entries behind {base_index} cannot be sent: their indexes do not rise")
    payloads = [entry.payload for entry in entries]
    lengths = list(map(len, payloads))
    try:
        table = struct.pack(
            _table(count),
            *steps,
            *[entry.term for entry in entries],
            *[entry.kind for entry in entries],
            *[entry.mark for entry in entries],
            *[entry.span for entry in entries],
            *lengths,
        )
    except struct.error as error:
        raise ValueError(f"entries behind {base_index} cannot be sent: {error}") from None
    parts.append(table)
    parts += payloads
    return len(table) + sum(lengths)


def decode_entries(base_index: int, count: int, raw: memoryview) -> list[Entry]:
    """The entries of a table and the payloads behind it, which must be all of `raw`. Raises BadRequest."""
    start = ROW_BYTES * count
    if count < 0 or start > len(raw):
        raise _malformed("a table of entries that is larger than what holds it")
    columns = struct.unpack_from(_table(count), raw)
    steps, lengths = columns[:count], columns[5 * count :]
    ends = list(accumulate(lengths, initial=start))
    if ends[-1] != len(raw):
        raise _malformed("a table of entries that does not cover its payloads")
    if count and not min(steps):
        raise _malformed("a table of entries whose indexes do not rise")
    data = raw if len(raw) > COPY_BYTES * count else bytes(raw)
    return list(
        map(
            Entry,
            _indexes(base_index, steps),
            columns[count : 2 * count],
            columns[2 * count : 3 * count],
            columns[3 * count : 4 * count],
            columns[4 * count : 5 * count],
            [data[begin:end] for begin, end in pairwise(ends)],
        )
    )


def _indexes(base_index: int, steps: Sequence[int]) -> Iterable[int]:
    indexes = accumulate(steps, initial=base_index)
    next(indexes)
    return indexes


def _table(count: int) -> str:
    """Little-endian, without gaps: step, term, kind, mark, span, length."""
    return f"<{count}I{count}Q{count}B{count}q{count}I{count}I"


def _malformed(what: str) -> BadRequest:
    return BadRequest(f"a peer's frame cannot be read: it has {what}; the connection ends")

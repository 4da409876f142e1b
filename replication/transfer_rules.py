"""What the two sides of a snapshot transfer agree on: bytes, sizes, turns. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from struct import Struct
from typing import Any

from plait.wire.errors import BadRequest, Overloaded, Unavailable
from replication.actor import Promise
from replication.crc import crc32c
from replication.environment import Buffer
from replication.machine import Entry, Range

CHANNEL = "snapshot"
NS_PER_MS = 1_000_000

_ROW = Struct("<QQBIqII")

Answer = tuple[list[Any], Sequence[Buffer]]
"""What a sender gives: head and payload."""
Heard = tuple[list[Any], memoryview]
"""What a receiver gets: head and payload."""
Handler = Callable[[int, list[Any], memoryview], Promise[Answer]]


@dataclass(frozen=True, slots=True)
class TransferSettings:
    """Sizes and times of one node's transfers."""

    piece_bytes: int = 1 << 20
    """Of a question's answer; one larger entry travels alone."""
    pieces_outstanding: int = 4
    """Pieces of a state that are asked for at a time."""
    transfers_max: int = 4
    """Transfers at a time, to others and from others each."""
    waiting_max: int = 1_024
    """Transfers that may wait for their turn, on each side; more are refused."""
    wait_ms: int = 250
    """After this a receiver that was told to wait asks again."""
    timeout_ms: int = 10_000
    """For an answer."""
    tries: int = 5
    """How often a question is asked before the transfer counts as failed."""
    retry_ms: int = 200
    """Wait after a question got no answer."""
    idle_ms: int = 15_000
    """Silence after which a sender takes a transfer for ended."""
    linger_ms: int = 5_000
    """How long a sender's log goes on to forget nothing when the last entry was sent."""
    hold_ms: int = 900_000
    """How long it forgets nothing at the most: what is not forgotten takes room on its disk."""


@dataclass(slots=True)
class TransferCounters:
    """Payload bytes and whole transfers since the node's start."""

    state_bytes_sent: int = 0
    entry_bytes_sent: int = 0
    state_bytes_received: int = 0
    entry_bytes_received: int = 0
    received: int = 0
    failed: int = 0
    waits: int = 0
    """Questions that were answered with: wait."""
    asked_again: int = 0
    """Questions that got no answer."""
    bad_checksums: int = 0


def encode_entries(entries: Iterable[Entry]) -> list[Buffer]:
    """Each as its row and its payload."""
    parts: list[Buffer] = []
    for entry in entries:
        payload = entry.payload
        row = _ROW.pack(entry.index, entry.term, entry.kind, entry.span, entry.mark, len(payload), 0)
        crc = crc32c(payload, crc32c(row))
        parts.append(_ROW.pack(entry.index, entry.term, entry.kind, entry.span, entry.mark, len(payload), crc))
        if len(payload):
            parts.append(payload)
    return parts


def decode_entries(data: memoryview) -> list[Entry] | None:
    """What `encode_entries` gave; None if anything of it is not as it was."""
    entries: list[Entry] = []
    at = 0
    while at < len(data):
        if len(data) - at < _ROW.size:
            return None
        index, term, kind, span, mark, length, crc = _ROW.unpack_from(data, at)
        at += _ROW.size
        payload = data[at : at + length]
        row = _ROW.pack(index, term, kind, span, mark, length, 0)
        if len(payload) != length or crc32c(payload, crc32c(row)) != crc:
            return None
        if entries and index <= entries[-1].index:
            return None
        entries.append(Entry(index, term, kind, mark, span, payload))
        at += length
    return entries


class Turns:
    """Few at a time, the others in order of their first asking. Whoever falls silent loses his turn. Pure."""

    def __init__(self, at_a_time: int, waiting_max: int, silence_ns: int) -> None:
        self._at_a_time = at_a_time
        self._waiting_max = waiting_max
        self._silence_ns = silence_ns
        self.active: dict[tuple[int, int], None] = {}
        self._waiting: dict[tuple[int, int], int] = {}  # last asked at

    def ask(self, key: tuple[int, int], now_ns: int) -> bool:
        """True if it is its turn, which lasts until `end`. Raises Overloaded if too many wait."""
        if key in self.active:
            return True
        for other in [other for other, at in self._waiting.items() if now_ns - at > self._silence_ns]:
            del self._waiting[other]
        if key not in self._waiting and len(self._waiting) >= self._waiting_max:
            raise Overloaded("too many transfers of snapshots wait here; try again")
        self._waiting[key] = now_ns
        free = self._at_a_time - len(self.active)
        if list(self._waiting).index(key) >= free:
            return False
        del self._waiting[key]
        self.active[key] = None
        return True

    def end(self, key: tuple[int, int]) -> None:
        """Its turn is over."""
        self.active.pop(key, None)


def ranges_of(skip: list[Any]) -> list[Range]:
    """What a receiver has, from its question. Raises BadRequest."""
    found: list[Range] = []
    for item in skip:
        match item:
            case [int(first), int(last)] if first <= last and (not found or first > found[-1][1]):
                found.append((first, last))
            case _:
                raise BadRequest("what a receiver has is not a list of ranges")
    return found


@dataclass(slots=True)
class PartialState:
    """A state of which the first bytes are here. Pure."""

    index: int
    term: int
    size_bytes: int
    crc: int
    last_mark: int
    data: bytearray = field(default_factory=bytearray)

    @property
    def whole(self) -> bool:
        """All bytes are here."""
        return len(self.data) >= self.size_bytes

    def same_as(self, other: PartialState) -> bool:
        """Both are of the same bytes."""
        return (self.index, self.size_bytes, self.crc) == (other.index, other.size_bytes, other.crc)

    def intact(self) -> bool:
        """The bytes, which are all here, are those that were sent."""
        return len(self.data) == self.size_bytes and crc32c(self.data) == self.crc


def state_of(head: list[Any]) -> PartialState:
    """What an answer says of the state. Raises Unavailable for anything else."""
    match head:
        case ["state", int(index), int(term), int(size), int(crc), int(mark)] if size >= 0:
            return PartialState(index, term, size, crc, mark)
    raise Unavailable("an answer about a snapshot that this node does not understand")

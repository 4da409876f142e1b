"""Entries that follow one another, and the bytes that a log writes of them: made once, by their leader. Pure.

    leader:   propose ──> Run ──┬──> its own log            follower:   frame ──> Run ──> its own log
                                └──> a frame for each follower

Followers write the very bytes that came, the checksums of entries among them. What is cut out of a run is a list,
and is encoded anew where it is written or sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from replication.environment import Buffer
from replication.machine import Entry
from replication.storage.format import encode_entries

JOIN_BELOW_BYTES = 2_048
"""Mean size of payloads that are joined to be written and sent: larger ones are not copied."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Entries as they stand in a block of the write-ahead log (storage/format.py)."""

    group: int
    """The number in the records."""
    records: bytes
    payloads: Sequence[Buffer]
    """In one piece, or one for each entry that has one."""
    payload_bytes: int


class Run(list[Entry]):
    """Entries without gaps in their indexes; not to be changed."""

    __slots__ = ("encoded", "payload_bytes")

    def __init__(self, entries: Iterable[Entry], encoded: Encoded | None = None) -> None:
        super().__init__(entries)
        self.encoded = encoded
        """Once it was written or sent, or as it came."""
        self.payload_bytes = _sum(self) if encoded is None else encoded.payload_bytes


def payload_bytes_of(entries: Sequence[Entry]) -> int:
    """The bytes of their payloads."""
    return entries.payload_bytes if type(entries) is Run else _sum(entries)


def encoded(group: int, entries: Sequence[Entry]) -> Encoded:
    """The bytes of a group's entries; a run remembers them. Raises struct.error for what no record can hold.

    A log may have another number than its group has between nodes: then they are made for each.
    """
    if type(entries) is not Run:
        return _encode(group, entries)
    if entries.encoded is None or entries.encoded.group != group:
        entries.encoded = _encode(group, entries)
    return entries.encoded


def _encode(group: int, entries: Sequence[Entry]) -> Encoded:
    table: list[bytes] = []
    payloads: list[Buffer] = []
    payload_bytes = encode_entries(group, entries, table, payloads)
    if payload_bytes < JOIN_BELOW_BYTES * len(payloads):
        payloads = [b"".join(payloads)]
    return Encoded(group, b"".join(table), payloads, payload_bytes)


def _sum(entries: Sequence[Entry]) -> int:
    return sum([len(entry.payload) for entry in entries])

"""Which partition a key belongs to: Kafka's default rule, so that clients of every protocol agree."""

from __future__ import annotations

from plait.wire import Buffer

SEED = 0x9747B28C
"""Kafka's seed."""
_M = 0x5BD1E995
_MASK = 0xFFFFFFFF


def murmur2(data: Buffer) -> int:
    """MurmurHash2, 32 bits, unsigned, as `org.apache.kafka.common.utils.Utils.murmur2` (there signed)."""
    data = bytes(data)
    whole = len(data) & ~3
    h = SEED ^ len(data)
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * _M & _MASK
        k = (k ^ k >> 24) * _M & _MASK
        h = (h * _M & _MASK) ^ k
    if len(data) > whole:
        h = (h ^ int.from_bytes(data[whole:], "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return h ^ h >> 15


def partition_for_key(key: Buffer, partitions: int) -> int:
    """The partition, from 0, of a key in a topic of so many partitions."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions

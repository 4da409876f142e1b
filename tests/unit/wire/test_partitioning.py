"""Kafka's default partitioner: the values that its Java client's own tests pin, and where keys land."""

from __future__ import annotations

import pytest

from plait.wire.partitioning import murmur2, partition_for_key


@pytest.mark.parametrize(
    ("key", "signed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_hashes_are_those_of_the_java_client(key, signed):
    assert murmur2(key) == signed & 0xFFFFFFFF
    assert murmur2(memoryview(bytearray(key))) == signed & 0xFFFFFFFF


def test_a_key_has_one_partition_within_the_topic():
    for partitions in (1, 2, 3, 100):
        found = {partition_for_key(b"key %d" % n, partitions) for n in range(2000)}
        assert found == set(range(partitions))

"""Varints: Kafka's encoding, the table against the loop, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.wire.errors import BatchInvalid
from plait.wire.varint import SHORT, read_unsigned, read_varint, varint

SIGNED_64 = st.integers(-(1 << 63), (1 << 63) - 1)


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (-1, "01"),
        (1, "02"),
        (63, "7e"),
        (-64, "7f"),
        (64, "8001"),
        (-65, "8101"),
        (8191, "fe7f"),
        (8192, "808001"),
        ((1 << 31) - 1, "feffffff0f"),
        ((1 << 63) - 1, "feffffffffffffffff01"),
        (-(1 << 63), "ffffffffffffffffff01"),
    ],
)
def test_numbers_have_their_known_bytes(value, encoded):
    assert varint(value).hex() == encoded
    assert read_varint(bytes.fromhex(encoded), 0) == (value, len(encoded) // 2)


def test_the_table_agrees_with_reading():
    assert [read_varint(each, 0) for each in SHORT] == [(n, len(each)) for n, each in enumerate(SHORT)]


@given(SIGNED_64, st.binary(max_size=3))
def test_every_number_comes_back_and_what_follows_is_left(value, rest):
    encoded = varint(value)
    assert read_varint(b"x" + encoded + rest, 1) == (value, 1 + len(encoded))


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 9, b"\x80" * 10 + b"\0", b"\xff" * 9 + b"\x02"])
def test_a_number_without_end_or_over_64_bits_is_refused(data):
    with pytest.raises(BatchInvalid):
        read_unsigned(data, 0)

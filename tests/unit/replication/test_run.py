"""Runs of entries are encoded once, and are what a log ends with until their place is known."""

from __future__ import annotations

import pytest

from replication.machine import Entry
from replication.run import JOIN_BELOW_BYTES, Encoded, Run, encoded, payload_bytes_of
from replication.storage.format import RECORD_BYTES


def entries(*payloads: bytes) -> list[Entry]:
    return [Entry(index, 1, 1, 0, 1, payload) for index, payload in enumerate(payloads, 1)]


def test_a_run_is_encoded_once_and_a_list_each_time():
    run = Run(entries(b"one", b"two"))
    assert encoded(7, run) is encoded(7, run)
    assert encoded(7, list(run)) is not encoded(7, list(run))
    assert encoded(7, list(run)) == encoded(7, run)


def test_what_came_encoded_stays_as_it_came():
    came = Encoded(7, b"records", (b"onetwo",), 6)
    assert encoded(7, Run(entries(b"one", b"two"), came)) is came


def test_for_a_log_of_another_number_it_is_encoded_anew():
    run = Run(entries(b"one", b"two"))
    sent = encoded(7, run)
    assert encoded(8 << 40 | 7, run) == encoded(8 << 40 | 7, list(run)) != sent
    assert encoded(7, run) == sent


def test_what_is_cut_out_of_a_run_is_encoded_anew():
    run = Run(entries(b"one", b"two", b"three"))
    encoded(7, run)
    assert encoded(7, run[1:]) == encoded(7, entries(b"one", b"two", b"three")[1:])


@pytest.mark.parametrize("payloads", [[b""], [b"one"], [b"one", b"", b"three"]])
def test_its_bytes_are_counted(payloads: list[bytes]):
    found = entries(*payloads)
    size_bytes = sum(map(len, payloads))
    assert payload_bytes_of(found) == payload_bytes_of(Run(found)) == Run(found).payload_bytes == size_bytes
    made = encoded(7, Run(found))
    assert (len(made.records), made.payload_bytes) == (RECORD_BYTES * len(found), size_bytes)
    assert b"".join(made.payloads) == b"".join(payloads)


def test_small_payloads_are_joined_and_large_ones_are_not_copied():
    small, large = bytes(JOIN_BELOW_BYTES - 1), bytes(JOIN_BELOW_BYTES)
    assert list(encoded(7, entries(small, small)).payloads) == [small + small]
    found = encoded(7, entries(large, large)).payloads
    assert [payload is large for payload in found] == [True, True]

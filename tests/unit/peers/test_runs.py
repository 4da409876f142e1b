"""Entries that go to several nodes are encoded once."""

from __future__ import annotations

from replication.environment import Buffer
from replication.machine import Entry
from replication.peers.codec import encode_message
from replication.peers.runs import RUNS_BYTES, Runs
from replication.raft.messages import Append


def entries(*payloads: bytes) -> list[Entry]:
    return [Entry(index, 1, 1, 0, 1, payload) for index, payload in enumerate(payloads, 1)]


def append(target: int, run: list[Entry]) -> Append:
    return Append(1, target, 1, 0, 0, run, 0, target)


def sent(message: Append, runs: Runs | None) -> tuple[list[int], bytes]:
    parts: list[Buffer] = []
    words = encode_message(7, message, parts, runs)
    return words, b"".join(parts)


def test_what_is_sent_is_the_same_with_and_without_it():
    runs, run = Runs(), entries(b"one", b"", b"three")
    for target in (2, 3, 2):
        message = append(target, run)
        assert sent(message, runs) == sent(message, None)


def test_the_same_sequence_is_encoded_once():
    runs, run = Runs(), entries(b"one", b"two")
    sent(append(2, run), runs)
    data = runs.find(run)
    parts: list[Buffer] = []
    encode_message(7, append(3, run), parts, runs)
    assert parts[0] is data


def test_equal_entries_in_another_sequence_are_another_run():
    runs = Runs()
    sent(append(2, entries(b"one")), runs)
    assert runs.find(entries(b"one")) is None


def test_older_runs_make_room_for_newer_ones():
    runs, kept = Runs(), [entries(bytes(RUNS_BYTES // 3)) for _ in range(4)]
    for run in kept:
        runs.keep(run, [run[0].payload])
    assert [runs.find(run) is not None for run in kept] == [False, True, True, True]


def test_a_run_larger_than_all_that_is_kept_is_encoded_and_not_kept():
    runs, run = Runs(), entries(bytes(RUNS_BYTES + 1))
    assert sent(append(2, run), runs) == sent(append(2, run), None)
    assert runs.find(run) is None


def test_nothing_is_held_once_it_is_forgotten():
    runs, run = Runs(), entries(b"one")
    sent(append(2, run), runs)
    runs.forget()
    assert runs.find(run) is None

"""What a leader keeps of a follower."""

from __future__ import annotations

from replication.raft.progress import Pace, Progress


def following(match: int) -> Progress:
    progress = Progress(2, 2, match + 1, 0)
    progress.acknowledged(match, 0)
    progress.replicate()
    return progress


def test_a_window_is_full_at_its_messages_and_at_its_bytes() -> None:
    progress = following(10)
    progress.sent(11, 100, 1)
    assert not progress.full(messages=2, size_bytes=101)
    assert progress.full(messages=1, size_bytes=1_000)
    assert progress.full(messages=9, size_bytes=100)


def test_an_empty_window_lets_one_append_through_however_large() -> None:
    assert not following(10).full(messages=1, size_bytes=0)


def test_an_answer_frees_every_append_that_it_covers() -> None:
    progress = following(10)
    for last in (20, 30, 40):
        progress.sent(last, 5, 1)
    assert progress.acknowledged(30, 2)
    assert (progress.match, progress.next, progress.window_bytes, len(progress.window)) == (30, 41, 5, 1)


def test_an_older_answer_is_no_news_and_takes_nothing_back() -> None:
    progress = following(10)
    progress.sent(20, 5, 1)
    progress.acknowledged(20, 2)
    assert not progress.acknowledged(15, 3)
    assert progress.match == 20


def test_what_was_sent_before_an_answer_is_known_and_what_comes_later_is_news() -> None:
    progress = following(10)
    progress.sequence = 7
    progress.acknowledged(11, 1)
    assert progress.confirmed_sequence == 7


def test_probing_starts_over_behind_the_last_match() -> None:
    progress = following(10)
    progress.sent(20, 5, 1)
    progress.probe()
    assert (progress.pace, progress.next, len(progress.window), progress.window_bytes) == (Pace.PROBE, 11, 0, 0)


def test_a_follower_that_lost_entries_has_nothing_under_way() -> None:
    progress = following(10)
    progress.sent(20, 5, 1)
    progress.lose()
    assert (progress.pace, len(progress.window), progress.window_bytes) == (Pace.LOST, 0, 0)

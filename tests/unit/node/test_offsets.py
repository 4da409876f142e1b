"""Stream subscriptions' positions: what was committed is there, what is forgotten is gone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node import offsets
from node.offsets import (
    CommandUnknown,
    CommitPositions,
    ForgetSubscription,
    ForgetTopic,
    PositionCommand,
    StreamPositions,
    decode_command,
    encode_command,
)
from node.runs import HIGHEST_OFFSET
from plait.wire.errors import BadRequest, LimitReached, NameInvalid

NAMES = st.sampled_from(["audit", "billing", "größe"])
TOPICS = st.integers(1, 3)
COMMITS = st.builds(
    CommitPositions,
    NAMES,
    TOPICS,
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, HIGHEST_OFFSET)), max_size=4).map(tuple),
    st.integers(0, 1 << 50),
)
COMMANDS = st.one_of(
    COMMITS, COMMITS, st.builds(ForgetTopic, TOPICS), st.builds(ForgetSubscription, NAMES, st.integers(0, 3))
)


def positions_after(*commands: PositionCommand) -> StreamPositions:
    positions = StreamPositions()
    for index, command in enumerate(commands, 1):
        positions.apply_command(index, encode_command(command))
    return positions


@given(COMMANDS)
def test_a_command_comes_out_of_the_log_as_it_went_in(command: PositionCommand) -> None:
    assert decode_command(encode_command(command)) == command


@given(st.lists(COMMANDS, max_size=20))
def test_positions_are_what_a_dict_would_hold(commands: list[PositionCommand]) -> None:
    positions = StreamPositions()
    slow: dict[tuple[str, int, int], int] = {}
    for index, command in enumerate(commands, 1):
        positions.apply_command(index, encode_command(command))
        if isinstance(command, CommitPositions):
            for partition, offset in command.positions:
                slow[command.subscription, command.topic_id, partition] = offset
        elif isinstance(command, ForgetTopic):
            slow = {key: offset for key, offset in slow.items() if key[1] != command.topic_id}
        else:
            topics = (1, 2, 3) if command.topic_id == 0 else (command.topic_id,)
            slow = {
                key: offset
                for key, offset in slow.items()
                if key[0] != command.subscription or key[1] not in topics
            }
        assert len(positions) == len(slow)
        found = {
            (name, topic_id, partition): offset
            for topic_id in (1, 2, 3)
            for name, stored in positions.of_topic(topic_id).items()
            for partition, offset in stored.items()
        }
        assert found == slow
    reborn = StreamPositions()
    reborn.restore(positions.snapshot())
    assert reborn.snapshot() == positions.snapshot()
    assert len(reborn) == len(positions)


def test_a_position_may_go_back() -> None:
    positions = positions_after(
        CommitPositions("audit", 1, ((0, 50), (1, 7)), 100), CommitPositions("audit", 1, ((0, 10),), 200)
    )
    assert positions.positions("audit", 1) == [(0, 10), (1, 7)]
    assert positions.committed_ms("audit", 1) == 200
    assert positions.committed_ms("audit", 2) is None
    assert positions.positions("nobody", 1) == []


def test_equal_positions_have_equal_snapshots_whatever_their_order() -> None:
    some = CommitPositions("audit", 1, ((1, 7), (0, 50)), 100)
    others = CommitPositions("billing", 2, ((0, 3),), 100)
    forgotten = (CommitPositions("gone", 9, ((0, 1),), 50), ForgetTopic(9))
    assert positions_after(*forgotten, others, some).snapshot() == positions_after(some, others).snapshot()


def test_stamps_never_fall() -> None:
    positions = positions_after(
        CommitPositions("audit", 1, ((0, 1),), 200), CommitPositions("audit", 1, ((0, 2),), 100)
    )
    assert positions.last_stamp_ms == 200


@pytest.mark.parametrize(("partitions", "fits"), [(3, True), (4, True), (5, False)])
def test_positions_are_bounded(monkeypatch: pytest.MonkeyPatch, partitions: int, fits: bool) -> None:
    monkeypatch.setattr(offsets, "POSITIONS_MAX", 4)
    commit = CommitPositions("audit", 1, tuple((n, 0) for n in range(partitions)), 1)
    if fits:
        positions = positions_after(commit)
        assert len(positions) == partitions
        positions.apply_command(2, encode_command(commit))  # no new ones
    else:
        positions = StreamPositions()
        with pytest.raises(LimitReached):
            positions.apply_command(1, encode_command(commit))
        assert positions.snapshot() == StreamPositions().snapshot()


@pytest.mark.parametrize(("count", "fits"), [(2, True), (3, True), (4, False)])
def test_one_commit_is_bounded(monkeypatch: pytest.MonkeyPatch, count: int, fits: bool) -> None:
    monkeypatch.setattr(offsets, "COMMIT_POSITIONS_MAX", 3)
    commit = CommitPositions("audit", 1, tuple((n, 0) for n in range(count)), 1)
    if fits:
        encode_command(commit)
    else:
        with pytest.raises(LimitReached):
            encode_command(commit)


@pytest.mark.parametrize("position", [(-1, 0), (1 << 32, 0), (0, -1), (0, HIGHEST_OFFSET + 1)])
def test_what_is_no_position_is_refused_before_it_is_proposed(position: tuple[int, int]) -> None:
    with pytest.raises(BadRequest):
        encode_command(CommitPositions("audit", 1, (position,), 1))


@pytest.mark.parametrize("name", ["", "x" * 256, "é" * 128, "\ud800"])
def test_a_name_that_cannot_be_stored_is_refused(name: str) -> None:
    with pytest.raises(NameInvalid):
        encode_command(ForgetSubscription(name))


def test_a_name_of_the_greatest_length_is_taken() -> None:
    longest = "x" * offsets.SUBSCRIPTION_NAME_BYTES_MAX
    assert positions_after(CommitPositions(longest, 1, ((0, 1),), 1)).subscriptions(1) == [longest]


def test_a_command_of_a_newer_version_stops_the_replica() -> None:
    with pytest.raises(CommandUnknown):
        StreamPositions().apply_command(1, b"\x09" + bytes(8))


def test_a_snapshot_of_a_newer_format_is_refused() -> None:
    with pytest.raises(ValueError, match="format"):
        StreamPositions().restore(b"\x83\x02\x00\x80")

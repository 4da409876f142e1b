"""Positions of stream subscriptions: which offset each has committed, per partition. A pure state machine.

    commit ──> {subscription: {topic id: {partition: (offset, stamp)}}}

A position is the offset of the next record that the subscription wants (as in Kafka: the last processed one + 1).
It may go back: that is a replay. Lives in the coordinator partition's group.

Commands in the log, big-endian:

    commit               1 | topic id u64 | stamp_ms i64 | length u16 | count u32 | name | count x (u32, i64)
    forget topic         2 | topic id u64
    forget subscription  3 | topic id u64 (0: of every topic) | length u16 | name
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import Any

import cbor2

from node.runs import HIGHEST_OFFSET
from plait.wire.errors import BadRequest, LimitReached, NameInvalid

POSITIONS_MAX = 500_000
"""Positions (subscription x partition) that one coordinator partition keeps; a commit beyond it is refused."""
COMMIT_POSITIONS_MAX = 100_000
"""Positions in one commit."""
SUBSCRIPTION_NAME_BYTES_MAX = 255
"""Length of a subscription's name in UTF-8."""
PARTITION_MAX = (1 << 32) - 1
"""Highest number of a partition that the encoding has room for."""
EVERY_TOPIC = 0
"""No topic has this id."""

SNAPSHOT_FORMAT = 1
"""First element of a snapshot."""

_COMMIT, _FORGET_TOPIC, _FORGET_SUBSCRIPTION = 1, 2, 3
_HEAD = Struct(">BQ")
_COMMIT_HEAD = Struct(">BQqHI")
_NAMED_HEAD = Struct(">BQH")
_POSITION = Struct(">Iq")


class CommandUnknown(Exception):
    """A committed command that this version cannot read. The replica must stop there: nothing is skipped."""


@dataclass(frozen=True, slots=True)
class CommitPositions:
    """A subscription is at these places of a topic."""

    subscription: str
    topic_id: int
    positions: tuple[tuple[int, int], ...]
    """(partition, offset of the next record wanted)."""
    stamp_ms: int


@dataclass(frozen=True, slots=True)
class ForgetTopic:
    """A topic is gone, and every position in it."""

    topic_id: int


@dataclass(frozen=True, slots=True)
class ForgetSubscription:
    """A subscription's positions in a topic, or in all of them, are gone."""

    subscription: str
    topic_id: int = EVERY_TOPIC


PositionCommand = CommitPositions | ForgetTopic | ForgetSubscription


def encode_command(command: PositionCommand) -> bytes:
    """A command as it goes into the log. Raises NameInvalid, LimitReached or BadRequest."""
    if isinstance(command, CommitPositions):
        return _encode_commit(command)
    if isinstance(command, ForgetTopic):
        return _HEAD.pack(_FORGET_TOPIC, command.topic_id)
    name = _encode_name(command.subscription)
    return _NAMED_HEAD.pack(_FORGET_SUBSCRIPTION, command.topic_id, len(name)) + name


def decode_command(command: bytes) -> PositionCommand:
    """A command from the log. Raises CommandUnknown for a kind that only a newer version knows."""
    kind, topic_id = _HEAD.unpack_from(command)
    if kind == _COMMIT:
        _, _, stamp_ms, length, count = _COMMIT_HEAD.unpack_from(command)
        begin = _COMMIT_HEAD.size + length
        name = command[_COMMIT_HEAD.size : begin].decode()
        packed = command[begin : begin + count * _POSITION.size]
        return CommitPositions(name, topic_id, tuple(_POSITION.iter_unpack(packed)), stamp_ms)
    if kind == _FORGET_TOPIC:
        return ForgetTopic(topic_id)
    if kind == _FORGET_SUBSCRIPTION:
        length = _NAMED_HEAD.unpack_from(command)[2]
        return ForgetSubscription(command[_NAMED_HEAD.size : _NAMED_HEAD.size + length].decode(), topic_id)
    raise CommandUnknown(f"a command of kind {kind} to the stream positions")


def _encode_commit(command: CommitPositions) -> bytes:
    positions = command.positions
    if len(positions) > COMMIT_POSITIONS_MAX:
        raise LimitReached(
            f"a commit of {len(positions)} positions is over the limit of {COMMIT_POSITIONS_MAX}; "
            "nothing was committed: commit fewer at once",
            limit=COMMIT_POSITIONS_MAX,
        )
    for partition, offset in positions:
        if not (0 <= partition <= PARTITION_MAX and 0 <= offset <= HIGHEST_OFFSET):
            raise BadRequest(f"partition {partition}, offset {offset} is no position; nothing was committed")
    name = _encode_name(command.subscription)
    head = _COMMIT_HEAD.pack(_COMMIT, command.topic_id, command.stamp_ms, len(name), len(positions))
    return b"".join((head, name, *(_POSITION.pack(*position) for position in positions)))


def _encode_name(subscription: str) -> bytes:
    try:
        name = subscription.encode()
    except UnicodeEncodeError:
        raise NameInvalid("a subscription's name is not Unicode text; nothing was done: use another") from None
    if not 0 < len(name) <= SUBSCRIPTION_NAME_BYTES_MAX:
        raise NameInvalid(
            f"a subscription's name has 1 to {SUBSCRIPTION_NAME_BYTES_MAX} bytes, this one {len(name)}; "
            "nothing was done: use another"
        )
    return name


class StreamPositions:
    """All positions of one coordinator partition."""

    def __init__(self) -> None:
        self._topics: dict[str, dict[int, dict[int, tuple[int, int]]]] = {}  # no empty dict inside
        self._count = 0
        self.last_stamp_ms = 0
        """The largest stamp so far; never falls."""

    def __len__(self) -> int:
        """How many positions there are."""
        return self._count

    # Commands

    def apply_command(self, index: int, command: bytes) -> None:
        """Apply one committed command. Raises LimitReached, having changed nothing; CommandUnknown."""
        decoded = decode_command(command)
        if isinstance(decoded, CommitPositions):
            self._commit(decoded)
        elif isinstance(decoded, ForgetTopic):
            for subscription in self.subscriptions(decoded.topic_id):
                self._forget(subscription, decoded.topic_id)
        elif decoded.topic_id == EVERY_TOPIC:
            for topic_id in list(self._topics.get(decoded.subscription, ())):
                self._forget(decoded.subscription, topic_id)
        else:
            self._forget(decoded.subscription, decoded.topic_id)

    def _commit(self, command: CommitPositions) -> None:
        kept = self._topics.get(command.subscription, {}).get(command.topic_id, {})
        new = len({partition for partition, _ in command.positions if partition not in kept})
        if self._count + new > POSITIONS_MAX:
            raise LimitReached(
                f"{self._count} positions are kept of at most {POSITIONS_MAX}; nothing was committed: "
                "delete subscriptions that are no longer used",
                limit=POSITIONS_MAX,
            )
        self.last_stamp_ms = max(self.last_stamp_ms, command.stamp_ms)
        if command.positions:
            target = self._topics.setdefault(command.subscription, {}).setdefault(command.topic_id, {})
            for partition, offset in command.positions:
                target[partition] = (offset, self.last_stamp_ms)
            self._count += new

    def _forget(self, subscription: str, topic_id: int) -> None:
        topics = self._topics.get(subscription)
        gone = topics.pop(topic_id, None) if topics is not None else None
        if gone is not None:
            self._count -= len(gone)
            if not topics:
                del self._topics[subscription]

    # Questions

    def positions(self, subscription: str, topic_id: int) -> list[tuple[int, int]]:
        """(partition, offset) of a subscription in a topic, by partition; where it never committed is absent."""
        kept = self._topics.get(subscription, {}).get(topic_id, {})
        return [(partition, kept[partition][0]) for partition in sorted(kept)]

    def of_topic(self, topic_id: int) -> dict[str, dict[int, int]]:
        """Every subscription's positions in a topic: {subscription: {partition: offset}}, both sorted."""
        return {name: dict(self.positions(name, topic_id)) for name in self.subscriptions(topic_id)}

    def committed_ms(self, subscription: str, topic_id: int) -> int | None:
        """Stamp of a subscription's last commit to a topic; None: there was none."""
        kept = self._topics.get(subscription, {}).get(topic_id)
        return max(stamp_ms for _, stamp_ms in kept.values()) if kept else None

    def topics(self) -> list[int]:
        """The ids of all topics that some subscription has a position in, sorted."""
        return sorted({topic_id for topics in self._topics.values() for topic_id in topics})

    def subscriptions(self, topic_id: int) -> list[str]:
        """Names of the subscriptions that have a position in a topic, sorted."""
        return sorted(name for name, topics in self._topics.items() if topic_id in topics)

    # Snapshots

    def snapshot(self) -> bytes:
        """The state; equal states give equal bytes."""
        subscriptions = [
            [
                name,
                [
                    [topic_id, [item for partition in sorted(kept) for item in (partition, *kept[partition])]]
                    for topic_id, kept in sorted(topics.items())
                ],
            ]
            for name, topics in sorted(self._topics.items())
        ]
        return cbor2.dumps([SNAPSHOT_FORMAT, self.last_stamp_ms, subscriptions])

    def restore(self, state: bytes) -> None:
        """Become the state of a snapshot. Raises ValueError for a format of a newer version."""
        form, *rest = cbor2.loads(state)
        if form != SNAPSHOT_FORMAT:
            raise ValueError(f"stream positions of format {form}; this version reads {SNAPSHOT_FORMAT}")
        subscriptions: list[Any]
        self.last_stamp_ms, subscriptions = rest
        self._topics = {
            name: {
                topic_id: {
                    partition: (offset, stamp_ms)
                    for partition, offset, stamp_ms in zip(flat[::3], flat[1::3], flat[2::3], strict=True)
                }
                for topic_id, flat in topics
            }
            for name, topics in subscriptions
        }
        self._count = sum(len(kept) for topics in self._topics.values() for kept in topics.values())

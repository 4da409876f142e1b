"""What is asked of a coordinator partition, on this node or on another one (see node/questions.py).

Positions are there too: a subscription's positions and its consumer group fence each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from cluster.group_commands import CommitAsMember, JoinGroup, encode_group_command
from cluster.group_membership import Assigned
from node.coordinator import Coordinator
from node.offsets import CommitPositions, encode_command
from node.questions import PLAIN_QUESTIONS, Place, Plain, Question, not_here
from plait.wire.errors import PlaitError
from plait.wire.frames import decode_plain, encode_plain
from replication.actor import Promise
from replication.environment import Buffer
from replication.peers.channels import Answer

T = TypeVar("T")
Positions = dict[str, dict[int, int]]
"""{subscription: {partition: offset}}."""


class _Nothing(Plain):
    """Those whose answer is only that it is done."""

    @staticmethod
    def answer(result: None) -> Answer:
        return [], ()

    @staticmethod
    def result(words: list[Any], payload: memoryview) -> None:
        return None


class _Assigns(Plain):
    """Those that are answered with what a member may read."""

    @staticmethod
    def answer(result: Assigned) -> Answer:
        return [result.generation], [encode_plain([list(place) for place in result.partitions])]

    @staticmethod
    def result(words: list[Any], payload: memoryview) -> Assigned:
        return Assigned(words[0], tuple((topic, number) for topic, number in decode_plain(bytes(payload))))


@dataclass(frozen=True, slots=True)
class CommitTo(_Nothing):
    """Positions of a stream subscription. Done twice, it could undo what was committed in between."""

    KIND: ClassVar[int] = 6
    REPEATS: ClassVar[bool] = False
    subscription: str
    topic_id: int
    positions: Sequence[tuple[int, int]]

    def here(self, place: Place, group: int, promise: Promise[None]) -> None:
        def commit(coordinator: Coordinator) -> Promise[None]:
            command = _commit(coordinator, self.subscription, self.topic_id, self.positions)
            return coordinator.replica.submit(command)

        _ask(place, group, promise, commit)

    def words(self) -> list[Any]:
        return [self.subscription, self.topic_id]

    def payload(self) -> Sequence[Buffer]:
        return [encode_plain([list(position) for position in self.positions])]

    @classmethod
    def read(cls, words: list[Any], payload: memoryview) -> CommitTo:
        subscription, topic_id = words
        return cls(subscription, topic_id, [(number, at) for number, at in decode_plain(bytes(payload))])


@dataclass(frozen=True, slots=True)
class PositionsOf(Plain):
    """The stored positions of a topic's subscriptions."""

    KIND: ClassVar[int] = 7
    subscription: str
    """"": of all that this coordinator has."""
    topic_id: int

    def here(self, place: Place, group: int, promise: Promise[Positions]) -> None:
        def look(coordinator: Coordinator) -> Positions:
            positions = coordinator.state.positions
            if self.subscription:
                return {self.subscription: dict(positions.positions(self.subscription, self.topic_id))}
            return positions.of_topic(self.topic_id)

        _look(place, group, promise, look)

    def words(self) -> list[Any]:
        return [self.subscription, self.topic_id]

    @classmethod
    def read(cls, words: list[Any], payload: memoryview) -> PositionsOf:
        return cls(*words)

    @staticmethod
    def answer(result: Positions) -> Answer:
        rows = [[name, [list(each) for each in stored.items()]] for name, stored in result.items()]
        return [], [encode_plain(rows)]

    @staticmethod
    def result(words: list[Any], payload: memoryview) -> Positions:
        return {name: dict(map(tuple, stored)) for name, stored in decode_plain(bytes(payload))}


@dataclass(frozen=True, slots=True)
class JoinTo(_Assigns):
    """A member comes into a group, or comes again."""

    KIND: ClassVar[int] = 8
    group: str
    member: str
    client: str
    topics: Sequence[tuple[int, int]]
    session_ms: int

    def here(self, place: Place, group: int, promise: Promise[Assigned]) -> None:
        def join(coordinator: Coordinator) -> Promise[Assigned]:
            stamp_ms = coordinator.wall_ms()
            return coordinator.join(
                JoinGroup(self.group, self.member, self.client, tuple(self.topics), self.session_ms, stamp_ms)
            )

        _ask(place, group, promise, join)

    def words(self) -> list[Any]:
        return [self.group, self.member, self.client, self.session_ms]

    def payload(self) -> Sequence[Buffer]:
        return [encode_plain([list(topic) for topic in self.topics])]

    @classmethod
    def read(cls, words: list[Any], payload: memoryview) -> JoinTo:
        group, member, client, session_ms = words
        topics = [(topic, count) for topic, count in decode_plain(bytes(payload))]
        return cls(group, member, client, topics, session_ms)


@dataclass(frozen=True, slots=True)
class HeartbeatTo(_Assigns):
    """A member is alive, and wants to know what it may read; see Coordinator.heartbeat."""

    KIND: ClassVar[int] = 9
    group: str
    member: str
    acknowledged: int
    known: int
    for_ms: int

    @property
    def wait_ms(self) -> int:
        return self.for_ms

    def here(self, place: Place, group: int, promise: Promise[Assigned]) -> None:
        def hear(coordinator: Coordinator) -> Promise[Assigned]:
            return coordinator.heartbeat(self.group, self.member, self.acknowledged, self.known, self.for_ms)

        _ask(place, group, promise, hear)

    def words(self) -> list[Any]:
        return [self.group, self.member, self.acknowledged, self.known, self.for_ms]

    @classmethod
    def read(cls, words: list[Any], payload: memoryview) -> HeartbeatTo:
        return cls(*words)


@dataclass(frozen=True, slots=True)
class LeaveFrom(_Nothing):
    """A member goes."""

    KIND: ClassVar[int] = 10
    group: str
    member: str

    def here(self, place: Place, group: int, promise: Promise[None]) -> None:
        _ask(place, group, promise, lambda coordinator: coordinator.leave(self.group, self.member))

    def words(self) -> list[Any]:
        return [self.group, self.member]

    @classmethod
    def read(cls, words: list[Any], payload: memoryview) -> LeaveFrom:
        return cls(*words)


@dataclass(frozen=True, slots=True)
class MemberCommitTo(_Nothing):
    """Positions of a member. Done twice, it could undo what the member has committed in between."""

    KIND: ClassVar[int] = 11
    REPEATS: ClassVar[bool] = False
    group: str
    member: str
    generation: int
    topic_id: int
    positions: Sequence[tuple[int, int]]

    def here(self, place: Place, group: int, promise: Promise[None]) -> None:
        def commit(coordinator: Coordinator) -> Promise[None]:
            positions = _commit(coordinator, self.group, self.topic_id, self.positions)
            command = CommitAsMember(self.group, self.member, self.generation, positions)
            return coordinator.replica.submit(encode_group_command(command))

        _ask(place, group, promise, commit)

    def words(self) -> list[Any]:
        return [self.group, self.member, self.generation, self.topic_id]

    def payload(self) -> Sequence[Buffer]:
        return [encode_plain([list(position) for position in self.positions])]

    @classmethod
    def read(cls, words: list[Any], payload: memoryview) -> MemberCommitTo:
        group, member, generation, topic_id = words
        positions = [(number, at) for number, at in decode_plain(bytes(payload))]
        return cls(group, member, generation, topic_id, positions)


@dataclass(frozen=True, slots=True)
class GroupsOf(Plain):
    """The groups of a coordinator: rows of `Coordinator.described`, of one group ("": of all, in short)."""

    KIND: ClassVar[int] = 12
    group: str

    def here(self, place: Place, group: int, promise: Promise[list[dict[str, Any]]]) -> None:
        _look(place, group, promise, lambda coordinator: coordinator.described(self.group))

    def words(self) -> list[Any]:
        return [self.group]

    @classmethod
    def read(cls, words: list[Any], payload: memoryview) -> GroupsOf:
        return cls(*words)

    @staticmethod
    def answer(result: list[dict[str, Any]]) -> Answer:
        return [], [encode_plain(result)]

    @staticmethod
    def result(words: list[Any], payload: memoryview) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = decode_plain(bytes(payload))
        return found


GROUP_QUESTIONS: tuple[type[Question[Any]], ...] = (
    CommitTo,
    PositionsOf,
    JoinTo,
    HeartbeatTo,
    LeaveFrom,
    MemberCommitTo,
    GroupsOf,
)
QUESTIONS: dict[int, type[Question[Any]]] = {each.KIND: each for each in (*PLAIN_QUESTIONS, *GROUP_QUESTIONS)}
"""Every question by its kind. Numbers are never used again."""


def _commit(
    coordinator: Coordinator, subscription: str, topic_id: int, positions: Sequence[tuple[int, int]]
) -> bytes:
    return encode_command(CommitPositions(subscription, topic_id, tuple(positions), coordinator.wall_ms()))


def _ask(place: Place, group: int, promise: Promise[T], ask: Callable[[Coordinator], Promise[T]]) -> None:
    """Have a coordinator do something; its answer goes into the promise."""
    coordinator = place.coordinator(group)
    if coordinator is None:
        promise.reject(not_here(group))
        return

    def heard(done: Promise[T]) -> None:
        if done.error is not None:
            promise.reject(done.error)
        else:
            promise.resolve(done.result())

    try:
        asked = ask(coordinator)
    except PlaitError as error:  # it cannot be written down so
        promise.reject(error)
        return
    asked.then(heard)


def _look(place: Place, group: int, promise: Promise[T], look: Callable[[Coordinator], T]) -> None:
    """What a coordinator knows, once it is certain that this is not old."""
    coordinator = place.coordinator(group)
    if coordinator is None:
        promise.reject(not_here(group))
        return
    found = coordinator

    def heard(done: Promise[int]) -> None:
        if done.error is not None:
            promise.reject(done.error)
        else:
            promise.resolve(look(found))

    coordinator.replica.confirmed().then(heard)

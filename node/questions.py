"""What one node asks another about a partition that is led there.

    asked here:  question ──words, payload──> link                     link ──> read ──> result
    led there:   link ──> QUESTIONS[kind].read ──> question ──here()──> promise ──answer──> link

What is asked of coordinator partitions is in node/group_questions.py, with the table of all questions.
A question is the same whether it is answered on this node or on another one: `here` asks this node's own replica.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

from node.coordinator import Coordinator
from node.describe import Figures, figures_of
from node.partition import ConsumersGone, Partition, Settle
from node.readers import Fetch, Fetched, Locate, Located
from node.shared import Settled
from plait.wire.errors import NotLeader, Overloaded, StorageDamaged
from plait.wire.frames import decode_plain, encode_plain
from replication.actor import MailboxFull, Promise
from replication.environment import Buffer
from replication.peers.channels import Answer

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
MAILBOX_RETRY_MS = 100
"""What is told to whoever meets a full mailbox."""


class Place(Protocol):
    """Where a question is answered: this node's replicas (node/replicas.py)."""

    def partition_of(self, group: int) -> Partition | None:
        """This node's replica of a partition."""

    def coordinator(self, group: int) -> Coordinator | None:
        """This node's replica of a coordinator partition."""


class Question(Protocol[T]):
    """One kind of question, whose answer is a T."""

    KIND: ClassVar[int]
    REPEATS: ClassVar[bool]
    """Doing it twice is as good as doing it once: it may be asked again when no answer came."""

    @property
    def wait_ms(self) -> int:
        """How long the answer may be held back on purpose."""

    def here(self, place: Place, group: int, promise: Promise[T]) -> None:
        """Have it answered by this node's replica of the group; the answer goes into the promise."""

    def words(self) -> list[Any]:
        """The question's fields, for the link."""

    def payload(self) -> Sequence[Buffer]:
        """And what is too large for a head."""

    @classmethod
    def read(cls, words: list[Any], payload: memoryview) -> Question[T]:
        """The question that another node asks."""

    @staticmethod
    def answer(result: T) -> Answer:
        """An answer, for the link."""

    @staticmethod
    def result(words: list[Any], payload: memoryview) -> T:
        """The answer that another node gave."""


class Plain:
    """What most of them have in common."""

    REPEATS: ClassVar[bool] = True

    @property
    def wait_ms(self) -> int:
        return 0

    def payload(self) -> Sequence[Buffer]:
        return ()


@dataclass(frozen=True, slots=True)
class FetchFrom(Plain):
    """Records from an offset on."""

    KIND: ClassVar[int] = 1
    offset: int
    max_bytes: int
    for_ms: int
    nearest: bool = False
    """A replica that only follows may answer; no question for another node."""

    @property
    def wait_ms(self) -> int:
        return self.for_ms

    def here(self, place: Place, group: int, promise: Promise[Fetched]) -> None:
        post(place, group, Fetch(self.offset, self.max_bytes, self.for_ms, self.nearest, promise), promise)

    def words(self) -> list[Any]:
        return [self.offset, self.max_bytes, self.for_ms]

    @classmethod
    def read(cls, words: list[Any], payload: memoryview) -> FetchFrom:
        return cls(*words)

    @staticmethod
    def answer(result: Fetched) -> Answer:
        lengths = [len(batch) for batch in result.batches]
        return [result.start_offset, result.end_offset, result.next_offset, lengths], result.batches

    @staticmethod
    def result(words: list[Any], payload: memoryview) -> Fetched:
        start, end, next_offset, lengths = words
        batches: list[Buffer] = []
        at = 0
        for length in lengths:
            batches.append(payload[at : at + length])
            at += length
        return Fetched(start, end, next_offset, batches)


@dataclass(frozen=True, slots=True)
class Find(Plain):
    """Where something is."""

    KIND: ClassVar[int] = 2
    at: str | int

    def here(self, place: Place, group: int, promise: Promise[Located]) -> None:
        post(place, group, Locate(self.at, promise=promise), promise)

    def words(self) -> list[Any]:
        return [self.at]

    @classmethod
    def read(cls, words: list[Any], payload: memoryview) -> Find:
        return cls(*words)

    @staticmethod
    def answer(result: Located) -> Answer:
        return [result.offset, result.start, result.end], ()

    @staticmethod
    def result(words: list[Any], payload: memoryview) -> Located:
        return Located(*words)


@dataclass(frozen=True, slots=True)
class Describe(Plain):
    """How a partition is doing now; one that nobody can serve is described as such."""

    KIND: ClassVar[int] = 3

    def here(self, place: Place, group: int, promise: Promise[Figures]) -> None:
        partition = place.partition_of(group)
        if partition is None:
            promise.reject(not_here(group))
            return

        def heard(done: Promise[int]) -> None:
            if done.error is None or isinstance(done.error, StorageDamaged):
                promise.resolve(figures_of(partition))
            else:
                promise.reject(done.error)

        partition.confirmed().then(heard)

    def words(self) -> list[Any]:
        return []

    @classmethod
    def read(cls, words: list[Any], payload: memoryview) -> Describe:
        return cls()

    @staticmethod
    def answer(result: Figures) -> Answer:
        return [result.partition, {name: list(each) for name, each in result.shared.items()}], ()

    @staticmethod
    def result(words: list[Any], payload: memoryview) -> Figures:
        partition, shared = words
        return Figures(partition, {name: (each[0], each[1], each[2]) for name, each in shared.items()})


@dataclass(frozen=True, slots=True)
class SettleLeases(Plain):
    """What became of leased records. Done twice, it says of the second time that the leases were lost."""

    KIND: ClassVar[int] = 4
    REPEATS: ClassVar[bool] = False
    command: list[Any]

    def here(self, place: Place, group: int, promise: Promise[Settled]) -> None:
        post(place, group, Settle(self.command, promise=promise), promise)

    def words(self) -> list[Any]:
        return []

    def payload(self) -> Sequence[Buffer]:
        kind, *arguments = self.command
        return [encode_plain([int(kind), *arguments])]  # plain data knows no enumerations

    @classmethod
    def read(cls, words: list[Any], payload: memoryview) -> SettleLeases:
        return cls(decode_plain(bytes(payload)))

    @staticmethod
    def answer(result: Settled) -> Answer:
        return [result.records], [encode_plain([list(lost) for lost in result.lost])]

    @staticmethod
    def result(words: list[Any], payload: memoryview) -> Settled:
        return Settled(words[0], [(first, last) for first, last in decode_plain(bytes(payload))])


@dataclass(frozen=True, slots=True)
class ReturnLeases(Plain):
    """Consumers of the asking node are gone."""

    KIND: ClassVar[int] = 5
    consumers: list[str]

    def here(self, place: Place, group: int, promise: Promise[None]) -> None:
        post(place, group, ConsumersGone(self.consumers, promise=promise), promise)

    def words(self) -> list[Any]:
        return []

    def payload(self) -> Sequence[Buffer]:
        return [encode_plain(self.consumers)]

    @classmethod
    def read(cls, words: list[Any], payload: memoryview) -> ReturnLeases:
        return cls([str(each) for each in decode_plain(bytes(payload))])

    @staticmethod
    def answer(result: None) -> Answer:
        return [], ()

    @staticmethod
    def result(words: list[Any], payload: memoryview) -> None:
        return None


PLAIN_QUESTIONS: tuple[type[Question[Any]], ...] = (FetchFrom, Find, Describe, SettleLeases, ReturnLeases)
"""Those of this module."""


def post(place: Place, group: int, message: Any, promise: Promise[T], *, always: bool = False) -> None:
    """Put a message, which will answer the promise, into the mailbox of this node's replica."""
    partition = place.partition_of(group)
    if partition is None:
        promise.reject(not_here(group))
        return
    try:
        partition.post(message, always=always)
    except MailboxFull as error:
        promise.reject(
            Overloaded(f"{error}; nothing was done; try again", reason="mailbox", retry_after_ms=MAILBOX_RETRY_MS)
        )
    if partition.stopped:
        promise.reject(partition.failure or not_here(group))


def not_here(group: int) -> NotLeader:
    """What is told of a group without a replica on this node."""
    return NotLeader(f"group {group} has no replica on this node; nothing was done; ask another", leader=0)

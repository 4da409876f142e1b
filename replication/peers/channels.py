"""Questions and answers on named channels: what waits, what is under way, and the frames that carry it. Pure.

    ask ──> ASK, MORE, MORE ──> whole ──> serve(channel, head, payload) ──> promise
    promise <── whole <── ANSWER, MORE_ANSWER, ... or FAILED <──────────────────┘

Payloads travel in pieces that take turns; whatever fits into one piece goes before the pieces of larger ones,
which are sure of one piece in each frame. What nobody waits for any more is called off with FORGET. Numbers and
answers belong to one connection: with it, all of them end.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from plait.wire.errors import (
    BadRequest,
    Closed,
    InternalError,
    OutcomeUnknown,
    Overloaded,
    PlaitError,
    Unavailable,
    from_wire,
)
from plait.wire.frames import decode_plain, encode_plain
from replication.actor import Promise, rejected
from replication.environment import Buffer
from replication.peers.protocol import NUMBER_MAX
from replication.peers.settings import PeerSettings

ASK = 1
MORE = 2
ANSWER = 3
MORE_ANSWER = 4
FAILED = 5
FORGET = 6

ASK_HEAD_BYTES_MAX = 64 << 10
"""Largest head of a question or an answer, as encoded."""
FRAME_HEADS_BYTES = 64 << 10
"""Heads from which on a frame is not filled up any more."""
CHANNEL_LENGTH_MAX = 64
"""Characters of a channel's name."""
ITEM_BYTES = 64
"""What an item's words count for, beside its head."""
WAITING_MAX = 65_536
"""Items that wait to be sent; a peer that asks on and takes no answers is cut off beyond."""

Answer = tuple[list[Any], Sequence[Buffer]]
"""What a server gives: head and payload."""
Heard = tuple[list[Any], memoryview]
"""What the asker gets: head and payload."""
Serve = Callable[[str, list[Any], memoryview], Promise[Answer]]

_SHAPES: dict[int, tuple[type, ...]] = {
    ASK: (int, int, str, bytes, int, int),
    MORE: (int, int, int),
    ANSWER: (int, int, bytes, int, int),
    MORE_ANSWER: (int, int, int),
    FAILED: (int, int, str, str, dict),
    FORGET: (int, int),
}


class _Outgoing:
    """A payload on its way out, and the words of its first piece."""

    __slots__ = ("first", "left_bytes", "more", "number", "parts", "total_bytes")

    def __init__(self, first: list[Any], more: int, payload: Sequence[Buffer]) -> None:
        self.first: list[Any] | None = first  # None: it was sent
        self.more = more
        self.number: int = first[1]
        self.parts = deque(memoryview(part).cast("B") for part in payload if len(part))
        self.total_bytes = self.left_bytes = sum(map(len, self.parts))

    def cut(self, size_bytes: int, parts: list[Buffer]) -> list[Any]:
        """The next piece: its words; its bytes are added to `parts`."""
        here = min(size_bytes, self.left_bytes)
        self.left_bytes -= here
        words = [self.more, self.number, here] if self.first is None else self._opening(here)
        while here:
            part = self.parts.popleft()
            if len(part) > here:
                self.parts.appendleft(part[here:])
                part = part[:here]
            parts.append(part)
            here -= len(part)
        return words

    def withdraw(self) -> None:
        """Send no more of it: it is skipped when its turn comes."""
        self.parts.clear()
        self.number = self.left_bytes = 0

    def _opening(self, here: int) -> list[Any]:
        assert self.first is not None
        words = [*self.first, self.total_bytes, here] if self.first[0] in (ASK, ANSWER) else self.first
        self.first = None
        return words


class _Incoming:
    """A payload on its way in."""

    __slots__ = ("channel", "got_bytes", "head", "pieces", "total_bytes")

    def __init__(self, channel: str, head: list[Any], total_bytes: int) -> None:
        self.channel = channel
        self.head = head
        self.total_bytes = total_bytes
        self.got_bytes = 0
        self.pieces: list[memoryview] = []

    def add(self, piece: memoryview) -> bool:
        """Whether it is whole now. Raises BadRequest."""
        self.got_bytes += len(piece)
        if self.got_bytes > self.total_bytes:
            raise _malformed("a payload that is longer than was said")
        self.pieces.append(piece)
        return self.got_bytes == self.total_bytes

    def payload(self) -> memoryview:
        """All of it; copied only if it came in pieces."""
        return self.pieces[0] if len(self.pieces) == 1 else memoryview(b"".join(self.pieces))


class _Question:
    """One that was asked here and is not answered yet."""

    __slots__ = ("outgoing", "promise", "size_bytes")

    def __init__(self, promise: Promise[Heard], outgoing: _Outgoing) -> None:
        self.promise = promise
        self.outgoing = outgoing
        self.size_bytes = outgoing.total_bytes

    @property
    def sent(self) -> bool:
        """All of it was handed to the network."""
        return self.outgoing.first is None and not self.outgoing.left_bytes


class Channels:
    """Both directions of one link."""

    def __init__(self, node: int, settings: PeerSettings, serve: Serve) -> None:
        self._node = node
        self._settings = settings
        self._serve = serve
        self._number = 0  # of the last question; never used again in this process
        self._questions: dict[int, _Question] = {}
        self._question_bytes = 0
        self._deadlines: list[tuple[int, int]] = []  # heap of (deadline_ns, number); those answered stay in it
        self._small: deque[_Outgoing] = deque()
        self._large: deque[_Outgoing] = deque()
        self._answers_in: dict[int, _Incoming] = {}
        self._asks_in: dict[int, _Incoming] = {}
        self._serving: dict[int, int] = {}  # number: bytes of the question, until its answer was handed over
        self._worked_on: dict[int, Promise[Answer]] = {}  # number: the answer that is to be given
        self._served_bytes = 0
        self._generation = 0  # of the connection

    @property
    def outstanding(self) -> int:
        """Questions asked here and not answered."""
        return len(self._questions)

    @property
    def serving(self) -> int:
        """Questions of the other side that are not answered."""
        return len(self._serving)

    # asking

    def ask(self, channel: str, head: list[Any], payload: Sequence[Buffer], deadline_ns: int) -> Promise[Heard]:
        """A promise of the answer. Raises BadRequest for what can never be sent.

        Rejected with Unavailable if the question was not sent whole, OutcomeUnknown if it was, Overloaded when too
        much is outstanding, or with what the other side failed with.
        """
        encoded = _encode_head(head)
        assert 0 < len(channel) <= CHANNEL_LENGTH_MAX, "channels have short names"
        outgoing = _Outgoing([ASK, self._number + 1, channel, encoded], MORE, payload)
        self._check_size(outgoing.total_bytes)
        busy_bytes = self._question_bytes + outgoing.total_bytes
        full = len(self._questions) >= self._settings.asks_max or len(self._small) >= WAITING_MAX
        if full or (self._questions and busy_bytes > self._settings.ask_bytes):
            return rejected(_overloaded(f"too much is being asked of node {self._node}"))
        self._number += 1
        promise: Promise[Heard] = Promise()
        self._questions[self._number] = _Question(promise, outgoing)
        self._question_bytes = busy_bytes
        heapq.heappush(self._deadlines, (deadline_ns, self._number))
        self._queue(outgoing)
        promise.when_abandoned(partial(self._call_off, self._number))
        return promise

    def next_deadline_ns(self) -> int | None:
        """When to call `expire` next."""
        while self._deadlines and self._deadlines[0][1] not in self._questions:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def expire(self, now_ns: int) -> None:
        """Give up questions whose time is over."""
        while (deadline_ns := self.next_deadline_ns()) is not None and deadline_ns <= now_ns:
            number = self._deadlines[0][1]
            begun = self._questions[number].outgoing.first is None
            self._fail(number, "no answer came in time")
            if begun:
                self._have_forgotten(number)

    def reset(self) -> None:
        """The connection is gone: nothing of what was under way will be heard of."""
        self._generation += 1
        self._small.clear()
        self._large.clear()
        self._answers_in.clear()
        self._asks_in.clear()
        self._serving.clear()
        self._served_bytes = 0
        worked_on, self._worked_on = self._worked_on, {}
        for answer in worked_on.values():
            answer.abandon()
        for number in list(self._questions):
            self._fail(number, "the connection was lost")
        self._deadlines.clear()

    def _call_off(self, number: int) -> None:
        """Nobody waits for that answer any more."""
        if number not in self._questions:
            return
        begun = self._questions[number].outgoing.first is None
        self._end(number).reject(Closed(f"node {self._node} was asked, and nobody waits for the answer any more"))
        if begun:
            self._have_forgotten(number)

    def _have_forgotten(self, number: int) -> None:
        self._queue(_Outgoing([FORGET, number], FORGET, ()))

    def _fail(self, number: int, why: str) -> None:
        if self._questions[number].sent:
            what = "what was asked may or may not have been done"
            error: PlaitError = OutcomeUnknown(f"node {self._node}: {why}; {what}")
        else:
            error = Unavailable(f"node {self._node}: {why} and the question was not sent; nothing was done")
        self._end(number).reject(error)

    def _end(self, number: int) -> Promise[Heard]:
        question = self._questions.pop(number)
        self._question_bytes -= question.size_bytes
        self._answers_in.pop(number, None)
        if not question.sent:
            question.outgoing.withdraw()
        return question.promise

    # sending

    def take(self) -> tuple[list[Any], list[Buffer]] | None:
        """Words and raw bytes of the next frame; None: nothing waits."""
        words: list[Any] = []
        parts: list[Buffer] = []
        left_bytes, left_heads = self._settings.bulk_frame_bytes, FRAME_HEADS_BYTES
        while self._small and left_bytes > 0 and left_heads > 0:
            left_bytes, left_heads = self._cut(self._small.popleft(), words, parts, left_bytes, left_heads)
        left_bytes = max(left_bytes, 1)  # one piece at least
        while self._large and left_bytes > 0:
            outgoing = self._large.popleft()
            left_bytes, left_heads = self._cut(outgoing, words, parts, left_bytes, left_heads)
            if outgoing.left_bytes:
                self._large.append(outgoing)
        return (words, parts) if words else None

    def _cut(
        self, outgoing: _Outgoing, words: list[Any], parts: list[Buffer], left_bytes: int, left_heads: int
    ) -> tuple[int, int]:
        if not outgoing.number:  # withdrawn
            return left_bytes, left_heads
        before = outgoing.left_bytes
        item = outgoing.cut(self._settings.piece_bytes, parts)
        words.append(item)
        if not outgoing.left_bytes and outgoing.more == MORE_ANSWER:
            self._served_bytes -= self._serving.pop(outgoing.number, 0)
        head_bytes = sum(len(field) for field in item if type(field) is bytes)
        return left_bytes - (before - outgoing.left_bytes), left_heads - head_bytes - ITEM_BYTES

    def _queue(self, outgoing: _Outgoing) -> None:
        (self._large if outgoing.left_bytes > self._settings.piece_bytes else self._small).append(outgoing)

    def _check_size(self, size_bytes: int) -> None:
        most = self._settings.payload_bytes_max
        if size_bytes > most:
            raise BadRequest(f"a payload of {size_bytes} bytes is over the limit of {most}; it was not sent")

    # hearing

    def hear(self, words: list[Any], raw: memoryview) -> None:
        """Take a frame. Raises BadRequest: the connection must end."""
        if len(self._small) > WAITING_MAX:
            raise BadRequest("a peer asks and asks and takes no answers; the connection ends")
        at = 0
        for item in words:
            at = self._hear_item(item, raw, at)
        if at != len(raw):
            raise _malformed("pieces that do not cover its bytes")

    def _hear_item(self, item: Any, raw: memoryview, at: int) -> int:
        shape = _SHAPES.get(item[0]) if type(item) is list and item and type(item[0]) is int else None
        if shape is None or tuple(map(type, item)) != shape:
            raise _malformed("an item that this version does not know")
        if any(type(field) is int and not 0 <= field <= NUMBER_MAX for field in item):
            raise _malformed("a number that is none")
        what, number = item[:2]
        if what == FORGET:
            self._forget(number)
            return at
        if what == FAILED:
            if number in self._questions:
                self._end(number).reject(from_wire(*item[2:]))
            return at
        end = at + int(item[-1])
        if end > len(raw):
            raise _malformed("a piece that is larger than its frame")
        self._hear_piece(what, number, item, raw[at:end])
        return end

    def _forget(self, number: int) -> None:
        """The asker has given up, or went away. What is being sent already is sent."""
        answer = self._worked_on.pop(number, None)
        if answer is not None or self._asks_in.pop(number, None) is not None:
            self._served_bytes -= self._serving.pop(number)
        if answer is not None:
            answer.abandon()

    def _hear_piece(self, what: int, number: int, item: list[Any], piece: memoryview) -> None:
        table = self._asks_in if what in (ASK, MORE) else self._answers_in
        if what == ASK:
            self._open_ask(number, item)
        elif what == ANSWER and number in self._questions:
            self._answers_in[number] = _Incoming("", _decode_head(item[2]), self._sound_total(item[3]))
        incoming = table.get(number)
        if incoming is None or not incoming.add(piece):  # refused or given up before; or not whole yet
            return
        del table[number]
        if table is self._answers_in:
            self._end(number).resolve((incoming.head, incoming.payload()))
        else:
            self._answer(number, incoming)

    def _open_ask(self, number: int, item: list[Any]) -> None:
        channel, head, total_bytes = item[2], _decode_head(item[3]), self._sound_total(item[4])
        if number in self._serving or not 0 < len(channel) <= CHANNEL_LENGTH_MAX:
            raise _malformed("a question that cannot be")
        busy_bytes = self._served_bytes + total_bytes
        if len(self._serving) >= self._settings.asks_max or (
            self._serving and busy_bytes > self._settings.ask_bytes
        ):
            self._refuse(number, _overloaded("this node has too many questions to answer"))
            return
        self._serving[number] = total_bytes
        self._served_bytes = busy_bytes
        self._asks_in[number] = _Incoming(channel, head, total_bytes)

    def _sound_total(self, total_bytes: int) -> int:
        if total_bytes > self._settings.payload_bytes_max:
            raise _malformed(f"a payload of {total_bytes} bytes")
        return total_bytes

    # answering

    def _answer(self, number: int, incoming: _Incoming) -> None:
        promise = self._serve(incoming.channel, incoming.head, incoming.payload())
        if not promise.done:
            self._worked_on[number] = promise
        promise.then(partial(self._answered, number, self._generation))

    def _answered(self, number: int, generation: int, promise: Promise[Answer]) -> None:
        if generation != self._generation or number not in self._serving:
            return
        self._worked_on.pop(number, None)
        if promise.error is not None:
            self._refuse(number, promise.error)
            return
        try:
            head, payload = promise.result()
            outgoing = _Outgoing([ANSWER, number, _encode_head(head)], MORE_ANSWER, payload)
            self._check_size(outgoing.total_bytes)
        except (PlaitError, TypeError, ValueError) as error:
            self._refuse(number, InternalError(f"the answer cannot be sent: {error}"))
            return
        self._served_bytes += outgoing.total_bytes - self._serving[number]
        self._serving[number] = outgoing.total_bytes
        self._queue(outgoing)

    def _refuse(self, number: int, error: Exception) -> None:
        if not isinstance(error, PlaitError):
            error = InternalError("a defect of the node that was asked; its log has the details")
        self._served_bytes -= self._serving.pop(number, 0)
        details = {}
        try:
            encode_plain(error.details)
            details = error.details
        except (TypeError, ValueError):
            pass  # the message says it as well
        self._queue(_Outgoing([FAILED, number, error.code, error.message, details], FAILED, ()))


def _encode_head(head: list[Any]) -> bytes:
    try:
        encoded = encode_plain(head)
    except TypeError as error:
        raise BadRequest(f"the head cannot be sent: {error}; nothing was done") from None
    if len(encoded) > ASK_HEAD_BYTES_MAX:
        raise BadRequest(
            f"a head of {len(encoded)} bytes is over the limit of {ASK_HEAD_BYTES_MAX}; nothing was done"
        )
    return encoded


def _decode_head(encoded: bytes) -> list[Any]:
    head = decode_plain(encoded)
    if type(head) is not list:
        raise _malformed("a head that is no list")
    return head


def _overloaded(what: str) -> Overloaded:
    return Overloaded(f"{what}; nothing was done; try again later", reason="asks", retry_after_ms=100)


def _malformed(what: str) -> BadRequest:
    return BadRequest(f"a peer's bulk frame cannot be read: it has {what}; the connection ends")

"""One connection to a broker, without the socket: bytes in, events out; requests in, bytes out. Pure.

    request() ──> outgoing() ──> socket ──> feed() ──> events: Welcome, Answered, Deliver, ConsumerGone, Ended

Every request has a token of the caller's choice, which comes back with the answer; what has no answer when the
connection breaks comes back from `lost`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from plait.wire import Buffer
from plait.wire.errors import BadRequest, PlaitError
from plait.wire.frames import FrameReader, encode_frame
from plait.wire.messages import (
    FETCH,
    HEARTBEAT,
    OPTION_LEADERS,
    VERSION_MAX,
    VERSION_MIN,
    ConsumerGone,
    Deliver,
    Failed,
    Hello,
    Ok,
    Request,
    Welcome,
    parse_answer,
)

T = TypeVar("T")

INCOMING_FRAME_BYTES_MAX = 64 << 20
"""Largest frame taken from a broker; the largest batch that a broker may be set to store fits into it."""
_CORRELATION_MAX = (1 << 32) - 1


@dataclass(slots=True)
class Answered(Generic[T]):
    """The answer to one request: `result` is what the broker said, or its error."""

    token: T
    result: Ok | PlaitError


@dataclass(frozen=True, slots=True)
class Ended:
    """The broker ends the connection, and says why."""

    error: PlaitError


Event = Welcome | Answered[T] | Deliver | ConsumerGone | Ended


class ConnectionCore(Generic[T]):
    """The client's side of the native protocol, version 1 (`plait.wire.messages`)."""

    def __init__(self, name: str, namespace: str) -> None:
        """Begins with HELLO: it is the first thing that `outgoing` gives."""
        self.welcome: Welcome | None = None
        """What the broker said of itself; None until then, and nothing may be requested before."""
        self.outgoing_bytes = 0
        self._reader = FrameReader(INCOMING_FRAME_BYTES_MAX)
        self._outgoing: list[Buffer] = []
        self._pending: dict[int, T] = {}
        self._fetches: dict[int, None] = {}  # those of `_pending` that are FETCHes
        self._correlation = 1
        self._send(Hello(1, client=name, namespace=namespace, options={OPTION_LEADERS: True}), ())

    @property
    def pending(self) -> int:
        """Requests without an answer."""
        return len(self._pending)

    @property
    def pending_short(self) -> int:
        """Those of them that a broker answers as soon as it can: a FETCH may wait for records, a HEARTBEAT for
        news."""
        return len(self._pending) - len(self._fetches)

    def request(self, request: Request, token: T, payload: Sequence[Buffer] = ()) -> None:
        """Send a request; its correlation is chosen here."""
        assert self.welcome is not None, "a request before WELCOME"
        self._correlation = self._correlation % _CORRELATION_MAX + 1
        while self._correlation in self._pending:
            self._correlation = self._correlation % _CORRELATION_MAX + 1
        request.correlation = self._correlation
        self._send(request, payload)
        self._pending[request.correlation] = token
        if request.KIND in (FETCH, HEARTBEAT):
            self._fetches[request.correlation] = None

    def outgoing(self) -> bytes | None:
        """All that is to be written now, or None."""
        if not self._outgoing:
            return None
        data = b"".join(self._outgoing)
        self._outgoing.clear()
        self.outgoing_bytes = 0
        return data

    def feed(self, data: bytes) -> list[Event[T]]:
        """What the broker says in these bytes. Raises BadRequest for what is not the protocol."""
        self._reader.feed(data)
        events: list[Event[T]] = []
        for head, payload in self._reader.frames():
            answer = parse_answer(head, payload)
            if isinstance(answer, Deliver | ConsumerGone):
                events.append(answer)
            elif isinstance(answer, Welcome):
                events.append(self._welcomed(answer))
            elif isinstance(answer, Ok):
                events.append(Answered(self._token(answer.correlation), answer))
            else:
                events.append(self._failed(answer))
        return events

    def lost(self) -> list[T]:
        """The connection is gone: the tokens of all requests that have no answer, in the order of sending."""
        tokens = list(self._pending.values())
        self._pending.clear()
        self._fetches.clear()
        return tokens

    def _send(self, request: Request, payload: Sequence[Buffer]) -> None:
        frame = encode_frame(request.head(), payload)
        self._outgoing += frame
        self.outgoing_bytes += sum(map(len, frame))

    def _welcomed(self, answer: Welcome) -> Welcome:
        if self.welcome is not None or not VERSION_MIN <= answer.version <= VERSION_MAX:
            raise BadRequest(f"a WELCOME to version {answer.version} was not expected")
        self.welcome = answer
        return answer

    def _failed(self, answer: Failed) -> Event[T]:
        if answer.correlation == 0 or self.welcome is None:
            return Ended(answer.error())
        return Answered(self._token(answer.correlation), answer.error())

    def _token(self, correlation: int) -> T:
        self._fetches.pop(correlation, None)
        try:
            return self._pending.pop(correlation)
        except KeyError:
            raise BadRequest(f"an answer to request {correlation}, which has none open") from None

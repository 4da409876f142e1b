"""A broker that does what a test says, and a client that talks to a session without a socket."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateways.native.counters import Counters
from gateways.native.limits import GatewayLimits
from gateways.native.session import Session
from plait.wire import messages
from plait.wire.batch import BatchLimits, encode_batch
from plait.wire.errors import PlaitError
from plait.wire.frames import FrameReader, encode_frame
from replication.actor import Promise


@dataclass
class Asked:
    """One call of the facade."""

    method: str
    arguments: tuple[Any, ...]
    promise: Promise[Any]


@dataclass
class Published:
    partition: int = 0
    base_offset: int = 0
    timestamp_ms: int = 1_700_000_000_000
    throttle_ms: int = 0
    duplicate: bool = False


@dataclass
class Fetched:
    start_offset: int
    end_offset: int
    next_offset: int
    batches: list[bytes]


@dataclass
class Located:
    offset: int
    start: int
    end: int


@dataclass
class Settled:
    records: int
    lost: list[tuple[int, int]] = field(default_factory=list)


class ScriptedGroups:
    """The part of a scripted broker that is about consumer groups."""

    def __init__(self, broker: ScriptedBroker) -> None:
        self._broker = broker

    def __getattr__(self, method: str) -> Callable[..., Promise[Any]]:
        if method.startswith("_"):
            raise AttributeError(method)
        return lambda *arguments: self._broker.ask(f"groups.{method}", *arguments)


class ScriptedBroker:
    """The Broker facade: notes what it is asked; answers at once what `answers` says, the rest when the test does.

    An answer may be a value, an error, or a function of the call's arguments.
    """

    cluster_id = "cluster"
    node_id = 1
    incarnation = 7

    def __init__(self, limits: BatchLimits | None = None) -> None:
        self.limits = limits or BatchLimits()
        self.asked: list[Asked] = []
        self.answers: dict[str, Any] = {}
        self.gone_clients: list[str] = []

    def __getattr__(self, method: str) -> Callable[..., Promise[Any]]:
        if method.startswith("_"):
            raise AttributeError(method)
        return lambda *arguments: self.ask(method, *arguments)

    @property
    def groups(self) -> ScriptedGroups:
        """The facade of consumer groups: asked for as "groups.join" and so on."""
        return ScriptedGroups(self)

    def ask(self, method: str, *arguments: Any) -> Promise[Any]:
        promise: Promise[Any] = Promise()
        self.asked.append(Asked(method, arguments, promise))
        if method in self.answers:
            give(promise, self.answers[method], arguments)
        return promise

    def client_gone(self, client: str) -> None:
        self.gone_clients.append(client)

    def calls(self, method: str) -> list[Asked]:
        return [each for each in self.asked if each.method == method]


def give(promise: Promise[Any], answer: Any, arguments: tuple[Any, ...] = ()) -> None:
    """Resolve or reject, as the answer is."""
    value = answer(*arguments) if callable(answer) else answer
    if isinstance(value, Exception):
        promise.reject(value)
    else:
        promise.resolve(value)


class ScriptedAttachment:
    """What `attach` gives; settling is asked of the broker's script."""

    def __init__(self, broker: ScriptedBroker) -> None:
        self._broker = broker
        self.paused = 0
        self.resumed = 0
        self.detached = 0

    def settle(self, *arguments: Any) -> Promise[Any]:
        return self._broker.ask("settle", *arguments)

    def pause(self) -> None:
        self.paused += 1

    def resume(self) -> None:
        self.resumed += 1

    def detach(self) -> Promise[None]:
        self.detached += 1
        return self._broker.ask("detach")


class Talk:
    """A session, its driver, and the client's end of the conversation."""

    def __init__(self, broker: ScriptedBroker | None = None, *, hello: bool = True, **limits: Any) -> None:
        self.broker = broker or ScriptedBroker()
        self.counters = Counters()
        self.defects: list[Exception] = []
        self.events: list[str] = []
        self.session = Session(
            self.broker,
            GatewayLimits(**limits),
            self.counters,
            "native/1",
            self,  # type: ignore[arg-type]
        )
        self._reader = FrameReader(64 << 20)
        if hello:
            assert isinstance(self.say(messages.Hello(1))[0], messages.Welcome)

    def output_waits(self) -> None:
        self.events.append("output")

    def reading_resumed(self) -> None:
        self.events.append("resumed")

    def session_closing(self) -> None:
        self.events.append("closing")

    def defect(self, error: Exception) -> None:
        self.defects.append(error)

    def say(self, *requests: messages.Request, payload: bytes = b"") -> list[messages.Answer]:
        """Send requests in one chunk; what is answered now."""
        self.session.receive(b"".join(frame(request, payload) for request in requests))
        return self.heard()

    def heard(self) -> list[messages.Answer]:
        """Everything that waits in the outbox."""
        while data := self.session.outbox.take():
            self._reader.feed(bytes(data))
        return [messages.parse_answer(head, payload) for head, payload in self._reader.frames()]


def frame(request: messages.Request, payload: bytes = b"") -> bytes:
    """A request as it is sent."""
    return b"".join(encode_frame(request.head(), [payload] if payload else []))


def batch(*values: bytes) -> bytes:
    """A batch of records with these values."""
    return encode_batch(values or (b"one",), 1_700_000_000_000)


def errors(answers: Sequence[messages.Answer]) -> list[tuple[int, str]]:
    """(correlation, code) of the ERROR frames."""
    return [(each.correlation, each.code) for each in answers if isinstance(each, messages.Failed)]


def error_of(kind: type[PlaitError], message: str = "no") -> PlaitError:
    return kind(message)

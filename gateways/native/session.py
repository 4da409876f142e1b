"""One client's side of the native protocol, without a socket: bytes in, calls of the broker, frames out.

    receive(bytes) ──frames──> requests ──> Broker ──promises──> answers ──┐
                                               └──deliver──────────────────┴──> outbox

    new ──HELLO──> established ──(the client breaks the framing, `end`)──> closing ──> closed

A request that cannot be carried out is answered with ERROR and its correlation, and the connection goes on. What
makes the rest of the stream meaningless (framing, no correlation, a failed handshake) is answered with ERROR 0,
and the connection ends. The driver (connection.py) moves the bytes and obeys `reading_paused` and `throttle_ms`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from gateways.native.consuming import Consumers
from gateways.native.counters import Counters
from gateways.native.limits import FRAME_BYTES_MARGIN, GatewayLimits
from gateways.native.namespace import Namespace
from gateways.native.outbox import Outbox
from gateways.native.publishing import Publishing
from gateways.native.requests import HANDLERS
from plait.wire import Buffer, messages
from plait.wire.errors import BadRequest, InternalError, LimitReached, PlaitError
from plait.wire.frames import FrameReader
from replication.actor import Promise

if TYPE_CHECKING:
    from node.broker import Broker

T = TypeVar("T")


class Driver(Protocol):
    """Whoever moves the session's bytes. All calls may come from the broker's task: they must only take note."""

    def output_waits(self) -> None:
        """The outbox was empty and is not any more."""

    def reading_resumed(self) -> None:
        """`reading_paused` became false."""

    def session_closing(self) -> None:
        """`closing` became true: send what is in the outbox, then close."""

    def defect(self, error: Exception) -> None:
        """An exception that nobody expected, for the log."""


class Session:
    """One connection's protocol. `client` names it to the broker (fair share, permits)."""

    __slots__ = (
        "_client",
        "_driver",
        "_finishing",
        "_frames",
        "_numbers",
        "_pending",
        "broker",
        "bytes_received",
        "closed",
        "closing",
        "consumers",
        "counters",
        "established",
        "fetches_waiting",
        "has_requests",
        "limits",
        "max_frame_bytes",
        "namespace",
        "outbox",
        "publishing",
        "reading_paused",
        "throttle_ms",
    )

    def __init__(
        self, broker: Broker, limits: GatewayLimits, counters: Counters, client: str, driver: Driver
    ) -> None:
        self.broker = broker
        self.limits = limits
        self.counters = counters
        self.max_frame_bytes = broker.limits.max_batch_bytes + FRAME_BYTES_MARGIN
        self.namespace = Namespace("")
        self.established = False
        self.closing = False
        """The last word is said: nothing is read or answered any more."""
        self.closed = False
        """Everything that the broker held for this client is given back."""
        self.reading_paused = False
        """More requests would be too many: the driver must not `receive` or `proceed`."""
        self.has_requests = False
        """Requests have arrived that were not looked at, because reading was paused."""
        self.throttle_ms = 0
        """How long the driver should leave requests unread, from now; it takes this with `take_throttle_ms`."""
        self.fetches_waiting = 0
        self.bytes_received = 0
        self.outbox = Outbox(
            limits.outbox_bytes_high,
            limits.outbox_bytes_low,
            driver.output_waits,
            self._crowded,
            self._relieved,
        )
        self.publishing = Publishing(self, client)
        self.consumers = Consumers(self, client, self.max_frame_bytes)
        self._client = client
        self._driver = driver
        self._frames = FrameReader(self.max_frame_bytes)
        self._pending: dict[int, Promise[Any]] = {}
        """Everything asked of the broker and not answered, but for publishes, in the order of asking."""
        self._numbers = 0
        self._finishing: PlaitError | None = None

    # what the driver calls

    @property
    def buffered_bytes(self) -> int:
        """Bytes that have arrived and are not part of a request that was looked at."""
        return self._frames.pending_bytes

    @property
    def mid_frame(self) -> bool:
        """The client has sent a part of a frame and owes the rest."""
        return not self.has_requests and self._frames.pending_bytes > 0

    def receive(self, data: Buffer) -> None:
        """Take what the client sent; raises nothing."""
        if self.closing:
            return
        self.bytes_received += len(data)
        self._frames.feed(data)
        self.proceed()

    def proceed(self) -> None:
        """Look at the requests that have arrived, until there are no more or reading is paused; raises nothing."""
        try:
            self.has_requests = self.reading_paused
            if not (self.closing or self.reading_paused):
                self._look_at_requests()
        except PlaitError as error:  # of the framing: what follows in the stream means nothing
            self.end(error)
        except Exception as error:  # a defect: it must end this connection and nothing else
            self.fail(error)

    def take_throttle_ms(self) -> int:
        """How long to leave requests unread, once."""
        throttle_ms, self.throttle_ms = self.throttle_ms, 0
        return throttle_ms

    def finish(self, error: PlaitError) -> None:
        """Take no more requests; when those under way are answered, `end`. Waiting fetches are not waited for."""
        self._finishing = error
        self.reading_paused = True
        self.consumers.pause()
        if self._unanswered() == 0:
            self.end(error)

    def end(self, error: PlaitError) -> None:
        """Say why, as the last word, and give back what the broker holds; does nothing when closing already."""
        if self.closing:
            return
        self.counters.failed(error.code)
        self.outbox.append(connection_error(self.namespace.error(error)))
        self.closing = True
        self.close()
        self._driver.session_closing()

    def close(self) -> None:
        """The connection is over: return all leases, abandon what is under way. May be called again."""
        if self.closed:
            return
        self.closed = self.closing = True
        self.has_requests = False
        self._frames = FrameReader(self.max_frame_bytes)  # what was not looked at will not be: let it go
        if self.publishing.pending:
            self.broker.client_gone(self._client)
        self.publishing.abandon()
        self.consumers.detach_all()
        pending, self._pending = self._pending, {}
        for promise in pending.values():
            promise.abandon()

    # what requests, publishing and consuming call

    def establish(self, namespace: str) -> None:
        """HELLO was good. Raises NameInvalid."""
        self.namespace = Namespace(namespace)
        self.established = True

    def answer_later(
        self,
        correlation: int,
        promise: Promise[T],
        encode: Callable[[T], Sequence[Buffer]],
        waits: bool = False,
    ) -> None:
        """Answer when the promise is done: `encode` makes the frame. `waits`: a fetch or heartbeat, which takes
        its time."""
        self._numbers += 1
        number = self._numbers
        self._pending[number] = promise
        self.fetches_waiting += waits

        def done(promise: Promise[T]) -> None:
            if self._pending.pop(number, None) is None:
                return  # closed in between
            self.fetches_waiting -= waits
            try:
                if promise.error is not None:
                    self.answer_error(correlation, promise.error)
                else:
                    self.outbox.append(encode(promise.result()))
                self.answered()
            except Exception as error:  # it runs in the broker's task, which a defect of ours must not end
                self.fail(error)

        promise.then(done)

    def check_waiting(self, what: str) -> None:
        """Whether another request may wait for something to come. Raises LimitReached."""
        most = self.limits.fetches_waiting_max
        if self.fetches_waiting >= most:
            raise LimitReached(
                f"this connection has {most} fetches and heartbeats waiting, which is its limit; nothing was "
                f"done: "
                f"{what} again when one of them is answered"
            )

    def answer_error(self, correlation: int, error: Exception) -> None:
        """Answer with ERROR; one that is not for clients goes to the log, and the client is told where to look."""
        if self.closing:
            return
        if not isinstance(error, PlaitError):
            self._driver.defect(error)
            error = InternalError("the broker failed on this request; its log has the details")
        self.counters.failed(error.code)
        self.outbox.append(messages.failed(correlation, self.namespace.error(error)))

    def answered(self) -> None:
        """An answer was given: go on reading if that was too much before, or end if it was the last one."""
        if self._finishing is not None:
            if self._unanswered() == 0:
                self.end(self._finishing)
        elif self.reading_paused:
            self._resume()

    def throttle(self, throttle_ms: int) -> None:
        """The broker wants this client to be quiet for a while."""
        self.throttle_ms = max(self.throttle_ms, throttle_ms)

    def fail(self, error: Exception) -> None:
        """A defect: log it, tell the client that it was not its fault, and close this connection."""
        self._driver.defect(error)
        self.end(InternalError("the broker failed on this connection, which ends; its log has the details"))

    # inside

    def _look_at_requests(self) -> None:
        limits = self.limits
        for head, payload in self._frames.frames():
            self._request(head, payload)
            if self.closing:
                return
            if (
                self.publishing.in_flight_bytes > limits.publish_in_flight_bytes
                or self.outbox.crowded
                or self._unanswered() > limits.requests_pending_max
            ):
                self.reading_paused = True
                self.has_requests = self._frames.pending_bytes > 0
                return

    def _request(self, head: list[Any], payload: memoryview) -> None:
        correlation = messages.correlation_of(head)
        if not correlation:
            raise BadRequest(
                "the request has no correlation, a number from 1 to 2**32-1; nothing was done, the connection ends"
            )
        try:
            request = messages.parse_request(head)
            kind = request.KIND
            if not self.established and kind != messages.HELLO:
                raise BadRequest("the first request must be HELLO; nothing was done, the connection ends")
            if payload and kind != messages.PUBLISH:
                raise BadRequest(f"a request of kind {kind} has no payload; nothing was done")
            HANDLERS[kind](self, request, payload)
        except PlaitError as error:
            if not self.established:
                raise
            self.answer_error(correlation, error)

    def _unanswered(self) -> int:
        """Requests that the broker is working on; not those that wait for records."""
        return self.publishing.pending + len(self._pending) - self.fetches_waiting

    def _resume(self) -> None:
        limits = self.limits
        if (
            self.publishing.in_flight_bytes <= limits.publish_in_flight_bytes // 2
            and not self.outbox.crowded
            and self._unanswered() <= limits.requests_pending_max // 2
        ):
            self.reading_paused = False
            self._driver.reading_resumed()

    def _crowded(self) -> None:
        self.reading_paused = True
        self.consumers.pause()

    def _relieved(self) -> None:
        if self.closing:
            return
        try:
            if self._finishing is None:
                self.consumers.resume()
            self.answered()
        except Exception as error:  # a defect: it must end this connection and nothing else
            self.fail(error)


def connection_error(error: PlaitError) -> list[Buffer]:
    """The ERROR frame with which a connection ends."""
    return messages.failed(0, error)

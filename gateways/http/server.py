"""The HTTP gateway: a listener, and a task for each connection that reads, asks the pages, and writes.

    listener ──accept──> bytes ──> RequestReader (requests.py) ──> Pages (pages.py) ──> answers.py ──> bytes

It has to answer when everything else is in trouble: it needs no node, no disk and no majority, and a crowd at its
door pushes its own oldest connections out.
"""

from __future__ import annotations

from collections import OrderedDict

import structlog
import trio

from gateways.http.answers import Answer, encode, json_answer
from gateways.http.limits import HttpLimits
from gateways.http.pages import Pages
from gateways.http.requests import Refusal, Request, RequestReader
from replication.environment import Environment

READ_BYTES = 4 * 1024
"""Bytes asked of the socket at once."""
LINGER_S = 1.0
"""Seconds that a closing connection goes on dropping what comes: closing it with unread bytes would reset it, and
the client might never see why."""
LINGER_BYTES_MAX = 1024 * 1024
"""Bytes dropped in that time."""
ACCEPT_BACKOFF_MS = 100
"""Milliseconds without accepting after the machine refused a connection (no file descriptors, no memory)."""

_logger = structlog.get_logger("plait.gateways.http")


class HttpGateway:
    """Serves the pages on one address: `start`, then `run` in a task of its own until that is cancelled."""

    def __init__(
        self, env: Environment, pages: Pages, host: str, port: int, limits: HttpLimits | None = None
    ) -> None:
        self.limits = limits or HttpLimits()
        self._clock = env.clock
        self._network = env.network
        self._pages = pages
        self._address = (host, port)
        self._listeners: list[trio.abc.Listener[trio.abc.Stream]] = []
        self._connections: OrderedDict[int, trio.CancelScope] = OrderedDict()  # oldest first
        self._numbers = 0
        self._accept_failing = False

    @property
    def connections(self) -> int:
        """How many there are now."""
        return len(self._connections)

    async def start(self) -> tuple[str, int]:
        """Listen, and return the (host, port) that can be connected to. Raises OSError."""
        self._listeners.extend(await self._network.listen(*self._address))
        host, port = self._network.address_of(self._listeners[0])
        _logger.info("listening", host=host, port=port)
        return host, port

    async def run(self) -> None:
        """Serve until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                for listener in self._listeners:
                    nursery.start_soon(self._accept, listener, nursery)
        finally:
            with trio.CancelScope(shield=True):  # closing does not wait, and all of them must be closed
                for listener in self._listeners:
                    await listener.aclose()

    async def _accept(self, listener: trio.abc.Listener[trio.abc.Stream], nursery: trio.Nursery) -> None:
        while True:
            try:
                stream = await listener.accept()
            except OSError as error:  # the machine has no room now; those that wait stay in the queue
                if not self._accept_failing:
                    _logger.warning("cannot accept", error=str(error), connections=len(self._connections))
                self._accept_failing = True
                await self._clock.sleep_until(self._clock.monotonic_ns() + ACCEPT_BACKOFF_MS * 1_000_000)
                continue
            self._accept_failing = False
            self._numbers += 1
            scope = self._connections[self._numbers] = trio.CancelScope()
            if len(self._connections) > self.limits.connections_max:
                self._connections.popitem(last=False)[1].cancel()
            nursery.start_soon(self._serve, stream, self._numbers, scope, name="http connection")

    async def _serve(self, stream: trio.abc.Stream, number: int, scope: trio.CancelScope) -> None:
        try:
            with scope:
                await self._converse(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client went away, which is its right
        except Exception as error:  # a defect in one connection must not end the gateway and all the others
            _logger.error("connection failed", connection=number, exc_info=error)
        finally:
            self._connections.pop(number, None)
            await trio.aclose_forcefully(stream)

    async def _converse(self, stream: trio.abc.Stream) -> None:
        """Answer requests until the client goes, has no more, breaks the rules, or is too slow."""
        reader = RequestReader(self.limits)
        while True:
            try:
                requests = await self._requests(stream, reader)
            except Refusal as refusal:
                await self._refuse(stream, refusal)
                return
            for request in requests:
                await self._answer(stream, request)
                if not request.keep_alive:
                    await _linger(stream)
                    return
            if reader.refusal is not None:
                await self._refuse(stream, reader.refusal)
                return
            if not requests:
                return

    async def _requests(self, stream: trio.abc.Stream, reader: RequestReader) -> list[Request]:
        """The next ones; none: the client is gone, or had nothing to ask for too long. Raises Refusal."""
        limits = self.limits
        if not reader.begun:
            requests, over = await self._read(stream, reader, limits.idle_s, until_begun=True)
            if requests or over or not reader.begun:
                return requests
        requests, over = await self._read(stream, reader, limits.request_s, until_begun=False)
        if not requests and not over:
            raise Refusal(408, f"a request must have come whole within {limits.request_s:g} s")
        return requests

    async def _read(
        self, stream: trio.abc.Stream, reader: RequestReader, limit_s: float, *, until_begun: bool
    ) -> tuple[list[Request], bool]:
        """(requests, the client sends no more); neither: the time is over, or one has begun."""
        with trio.move_on_after(limit_s):
            while data := await stream.receive_some(READ_BYTES):
                if requests := reader.feed(data):
                    return requests, False
                if until_begun and reader.begun:
                    return [], False
            return [], True
        return [], False

    async def _answer(self, stream: trio.abc.Stream, request: Request) -> None:
        answer: Answer | None = None
        try:
            with trio.move_on_after(self.limits.answer_s):
                answer = await self._pages.answer(request.method, request.path)
        except Exception as error:  # a defect in one page: whoever asked for it is told, others go on
            _logger.error("page failed", path=request.path, exc_info=error)
            answer = json_answer(500, {"error": "this page failed; the broker's log says more"})
        if answer is None:
            answer = json_answer(503, {"error": f"this page was not made within {self.limits.answer_s:g} s"})
        data = encode(
            answer, self._clock.wall_ms(), keep_alive=request.keep_alive, with_body=request.method != "HEAD"
        )
        await self._send(stream, data)

    async def _refuse(self, stream: trio.abc.Stream, refusal: Refusal) -> None:
        answer = json_answer(refusal.status, {"error": f"{refusal.why}; the connection ends"})
        await self._send(stream, encode(answer, self._clock.wall_ms(), keep_alive=False))
        await _linger(stream)

    async def _send(self, stream: trio.abc.Stream, data: bytes) -> None:
        with trio.move_on_after(self.limits.answer_s) as limit:
            await stream.send_all(data)
        if limit.cancelled_caught:
            raise trio.BrokenResourceError("the client does not take its answer")


async def _linger(stream: trio.abc.Stream) -> None:
    """Half-close, and drop what still comes for a while."""
    dropped = 0
    with trio.move_on_after(LINGER_S):
        if isinstance(stream, trio.abc.HalfCloseableStream):
            await stream.send_eof()
        while dropped < LINGER_BYTES_MAX and (data := await stream.receive_some(READ_BYTES)):
            dropped += len(data)

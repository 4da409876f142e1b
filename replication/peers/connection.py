"""One established connection between two nodes: a task that reads and one that writes; and the handshake's I/O.

    stream ──reader──> End.hear      End.next_frame ──writer──> stream

The link that it belongs to (link.py) decides everything. What waits is asked for when the writer can send, so all
that is posted in one turn of the loop leaves in one frame, and so does what came up while the last one was sent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import structlog
import trio

from plait.wire.errors import BadRequest
from plait.wire.frames import FrameReader
from replication.environment import Buffer, Clock
from replication.peers.proof import Proofs
from replication.peers.protocol import Hearing, Refusal, Told, encode_word

_logger = structlog.get_logger("plait.peers")

T = TypeVar("T")
READ_BYTES_MIN = 16 * 1024
"""Bytes asked of the socket at once while the peer sends little."""
READ_BYTES_MAX = 256 * 1024
"""Bytes asked of the socket at once while the peer sends much."""
SEND_BYTES = 256 * 1024
"""Bytes handed to the socket at once; the time that the peer has to take them is `stall_ms`."""
HANDSHAKE_READ_BYTES = 4_096
"""Bytes asked of the socket at once before the peer is known."""
HOLD_NS = 2_000_000
"""Time for which one read's frames may hold the loop before the others have a turn."""


class End(Protocol):
    """What a connection asks of its link."""

    def next_frame(self, connection: Connection) -> Buffer | None:
        """What to send now; None: nothing, `notify` will be called."""

    def hear(self, connection: Connection, head: list[Any], payload: memoryview) -> None:
        """A frame came. Raises BadRequest to end the connection."""


class Connection:
    """An established connection; `run` until it ends."""

    def __init__(
        self,
        kind: str,
        stream: trio.abc.Stream,
        reader: FrameReader,
        clock: Clock,
        stall_ms: int,
        first: bytes = b"",
    ) -> None:
        """`reader` may hold what came behind the handshake; `first` is sent before any frame."""
        self.kind = kind
        self.heard_ns = clock.monotonic_ns()
        """When anything came the last time."""
        self.bytes_received = 0
        self.bytes_sent = 0
        self._stream = stream
        self._reader = reader
        self._clock = clock
        self._stall_s = stall_ms / 1_000
        self._first = first
        self._scope = trio.CancelScope()
        self._wake: trio.Event | None = None

    def notify(self) -> None:
        """There may be something to send."""
        if self._wake is not None:
            self._wake.set()

    def close(self) -> None:
        """End it; nothing is read or sent any more."""
        self._scope.cancel()

    async def run(self, end: End) -> None:
        """Read and write until either side ends it, breaks the rules, or stalls."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write, end)
                    await self._read(end)
                    nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the peer is gone; its link finds out why
        except* BadRequest as broken:
            _logger.warning("peer breaks the rules", kind=self.kind, error=str(broken.exceptions[0]))
        except* Exception as errors:  # a defect met on one connection must not end the node with all the others
            _logger.error("peer connection failed", kind=self.kind, exc_info=errors)
        finally:
            await trio.aclose_forcefully(self._stream)

    async def _read(self, end: End) -> None:
        size_bytes = READ_BYTES_MIN
        self._take(end)  # what came behind the handshake
        while data := await self._stream.receive_some(size_bytes):
            size_bytes = min(max(2 * len(data), READ_BYTES_MIN), READ_BYTES_MAX)
            self.heard_ns = began_ns = self._clock.monotonic_ns()
            self.bytes_received += len(data)
            self._reader.feed(data)
            for head, payload in self._reader.frames():
                end.hear(self, head, payload)
                if self._clock.monotonic_ns() - began_ns > HOLD_NS:
                    await trio.lowlevel.checkpoint()
                    began_ns = self._clock.monotonic_ns()

    def _take(self, end: End) -> None:
        for head, payload in self._reader.frames():
            end.hear(self, head, payload)

    async def _write(self, end: End) -> None:
        if self._first:
            await self._send(memoryview(self._first))
        while True:
            frame = end.next_frame(self)
            if frame is None:
                self._wake = trio.Event()
                await self._wake.wait()
                self._wake = None
                continue
            view = memoryview(frame)
            for start in range(0, len(view), SEND_BYTES):
                await self._send(view[start : start + SEND_BYTES])
            self.bytes_sent += len(view)

    async def _send(self, data: memoryview) -> None:
        with trio.move_on_after(self._stall_s) as limit:
            await self._stream.send_all(data)
        if limit.cancelled_caught:
            _logger.warning("peer takes nothing", kind=self.kind, seconds=self._stall_s)
            self.close()
            await trio.lowlevel.checkpoint()


async def next_word(stream: trio.abc.Stream, hearing: Hearing) -> list[Any]:
    """The next word of a handshake. Raises Refusal, and trio.BrokenResourceError when the other side leaves."""
    while (head := hearing.word()) is None:
        data = await stream.receive_some(HANDSHAKE_READ_BYTES)
        if not data:
            raise trio.BrokenResourceError("the other side left during the handshake")
        hearing.feed(data)
    return head


async def say_word(stream: trio.abc.Stream, proofs: Proofs, word: list[Any]) -> None:
    """Say a word of a handshake, with this side's proof. Raises trio.BrokenResourceError."""
    await stream.send_all(encode_word(proofs.say(word)))


async def hear_word(
    stream: trio.abc.Stream, hearing: Hearing, proofs: Proofs, read: Callable[[list[Any]], T]
) -> T:
    """The next word, as `read` reads it, once it is proven.

    Raises Refusal (Told when the other side refuses), trio.BrokenResourceError.
    """
    word = await next_word(stream, hearing)
    try:
        found = read(word)
    except Told as told:
        told.believed = proofs.believes(word)
        raise
    proofs.hear(word)
    return found


async def say_no(stream: trio.abc.Stream, refusal: Refusal, proofs: Proofs) -> None:
    """Tell the other side why, and wait until it has seen it or says something."""
    try:
        await say_word(stream, proofs, refusal.word())
        if isinstance(stream, trio.abc.HalfCloseableStream):
            await stream.send_eof()
        while await stream.receive_some(HANDSHAKE_READ_BYTES):
            pass
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # it left: it does not want to know


def was_refused(error: BaseException | None) -> bool:
    """Whether nobody listens at an address that answers: the process there is gone.

    A name may stand for several addresses; then every one of them must say so.
    """
    if isinstance(error, ExceptionGroup):
        return all(was_refused(one) for one in error.exceptions)
    if isinstance(error, ConnectionRefusedError):
        return True
    return isinstance(error, OSError) and was_refused(error.__cause__)

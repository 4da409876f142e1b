"""Consuming a queue: leased messages pushed by the broker, handed out one by one, settled in ranges.

    DELIVER ──> Attachment: leases, runs not handed out ──> Consumer (the program's) ──> Leased ── ack ──┐
       ^                                                                                                 v
       └──────────── credit freed by settled records ──────────── SETTLE, once a turn <────────── LeaseBook

The attachment is the part that the connection knows; the consumer is the part that the program holds. A program
that just drops its consumer (a `break` out of `async for`) leaves an attachment that cancels itself as soon as the
messages in the program's hands are settled, at the latest when their lease is over.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice, repeat
from types import TracebackType

import anyio
from anyio.lowlevel import checkpoint

from plait.client.answers import Answer
from plait.client.backoff import Backoff
from plait.client.connection import Connection, Reply, closed_error
from plait.client.leases import Lease, LeaseBook, Settling
from plait.client.messages import Leased
from plait.wire.batch import RecordRun, iterate_run
from plait.wire.errors import LeaseLost, NotFound, NotLeader, PlaitError
from plait.wire.messages import Cancel, Consume, Deliver, Ok, Settle, Settled, read_result

PREFETCH_RECORDS = 100
"""Default of the records that one consumer has on lease at a time."""
TURN_RECORDS_MAX = 128
"""Messages handed out before other tasks, and the acknowledgements on their way, have a turn."""
EXTENSIONS_PER_LEASE = 3
"""How often a lease is extended within its own time: two may be lost on the way."""
CANCEL_S = 5.0
"""Longest that leaving a consumer's block waits for the broker's word."""


class Attachment:
    """One consumer as the connection knows it; attaches again after every lost connection."""

    def __init__(
        self, connection: Connection, queue: str, prefetch: int, lease_ms: int, auto_extend: bool
    ) -> None:
        self.connection = connection
        self.queue = queue
        self.prefetch = prefetch
        self.lease_ms = lease_ms
        """As the broker has it; never 0."""
        self.book = LeaseBook(self._dirty)
        self.error: PlaitError | None = None
        """Why nothing more comes."""
        self.current: Iterator[Leased] = iter(())
        self.failure: PlaitError | None = None
        """What went wrong with settlements that nobody waits for."""
        self.closed = False
        self._auto_extend = auto_extend
        self._tag = connection.new_tag()
        self._runs: deque[tuple[Lease, RecordRun]] = deque()
        self._wake: anyio.Event | None = None
        self._settling: dict[Settling, None] = {}
        self._abandoned = False
        self._attached = False
        self._backoff = Backoff(connection.outside.random)
        connection.listeners[self] = None
        connection.receivers[self._tag] = self
        if connection.ready:
            self.came_up()
        if auto_extend:
            self._extend_again()

    # towards the program

    def next_run(self) -> bool:
        """Make the next run of messages current."""
        if not self._runs:
            return False
        lease, run = self._runs.popleft()
        self.current = _leased(run, lease)
        return True

    async def wait(self) -> None:
        """Wait for deliveries. Raises whatever ended this consumer, Unavailable, Closed."""
        error = self.error or self.connection.down_too_long
        if error is not None or self.closed:
            raise error or closed_error()
        self._wake = anyio.Event()
        await self._wake.wait()

    async def flush(self) -> None:
        """Wait until all settlements are answered. Raises what went wrong with those that nobody waited for."""
        self._collect()
        for settling in list(self._settling):
            await settling.answer.settled()
        lost, self.book.lost_records = self.book.lost_records, 0
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        if lost:
            raise LeaseLost(
                f"The leases of {lost} messages had ended before they were settled: those messages are or were "
                "handed out again. Make processing idempotent, or lease for longer (lease_s, auto_extend).",
                records=lost,
            )

    async def cancel(self) -> None:
        """Settle what is settled, give back the rest, end the deliveries."""
        if self.closed:
            return
        answer: Answer[None] = Answer()
        with anyio.move_on_after(CANCEL_S):
            if self.connection.up:
                self._collect()
                if not self.closed:
                    self.closed = True  # nobody else cancels while this waits
                    self.connection.post(Cancel(0, self._tag), lambda _: answer.resolve(None))
                    await answer.settled()
                for settling in list(self._settling):
                    await settling.answer.settled()
        self._close()

    def abandon(self) -> None:
        """The program has dropped its consumer: end when the messages in its hands are settled or lapsed."""
        if not self.closed and not self._abandoned:
            self._abandoned = True
            self._auto_extend = False
            self.drop_runs()
            self._end_if_abandoned()
            self.connection.timers.call_later(self.lease_ms / 1000, self.end_soon)

    # from the connection

    def came_up(self) -> None:
        if not self._attached and not self.closed:
            if self._abandoned:
                self._close()
                return
            self._attached = True
            self.connection.post(
                Consume(0, self._tag, self.queue, "", self.prefetch, self.lease_ms), self._consume_answered
            )

    def went_down(self) -> None:
        self._detached()
        self._notify()

    def _detached(self) -> None:
        """The broker has ended this attachment: everything it held goes back to the queue."""
        self._attached = False
        self._runs.clear()
        self.current = iter(())
        self._forget_leases()

    def delivered(self, deliver: Deliver) -> None:
        if self._abandoned or self.error is not None:
            return  # CANCEL will give them back
        now_s = anyio.current_time()
        for each in deliver.runs:
            run = each.run
            lease = self.book.grant(
                deliver.partition, each.lease_id, run.first_offset, run.count, each.deliveries, now_s
            )
            self._runs.append((lease, run))
        self._notify()

    def gone(self, error: PlaitError) -> None:
        if error.retriable and not self._abandoned:  # the queue is led by another broker now, or will be
            self._detached()
            self._attach_later()
        else:
            self.error = error
            self.drop_runs()
        self._notify()

    def _consume_answered(self, reply: Reply) -> None:
        if isinstance(reply, Ok):
            self._backoff.reset()
            return
        self._attached = False
        if not reply.retriable:
            self.gone(reply)
        else:
            self._attach_later()

    def _attach_later(self) -> None:
        if self.connection.up:  # otherwise the next connection's `came_up` does it
            self.connection.timers.call_later(self._backoff.next_s(), self._attach_again)

    def _attach_again(self) -> None:
        if self.connection.ready:
            self.came_up()

    # settlements

    def _dirty(self) -> None:
        self.connection.soon(self._collect)

    def _collect(self) -> None:
        for settling in self.book.collect():
            if not self._attached:
                self._fail(settling, _never_sent())
                continue
            self._settling[settling] = None
            for ranges in settling.frames():
                self.connection.post(
                    Settle(
                        0,
                        self._tag,
                        settling.partition,
                        settling.action,
                        settling.extend_ms,
                        [(lease_id, first, last) for lease_id, first, last in ranges],
                    ),
                    lambda reply, settling=settling: self._settled(settling, reply),  # type: ignore[misc]  # bound now
                )
        self._end_if_abandoned()

    def _settled(self, settling: Settling, reply: Reply) -> None:
        if isinstance(reply, Ok):
            settling.answered(read_result(Settled, reply).lost)
            if settling.answer.done:
                self._settling.pop(settling, None)
                if settling.unwatched:
                    self.book.lost_records += sum(last - first + 1 for first, last in settling.lost)
        else:
            # NotFound: the broker had ended this consumer, and its word of that is on the way
            ended = isinstance(reply, NotLeader | NotFound)
            self._fail(settling, _never_done() if ended else reply)

    def _fail(self, settling: Settling, error: PlaitError) -> None:
        self._settling.pop(settling, None)
        settling.answer.reject(error)
        if settling.unwatched:
            self.failure = error

    def _extend_again(self) -> None:
        if self._auto_extend and not self.closed:
            older_s = self.lease_ms / 1000 / EXTENSIONS_PER_LEASE
            self.book.renew(anyio.current_time(), older_s / 2, self.lease_ms)
            self.connection.timers.call_later(older_s, self._extend_again)

    # the end

    def drop_runs(self) -> None:
        """Hand out nothing more of what is here. The broker has it back with CANCEL."""
        for lease, run in self._runs:
            self.book.release(lease, run.count)
        self._runs.clear()
        for message in self.current:
            self.book.release(message.lease, 1)
        self.current = iter(())

    def _forget_leases(self) -> None:
        for settling in self.book.forget():
            self._fail(settling, _never_sent())

    def _end_if_abandoned(self) -> None:
        if self._abandoned and not self.book.open_records:
            self.end_soon()

    def end_soon(self) -> None:
        """Cancel without waiting for the answer; what is not settled goes back to the queue."""
        if not self.closed:
            self.closed = True
            self._collect()
            if self.connection.up:
                self.connection.post(Cancel(0, self._tag), _ignore)
            self._close()

    def _close(self) -> None:
        self.closed = True
        self._runs.clear()
        self.current = iter(())
        self.connection.listeners.pop(self, None)
        self.connection.receivers.pop(self._tag, None)
        self._forget_leases()
        self._notify()

    def _notify(self) -> None:
        if self._wake is not None:
            self._wake.set()


class Consumer:
    """Messages of a queue, on lease: `async for message in queue.consume()`.

    Several consumers of one queue share its messages. Up to `prefetch` messages are on lease at a time and wait
    here, so that the next one is there when you are done with one; the leases are extended while the consumer is
    open (`auto_extend`), however long the processing takes. After a lost connection the consumer attaches again by
    itself; messages that it had are handed out anew, and acknowledging the old ones raises LeaseLost.

    With `async with queue.consume() as consumer:` what is not settled at the end of the block goes back to the
    queue at once. A consumer that is simply dropped does the same once the messages in your hands are settled.
    """

    def __init__(self, attach: Callable[[], Attachment], prefetch: int) -> None:
        self._attach = attach
        self._attachment: Attachment | None = None
        self._turn_records = max(1, min(TURN_RECORDS_MAX, prefetch // 4))
        self._left = self._turn_records
        self._closed = False

    async def start(self) -> None:
        """Attach; iterating does it by itself."""
        if self._closed:
            raise closed_error()
        if self._attachment is None:
            attachment = self._attachment = self._attach()
            weakref.finalize(self, attachment.connection.orphaned, attachment.abandon).atexit = False

    async def flush(self) -> None:
        """Wait until everything settled so far, also by `ack_soon`, is on disk.

        Raises LeaseLost or OutcomeUnknown if some of it was not: those messages come again.
        """
        if self._attachment is not None:
            await self._attachment.flush()

    async def aclose(self) -> None:
        """Send what is settled, give back the rest, and end.

        What went wrong with settlements that nobody waited for is not raised here: those messages come again. Call
        `flush` before if you need to know.
        """
        self._closed = True
        attachment = self._attachment
        if attachment is not None and not attachment.closed:
            attachment.drop_runs()
            await attachment.cancel()

    def take_ready(self, limit: int) -> list[Leased]:
        """Messages that are here already, at most so many."""
        return list(islice(self._attachment.current, limit)) if self._attachment is not None else []

    def __aiter__(self) -> Consumer:
        return self

    async def __anext__(self) -> Leased:
        self._left -= 1
        attachment = self._attachment
        if self._left > 0 and attachment is not None:
            for message in attachment.current:
                return message
            while attachment.next_run():
                for message in attachment.current:
                    return message
        return await self._next()

    async def __aenter__(self) -> Consumer:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, Exception):
            await self.aclose()
        elif self._attachment is not None:
            self._closed = True
            self._attachment.end_soon()

    async def _next(self) -> Leased:
        """The next message, after the other tasks had a turn."""
        self._left = self._turn_records
        if self._attachment is None:
            await self.start()
        attachment = self._attachment
        assert attachment is not None, "started"
        await checkpoint()
        while not self._closed:
            for message in attachment.current:
                return message
            if not attachment.next_run():
                await attachment.wait()
        raise StopAsyncIteration


def _leased(run: RecordRun, lease: Lease) -> Iterator[Leased]:
    return map(Leased, iterate_run(run), repeat(lease))


def _never_sent() -> LeaseLost:
    return LeaseLost(
        "The connection was lost before this settlement was sent, and the leases with it: the messages come "
        "again. Make processing idempotent."
    )


def _never_done() -> LeaseLost:
    return LeaseLost(
        "The broker had ended this consumer, as another leads the queue now: this settlement was not carried out, "
        "and the messages come again. Make processing idempotent."
    )


def _ignore(reply: Reply) -> None:
    """For a CANCEL that nobody waits for."""

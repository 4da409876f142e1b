"""The client for programs without an event loop: the same names, without `async` and `await`.

    with plait.blocking.connect("127.0.0.1:4150") as client:
        orders = client.queue("orders")
        orders.publish(b"one")
        for message in orders.consume():
            message.ack()

    program's thread ── call ──> portal ──> the client of `plait`, in an event loop in a thread of its own

Nothing is done twice: every method here runs the one it is named after, and has its signature and its words. What
goes in a stream (`Producer.send`, `ack_soon`) is handed over in batches, and iterators take batches back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack
from functools import partial, update_wrapper
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal

from plait.client import client as source
from plait.client.consumer import Consumer as AsyncConsumer
from plait.client.messages import Headers, Received
from plait.client.messages import Leased as AsyncLeased
from plait.client.producer import Producer as AsyncProducer
from plait.client.reader import Position
from plait.client.reader import Reader as AsyncReader
from plait.client.subscription import Subscription as AsyncSubscription
from plait.wire import Buffer

PULL_RECORDS_MAX = 1_000
"""Messages that an iterator takes from the loop's thread at once."""
INBOX_GATHER_S = 0.001
"""How long the first of them waits for others: going from thread to thread costs as much as a hundred items."""
INBOX_ITEMS_MAX = 10_000
"""Records or acknowledgements on their way to the loop's thread before the program waits for it."""

A = TypeVar("A")
F = TypeVar("F", bound=Callable[..., Any])
B = TypeVar("B", bound="_Wrapped[Any]")
M = TypeVar("M")
P = ParamSpec("P")
T = TypeVar("T")
I = TypeVar("I")  # noqa: E741 - the type of the inner object


class _Wrapped(Generic[I]):
    """An object of the client, and the way into its loop."""

    def __init__(self, portal: BlockingPortal, inner: I) -> None:
        self._portal = portal
        self._inner = inner

    def __repr__(self) -> str:
        return f"blocking {self._inner!r}"


def _call(method: Callable[Concatenate[Any, P], Awaitable[T]]) -> Callable[Concatenate[Any, P], T]:
    """The blocking form of a coroutine method."""

    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        result: T = self._portal.call(partial(method, self._inner, *args, **kwargs))
        return result

    update_wrapper(call, method)
    return call


def _make(method: Callable[Concatenate[Any, P], Any], wrapper: type[B]) -> Callable[Concatenate[Any, P], B]:
    """The blocking form of a method, plain or coroutine, whose result needs a blocking form too."""

    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> B:
        return wrapper(self._portal, self._portal.call(partial(method, self._inner, *args, **kwargs)))

    update_wrapper(call, method)
    return call


def _words_of(method: Callable[..., Any]) -> Callable[[F], F]:
    """Gives a method the documentation of the one that it stands for."""

    def give(to: F) -> F:
        to.__doc__ = method.__doc__
        return to

    return give


class _Inbox(Generic[T]):
    """Items from the program's threads to the loop's, in order, as many at once as have gathered."""

    def __init__(self, portal: BlockingPortal, deliver: Callable[[T], Awaitable[None]]) -> None:
        self._portal = portal
        self._deliver = deliver
        self._items: deque[T] = deque()
        self._scheduled = False
        self._drained: Future[None] | None = None
        self._error: BaseException | None = None
        self._lock: anyio.Lock | None = None

    def put(self, item: T) -> None:
        """Hand over an item; waits when INBOX_ITEMS_MAX are on their way. Raises what an earlier one met."""
        self._items.append(item)
        if not self._scheduled:
            self._scheduled = True
            self._drained = self._portal.start_task_soon(self._gather)
        elif len(self._items) >= INBOX_ITEMS_MAX and self._drained is not None:
            self._drained.result()
        if self._error is not None:
            self._raise_error()

    def wait(self) -> None:
        """Wait until all items are delivered. Raises what one of them met."""
        self._portal.call(self._drain)
        self._raise_error()

    async def _gather(self) -> None:
        await anyio.sleep(INBOX_GATHER_S)
        self._scheduled = False  # before looking: what comes from now on asks for another round
        await self._drain()

    async def _drain(self) -> None:
        if self._lock is None:
            self._lock = anyio.Lock()
        async with self._lock:  # rounds one behind the other keep the order
            while self._items:
                try:
                    await self._deliver(self._items.popleft())
                except Exception as error:  # carried to the program's thread, which raises it
                    self._error = self._error or error

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error


class _Block(_Wrapped[I]):
    """An object with an `async with` block."""

    def __enter__(self: A) -> A:
        self._portal.call(self._inner.__aenter__)  # type: ignore[attr-defined]  # every I of a _Block has them
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._portal.call(self._inner.__aexit__, kind, error, traceback)  # type: ignore[attr-defined]  # as above


class Producer(_Block[AsyncProducer]):
    __doc__ = AsyncProducer.__doc__

    def __init__(self, portal: BlockingPortal, inner: AsyncProducer) -> None:
        super().__init__(portal, inner)
        self._inbox: _Inbox[tuple[Any, ...]] = _Inbox(portal, lambda item: inner.send(*item))

    @_words_of(AsyncProducer.send)
    def send(
        self,
        value: Buffer,
        key: Buffer | None = None,
        headers: Headers | None = None,
        timestamp_ms: int | None = None,
        partition: int | None = None,
    ) -> None:
        if type(value) is not bytes and isinstance(value, bytearray | memoryview):
            value = bytes(value)  # the program may change its buffer before the loop's thread sees it
        self._inbox.put((value, key, headers, timestamp_ms, partition))

    @_words_of(AsyncProducer.flush)
    def flush(self) -> None:
        self._inbox.wait()
        self._portal.call(self._inner.flush)

    @_words_of(AsyncProducer.aclose)
    def close(self) -> None:
        try:
            self._inbox.wait()
        finally:
            self._portal.call(self._inner.aclose)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._inbox.wait()
        finally:
            super().__exit__(kind, error, traceback)


class Leased(Received):
    __doc__ = AsyncLeased.__doc__
    __slots__ = ("_consumer", "_inner")

    def __init__(self, inner: AsyncLeased, consumer: Consumer) -> None:
        super().__init__(inner._record, inner.partition)
        self._inner = inner
        self._consumer = consumer

    @property
    def deliveries(self) -> int:
        """How often the message was handed out, this time included: 1 the first time."""
        return self._inner.deliveries

    @property
    def _portal(self) -> BlockingPortal:
        return self._consumer._portal

    ack = _call(AsyncLeased.ack)
    nack = _call(AsyncLeased.nack)
    extend = _call(AsyncLeased.extend)

    @_words_of(AsyncLeased.ack_soon)
    def ack_soon(self) -> None:
        self._consumer._inbox.put(self._inner.ack_soon)

    @_words_of(AsyncLeased.nack_soon)
    def nack_soon(self) -> None:
        self._consumer._inbox.put(self._inner.nack_soon)


class Consumer(_Block[AsyncConsumer]):
    __doc__ = AsyncConsumer.__doc__

    def __init__(self, portal: BlockingPortal, inner: AsyncConsumer) -> None:
        super().__init__(portal, inner)
        self._inbox: _Inbox[Callable[[], None]] = _Inbox(portal, _run)
        self._here: deque[AsyncLeased] = deque()

    def __iter__(self) -> Iterator[Leased]:
        return self

    def __next__(self) -> Leased:
        if not self._here:
            self._here.extend(_or_stop(self._portal, self._inner))
        return Leased(self._here.popleft(), self)

    @_words_of(AsyncConsumer.flush)
    def flush(self) -> None:
        self._inbox.wait()
        self._portal.call(self._inner.flush)

    @_words_of(AsyncConsumer.aclose)
    def close(self) -> None:
        self._here.clear()
        self._inbox.wait()
        self._portal.call(self._inner.aclose)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._here.clear()
        self._inbox.wait()
        super().__exit__(kind, error, traceback)


class Reader(_Block[AsyncReader]):
    __doc__ = AsyncReader.__doc__

    def __init__(self, portal: BlockingPortal, inner: AsyncReader) -> None:
        super().__init__(portal, inner)
        self._here: deque[Received] = deque()

    def __iter__(self) -> Iterator[Received]:
        return self

    def __next__(self) -> Received:
        while True:
            if not self._here:
                self._here.extend(_or_stop(self._portal, self._inner))
            message = self._here.popleft()
            if self._inner.gave(message):
                return message

    close = _call(AsyncReader.aclose)

    @property
    def skipped_records(self) -> int:
        """Records that retention removed before they were read."""
        return self._inner.skipped_records


class Subscription(Reader):
    __doc__ = AsyncSubscription.__doc__

    commit = _call(AsyncSubscription.commit)
    lag = _call(AsyncSubscription.lag)

    @_words_of(AsyncSubscription.seek)
    def seek(self, to: Position, partition: int | None = None) -> None:
        assert isinstance(self._inner, AsyncSubscription), "made by Topic.subscribe"
        if partition is None or (self._here and self._here[0].partition == partition):
            self._here.clear()  # what is here is of one partition
        self._portal.call(self._inner.seek, to, partition)


class Queue(_Wrapped[source.Queue]):
    __doc__ = source.Queue.__doc__

    publish = _call(source.Queue.publish)
    publish_many = _call(source.Queue.publish_many)
    producer = _make(source.Queue.producer, Producer)
    consume = _make(source.Queue.consume, Consumer)
    backlog = _call(source.Queue.backlog)
    describe = _call(source.Queue.describe)
    delete = _call(source.Queue.delete)

    @property
    def name(self) -> str:
        """The queue's name."""
        return self._inner.name


class Topic(_Wrapped[source.Topic]):
    __doc__ = source.Topic.__doc__

    publish = _call(source.Topic.publish)
    publish_many = _call(source.Topic.publish_many)
    producer = _make(source.Topic.producer, Producer)
    subscribe = _make(source.Topic.subscribe, Subscription)
    read = _make(source.Topic.read, Reader)
    subscriptions = _call(source.Topic.subscriptions)
    describe = _call(source.Topic.describe)
    delete = _call(source.Topic.delete)

    @property
    def name(self) -> str:
        """The topic's name."""
        return self._inner.name

    @property
    def partitions(self) -> int:
        """How many partitions it has."""
        return self._inner.partitions


class Client(_Wrapped[source.Client]):
    __doc__ = source.Client.__doc__

    queue = _make(source.Client.queue, Queue)
    topic = _make(source.Client.topic, Topic)
    describe = _call(source.Client.describe)
    groups = _call(source.Client.groups)
    describe_group = _call(source.Client.describe_group)
    list = _call(source.Client.list)
    cluster_status = _call(source.Client.cluster_status)
    resize = _call(source.Client.resize)
    change_node = _call(source.Client.change_node)
    delete = _call(source.Client.delete)


class connect(AbstractContextManager[Client]):  # noqa: N801 - used like a function
    """Connect to a broker: `with plait.blocking.connect("127.0.0.1:4150") as client:`.

    The arguments are those of `plait.connect`, and what it raises. The event loop runs in a thread that ends with
    the block. A client may be used by many threads at once.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._connect = partial(source.connect, *args, **kwargs)
        self._stack = ExitStack()

    def __enter__(self) -> Client:
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal("asyncio"))
            inner = stack.enter_context(portal.wrap_async_context_manager(portal.call(self._connect)))
            self._stack = stack.pop_all()
        return Client(portal, inner)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)


def _or_stop(portal: BlockingPortal, inner: Any) -> list[Any]:
    found: list[Any] = portal.call(_pull, inner)
    if not found:
        raise StopIteration
    return found


async def _pull(inner: Any) -> list[Any]:
    """The next message, and all that are here with it; [] at the end."""
    try:
        first = await anext(inner)
    except StopAsyncIteration:
        return []
    return [first, *inner.take_ready(PULL_RECORDS_MAX - 1)]


async def _run(settle: Callable[[], None]) -> None:
    settle()

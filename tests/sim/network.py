"""A network in memory: streams with seeded delays, in pieces of seeded sizes, over links that can be cut.

    Internet ── all hosts, listeners and links of one simulation
      └ network(host) ── environment.Network as one node sees it

A cut link behaves as TCP does: what was sent waits, in order, until it is healed; nobody is told. `reset` is what
a peer's kernel says of a process that died; a host that lost its power says nothing (`crash(host, silent=True)`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from random import Random

import trio
import trio.abc

WINDOW_BYTES = 256 * 1024
"""Bytes that one direction of a stream holds before its sender has to wait."""
DELAY_S = (0.000_1, 0.002)
"""Least and greatest time that a piece takes to arrive."""
CONNECT_TIMEOUT_S = 3.0
"""Time after which an attempt to connect over a cut link fails."""
PORT_FIRST = 40_000
"""Where ports that the network picks begin."""
HOST = "sim"
"""The name under which any host reaches itself, besides its own."""


class _Pipe:
    """One direction of a stream."""

    def __init__(self, internet: Internet, source: str, target: str) -> None:
        self.internet = internet
        self.link = (source, target)
        self.pieces: deque[tuple[float, bytes]] = deque()
        """(time of arrival, bytes); b"" is the end."""
        self.size = 0
        self.broken = False
        self.reader_gone = False
        self.changed = trio.Event()

    def put(self, data: bytes) -> None:
        last = self.pieces[-1][0] if self.pieces else 0.0
        arrival = trio.current_time() + self.internet.random.uniform(*DELAY_S)
        self.pieces.append((max(last, arrival), data))
        self.size += len(data)
        self.notify()

    def notify(self) -> None:
        """Wake whoever waits for anything about this pipe."""
        self.changed.set()
        self.changed = trio.Event()

    def take(self, size_bytes: int) -> bytes:
        """Some of the first piece. The end stays where it is."""
        arrival, data = self.pieces[0]
        if not data:
            return b""
        taken = data[: self.internet.random.randrange(1, min(size_bytes, len(data)) + 1)]
        self.pieces.popleft()
        if len(taken) < len(data):
            self.pieces.appendleft((arrival, data[len(taken) :]))
        self.size -= len(taken)
        self.notify()
        return taken

    def wait_s(self) -> float:
        """Seconds until a reader has something; infinite while the link is cut or nothing was sent."""
        if not self.pieces or self.internet.is_cut(*self.link):
            return float("inf")
        return max(self.pieces[0][0] - trio.current_time(), 0.0)


class SimStream(trio.abc.HalfCloseableStream):
    """One end of a connection."""

    def __init__(self, incoming: _Pipe, outgoing: _Pipe) -> None:
        self._in = incoming
        self._out = outgoing
        self._closed = False
        self._ended = False
        self._sending = trio.Lock()
        self._receiving = trio.Lock()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See trio.abc.SendStream."""
        await trio.lowlevel.checkpoint()
        rest = bytes(data)
        with _one_at_a_time(self._sending):
            self._check_sending()
            while rest:
                self._check_sending()
                room = WINDOW_BYTES - self._out.size
                if room > 0:
                    self._out.put(rest[:room])
                    rest = rest[room:]
                else:
                    await self._out.changed.wait()

    async def wait_send_all_might_not_block(self) -> None:
        """See trio.abc.SendStream."""
        await trio.lowlevel.checkpoint()
        with _one_at_a_time(self._sending):
            self._check(self._out)
            while not self._out.reader_gone and self._out.size >= WINDOW_BYTES:
                await self._out.changed.wait()
                self._check(self._out)

    async def send_eof(self) -> None:
        """See trio.abc.HalfCloseableStream."""
        await trio.lowlevel.checkpoint()
        with _one_at_a_time(self._sending):
            self._check(self._out)
            if not self._ended:
                self._ended = True
                self._out.put(b"")

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """See trio.abc.ReceiveStream."""
        if max_bytes is not None and not isinstance(max_bytes, int):
            raise TypeError("max_bytes must be a whole number")
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        await trio.lowlevel.checkpoint()
        with _one_at_a_time(self._receiving):
            while True:
                self._check(self._in)
                wait_s = self._in.wait_s()
                if wait_s <= 0:
                    return self._in.take(max_bytes or 65_536)
                with trio.move_on_after(wait_s):
                    await self._in.changed.wait()

    async def aclose(self) -> None:
        """See trio.abc.AsyncResource."""
        if not self._closed:
            self._closed = True
            self._in.reader_gone = True
            if not self._ended and not self._out.broken:
                self._out.put(b"")
            self._in.notify()
            self._out.notify()
        await trio.lowlevel.checkpoint()

    def _check_sending(self) -> None:
        self._check(self._out)
        if self._ended:
            raise trio.ClosedResourceError("the end was sent")
        if self._out.reader_gone:
            raise trio.BrokenResourceError("the peer has closed")

    def _check(self, pipe: _Pipe) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream is closed")
        if pipe.broken:
            raise trio.BrokenResourceError("connection reset by peer")


class _one_at_a_time:  # noqa: N801 - reads as a phrase
    """Streams refuse a second caller of the same direction."""

    def __init__(self, lock: trio.Lock) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        try:
            self._lock.acquire_nowait()
        except (trio.WouldBlock, RuntimeError):
            raise trio.BusyResourceError("another task is using this stream") from None

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class SimListener(trio.abc.Listener[trio.abc.Stream]):
    """A port that somebody listens on."""

    def __init__(self, internet: Internet, address: tuple[str, int]) -> None:
        self.internet = internet
        self.address = address
        self._arrived: deque[SimStream] = deque()
        self._changed = trio.Event()
        self.closed = False

    def offer(self, stream: SimStream) -> None:
        """A peer has connected."""
        self._arrived.append(stream)
        self._changed.set()

    async def accept(self) -> trio.abc.Stream:
        """See trio.abc.Listener."""
        await trio.lowlevel.checkpoint()
        while not self._arrived:
            if self.closed:
                raise trio.ClosedResourceError("this listener is closed")
            self._changed = trio.Event()
            await self._changed.wait()
        return self._arrived.popleft()

    async def aclose(self) -> None:
        """See trio.abc.AsyncResource."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Give the port back."""
        self.closed = True
        self.internet.listeners.pop(self.address, None)
        self._changed.set()


class Internet:
    """All hosts of a simulation and what lies between them."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.listeners: dict[tuple[str, int], SimListener] = {}
        self._cut: dict[tuple[str, str], None] = {}
        self._pipes: list[_Pipe] = []
        self._port = PORT_FIRST

    def network(self, host: str) -> SimNetwork:
        """The network as that host sees it."""
        return SimNetwork(self, host)

    def cut(self, source: str, target: str) -> None:
        """From now on nothing gets from one host to the other (the other direction is a link of its own)."""
        self._cut[source, target] = None
        self._notify()

    def heal(self) -> None:
        """All links work again; what waited arrives."""
        self._cut.clear()
        self._notify()

    def is_cut(self, source: str, target: str) -> bool:
        """True while nothing gets from one host to the other."""
        return (source, target) in self._cut

    def reset(self, host: str, *, between: str | None = None) -> None:
        """Break the host's connections (those to one other host): both ends are told."""
        for pipe in self._of(host):
            if between is None or between in pipe.link:
                pipe.broken = True
                pipe.notify()
        self._pipes = [pipe for pipe in self._pipes if not pipe.broken]

    def crash(self, host: str, *, silent: bool = False) -> None:
        """The host's process is gone: its ports are free and its connections reset, or, `silent`, just dead."""
        for address in [address for address in self.listeners if address[0] == host]:
            self.listeners[address].close()
        if not silent:
            self.reset(host)
            return
        for pipe in self._of(host):
            pipe.pieces.clear()
            pipe.link = ("nowhere", "nowhere")
        self._cut["nowhere", "nowhere"] = None

    def join(self, source: str, target: str) -> tuple[SimStream, SimStream]:
        """A new connection; the end of the one who asked for it first."""
        there, back = _Pipe(self, source, target), _Pipe(self, target, source)
        self._pipes += [there, back]
        return SimStream(back, there), SimStream(there, back)

    def pick_port(self) -> int:
        """A port that nobody has."""
        self._port += 1
        return self._port

    def _of(self, host: str) -> list[_Pipe]:
        return [pipe for pipe in self._pipes if host in pipe.link]

    def _notify(self) -> None:
        for pipe in self._pipes:
            pipe.notify()


class SimNetwork:
    """`environment.Network` of one host."""

    def __init__(self, internet: Internet, host: str) -> None:
        self._internet = internet
        self._host = host

    async def listen(self, host: str, port: int) -> Sequence[trio.abc.Listener[trio.abc.Stream]]:
        """See environment.Network. Whatever `host` says, the port is this host's."""
        await trio.lowlevel.checkpoint()
        address = (self._host, port or self._internet.pick_port())
        if address in self._internet.listeners:
            raise OSError(f"{address}: address already in use")
        listener = self._internet.listeners[address] = SimListener(self._internet, address)
        return [listener]

    async def connect(self, host: str, port: int) -> trio.abc.Stream:
        """See environment.Network."""
        target = self._host if host == HOST else host
        internet = self._internet
        await trio.sleep(internet.random.uniform(*DELAY_S))
        if internet.is_cut(self._host, target) or internet.is_cut(target, self._host):
            await trio.sleep(CONNECT_TIMEOUT_S)
            raise OSError(f"{target}:{port}: connection timed out")
        listener = internet.listeners.get((target, port))
        if listener is None:
            raise OSError(f"{target}:{port}: connection refused")
        mine, theirs = internet.join(self._host, target)
        listener.offer(theirs)
        return mine

    def address_of(self, listener: trio.abc.Listener[trio.abc.Stream]) -> tuple[str, int]:
        """See environment.Network."""
        assert isinstance(listener, SimListener)
        return listener.address

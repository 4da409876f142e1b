"""A network in memory: streams with seeded delays, in pieces of seeded sizes, over links that can be cut.

    Internet ── all hosts, listeners and links of one simulation
      └ network(host) ── environment.Network as one node sees it

A cut link behaves as TCP does: what was sent waits, in order, until it is healed; nobody is told. `reset` is what
a peer's kernel says of a process that died; a host that lost its power says nothing (`crash(host, silent=True)`).
With `weather` set, what is sent is asked about before it travels: tests/sim/weather.py loses, doubles and delays
whole frames of some connections.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Sequence
from random import Random
from typing import Protocol

import trio
import trio.abc

from tests.sim.timers import running_timers, sleep

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


class Stretch(Protocol):
    """What happens to the bytes of one direction of one connection."""

    def judge(self, data: bytes) -> Sequence[tuple[float, bool, bytes]]:
        """(extra delay in seconds, whether later pieces may overtake it, bytes) of each piece that will arrive."""


class Weather(Protocol):
    """Decides which connections lose what they carry."""

    def stretches(self, source: str, target: str, port: int) -> tuple[Stretch | None, Stretch | None]:
        """For the two directions of a new connection to that port, there and back; None: it is left alone."""


class _Pipe:
    """One direction of a stream."""

    __slots__ = (
        "_changed",
        "_last",
        "_reader",
        "broken",
        "internet",
        "link",
        "pieces",
        "reader_gone",
        "size",
        "stretch",
    )

    def __init__(self, internet: Internet, source: str, target: str, stretch: Stretch | None) -> None:
        self.internet = internet
        self.link = (source, target)
        self.stretch = stretch
        self.pieces: deque[tuple[float, bytes]] = deque()
        """(time of arrival, bytes), in order of arrival; b"" is the end."""
        self.size = 0
        self.broken = False
        self.reader_gone = False
        self._last = 0.0  # arrival of the last piece that none may overtake
        self._changed: trio.Event | None = None
        self._reader: trio.lowlevel.Task | None = None  # that waits

    def put(self, data: bytes) -> None:
        """Send something, which arrives or does not."""
        if self.stretch is None or not data:
            self._send(0.0, False, data)
        else:
            for delay_s, overtaken, piece in self.stretch.judge(data):
                self._send(delay_s, overtaken, piece)

    def _send(self, delay_s: float, overtaken: bool, data: bytes) -> None:
        arrival = trio.current_time() + delay_s + self.internet.random.uniform(*self.internet.delay_s)
        if overtaken and arrival > self._last:
            insort(self.pieces, (arrival, data), key=_arrival)
        else:
            self._last = arrival = max(self._last, arrival)
            if self.pieces and self.pieces[-1][0] > arrival:
                insort(self.pieces, (arrival, data), key=_arrival)
            else:
                self.pieces.append((arrival, data))
        self.size += len(data)
        if self._reader is not None and not self.internet.is_cut(*self.link):
            self._wake_at(arrival)

    def notify(self) -> None:
        """Wake whoever waits for anything about this pipe."""
        self._wake_reader()
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def change(self) -> None:
        """Wait until somebody notifies."""
        if self._changed is None:
            self._changed = trio.Event()
        await self._changed.wait()

    async def wait_for_arrival(self) -> None:
        """Wait until there may be something to take, or the pipe broke."""
        wait_s = self.wait_s()
        if wait_s < float("inf"):
            self._wake_at(trio.current_time() + wait_s)
        self._reader = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._reader = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def _wake_at(self, at_s: float) -> None:
        timers = running_timers()
        if timers is not None:
            timers.call_at(at_s, self._wake_reader)
        else:
            trio.lowlevel.spawn_system_task(self._wake_later, at_s)

    async def _wake_later(self, at_s: float) -> None:
        await trio.sleep_until(at_s)
        self._wake_reader()

    def _wake_reader(self) -> None:
        """It looks again, even if there is nothing for it."""
        if self._reader is not None:
            task, self._reader = self._reader, None
            trio.lowlevel.reschedule(task)

    def take(self, size_bytes: int) -> bytes:
        """Some of the first piece, or all that has arrived. The end stays where it is."""
        arrival, data = self.pieces[0]
        if not data:
            return b""
        internet = self.internet
        if internet.whole_share and internet.random.random() < internet.whole_share:
            return self._take_all(size_bytes)
        taken = data[: internet.random.randrange(1, min(size_bytes, len(data)) + 1)]
        self.pieces.popleft()
        if len(taken) < len(data):
            self.pieces.appendleft((arrival, data[len(taken) :]))
        self._taken(len(taken))
        return taken

    def _take_all(self, size_bytes: int) -> bytes:
        now = trio.current_time()
        taken: list[bytes] = []
        while size_bytes and self.pieces and self.pieces[0][0] <= now and self.pieces[0][1]:
            arrival, data = self.pieces.popleft()
            if len(data) > size_bytes:
                self.pieces.appendleft((arrival, data[size_bytes:]))
                data = data[:size_bytes]
            size_bytes -= len(data)
            taken.append(data)
        joined = b"".join(taken)
        self._taken(len(joined))
        return joined

    def _taken(self, size_bytes: int) -> None:
        self.size -= size_bytes
        self.notify()

    def wait_s(self) -> float:
        """Seconds until a reader has something; infinite while the link is cut or nothing was sent."""
        if not self.pieces or self.internet.is_cut(*self.link):
            return float("inf")
        return max(self.pieces[0][0] - trio.current_time(), 0.0)


def _arrival(piece: tuple[float, bytes]) -> float:
    return piece[0]


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
                    await self._out.change()

    async def wait_send_all_might_not_block(self) -> None:
        """See trio.abc.SendStream."""
        await trio.lowlevel.checkpoint()
        with _one_at_a_time(self._sending):
            self._check(self._out)
            while not self._out.reader_gone and self._out.size >= WINDOW_BYTES:
                await self._out.change()
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
                if self._in.wait_s() <= 0:
                    return self._in.take(max_bytes or 65_536)
                await self._in.wait_for_arrival()

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
        self.delay_s = DELAY_S
        """Least and greatest time that a piece takes to arrive."""
        self.whole_share = 0.0
        """Chance that a read gives all that has arrived instead of some of the first piece."""
        self.weather: Weather | None = None
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

    def mend(self, source: str, target: str) -> None:
        """That link works again; what waited arrives."""
        if (source, target) in self._cut:
            del self._cut[source, target]
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

    def join(self, source: str, target: str, port: int = 0) -> tuple[SimStream, SimStream]:
        """A new connection to a port of the target; the end of the one who asked for it first."""
        stretches = self.weather.stretches(source, target, port) if self.weather is not None else (None, None)
        there = _Pipe(self, source, target, stretches[0])
        back = _Pipe(self, target, source, stretches[1])
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
        await sleep(internet.random.uniform(*internet.delay_s))
        if internet.is_cut(self._host, target) or internet.is_cut(target, self._host):
            await sleep(CONNECT_TIMEOUT_S)
            raise OSError(f"{target}:{port}: connection timed out")
        listener = internet.listeners.get((target, port))
        if listener is None:
            raise ConnectionRefusedError(f"{target}:{port}: connection refused")
        mine, theirs = internet.join(self._host, target, port)
        listener.offer(theirs)
        return mine

    def address_of(self, listener: trio.abc.Listener[trio.abc.Stream]) -> tuple[str, int]:
        """See environment.Network."""
        assert isinstance(listener, SimListener)
        return listener.address

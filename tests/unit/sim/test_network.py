"""The simulated network keeps order, takes its time, stands still while it is cut, and says so when it breaks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random

import pytest
import trio
import trio.testing

from tests.sim.network import WINDOW_BYTES, Internet
from tests.sim.run import run_sim


async def pair(internet: Internet) -> tuple[trio.abc.Stream, trio.abc.Stream]:
    """Two ends of a connection from host a to host b."""
    (listener,) = await internet.network("b").listen("0.0.0.0", 0)
    host, port = internet.network("b").address_of(listener)
    mine = await internet.network("a").connect(host, port)
    return mine, await listener.accept()


async def read_all(stream: trio.abc.Stream) -> bytes:
    found = bytearray()
    while piece := await stream.receive_some():
        found += piece
    return bytes(found)


def simulate(world: Callable[[Internet], Awaitable[object]], seed: int = 1) -> object:
    return run_sim(seed, lambda random: world(Internet(random)))


def test_it_is_a_stream_as_trio_wants_them() -> None:
    async def world(random: Random) -> None:
        async def make() -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
            return await pair(Internet(random))  # type: ignore[return-value]  # SimStreams

        async def clogged() -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
            a, b = await make()
            for end in (a, b):
                with trio.move_on_after(0):
                    await end.send_all(bytes(WINDOW_BYTES))
                await end.send_all(bytes(WINDOW_BYTES - end._out.size))  # type: ignore[attr-defined]  # fill it
            return a, b

        await trio.testing.check_half_closeable_stream(make, clogged)

    run_sim(1, world)


def test_bytes_arrive_late_in_pieces_and_in_order() -> None:
    async def world(internet: Internet) -> None:
        mine, theirs = await pair(internet)
        began = trio.current_time()
        sent = bytes(range(256)) * 40
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                for at in range(0, len(sent), 100):
                    await mine.send_all(sent[at : at + 100])
                await mine.aclose()

            nursery.start_soon(send)
            assert await read_all(theirs) == sent
        assert trio.current_time() > began

    simulate(world)


def test_a_cut_link_holds_everything_back_until_it_is_healed() -> None:
    async def world(internet: Internet) -> None:
        mine, theirs = await pair(internet)
        internet.cut("a", "b")
        await mine.send_all(b"hello")
        await theirs.send_all(b"back")
        with trio.move_on_after(100) as waiting:
            await theirs.receive_some()
        assert waiting.cancelled_caught
        assert (await mine.receive_some(1)) == b"b", "the other direction is a link of its own"
        with pytest.raises(OSError, match="timed out"):
            await internet.network("a").connect("b", 40_001)
        internet.heal()
        await mine.aclose()
        assert await read_all(theirs) == b"hello"

    simulate(world)


def test_a_reset_is_heard_at_both_ends_and_silence_at_none() -> None:
    async def world(internet: Internet) -> None:
        mine, theirs = await pair(internet)
        internet.crash("b")
        for end in (mine, theirs):
            with pytest.raises(trio.BrokenResourceError):
                await end.receive_some()
        with pytest.raises(OSError, match="refused"):
            await internet.network("a").connect("b", 40_001)
        mine, _ = await pair(internet)
        internet.crash("b", silent=True)
        await mine.send_all(b"anyone?")
        with trio.move_on_after(1000) as waiting:
            await mine.receive_some()
        assert waiting.cancelled_caught

    simulate(world)


def test_a_port_belongs_to_one_listener() -> None:
    async def world(internet: Internet) -> None:
        (first,) = await internet.network("a").listen("127.0.0.1", 4150)
        with pytest.raises(OSError, match="in use"):
            await internet.network("a").listen("127.0.0.1", 4150)
        await internet.network("b").listen("127.0.0.1", 4150)
        await first.aclose()
        await internet.network("a").listen("127.0.0.1", 4150)
        with pytest.raises(trio.ClosedResourceError):
            await first.accept()

    simulate(world)

"""The wires of the chaos suite do what they are told, each way by itself, and know who dials."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest
import trio

from replication.peers.protocol import CONTROL, Hello, Identity, encode_word
from tests.chaos.wires import Wires, both


@asynccontextmanager
async def wired() -> AsyncIterator[tuple[Wires, trio.SocketStream, trio.SocketStream]]:
    """A connection that n1 has dialled to n2: the wires, n1's end, n2's end."""
    wires = Wires(Random(1))
    accepted: trio.MemorySendChannel[trio.SocketStream]
    accepted, incoming = trio.open_memory_channel[trio.SocketStream](1)

    async def accept(stream: trio.SocketStream) -> None:
        await accepted.send(stream)
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, accept, listeners)
        own = listeners[0].socket.getsockname()
        port = await wires.serve(nursery, "n2", own, lambda node, door: f"n{node}")
        near = await trio.open_tcp_stream("127.0.0.1", port)
        hello = encode_word(Hello(Identity("cluster", 1, 1), 5, CONTROL, 2).word())
        await near.send_all(hello)
        far = await incoming.receive()
        assert await far.receive_some(len(hello)) == hello
        yield wires, near, far
        nursery.cancel_scope.cancel()


async def test_bytes_pass_in_both_directions() -> None:
    async with wired() as (_, near, far):
        await near.send_all(b"there")
        assert await far.receive_some(10) == b"there"
        await far.send_all(b"back")
        assert await near.receive_some(10) == b"back"


async def test_what_is_held_one_way_comes_when_it_is_healed_and_the_other_way_is_free() -> None:
    async with wired() as (wires, near, far):
        wires.set([("n1", "n2")], held=True)
        await near.send_all(b"there")
        await far.send_all(b"back")
        assert await near.receive_some(10) == b"back"
        wires.heal([("n1", "n2")])
        assert await far.receive_some(10) == b"there"


async def test_a_wire_that_is_cut_resets_its_connections() -> None:
    async with wired() as (wires, near, far):
        wires.set(both([("n1", "n2")]), cut=True)
        for stream in (near, far):
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some(10)


async def test_an_end_passes_a_wire_when_it_is_healed() -> None:
    async with wired() as (wires, near, far):
        wires.set(both([("n1", "n2")]), held=True)
        await far.aclose()
        wires.heal(both([("n1", "n2")]))
        with pytest.raises(trio.BrokenResourceError):
            await near.receive_some(10)

"""Peer links over real sockets on loopback: they carry, break, refuse and come back as in the simulator."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from replication.actor import Actor, Host, Promise
from replication.machine import Entry
from replication.peers.channels import Answer
from replication.peers.lives import Life
from replication.peers.peers import Peers
from replication.peers.protocol import Identity
from replication.peers.settings import PeerSettings
from replication.raft.messages import Append
from replication.real import real_environment
from tests.sim.peer_world import Member

LIMIT_S = 30.0
"""Time in which anything must have happened that a test waits for."""


@asynccontextmanager
async def running(
    folder: Path, node: int, life: int = 1, port: int = 0, settings: PeerSettings | None = None
) -> AsyncIterator[tuple[Peers, int]]:
    """A node's links and the port where it listens, until the block ends: then it is as good as killed."""

    def failed(actor: Actor, error: Exception) -> None:
        raise error

    async with trio.open_nursery() as nursery:
        environment = real_environment(str(folder / str(node)), nursery)
        host = Host(environment.clock, failed)
        environment.tasks.spawn("actors", host.run)
        peers = Peers(environment, host, Identity("tested", node, life), settings)
        _, port = await peers.listen("127.0.0.1", port)
        yield peers, port
        await peers.close()
        nursery.cancel_scope.cancel()


async def until(condition: Callable[[], Any]) -> None:
    with trio.fail_after(LIMIT_S):
        while not condition():  # noqa: ASYNC110 - nobody else is waiting
            await trio.sleep(0.001)


def linked(peers: Peers, node: int) -> bool:
    return peers.is_up(node) and None not in peers.link(node).connections.values()


def append(index: int, payload: bytes) -> Append:
    return Append(1, 2, 5, index - 1, 5, [Entry(index, 5, 1, index, 1, payload)], 0, index)


def reverse(node: int, head: list[Any], payload: memoryview) -> Promise[Answer]:
    promise: Promise[Answer] = Promise()
    promise.resolve(([*head, node], [bytes(payload)[::-1]]))
    return promise


async def test_two_nodes_carry_messages_and_questions_of_any_size(tmp_path: Path) -> None:
    async with running(tmp_path, 1) as (a, a_port), running(tmp_path, 2) as (b, b_port):
        member = Member(7)
        b.add(member)
        b.serve("reverse", reverse)
        a.connect_to(2, "127.0.0.1", b_port)
        b.connect_to(1, "127.0.0.1", a_port)
        await until(lambda: linked(a, 2) and linked(b, 1))
        sent = [append(index, bytes([index % 256]) * (index * 37 % 5_000)) for index in range(1, 2_000)]
        sent.append(append(2_000, bytes(20 << 20)))
        question = a.ask(2, "reverse", ["q"], [b"end", bytes(8 << 20)], 20_000)
        for message in sent:
            a.send(7, 2, message)
        await until(lambda: len(member.received) == len(sent))
        assert [message for _, message in member.received] == sent
        head, payload = await question.wait()
        assert head == ["q", 1]
        assert bytes(payload[-3:]) == b"dne"
        assert len(payload) == (8 << 20) + 3


async def test_a_node_that_ends_is_seen_at_once_and_comes_back(tmp_path: Path) -> None:
    async with running(tmp_path, 1) as (a, a_port):
        member = Member(7)
        a.add(member)
        async with running(tmp_path, 2) as (b, b_port):
            a.connect_to(2, "127.0.0.1", b_port)
            await until(lambda: linked(a, 2))
        await until(lambda: member.told == [("up", 2), ("down", 2)])
        async with running(tmp_path, 2, life=2, port=b_port) as (b, _):
            b.connect_to(1, "127.0.0.1", a_port)
            await until(lambda: linked(a, 2) and linked(b, 1))
            assert member.told == [("up", 2), ("down", 2), ("up", 2)]
            assert a.lives == {2: Life(2)}


async def test_strangers_at_the_door_are_turned_away_and_harm_nobody(tmp_path: Path) -> None:
    settings = PeerSettings(handshakes_max=8, handshake_ms=300)
    async with running(tmp_path, 1, settings=settings) as (a, a_port), running(tmp_path, 2) as (b, b_port):
        noisy = await trio.open_tcp_stream("127.0.0.1", a_port)
        await noisy.send_all(b"GET / HTTP/1.1\r\n\r\n")
        answer = bytearray()
        with trio.fail_after(LIMIT_S):
            while piece := await noisy.receive_some():
                answer += piece
        assert b"the connection ends" in answer
        await noisy.aclose()
        await until(lambda: a.knocking == 0)
        crowd = [await trio.open_tcp_stream("127.0.0.1", a_port) for _ in range(40)]
        a.connect_to(2, "127.0.0.1", b_port)
        b.connect_to(1, "127.0.0.1", a_port)
        await until(lambda: linked(a, 2) and linked(b, 1))
        await until(lambda: a.knocking == 0)
        assert a.counters.handshakes_late == len(crowd)
        assert linked(a, 2)

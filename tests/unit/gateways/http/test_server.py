"""The driver: what is answered, time limits, the limit of connections, and crowds, in simulated time."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from gateways.http.limits import HttpLimits
from gateways.http.pages import Pages
from gateways.http.server import HttpGateway
from node.health import SERVING, Health
from tests.sim.disk import SimDisk
from tests.sim.environment import sim_environment
from tests.sim.network import Internet


class Client:
    """Raw bytes to the gateway, and answers from it."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._rest = b""

    async def ask(self, path: str, method: str = "GET") -> tuple[int, bytes]:
        await self.stream.send_all(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return await self.hear(has_body=method != "HEAD")

    async def hear(self, has_body: bool = True) -> tuple[int, bytes]:
        """(status, body); (0, b"") when the connection is over."""
        while b"\r\n\r\n" not in self._rest:
            if not await self._more():
                return 0, b""
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]) if has_body else 0
        while len(self._rest) < length:
            assert await self._more()
        body, self._rest = self._rest[:length], self._rest[length:]
        return int(head.split()[1]), body

    async def _more(self) -> bool:
        data = await self.stream.receive_some()
        self._rest += data
        return bool(data)


class Served:
    """A gateway that runs, and a way to connect."""

    def __init__(self, gateway: HttpGateway, health: Health, internet: Internet, port: int) -> None:
        self.gateway = gateway
        self.health = health
        self._network = internet.network("client")
        self._port = port

    async def connect(self) -> Client:
        return Client(await self._network.connect("broker", self._port))


async def figures() -> bytes:
    return b"plait_up 1\n"


@asynccontextmanager
async def served(scrape: Any = figures, **limits: Any) -> AsyncIterator[Served]:
    internet = Internet(Random(1))
    async with trio.open_nursery() as nursery:
        world = sim_environment(nursery, 1, SimDisk(Random(1)), network=internet.network("broker"))
        health = Health()
        gateway = HttpGateway(world.environment, Pages(health, scrape), "127.0.0.1", 0, HttpLimits(**limits))
        _, port = await gateway.start()
        nursery.start_soon(gateway.run)
        yield Served(gateway, health, internet, port)
        nursery.cancel_scope.cancel()


async def test_pages_are_served_one_after_the_other_on_one_connection(autojump_clock: MockClock) -> None:
    async with served() as house:
        client = await house.connect()
        status, body = await client.ask("/")
        assert (status, json.loads(body)["pages"]) == (200, ["/healthz", "/readyz", "/metrics"])
        assert await client.ask("/metrics") == (200, b"plait_up 1\n")
        assert (await client.ask("/healthz"))[0] == 200
        assert (await client.ask("/nothing"))[0] == 404
        assert (await client.ask("/healthz", "DELETE"))[0] == 405
        assert await client.ask("/healthz", "HEAD") == (200, b"")
        assert house.gateway.connections == 1


async def test_a_node_that_starts_is_healthy_and_not_ready_and_says_why(autojump_clock: MockClock) -> None:
    async with served() as house:
        client = await house.connect()
        status, body = await client.ask("/readyz")
        assert status == 503
        assert json.loads(body)["reasons"] == ["this node is recovering what is in the data directory"]
        house.health.stage = SERVING
        status, body = await client.ask("/readyz")
        assert (status, json.loads(body)["reasons"]) == (503, ["the catalogue is not open yet"])


async def test_pipelined_requests_are_answered_in_order(autojump_clock: MockClock) -> None:
    async with served() as house:
        client = await house.connect()
        wanted = ["/metrics", "/nothing", "/healthz"] * 3
        await client.stream.send_all(b"".join(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % p.encode() for p in wanted))
        assert [(await client.hear())[0] for _ in wanted] == [200, 404, 200] * 3


async def test_whoever_speaks_something_else_is_told_and_the_others_go_on(autojump_clock: MockClock) -> None:
    async with served() as house:
        polite, rude = await house.connect(), await house.connect()
        await rude.stream.send_all(b"\x16\x03\x01\x02\x00\x01")
        assert (await rude.hear())[0] == 400
        assert await rude.hear() == (0, b"")
        assert (await polite.ask("/healthz"))[0] == 200


async def test_a_request_that_dribbles_is_too_late(autojump_clock: MockClock) -> None:
    async with served(request_s=5) as house:
        client = await house.connect()
        begun = trio.current_time()
        for byte in b"GET":
            await trio.sleep(1)
            await client.stream.send_all(bytes([byte]))
        assert (await client.hear())[0] == 408
        assert await client.hear() == (0, b"")
        assert 5 <= trio.current_time() - begun <= 10


async def test_a_connection_may_be_idle_for_a_while(autojump_clock: MockClock) -> None:
    async with served(idle_s=60) as house:
        client = await house.connect()
        await trio.sleep(59)
        assert (await client.ask("/healthz"))[0] == 200
        await trio.sleep(59)
        assert (await client.ask("/healthz"))[0] == 200
        await trio.sleep(61)
        assert await client.hear() == (0, b"")
        assert house.gateway.connections == 0


async def test_a_health_check_gets_through_a_crowd(autojump_clock: MockClock) -> None:
    async with served(connections_max=4) as house:
        crowd = [await house.connect() for _ in range(10)]
        check = await house.connect()
        assert (await check.ask("/healthz"))[0] == 200
        assert house.gateway.connections == 4
        assert (await crowd[-1].ask("/healthz"))[0] == 200


async def test_a_page_that_takes_too_long_is_given_up(autojump_clock: MockClock) -> None:
    async with served(scrape=trio.sleep_forever, answer_s=10) as house:
        client = await house.connect()
        assert (await client.ask("/metrics"))[0] == 503
        assert (await client.ask("/healthz"))[0] == 200


async def test_a_page_that_fails_is_told_and_the_next_one_works(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken() -> bytes:
        raise RuntimeError("a defect")

    async with served(scrape=broken) as house:
        client = await house.connect()
        assert (await client.ask("/metrics"))[0] == 500
        assert (await client.ask("/healthz"))[0] == 200


async def test_a_client_that_takes_nothing_is_cut_off(autojump_clock: MockClock) -> None:
    async def large() -> bytes:
        return b"#" * 10_000_000

    async with served(scrape=large, answer_s=10) as house:
        client = await house.connect()
        await client.stream.send_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        await trio.sleep(15)
        assert house.gateway.connections == 0

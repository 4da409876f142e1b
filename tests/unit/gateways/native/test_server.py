"""The driver: time limits, limits of connections, clients that do not read, and the end, in simulated time."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from gateways.native.limits import GatewayLimits
from gateways.native.server import NativeGateway
from plait.wire import messages
from plait.wire.batch import BatchLimits
from plait.wire.messages import Failed, Ok
from tests.sim.disk import SimDisk
from tests.sim.environment import sim_environment
from tests.sim.network import Internet, SimNetwork
from tests.unit.gateways.native.raw import RawClient
from tests.unit.gateways.native.scripted import (
    Published,
    ScriptedAttachment,
    ScriptedBroker,
    batch,
    give,
)
from tests.unit.gateways.native.test_consuming import leased


class Served:
    """A gateway that runs, its scripted broker, and a way to connect."""

    def __init__(self, gateway: NativeGateway, broker: ScriptedBroker, internet: Internet, port: int) -> None:
        self.gateway = gateway
        self.broker = broker
        self.counters = gateway.counters
        self._network = internet.network("client")
        self._port = port

    async def connect(self) -> RawClient:
        return RawClient(await self._network.connect("broker", self._port))

    async def client(self) -> RawClient:
        return await (await self.connect()).hello()


class Failing(SimNetwork):
    """Listeners that fail a few times before they accept."""

    failures = 5

    async def listen(self, host: str, port: int) -> Sequence[trio.abc.Listener[trio.abc.Stream]]:
        listeners = await super().listen(host, port)
        accept = listeners[0].accept

        async def fail_first() -> trio.abc.Stream:
            if self.failures:
                self.failures -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return await accept()

        listeners[0].accept = fail_first  # type: ignore[method-assign]
        return listeners


@asynccontextmanager
async def served(
    broker: ScriptedBroker | None = None, network: type[SimNetwork] = SimNetwork, **limits: Any
) -> AsyncIterator[Served]:
    internet = Internet(Random(1))
    broker = broker or ScriptedBroker()
    async with trio.open_nursery() as nursery:
        world = sim_environment(nursery, 1, SimDisk(Random(1)), network=network(internet, "broker"))
        gateway = NativeGateway(
            world.environment,
            broker,  # type: ignore[arg-type]  # a scripted one
            "127.0.0.1",
            0,
            GatewayLimits(**limits),
        )
        _, port = await gateway.start()
        nursery.start_soon(gateway.run)
        yield Served(gateway, broker, internet, port)
        await gateway.stop()
        nursery.cancel_scope.cancel()


async def test_clients_are_served(autojump_clock: MockClock) -> None:
    async with served() as house:
        house.broker.answers = {"publish": Published(0, 41)}
        one, two = await house.client(), await house.client()
        answer = await one.ask(messages.Publish(2, "orders", 0), batch())
        assert answer == Ok(2, [0, 41, 1_700_000_000_000, 0, False], memoryview(b""))
        assert await two.is_served()
        assert house.broker.asked[0].arguments[3] == "native/1"
        assert house.counters.connections_now == 2
        assert house.counters.bytes_received > 0
        assert house.counters.bytes_sent > 0


async def test_a_whole_pipeline_is_answered_though_reading_pauses(autojump_clock: MockClock) -> None:
    async with served(requests_pending_max=4, outbox_bytes_high=2_000, outbox_bytes_low=500) as house:
        house.broker.answers = {"describe": {"name": "x" * 500}}
        client = await house.client()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, *(messages.Describe(number, "a") for number in range(2, 2_002)))
            for number in range(2, 2_002):
                answer = await client.hear()
                assert isinstance(answer, Ok)
                assert answer.correlation == number


# the handshake


async def test_connections_that_say_nothing_are_told_and_closed(autojump_clock: MockClock) -> None:
    async with served(handshake_timeout_s=10) as house:
        clients = [await house.connect() for _ in range(50)]
        polite = await house.client()
        for client in clients:
            assert await client.fails() == (0, "timed_out")
            assert await client.hear() is None
        assert house.counters.handshakes_late == 50
        assert house.counters.connections_now == 1
        await trio.sleep(1_000)
        assert await polite.is_served()


async def test_a_handshake_that_dribbles_is_too_late_too(autojump_clock: MockClock) -> None:
    async with served(handshake_timeout_s=10) as house:
        client = await house.connect()
        begun = trio.current_time()
        for byte in b"\0\0\1\0":
            await client.stream.send_all(bytes([byte]))
            await trio.sleep(2)
        assert await client.fails() == (0, "timed_out")
        assert await client.hear() is None
        assert trio.current_time() - begun < 12


async def test_what_is_not_the_protocol_is_told_so_and_closed(autojump_clock: MockClock) -> None:
    async with served() as house:
        client = await house.connect()
        await client.stream.send_all(b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n")
        assert await client.fails() == (0, "bad_request")
        assert await client.hear() is None


async def test_requests_behind_hello_in_the_same_piece_are_answered(autojump_clock: MockClock) -> None:
    async with served() as house:
        client = await house.connect()
        await client.send(messages.Hello(1), messages.Ping(2), messages.Ping(3))
        heard = [await client.hear() for _ in range(3)]
        assert [each.correlation for each in heard if isinstance(each, Ok | messages.Welcome)] == [1, 2, 3]


# limits


async def test_a_connection_beyond_the_limit_is_told_and_closed_until_there_is_room(
    autojump_clock: MockClock,
) -> None:
    async with served(connections_max=2) as house:
        one, two = await house.client(), await house.client()
        for _ in range(3):
            third = await house.connect()
            assert await third.fails() == (0, "limit_reached")
            assert await third.hear() is None
        assert house.counters.connections_refused == 3
        assert await one.is_served()
        await two.stream.aclose()
        await trio.sleep(1)
        assert await (await house.client()).is_served()


async def test_a_flood_beyond_the_limit_is_closed_without_words(autojump_clock: MockClock) -> None:
    async with served(connections_max=1) as house:
        one = await house.client()
        many = [await house.connect() for _ in range(200)]
        told = [await client.fails() for client in many]
        assert set(told) == {(0, "limit_reached"), None} or set(told) == {(0, "limit_reached")}
        assert await one.is_served()


async def test_errors_of_accept_are_survived(autojump_clock: MockClock) -> None:
    async with served(network=Failing) as house:
        assert await (await house.client()).is_served()
        assert house.counters.accept_errors == 5


async def test_a_client_sees_why_though_it_is_still_sending(autojump_clock: MockClock) -> None:
    async with served(ScriptedBroker(BatchLimits(1_000, 2_000))) as house:
        client = await house.client()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.stream.send_all, (600_000).to_bytes(4, "big") + bytes(600_000))
            answer = await client.hear()
        assert isinstance(answer, Failed)
        assert (answer.correlation, answer.code) == (0, "bad_request")
        assert "max_frame_bytes" in answer.message
        assert await client.hear() is None


async def test_a_frame_that_is_not_finished_in_time_ends_the_connection(autojump_clock: MockClock) -> None:
    async with served(frame_stall_s=30) as house:
        client = await house.client()
        await client.stream.send_all(b"\0\0\1\0\0")
        begun = trio.current_time()
        assert await client.fails() == (0, "timed_out")
        assert 29 < trio.current_time() - begun < 31
        assert await client.hear() is None
        assert house.counters.connections_stalled == 1


async def test_unfinished_frames_of_all_clients_together_are_bounded(autojump_clock: MockClock) -> None:
    async with served(input_bytes_max=100_000) as house:
        clients = [await house.client() for _ in range(8)]
        for client in clients:
            await client.stream.send_all((40_000).to_bytes(4, "big") + bytes(20_000))
        await trio.sleep(3)
        assert house.counters.input_bytes_now <= 100_000
        left = house.counters.connections_now
        assert left == 4
        told = 0
        for client in clients:
            with trio.move_on_after(5):
                assert await client.fails() == (0, "limit_reached")
                told += 1
        assert told == 8 - left
        assert await (await house.client()).is_served()


# clients that do not read


async def test_a_client_that_does_not_read_is_cut_off_and_its_leases_are_returned(
    autojump_clock: MockClock,
) -> None:
    async with served(outbox_bytes_high=100_000, outbox_bytes_low=50_000, send_stall_s=30) as house:
        slow, good = await house.client(), await house.client()
        attachment = ScriptedAttachment(house.broker)
        house.broker.answers["attach"] = attachment
        house.broker.answers["detach"] = None
        assert isinstance(await slow.ask(messages.Consume(2, 1, "jobs", "", 10, 0)), Ok)
        deliver = house.broker.calls("attach")[0].arguments[3]
        for _ in range(20):
            deliver(0, [leased(bytes(50_000))])
        assert attachment.paused
        await trio.sleep(29)
        assert attachment.detached == 0
        await trio.sleep(5)
        assert attachment.detached == 1
        assert house.counters.connections_stalled == 1
        assert house.counters.connections_now == 1
        assert await good.is_served()


async def test_a_client_that_reads_slowly_gets_everything(autojump_clock: MockClock) -> None:
    async with served(outbox_bytes_high=100_000, outbox_bytes_low=50_000, send_stall_s=30) as house:
        house.broker.answers = {"attach": ScriptedAttachment(house.broker), "detach": None}
        client = await house.client()
        await client.ask(messages.Consume(2, 1, "jobs", "", 10, 0))
        deliver = house.broker.calls("attach")[0].arguments[3]
        for number in range(30):
            deliver(0, [leased(bytes([number]) * 50_000)])
        for number in range(30):
            answer = await client.hear()
            assert isinstance(answer, messages.Deliver)
            assert bytes([number]) * 50_000 in bytes(answer.runs[0].run.body)
            await trio.sleep(1)


async def test_a_throttled_client_is_not_read_for_that_time(autojump_clock: MockClock) -> None:
    async with served() as house:
        client, other = await house.client(), await house.client()
        house.broker.answers = {"publish": Published(throttle_ms=5_000)}
        await client.ask(messages.Publish(2, "orders", 0), batch())
        begun = trio.current_time()
        assert await other.is_served()
        assert trio.current_time() - begun < 1
        assert await client.is_served()
        assert 4.9 < trio.current_time() - begun < 5.1
        assert await client.is_served()
        assert trio.current_time() - begun < 5.2


# the end


async def test_a_client_that_leaves_gives_everything_back(autojump_clock: MockClock) -> None:
    async with served() as house:
        attachment = ScriptedAttachment(house.broker)
        house.broker.answers = {"attach": attachment, "detach": None}
        client = await house.client()
        await client.send(messages.Consume(2, 1, "jobs", "", 10, 0), messages.Fetch(3, "t", 0, 0, 1, 60_000))
        await client.hear()
        await client.send(messages.Publish(4, "t", 0), payload=batch())
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(1)
        await client.stream.aclose()
        await trio.sleep(1)
        assert attachment.detached == 1
        assert house.broker.calls("fetch")[0].promise.abandoned
        assert house.broker.calls("publish")[0].promise.abandoned
        assert house.broker.gone_clients == ["native/1"]
        assert house.counters.connections_now == 0


async def test_a_defect_in_one_session_does_not_touch_the_others(autojump_clock: MockClock) -> None:
    async with served() as house:
        one, two = await house.client(), await house.client()
        house.broker.answers = {"describe": lambda _: 1 // 0}
        await one.send(messages.Describe(2, "a"))
        assert await one.fails() == (0, "internal")
        assert await one.hear() is None
        assert await two.is_served()
        assert house.counters.defects == 1


async def test_a_gateway_that_stops_answers_what_is_under_way_and_tells_everybody(
    autojump_clock: MockClock,
) -> None:
    async with served(shutdown_flush_s=5) as house:
        idle, busy, silent = await house.client(), await house.client(), await house.connect()
        await busy.send(messages.Publish(2, "orders", 0), payload=batch())
        await trio.sleep(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.gateway.stop)
            assert await idle.fails() == (0, "unavailable")
            assert await idle.hear() is None
            assert await silent.fails() == (0, "unavailable")
            with pytest.raises(OSError, match="refused"):
                await house.connect()
            give(house.broker.asked[0].promise, Published())
            answer = await busy.hear()
            assert isinstance(answer, Ok)
            assert await busy.fails() == (0, "unavailable")
        assert house.counters.connections_now == 0


async def test_a_gateway_that_stops_does_not_wait_for_ever(autojump_clock: MockClock) -> None:
    async with served(shutdown_flush_s=5) as house:
        client = await house.client()
        await client.send(messages.Publish(2, "orders", 0), payload=batch())
        await trio.sleep(1)
        begun = trio.current_time()
        await house.gateway.stop()
        assert trio.current_time() - begun < 6
        assert await client.hear() is None


async def test_stopping_before_running_gives_the_port_back(autojump_clock: MockClock) -> None:
    internet = Internet(Random(1))
    async with trio.open_nursery() as nursery:
        world = sim_environment(nursery, 1, SimDisk(Random(1)), network=internet.network("broker"))
        gateway = NativeGateway(world.environment, ScriptedBroker(), "127.0.0.1", 4150)  # type: ignore[arg-type]
        assert await gateway.start() == ("broker", 4150)
        await gateway.stop()
        await internet.network("broker").listen("127.0.0.1", 4150)


async def test_a_gateway_that_is_cancelled_leaves_nothing_behind(autojump_clock: MockClock) -> None:
    async with served() as house:
        pass
    internet = Internet(Random(1))
    broker = ScriptedBroker()
    attachment = ScriptedAttachment(broker)
    broker.answers = {"attach": attachment, "detach": None}
    async with trio.open_nursery() as nursery:
        world = sim_environment(nursery, 1, SimDisk(Random(1)), network=internet.network("broker"))
        gateway = NativeGateway(world.environment, broker, "", 0)  # type: ignore[arg-type]
        _, port = await gateway.start()
        nursery.start_soon(gateway.run)
        client = await RawClient(await internet.network("client").connect("broker", port)).hello()
        await client.ask(messages.Consume(2, 1, "jobs", "", 10, 0))
        nursery.cancel_scope.cancel()
    assert attachment.detached == 1
    assert not internet.listeners
    assert house.counters.connections_now == 0

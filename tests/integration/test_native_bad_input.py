"""A real broker behind real sockets, and clients that do everything wrong.

Each gets a stable code, the others notice nothing, and the broker is healthy afterwards.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from gateways.native.limits import GatewayLimits
from gateways.native.server import NativeGateway
from node.node import Node, NodeSettings
from plait.wire import messages
from plait.wire.batch import BatchBuilder, BatchLimits, checksum, encode_batch
from plait.wire.frames import encode_frame
from plait.wire.messages import Deliver, Failed, Ok
from replication.real import real_environment
from tests.unit.gateways.native.raw import RawClient
from tests.unit.gateways.native.scripted import frame

LIMITS = BatchLimits(max_record_bytes=1_000, max_batch_bytes=4_000)
WAIT_S = 60
"""How long a test waits for what must come."""


class House:
    """A broker with its native gateway."""

    def __init__(self, gateway: NativeGateway, address: tuple[str, int]) -> None:
        self.gateway = gateway
        self.counters = gateway.counters
        self._address = address

    async def connect(self) -> RawClient:
        return RawClient(await trio.open_tcp_stream(*self._address))

    async def client(self) -> RawClient:
        return await (await self.connect()).hello()

    async def check_health(self) -> None:
        """The whole way of a message still works, for a new client."""
        client = await self.client()
        name = f"health-{self.counters.connections_accepted}"
        await expect(client, messages.Create(2, "queue", name, {}))
        await expect(client, messages.Publish(3, name, -1), payload=encode_batch([b"well"], 1_000))
        await expect(client, messages.Consume(4, 1, name, "", 10, 0))
        delivered = await client.hear()
        assert isinstance(delivered, Deliver)
        lease_id = delivered.runs[0].lease_id
        settled = await expect(client, messages.Settle(5, 1, 0, "ack", 0, [(lease_id, 0, 0)]))
        assert settled.fields == [1, []]
        await client.stream.aclose()
        assert self.counters.defects == 0


async def expect(client: RawClient, request: messages.Request, *, payload: bytes = b"") -> Ok:
    """The OK that must come next."""
    answer = await client.ask(request, payload)
    assert isinstance(answer, Ok), answer
    assert answer.correlation == request.correlation
    return answer


async def code_of(client: RawClient, request: messages.Request, *, payload: bytes = b"") -> str:
    """The code of the ERROR that must come next, for this request."""
    await client.send(request, payload=payload)
    failed = await client.fails()
    assert failed is not None
    assert failed[0] == request.correlation
    return failed[1]


@asynccontextmanager
async def house(folder: Path, limits: BatchLimits = LIMITS, **gateway_limits: Any) -> AsyncIterator[House]:
    with trio.fail_after(WAIT_S):
        async with trio.open_nursery() as nursery:
            environment = real_environment(str(folder), nursery)
            node = await Node.open(environment, NodeSettings(limits=limits))
            gateway = NativeGateway(environment, node.broker, "127.0.0.1", 0, GatewayLimits(**gateway_limits))
            address = await gateway.start()
            nursery.start_soon(gateway.run)
            served = House(gateway, address)
            yield served
            await served.check_health()
            await gateway.stop()
            await node.close()
            nursery.cancel_scope.cancel()


# what is not the protocol


async def test_malformed_streams_end_their_own_connection_only(tmp_path: Path) -> None:
    bad = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # the beginning of TLS
        b"\0" * 64,
        b"\xff" * 64,
        b"\0\0\0\x02\0\0",
        b"\0\0\0\x05\0\x09\x80\0\0",
        b"\0\0\0\x05\0\x03\x9b\xff\xff",
        b"\0\0\0\x0c\0\x0a" + b"\x81" * 10,
        b"".join(encode_frame([5, 0])),
        b"".join(encode_frame(["x"])),
    ]
    async with house(tmp_path) as broker:
        bystander = await broker.client()
        for sent in bad:
            for client in (await broker.connect(), await broker.client()):
                await client.stream.send_all(sent)
                assert await client.fails() == (0, "bad_request")
                assert await client.hear() is None
        assert await bystander.is_served()


async def test_versions_that_nobody_speaks(tmp_path: Path) -> None:
    async with house(tmp_path) as broker:
        for low, high in ((2, 9), (0, 0), (255, 255)):
            client = await broker.connect()
            await client.send(messages.Hello(1, low, high))
            assert await client.fails() == (0, "unsupported_version")
            assert await client.hear() is None


async def test_namespaces_keep_clients_apart_and_must_be_legal(tmp_path: Path) -> None:
    async with house(tmp_path) as broker:
        for namespace in ("a.b", "x" * 41, "plait", "ä", "a b"):
            client = await broker.connect()
            await client.send(messages.Hello(1, namespace=namespace))
            assert await client.fails() == (0, "name_invalid")
        one = await (await broker.connect()).hello("one")
        two = await (await broker.connect()).hello("two")
        await expect(one, messages.Create(2, "topic", "events", {}))
        assert await code_of(two, messages.Describe(3, "events")) == "not_found"
        assert (await expect(two, messages.ListNames(4, ""))).fields == [[]]
        (listed,) = (await expect(one, messages.ListNames(5, ""))).fields
        assert [each["name"] for each in listed] == ["events"]
        answer = await two.ask(messages.Describe(6, "events"))
        assert isinstance(answer, Failed)
        assert "two." not in answer.message


async def test_random_bytes_from_many_clients_at_once(tmp_path: Path) -> None:
    async with house(tmp_path) as broker:
        random = Random(7)

        async def rave(sent: bytes) -> None:
            client = await broker.client()
            with suppress(trio.BrokenResourceError):  # closed while it was still raving
                assert isinstance(client.stream, trio.SocketStream)
                await client.stream.send_all(sent)
                await client.stream.send_eof()
                while await client.hear() is not None:
                    pass
            await client.stream.aclose()

        async with trio.open_nursery() as nursery:
            for number in range(100):
                sent = bytearray(frame(messages.Describe(number + 1, "nothing")) * 20)
                for _ in range(number % 5):
                    sent[random.randrange(len(sent))] = random.randrange(256)
                nursery.start_soon(rave, random.randbytes(500) if number % 3 == 0 else bytes(sent))
        assert broker.counters.defects == 0


# limits


@pytest.mark.parametrize(
    ("value_bytes", "code"), [(999, None), (1_000, None), (1_001, "record_too_large"), (3_500, "record_too_large")]
)
async def test_a_record_at_and_above_its_limit(tmp_path: Path, value_bytes: int, code: str | None) -> None:
    async with house(tmp_path) as broker:
        client = await broker.client()
        for number, kind in enumerate(("queue", "topic"), 2):
            await expect(client, messages.Create(number, kind, kind, {}))
            request = messages.Publish(number, kind, 0)
            payload = encode_batch([bytes(value_bytes)], 1_000)
            if code is None:
                await expect(client, request, payload=payload)
            else:
                assert await code_of(client, request, payload=payload) == code


async def test_a_batch_at_and_above_its_limit(tmp_path: Path) -> None:
    async with house(tmp_path) as broker:
        client = await broker.client()
        await expect(client, messages.Create(2, "topic", "t", {}))
        values = [bytes(900)] * 4
        room = LIMITS.max_batch_bytes - len(encode_batch([*values, bytes(100)], 1_000))
        at_limit = encode_batch([*values, bytes(100 + room)], 1_000)
        above = encode_batch([*values, bytes(101 + room)], 1_000)
        assert len(at_limit) == LIMITS.max_batch_bytes
        await expect(client, messages.Publish(3, "t", 0), payload=at_limit)
        assert await code_of(client, messages.Publish(4, "t", 0), payload=above) == "record_too_large"


async def test_a_frame_above_its_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    async with house(tmp_path) as broker:
        client = await broker.client()

        async def flood() -> None:
            with suppress(trio.BrokenResourceError):  # the broker has closed
                await client.stream.send_all((1 << 31).to_bytes(4, "big") + bytes(16 << 20))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            assert await client.fails() == (0, "bad_request")
            nursery.cancel_scope.cancel()
        await client.stream.aclose()


async def test_connections_above_their_limit(tmp_path: Path) -> None:
    async with house(tmp_path, connections_max=3) as broker:
        clients = [await broker.client() for _ in range(3)]
        turned_away = await broker.connect()
        assert await turned_away.fails() == (0, "limit_reached")
        assert await turned_away.hear() is None
        for client in clients:
            assert await client.is_served()
            await client.stream.aclose()
        while broker.counters.connections_now:
            await trio.lowlevel.checkpoint()


async def test_consumers_and_waiting_fetches_above_their_limits(tmp_path: Path) -> None:
    async with house(tmp_path, consumers_max=2, fetches_waiting_max=2) as broker:
        client = await broker.client()
        await expect(client, messages.Create(2, "queue", "jobs", {}))
        await expect(client, messages.Create(3, "topic", "events", {}))
        for tag in (1, 2):
            await expect(client, messages.Consume(4, tag, "jobs", "", 1, 0))
        assert await code_of(client, messages.Consume(5, 3, "jobs", "", 1, 0)) == "limit_reached"
        waiting = messages.Fetch(6, "events", 0, 0, 1_000, 600_000)
        await client.send(waiting, waiting)
        assert await code_of(client, messages.Fetch(7, "events", 0, 0, 1_000, 600_000)) == "limit_reached"
        assert await client.is_served()


# batches


def patched(batch: bytes, at: int, layout: str, value: int, *, crc: bool = True) -> bytes:
    """The batch with one field of its header changed, and the CRC made right again."""
    changed = bytearray(batch)
    struct.pack_into(layout, changed, at, value)
    if crc:
        struct.pack_into(">I", changed, 17, checksum(bytes(changed)))
    return bytes(changed)


def bomb() -> bytes:
    builder = BatchBuilder(1_000, compression="gzip")
    builder.append(bytes(3_000_000))
    return builder.build()


GOOD = encode_batch([b"one", b"two"], 1_000)
BAD_BATCHES: dict[str, tuple[Callable[[], bytes], set[str]]] = {
    "nothing": (lambda: b"", {"batch_invalid"}),
    "a few bytes": (lambda: b"hello", {"batch_invalid"}),
    "the end is missing": (lambda: GOOD[:-1], {"batch_invalid"}),
    "a byte too many": (lambda: GOOD + b"\0", {"batch_invalid"}),
    "two batches": (lambda: GOOD + GOOD, {"batch_invalid"}),
    "a flipped bit": (lambda: GOOD[:-3] + bytes([GOOD[-3] ^ 1]) + GOOD[-2:], {"batch_invalid"}),
    "a wrong CRC": (lambda: patched(GOOD, 17, ">I", 0, crc=False), {"batch_invalid"}),
    "magic 1": (lambda: patched(GOOD, 16, ">b", 1), {"batch_invalid"}),
    "no records": (lambda: patched(GOOD, 57, ">i", 0), {"batch_invalid"}),
    "more records than there are": (lambda: patched(GOOD, 57, ">i", 3), {"batch_invalid"}),
    "a negative count": (lambda: patched(GOOD, 57, ">i", -1), {"batch_invalid"}),
    "another last delta": (lambda: patched(GOOD, 23, ">i", 5), {"batch_invalid"}),
    "unknown compression": (lambda: patched(GOOD, 21, ">h", 7), {"batch_invalid"}),
    "gzip that is none": (lambda: patched(GOOD, 21, ">h", 1), {"batch_invalid"}),
    "a transaction": (lambda: patched(GOOD, 21, ">h", 0x10), {"batch_invalid"}),
    "a marker": (lambda: patched(GOOD, 21, ">h", 0x20), {"batch_invalid"}),
    "a record that lies about its length": (
        lambda: patched(GOOD, 61, ">b", 0x7E),
        {"batch_invalid"},
    ),
    "a bomb": (bomb, {"batch_invalid", "record_too_large"}),
}


async def test_damaged_batches_are_refused_and_nothing_of_them_is_stored(tmp_path: Path) -> None:
    async with house(tmp_path) as broker:
        client = await broker.client()
        await expect(client, messages.Create(2, "queue", "jobs", {}))
        for what, (make, codes) in BAD_BATCHES.items():
            code = await code_of(client, messages.Publish(3, "jobs", 0), payload=make())
            assert code in codes, what
        (description,) = (await expect(client, messages.Describe(4, "jobs"))).fields
        assert description["partitions_detail"][0]["end"] == 0


# names, kinds, settings, places


async def test_names_kinds_and_places_that_are_wrong(tmp_path: Path) -> None:
    async with house(tmp_path) as broker:
        client = await broker.client()
        await expect(client, messages.Create(2, "queue", "jobs", {}))
        await expect(client, messages.Create(2, "topic", "events", {"partitions": 2}))
        await expect(client, messages.Publish(2, "events", 0), payload=GOOD)
        wrong: list[tuple[messages.Request, str]] = [
            (messages.Create(3, "queue", "", {}), "name_invalid"),
            (messages.Create(3, "queue", "..", {}), "name_invalid"),
            (messages.Create(3, "queue", "a/b", {}), "name_invalid"),
            (messages.Create(3, "queue", "ä", {}), "name_invalid"),
            (messages.Create(3, "queue", "x" * 201, {}), "name_invalid"),
            (messages.Create(3, "topic", "plait.offsets", {}), "name_invalid"),
            (messages.Create(3, "topic", "new", {"partitons": 3}), "setting_invalid"),
            (messages.Create(3, "topic", "new", {"partitions": "3"}), "setting_invalid"),
            (messages.Create(3, "topic", "new", {"partitions": 0}), "setting_invalid"),
            (messages.Create(3, "topic", "new", {"partitions": 1 << 60}), "setting_invalid"),
            (messages.Create(3, "topic", "new", {"partitions": [[1], {"a": None}]}), "setting_invalid"),
            (messages.Create(3, "queue", "new", {"dead_letter": 5}), "setting_invalid"),
            (messages.Create(3, "topic", "jobs", {}), "already_exists"),
            (messages.Create(3, "topic", "events", {"partitions": 3}), "already_exists"),
            (messages.Describe(3, "nothing"), "not_found"),
            (messages.Delete(3, "nothing"), "not_found"),
            (messages.Subscriptions(3, "nothing"), "not_found"),
            (messages.Locate(3, "nothing", 0, "end"), "not_found"),
            (messages.Locate(3, "events", 2, "end"), "not_found"),
            (messages.Fetch(3, "nothing", 0, 0, 1, 0), "not_found"),
            (messages.Fetch(3, "events", 2, 0, 1, 0), "not_found"),
            (messages.Fetch(3, "jobs", 0, 0, 1, 0), "wrong_kind"),
            (messages.Fetch(3, "events", 0, 3, 1_000, 0), "offset_out_of_range"),
            (messages.Commit(3, "sub", "nothing", [(0, 0)]), "not_found"),
            (messages.Commit(3, "sub", "jobs", [(0, 0)]), "wrong_kind"),
            (messages.Commit(3, "sub", "events", [(2, 0)]), "not_found"),
            (messages.Commit(3, "s/b", "events", [(0, 0)]), "name_invalid"),
            (messages.Committed(3, "sub", "nothing"), "not_found"),
            (messages.Consume(3, 1, "nothing", "", 1, 0), "not_found"),
            (messages.Consume(3, 1, "events", "", 1, 0), "wrong_kind"),
            (messages.Consume(3, 1, "jobs", "other", 1, 0), "not_found"),
            (messages.Settle(3, 1, 0, "ack", 0, [(1, 0, 0)]), "not_found"),
            (messages.Cancel(3, 1), "not_found"),
        ]
        for request, code in wrong:
            assert (request, await code_of(client, request)) == (request, code)
        for name, partition, code in (("nothing", 0, "not_found"), ("events", 2, "not_found")):
            assert await code_of(client, messages.Publish(4, name, partition), payload=GOOD) == code
        listed = (await expect(client, messages.ListNames(5, ""))).fields[0]
        assert sorted(each["name"] for each in listed) == ["events", "jobs"]


async def test_sequences_with_gaps_and_old_epochs(tmp_path: Path) -> None:
    async with house(tmp_path) as broker:
        client = await broker.client()
        await expect(client, messages.Create(2, "topic", "events", {}))
        producer_id, epoch = (await expect(client, messages.NewProducer(3))).fields

        def batch(sequence: int, epoch: int = epoch) -> bytes:
            builder = BatchBuilder(producer_id=producer_id, producer_epoch=epoch, base_sequence=sequence)
            builder.append(b"x", timestamp_ms=1_000)
            return builder.build()

        publish = messages.Publish(4, "events", 0)
        first = await expect(client, publish, payload=batch(0))
        again = await expect(client, publish, payload=batch(0))
        assert again.fields[:2] == first.fields[:2]
        assert (first.fields[4], again.fields[4]) == (False, True)
        assert await code_of(client, publish, payload=batch(2)) == "sequence_out_of_order"
        await expect(client, publish, payload=batch(0, epoch + 1))
        assert await code_of(client, publish, payload=batch(1)) == "producer_fenced"


async def test_leases_that_a_consumer_does_not_have(tmp_path: Path) -> None:
    async with house(tmp_path) as broker:
        one, two = await broker.client(), await broker.client()
        await expect(one, messages.Create(2, "queue", "jobs", {}))
        await expect(one, messages.Publish(3, "jobs", 0), payload=GOOD)
        await expect(one, messages.Consume(4, 1, "jobs", "", 10, 0))
        delivered = await one.hear()
        assert isinstance(delivered, Deliver)
        lease_id = delivered.runs[0].lease_id
        await expect(two, messages.Consume(4, 1, "jobs", "", 10, 0))
        for action in ("ack", "return", "extend"):
            settle = messages.Settle(5, 1, 0, action, 1_000, [(lease_id, 7, 9), (lease_id + 1, 0, 1)])
            answer = await expect(two, settle)
            assert answer.fields == [0, [[0, 1], [7, 9]]], action
        assert await code_of(two, messages.Settle(6, 1, 1, "ack", 0, [(lease_id, 0, 1)])) == "not_found"
        assert (await expect(one, messages.Settle(7, 1, 0, "ack", 0, [(lease_id, 0, 1)]))).fields == [2, []]


# clients that are slow, or gone


async def test_connections_that_say_nothing_are_all_closed_while_others_are_served(tmp_path: Path) -> None:
    silent = 2_000
    async with house(tmp_path, handshake_timeout_s=2) as broker:
        clients = [await broker.connect() for _ in range(silent)]
        await broker.check_health()
        for client in clients:
            assert await client.fails() == (0, "timed_out")
            assert await client.hear() is None
            await client.stream.aclose()
        assert broker.counters.handshakes_late == silent


async def test_half_a_frame_is_waited_for_only_so_long(tmp_path: Path) -> None:
    async with house(tmp_path, frame_stall_s=0.2) as broker:
        client = await broker.client()
        await client.stream.send_all(frame(messages.Publish(2, "jobs", 0), GOOD)[:-1])
        assert await client.fails() == (0, "timed_out")
        assert await client.hear() is None


async def test_a_consumer_that_does_not_read_is_cut_off_and_others_get_its_records(tmp_path: Path) -> None:
    records, size_bytes = 60, 400_000
    limits = BatchLimits(max_record_bytes=1 << 20, max_batch_bytes=1 << 20)
    async with house(
        tmp_path, limits, send_stall_s=0.5, outbox_bytes_high=1 << 20, outbox_bytes_low=1 << 18
    ) as broker:
        producer = await broker.client()
        await expect(producer, messages.Create(2, "queue", "jobs", {}))
        slow = await broker.connect()
        assert isinstance(slow.stream, trio.SocketStream)
        slow.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        await slow.hello()
        await expect(slow, messages.Consume(3, 1, "jobs", "", 10_000, 0))
        for _ in range(records):
            await expect(
                producer, messages.Publish(4, "jobs", 0), payload=encode_batch([bytes(size_bytes)], 1_000)
            )
        good = await broker.client()
        await expect(good, messages.Consume(5, 1, "jobs", "", 10_000, 0))
        offsets: set[int] = set()
        while len(offsets) < records:
            delivered = await good.hear()
            assert isinstance(delivered, Deliver)
            for each in delivered.runs:
                offsets.update(range(each.run.first_offset, each.run.last_offset + 1))
        assert broker.counters.connections_stalled == 1


async def test_clients_that_vanish_in_the_middle_leave_nothing_behind(tmp_path: Path) -> None:
    async with house(tmp_path) as broker:
        good = await broker.client()
        await expect(good, messages.Create(2, "queue", "jobs", {}))
        await expect(good, messages.Publish(3, "jobs", 0), payload=GOOD)
        for _ in range(20):
            client = await broker.client()
            assert isinstance(client.stream, trio.SocketStream)
            await expect(client, messages.Consume(4, 1, "jobs", "", 10, 0))
            assert isinstance(await client.hear(), Deliver)
            await client.send(messages.Fetch(5, "jobs", 0, 0, 1, 60_000), messages.Describe(6, "jobs"))
            client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await client.stream.aclose()  # a reset, not a farewell
        await expect(good, messages.Consume(7, 1, "jobs", "", 10, 0))
        delivered = await good.hear()
        assert isinstance(delivered, Deliver)
        assert delivered.runs[0].deliveries == 21
        assert broker.counters.connections_now == 1

"""The pages of real brokers: health and readiness from the first moment on, and where they are served."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from plait.cli.bench.broker import BrokerFailed, BrokerProcess
from tests.integration.brokers import NODES, READY_LIMIT_S, Brokers, page
from tests.integration.clusters import free_port


@pytest.fixture
def brokers(tmp_path: Path) -> Iterator[Brokers]:
    brokers = Brokers(tmp_path)
    yield brokers
    brokers.kill_all()


def http_of(broker: BrokerProcess) -> str:
    """Where a broker says that its pages are."""
    return str(json.loads((broker.folder / "ready.json").read_text())["http"])


def pair_of_ports() -> int:
    """A free port, two below another free one."""
    while True:
        port = free_port()
        try:
            with socket.create_server(("127.0.0.1", port + 2)):
                return port
        except OSError:
            continue


def test_a_broker_says_that_it_is_healthy_and_ready(tmp_path: Path) -> None:
    with BrokerProcess(tmp_path) as broker:
        address = http_of(broker)
        assert f"http    {address}" in broker.said()
        status, facts = page(f"http://{address}/readyz")
        assert (status, facts["ready"], facts["reasons"], facts["stage"]) == (200, True, [], "serving")
        assert page(f"http://{address}/healthz")[0] == 200
        assert page(f"http://{address}/")[1]["pages"] == ["/healthz", "/readyz", "/metrics"]


def test_pages_are_two_ports_above_the_native_one(tmp_path: Path) -> None:
    port = pair_of_ports()
    with BrokerProcess(tmp_path, port=port) as broker:
        assert http_of(broker) == f"127.0.0.1:{port + 2}"


def test_a_broker_that_runs_alone_goes_without_pages_where_their_place_is_taken(tmp_path: Path) -> None:
    port = pair_of_ports()
    with socket.create_server(("127.0.0.1", port + 2)), BrokerProcess(tmp_path, port=port) as broker:
        assert http_of(broker) == ""
        assert "no health, readiness or metrics pages" in broker.said()


def test_an_address_that_was_asked_for_and_is_taken_is_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(BrokerFailed) as failed:
            BrokerProcess(tmp_path, ["--http", where]).start()
        assert f"{where} is in use by another program; choose another address with --http" in str(failed.value)


def test_pages_can_be_switched_off(tmp_path: Path) -> None:
    with BrokerProcess(tmp_path, ["--http", "off"]) as broker:
        assert http_of(broker) == ""
        assert "http    none" in broker.said()


async def test_a_node_without_a_majority_is_healthy_and_not_ready(brokers: Brokers) -> None:
    brokers.begin(1)
    with anyio.fail_after(READY_LIMIT_S):
        while (await brokers.page(1, "/healthz"))[0] != 200:  # noqa: ASYNC110 - a process sets no event
            await anyio.sleep(0.01)
    status, facts = await brokers.page(1, "/readyz")
    assert (status, facts["ready"]) == (503, False)
    assert facts["reasons"]
    await brokers.start(2, 3)
    with anyio.fail_after(READY_LIMIT_S):
        for node in NODES:
            while (await brokers.page(node, "/readyz"))[0] != 200:  # noqa: ASYNC110 - as above
                await anyio.sleep(0.01)
    for node in (2, 3):
        brokers.kill(node)
    with anyio.fail_after(READY_LIMIT_S):
        while (await brokers.page(1, "/readyz"))[0] != 503:  # noqa: ASYNC110 - as above
            await anyio.sleep(0.01)
    assert (await brokers.page(1, "/healthz"))[0] == 200

"""Nodes that join a cluster with a secret: those that know it come in, the others do not."""

from __future__ import annotations

from pathlib import Path

from plait.wire.errors import BadRequest
from tests.integration.clusters import until
from tests.integration.fleets import running_fleet

SECRET = b"correct horse battery staple"


async def test_a_node_joins_with_the_clusters_secret_and_not_with_another(tmp_path: Path) -> None:
    async with running_fleet(tmp_path) as fleet:
        fleet.secrets = {1: SECRET, 2: b"incorrect horse battery staple"}
        first = await fleet.start(1)
        fleet.begin(2, join=1)
        await until(lambda: first.peers.counters.handshakes_refused >= 3)
        assert [node.node_id for node in first.metadata.catalogue.nodes()] == [1]
        await fleet.kill(2)
        fleet.secrets[2] = SECRET
        second = await fleet.start(2, join=1)
        assert second.node_id == 2
        await fleet.kill(2)
        await fleet.start(2, join=1)  # and it is the same node when it comes back
        await until(lambda: first.peers.is_up(2))


async def test_a_node_without_a_secret_is_told_to_get_one(tmp_path: Path) -> None:
    async with running_fleet(tmp_path) as fleet:
        fleet.secrets = {1: SECRET}
        await fleet.start(1)
        told: list[BaseException] = []
        machine = fleet.machine(2)

        async def run() -> None:
            try:
                await machine.run(fleet.settings(2, join=1))
            except* BadRequest as errors:
                told.extend(errors.exceptions)

        await run()
        assert "I have a cluster secret, and you showed none" in str(told[0])

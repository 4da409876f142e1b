"""How a node with an empty disk comes into a cluster that is there.

    newcomer ── JOIN: my disk, my addresses ──> any node
              <── CHALLENGE, CONFIRM ──>         it knows the cluster's secret ──AddNode──> the catalogue's leader
              <── JOINED: your id, the nodes ──         <── applied: it is to have the catalogue

Then it is a node like any other: it opens links, gets the catalogue, and registers.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog
import trio

from cluster.catalogue import Catalogue
from node.metadata import Metadata
from plait.wire.errors import BadRequest, PlaitError
from replication.environment import Environment
from replication.peers.joining import Join, Joined, ask
from replication.peers.proof import DIALLER, ClusterKey, Proofs
from replication.peers.protocol import VERSION_MAX, Refusal, Told

_logger = structlog.get_logger("plait.node")

CONNECT_MS = 2_000
"""How long a node may take to be reached."""
ANSWER_MS = 5_000
"""How long it may take to answer."""
AGAIN_MS = 200
"""Wait before all are asked again."""
COMPLAIN_MS = 5_000
"""How often it is said why this node is not in yet."""
LATER = ("busy", "disk")
"""Codes of refusals that may be others in a while."""

Address = tuple[str, int]


async def join_cluster(
    environment: Environment, addresses: Sequence[Address], join: Join, key: ClusterKey | None
) -> Joined:
    """Ask the nodes at these addresses in turn until one lets this node in. Raises BadRequest: one will not."""
    clock = environment.clock
    complain_ns = clock.monotonic_ns() + COMPLAIN_MS * 1_000_000
    while True:
        why = "nobody was asked"
        for address in addresses:
            found = await _ask(environment, address, join, key)
            if isinstance(found, Joined):
                return found
            why = f"{address[0]}:{address[1]}: {found}"
        now_ns = clock.monotonic_ns()
        if now_ns >= complain_ns:
            complain_ns = now_ns + COMPLAIN_MS * 1_000_000
            _logger.warning("waiting for a node that lets this one in", why=why)
        await clock.sleep_until(now_ns + AGAIN_MS * 1_000_000)


async def check_cluster(
    environment: Environment, addresses: Sequence[Address], join: Join, key: ClusterKey | None
) -> None:
    """A node that is of a cluster already is told to join one: whoever answers says whether it is that one.

    Raises BadRequest when it is another one. Nobody need answer.
    """
    for address in addresses:
        await _ask(environment, address, join, key)


async def _ask(environment: Environment, address: Address, join: Join, key: ClusterKey | None) -> Joined | str:
    try:
        with trio.fail_after(CONNECT_MS / 1_000):
            stream = await environment.network.connect(*address)
    except OSError as error:
        return f"it cannot be reached: {error.strerror or error}"
    except trio.TooSlowError:
        return f"it cannot be reached within {CONNECT_MS} ms"
    try:
        with trio.fail_after(ANSWER_MS / 1_000):
            return await ask(stream, join, Proofs(key, DIALLER, environment.random))
    except Told as refusal:
        if refusal.code in LATER or not refusal.believed:  # whoever is there may be no node at all
            return refusal.sentence
        raise BadRequest(f"{address[0]}:{address[1]} does not let this node in: {refusal.sentence}")
    except Refusal as refusal:
        return refusal.sentence
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return "it ended the connection"
    except trio.TooSlowError:
        return f"it did not answer within {ANSWER_MS} ms"
    finally:
        await trio.aclose_forcefully(stream)


class Doorkeeper:
    """Answers those who want to come in."""

    def __init__(self, metadata: Metadata, cluster: str, own: tuple[int, str]) -> None:
        """`cluster`: what the nodes call it; `own`: this node's id, and its address for other nodes."""
        self._metadata = metadata
        self._cluster = cluster
        self._own = own

    async def let_in(self, join: Join) -> Joined:
        """Give the newcomer its id. Raises Refusal."""
        catalogue = self._metadata.catalogue
        if join.cluster and join.cluster != self._cluster:
            raise Refusal(
                "cluster",
                f"its data directory is of another cluster ({join.cluster!r}, and this is {self._cluster!r}): "
                "bring it back to its own, or start it with an empty data directory",
            )
        if join.cluster:
            if catalogue.node_was_removed(join.node):
                raise Refusal(
                    "removed",
                    f"node {join.node} was removed from this cluster, and cannot come back as it was: start it "
                    "with an empty data directory, as a new node",
                )
            return self._joined(join.node)
        if not join.peer:
            raise Refusal("malformed", "it does not say where other nodes reach it")
        try:
            node = await self._metadata.add_node(join)
        except PlaitError as error:
            raise Refusal("busy" if error.retriable else "refused", error.message) from None
        return self._joined(node.node_id)

    def _joined(self, node: int) -> Joined:
        addresses = _addresses(self._metadata.catalogue)
        addresses.setdefault(*self._own)
        others = {other: address for other, address in addresses.items() if other != node and address}
        return Joined(VERSION_MAX, self._cluster, node, others)


def _addresses(catalogue: Catalogue) -> dict[int, str]:
    return {node.node_id: node.peer for node in catalogue.nodes()}

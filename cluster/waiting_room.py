"""What waits for admission on a node, over all its partitions, and whose it is: nobody may fill all of it.

    all that waits ── by way of node 2 ──> at most half of the link from there
                   ── of one client ────> less than its connection may have unanswered
                   ── for consumers, a rate, memory (long) ──> half of each: the rest is for whose turn comes soon

A full partition must not stop others, nor the acknowledgements that come on the same connection. Pure.
"""

from __future__ import annotations

from typing import TypeVar

from cluster.outcomes import Reason
from cluster.waiting import Waiter

K = TypeVar("K")

NODE_WAITING_BYTES = 64 * 1_048_576
"""Bytes of all publishes that wait for admission to any of a node's partitions."""
THROUGH_PUBLISHES_MAX = 2_048
"""Publishes that came by way of one other node and wait for admission here: half of what a link takes."""
THROUGH_BYTES_MAX = 32 * 1_048_576
"""Their bytes, likewise."""
LONG_WAITS_DIVISOR = 2
"""The part of a waiting room for those that wait for nobody knows how long; the rest is for whose turn is soon."""
CLIENT_PUBLISHES_MAX = 256
"""Publishes of one client that wait so on one node: a quarter of what a connection takes."""
CLIENT_BYTES_MAX = 2 * 1_048_576
"""Their bytes, likewise."""


class Share:
    """What waits of somebody."""

    __slots__ = ("publishes", "size_bytes")

    def __init__(self) -> None:
        self.publishes = 0
        self.size_bytes = 0


class WaitingRoom:
    """Of one node. A publish that is larger than a limit may wait where nothing else of that kind does."""

    __slots__ = ("bytes_max", "clients", "nodes", "size_bytes")

    def __init__(self, bytes_max: int = NODE_WAITING_BYTES) -> None:
        self.bytes_max = bytes_max
        self.size_bytes = 0
        """Sum over all partitions' waiting publishes."""
        self.nodes: dict[int, Share] = {}
        """What of it came by way of another node: it holds questions of the link from there."""
        self.clients: dict[str, Share] = {}
        """What of it is a client's: it holds requests of a connection."""

    def refuses(self, waiter: Waiter, *, long: bool) -> Reason | None:
        """Why a publish may not wait; `long`: nobody knows for how long it would wait."""
        size_bytes = waiter.size_bytes
        parts = LONG_WAITS_DIVISOR if long else 1
        if self.size_bytes and self.size_bytes + size_bytes > self.bytes_max // parts:
            return "node_queue"
        node = self.nodes.get(waiter.through)
        if node is not None and _is_full(
            node, size_bytes, THROUGH_PUBLISHES_MAX // parts, THROUGH_BYTES_MAX // parts
        ):
            return "link_queue"
        client = self.clients.get(waiter.owner) if long else None
        if client is not None and _is_full(client, size_bytes, CLIENT_PUBLISHES_MAX, CLIENT_BYTES_MAX):
            return "client_queue"
        return None

    def enters(self, waiter: Waiter) -> None:
        """A publish waits from now on."""
        self.size_bytes += waiter.size_bytes
        shares = [self.clients.setdefault(waiter.owner, Share())]
        if waiter.through:
            shares.append(self.nodes.setdefault(waiter.through, Share()))
        for share in shares:
            share.publishes += 1
            share.size_bytes += waiter.size_bytes

    def leaves(self, waiter: Waiter) -> None:
        """It is served, or gives up."""
        self.size_bytes -= waiter.size_bytes
        _take_from(self.clients, waiter.owner, waiter.size_bytes)
        if waiter.through:
            _take_from(self.nodes, waiter.through, waiter.size_bytes)


def _is_full(share: Share, size_bytes: int, publishes_max: int, bytes_max: int) -> bool:
    return share.publishes >= publishes_max or share.size_bytes + size_bytes > bytes_max


def _take_from(shares: dict[K, Share], key: K, size_bytes: int) -> None:
    share = shares[key]
    share.publishes -= 1
    share.size_bytes -= size_bytes
    if not share.publishes:
        assert share.size_bytes == 0, "nobody waits, and has bytes"
        del shares[key]

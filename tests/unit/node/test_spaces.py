"""What nodes tell each other of their disks: every change, to everybody, until it was heard; nothing twice."""

from __future__ import annotations

from typing import Any, cast

import pytest

from cluster.limits import NodePressure, Storage
from cluster.scarcity import EASE_MS
from node.spaces import TELL_MS, Spaces
from plait.wire.errors import BadRequest, Unavailable
from replication.actor import Promise
from replication.peers.channels import Heard
from replication.peers.peers import Peers

MS = 1_000_000


class Links:
    """As Peers, with the nodes 2 and 3 up; the test answers."""

    def __init__(self) -> None:
        self.up = [2, 3]
        self.on_node: list[Any] = []
        self.told: list[tuple[int, list[Any], Promise[Heard]]] = []
        self.handler: Any = None

    def serve(self, channel: str, handler: Any) -> None:
        self.handler = handler

    def nodes_up(self) -> list[int]:
        return self.up

    def ask(self, node: int, channel: str, head: list[Any], timeout_ms: int) -> Promise[Heard]:
        promise: Promise[Heard] = Promise()
        self.told.append((node, head, promise))
        return promise

    def take(self) -> list[tuple[int, str]]:
        """What was said since, all of which is heard."""
        told, self.told = self.told, []
        for _, _, promise in told:
            promise.resolve(([], memoryview(b"")))
        return [(node, head[0]) for node, head, _ in told]


class House:
    def __init__(self) -> None:
        self.links, self.pressure, self.changes = Links(), NodePressure(), 0
        self.spaces = Spaces(cast(Peers, self.links), self.pressure, self.changed)

    def changed(self) -> None:
        self.changes += 1

    def look(self, at_ms: int, storage: Storage = "none") -> list[tuple[int, str]]:
        self.spaces.look(at_ms * MS, storage)
        return self.links.take()


def test_everybody_is_told_once_of_every_change() -> None:
    house = House()
    assert house.look(0) == [(2, "none"), (3, "none")]
    assert house.look(100) == []
    assert house.look(200, "low") == [(2, "low"), (3, "low")]
    assert (house.spaces.is_short, house.changes) == (True, 1)
    assert house.look(300) == []
    assert house.look(300 + EASE_MS) == [(2, "none"), (3, "none")]
    assert (house.spaces.is_short, house.changes) == (False, 2)


def test_who_did_not_hear_is_told_again_after_a_while() -> None:
    house = House()
    house.spaces.look(0, "low")
    (_, _, heard), (_, _, lost) = house.links.told
    house.links.told.clear()
    heard.resolve(([], memoryview(b"")))
    lost.reject(Unavailable("not connected"))
    assert house.look(100, "low") == []
    assert house.look(TELL_MS, "low") == [(3, "low")]


def test_whoever_comes_is_told() -> None:
    house = House()
    house.look(0, "low")
    for told in house.links.on_node:
        told(2, False)
        told(2, True)
    assert house.look(100, "low") == [(2, "low")]


def test_what_others_say_is_noted_until_they_say_more() -> None:
    house = House()
    house.links.handler(2, ["low"], memoryview(b""))
    house.links.handler(2, ["low"], memoryview(b""))
    assert (house.pressure.scarce, house.changes) == ({2: "low"}, 1)
    assert not house.spaces.may_take(2)
    assert house.spaces.may_take(3)
    for told in house.links.on_node:
        told(2, False)
    assert house.pressure.scarce == {2: "low"}
    house.links.handler(2, ["none"], memoryview(b""))
    assert (house.pressure.scarce, house.changes) == ({}, 2)
    with pytest.raises(BadRequest):
        house.links.handler(2, ["much"], memoryview(b""))

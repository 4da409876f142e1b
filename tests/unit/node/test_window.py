"""What all lanes to one node have under way together: bounded, and whoever stands in line longest goes first."""

from __future__ import annotations

import pytest

from cluster import waiting_room
from gateways.native.limits import PUBLISH_IN_FLIGHT_BYTES, REQUESTS_PENDING_MAX
from node import lanes
from node.lanes import Window
from replication.peers.settings import PeerSettings


class Lane:
    """Sends what it has when there is room; looks again when it is posted."""

    def __init__(self, window: Window, *sizes: int) -> None:
        self.window = window
        self.left = list(sizes)
        self.posts = 0

    def post(self, message: object, *, always: bool) -> None:
        assert always
        self.posts += 1

    def send(self) -> int:
        sent = 0
        while self.left and self.window.has_room(self, self.left[0]):  # type: ignore[arg-type]
            self.window.sent(self.left.pop(0))
            sent += 1
        return sent


def test_publishes_under_way_to_a_node_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "LINK_PUBLISHES", 3)
    window = Window()
    one, other = Lane(window, 1, 1), Lane(window, 1, 1)
    assert (one.send(), other.send()) == (2, 1)
    window.ended(1)
    assert other.posts == 1
    assert other.send() == 1


def test_their_bytes_are_limited_and_a_large_one_goes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "LINK_BYTES", 10)
    window = Window()
    one, large = Lane(window, 8), Lane(window, 50, 1)
    assert (one.send(), large.send()) == (1, 0)
    window.ended(8)
    assert large.send() == 1


def test_who_comes_later_does_not_overtake_who_waits_for_more_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "LINK_BYTES", 10)
    window = Window()
    first, large, small = Lane(window, 5, 4), Lane(window, 6), Lane(window, 1)
    assert (first.send(), large.send(), small.send()) == (2, 0, 0)
    window.ended(5)
    assert (large.posts, small.posts) == (1, 0)
    assert (small.send(), large.send()) == (0, 1)
    assert small.posts == 1  # it is the first in line now
    window.ended(4)
    assert small.send() == 1


def test_who_has_nothing_to_send_any_more_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "LINK_PUBLISHES", 1)
    window = Window()
    first, second, third = Lane(window, 1), Lane(window, 1), Lane(window, 1)
    assert (first.send(), second.send(), third.send()) == (1, 0, 0)
    window.leave(second)  # type: ignore[arg-type]
    window.ended(1)
    assert third.send() == 1


def test_whoever_waits_leaves_room_for_whoever_does_not() -> None:
    """The limits of different modules fit together."""
    link = PeerSettings()
    assert link.asks_max > lanes.LINK_PUBLISHES
    assert link.ask_bytes > lanes.LINK_BYTES
    assert waiting_room.THROUGH_PUBLISHES_MAX < lanes.LINK_PUBLISHES
    assert waiting_room.THROUGH_BYTES_MAX < lanes.LINK_BYTES
    assert 3 * waiting_room.CLIENT_PUBLISHES_MAX < REQUESTS_PENDING_MAX
    assert 3 * waiting_room.CLIENT_BYTES_MAX < PUBLISH_IN_FLIGHT_BYTES

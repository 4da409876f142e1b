"""Which broker to go to next. Pure: told what happened, says where to and after what wait.

    lost, or cannot be reached ──> the next of the addresses, in turn
    NotLeader, leader known    ──> there, at once (the broker says where, or a broker of that id was met before)
    NotLeader, leader unknown  ──> stay: an election may be on; after NO_LEADER_S, the next of the addresses

A broker that points elsewhere may be wrong. Moves that follow each other quickly wait longer and longer, so that
two brokers that point at each other do not keep a client running.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from plait.client.address import parse_addresses
from plait.client.backoff import Backoff
from plait.wire.errors import BadRequest, NotLeader

NO_LEADER_S = 1.0
"""How long a broker may say that it knows no leader before another one is asked."""
CALM_S = 2.0
"""A connection that lasted for this long was worth making: the next move does not wait."""
MOVE_WAIT_MAX_S = 0.25
"""Longest wait before going where a broker points."""

Address = tuple[str, int]


class Route:
    """The way of one client. Times are seconds of whatever clock the caller keeps to."""

    def __init__(self, addresses: Sequence[Address], random: Random) -> None:
        self.addresses = list(addresses)
        self._turn = -1
        self._goal: Address | None = None
        self._current: Address = self.addresses[0]
        self._of_node: dict[int, Address] = {}
        self._failures = Backoff(random)
        self._moves = Backoff(random)
        self._wait_s = 0.0
        self._up_since_s: float | None = None
        self._leaderless_since_s: float | None = None

    @property
    def has_choice(self) -> bool:
        """There is another broker to go to."""
        return len(self.addresses) > 1

    def next(self) -> tuple[Address, float]:
        """Where to connect now, after how many seconds of waiting."""
        wait_s, self._wait_s = self._wait_s, 0.0
        goal, self._goal = self._goal, None
        if goal is None:
            self._turn = (self._turn + 1) % len(self.addresses)
            goal = self.addresses[self._turn]
        elif goal in self.addresses:
            self._turn = self.addresses.index(goal)
        self._current = goal
        self._up_since_s = self._leaderless_since_s = None
        return goal, wait_s

    def came_up(self, node_id: int, now_s: float) -> None:
        """The connection is there, and the broker has said who it is."""
        self._of_node[node_id] = self._current
        self._up_since_s = now_s
        self._failures.reset()

    def ended(self, now_s: float) -> None:
        """The connection is gone, or there never was one."""
        calm = self._up_since_s is not None and now_s - self._up_since_s >= CALM_S
        if calm:
            self._moves.reset()
        if self._goal is not None:
            self._wait_s = 0.0 if calm else min(self._moves.next_s(), MOVE_WAIT_MAX_S)
        elif self._up_since_s is None or not self.has_choice:
            self._wait_s = self._failures.next_s()

    def refused(self, error: NotLeader, now_s: float) -> bool:
        """A broker does not lead what it was asked for; whether to leave it now."""
        goal = self._leader_of(error)
        if goal == self._current:
            return False  # it will lead in a moment
        searched = bool(error.details.get("searched_ms"))  # the broker has looked for a leader long enough
        if goal is None and not error.details.get("leader") and not searched:
            if self._leaderless_since_s is None:
                self._leaderless_since_s = now_s
            if now_s - self._leaderless_since_s < NO_LEADER_S:
                return False
        if goal is None:
            if not self.has_choice:
                return False
            goal = self.addresses[(self._turn + 1) % len(self.addresses)]
        self._goal = goal
        return True

    def led(self) -> None:
        """The broker has carried something out."""
        self._leaderless_since_s = None

    def _leader_of(self, error: NotLeader) -> Address | None:
        """Where the leader is, as far as the error or earlier connections say."""
        text, node_id = error.details.get("address"), error.details.get("leader")
        if isinstance(text, str) and text:
            try:
                return parse_addresses(text)[0]
            except BadRequest:
                return None
        return self._of_node.get(node_id) if isinstance(node_id, int) else None

"""What is led here, counted and told in sums."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from structlog.testing import capture_logs

from node.standings import NS_PER_MS, REPORT_MS, Standings
from replication.group import Group
from replication.machine import Role, RoleChange


@dataclass
class Named:
    group: int


def change(standings: Standings, group: int, role: Role, ready: bool = False) -> None:
    standings.changed(cast(Group, Named(group)), RoleChange(1, role, ready))


def test_leaderships_are_counted_once_each() -> None:
    standings = Standings(alone=lambda: False)
    for _ in range(2):
        change(standings, 1, Role.LEADER)
        change(standings, 1, Role.LEADER, ready=True)
        change(standings, 2, Role.LEADER, ready=True)
    change(standings, 2, Role.FENCED)
    change(standings, 3, Role.FOLLOWER)
    assert (standings.gained, standings.lost, standings.fenced, standings.leads) == (3, 2, 1, 1)
    standings.forget(1)
    assert standings.leads == 0


def test_many_changes_are_one_line() -> None:
    standings = Standings(alone=lambda: False)
    now_ns = REPORT_MS * NS_PER_MS
    with capture_logs() as lines:
        for group in range(1_000):
            change(standings, group, Role.LEADER, ready=True)
        standings.report(now_ns)
        for group in range(500):
            change(standings, group, Role.FOLLOWER)
        standings.report(now_ns + 1)
        standings.report(2 * now_ns)
        standings.report(3 * now_ns)
    assert [line for line in lines if line["log_level"] == "info"] == [
        {"gained": 1_000, "lost": 0, "leads": 1_000, "event": "leaderships changed", "log_level": "info"},
        {"gained": 0, "lost": 500, "leads": 500, "event": "leaderships changed", "log_level": "info"},
    ]


def test_whoever_is_alone_has_nothing_to_tell() -> None:
    standings = Standings(alone=lambda: True)
    change(standings, 1, Role.LEADER, ready=True)
    with capture_logs() as lines:
        standings.report(10 * REPORT_MS * NS_PER_MS)
    assert not lines

"""When a node counts as short of disk space, and when it does not any more."""

from __future__ import annotations

from cluster.limits import Storage
from cluster.scarcity import EASE_MS, Scarcity, at_least

MS = 1_000_000


def degrees(*looks: tuple[int, Storage]) -> list[str]:
    scarcity, found = Scarcity(), []
    for at_ms, storage in looks:
        before = scarcity.degree
        assert scarcity.look(at_ms * MS, storage) == (scarcity.degree != before)
        found.append(scarcity.degree)
    return found


def test_it_is_short_at_once_and_for_a_while_after_it_was() -> None:
    assert degrees((0, "none"), (1, "low"), (2, "none"), (EASE_MS, "none"), (EASE_MS + 2, "none")) == [
        "none",
        "low",
        "low",
        "low",
        "none",
    ]


def test_what_goes_to_and_fro_counts_as_short() -> None:
    looks: list[tuple[int, Storage]] = [(at, "low" if at % 1_000 else "none") for at in range(0, 30_000, 500)]
    assert set(degrees((0, "low"), *looks)) == {"low"}


def test_it_gets_worse_at_once_and_better_by_the_worst_that_was_seen_meanwhile() -> None:
    assert degrees((0, "low"), (1, "critical"), (2, "low"), (3, "none"), (EASE_MS + 2, "none")) == [
        "low",
        "critical",
        "critical",
        "critical",
        "low",
    ]


def test_a_disk_that_is_behind_with_writing_is_not_short() -> None:
    assert degrees((0, "busy")) == ["none"]


def test_degrees_are_compared() -> None:
    assert [at_least("critical", "low"), at_least("low", "low"), at_least("low", "critical")] == [
        True,
        True,
        False,
    ]
    assert [at_least("busy", "low"), at_least("none", "low")] == [False, False]

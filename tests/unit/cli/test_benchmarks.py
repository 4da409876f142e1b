"""What benchmarks make of what they have seen."""

from __future__ import annotations

import pytest

from plait.cli.bench.cluster_client import rate_between, together
from plait.cli.bench.cluster_plan import Span, Tick
from plait.cli.bench.parts import chosen


def test_what_is_to_be_measured() -> None:
    parts = ("one", "two", "three")
    assert chosen(None, parts) == ["one", "two", "three"]
    assert chosen(["three,one"], parts) == ["three", "one"]
    assert chosen(["three", "one"], parts) == ["three", "one"]
    assert chosen(["four"], parts) == "--only: four cannot be measured; choose of one, two, three"
    assert chosen([""], parts) == "--only: nothing cannot be measured; choose of one, two, three"


def test_clients_together_take_from_the_first_beginning_to_the_last_end() -> None:
    assert together([Span(100, 10.0, 11.0), Span(300, 10.5, 12.0)]) == 200


def test_the_rate_between_two_words_is_in_proportion() -> None:
    ticks = [Tick(0, 10.0), Tick(100, 11.0), Tick(100, 12.0), Tick(400, 13.0)]
    assert rate_between(ticks, 10.0, 13.0) == pytest.approx(400 / 3)
    assert rate_between(ticks, 10.5, 11.5) == pytest.approx(50)
    assert rate_between(ticks, 11.0, 12.0) == 0
    assert rate_between(ticks, 12.5, 13.0) == pytest.approx(300)


def test_who_says_nothing_more_has_done_nothing_more() -> None:
    ticks = [Tick(100, 11.0), Tick(200, 12.0)]
    assert rate_between(ticks, 11.0, 21.0) == pytest.approx(10)
    assert rate_between([], 0.0, 1.0) == 0

"""The broker's log: what every line has, and that no event floods it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import structlog

from plait.cli import logs
from plait.cli.logs import EVENTS_MAX, SAME_LINES_MAX, SAME_WINDOW_S, Floods


@pytest.fixture(autouse=True)
def former_settings() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)
    logs._node.clear()


def test_json_lines_have_time_level_logger_event_and_node_first(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("json", "info")
    logger = structlog.get_logger("plait.test")
    logger.info("before")
    logs.set_node(7)
    logger.warning("it happened", partition="orders/0", why={"a": [1]})
    logger.debug("nobody sees this")
    first, second = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert "node_id" not in first
    assert list(second) == ["time", "level", "logger", "event", "node_id", "partition", "why"]
    assert second | {"time": ""} == {
        "time": "",
        "level": "warning",
        "logger": "plait.test",
        "event": "it happened",
        "node_id": 7,
        "partition": "orders/0",
        "why": {"a": [1]},
    }


def test_a_traceback_is_part_of_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("json", "info")
    try:
        raise ValueError("a\nb")
    except ValueError as error:
        structlog.get_logger("plait.test").error("failed", exc_info=error)
    (line,) = capsys.readouterr().err.splitlines()
    assert "ValueError: a\nb" in json.loads(line)["exception"]


def test_lines_for_people_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("console", "info")
    structlog.get_logger("plait.test").info("it happened", partition="orders/0")
    line = capsys.readouterr().err
    assert "[info     ] it happened" in line
    assert "partition=orders/0" in line


def test_a_flood_is_cut_and_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("json", "info")
    logger = structlog.get_logger("plait.test")
    for number in range(3 * SAME_LINES_MAX):
        logger.info("again", number=number)
    logger.info("another")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in lines] == ["again"] * SAME_LINES_MAX + ["another"]


def test_what_was_left_out_is_counted() -> None:
    floods = Floods()
    assert all(floods.admits("a", 5.0) == (True, 0) for _ in range(SAME_LINES_MAX))
    assert [floods.admits("a", 6.0) for _ in range(3)] == [(False, 0)] * 3
    assert floods.admits("b", 6.0) == (True, 0)
    assert floods.admits("a", 5.0 + SAME_WINDOW_S) == (True, 3)
    assert floods.admits("a", 5.0 + SAME_WINDOW_S) == (True, 0)


def test_events_that_are_never_the_same_take_no_memory() -> None:
    floods = Floods()
    for number in range(3 * EVENTS_MAX):
        floods.admits(str(number), 0.0)
    assert len(floods._counts) <= EVENTS_MAX

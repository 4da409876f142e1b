"""The command line without a broker: parsing, help, mistakes, exit codes, tables."""

from __future__ import annotations

import pytest

from plait.cli import exits
from plait.cli.app import hoisted
from plait.cli.main import main
from plait.cli.output import LEFT, RIGHT, plain_table, shown

COMMANDS = (
    ["topic", "create"],
    ["topic", "list"],
    ["topic", "describe"],
    ["topic", "delete"],
    ["queue", "create"],
    ["queue", "list"],
    ["queue", "describe"],
    ["queue", "delete"],
    ["cluster", "status"],
    ["publish"],
    ["consume"],
    ["bench"],
    ["bench", "cluster"],
)
NOBODY = "127.0.0.1:1"
"""An address where nothing listens."""


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--help"]) == exits.DONE
    assert "Usage: plait " + " ".join(command) in capsys.readouterr().out


def test_the_short_way_to_serve_has_help_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--help"]) == exits.DONE
    assert "--native HOST:PORT" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["pblish"],
        ["topic", "create"],
        ["topic", "create", "x", "--partitons", "3"],
        ["topic", "create", "x", "--retention", "soon"],
        ["queue", "create", "x", "--overflow", "explode"],
        ["queue", "create", "x", "--setting", "lease_ms"],
        ["publish", "x"],
        ["publish", "x", "message", "--from", "-"],
        ["publish", "x", "message", "--ndjson"],
        ["publish", "x", "message", "--header", "nothing"],
        ["publish", "x", "--from", "/nowhere/at/all"],
        ["consume", "x", "--max", "0"],
        ["consume", "x", "--from", "yesterday"],
        ["serve", "--natve", "x"],
        ["serve", "--native", "nowhere"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_explained_and_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == exits.USAGE
    assert capsys.readouterr().err.strip()


def test_a_broker_that_is_not_there_is_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["topic", "list", "--server", NOBODY, "--timeout", "30"]) == exits.UNREACHABLE
    assert NOBODY in capsys.readouterr().err


def test_errors_are_json_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--server", NOBODY, "--json", "queue", "list"]) == exits.UNREACHABLE
    assert capsys.readouterr().err.startswith('{"error":"unavailable"')


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("topic list", "topic list"),
        ("--json topic list", "topic list --json"),
        ("--server a:1 --json queue list --x", "queue list --x --server a:1 --json"),
        ("--server=a:1 publish q -- --json", "publish q --server=a:1 -- --json"),
        ("--server", "--server"),
    ],
)
def test_global_flags_may_stand_first(given: str, wanted: str) -> None:
    assert " ".join(hoisted(given.split())) == wanted


def test_columns_line_up() -> None:
    table = plain_table([["orders", "7"], ["a", "1,000"]], ["name", "records"], [LEFT, RIGHT], "")
    assert table == "NAME    RECORDS\norders        7\na         1,000\n"


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (True, "yes"), (1234567, "1,234,567"), (1.5, "1.50"), ("x", "x")]
)
def test_values_as_people_read_them(value: object, text: str) -> None:
    assert shown(value) == text

"""The map of bugs in tests/sim/README.md is complete, and everything that it names is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.sim.cluster.plan import LONG_MS
from tests.sim.raft.mutants import MUTANTS
from tests.tidy.repository import ROOT, files, text_of
from tests.tidy.test_repository import complain

MAP = "tests/sim/README.md"
SCENARIOS = "tests/sim/raft/scenarios/"
BUGS = 75
"""That real implementations had, as far as anybody has counted."""
_ROW = re.compile(r"\| (?P<number>\d+) \|(?P<cells>.*)\|")
_SPAN = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Row:
    """One bug."""

    number: int
    wrong: str
    scenarios: list[str]
    mutants: list[str]
    others: list[str]
    why: str


def rows() -> Iterator[Row]:
    """The rows of the map."""
    for line in text_of(MAP).splitlines():
        if found := _ROW.fullmatch(line):
            wrong, scenarios, mutants, others = (cell.strip() for cell in found["cells"].split("|"))
            yield Row(int(found["number"]), wrong, named(scenarios), named(mutants), named(others), others)


def named(cell: str) -> list[str]:
    """What stands between backticks."""
    return _SPAN.findall(cell)


def missing(name: str) -> str:
    """What is wrong with a path, a test or a fault that the map names; "": nothing."""
    path, _, test = name.partition("::")
    if name in LONG_MS:
        return ""
    if not (ROOT / path).exists():
        return f"there is no {name}: neither a path nor a kind of fault"
    if test and not re.search(rf"^\s*(async )?def {test}\(", text_of(path), re.M):
        return f"{path} has no {test}"
    return ""


def test_every_bug_stands_in_the_map_once() -> None:
    assert [row.number for row in rows()] == list(range(1, BUGS + 1))


def test_every_bug_is_told_and_has_a_test_or_a_reason() -> None:
    complain(
        [
            f"{MAP}: bug {row.number} says nothing"
            for row in rows()
            if not row.wrong or not (row.scenarios or row.mutants or row.why)
        ]
    )


def test_everything_that_the_map_names_is_there() -> None:
    complain(
        [f"{MAP}: bug {row.number}: {wrong}" for row in rows() for name in row.others if (wrong := missing(name))]
    )


def test_the_map_names_every_scenario_beside_its_bug() -> None:
    stems = [name[len(SCENARIOS) :].partition(".")[0] for name in files() if name.startswith(f"{SCENARIOS}b")]
    there = {
        number: [stem for stem in stems if stem.startswith(f"b{number:02}_")] for number in range(1, BUGS + 1)
    }
    assert sum(map(len, there.values())) == len(stems), "scenarios are called bNN_what.txt"
    assert {row.number: row.scenarios for row in rows()} == there


def test_the_map_names_every_mutant_beside_its_bugs() -> None:
    for row in rows():
        assert row.mutants == [mutant.name for mutant in MUTANTS if row.number in mutant.bugs], row.number


def test_missing_things_are_noticed() -> None:
    assert not missing("rot")
    assert not missing("tests/tidy/test_bug_map.py::test_missing_things_are_noticed")
    assert missing("rotten")
    assert missing("tests/tidy/test_no_map.py")
    assert missing("tests/tidy/test_bug_map.py::test_nothing")

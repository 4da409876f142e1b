"""Every scenario prints what it should; with the bugs that its head names it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sim.raft import script
from tests.sim.raft.mutants import MUTANTS
from tests.sim.raft.mutants.hunt import differs
from tests.sim.reference.step import Rules
from tests.sim.reference.validate import validate

BY_NAME = {mutant.name: mutant for mutant in MUTANTS}
FILES = sorted(script.SCENARIOS.glob("*.txt"))
CROSSED = [(path, name) for path in FILES for name in script.read(path).mutants]
NOT_JUDGED = "# the reference model cannot judge this: "
"""What the line begins with that says why."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_scenario_prints_what_it_should(path: Path) -> None:
    played = script.play(script.read(path))
    assert not played.broken
    assert played.text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize(("path", "name"), CROSSED, ids=lambda each: getattr(each, "stem", each))
def test_a_scenario_shows_the_bug_that_it_tells_of(path: Path, name: str) -> None:
    assert differs(BY_NAME[name], path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_scenario_is_one_that_the_papers_allow(path: Path) -> None:
    if NOT_JUDGED not in path.read_text(encoding="utf-8"):
        validate(script.play(script.read(path)).events, Rules())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_scenario_tells_what_it_is_about(path: Path) -> None:
    head = "\n".join(script.read(path).blocks[0].comments)
    number = int(path.stem[1:3])
    assert head.startswith(f"# {number}. ")
    assert "# Here: " in head
    assert "# Shows the bug: " in head

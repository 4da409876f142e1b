"""Scenarios as text: commands for a cluster of cores, each with what it must print beside it.

python -m tests.sim.raft.script [FILE ...]               play, and show where the output is another one
python -m tests.sim.raft.script --rewrite [FILE ...]     write the output into the files: then read it

The language: tests/sim/raft/scenarios/README.md. After every input of every core all the checks of
tests/sim/raft/checkers.py are made: whatever the expected output says, a broken promise ends the script.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.sim.raft.commands import Misspelt, Player
from tests.sim.reference.trace import Event

SCENARIOS = Path(__file__).with_name("scenarios")
"""Where they are."""
BROKEN = "BROKEN "
"""What the line begins with that says which promise is broken."""
_RULE = "----"
_MUTANT = "# mutant: "


@dataclass
class Block:
    """Comments and commands, and what they print."""

    comments: list[str]
    commands: list[str]
    expected: list[str]

    def text(self) -> str:
        """As it stands in a file."""
        return "\n".join([*self.comments, *self.commands, *([_RULE] * bool(self.commands)), *self.expected]) + "\n"


@dataclass
class Scenario:
    """A file."""

    path: Path
    blocks: list[Block]

    @property
    def mutants(self) -> list[str]:
        """Names of deliberate bugs with which the output must be another one."""
        lines = [line for block in self.blocks for line in block.comments]
        return [line.removeprefix(_MUTANT) for line in lines if line.startswith(_MUTANT)]

    def text(self) -> str:
        """As it stands in the file."""
        return "\n".join(block.text() for block in self.blocks)


@dataclass
class Played:
    """What came of playing it."""

    text: str
    events: list[Event]
    broken: str = ""
    """The promise that is broken; "": none."""


def read(path: Path) -> Scenario:
    """Parse a file: blocks with an empty line between them."""
    blocks = []
    for part in path.read_text(encoding="utf-8").strip("\n").split("\n\n"):
        head, rule, expected = f"{part}\n".partition(f"{_RULE}\n")
        lines = head.splitlines()
        block = Block(
            [line for line in lines if line.startswith("#")],
            [line for line in lines if not line.startswith("#")],
            expected.splitlines(),
        )
        if bool(block.commands) != bool(rule):
            raise Misspelt(f"{path.name}: a block is comments, or commands, {_RULE} and output: {lines}")
        blocks.append(block)
    return Scenario(path, blocks)


def play(scenario: Scenario) -> Played:
    """Do all that it says. A broken promise ends it; so does the core's own complaint."""
    player, blocks = Player(), []
    broken = ""
    for block in scenario.blocks:
        lines: list[str] = []
        for command in block.commands if not broken else ():
            try:
                lines += player.do(command)
            except Misspelt:
                raise
            except Exception as error:  # a mutant may break anything, and whatever it breaks is told
                broken = (str(error) or repr(error)).splitlines()[0]
                lines += [*player.cluster.lines, f"{BROKEN}{command}: {broken}"]
                break
        blocks.append(Block(block.comments, block.commands, lines))
    return Played(Scenario(scenario.path, blocks).text(), player.cluster.trace.events, broken)


def main(args: Sequence[str] | None = None) -> int:
    """Play the files that the command line names, or all; 1 if one prints something else, or breaks a promise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rewrite", action="store_true", help="write the output into the files")
    parser.add_argument("files", nargs="*", type=Path, help="scenarios (default: all)")
    options = parser.parse_args(args)
    wrong = 0
    for path in options.files or sorted(SCENARIOS.glob("*.txt")):
        before, played = path.read_text(encoding="utf-8"), play(read(path))
        if options.rewrite:
            path.write_text(played.text, encoding="utf-8")
        if played.broken:
            print(f"{path}: {BROKEN}{played.broken}", file=sys.stderr)
        elif before != played.text:
            sys.stdout.writelines(
                difflib.unified_diff(
                    before.splitlines(keepends=True), played.text.splitlines(keepends=True), str(path), "played"
                )
            )
        wrong += bool(played.broken) or (before != played.text and not options.rewrite)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

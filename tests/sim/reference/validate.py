"""Is a recorded trace one that the papers allow?

    python -m tests.sim.reference.validate [--paper] FILE...

`--paper`: of a core that promises no more than figure 2 (no pre-vote).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.sim.reference.model import Illegal, Model
from tests.sim.reference.steps import Rules
from tests.sim.reference.trace import Event, load

PAPER = Rules(pre_vote=False)
"""Figure 2 and no more."""


def validate(events: Iterable[Event], rules: Rules | None = None) -> Model:
    """Accept all of it; the model as it is then. Raises Illegal."""
    model = Model(rules)
    for event in events:
        model.accept(event)
    return model


def main(arguments: Sequence[str]) -> int:
    """One line for each file; 1 if one of them is illegal."""
    rules = PAPER if "--paper" in arguments else None
    names = [each for each in arguments if not each.startswith("--")]
    if not names:
        print(__doc__)
        return 2
    wrong = 0
    for name in names:
        try:
            with Path(name).open() as file:
                model = validate(load(file), rules)
            print(f"{name}: legal, {model.accepted} events, {len(model.group.reigns)} leaders")
        except Illegal as illegal:
            wrong = 1
            print(f"{name}: {illegal}")
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

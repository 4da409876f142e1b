"""What a run found, for people."""

from __future__ import annotations

from dataclasses import dataclass, field

from plait.cli.output import plain_table
from tests.chaos.events import Events
from tests.chaos.outages import Outages

QUIET = "(none)"
"""The row that says what the measure shows when nothing is wrong."""


@dataclass(slots=True)
class Report:
    """Of one run."""

    seed: int
    nodes: int
    events: Events
    outages: Outages = field(default_factory=Outages)
    rounds: int = 0
    operations: int = 0
    """Values published, and messages of queues acknowledged."""
    acknowledged: int = 0
    """Of the values."""
    processed: int = 0
    """Messages of queues whose acknowledgement was confirmed."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Kinds of faults that cannot be done here, and why not."""
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Every promise was kept."""
        return not self.events.broken

    @property
    def faults(self) -> int:
        """How many struck."""
        return sum(count for kind, count in self.events.faults.items() if kind != QUIET)

    def text(self) -> str:
        """All of it."""
        return "\n".join([*self._figures(), "", self._table(), *self._rest()])

    def _figures(self) -> list[str]:
        broken = self.events.broken
        rows: list[tuple[str, object]] = [
            ("nodes", self.nodes),
            ("seed", self.seed),
            ("faults", self.faults),
            ("rounds, each judged by itself", self.rounds),
            ("operations", self.operations),
            ("values acknowledged", self.acknowledged),
            ("messages of queues done with", self.processed),
            ("lost", sum("is lost" in one or "is gone" in one for one in broken)),
            ("doubled", sum("stands at" in one for one in broken)),
            ("other promises broken", sum("is lost" not in one and "stands at" not in one for one in broken)),
            ("seconds", round(self.seconds)),
        ]
        return [f"{what:<34}{value:>14,}" for what, value in rows]

    def _table(self) -> str:
        texts = [
            [kind, str(count), f"{middle:.2f}", f"{longest:.2f}"]
            for kind, count, middle, longest in self.outages.rows()
        ]
        heads = ["fault", "times", "median s without service", "longest"]
        return plain_table(texts, heads, ["left", "right", "right", "right"], "")

    def _rest(self) -> list[str]:
        told = [f"{state}: {count:,}" for state, count in sorted(self.events.states.items())]
        lines = ["what clients were told, and met:", *(f"  {each}" for each in told)]
        lines += [f"not done here: {kind}: {why}" for kind, why in self.skipped.items()]
        return lines

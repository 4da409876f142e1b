"""A cluster of three real nodes keeps its promises through one fault of each common kind, under load."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.suite import Chaos

KINDS = ("kill", "drop one way", "stop and go", "full disk", "clock step", "lossy wire", "read-only disk", "cut")


@pytest.mark.slow
async def test_nothing_is_lost_or_doubled_through_faults_of_many_kinds(tmp_path: Path) -> None:
    report = await Chaos(tmp_path, faults=len(KINDS), nodes=3, seed=1, kinds=KINDS, quiet=True).run()
    assert report.good, report.text()
    assert report.acknowledged > 0
    assert report.processed > 0
    assert report.faults + len(set(KINDS) & set(report.skipped)) == len(KINDS)

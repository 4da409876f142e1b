"""A broker that is killed with SIGKILL loses nothing that it acknowledged, and doubles nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.soak import Soak


@pytest.mark.slow
async def test_five_kills_under_load_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    report = await Soak(tmp_path, kills=5, seed=1, quiet=True).run()
    assert report.kills == 5
    assert report.acknowledged > 0
    assert (report.lost, report.doubled, report.out_of_order, report.after_ack) == (0, 0, 0, 0), report.text()

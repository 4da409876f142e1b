"""The cores of whole nodes, with their real actors, storage and links, take only steps that the papers allow."""

from __future__ import annotations

import os

import pytest

from replication.raft.core import RaftCore
from replication.raft.messages import Message
from tests.sim.cluster.layers import run_any
from tests.sim.cluster.plan import draw
from tests.sim.cluster.runner import run_batch

SEEDS = {"groups": range(20), "brokers": range(2, 4)}
"""By layer, the runs that are judged; scripts/simulate --validate judges as many as one likes."""


@pytest.mark.slow
@pytest.mark.parametrize("layer", SEEDS)
def test_every_step_of_the_cores_is_legal(layer: str) -> None:
    seeds = SEEDS[layer]
    batch = run_batch(layer, seeds, os.cpu_count() or 1, False, lambda _: None, validate=True)
    assert batch.broken == {}, "scripts/simulate --seed N --validate tells more"
    assert batch.tallies[layer].judged > 300 * len(seeds), "the model has seen them"


def test_a_run_is_the_same_whether_it_is_judged_or_not() -> None:
    plan = draw(2)
    judged, other = run_any(plan, validate=True), run_any(plan)
    assert judged.digest == other.digest
    assert (judged.judged > 300, other.judged) == (True, 0)


def test_an_answer_before_the_disk_has_what_it_confirms_is_an_illegal_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def send_durable(core: RaftCore, message: Message) -> None:
        core.send(message)

    monkeypatch.setattr(RaftCore, "send_durable", send_durable)
    (broken,) = run_any(draw(2), validate=True).broken
    assert "not what the papers allow" in broken
    assert "durable" in broken.splitlines()[0]

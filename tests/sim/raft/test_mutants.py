"""Every deliberate bug is caught. A short form of scripts/mutants, which looks from seed 0 on."""

from __future__ import annotations

from itertools import chain

import pytest

from replication.raft import following, leading
from replication.raft.core import RaftCore
from tests.sim.raft.mutants import MUTANTS
from tests.sim.raft.mutants.first_seeds import FIRST_SEEDS
from tests.sim.raft.mutants.hunt import hunt, shown_by
from tests.sim.raft.mutants.mutant import Layer, Mutant, edit, on
from tests.sim.raft.run import Run

MUTANTS_LEAST = 40
SEEDS = 30
"""Tried where the seed that is known to show a mutant does not, any more."""


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_caught(mutant: Mutant) -> None:
    known = FIRST_SEEDS.get(mutant.name, 0)
    seeds = chain((known,), range(SEEDS)) if mutant.layer is not Layer.SCRIPTS else ()
    caught = hunt(mutant, seeds).check or shown_by(mutant)
    assert caught, f"{mutant.does} scripts/mutants --mutant '{mutant.name}' looks further"


def test_there_are_many_and_each_has_a_name_of_its_own() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert len(set(names)) == len(names) >= MUTANTS_LEAST
    assert FIRST_SEEDS.keys() <= set(names)


def test_a_mutant_is_gone_when_it_is_switched_off() -> None:
    before = Run(3).run().digest
    for mutant in MUTANTS:
        with on(mutant):
            pass
    assert Run(3).run().digest == before


def test_a_mutant_that_fits_the_code_no_longer_says_so_and_changes_nothing() -> None:
    code = following.on_append.__code__
    mutant = Mutant(
        "stale",
        (),
        "Mutates what is not there.",
        (edit(following.on_append, ("send_durable", "send")), edit(leading.advance, ("no such words", ""))),
    )
    with pytest.raises(ValueError, match="no such words"), on(mutant):
        raise AssertionError("it is not switched on")
    assert following.on_append.__code__ is code


def test_properties_and_observed_methods_are_mutated_too() -> None:
    with on(Mutant("always", (), "Ready.", (edit(RaftCore.ready, ("self.role is Role.LEADER and", "True or")),))):
        core = Run(0).world.replicas[1].start(0)
        assert core.ready
    assert not core.ready

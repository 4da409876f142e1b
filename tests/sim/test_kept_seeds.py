"""Seeds that once showed a defect of the broker: each must keep its promises from then on."""

from __future__ import annotations

import pytest

from tests.sim.cluster.layers import run_layer

KEPT = (
    ("fleets", 46, "consumers that were there already were given nothing from partitions that came later"),
    (
        "fleets",
        128,
        "a node that was away while its catalogue came to be led by a new one did not let that in, ever",
    ),
    ("fleets", 94, "when a topic was deleted the others were not spread anew"),
    ("fleets", 105, "a leader that got the catalogue as a snapshot did not take its groups where they should be"),
    ("fleets", 103, "a broker with a clock that is a little fast gave away what a member still read"),
)
"""Layer, seed, and what it showed. A seed whose plan is drawn in another way by now is still a seed."""


@pytest.mark.slow
@pytest.mark.parametrize(("layer", "seed", "showed"), KEPT)
def test_what_a_seed_has_shown_is_mended(layer: str, seed: int, showed: str) -> None:
    assert run_layer(layer, seed).broken == [], showed

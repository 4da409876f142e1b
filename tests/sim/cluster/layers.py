"""The layers that can be simulated, by name."""

from __future__ import annotations

from tests.sim.cluster.brokers.fleet import FleetWorld
from tests.sim.cluster.brokers.watching import watched
from tests.sim.cluster.brokers.world import BrokerWorld
from tests.sim.cluster.cluster import Report
from tests.sim.cluster.plan import LAYERS, Plan, draw
from tests.sim.cluster.runs import run_plan
from tests.sim.cluster.settings import settings_of
from tests.sim.cluster.world import World

FLEET_COORDINATORS = 3
"""Coordinator partitions of a fleet: fewer than usual, for each of them moves with the others."""


def run_layer(layer: str, seed: int, *, validate: bool = False) -> Report:
    """One seed."""
    return run_any(draw(seed, layer), validate=validate)


def run_any(plan: Plan, *, trace: bool = False, validate: bool = False) -> Report:
    """A plan of whatever layer. `validate`: the reference model judges what its cores do."""
    if plan.layer == "groups":
        return run_plan(World, plan, trace=trace, validate=validate)
    if plan.layer == "brokers":
        with watched(settings_of(plan.shape).transfers):
            return run_plan(BrokerWorld, plan, trace=trace, validate=validate)
    if plan.layer == "fleets":
        with watched(settings_of(plan.shape).transfers, coordinators=FLEET_COORDINATORS):
            return run_plan(FleetWorld, plan, trace=trace, validate=validate)
    raise ValueError(f"there is no layer called {plan.layer!r}: {', '.join(LAYERS)}")

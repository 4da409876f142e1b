"""Plans are drawn from their seeds, survive JSON, and can be cut down."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.sim.cluster.plan import ALL, KINDS, LAYERS, Plan, draw, layer_of, shrink


@pytest.mark.parametrize("layer", LAYERS)
def test_equal_seeds_give_equal_plans_and_few_of_them_have_all_kinds(layer: str) -> None:
    plans = [draw(seed, layer) for seed in range(len(KINDS[layer]))]
    assert plans == [draw(seed, layer) for seed in range(len(KINDS[layer]))]
    assert {fault.kind for plan in plans for fault in plan.faults} == set(KINDS[layer])


@pytest.mark.parametrize("layer", ["brokers", "fleets"])
def test_one_of_ten_seeds_has_brokers_and_one_a_fleet_and_those_have_all_kinds(layer: str) -> None:
    seeds = [seed for seed in range(300) if layer_of(ALL, seed) == layer]
    assert len(seeds) == 30
    drawn = {fault.kind for seed in seeds for fault in draw(seed, layer).faults}
    assert drawn == set(KINDS[layer])
    assert layer_of("groups", seeds[0]) == "groups"


def test_a_plan_survives_json() -> None:
    for seed in range(20):
        plan = draw(seed)
        assert Plan.from_json(plan.to_json()) == plan


def test_faults_are_in_order_and_end_with_the_safety_phase() -> None:
    for seed in range(50):
        plan = draw(seed)
        times = [fault.at_ms for fault in plan.faults]
        assert times == sorted(times)
        assert all(at_ms < plan.shape.safety_ms for at_ms in times)


def test_a_failing_plan_is_cut_down_to_what_makes_it_fail() -> None:
    plan = next(draw(seed) for seed in range(100) if len(draw(seed).faults) > 8)
    culprits = {plan.faults[2], plan.faults[6]}

    def fails(smaller: Plan) -> bool:
        return {replace(fault, for_ms=0) for fault in culprits} <= {
            replace(fault, for_ms=0) for fault in smaller.faults
        }

    smaller = shrink(plan, fails)
    assert len(smaller.faults) == 2
    assert smaller.shape.safety_ms <= plan.shape.safety_ms
    assert smaller.shape.groups == smaller.shape.clients == 1

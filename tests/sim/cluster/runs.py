"""Runs a plan from its start to its end; equal for equal plans, in whatever process."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from random import Random

import trio

from tests.sim.cluster.cluster import Cluster, Report
from tests.sim.cluster.events import logs_to
from tests.sim.cluster.plan import Plan
from tests.sim.run import Deadlock, NeverEnds, Steps, run_sim
from tests.sim.storage_world import small_limits


def run_plan(
    make: Callable[[Plan], Cluster], plan: Plan, *, trace: bool = False, validate: bool = False
) -> Report:
    """`make` gives the cluster, inside the simulated loop. `validate`: the reference model judges its cores."""
    steps = Steps()
    world: Cluster | None = None

    async def inside(random: Random) -> float:
        nonlocal world
        world = make(plan)
        world.validates = validate
        with logs_to(world.events):
            try:
                await world.run()
            except BaseExceptionGroup as group:
                _, others = group.split(trio.Cancelled)
                if others is not None and not world.events.broken:
                    raise
        return trio.current_time()

    simulated_s, failure = 0.0, ""
    with small_limits():
        try:
            simulated_s = run_sim(plan.seed, inside, trace=steps)
        except (Deadlock, NeverEnds) as error:
            failure = f"{type(error).__name__}: {error}"
        except Exception as error:  # a defect of the simulation is reported with its seed like any other
            failure = _told(error)
    assert world is not None, "the run began"
    if failure:
        with suppress(RuntimeError):  # outside of a loop there is no time to note it at
            world.events.break_promise(failure)
        if failure not in world.events.broken:
            world.events.broken.append(failure)
    events = world.events
    events.faults.update(world.weather.struck)
    events.states.update(world.other_states())
    return Report(
        plan.seed,
        events.digest(steps.steps, simulated_s),
        events.broken,
        events.faults,
        events.states,
        simulated_s,
        steps.steps,
        world.acknowledged,
        sum(judge.model.accepted for judge in world.judges.values()),
        list(events.lines()) if trace or events.broken else (),
    )


def _told(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    trace = error.__traceback__
    places: list[str] = []
    while trace is not None:
        places.append(f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f"{type(error).__name__}: {error} ({' > '.join(places[-6:])})"

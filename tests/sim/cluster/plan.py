"""What a run does, as plain data: drawn from a seed, written as JSON, cut down where it fails.

    seed ──> draw() ──> Plan(shape of the cluster, faults with their times) ──> world.run(plan)
                          │                                                       the same, every time
                          └──> shrink: fewer faults, shorter, smaller ──> a plan that still fails

Every seed switches on its own mix of faults (swarm testing: Groce and others, 2012), so that a batch meets mixes
that no average would.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from random import Random
from typing import Any


@dataclass(frozen=True, slots=True)
class PlannedFault:
    """One thing that is done to the cluster. Numbers are taken modulo what there is: any list is a plan."""

    at_ms: int
    kind: str
    node: int = 0
    other: int = 0
    """A second node, or a group."""
    for_ms: int = 0
    draw: int = 0
    """Decides whatever else there is to decide."""

    def __str__(self) -> str:
        names = [f"{one.name}={getattr(self, one.name)}" for one in fields(self)[2:] if getattr(self, one.name)]
        return f"{self.kind} {' '.join(names)}"


@dataclass(frozen=True, slots=True)
class Shape:
    """The cluster and its work. Times in milliseconds, sizes in bytes."""

    nodes: int = 3
    voters: int = 3
    """Initial voters of each group, on the first nodes."""
    groups: int = 2
    clients: int = 3
    safety_ms: int = 6_000
    """How long faults strike; then everything is healed."""
    think_ms: int = 120
    """A client's pause between two operations, in the mean."""
    read_share: float = 0.2
    settle_share: float = 0.25
    keep_every: int = 7
    """One of so many marks is left alive by those that settle."""
    payload_bytes: int = 300
    election_ms: int = 400
    beat_ms: int = 80
    append_bytes: int = 4_000
    window_messages: int = 16
    wal_file_bytes: int = 65_536
    segment_own_bytes: int = 8_192
    sector_bytes: int = 512
    sync_us: int = 300
    """Time of one sync of the disk, in the mean."""
    delay_us: tuple[int, int] = (200, 2_000)
    crumbs: bool = False
    """Streams arrive in arbitrary pieces."""
    clock_rates: tuple[float, ...] = ()
    sleeps: bool = True
    partitions: int = 1
    """Of the topic and of the queue, where there are brokers; likewise below."""
    lease_ms: int = 1_000
    deadline_ms: int = 5_000
    """How long a client tries."""
    backlog_records: int | None = None
    """What the queue takes at the most."""
    overflow: str = "refuse"
    """What becomes of a publish when it has that."""
    spares: int = 0
    """Machines that may join, where nodes come and go; likewise below. `nodes` found the cluster."""
    replicas: int | None = None
    """Of the topic and of the queue; None: as the cluster gives them."""
    racks: int = 0
    dead_after_ms: int = 300_000


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a run depends on, besides the code."""

    seed: int
    layer: str
    shape: Shape
    faults: tuple[PlannedFault, ...] = field(default=())

    def to_json(self) -> str:
        """One line."""
        faults = [{key: value for key, value in asdict(fault).items() if value != 0} for fault in self.faults]
        return json.dumps({"seed": self.seed, "layer": self.layer, "shape": asdict(self.shape), "faults": faults})

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """What `to_json` gave."""
        found: dict[str, Any] = json.loads(text)
        shape: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in found["shape"].items()
        }
        faults = tuple(PlannedFault(**{"at_ms": 0, **fault}) for fault in found["faults"])
        return cls(found["seed"], found["layer"], Shape(**shape), faults)


LAYERS = ("groups", "brokers", "fleets")
"""What can be simulated."""
ALL = "all"
"""All of them, seed by seed."""
LONG_MS: Mapping[str, tuple[int, int]] = {
    "lossy": (300, 2_500),
    "slow links": (300, 1_500),
    "cut": (0, 0),
    "partition": (200, 2_500),
    "one way": (200, 2_500),
    "bridge": (300, 2_500),
    "pause": (20, 2_000),
    "kill": (10, 1_200),
    "power cut": (10, 1_200),
    "power cut everywhere": (10, 600),
    "sync error": (10, 800),
    "write error": (10, 800),
    "no space": (10, 800),
    "full disk": (200, 1_500),
    "slow disk": (200, 2_000),
    "clock rate": (200, 3_000),
    "wall jump": (0, 0),
    "rot": (50, 800),
    "lost write": (0, 0),
    "misdirected write": (0, 0),
    "old disk": (50, 600),
    "empty disk": (50, 600),
    "move": (0, 0),
    "grow": (0, 0),
    "shrink": (0, 0),
    "transfer": (0, 0),
    "burst": (0, 0),
    "client killed": (10, 1_500),
    "client paused": (20, 3_000),
    "client cut off": (200, 4_000),
    "join": (0, 0),
    "node dead": (0, 1_500),
    "machine lost": (100, 1_500),
    "drain": (0, 0),
    "activate": (0, 0),
    "remove": (0, 0),
    "more partitions": (0, 0),
    "other replicas": (0, 0),
}
"""Kinds of faults, each with the least and the longest time that one lasts."""
GROUP_KINDS = ("move", "grow", "shrink", "burst")
CLIENT_KINDS = ("client killed", "client paused", "client cut off")
FLEET_KINDS = (
    *("join", "node dead", "machine lost", "drain", "activate", "remove"),
    *("more partitions", "other replicas"),
)
"""What is done to a cluster whose nodes come and go: by its operator, for the most part."""
ABSENT: Mapping[str, tuple[str, ...]] = {
    "groups": (*CLIENT_KINDS, *FLEET_KINDS),
    "brokers": (*GROUP_KINDS, *FLEET_KINDS),
    "fleets": GROUP_KINDS,
}
"""By layer, what cannot be done to it."""
KINDS: Mapping[str, tuple[str, ...]] = {
    layer: tuple(kind for kind in LONG_MS if kind not in ABSENT[layer]) for layer in LAYERS
}
"""By layer, the faults that can strike there."""
LOSSES = ("rot", "lost write", "misdirected write", "machine lost")
"""What takes data away that was synced."""
LOSING_SHARE = 0.3
"""Of fleets, those in which that can be."""
_RARE = {"power cut everywhere": 0.4, "old disk": 0.4, "empty disk": 0.5, "rot": 0.7}
"""Weights of what should not be in every plan at full strength."""


def layer_of(layers: str, seed: int) -> str:
    """The layer of a seed; of ALL, one of ten has brokers and one a fleet of them, which take longer."""
    if layers != ALL:
        return layers
    return {0: "brokers", 5: "fleets"}.get((seed - seed // 10) % 10, "groups")


def draw(seed: int, layer: str = "groups", *, kinds: tuple[str, ...] | None = None) -> Plan:
    """The plan of a seed; `kinds`: of these faults only."""
    random = Random(f"plan {layer} {seed}")
    shape = _SHAPES[layer](random)
    dealt = KINDS[layer][seed % len(KINDS[layer])]
    chosen = list(kinds if kinds is not None else KINDS[layer])
    if kinds is None:
        chosen = [kind for kind in chosen if random.random() < 0.4] or ["kill", "partition"]
        if layer == "fleets" and (dealt in LOSSES or random.random() < LOSING_SHARE):
            shape, chosen = _losing(random, shape, chosen)
    faults = _faults(random, [kind for kind in chosen if kind not in FLEET_KINDS], shape, (0.5, 1, 1.5, 2.5))
    faults += _faults(random, [kind for kind in chosen if kind in FLEET_KINDS], shape, (0.5, 1))
    if kinds is None:
        faults += _dealt(random, dealt, shape.safety_ms, layer)
    return Plan(seed, layer, shape, tuple(sorted(faults, key=lambda fault: fault.at_ms)))


def _losing(random: Random, shape: Shape, chosen: list[str]) -> tuple[Shape, list[str]]:
    """A fleet in which disks may lose something: there are three voters of everything, and it stays so."""
    nodes = max(shape.nodes, 3)
    left = [kind for kind in chosen if kind not in ("other replicas", "drain", "remove")]
    return replace(shape, nodes=nodes, voters=nodes, replicas=None), [*left, *random.sample(LOSSES, 2)]


def _faults(random: Random, kinds: list[str], shape: Shape, per_s: tuple[float, ...]) -> list[PlannedFault]:
    if not kinds:
        return []
    weights = [random.uniform(0.2, 1.0) * _RARE.get(kind, 1.0) for kind in kinds]
    count = round(shape.safety_ms / 1_000 * random.choice(per_s))
    chosen = random.choices(kinds, weights, k=count)
    return [_fault(random, kind, random.randrange(200, shape.safety_ms)) for kind in chosen]


def _fault(random: Random, kind: str, at_ms: int) -> PlannedFault:
    least, longest = LONG_MS[kind]
    return PlannedFault(
        at_ms=at_ms,
        kind=kind,
        node=random.randrange(60),
        other=random.randrange(60),
        for_ms=random.randrange(least, longest + 1),
        draw=random.getrandbits(30),
    )


def _dealt(random: Random, kind: str, safety_ms: int, layer: str) -> list[PlannedFault]:
    """Seeds take turns with the kinds, so that a batch has each of them; what must come before it comes, too."""
    fault = _fault(random, kind, random.randrange(safety_ms // 2, safety_ms))
    if kind == "rot":  # it often finds nothing that is old enough
        return [fault, *(_fault(random, kind, random.randrange(safety_ms // 2, safety_ms)) for _ in range(3))]
    if kind == "old disk":  # there must have been lives before this one
        kills = [(safety_ms // 6, 20), (safety_ms // 3, 20)]
        killed = [replace(fault, kind="kill", at_ms=at, for_ms=long, draw=0) for at, long in kills]
        return [*killed, replace(fault, at_ms=safety_ms * 2 // 3)]
    if layer == "fleets" and kind in ("lost write", "misdirected write"):  # it shows when the node starts again
        struck = [replace(fault, at_ms=fault.at_ms + 150 * number) for number in range(3)]
        return [*struck, replace(fault, kind="kill", at_ms=fault.at_ms + 500, for_ms=50, draw=0)]
    if kind == "activate":  # somebody must be drained before
        return [replace(fault, kind="drain", at_ms=safety_ms // 4), fault]
    return [fault]


def _shape(random: Random) -> Shape:
    nodes, voters = random.choice(((3, 3), (3, 3), (3, 3), (4, 3), (4, 3), (5, 5), (3, 1), (2, 1)))
    election_ms = random.choice((250, 400, 400, 750))
    drift = random.choice((0.0, 0.0, 0.02, 0.1))
    return Shape(
        nodes=nodes,
        voters=voters,
        groups=random.choice((1, 1, 2, 3)) if nodes < 5 else 1,
        clients=random.randrange(2, 5),
        safety_ms=random.choice((2_500, 3_500, 5_000, 7_000)),
        think_ms=random.choice((60, 120, 250)),
        read_share=random.choice((0.1, 0.3)),
        settle_share=random.choice((0.1, 0.3)),
        keep_every=random.choice((3, 10, 1_000)),
        payload_bytes=random.choice((50, 300, 2_000)),
        election_ms=election_ms,
        beat_ms=election_ms // random.choice((4, 5)),
        append_bytes=random.choice((500, 4_000, 100_000)),
        window_messages=random.choice((1, 4, 64)),
        wal_file_bytes=random.choice((32_768, 65_536, 131_072)),
        segment_own_bytes=random.choice((4_096, 16_384, 1 << 20)),
        sector_bytes=random.choice((512, 4_096)),
        sync_us=random.choice((100, 300, 3_000)),
        delay_us=random.choice(((100, 500), (200, 2_000), (500, 10_000))),
        crumbs=random.random() < 0.15,
        clock_rates=tuple(round(1 + random.uniform(-drift, drift), 4) for _ in range(nodes)),
        sleeps=random.random() < 0.8,
    )


def _broker_shape(random: Random) -> Shape:
    nodes = random.choice((3, 3, 3, 3, 3, 5, 1))
    return replace(
        _shape(random),
        nodes=nodes,
        voters=nodes,
        clients=random.choice((2, 3)),
        safety_ms=random.choice((4_000, 6_000, 8_000)),
        clock_rates=tuple(round(1 + random.choice((0.0, 0.0, 0.02, -0.02)), 4) for _ in range(nodes)),
        partitions=random.choice((1, 2)),
        lease_ms=random.choice((500, 1_500, 4_000)),
        deadline_ms=random.choice((1_000, 3_000, 10_000)),
        backlog_records=random.choice((None, None, 30)),
    )


def _fleet_shape(random: Random) -> Shape:
    nodes, spares = random.choice(((1, 2), (1, 3), (2, 1), (3, 1), (3, 1), (3, 2), (4, 1)))
    return replace(
        _broker_shape(random),
        nodes=nodes,
        voters=nodes,
        spares=spares,
        clients=2,
        safety_ms=random.choice((4_000, 6_000, 8_000)),
        election_ms=random.choice((250, 400)),
        beat_ms=80,
        clock_rates=tuple(round(1 + random.choice((0.0, 0.0, 0.02, -0.02)), 4) for _ in range(nodes + spares)),
        replicas=random.choice((None, None, None, 3, 2)),
        racks=random.choice((0, 0, 2, 3)),
        dead_after_ms=random.choice((800, 1_500, 3_000)),
        overflow=random.choice(("refuse", "block", "drop-oldest", "dead-letter")),
        backlog_records=random.choice((None, 30, 30)),
    )


_SHAPES: Mapping[str, Callable[[Random], Shape]] = {
    "groups": _shape,
    "brokers": _broker_shape,
    "fleets": _fleet_shape,
}


def shrink(plan: Plan, fails: Callable[[Plan], bool], tries: int = 150) -> Plan:
    """A smaller plan that still fails: faults are taken out in ever smaller runs (ddmin), then the rest is cut."""

    def attempt(smaller: Plan) -> bool:
        nonlocal plan, tries
        if tries <= 0 or smaller == plan:
            return False
        tries -= 1
        if fails(smaller):
            plan = smaller
            return True
        return False

    size = len(plan.faults)
    while size:
        at = 0
        while at < len(plan.faults):
            if not attempt(replace(plan, faults=plan.faults[:at] + plan.faults[at + size :])):
                at += size
        size //= 2
    last_ms = max((fault.at_ms + fault.for_ms for fault in plan.faults), default=0)
    attempt(replace(plan, shape=replace(plan.shape, safety_ms=min(last_ms + 200, plan.shape.safety_ms))))
    for simpler in (
        {"groups": 1},
        {"clients": 1},
        {"clock_rates": ()},
        {"crumbs": False},
        {"sleeps": False},
        {"read_share": 0.0},
        {"settle_share": 0.0},
        {"delay_us": (100, 500)},
    ):
        attempt(replace(plan, shape=replace(plan.shape, **simpler)))
    for number, fault in enumerate(plan.faults):
        if fault.for_ms > 1:
            shorter = replace(fault, for_ms=fault.for_ms // 2)
            attempt(replace(plan, faults=(*plan.faults[:number], shorter, *plan.faults[number + 1 :])))
    return plan

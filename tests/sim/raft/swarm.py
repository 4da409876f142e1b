"""What one seed's world is like: every seed draws which faults there are and how bad, so that a batch of seeds
meets mixtures that no average one would (Groce and others, "Swarm testing", 2012)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from replication.raft.settings import RaftSettings

MS = 1_000_000
"""Nanoseconds."""

FAULTS = (
    *("isolate", "halves", "bridge", "one_way", "lonely_leader", "crash", "crash_leader", "crash_all"),
    *("pause", "pause_leader", "transfer", "change", "compact", "damage", "rumour", "hurry", "fence"),
)
"""What the nemesis can do; each seed has some of them."""
DISORDERED_WINDOW = 8
"""Appends under way where messages overtake each other, as they never do on a peer link: each that comes too early
is refused, and the whole window sent again."""


@dataclass(frozen=True, slots=True)
class Swarm:
    """One seed's world. Times in nanoseconds, chances between 0 and 1."""

    voters: int
    settings: RaftSettings
    duration_ns: int
    """Of the phase in which faults happen."""
    delay_min_ns: int
    delay_mean_ns: int
    """Of one message, behind the least."""
    loss: float
    double: float
    late: float
    """Chance that a message takes seconds, and whatever comes behind it on an ordered link too."""
    ordered: bool
    """Messages of one link keep their order."""
    sync_ns: int
    """Mean time of a sync; 0: at once."""
    apply_ns: int
    """Mean time until what is committed is applied; 0: at once."""
    propose_ns: int
    """Mean time between two proposals."""
    read_ns: int
    payload_bytes: tuple[int, ...]
    fault_ns: int
    """Mean time between two faults."""
    faults: tuple[str, ...]
    rates: tuple[int, ...]
    """Of the replicas' clocks, in thousandths."""
    cache_entries: int
    """Of each log, in memory."""
    told: float
    """Chance that a peer link notices that a node is gone or back."""
    linger: bool
    """Replicas that were taken out go on running, and disturb."""


def draw(random: Random) -> Swarm:
    """A world."""
    calm = random.random() < 0.2
    faults = tuple(fault for fault in FAULTS if random.random() < 0.35)
    delay = random.choice((1, 1, 5, 20, 60))
    swarm = Swarm(
        voters=random.choice((1, 2, 3, 3, 3, 3, 4, 5, 5)),
        settings=_settings(random),
        duration_ns=random.choice((4_000, 8_000, 15_000)) * MS,
        delay_min_ns=random.choice((0, 1, delay)) * MS // 2,
        delay_mean_ns=delay * MS,
        loss=0.0 if calm else random.choice((0.0, 0.0, 0.01, 0.05, 0.2)),
        double=0.0 if calm else random.choice((0.0, 0.02, 0.2)),
        late=0.0 if calm else random.choice((0.0, 0.0, 0.002, 0.02)),
        ordered=random.random() < 0.3,
        sync_ns=random.choice((0, 1, 5, 30, 200)) * MS,
        apply_ns=random.choice((0, 0, 1, 20, 300)) * MS,
        propose_ns=random.choice((10, 30, 100, 400)) * MS,
        read_ns=random.choice((20, 100, 500)) * MS,
        payload_bytes=random.choice(((10,), (10, 40, 200), (10, 300, 5_000))),
        fault_ns=random.choice((100, 300, 800, 2_000)) * MS,
        faults=faults,
        rates=tuple(random.choice((1_000, 1_000, 900, 1_100, 990)) for _ in range(5)),
        cache_entries=random.choice((1 << 30, 1 << 30, 3, 20)),
        told=random.choice((1.0, 0.9, 0.5)),
        linger=random.random() < 0.5,
    )
    if swarm.ordered or swarm.settings.window_messages <= DISORDERED_WINDOW:
        return swarm
    return replace(swarm, settings=replace(swarm.settings, window_messages=DISORDERED_WINDOW))


def healed(swarm: Swarm) -> Swarm:
    """The same world with nothing wrong: links, disks and machines as quick as they should be. The windows stay as
    small as they were, so that what piled up is worked off through them."""
    return replace(
        swarm,
        loss=0.0,
        double=0.0,
        late=0.0,
        delay_min_ns=min(swarm.delay_min_ns, MS // 2),
        delay_mean_ns=min(swarm.delay_mean_ns, MS),
        sync_ns=min(swarm.sync_ns, MS),
        apply_ns=min(swarm.apply_ns, MS),
    )


def _settings(random: Random) -> RaftSettings:
    """Small windows meet their ends; the others are the defaults."""
    election = random.choice((300, 750))
    return RaftSettings(
        beat_ms=random.choice((30, 100)),
        election_ms=election,
        resend_ms=random.choice((100, 500)),
        append_bytes=random.choice((1 << 20, 100, 500)),
        window_messages=random.choice((256, 1, 2, 8)),
        window_bytes=random.choice((8 << 20, 100, 1_000)),
        uncommitted_bytes=random.choice((64 << 20, 2_000)),
        promotion_entries=random.choice((1_024, 2)),
        quiet_beats=random.choice((1, 5)),
        sleeps=random.random() < 0.8,
    )

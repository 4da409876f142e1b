"""Campaigns against the log store: crash it everywhere, fail its disk, let its files rot. One seed, one campaign.

    crash_everywhere   one history, crashed before every operation that changes the disk, in drawn ways; the
                       recoveries are crashed too
    many_lives         histories one behind the other on what the crash before left
    failing_disk       EIO and ENOSPC at a drawn operation: nothing succeeds behind it, and nothing acknowledged
                       is lost, nor anything that the next life has shown
    full_disk          too little room for the history
    rotting_disk       bits, sectors and writes of synced data go bad: reported, never served, never missing

All raise Violation. A campaign's digest is equal for equal seeds, in whatever process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random

import trio

from replication.storage.damage import StorageFailed
from tests.sim.crash import Survival
from tests.sim.disk import CAPACITY_BYTES, CrashHere, SimDisk
from tests.sim.faults import CHANGES, Fault, FaultKind, Operation, OperationKind, PlannedFaults
from tests.sim.history import History, Shape, random_history
from tests.sim.ledger import Ledger, LogState, Reading
from tests.sim.run import run_sim
from tests.sim.storage_installs import repair
from tests.sim.storage_world import Life, Violation, examine, opened, small_limits

SURVIVALS = tuple(Survival)
CRASHES = (FaultKind.CRASH_BEFORE, FaultKind.CRASH_DURING, FaultKind.CRASH_AFTER)
RECOVERY_CRASHES = 3
"""Crashes during each recovery that is crashed at all."""
SETTLE_S = 1.0
"""Simulated rest behind a history, after which seals, flushes and the janitor are done."""
REPAIRS_MAX = 12
"""Rounds in which rot is looked for and repaired."""
REST_S = 4.0
"""Simulated rest of a recovered store, after which it has flushed what it found."""


@dataclass(slots=True)
class Tally:
    """What a campaign did, for people and for comparing two runs."""

    histories: int = 0
    recoveries: int = 0
    damaged: int = 0
    """Groups that were reported damaged."""
    repaired: int = 0
    """Groups that a snapshot from a leader repaired."""
    refused: int = 0
    """Stores that stopped because the disk failed."""
    _hash: hashlib._Hash = field(default_factory=hashlib.sha256)

    def note(self, *what: object) -> None:
        """Add to the digest."""
        self._hash.update(repr(what).encode())

    def digest(self) -> str:
        """Equal for equal runs."""
        return self._hash.copy().hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Moment:
    """A disk just before an operation, and how far the ledger was then."""

    operation: Operation | None
    disk: SimDisk
    reading: dict[int, Reading]


def _record(disk: SimDisk, reading: Callable[[], dict[int, Reading]], every: int = 1) -> list[Moment]:
    """Moments of the disk from now on, one before each operation that changes it (or each so-manieth)."""
    moments: list[Moment] = []
    changes = 0

    def before(operation: Operation) -> None:
        nonlocal changes
        if operation.kind in CHANGES:
            changes += 1
            if changes % every == 0:
                moments.append(Moment(operation, disk.copy(Random(0)), reading()))

    disk.before = before
    return moments


def live(
    history: History, disk: SimDisk, ledger: Ledger, tally: Tally, *, rest: bool = True, used: Sequence[int] = ()
) -> Life:
    """Run one life of the history on the disk, and leave it as a killed process does, if nothing kills it before:
    at the end, after a rest, or after an orderly close."""
    life = Life(disk, ledger, used)

    async def world(random: Random) -> None:
        async with opened(disk, history.shape, random.getrandbits(64)) as store:
            await life.run(store, history.steps)
            await life.drain()
            if rest:
                await trio.sleep(SETTLE_S)
            if random.random() < 0.3:
                await store.close()

    tally.histories += 1
    try:
        with small_limits():
            run_sim(history.seed, world)
    except CrashHere:
        pass
    finally:
        tally.note("life", disk.digest(), disk.operations, sorted(ledger.reading()))
    return life


def recover(
    disk: SimDisk,
    shape: Shape,
    seed: int,
    possible: dict[int, list[LogState]],
    tally: Tally,
    *,
    rotten: bool = False,
) -> dict[int, LogState]:
    """Open the disk in a new life and look at everything, sometimes again after a rest; the states found."""

    async def world(random: Random) -> dict[int, LogState]:
        async with opened(disk, shape, random.getrandbits(64)) as store:
            found = await examine(store, possible, rotten=rotten)
            if random.random() < 0.2:  # long enough for a flush of what no group's owner has attached to
                await trio.sleep(REST_S)
                found = await examine(store, _shown(found), rotten=rotten, others=possible)
            return found

    tally.recoveries += 1
    with small_limits():
        found = run_sim(seed, world)
    tally.damaged += len(possible) - len(found)
    tally.note("recovery", disk.digest(), [(group, len(state.entries)) for group, state in found.items()])
    return found


def crash_everywhere(
    history: History,
    tally: Tally,
    *,
    survivals: Sequence[Survival] | None = None,
    only: Callable[[int], bool] = lambda _: True,
    make_disk: Callable[..., SimDisk] = SimDisk,
) -> None:
    """Crash one history before each of its changes of the disk that `only` names by number.

    Without `survivals` one way is drawn for each; every fourth recovery is crashed in turn.
    """
    random = Random(history.seed)
    disk = make_disk(Random(random.getrandbits(64)), sector_bytes=history.shape.sector_bytes)
    ledger = Ledger()
    moments = _record(disk, ledger.reading)
    live(history, disk, ledger, tally)
    moments.append(Moment(None, disk.copy(Random(0)), ledger.reading()))
    for number, moment in enumerate(moments):
        drawn = random.getrandbits(64)
        if not only(number):
            continue
        ways = survivals or [SURVIVALS[drawn % len(SURVIVALS)]]
        for survival in ways:
            with _telling(f"crash {number} before {moment.operation}, {survival}"):
                _crash(history, moment, ledger, survival, drawn, tally)


def _crash(
    history: History, moment: Moment, ledger: Ledger, survival: Survival, seed: int, tally: Tally
) -> tuple[SimDisk, dict[int, LogState]]:
    """Crash at the moment and recover; the disk that the recovered process leaves when killed, and its states."""
    possible = ledger.possible(moment.reading)
    random = Random(seed)
    after = moment.disk.copy(Random(0)).crash(survival, random)
    again = random.randrange(4) == 0
    inner = _record(after, dict, every=random.randrange(1, 8)) if again else []
    found = recover(after, history.shape, seed, possible, tally)
    for _ in range(min(RECOVERY_CRASHES, len(inner))):
        second, way = random.choice(inner), random.choice(SURVIVALS)
        with _telling(f"then the recovery crashed before {second.operation}, {way}"):
            recover(second.disk.copy(Random(0)).crash(way, random), history.shape, seed + 1, possible, tally)
    if again:  # what a life has shown, the next one must have too
        way = random.choice(SURVIVALS)
        with _telling(f"then the recovered process crashed, {way}"):
            recover(after.copy(Random(0)).crash(way, random), history.shape, seed + 2, _shown(found), tally)
    return after, found


def _shown(found: dict[int, LogState]) -> dict[int, list[LogState]]:
    return {group: [state] for group, state in found.items()}


def many_lives(seed: int, lives: int, steps: int, tally: Tally) -> None:
    """Histories one behind the other, each on what a crash at a drawn moment left of the one before."""
    random = Random(seed)
    shape = random_history(seed, 2).shape
    disk = SimDisk(Random(random.getrandbits(64)), sector_bytes=shape.sector_bytes)
    ledger = Ledger()
    for number in range(lives):
        history = replace(random_history(random.getrandbits(64), steps), shape=shape)
        moments = _record(disk, ledger.reading)
        if random.random() < 0.3:  # the process really dies in the middle; else its end is chosen afterwards
            disk.faults = PlannedFaults(
                [Fault(random.randrange(1, 200), random.choice(CRASHES), random.getrandbits(16))]
            )
        with _telling(f"life {number} of seed {seed}"):
            live(history, disk, ledger, tally, rest=random.random() < 0.5)
            moments.append(Moment(None, disk.copy(Random(0)), ledger.reading()))
            moment = moments[-1] if disk.struck or random.random() < 0.2 else random.choice(moments)
            survival = random.choice(SURVIVALS)
            with _telling(f"crashed before {moment.operation}, {survival}"):
                after, found = _crash(history, moment, ledger, survival, random.getrandbits(64), tally)
        disk = after.copy(Random(0)).crash(random.choice(SURVIVALS), random)
        ledger = Ledger(found)


def failing_disk(history: History, tally: Tally, fault: Fault) -> None:
    """Run a history into a failure of the disk, then look at what a restart and a power cut find."""
    random = Random(history.seed)
    disk = SimDisk(Random(random.getrandbits(64)), sector_bytes=history.shape.sector_bytes)
    disk.faults = PlannedFaults([fault])
    ledger = Ledger()
    try:
        life = live(history, disk, ledger, tally)
    except StorageFailed:
        tally.refused += 1
    except OSError as error:
        if ledger.groups:  # it was open, and then its own word for it is StorageFailed
            raise Violation(f"{disk.struck}: the store ended with {error!r}") from error
    else:
        if life.failed is not None:
            raise Violation(f"{disk.struck}: a completion failed with {life.failed!r}, and the store went on")
    possible = ledger.possible(ledger.reading())
    for survival in SURVIVALS:
        seed = random.getrandbits(32)
        after = disk.copy(Random(0)).crash(survival, Random(seed))
        with _telling(f"{disk.struck}, then {survival}"):
            found = recover(after, history.shape, seed, possible, tally)
        with _telling(f"{disk.struck}, then {survival}, then a power cut"):
            after = after.crash(Survival.NOTHING, random)
            recover(after, history.shape, seed, _shown(found), tally)


def full_disk(history: History, tally: Tally) -> None:
    """Run a history on a disk that is too small for it, then look at what is there, with and without more room."""
    random = Random(history.seed)
    capacity_bytes = random.randrange(history.shape.wal_file_bytes, 6 * history.shape.wal_file_bytes)
    disk = SimDisk(
        Random(random.getrandbits(64)), sector_bytes=history.shape.sector_bytes, capacity_bytes=capacity_bytes
    )
    ledger = Ledger()
    try:
        live(history, disk, ledger, tally)
    except StorageFailed:
        tally.refused += 1
    possible = ledger.possible(ledger.reading())
    for survival in SURVIVALS:
        seed = random.getrandbits(32)
        after = disk.copy(Random(0)).crash(survival, Random(seed))
        with _telling(f"{capacity_bytes} bytes of disk, then {survival}"):
            try:
                possible_now = _shown(recover(after, history.shape, seed, possible, tally))
            except StorageFailed:
                possible_now = possible
        with _telling(f"{capacity_bytes} bytes of disk, then {survival}, then more room"):
            after = after.crash(Survival.NOTHING, random)
            after.capacity_bytes = CAPACITY_BYTES
            recover(after, history.shape, seed, possible_now, tally)


def drawn_failure(seed: int) -> Fault:
    """A failure of the disk for `failing_disk`."""
    random = Random(seed)
    kind = random.choice((FaultKind.IO_ERROR, FaultKind.IO_ERROR, FaultKind.NO_SPACE))
    only = random.choice((None, OperationKind.SYNC, OperationKind.WRITE, OperationKind.SYNC_FOLDER))
    if kind is FaultKind.NO_SPACE:
        only = random.choice((None, OperationKind.WRITE, OperationKind.CREATE))
    return Fault(random.randrange(1, 250), kind, random.getrandbits(16), only=only)


def rotting_disk(history: History, tally: Tally, rounds: int = 20) -> None:
    """Run a history to a quiet end, and let synced data rot in many ways."""
    random = Random(history.seed)
    disk = SimDisk(Random(random.getrandbits(64)), sector_bytes=history.shape.sector_bytes)
    if random.random() < 0.5:
        kind = random.choice((FaultKind.LOST_WRITE, FaultKind.MISDIRECTED_WRITE))
        disk.faults = PlannedFaults([Fault(random.randrange(1, 150), kind, random.getrandbits(16))])
    ledger = Ledger()
    live(history, disk, ledger, tally)
    possible = ledger.possible(ledger.reading())
    for number in range(rounds):
        after = disk.copy(Random(0)).crash(Survival.NOTHING, random)
        # a seal that was lost and rot in the block before it: together they look like a torn write
        what = _rot(after, random, spares="wal/" if disk.struck else "?") if number else "nothing more"
        with _telling(f"{disk.struck}, then {what}"):
            rotten = after.copy(Random(0))
            found = recover(after, history.shape, number, possible, tally, rotten=bool(number or disk.struck))
            if number % 3 == 2:
                _live_on(rotten, history.shape, random, possible, found, tally)
            elif number % 3 == 1:
                _repair(rotten, history.shape, random, possible, tally)
        if number % 4 == 0:
            _flaky(disk.copy(Random(0)).crash(Survival.NOTHING, random), history.shape, random, possible, tally)


def _live_on(
    disk: SimDisk,
    shape: Shape,
    random: Random,
    possible: dict[int, list[LogState]],
    found: dict[int, LogState],
    tally: Tally,
) -> None:
    """A life on a disk where something has rotted: the other groups lose nothing, the damaged ones no more."""
    history = replace(random_history(random.getrandbits(64), 30), shape=shape)
    ledger = Ledger(found)
    with _telling("then a life with the groups that are whole"):
        live(history, disk, ledger, tally, used=list(possible))
    later = {group: states for group, states in possible.items() if group not in found}
    later.update(ledger.possible(ledger.reading()))
    with _telling("then a life with the groups that are whole, then a power cut"):
        recover(disk.crash(Survival.NOTHING, random), shape, 1, later, tally, rotten=True)


def _repair(
    disk: SimDisk, shape: Shape, random: Random, possible: dict[int, list[LogState]], tally: Tally
) -> None:
    """Repair what has rotted from a leader: it is whole then, also in the next life; a crash leaves old or new."""
    known = dict(possible)

    async def world(_: Random) -> None:
        async with opened(disk, shape, random.getrandbits(64)) as store:
            for _ in range(REPAIRS_MAX):  # one may show what was behind it
                await examine(store, known, rotten=True)
                for group in store.groups():
                    await store._scrubber.scrub(group)
                repaired = await repair(store, known, random)
                tally.repaired += len(repaired)
                known.update({group: [state] for group, state in repaired.items()})
                if not repaired:
                    break
            if random.random() < 0.3:
                await trio.sleep(REST_S)

    moments = _record(disk, dict, every=random.randrange(3, 30))
    with _telling("then repairs"), small_limits():
        run_sim(random.getrandbits(64), world)
    with _telling("then repairs, then a power cut"):
        after = disk.copy(Random(0)).crash(Survival.NOTHING, random)
        found = recover(after, shape, 2, known, tally, rotten=True)
        for group, states in known.items():
            if group not in found and len(states) == 1 and states[0].entries:
                raise Violation(f"group {group} is damaged though it was repaired")
    if moments:
        moment, way = random.choice(moments), random.choice(SURVIVALS)
        either = {group: [*states, *known[group]] for group, states in possible.items()}
        with _telling(f"then repairs crashed before {moment.operation}, {way}"):
            recover(moment.disk.copy(Random(0)).crash(way, random), shape, 3, either, tally, rotten=True)


def _flaky(disk: SimDisk, shape: Shape, random: Random, possible: dict[int, list[LogState]], tally: Tally) -> None:
    """One read of a recovery fails; the next recovery must not suffer from what the first one made of it."""
    disk.faults = PlannedFaults([Fault(random.randrange(1, 60), FaultKind.IO_ERROR, only=OperationKind.READ)])
    with _telling(f"one read fails: {disk.faults}"):
        try:
            recover(disk, shape, 1, possible, tally, rotten=True)
        except StorageFailed:
            tally.refused += 1
    with _telling(f"one read failed before: {disk.struck}"):
        recover(disk.crash(Survival.NOTHING, random), shape, 1, possible, tally, rotten=True)


def _rot(disk: SimDisk, random: Random, spares: str) -> str:
    """Damage one file of a disk in place, none in that folder; what was done."""
    names = [name for name in disk.names() if disk.content(name) and not name.startswith(spares)]
    if not names:
        return "nothing"
    name = random.choice(names)
    content = disk.content(name)
    used = len(content.rstrip(b"\0")) if random.random() < 0.8 else len(content)
    position = random.randrange(max(used, 1))
    sector = position - position % disk.sector_bytes
    end = min(sector + disk.sector_bytes, len(content))
    way = random.choice(("flip", "flip", "flip", "unreadable", "zeros", "garbage"))
    if way == "flip":
        disk.flip(name, position, random.randrange(8))
        return f"flip {name} {position}"
    if way == "unreadable":
        disk.make_unreadable(name, sector, end - 1)
    else:
        size_bytes = end - sector
        disk.spoil(name, sector, bytes(size_bytes) if way == "zeros" else random.randbytes(size_bytes))
    return f"{way} {name} {sector}-{end - 1}"


class _telling:  # noqa: N801 - reads as a phrase
    """Adds where it happened to a Violation, and turns every other exception into one."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, Violation):
            raise Violation(f"{self._where}: {error}") from error
        if isinstance(error, Exception):  # whatever a store raises on a crashed disk is a bug of it
            raise Violation(f"{self._where}: {type(error).__name__}: {error}") from error


CAMPAIGNS = ("crash", "lives", "fail", "full", "rot")
"""The kinds of campaign, as scripts name them."""


def campaign(kind: str, seed: int, tally: Tally) -> None:
    """One campaign of a seed, of the size in which thousands of them are run. Raises Violation."""
    with _telling(f"campaign {kind}, seed {seed}"):
        if kind == "crash":
            crash_everywhere(random_history(seed, 50), tally)
        elif kind == "lives":
            many_lives(seed, 4, 40, tally)
        elif kind == "fail":
            failing_disk(random_history(seed, 60), tally, drawn_failure(seed))
        elif kind == "full":
            full_disk(random_history(seed, 100), tally)
        elif kind == "rot":
            rotting_disk(random_history(seed, 80), tally)
        else:
            raise ValueError(f"there is no campaign called {kind!r}: {', '.join(CAMPAIGNS)}")

"""A log store living on a simulated disk: one life that follows a history, and the look that a next life takes.

Life      opens the store, does the steps of a history, notes in the ledger what was told and confirmed
examine   reads everything that a recovered store has, and finds the state of the ledger that it is in
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Container, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from random import Random

import trio

from plait.wire.errors import StorageDamaged, StorageFull
from replication.machine import Checkpoint, Entry
from replication.storage import flush, install, janitor, reading, snapshots, wal
from replication.storage.damage import InstallRefused, StorageFailed
from replication.storage.format import HardState
from replication.storage.log import GroupLog
from replication.storage.settings import StorageSettings
from replication.storage.store import Store
from tests.sim.disk import CrashHere, SimDisk
from tests.sim.environment import sim_environment
from tests.sim.history import WAIT_US, Shape, Step
from tests.sim.ledger import (
    KIND_BATCH,
    KIND_SETTLE,
    GroupLedger,
    Ledger,
    LogState,
    Machine,
    Told,
    ranges_of,
    settle_payload,
)
from tests.sim.storage_installs import bring, leaders_log


class Violation(AssertionError):
    """The store broke a promise."""


def settings_of(shape: Shape) -> StorageSettings:
    """Storage so small that a few kilobytes rotate, flush and compact."""
    return StorageSettings(
        wal_file_bytes=shape.wal_file_bytes,
        segment_own_bytes=shape.segment_own_bytes,
        segment_index_bytes=2_048,
        wal_write_bytes=16_384,
        ballast_bytes=8_192,
        low_space_bytes=0,
        critical_space_bytes=0,
        janitor_interval_ms=100,
        compact_below_percent=60,
    )


SMALL = {
    (flush, "PIECE_ENTRIES"): 5,
    (install, "STAGE_FILE_BYTES"): 9_000,
    (install, "STAGE_PIECE_BYTES"): 2_500,
    (janitor, "SCRUB_PAUSE_MS"): 200,
    (janitor, "SMALL_FILES_MAX"): 3,
    (janitor, "SMALL_FILE_BYTES"): 6_000,
    (janitor, "READ_BYTES"): 3_000,
    (janitor, "COMPACT_FILES_MAX"): 4,
    (reading, "READ_BYTES_MIN"): 512,
    (snapshots, "CARRY_BELOW_BYTES"): 600,
    (wal, "WAL_BLOCK_RECORDS"): 24,
}
"""Limits of the store's modules that are no settings, and what they are while it is simulated: a history of some
hundred kilobytes is to reach what is behind them."""


@contextmanager
def small_limits() -> Iterator[None]:
    """The limits in SMALL are small meanwhile."""
    before = {place: getattr(*place) for place in SMALL}
    try:
        for (module, name), value in SMALL.items():
            setattr(module, name, value)
        yield
    finally:
        for (module, name), value in before.items():
            setattr(module, name, value)


@asynccontextmanager
async def opened(disk: SimDisk, shape: Shape, seed: int) -> AsyncIterator[Store]:
    """A recovered store with its tasks running; at the end its process is killed, nothing is closed.

    Raises CrashHere if the disk kills it before.
    """
    ended = False
    try:
        async with trio.open_nursery() as nursery:
            environment = sim_environment(nursery, seed, disk).environment
            store = await Store.open(environment, settings_of(shape))
            environment.tasks.spawn("store", store.run)
            yield store
            disk.dead = ended = True
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        _, others = group.split(CrashHere)
        if others is None:
            if not ended:
                raise CrashHere from None
            return
        while isinstance(others, BaseExceptionGroup) and len(others.exceptions) == 1:
            (others,) = others.exceptions
        raise others from None


@dataclass(slots=True)
class _Group:
    """One group as a life knows it."""

    log: GroupLog
    ledger: GroupLedger
    machine: Machine
    durable_index: int
    truncations: int = 0
    new_term: bool = False
    """Entries were truncated: the next ones are of another leader."""
    installing: bool = False
    """Nothing may be appended but hard states."""
    installed: int = 0
    """Number of the last install that took effect."""
    waiting: deque[int] = field(default_factory=deque)
    """Numbers of what was told and is not confirmed, in order."""

    def checkpoint(self) -> Checkpoint | None:
        """Asked by the store at rotation."""
        return self.machine.checkpoint()


class Life:
    """One process that does the steps of a history."""

    def __init__(self, disk: SimDisk, ledger: Ledger, used: Sequence[int] = ()) -> None:
        """`used` are group ids that were given before, besides those of the ledger."""
        self.disk = disk
        self.ledger = ledger
        self._used = max(used, default=0)
        self.failed: Exception | None = None
        """The error that the first refused completion got."""
        self._groups: dict[int, _Group] = {}
        self._gone: dict[int, None] = {}
        self._idle = trio.Event()

    async def run(self, store: Store, steps: Sequence[Step]) -> None:
        """Do the steps."""
        async with trio.open_nursery() as self._readers:
            await self._run(store, steps)

    async def _run(self, store: Store, steps: Sequence[Step]) -> None:
        self._store = store
        for group, ledger in self.ledger.groups.items():
            state = ledger.latest()
            if state.exists:
                self._take(group, store.log(group), state)
            else:
                self._gone[group] = None
        for step in steps:
            if self.failed is not None:
                return
            await self._do(step)

    async def drain(self) -> None:
        """Wait until everything told is confirmed, or refused."""
        while self.failed is None and any(group.waiting for group in self._groups.values()):
            self._idle = trio.Event()
            await self._idle.wait()

    def _take(self, number: int, log: GroupLog, state: LogState) -> _Group:
        group = _Group(log, self.ledger.group(number), state.machine(), len(state.entries))
        self._groups[number] = group
        log.attach(group)
        return group

    async def _do(self, step: Step) -> None:
        if step.action == "wait":
            await trio.sleep(Random(step.seed).choice(WAIT_US) / 1e6)
        elif step.action == "drain":
            await self.drain()
        elif step.action == "create":
            number = max([self._used, *self.ledger.groups]) + 1 + step.seed % 3
            ledger = self.ledger.group(number)
            ledger.tell(Told("create"))
            self._take(number, self._store.create(number), LogState(exists=True))
        elif self._groups:
            number = list(self._groups)[step.group % len(self._groups)]
            await self._do_to(step, number, self._groups[number])

    async def _do_to(self, step: Step, number: int, group: _Group) -> None:
        random = Random(step.seed)
        if group.installing and step.action not in ("vote", "read", "retain", "delete"):
            return
        if step.action in ("append", "vote", "settle", "settle_all"):
            self._append(step, group, random)
        elif step.action == "install":
            if group.ledger.installing is None:
                group.installing = True
                self._readers.start_soon(self._install, group, random)
        elif step.action == "apply":
            self._apply(group)
        elif step.action == "retain":
            group.log.retain(group.machine.live_ranges())
        elif step.action == "read":
            self._readers.start_soon(_read_beside, group, random)
        elif step.action == "truncate":
            last = len(group.ledger.latest().entries)
            keep = max(last - step.count, group.machine.index)
            if keep < last:
                group.truncations += 1
                group.new_term = True
                group.durable_index = min(group.durable_index, keep)
                told = group.ledger.tell(Told("truncate", index=keep))
                group.waiting.append(told)
                group.log.truncate_after(keep, lambda error: self._done(group, told, None, error))
        elif step.action == "delete":
            told = group.ledger.tell(Told("delete"))
            group.waiting.append(told)
            self._store.delete(number, lambda error: self._done(group, told, None, error))
            del self._groups[number]
            self._gone[number] = None
        else:
            raise ValueError(f"no such step: {step.action}")

    def _append(self, step: Step, group: _Group, random: Random) -> None:
        state = group.ledger.latest()
        last = state.entries[-1] if state.entries else None
        term, vote = state.hard_state
        hard_state: tuple[int, int] | None = None
        if step.action == "vote" or term == 0 or group.new_term:
            group.new_term = False
            term = max(term, last.term if last else 0) + random.randrange(1, 3)
            vote = random.randrange(4)
            hard_state = (term, vote)
        entries = _entries(step, group, last, term, random)
        told = group.ledger.tell(Told("append", entries, hard_state))
        group.waiting.append(told)
        truncations = group.truncations
        last_index = entries[-1].index if entries else None

        def done(error: Exception | None) -> None:
            self._done(group, told, last_index if truncations == group.truncations else None, error)

        group.log.append(list(entries), HardState(*hard_state) if hard_state else None, done)

    def _done(self, group: _Group, told: int, last_index: int | None, error: Exception | None) -> None:
        if self.disk.dead:
            return  # nobody is there any more to hear it
        if error is not None:
            self.failed = self.failed or error
        elif self.failed is not None:
            raise Violation(f"a completion succeeded behind one that failed with {self.failed!r}")
        else:
            if group.waiting[0] != told:
                raise Violation(f"completion {told} came before {group.waiting[0]}")
            group.waiting.popleft()
            group.ledger.confirm(told)
            group.durable_index = max(group.durable_index, last_index or 0)
            _confirm_install(group)
        self._idle.set()

    async def _install(self, group: _Group, random: Random) -> None:
        """A snapshot from a leader whose log begins as this one does."""
        state = group.ledger.latest()
        entries = leaders_log(state, group.machine.index, random)  # what was applied was committed
        agreed = random.randint(group.log.snapshot_index, group.machine.index)
        index = len(entries)
        if random.random() < 0.3 and group.machine.index > group.log.snapshot_index:
            index = random.randint(group.log.snapshot_index + 1, group.machine.index)
            entries = state.entries  # the log goes on behind the snapshot
        agreed = min(agreed, index)
        told = Told("install", entries)

        def effective() -> None:
            if not group.ledger.latest().exists:
                return  # deleted meanwhile, which a crash may undo: then the log is the new one
            group.machine = leader
            group.new_term = True
            group.truncations += 1
            group.durable_index = len(entries)
            group.installed = group.ledger.tell(told)
            group.waiting.append(group.installed)
            _confirm_install(group)
            self._idle.set()

        def begins() -> None:
            group.ledger.installing = told

        try:
            leader = LogState(True, entries[:index]).machine()
            if index > group.log.snapshot_index:
                await bring(group.log, leader, entries, agreed, random, begins, effective)
        except (InstallRefused, StorageFull):
            group.ledger.installing = None
        except StorageFailed as error:
            self.failed = self.failed or error
            self._idle.set()
        finally:
            group.installing = False

    def _apply(self, group: _Group) -> None:
        for entry in group.ledger.latest().entries[group.machine.index : group.durable_index]:
            group.machine.apply(entry)


def _confirm_install(group: _Group) -> None:
    """An install is durable when it takes effect; it counts as confirmed when everything before it is: a vote that
    was told before it may come to the disk behind it."""
    if group.waiting and group.waiting[0] == group.installed:
        group.ledger.confirm(group.waiting.popleft())
        group.ledger.installing = None


async def _read_beside(group: _Group, random: Random) -> None:
    """Read something while the history goes on: it is what was written, and live marks are there."""
    try:
        await _read_some(group, random)
    except StorageDamaged:
        if group.log.damage is None:
            raise


async def _read_some(group: _Group, random: Random) -> None:
    before, live = group.ledger.latest(), sorted(group.machine.live)
    if not before.exists:
        return
    size_bytes = random.choice((1, 3_000, 1 << 20))
    wanted: int | None = None
    if live and random.random() < 0.6:
        wanted = random.choice(live)
        entries = await group.log.read_marks(wanted, size_bytes)
    else:
        first = random.randrange(group.log.first_index, len(before.entries) + 2)
        entries = await group.log.read(first, size_bytes)
        if [entry.index for entry in entries] != list(range(first, first + len(entries))):
            raise Violation(f"read({first}) gives entries {[entry.index for entry in entries]}")
    after = group.ledger.latest()
    if not after.exists:
        return
    written = {_plain(entry) for entry in (*before.entries, *after.entries)}
    if group.ledger.installing is not None:
        written |= {_plain(entry) for entry in group.ledger.installing.entries}
    for entry in entries:
        if _plain(entry) not in written:
            raise Violation(f"a read beside the writer gives {_plain(entry)[:5]}, which is not in the log")
    if wanted in group.machine.live and not any(
        entry.mark <= wanted < entry.mark + entry.span for entry in entries
    ):
        raise Violation(f"a read beside the writer does not find live mark {wanted}")


def _entries(step: Step, group: _Group, last: Entry | None, term: int, random: Random) -> tuple[Entry, ...]:
    index = last.index + 1 if last else 1
    mark = last.mark + last.span if last else 0
    if step.action == "vote":
        return ()
    if step.action in ("settle", "settle_all"):
        live = sorted(group.machine.live)
        if step.action == "settle" and live:
            start = random.randrange(len(live)) if random.random() < 0.3 else 0
            live = live[start : start + random.randrange(1, 30)]
        return (Entry(index, term, KIND_SETTLE, mark, 0, settle_payload(ranges_of(live))),)
    entries = []
    for _ in range(step.count):
        span = random.choice((1, 1, 3, 10))
        entries.append(Entry(index, term, KIND_BATCH, mark, span, random.randbytes(step.size_bytes)))
        index += 1
        mark += span + (random.randrange(3) if random.random() < 0.1 else 0)
    return tuple(entries)


async def examine(
    store: Store,
    possible: dict[int, list[LogState]],
    *,
    rotten: bool = False,
    others: Container[int] = (),
) -> dict[int, LogState]:
    """The state of the ledger that each group of the store is in; damaged groups are left out.

    Raises Violation where there is none, where something is damaged though nothing has `rotten`, and for groups
    that are neither possible nor among the `others`.
    """
    found: dict[int, LogState] = {}
    groups = list(store.groups())
    for group in groups:
        if group not in possible and group not in others:
            raise Violation(f"group {group} was never created")
    for group, states in possible.items():
        if group not in groups:
            if all(state.exists for state in states):
                raise Violation(f"group {group} is not there, though its creation was confirmed")
            found[group] = LogState()
            continue
        states = [state for state in states if state.exists]
        log = store.log(group)
        if not states:
            if rotten and log.damage is not None:  # it cannot be told that it was deleted, and it does not serve
                continue
            raise Violation(f"group {group} is there, though its deletion was confirmed")
        try:
            if log.damage is not None:
                _examine_identity(log, states)
                await _examine_damaged(log, states)
                raise log.damage.error(group)
            found[group] = await _examine_group(log, states, Random(group))
        except StorageDamaged as error:
            if not rotten:
                raise Violation(f"group {group} is damaged without cause: {error}") from error
            if error.details.get("group") != group:
                raise Violation(f"damage of group {group} is reported as {error.details}") from error
    return found


async def _examine_group(log: GroupLog, states: list[LogState], random: Random) -> LogState:
    snapshot = await log.load_snapshot()
    machine = Machine.restored(*snapshot) if snapshot else Machine()
    first, replayed = machine.index + 1, list[Entry]()
    await log.replay(machine.index, replayed.extend)
    term, vote = log.hard_state.term, log.hard_state.vote
    state = _match(states, log, machine, replayed, (term, vote))
    live = state.machine().live
    for entry in state.entries[first - 1 :]:
        if log.term_at(entry.index) != entry.term:
            raise Violation(f"term_at({entry.index}) is {log.term_at(entry.index)}, written was {entry.term}")
    await _read_indexes(log, state, first, random)
    await _read_marks(log, state, sorted(live), random)
    return state


def _examine_identity(log: GroupLog, states: list[LogState]) -> None:
    """A replica that can be repaired knows its term and vote, and how its log ends."""
    hard_state = log.hard_state.term, log.hard_state.vote
    end = log.last_index, log.last_term
    known = [
        state
        for state in states
        if state.hard_state == hard_state
        and len(state.entries) == end[0]
        and (state.entries[-1].term if state.entries else 0) == end[1]
    ]
    if log.damage_kind == "repairable" and not known:
        raise Violation(
            f"damaged group {log.group} takes itself for repairable and ends with {end}, {hard_state}:"
            f" {log.damages[0]}; last was {[(len(state.entries), state.hard_state) for state in states[-3:]]}"
        )


async def _examine_damaged(log: GroupLog, states: list[LogState]) -> None:
    """What a damaged group still serves must be what was written."""
    written = {_plain(entry) for state in states for entry in state.entries}
    for index in range(1, max(len(state.entries) for state in states) + 1):
        try:
            entries = [*await log.read(index, 1), *await log.read_marks(index, 1)]
        except StorageDamaged:
            continue
        for entry in entries:
            if _plain(entry) not in written:
                raise Violation(f"damaged group {log.group} serves {_plain(entry)[:5]}, which was never written")


def _match(
    states: list[LogState], log: GroupLog, machine: Machine, replayed: list[Entry], hard_state: tuple[int, int]
) -> LogState:
    reasons: list[str] = []
    got = [_plain(entry) for entry in replayed]
    for state in reversed(states):
        expected = [_plain(entry) for entry in state.entries[machine.index :]]
        if len(state.entries) != log.last_index:
            reasons.append(f"last index {len(state.entries)}")
        elif state.hard_state != hard_state:
            reasons.append(f"hard state {state.hard_state}")
        elif (state.entries[-1].term if state.entries else 0) != log.last_term:
            reasons.append(f"last term {state.entries[-1].term if state.entries else 0}")
        elif got != expected:
            differing = [a[:5] for a, b in zip(got, expected, strict=False) if a != b]
            reasons.append(f"entries {len(expected)} (differing: {differing[:3]})")
        elif not _is_prefix(machine, state):
            reasons.append("another snapshot")
        else:
            return state
    raise Violation(
        f"group {log.group}: snapshot {machine.index}, replayed {[entry[0] for entry in got]}, last index"
        f" {log.last_index}, last term {log.last_term}, hard state {hard_state}, damage {log.damage};"
        f" possible was, last first: {'; '.join(reasons[:6])}"
    )


def _is_prefix(machine: Machine, state: LogState) -> bool:
    expected = LogState(True, state.entries[: machine.index]).machine()
    return expected.chain == machine.chain and sorted(expected.live) == sorted(machine.live)


def _plain(entry: Entry) -> tuple[int, int, int, int, int, bytes]:
    return entry.index, entry.term, entry.kind, entry.mark, entry.span, bytes(entry.payload)


async def _read_indexes(log: GroupLog, state: LogState, first: int, random: Random) -> None:
    """All entries behind the snapshot, by index."""
    while first <= len(state.entries):
        size_bytes = random.choice((1, 500, 5_000, 1 << 20))
        cached = log.cached(first, size_bytes)
        for entries in [await log.read(first, size_bytes)] + ([cached] if cached is not None else []):
            if not entries:
                raise Violation(f"read({first}) gives nothing, the last index is {log.last_index}")
            for entry, expected in zip(entries, state.entries[first - 1 :], strict=False):
                if _plain(entry) != _plain(expected):
                    raise Violation(f"read({first}) gives {_plain(entry)[:5]} for {_plain(expected)[:5]}")
        first += len(entries)


async def _read_marks(log: GroupLog, state: LogState, live: list[int], random: Random) -> None:
    """All live marks."""
    owner = {mark: entry for entry in state.entries for mark in range(entry.mark, entry.mark + entry.span)}
    by_index = {entry.index: entry for entry in state.entries}
    at = 0
    while at < len(live):
        size_bytes = random.choice((1, 500, 5_000, 1 << 20))
        cached = log.cached_marks(live[at], size_bytes)
        for entries in [await log.read_marks(live[at], size_bytes)] + ([cached] if cached is not None else []):
            for entry in entries:
                if entry.index not in by_index or _plain(entry) != _plain(by_index[entry.index]):
                    raise Violation(f"read_marks({live[at]}) gives {_plain(entry)[:5]}, which is not in the log")
            got = {entry.index for entry in entries}
            if owner[live[at]].index not in got:
                first = _plain(entries[0])[:5] if entries else None
                raise Violation(f"live mark {live[at]} (entry {owner[live[at]].index}) is missing; found {first}")
            covered = [mark for mark in live[at:] if mark < entries[-1].mark + entries[-1].span]
            missing = [mark for mark in covered if owner[mark].index not in got]
            if missing:
                raise Violation(f"live marks {missing[:5]} are missing in what read_marks({live[at]}) gives")
        at += len(covered)

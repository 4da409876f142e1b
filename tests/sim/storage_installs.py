"""Snapshots from a leader, for the simulated log store: what the leader has, bringing it, repairing with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from replication.machine import Entry
from replication.storage.log import GroupLog
from replication.storage.store import Store
from tests.sim.history import PAYLOAD_BYTES
from tests.sim.ledger import KIND_BATCH, KIND_SETTLE, LogState, Machine, settle_payload


def leaders_log(state: LogState, agreed: int, random: Random) -> tuple[Entry, ...]:
    """The log of a leader that agrees with this one up to `agreed`, and went its own way from there."""
    entries = list(state.entries[:agreed])
    last = entries[-1] if entries else Entry(0, 0, KIND_BATCH, 0, 0, b"")
    term = max(state.hard_state[0], state.entries[-1].term if state.entries else 0) + 1
    largest = random.choice(PAYLOAD_BYTES)
    index, mark = last.index + 1, last.mark + last.span
    for _ in range(random.randrange(1, 40)):
        if random.random() < 0.2:
            first = random.randrange(mark + 1)
            payload = settle_payload([(first, first + random.randrange(30))])
            entries.append(Entry(index, term, KIND_SETTLE, mark, 0, payload))
        else:
            span = random.choice((1, 1, 3, 10))
            payload = random.randbytes(random.choice((0, 100, largest)))
            entries.append(Entry(index, term, KIND_BATCH, mark, span, payload))
            mark += span
        index += 1
    return tuple(entries)


async def bring(
    log: GroupLog,
    leader: Machine,
    entries: Sequence[Entry],
    agreed: int,
    random: Random,
    begins: Callable[[], None] = lambda: None,
    effective: Callable[[], None] = lambda: None,
    *,
    gives_up: float = 0.02,
) -> bool:
    """Install the leader's state with the live entries that are not here yet, in one attempt or more.

    False: it was given up. `begins` is called when it is committed.
    """
    live = [
        entry
        for entry in entries[: leader.index]
        if any(mark in leader.live for mark in range(entry.mark, entry.mark + entry.span))
    ]
    install = log.begin_install(leader.index, leader.term, agreed)
    at = 0
    while at < len(live):
        if random.random() < 0.1:
            install = log.begin_install(leader.index, leader.term, agreed)
            at = 0
        if random.random() < gives_up:
            await install.abandon()
            return False
        count = random.randrange(1, 12)
        await install.add([entry for entry in live[at : at + count] if not install.has(entry.index)])
        at += count
    checkpoint = leader.checkpoint()
    assert checkpoint is not None, "a leader has applied something"
    known = checkpoint.live if random.random() < 0.5 else None
    begins()
    await install.commit(checkpoint.state, known, entries[-1].mark + entries[-1].span, effective)
    return True


async def repair(store: Store, known: dict[int, list[LogState]], random: Random) -> dict[int, LogState]:
    """Repair every damaged group that is known exactly, from a leader that has all of it, and perhaps more; what
    they are then."""
    repaired: dict[int, LogState] = {}
    for group in store.groups():
        states = [state for state in known.get(group, []) if state.exists]
        log = store.log(group)
        if log.damage_kind == "none" or len(states) != 1 or not states[0].entries:
            continue
        (state,) = states
        entries = state.entries
        agreed = len(entries) if log.damage_kind == "repairable" else random.randrange(len(entries) + 1)
        if random.random() < 0.5:
            entries = leaders_log(state, len(entries), random)
        leader = LogState(True, entries).machine()
        if await bring(log, leader, entries, agreed, random, gives_up=0):
            repaired[group] = LogState(True, entries, (log.hard_state.term, log.hard_state.vote))
    return repaired

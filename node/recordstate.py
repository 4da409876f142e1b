"""What a record is to a shared subscription, while it is not simply done or not yet delivered."""

from __future__ import annotations

from typing import NamedTuple

NEVER_MS = 1 << 62
"""A deadline that no stamp reaches: a lease for NEVER_MS lasts until it is settled or its consumer is gone."""

LEASED = 1
RETURNED = 2
DELAYED = 3
DEAD_LETTER_PENDING = 4
"""On its way to the dead-letter queue: outstanding, leased to nobody, offered to nobody."""
KINDS = 5
"""Kinds are below this number; 0 is none."""


class RecordState(NamedTuple):
    """What an exception is; one object for all records that share it."""

    kind: int
    deliveries: int
    """How often it was leased, this lease included."""
    first_delivery_ms: int
    """Stamp of the first of those; 0 if there is none."""
    until_ms: int = NEVER_MS
    """Leased: the deadline. Delayed: when it comes back."""
    lease_id: int = -1
    consumer: str = ""
    leased_ms: int = 0
    """Stamp of this lease."""


UNDELIVERED = RecordState(RETURNED, 0, 0)
"""Below the end though it was never delivered: something behind it was leased or dropped first."""


class Pending(NamedTuple):
    """A run of records that somebody holds."""

    first: int
    last: int
    consumer: str
    lease_id: int
    deliveries: int
    idle_ms: int
    """Since this lease began."""
    first_delivery_ms: int
    deadline_ms: int


class Summary(NamedTuple):
    """A subscription in numbers."""

    floor: int
    end: int
    leased: int
    returned: int
    delayed: int
    dead_letter_pending: int
    ranges: int
    consumers: int


def returned(state: RecordState, stamp_ms: int, delay_ms: int = 0, count_delivery: bool = True) -> RecordState:
    """What a leased or delayed record becomes when it comes back."""
    deliveries = state.deliveries if count_delivery else state.deliveries - 1
    since_ms = state.first_delivery_ms if deliveries else 0
    if delay_ms > 0:
        return RecordState(DELAYED, deliveries, since_ms, min(stamp_ms + delay_ms, NEVER_MS))
    return RecordState(RETURNED, deliveries, since_ms)


def pending(first: int, last: int, state: RecordState, stamp_ms: int) -> Pending:
    """A leased run as a listing shows it."""
    return Pending(
        first,
        last,
        state.consumer,
        state.lease_id,
        state.deliveries,
        max(0, stamp_ms - state.leased_ms),
        state.first_delivery_ms,
        state.until_ms,
    )

"""No two consumers hold one message at a time, as the brokers themselves see it.

A message that was leased to somebody is leased to another only when that one has ended (detached, told that it is
over, reported as gone, its node's process dead), or has given it back, or its time is over by the log's own time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple


class Held(NamedTuple):
    """One lease of one message."""

    consumer: str
    lease_id: int
    deliveries: int
    until_ms: int


@dataclass(slots=True)
class LeaseChecker:
    """Of all queues."""

    broken: Callable[[str], None]
    _held: dict[tuple[str, int], Held] = field(default_factory=dict)
    _ended: dict[str, None] = field(default_factory=dict)
    _dead: dict[tuple[int, int], None] = field(default_factory=dict)
    _returned: dict[tuple[str, int, int], None] = field(default_factory=dict)
    _acked: dict[tuple[str, int], None] = field(default_factory=dict)

    def ended(self, consumer: str) -> None:
        """A consumer was told that it is over, or has said so."""
        self._ended[consumer] = None

    def died(self, node: int, incarnation: int) -> None:
        """A node's process is dead, and its consumers with it."""
        self._dead[node, incarnation] = None

    def returned(self, partition: str, lease_id: int, first: int, last: int) -> None:
        """The log says that these messages were given back."""
        for offset in range(first, last + 1):
            self._returned[partition, offset, lease_id] = None

    def acknowledged(self, partition: str, stamp_ms: int, lease_id: int, first: int, last: int) -> None:
        """The log says at `stamp_ms` that these messages are done with, if that lease held them."""
        for offset in range(first, last + 1):
            if self._holds(partition, offset, lease_id, stamp_ms):
                self._acked[partition, offset] = None

    def extended(self, partition: str, stamp_ms: int, lease_id: int, first: int, last: int, until_ms: int) -> None:
        """The log says at `stamp_ms` that these messages are held until then, if that lease held them."""
        for offset in range(first, last + 1):
            if self._holds(partition, offset, lease_id, stamp_ms):
                self._held[partition, offset] = self._held[partition, offset]._replace(until_ms=until_ms)

    def granted(
        self,
        partition: str,
        consumer: str,
        lease_id: int,
        stamp_ms: int,
        until_ms: int,
        runs: Iterable[tuple[int, int, int]],
    ) -> None:
        """A broker hands out (first, last, deliveries) under a lease that was given at `stamp_ms` of the log."""
        for first, last, deliveries in runs:
            for offset in range(first, last + 1):
                self._grant(partition, offset, Held(consumer, lease_id, deliveries, until_ms), stamp_ms)

    def _grant(self, partition: str, offset: int, held: Held, stamp_ms: int) -> None:
        where = f"{partition} offset {offset}"
        if (partition, offset) in self._acked:
            self.broken(f"{where} is leased to {held.consumer}, and was acknowledged before")
        former = self._held.get((partition, offset))
        self._held[partition, offset] = held
        if former is None or former == held:
            return
        if former.deliveries >= held.deliveries:
            self.broken(f"{where} is leased with delivery {held.deliveries} behind {former.deliveries}")
        if stamp_ms < former.until_ms and not self._may_be_over(partition, offset, former):
            self.broken(f"{where} is leased to {held.consumer} while {former.consumer} holds it")

    def _holds(self, partition: str, offset: int, lease_id: int, stamp_ms: int) -> bool:
        """That lease certainly holds it: whoever is late may or may not be heard."""
        held = self._held.get((partition, offset))
        return (
            held is not None
            and held.lease_id == lease_id
            and stamp_ms < held.until_ms
            and not self._may_be_over(partition, offset, held)
        )

    def _may_be_over(self, partition: str, offset: int, held: Held) -> bool:
        node, incarnation, _ = held.consumer.split(".")
        return (
            held.consumer in self._ended
            or (int(node), int(incarnation)) in self._dead
            or (partition, offset, held.lease_id) in self._returned
        )

"""What programs publish and receive."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from plait.wire import Buffer
from plait.wire.batch import Record

if TYPE_CHECKING:
    from plait.client.leases import Lease

Headers = Mapping[str, Buffer] | Iterable[tuple[str, Buffer]]
"""Names with values. A mapping, or pairs where a name may come more than once; the order is kept."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Message:
    """A message to publish: for `publish_many`, where a value alone is not enough.

    `key`: messages of one key go to one partition, in order. `headers`: see `Headers`. `timestamp_ms`:
    milliseconds since 1970 UTC; left out, the time at which it was handed over.
    """

    __slots__ = ("headers", "key", "timestamp_ms", "value")

    def __init__(
        self,
        value: Buffer,
        *,
        key: Buffer | None = None,
        headers: Headers | None = None,
        timestamp_ms: int | None = None,
    ) -> None:
        self.value = value
        self.key = key
        self.headers = headers
        self.timestamp_ms = timestamp_ms

    def __repr__(self) -> str:
        return f"Message({bytes(self.value)!r}, key={self.key!r})"


class Received:
    """A message from a topic's partition."""

    __slots__ = ("_record", "partition")

    def __init__(self, record: Record, partition: int) -> None:
        self._record = record
        self.partition = partition

    @property
    def value(self) -> bytes:
        """The payload; b"" for a record that has none (`has_value`)."""
        return self._record.value or b""

    @property
    def has_value(self) -> bool:
        """False for Kafka's tombstones: records with a key and no value at all."""
        return self._record.value is not None

    @property
    def key(self) -> bytes | None:
        """The key, if it was published with one."""
        return self._record.key

    @property
    def offset(self) -> int:
        """The message's place in its partition, counted in records from 0."""
        return self._record.offset

    @property
    def timestamp_ms(self) -> int:
        """Milliseconds since 1970 UTC, as its producer gave them (or the broker, where the topic says so)."""
        return self._record.timestamp_ms

    @property
    def timestamp(self) -> datetime:
        """`timestamp_ms` as an aware datetime in UTC."""
        return _EPOCH + timedelta(milliseconds=self._record.timestamp_ms)

    @property
    def headers(self) -> dict[str, bytes]:
        """The headers by name; of a name that comes twice, the last. Values that are absent are b""."""
        return {name: value or b"" for name, value in self._record.headers}

    @property
    def header_items(self) -> list[tuple[str, bytes | None]]:
        """All headers, in order, repeated names included."""
        return list(self._record.headers)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(partition={self.partition}, offset={self.offset}, value={self.value!r})"


class Leased(Received):
    """A message on lease from a queue: yours until it is acknowledged, returned, or the lease ends.

    Settle every one. What is neither acknowledged nor returned comes again, to whichever consumer is free, when
    its lease ends: the time of the queue (`lease_ms`) or of `consume(lease_s=...)`, which the client extends for
    you while the consumer is open (`auto_extend`).
    """

    __slots__ = ("_settled", "lease")

    def __init__(self, record: Record, lease: Lease) -> None:
        self._record = record
        self.partition = lease.partition
        self.lease = lease
        self._settled = False

    @property
    def deliveries(self) -> int:
        """How often the message was handed out, this time included: 1 the first time."""
        return self.lease.deliveries

    async def ack(self) -> None:
        """Acknowledge: the message is done with. Returns once that is on disk; it never comes again.

        Waits for the broker, so a loop that acknowledges one by one goes at the pace of the disk: run several
        consumers, or use `ack_soon`. Raises LeaseLost when the lease had ended (others may have the message),
        OutcomeUnknown when the connection broke before the answer came.
        """
        if not self._settled:
            self._settled = True
            await self.lease.book.settle(self.lease, self._record.offset, "ack").confirmed(self._record.offset)

    def ack_soon(self) -> None:
        """Acknowledge without waiting: all acknowledgements of one turn of the loop travel together.

        The fast way. If the process dies before the broker has it, the message comes again. `Consumer.flush` waits
        for all that is under way and raises what went wrong.
        """
        if not self._settled:
            self._settled = True
            self.lease.book.settle_soon(self.lease, self._record.offset, "ack")

    async def nack(self) -> None:
        """Give the message back: it is handed out again, in its old place. Raises as `ack` does."""
        if not self._settled:
            self._settled = True
            await self.lease.book.settle(self.lease, self._record.offset, "return").confirmed(self._record.offset)

    def nack_soon(self) -> None:
        """Give the message back without waiting; see `nack` and `ack_soon`."""
        if not self._settled:
            self._settled = True
            self.lease.book.settle_soon(self.lease, self._record.offset, "return")

    async def extend(self, lease_s: float) -> None:
        """Keep the message `lease_s` seconds from now. Raises as `ack` does."""
        await self.lease.book.extend(self.lease, self._record.offset, round(lease_s * 1000))


def header_pairs(headers: Headers | None) -> tuple[tuple[str, Buffer], ...]:
    """Headers in the form in which batches take them. Raises TypeError for names that are not text."""
    if not headers:
        return ()
    pairs = tuple(headers.items() if isinstance(headers, Mapping) else headers)
    for name, value in pairs:
        if not isinstance(name, str) or isinstance(value, str):
            raise TypeError(f"a header is a name (str) with a value (bytes), not {name!r}: {value!r}")
    return pairs

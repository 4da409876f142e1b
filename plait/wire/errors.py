"""Every error that Plait answers with: one class per cause, one stable code each.

The broker raises them, gateways translate them, the SDK raises them again: the same classes on both sides.
A message says what happened, what was not done, and what to do.
"""

from __future__ import annotations

from typing import Any, ClassVar


class PlaitError(Exception):
    """Base of all of them.

    `code` is stable and meant for programs. `retriable`: the same request may succeed later. `unknown`: the
    request may have been carried out (only an idempotent one may simply be sent again).
    """

    code: ClassVar[str] = "internal"
    retriable: ClassVar[bool] = False
    unknown: ClassVar[bool] = False

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def __str__(self) -> str:
        return f"{self.message} [{self.code}]"

    @property
    def retry_after_s(self) -> float:
        """Seconds after which trying again makes sense, as the broker said (Overloaded, StorageFull); else 0."""
        return float(self.details.get("retry_after_ms", 0)) / 1000


class InternalError(PlaitError):
    """A defect of the broker; its log has the details."""


class BadRequest(PlaitError):
    """The request cannot be understood or breaks the protocol's rules. Nothing was done."""

    code = "bad_request"


class UnsupportedVersion(PlaitError):
    """Client and broker share no protocol version. The connection ends."""

    code = "unsupported_version"


class NameInvalid(PlaitError):
    """A name has characters or a length that names may not have."""

    code = "name_invalid"


class NotFound(PlaitError):
    """There is no topic, queue, partition, subscription or node of that name."""

    code = "not_found"


class AlreadyExists(PlaitError):
    """The name is taken by something with other settings. Nothing was changed."""

    code = "already_exists"


class WrongKind(PlaitError):
    """A queue's operation was asked of a topic, or the other way round."""

    code = "wrong_kind"


class SettingInvalid(PlaitError):
    """A setting is unknown or its value is out of range."""

    code = "setting_invalid"


class RecordTooLarge(PlaitError):
    """A record or batch is over its limit; `details` has limit_bytes and size_bytes. It was not stored."""

    code = "record_too_large"


class BatchInvalid(PlaitError):
    """A record batch is damaged: length, checksum, counts or compression. It was not stored."""

    code = "batch_invalid"


class OffsetOutOfRange(PlaitError):
    """The offset is before the first kept record or behind the end; `details` has start and end."""

    code = "offset_out_of_range"


class SequenceOutOfOrder(PlaitError):
    """An idempotent producer's sequence has a gap. The batch was not stored; make a new producer."""

    code = "sequence_out_of_order"


class ProducerFenced(PlaitError):
    """A newer epoch of this producer exists. The batch was not stored."""

    code = "producer_fenced"


class LeaseLost(PlaitError):
    """The lease ended (deadline, return or another consumer) before this was asked; others may have the record."""

    code = "lease_lost"


class StaleGeneration(PlaitError):
    """A member of a consumer group does not hold the partitions (any more) that it speaks of, or is no member.

    Nothing was done: others may have the partitions. `details`, where there is more to say: partitions.
    """

    code = "stale_generation"


class Overloaded(PlaitError):
    """An admission limit is reached; nothing was stored. `details`: reason, retry_after_ms."""

    code = "overloaded"
    retriable = True


class LimitReached(PlaitError):
    """A bound of the broker is reached (connections, consumers, topics, pending requests)."""

    code = "limit_reached"
    retriable = True


class StorageFull(PlaitError):
    """Disks are nearly full: nothing was stored; consuming and acknowledging go on. `details`: reason,
    retry_after_ms."""

    code = "storage_full"
    retriable = True


class StorageDamaged(PlaitError):
    """Part of the partition's data on disk is damaged: it is not served. `details` has file and position."""

    code = "storage_damaged"


class NotLeader(PlaitError):
    """This node does not lead what was asked for (any more). Nothing was done; ask the one who does.

    `details`, as far as it is known: leader, a node's id (0: nobody leads now), and address, its "host:port".
    """

    code = "not_leader"
    retriable = True


class Unavailable(PlaitError):
    """No connection, or nobody can serve this now. Nothing was done."""

    code = "unavailable"
    retriable = True


class OutcomeUnknown(PlaitError):
    """The request was under way when the connection or the leadership was lost: it may or may not be done."""

    code = "outcome_unknown"
    retriable = True
    unknown = True


class TimedOut(PlaitError):
    """The time allowed ran out before the request was taken up. Nothing was done."""

    code = "timed_out"
    retriable = True


class Closed(PlaitError):
    """The client, producer or consumer was closed. Nothing was done."""

    code = "closed"


def _all_classes(base: type[PlaitError]) -> dict[str, type[PlaitError]]:
    found = {base.code: base}
    for child in base.__subclasses__():
        found |= _all_classes(child)
    return found


BY_CODE: dict[str, type[PlaitError]] = _all_classes(PlaitError) | {"internal": InternalError}


def from_wire(code: str, message: str, details: dict[str, Any]) -> PlaitError:
    """The error that a peer sent. A code that this version does not know becomes an InternalError."""
    keys = {key: value for key, value in details.items() if isinstance(key, str)}
    kind = BY_CODE.get(code)
    if kind is None:
        return InternalError(f"{message} (unknown code {code})", **keys)
    return kind(message, **keys)

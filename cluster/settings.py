"""The settings of a topic and of a queue: what there is, what it may be, and what it is when not given.

    mapping from a user ──from_mapping──> TopicSettings | QueueSettings ──to_mapping──> mapping for a description

Each field carries its rule, so that a setting is written down in one place. None means "no limit".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any, Literal

from cluster.names import check_queue_name
from cluster.placement import REPLICAS_MAX
from plait.wire.errors import NameInvalid, SettingInvalid

Kind = Literal["topic", "queue"]
KINDS: tuple[Kind, ...] = ("topic", "queue")

Overflow = Literal["refuse", "block", "drop-oldest", "dead-letter"]
OVERFLOWS: tuple[Overflow, ...] = ("refuse", "block", "drop-oldest", "dead-letter")

PARTITIONS_MAX = 1_024
"""Partitions of one topic or queue."""
RETENTION_MS_DEFAULT = 7 * 24 * 3_600_000
"""How long a topic keeps its records unless it says otherwise."""
RECORD_BYTES_DEFAULT = 1_048_576
"""Largest record that a broker takes unless it is told otherwise."""
RECORD_BYTES_MAX = 64 * 1_048_576
"""Largest record that any broker or topic can be set to take."""
LEASE_MS_DEFAULT = 30_000
"""How long a consumer has a record to itself unless the queue says otherwise."""
LEASE_MS_MIN = 10
"""Shortest lease: below it the broker would do nothing but take records back."""
LEASE_MS_MAX = 12 * 3_600_000
"""Longest lease (as Amazon SQS's longest visibility timeout)."""
DELIVERIES_MAX = 1_000_000
"""Largest `max_deliveries`."""
QUANTITY_MAX = 2**60
"""Largest value of a setting that counts records, bytes or milliseconds without a bound of its own."""

Check = Callable[[str, Any], Any]


def _whole(low: int, high: int, unit: str, *, optional: bool = False) -> Check:
    def check(name: str, value: Any) -> Any:
        if value is None and optional:
            return None
        # True and 1.0 are equal to 1, but whoever wrote them meant something else
        if type(value) is not int:
            raise SettingInvalid(f"setting {name} must be a whole number of {unit}, not {value!r}")
        if not low <= value <= high:
            raise SettingInvalid(f"setting {name} must be between {low:,} and {high:,} {unit}, not {value:,}")
        return value

    return check


def _one_of(choices: tuple[str, ...]) -> Check:
    def check(name: str, value: Any) -> Any:
        if value not in choices:
            raise SettingInvalid(f"setting {name} must be one of {', '.join(choices)}, not {value!r}")
        return value

    return check


def _queue_name(name: str, value: Any) -> Any:
    if value is None:
        return None
    try:
        return check_queue_name(value)
    except NameInvalid as error:
        raise SettingInvalid(f"setting {name}: {error.message}")


def _setting(default: Any, check: Check) -> Any:
    return field(default=default, metadata={"check": check})


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSettings:
    """Settings of a topic: records stay until they are too old or too many."""

    partitions: int = _setting(1, _whole(1, PARTITIONS_MAX, "partitions"))
    replicas: int | None = _setting(None, _whole(1, REPLICAS_MAX, "replicas", optional=True))
    """Copies of each partition, on as many nodes; None: three, or as many as there are nodes."""
    retention_ms: int | None = _setting(
        RETENTION_MS_DEFAULT, _whole(1, QUANTITY_MAX, "milliseconds", optional=True)
    )
    """Age at which records go; None keeps them for ever."""
    retention_bytes: int | None = _setting(None, _whole(1, QUANTITY_MAX, "bytes", optional=True))
    """Bytes per partition beyond which the oldest records go."""
    max_record_bytes: int | None = _setting(None, _whole(1, RECORD_BYTES_MAX, "bytes", optional=True))
    """Largest record; None is the broker's own limit."""
    lease_ms: int = _setting(LEASE_MS_DEFAULT, _whole(LEASE_MS_MIN, LEASE_MS_MAX, "milliseconds"))
    max_deliveries: int | None = _setting(None, _whole(1, DELIVERIES_MAX, "deliveries", optional=True))
    dead_letter: str | None = _setting(None, _queue_name)
    """The queue that takes what this one gives up."""
    max_publish_bytes_per_s: int | None = _setting(
        None, _whole(1, QUANTITY_MAX, "bytes per second", optional=True)
    )
    """Per partition."""
    max_publish_records_per_s: int | None = _setting(
        None, _whole(1, QUANTITY_MAX, "records per second", optional=True)
    )
    """Per partition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings:
    """Settings of a queue: records stay until they are acknowledged, and what a full queue does."""

    partitions: int = _setting(1, _whole(1, PARTITIONS_MAX, "partitions"))
    replicas: int | None = _setting(None, _whole(1, REPLICAS_MAX, "replicas", optional=True))
    """Copies of each partition, on as many nodes; None: three, or as many as there are nodes."""
    max_record_bytes: int | None = _setting(None, _whole(1, RECORD_BYTES_MAX, "bytes", optional=True))
    """Largest record; None is the broker's own limit."""
    lease_ms: int = _setting(LEASE_MS_DEFAULT, _whole(LEASE_MS_MIN, LEASE_MS_MAX, "milliseconds"))
    max_deliveries: int | None = _setting(None, _whole(1, DELIVERIES_MAX, "deliveries", optional=True))
    max_backlog_records: int | None = _setting(None, _whole(1, QUANTITY_MAX, "records", optional=True))
    """Per partition."""
    max_backlog_bytes: int | None = _setting(None, _whole(1, QUANTITY_MAX, "bytes", optional=True))
    """Per partition."""
    overflow: Overflow = _setting("refuse", _one_of(OVERFLOWS))  # noqa: RUF009 - a field() in the end
    """What a publish meets when the backlog is full."""
    dead_letter: str | None = _setting(None, _queue_name)
    """The queue that takes what this one gives up."""
    max_publish_bytes_per_s: int | None = _setting(
        None, _whole(1, QUANTITY_MAX, "bytes per second", optional=True)
    )
    """Per partition."""
    max_publish_records_per_s: int | None = _setting(
        None, _whole(1, QUANTITY_MAX, "records per second", optional=True)
    )
    """Per partition."""


Settings = TopicSettings | QueueSettings

_CLASSES: dict[Kind, type[TopicSettings] | type[QueueSettings]] = {"topic": TopicSettings, "queue": QueueSettings}


def check_kind(kind: str) -> Kind:
    """The kind, if there is such a one. Raises SettingInvalid."""
    for known in KINDS:
        if kind == known:
            return known
    raise SettingInvalid(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")


def known_settings(kind: Kind) -> list[str]:
    """Names of all settings of a topic or queue, in the order of their declaration."""
    return [each.name for each in fields(_CLASSES[kind])]


def settings_from(kind: str, mapping: Mapping[str, Any], record_limit_bytes: int = RECORD_BYTES_MAX) -> Settings:
    """What the mapping asks for, with defaults for the rest.

    `record_limit_bytes` is the broker's own limit, which no topic may go beyond. Raises SettingInvalid for a
    key that is unknown (naming the nearest known one) and for a value out of range.
    """
    checked_kind = check_kind(kind)
    cls = _CLASSES[checked_kind]
    checks: dict[str, Check] = {each.name: each.metadata["check"] for each in fields(cls)}
    values: dict[str, Any] = {}
    for name, value in mapping.items():
        if name not in checks:
            raise SettingInvalid(_unknown(checked_kind, name))
        values[name] = checks[name](name, value)
    settings = cls(**values)
    _check_together(settings, record_limit_bytes)
    return settings


def settings_to_mapping(settings: Settings) -> dict[str, Any]:
    """Every setting with its value; `settings_from` makes the same settings of it."""
    return {each.name: getattr(settings, each.name) for each in fields(settings)}


def record_limit_bytes(settings: Settings, broker_limit_bytes: int) -> int:
    """The largest record that may be published to what has these settings."""
    own = settings.max_record_bytes
    return broker_limit_bytes if own is None else min(own, broker_limit_bytes)


def _check_together(settings: Settings, broker_limit_bytes: int) -> None:
    own = settings.max_record_bytes
    if own is not None and own > broker_limit_bytes:
        raise SettingInvalid(
            f"setting max_record_bytes is {own:,}, but this broker takes records of at most {broker_limit_bytes:,}"
        )
    if isinstance(settings, QueueSettings) and settings.overflow == "dead-letter" and settings.dead_letter is None:
        raise SettingInvalid(
            "setting overflow is dead-letter: setting dead_letter must name the queue that takes them"
        )


def _unknown(kind: Kind, name: object) -> str:
    if not isinstance(name, str):
        return f"the name of a setting must be a text, not {name!r}"
    other: Kind = "queue" if kind == "topic" else "topic"
    if name in known_settings(other):
        return f"setting {name} is one of a {other}, not of a {kind}"
    near = get_close_matches(name, known_settings(kind), n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known_settings(kind))}"
    return f"a {kind} has no setting {name!r}: {hint}"

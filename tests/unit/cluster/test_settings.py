"""Settings: defaults, ranges, and what is said about mistakes."""

from __future__ import annotations

import pytest

from cluster import settings as s
from plait.wire.errors import SettingInvalid

ALL_OF_A_QUEUE = {
    "partitions": 4,
    "max_record_bytes": 1000,
    "lease_ms": 60_000,
    "max_deliveries": 5,
    "max_backlog_records": 10,
    "max_backlog_bytes": 20,
    "overflow": "dead-letter",
    "dead_letter": "dead",
    "max_publish_bytes_per_s": 30,
    "max_publish_records_per_s": 40,
}


def test_a_topic_without_settings_keeps_records_for_a_week_in_one_partition():
    topic = s.settings_from("topic", {})
    assert isinstance(topic, s.TopicSettings)
    assert (topic.partitions, topic.retention_ms, topic.retention_bytes) == (1, 604_800_000, None)
    assert topic.lease_ms == 30_000


def test_a_queue_without_settings_has_no_limits_but_refuses_at_them():
    queue = s.settings_from("queue", {})
    assert isinstance(queue, s.QueueSettings)
    assert (queue.partitions, queue.overflow, queue.lease_ms) == (1, "refuse", 30_000)
    assert queue.max_backlog_records is queue.max_backlog_bytes is queue.max_publish_bytes_per_s is None


@pytest.mark.parametrize(
    ("kind", "mapping"),
    [("topic", {}), ("queue", {}), ("queue", ALL_OF_A_QUEUE), ("topic", {"retention_ms": None})],
)
def test_settings_survive_the_way_through_a_mapping(kind, mapping):
    made = s.settings_from(kind, mapping)
    whole = s.settings_to_mapping(made)
    assert list(whole) == s.known_settings(kind)
    assert whole | mapping == whole
    assert s.settings_from(kind, whole) == made


@pytest.mark.parametrize(
    ("kind", "key", "said"),
    [
        ("queue", "leese_ms", "did you mean lease_ms"),
        ("queue", "max_backlog_record", "did you mean max_backlog_records"),
        ("queue", "retention_ms", "is one of a topic, not of a queue"),
        ("topic", "overflow", "is one of a queue, not of a topic"),
        ("topic", "zzz", "known are partitions"),
        ("topic", 5, "must be a text"),
    ],
)
def test_an_unknown_setting_is_refused_with_a_hint(kind, key, said):
    with pytest.raises(SettingInvalid, match=said):
        s.settings_from(kind, {key: 1})


@pytest.mark.parametrize(
    ("key", "low", "high"),
    [
        ("partitions", 1, s.PARTITIONS_MAX),
        ("lease_ms", s.LEASE_MS_MIN, s.LEASE_MS_MAX),
        ("max_record_bytes", 1, s.RECORD_BYTES_MAX),
        ("max_deliveries", 1, s.DELIVERIES_MAX),
        ("max_backlog_records", 1, s.QUANTITY_MAX),
        ("max_publish_bytes_per_s", 1, s.QUANTITY_MAX),
    ],
)
def test_a_number_is_taken_at_its_bounds_and_refused_beyond(key, low, high):
    for value in (low, high):
        assert getattr(s.settings_from("queue", {key: value}), key) == value
    for value in (low - 1, high + 1, float(low), True, str(low), [low]):
        with pytest.raises(SettingInvalid, match=key):
            s.settings_from("queue", {key: value})


@pytest.mark.parametrize("key", ["partitions", "lease_ms", "overflow"])
def test_none_is_no_value_where_there_must_be_one(key):
    with pytest.raises(SettingInvalid, match=key):
        s.settings_from("queue", {key: None})


@pytest.mark.parametrize("overflow", ["refuse", "block", "drop-oldest"])
def test_every_overflow_policy_is_known(overflow):
    assert s.settings_from("queue", {"overflow": overflow}).overflow == overflow


def test_dead_letter_overflow_needs_a_queue_to_go_to():
    with pytest.raises(SettingInvalid, match="dead_letter must name"):
        s.settings_from("queue", {"overflow": "dead-letter"})


def test_a_dead_letter_queue_needs_a_legal_name():
    with pytest.raises(SettingInvalid, match="dead_letter"):
        s.settings_from("queue", {"dead_letter": "a b"})


def test_records_cannot_be_set_larger_than_the_broker_takes():
    assert s.settings_from("topic", {"max_record_bytes": 100}, record_limit_bytes=100).max_record_bytes == 100
    with pytest.raises(SettingInvalid, match="at most 100"):
        s.settings_from("topic", {"max_record_bytes": 101}, record_limit_bytes=100)


def test_the_smaller_of_both_record_limits_counts():
    assert s.record_limit_bytes(s.settings_from("topic", {}), 100) == 100
    assert s.record_limit_bytes(s.settings_from("topic", {"max_record_bytes": 50}), 100) == 50
    assert s.record_limit_bytes(s.settings_from("topic", {"max_record_bytes": 500}), 100) == 100


def test_there_are_two_kinds():
    with pytest.raises(SettingInvalid, match="topic, queue"):
        s.settings_from("stream", {})

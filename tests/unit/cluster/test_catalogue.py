"""The catalogue: what commands do to it, and that it comes back from its snapshot the same."""

from __future__ import annotations

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import catalogue as c
from cluster.commands import (
    AllocateProducers,
    Bootstrap,
    Command,
    CommandUnknown,
    CreateTopic,
    DeleteTopic,
    RegisterNode,
    decode_command,
    encode_command,
)
from cluster.nodes import Node
from plait.wire import errors


class House:
    """A catalogue with its log."""

    def __init__(self, founded: bool = True) -> None:
        self.catalogue = c.Catalogue()
        self.index = 0
        if founded:
            self.do(Bootstrap("here", 1))

    def do(self, command: Command) -> c.Result:
        self.index += 1
        return self.catalogue.apply_command(self.index, encode_command(command))

    def value(self, command: Command):
        result = self.do(command)
        assert result.error is None, result.error
        return result.value

    def refused(self, command: Command, error: type[errors.PlaitError]) -> errors.PlaitError:
        before = self.catalogue.version
        result = self.do(command)
        assert isinstance(result.error, error)
        assert (result.value, result.changed, self.catalogue.version) == (None, False, before)
        return result.error


@pytest.fixture
def house() -> House:
    return House()


def test_bootstrap_gives_the_cluster_its_id_and_its_own_topic(house):
    catalogue = house.catalogue
    assert (catalogue.cluster_id, catalogue.version) == ("here", 1)
    own = catalogue.topic(c.COORDINATOR_TOPIC)
    assert own is not None
    assert (own.internal, own.groups, own.settings.partitions) == (True, (1,), 1)
    assert catalogue.partition_of(1) == (own, 0)
    assert catalogue.partition_of(c.METADATA_GROUP) is None


def test_a_cluster_has_as_many_coordinators_as_it_was_founded_with():
    house = House(founded=False)
    house.refused(Bootstrap("here", 1, {1: 0}, 0), errors.BadRequest)
    house.refused(Bootstrap("here", 1, {1: 0}, c.COORDINATORS_MAX + 1), errors.BadRequest)
    house.do(Bootstrap("here", 1, {1: 0}, 8))
    house.do(Bootstrap("here", 2, {1: 0}, 4))
    own = house.catalogue.topic(c.COORDINATOR_TOPIC)
    assert own is not None
    assert own.groups == tuple(range(1, 9))


def test_a_bootstrap_of_before_there_were_several_coordinators_makes_one():
    catalogue = c.Catalogue()
    catalogue.apply_command(1, cbor2.dumps([1, 1, "here", 1]))
    own = catalogue.topic(c.COORDINATOR_TOPIC)
    assert own is not None
    assert own.groups == (1,)


def test_a_second_bootstrap_founds_nothing(house):
    result = house.do(Bootstrap("here", 2))
    assert (result.value, result.changed) == ("here", False)
    house.refused(Bootstrap("there", 3), errors.AlreadyExists)
    assert house.catalogue.cluster_id == "here"


def test_nothing_works_before_bootstrap():
    house = House(founded=False)
    house.refused(CreateTopic("queue", "q", {}, 1), errors.Unavailable)
    house.refused(RegisterNode(1, "n", 1), errors.Unavailable)


def test_a_nodes_incarnation_rises_with_each_start(house):
    assert house.value(RegisterNode(7, "a", 10)).incarnation == 1
    assert house.value(RegisterNode(8, "b", 11)).incarnation == 1
    assert house.value(RegisterNode(7, "renamed", 12)) == Node(7, "renamed", 2, 12)
    assert [node.node_id for node in house.catalogue.nodes()] == [1, 7, 8]


@pytest.mark.parametrize("node_id", [0, -1, 2**31])
def test_node_ids_have_bounds(house, node_id):
    house.refused(RegisterNode(node_id, "a", 1), errors.BadRequest)


def test_a_topic_gets_an_id_and_a_group_per_partition(house):
    topic = house.value(CreateTopic("topic", "t", {"partitions": 3}, 50))
    assert (topic.kind, topic.groups, topic.created_ms) == ("topic", (2, 3, 4), 50)
    assert house.catalogue.topic("t") is house.catalogue.topic_by_id(topic.topic_id) is topic
    assert house.catalogue.partition_of(3) == (topic, 1)


def test_creating_the_same_again_is_the_same(house):
    first = house.value(CreateTopic("queue", "q", {}, 1))
    again = house.do(CreateTopic("queue", "q", {"overflow": "refuse"}, 2))
    assert (again.value, again.changed) == (first, False)


def test_creating_something_else_of_that_name_says_what_differs(house):
    house.value(CreateTopic("queue", "q", {}, 1))
    error = house.refused(CreateTopic("queue", "q", {"lease_ms": 99}, 2), errors.AlreadyExists)
    assert "lease_ms is 30000, not 99" in error.message
    error = house.refused(CreateTopic("topic", "q", {}, 3), errors.AlreadyExists)
    assert "q is a queue" in error.message


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (CreateTopic("queue", "a b", {}, 1), errors.NameInvalid),
        (CreateTopic("queue", "plait.own", {}, 1), errors.NameInvalid),
        (CreateTopic("stream", "s", {}, 1), errors.SettingInvalid),
        (CreateTopic("queue", "q", {"parts": 3}, 1), errors.SettingInvalid),
        (CreateTopic("queue", "q", {"dead_letter": "q"}, 1), errors.SettingInvalid),
        (DeleteTopic("nothing", 0, 1), errors.NotFound),
        (DeleteTopic(c.COORDINATOR_TOPIC, 0, 1), errors.NameInvalid),
        (AllocateProducers(1, 1, 1), errors.NotFound),
    ],
)
def test_what_cannot_be_done_is_refused_and_changes_nothing(house, command, error):
    house.refused(command, error)


def test_a_deleted_topics_groups_are_deleted_and_never_come_back(house):
    first = house.value(CreateTopic("queue", "q", {"partitions": 2}, 1))
    assert house.value(DeleteTopic("q", 0, 2)) == first
    assert house.catalogue.topic("q") is house.catalogue.topic_by_id(first.topic_id) is None
    second = house.value(CreateTopic("queue", "q", {"partitions": 2}, 3))
    assert second.topic_id > first.topic_id
    assert min(second.groups) > max(first.groups)
    assert [house.catalogue.group_is_deleted(group) for group in (0, 1, *first.groups, *second.groups, 99)] == [
        *(False, False),
        *(True, True),
        *(False, False),
        False,
    ]


def test_deleting_by_id_spares_a_later_topic_of_that_name(house):
    first = house.value(CreateTopic("queue", "q", {}, 1))
    house.value(DeleteTopic("q", first.topic_id, 2))
    house.value(CreateTopic("queue", "q", {}, 3))
    house.refused(DeleteTopic("q", first.topic_id, 4), errors.NotFound)


def test_producer_ids_come_in_blocks_that_do_not_overlap(house):
    house.value(RegisterNode(1, "a", 1))
    first = house.value(AllocateProducers(1, 1, 2))
    second = house.value(AllocateProducers(1, 1, 3))
    assert first.last - first.first + 1 == c.PRODUCER_BLOCK_IDS
    assert second.first == first.last + 1


def test_an_earlier_incarnation_gets_no_producer_ids(house):
    house.value(RegisterNode(1, "a", 1))
    house.value(RegisterNode(1, "a", 2))
    house.refused(AllocateProducers(1, 1, 3), errors.NotFound)


def test_time_never_goes_back(house):
    house.value(CreateTopic("queue", "a", {}, 1_000))
    assert house.value(CreateTopic("queue", "b", {}, 10)).created_ms == 1_000


def test_a_cluster_has_at_most_so_many_partitions(house, monkeypatch):
    monkeypatch.setattr(c, "PARTITIONS_TOTAL_MAX", 4)
    house.value(CreateTopic("topic", "fits", {"partitions": 3}, 1))  # with the coordinator's: 4
    house.refused(CreateTopic("topic", "more", {}, 2), errors.LimitReached)
    house.value(DeleteTopic("fits", 0, 3))
    house.value(CreateTopic("topic", "more", {}, 4))


def test_a_cluster_has_at_most_so_many_topics_and_nodes(house, monkeypatch):
    monkeypatch.setattr(c, "TOPICS_MAX", 2)
    monkeypatch.setattr("cluster.nodes.NODES_MAX", 1)
    house.value(CreateTopic("topic", "a", {}, 1))
    house.refused(CreateTopic("topic", "b", {}, 2), errors.LimitReached)
    house.value(RegisterNode(1, "a", 3))
    house.refused(RegisterNode(2, "b", 4), errors.LimitReached)
    house.value(RegisterNode(1, "a", 5))


def test_listing_knows_kinds(house):
    house.value(CreateTopic("topic", "t", {}, 1))
    house.value(CreateTopic("queue", "q", {}, 1))
    assert [topic.name for topic in house.catalogue.topics()] == [c.COORDINATOR_TOPIC, "t", "q"]
    assert [topic.name for topic in house.catalogue.topics("queue")] == ["q"]


def test_a_start_that_is_registered_twice_changes_nothing_and_an_older_one_is_refused(house):
    first = house.value(RegisterNode(7, "a", 10, 3, "a:4150"))
    assert first == Node(7, "a", 3, 10, "a:4150")
    again = house.do(RegisterNode(7, "a", 11, 3, "a:4150"))
    assert (again.value, again.changed) == (first, False)
    assert house.value(RegisterNode(7, "a", 12, 4, "b:4150")).native == "b:4150"
    house.refused(RegisterNode(7, "a", 13, 3, "a:4150"), errors.AlreadyExists)
    assert house.value(RegisterNode(7, "a", 14)).incarnation == 5


def test_a_registration_of_the_first_form_can_be_read():
    payload = cbor2.dumps([1, 2, 7, "a", 10])
    assert decode_command(payload) == RegisterNode(7, "a", 10)


def test_a_topic_is_deleted_only_if_it_was_there(house):
    topic = house.value(CreateTopic("topic", "t", {}, 1))
    assert not house.catalogue.topic_is_deleted(topic.topic_id)
    assert not house.catalogue.topic_is_deleted(topic.topic_id + 1)
    house.value(DeleteTopic("t", 0, 2))
    assert house.catalogue.topic_is_deleted(topic.topic_id)


def test_a_snapshot_replaces_whatever_was_there(house):
    house.value(CreateTopic("topic", "t", {}, 1))
    house.value(RegisterNode(7, "a", 10))
    ahead = house.catalogue.snapshot()
    other = House()
    other.value(CreateTopic("queue", "q", {"partitions": 3}, 1))
    other.value(RegisterNode(8, "b", 10))
    other.catalogue.restore(ahead)
    assert other.catalogue.snapshot() == ahead
    assert other.catalogue.topic("q") is None
    assert other.catalogue.node(8) is None
    assert other.catalogue.partition_of(4) is None


COMMANDS = [
    Bootstrap("c", 1),
    RegisterNode(1, "n", 2),
    RegisterNode(1, "n", 2, 3, "n:1"),
    CreateTopic("queue", "q", {"partitions": 2, "dead_letter": None}, 3),
    DeleteTopic("q", 4, 5),
    AllocateProducers(1, 2, 3),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_survive_their_encoding(command):
    assert decode_command(encode_command(command)) == command


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        cbor2.dumps(5),
        cbor2.dumps([]),
        cbor2.dumps([1]),
        cbor2.dumps([2, 1, "c", 1]),
        cbor2.dumps([1, 99]),
        cbor2.dumps([1, [], 1]),
        cbor2.dumps([1, 1, "c"]),
        cbor2.dumps([1, 1, "c", 1, {}, 1, 1]),
        cbor2.dumps([1, 1, "c", True]),
        cbor2.dumps([1, 1, b"c", 1]),
    ],
)
def test_a_command_that_cannot_be_read_stops_the_replica_and_changes_nothing(payload):
    catalogue = c.Catalogue()
    before = catalogue.snapshot()
    with pytest.raises(CommandUnknown):
        catalogue.apply_command(1, payload)
    assert catalogue.snapshot() == before


def test_no_index_is_applied_twice(house):
    with pytest.raises(AssertionError):
        house.catalogue.apply_command(1, encode_command(COMMANDS[0]))


def test_a_snapshot_of_another_format_is_refused(house):
    state = cbor2.loads(house.catalogue.snapshot())
    with pytest.raises(ValueError, match="format 99"):
        c.Catalogue().restore(cbor2.dumps([99, *state[1:]]))


NAMES = st.sampled_from(["a", "b", "c", "plait.x", "bad name", c.COORDINATOR_TOPIC])
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "partitions": st.integers(0, 4),
        "lease_ms": st.sampled_from([1, 30_000, 60_000]),
        "retention_ms": st.sampled_from([None, 5]),
        "overflow": st.sampled_from(["refuse", "block", "nonsense"]),
        "zzz": st.just(1),
    },
)
STAMPS = st.integers(0, 1_000)
ANY_COMMAND = st.one_of(
    st.builds(Bootstrap, st.sampled_from(["x", "y"]), STAMPS),
    st.builds(RegisterNode, st.integers(-1, 3), NAMES, STAMPS),
    st.builds(CreateTopic, st.sampled_from(["topic", "queue", "other"]), NAMES, SETTINGS, STAMPS),
    st.builds(DeleteTopic, NAMES, st.integers(0, 4), STAMPS),
    st.builds(AllocateProducers, st.integers(0, 3), st.integers(0, 2), STAMPS),
)


def check_indexes(catalogue: c.Catalogue) -> None:
    topics = list(catalogue.topics())
    assert [t.topic_id for t in topics] == sorted(t.topic_id for t in topics)
    for topic in topics:
        assert catalogue.topic(topic.name) is catalogue.topic_by_id(topic.topic_id) is topic
        assert [catalogue.partition_of(g) for g in topic.groups] == [(topic, p) for p in range(len(topic.groups))]


@given(st.lists(ANY_COMMAND, max_size=40), st.integers(0, 40))
@settings(max_examples=150, deadline=None)
def test_ids_are_never_used_again_and_a_restored_catalogue_goes_on_as_if_nothing_had_happened(commands, cut):
    one, other = c.Catalogue(), c.Catalogue()
    topic_ids: set[int] = set()
    groups: set[int] = set()
    producers = 0
    for index, command in enumerate([Bootstrap("x", 0), *commands], start=1):
        if index == cut:
            other = c.Catalogue()
            other.restore(one.snapshot())
        before = one.version
        result = one.apply_command(index, encode_command(command))
        assert other.apply_command(index, encode_command(command)).changed == result.changed
        assert one.snapshot() == other.snapshot()
        assert one.version == result.version == before + result.changed
        check_indexes(one)
        check_indexes(other)
        if not result.changed:
            continue
        if isinstance(command, CreateTopic):
            assert isinstance(result.value, c.Topic)
            assert result.value.topic_id not in topic_ids
            assert groups.isdisjoint(result.value.groups)
            topic_ids.add(result.value.topic_id)
            groups.update(result.value.groups)
        if isinstance(result.value, c.ProducerBlock):
            assert result.value.first > producers
            producers = result.value.last

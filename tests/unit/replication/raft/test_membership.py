"""Memberships as values, as bytes, and inside a snapshot's envelope."""

from __future__ import annotations

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replication.raft.envelope import unwrap, wrap
from replication.raft.membership import Membership, decode_membership

REPLICAS = st.dictionaries(st.integers(1, 2**40), st.integers(1, 2**32), max_size=5)


@given(REPLICAS, REPLICAS, REPLICAS, st.binary(max_size=50))
def test_what_is_written_is_read_back(
    voters: dict[int, int], learners: dict[int, int], outgoing: dict[int, int], state: bytes
) -> None:
    membership = Membership(voters, learners, outgoing)
    assert decode_membership(membership.encode()) == membership
    found, found_state = unwrap(wrap(membership, state))
    assert (found, bytes(found_state)) == (membership, state)


def test_equal_memberships_give_equal_bytes_whatever_order_they_were_made_in() -> None:
    assert Membership({1: 1, 2: 2}).encode() == Membership({2: 2, 1: 1}).encode()


def test_a_change_of_voters_goes_through_two_sets() -> None:
    joint = Membership({1: 1, 2: 2, 3: 3}).entering({2: 2, 3: 3, 4: 4}, {})
    assert joint.joint
    assert [sorted(voters) for voters in joint.voter_sets()] == [[2, 3, 4], [1, 2, 3]]
    assert sorted(joint.members()) == [1, 2, 3, 4]
    assert sorted(joint.left().members()) == [2, 3, 4]


def test_a_change_of_learners_alone_needs_one_step() -> None:
    changed = Membership({1: 1}).entering({1: 1}, {2: 2})
    assert not changed.joint
    assert 2 in changed
    assert not changed.is_voter(2)


def test_a_voter_that_becomes_a_learner_votes_until_the_change_is_done() -> None:
    joint = Membership({1: 1, 2: 2}).entering({1: 1}, {2: 2})
    assert joint.is_voter(2)
    assert not joint.left().is_voter(2)
    assert 2 in joint.left()


@pytest.mark.parametrize("payload", [b"\xa0", cbor2.dumps([2, [], [], []]), cbor2.dumps([1, []]), cbor2.dumps(7)])
def test_a_membership_of_another_version_is_refused(payload: bytes) -> None:
    with pytest.raises(ValueError, match="version"):
        decode_membership(payload)


@pytest.mark.parametrize("snapshot", [b"", b"PRS1", b"XXXX\x01\x00\x00\x00\x80", b"PRS1\xff\x00\x00\x00"])
def test_an_envelope_that_is_none_is_refused(snapshot: bytes) -> None:
    with pytest.raises(ValueError, match="snapshot"):
        unwrap(snapshot)

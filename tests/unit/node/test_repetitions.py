"""A publish that its node sends again is stored once, in whatever state the first one is found."""

from __future__ import annotations

import pytest

from cluster.admission import PartitionAdmission
from cluster.limits import NodePressure, limits_of
from cluster.settings import Settings, settings_from
from node.entries import batch_of, encode_batch
from node.origins import ORIGIN_WINDOW, Origin
from node.publishing import Publish, Published, Publishing
from node.state import PartitionState
from plait.wire.batch import encode_batch as batch_with
from plait.wire.batch import read_header
from plait.wire.errors import Closed, NotLeader, OutcomeUnknown, Overloaded
from replication.machine import Entry

BLOCKED = settings_from("queue", {"max_backlog_records": 1, "overflow": "block"})
REFUSING = settings_from("queue", {"max_backlog_records": 1})


class Leader:
    """The publishing side of one partition; `commit` applies what is proposed."""

    def __init__(self, settings: Settings, state: PartitionState | None = None) -> None:
        self.state = state or PartitionState(is_queue=True)
        self.publishing = Publishing(
            "jobs/0", 0, settings, self.state, PartitionAdmission(limits_of(settings), NodePressure(), 0)
        )
        self.publishing.begin(1_000)
        self.index = 0

    def send(self, origin: Origin, client: str = "node 2.1/c") -> Publish:
        batch = batch_with([b"x"], 1_000)
        publish = Publish(batch, read_header(batch), client, origin)
        self.publishing.offer(publish, 0)
        return publish

    def commit(self) -> None:
        proposals, self.publishing.proposals = self.publishing.proposals, []
        for proposal, publish in proposals:
            self.index += 1
            entry = Entry(self.index, 1, proposal.kind, proposal.mark, proposal.span, proposal.payload)
            ((offset, stamp_ms),) = self.state.apply(entry)
            self.publishing.committed(publish, offset, stamp_ms, 0)


def test_one_that_is_proposed_and_not_committed_is_not_proposed_again() -> None:
    leader = Leader(settings_from("queue", {}))
    first, again = leader.send((7, 1)), leader.send((7, 1))
    assert len(leader.publishing.proposals) == 1
    leader.commit()
    assert first.promise.result() == again.promise.result() == Published(0, 0, 1_000, 0, False)


def test_one_that_is_stored_gets_its_first_answer_from_any_leader() -> None:
    leader = Leader(settings_from("queue", {}))
    leader.send((7, 1))
    leader.send((7, 2))
    leader.commit()
    follower = PartitionState(is_queue=True)
    follower.restore(leader.state.snapshot())
    again = Leader(settings_from("queue", {}), follower).send((7, 2))
    assert again.promise.result() == Published(0, 1, 1_000, 0, False)


def test_one_that_waits_for_room_waits_once() -> None:
    leader = Leader(BLOCKED)
    leader.send((7, 1))
    leader.commit()
    first, again = leader.send((7, 2)), leader.send((7, 2))
    assert not first.promise.done
    assert not again.promise.done
    leader.publishing.reset(NotLeader("gone"), 0)
    assert isinstance(first.promise.error, NotLeader)
    assert isinstance(again.promise.error, NotLeader)


def test_one_that_was_refused_may_come_again() -> None:
    leader = Leader(REFUSING)
    leader.send((7, 1))
    leader.commit()
    assert isinstance(leader.send((7, 2)).promise.error, Overloaded)
    leader.state.shared[""].drop(1_000, 0)
    assert leader.send((7, 2)).promise.error is None


def test_one_that_comes_so_late_that_nobody_knows_is_refused_as_unknown() -> None:
    leader = Leader(settings_from("queue", {}))
    for request in range(1, ORIGIN_WINDOW + 2):
        leader.send((7, request))
        leader.commit()
    late = leader.send((7, 1))
    assert isinstance(late.promise.error, OutcomeUnknown)
    assert late.promise.error.details["forgotten"]
    assert not leader.publishing.proposals


def test_clients_of_a_node_that_is_gone_wait_no_more_and_others_do() -> None:
    leader = Leader(BLOCKED)
    leader.send((7, 1))
    leader.commit()
    gone, other, local = leader.send((7, 2)), leader.send((9, 1), "node 3.1/c"), leader.send((0, 0), "c")
    leader.publishing.release_clients("node 2.")
    assert isinstance(gone.promise.error, Closed)
    assert not other.promise.done
    assert not local.promise.done


@pytest.mark.parametrize("origin", [(7, 5), (0, 0)])
def test_the_envelope_names_who_took_it(origin: Origin) -> None:
    leader = Leader(settings_from("queue", {}))
    leader.send(origin)
    ((proposal, _),) = leader.publishing.proposals
    parts = [batch_of(proposal.payload)]
    assert proposal.payload == encode_batch(1_000, origin, parts)

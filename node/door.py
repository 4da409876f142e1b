"""Where other nodes knock: their clients' publishes and questions, for what is led here.

    link ──[kind, group, ...]──> question ──> this node's replica ──> answer
         ──[PUBLISH, group, ...] + batch──> stream of (node, group) ──in order──> replica

A publish names the term that its sender takes this node to lead in: what was sent in an older one is refused, so a
repetition that was on its way for long meets nobody who takes it. Refusals say who leads, and since when.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from cluster.routing import Leader
from node.group_questions import QUESTIONS
from node.partition import ClientGone, ClientsGone, Partition
from node.publishing import Publish, Published
from node.questions import Question, not_here, post
from node.replicas import Replicas
from node.streams import Stream, StreamNumber
from plait.wire.batch import read_header
from plait.wire.errors import BadRequest, NotFound, NotLeader, OutcomeUnknown, PlaitError, Unavailable
from replication.actor import Promise, rejected
from replication.peers.channels import Answer
from replication.peers.peers import Peers

CHANNEL = "partition"
"""The channel of these questions."""
PUBLISH = 0
"""Kind of a publish; others are in node/group_questions.py."""
CLIENT_GONE = 100
"""Kind of the word that a client of the asking node is gone."""
END_STREAM = 101
"""Kind of the word that nothing more comes of a stream, because a piece of it did not leave."""


def client_of(node: int, incarnation: int, client: str) -> str:
    """A client as the leader knows it, which is not its own node's."""
    return f"node {node}.{incarnation}/{client}"


@dataclass(frozen=True, slots=True)
class _Piece:
    """A publish of a stream."""

    stream: StreamNumber
    term: int
    publish: Publish


class Door:
    """Of one node."""

    def __init__(self, peers: Peers, replicas: Replicas, is_deleted: Callable[[int], bool]) -> None:
        self._replicas = replicas
        self._is_deleted = is_deleted
        self._streams: dict[int, dict[int, Stream[_Piece]]] = {}  # by node, by group
        peers.serve(CHANNEL, self._serve)
        peers.on_node.append(self._node_changed)

    def forget(self, group: int) -> None:
        """A partition was deleted: nothing comes for it any more, and what does is refused."""
        for streams in self._streams.values():
            stream = streams.pop(group, None)
            for left in stream.end() if stream is not None else ():
                left.publish.promise.reject(_deleted())

    @property
    def streams(self) -> int:
        """Streams that are remembered, from all nodes."""
        return sum(len(streams) for streams in self._streams.values())

    def _serve(self, node: int, head: list[Any], payload: memoryview) -> Promise[Answer]:
        match head:
            case [0, *fields]:
                return self._publish(node, fields, payload)
            case [100, group, client]:
                partition = self._replicas.partition_of(group)
                if partition is not None:
                    partition.post(ClientGone(client), always=True)
                done: Promise[Answer] = Promise()
                done.resolve(([], ()))
                return done
            case [101, int(group), int(incarnation), int(number)]:
                return self._end_stream(node, group, (incarnation, number))
            case [int(kind), int(group), *words] if kind in QUESTIONS:
                return self._answer(group, QUESTIONS[kind].read(words, payload))
        raise BadRequest(f"channel {CHANNEL} has no question {head!r:.60}; nothing was done")

    def _end_stream(self, node: int, group: int, number: StreamNumber) -> Promise[Answer]:
        stream = self._streams.get(node, {}).get(group)
        for left in stream.begin(number) if stream is not None else ():
            left.publish.promise.reject(_out_of_order())
        done: Promise[Answer] = Promise()
        done.resolve(([], ()))
        return done

    def _answer(self, group: int, question: Question[Any]) -> Promise[Answer]:
        answer: Promise[Answer] = Promise()
        promise: Promise[Any] = Promise()

        def heard(done: Promise[Any]) -> None:
            if done.error is not None:
                answer.reject(self._pointing(group, done.error))
            else:
                answer.resolve(question.answer(done.result()))

        promise.then(heard)
        answer.when_abandoned(promise.abandon)
        question.here(self._replicas, group, promise)
        return answer

    # publishes

    def _publish(self, node: int, fields: list[Any], payload: memoryview) -> Promise[Answer]:
        group, term, incarnation, request, number, place, client, wait_ms = fields
        owner = client_of(node, incarnation & 0xFFFFFFFF, client)
        if self._is_deleted(group):
            return rejected(_deleted())
        publish = Publish(
            payload, read_header(payload), owner, (incarnation, request), through=node, wait_ms=wait_ms
        )
        piece = _Piece((incarnation, number), term, publish)
        stream = self._streams.setdefault(node, {}).setdefault(group, Stream())
        for left in stream.begin(piece.stream):
            left.publish.promise.reject(_out_of_order())
        if not stream.accepts(piece.stream, place):
            return rejected(self._pointing(group, _out_of_order()))
        answer: Promise[Answer] = Promise()
        publish.promise.then(partial(self._published, group, stream, piece, answer))
        for ready in stream.take(place, piece):
            self._post(group, stream, ready)
        return answer

    def _post(self, group: int, stream: Stream[_Piece], piece: _Piece) -> None:
        publish, partition = piece.publish, self._replicas.partition_of(group)
        if stream.broken:  # what was before it was refused just now
            publish.promise.reject(_out_of_order())
        elif partition is None:
            publish.promise.reject(not_here(group))
        elif piece.term != partition.group.term and partition.failure is None:
            publish.promise.reject(NotLeader("it was sent in an older term; nothing was done; send it again"))
        else:
            post(self._replicas, group, publish, publish.promise)

    def _published(
        self, group: int, stream: Stream[_Piece], piece: _Piece, answer: Promise[Answer], done: Promise[Published]
    ) -> None:
        error = done.error
        if error is None:
            result = done.result()
            words = [result.partition, result.base_offset, result.timestamp_ms, result.throttle_ms]
            answer.resolve(([*words, result.duplicate], ()))
            return
        if isinstance(error, NotLeader | Unavailable | OutcomeUnknown) and piece.stream == stream.number:
            for left in stream.end():  # it will come again: nothing may overtake it
                left.publish.promise.reject(_out_of_order())
        answer.reject(self._pointing(group, error))

    def _pointing(self, group: int, error: Exception) -> Exception:
        """A refusal with what is known here of the leader."""
        if not isinstance(error, NotLeader):
            return error
        own = self._replicas.group(group)
        if own is None:
            return NotLeader(error.message, leader=0, term=0)
        known = Leader(own.leader_node, own.term)
        return NotLeader(error.message, leader=known.node_id, term=known.term)

    # nodes

    def _node_changed(self, node: int, up: bool) -> None:
        """What waits for clients of a node that is gone is dropped; it sends again if it was not."""
        if up:
            return
        for group in self._streams.pop(node, {}):
            partition = self._replicas.partition_of(group)
            if partition is not None and partition.admission.waiting:
                _release(partition, node)


def _release(partition: Partition, node: int) -> None:
    partition.post(ClientsGone(f"node {node}."), always=True)


def _deleted() -> PlaitError:
    return NotFound("it was deleted; nothing was stored")


def _out_of_order() -> PlaitError:
    """It is known that nothing was done with it."""
    return Unavailable("a publish before this one is sent again; this one was not stored: send it again behind it")

"""Commands to the catalogue and questions about it, from any node to the one that leads it.

    submit  command ──> leader: proposed, applied ──> [version, what came of it]
    read            ──> leader: confirmed that it leads ──> [version that the asker must have applied to answer]

What came of a command travels as plain values; an error as itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple
from functools import partial
from typing import Any

from cluster.catalogue import ProducerBlock, Result, Topic, Value
from cluster.nodes import Node
from cluster.settings import settings_from, settings_to_mapping
from plait.wire.errors import BadRequest, PlaitError, from_wire
from replication.actor import Promise
from replication.peers.channels import Answer
from replication.peers.peers import Peers

CHANNEL = "catalogue"
"""The channel of these questions."""
SUBMIT_MS = 10_000
"""How long a forwarded command may take before its outcome counts as unknown."""
READ_MS = 5_000
"""How long a forwarded question may take."""

Outcome = tuple[int, Value, PlaitError | None]
"""What became of a command: the catalogue's version then, and a value or an error."""


class Forwarding:
    """Both ends of the channel."""

    def __init__(
        self, peers: Peers, submit: Callable[[bytes], Promise[Result]], read: Callable[[], Promise[int]]
    ) -> None:
        """`submit` and `read` are this node's own, for those who believe that it leads."""
        self._peers = peers
        self._submit_here = submit
        self._read_here = read
        peers.serve(CHANNEL, self._serve)

    async def submit(self, node: int, command: bytes) -> Outcome:
        """Have a command carried out by that node. Raises NotLeader and what else it refuses with, Unavailable,
        OutcomeUnknown."""
        head, _ = await self._peers.ask(node, CHANNEL, ["submit"], [command], SUBMIT_MS).wait()
        return _decode(head)

    async def read(self, node: int) -> int:
        """The version of the catalogue that a read which begins now must see. Raises PlaitError."""
        head, _ = await self._peers.ask(node, CHANNEL, ["read"], timeout_ms=READ_MS).wait()
        return int(head[0])

    def _serve(self, node: int, head: list[Any], payload: memoryview) -> Promise[Answer]:
        answer: Promise[Answer] = Promise()
        match head:
            case ["submit"]:
                self._submit_here(bytes(payload)).then(partial(_pass_on, answer, _encode))
            case ["read"]:
                self._read_here().then(partial(_pass_on, answer, lambda version: [version]))
            case _:
                raise BadRequest(f"channel {CHANNEL} has no question {head!r:.60}; nothing was done")
        return answer


def _pass_on(answer: Promise[Answer], encode: Callable[[Any], list[Any]], done: Promise[Any]) -> None:
    if done.error is not None:
        answer.reject(done.error)
    else:
        answer.resolve((encode(done.result()), []))


def _encode(result: Result) -> list[Any]:
    if result.error is not None:
        error = result.error
        return [result.version, "error", error.code, error.message, error.details]
    match result.value:
        case Node() as node:
            return [result.version, "node", *astuple(node)]
        case Topic(topic_id, kind, name, settings, groups, created_ms):
            plain = settings_to_mapping(settings)
            return [result.version, "topic", topic_id, kind, name, plain, list(groups), created_ms]
        case ProducerBlock(first, last):
            return [result.version, "producers", first, last]
        case value:
            return [result.version, "text", value]


def _decode(head: list[Any]) -> Outcome:
    version, kind, *fields = head
    match kind:
        case "error":
            return version, None, from_wire(*fields)
        case "node":
            return version, Node(*fields), None
        case "topic":
            topic_id, what, name, plain, groups, created_ms = fields
            topic = Topic(topic_id, what, name, settings_from(what, plain), tuple(groups), created_ms)
            return version, topic, None
        case "producers":
            return version, ProducerBlock(*fields), None
    return version, fields[0], None

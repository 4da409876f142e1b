"""The link to one node: an actor that owns both connections, what waits for the node, and whether it is up.

    send ──> Outbox ───┐                        ┌──> Household.deliver ──> group
    beats ─────────────┼── control connection ──┤
    ask ──> Channels ──┴── bulk connection ─────┴──> Household.answer

There is one connection of each kind, used both ways and dialled by either side (dialling.py). One that is
confirmed replaces the one before; from that moment on nothing of the old one is heard. That is right because a
side dials only when it has given up what it had.

**Up** is a node that was heard on the control connection within `silence_ms`; **down** one that was not, or whose
address answers that nobody listens there any more, or that came back as another process (down, then up). A
connection that breaks is only made anew: what waits goes out then, and the groups that had spoken on it are told
that messages may be lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import structlog

from plait.wire.errors import BadRequest, Unavailable
from replication.actor import Actor, Host, Promise, rejected
from replication.environment import Buffer, Environment
from replication.peers.beats import Rounds, Sleepers, read_beat
from replication.peers.channels import Answer, Channels, Heard
from replication.peers.codec import decode_messages, encode_message
from replication.peers.connection import Connection
from replication.peers.counters import Counters
from replication.peers.dialling import Dialler
from replication.peers.lives import Life
from replication.peers.outbox import Outbox
from replication.peers.proof import Proofs
from replication.peers.protocol import (
    BULK,
    BULK_WORDS,
    CONTROL,
    CONTROL_WORDS,
    FORGOTTEN,
    KINDS,
    Identity,
    Refusal,
    judge_life,
    seal,
    unseal,
)
from replication.peers.settings import PeerSettings
from replication.raft.messages import Append, Message

_logger = structlog.get_logger("plait.peers")

NS_PER_MS = 1_000_000
REMEMBER_BEATS = 10
"""Beats for which the groups that sent appends are remembered, so that they hear of a connection that broke."""


class Household(Protocol):
    """What a link asks of the node's `Peers`."""

    environment: Environment
    identity: Identity
    process: int
    settings: PeerSettings
    counters: Counters

    def proofs(self, role: str) -> Proofs:
        """For one handshake, in which this node has that role."""

    def seen(self, node: int) -> Life:
        """The last life of that node that was seen."""

    async def meet(self, who: Identity) -> None:
        """Remember that life of the node for good, before anything is made of it. Raises Refusal."""

    def is_welcome(self, node: int, kind: str) -> bool:
        """A connection of that node and kind was welcomed and waits for its CONFIRM."""

    def saw(self, node: int, life: Life) -> None:
        """A connection with that life of the node was made."""

    def node_changed(self, node: int, up: bool) -> None:
        """It came or went."""

    def deliver(self, node: int, group: int, message: Message) -> None:
        """A message came."""

    def unreachable(self, node: int, groups: Sequence[int]) -> None:
        """Their messages to the node may be lost."""

    def wake(self, groups: Sequence[int]) -> None:
        """They sleep, and are not to."""

    def answer(self, node: int, channel: str, head: list[Any], payload: memoryview) -> Promise[Answer]:
        """A question came."""

    def refused(self, node: int, refusal: Refusal) -> None:
        """The node will not have this one, or this one not the node."""


class PeerLink(Actor):
    """Everything between this node and one other."""

    def __init__(self, host: Host, node: int, household: Household, led: Sleepers, followed: Sleepers) -> None:
        super().__init__(host, f"peer/{node}")
        self.node = node
        self.up = False
        self.address: tuple[str, int] | None = None
        self.connections: dict[str, Connection | None] = dict.fromkeys(KINDS)
        self._household = household
        self._settings = household.settings
        self._clock = household.environment.clock
        self._sleepers = led, followed
        self._rounds = Rounds(led, followed, self._settings.mismatch_beats)
        self._outbox = Outbox(self._settings)
        self._channels = Channels(node, self._settings, self._serve)
        self.diallers = {kind: Dialler(self, kind, household) for kind in KINDS}
        self._heard_ns = 0  # as of the last control connection that was lost
        self._came: tuple[Life, int] | None = None  # (life, process) of what is connected, or was the last time
        self._beat_due_ns = 0
        self._bulk_beat_due_ns = 0
        self._beats_to_send = dict.fromkeys(KINDS, False)
        self._tick_ns = 0  # when the alarm that is set was to ring
        self._unreachable: dict[int, None] = {}
        self._spoke: tuple[dict[int, None], dict[int, None]] = ({}, {})  # groups that sent appends: now, before
        self._beats_until_turn = REMEMBER_BEATS

    @property
    def questions_asked(self) -> int:
        """Of this node, not answered yet."""
        return self._channels.outstanding

    @property
    def questions_served(self) -> int:
        """Of the other node, not answered yet."""
        return self._channels.serving

    # what this node wants sent

    def send(self, group: int, message: Message) -> None:
        """Never waits; drops where the node is down or too much waits for it."""
        if not self.up:
            self._household.counters.dropped_down += 1
        elif self._outbox.post(group, message):
            connection = self.connections[CONTROL]
            if connection is not None:
                connection.notify()
        else:
            self._household.counters.dropped_full += 1
            if not self._unreachable:
                self.post(None)
            self._unreachable[group] = None

    def ask(self, channel: str, head: list[Any], payload: Sequence[Buffer], timeout_ms: int) -> Promise[Heard]:
        """See Peers.ask."""
        connection = self.connections[BULK]
        if connection is None:
            return rejected(Unavailable(f"node {self.node} is not connected; nothing was done; try again"))
        deadline_ns = self._clock.monotonic_ns() + timeout_ms * NS_PER_MS
        promise = self._channels.ask(channel, head, payload, deadline_ns)
        if not promise.done:
            connection.notify()
            promise.when_abandoned(self._notify_bulk)
            if self.alarm_ns is None or deadline_ns < self.alarm_ns:
                self._set_alarm()
        return promise

    def _notify_bulk(self) -> None:
        """There may be something to send: an answer, or that a question is called off."""
        connection = self.connections[BULK]
        if connection is not None:
            connection.notify()

    # connections

    def has(self, kind: str) -> bool:
        """There is a connection of that kind."""
        return self.connections[kind] is not None

    def adopt(self, connection: Connection, who: Identity, process: int) -> None:
        """From now on this is the connection of its kind. Raises Refusal when the other side has lived on."""
        if self.stopped:
            raise Refusal(FORGOTTEN, f"node {self.node} was removed from this cluster")
        judge_life(who, self._household.seen(self.node))
        if self._came is not None and self._came != (who.life, process):
            self.go_down("restarted")
        self._came = who.life, process
        self._household.saw(self.node, who.life)
        kind = connection.kind
        self._drop(kind)
        self.connections[kind] = connection
        connection.heard_ns = now_ns = self._clock.monotonic_ns()
        self._household.counters.connections_made += 1
        if kind == CONTROL:
            self._rounds = Rounds(*self._sleepers, self._settings.mismatch_beats)
            self._beat_due_ns = now_ns
            if not self.up:
                self.up = True
                _logger.info("node is up", node=self.node, life=who.life.number)
                self._household.node_changed(self.node, True)
        else:
            self._bulk_beat_due_ns = now_ns
        self._set_alarm()

    async def run(self, connection: Connection) -> None:
        """Run a connection that was adopted."""
        began_ns = self._clock.monotonic_ns()
        await connection.run(self)
        lasted = self._clock.monotonic_ns() - began_ns >= self._settings.silence_ms * NS_PER_MS
        self.diallers[connection.kind].ended(lasted)
        if self.connections[connection.kind] is connection:
            self._drop(connection.kind)

    def bytes_now(self) -> tuple[int, int]:
        """(sent, received) on the connections that stand."""
        standing = [connection for connection in self.connections.values() if connection is not None]
        return sum(each.bytes_sent for each in standing), sum(each.bytes_received for each in standing)

    def _drop(self, kind: str) -> None:
        """The connection of this kind is none any more; what was under way on it may be lost."""
        connection = self.connections[kind]
        if connection is None:
            return
        self.connections[kind] = None
        counters = self._household.counters
        counters.connections_lost += 1
        counters.bytes_sent += connection.bytes_sent
        counters.bytes_received += connection.bytes_received
        connection.close()
        if kind == BULK:
            self._channels.reset()
        else:
            self._heard_ns = connection.heard_ns
            self._report_spoken()
        self.diallers[kind].wake()

    def _report_spoken(self) -> None:
        now, before = self._spoke
        self._spoke = {}, {}
        groups = sorted(before | now)
        if groups:
            self._household.unreachable(self.node, groups)

    def go_down(self, reason: str) -> None:
        """The node is not there: end its connections, drop what waits for it, tell the groups."""
        was_up, self.up = self.up, False
        self._outbox.clear()
        self._unreachable.clear()
        self._spoke = {}, {}
        for kind in KINDS:
            self._drop(kind)
        if was_up:
            if self.stopped:
                _logger.info("link is ended", node=self.node)
            else:
                _logger.warning("node is down", node=self.node, reason=reason)
            self._household.node_changed(self.node, False)

    # frames (connection.End)

    def next_frame(self, connection: Connection) -> Buffer | None:
        """See connection.End."""
        kind = connection.kind
        if self.connections[kind] is not connection:
            return None
        beat, self._beats_to_send[kind] = self._beats_to_send[kind], False
        if kind == CONTROL:
            return self._control_frame(beat)
        found = self._channels.take()
        if found is None:
            return seal(BULK_WORDS, []) if beat else None
        self._household.counters.frames_sent += 1
        return seal(BULK_WORDS, *found)

    def _control_frame(self, beat: bool) -> Buffer | None:
        batch = self._outbox.take()
        if not beat and not batch:
            return None
        household = self._household
        words: list[Any] = [self._rounds.speak().words() if beat else None]
        parts: list[Buffer] = []
        for group, message in batch:
            try:
                words.append(encode_message(group, message, parts))
            except ValueError as error:
                _logger.error("message cannot be sent", group=group, node=self.node, error=str(error))
            if type(message) is Append:
                self._spoke[0][group] = None
        counters = household.counters
        counters.frames_sent += 1
        counters.messages_sent += len(batch)
        return seal(CONTROL_WORDS, words, parts)

    def hear(self, connection: Connection, head: list[Any], payload: memoryview) -> None:
        """See connection.End."""
        if self.connections[connection.kind] is not connection:
            self._household.counters.frames_ignored += 1
            return
        kind, words, raw = unseal(head, payload)
        if kind == CONTROL_WORDS and connection.kind == CONTROL and words:
            self._hear_control(words, raw)
        elif kind == BULK_WORDS and connection.kind == BULK:
            self._channels.hear(words, raw)
            connection.notify()
        else:
            raise BadRequest("a peer's frame is none of this connection's; the connection ends")

    def _hear_control(self, words: list[Any], raw: memoryview) -> None:
        beat = None if words[0] is None else read_beat(words[0])
        batch = decode_messages(words[1:], raw)
        household = self._household
        if beat is not None:
            household.counters.beats_heard += 1
            groups = self._rounds.hear(beat)
            if groups:
                household.counters.mismatches += 1
                household.wake(groups)
        household.counters.messages_received += len(batch)
        for group, message in batch:
            household.deliver(self.node, group, message)

    def _serve(self, channel: str, head: list[Any], payload: memoryview) -> Promise[Answer]:
        promise = self._household.answer(self.node, channel, head, payload)
        promise.then(lambda _: self._notify_bulk())
        return promise

    # time

    def handle(self, messages: list[Any]) -> None:
        """The mailbox only wakes it: everything is decided by what is there and by the time."""
        if self._unreachable:
            groups, self._unreachable = sorted(self._unreachable), {}
            self._household.unreachable(self.node, groups)
        now_ns = self._clock.monotonic_ns()
        self._forgive(now_ns)
        self._check_silence(now_ns)
        self._beat(now_ns)
        self._channels.expire(now_ns)
        self._set_alarm()

    def _forgive(self, now_ns: int) -> None:
        """After a pause of this process, what was sent to it meanwhile is still in the socket: not silence."""
        late_ns = now_ns - self._tick_ns if self._tick_ns else 0
        if late_ns > self._settings.silence_ms * NS_PER_MS // 4:
            for connection in self.connections.values():
                if connection is not None:
                    connection.heard_ns += late_ns

    def _check_silence(self, now_ns: int) -> None:
        control, bulk = self.connections[CONTROL], self.connections[BULK]
        heard_ns = self._heard_ns if control is None else control.heard_ns
        if self.up and now_ns - heard_ns >= self._settings.silence_ms * NS_PER_MS:
            self.go_down("silent")
        elif bulk is not None and now_ns - bulk.heard_ns >= self._settings.bulk_silence_ms * NS_PER_MS:
            self._drop(BULK)

    def _beat(self, now_ns: int) -> None:
        control, bulk = self.connections[CONTROL], self.connections[BULK]
        if control is not None and now_ns >= self._beat_due_ns:
            self._beat_due_ns = _next(now_ns, self._settings.beat_ms)
            self._beats_to_send[CONTROL] = True
            control.notify()
            self._beats_until_turn -= 1
            if not self._beats_until_turn:
                self._beats_until_turn = REMEMBER_BEATS
                self._spoke = {}, self._spoke[0]
        if bulk is not None and now_ns >= self._bulk_beat_due_ns:
            self._bulk_beat_due_ns = _next(now_ns, self._settings.bulk_beat_ms)
            self._beats_to_send[BULK] = True
            bulk.notify()

    def _set_alarm(self) -> None:
        due: list[int] = []
        if self.connections[CONTROL] is not None:
            due.append(self._beat_due_ns)
        elif self.up:
            due.append(self._heard_ns + self._settings.silence_ms * NS_PER_MS)
        if self.connections[BULK] is not None:
            due.append(self._bulk_beat_due_ns)
        deadline_ns = self._channels.next_deadline_ns()
        if deadline_ns is not None:
            due.append(deadline_ns)
        self._tick_ns = min(due, default=0)
        if due and not self.stopped:
            self.host.alarm(self._tick_ns, self, None)

    # dialling

    def connect_to(self, address: tuple[str, int]) -> None:
        """Keep up both connections from now on, by way of this address."""
        self.address = address
        for dialler in self.diallers.values():
            dialler.begin(address)

    def address_refused(self) -> None:
        """Nobody listens at the node's address: its process is gone, unless it is heard all the same."""
        if self.up and self.connections[CONTROL] is None:
            self.go_down("its address refuses connections")

    def stop(self) -> None:
        """End the link; groups are told that the node is down."""
        for dialler in self.diallers.values():
            dialler.stop()
        super().stop()
        self.go_down("forgotten")


def _next(now_ns: int, every_ms: int) -> int:
    """The next multiple: all links of a node beat in the same turns, so that an idle node wakes less often."""
    every_ns = every_ms * NS_PER_MS
    return (now_ns // every_ns + 1) * every_ns

"""One coordinator partition: the positions of the subscriptions that it has, and their consumer groups.

    commands ──log──> CoordinatorState: positions and groups, which fence each other
    heartbeats ─────> the leader's memory: who was heard of when, who waits for news
                      silent for too long ──command──> gone

Heartbeats write nothing. A new leader has heard of nobody, and gives everybody a full session. A heartbeat is
taken
for one only after a majority has confirmed that whoever was asked leads: a former leader that does not know it
yet must keep no session alive.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cbor2

from cluster.deadlines import Deadlines
from cluster.group_commands import (
    GROUP_COMMAND,
    AcknowledgeAssignment,
    CommitAsMember,
    JoinGroup,
    LeaveGroup,
    TopicGrew,
    decode_group_command,
    encode_group_command,
)
from cluster.group_membership import Assigned, GroupMembership, Woken
from cluster.group_membership import Group as Members
from node.commanded import CommandedReplica
from node.offsets import CommitPositions, ForgetTopic, StreamPositions, decode_command, encode_command
from plait.wire.errors import PlaitError
from replication.actor import Actor, Host, Promise
from replication.group import Group

MemberKey = tuple[str, str]
"""(group, member)."""

SNAPSHOT_FORMAT = 2
"""First element of a snapshot; 1 is one of positions alone, which is still written while there never was a
group."""
HEARTBEAT_WAIT_MS_MAX = 30_000
"""Longest that a heartbeat is kept for news."""
EXPIRE_AGAIN_MS = 200
"""When a member whose end could not be written down is looked at again."""


class CoordinatorState:
    """What is replicated (node.commanded.Commanded)."""

    def __init__(self, told: Callable[[Woken], None]) -> None:
        """`told`: called with the members to whom something else is to be said now."""
        self.positions = StreamPositions()
        self.groups = GroupMembership()
        self._told = told

    def apply_command(self, index: int, command: bytes) -> Assigned | None:
        """See Commanded."""
        if command[0] == GROUP_COMMAND:
            return self._apply_group(index, command)
        decoded = decode_command(command)
        if isinstance(decoded, CommitPositions):
            self.groups.check_single(decoded.subscription, decoded.topic_id)
        self.positions.apply_command(index, command)
        if isinstance(decoded, ForgetTopic):
            self._told(self.groups.forget_topic(decoded.topic_id))
        return None

    def _apply_group(self, index: int, command: bytes) -> Assigned | None:
        decoded = decode_group_command(command)
        if isinstance(decoded, CommitAsMember):
            commit = decode_command(decoded.commit)
            assert isinstance(commit, CommitPositions), "whoever proposed it saw to that"
            self.groups.check_commit(decoded, commit.topic_id, [partition for partition, _ in commit.positions])
            self.positions.apply_command(index, decoded.commit)
        elif isinstance(decoded, JoinGroup):
            assigned, woken = self.groups.join(decoded)
            self._told(woken)
            return assigned
        elif isinstance(decoded, LeaveGroup):
            self._told([*self.groups.leave(decoded), (decoded.group, decoded.member)])
        elif isinstance(decoded, AcknowledgeAssignment):
            self._told(self.groups.acknowledge(decoded))
        else:
            self._told(self.groups.resize(decoded))
        return None

    def snapshot(self) -> bytes:
        """See Commanded."""
        if self.groups.untouched:
            return self.positions.snapshot()
        return cbor2.dumps([SNAPSHOT_FORMAT, self.positions.snapshot(), self.groups.snapshot()])

    def restore(self, state: bytes) -> None:
        """See Commanded."""
        form, *rest = cbor2.loads(state)
        if form < SNAPSHOT_FORMAT:
            self.positions.restore(state)
            self.groups = GroupMembership()
        elif form == SNAPSHOT_FORMAT:
            positions, groups = rest
            self.positions.restore(positions)
            self.groups.restore(groups)
        else:
            raise ValueError(f"a coordinator's state of format {form}; this version reads up to {SNAPSHOT_FORMAT}")


class Coordinator(Actor):
    """Its replica, and what only its leader does: keep sessions, and have news waited for."""

    def __init__(
        self,
        host: Host,
        name: str,
        refusal: Callable[[str, Group | None], PlaitError],
        standing: Callable[[Group, bool], None],
        wall_ms: Callable[[], int],
        size_of: Callable[[int], int | None],
    ) -> None:
        """`size_of`: how many partitions a topic has; 0: it is gone; None: this node has not heard of it yet."""
        super().__init__(host, f"{name}/sessions")
        self.state = CoordinatorState(self._told)
        self.replica = CommandedReplica(host, name, self.state, refusal, self._stands)
        self._refusal = refusal
        self._standing = standing
        self.wall_ms = wall_ms
        self._size_of = size_of
        self._sessions: Deadlines[MemberKey] = Deadlines()
        self._ending: dict[MemberKey, Promise[None]] = {}
        """Ends of sessions that are being written down."""
        self._waiting: dict[MemberKey, Promise[Assigned]] = {}
        """Heartbeats that wait for news, the newest of each member."""
        self._wait_ends: Deadlines[MemberKey] = Deadlines()
        self._acknowledging: set[tuple[MemberKey, int]] = set()
        self._topics_changing: set[int] = set()

    @property
    def group(self) -> Group | None:
        """The group that is fenced if this actor fails."""
        return self.replica.group

    def close(self) -> None:
        """This node is to have it no more."""
        replica = self.replica
        replica.stop()
        replica.ready = False
        if replica.group is not None:
            replica.group.stop()
        replica.settled.set()
        self._stands()
        self.stop()

    # what is asked

    def join(self, command: JoinGroup) -> Promise[Assigned]:
        """A member comes in, or comes again; what it is told."""
        promise: Promise[Assigned] = self.replica.submit(encode_group_command(command))
        promise.then(lambda done: self._hear((command.group, command.member)))
        return promise

    def leave(self, group: str, member: str) -> Promise[None]:
        """A member goes by itself."""
        return self.replica.submit(encode_group_command(LeaveGroup(group, member, False, self.wall_ms())))

    def heartbeat(self, group: str, member: str, acknowledged: int, known: int, wait_ms: int) -> Promise[Assigned]:
        """What a member is told; if it has `known` that generation, as soon as it changes or `wait_ms` is
        over.

        `acknowledged`: the generation whose partitions it has confined itself to. A later heartbeat has an earlier
        one answered. Rejects with StaleGeneration for whoever is no member (any more).
        """
        promise: Promise[Assigned] = Promise()
        key = (group, member)
        self._hear(key)

        def confirmed(done: Promise[Any]) -> None:
            if done.error is not None:
                promise.reject(done.error)
            elif (ending := self._ending.get(key)) is not None:
                ending.then(lambda _: self.replica.confirmed().then(confirmed))
            else:
                self._answer(promise, key, acknowledged, known, wait_ms)

        self.replica.confirmed().then(confirmed)
        return promise

    def described(self, name: str) -> list[dict[str, Any]]:
        """A group, or ("") all of them in short; topics and members as they are known by id."""
        groups = self.state.groups
        if not name:
            names = groups.names()
            found = [(each, groups.group(each)) for each in names]
            return [
                {"name": each, "members": len(group.members), "topics": sorted(group.partitions)}
                for each, group in found
                if group is not None
            ]
        one = groups.group(name)
        return [self._described(name, one)] if one is not None else []

    def _described(self, name: str, group: Members) -> dict[str, Any]:
        members = [
            {
                "member": member,
                "client": found.client,
                "session_ms": found.session_ms,
                "joined_ms": found.joined_ms,
                "generation": found.generation,
            }
            for member, found in sorted(group.members.items())
        ]
        topics = []
        for topic_id, count in sorted(group.partitions.items()):
            stored = dict(self.state.positions.positions(name, topic_id))
            topics.append(
                [
                    topic_id,
                    [
                        {
                            "partition": number,
                            "member": group.holders.get((topic_id, number), ""),
                            "meant_for": group.targets.get((topic_id, number), ""),
                            "position": stored.get(number, -1),
                        }
                        for number in range(count)
                    ],
                ]
            )
        return {"name": name, "members": members, "topics": topics}

    # inside: heartbeats

    def _answer(
        self, promise: Promise[Assigned], key: MemberKey, acknowledged: int, known: int, wait_ms: int
    ) -> None:
        try:
            assigned = self.state.groups.assigned(*key)
        except PlaitError as error:
            promise.reject(error)
            return
        self._hear(key)
        self._compare_topics(key[0])
        if acknowledged == assigned.generation and self.state.groups.owes_acknowledgement(*key):
            self._acknowledge(key, acknowledged)
        self._answer_waiting(key)
        if assigned.generation != known or wait_ms <= 0 or not self.replica.ready:
            promise.resolve(assigned)
            return
        self._waiting[key] = promise
        session_ms = self._session_ms(key)
        wait_ms = min(wait_ms, HEARTBEAT_WAIT_MS_MAX, session_ms // 2)
        self._wait_ends.set(key, self.host.clock.monotonic_ns() + wait_ms * 1_000_000)
        self._set_alarm()

    def _answer_waiting(self, key: MemberKey) -> None:
        """The heartbeat of a member that waits, if there is one, is answered with what is so now."""
        promise = self._waiting.pop(key, None)
        self._wait_ends.drop(key)
        if promise is None:
            return
        try:
            promise.resolve(self.state.groups.assigned(*key))
        except PlaitError as error:
            promise.reject(error)

    def _acknowledge(self, key: MemberKey, generation: int) -> None:
        under_way = (key, generation)
        if under_way not in self._acknowledging:
            self._acknowledging.add(under_way)
            command = AcknowledgeAssignment(*key, generation, self.wall_ms())
            self.replica.submit(encode_group_command(command)).then(
                lambda _: self._acknowledging.discard(under_way)
            )

    def _told(self, woken: Woken) -> None:
        for key in woken:
            if key in self._waiting:
                self._answer_waiting(key)

    # inside: sessions

    def _session_ms(self, key: MemberKey) -> int:
        group = self.state.groups.group(key[0])
        member = group.members.get(key[1]) if group is not None else None
        return member.session_ms if member is not None else 0

    def _hear(self, key: MemberKey) -> None:
        session_ms = self._session_ms(key)
        if session_ms and self.replica.ready and key not in self._ending:
            self._sessions.set(key, self.host.clock.monotonic_ns() + session_ms * 1_000_000)
            self._set_alarm()

    def _set_alarm(self) -> None:
        times = [at for at in (self._sessions.next_ns, self._wait_ends.next_ns) if at is not None]
        if times and (self.alarm_ns is None or min(times) < self.alarm_ns):
            self.host.alarm(min(times), self, None)

    def handle(self, messages: list[Any]) -> None:
        """The alarm: waits that are over are answered, sessions that are over end."""
        now_ns = self.host.clock.monotonic_ns()
        for key in self._wait_ends.due(now_ns):
            self._answer_waiting(key)
        for key in self._sessions.due(now_ns):
            self._end_session(key)
        self._set_alarm()

    def _end_session(self, key: MemberKey) -> None:
        if not self.replica.ready or not self._session_ms(key):
            return
        command = LeaveGroup(*key, True, self.wall_ms())
        promise = self._ending[key] = self.replica.submit(encode_group_command(command))

        def ended(done: Promise[None]) -> None:
            self._ending.pop(key, None)
            if done.error is not None and self.replica.ready and self._session_ms(key):
                self._sessions.set(key, self.host.clock.monotonic_ns() + EXPIRE_AGAIN_MS * 1_000_000)
                self._set_alarm()

        promise.then(ended)

    def _stands(self) -> None:
        """This node leads the coordinator, or does not any more."""
        replica = self.replica
        if replica.group is not None:
            self._standing(replica.group, replica.ready)
        self._sessions.clear()
        self._wait_ends.clear()
        if replica.ready:
            for group, member, _ in self.state.groups.sessions():
                self._hear((group, member))
            self.forget_deleted()
            return
        waiting, self._waiting = self._waiting, {}
        for promise in waiting.values():
            promise.reject(self._refusal(replica.name, replica.group))

    # inside: topics

    def forget_topic(self, topic_id: int) -> None:
        """Whoever leads forgets a topic that is gone; what is not done now is done by the next leader."""
        if self.replica.ready:
            self.replica.submit(encode_command(ForgetTopic(topic_id))).then(_ignore)

    def forget_deleted(self) -> None:
        """Forget all topics that are gone."""
        for topic_id in {*self.state.positions.topics(), *self.state.groups.topics()}:
            if self._size_of(topic_id) == 0:
                self.forget_topic(topic_id)

    def _compare_topics(self, name: str) -> None:
        """A group reads as many partitions as its topics have now."""
        group = self.state.groups.group(name)
        for topic_id, known in group.partitions.items() if group is not None else ():
            size = self._size_of(topic_id)
            if size is None or size == known or topic_id in self._topics_changing:
                continue
            self._topics_changing.add(topic_id)
            command = (
                encode_group_command(TopicGrew(topic_id, size, self.wall_ms()))
                if size
                else encode_command(ForgetTopic(topic_id))
            )
            self.replica.submit(command).then(lambda _, each=topic_id: self._topics_changing.discard(each))  # type: ignore[misc]  # bound now


def _ignore(_: Promise[Any]) -> None:
    """What was not done now is done by the next leader."""

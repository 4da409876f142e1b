"""Publishes on their way from a client's node to the partition's leader, wherever that is: one lane a partition.

    offer ──> lane: 7 8 9 ──in order──> leader ──> stored, refused ──> answered
                    ^                     │
                    └── leader is gone ───┘ once nothing is under way any more: what is not answered, in order

A publish has its number for good. What may have been stored and was not heard of goes again with the same number,
to whoever leads by then, and is stored once (node/origins.py). So a producer sees a change of leaders as a delay,
whether it is idempotent or not. The partition was chosen before, and is not chosen anew.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from cluster.limits import NodePressure
from cluster.routing import SEARCH_MS, Ask, Rest, Search
from node.door import CHANNEL, CLIENT_GONE, END_STREAM, PUBLISH, client_of
from node.leaders import Leaders
from node.origins import ORIGIN_WINDOW
from node.partition import ClientGone
from node.publishing import PUBLISH_WAIT_MS, Publish, Published
from node.questions import post
from node.replicas import Replicas
from node.routes import nobody, passes, told
from plait.wire.batch import BatchHeader
from plait.wire.errors import Closed, NotFound, NotLeader, OutcomeUnknown, Overloaded, PlaitError
from replication.actor import Actor, Host, Promise
from replication.environment import Buffer
from replication.peers.channels import Heard
from replication.peers.peers import Peers

PUBLISH_MS = PUBLISH_WAIT_MS + SEARCH_MS
"""How long a publish is under way at the most, before its client is told that nobody knows."""
LANE_PUBLISHES_MAX = 8_192
"""Publishes of one node's clients to one partition that wait or are under way; further ones are refused."""
LANE_BYTES_UNDER_WAY = 4 << 20
"""Their bytes that are asked of another node at a time; one larger publish may be alone."""
LINK_PUBLISHES = 3_072
"""Publishes of one node's clients that are asked of another node at a time; the link takes more for questions."""
LINK_BYTES = 48 << 20
"""Their bytes, likewise; one larger publish may be alone."""
LANE_LOOK_MS = 250
"""How often publishes that wait for room in their lane are looked at, whether their time is over."""
LANE_RETRY_MS = 100
"""What is told to whoever meets a full lane."""
MEMORY_RETRY_MS = 500
"""What is told to whoever publishes by way of a node that is short of memory."""
CLIENT_GONE_MS = 5_000
"""How long a leader may take to hear that a client is gone; what waits for it there ends by itself later."""
NS_PER_MS = 1_000_000


@dataclass(slots=True, eq=False)
class Parcel:
    """One publish."""

    batch: Buffer
    header: BatchHeader
    client: str
    arrived_ns: int
    wait_ms: int = PUBLISH_WAIT_MS
    """How long it may wait for admission, from its arrival on."""
    promise: Promise[Published] = field(default_factory=Promise)
    number: int = 0
    attempt: Promise[Published] | None = None
    """What it was asked with, while it is under way."""
    doubtful: bool = False
    """It may be stored."""

    @property
    def size_bytes(self) -> int:
        """Of its batch."""
        return len(self.batch)

    def wait_left_ms(self, now_ns: int) -> int:
        """What is left of the time that it may wait for admission."""
        return max(self.wait_ms - (now_ns - self.arrived_ns) // NS_PER_MS, 0)


class Attempt(Promise[Published]):
    """The answer to one try. Whoever holds it sees whether the client waits for it still."""

    __slots__ = ("_parcel",)

    def __init__(self, parcel: Parcel) -> None:
        self._parcel = parcel
        super().__init__()

    @property
    def abandoned(self) -> bool:
        """The client does not wait any more."""
        return self._parcel.promise.abandoned

    @abandoned.setter
    def abandoned(self, value: bool) -> None:
        """Nobody but the client says so."""


class Window:
    """What all lanes have under way to one other node, and those that stand in line for more room."""

    __slots__ = ("_line", "_publishes", "_size_bytes")

    def __init__(self) -> None:
        self._publishes = 0
        self._size_bytes = 0
        self._line: dict[Lane, None] = {}

    def has_room(self, lane: Lane, size_bytes: int) -> bool:
        """Whether a lane may send a publish of that size; if not, it stands in line, and is posted when it may."""
        fits = not self._publishes or self._size_bytes + size_bytes <= LINK_BYTES
        if fits and self._publishes < LINK_PUBLISHES and next(iter(self._line), lane) is lane:
            self._line.pop(lane, None)
            return True
        self._line[lane] = None
        return False

    def leave(self, lane: Lane) -> None:
        """It has nothing to send this way any more."""
        self._line.pop(lane, None)
        self._call()

    def sent(self, size_bytes: int) -> None:
        """A publish is under way."""
        self._publishes += 1
        self._size_bytes += size_bytes
        self._call()

    def ended(self, size_bytes: int) -> None:
        """It is not any more."""
        self._publishes -= 1
        self._size_bytes -= size_bytes
        self._call()

    def _call(self) -> None:
        """Whoever is first in line looks again. It leaves the line then, unless it still has no room."""
        if self._line:
            next(iter(self._line)).post(None, always=True)


class Lane(Actor):
    """The publishes of this node's clients to one partition."""

    def __init__(self, lanes: Lanes, group: int, name: str) -> None:
        super().__init__(lanes.host, f"lane/{name}")
        self._lanes = lanes
        self._group = group
        self._partition_name = name
        self._number = 0
        self._parcels: OrderedDict[int, Parcel] = OrderedDict()  # all that are not answered, by number
        self._waiting: OrderedDict[int, Parcel] = OrderedDict()  # those of them that are not under way
        self._under_way_bytes = 0
        self._target = 0
        """The node that all under way were sent to; 0: none."""
        self._term = 0
        """In which it leads, as far as is known."""
        self._stream = 0
        self._place = 0
        self._turning_back = False
        """Something has come back: nothing more is sent to this target."""
        self._in_line: Window | None = None
        """Where it waits for room."""
        self._search: Search | None = None
        self._seeking_ns = 0

    def __len__(self) -> int:
        return len(self._parcels)

    def offer(self, parcel: Parcel) -> None:
        """Take a publish up; its promise is kept for its client."""
        if self.stopped:
            parcel.promise.reject(NotFound(f"{self._partition_name} was deleted; nothing was stored"))
        elif len(self._parcels) >= LANE_PUBLISHES_MAX:
            parcel.promise.reject(self._full())
        elif self._lanes.is_short_of_memory and not self._lanes.replicas.leads(self._group):
            parcel.promise.reject(
                Overloaded(
                    f"this node, which does not lead {self._partition_name}, is short of memory; the batch was "
                    "not stored; try again, or by way of another node",
                    reason="memory",
                    retry_after_ms=MEMORY_RETRY_MS,
                )
            )
        else:
            self._number += 1
            parcel.number = self._number
            self._parcels[parcel.number] = self._waiting[parcel.number] = parcel
            self._pump()

    def client_gone(self, client: str) -> None:
        """Nobody waits for that client's publishes any more: none of them is sent again. The client itself may do
        that, by way of another node; a repetition from here could come behind what it sends there next."""
        mine = [parcel for parcel in self._parcels.values() if parcel.client == client]
        for parcel in mine:
            parcel.promise.abandon()
            if parcel.attempt is None:
                self._end(parcel)
                parcel.promise.reject(_left())
        if not any(parcel.attempt is not None for parcel in mine):
            return
        if self._target == self._lanes.node_id:
            partition = self._lanes.replicas.partition_of(self._group)
            if partition is not None:
                partition.post(ClientGone(client), always=True)
        else:
            head = [CLIENT_GONE, self._group, self._lanes.owner(client)]
            self._lanes.peers.ask(self._target, CHANNEL, head, timeout_ms=CLIENT_GONE_MS)

    def handle(self, messages: list[Any]) -> None:
        """The time for another try has come, there may be room on the link, or somebody's time is over."""
        window, self._in_line = self._in_line, None
        if self._target:
            self._refuse_late()
        self._pump()
        if window is not None and self._in_line is not window:
            window.leave(self)

    def close(self) -> None:
        """The partition is deleted, or the node closes."""
        self.stop()
        if self._in_line is not None:
            self._in_line.leave(self)
        for parcel in list(self._parcels.values()):
            parcel.attempt = None
            self._end(parcel)
            parcel.promise.reject(NotFound(f"{self._partition_name} was deleted; nothing was stored"))

    # sending

    def _pump(self) -> None:
        """Send what can be sent, in order."""
        if self._turning_back or self.stopped:
            return
        if self._waiting and not self._target and not self._choose():
            return
        while self._waiting and self._target and not self._turning_back:
            parcel = next(iter(self._waiting.values()))
            if not self._has_room(parcel):
                if self.alarm_ns is None:
                    self.host.alarm(self._lanes.now_ns() + LANE_LOOK_MS * NS_PER_MS, self, None)
                return
            del self._waiting[parcel.number]
            self._send(parcel)

    def _has_room(self, parcel: Parcel) -> bool:
        if parcel.number - next(iter(self._parcels)) >= ORIGIN_WINDOW:
            return False
        if self._target == self._lanes.node_id:
            return True
        if self._under_way_bytes and self._under_way_bytes + parcel.size_bytes > LANE_BYTES_UNDER_WAY:
            return False
        window = self._lanes.window(self._target)
        if self._in_line not in (None, window):
            self._in_line.leave(self)
        self._in_line = None if window.has_room(self, parcel.size_bytes) else window
        return self._in_line is None

    def _send(self, parcel: Parcel) -> None:
        attempt = Attempt(parcel)
        parcel.attempt = attempt
        self._under_way_bytes += parcel.size_bytes
        lanes, incarnation, now_ns = self._lanes, self._lanes.incarnation, self._lanes.now_ns()
        attempt.then(partial(self._answered, parcel))
        if self._target == lanes.node_id:
            origin = (incarnation, parcel.number)
            publish = Publish(
                parcel.batch, parcel.header, parcel.client, origin, attempt, wait_ms=parcel.wait_left_ms(now_ns)
            )
            post(lanes.replicas, self._group, publish, attempt)
            return
        if self._under_way == 1:  # a stream lasts no longer than something is under way
            self._stream, self._place = self._stream + 1, 0
        place, self._place = self._place, self._place + 1
        head = [PUBLISH, self._group, self._term, incarnation, parcel.number, self._stream, place, parcel.client]
        head.append(parcel.wait_left_ms(now_ns))
        left_ms = PUBLISH_MS - (now_ns - parcel.arrived_ns) // NS_PER_MS
        window = lanes.window(self._target)
        window.sent(parcel.size_bytes)
        asked = lanes.peers.ask(self._target, CHANNEL, head, [parcel.batch], max(left_ms, SEARCH_MS))
        asked.then(lambda _: window.ended(parcel.size_bytes))
        asked.then(partial(_read, attempt))

    def _answered(self, parcel: Parcel, attempt: Promise[Published]) -> None:
        if parcel.attempt is not attempt:
            return
        parcel.attempt = None
        self._under_way_bytes -= parcel.size_bytes
        error = attempt.error
        if error is None:
            self._search = None
            self._end(parcel)
            parcel.promise.resolve(attempt.result())
        elif not passes(error):
            self._search = None
            self._end(parcel)
            parcel.promise.reject(error)
        else:
            assert isinstance(error, PlaitError), "others do not pass"
            self._came_back(parcel, error)
        if self._turning_back and not self._under_way:
            self._turn_back()
        self._pump()

    @property
    def _under_way(self) -> int:
        return len(self._parcels) - len(self._waiting)

    def _refuse_late(self) -> None:
        """Those that were not sent within the time that they may wait: so many others of this lane wait."""
        now_ns = self._lanes.now_ns()
        late = [each for each in self._waiting.values() if not each.doubtful and not each.wait_left_ms(now_ns)]
        for parcel in late:
            self._end(parcel)
            parcel.promise.reject(self._full())

    def _full(self) -> Overloaded:
        return Overloaded(
            f"too many publishes to {self._partition_name} wait on this node; the batch was not stored; try again",
            reason="lane",
            retry_after_ms=LANE_RETRY_MS,
        )

    # when the leader is another one

    def _came_back(self, parcel: Parcel, error: PlaitError) -> None:
        """It was not taken, or nobody knows: it goes again when all others have come back or are answered."""
        parcel.doubtful |= error.unknown
        if parcel.promise.abandoned:
            self._end(parcel)
            parcel.promise.reject(_left())
        else:
            self._waiting[parcel.number] = parcel
        target = self._target
        if not self._turning_back:
            self._turning_back = True
            self._end_stream()
            if target != self._lanes.node_id and not isinstance(error, Overloaded):
                self._lanes.leaders.failed(self._group, target)
        if isinstance(error, NotLeader) and target != self._lanes.node_id:
            self._lanes.leaders.refused(self._group, target, error)

    def _end_stream(self) -> None:
        """What is under way still may wait there for one that never arrives: it is to come back as well."""
        if self._under_way and self._target != self._lanes.node_id:
            head = [END_STREAM, self._group, self._lanes.incarnation, self._stream + 1]
            self._lanes.peers.ask(self._target, CHANNEL, head, timeout_ms=CLIENT_GONE_MS)
            self._stream += 1

    def _turn_back(self) -> None:
        """Nothing is under way any more: line everything up again."""
        self._turning_back = False
        self.host.call_off(self)
        known = self._lanes.leaders.leader(self._group)
        elsewhere = (
            self._target != self._lanes.node_id
        )  # what is refused here, as while it is handed over, is news
        newer = known is not None and known.node_id == self._target and known.term > self._term
        if elsewhere and newer and self._search is not None:
            self._search.retract(self._target)
        self._target = 0
        self._waiting = OrderedDict(sorted(self._waiting.items()))

    def _choose(self) -> bool:
        """Find somebody to send to; False: there is nobody now."""
        lanes, leaders = self._lanes, self._lanes.leaders
        now_ns = lanes.now_ns()
        if self._search is None:
            self._search, self._seeking_ns = Search(), now_ns
        elif self.alarm_ns is not None:
            return False  # it rests
        if lanes.replicas.leads(self._group):
            known, term = lanes.node_id, 0
        else:
            leader = leaders.leader(self._group)
            known, term = (leader.node_id, leader.term) if leader is not None else (0, 0)
        others = leaders.replicas(self._group)
        step = self._search.next(known, others or [lanes.node_id])  # whoever is alone can say why it does not lead
        here = lanes.replicas.leads(self._group) or not others
        if isinstance(step, Ask) and (step.node != lanes.node_id or here):
            self._target, self._term = step.node, term if step.node == known else 0
            return True
        self._give_up(now_ns)
        if self._waiting:
            rest_ms = step.rest_ms if isinstance(step, Rest) else 0
            self.host.alarm(now_ns + rest_ms * NS_PER_MS, self, None)
        else:
            self._search = None
        return False

    def _give_up(self, now_ns: int) -> None:
        """Tell those whose time is over; all of them, when the partition is deleted."""
        deleted = self._lanes.is_deleted(self._group)
        for parcel in list(self._waiting.values()):
            began_ns = max(parcel.arrived_ns, self._seeking_ns)
            if deleted:
                error: PlaitError = NotFound(f"{self._partition_name} was deleted; nothing was stored")
            elif now_ns - began_ns >= SEARCH_MS * NS_PER_MS:
                error = told(nobody(self._group))
            else:
                continue
            self._end(parcel)
            parcel.promise.reject(self._lost() if parcel.doubtful else error)

    def _lost(self) -> OutcomeUnknown:
        return OutcomeUnknown(
            f"{self._partition_name} lost its leader while the batch was under way, and no other was found: "
            "it may or may not be stored; an idempotent producer may send it again"
        )

    def _end(self, parcel: Parcel) -> None:
        del self._parcels[parcel.number]
        self._waiting.pop(parcel.number, None)


class Lanes:
    """Of one node."""

    def __init__(
        self,
        host: Host,
        leaders: Leaders,
        replicas: Replicas,
        is_deleted: Callable[[int], bool],
        peers: Peers,
        incarnation: int,
        pressure: NodePressure,
    ) -> None:
        """`incarnation`: see node/origins.py."""
        self.host = host
        self.leaders = leaders
        self.replicas = replicas
        self.is_deleted = is_deleted
        self.peers = peers
        self.incarnation = incarnation
        self._pressure = pressure
        self.node_id = leaders.node_id
        self._lanes: dict[int, Lane] = {}
        self._windows: dict[int, Window] = {}

    def offer(
        self,
        group: int,
        name: str,
        batch: Buffer,
        header: BatchHeader,
        client: str,
        wait_ms: int = PUBLISH_WAIT_MS,
    ) -> Promise[Published]:
        """Have a batch stored in a partition; `name` is for people."""
        lane = self._lanes.get(group)
        if lane is None:
            lane = self._lanes[group] = Lane(self, group, name)
        parcel = Parcel(batch, header, client, self.now_ns(), wait_ms)
        lane.offer(parcel)
        return parcel.promise

    def client_gone(self, client: str) -> None:
        """A client's connection has ended."""
        for lane in self._lanes.values():
            if len(lane):
                lane.client_gone(client)

    def forget(self, group: int) -> None:
        """A partition was deleted."""
        lane = self._lanes.pop(group, None)
        if lane is not None:
            lane.close()

    def window(self, node: int) -> Window:
        """What is under way to a node."""
        window = self._windows.get(node)
        if window is None:
            window = self._windows[node] = Window()
        return window

    @property
    def is_short_of_memory(self) -> bool:
        """This node is: it takes nothing on its way to another one. What is led here, admission decides about."""
        return self._pressure.memory_percent >= 100

    @property
    def under_way(self) -> int:
        """Publishes that are not answered."""
        return sum(len(lane) for lane in self._lanes.values())

    def owner(self, client: str) -> str:
        """What the client is called at a leader on another node."""
        return client_of(self.node_id, self.incarnation & 0xFFFFFFFF, client)

    def now_ns(self) -> int:
        """The time."""
        return self.host.clock.monotonic_ns()


def _left() -> Closed:
    return Closed("the client is gone; its publish was not stored, or nobody knows")


def _read(attempt: Promise[Published], done: Promise[Heard]) -> None:
    if done.error is not None:
        attempt.reject(done.error)
    else:
        attempt.resolve(Published(*done.result()[0]))

"""`Peers`: a node's links to the other nodes of its cluster, and the door at which they knock.

group ── send ──> PeerLink (link.py) ──> node                 node ──> PeerLink ──> receive ──> group
anyone ── ask ──>                                             node ──> serve(channel) ──> anyone
News (news.py) ── node_up, node_down, unreachable, wake ──> groups
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import structlog
import trio

from plait.wire.errors import PlaitError, Unavailable
from replication.actor import Host, MailboxFull, Promise, rejected
from replication.environment import Buffer, Environment
from replication.peers.beats import Sleepers
from replication.peers.campaigns import Campaigns
from replication.peers.channels import Answer, Heard
from replication.peers.connection import Connection, hear_word, say_no, say_word
from replication.peers.counters import Counters
from replication.peers.joining import Join, Joined, challenge_word, is_join, read_join
from replication.peers.line import Line
from replication.peers.link import NS_PER_MS, PeerLink
from replication.peers.lives import Life
from replication.peers.news import GroupMember, News
from replication.peers.proof import ACCEPTOR, ClusterKey, Proofs
from replication.peers.protocol import (
    FORGOTTEN,
    OLDER_LIFE,
    Hearing,
    Hello,
    Identity,
    Refusal,
    Told,
    Welcome,
    judge_hello,
    read_confirm,
    read_hello,
)
from replication.peers.settings import PeerSettings
from replication.raft.messages import Message

_logger = structlog.get_logger("plait.peers")

ACCEPT_BACKOFF_MS = 100
"""Milliseconds without accepting after the machine refused a connection (no file descriptors, no memory)."""
PROCESS_BITS = 62
"""Size of the number that a process draws for itself."""

Handler = Callable[[int, list[Any], memoryview], Promise[Answer]]
"""Answers a question of a node: (node, head, payload) to a promise of (head, payload)."""


class Peers:
    """Links to the other nodes of the cluster. Nothing here waits for a node: what cannot be sent is dropped."""

    def __init__(
        self,
        environment: Environment,
        host: Host,
        identity: Identity,
        settings: PeerSettings | None = None,
        key: ClusterKey | None = None,
    ) -> None:
        """`key`: what the nodes of this cluster prove to each other that they have; None: nothing is proven."""
        self.environment = environment
        self.identity = identity
        self.settings = settings or PeerSettings()
        self.counters = Counters()
        self.process = environment.random.getrandbits(PROCESS_BITS)
        self.lives: dict[int, Life] = {}
        """The last life seen of each node; whoever keeps it over restarts fills it in first."""
        self.keep: Callable[[int, Life], Awaitable[None]] = _keep_nothing
        """Awaited before a node is let in in a life that was not seen: it is remembered for good on return."""
        self.members_only = False
        """Whether nodes are turned away to which no link was asked for, and which are none that may be new."""
        self.on_outlived: Callable[[str], None] = lambda sentence: None
        """Called with the sentence when a node that was dialled says that this one's disk is an older one."""
        self.on_forgotten: Callable[[str], None] = lambda sentence: None
        """The same when it says that this one was removed from the cluster."""
        self.let_in: Callable[[Join], Awaitable[Joined]] = _let_nobody_in
        """Awaited for whoever has no id yet, and wants to be a node of this cluster. Raises Refusal."""
        self.on_node: list[Callable[[int, bool], None]] = []
        """Called with every node that comes up or goes down, in the moment in which that is seen."""
        self.refusals: dict[int, str] = {}
        """Why there is no link to a node, for people: the last refusal's sentence, until it is connected."""
        self._key = key
        self._host = host
        self._links: dict[int, PeerLink] = {}
        self._members: dict[int, GroupMember] = {}
        self._news = News(host, self._members)
        self._handlers: dict[str, Handler] = {}
        self._forgotten: dict[int, None] = {}
        self._sleepers: dict[int, tuple[Sleepers, Sleepers]] = {}  # node: led here, led there
        self._asleep: dict[int, list[Sleepers]] = {}  # group: where it is counted
        self._line = Line(host, Campaigns(self.settings.campaigns_max, self.settings.campaign_ms * NS_PER_MS))
        self._listeners: list[trio.abc.Listener[trio.abc.Stream]] = []
        self._accepting = trio.CancelScope()
        self._knocking: OrderedDict[int, trio.CancelScope] = OrderedDict()  # oldest first
        self._knocks = 0
        self._welcome_now: dict[tuple[int, str], int] = {}  # (node, kind): how many wait for their CONFIRM

    # the door

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """Let other nodes connect; the (host, port) that they can use. Raises OSError."""
        listeners = await self.environment.network.listen(host, port)
        self._listeners += listeners
        for listener in listeners:
            self.environment.tasks.spawn("peers accept", self._accept, listener)
        return self.environment.network.address_of(listeners[0])

    async def close(self) -> None:
        """End everything: first the door, so that those who dial again find that this node is gone."""
        self._accepting.cancel()
        with trio.CancelScope(shield=True):  # closing does not wait, and all of them must be closed
            for listener in self._listeners:
                await listener.aclose()
        for scope in list(self._knocking.values()):
            scope.cancel()
        for node in sorted(self._links):
            self._links.pop(node).stop()
        self._news.stop()
        self._line.stop()

    # nodes

    def connect_to(self, node: int, host: str, port: int) -> None:
        """Keep up a link to that node from now on, by way of that address (a new one replaces the old one)."""
        assert node != self.identity.node_id, "a node has no link to itself"
        self._forgotten.pop(node, None)
        link = self._links.get(node) or self._new_link(node)
        link.connect_to((host, port))

    def forget(self, node: int) -> None:
        """The node is no part of the cluster any more: end the link, and refuse the node from now on."""
        self._forgotten[node] = None
        link = self._links.pop(node, None)
        if link is not None:
            link.stop()

    def is_up(self, node_id: int) -> bool:
        """The node was heard of within `silence_ms`. This node itself always is."""
        link = self._links.get(node_id)
        return link.up if link is not None else node_id == self.identity.node_id

    def nodes_up(self) -> list[int]:
        """All of them, in order, without this one."""
        return sorted(node for node, link in self._links.items() if link.up)

    def link(self, node_id: int) -> PeerLink:
        """The link to a node, for a look at it. Raises KeyError for a node that is not known."""
        return self._links[node_id]

    def nodes_known(self) -> list[int]:
        """The nodes to which there is a link, up or not, in order."""
        return sorted(self._links)

    def bytes_total(self) -> tuple[int, int]:
        """(sent, received) since the start, on all connections."""
        now = [link.bytes_now() for link in self._links.values()]
        counters = self.counters
        return (
            counters.bytes_sent + sum(sent for sent, _ in now),
            counters.bytes_received + sum(received for _, received in now),
        )

    @property
    def knocking(self) -> int:
        """Connections that have not said who they are yet."""
        return len(self._knocking)

    # groups

    def add(self, member: GroupMember) -> None:
        """Messages for the group go to this member from now on, and it is told which nodes are silent now."""
        self._members[member.group] = member
        for node, link in self._links.items():
            if not link.up:
                member.node_down(node)

    def remove(self, group: int) -> None:
        """The group has no replica here any more."""
        self._members.pop(group, None)
        self.awake(group)
        self.campaign_over(group)

    def send(self, group_id: int, node_id: int, message: Message) -> None:
        """Have a message sent to the group's replica on that node, with the end of this turn; or it is dropped."""
        link = self._links.get(node_id)
        if link is None:
            self.counters.dropped_down += 1
        else:
            link.send(group_id, message)

    def asleep(self, group: int, term: int, leader_node: int, follower_nodes: Iterable[int]) -> None:
        """The replica fell asleep. On the leader's node, `follower_nodes` are those that agreed.

        Both sides' counts are compared with every beat; a group that sleeps on one side only is woken (`wake`).
        """
        self.awake(group)
        mine = self.identity.node_id
        if leader_node == mine:
            places = [self._sleepers_with(node)[0] for node in follower_nodes if node != mine]
        else:
            places = [self._sleepers_with(leader_node)[1]]
        for sleepers in places:
            sleepers.add(group, term)
        self._asleep[group] = places

    def awake(self, group: int) -> None:
        """The replica sleeps no more. To be called whenever it wakes, for whatever reason."""
        for sleepers in self._asleep.pop(group, ()):
            sleepers.discard(group)

    def may_campaign(self, group: int, turn: Callable[[], None]) -> bool:
        """Whether the group may campaign now. False: it stands in line, and `turn` is called when it may.

        Either way it has a place then, until `campaign_over`, or until `campaign_ms` have passed.
        """
        may = self._line.may_start(group, turn)
        self.counters.campaigns += may
        return may

    def campaign_over(self, group: int) -> None:
        """The group knows a leader, leads, or gave up: it neither needs its place nor stands in line."""
        self._line.ended(group)

    # channels

    def serve(self, channel: str, handler: Handler) -> None:
        """Have questions on that channel answered. The handler returns at once; what it raises is answered too."""
        self._handlers[channel] = handler

    def ask(
        self, node_id: int, channel: str, head: list[Any], payload: Sequence[Buffer] = (), timeout_ms: int = 10_000
    ) -> Promise[Heard]:
        """Ask a node; a promise of (head, payload). Raises BadRequest for what can never be sent.

        Rejected with Unavailable if the question was not sent whole, OutcomeUnknown if it was and no answer came,
        Overloaded beyond what may be outstanding, and whatever the other side rejects it with. Buffers of the
        payload must not change until the promise is done.
        """
        link = self._links.get(node_id)
        if link is None:
            return rejected(Unavailable(f"node {node_id} is not known here; nothing was done"))
        return link.ask(channel, head, payload, timeout_ms)

    # what links ask (link.Household)

    def proofs(self, role: str) -> Proofs:
        """See link.Household."""
        return Proofs(self._key, role, self.environment.random)

    def seen(self, node: int) -> Life:
        """See link.Household."""
        return self.lives.get(node, Life(0))

    async def meet(self, who: Identity) -> None:
        """See dialling.House."""
        if self.seen(who.node_id) == who.life:
            return
        try:
            await self.keep(who.node_id, who.life)
        except OSError as error:
            raise Refusal("disk", f"this node's disk cannot keep that it met you: {error}") from error

    def is_welcome(self, node: int, kind: str) -> bool:
        """See link.Household."""
        return (node, kind) in self._welcome_now

    def saw(self, node: int, life: Life) -> None:
        """See link.Household."""
        self.refusals.pop(node, None)
        self.lives[node] = life

    def node_changed(self, node: int, up: bool) -> None:
        """See link.Household."""
        self._news.node_changed(node, up)
        for told in self.on_node:
            told(node, up)

    def deliver(self, node: int, group: int, message: Message) -> None:
        """See link.Household."""
        member = self._members.get(group)
        if member is None:
            self.counters.unknown_group += 1
            return
        try:
            member.receive(node, message)
        except MailboxFull:
            self.counters.mailbox_full += 1

    def unreachable(self, node: int, groups: Sequence[int]) -> None:
        """See link.Household."""
        self._news.unreachable(node, groups)

    def wake(self, groups: Sequence[int]) -> None:
        """See link.Household."""
        self._news.wake(groups)

    def answer(self, node: int, channel: str, head: list[Any], payload: memoryview) -> Promise[Answer]:
        """See link.Household."""
        handler = self._handlers.get(channel)
        if handler is None:
            return rejected(
                Unavailable(f"node {self.identity.node_id} does not serve {channel!r}; nothing was done")
            )
        try:
            return handler(node, head, payload)
        except PlaitError as error:
            return rejected(error)
        except Exception as error:  # a defect of one handler must not end the link and all that goes over it
            _logger.error("question not answered", node=node, channel=channel, exc_info=error)
            return rejected(error)

    def refused(self, node: int, refusal: Refusal) -> None:
        """See link.Household."""
        self.counters.handshakes_refused += 1
        if self.refusals.get(node) != refusal.sentence:
            self.refusals[node] = refusal.sentence
            _logger.error("no link to node", node=node, code=refusal.code, why=refusal.sentence)
        if isinstance(refusal, Told) and refusal.believed:
            if refusal.code == OLDER_LIFE:
                self.on_outlived(refusal.sentence)
            elif refusal.code == FORGOTTEN:
                self.on_forgotten(refusal.sentence)

    # those who knock

    async def _accept(self, listener: trio.abc.Listener[trio.abc.Stream]) -> None:
        clock = self.environment.clock
        with self._accepting:
            while True:
                try:
                    stream = await listener.accept()
                except OSError as error:  # the machine has no room now; those that wait stay in the queue
                    self.counters.accept_errors += 1
                    _logger.warning("cannot accept a node", error=str(error))
                    await clock.sleep_until(clock.monotonic_ns() + ACCEPT_BACKOFF_MS * NS_PER_MS)
                    continue
                except trio.ClosedResourceError:
                    return
                self._knocks += 1
                scope = self._knocking[self._knocks] = trio.CancelScope()
                if len(self._knocking) > self.settings.handshakes_max:
                    self._push_out()
                self.environment.tasks.spawn("peer knocks", self._meet, stream, self._knocks, scope)

    def _push_out(self) -> None:
        """The oldest goes: who means well is done with its handshake in a moment."""
        _, scope = self._knocking.popitem(last=False)
        scope.cancel()

    async def _meet(self, stream: trio.abc.Stream, number: int, scope: trio.CancelScope) -> None:
        met: tuple[PeerLink, Connection] | None = None
        try:
            with scope, trio.move_on_after(self.settings.handshake_ms / 1_000) as limit:
                met = await self._shake_hands(stream)
            self.counters.handshakes_late += scope.cancelled_caught or limit.cancelled_caught
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it left, which is its right
        finally:
            self._knocking.pop(number, None)
            if met is None:
                await trio.aclose_forcefully(stream)
        if met is not None:
            link, connection = met
            await link.run(connection)

    async def _shake_hands(self, stream: trio.abc.Stream) -> tuple[PeerLink, Connection] | None:
        hearing, proofs = Hearing(), self.proofs(ACCEPTOR)
        try:
            # its proof comes before anything that a stranger could learn or leave something by
            hello = await hear_word(stream, hearing, proofs, _read_first)
            if isinstance(hello, Join):
                await self._let_in(stream, hello, hearing, proofs)
                return None
            version = self._judge(hello)
            await self.meet(hello.identity)
            await self._welcome(stream, hello, version, hearing, proofs)
            return self._take(stream, hello, hearing)
        except Refusal as refusal:
            self.counters.handshakes_refused += 1
            _logger.info("handshake refused", code=refusal.code, why=refusal.sentence)
            if not isinstance(refusal, Told):
                await say_no(stream, refusal, proofs)
            return None

    async def _let_in(self, stream: trio.abc.Stream, join: Join, hearing: Hearing, proofs: Proofs) -> None:
        """A JOIN may be a copy: nothing is done for it before the newcomer has shown that it is there."""
        await say_word(stream, proofs, challenge_word())
        await hear_word(stream, hearing, proofs, read_confirm)
        joined = await self.let_in(join)
        await say_word(stream, proofs, joined.word())

    def _judge(self, hello: Hello) -> int:
        node = hello.identity.node_id
        version = judge_hello(hello, self.identity, self.seen(node))
        if node in self._forgotten:
            raise Refusal(
                FORGOTTEN,
                f"node {node} was removed from this cluster: it cannot come back as it was; "
                "with an empty data directory it can --join as a new node",
            )
        link = self._links.get(node)
        if link is not None:
            link.diallers[hello.kind].may_greet()
        elif self.members_only and not self._may_be_new(node):
            known = ", ".join(str(each) for each in sorted([*self._links, self.identity.node_id]))
            raise Refusal("stranger", f"this cluster has the nodes {known}, and you are node {node}")
        return version

    def _may_be_new(self, node: int) -> bool:
        """Ids are given in their order: that one may have joined since this node last heard who there is. If it
        leads by now, nobody but it could tell."""
        asked_for = (other for other, link in self._links.items() if link.address is not None)
        return node > max(self.identity.node_id, *asked_for, *self._forgotten, 0)

    async def _welcome(
        self, stream: trio.abc.Stream, hello: Hello, version: int, hearing: Hearing, proofs: Proofs
    ) -> None:
        who = (hello.identity.node_id, hello.kind)
        self._welcome_now[who] = self._welcome_now.get(who, 0) + 1
        try:
            await say_word(stream, proofs, Welcome(version, self.identity, self.process).word())
            await hear_word(stream, hearing, proofs, read_confirm)
        finally:
            self._welcome_now[who] -= 1
            if not self._welcome_now[who]:
                del self._welcome_now[who]
            link = self._links.get(hello.identity.node_id)
            if link is not None:
                link.diallers[hello.kind].wake()

    def _take(self, stream: trio.abc.Stream, hello: Hello, hearing: Hearing) -> tuple[PeerLink, Connection]:
        who = hello.identity
        if who.node_id in self._forgotten:
            raise Refusal(FORGOTTEN, f"node {who.node_id} was removed from this cluster")
        link = self._links.get(who.node_id) or self._stranger(who.node_id)
        connection = Connection(hello.kind, stream, hearing.reader, self.environment.clock, self.settings.stall_ms)
        link.adopt(connection, who, hello.process)
        return link, connection

    # bookkeeping

    def _new_link(self, node: int) -> PeerLink:
        link = self._links[node] = PeerLink(self._host, node, self, *self._sleepers_with(node))
        return link

    def _stranger(self, node: int) -> PeerLink:
        """A link to a node that comes by itself, in the place of such that are gone. Raises Refusal."""
        if len(self._links) >= self.settings.peers_max:
            for other, link in list(self._links.items()):
                if link.address is None and not link.up:
                    del self._links[other]
                    link.stop()
                    if not any(sleepers.terms for sleepers in self._sleepers[other]):
                        del self._sleepers[other]
        if len(self._links) >= self.settings.peers_max:
            raise Refusal("too_many", f"this node has links to {len(self._links)} nodes, which is its limit")
        return self._new_link(node)

    def _sleepers_with(self, node: int) -> tuple[Sleepers, Sleepers]:
        found = self._sleepers.get(node)
        if found is None:
            found = self._sleepers[node] = (Sleepers(), Sleepers())
        return found


def _read_first(word: list[Any]) -> Hello | Join:
    return read_join(word) if is_join(word) else read_hello(word)


async def _let_nobody_in(join: Join) -> Joined:
    raise Refusal("busy", "this node is not a member of its cluster yet: ask again, or another one")


async def _keep_nothing(node: int, life: Life) -> None:
    """For those who need not know it after their end."""

"""Questions to whoever leads: answered here, or asked of the node that does, wherever that is by then.

    Routes.ask(group, question) ──leads here──> this node's replica ──refused──┐
                                └─known─> the node that leads ──refused, gone──┤
                                                                               v
                     answer <── whoever leads by now <── search: hint, leader, replicas in turn, rest, again

    Routes.ask_nearest(group, question) ──> this node's replica, if it may answer ──> answer
                                            else as above

The first try costs no task; only what has to be looked for gets one, which ends with an answer or after SEARCH_MS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from cluster.routing import SEARCH_MS, Rest, Search
from node.door import CHANNEL
from node.leaders import Leaders
from node.questions import FetchFrom, Place, Question, not_here
from node.readers import Fetched
from plait.wire.errors import NotFound, NotLeader, OutcomeUnknown, Overloaded, PlaitError, Unavailable
from replication.actor import Promise
from replication.environment import Clock, Tasks
from replication.peers.channels import Heard
from replication.peers.peers import Peers

T = TypeVar("T")
ANSWER_MS = 5_000
"""How long a node may take to answer a question, beside what it waits for on purpose."""
NS_PER_MS = 1_000_000


class Elsewhere(Promise[T]):
    """A promise whose first refusal that says nothing but "not here" is not the end."""

    __slots__ = ("_nearest", "_otherwise")

    def __init__(
        self,
        otherwise: Callable[[Elsewhere[T], PlaitError], None],
        nearest: Callable[[Elsewhere[T]], None] | None = None,
    ) -> None:
        """`nearest`: whoever is asked before all others may refuse with anything; that is what is done then."""
        super().__init__()
        self._otherwise: Callable[[Elsewhere[T], PlaitError], None] | None = otherwise
        self._nearest = nearest

    def reject(self, error: Exception) -> None:
        """Give an error as the answer, or look elsewhere."""
        nearest, self._nearest = self._nearest, None
        if nearest is not None and not self.done and isinstance(error, PlaitError):
            nearest(self)
            return
        otherwise, self._otherwise = self._otherwise, None
        if otherwise is not None and not self.done and passes(error):
            assert isinstance(error, PlaitError)
            otherwise(self, error)
        else:
            super().reject(error)


def passes(error: Exception | None) -> bool:
    """Whether somebody else, or the same one a little later, may answer what was refused so."""
    if isinstance(error, Overloaded):
        return error.details.get("reason") == "asks"  # of a link, not of a partition
    if isinstance(error, OutcomeUnknown):
        return not error.details.get("forgotten")
    return isinstance(error, NotLeader | Unavailable)


class Routes:
    """Of one node."""

    def __init__(
        self,
        leaders: Leaders,
        place: Place,
        leads: Callable[[int], bool],
        is_deleted: Callable[[int], bool],
        peers: Peers,
        tasks: Tasks,
        clock: Clock,
    ) -> None:
        self.leaders = leaders
        self._place = place
        self._leads = leads
        self._is_deleted = is_deleted
        self._peers = peers
        self._tasks = tasks
        self._clock = clock
        self.stopped = False

    def stop(self) -> None:
        """The node ends: nobody is looked for any more."""
        self.stopped = True

    def ask(self, group: int, question: Question[T]) -> Promise[T]:
        """The answer of whoever leads the group; errors are those of the question, and NotLeader or Unavailable
        when nobody was found in time, OutcomeUnknown when no answer came."""
        promise: Elsewhere[T] = Elsewhere(partial(self._look, group, question))
        self._ask_leader(group, question, promise)
        return promise

    def ask_nearest(self, group: int, question: FetchFrom) -> Promise[Fetched]:
        """As `ask`, but this node's own replica answers as far as it can, also while it follows."""
        promise: Elsewhere[Fetched] = Elsewhere(
            partial(self._look, group, question), partial(self._ask_leader, group, question)
        )
        if self._leads(group):
            promise.reject(not_here(group))
        else:
            replace(question, nearest=True).here(self._place, group, promise)
        return promise

    def _ask_leader(self, group: int, question: Question[T], promise: Elsewhere[T]) -> None:
        if self._leads(group):
            question.here(self._place, group, promise)
        else:
            self._send(self.leaders.node(group), group, question, promise)

    def _send(self, node: int, group: int, question: Question[T], promise: Promise[T]) -> None:
        if node in (0, self.leaders.node_id):
            promise.reject(nobody(group))
            return
        timeout_ms = ANSWER_MS + question.wait_ms
        head = [question.KIND, group, *question.words()]
        asked = self._peers.ask(node, CHANNEL, head, question.payload(), timeout_ms)
        asked.then(partial(self._heard, node, group, question, promise))
        promise.when_abandoned(asked.abandon)

    def _heard(
        self, node: int, group: int, question: Question[T], promise: Promise[T], done: Promise[Heard]
    ) -> None:
        error = done.error
        if error is None:
            promise.resolve(question.result(*done.result()))
            return
        if isinstance(error, NotLeader):
            self.leaders.refused(group, node, error)
        elif passes(error):
            self.leaders.failed(group, node)
        promise.reject(error)

    def _look(self, group: int, question: Question[T], promise: Elsewhere[T], error: PlaitError) -> None:
        if self.stopped or (error.unknown and not question.REPEATS):
            promise.reject(error)
        else:
            self._tasks.spawn(f"route/{group}", self._search, group, question, promise, error)

    async def _search(self, group: int, question: Question[T], promise: Promise[T], error: PlaitError) -> None:
        clock, search = self._clock, Search()
        deadline_ns = clock.monotonic_ns() + SEARCH_MS * NS_PER_MS
        while not promise.abandoned:
            step = search.next(self._known(group), self._others(group))
            if isinstance(step, Rest):
                await clock.sleep_until(clock.monotonic_ns() + step.rest_ms * NS_PER_MS)
                if self._is_deleted(group):
                    promise.reject(NotFound("it was deleted; nothing was done"))
                    return
                if clock.monotonic_ns() >= deadline_ns:
                    promise.reject(error if error.unknown else told(error))
                    return
                continue
            attempt: Promise[T] = Promise()
            promise.when_abandoned(attempt.abandon)
            if step.node == self.leaders.node_id:
                question.here(self._place, group, attempt)
            else:
                self._send(step.node, group, question, attempt)
            try:
                promise.resolve(await attempt.wait())
                return
            except PlaitError as refusal:
                if not passes(refusal) or (refusal.unknown and not question.REPEATS):
                    promise.reject(refusal)
                    return
                error = refusal

    def _known(self, group: int) -> int:
        return self.leaders.node_id if self._leads(group) else self.leaders.node(group)

    def _others(self, group: int) -> list[int]:
        """Who may be asked, though nothing says that they lead: not this node, which knows that it does not;
        unless it is the only one that could, and can say why it does not."""
        return self.leaders.replicas(group) or [self.leaders.node_id]


def nobody(group: int) -> NotLeader:
    """Nobody is known to lead."""
    return NotLeader(f"no leader of group {group} is known; nothing was done; try again", leader=0)


def told(error: PlaitError) -> PlaitError:
    """What a client is told in the end: another node may know more than this one."""
    details: dict[str, Any] = {"leader": 0, "searched_ms": SEARCH_MS}
    return NotLeader(
        f"nobody was found within {SEARCH_MS / 1_000:g} s who leads what was asked for; nothing was done; "
        f"ask another node or try again (the last refusal: {error.message})",
        **details,
    )

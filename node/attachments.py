"""The consumers of a queue, each in all partitions at once; in those, too, that the queue gets while they consume.

CONSUME ──> Attachment ── one Attending a partition ──> wherever that is led
                └─────── and one more for each partition that the catalogue comes to have
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cluster.catalogue import Catalogue
from node.attending import Attending
from node.entries import Command
from node.questions import SettleLeases
from node.routes import Routes
from node.shared import Settled
from plait.wire.errors import NotFound, PlaitError, Unavailable
from replication.actor import Promise, rejected

Make = Callable[[int, int, int], Attending]
"""A consumer of one partition: its number, its group, how many partitions there are."""


class Attachment:
    """One consumer's hold on all partitions of a queue or shared subscription."""

    def __init__(
        self,
        routes: Routes,
        attachments: Attachments,
        topic_id: int,
        subscription: str,
        make: Make,
        gone: Callable[[PlaitError], None],
    ) -> None:
        self.topic_id = topic_id
        self._routes = routes
        self._attachments = attachments
        self._subscription = subscription
        self._make = make
        self._gone = gone
        self._over = False
        self._attached = False
        self._paused = True
        self._members: list[Attending] = []  # in the order of the partitions

    def ended(self, error: PlaitError) -> None:
        """One partition serves it no more: it is over in all of them, and its owner is told, once."""
        if not self._over:
            self.detach()
            self._gone(error)

    def settle(
        self, partition: int, action: str, extend_ms: int, items: Sequence[tuple[int, int, int]]
    ) -> Promise[Settled]:
        """Say what became of leased records: (lease_id, first, last) each. Actions: ack, return, extend.

        `extend_ms` is the new length of an extended lease from now on, or the delay of a return.
        """
        if not 0 <= partition < len(self._members):
            return rejected(NotFound(f"there is no partition {partition}; nothing was settled"))
        command: list[Any]
        plain = [list(item) for item in items]
        match action:
            case "ack":
                command = [Command.ACK.value, self._subscription, plain]
            case "return":
                command = [Command.RETURN.value, self._subscription, plain, extend_ms]
            case _:
                command = [Command.EXTEND.value, self._subscription, plain, extend_ms]
        return self._routes.ask(self._members[partition].group, SettleLeases(command))

    async def attach(self, groups: Sequence[int]) -> Attachment:
        """Begin to consume, in all partitions or in none. Raises PlaitError."""
        self._attachments.add(self)
        self.grow(groups)
        try:
            for consumer in self._members:  # there may come to be more meanwhile
                await consumer.attach()
        except PlaitError:
            self.detach()
            raise
        self._attached = True
        self.resume()  # nothing is delivered before whoever attached has the attachment in hand
        return self

    def grow(self, groups: Sequence[int]) -> None:
        """These are the partitions by now: it consumes those, too, that it did not know."""
        for number in range(len(self._members), len(groups)):
            consumer = self._make(number, groups[number], len(groups))
            self._members.append(consumer)
            if self._attached:
                consumer.pause(self._paused)
                consumer.lost(Unavailable("the partition is new, and nobody was asked yet"))  # so it looks for it

    def pause(self) -> None:
        """Lease nothing more to this consumer until `resume`."""
        self._paused = True
        for consumer in self._members:
            consumer.pause(True)

    def resume(self) -> None:
        """Lease to this consumer again."""
        self._paused = False
        for consumer in self._members:
            consumer.pause(False)

    def detach(self) -> Promise[None]:
        """End it: what the consumer holds goes back to the queue."""
        self._over = True
        self._attachments.remove(self)
        done: Promise[None] = Promise()
        left = len(self._members)

        def one_done(_: Promise[None]) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                done.resolve(None)

        for consumer in self._members:
            consumer.end().then(one_done)
        return done


class Attachments:
    """All of this node's clients."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._all: dict[Attachment, None] = {}

    def add(self, attachment: Attachment) -> None:
        """It begins."""
        self._all[attachment] = None

    def remove(self, attachment: Attachment) -> None:
        """It is over."""
        self._all.pop(attachment, None)

    def look(self) -> None:
        """The catalogue may have more partitions now."""
        for attachment in list(self._all):
            topic = self._catalogue.topic_by_id(attachment.topic_id)
            if topic is not None:
                attachment.grow(topic.groups)

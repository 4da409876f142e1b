"""`plait consume`: print the messages of a queue or topic.

A message of a queue is acknowledged when it has been written to the output: if the reader of a pipe goes away,
what it did not get stays in the queue.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any

import trio
from cyclopts import Parameter

from plait import Client, Consumer, Queue, Reader, Received, Subscription
from plait.cli.lines import json_of
from plait.cli.options import Options
from plait.cli.session import usage, with_client
from plait.client.reader import Position
from plait.client.subscription import AUTO_COMMIT_S

PREFETCH_RECORDS = 500
"""Messages of a queue that are on lease at a time."""
PEEK_RECORDS_MAX = 10_000
"""Messages that --no-ack can show without --max: all are on lease until the end."""
QUIET_S = 0.25
"""Without a message for so long, the queue is asked whether any are left."""


def consume(
    target: str,
    /,
    *,
    follow: Annotated[bool, Parameter(negative="", name=["--follow", "-f"])] = False,
    max_: Annotated[int | None, Parameter(name=["--max", "-n"])] = None,
    subscription: str | None = None,
    from_: Annotated[str | None, Parameter(name="--from")] = None,
    group: Annotated[bool, Parameter(negative="")] = False,
    partition: int | None = None,
    no_ack: Annotated[bool, Parameter(negative="")] = False,
    nearest: Annotated[bool, Parameter(negative="")] = False,
    options: Options = Options(),  # noqa: B008 - frozen
) -> int:
    """Print the messages of a queue or topic, one on each line; stop when there is none left.

    Messages of a queue are acknowledged, and so gone, once they are printed.

    Parameters
    ----------
    target
        The queue or topic.
    follow
        Do not stop at the end: wait for more, until Ctrl-C.
    max_
        Stop after so many messages, and wait until there are that many.
    subscription
        Of a topic: go on where this subscription was, and remember where it got to.
    group
        Share the subscription's partitions with all others that read it with --group; implies --follow.
    from_
        Of a topic: beginning, end, an offset, or a time such as 2026-01-31T12:00:00Z. Default beginning.
    partition
        Of a topic: only this partition.
    no_ack
        Look without taking: the messages of a queue go back, a subscription stays where it was.
    nearest
        Of a topic: what the broker that is asked has itself, if it has a replica, however far behind the leader.
    """
    try:
        how: dict[str, Any] = {"from_": _position(from_) or "beginning", "nearest": nearest}
        _check(max_, subscription, partition, group)
    except ValueError as error:
        return usage(str(error))

    async def work(client: Client) -> None:
        printer = Printer(max_, options.json)
        if (await client.describe(target)).kind == "queue":
            queue = await client.queue(target, create=False)
            await _from_queue(queue, printer, endless=follow or max_ is not None, ack=not no_ack)
            return
        topic = await client.topic(target, create=False)
        to_end = not follow and max_ is None
        if subscription is None:
            await _from_topic(topic.read(partition=partition, to_end=to_end, **how), printer)
        else:
            reader = topic.subscribe(subscription, auto_commit_s=_every_s(no_ack), group=group, **how)
            await _from_subscription(reader, printer, to_end=to_end and not group)

    return with_client(options, work)


def _check(max_records: int | None, subscription: str | None, partition: int | None, group: bool) -> None:
    """Raises ValueError for what does not go together."""
    if max_records is not None and max_records < 1:
        raise ValueError("--max is at least 1")
    if subscription is not None and partition is not None:
        raise ValueError("a subscription reads all partitions: leave out --partition or --subscription")
    if group and subscription is None:
        raise ValueError("--group is for a subscription: name it with --subscription")


class Printer:
    """Writes messages to standard output until it has had enough."""

    def __init__(self, max_records: int | None, as_json: bool) -> None:
        self.left = max_records
        self._as_json = as_json
        self._out = sys.stdout.buffer

    def write(self, message: Received) -> None:
        """Print one message; it has left this process when this returns. Raises BrokenPipeError."""
        self._out.write((json_of(message) if self._as_json else message.value) + b"\n")
        self._out.flush()
        if self.left is not None:
            self.left -= 1

    @property
    def done(self) -> bool:
        """Whether as many as were wanted are printed."""
        return self.left == 0

    async def print_all(self, messages: AsyncIterator[Received]) -> None:
        """Print what comes, until it ends or enough is printed."""
        async for message in messages:
            self.write(message)
            if self.done:
                return


async def _from_queue(queue: Queue, printer: Printer, endless: bool, ack: bool) -> None:
    most = PREFETCH_RECORDS if ack else PEEK_RECORDS_MAX
    prefetch = most if printer.left is None else min(most, printer.left)
    async with queue.consume(prefetch=prefetch) as consumer:
        while not printer.done:
            message = None
            with trio.move_on_after(QUIET_S):
                message = await anext(consumer)
            if message is not None:
                printer.write(message)
                if ack:
                    message.ack_soon()
            elif not endless and await _is_drained(queue, consumer):
                return


async def _is_drained(queue: Queue, consumer: Consumer) -> bool:
    """Whether nothing is left that this consumer could still be given."""
    await consumer.flush()
    backlog = await queue.backlog()
    return backlog.records <= backlog.leased


async def _from_topic(reader: Reader, printer: Printer) -> None:
    async with reader:
        await printer.print_all(reader)


async def _from_subscription(reader: Subscription, printer: Printer, to_end: bool) -> None:
    async with reader:
        if to_end:
            await _up_to_now(reader, printer)
        else:
            await printer.print_all(reader)


def _every_s(no_ack: bool) -> float | None:
    return None if no_ack else AUTO_COMMIT_S


async def _up_to_now(reader: Subscription, printer: Printer) -> None:
    left = sum((await reader.lag()).values())
    while left > 0:
        printer.write(await anext(reader))
        left -= 1
        if left == 0:
            left = sum((await reader.lag()).values())


def _position(text: str | None) -> Position | None:
    if text is None or text in ("beginning", "end"):
        return text  # type: ignore[return-value]  # the two words, or nothing
    if text.isascii() and text.isdigit():
        return int(text)
    with suppress(ValueError):
        found = datetime.fromisoformat(text)
        return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    raise ValueError(f"--from is beginning, end, an offset or a time such as 2026-01-31T12:00:00Z, not {text!r}")
